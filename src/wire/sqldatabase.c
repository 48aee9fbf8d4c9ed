/*
 * CREATE, DROP and ALTER DATABASE.
 *
 *	CREATE DATABASE name [ [WITH] option [=] value ... ]
 *	DROP DATABASE [ IF EXISTS ] name [ [WITH] ( option ... ) ]
 *	ALTER DATABASE name RENAME TO other
 *	ALTER DATABASE name SET TABLESPACE other
 *
 * Only what is to be known of them is read. A text that Postgres will refuse
 * may be read as anything: nothing comes of it. A name that is longer than
 * Postgres keeps, or spelled in code points (U&"..."), is not understood.
 */
#include "wire/sqldatabase.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "wire/sqllex.h"

/* What CREATE DATABASE copies, unless it says otherwise. */
#define USUAL_TEMPLATE "template1"

/* Is the token at hand this word? If so, on to the next one. */
static bool
skip_word(struct sqllex *lex, const char *word)
{
	if (!sqllex_is_word(lex, word))
		return false;
	sqllex_next(lex);
	return true;
}

/* What stands in quotes is taken as it is, a doubled quote for one; the rest
 * in lower case. */
static bool
keep_name(struct span text, char quote, char name[SQLDATABASE_NAME])
{
	size_t len = 0;

	for (size_t i = 0; i < text.len; i++) {
		char c = text.at[i];
		if (quote != 0 && c == quote)
			i++;
		else if (quote == 0 && c >= 'A' && c <= 'Z')
			c = (char)(c + 32);
		if (len == SQLDATABASE_NAME - 1)
			return false;
		name[len++] = c;
	}
	name[len] = '\0';
	return len > 0;
}

/* The name at hand, and on to the next token. */
static bool
read_name(struct sqllex *lex, char name[SQLDATABASE_NAME])
{
	struct span inside = { lex->text.at + 1, lex->text.len - 2 };
	char first = lex->text.len > 0 ? *lex->text.at : '\0';
	bool good = false;

	if (lex->token == TOKEN_WORD)
		good = keep_name(lex->text, 0, name);
	else if ((lex->token == TOKEN_NAME && first == '"') ||
	    (lex->token == TOKEN_STRING && first == '\''))
		good = keep_name(inside, first, name);
	sqllex_next(lex);
	/* 'a''b' is two tokens; nobody calls a template that. */
	return good && lex->token != TOKEN_STRING;
}

/* TEMPLATE [=] x; all other options have a name and a value as well. */
static bool
read_options(struct sqllex *lex, char template[SQLDATABASE_NAME])
{
	snprintf(template, SQLDATABASE_NAME, "%s", USUAL_TEMPLATE);
	skip_word(lex, "with");
	while (!sqllex_is_over(lex)) {
		bool found = sqllex_is_word(lex, "template");
		if (sqllex_is_word(lex, "connection"))
			sqllex_next(lex);	/* LIMIT */
		sqllex_next(lex);
		if (sqllex_is_sign(lex, '='))
			sqllex_next(lex);
		if (found && !sqllex_is_word(lex, "default"))
			return read_name(lex, template);
		if (sqllex_is_sign(lex, '-') || sqllex_is_sign(lex, '+'))
			sqllex_next(lex);
		sqllex_next(lex);
	}
	return true;
}

static bool
read_create(struct sqllex *lex, struct sqldatabase *ret)
{
	ret->verb = DATABASE_CREATE;
	return read_name(lex, ret->name) && read_options(lex, ret->other);
}

static bool
read_drop(struct sqllex *lex, struct sqldatabase *ret)
{
	struct sqllex ahead = *lex;

	/* IF is a name, too. */
	if (skip_word(&ahead, "if") && skip_word(&ahead, "exists"))
		*lex = ahead;
	ret->verb = DATABASE_DROP;
	return read_name(lex, ret->name);
}

static bool
read_alter(struct sqllex *lex, struct sqldatabase *ret)
{
	if (!read_name(lex, ret->name))
		return false;
	if (skip_word(lex, "rename")) {
		ret->verb = DATABASE_RENAME;
		return skip_word(lex, "to") && read_name(lex, ret->other);
	}
	ret->verb = DATABASE_MOVE;
	return skip_word(lex, "set") && skip_word(lex, "tablespace");
}

bool
sqldatabase_read(struct span sql, struct sqldatabase *ret)
{
	static const struct {
		const char *word;
		bool (*read)(struct sqllex *lex, struct sqldatabase *ret);
	} verbs[] = {
		{ "create", read_create }, { "drop", read_drop },
		{ "alter", read_alter },
	};
	struct sqllex lex = sqllex_of(sql);

	memset(ret, 0, sizeof(*ret));
	do {
		sqllex_next(&lex);
	} while (lex.token == TOKEN_SEMICOLON);
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (skip_word(&lex, verbs[i].word))
			return skip_word(&lex, "database") &&
			    verbs[i].read(&lex, ret);
	return false;
}
