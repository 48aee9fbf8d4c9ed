/* Reads the files of rules about logins: lines, words, complaints. */
#ifndef AUTH_LINES_H
#define AUTH_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/span.h"

/*
 * The whole of a regular file of at most `max` bytes without a NUL in it.
 * False: ret_why says why, with the path. ret_mode may be NULL.
 */
bool lines_read_file(const char *path, size_t max, struct buf *ret,
    mode_t *ret_mode, struct buf *ret_why);

/* Adds "file:line: text" to a list of errors, one a line; a list that has
 * become very long gets no longer. */
void lines_add_error(struct buf *why, const char *file, unsigned line,
    const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/*
 * The form of pg_hba.conf and pg_ident.conf. Blanks end a word. A comma ends
 * a word and promises another one for the same field. Quotes keep blanks,
 * commas and # in a word, "" in them is a quote. # begins a comment. A
 * backslash at the end of a line joins the next one to it.
 */
struct lines {
	const char *file;		/* borrowed, like the text */
	struct buf *why;		/* borrowed */
	unsigned line;			/* where the current one began */
	bool failed;			/* something was complained of */
	bool line_failed;		/* and in the current line */
	struct span text;		/* what has not been read */
	unsigned line_next;
	struct buf joined;		/* the current line */
	size_t at;			/* of what is not read of it */
	struct buf words;		/* its words, each with a NUL */
};

struct word {
	struct span text;		/* with a NUL; until the next line */
	bool quoted;			/* began with a quote: no keyword */
	bool goes_on;			/* a comma: the field has another one */
};

void lines_begin(struct lines *lines, const char *file, struct span text,
    struct buf *why);
void lines_finish(struct lines *lines);
/* The next line that has something on it. */
bool lines_next(struct lines *lines);
/* The line's next word. False: none is left, or it is malformed, which has
 * been complained of then. */
bool lines_next_word(struct lines *lines, struct word *ret);
void lines_complain(struct lines *lines, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
