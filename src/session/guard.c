/*
 * The guard.
 *
 * DDL that could not have the database to itself, or that takes longer than
 * the app can be held for, runs beside the app's traffic, and whatever touches
 * its tables waits in Postgres for its locks. Left alone, every server of the
 * pool would soon wait there, and with them the part of the app that has
 * nothing to do with those tables. So a client that wants a server for a
 * statement that names one of them waits here instead, without a server; only
 * a few are let through at a time, to find out.
 *
 * It goes by the text of the transaction's first statement. What gets at a
 * table in another way (by a view, a function, a later statement) is not
 * kept back.
 */
#include "session/guard.h"

#include <stdatomic.h>

#include "migrate/lock.h"
#include "pool/pool.h"
#include "pool/target.h"
#include "session/client.h"
#include "session/link.h"
#include "session/worker.h"

/* So many of a pool's servers may wait for DDL: a fifth, but one. */
static int
guard_limit(const struct pool *pool)
{
	int limit = (int)pool_size(pool) / 5;

	return limit > 1 ? limit : 1;
}

static struct target *
guard_target(const struct client *client)
{
	return atomic_load(&client->pool->target);
}

/* One of the few? No sooner is there room than somebody gets it: one that is
 * refused is told when the next one leaves. */
static bool
guard_enter(struct target *target, int limit)
{
	int passed = target->guard_passed;

	do {
		if (passed >= limit)
			return false;
	} while (!atomic_compare_exchange_weak(&target->guard_passed,
	    &passed, passed + 1));
	return true;
}

bool
guard_is_up(const struct client *client)
{
	return client->server == NULL && guard_target(client)->guarded;
}

bool
guard_stops(struct client *client, struct span sql)
{
	struct target *target;

	if (!guard_is_up(client))
		return false;
	target = guard_target(client);
	if (client->guard == GUARD_PASSED ||
	    client->migrant != NULL || client->state != CLIENT_IDLE ||
	    !migration_guards(target, sql))
		return false;
	if (guard_enter(target, guard_limit(client->pool))) {
		client->guard = GUARD_PASSED;
		client->guard_target = target;
		return false;
	}
	client->guard = GUARD_WAITS;
	client_move(client, CLIENT_WAITING);
	client->notified = false;
	stream_pause(&client->s, PAUSE_NO_SERVER);
	client_arm(client);
	return true;
}

static void
guard_go_on_run(struct worker *worker, void *arg)
{
	(void)arg;
	guard_go_on(worker);
}

void
guard_leave(struct client *client)
{
	enum guard was = (enum guard)client->guard;

	client->guard = GUARD_NONE;
	if (was != GUARD_PASSED)
		return;
	client->guard_target->guard_passed--;
	if (client->guard_target->guarded)
		workers_post(guard_go_on_run, NULL);
}

void
guard_go_on(struct worker *worker)
{
	list_each(node, &worker->clients[CLIENT_WAITING]) {
		struct client *client =
		    container_of(node, struct client, node);
		if (client->guard != GUARD_WAITS)
			continue;
		guard_leave(client);
		client_move(client, CLIENT_IDLE);
		stream_resume(&client->s, PAUSE_NO_SERVER);
	}
}
