/*
 * Servers.
 *
 * A server is a connection to Postgres. Its states, with what makes the
 * transition, are in server_state.def; the first part of its life is in
 * server_login.c, its time with a client in link.c and relay_server.c. This
 * file has what holds all along: the one setter of the state, the one closer,
 * hand-over between workers, and what a server is asked outside of a link.
 *
 * Who may touch it: its worker's thread. While it is on the idle list its
 * `place` is guarded by the pool's lock, as any worker may take it off there
 * and ask its worker, by mail, to let go of it. Hence a server whose socket
 * ends while such a mail is under way is only marked, and closed when the mail
 * has come (server_offer).
 *
 * Counting: a server counts in its pool from before it is opened until its
 * socket is closed and no cancel for it is on its way any more.
 */
#include "session/server.h"

#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pool/proof.h"
#include "pool/vars.h"
#include "session/cancel.h"
#include "session/channels.h"
#include "session/client.h"
#include "session/hub.h"
#include "session/link.h"
#include "session/migrant.h"
#include "session/setup.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"

#define SERVER_MAGIC 0x73727672u
/* How long Postgres may take to end a session whose query was cancelled. */
#define RETIRING_US 10000000

MEM_TYPE(server_type, server);

static const struct {
	const char *shown;
	uint32_t from;
} states[SERVER_STATES] = {
#define X(name, shown, from) { shown, from },
#include "session/server_state.def"
#undef X
};

static struct server *
server_of(struct stream *s)
{
	struct server *server = container_of(s, struct server, s);

	check_magic(server, SERVER_MAGIC);
	return server;
}

void
server_move(struct server *server, enum server_state state)
{
	check(states[state].from & 1u << server->state);
	server->state = (uint8_t)state;
	list_remove(&server->node);
	list_append(&server->worker->servers[state], &server->node);
}

const char *
server_state_shown(const struct server *server)
{
	return states[server->state].shown;
}

const char *
server_prefix(const struct server *server, char *text, size_t size)
{
	char address[128];
	unsigned port;

	address_print(&server->address, address, sizeof(address), &port);
	snprintf(text, size, "S-0x%llx: %s/%s@%s:%u ",
	    (unsigned long long)server->id, server->pool->database,
	    server->pool->user, address, port);
	return text;
}

/*
 * Closing.
 */

static void
server_gone(struct server *server)
{
	struct worker *worker = server->worker;
	bool was_opening = server->opening != NULL;
	bool counted = !server->uncounted;

	server_login_free(server);
	if (server->hub != NULL)
		hub_gone(server);
	if (server->migrant != NULL)
		migrant_server_gone(server);
	server_move(server, SERVER_GONE);
	list_remove(&server->node);
	list_append(&worker->dead_servers, &server->node);
	loop_defer(worker->loop, &worker->reaper);
	if (process.leaving == LEAVING_NOW)
		return;
	if (counted)
		pool_closed(server->pool, was_opening);
	migrant_look(worker, server->pool);
	worker_pool_shrunk(worker, server->pool);
}

void
server_drop(struct server *server)
{
	pool_remove_idle(server->pool, &server->place);
	if (server->client != NULL)
		link_undo(server->client);
	stream_close(&server->s);
	loop_timer_clear(&server->timer);
	server_forget_owed(server);
	server->cancels = 0;
	server_gone(server);
}

void
server_close(struct server *server, const char *why)
{
	static const char terminate[] = { 'X', 0, 0, 0, 4 };
	char prefix[320];

	check(server->client == NULL && !server->place.is_idle);
	if (server->state >= SERVER_CLOSING)
		return;
	if (server->worker->setup->conf->o.log_disconnections)
		log_line(LOG_LEVEL_LOG, server_prefix(server, prefix,
		    sizeof(prefix)), "closing because: %s (age=%llus)", why,
		    (unsigned long long)((clock_us() - server->opened_us) /
		    1000000));
	/* Only to a server that waits for a message: behind half of a client's
	 * message these bytes would make it whole, and have it run. */
	if ((server->state == SERVER_FREE || server->state == SERVER_IDLE ||
	    server->state == SERVER_LISTENING) &&
	    server->s.state == STREAM_OPEN)
		stream_send(&server->s, terminate, sizeof(terminate));
	state_clear(server);
	stream_close(&server->s);
	loop_timer_clear(&server->timer);
	list_remove(&server->dispatch);
	server_forget_owed(server);
	server_move(server, SERVER_CLOSING);
	if (server->cancels == 0)
		server_gone(server);
}

void
server_retire(struct server *server)
{
	check(server->client == NULL && server->migrant != NULL);
	if (server->s.state != STREAM_OPEN) {
		server_close(server, "a migration's end");
		return;
	}
	if (!owed_is_brief(&server->owed))
		cancel_server(server);
	server_forget_owed(server);
	state_clear(server);
	server_move(server, SERVER_RETIRING);
	stream_half_close(&server->s);
	loop_timer_set(server->worker->loop, &server->timer,
	    clock_us() + RETIRING_US);
}

void
server_cancel_ended(struct server *server)
{
	check(server->cancels > 0);
	if (--server->cancels > 0)
		return;
	if (server->state == SERVER_CLOSING) {
		server_gone(server);
	} else if (server->state == SERVER_COOLING) {
		server_move(server, SERVER_FREE);
		server_free_up(server);
	} else {
		channels_go_on(server);
	}
}

void
server_free(struct server *server)
{
	check(server->state == SERVER_GONE && server->client == NULL);
	server_set_unnamed(server, NULL);
	server_set_local_portal(server, NULL);
	stmt_cache_clear(&server->statements);
	plans_finish(server);
	vars_unref(server->vars);
	vars_unref(server->baseline);
	vars_unref(server->customs);
	mem_free(server->audit_sql);
	owed_finish(&server->owed);
	mem_wipe(server->key, sizeof(server->key));
	mem_free(server->last_words);
	mem_free(server->host);
	server->magic = 0;
	mem_delete(&server_type, server);
}

/*
 * A linked client whose server is lost is told what can be known. Nothing is
 * ever sent again on its behalf. It stays, if it was outside of a transaction
 * block and its request can be answered: one query, or one batch.
 */
static uint32_t
server_count_ready(const struct server *server)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < server->owed.count; i++) {
		const struct owed_entry *entry = owed_at(&server->owed, i);
		count += entry->kind >= OWED_SYNC &&
		    entry->action == OWED_FORWARD;
	}
	return count;
}

static enum ending
server_lost_ending(const struct server *server)
{
	bool torn = server->relay.left > 0 && !server->relay.drop;

	if (torn)
		return END_SERVER_LOST_TORN;
	if (server->status != 'I')
		return server->commit_sent ? END_COMMIT_LOST :
		    END_SERVER_LOST_IN_TX;
	/* In session mode, and to a migrator, there was more than a
	 * transaction to lose. */
	if (pool_mode(server->pool) == POOL_SESSION || server->migrant != NULL)
		return server->owed.count == 0 ? END_SERVER_LOST_SESSION :
		    END_COMMIT_LOST;
	if (server->owed.count == 0)
		return END_SERVER_LOST;
	return END_SERVER_LOST_UNKNOWN;
}

/* Goes on without the server: the request at hand is answered. */
static void
server_lost_answer(struct server *server, struct client *client,
    enum ending ending)
{
	uint32_t ready = server_count_ready(server);
	bool batch = server->owed.batch_open;

	if (ready > 1 || (ready == 1 && batch && server->owed.count > 0 &&
	    owed_at(&server->owed, server->owed.count - 1)->kind < OWED_SYNC)){
		client_end_as(client, END_SERVER_LOST_IN_TX,
		    ending_row(ending)->sqlstate, ending_row(ending)->text);
		return;
	}
	client_detach(client);
	client_error(client, ending, server->last_words);
	if (client->relay.left > 0)
		client->relay.drop = 1;
	if (ready == 1) {
		client_move(client, CLIENT_IDLE);
		client_ready(client);
	} else {
		client_move(client, batch ? CLIENT_SKIPPING :
		    CLIENT_REFUSED);
	}
	client_arm(client);
}

/* Lost while the client's parameters were tried at its login: another server
 * is. */
static void
server_lost_early(struct client *client)
{
	client_detach(client);
	client_move(client, CLIENT_IDLE);
	client_login_again(client);
}

void
server_lost(struct server *server, const char *why)
{
	struct client *client = server->client;
	char text[512];

	if (server->last_words != NULL) {
		snprintf(text, sizeof(text), "%s: %s", why,
		    server->last_words);
		why = text;
	}
	if (server->state == SERVER_IDLE) {
		server_idle_ended(server, why);
		return;
	}
	if (client != NULL && client->login != NULL) {
		server_lost_early(client);
	} else if (client != NULL) {
		enum ending ending = server_lost_ending(server);
		if (ending_row(ending)->severity == ENDING_ERROR) {
			server_lost_answer(server, client, ending);
		} else {
			client_detach(client);
			client_end(client, ending, server->last_words);
		}
	}
	server_close(server, why);
}

/*
 * The stream's upcalls.
 */

static size_t
server_on_data(struct stream *s, const char *at, size_t len)
{
	struct server *server = server_of(s);
	size_t used;

	if (server->state >= SERVER_RETIRING)
		return len;
	if (server->state < SERVER_SETUP)
		return server_login_data(server, at, len);

	bool idle = server->state == SERVER_IDLE;
	used = relay_server(server, at, len);
	if (server->client != NULL)
		client_count_bytes(server->client, 0);
	if (server->state == SERVER_TESTED || server->state == SERVER_SETUP ||
	    server->state == SERVER_RESETTING) {
		if (server->owed.count == 0 && server->status == 'I')
			server_move(server, SERVER_FREE);
	}
	if (idle && server->tainted && server->state == SERVER_IDLE)
		server_idle_ended(server, "server is going away");
	else if (server->state == SERVER_FREE && used == len &&
	    server->relay.left == 0)
		server_free_up(server);
	return used;
}

static void
server_on_open(struct stream *s)
{
	server_login_opened(server_of(s));
}

/* The client's bytes have left: it may send more. */
static void
server_on_drain(struct stream *s)
{
	struct server *server = server_of(s);

	if (server->client != NULL)
		stream_resume(&server->client->s, PAUSE_PEER_FULL);
}

/* An idle server is at its end. If it has just been taken off the idle list,
 * a mail will come for it; until then it must stay. */
void
server_idle_ended(struct server *server, const char *why)
{
	if (pool_remove_idle(server->pool, &server->place)) {
		server_close(server, why);
		return;
	}
	server->tainted = true;
	stream_close(&server->s);
}

static void
server_on_close(struct stream *s, enum stream_end why)
{
	struct server *server = server_of(s);
	const char *text = why == STREAM_EOF ? "server conn crashed?" :
	    why == STREAM_NO_MEMORY ? "out of memory" :
	    "server connection lost";

	if (server->state >= SERVER_CLOSING)
		return;
	if (server->state == SERVER_RETIRING)
		server_close(server, "a migration's end");
	else if (server->state < SERVER_SETUP)
		server_login_lost(server, why);
	else
		server_lost(server, text);
}

static const struct stream_ops server_ops = {
	.on_data = server_on_data,
	.on_open = server_on_open,
	.on_drain = server_on_drain,
	.on_close = server_on_close,
};

/*
 * Opening.
 */

static void
server_timer(struct loop_timer *timer)
{
	struct server *server = container_of(timer, struct server, timer);
	const struct conf_options *o = &server->worker->setup->conf->o;
	bool idle_long;

	check_magic(server, SERVER_MAGIC);
	if (server->state < SERVER_SETUP) {
		server_login_timeout(server);
		return;
	}
	if (server->state == SERVER_TESTED || server->state == SERVER_SETUP ||
	    server->state == SERVER_RESETTING) {
		server_close(server, "no answer to a query of ours");
		return;
	}
	if (server->state == SERVER_RETIRING) {
		server_close(server, "no end of a migration's session");
		return;
	}
	if (server->state != SERVER_IDLE)
		return;
	idle_long = o->server_idle_timeout_us > 0 && clock_us() -
	    server->place.idle_since_us >= o->server_idle_timeout_us &&
	    (int)server->pool->servers > server->pool->db->min_pool_size;
	if (server_is_expired(server) || idle_long) {
		if (pool_remove_idle(server->pool, &server->place))
			server_close(server, idle_long ?
			    "server_idle_timeout" : "server_lifetime");
		return;
	}
	server_arm_idle(server);
}

/* Lifetimes are spread by a fifth, so that servers that were opened together
 * are not closed together. */
static uint64_t
lifetime_with_jitter(uint64_t lifetime_us, uint64_t id)
{
	return lifetime_us == 0 ? 0 : lifetime_us - lifetime_us / 5 *
	    (id * 2654435761u % 1000) / 1000;
}

struct server *
server_create(struct worker *worker, struct pool *pool)
{
	static _Atomic uint64_t next_id = 1;
	struct server *server = mem_new(&server_type);

	if (server == NULL || !owed_init(&server->owed)) {
		mem_delete(&server_type, server);
		return NULL;
	}
	server->magic = SERVER_MAGIC;
	server->id = next_id++;
	server->worker = worker;
	server->pool = pool;
	server->place.worker = worker->index;
	server->status = 'I';
	server->epoch = pool->epoch;
	server->opened_us = clock_us();
	server->connected_us = clock_wall_us();
	server->lifetime_us = lifetime_with_jitter(
	    pool->db->server_lifetime_us, server->id);
	stmt_cache_init(&server->statements);
	server->vars = vars_none();
	server->baseline = vars_none();
	server->customs = vars_none();
	stream_init(&server->s, &server_ops);
	loop_timer_init(&server->timer, server_timer);
	server->state = SERVER_RESOLVING;
	list_append(&worker->servers[SERVER_RESOLVING], &server->node);
	return server;
}

void
server_open(struct worker *worker, struct pool *pool)
{
	struct server *server = server_create(worker, pool);

	if (server == NULL)
		pool_open_failed(pool, false, "53200", "out of memory");
	else
		server_login_start(server);
}

/*
 * Questions of ours, and what they tell.
 */

bool
server_ask(struct server *server, const char *sql)
{
	struct buf *out = &server->worker->scratch;
	uint64_t limit_us =
	    server->worker->setup->conf->o.server_connect_timeout_us;

	buf_clear(out);
	msg_query(out, span_of(sql));
	if (out->failed ||
	    owed_push(&server->owed, OWED_QUERY, OWED_SWALLOW) == NULL)
		return false;
	server_set_unnamed(server, NULL);
	stream_send(&server->s, out->at, out->len);
	if (limit_us > 0)
		loop_timer_set(server->worker->loop, &server->timer,
		    clock_us() + limit_us);
	return true;
}

static const char *
print_span(char *text, size_t size, struct span span)
{
	if (span.at == NULL)
		return NULL;
	snprintf(text, size, "%.*s", SPAN_ARG(span));
	return text;
}

void
server_own_query_failed(struct server *server,
    const struct error_fields *fields)
{
	struct client *client = server->client;
	char prefix[320];

	log_line(LOG_LEVEL_WARNING, server_prefix(server, prefix,
	    sizeof(prefix)), "query of ours failed: %.*s",
	    SPAN_ARG(fields->message));
	if (server->state == SERVER_SETUP)
		return;			/* connect_query: only said */
	server->tainted = true;
	if (client == NULL)
		return;

	if (client->login == NULL) {
		/* What was accepted before is not now, and the request is
		 * with the server already. */
		proof_forget(client->pool);
		client_end(client, END_VARS_LOST, NULL);
		return;
	}

	char sqlstate[6] = "22023";
	char message[256], detail[512], hint[512];
	if (fields->sqlstate.len == 5)
		memcpy(sqlstate, fields->sqlstate.at, 5);
	client_end_with(client, END_VARS_REFUSED, &(struct msg_error){
	    .sqlstate = sqlstate,
	    .message = print_span(message, sizeof(message), fields->message),
	    .detail = print_span(detail, sizeof(detail), fields->detail),
	    .hint = print_span(hint, sizeof(hint), fields->hint) });
}

/* What a client that has `vars` is told of a parameter. */
static struct span
parameter_seen(const struct server *server, const struct vars *vars,
    struct span name)
{
	struct span own = vars_get(vars, name);

	return own.at != NULL ? own : vars_get(server->baseline, name);
}

void
server_discarded(struct server *server)
{
	struct client *client = server->client;
	struct buf *out = &server->worker->scratch;
	struct span name, value;

	server->discarded = true;
	vars_unref(server->vars);
	server->vars = vars_none();
	if (client == NULL) {
		state_clear(server);
		return;
	}
	buf_clear(out);
	for (unsigned i = 0; i < vars_count(server->baseline); i++) {
		vars_at(server->baseline, i, &name, &value);
		struct span was = parameter_seen(server, client->vars, name);
		struct span now = parameter_seen(server,
		    client->startup_vars, name);
		if (!span_eq(was, now))
			msg_parameter(out, name, now);
	}
	if (!out->failed && out->len > 0)
		stream_send(&client->s, out->at, out->len);
	vars_unref(client->vars);
	client->vars = vars_ref(client->startup_vars);
}

static void
stmt_replace(struct stmt **slot, struct stmt *stmt)
{
	if (*slot == stmt)
		return;
	stmt_unref(*slot);
	*slot = stmt == NULL ? NULL : stmt_ref(stmt);
}

void
server_set_unnamed(struct server *server, struct stmt *stmt)
{
	stmt_replace(&server->unnamed, stmt);
	server->plans.unnamed_asked = false;
	server->plans.unnamed_shape = 0;
}

void
server_set_local_portal(struct server *server, struct stmt *stmt)
{
	stmt_replace(&server->local_portal, stmt);
}

static bool
parameter_is_fixed(struct span name)
{
	static const char *const fixed[] = {
		"server_version", "server_encoding", "integer_datetimes",
		"is_superuser", "in_hot_standby",
	};

	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		if (span_is(name, fixed[i]))
			return true;
	return false;
}

/* The value as vars keep it: nothing, where it is what login had. */
static struct span
parameter_to_keep(const struct server *server, struct span name,
    struct span value)
{
	struct span at_login = vars_get(server->baseline, name);

	return at_login.at != NULL && span_eq(at_login, value) ?
	    SPAN_NONE : value;
}

static void
server_keep(struct server *server, struct span name, struct span kept)
{
	struct vars *vars = vars_with(server->vars, name, kept);

	if (vars == NULL)
		server->tainted = true;
	else
		server->vars = vars;
}

void
server_parameter_reset(struct server *server, struct span name,
    struct span value)
{
	server_keep(server, name, parameter_to_keep(server, name, value));
}

bool
server_parameter(struct server *server, struct span name, struct span value)
{
	struct client *client = server->client;
	struct span set = parameter_to_keep(server, name, value);
	struct vars *vars;

	if (parameter_is_fixed(name))
		return owed_head(&server->owed) == NULL ||
		    owed_head(&server->owed)->action != OWED_SWALLOW;
	if (client == NULL || client->login != NULL) {
		server_parameter_reset(server, name, value);
		return false;
	}
	/* Where the startup packet says otherwise, it was set on purpose. */
	if (vars_get(client->startup_vars, name).at != NULL)
		set = value;
	server_keep(server, name, set);

	struct span seen = vars_get(client->vars, name);
	bool news = seen.at == NULL ? set.at != NULL :
	    !span_eq(seen, value);
	vars = vars_with(client->vars, name, set);
	if (vars == NULL)
		server->tainted = true;
	else
		client->vars = vars;
	return news;
}

static bool
server_is_old(const struct server *server)
{
	if (server->lifetime_us == 0)
		return server->request_us != 0;	/* it has been lent */
	return clock_us() - server->opened_us >= server->lifetime_us;
}

bool
server_is_expired(const struct server *server)
{
	return server->tainted || server->s.state != STREAM_OPEN ||
	    server->epoch != server->pool->epoch || server_is_old(server);
}

void
server_arm_idle(struct server *server)
{
	const struct conf_options *o = &server->worker->setup->conf->o;
	uint64_t now_us = clock_us();
	uint64_t at_us = UINT64_MAX;
	uint64_t due_us = server->place.idle_since_us +
	    o->server_idle_timeout_us;

	if (server->lifetime_us > 0)
		at_us = server->opened_us + server->lifetime_us;
	/* One that stays though it is due, as one of min_pool_size. */
	if (due_us <= now_us)
		due_us = now_us + o->server_idle_timeout_us;
	if (o->server_idle_timeout_us > 0 && due_us < at_us)
		at_us = due_us;
	if (at_us == UINT64_MAX)
		loop_timer_clear(&server->timer);
	else
		loop_timer_set(server->worker->loop, &server->timer,
		    at_us > now_us ? at_us : now_us + 1);
}

void
server_look(struct server *server)
{
	loop_timer_set(server->worker->loop, &server->timer, clock_us());
}

/*
 * Between workers.
 */

static void
server_arrive(struct loop *loop, struct loop_mail *mail)
{
	struct server *server = container_of(mail, struct server, mail);
	struct worker *worker = server->worker;
	struct client *client;

	check_magic(server, SERVER_MAGIC);
	list_append(&worker->servers[server->state], &server->node);
	if (!stream_attach(&server->s, loop)) {
		server_close(server, "out of memory");
		link_retry(worker, server->mail_client);
		return;
	}
	client = worker_find_client(worker, server->mail_client);
	if (client == NULL || client->state != CLIENT_WAITING) {
		server_free_up(server);
		return;
	}
	pool_leave(server->pool, &client->wait);
	link_serve(server, client);
}

static void
server_retry_run(struct worker *worker, void *arg)
{
	uint64_t *id = arg;

	link_retry(worker, *id);
	mem_free(id);
}

/* It cannot be moved: whom it was meant for looks again. */
static void
server_stay(struct server *server, unsigned worker, uint64_t client_id)
{
	uint64_t *id = mem_dup(&client_id, sizeof(client_id));

	if (id != NULL && !worker_post(process.worker[worker],
	    server_retry_run, id))
		mem_free(id);
	server_close(server, "unexpected bytes from an idle server");
}

void
server_send_to(struct server *server, unsigned worker, uint64_t client_id)
{
	check(server->client == NULL && server->state == SERVER_FREE);
	if (!stream_can_move(&server->s)) {
		server_stay(server, worker, client_id);
		return;
	}
	stat_add(&server->pool->shard[server->worker->index].stat,
	    STAT_server_moved_count, 1);
	loop_timer_clear(&server->timer);
	list_remove(&server->node);
	list_remove(&server->dispatch);
	stream_detach(&server->s);
	server->worker = process.worker[worker];
	server->place.worker = worker;
	server->mail.read = server_arrive;
	server->mail_client = client_id;
	loop_post(server->worker->loop, &server->mail);
}

static void
server_offer_read(struct loop *loop, struct loop_mail *mail)
{
	struct server *server = container_of(mail, struct server, mail);

	(void)loop;
	check_magic(server, SERVER_MAGIC);
	server_move(server, SERVER_FREE);
	server_free_up(server);
}

static void
server_dismiss_read(struct loop *loop, struct loop_mail *mail)
{
	struct server *server = container_of(mail, struct server, mail);

	(void)loop;
	check_magic(server, SERVER_MAGIC);
	server_move(server, SERVER_FREE);
	server_close(server, "evicted");
}

void
server_offer(struct pool_server *place)
{
	struct server *server = container_of(place, struct server, place);

	server->mail.read = server_offer_read;
	loop_post(process.worker[place->worker]->loop, &server->mail);
}

void
server_dismiss(struct pool_server *place)
{
	struct server *server = container_of(place, struct server, place);

	server->mail.read = server_dismiss_read;
	loop_post(process.worker[place->worker]->loop, &server->mail);
}

void
server_free_up_later(struct server *server)
{
	struct worker *worker = server->worker;

	list_remove(&server->dispatch);
	list_append(&worker->to_dispatch, &server->dispatch);
	loop_defer(worker->loop, &worker->dispatcher);
}
