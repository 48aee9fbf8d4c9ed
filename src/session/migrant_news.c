/*
 * What the migration lock has told to do (struct migration_news): whom to wake,
 * whom to cancel, and that those who are held go on. They may be on any worker,
 * so it is mail.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "migrate/lock.h"
#include "pool/pool.h"
#include "pool/target.h"
#include "session/cancel.h"
#include "session/client.h"
#include "session/guard.h"
#include "session/migrant.h"
#include "session/server.h"
#include "session/worker.h"

static void
migrant_wake_run(struct worker *worker, void *arg)
{
	uint64_t *id = arg;
	struct client *client = worker_find_client(worker, *id);

	mem_free(id);
	if (client != NULL)
		migrant_woken(client);
}

static void
migrant_wake(unsigned worker, uint64_t client_id)
{
	uint64_t *id = mem_dup(&client_id, sizeof(client_id));

	/* Without memory its own timer finds out. */
	if (id != NULL && !worker_post(process.worker[worker],
	    migrant_wake_run, id))
		mem_free(id);
}

/* Those who rest with a server of their own go on. */
static void
held_go_on_run(struct worker *worker, void *arg)
{
	(void)arg;
	list_each(node, &worker->clients[CLIENT_ACTIVE]) {
		struct client *client =
		    container_of(node, struct client, node);
		/* One that stands in line asks again, and waits again. */
		if (client->server == NULL || client->server->migrant == NULL)
			stream_resume(&client->s, PAUSE_MIGRATION);
	}
	guard_go_on(worker);
}

static void
cancel_straggler(struct client *client)
{
	struct server *server = client == NULL ? NULL : client->server;

	if (server == NULL)
		return;
	if (server->owed.count > 0)
		cancel_server(server);
	else if (server->status != 'I')
		client_end(client, END_MIGRATION_CANCELS, NULL);
}

/* Ends what keeps the app's transactions of a database running. */
static void
cancel_stragglers_run(struct worker *worker, void *arg)
{
	struct target *target = arg;
	struct buf ids = { 0 };
	uint64_t id;

	/* They may have ended, and others begun. */
	if (!target->draining)
		return;
	list_each(node, &worker->servers[SERVER_ACTIVE]) {
		struct server *server =
		    container_of(node, struct server, node);
		if (server->migrant == NULL && server->client != NULL &&
		    atomic_load(&server->pool->target) == target)
			buf_add(&ids, &server->client->id, sizeof(id));
	}
	/* Ending one may change the lists that others are on. */
	for (size_t at = 0; at < ids.len; at += sizeof(id)) {
		memcpy(&id, ids.at + at, sizeof(id));
		cancel_straggler(worker_find_client(worker, id));
	}
	buf_finish(&ids);
}

void
migrant_obey(struct worker *worker, struct target *target,
    const struct migration_news *news)
{
	struct pool *pool = NULL;

	for (unsigned i = 0; i < news->wake_count; i++)
		migrant_wake(news->wake[i].worker, news->wake[i].client_id);
	if (news->cancels)
		workers_post(cancel_stragglers_run, target);
	if (!news->released)
		return;
	workers_post(held_go_on_run, NULL);
	/* All pools: one that a RELOAD has led to another database meanwhile
	 * has clients that wait because of the hold, too. */
	while ((pool = pool_next(pool)) != NULL)
		if (!atomic_load(&pool->target)->held)
			worker_kick_pool(worker, pool);
}

void
migrant_look_at(struct worker *worker, struct target *target)
{
	struct migration_news news = { 0 };

	if (!target->draining)
		return;
	migration_look(target, &news);
	migrant_obey(worker, target, &news);
}

void
migrant_look(struct worker *worker, struct pool *pool)
{
	migrant_look_at(worker, atomic_load(&pool->target));
}
