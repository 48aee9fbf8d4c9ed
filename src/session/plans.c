/*
 * Prepared statements and a schema that changes.
 *
 * A driver prepares a statement once, is told the types of its parameters and
 * columns (the statement's shape), and reads and writes binary values by them
 * for hours. Postgres keeps its side of that: a prepared statement of which
 * the columns have changed is refused (0A000 "cached plan must not change
 * result type"), and drivers know what to do then. But a pooler prepares one
 * statement again and again, on one server after the other, and what was SELECT
 * * of two columns this morning may have three by now. So:
 *
 * 1. Nobody reads by an old description. What clients were told is remembered
 *    with the statement (stmt->shape), what a server has made of it with the
 *    server's entry. A Bind goes to a server only where the two agree; a server
 *    that was not asked yet is asked first:
 *
 *        client   Bind | Execute Sync            (waits)            |
 *        server          Parse Describe Flush -- 1 t T -->  agree?  Bind ...
 *
 *    one round trip, once for a statement and server. Where they differ, the
 *    client gets the error that Postgres has for it. A batch that describes
 *    its portal (libpq does, and what stands on it) is told the columns anew:
 *    there only the parameters have to agree. What was never described by
 *    anybody, nobody can read wrongly.
 *
 * 2. Who prepares after the change never suffers from who did before. A
 *    statement is of the schema epoch in which it was prepared: the same text
 *    in another epoch is another statement, under another name on servers.
 *    What an older name stands for is replaced by the statement of the new
 *    epoch when it is used next, if they agree (or need not), and closed.
 *
 * 3. The epoch goes up when a transaction with DDL has ended, by the command
 *    tags; and, for DDL that came another way (psql, a function), when a server
 *    refuses a statement or is found to disagree. DO and CALL do not count:
 *    they are too common, and what they change is found in that second way.
 *    Inside a transaction with DDL of its own a client has an epoch for itself,
 *    since others do not see its schema yet, and may never. What a client with
 *    temporary tables gives a name has one that ends with them, or is over when
 *    they change: the same text may be prepared on this server, for others that
 *    had a table of that name. What it has prepared before is left as it is.
 *
 * 4. Where such an error proves that nothing has run (outside of a transaction,
 *    first in its batch, nothing behind it), the client does not see it: its
 *    bytes go back to where they came from, and are walked again, with the
 *    server that they were for: its Parse and its Bind then have no others in
 *    between. What is needed for that is a copy of the batch, kept while it is
 *    owed.
 *
 * Only what is planned has a shape: what FETCH or EXECUTE return depends on
 * the session, and is for Postgres to say. Their epoch is 0, which never ends.
 * So much for the names of columns: one that is not ASCII looks otherwise in
 * each client_encoding, and all of those count as the same.
 */
#include "session/plans.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "pool/pool.h"
#include "pool/stmt.h"
#include "pool/target.h"
#include "pool/vars.h"
#include "session/client.h"
#include "session/owed.h"
#include "session/pass.h"
#include "session/server.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/sqlscan.h"

/* A batch that is longer is not kept, nor is one repeated for ever. */
#define KEPT_MAX 4096
#define REPEATS_MAX 10

/* A shape is two hashes, of which neither is ever 0: that is, not known. */
#define SHAPE_ROWS UINT64_C(0x00000000ffffffff)
#define SHAPE_PARAMS UINT64_C(0xffffffff00000000)

static uint64_t
shape_parts(uint64_t shape)
{
	return ((shape & SHAPE_ROWS) != 0 ? SHAPE_ROWS : 0) |
	    ((shape & SHAPE_PARAMS) != 0 ? SHAPE_PARAMS : 0);
}

/* Does `have` know all that is known to `want`? */
static bool
shape_covers(uint64_t have, uint64_t want)
{
	return (shape_parts(want) & ~shape_parts(have)) == 0;
}

/* Fills in what clients did not know before. False: they knew better. */
static bool
shape_learn(struct stmt *stmt, uint64_t shape)
{
	uint64_t known = stmt->shape, more;

	do {
		more = shape & ~shape_parts(known);
		if (((known ^ shape) & shape_parts(known) &
		    shape_parts(shape)) != 0)
			return false;
	} while (more != 0 && !atomic_compare_exchange_weak(&stmt->shape,
	    &known, known | more));
	return true;
}

/*
 * Epochs.
 */

/* Those of a link's own; the shared ones count up from 1. */
#define EPOCH_OWN (UINT64_C(1) << 63)

static uint64_t
epoch_own(void)
{
	static _Atomic uint64_t count;

	return EPOCH_OWN | ++count;
}

static uint64_t
epoch_now(const struct client *client)
{
	const struct server *server = client->server;
	struct target *target = client->pool->target;

	return server != NULL && server->plans.own_epoch != 0 ?
	    server->plans.own_epoch : target->schema_epoch + 1;
}

/* Would the statement, prepared now, be the same? */
static bool
stmt_is_now(const struct client *client, const struct stmt *stmt)
{
	const struct server *server = client->server;

	return stmt->epoch == 0 || ((stmt->epoch == epoch_now(client) ||
	    (server != NULL && stmt->epoch == server->plans.temp_epoch)) &&
	    stmt->reading == vars_reading(client->vars));
}

/* The link has changed the schema, as it sees it. */
static void
epoch_begin_own(struct server *server)
{
	server->plans.own_epoch = epoch_own();
	server->plans.temp_epoch = 0;
}

void
plans_schema_changed(struct target *target)
{
	target->schema_epoch++;
}

static bool
has_temp(const struct server *server)
{
	return (server->pins & 1u << PIN_TEMP_TABLE) != 0 ||
	    (server->touched & SQL_TEMP) != 0;
}

/* Of a statement that the client prepares now. */
static uint64_t
epoch_to_prepare(const struct client *client)
{
	struct server *server = client->server;

	if (server == NULL || !has_temp(server))
		return epoch_now(client);
	if (server->plans.temp_epoch == 0)
		server->plans.temp_epoch = epoch_own();
	return server->plans.temp_epoch;
}

/* What is of this epoch does not fit any longer. However many find out, the
 * next epoch is one and the same. */
static void
epoch_is_over(struct server *server, uint64_t epoch)
{
	struct target *target = server->pool->target;
	uint64_t expected = epoch - 1;

	if (epoch == 0)
		return;
	/* A temporary table in front of another is nobody else's business. */
	if ((epoch & EPOCH_OWN) != 0 || has_temp(server))
		epoch_begin_own(server);
	else
		atomic_compare_exchange_strong(&target->schema_epoch,
		    &expected, epoch);
}

/*
 * Which statement.
 */

static bool
begins_comment(struct span sql)
{
	return sql.len > 1 && ((sql.at[0] == '-' && sql.at[1] == '-') ||
	    (sql.at[0] == '/' && sql.at[1] == '*'));
}

static struct span
skip_comment(struct span sql)
{
	const char *end = sql.at[0] == '-' ?
	    memchr(sql.at, '\n', sql.len) :
	    memmem(sql.at, sql.len, "*/", 2);
	size_t len = end == NULL ? sql.len : (size_t)(end - sql.at) + 1;

	return (struct span){ sql.at + len, sql.len - len };
}

/* Does it have a plan, and a shape that depends on the schema alone? */
static bool
is_planned(struct span sql)
{
	static const char *const words[] = { "select", "insert", "update",
	    "delete", "with", "values", "table", "merge" };

	for (;;) {
		/* The '/' is what is left of a comment's end. */
		while (sql.len > 0 && !begins_comment(sql) &&
		    strchr(" \t\r\n\f\v(/", sql.at[0]) != NULL) {
			sql.at++;
			sql.len--;
		}
		if (!begins_comment(sql))
			break;
		sql = skip_comment(sql);
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (sql.len > 0 && (sql.at[0] | 0x20) == words[i][0] &&
		    span_starts_case(sql, words[i]))
			return true;
	return false;
}

static uint64_t
mix(uint64_t hash, uint64_t more)
{
	hash = (hash ^ more) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 29;
}

static void
identify(const struct client *client, struct span tail, bool named,
    uint64_t *ret_context, uint64_t *ret_epoch)
{
	struct span sql = { tail.at, strnlen(tail.at, tail.len) };
	const struct pool *pool = client->pool;
	struct target *target = pool->target;
	uint64_t context = vars_scope(client->vars);

	*ret_epoch = 0;
	if (is_planned(sql)) {
		/* Databases, and users with paths of their own. */
		context = mix(context, (uint64_t)(uintptr_t)target);
		context = mix(context, pool->by_name.hash);
		*ret_epoch = named ? epoch_to_prepare(client) :
		    epoch_now(client);
	}
	*ret_context = context;
}

struct stmt *
plans_intern(const struct client *client, struct span tail, bool named)
{
	uint64_t context, epoch;

	identify(client, tail, named, &context, &epoch);
	return stmt_intern(tail, context, vars_reading(client->vars), epoch);
}

bool
plans_is_of(const struct client *client, const struct stmt *stmt,
    struct span tail)
{
	uint64_t context, epoch;

	identify(client, tail, false, &context, &epoch);
	return stmt->context == context && stmt->epoch == epoch &&
	    stmt->reading == vars_reading(client->vars) &&
	    span_eq(stmt_tail(stmt), tail);
}

/* The same statement in the epoch that is now, read as it is now; +1
 * reference. */
static struct stmt *
stmt_of_now(const struct client *client, struct stmt *stmt)
{
	if (stmt_is_now(client, stmt))
		return stmt_ref(stmt);
	return stmt_intern((struct span){ stmt->tail, stmt->len },
	    stmt->context, vars_reading(client->vars), epoch_now(client));
}

/*
 * Bind.
 */

/* How many columns this Bind names a format for; it is all there. */
static unsigned
result_formats(const struct pass *pass, const struct frame *bind)
{
	struct body body = body_of(pass_body(pass, bind));
	unsigned count;

	body_text(&body);
	body_text(&body);
	count = body_u16(&body);
	body_bytes(&body, 2 * (size_t)count);
	for (count = body_u16(&body); count > 0 && !body.bad; count--) {
		uint32_t len = body_u32(&body);
		if (len != UINT32_MAX)
			body_bytes(&body, len);
	}
	return body_u16(&body);
}

/* Does this Bind not depend on columns that its client knows of: it has no
 * formats for each, and a Describe of its portal follows? */
static bool
is_described(const struct pass *pass, const struct frame *bind,
    struct span portal)
{
	size_t size = FRAME_HEADER + (size_t)bind->body;
	const char *at = pass->at + pass->pos + size;
	struct frame frame;

	if (!pass_is_whole(pass, bind) || frame_peek(at,
	    pass_available(pass) - size, &frame) != FRAME_OK ||
	    frame.type != 'D' || frame.body != portal.len + 2 ||
	    pass_available(pass) - size - FRAME_HEADER < frame.body)
		return false;
	return at[FRAME_HEADER] == 'P' &&
	    memcmp(at + FRAME_HEADER + 1, portal.at, portal.len) == 0 &&
	    result_formats(pass, bind) <= 1;
}

/* Is a Describe of this statement on its way? */
static bool
is_asked(const struct owed *owed, const struct stmt *stmt,
    enum owed_action by)
{
	for (uint32_t i = 0; i < owed->count; i++) {
		const struct owed_entry *entry = owed_at(owed, i);
		if (entry->kind == OWED_DESCRIBE && entry->stmt == stmt &&
		    entry->action == by)
			return true;
	}
	return false;
}

/* Does the server have it, and in which shape? */
static bool
server_shape(struct server *server, bool unnamed, const struct stmt *stmt,
    uint64_t *ret_shape)
{
	if (!unnamed)
		return stmt_cache_shape(&server->statements, stmt, ret_shape);
	*ret_shape = server->plans.unnamed_shape;
	return server->unnamed == stmt;
}

/* The server has it as the client knows it, and nothing stands in the way:
 * nearly always. */
static bool
bind_is_plain(struct client *client, bool unnamed, const struct stmt *stmt)
{
	struct server *server = client->server;
	uint64_t shape;

	if (!stmt_is_now(client, stmt) ||
	    !server_shape(server, unnamed, stmt, &shape))
		return false;
	/* What the client has parsed itself is what it was told of. */
	if (unnamed)
		return !server->plans.unnamed_asked;
	server->plans.rows_known = (shape & SHAPE_ROWS) != 0;
	return shape == stmt->shape;
}

/* Asks this server what it makes of the statement. */
static enum plan
bind_ask(struct pass *pass, bool unnamed, struct stmt *stmt)
{
	struct client *client = pass->client;
	struct buf *out = &client->worker->scratch;
	char name[STMT_NAME_MAX] = "";
	struct owed_entry *entry;
	size_t began;

	if (unnamed ? !pass_put_unnamed(pass, stmt) :
	    !pass_is_settled(pass, stmt) || !pass_ensure(pass, stmt))
		return PLAN_WAIT;
	if (!unnamed)
		stmt_name(stmt, name);
	buf_clear(out);
	began = msg_begin(out, 'D');
	msg_u8(out, 'S');
	msg_text(out, span_of(name));
	msg_end(out, began);
	msg_empty(out, 'H');
	if (out->failed) {
		pass_end(pass, END_NO_MEMORY, NULL);
		return PLAN_WAIT;
	}
	pass_put_bytes(pass, out);
	entry = pass_owe(pass, OWED_DESCRIBE, OWED_SWALLOW);
	if (entry == NULL)
		return PLAN_WAIT;
	plans_note_describe(client->server, entry, stmt, unnamed);
	client->server->plans.unnamed_asked = unnamed;
	stream_pause(&client->s, PAUSE_OWED_FULL);
	return PLAN_WAIT;
}

/* The client's name stands for `next` from now on; takes its reference. */
static void
bind_adopt(struct pass *pass, struct span name, struct stmt *next)
{
	struct client *client = pass->client;
	struct stmt *was = client->unnamed;

	if (name.len == 0)
		client->unnamed = next;
	else
		stmt_names_set(&client->names, name, next, &was);
	if (was != next && name.len > 0 &&
	    !owed_is_pending(&client->server->owed, was))
		pass_close_ours(pass, was);
	stmt_unref(was);
}

/* Looks whether *next is what the client takes `stmt` for. */
static enum plan
bind_judge(struct pass *pass, uint64_t parts, bool unnamed, struct stmt *stmt,
    struct stmt **next)
{
	struct client *client = pass->client;
	struct server *server = client->server;
	uint64_t want = stmt->shape & parts, have = 0;
	struct stmt *typed;

	if (want == 0)
		return PLAN_GO;
	if (is_asked(&server->owed, *next, OWED_SWALLOW)) {
		stream_pause(&client->s, PAUSE_OWED_FULL);
		return PLAN_WAIT;
	}
	if (!server_shape(server, unnamed, *next, &have) ||
	    !shape_covers(have, want))
		return bind_ask(pass, unnamed, *next);
	have &= shape_parts(want);
	if (want == have)
		return PLAN_GO;
	if (stmt == *next)
		epoch_is_over(server, stmt->epoch);
	if (((want ^ have) & SHAPE_PARAMS) == 0)
		return PLAN_REFUSED;
	/* As Postgres would, had it been prepared here all the time. */
	typed = stmt_with_types(stmt, (*next)->epoch);
	if (typed == NULL || typed == *next) {
		stmt_unref(typed);
		return PLAN_REFUSED;
	}
	stmt_unref(*next);
	*next = typed;
	return bind_judge(pass, parts, unnamed, stmt, next);
}

enum plan
plans_check_bind(struct pass *pass, const struct frame *frame,
    struct span portal, struct span name, struct stmt **stmt)
{
	struct client *client = pass->client;
	struct server *server = client->server;
	bool unnamed = name.len == 0;
	uint64_t parts = UINT64_MAX;
	struct stmt *next;
	enum plan plan;

	server->plans.bound_epoch = (*stmt)->epoch;
	server->plans.rows_known = false;
	if (bind_is_plain(client, unnamed, *stmt))
		return PLAN_READY;
	/* In a failed transaction it is the server that has the say. */
	if ((*stmt)->epoch == 0 || server->status == 'E')
		return PLAN_GO;
	/* The client is being told what this server's is. */
	if (is_asked(&server->owed, *stmt, OWED_FORWARD))
		return PLAN_GO;
	next = stmt_of_now(client, *stmt);
	if (next == NULL) {
		pass_end(pass, END_NO_MEMORY, NULL);
		return PLAN_WAIT;
	}
	if (is_described(pass, frame, portal))
		parts = (*stmt)->types != NULL ? SHAPE_PARAMS : 0;
	plan = bind_judge(pass, parts, unnamed, *stmt, &next);
	if (plan != PLAN_GO) {
		stmt_unref(next);
		return plan;
	}
	server->plans.unnamed_asked = false;
	server->plans.bound_epoch = next->epoch;
	*stmt = next;
	bind_adopt(pass, name, next);
	return client->state >= CLIENT_CLOSING ? PLAN_WAIT : PLAN_GO;
}

struct stmt *
plans_for_describe(const struct client *client, struct stmt *stmt)
{
	return client->server->status == 'E' ? stmt_ref(stmt) :
	    stmt_of_now(client, stmt);
}

void
plans_note_bind(struct server *server, struct span portal, struct stmt *stmt)
{
	struct plans *plans = &server->plans;
	uint64_t shape = 0;

	stmt_unref(plans->bound);
	plans->bound = NULL;
	if (stmt == NULL || stmt->epoch == 0 || plans->rows_known ||
	    !stmt_cache_shape(&server->statements, stmt, &shape) ||
	    (shape & SHAPE_ROWS) != 0)
		return;
	plans->bound = stmt_ref(stmt);
	plans->bound_portal = span_hash(portal);
}

void
plans_note_portal(struct server *server, struct owed_entry *entry,
    struct span portal)
{
	struct plans *plans = &server->plans;

	if (plans->bound == NULL || span_hash(portal) != plans->bound_portal)
		return;
	entry->stmt = plans->bound;
	entry->of_portal = true;
	plans->bound = NULL;
}

void
plans_note_describe(struct server *server, struct owed_entry *entry,
    struct stmt *stmt, bool unnamed)
{
	server->plans.bound_epoch = stmt->epoch;
	if (stmt->epoch == 0)
		return;
	entry->stmt = stmt_ref(stmt);
	entry->of_unnamed = unnamed;
}

/*
 * What was described.
 */

static uint32_t
half_of(uint64_t hash)
{
	uint32_t half = (uint32_t)(hash ^ hash >> 32);

	return half != 0 ? half : 1;
}

static uint64_t
column_hash(uint64_t hash, struct body *body)
{
	struct span name = body_text(body);
	bool ascii = true;

	for (size_t i = 0; i < name.len && ascii; i++)
		ascii = (unsigned char)name.at[i] < 0x80;
	hash = mix(hash, ascii ? span_hash(name) : 1);
	body_bytes(body, 6);		/* the table's column */
	hash = mix(hash, body_u32(body));
	body_u16(body);			/* the type says it */
	hash = mix(hash, body_u32(body));
	body_u16(body);			/* is up to the Bind */
	return hash;
}

static uint32_t
rows_hash(uint8_t type, struct span bytes)
{
	struct body body = body_of(bytes);
	uint64_t hash = type;

	if (type == 'T')
		body_u16(&body);
	while (type == 'T' && !body.bad && !body_is_done(&body))
		hash = column_hash(hash, &body);
	return half_of(hash);
}

/* Another shape than others were told. The client's name stands for a
 * statement of that shape from now on. */
static void
shape_differs(struct server *server, const struct owed_entry *head,
    uint64_t shape)
{
	struct client *client = server->client;
	struct stmt *stmt = head->stmt, *next, *was = NULL;

	epoch_is_over(server, stmt->epoch);
	next = stmt_of_now(client, stmt);
	if (next != NULL && !shape_learn(next, shape)) {
		/* Nor is it what was found since: then it is its own. */
		stmt_unref(next);
		next = stmt_intern((struct span){ stmt->tail, stmt->len },
		    stmt->context, stmt->reading, epoch_own());
		if (next != NULL)
			next->shape = shape;
	}
	if (next == NULL)
		return;
	if (head->of_unnamed && client->unnamed == stmt) {
		was = client->unnamed;
		client->unnamed = stmt_ref(next);
		if (server->unnamed == stmt)
			server_set_unnamed(server, next);
	} else if (!head->of_unnamed) {
		stmt_names_replace(&client->names, stmt, next);
	}
	stmt_unref(was);
	stmt_unref(next);
}

void
plans_described(struct server *server, uint8_t type, struct span body)
{
	struct owed_entry *head = owed_head(&server->owed);
	struct buf *types = &server->plans.types;
	struct stmt *stmt = head->stmt;
	uint64_t shape, known = 0;

	if (type == 't') {
		buf_clear(types);
		buf_add_span(types, body);
		return;
	}
	shape = rows_hash(type, body);
	if (!head->of_portal)
		shape |= (uint64_t)half_of(span_hash(buf_span(types))) << 32;
	if (!head->of_unnamed) {
		stmt_cache_shape(&server->statements, stmt, &known);
		stmt_cache_set_shape(&server->statements, stmt, shape |
		    (known & ~shape_parts(shape)));
	} else if (head->action == OWED_SWALLOW) {
		/* The slot is the same while a Bind waits, and only then. */
		server->plans.unnamed_shape = shape;
	}
	/* Before the shape: who sees that sees these. */
	if (!head->of_portal && (stmt->shape & SHAPE_PARAMS) == 0 &&
	    types->len > 2 && !types->failed)
		stmt_set_types(stmt, buf_span(types));
	if (!shape_learn(stmt, shape) && head->action == OWED_FORWARD &&
	    server->client != NULL)
		shape_differs(server, head, shape);
}

/*
 * DDL.
 */

/* May statements that are prepared mean something else after this? What is
 * only there to be planned with does not count, nor does what plainly went. */
static bool
is_change(const struct owed_entry *head, struct span tag)
{
	static const char *const others[] = { "CREATE INDEX", "DROP INDEX",
	    "DROP TABLE", "CREATE SEQUENCE", "DROP SEQUENCE", "ALTER INDEX",
	    "ALTER SEQUENCE", "CREATE STATISTICS", "DROP STATISTICS" };

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (span_is(tag, others[i]))
			return false;
	if (span_starts_case(tag, "CREATE ") && head->temp)
		return false;
	return span_starts_case(tag, "ALTER ") ||
	    span_starts_case(tag, "CREATE ") ||
	    span_starts_case(tag, "DROP ") ||
	    span_starts_case(tag, "IMPORT ") ||
	    (span_starts_case(tag, "SELECT ") && head->ddl);
}

static bool
is_change_of_temp(const struct owed_entry *head, struct span tag)
{
	return head->temp || span_starts_case(tag, "DROP ") ||
	    span_starts_case(tag, "DISCARD ") || span_is(tag, "ROLLBACK");
}

void
plans_completed(struct server *server, const struct owed_entry *head,
    struct span tag)
{
	struct plans *plans = &server->plans;

	if (plans->changed)
		plans->undone = span_is(tag, "ROLLBACK");
	if (plans->temp_epoch != 0 && is_change_of_temp(head, tag))
		plans->temp_epoch = 0;
	/* What apps send all day is told apart by its first letter. */
	if (!head->ddl && memchr("ACDI", tag.at[0], 4) == NULL)
		return;
	if (!is_change(head, tag))
		return;
	plans->changed = true;
	plans->undone = false;
	epoch_begin_own(server);
}

void
plans_ready(struct server *server)
{
	struct plans *plans = &server->plans;

	if (server->status != 'I')
		return;
	if (plans->changed && !plans->undone)
		plans_schema_changed(server->pool->target);
	plans->changed = plans->undone = false;
	if (!has_temp(server))
		plans->own_epoch = 0;
}

/*
 * Once more.
 */

bool
plans_is_fresh(const struct client *client)
{
	const struct server *server = client->server;

	/* A probe's answer may still be on its way. */
	return client->relay.left == 0 && (server == NULL ||
	    (owed_is_ours(&server->owed) && !server->owed.batch_open &&
	    !server->owed.skipping && server->status == 'I'));
}

void
plans_keep(struct client *client, bool fresh, const char *at, size_t len)
{
	struct server *server = client->server;
	const struct owed *owed = &server->owed;
	struct buf *kept = &server->plans.kept;

	buf_clear(kept);
	/* The unnamed statement is as new as can be. */
	if (!fresh || len > KEPT_MAX || len < FRAME_HEADER + 1 ||
	    client->repeated >= REPEATS_MAX || owed->syncs != 1 ||
	    client->relay.left > 0 ||
	    owed_at(owed, owed->count - 1)->kind != OWED_SYNC ||
	    (at[0] == 'P' && at[FRAME_HEADER] == '\0'))
		return;
	buf_add(kept, at, len);
	if (kept->failed)
		buf_finish(kept);
}

/* How far to the first message of the kept batch that was not answered;
 * `left` were not. False: not to be repeated. */
static bool
kept_skip_answered(const struct buf *kept, uint32_t left, size_t *ret_at)
{
	struct frame frame;
	uint32_t count = 0;
	size_t at = 0;

	for (; at < kept->len; count++) {
		if (frame_peek(kept->at + at, kept->len - at, &frame) !=
		    FRAME_OK || memchr("PBDECS", frame.type, 6) == NULL)
			return false;
		at += FRAME_HEADER + frame.body;
	}
	/* The Sync is not among those. */
	if (at != kept->len || count < left + 1)
		return false;
	*ret_at = 0;
	for (uint32_t i = left + 1; i < count; i++) {
		frame_peek(kept->at + *ret_at, kept->len - *ret_at, &frame);
		if (frame.type != 'P')
			return false;
		*ret_at += FRAME_HEADER + frame.body;
	}
	return true;
}

/* Has nothing of this batch run? A BEGIN may have been put in front of it. */
static bool
batch_can_repeat(struct server *server, const struct owed_entry *head)
{
	const struct owed *owed = &server->owed;
	struct buf *kept = &server->plans.kept;
	uint32_t left = 0;
	size_t at;

	if (kept->len == 0 || server->client == NULL ||
	    head->action != OWED_FORWARD || server->status != 'I')
		return false;
	for (uint32_t i = 0; i + 1 < owed->count; i++)
		left += owed_at(owed, i)->action != OWED_SWALLOW;
	if (!kept_skip_answered(kept, left, &at))
		return false;
	memmove(kept->at, kept->at + at, kept->len - at);
	kept->len -= at;
	return true;
}

static bool
is_stale(const struct error_fields *fields)
{
	return (span_is(fields->sqlstate, "0A000") &&
	    span_is(fields->routine, "RevalidateCachedQuery")) ||
	    (span_is(fields->sqlstate, "XX000") && span_starts_case(
	    fields->message, "cache lookup failed for type "));
}

bool
plans_failed(struct server *server, const struct owed_entry *head,
    const struct error_fields *fields)
{
	if ((head->kind != OWED_BIND && head->kind != OWED_DESCRIBE) ||
	    !is_stale(fields))
		return false;
	epoch_is_over(server, head->stmt != NULL ? head->stmt->epoch :
	    server->plans.bound_epoch);
	return batch_can_repeat(server, head);
}

void
plans_swallow_batch(struct server *server)
{
	struct owed_entry *sync = owed_head(&server->owed);

	sync->action = OWED_SWALLOW;
	sync->again = true;
	stream_pause(&server->client->s, PAUSE_AGAIN);
}

void
plans_repeat_batch(struct server *server)
{
	struct client *client = server->client;
	struct buf *kept = &server->plans.kept;

	client->repeats = true;
	client->repeated++;
	stream_unread(&client->s, kept->at, kept->len);
	buf_clear(kept);
	stream_resume(&client->s, PAUSE_AGAIN);
}

void
plans_put_refusal(struct client *client)
{
	static const char text[] =
	    "E\0\0\0\0SERROR\0VERROR\0C0A000\0"
	    "Mcached plan must not change result type\0"
	    "Fplancache.c\0L0\0RRevalidateCachedQuery\0";
	char message[sizeof(text)];

	memcpy(message, text, sizeof(text));
	message[4] = (char)(sizeof(text) - 1);
	_Static_assert(sizeof(text) < 128, "a length of one byte");
	stream_send(&client->s, message, sizeof(text));
}

void
plans_unlinked(struct server *server)
{
	server->plans.own_epoch = server->plans.temp_epoch = 0;
	plans_note_bind(server, SPAN(""), NULL);
	server->client->repeats = false;
	stream_resume(&server->client->s, PAUSE_AGAIN);
}

void
plans_finish(struct server *server)
{
	stmt_unref(server->plans.bound);
	buf_finish(&server->plans.kept);
	buf_finish(&server->plans.types);
}
