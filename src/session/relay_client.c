/*
 * From a client to its server.
 *
 * The bytes of one read are walked message by message. Most are passed on as
 * they are: the walk only extends a run of bytes, and the whole run leaves in
 * one write at the end. What must be changed (a statement's name) is put in
 * between, and leaves in the same write:
 *
 *     block   [ Bind head | Bind rest, Execute, Sync ]
 *     write   [ Parse of ours ] [ new Bind head ] [ run ---------------- ]
 *
 * A message that is larger than what has arrived is passed on as it comes
 * (relay.left); only a Parse is waited for, since its text is remembered.
 *
 * Each message passed on notes in server->owed what reply is due. A handler
 * returns false when the walk must stop: more bytes are needed, the client
 * waits for a server, or it has come to an end.
 *
 * Prepared statements have a file of their own, relay_statements.c; so has a
 * BEGIN that needs no server yet, relay_begin.c.
 */
#include "session/relay.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "pool/vars.h"
#include "session/channels.h"
#include "session/client.h"
#include "session/database.h"
#include "session/guard.h"
#include "session/link.h"
#include "session/migrant.h"
#include "session/owed.h"
#include "session/pass.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/slow.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"
#include "wire/sqlscan.h"

/* A message up to this size has to be there before a server is taken. */
#define WAIT_WHOLE_MAX 8192

void
pass_put(struct pass *pass)
{
	struct server *server = pass->client->server;

	if (pass->pos > pass->run && server != NULL)
		stream_put(&server->s, pass->at + pass->run,
		    pass->pos - pass->run);
	pass->run = pass->pos;
}

size_t
pass_available(const struct pass *pass)
{
	return pass->len - pass->pos;
}

struct span
pass_body(const struct pass *pass, const struct frame *frame)
{
	size_t have = pass_available(pass) - FRAME_HEADER;

	return (struct span){ pass->at + pass->pos + FRAME_HEADER,
	    have < frame->body ? have : frame->body };
}

bool
pass_is_whole(const struct pass *pass, const struct frame *frame)
{
	return pass_available(pass) - FRAME_HEADER >= frame->body;
}

void
pass_step_over(struct pass *pass, size_t size, bool drop)
{
	size_t have = pass_available(pass);
	size_t now = size < have ? size : have;

	if (drop)
		pass_put(pass);
	pass->pos += now;
	pass->client->relay.left = (uint32_t)(size - now);
	pass->client->relay.drop = drop;
	if (drop)
		pass->run = pass->pos;
}

bool
pass_as_is(struct pass *pass, const struct frame *frame)
{
	pass_step_over(pass, FRAME_HEADER + (size_t)frame->body, false);
	return true;
}

bool
pass_drop(struct pass *pass, const struct frame *frame)
{
	pass_step_over(pass, FRAME_HEADER + (size_t)frame->body, true);
	return true;
}

bool
pass_end(struct pass *pass, enum ending ending, const char *detail)
{
	client_end(pass->client, ending, detail);
	return false;
}

bool
pass_link(struct pass *pass)
{
	struct client *client = pass->client;

	if (client->server != NULL) {
		if (!link_stir(client))
			return false;
		if (client->server->owed.count >= OWED_MAX) {
			stream_pause(&client->s, PAUSE_OWED_FULL);
			return false;
		}
		if (state_must_wait(client->server)) {
			stream_pause(&client->s, PAUSE_ANSWER);
			return false;
		}
		if (client->server->vars == client->vars)
			return true;
		pass_put(pass);
		return link_refresh(client);
	}
	check(pass->run == pass->pos);
	if (client->begin_failed)
		return pass_end(pass, END_TX_FAILED, NULL);
	return link_take(client) && !stream_is_paused(&client->s);
}

struct owed_entry *
pass_owe(struct pass *pass, enum owed_kind kind, enum owed_action action)
{
	struct client *client = pass->client;
	struct owed *owed = &client->server->owed;

	/* What is owed may be a question of our own. */
	if (owed->count == 0 || client->query_us == 0)
		client->query_us = client->request_us = clock_us();
	if (client->xact_us == 0)
		client->xact_us = client->query_us;

	struct owed_entry *entry = owed_push(owed, kind, action);
	if (entry == NULL)
		client_end(client, END_NO_MEMORY, NULL);
	return entry;
}

void
pass_put_bytes(struct pass *pass, const struct buf *bytes)
{
	struct worker *worker = pass->client->worker;
	struct stream *to = &pass->client->server->s;
	char *copy;

	pass_put(pass);
	copy = worker_arena(worker, bytes->len);
	if (copy == NULL) {
		/* No room until what was put has left; a lone large piece is
		 * sent from where it is. */
		stream_flush(to);
		worker_arena_reset(worker);
		copy = worker_arena(worker, bytes->len);
	}
	if (copy == NULL) {
		stream_send(to, bytes->at, bytes->len);
		return;
	}
	memcpy(copy, bytes->at, bytes->len);
	stream_put(to, copy, bytes->len);
}

bool
pass_tracks(const struct client *client)
{
	return client->server->max_statements > 0;
}

/*
 * A Sync that the server reads as COPY data is ignored there, and owes
 * nothing. One that it reads after the COPY has failed is answered. Which of
 * both it will be is known only if it has not been passed on: it waits for the
 * answer to the COPY, and where data is read then, it is dropped; it is put
 * back if that fails before there is any. (Where something else than data is
 * read, that is an error, and the Sync its end.)
 */
static bool
pass_sync_later(struct pass *pass)
{
	struct buf *out = &pass->client->worker->scratch;

	buf_clear(out);
	msg_end(out, msg_begin(out, 'H'));
	if (out->failed)
		return pass_end(pass, END_NO_MEMORY, NULL);
	pass_put_bytes(pass, out);
	stream_pause(&pass->client->s, PAUSE_OWED_FULL);
	return false;
}

static bool
pass_sync(struct pass *pass, const struct frame *frame)
{
	struct client *client = pass->client;

	if (client->server == NULL && client->begin_failed) {
		client_ready(client);
		return pass_drop(pass, frame);
	}
	if (!pass_link(pass))
		return false;

	struct owed *owed = &pass->client->server->owed;
	if (owed->copy_in && !pass->client->server->tainted) {
		owed->copy_syncs += !owed->copy_data;
		return pass_drop(pass, frame);
	}
	if (owed_may_copy_in(owed))
		return pass_sync_later(pass);
	if (pass_owe(pass, OWED_SYNC, OWED_FORWARD) == NULL)
		return false;
	owed->skipping = false;
	return pass_as_is(pass, frame);
}

/* Nothing is owed for a Flush; without a server there is nothing to flush. */
static bool
pass_flush_message(struct pass *pass, const struct frame *frame)
{
	return pass->client->server == NULL ? pass_drop(pass, frame) :
	    pass_as_is(pass, frame);
}

/*
 * Simple queries.
 */

/* An answer of our own to a query that is about this client's names only. */
static bool
pass_answer(struct pass *pass, const struct frame *frame, const char *tag)
{
	struct client *client = pass->client;
	struct buf *out = &client->worker->scratch;

	buf_clear(out);
	msg_command_complete(out, tag);
	msg_ready(out, client_status(client));
	if (out->failed)
		return pass_end(pass, END_NO_MEMORY, NULL);
	pass_drop(pass, frame);
	stream_send(&client->s, out->at, out->len);
	return true;
}

bool
pass_must_wait(struct client *client)
{
	const struct server *server = client->server;

	if (server == NULL || server->owed.count == 0 || owed_at(
	    &server->owed, server->owed.count - 1)->kind < OWED_SYNC)
		return false;
	stream_pause(&client->s, PAUSE_OWED_FULL);
	return true;
}

bool
pass_database(struct client *client, uint32_t effects, struct span sql)
{
	return (effects & SQL_DATABASE) == 0 || (!pass_must_wait(client) &&
	    database_may_pass(client, effects, sql));
}

/*
 * DEALLOCATE is about the client's names, of which the server knows nothing.
 * True: it was answered (*ret_go_on says whether the walk goes on).
 */
static bool
pass_deallocate(struct pass *pass, const struct frame *frame,
    uint32_t effects, struct span name, bool *ret_go_on)
{
	struct client *client = pass->client;
	const struct server *server = client->server;
	struct stmt *was;

	if (!client_tracks_statements(client) ||
	    (effects == SQL_DEALLOCATE ?
	    stmt_names_get(&client->names, name) == NULL :
	    effects != SQL_DEALLOCATE_ALL))
		return false;
	/* Our answer has to wait for those before it. */
	if (pass_must_wait(client)) {
		*ret_go_on = false;
		return true;
	}
	if (server != NULL && (server->owed.count > 0 ||
	    server->owed.skipping || server->status == 'E' ||
	    (effects == SQL_DEALLOCATE_ALL && state_has_prepared(server))))
		return false;
	/* As any simple query does. */
	stmt_unref(client->unnamed);
	client->unnamed = NULL;
	if (effects == SQL_DEALLOCATE_ALL) {
		stmt_names_clear(&client->names);
		*ret_go_on = pass_answer(pass, frame, "DEALLOCATE ALL");
		return true;
	}
	stmt_names_set(&client->names, name, NULL, &was);
	stmt_unref(was);
	*ret_go_on = pass_answer(pass, frame, "DEALLOCATE");
	return true;
}

/* The text of a simple query, as far as it has arrived. */
static struct span
pass_sql(const struct pass *pass, const struct frame *frame)
{
	struct span sql = pass_body(pass, frame);

	sql.len = strnlen(sql.at, sql.len);
	return sql;
}

/*
 * A statement that is refused: Postgres is given one in its place that fails
 * with our words, so that the error takes the transaction with it as any other
 * does.
 */
void
pass_put_refusal(struct pass *pass, char type, const char *sqlstate,
    const char *message, const char *hint)
{
	struct buf *out = &pass->client->worker->scratch;
	size_t began;

	buf_clear(out);
	began = msg_begin(out, type);
	if (type == 'P')
		msg_text(out, SPAN(""));
	buf_printf(out, "DO LANGUAGE plpgsql $$BEGIN RAISE EXCEPTION USING "
	    "ERRCODE='%s', MESSAGE='%s'", sqlstate, message);
	if (hint != NULL)
		buf_printf(out, ", HINT='%s'", hint);
	msg_text(out, SPAN(";END$$"));
	if (type == 'P')
		msg_u16(out, 0);
	msg_end(out, began);
	server_set_unnamed(pass->client->server, NULL);
	pass_put_bytes(pass, out);
}

/* A simple query takes the unnamed statement with it, unless it is skipped. */
static struct owed_entry *
pass_owe_query(struct pass *pass)
{
	struct client *client = pass->client;
	struct owed_entry *entry = pass_owe(pass, OWED_QUERY, OWED_FORWARD);

	if (entry == NULL)
		return NULL;
	entry->unnamed = true;
	entry->unnamed_was = client->unnamed;
	client->unnamed = NULL;
	return entry;
}

bool
pass_refuse_query(struct pass *pass, const struct frame *frame,
    const char *sqlstate, const char *message, const char *hint)
{
	if (pass_owe_query(pass) == NULL)
		return false;
	pass_put_refusal(pass, 'Q', sqlstate, message, hint);
	return pass_drop(pass, frame);
}

/* max_pinned: one client too many would be tied to its server. */
const char *
pass_pin_refusal(const char *reason, char message[PASS_REFUSAL])
{
	snprintf(message, PASS_REFUSAL, "too many clients are pinned to their "
	    "servers (max_pinned): %s", reason);
	return message;
}

/* What sequences have given to others. */
static bool
pass_put_forget(struct pass *pass)
{
	struct buf *out = &pass->client->worker->scratch;
	size_t began;

	buf_clear(out);
	began = msg_begin(out, 'Q');
	msg_text(out, SPAN("DISCARD SEQUENCES"));
	msg_end(out, began);
	pass_put_bytes(pass, out);
	return pass_owe(pass, OWED_QUERY, OWED_SWALLOW) != NULL;
}

/* Is the server only busy with what we have asked, if at all? */
static bool
server_is_ours(const struct server *server)
{
	for (uint32_t i = 0; i < server->owed.count; i++)
		if (owed_at(&server->owed, i)->action != OWED_SWALLOW)
			return false;
	return server->status != 'E' && !server->owed.batch_open;
}

/*
 * Postgres notices that nobody is there any more when it reads, not while it
 * works or waits for a lock: what a migrator holds would outlast us. From here
 * on its server looks once a second, where Postgres can (14, on Linux).
 */
bool
pass_put_watch(struct pass *pass)
{
	struct server *server = pass->client->server;
	struct buf *out = &pass->client->worker->scratch;
	size_t began;

	if (!server_is_ours(server))
		return true;
	buf_clear(out);
	began = msg_begin(out, 'Q');
	msg_text(out, SPAN("SELECT pg_catalog.set_config(name, '1000', false)"
	    " FROM pg_catalog.pg_settings WHERE setting = '0' AND name ="
	    " 'client_connection_check_interval' AND"
	    " pg_catalog.strpos(pg_catalog.version(), 'linux') > 0"));
	msg_end(out, began);
	/* The unnamed statement goes with it, and its text may have been put.*/
	stream_flush(&server->s);
	server_set_unnamed(server, NULL);
	server_set_local_portal(server, NULL);
	pass_put_bytes(pass, out);
	return pass_owe(pass, OWED_QUERY, OWED_SWALLOW) != NULL;
}

/*
 * Is it about this client's names only, or a BEGIN that needs no server, or
 * has it to wait for what was asked before? Then it is no server's, not now.
 */
static bool
pass_query_is_ours(struct pass *pass, const struct frame *frame,
    uint32_t effects, struct span name, bool *ret_go_on)
{
	struct client *client = pass->client;
	char room[PASS_SCAN_MAX];

	if (effects & (SQL_DEALLOCATE | SQL_DEALLOCATE_ALL) &&
	    pass_deallocate(pass, frame, effects,
	    pass_sql_name(name, room, sizeof(room)), ret_go_on))
		return true;
	*ret_go_on = false;
	if (effects & SQL_LASTVAL && pass_must_wait(client))
		return true;
	return effects & SQL_BARE && pass_begin_query(pass, frame, effects,
	    pass_sql(pass, frame), name, ret_go_on);
}

/* Is it a migrator's, and has that to wait? */
static bool
pass_query_migrates(struct pass *pass, const struct frame *frame,
    uint32_t effects, bool *ret_go_on)
{
	return migrant_is_asked(pass->client, effects) && migrant_takes(pass,
	    frame, effects, pass_sql(pass, frame), SPAN_NONE, ret_go_on);
}

static bool
pass_query(struct pass *pass, const struct frame *frame)
{
	struct client *client = pass->client;
	struct span sql = pass_sql(pass, frame), name = SPAN_NONE;
	bool whole = pass_is_whole(pass, frame);
	uint32_t effects = SQL_UNKNOWN;
	char message[PASS_REFUSAL];
	const char *refused;
	bool go_on;

	if (client->worker->setup->conf->o.disable_pqexec)
		return pass_end(pass, END_NO_PQEXEC, NULL);
	if (frame->body < PASS_SCAN_MAX && !whole)
		return false;
	if (whole)
		effects = sqlscan(sql, &name);
	if (frame->body < PASS_SCAN_MAX &&
	    pass_query_is_ours(pass, frame, effects, name, &go_on))
		return go_on;
	if (client->server == NULL && whole &&
	    pass_query_migrates(pass, frame, effects, &go_on))
		return go_on;
	if (guard_stops(client, sql) || !pass_link(pass))
		return false;

	struct server *server = client->server;
	if (server->owed.skipping)
		return pass_as_is(pass, frame);
	if (!pass_database(client, effects, sql))
		return false;
	if (pass_query_migrates(pass, frame, effects, &go_on))
		return go_on;
	refused = state_is_refused(client, effects);
	/* A simple query takes the unnamed statement with it; its text may have
	 * been put in front of a Bind, and must leave while it is there. */
	if (client->unnamed != NULL)
		stream_flush(&server->s);
	server_set_unnamed(server, NULL);
	server_set_local_portal(server, NULL);
	if (state_must_forget(server, effects) && !pass_put_forget(pass))
		return false;
	if (refused != NULL)
		return pass_refuse_query(pass, frame, "53400",
		    pass_pin_refusal(refused, message), PASS_PIN_HINT);

	slow_keep_text(client, sql);
	struct owed_entry *entry = pass_owe_query(pass);
	if (entry == NULL)
		return false;
	pass_note_effects(server, entry, effects);
	state_note(server, effects, sql);
	return pass_as_is(pass, frame);
}

static bool
pass_function(struct pass *pass, const struct frame *frame)
{
	if (!pass_link(pass))
		return false;
	if (!pass->client->server->owed.skipping &&
	    pass_owe(pass, OWED_FUNCTION, OWED_FORWARD) == NULL)
		return false;
	state_note(pass->client->server, SQL_UNKNOWN, SPAN(""));
	return pass_as_is(pass, frame);
}

/*
 * COPY data. Outside COPY a server drops it without a word (it may come late,
 * after the server has ended the COPY with an error); so do we.
 */
static bool
pass_copy_data(struct pass *pass, const struct frame *frame)
{
	if (pass->client->server != NULL)
		owed_note_copy_data(&pass->client->server->owed);
	return pass->client->server == NULL ? pass_drop(pass, frame) :
	    pass_as_is(pass, frame);
}

/* The end of COPY data that may have been sent before the server said that
 * it wants some: marked, so that a Sync behind it is not taken for one inside
 * the COPY. */
static bool
pass_copy_end(struct pass *pass, const struct frame *frame)
{
	struct server *server = pass->client->server;

	if (server != NULL && server->owed.copy_in)
		server->owed.copy_in = false;
	else if (server != NULL && !server->owed.skipping &&
	    !owed_is_clear(&server->owed) &&
	    pass_owe(pass, OWED_COPY_DONE, OWED_LOCAL) == NULL)
		return false;
	return pass_copy_data(pass, frame);
}

static bool
pass_terminate(struct pass *pass, const struct frame *frame)
{
	(void)frame;
	return pass_end(pass, END_CLIENT_CLOSED, NULL);
}

/*
 * The walk.
 */

static pass_handler *
pass_handler_of(uint8_t type)
{
	static pass_handler *const handlers[256] = {
#define X(letter, name, handler) [letter] = handler,
#include "session/messages.def"
#undef X
	};

	return handlers[type];
}

/*
 * A request was answered with an ERROR before it reached a server. A simple
 * query gets its ReadyForQuery; an extended batch is skipped up to the
 * client's own Sync, which gets it.
 */
static bool
pass_refused(struct pass *pass, const struct frame *frame)
{
	struct client *client = pass->client;
	bool simple = frame->type == 'Q' || frame->type == 'F';

	if (frame->type == 'X')
		return pass_end(pass, END_CLIENT_CLOSED, NULL);
	if (client->state == CLIENT_REFUSED && !simple)
		client_move(client, CLIENT_SKIPPING);
	pass_drop(pass, frame);
	if (client->state == CLIENT_REFUSED || frame->type == 'S') {
		client_move(client, CLIENT_IDLE);
		client_ready(client);
	}
	return true;
}

static bool
pass_message(struct pass *pass)
{
	struct client *client = pass->client;
	struct frame frame;

	if (client->relay.left > 0) {
		pass_step_over(pass, client->relay.left, client->relay.drop);
		return true;
	}
	switch (frame_peek(pass->at + pass->pos, pass_available(pass),
	    &frame)) {
	case FRAME_MORE:
		return false;
	case FRAME_BAD:
		return pass_end(pass, END_PROTOCOL, "bad message length");
	case FRAME_OK:
		break;
	}

	pass_handler *handler = pass_handler_of(frame.type);
	if (handler == NULL)
		return pass_end(pass, END_PROTOCOL, "unknown message type");
	if (frame.body > client->worker->setup->conf->o.max_packet_size_bytes)
		return pass_end(pass, END_TOO_LARGE, "max_packet_size");
	if (client->state == CLIENT_REFUSED ||
	    client->state == CLIENT_SKIPPING)
		return pass_refused(pass, &frame);
	/* One that sends slowly holds no server meanwhile. */
	if (client->server == NULL && frame.body <= WAIT_WHOLE_MAX &&
	    !pass_is_whole(pass, &frame))
		return false;
	bool go_on;
	if ((frame.type == 'P' || frame.type == 'B') &&
	    pass_begin_batch(pass, &go_on))
		return go_on;
	return handler(pass, &frame);
}

/* The message at hand was refused just now: it is still to be skipped. */
static bool
pass_was_refused(const struct pass *pass)
{
	size_t have = pass_available(pass);

	return pass->client->state == CLIENT_REFUSED && have >= FRAME_HEADER &&
	    pass->client->relay.left == 0;
}

bool
relay_has_request(const struct client *client)
{
	const struct buf *held = &client->s.held;
	struct frame frame;

	return frame_peek(held->at, held->len, &frame) == FRAME_OK &&
	    held->len - FRAME_HEADER >= frame.body;
}

size_t
relay_client(struct client *client, const char *at, size_t len)
{
	struct pass pass = { .client = client, .at = at, .len = len };
	bool fresh = plans_is_fresh(client);

	client->repeats = false;
	while (pass.pos < len && (pass_message(&pass) ||
	    pass_was_refused(&pass)))
		continue;
	if (client->state >= CLIENT_CLOSING)
		return len;

	struct server *server = client->server;
	if (server == NULL) {
		/* Answers of ours that it does not take. */
		if (stream_is_blocked(&client->s))
			stream_pause(&client->s, PAUSE_PEER_FULL);
		channels_tell_later(client);
		return pass.pos;
	}
	pass_put(&pass);
	plans_keep(client, fresh, at, pass.pos);
	if (stream_flush(&server->s) == STREAM_QUEUED)
		stream_pause(&client->s, PAUSE_PEER_FULL);
	worker_arena_reset(client->worker);
	if (server->owed.local > 0 && owed_is_clear(&server->owed)) {
		relay_answer_local(server);
		if (stream_is_blocked(&client->s))
			stream_pause(&client->s, PAUSE_PEER_FULL);
	}
	if (!state_probe(server) && client->server == server &&
	    link_is_over(client)) {
		link_part(client);
		/* Not here: the next client's walk may end in the same way,
		 * one inside the other for all who wait. */
		if (server->state == SERVER_FREE)
			server_free_up_later(server);
	} else if (client->server == server) {
		link_rest(client);
	}
	return pass.pos;
}
