/*
 * Transactions that have only been begun.
 *
 * Many a client says BEGIN and then thinks: an ORM that opens a transaction
 * before it knows its first query, a function that is frozen in between. Until
 * something is asked that only a server can answer, it needs none:
 *
 *   BEGIN          answered here; the text is kept (client->begin)
 *     |
 *     +-- COMMIT, ROLLBACK     answered here; nothing has happened
 *     |
 *     +-- anything else        takes a server, as a query outside of a
 *                              transaction does; link.c puts the BEGIN in
 *                              front of it, and swallows its answer
 *
 * Only what Postgres is sure to accept is answered here (SQL_BARE), as a
 * simple query or as a whole batch of its own; all else takes a server and is
 * answered by that.
 *
 * Where there is no server for the first statement (query_wait_timeout), the
 * client is told so by an ERROR, and its transaction has failed: as in
 * Postgres, everything up to its end is refused.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "pool/pool.h"
#include "session/client.h"
#include "session/pass.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/sqlscan.h"

/* A text that is longer than this goes to a server at once. */
#define BEGIN_MAX 200

char
client_status(const struct client *client)
{
	if (client->server != NULL)
		return client->server->status;
	if (client->begin == NULL)
		return 'I';
	return client->begin_failed ? 'E' : 'T';
}

static void
begin_forget(struct client *client)
{
	mem_free(client->begin);
	client->begin = NULL;
	client->begin_failed = false;
}

/* Is this one to be answered here? */
static bool
is_ours(const struct client *client, uint32_t effects)
{
	if (client->server != NULL || pool_mode(client->pool) !=
	    POOL_TRANSACTION || !client->worker->setup->conf->o.defer_begin)
		return false;
	return client->begin == NULL ? effects == (SQL_BEGIN | SQL_BARE) :
	    effects == (SQL_END | SQL_BARE);
}

/* Does what it says. The tag of its answer; NULL: out of memory. */
static const char *
begin_obey(struct client *client, struct span sql, struct span word)
{
	bool undo = span_is_case(word, "rollback") ||
	    span_is_case(word, "abort") || client->begin_failed;

	if (client->begin != NULL) {
		begin_forget(client);
		return undo ? "ROLLBACK" : "COMMIT";
	}
	client->begin = mem_strndup(sql.at, sql.len);
	if (client->begin == NULL)
		return NULL;
	return span_is_case(word, "start") ? "START TRANSACTION" : "BEGIN";
}

static bool
begin_send(struct pass *pass, size_t size, const struct buf *out)
{
	struct client *client = pass->client;
	struct stat_block *stat =
	    &client->pool->shard[client->worker->index].stat;

	if (out->failed)
		return pass_end(pass, END_NO_MEMORY, NULL);
	stat_add(stat, STAT_query_count, 1);
	if (client->begin == NULL)
		stat_add(stat, STAT_xact_count, 1);
	pass_step_over(pass, size, true);
	stream_send(&client->s, out->at, out->len);
	return true;
}

bool
pass_begin_query(struct pass *pass, const struct frame *frame,
    uint32_t effects, struct span sql, struct span word, bool *ret_go_on)
{
	struct client *client = pass->client;
	struct buf *out = &client->worker->scratch;
	const char *tag;

	if (!is_ours(client, effects) || sql.len > BEGIN_MAX)
		return false;
	stmt_unref(client->unnamed);
	client->unnamed = NULL;
	tag = begin_obey(client, sql, word);
	if (tag == NULL) {
		*ret_go_on = pass_end(pass, END_NO_MEMORY, NULL);
		return true;
	}
	buf_clear(out);
	msg_command_complete(out, tag);
	msg_ready(out, client_status(client));
	*ret_go_on = begin_send(pass, FRAME_HEADER + (size_t)frame->body, out);
	return true;
}

/*
 * The same as an extended batch: [Parse] Bind [Describe] Execute Sync, all of
 * it there, and all unnamed but for a statement that was parsed before.
 */
struct batch {
	struct span at;			/* what is left of the read */
	size_t size;			/* of the messages taken so far */
	struct body body;		/* of the last one */
	struct stmt *stmt;
	bool parsed;			/* by this batch: stmt is a reference */
	bool described;
};

static bool
batch_next(struct batch *batch, uint8_t type)
{
	struct span rest = { batch->at.at + batch->size,
	    batch->at.len - batch->size };
	struct frame frame;

	if (frame_peek(rest.at, rest.len, &frame) != FRAME_OK ||
	    frame.type != type || rest.len - FRAME_HEADER < frame.body)
		return false;
	batch->body = body_of((struct span){ rest.at + FRAME_HEADER,
	    frame.body });
	batch->size += FRAME_HEADER + frame.body;
	return true;
}

/* False: not a statement that could be ours. */
static bool
batch_take_parse(struct batch *batch)
{
	struct span name = body_text(&batch->body);
	struct span tail = batch->body.bad ? SPAN("") :
	    body_rest(&batch->body);
	struct body body = body_of(tail);
	struct span sql = body_text(&body);

	/* Without types of parameters, which it has none of. */
	if (name.len > 0 || body_u16(&body) != 0 || !body_is_done(&body) ||
	    sql.len > BEGIN_MAX || (sqlscan(sql, NULL) & SQL_BARE) == 0)
		return false;
	batch->stmt = stmt_intern(tail, 0, 0, 0);
	batch->parsed = batch->stmt != NULL;
	return batch->parsed;
}

static bool
batch_take_bind(struct batch *batch, const struct client *client)
{
	struct span portal = body_text(&batch->body);
	struct span name = body_text(&batch->body);

	if (!batch->parsed)
		batch->stmt = name.len == 0 ? client->unnamed :
		    stmt_names_get(&client->names, name);
	/* No values; no formats of any either, or one for all. */
	unsigned formats = body_u16(&batch->body);
	if (formats == 1)
		body_u16(&batch->body);
	return batch->stmt != NULL && portal.len == 0 &&
	    (!batch->parsed || name.len == 0) && formats <= 1 &&
	    body_u16(&batch->body) == 0 && !batch->body.bad;
}

static bool
batch_read(struct batch *batch, const struct client *client)
{
	if (batch_next(batch, 'P') && !batch_take_parse(batch))
		return false;
	if (!batch_next(batch, 'B') || !batch_take_bind(batch, client))
		return false;
	if (batch_next(batch, 'D')) {
		if (body_u8(&batch->body) != 'P' ||
		    body_text(&batch->body).len > 0)
			return false;
		batch->described = true;
	}
	return batch_next(batch, 'E') && body_text(&batch->body).len == 0 &&
	    batch_next(batch, 'S');
}

static bool
batch_answer(struct pass *pass, const struct batch *batch)
{
	struct client *client = pass->client;
	struct buf *out = &client->worker->scratch;
	struct span word;
	const char *tag;

	sqlscan(stmt_sql(batch->stmt), &word);
	tag = begin_obey(client, stmt_sql(batch->stmt), word);
	if (tag == NULL)
		return pass_end(pass, END_NO_MEMORY, NULL);
	if (batch->parsed) {
		stmt_unref(client->unnamed);
		client->unnamed = stmt_ref(batch->stmt);
	}
	buf_clear(out);
	if (batch->parsed)
		msg_end(out, msg_begin(out, '1'));
	msg_end(out, msg_begin(out, '2'));
	if (batch->described)
		msg_end(out, msg_begin(out, 'n'));
	msg_command_complete(out, tag);
	msg_ready(out, client_status(client));
	return begin_send(pass, batch->size, out);
}

bool
pass_begin_batch(struct pass *pass, bool *ret_go_on)
{
	const struct client *client = pass->client;
	struct batch batch = { .at = { pass->at + pass->pos,
	    pass_available(pass) } };
	bool ours;

	if (client->server != NULL || !client_tracks_statements(client))
		return false;
	ours = batch_read(&batch, client) &&
	    is_ours(client, batch.stmt->effects);
	if (ours)
		*ret_go_on = batch_answer(pass, &batch);
	if (batch.parsed)
		stmt_unref(batch.stmt);
	return ours;
}
