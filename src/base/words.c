/*
 * A command line into its words, as a shell would split it, without any of
 * what else a shell does.
 *
 * The words are never longer than the text, and there are at most half as
 * many as it has bytes; so one block has room for the pointers and, behind
 * them, for the words, each with its NUL.
 */
#include "base/words.h"

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"

struct splitter {
	struct span rest;
	char **words;
	size_t count;
	char *to;			/* where the next byte goes */
	struct buf *why;
};

static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
refuse_shell(const struct splitter *s, char c)
{
	buf_printf(s->why, "no shell reads this, and %c would be given to the "
	    "command as it is: write '%c' if that is meant, or run sh -c "
	    "'...'", c, c);
	return false;
}

/* The next byte, which is there. */
static char
cut(struct splitter *s)
{
	s->rest.len--;
	return *s->rest.at++;
}

static bool
take_single(struct splitter *s)
{
	while (s->rest.len > 0) {
		char c = cut(s);

		if (c == '\'')
			return true;
		*s->to++ = c;
	}
	buf_add_text(s->why, "a ' without its end");
	return false;
}

static bool
take_double(struct splitter *s)
{
	while (s->rest.len > 0) {
		char c = cut(s);

		if (c == '"')
			return true;
		if (c == '$' || c == '`')
			return refuse_shell(s, c);
		if (c == '\\' && s->rest.len > 0 &&
		    (s->rest.at[0] == '"' || s->rest.at[0] == '\\'))
			c = cut(s);
		*s->to++ = c;
	}
	buf_add_text(s->why, "a \" without its end");
	return false;
}

/* Up to a blank that is not quoted. */
static bool
take_word(struct splitter *s)
{
	s->words[s->count++] = s->to;
	while (s->rest.len > 0 && !is_blank(s->rest.at[0])) {
		char c = cut(s);

		if (c == '\'') {
			if (!take_single(s))
				return false;
		} else if (c == '"') {
			if (!take_double(s))
				return false;
		} else if (c == '\\') {
			if (s->rest.len == 0) {
				buf_add_text(s->why,
				    "a \\ with nothing behind it");
				return false;
			}
			*s->to++ = cut(s);
		} else if (c != '\0' && strchr("|&;<>()$`", c) != NULL) {
			return refuse_shell(s, c);
		} else {
			*s->to++ = c;
		}
	}
	*s->to++ = '\0';
	return true;
}

static bool
take_words(struct splitter *s)
{
	for (;;) {
		while (s->rest.len > 0 && is_blank(s->rest.at[0]))
			cut(s);
		if (s->rest.len == 0)
			break;
		if (!take_word(s))
			return false;
	}
	if (s->count == 0 || s->words[0][0] == '\0') {
		buf_add_text(s->why, "there is no command in it");
		return false;
	}
	s->words[s->count] = NULL;
	return true;
}

char **
words_split(struct span text, struct buf *why)
{
	size_t most = text.len / 2 + 1;
	struct splitter s = { .rest = text, .why = why };

	if (text.len > 0 && memchr(text.at, '\0', text.len) != NULL) {
		buf_add_text(why, "a NUL byte cannot be in it");
		return NULL;
	}
	if (text.len < SIZE_MAX / 32)
		s.words = mem_alloc((most + 1) * sizeof(char *) + text.len +
		    1);
	if (s.words == NULL) {
		buf_add_text(why, "out of memory");
		return NULL;
	}
	s.to = (char *)(s.words + most + 1);
	if (!take_words(&s)) {
		mem_free(s.words);
		return NULL;
	}
	return s.words;
}
