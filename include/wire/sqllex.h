/* SQL's tokens: words, names, strings, and where a statement ends. */
#ifndef WIRE_SQLLEX_H
#define WIRE_SQLLEX_H

#include <stdbool.h>

#include "base/span.h"

enum sql_token {
	TOKEN_END,
	TOKEN_SEMICOLON,		/* one that ends a statement */
	TOKEN_WORD,
	TOKEN_NAME,			/* "quoted" */
	TOKEN_STRING,			/* 'x', E'x', $$x$$ */
	TOKEN_SIGN,			/* a byte by itself, or a number */
};

struct sqllex {
	const char *at;			/* behind the token */
	const char *end;
	enum sql_token token;
	bool doubtful;			/* something could not be read */
	struct span text;		/* the token's, with its quotes */
	/* Of the statement at hand; semicolons in them do not end it: */
	unsigned depth;			/* open parentheses */
	unsigned blocks;		/* open BEGIN ATOMIC and CASE; the
					 * caller's to count */
};

struct sqllex sqllex_of(struct span sql);
/* To the next token, over blanks and comments. */
void sqllex_next(struct sqllex *lex);
/* Only as far as the end of a word, if one is there (else text is empty). */
void sqllex_skip_to_word(struct sqllex *lex);
/* The token at hand: is it this word (in any case), this sign, the end? */
bool sqllex_is_word(const struct sqllex *lex, const char *word);
bool sqllex_is_sign(const struct sqllex *lex, char sign);
bool sqllex_is_over(const struct sqllex *lex);

#endif
