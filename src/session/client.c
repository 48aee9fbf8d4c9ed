/*
 * Clients.
 *
 * A client is a connection from an app; client_state.def draws its life. This
 * file has the one setter of its state, the one closer, its timer, and what it
 * is told. Everything up to ReadyForQuery is in login.c; requests are walked
 * in relay_client.c; servers come and go in link.c.
 *
 * An idle client is to cost next to nothing: no buffer (the loop's block is
 * lent to whoever reads), no timer in the wheel unless a timeout is set, its
 * parameters shared with all clients that have the same.
 *
 * Freed by the worker's reaper at the end of the turn, never inside an upcall.
 */
#include "session/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/tls.h"
#include "pool/vars.h"
#include "session/cancel.h"
#include "session/channels.h"
#include "session/database.h"
#include "session/guard.h"
#include "session/link.h"
#include "session/migrant.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/body.h"

#define CLIENT_MAGIC 0x636c6e74u
/* How long the last bytes may take to leave. */
#define CLOSING_US 5000000

MEM_TYPE(client_type, client);

static const struct {
	const char *shown;
	uint32_t from;
} states[CLIENT_STATES] = {
#define X(name, shown, from) { shown, from },
#include "session/client_state.def"
#undef X
};

static struct client *
client_of(struct stream *s)
{
	struct client *client = container_of(s, struct client, s);

	check_magic(client, CLIENT_MAGIC);
	return client;
}

void
client_move(struct client *client, enum client_state state)
{
	struct worker *worker = client->worker;

	check(states[state].from & 1u << client->state);
	if (client->state == CLIENT_WAITING) {
		worker->waiting--;
		worker_line_moved(worker);
	}
	worker->waiting += state == CLIENT_WAITING;
	client->state = (uint8_t)state;
	client->state_us = clock_us();
	list_remove(&client->node);
	list_append(&client->worker->clients[state], &client->node);
}

const char *
client_state_shown(const struct client *client)
{
	return states[client->state].shown;
}

const char *
client_prefix(const struct client *client, char *text, size_t size)
{
	union stream_address peer;
	char address[128] = "?";
	unsigned port = 0;

	if (client->s.fd >= 0) {
		stream_peer_address(&client->s, &peer);
		address_print(&peer, address, sizeof(address), &port);
	}
	snprintf(text, size, "C-0x%llx: %s/%s@%s:%u ",
	    (unsigned long long)client->id, client_database(client),
	    client_user(client), address, port);
	return text;
}

bool
client_tracks_statements(const struct client *client)
{
	return client->worker->setup->conf->o.max_prepared_statements > 0 &&
	    pool_mode(client->pool) != POOL_SESSION;
}

bool
client_should_leave(const struct client *client)
{
	/* One that migrates may end what it has begun. */
	return process.leaving >= LEAVING_IDLE && client->migrant == NULL;
}

/*
 * What clients are told.
 */

static void
client_tell_error(struct client *client, const struct msg_error *error)
{
	struct buf *out = &client->worker->scratch;

	buf_clear(out);
	msg_error(out, error);
	if (!out->failed)
		stream_send(&client->s, out->at, out->len);
}

static void
client_tell(struct client *client, const char *severity,
    const char *sqlstate, const char *message, const char *detail)
{
	client_tell_error(client, &(struct msg_error){
	    .severity = severity, .sqlstate = sqlstate,
	    .message = message, .detail = detail });
}

void
client_notice(struct client *client, const char *sqlstate,
    const char *message)
{
	struct buf *out = &client->worker->scratch;
	const struct msg_error notice = {
		.severity = "NOTICE", .sqlstate = sqlstate,
		.message = message,
	};

	buf_clear(out);
	msg_notice(out, &notice);
	if (!out->failed)
		stream_send(&client->s, out->at, out->len);
}

void
client_ready(struct client *client)
{
	const char ready[] = { 'Z', 0, 0, 0, 5, client_status(client) };

	stream_send(&client->s, ready, sizeof(ready));
}

/* One line for each ending, rate-limited for those that peers can cause. */
static void
client_log(const struct client *client, enum ending ending,
    const char *sqlstate, const char *message, const char *detail)
{
	static struct log_limit limits[END_COUNT];
	const struct conf_options *o = &client->worker->setup->conf->o;
	const struct ending_row *row = ending_row(ending);
	uint32_t left_out;
	char prefix[512];

	if (row->severity == ENDING_NONE ? !o->log_disconnections :
	    !o->log_pooler_errors)
		return;
	if (!log_wants(row->level) ||
	    !log_limit_pass(&limits[ending], 50, &left_out))
		return;
	client_prefix(client, prefix, sizeof(prefix));
	if (left_out > 0)
		log_line(row->level, prefix, "%u lines like this left out",
		    left_out);
	if (row->severity == ENDING_ERROR)
		log_line(row->level, prefix, "pooler error: %s (%s)%s%s",
		    message, sqlstate, detail != NULL ? ": " : "",
		    detail != NULL ? detail : "");
	else
		log_line(row->level, prefix,
		    "closing because: %s%s%s (age=%llus)", message,
		    detail != NULL ? ": " : "", detail != NULL ? detail : "",
		    (unsigned long long)((clock_wall_us() -
		    client->connected_us) / 1000000));
}

static void
client_count(struct client *client, enum ending ending)
{
	int counter = ending_row(ending)->counter;
	struct stat_block *stat = client->pool != NULL ?
	    &client->pool->shard[client->worker->index].stat :
	    &client->worker->stat;

	if (counter >= 0)
		stat_add(stat, (enum stat_counter)counter, 1);
}

void
client_count_bytes(struct client *client, size_t received)
{
	struct stat_block *stat =
	    &client->pool->shard[client->worker->index].stat;

	if (received > 0)
		stat_add(stat, STAT_received, received);
	stat_add(stat, STAT_sent, client->s.sent - client->sent_counted);
	client->sent_counted = client->s.sent;
}

void
client_error(struct client *client, enum ending ending, const char *detail)
{
	const struct ending_row *row = ending_row(ending);

	client_log(client, ending, row->sqlstate, row->text, detail);
	client_count(client, ending);
	client_tell(client, "ERROR", row->sqlstate, row->text, detail);
}

/*
 * Ending.
 */

/* Lets go of everything but the socket. */
static void
client_release(struct client *client)
{
	if (client->state == CLIENT_WAITING)
		pool_leave(client->pool, &client->wait);
	if (client->server != NULL)
		link_cut(client);
	migrant_client_gone(client);
	if (client->guard != GUARD_NONE)
		guard_leave(client);
	if (client->state == CLIENT_CONSOLE)
		process.console_leave(client);
	client_login_free(client);
	loop_timer_clear(&client->timer);
}

static void
client_gone(struct client *client)
{
	struct worker *worker = client->worker;

	stream_close(&client->s);
	loop_timer_clear(&client->timer);
	channels_forget(client);
	client_move(client, CLIENT_GONE);
	if (client->joined) {
		client_count_bytes(client, 0);
		pool_client_left(client->pool, client->user, worker->index);
		database_client_left(client->pool);
		process.logged_in--;
	}
	worker_remove_client(worker, client);
	list_remove(&client->node);
	list_append(&worker->dead_clients, &client->node);
	loop_defer(worker->loop, &worker->reaper);
}

void
client_drop(struct client *client)
{
	if (client->server != NULL)
		client_detach(client);
	migrant_client_gone(client);
	if (client->guard != GUARD_NONE)
		guard_leave(client);
	if (client->state == CLIENT_WAITING)
		pool_leave(client->pool, &client->wait);
	if (client->state == CLIENT_CONSOLE)
		process.console_leave(client);
	client_login_free(client);
	client_gone(client);
}

/* Closes now, or when what was said last has left. */
static void
client_close(struct client *client, enum ending ending)
{
	client->end_reason = (uint8_t)ending;
	if (client->s.state != STREAM_OPEN || !stream_is_blocked(&client->s)) {
		client_gone(client);
		return;
	}
	stream_pause(&client->s, PAUSE_CLOSING);
	client_move(client, CLIENT_CLOSING);
	loop_timer_set(client->worker->loop, &client->timer,
	    clock_us() + CLOSING_US);
}

/* The request at hand is answered with an ERROR; the client stays. */
static void
client_refuse(struct client *client, enum ending ending, const char *detail)
{
	client->begin_failed = client->begin != NULL;
	migrant_client_refused(client, ending);
	if (client->state == CLIENT_WAITING) {
		pool_leave(client->pool, &client->wait);
		guard_leave(client);
		client_error(client, ending, detail);
		client_move(client, CLIENT_REFUSED);
		client_arm(client);
		/* The request's bytes are still held: skipped at the end of
		 * this turn, when they are offered again. */
		stream_resume(&client->s, PAUSE_NO_SERVER);
		return;
	}
	check(client->state == CLIENT_IDLE);
	client_error(client, ending, detail);
	client_move(client, CLIENT_REFUSED);
}

void
client_end(struct client *client, enum ending ending, const char *detail)
{
	const struct ending_row *row = ending_row(ending);

	if (client->state >= CLIENT_CLOSING)
		return;
	/* A login goes on or it does not. */
	if (row->severity == ENDING_ERROR && client->login == NULL) {
		client_refuse(client, ending, detail);
		return;
	}
	client_log(client, ending, row->sqlstate, row->text, detail);
	client_count(client, ending);
	client_release(client);
	if (row->severity != ENDING_NONE)
		client_tell(client, "FATAL", row->sqlstate, row->text, detail);
	client_close(client, ending);
}

void
client_end_with(struct client *client, enum ending ending,
    const struct msg_error *error)
{
	struct msg_error fatal = *error;

	if (client->state >= CLIENT_CLOSING)
		return;
	fatal.severity = "FATAL";
	client_log(client, ending, error->sqlstate, error->message,
	    error->detail);
	client_count(client, ending);
	client_release(client);
	client_tell_error(client, &fatal);
	client_close(client, ending);
}

void
client_end_as(struct client *client, enum ending ending,
    const char *sqlstate, const char *message)
{
	client_end_with(client, ending, &(struct msg_error){
	    .sqlstate = sqlstate, .message = message });
}

void
client_end_trouble(struct client *client, enum ending ending)
{
	struct pool_trouble trouble;

	pool_copy_trouble(client->pool, &trouble);
	/* What the server has said is passed on; that there is none to speak
	 * to (class 08) is our own word. */
	if (trouble.refused && strncmp(trouble.sqlstate, "08", 2) != 0)
		client_end_as(client, END_SERVER_REFUSED, trouble.sqlstate,
		    trouble.message);
	else
		client_end(client, ending, trouble.message);
}

void
client_detach(struct client *client)
{
	struct server *server = client->server;

	server_forget_owed(server);
	link_undo(client);
}

void
client_free(struct client *client)
{
	check(client->state == CLIENT_GONE && client->server == NULL);
	vars_unref(client->vars);
	vars_unref(client->startup_vars);
	stmt_unref(client->unnamed);
	stmt_names_clear(&client->names);
	mem_wipe(client->key, sizeof(client->key));
	mem_free(client->console_user);
	mem_free(client->begin);
	client->magic = 0;
	mem_delete(&client_type, client);
	process.clients--;
}

/*
 * Time.
 */

struct client_limits {
	uint64_t query_us, query_wait_us, idle_transaction_us;
	uint64_t transaction_us, idle_us;
};

static uint64_t
limit_of(uint64_t per_user, uint64_t global)
{
	return per_user != UINT64_MAX ? per_user : global;
}

static void
client_find_user_limits(const struct conf_user *user,
    struct client_limits *ret)
{
	ret->query_us = limit_of(user->query_timeout_us, ret->query_us);
	ret->query_wait_us = limit_of(user->query_wait_timeout_us,
	    ret->query_wait_us);
	ret->idle_transaction_us = limit_of(user->idle_transaction_timeout_us,
	    ret->idle_transaction_us);
	ret->transaction_us = limit_of(user->transaction_timeout_us,
	    ret->transaction_us);
	ret->idle_us = limit_of(user->client_idle_timeout_us, ret->idle_us);
}

static void
client_find_limits(const struct client *client, struct client_limits *ret)
{
	const struct conf_options *o = &client->worker->setup->conf->o;
	const struct conf_user *user = client->pool->conf_user;

	ret->query_us = o->query_timeout_us;
	ret->query_wait_us = client->pool->db->query_wait_timeout_us;
	ret->idle_transaction_us = o->idle_transaction_timeout_us;
	ret->transaction_us = o->transaction_timeout_us;
	ret->idle_us = o->client_idle_timeout_us;
	if (user != NULL)
		client_find_user_limits(user, ret);
	if (migrant_may_be_silent(client))
		ret->idle_us = 0;
}

/* Of a linked client between two queries: in a transaction, or in a session
 * that keeps its server. */
static uint64_t
client_idle_limit(const struct client *client,
    const struct client_limits *limits)
{
	return client->in_transaction ? limits->idle_transaction_us :
	    limits->idle_us;
}

/* The sooner of two deadlines; `limit_us` 0 = none, `from_us` 0 = not now. */
static uint64_t
sooner(uint64_t deadline_us, uint64_t from_us, uint64_t limit_us)
{
	uint64_t at_us = from_us + limit_us;

	if (limit_us == 0 || from_us == 0)
		return deadline_us;
	return deadline_us == 0 || at_us < deadline_us ? at_us : deadline_us;
}

void
client_arm(struct client *client)
{
	const struct conf_options *o = &client->worker->setup->conf->o;
	struct client_limits limits;
	uint64_t at_us = 0;

	client_find_limits(client, &limits);
	switch (client->state) {
	case CLIENT_IDLE:
	case CLIENT_REFUSED:
	case CLIENT_SKIPPING:
		/* One with a migrant waits in its line. */
		if (client->migrant == NULL)
			at_us = sooner(0, client->state_us, limits.idle_us);
		break;
	case CLIENT_WAITING:
		at_us = sooner(0, client->state_us, limits.query_wait_us);
		if (!client->notified)
			at_us = sooner(at_us, client->state_us,
			    o->query_wait_notify_us);
		break;
	case CLIENT_ACTIVE:
		/* The next query re-arms nothing: its end cannot be due before
		 * this is. */
		at_us = sooner(0, client->query_us != 0 ? client->query_us :
		    clock_us(), limits.query_us);
		if (client->query_us == 0)
			at_us = sooner(at_us, client->idle_us,
			    client_idle_limit(client, &limits));
		at_us = sooner(at_us, client->xact_us != 0 ? client->xact_us :
		    clock_us(), limits.transaction_us);
		break;
	default:
		return;
	}
	/* A timer that is armed for nothing is left: it finds nothing to do
	 * when it fires, and that is cheaper than taking it off each time. */
	if (at_us != 0)
		loop_timer_set(client->worker->loop, &client->timer, at_us);
}

static bool
is_over(uint64_t from_us, uint64_t limit_us)
{
	return from_us != 0 && limit_us != 0 &&
	    clock_us() - from_us >= limit_us;
}

static void
client_wait_over(struct client *client)
{
	struct pool_counts counts;
	struct pool_trouble trouble;
	char detail[256];

	pool_copy_trouble(client->pool, &trouble);
	pool_count(client->pool, &counts);
	if (trouble.since_us != 0 && counts.servers == counts.opening) {
		client_end_trouble(client, END_SERVER_DOWN);
		return;
	}
	snprintf(detail, sizeof(detail), "waited %llu ms; %u servers of at "
	    "most %u are in use, %u clients wait",
	    (unsigned long long)(clock_us() - client->state_us) / 1000,
	    counts.servers, pool_size(client->pool), counts.waiting);
	client_end(client, END_WAIT_TIMEOUT, detail);
}

static void
client_waiting_timer(struct client *client,
    const struct client_limits *limits)
{
	const struct conf_options *o = &client->worker->setup->conf->o;

	if (is_over(client->state_us, limits->query_wait_us)) {
		client_wait_over(client);
		return;
	}
	if (!client->notified &&
	    is_over(client->state_us, o->query_wait_notify_us)) {
		client->notified = true;
		client_notice(client, "00000", "No server connection "
		    "available in postgres backend, client being queued");
	}
	client_arm(client);
}

/*
 * query_timeout. The query is cancelled, and the server's own error answers the
 * client. If there is none, because the server is not to be reached any more,
 * it is no use to wait on: the same time is then over once more, of which only
 * cancel_wait_timeout was left.
 */
static void
client_query_over(struct client *client, uint64_t limit_us)
{
	uint64_t left_us =
	    client->worker->setup->conf->o.cancel_wait_timeout_us;
	char prefix[512];

	if (client->stopped_us == client->query_us) {
		client_end(client, END_QUERY_TIMEOUT,
		    "the server did not answer the cancel request");
		return;
	}
	log_line(LOG_LEVEL_LOG, client_prefix(client, prefix, sizeof(prefix)),
	    "query_timeout: cancelling a query after %llu ms",
	    (unsigned long long)(clock_us() - client->query_us) / 1000);
	cancel_server(client->server);
	if (left_us == 0 || left_us > limit_us)
		left_us = limit_us;
	client->query_us = clock_us() - limit_us + left_us;
	client->stopped_us = client->query_us;
	client_arm(client);
}

static void
client_active_timer(struct client *client,
    const struct client_limits *limits)
{
	if (is_over(client->xact_us, limits->transaction_us)) {
		client_end(client, END_TX_TIMEOUT, NULL);
	} else if (client->query_us == 0 && is_over(client->idle_us,
	    client_idle_limit(client, limits))) {
		client_end(client, client->in_transaction ?
		    END_IDLE_TX_TIMEOUT : END_CLIENT_IDLE_TIMEOUT, NULL);
	} else if (is_over(client->query_us, limits->query_us)) {
		client_query_over(client, limits->query_us);
	} else {
		client_arm(client);
	}
}

static void
client_timer(struct loop_timer *timer)
{
	struct client *client = container_of(timer, struct client, timer);
	struct client_limits limits;

	check_magic(client, CLIENT_MAGIC);
	switch (client->state) {
	case CLIENT_STARTUP: case CLIENT_AUTH: case CLIENT_WELCOME:
		client_end(client, END_LOGIN_TIMEOUT, NULL);
		return;
	case CLIENT_CANCELLER:
		client_end(client, END_CANCEL_DONE, NULL);
		return;
	case CLIENT_CLOSING:
		client_gone(client);
		return;
	case CLIENT_GONE: case CLIENT_CONSOLE:
		return;
	case CLIENT_IDLE:
		/* Not in yet (login_try), and it does not read. */
		if (client->login != NULL) {
			client_end(client, END_LOGIN_TIMEOUT, NULL);
			return;
		}
		break;
	default:
		break;
	}
	client_find_limits(client, &limits);
	if (client->state == CLIENT_WAITING)
		client_waiting_timer(client, &limits);
	else if (client->state == CLIENT_ACTIVE)
		client_active_timer(client, &limits);
	else if (client->migrant == NULL &&
	    is_over(client->state_us, limits.idle_us))
		client_end(client, END_CLIENT_IDLE_TIMEOUT, NULL);
	else
		client_arm(client);
}

/*
 * The stream's upcalls.
 */

static size_t
client_on_data(struct stream *s, const char *at, size_t len)
{
	struct client *client = client_of(s);

	switch (client->state) {
	case CLIENT_STARTUP: case CLIENT_AUTH: case CLIENT_WELCOME:
		return client_login_data(client, at, len);
	case CLIENT_CONSOLE:
		return process.console_data(client, at, len);
	case CLIENT_CANCELLER: case CLIENT_CLOSING: case CLIENT_GONE:
		return len;
	default:
		len = relay_client(client, at, len);
		client_count_bytes(client, len);
		return len;
	}
}

static void
client_on_open(struct stream *s)
{
	client_login_opened(client_of(s));
}

static void
client_on_drain(struct stream *s)
{
	struct client *client = client_of(s);

	if (client->state == CLIENT_CLOSING) {
		client_gone(client);
		return;
	}
	if (client->server != NULL)
		stream_resume(&client->server->s, PAUSE_PEER_FULL);
	channels_tell_later(client);
	if (client->server == NULL || !stream_is_blocked(&client->server->s))
		stream_resume(&client->s, PAUSE_PEER_FULL);
}

static void
client_on_close(struct stream *s, enum stream_end why)
{
	struct client *client = client_of(s);

	if (client->state == CLIENT_CLOSING)
		client_gone(client);
	else if (client->state == CLIENT_CANCELLER)
		client_end(client, END_CANCEL_DONE, NULL);
	else if (why == STREAM_TLS_FAILED)
		client_end(client, END_CLIENT_TLS, stream_tls_error(s));
	else if (why == STREAM_NO_MEMORY)
		client_end(client, END_NO_MEMORY, NULL);
	else
		client_end(client, END_CLIENT_EOF, NULL);
}

static const struct stream_ops client_ops = {
	.on_data = client_on_data,
	.on_open = client_on_open,
	.on_drain = client_on_drain,
	.on_close = client_on_close,
};

void
client_create(struct worker *worker, int fd, bool is_unix)
{
	struct client *client = mem_new(&client_type);
	const struct conf_options *o = &worker->setup->conf->o;
	struct stream_tuning tuning = worker_tuning(o);

	if (client == NULL || !worker_add_client(worker, client)) {
		mem_delete(&client_type, client);
		close(fd);
		worker->client_count--;
		process.clients--;
		return;
	}
	client->magic = CLIENT_MAGIC;
	client->worker = worker;
	client->connected_us = clock_wall_us();
	client->state_us = clock_us();
	client->state = CLIENT_STARTUP;
	client->vars = vars_none();
	client->startup_vars = vars_none();
	list_append(&worker->clients[CLIENT_STARTUP], &client->node);
	stream_init(&client->s, &client_ops);
	loop_timer_init(&client->timer, client_timer);
	if (client->vars == NULL || client->startup_vars == NULL ||
	    !stream_adopt(&client->s, worker->loop, fd)) {
		close(fd);
		client_gone(client);
		return;
	}
	/* A RELOAD may have changed it since the listening socket was told. */
	if (!is_unix && !stream_tuning_is_same(&tuning, &process.inherited))
		stream_tune(&client->s, &tuning);
	if (!is_unix && o->tcp_defer_accept > 0)
		stream_read_soon(&client->s);
	if (o->client_login_timeout_us > 0)
		loop_timer_set(worker->loop, &client->timer,
		    clock_us() + o->client_login_timeout_us);
}
