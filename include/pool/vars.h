/* Session parameters: immutable sets, compared by pointer, applied as diff. */
#ifndef POOL_VARS_H
#define POOL_VARS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

/*
 * A set of (name, value) that differ from what a fresh server session has.
 * Sets with the same content are one object: clients that agree share it,
 * and "does this server suit this client?" is one comparison of pointers.
 * Reference-counted; any thread.
 */
struct vars;

struct vars *vars_none(void);		/* the empty set, one reference */
struct vars *vars_ref(struct vars *vars);
void vars_unref(struct vars *vars);
/* `vars` with name set to value, or without it (value.at NULL). Gives the
 * reference of `vars` back and returns a new one; NULL (and `vars` kept):
 * out of memory. */
struct vars *vars_with(struct vars *vars, struct span name,
    struct span value);
/* SPAN_NONE: not in the set. Names are compared without case. */
struct span vars_get(const struct vars *vars, struct span name);
/* A hash of those by which a name in SQL means one table or another (the
 * search_path, and who one is); 0: none of them is in the set. */
uint64_t vars_scope(const struct vars *vars);
/* A hash of those by which Postgres reads a text and the constants in it: a
 * date, a time without a zone, bytes that are letters; 0 likewise. */
uint64_t vars_reading(const struct vars *vars);
unsigned vars_count(const struct vars *vars);
void vars_at(const struct vars *vars, unsigned i, struct span *ret_name,
    struct span *ret_value);
/* SET and RESET statements that make a session with `have` one with `want`,
 * quoted; nothing when they are equal. */
void vars_diff(const struct vars *have, const struct vars *want,
    struct buf *out);

#endif
