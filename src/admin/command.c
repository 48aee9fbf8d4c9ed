/*
 * The console's little language: a word that names the command, then what
 * commands.def says may follow, then perhaps a semicolon.
 *
 *   SHOW pools;     PAUSE "my db"     SET query_timeout = '1.5min'
 *
 * Database names are taken as they are written, quoted or not: unlike in SQL
 * nothing is folded, because that is how they stand in the file.
 */
#include "admin/command.h"

#include <stdbool.h>

#include "base/check.h"

enum shape { NONE, WORD, WORD_OR_NOTHING, SETTING, ACTION };

static const struct {
	const char *name;
	enum shape shape;
} rows[COMMAND_COUNT] = {
#define X(name, role, shape, handler, usage) { #name, shape },
#include "admin/commands.def"
#undef X
};

enum token_kind {
	TOKEN_END,
	TOKEN_WORD,
	TOKEN_QUOTED,
	TOKEN_EQUALS,
	TOKEN_SEMICOLON,
	TOKEN_OPEN_QUOTE,		/* a quote or comment without an end */
};

struct token {
	enum token_kind kind;
	struct span text;		/* WORD, QUOTED */
};

struct lexer {
	const char *at, *end;
	char *room;			/* for the next quoted text */
};

static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_word(char c)
{
	return !is_blank(c) && c != ';' && c != '=' && c != '\'' && c != '"';
}

static bool
lexer_sees(const struct lexer *lexer, const char *two)
{
	return lexer->end - lexer->at >= 2 && lexer->at[0] == two[0] &&
	    lexer->at[1] == two[1];
}

/* Blanks and comments; false: a comment has no end. */
static bool
lexer_skip(struct lexer *lexer)
{
	while (lexer->at < lexer->end) {
		if (is_blank(*lexer->at)) {
			lexer->at++;
		} else if (lexer_sees(lexer, "--")) {
			while (lexer->at < lexer->end && *lexer->at != '\n')
				lexer->at++;
		} else if (lexer_sees(lexer, "/*")) {
			lexer->at += 2;
			while (!lexer_sees(lexer, "*/")) {
				if (lexer->at == lexer->end)
					return false;
				lexer->at++;
			}
			lexer->at += 2;
		} else {
			break;
		}
	}
	return true;
}

static struct token
lexer_quoted(struct lexer *lexer)
{
	char quote = *lexer->at++;
	char *began = lexer->room;

	for (; lexer->at < lexer->end; lexer->at++) {
		if (*lexer->at == quote) {
			lexer->at++;
			if (lexer->at == lexer->end || *lexer->at != quote)
				return (struct token){ TOKEN_QUOTED, {
				    began, (size_t)(lexer->room - began) } };
		}
		*lexer->room++ = *lexer->at;
	}
	return (struct token){ .kind = TOKEN_OPEN_QUOTE };
}

static struct token
lexer_next(struct lexer *lexer)
{
	const char *began;

	if (!lexer_skip(lexer))
		return (struct token){ .kind = TOKEN_OPEN_QUOTE };
	if (lexer->at == lexer->end)
		return (struct token){ .kind = TOKEN_END };
	switch (*lexer->at) {
	case ';':
		lexer->at++;
		return (struct token){ .kind = TOKEN_SEMICOLON };
	case '=':
		lexer->at++;
		return (struct token){ .kind = TOKEN_EQUALS };
	case '\'': case '"':
		return lexer_quoted(lexer);
	}
	began = lexer->at;
	while (lexer->at < lexer->end && is_word(*lexer->at))
		lexer->at++;
	return (struct token){ TOKEN_WORD,
	    { began, (size_t)(lexer->at - began) } };
}

static bool
is_text(const struct token *token)
{
	return token->kind == TOKEN_WORD || token->kind == TOKEN_QUOTED;
}

const char *
command_name(enum command_verb verb)
{
	check(verb < COMMAND_COUNT);
	return rows[verb].name;
}

static bool
command_find(struct span name, enum command_verb *ret)
{
	for (unsigned i = 0; i < COMMAND_COUNT; i++) {
		if (span_is_case(name, rows[i].name)) {
			*ret = (enum command_verb)i;
			return true;
		}
	}
	return false;
}

/* name = value, name TO value. NULL: good. */
static const char *
parse_setting(struct lexer *lexer, struct command *command)
{
	struct token token = lexer_next(lexer);

	if (token.kind != TOKEN_WORD)
		return "SET takes a setting's name, = and a value";
	command->arg = token.text;
	token = lexer_next(lexer);
	if (token.kind != TOKEN_EQUALS && (token.kind != TOKEN_WORD ||
	    !span_is_case(token.text, "to")))
		return "SET takes = behind the setting's name";
	token = lexer_next(lexer);
	if (!is_text(&token))
		return token.kind == TOKEN_OPEN_QUOTE ?
		    "a quote is not closed" :
		    "SET takes a value behind =; none is ''";
	command->value = token.text;
	return NULL;
}

/* MIGRATION LOCK db [time]. NULL: good. */
static const char *
parse_action(struct lexer *lexer, struct command *command)
{
	struct token token = lexer_next(lexer);
	struct lexer before;

	if (token.kind != TOKEN_WORD)
		return "what is it to do?";
	command->action = token.text;
	token = lexer_next(lexer);
	if (!is_text(&token))
		return "something is missing behind the command";
	command->arg = token.text;
	before = *lexer;
	token = lexer_next(lexer);
	if (is_text(&token))
		command->value = token.text;
	else
		*lexer = before;
	return NULL;
}

/* What stands behind the command's name. NULL: good. */
static const char *
parse_arguments(struct lexer *lexer, struct command *command)
{
	enum shape shape = rows[command->verb].shape;
	struct lexer before = *lexer;
	struct token token;

	if (shape == SETTING)
		return parse_setting(lexer, command);
	if (shape == ACTION)
		return parse_action(lexer, command);
	if (shape == NONE)
		return NULL;
	token = lexer_next(lexer);
	if (is_text(&token)) {
		command->arg = token.text;
		return NULL;
	}
	*lexer = before;
	return shape == WORD && token.kind != TOKEN_OPEN_QUOTE ?
	    "something is missing behind the command" : NULL;
}

/* Nothing may follow but semicolons. */
static const char *
parse_end(struct lexer *lexer)
{
	bool ended = false;

	for (;;) {
		struct token token = lexer_next(lexer);
		switch (token.kind) {
		case TOKEN_END:
			return NULL;
		case TOKEN_SEMICOLON:
			ended = true;
			break;
		case TOKEN_OPEN_QUOTE:
			return "a quote or comment is not closed";
		default:
			return ended ? "one command at a time" :
			    "too much behind the command";
		}
	}
}

enum command_result
command_parse(struct span text, char *room, struct command *ret,
    const char **ret_why)
{
	struct lexer lexer = { .room = room };
	struct command command = { .arg = SPAN_NONE };
	struct token token;
	const char *why;

	if (text.len == 0)
		return COMMAND_EMPTY;
	lexer.at = text.at;
	lexer.end = text.at + text.len;
	do {
		token = lexer_next(&lexer);
	} while (token.kind == TOKEN_SEMICOLON);
	if (token.kind == TOKEN_END)
		return COMMAND_EMPTY;
	if (token.kind != TOKEN_WORD ||
	    !command_find(token.text, &command.verb))
		return COMMAND_UNKNOWN;
	why = parse_arguments(&lexer, &command);
	if (why == NULL)
		why = parse_end(&lexer);
	/* A SELECT that is more than another word for SHOW is SQL. */
	if (why != NULL && command.verb == COMMAND_SELECT)
		return COMMAND_UNKNOWN;
	if (why != NULL) {
		*ret_why = why;
		return COMMAND_BAD;
	}
	*ret = command;
	return COMMAND_OK;
}
