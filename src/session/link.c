/*
 * Links.
 *
 * A client and a server are linked from the client's first request that needs
 * a server until the transaction ends (in session mode: until the client
 * goes). The life of a link:
 *
 *   link_take      a server from the pool: at once, or after waiting in line
 *      |           (the client's bytes stay where they are meanwhile)
 *   link_join      the server's session is made to look like the client's:
 *      |           one query of ours in front of the client's own bytes, in
 *      |           the same write, only if they differ; and one with a BEGIN
 *      |           that has waited for its first statement (relay_begin.c)
 *   relay_*        requests and replies
 *      |
 *   link_part      nothing owed, status 'I': both are free; the server goes
 *      |           to the next in line in the same turn
 *   link_cut       the client goes in the middle: ROLLBACK if the server only
 *                  waits in a transaction, else cancel what it does and close
 *
 * A client that is still at its login takes a server only for that query: its
 * parameters are new to the pool (params.c). It is told by FATAL when they
 * are refused, as Postgres does at connect.
 */
#include "session/link.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"
#include "migrate/lock.h"
#include "pool/hold.h"
#include "pool/vars.h"
#include "session/cancel.h"
#include "session/channels.h"
#include "session/client.h"
#include "session/database.h"
#include "session/guard.h"
#include "session/hub.h"
#include "session/migrant.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/slow.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"

/* An idle server younger than this needs no look at its socket first. */
#define FRESH_US 1000

static struct stat_block *
link_stat(const struct client *client)
{
	return &client->pool->shard[client->worker->index].stat;
}

/* A query of ours, in `scratch`, that leaves with the client's own bytes. It
 * takes the unnamed statement with it. False: the client has ended. */
static bool
link_put_query(struct server *server, struct client *client)
{
	const struct buf *out = &client->worker->scratch;
	char *copy = NULL;

	if (out->failed ||
	    owed_push(&server->owed, OWED_QUERY, OWED_SWALLOW) == NULL) {
		client_end(client, END_NO_MEMORY, NULL);
		return false;
	}
	server_set_local_portal(server, NULL);
	server_set_unnamed(server, NULL);
	/* At a login nothing follows that it could leave with. */
	if (client->login == NULL)
		copy = worker_arena(client->worker, out->len);
	if (copy == NULL) {
		stream_send(&server->s, out->at, out->len);
	} else {
		memcpy(copy, out->at, out->len);
		stream_put(&server->s, copy, out->len);
	}
	return true;
}

/* Puts the diff between the two sessions; false: the client has ended. */
static bool
link_put_vars(struct server *server, struct client *client)
{
	struct buf *out = &client->worker->scratch;
	size_t began;

	buf_clear(out);
	began = msg_begin(out, 'Q');
	vars_diff(server->vars, client->vars, out);
	buf_add(out, "", 1);
	msg_end(out, began);
	if (!link_put_query(server, client))
		return false;
	vars_unref(server->vars);
	server->vars = vars_ref(client->vars);
	return true;
}

/* The BEGIN that it was answered without a server. */
static bool
link_put_begin(struct server *server, struct client *client)
{
	struct buf *out = &client->worker->scratch;
	size_t began;

	buf_clear(out);
	began = msg_begin(out, 'Q');
	msg_text(out, span_of(client->begin));
	msg_end(out, began);
	mem_free(client->begin);
	client->begin = NULL;
	/* From here on it can be lost in the middle of a transaction. */
	server->status = 'T';
	return link_put_query(server, client);
}

bool
link_refresh(struct client *client)
{
	struct server *server = client->server;

	if (server->vars == client->vars || server->status == 'E' ||
	    server->owed.count > 0 || server->owed.batch_open)
		return true;
	return link_put_vars(server, client);
}

void
link_vars_accepted(struct server *server)
{
	cancel_put_off_ended(server, true);
}

static bool
link_join(struct server *server, struct client *client)
{
	struct pool_shard *shard =
	    &client->pool->shard[client->worker->index];
	uint64_t now_us = clock_us();

	check(server->client == NULL && client->server == NULL);
	check(server->owed.count == 0 && server->status == 'I');
	check(server->worker == client->worker);
	server->waited_us = 0;
	if (client->state == CLIENT_WAITING) {
		server->waited_us = now_us - client->state_us;
		stat_add(&shard->stat, STAT_wait_time, server->waited_us);
	}
	hist_add(&shard->wait_time, server->waited_us);
	server->client = client;
	client->server = server;
	server->max_statements = client_tracks_statements(client) ?
	    (unsigned)client->worker->setup->conf->o.max_prepared_statements :
	    0;
	server->request_us = now_us;
	server_move(server, SERVER_ACTIVE);
	client_move(client, CLIENT_ACTIVE);
	client->xact_us = now_us;
	client->query_us = now_us;
	shard->active++;
	state_begin(server);
	stat_add(&shard->stat, STAT_server_assignment_count, 1);
	client_arm(client);
	if (client_login_is_done(client))
		return false;
	return (server->vars == client->vars ||
	    link_put_vars(server, client)) &&
	    (!channels_compose(server, client) ||
	    link_put_query(server, client)) &&
	    (client->begin == NULL || link_put_begin(server, client));
}

/* A server that has idled for a while may have been closed by its side. */
static bool
link_server_is_good(struct server *server)
{
	uint64_t idle_us = clock_us() - server->place.idle_since_us;

	if (idle_us < FRESH_US || !stream_is_stale(&server->s))
		return true;
	server_close(server, "server closed the connection while idle");
	return false;
}

bool
link_needs_check(const struct server *server)
{
	const struct conf_options *o = &server->worker->setup->conf->o;

	return o->server_check_query[0] != '\0' &&
	    o->server_check_delay_us > 0 && clock_us() -
	    server->place.idle_since_us >= o->server_check_delay_us;
}

static void
link_check(struct server *server)
{
	const char *query = server->worker->setup->conf->o.server_check_query;

	server_move(server, SERVER_TESTED);
	if (!server_ask(server, strcmp(query, "<empty>") == 0 ? "" : query))
		server_close(server, "out of memory");
}

/* Enters the line, or finds a server at once. NULL: waits, or was told. */
static struct server *
link_find(struct client *client)
{
	struct worker *worker = client->worker;
	struct pool *pool = client->pool;
	struct pool_server *place = NULL;
	bool open;

	for (;;) {
		switch (pool_take(pool, worker->index, &client->wait, &place,
		    &open)) {
		case POOL_GOT:
			break;
		case POOL_FETCH:
			server_offer(place);
			return NULL;
		case POOL_TROUBLE:
			client_end_trouble(client, END_SERVER_DOWN);
			return NULL;
		case POOL_WAIT:
			if (open)
				server_open(worker, pool);
			else
				worker_evict_for(worker, pool);
			return NULL;
		}

		struct server *server =
		    container_of(place, struct server, place);
		server_move(server, SERVER_FREE);
		if (server_is_expired(server)) {
			server_close(server, "server_lifetime");
		} else if (link_needs_check(server)) {
			link_check(server);
		} else if (link_server_is_good(server)) {
			return server;
		}
	}
}

bool
link_take(struct client *client)
{
	struct server *server;

	if (process.leaving >= LEAVING_SERVERS) {
		client_end(client, END_SHUTDOWN, NULL);
		return false;
	}
	client->request_us = clock_us();
	client->wait.id = client->id;
	/* One that does not take its answers gets no more of them. */
	if (stream_is_blocked(&client->s)) {
		stream_pause(&client->s, PAUSE_PEER_FULL);
		return false;
	}
	server = link_find(client);
	if (server != NULL)
		return link_join(server, client);
	if (client->state == CLIENT_IDLE) {
		client_move(client, CLIENT_WAITING);
		client->notified = false;
		stream_pause(&client->s, PAUSE_NO_SERVER);
		client_arm(client);
	}
	return false;
}

void
link_serve(struct server *server, struct client *client)
{
	stream_resume(&client->s, PAUSE_NO_SERVER);
	if (!link_join(server, client))
		return;
	if (client->login != NULL)
		state_ask_params(server);
	else
		stream_pump(&client->s);
}

void
link_retry(struct worker *worker, uint64_t client_id)
{
	struct client *client = worker_find_client(worker, client_id);

	if (client == NULL || client->state != CLIENT_WAITING ||
	    client->wait.queued)
		return;

	struct server *server = link_find(client);
	if (server != NULL)
		link_serve(server, client);
}

void
link_query_ended(struct client *client, const char *sql)
{
	struct server *server = client->server;
	struct pool_shard *shard =
	    &client->pool->shard[client->worker->index];
	uint64_t now_us = clock_us();
	uint64_t took_us = now_us - client->query_us;
	uint64_t slow_us =
	    client->worker->setup->conf->o.log_min_duration_us;

	stat_add(&shard->stat, STAT_query_count, 1);
	stat_add(&shard->stat, STAT_query_time, took_us);
	hist_add(&shard->query_time, took_us);
	if (slow_us > 0 && server->waited_us + took_us >= slow_us)
		slow_log_query(client, server->waited_us, took_us, sql);
	server->waited_us = 0;
	client->query_us = server->owed.count > 0 ? now_us : 0;
	client->in_transaction = server->status != 'I';
	if (server->status == 'I') {
		stat_add(&shard->stat, STAT_xact_count, 1);
		stat_add(&shard->stat, STAT_xact_time,
		    now_us - client->xact_us);
		client->xact_us = client->query_us;
	}
	client->idle_us = now_us;
	if (client->migrant != NULL)
		migrant_query_ended(client);
	server->recheck = server->pins != 0 && server->status == 'I';
	if (server->status != 'I' && pool_mode(client->pool) == POOL_STATEMENT)
		client_end(client, END_STATEMENT_TX, NULL);
	else if (server->status != 'I' ||
	    pool_mode(client->pool) == POOL_SESSION)
		client_arm(client);
}

/* A session lasts until its client goes, by itself or at a shutdown; so does
 * a link that something in the server's session pins. */
bool
link_is_over(const struct client *client)
{
	const struct server *server = client->server;

	return server->status == 'I' && server->owed.count == 0 &&
	    !server->owed.batch_open &&
	    client->relay.left == 0 && server->relay.left == 0 &&
	    client->database_step == NULL && !client->repeats &&
	    server->touched == 0 && !server->recheck && !server->audited &&
	    (server->migrant != NULL ? migrant_is_done(client) &&
	    server->pins == 0 && pool_mode(client->pool) != POOL_SESSION :
	    (pool_mode(client->pool) != POOL_SESSION && server->pins == 0 &&
	    server->hears == HEARS_NOTHING) ||
	    client_should_leave(client) || link_is_replaced(client));
}

bool
link_is_replaced(const struct client *client)
{
	const struct server *server = client->server;

	return server->worker->setup->conf->o.server_fast_close &&
	    server->epoch < client->pool->replaced &&
	    server->migrant == NULL &&
	    pool_mode(client->pool) == POOL_SESSION;
}

void
link_rest(struct client *client)
{
	const struct server *server = client->server;

	/* One that waits in the migration's line inside a transaction does
	 * nothing either, until those are done who wait for it to. */
	if (client->is_resting || server->migrant != NULL ||
	    (server->status != 'I' && client->migrant == NULL) ||
	    client->repeats || server->owed.count > 0 ||
	    server->owed.batch_open || client->relay.left > 0 ||
	    server->relay.left > 0)
		return;
	client->is_resting = true;
	hold_rest(client->pool);
	migrant_look(client->worker, client->pool);
}

bool
link_stir(struct client *client)
{
	if (!client->is_resting)
		return true;
	if (!hold_stir(client->pool)) {
		migration_count_held(atomic_load(&client->pool->target));
		client->idle_us = clock_us();
		stream_pause(&client->s, PAUSE_MIGRATION);
		return false;
	}
	client->is_resting = false;
	return true;
}

static void
link_unrest(struct client *client)
{
	if (!client->is_resting)
		return;
	client->is_resting = false;
	hold_unrest(client->pool);
}

/* Takes the two apart; each is in a state to be decided by the caller. */
void
link_undo(struct client *client)
{
	struct server *server = client->server;

	check(server->client == client);
	cancel_put_off_ended(server, false);
	client_count_bytes(client, 0);
	client->pool->shard[client->worker->index].active--;
	channels_unlinked(server, client);
	database_ended(client);
	link_unrest(client);
	guard_leave(client);
	if (server->migrant != NULL)
		migrant_parted(client, server);
	plans_unlinked(server);
	server->request_us = client->request_us;
	server->client = NULL;
	client->server = NULL;
	client->query_us = 0;
	client->in_transaction = false;
	stream_resume(&server->s, PAUSE_PEER_FULL);
	stream_resume(&server->s, PAUSE_SUSPENDED);
	stream_resume(&client->s, PAUSE_PEER_FULL);
	stream_resume(&client->s, PAUSE_OWED_FULL);
	stream_resume(&client->s, PAUSE_ANSWER);
}

/* Puts a server back to a clean state: the end of a transaction, and of all
 * session state where `whole`. */
static void
link_reset(struct server *server, bool whole)
{
	const char *reset =
	    server->worker->setup->conf->o.server_reset_query;

	server_move(server, SERVER_RESETTING);
	if (state_is_unclean(server))
		reset = "DISCARD ALL";
	if (state_is_final(server))
		server_close(server, "its session cannot be reset");
	else if ((server->status != 'I' && !server_ask(server, "ROLLBACK")) ||
	    ((whole || state_is_unclean(server)) && reset[0] != '\0' &&
	    !server_ask(server, reset)))
		server_close(server, "out of memory");
	else if (server->owed.count == 0)
		server_free_up_later(server);
}

void
link_part(struct client *client)
{
	struct server *server = client->server;
	const struct conf_options *o = &server->worker->setup->conf->o;
	bool reset = o->server_reset_query[0] != '\0' &&
	    (o->server_reset_query_always ||
	    pool_mode(client->pool) == POOL_SESSION);
	bool replaced = link_is_replaced(client);

	reset = reset || state_is_unclean(server);
	link_undo(client);
	client_move(client, CLIENT_IDLE);
	if (server->migrant != NULL)
		server_retire(server);
	else if (reset)
		link_reset(server, true);
	else
		server_move(server, SERVER_FREE);
	channels_tell_later(client);
	if (client_should_leave(client))
		client_end(client, END_SHUTDOWN, NULL);
	else if (replaced)
		client_end(client, END_REPLACED, NULL);
	else
		client_arm(client);
}

/*
 * The client is gone, the server is not done. What it owes can be known to
 * end only when nothing is under way in either direction; then a ROLLBACK
 * ends the transaction, and the server is as good as before.
 */
static bool
link_can_roll_back(const struct client *client, const struct server *server)
{
	return owed_is_brief(&server->owed) && !server->owed.batch_open &&
	    !server->owed.skipping && client->relay.left == 0 &&
	    server->relay.left == 0 && !server->tainted &&
	    !stream_is_blocked(&server->s);
}

void
link_cut(struct client *client)
{
	struct server *server = client->server;
	bool clean = link_can_roll_back(client, server);

	if (server->status != 'I' || !clean)
		stat_add(link_stat(client), STAT_abandoned_count, 1);
	if (server->migrant != NULL) {
		link_undo(client);
		server_retire(server);
		return;
	}
	if (!clean)
		server_forget_owed(server);
	link_undo(client);
	if (clean) {
		link_reset(server, pool_mode(client->pool) == POOL_SESSION);
		return;
	}
	server->tainted = true;
	cancel_server(server);
	server_close(server, "client went away in mid-query");
}

/*
 * Free servers.
 */

static void
server_give(struct server *server)
{
	struct pool_wait *wait = NULL;
	unsigned worker = 0;
	uint64_t id = 0;

	switch (pool_give(server->pool, server->worker->index, &server->place,
	    &wait, &worker, &id)) {
	case POOL_IDLE:
		server_move(server, SERVER_IDLE);
		server_arm_idle(server);
		migrant_look(server->worker, server->pool);
		worker_make_room(server->worker, server->pool);
		database_server_idles(server);
		break;
	case POOL_HERE:
		link_serve(server, container_of(wait, struct client, wait));
		break;
	case POOL_THERE:
		server_send_to(server, worker, id);
		break;
	}
}

void
server_free_up(struct server *server)
{
	check(server->client == NULL && server->state == SERVER_FREE);
	if (server->hub != NULL) {
		hub_opened(server);
	} else if (server_is_expired(server)) {
		server_close(server, server->tainted ? "unclean server" :
		    "server_lifetime");
	} else if (server->cancels > 0) {
		server_move(server, SERVER_COOLING);
	} else if (server->s.held.len > 0 || server->relay.left > 0) {
		/* Half a message that nobody asked for: wait for the rest. */
		return;
	} else {
		check(server->owed.count == 0 && server->status == 'I');
		server_give(server);
	}
}
