/* The migration lock of a pgsluice, from outside: taken and kept over libpq. */
#ifndef NET_CLAIM_H
#define NET_CLAIM_H

#include <stdbool.h>

#include "base/buf.h"

/*
 * One connection that asks for the lock when it is made and has it until it
 * is closed. There is no loop here: the caller polls claim_fd() for
 * claim_events() and calls claim_step() when it is ready.
 */
struct claim;

enum claim_state {
	CLAIM_CONNECTING,
	CLAIM_WAITING,			/* logged in; the lock is another's */
	CLAIM_HELD,
	CLAIM_DIRECT,			/* this is no pgsluice: no lock */
	CLAIM_FAILED,			/* not reached, or refused */
	CLAIM_LOST,			/* was held */
};

/*
 * `url` is what the tools take: a postgres:// URL with parameters of theirs
 * in it, or libpq's "host=... dbname=...". `say` is called with each notice
 * of the server, a line without its end. NULL: out of memory.
 */
struct claim *claim_open(const char *url,
    void (*say)(void *arg, const char *line), void *arg);
/* Lets go. Takes NULL. */
void claim_close(struct claim *claim);
int claim_fd(const struct claim *claim);	/* -1: nothing to wait for */
short claim_events(const struct claim *claim);	/* of poll() */
enum claim_state claim_step(struct claim *claim);
/* database "app" at db.example.com:6432 */
const char *claim_where(const struct claim *claim);
/* Of FAILED and LOST; no password is in it. The SQLSTATE may be "". */
const char *claim_why(const struct claim *claim);
const char *claim_sqlstate(const struct claim *claim);

/*
 * The URL as libpq takes it: without what only a driver knows (the scheme's
 * "+asyncpg", "schema=public"), whose names go to left_out, separated by
 * commas. Both are texts, with a NUL.
 */
void claim_clean_url(const char *url, struct buf *ret, struct buf *left_out);

#endif
