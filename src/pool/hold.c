/*
 * Holds.
 *
 * While a migration changes the schema, the app's new transactions wait. The
 * pools of the database then lend no servers, as if they were paused, so those
 * who wait stand in the line that is there anyway, and go on in its order and
 * at the pool's pace when the hold is over.
 *
 * The hold has begun to work when nothing runs any more. What may run is
 * counted, not asked for: every server of the pools that is neither idle, nor
 * being opened, nor at rest. "At rest" is a server that stays with its client
 * beyond a transaction; it begins the next one without asking the pool for a
 * server, so it asks here (hold_stir).
 *
 * The flag is set first; then each pool's lock is taken, to count. Whoever got
 * a server, or stirred, before that is in the count; whoever comes after it
 * sees the flag. So a count of zero stays zero.
 *
 * The servers of migrators stand aside of the pools, and are not counted.
 */
#include "pool/hold.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/check.h"
#include "pool/pool.h"
#include "pool/target.h"

struct pool *
hold_next_pool(const struct target *target, struct pool *after)
{
	do {
		after = pool_next(after);
	} while (after != NULL && atomic_load(&after->target) != target);
	return after;
}

void
hold_begin(struct target *target)
{
	target->held = true;
}

void
hold_end(struct target *target)
{
	target->held = false;
}

unsigned
hold_count_busy(const struct target *target)
{
	struct pool *pool = NULL;
	unsigned busy = 0;

	while ((pool = hold_next_pool(target, pool)) != NULL) {
		pthread_mutex_lock(&pool->lock);
		unsigned others = pool->opening + pool->resting;
		for (unsigned i = 0; i < pool->shard_count; i++)
			others += pool->shard[i].idle_count;
		check(pool->servers >= others);
		busy += pool->servers - others;
		pthread_mutex_unlock(&pool->lock);
	}
	return busy;
}

unsigned
hold_count_waiting(const struct target *target)
{
	struct pool *pool = NULL;
	unsigned waiting = 0;

	while ((pool = hold_next_pool(target, pool)) != NULL) {
		pthread_mutex_lock(&pool->lock);
		waiting += pool->waiting;
		pthread_mutex_unlock(&pool->lock);
	}
	return waiting;
}

void
hold_rest(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->resting++;
	pthread_mutex_unlock(&pool->lock);
}

bool
hold_stir(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	bool may = !atomic_load(&pool->target)->held;
	if (may) {
		check(pool->resting > 0);
		pool->resting--;
	}
	pthread_mutex_unlock(&pool->lock);
	return may;
}

void
hold_unrest(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	check(pool->resting > 0);
	pool->resting--;
	pthread_mutex_unlock(&pool->lock);
}
