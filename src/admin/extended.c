/*
 * The extended protocol on the console.
 *
 * Many drivers know no other way to ask a question: asyncpg, pgjdbc, pgx and
 * node's prepare what they are given, and want the numbers in binary. So
 * commands can be prepared, though there is nothing to prepare: a statement
 * is its text, and Execute runs that as if it had come in a Query.
 *
 *   Parse     name -> text                  (refused if it is no command)
 *   Bind      the unnamed portal -> text, and how columns are to be sent
 *   Describe  the columns of the SHOW that it is, or NoData
 *   Execute   console_query(); its answer comes through extended_answer(),
 *             which takes out the RowDescription and the ReadyForQuery and
 *             makes numbers binary where Bind wanted that
 *
 * What there is not, is refused by name: parameters, named portals. The row
 * limit of an Execute is not kept, a SHOW always has all of its rows.
 */
#include "admin/extended.h"

#include <string.h>

#include "admin/answer.h"
#include "admin/command.h"
#include "admin/rows.h"
#include "admin/show.h"
#include "base/check.h"
#include "base/mem.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"

#define STATEMENTS_MAX 200

struct statement {
	struct list node;
	struct buf name, text;
};

MEM_TYPE(statement_type, statement);

static struct extended *
extended_of(struct client *client)
{
	return &console_of(client)->extended;
}

static void
statement_destroy(struct extended *extended, struct statement *statement)
{
	list_remove(&statement->node);
	extended->count--;
	buf_finish(&statement->name);
	buf_finish(&statement->text);
	mem_delete(&statement_type, statement);
}

void
extended_finish(struct extended *extended)
{
	list_each(node, &extended->statements)
		statement_destroy(extended,
		    container_of(node, struct statement, node));
	buf_finish(&extended->portal);
}

static struct statement *
statement_find(struct extended *extended, struct span name)
{
	list_each(node, &extended->statements) {
		struct statement *statement =
		    container_of(node, struct statement, node);
		if (span_eq(buf_span(&statement->name), name))
			return statement;
	}
	return NULL;
}

/* A reply without a body. */
static void
reply(struct client *client, char type)
{
	struct buf *out = &client->worker->scratch;

	buf_clear(out);
	msg_empty(out, type);
	answer_part(client, out);
}

/*
 * Parse.
 */

/* True: it is no command, and that was said. Nothing at all is one too. */
static bool
refuse_text(struct client *client, struct span text)
{
	char *room = mem_alloc(text.len);
	enum command_result result = COMMAND_EMPTY;
	struct command command;
	const char *why = NULL;

	if (room == NULL) {
		answer_no_memory(client);
		return true;
	}
	result = command_parse(text, room, &command, &why);
	mem_free(room);
	if (result == COMMAND_UNKNOWN)
		answer_no_command(client, text);
	else if (result == COMMAND_BAD)
		answer_error(client, "42601", "%s", why);
	return result == COMMAND_UNKNOWN || result == COMMAND_BAD;
}

static void
statement_add(struct client *client, struct span name, struct span text)
{
	struct extended *extended = extended_of(client);
	struct statement *statement = mem_new(&statement_type);

	if (statement == NULL) {
		answer_no_memory(client);
		return;
	}
	buf_add_span(&statement->name, name);
	buf_add_span(&statement->text, text);
	list_append(&extended->statements, &statement->node);
	extended->count++;
	if (statement->name.failed || statement->text.failed) {
		statement_destroy(extended, statement);
		answer_no_memory(client);
		return;
	}
	reply(client, '1');
}

static void
extended_parse(struct client *client, struct span name, struct span text)
{
	struct extended *extended = extended_of(client);
	struct statement *was = statement_find(extended, name);

	if (refuse_text(client, text))
		return;
	if (was != NULL && name.len > 0) {
		answer_error(client, "42P05",
		    "there is a prepared statement of this name");
		return;
	}
	if (was != NULL)
		statement_destroy(extended, was);
	if (extended->count >= STATEMENTS_MAX)
		answer_error(client, "53400",
		    "too many prepared statements on the console");
	else
		statement_add(client, name, text);
}

/*
 * Bind.
 */

/* How the columns are to be sent. False: not as it should be. */
static bool
read_formats(struct body *body, struct extended *extended)
{
	uint16_t count = body_u16(body);

	for (uint16_t i = 0; i < count; i++) {
		uint16_t format = body_u16(body);
		if (body->bad || format > 1)
			return false;
		if (i < EXTENDED_COLUMNS)
			extended->binary[i] = format == 1;
	}
	extended->format_count = count;
	return body_is_done(body);
}

/* Of parameters: there are to be none. */
static bool
skip_values(struct body *body, uint16_t *ret_count)
{
	uint16_t formats = body_u16(body);

	body_bytes(body, 2 * (size_t)formats);
	*ret_count = body_u16(body);
	for (uint16_t i = 0; i < *ret_count && !body->bad; i++) {
		uint32_t len = body_u32(body);
		if (len != UINT32_MAX)
			body_bytes(body, len);
	}
	return !body->bad;
}

static void
portal_set(struct client *client, struct span text)
{
	struct extended *extended = extended_of(client);

	buf_finish(&extended->portal);
	buf_add_span(&extended->portal, text);
	extended->has_portal = !extended->portal.failed;
	if (extended->has_portal)
		reply(client, '2');
	else
		answer_no_memory(client);
}

static bool
extended_bind(struct client *client, struct body *body)
{
	struct extended *extended = extended_of(client);
	struct span portal = body_text(body), name = body_text(body);
	struct statement *statement;
	uint16_t values;

	if (!skip_values(body, &values) || !read_formats(body, extended))
		return false;
	statement = statement_find(extended, name);
	if (statement == NULL)
		answer_error(client, "26000",
		    "there is no prepared statement of this name");
	else if (portal.len > 0)
		answer_error(client, "0A000",
		    "the console has no named portals");
	else if (values > 0)
		answer_error(client, "0A000",
		    "the console's commands take no parameters: write the "
		    "value into the command");
	else
		portal_set(client, buf_span(&statement->text));
	return true;
}

/*
 * Describe.
 */

static bool
is_binary(const struct extended *extended, size_t column)
{
	if (extended->format_count == 1)
		column = 0;
	return column < extended->format_count && column < EXTENDED_COLUMNS &&
	    extended->binary[column];
}

/* Each column's description ends with its format. */
static void
put_columns(struct buf *out, const struct msg_column *columns,
    uint16_t count, const struct extended *portal)
{
	size_t began = out->len;
	struct body body;

	msg_row_description(out, columns, count);
	if (out->failed || portal == NULL)
		return;
	body = body_of((struct span){ out->at + began + FRAME_HEADER + 2,
	    out->len - began - FRAME_HEADER - 2 });
	for (uint16_t i = 0; i < count; i++) {
		body_text(&body);
		body_bytes(&body, 18);
		if (is_binary(portal, i))
			out->at[body.at - out->at - 1] = 1;
	}
	check(body_is_done(&body));
}

/* `portal` NULL: it is the statement that is described. */
static void
describe_text(struct client *client, struct span text,
    const struct extended *portal)
{
	struct buf *out = &client->worker->scratch;
	const struct msg_column *columns = NULL;
	char *room = mem_alloc(text.len);
	struct command command;
	const char *why;
	uint16_t count = 0;

	if (room == NULL) {
		answer_no_memory(client);
		return;
	}
	buf_clear(out);
	if (portal == NULL) {
		size_t began = msg_begin(out, 't');
		msg_u16(out, 0);
		msg_end(out, began);
	}
	if (command_parse(text, room, &command, &why) == COMMAND_OK)
		columns = show_columns(&command, &count);
	mem_free(room);
	if (columns != NULL)
		put_columns(out, columns, count, portal);
	else
		msg_empty(out, 'n');
	answer_part(client, out);
}

static void
extended_describe(struct client *client, uint8_t what, struct span name)
{
	struct extended *extended = extended_of(client);
	struct statement *statement = statement_find(extended, name);

	if (what == 'P' && extended->has_portal && name.len == 0)
		describe_text(client, buf_span(&extended->portal), extended);
	else if (what == 'P')
		answer_error(client, "34000", "there is no such portal");
	else if (statement == NULL)
		answer_error(client, "26000",
		    "there is no prepared statement of this name");
	else
		describe_text(client, buf_span(&statement->text), NULL);
}

/*
 * Execute and Close.
 */

static void
extended_execute(struct client *client, struct span portal)
{
	struct extended *extended = extended_of(client);

	if (!extended->has_portal || portal.len > 0) {
		answer_error(client, "34000", "there is no such portal");
		return;
	}
	console_query(client, buf_span(&extended->portal));
}

static void
extended_close(struct client *client, uint8_t what, struct span name)
{
	struct extended *extended = extended_of(client);
	struct statement *statement = statement_find(extended, name);

	if (what == 'P' && name.len == 0)
		extended->has_portal = false;
	else if (what == 'S' && statement != NULL)
		statement_destroy(extended, statement);
	reply(client, '3');
}

bool
extended_message(struct client *client, uint8_t type, struct span bytes)
{
	struct body body = body_of(bytes);
	struct span name, text;
	uint8_t what;

	/* Until its answer goes out, which may be later. */
	extended_of(client)->running = true;
	switch (type) {
	case 'P':
		name = body_text(&body);
		text = body_text(&body);
		body_bytes(&body, 4 * (size_t)body_u16(&body));
		if (!body_is_done(&body))
			return false;
		extended_parse(client, name, text);
		return true;
	case 'B':
		return extended_bind(client, &body);
	case 'E':
		name = body_text(&body);
		body_u32(&body);
		if (!body_is_done(&body))
			return false;
		extended_execute(client, name);
		return true;
	default:
		check(type == 'D' || type == 'C');
		what = body_u8(&body);
		name = body_text(&body);
		if (!body_is_done(&body) || (what != 'S' && what != 'P'))
			return false;
		if (type == 'D')
			extended_describe(client, what, name);
		else
			extended_close(client, what, name);
		return true;
	}
}

/*
 * Answers.
 */

struct answer {
	const struct extended *extended;
	bool is_number[EXTENDED_COLUMNS];
	uint8_t size[EXTENDED_COLUMNS];	/* of a number in binary */
};

static void
answer_note_columns(struct answer *answer, struct span bytes)
{
	struct body body = body_of(bytes);
	uint16_t count = body_u16(&body);

	check(count <= EXTENDED_COLUMNS);
	for (uint16_t i = 0; i < count; i++) {
		body_text(&body);
		body_bytes(&body, 6);
		uint32_t oid = body_u32(&body);
		body_bytes(&body, 8);
		answer->is_number[i] = oid == OID_INT4 || oid == OID_INT8;
		answer->size[i] = oid == OID_INT4 ? 4 : 8;
	}
	check(body_is_done(&body));
}

static void
put_number(struct buf *out, struct span text, uint8_t size)
{
	uint64_t value = 0;

	check(span_parse_u64(text, &value));
	msg_u32(out, size);
	if (size == 8)
		msg_u32(out, (uint32_t)(value >> 32));
	msg_u32(out, (uint32_t)value);
}

static void
answer_put_row(const struct answer *answer, struct span bytes,
    struct buf *out)
{
	struct body body = body_of(bytes);
	uint16_t count = body_u16(&body);
	size_t began = msg_begin(out, 'D');

	msg_u16(out, count);
	for (uint16_t i = 0; i < count; i++) {
		uint32_t len = body_u32(&body);
		struct span value = len == UINT32_MAX ? SPAN_NONE :
		    body_bytes(&body, len);

		if (value.at != NULL && answer->is_number[i] &&
		    is_binary(answer->extended, i)) {
			put_number(out, value, answer->size[i]);
			continue;
		}
		msg_u32(out, len);
		buf_add_span(out, value);
	}
	check(body_is_done(&body));
	msg_end(out, began);
}

void
extended_answer(struct extended *extended, struct span messages,
    struct buf *out)
{
	struct answer answer = { .extended = extended };
	struct frame frame;
	struct span bytes;

	while (frame_take(messages.at, messages.len, UINT32_MAX, &frame,
	    &bytes) == FRAME_OK) {
		size_t size = FRAME_HEADER + (size_t)frame.body;

		if (frame.type == 'T')
			answer_note_columns(&answer, bytes);
		else if (frame.type == 'D')
			answer_put_row(&answer, bytes, out);
		else
			buf_add(out, messages.at, size);
		if (frame.type == 'E')
			extended->skipping = true;
		messages.at += size;
		messages.len -= size;
	}
	extended->running = false;
}
