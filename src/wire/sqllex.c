/*
 * SQL's tokens.
 *
 * As Postgres cuts a text into them, as far as it matters for telling words
 * from what stands in strings and comments: a number is a sign, and so is any
 * operator's byte. Where two settings of a server would read a text
 * differently ('\' under standard_conforming_strings), or a name is spelled so
 * that we cannot read it (U&"..."), `doubtful` is set.
 */
#include "wire/sqllex.h"

#include <string.h>

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* What a word starts with, and goes on with (there also digits and $). */
static bool
is_letter(char c)
{
	return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
	    (unsigned char)c >= 0x80;
}

static bool
starts_with(const struct sqllex *lex, const char *two)
{
	return lex->end - lex->at >= 2 && lex->at[0] == two[0] &&
	    lex->at[1] == two[1];
}

static void
skip_line(struct sqllex *lex)
{
	while (lex->at < lex->end && *lex->at != '\n' && *lex->at != '\r')
		lex->at++;
}

/* Comments like this one can stand inside one another in SQL. */
static void
skip_block_comment(struct sqllex *lex)
{
	size_t depth = 0;

	do {
		if (starts_with(lex, "/*")) {
			depth++;
			lex->at += 2;
		} else if (starts_with(lex, "*/")) {
			depth--;
			lex->at += 2;
		} else {
			lex->at++;
		}
	} while (depth > 0 && lex->at < lex->end);
}

static void
skip_blanks(struct sqllex *lex)
{
	for (;;) {
		while (lex->at < lex->end && is_space(*lex->at))
			lex->at++;
		if (starts_with(lex, "--"))
			skip_line(lex);
		else if (starts_with(lex, "/*"))
			skip_block_comment(lex);
		else
			return;
	}
}

static void
skip_word(struct sqllex *lex)
{
	while (lex->at < lex->end && (is_letter(*lex->at) ||
	    is_digit(*lex->at) || *lex->at == '$'))
		lex->at++;
}

static void
skip_digits(struct sqllex *lex)
{
	while (lex->at < lex->end && is_digit(*lex->at))
		lex->at++;
}

/*
 * A plain string. A doubled quote ends it and starts the next one, which
 * comes to the same. A backslash before the quote is just a backslash, or,
 * with standard_conforming_strings off, the quote is not the end.
 */
static void
skip_string(struct sqllex *lex)
{
	const char *open = lex->at, *close, *at;

	close = memchr(open + 1, '\'', (size_t)(lex->end - open - 1));
	if (close == NULL) {
		lex->at = lex->end;
		return;
	}
	for (at = close; at[-1] == '\\'; at--)
		continue;
	if ((close - at) % 2 != 0)
		lex->doubtful = true;
	lex->at = close + 1;
}

/* E'...', from its quote on: a backslash takes the next byte with it. What
 * follows a doubled quote is escaped like the rest. */
static void
skip_escape_string(struct sqllex *lex)
{
	for (lex->at++; lex->at < lex->end; lex->at++) {
		if (*lex->at == '\'') {
			lex->at++;
			if (lex->at == lex->end || *lex->at != '\'')
				return;
		} else if (*lex->at == '\\' && lex->end - lex->at > 1) {
			lex->at++;
		}
	}
}

/* "...": a doubled quote belongs to the name. One that is never closed names
 * nothing. */
static enum sql_token
lex_name(struct sqllex *lex)
{
	const char *close;

	do {
		lex->at++;
		close = memchr(lex->at, '"',
		    (size_t)(lex->end - lex->at));
		if (close == NULL) {
			lex->at = lex->end;
			return TOKEN_STRING;
		}
		lex->at = close + 1;
	} while (lex->at < lex->end && *lex->at == '"');
	return TOKEN_NAME;
}

/* At a $: a parameter $1, a string $tag$...$tag$, or nothing special. */
static enum sql_token
lex_dollar(struct sqllex *lex)
{
	const char *open = lex->at++, *close;
	size_t len;

	if (lex->at < lex->end && is_digit(*lex->at)) {
		skip_digits(lex);
		return TOKEN_SIGN;
	}
	while (lex->at < lex->end &&
	    (is_letter(*lex->at) || is_digit(*lex->at)))
		lex->at++;
	if (lex->at == lex->end || *lex->at != '$') {
		lex->at = open + 1;
		return TOKEN_SIGN;
	}
	len = (size_t)(++lex->at - open);
	close = memmem(lex->at, (size_t)(lex->end - lex->at), open, len);
	lex->at = close != NULL ? close + len : lex->end;
	return TOKEN_STRING;
}

static enum sql_token
lex_word(struct sqllex *lex)
{
	const char *open = lex->at;

	skip_word(lex);
	if (lex->at - open > 1 || lex->at == lex->end)
		return TOKEN_WORD;
	if ((*open | 0x20) == 'e' && *lex->at == '\'') {
		skip_escape_string(lex);
		return TOKEN_STRING;
	}
	if ((*open | 0x20) == 'u' && starts_with(lex, "&\"")) {
		/* A name in code points: it may be any. */
		lex->doubtful = true;
		lex->at++;
		return lex_name(lex);
	}
	return TOKEN_WORD;
}

static enum sql_token
lex_sign(struct sqllex *lex)
{
	char c = *lex->at++;

	if (c == '(')
		lex->depth++;
	else if (c == ')' && lex->depth > 0)
		lex->depth--;
	else if (c == ';' && lex->depth == 0 && lex->blocks == 0)
		return TOKEN_SEMICOLON;
	return TOKEN_SIGN;
}

/* The token that begins here, blanks having been skipped. */
static enum sql_token
lex_token(struct sqllex *lex)
{
	if (lex->at == lex->end)
		return TOKEN_END;
	if (is_letter(*lex->at))
		return lex_word(lex);
	switch (*lex->at) {
	case '\'':
		skip_string(lex);
		return TOKEN_STRING;
	case '"':
		return lex_name(lex);
	case '$':
		return lex_dollar(lex);
	}
	if (is_digit(*lex->at)) {
		skip_digits(lex);
		return TOKEN_SIGN;
	}
	return lex_sign(lex);
}

void
sqllex_next(struct sqllex *lex)
{
	skip_blanks(lex);
	lex->text.at = lex->at;
	lex->token = lex_token(lex);
	lex->text.len = (size_t)(lex->at - lex->text.at);
}

bool
sqllex_is_word(const struct sqllex *lex, const char *word)
{
	return lex->token == TOKEN_WORD && span_is_case(lex->text, word);
}

bool
sqllex_is_sign(const struct sqllex *lex, char sign)
{
	return lex->token == TOKEN_SIGN && *lex->text.at == sign;
}

bool
sqllex_is_over(const struct sqllex *lex)
{
	return lex->token == TOKEN_END || lex->token == TOKEN_SEMICOLON;
}

struct sqllex
sqllex_of(struct span sql)
{
	const char *at = sql.at != NULL ? sql.at : "";

	return (struct sqllex){ .at = at, .end = at + sql.len };
}

void
sqllex_skip_to_word(struct sqllex *lex)
{
	skip_blanks(lex);
	lex->text.at = lex->at;
	skip_word(lex);
	lex->text.len = (size_t)(lex->at - lex->text.at);
}
