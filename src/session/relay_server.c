/*
 * From a server to its client.
 *
 * Replies are walked as requests are (relay_client.c): a run of bytes that
 * are passed on, interrupted only where something is swallowed. Each reply is
 * held against the head of server->owed, which says whose it is. The rules by
 * which debts vanish (protocol 3, "Message Flow"):
 *
 *   1 2 3 n T C I s   take their entry off (T and C only where their entry is
 *                     a Describe or an Execute; in a simple query they come
 *                     in any number and the Z takes the entry)
 *   E in a Query or FunctionCall: a Z follows and takes the entry
 *   E in an extended batch: the server skips all messages up to the next
 *                     Sync, a Query in between included; their entries go,
 *                     and what they had changed is undone. Has no Sync been
 *                     passed on yet, `skipping` stays set until one is.
 *   G                 COPY IN: the server ignores a Sync until the COPY ends,
 *                     so those that were passed on before the client's
 *                     CopyDone will never be answered: unless it fails
 *                     before it reads any data, when they are. So none is
 *                     passed on until it is known what comes (pass_sync)
 *   Z                 takes a Sync, Query or FunctionCall off
 *
 * A reply that fits none of these is a broken server, and ends it.
 */
#include "session/relay.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "pool/vars.h"
#include "session/channels.h"
#include "session/client.h"
#include "session/database.h"
#include "session/hub.h"
#include "session/link.h"
#include "session/migrant.h"
#include "session/owed.h"
#include "session/server.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"

/* Replies of which we need the whole body to act (E, S, Z, and a small C). */
#define WHOLE_MAX 16384
/* Descriptions: of as many columns, or parameters, as there can be. */
#define DESCRIPTION_MAX (512 * 1024)
/* Command tags that matter. */
#define TAG_MAX 48

struct reply {
	struct server *server;
	const char *at;
	size_t len;
	size_t pos;
	size_t run;
};

/* What becomes of a message. */
enum verdict {
	REPLY_PASS,
	REPLY_SWALLOW,
	REPLY_MORE,		/* its body is needed first */
	REPLY_BAD,		/* it fits nothing */
};

static void
reply_put(struct reply *reply)
{
	struct client *client = reply->server->client;

	if (reply->pos > reply->run && client != NULL)
		stream_put(&client->s, reply->at + reply->run,
		    reply->pos - reply->run);
	reply->run = reply->pos;
}

static void
reply_step_over(struct reply *reply, size_t size, bool drop)
{
	size_t have = reply->len - reply->pos;
	size_t now = size < have ? size : have;

	if (drop)
		reply_put(reply);
	reply->pos += now;
	reply->server->relay.left = (uint32_t)(size - now);
	reply->server->relay.drop = drop;
	if (drop)
		reply->run = reply->pos;
}

/*
 * Local answers.
 */

/* The server skips what was to give a name another meaning. */
static void
change_undo(struct client *client, struct owed_change *change)
{
	struct span name = { change->name, change->len };
	struct stmt *now = NULL;

	if (client == NULL)
		return;
	if (stmt_names_set(&client->names, name, change->was, &now))
		change->was = NULL;
	stmt_unref(now);
}

/*
 * The same for the unnamed statement. A later batch may have replaced it
 * already, one whose first entry is at `later`: then it is that one's past
 * which changes, should it be skipped as well.
 */
static void
unnamed_undo(struct server *server, struct owed_entry *entry, uint32_t later)
{
	struct client *client = server->client;
	struct stmt **was = client != NULL ? &client->unnamed : NULL;
	bool replaced = false;

	for (; later < server->owed.count; later++) {
		struct owed_entry *next = owed_at(&server->owed, later);
		replaced = replaced || next->unnamed;
		if (next->unnamed && next->action == OWED_FORWARD) {
			was = &next->unnamed_was;
			break;
		}
	}
	if (!replaced)
		server_set_unnamed(server, NULL);
	if (was == NULL || entry->action != OWED_FORWARD)
		return;
	stmt_unref(*was);
	*was = entry->unnamed_was;
	entry->unnamed_was = NULL;
}

/* Takes the head off: what it was about has happened. */
static void
owed_settle(struct server *server)
{
	struct owed_entry *head = owed_head(&server->owed);

	bool certain = head->kind >= OWED_SYNC || head->copies;

	owed_entry_clear(head);
	owed_pop(&server->owed);
	/* Room again, or a name's meaning is known now. */
	if (server->client != NULL &&
	    (certain || server->owed.count == OWED_MAX / 2))
		stream_resume(&server->client->s, PAUSE_OWED_FULL);
}

/* Puts an answer that is ours to give; what it says happens with it. */
static void
owed_put_answer(struct client *client, const struct owed_entry *entry)
{
	static const char parse[] = "1\0\0\0\4";
	static const char bind[] = "2\0\0\0\4";
	static const char close[] = "3\0\0\0\4";
	static const char describe[] = "n\0\0\0\4";
	static const char one[] = "C\0\0\0\017DEALLOCATE";
	static const char all[] = "C\0\0\0\023DEALLOCATE ALL";

	switch (entry->kind) {
	case OWED_PARSE:
		stream_put(&client->s, parse, 5);
		break;
	case OWED_BIND:
		stream_put(&client->s, bind, 5);
		break;
	case OWED_CLOSE:
		stream_put(&client->s, close, 5);
		break;
	case OWED_DESCRIBE:
		stream_put(&client->s, describe, 5);
		break;
	case OWED_EXECUTE:
		if (entry->clears) {
			stmt_names_clear(&client->names);
			stream_put(&client->s, all, sizeof(all));
		} else {
			stream_put(&client->s, one, sizeof(one));
		}
		break;
	default:
		check(entry->kind == OWED_COPY_DONE);
	}
}

/* The same for all whose turn it is. */
static void
owed_put_local(struct server *server)
{
	struct owed_entry *head;

	while (server->owed.local > 0 &&
	    (head = owed_head(&server->owed))->action == OWED_LOCAL) {
		if (server->client != NULL)
			owed_put_answer(server->client, head);
		owed_settle(server);
	}
}

void
relay_answer_local(struct server *server)
{
	owed_put_local(server);
	if (server->client != NULL)
		stream_flush(&server->client->s);
}

/*
 * Errors.
 */

/* The server skips this message: what it was to change is as before. The first
 * one that it does not skip is at `later`. */
static void
owed_undo(struct server *server, uint32_t i, uint32_t later)
{
	struct owed_entry *entry = owed_at(&server->owed, i);

	if (entry->change != NULL)
		change_undo(server->client, entry->change);
	if (entry->stmt != NULL && entry->kind == OWED_PARSE)
		stmt_cache_remove(&server->statements, entry->stmt);
	/* It still has what was to make room. */
	if (entry->stmt != NULL && entry->kind == OWED_CLOSE &&
	    !stmt_cache_add(&server->statements, entry->stmt))
		server->tainted = true;
	if (entry->unnamed)
		unnamed_undo(server, entry, later);
	if (entry->kind == OWED_BIND && entry->action == OWED_LOCAL)
		server_set_local_portal(server, NULL);
	owed_entry_clear(entry);
}

void
server_forget_owed(struct server *server)
{
	struct owed *owed = &server->owed;

	while (owed->count > 0) {
		owed_undo(server, owed->count - 1, owed->count);
		owed_pop_last(owed);
	}
	mem_free(owed->sql);
	owed->sql = NULL;
	owed->skipping = false;
	owed->copy_in = false;
	owed->copy_in_doubt = false;
}

/* An error in an extended batch: everything up to the next Sync is skipped.
 * Undone from the last to the first, as they built on one another. */
static void
owed_skip_to_sync(struct server *server)
{
	struct owed *owed = &server->owed;
	uint32_t sync = 0;

	while (sync < owed->count && owed_at(owed, sync)->kind != OWED_SYNC)
		sync++;
	owed->skipping = sync == owed->count;
	for (uint32_t i = sync; i-- > 0;)
		owed_undo(server, i, sync);
	for (uint32_t i = 0; i < sync; i++)
		owed_pop(owed);
	if (server->client != NULL && owed->count <= OWED_MAX / 2)
		stream_resume(&server->client->s, PAUSE_OWED_FULL);
}

/* A COPY has failed, and not by its data nor for having waited for it: what
 * the server reads next are the Syncs that were kept from it. */
static bool
copy_put_syncs(struct server *server, const struct error_fields *fields)
{
	struct owed *owed = &server->owed;

	if (!owed->skipping || span_is(fields->sqlstate, "57014"))
		owed->copy_syncs = 0;
	for (; owed->copy_syncs > 0; owed->copy_syncs--) {
		if (owed_push(owed, OWED_SYNC, OWED_FORWARD) == NULL)
			return false;
		owed->skipping = false;
		stream_send(&server->s, "S\0\0\0\4", 5);
	}
	return true;
}

/*
 * "prepared statement "PGSLUICE_7" already exists": the client knows it by
 * another name. The names of ours in the message give way to the client's.
 */
static bool
error_put_renamed(struct reply *reply, const struct frame *frame,
    const struct error_fields *fields)
{
	struct client *client = reply->server->client;
	struct buf *out = &client->worker->scratch;
	const char *found = fields->message.at == NULL ? NULL :
	    memmem(fields->message.at, fields->message.len, "\"" STMT_PREFIX,
	    sizeof(STMT_PREFIX));

	if (found == NULL || (!span_is(fields->sqlstate, "42P05") &&
	    !span_is(fields->sqlstate, "26000")))
		return false;

	const char *end = reply->at + reply->pos + FRAME_HEADER + frame->body;
	const char *close = memchr(found + 1, '"', (size_t)(end - found - 1));
	if (close == NULL)
		return false;

	const char *from = reply->at + reply->pos + FRAME_HEADER;
	struct span ours = { found + 1, (size_t)(close - found - 1) };
	struct span name = stmt_names_of(&client->names, ours);
	buf_clear(out);
	size_t began = msg_begin(out, 'E');
	buf_add(out, from, (size_t)(found + 1 - from));
	buf_add_span(out, name);
	buf_add(out, close, (size_t)(end - close));
	msg_end(out, began);
	if (out->failed)
		return false;
	reply_put(reply);
	stream_send(&client->s, out->at, out->len);
	return true;
}

static enum verdict
reply_error(struct reply *reply, const struct frame *frame)
{
	struct server *server = reply->server;
	struct owed_entry *head = owed_head(&server->owed);
	struct span body = { reply->at + reply->pos + FRAME_HEADER,
	    frame->body };
	struct error_fields fields;

	if (frame->body > WHOLE_MAX)
		body.len = 0;		/* streamed; its words are not read */
	else if (reply->len - reply->pos - FRAME_HEADER < frame->body)
		return REPLY_MORE;
	if (!error_parse(body, &fields))
		memset(&fields, 0, sizeof(fields));
	server->owed.copy_in = false;
	/* How many times it will be ready now, nobody can tell. */
	if (server->owed.copy_in_doubt)
		server->tainted = true;
	if (head == NULL || span_is(fields.severity, "FATAL") ||
	    span_is(fields.severity, "PANIC")) {
		/* Its last words; the end of the connection follows, and what
		 * the client is told depends on where it was. */
		mem_free(server->last_words);
		server->last_words = mem_strndup(fields.message.at != NULL ?
		    fields.message.at : "", fields.message.len);
		server->tainted = true;
		return REPLY_SWALLOW;
	}

	enum owed_action action = head->action;
	if (action == OWED_SWALLOW && head->kind == OWED_QUERY) {
		if (head->leaves)
			channels_leave_failed(server);
		else if (!head->probe ||
		    !state_probe_failed(server, fields.sqlstate))
			server_own_query_failed(server, &fields);
		return REPLY_SWALLOW;
	}
	bool again = plans_failed(server, head, &fields);
	bool refused = head->refused;
	head->discards = false;		/* what is put back now is told */
	/* A Parse of the unnamed statement begins with dropping the last one:
	 * if it fails there is none. */
	stmt_unref(head->unnamed_was);
	head->unnamed_was = NULL;
	if (head->kind != OWED_QUERY && head->kind != OWED_FUNCTION)
		owed_skip_to_sync(server);
	if (server->client == NULL)
		return REPLY_SWALLOW;
	if (!copy_put_syncs(server, &fields))
		return REPLY_BAD;
	if (again) {
		plans_swallow_batch(server);
		return REPLY_SWALLOW;
	}
	if (refused) {
		reply_put(reply);
		plans_put_refusal(server->client);
		return REPLY_SWALLOW;
	}
	if (error_put_renamed(reply, frame, &fields))
		return REPLY_SWALLOW;
	return REPLY_PASS;
}

/*
 * The other replies.
 */

/* A reply that takes its entry off. */
static enum verdict
reply_settle(struct reply *reply, enum owed_kind kind)
{
	struct owed_entry *head = owed_head(&reply->server->owed);

	if (head == NULL || head->kind != kind)
		return REPLY_BAD;

	enum verdict verdict = head->action == OWED_FORWARD ?
	    REPLY_PASS : REPLY_SWALLOW;
	owed_settle(reply->server);
	return verdict;
}

/* A reply that belongs to the head and may or may not take it off. */
static enum verdict
reply_within(struct reply *reply, enum owed_kind taken_off)
{
	struct owed_entry *head = owed_head(&reply->server->owed);

	if (head == NULL)
		return REPLY_BAD;
	if (head->kind == taken_off)
		return reply_settle(reply, taken_off);
	return head->action == OWED_FORWARD ? REPLY_PASS : REPLY_SWALLOW;
}

/* DEALLOCATE ALL and DISCARD ALL reached the server after all: what it had
 * prepared for anybody is gone, and so are this client's names. */
static void
reply_tag(struct reply *reply, struct span tag)
{
	struct server *server = reply->server;
	struct client *client = server->client;
	bool discard = span_is(tag, "DISCARD ALL");

	if (!discard && !span_is(tag, "DEALLOCATE ALL"))
		return;
	stmt_cache_clear(&server->statements);
	server_set_unnamed(server, NULL);
	if (client != NULL)
		stmt_names_clear(&client->names);
	if (discard) {
		reply_put(reply);
		server_discarded(server);
	}
}

static enum verdict
reply_complete(struct reply *reply, const struct frame *frame)
{
	struct client *client = reply->server->client;
	struct span tag = { reply->at + reply->pos + FRAME_HEADER,
	    frame->body - 1 };

	if (frame->body > 0 && frame->body <= TAG_MAX) {
		struct owed_entry *head = owed_head(&reply->server->owed);

		if (reply->len - reply->pos - FRAME_HEADER < frame->body)
			return REPLY_MORE;
		/* "DISCARD ALL", "DEALLOCATE ALL" and a NUL */
		if (frame->body == 12 || frame->body == 15)
			reply_tag(reply, tag);
		if (head != NULL && head->action == OWED_FORWARD)
			plans_completed(reply->server, head, tag);
	}
	if (client != NULL && client->database_step != NULL) {
		if (reply->len - reply->pos - FRAME_HEADER < frame->body)
			return REPLY_MORE;
		database_completed(client, tag);
	}
	return reply_within(reply, OWED_EXECUTE);
}

/* Of a statement, not of a portal: what clients know of it. */
static enum verdict
reply_description(struct reply *reply, const struct frame *frame)
{
	struct server *server = reply->server;
	struct owed_entry *head = owed_head(&server->owed);
	enum verdict verdict = head->action == OWED_FORWARD ?
	    REPLY_PASS : REPLY_SWALLOW;

	if (frame->body > DESCRIPTION_MAX)
		return REPLY_BAD;
	if (reply->len - reply->pos - FRAME_HEADER < frame->body)
		return REPLY_MORE;
	plans_described(server, frame->type, (struct span){
	    reply->at + reply->pos + FRAME_HEADER, frame->body });
	if (frame->type == 't')
		return verdict;
	verdict = reply_settle(reply, OWED_DESCRIBE);
	/* A Bind has waited for it. */
	if (verdict == REPLY_SWALLOW && server->client != NULL)
		stream_resume(&server->client->s, PAUSE_OWED_FULL);
	return verdict;
}

static enum verdict
reply_copy_in(struct reply *reply)
{
	struct server *server = reply->server;
	struct owed *owed = &server->owed;
	struct owed_entry *head = owed_head(owed);
	uint32_t end = 1;

	if (head == NULL || server->client == NULL ||
	    head->action != OWED_FORWARD ||
	    (head->kind != OWED_EXECUTE && head->kind != OWED_QUERY))
		return REPLY_BAD;
	owed_set_copies(owed, head, false);	/* it is certain now */
	while (end < owed->count &&
	    owed_at(owed, end)->kind != OWED_COPY_DONE)
		end++;
	bool done = end < owed->count;
	char *sql = NULL;
	for (uint32_t i = end; i-- > 1;) {
		/* Anything but a Sync is an error to come; who knows what is
		 * owed then. This server is not used again. */
		if (owed_at(owed, i)->kind != OWED_SYNC)
			server->tainted = true;
		else
			owed->copy_in_doubt = true;
		/* The Sync behind the COPY is the one that is answered. */
		if (owed_at(owed, i)->sql != NULL) {
			mem_free(sql);
			sql = owed_at(owed, i)->sql;
			owed_at(owed, i)->sql = NULL;
		}
		owed_undo(server, i, end);
	}
	if (owed->sql == NULL)
		owed->sql = sql;
	else
		mem_free(sql);
	while (end-- > 1)
		owed_remove(owed, 1);
	if (done) {
		owed_remove(owed, 1);
		return REPLY_PASS;
	}
	/* It may have waited for the answer to a Sync that is ignored now. */
	stream_resume(&server->client->s, PAUSE_OWED_FULL);
	owed->copy_in = true;
	owed->copy_data = false;
	owed->copy_syncs = 0;
	return REPLY_PASS;
}

static enum verdict
reply_ready(struct reply *reply, const struct frame *frame)
{
	struct server *server = reply->server;
	struct owed_entry *head = owed_head(&server->owed);

	if (frame->body != 1)
		return REPLY_BAD;
	if (reply->len - reply->pos - FRAME_HEADER < 1)
		return REPLY_MORE;
	if (head == NULL || (head->kind != OWED_SYNC &&
	    head->kind != OWED_QUERY && head->kind != OWED_FUNCTION))
		return REPLY_BAD;

	char status = reply->at[reply->pos + FRAME_HEADER];
	if (status != 'I' && status != 'T' && status != 'E')
		return REPLY_BAD;

	bool forward = head->action == OWED_FORWARD;
	bool probe = head->probe;
	bool leaves = head->leaves;
	bool again = head->again;
	char *sql = head->sql;
	head->sql = NULL;
	server->status = status;
	server->owed.copy_in = false;
	server->owed.copy_in_doubt = false;
	server->discarded = false;
	owed_settle(server);
	server->commit_sent = server->commit_sent &&
	    owed_may_end(&server->owed);
	/* Portals end with their transaction; one that was bound behind what
	 * was answered now belongs to the next. */
	if (status != 'T' && !owed_has_local_bind(&server->owed))
		server_set_local_portal(server, NULL);
	server->owed.batch_open = !owed_is_clear(&server->owed);
	plans_ready(server);
	if (again && server->client != NULL)
		plans_repeat_batch(server);
	else if (forward && server->client != NULL)
		server->client->repeated = 0;
	if (forward && server->client != NULL &&
	    server->client->database_step != NULL)
		database_answered(server->client);
	if (forward && server->client != NULL)
		link_query_ended(server->client, sql);
	else if (probe)
		state_probed(server);
	else if (leaves)
		channels_left(server);
	else if (server->hub != NULL)
		hub_answered(server);
	if (!forward && server->client != NULL)
		link_vars_accepted(server);
	if (sql != NULL)
		mem_free(sql);
	return forward ? REPLY_PASS : REPLY_SWALLOW;
}

static enum verdict
reply_parameter(struct reply *reply, const struct frame *frame)
{
	struct server *server = reply->server;

	if (frame->body > WHOLE_MAX)
		return REPLY_BAD;
	if (reply->len - reply->pos - FRAME_HEADER < frame->body)
		return REPLY_MORE;

	struct body body = body_of((struct span){
	    reply->at + reply->pos + FRAME_HEADER, frame->body });
	struct span name = body_text(&body);
	struct span value = body_text(&body);
	if (!body_is_done(&body))
		return REPLY_BAD;
	if (server->discarded || (owed_head(&server->owed) != NULL &&
	    owed_head(&server->owed)->discards)) {
		server_parameter_reset(server, name, value);
		return REPLY_SWALLOW;
	}
	if (state_hides(server, name, value)) {
		server_parameter_reset(server, name, value);
		reply_put(reply);
		state_put_back(server, name);
		return REPLY_SWALLOW;
	}
	return server_parameter(server, name, value) ?
	    REPLY_PASS : REPLY_SWALLOW;
}

static enum verdict
reply_probe_row(struct reply *reply, const struct frame *frame)
{
	if (frame->body > WHOLE_MAX)
		return REPLY_BAD;
	if (reply->len - reply->pos - FRAME_HEADER < frame->body)
		return REPLY_MORE;
	return state_row(reply->server, (struct span){
	    reply->at + reply->pos + FRAME_HEADER, frame->body }) ?
	    REPLY_SWALLOW : REPLY_BAD;
}

static enum verdict
reply_notification(struct reply *reply, const struct frame *frame)
{
	struct server *server = reply->server;
	struct span body = { reply->at + reply->pos + FRAME_HEADER,
	    frame->body };

	if (frame->body > WHOLE_MAX)
		return REPLY_BAD;
	if (reply->len - reply->pos - FRAME_HEADER < frame->body)
		return REPLY_MORE;
	if (server->hub != NULL)
		return hub_notified(server, body) ?
		    REPLY_SWALLOW : REPLY_BAD;
	switch (channels_judge(server, body)) {
	case CHANNELS_PASS:
		return REPLY_PASS;
	case CHANNELS_OWN:
		reply_put(reply);
		channels_tell_own(server->client, body);
		return REPLY_SWALLOW;
	case CHANNELS_DROP:
		return REPLY_SWALLOW;
	case CHANNELS_BAD:
		break;
	}
	return REPLY_BAD;
}

static enum verdict
reply_judge(struct reply *reply, const struct frame *frame)
{
	struct owed_entry *head = owed_head(&reply->server->owed);

	if (head != NULL && head->kind == OWED_DESCRIBE &&
	    head->stmt != NULL && memchr("tTn", frame->type, 3) != NULL)
		return reply_description(reply, frame);
	switch (frame->type) {
	case 'D':
		if (head != NULL && head->probe)
			return reply_probe_row(reply, frame);
		/* fallthrough */
	case 'd': case 'c': case 't': case 'H': case 'V':
		if (head == NULL)
			return REPLY_BAD;
		return head->action == OWED_FORWARD ?
		    REPLY_PASS : REPLY_SWALLOW;
	case '1':
		return reply_settle(reply, OWED_PARSE);
	case '2':
		return reply_settle(reply, OWED_BIND);
	case '3':
		return reply_settle(reply, OWED_CLOSE);
	case 'n': case 'T':
		return reply_within(reply, OWED_DESCRIBE);
	case 's': case 'I':
		return reply_within(reply, OWED_EXECUTE);
	case 'C':
		return reply_complete(reply, frame);
	case 'E':
		return reply_error(reply, frame);
	case 'G':
		return reply_copy_in(reply);
	case 'Z':
		return reply_ready(reply, frame);
	case 'S':
		return reply_parameter(reply, frame);
	case 'A':
		return reply_notification(reply, frame);
	case 'N':
		return head != NULL && head->action == OWED_SWALLOW ?
		    REPLY_SWALLOW : REPLY_PASS;
	default:
		return REPLY_BAD;
	}
}

/*
 * The walk.
 */

/* The answers that are ours to give go before what stands behind them. */
static void
reply_put_local(struct reply *reply)
{
	struct owed *owed = &reply->server->owed;

	if (owed->local > 0 && owed_head(owed)->action == OWED_LOCAL) {
		reply_put(reply);
		owed_put_local(reply->server);
	}
}

/* After a message: answers that are ours to give now, and the transaction's
 * end. */
static void
reply_after(struct reply *reply)
{
	struct server *server = reply->server;

	if (server->relay.left > 0)
		return;
	reply_put_local(reply);
	if (server->client == NULL)
		return;
	/* Most replies are followed by another one: nothing ends here. */
	if (server->owed.count > 0 && server->touched == 0 &&
	    server->hears == HEARS_NOTHING && server->client->login == NULL) {
		stream_resume(&server->client->s, PAUSE_ANSWER);
		return;
	}
	if (state_probe(server) || server->client == NULL)
		return;
	if (server->client->login == NULL && !state_must_wait(server))
		stream_resume(&server->client->s, PAUSE_ANSWER);
	if (server->client != NULL)
		channels_tell_later(server->client);
	if (server->client == NULL)
		return;
	if (!link_is_over(server->client)) {
		link_rest(server->client);
		return;
	}

	struct client *client = server->client;
	reply_put(reply);
	stream_flush(&client->s);
	link_part(client);
}

static bool
reply_message(struct reply *reply)
{
	struct server *server = reply->server;
	struct frame frame;

	if (server->relay.left > 0) {
		reply_step_over(reply, server->relay.left,
		    server->relay.drop);
		reply_after(reply);
		return true;
	}
	switch (frame_peek(reply->at + reply->pos, reply->len - reply->pos,
	    &frame)) {
	case FRAME_MORE:
		return false;
	case FRAME_BAD:
		reply_put(reply);
		server_lost(server, "bad message length");
		return false;
	case FRAME_OK:
		break;
	}

	reply_put_local(reply);
	enum verdict verdict = reply_judge(reply, &frame);
	if (server->state >= SERVER_CLOSING || verdict == REPLY_MORE)
		return false;
	if (verdict == REPLY_BAD) {
		reply_put(reply);
		server_lost(server, "unexpected message");
		return false;
	}
	reply_step_over(reply, FRAME_HEADER + (size_t)frame.body,
	    verdict == REPLY_SWALLOW || server->client == NULL);
	reply_after(reply);
	return true;
}

size_t
relay_server(struct server *server, const char *at, size_t len)
{
	struct reply reply = { .server = server, .at = at, .len = len };

	while (reply.pos < len && reply_message(&reply))
		continue;
	if (server->state >= SERVER_CLOSING)
		return len;

	struct client *client = server->client;
	if (client != NULL) {
		reply_put(&reply);
		if (stream_flush(&client->s) == STREAM_QUEUED)
			stream_pause(&server->s, PAUSE_PEER_FULL);
	}
	return reply.pos;
}
