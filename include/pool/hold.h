/* Keeping new transactions of a database waiting, and seeing it run dry. */
#ifndef POOL_HOLD_H
#define POOL_HOLD_H

#include <stdbool.h>

struct pool;
struct target;

/* The pools that lead to this database; NULL = first / end. */
struct pool *hold_next_pool(const struct target *target, struct pool *after);

/* From now on no transaction begins in them: who asks for a server waits in
 * line, as with PAUSE, and who has one between two transactions is told to
 * wait (hold_stir). What has begun goes on. */
void hold_begin(struct target *target);
/* The other way. The caller sees to those who wait (worker_kick_pool). */
void hold_end(struct target *target);
/* How many transactions still run, or may: nobody's new ones come to it once
 * hold_begin() has returned. */
unsigned hold_count_busy(const struct target *target);
unsigned hold_count_waiting(const struct target *target);

/*
 * A server that stays with its client (a pin, session mode) is at rest
 * between two transactions. hold_stir(): the client begins another one; false:
 * it must wait. hold_unrest(): the two part while at rest.
 */
void hold_rest(struct pool *pool);
bool hold_stir(struct pool *pool);
void hold_unrest(struct pool *pool);

#endif
