/* Statements that the checker's operations are made of. */
#ifndef CHECKER_SAY_H
#define CHECKER_SAY_H

#include "checker.h"

#define OID_INT8 20u
#define OID_TEXT 25u
#define OID_NUMERIC 1700u

enum protocol {
	SIMPLE, EXTENDED
};

struct mistake {
	const char *text, *codes;
};

/* The statement and the parameters being written. */
extern struct bytes sql, params[2];

enum protocol either(struct client *c);

/* They add to `sql`; sql_text() ends it with a NUL. */
const char *sql_text(void);
void sql_ident(const char *first, const char *alias, const char *tail);
uint64_t sql_ident_literal(size_t times);
void sql_insert(uint64_t nonce);
void set_params(uint64_t nonce, size_t size);

void want_names(struct plan *p, const char *alias);
struct want *want_ident(struct plan *p, uint64_t nonce, enum payload payload,
	size_t size);
void want_ident_literal(struct plan *p, uint64_t nonce, size_t times);
void want_series(struct plan *p, char type, enum check check, uint64_t nonce,
	unsigned count);

/* A whole exchange, up to the ReadyForQuery. */
void query_ident(struct plan *p, size_t times);
void plain(struct plan *p, enum protocol how, const char *text,
	const char *tag);
void set_something(struct client *c, enum protocol how, bool local);

/* Extended protocol, all but the Sync. */
void extended_ident(struct client *c, size_t size);
void extended_plain(struct plan *p, const char *text, const char *tag);
void extended_insert(struct plan *p, unsigned group);
void extended_start(struct plan *p, const char *text);
void extended_mistake(struct client *c);
void named_parse(struct client *c, unsigned i);
void named_execute(struct client *c, unsigned i, bool describe);

const struct mistake *mistake(struct client *c);

#endif
