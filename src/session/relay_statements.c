/*
 * Prepared statements, on their way from a client to a server.
 *
 * The rules are in pool/stmt.c: a client's name stands for a statement, the
 * statement has one name of ours on all servers. So Parse, Bind, Describe and
 * Close are rewritten, and a Parse goes in front where the server at hand does
 * not have the statement yet. In session mode, and with
 * max_prepared_statements = 0, all of that is left to the server.
 *
 * A name's meaning changes when the message is passed on, so that what follows
 * in the same batch finds it changed; if the server then skips the message,
 * the change is undone (owed_change). A later batch must not build on what an
 * earlier one may still have undone: such a message waits until the earlier
 * batch has been answered (pass_is_certain, pass_is_settled).
 */
#include <string.h>

#include "base/mem.h"
#include "pool/vars.h"
#include "session/client.h"
#include "session/guard.h"
#include "session/migrant.h"
#include "session/owed.h"
#include "session/pass.h"
#include "session/server.h"
#include "session/slow.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"
#include "wire/sqlscan.h"

/* Names in Bind, Describe and Close; Postgres keeps 63 bytes of one. */
#define NAMES_MAX 16384
#define PARSE_MAX (64u << 20)

/* What a name means may hang on replies that are still to come. */
static bool
pass_is_certain(struct pass *pass, struct span name)
{
	struct client *client = pass->client;
	const struct owed *owed = &client->server->owed;

	if (owed->count == 0 || owed->skipping ||
	    !owed_is_uncertain(owed, name.at, name.len))
		return true;
	stream_pause(&client->s, PAUSE_OWED_FULL);
	return false;
}

/* So may whether the server has a statement. */
bool
pass_is_settled(struct pass *pass, const struct stmt *stmt)
{
	struct client *client = pass->client;
	const struct owed *owed = &client->server->owed;

	if (owed->syncs == 0 || stmt == NULL || !owed_is_pending(owed, stmt))
		return true;
	stream_pause(&client->s, PAUSE_OWED_FULL);
	return false;
}

bool
pass_close_ours(struct pass *pass, struct stmt *stmt)
{
	struct server *server = pass->client->server;
	struct buf *out = &pass->client->worker->scratch;
	struct owed_entry *entry;
	char name[STMT_NAME_MAX];

	if (!stmt_cache_has(&server->statements, stmt))
		return true;
	entry = pass_owe(pass, OWED_CLOSE, OWED_SWALLOW);
	if (entry == NULL)
		return false;
	entry->stmt = stmt_ref(stmt);
	stmt_name(stmt, name);
	stmt_cache_remove(&server->statements, stmt);
	buf_clear(out);
	size_t began = msg_begin(out, 'C');
	msg_u8(out, 'S');
	msg_text(out, span_of(name));
	msg_end(out, began);
	if (out->failed)
		return pass_end(pass, END_NO_MEMORY, NULL);
	pass_put_bytes(pass, out);
	return true;
}

/* A Parse of `tail`, its text and types, under `name`. */
static bool
pass_put_parse(struct pass *pass, struct span tail, struct span name)
{
	struct client *client = pass->client;
	struct buf *out = &client->worker->scratch;

	buf_clear(out);
	msg_u8(out, 'P');
	msg_u32(out, (uint32_t)(4 + name.len + 1 + tail.len));
	msg_text(out, name);
	if (out->failed)
		return pass_end(pass, END_NO_MEMORY, NULL);
	pass_put_bytes(pass, out);
	stream_put(&client->server->s, tail.at, tail.len);
	stat_add(&client->pool->shard[client->worker->index].stat,
	    STAT_server_parse_count, 1);
	return true;
}

/* Prepares `stmt` on the server under our name for it. The entry that is
 * owed for it is returned; NULL: the client has ended. */
static struct owed_entry *
pass_prepare(struct pass *pass, struct stmt *stmt, enum owed_action action)
{
	struct server *server = pass->client->server;
	char name[STMT_NAME_MAX];

	while (stmt_cache_count(&server->statements) >=
	    server->max_statements)
		if (!pass_close_ours(pass, stmt_cache_oldest(
		    &server->statements)))
			return NULL;
	if (!stmt_cache_add(&server->statements, stmt)) {
		client_end(pass->client, END_NO_MEMORY, NULL);
		return NULL;
	}
	stmt_name(stmt, name);
	if (!pass_put_parse(pass, stmt_tail(stmt), span_of(name)))
		return NULL;

	struct owed_entry *entry = pass_owe(pass, OWED_PARSE, action);
	if (entry != NULL)
		entry->stmt = stmt_ref(stmt);
	return entry;
}

bool
pass_ensure(struct pass *pass, struct stmt *stmt)
{
	return stmt_cache_has(&pass->client->server->statements, stmt) ||
	    pass_prepare(pass, stmt, OWED_SWALLOW) != NULL;
}

bool
pass_put_unnamed(struct pass *pass, struct stmt *stmt)
{
	struct owed_entry *entry;

	if (!pass_put_parse(pass, stmt_tail(stmt), SPAN("")))
		return false;
	entry = pass_owe(pass, OWED_PARSE, OWED_SWALLOW);
	if (entry == NULL)
		return false;
	entry->unnamed = true;
	server_set_unnamed(pass->client->server, stmt);
	return true;
}

/* Makes sure that the server's unnamed statement is this client's: perhaps
 * parsed long ago, on another server; or that there is none. */
static bool
pass_ensure_unnamed(struct pass *pass)
{
	struct client *client = pass->client;
	struct server *server = client->server;
	struct stmt *stmt = client->unnamed;

	if (stmt != NULL && server->unnamed == stmt)
		return true;
	if (stmt == NULL) {
		static const char close_unnamed[] = "C\0\0\0\6S";
		pass_put(pass);
		stream_put(&server->s, close_unnamed, sizeof(close_unnamed));
		server_set_unnamed(server, NULL);
		return pass_owe(pass, OWED_CLOSE, OWED_SWALLOW) != NULL;
	}
	return pass_put_unnamed(pass, stmt);
}

/* Remembers what a name stood for, should the server skip the message. */
static bool
pass_note_change(struct pass *pass, struct owed_entry *entry,
    struct span name, struct stmt *was)
{
	entry->change = mem_zalloc(sizeof(*entry->change) + name.len);
	if (entry->change == NULL) {
		stmt_unref(was);
		return pass_end(pass, END_NO_MEMORY, NULL);
	}
	entry->change->was = was;
	entry->change->len = (uint32_t)name.len;
	memcpy(entry->change->name, name.at, name.len);
	return true;
}

static void
pass_count_parse(const struct client *client)
{
	stat_add(&client->pool->shard[client->worker->index].stat,
	    STAT_client_parse_count, 1);
}

/* The body of a Bind that stands right behind this message, behind its names;
 * SPAN_NONE: there is none. */
static struct span
pass_next_bind(const struct pass *pass, const struct frame *frame)
{
	size_t at = pass->pos + FRAME_HEADER + frame->body;
	struct frame next;

	if (at >= pass->len || frame_peek(pass->at + at, pass->len - at,
	    &next) != FRAME_OK || next.type != 'B' ||
	    pass->len - at - FRAME_HEADER < next.body)
		return SPAN_NONE;

	struct body body = body_of((struct span){
	    pass->at + at + FRAME_HEADER, next.body });
	body_text(&body);
	body_text(&body);
	return body_rest(&body);
}

/* Is it a migrator's, and does it have to wait? True: return *ret_go_on. */
static bool
pass_parse_migrates(struct pass *pass, const struct frame *frame,
    uint32_t effects, struct span sql, bool *ret_go_on)
{
	return migrant_is_asked(pass->client, effects) && migrant_takes(pass,
	    frame, effects, sql, effects & SQL_MIGRATION ?
	    pass_next_bind(pass, frame) : SPAN_NONE, ret_go_on);
}

static bool
pass_parse_unnamed(struct pass *pass, const struct frame *frame,
    struct span tail)
{
	struct client *client = pass->client;
	struct stmt *was = client->unnamed;
	bool same = was != NULL && plans_is_of(client, was, tail);
	struct stmt *stmt = same ? was : plans_intern(client, tail, false);
	struct owed_entry *entry;
	bool go_on;

	if (stmt == NULL)
		return pass_end(pass, END_NO_MEMORY, NULL);
	if (pass_parse_migrates(pass, frame, stmt->effects, stmt_sql(stmt),
	    &go_on)) {
		if (!same)
			stmt_unref(stmt);
		return go_on;
	}
	client->unnamed = stmt;
	entry = pass_owe(pass, OWED_PARSE, OWED_FORWARD);
	if (entry == NULL) {
		stmt_unref(same ? NULL : was);
		return false;
	}
	entry->unnamed = true;
	entry->unnamed_was = same ? stmt_ref(was) : was;
	server_set_unnamed(client->server, stmt);
	stat_add(&client->pool->shard[client->worker->index].stat,
	    STAT_server_parse_count, 1);
	return pass_as_is(pass, frame);
}

/* The name is taken: have the server say so, as it would to one that is
 * alone with it, if it has nothing else to say of the text. That of its error
 * gets the client's name put back. */
static bool
pass_parse_again(struct pass *pass, const struct frame *frame,
    struct stmt *stmt, struct span tail)
{
	char name[STMT_NAME_MAX];

	if (!pass_ensure(pass, stmt))
		return false;
	stmt_name(stmt, name);
	return pass_owe(pass, OWED_PARSE, OWED_FORWARD) != NULL &&
	    pass_put_parse(pass, tail, span_of(name)) &&
	    pass_drop(pass, frame);
}

static bool
pass_parse_named(struct pass *pass, const struct frame *frame,
    struct span name, struct span tail)
{
	struct client *client = pass->client;
	struct server *server = client->server;
	struct stmt *stmt = stmt_names_get(&client->names, name);
	struct stmt *was;
	struct owed_entry *entry;
	bool go_on;

	if (stmt != NULL)
		return pass_is_settled(pass, stmt) &&
		    pass_parse_again(pass, frame, stmt, tail);
	stmt = plans_intern(client, tail, true);
	if (stmt == NULL)
		return pass_end(pass, END_NO_MEMORY, NULL);
	if (!pass_is_settled(pass, stmt)) {
		stmt_unref(stmt);
		return false;
	}
	if (pass_parse_migrates(pass, frame, stmt->effects, stmt_sql(stmt),
	    &go_on)) {
		stmt_unref(stmt);
		return go_on;
	}
	if (!stmt_names_set(&client->names, name, stmt, &was)) {
		stmt_unref(stmt);
		return pass_end(pass, END_NO_MEMORY, NULL);
	}
	if (!stmt_cache_has(&server->statements, stmt)) {
		entry = pass_prepare(pass, stmt, OWED_FORWARD);
	} else if (server->status != 'E' && !owed_has_ready(&server->owed)) {
		entry = pass_owe(pass, OWED_PARSE, OWED_LOCAL);
	} else {
		/* In a failed transaction, and it may be one by then, the
		 * server decides what may still be parsed; the unnamed slot
		 * takes it, if it may. */
		server_set_unnamed(server, NULL);
		if (!pass_put_parse(pass, tail, SPAN("")))
			return false;
		entry = pass_owe(pass, OWED_PARSE, OWED_FORWARD);
	}
	return entry != NULL && pass_note_change(pass, entry, name, was) &&
	    pass_drop(pass, frame);
}

bool
pass_parse(struct pass *pass, const struct frame *frame)
{
	struct client *client = pass->client;

	if (frame->body > PARSE_MAX)
		return pass_end(pass, END_TOO_LARGE, "statement text");
	if (!pass_is_whole(pass, frame))
		return false;

	struct body body = body_of(pass_body(pass, frame));
	struct span name = body_text(&body);
	struct body text = body;
	struct span sql = body_text(&text);
	struct span tail = body_rest(&body);
	if (text.bad)
		return pass_end(pass, END_PROTOCOL, "Parse");
	if (guard_stops(client, sql) || !pass_link(pass))
		return false;
	if (client->server->owed.skipping)
		return pass_as_is(pass, frame);
	if (name.len > 0 && pass_tracks(client) &&
	    !pass_is_certain(pass, name))
		return false;

	slow_keep_text(client, sql);
	if (!pass_tracks(client)) {
		uint32_t effects = sqlscan(sql, NULL);
		bool go_on;
		if (!pass_database(client, effects, sql))
			return false;
		if (pass_parse_migrates(pass, frame, effects, sql, &go_on))
			return go_on;
		state_note(client->server, effects, sql);
		client->server->parsed_effects = effects;
	}
	bool passed = !pass_tracks(client) ?
	    pass_owe(pass, OWED_PARSE, OWED_FORWARD) != NULL &&
	    pass_as_is(pass, frame) :
	    name.len == 0 ? pass_parse_unnamed(pass, frame, tail) :
	    pass_parse_named(pass, frame, name, tail);
	if (passed)
		pass_count_parse(client);
	if (passed && !pass_tracks(client))
		stat_add(&client->pool->shard[client->worker->index].stat,
		    STAT_server_parse_count, 1);
	return passed;
}

/*
 * A message that names a statement: Bind (`lead` is the portal's name) and
 * Describe ('S' is in lead). Puts the head anew with the name that the
 * statement has on the server, and leaves the rest as it is.
 */
static bool
pass_with_name(struct pass *pass, const struct frame *frame,
    struct span lead, struct span name, struct span server_name)
{
	struct buf *out = &pass->client->worker->scratch;
	size_t head = lead.len + name.len + 1;

	buf_clear(out);
	msg_u8(out, frame->type);
	msg_u32(out, (uint32_t)(4 + frame->body - head + lead.len +
	    server_name.len + 1));
	buf_add_span(out, lead);
	msg_text(out, server_name);
	if (out->failed)
		return pass_end(pass, END_NO_MEMORY, NULL);
	pass_put_bytes(pass, out);
	pass->pos += FRAME_HEADER + head;
	pass->run = pass->pos;
	pass_step_over(pass, frame->body - head, false);
	return true;
}

struct span
pass_sql_name(struct span text, char *room, size_t size)
{
	bool quoted = text.len >= 2 && text.at[0] == '"';
	size_t len = 0;

	for (size_t i = quoted; i < text.len - quoted && len < size; i++) {
		char c = text.at[i];
		if (quoted && c == '"')
			i++;		/* "" stands for one */
		else if (!quoted && c >= 'A' && c <= 'Z')
			c = (char)(c + 32);
		room[len++] = c;
	}
	return (struct span){ room, len };
}

/*
 * DEALLOCATE as an extended query. The names are ours to forget, not the
 * server's: portal, description and completion are all answered in their turn,
 * and undone with the batch if it fails. In a failed transaction the server
 * says what it thinks of it.
 */
static bool
pass_is_deallocate(const struct client *client, const struct stmt *stmt,
    struct span portal)
{
	struct span name;
	char room[PASS_SCAN_MAX];

	if (portal.len > 0 || client->server->status == 'E')
		return false;
	if (stmt->effects == SQL_DEALLOCATE_ALL)
		return !state_has_prepared(client->server);
	if (stmt->effects != SQL_DEALLOCATE)
		return false;
	sqlscan(stmt_sql(stmt), &name);
	return stmt_names_get(&client->names,
	    pass_sql_name(name, room, sizeof(room))) != NULL;
}

static bool
pass_execute_deallocate(struct pass *pass, const struct frame *frame)
{
	struct client *client = pass->client;
	struct stmt *stmt = client->server->local_portal;
	struct owed_entry *entry = pass_owe(pass, OWED_EXECUTE, OWED_LOCAL);
	struct stmt *was = NULL;
	struct span name;
	char room[PASS_SCAN_MAX];

	if (entry == NULL)
		return false;
	entry->clears = stmt->effects == SQL_DEALLOCATE_ALL;
	if (!entry->clears) {
		sqlscan(stmt_sql(stmt), &name);
		name = pass_sql_name(name, room, sizeof(room));
		stmt_names_set(&client->names, name, NULL, &was);
		if (!pass_note_change(pass, entry, name, was))
			return false;
	}
	return pass_drop(pass, frame);
}

/* The client's own name that means none of its statements must not mean one
 * of ours on the server. */
static bool
pass_is_foreign(struct span name)
{
	return span_starts_case(name, STMT_PREFIX);
}

/* Runs the unnamed statement that was put just now. */
static bool
pass_run_ours(struct pass *pass)
{
	static const char bind_execute[] =
	    "B\0\0\0\14\0\0\0\0\0\0\0\0"
	    "E\0\0\0\11\0\0\0\0\0";

	stream_put(&pass->client->server->s, bind_execute,
	    sizeof(bind_execute) - 1);
	server_set_unnamed(pass->client->server, NULL);
	return pass_owe(pass, OWED_PARSE, OWED_SWALLOW) != NULL &&
	    pass_owe(pass, OWED_BIND, OWED_SWALLOW) != NULL &&
	    pass_owe(pass, OWED_EXECUTE, OWED_SWALLOW) != NULL;
}

/* In its place a batch of ours that fails; up to the client's Sync the server
 * skips the rest. */
bool
pass_refuse_in_batch(struct pass *pass, const struct frame *frame,
    const char *sqlstate, const char *message, const char *hint)
{
	pass_put_refusal(pass, 'P', sqlstate, message, hint);
	return pass_run_ours(pass) && pass_drop(pass, frame);
}

/* What sequences have given to others. */
static bool
pass_bind_forgets(struct pass *pass)
{
	static const char parse[] = "P\0\0\0\31\0DISCARD SEQUENCES\0\0\0";

	pass_put(pass);
	stream_put(&pass->client->server->s, parse, sizeof(parse) - 1);
	return pass_run_ours(pass);
}

/*
 * A statement that does more than answer: may it be bound, now? `body` is the
 * Bind's behind its names. True: return *ret_go_on.
 */
static bool
pass_bind_stops(struct pass *pass, const struct frame *frame,
    struct stmt *stmt, struct body body, bool *ret_go_on)
{
	struct client *client = pass->client;
	char message[PASS_REFUSAL];
	const char *refused;

	/* A value in it may name a parameter, or be the key of a lock. */
	*ret_go_on = false;
	if (stmt->effects & (SQL_SET | SQL_MIGRATION) &&
	    !pass_is_whole(pass, frame) && frame->body < NAMES_MAX)
		return true;
	if (stmt->effects != 0 &&
	    !pass_database(client, stmt->effects, stmt_sql(stmt)))
		return true;
	if (migrant_is_asked(client, stmt->effects) && migrant_takes(pass,
	    frame, stmt->effects, stmt_sql(stmt), body_rest(&body),
	    ret_go_on))
		return true;
	refused = stmt->effects == 0 ? NULL :
	    state_is_refused(client, stmt->effects);
	if (refused == NULL)
		return false;
	*ret_go_on = pass_refuse_in_batch(pass, frame, "53400",
	    pass_pin_refusal(refused, message), PASS_PIN_HINT);
	return true;
}

/* Bound by itself, in a later batch than its Parse. */
static bool
pass_bind_is_guarded(struct client *client, struct span name)
{
	struct stmt *stmt = !guard_is_up(client) ||
	    !client_tracks_statements(client) ? NULL : name.len == 0 ?
	    client->unnamed : stmt_names_get(&client->names, name);

	return stmt != NULL && guard_stops(client, stmt_sql(stmt));
}

/* What a name stands for; *ret_stmt NULL: the server is to say so. */
static bool
pass_bind_find(struct pass *pass, struct span name, struct stmt **ret_stmt)
{
	struct client *client = pass->client;

	*ret_stmt = NULL;
	if (!pass_tracks(client))
		return true;
	if (!pass_is_certain(pass, name))
		return false;
	*ret_stmt = name.len == 0 ? client->unnamed :
	    stmt_names_get(&client->names, name);
	if (*ret_stmt == NULL && name.len > 0 && pass_is_foreign(name))
		return pass_end(pass, END_PROTOCOL, "statement name");
	return true;
}

/* Before anything is put: may it go, and what is it? */
static bool
pass_bind_judge(struct pass *pass, const struct frame *frame,
    struct span portal, struct span name, struct stmt **stmt,
    enum plan *ret_plan)
{
	*ret_plan = PLAN_GO;
	if (*stmt == NULL)
		return true;
	if (name.len > 0 && !pass_is_settled(pass, *stmt))
		return false;
	*ret_plan = plans_check_bind(pass, frame, portal, name, stmt);
	return *ret_plan != PLAN_WAIT &&
	    (name.len == 0 || pass_is_settled(pass, *stmt));
}

/* It is bound by us, not by the server. */
static bool
pass_bind_local(struct pass *pass, const struct frame *frame,
    struct stmt *stmt)
{
	server_set_local_portal(pass->client->server, stmt);
	return pass_owe(pass, OWED_BIND, OWED_LOCAL) != NULL &&
	    pass_drop(pass, frame);
}

static bool
pass_bind_stale(struct pass *pass, const struct frame *frame,
    struct span portal, struct span name)
{
	struct owed_entry *entry;

	if (!pass_with_name(pass, frame, (struct span){ portal.at,
	    portal.len + 1 }, name, SPAN(PLANS_NOBODY)))
		return false;
	entry = pass_owe(pass, OWED_BIND, OWED_FORWARD);
	if (entry == NULL)
		return false;
	entry->refused = true;
	return true;
}

/* Notes what the statement will do to the session, if any. */
static void
pass_bind_note(struct pass *pass, const struct stmt *stmt, struct span rest)
{
	struct client *client = pass->client;
	struct server *server = client->server;

	if (stmt != NULL && (stmt->effects != 0 || server->audited)) {
		state_note(server, stmt->effects, stmt_sql(stmt));
		if (stmt->effects & SQL_SET || server->audited)
			state_note_bind(server, rest);
	}
	stat_add(&client->pool->shard[client->worker->index].stat,
	    STAT_bind_count, 1);
	server->bound_effects = stmt != NULL ? stmt->effects : SQL_UNKNOWN |
	    (server->parsed_effects & SQL_COPY_IN);
}

/* Puts the message, with the name that the server knows. */
static bool
pass_bind_put(struct pass *pass, const struct frame *frame,
    struct span portal, struct span name, struct stmt *stmt,
    enum plan plan)
{
	char ours[STMT_NAME_MAX];

	if (stmt == NULL || name.len == 0)
		return pass_as_is(pass, frame);
	if (plan != PLAN_READY && !pass_ensure(pass, stmt))
		return false;
	return pass_with_name(pass, frame, (struct span){ portal.at,
	    portal.len + 1 }, name, (struct span){ ours,
	    stmt_name(stmt, ours) });
}

bool
pass_bind(struct pass *pass, const struct frame *frame)
{
	struct client *client = pass->client;
	struct body body = body_of(pass_body(pass, frame));
	struct span portal = body_text(&body);
	struct span name = body_text(&body);
	struct stmt *stmt;
	enum plan plan;
	bool go_on;

	if (body.bad && !pass_is_whole(pass, frame) &&
	    pass_available(pass) < NAMES_MAX)
		return false;
	if (body.bad)
		return pass_end(pass, END_PROTOCOL, "Bind");
	if (pass_bind_is_guarded(client, name) || !pass_link(pass))
		return false;

	struct server *server = client->server;
	if (server->owed.skipping)
		return pass_as_is(pass, frame);
	if (!pass_bind_find(pass, name, &stmt))
		return false;
	if (stmt != NULL &&
	    pass_bind_stops(pass, frame, stmt, body, &go_on))
		return go_on;
	if (!pass_bind_judge(pass, frame, portal, name, &stmt, &plan))
		return false;
	if (plan == PLAN_REFUSED)
		return pass_bind_stale(pass, frame, portal, name);
	if (stmt != NULL && state_must_forget(server, stmt->effects) &&
	    !pass_bind_forgets(pass))
		return false;
	if (pass_tracks(client) && name.len == 0 &&
	    !pass_ensure_unnamed(pass))
		return false;
	pass_bind_note(pass, stmt, body_rest(&body));
	if (portal.len == 0)
		server_set_local_portal(server, NULL);
	if (stmt != NULL && pass_is_deallocate(client, stmt, portal))
		return pass_bind_local(pass, frame, stmt);
	if (stmt != NULL)
		slow_keep_text(client, stmt_sql(stmt));
	if (!pass_bind_put(pass, frame, portal, name, stmt, plan) ||
	    pass_owe(pass, OWED_BIND, OWED_FORWARD) == NULL)
		return false;
	plans_note_bind(server, portal, name.len > 0 ? stmt : NULL);
	return true;
}

/* 'S' or 'P' and a name; false: not all there, or the client has ended. */
static bool
pass_target(struct pass *pass, const struct frame *frame, uint8_t *ret_what,
    struct span *ret_name)
{
	if (frame->body > NAMES_MAX)
		return pass_end(pass, END_TOO_LARGE, "name");
	if (!pass_is_whole(pass, frame))
		return false;

	struct body body = body_of(pass_body(pass, frame));
	*ret_what = body_u8(&body);
	*ret_name = body_text(&body);
	if (!body_is_done(&body))
		return pass_end(pass, END_PROTOCOL, "Describe or Close");
	return pass_link(pass);
}

/* Describe of a statement that has a name of the client's. */
static bool
pass_describe_named(struct pass *pass, const struct frame *frame,
    struct span name, struct stmt *stmt)
{
	struct client *client = pass->client;
	struct stmt *next = plans_for_describe(client, stmt), *was = NULL;
	struct owed_entry *entry;
	char ours[STMT_NAME_MAX];

	if (next == NULL)
		return pass_end(pass, END_NO_MEMORY, NULL);
	bool ready = pass_is_settled(pass, stmt) &&
	    pass_is_settled(pass, next) && pass_ensure(pass, next);
	if (!ready || !pass_with_name(pass, frame, SPAN("S"), name,
	    (struct span){ ours, stmt_name(next, ours) }) ||
	    (entry = pass_owe(pass, OWED_DESCRIBE, OWED_FORWARD)) == NULL) {
		stmt_unref(next);
		return false;
	}
	plans_note_describe(client->server, entry, next, false);
	if (next == stmt) {
		stmt_unref(next);
		return true;
	}
	return stmt_names_set(&client->names, name, next, &was) &&
	    pass_note_change(pass, entry, name, was);
}

static bool
pass_describe_statement(struct pass *pass, const struct frame *frame,
    struct span name)
{
	struct client *client = pass->client;
	struct owed_entry *entry;
	struct stmt *stmt;

	if (!pass_is_certain(pass, name))
		return false;
	stmt = name.len == 0 ? client->unnamed :
	    stmt_names_get(&client->names, name);
	if (name.len > 0 && stmt != NULL)
		return pass_describe_named(pass, frame, name, stmt);
	if (name.len > 0 && pass_is_foreign(name))
		return pass_end(pass, END_PROTOCOL, "statement name");
	if (name.len == 0 && !pass_ensure_unnamed(pass))
		return false;
	pass_as_is(pass, frame);
	entry = pass_owe(pass, OWED_DESCRIBE, OWED_FORWARD);
	if (entry != NULL && stmt != NULL)
		plans_note_describe(client->server, entry, stmt, true);
	return entry != NULL;
}

bool
pass_describe(struct pass *pass, const struct frame *frame)
{
	struct client *client = pass->client;
	struct span name;
	uint8_t what;

	if (!pass_target(pass, frame, &what, &name))
		return false;
	if (client->server->owed.skipping)
		return pass_as_is(pass, frame);
	if (what == 'P' && name.len == 0 &&
	    client->server->local_portal != NULL)
		return pass_owe(pass, OWED_DESCRIBE, OWED_LOCAL) != NULL &&
		    pass_drop(pass, frame);
	if (what == 'S' && pass_tracks(client))
		return pass_describe_statement(pass, frame, name);

	struct owed_entry *entry = pass_owe(pass, OWED_DESCRIBE,
	    OWED_FORWARD);
	if (entry == NULL)
		return false;
	if (what == 'P')
		plans_note_portal(client->server, entry, name);
	return pass_as_is(pass, frame);
}

bool
pass_close(struct pass *pass, const struct frame *frame)
{
	struct client *client = pass->client;
	struct owed_entry *entry;
	struct span name;
	uint8_t what;

	if (!pass_target(pass, frame, &what, &name))
		return false;
	if (client->server->owed.skipping)
		return pass_as_is(pass, frame);
	if (what != 'S' || !pass_tracks(client))
		return pass_owe(pass, OWED_CLOSE, OWED_FORWARD) != NULL &&
		    pass_as_is(pass, frame);
	if (!pass_is_certain(pass, name))
		return false;
	if (name.len == 0) {
		entry = pass_owe(pass, OWED_CLOSE, OWED_FORWARD);
		if (entry == NULL)
			return false;
		entry->unnamed = true;
		entry->unnamed_was = client->unnamed;
		client->unnamed = NULL;
		server_set_unnamed(client->server, NULL);
		return pass_as_is(pass, frame);
	}

	/* One of SQL's PREPARE. */
	if (stmt_names_get(&client->names, name) == NULL &&
	    !pass_is_foreign(name) && state_has_prepared(client->server)) {
		state_note(client->server, SQL_PREPARE, SPAN(""));
		return pass_owe(pass, OWED_CLOSE, OWED_FORWARD) != NULL &&
		    pass_as_is(pass, frame);
	}

	/* The statement stays on the server, for others and for later. */
	struct stmt *was = NULL;
	entry = pass_owe(pass, OWED_CLOSE, OWED_LOCAL);
	return entry != NULL &&
	    stmt_names_set(&client->names, name, NULL, &was) &&
	    pass_note_change(pass, entry, name, was) && pass_drop(pass, frame);
}

void
pass_note_effects(struct server *server, struct owed_entry *entry,
    uint32_t effects)
{
	entry->ends = effects & (SQL_END | SQL_UNKNOWN);
	server->commit_sent = server->commit_sent || entry->ends;
	entry->clears = effects & (SQL_DEALLOCATE_ALL | SQL_DISCARD_ALL);
	entry->discards = effects & SQL_DISCARD_ALL;
	entry->ddl = effects & SQL_DDL;
	entry->temp = !entry->ddl && effects & SQL_TEMP;
}

bool
pass_execute(struct pass *pass, const struct frame *frame)
{
	if (!pass_link(pass))
		return false;
	struct server *server = pass->client->server;
	if (server->local_portal != NULL && !server->owed.skipping &&
	    frame->body == 5)		/* the unnamed portal's */
		return pass_execute_deallocate(pass, frame);
	if (!server->owed.skipping) {
		struct owed_entry *entry =
		    pass_owe(pass, OWED_EXECUTE, OWED_FORWARD);
		if (entry == NULL)
			return false;
		pass_note_effects(server, entry, server->bound_effects);
		owed_set_copies(&server->owed, entry,
		    server->bound_effects & SQL_COPY_IN);
	}
	return pass_as_is(pass, frame);
}
