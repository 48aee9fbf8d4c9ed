/*
 * Reads the files of rules about logins. A file with an error is refused as a
 * whole by whoever reads it, for a rule that is left out lets people in as
 * often as it keeps them out; so the reader goes on after an error only to
 * complain of all of them at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/lines.h"

#define WHY_BYTES 16384			/* then an error list is long enough */
#define ERROR_BYTES 512			/* of one error */

/* Reads up to the file's end, whatever size fstat() said. */
static bool
read_all(int fd, size_t max, struct buf *ret)
{
	ssize_t n;

	do {
		if (ret->len > max) {
			errno = EFBIG;
			return false;
		}
		if (!buf_reserve(ret, 4096)) {
			errno = ENOMEM;
			return false;
		}
		n = read(fd, ret->at + ret->len, ret->cap - ret->len);
		if (n > 0)
			ret->len += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	return n == 0;
}

bool
lines_read_file(const char *path, size_t max, struct buf *ret,
    mode_t *ret_mode, struct buf *ret_why)
{
	/* Not blocking: the path might be a pipe that nobody writes to. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	const char *why = NULL;
	struct stat about;

	if (fd < 0 || fstat(fd, &about) != 0)
		why = strerror(errno);
	else if (!S_ISREG(about.st_mode))
		why = "not a regular file";
	/* Room for all at once: a secret leaves no copies behind. */
	else if (about.st_size > 0 && (uintmax_t)about.st_size <= max &&
	    !buf_reserve(ret, (size_t)about.st_size + 4096))
		why = "out of memory";
	else if (!read_all(fd, max, ret))
		why = strerror(errno);
	else if (ret->len != 0 && memchr(ret->at, '\0', ret->len) != NULL)
		why = "holds a NUL byte";
	if (fd >= 0)
		close(fd);
	if (why != NULL) {
		lines_add_error(ret_why, path, 0, "%s", why);
		return false;
	}
	if (ret_mode != NULL)
		*ret_mode = about.st_mode;
	return true;
}

static void add_error(struct buf *why, const char *file, unsigned line,
    const char *fmt, va_list args) __attribute__((format(printf, 4, 0)));

static void
add_error(struct buf *why, const char *file, unsigned line, const char *fmt,
    va_list args)
{
	char text[ERROR_BYTES];

	if (why->len > WHY_BYTES)
		return;
	if (why->len != 0)
		buf_add_text(why, "\n");
	if (line != 0)
		buf_printf(why, "%s:%u: ", file, line);
	else
		buf_printf(why, "%s: ", file);
	vsnprintf(text, sizeof(text), fmt, args);
	buf_add_text(why, text);
	if (why->len > WHY_BYTES)
		buf_add_text(why, "\n(and there are more errors)");
}

void
lines_add_error(struct buf *why, const char *file, unsigned line,
    const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	add_error(why, file, line, fmt, args);
	va_end(args);
}

void
lines_complain(struct lines *lines, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	add_error(lines->why, lines->file, lines->line, fmt, args);
	va_end(args);
	lines->failed = lines->line_failed = true;
}

void
lines_begin(struct lines *lines, const char *file, struct span text,
    struct buf *why)
{
	*lines = (struct lines){ .file = file, .why = why, .text = text,
	    .line_next = 1 };
}

void
lines_finish(struct lines *lines)
{
	buf_finish(&lines->joined);
	buf_finish(&lines->words);
}

static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* One line of the file, without its end, joins the current one. True: it
 * ends with a backslash. */
static bool
lines_join(struct lines *lines)
{
	struct span line = lines->text;
	const char *end = memchr(line.at, '\n', line.len);
	bool goes_on;

	if (end != NULL)
		line.len = (size_t)(end - line.at);
	lines->text.at += line.len + (end != NULL);
	lines->text.len -= line.len + (end != NULL);
	lines->line_next++;
	if (line.len > 0 && line.at[line.len - 1] == '\r')
		line.len--;
	goes_on = line.len > 0 && line.at[line.len - 1] == '\\';
	if (goes_on)
		line.len--;
	buf_add_span(&lines->joined, line);
	return goes_on && lines->text.len > 0;
}

static void
lines_skip_blanks(struct lines *lines)
{
	const struct buf *line = &lines->joined;

	while (lines->at < line->len && is_blank(line->at[lines->at]))
		lines->at++;
	if (lines->at < line->len && line->at[lines->at] == '#')
		lines->at = line->len;
}

bool
lines_next(struct lines *lines)
{
	while (lines->text.len > 0) {
		buf_clear(&lines->joined);
		buf_clear(&lines->words);
		lines->at = 0;
		lines->line = lines->line_next;
		lines->line_failed = false;
		while (lines_join(lines))
			;
		if (lines->joined.len != 0 && memchr(lines->joined.at, '\0',
		    lines->joined.len) != NULL) {
			lines_complain(lines, "a NUL byte");
			continue;
		}
		/* All words fit, with their NULs: their texts stay put. */
		if (lines->joined.failed ||
		    !buf_reserve(&lines->words, 2 * lines->joined.len + 2)) {
			lines_complain(lines, "out of memory");
			return false;
		}
		lines_skip_blanks(lines);
		if (lines->at < lines->joined.len)
			return true;
	}
	return false;
}

/* Copies a word without its quotes. False: a quote is not closed. */
static bool
lines_copy_word(struct lines *lines)
{
	const struct buf *line = &lines->joined;
	bool in_quotes = false;

	for (; lines->at < line->len; lines->at++) {
		char c = line->at[lines->at];

		if (!in_quotes && (is_blank(c) || c == ',' || c == '#'))
			break;
		if (c == '"' && in_quotes && lines->at + 1 < line->len &&
		    line->at[lines->at + 1] == '"')
			lines->at++;
		else if (c == '"') {
			in_quotes = !in_quotes;
			continue;
		}
		buf_add(&lines->words, &c, 1);
	}
	return !in_quotes;
}

bool
lines_next_word(struct lines *lines, struct word *ret)
{
	const struct buf *line = &lines->joined;
	size_t began = lines->words.len;

	lines_skip_blanks(lines);
	if (lines->at >= line->len)
		return false;
	ret->quoted = line->at[lines->at] == '"';
	if (!lines_copy_word(lines)) {
		lines_complain(lines, "a quote is not closed");
		return false;
	}
	ret->text.at = lines->words.at + began;
	ret->text.len = lines->words.len - began;
	buf_add(&lines->words, "", 1);
	ret->goes_on = lines->at < line->len && line->at[lines->at] == ',';
	if (ret->goes_on)
		lines->at++;
	if (ret->text.len == 0 && !ret->quoted) {
		lines_complain(lines, "a comma has no name before it");
		return false;
	}
	return true;
}
