/* One query over libpq, asynchronously: auth_query, migration lock, health. */
#ifndef NET_ASK_H
#define NET_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"

/*
 * A connection of its own to one server, opened when first needed, closed
 * after `idle_us` without a question. Questions are asked one at a time in
 * order. This is the only module that knows libpq.
 */
struct ask;

struct ask_settings {
	const char *host;		/* name, address, directory */
	unsigned port;
	const char *dbname, *user;
	const char *password;		/* NULL = none */
	const char *sslmode;		/* "disable" ... "verify-full" */
	const char *ca_file, *cert_file, *key_file;	/* NULL = none */
	const char *channel_binding;	/* a constant; NULL = "prefer" */
	uint64_t connect_timeout_us;	/* these three: 0 = no end */
	uint64_t query_timeout_us;
	uint64_t idle_us;
};

enum ask_result {
	ASK_ROWS,			/* rows in answer */
	ASK_FAILED,			/* error in answer; server said no */
	ASK_UNREACHABLE,		/* no connection */
};

struct ask_answer {
	enum ask_result result;
	unsigned rows, columns;
	/* the text of a cell of the result, NULL = SQL NULL */
	const char *(*cell)(const struct ask_answer *, unsigned row,
	    unsigned column);
	const char *error;
	char sqlstate[6];
	void *private;
};

/* NULL: out of memory. libpq gets a password only where it cannot leak:
 * verified TLS, loopback, unix socket; else every question fails with that
 * reason. */
struct ask *ask_create(struct loop *loop, const struct ask_settings *settings);
/* Open questions are answered ASK_UNREACHABLE first; none may be asked from
 * there. May be called from `answered`. Takes NULL. */
void ask_destroy(struct ask *ask);
/* Has it no question to answer? */
bool ask_is_at_rest(const struct ask *ask);
/* Up to 16 parameters, as texts; NULL is SQL's. `answered` runs once, on the
 * loop's thread, and not before this returns (but when out of memory). */
void ask_query(struct ask *ask, const char *sql, unsigned param_count,
    const char *const *params,
    void (*answered)(void *arg, const struct ask_answer *answer), void *arg);

/* A postgres:// URL or "host=... dbname=..." string, by PQconninfoParse.
 * Each pair is handed to `each`; false: a text in why. */
bool ask_parse_conninfo(const char *text,
    void (*each)(void *arg, const char *keyword, const char *value),
    void *arg, char *why, size_t why_size);

#endif
