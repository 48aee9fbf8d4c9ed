/*
 * Composing messages, and reading the one body that everybody must
 * understand: the error.
 *
 * msg_begin() and msg_end() bracket a message; between them the fields are
 * appended. Layouts are those of the protocol's page "Message Formats".
 */
#include <string.h>

#include "base/check.h"
#include "wire/body.h"

#define OID_INT8	20
#define OID_INT4	23

size_t
msg_begin(struct buf *out, char type)
{
	size_t began = out->len;

	buf_add(out, &type, 1);
	buf_add(out, "\0\0\0\0", 4);
	return began;
}

static void
store_u32(char *at, uint32_t value)
{
	at[0] = (char)(value >> 24);
	at[1] = (char)(value >> 16);
	at[2] = (char)(value >> 8);
	at[3] = (char)value;
}

void
msg_u8(struct buf *out, uint8_t value)
{
	buf_add(out, &value, 1);
}

void
msg_u16(struct buf *out, uint16_t value)
{
	char bytes[2] = { (char)(value >> 8), (char)value };

	buf_add(out, bytes, sizeof(bytes));
}

void
msg_u32(struct buf *out, uint32_t value)
{
	char bytes[4];

	store_u32(bytes, value);
	buf_add(out, bytes, sizeof(bytes));
}

void
msg_text(struct buf *out, struct span text)
{
	if (text.len > 0 && memchr(text.at, '\0', text.len) != NULL) {
		out->failed = true;
		return;
	}
	buf_add_span(out, text);
	msg_u8(out, 0);
}

void
msg_end(struct buf *out, size_t began)
{
	size_t length;

	if (out->failed)
		return;
	check(began < out->len && out->len - began >= FRAME_HEADER);
	length = out->len - began - 1;
	if (length > INT32_MAX) {
		out->failed = true;
		return;
	}
	store_u32(out->at + began + 1, (uint32_t)length);
}

static void
add_field(struct buf *out, char code, const char *text)
{
	if (text == NULL)
		return;
	msg_u8(out, (uint8_t)code);
	msg_text(out, span_of(text));
}

static void
add_report(struct buf *out, char type, const struct msg_error *report)
{
	size_t began = msg_begin(out, type);

	/* 'S' is for people and may be translated, 'V' is for programs. */
	add_field(out, 'S', report->severity);
	add_field(out, 'V', report->severity);
	add_field(out, 'C', report->sqlstate);
	add_field(out, 'M', report->message);
	add_field(out, 'D', report->detail);
	add_field(out, 'H', report->hint);
	msg_u8(out, 0);
	msg_end(out, began);
}

void
msg_error(struct buf *out, const struct msg_error *error)
{
	add_report(out, 'E', error);
}

void
msg_notice(struct buf *out, const struct msg_error *notice)
{
	add_report(out, 'N', notice);
}

void
msg_ready(struct buf *out, char status)
{
	size_t began = msg_begin(out, 'Z');

	msg_u8(out, (uint8_t)status);
	msg_end(out, began);
}

void
msg_parameter(struct buf *out, struct span name, struct span value)
{
	size_t began = msg_begin(out, 'S');

	msg_text(out, name);
	msg_text(out, value);
	msg_end(out, began);
}

void
msg_auth(struct buf *out, uint32_t code, struct span data)
{
	size_t began = msg_begin(out, 'R');

	msg_u32(out, code);
	buf_add_span(out, data);
	msg_end(out, began);
}

void
msg_key_data(struct buf *out, uint32_t pid, struct span key)
{
	size_t began = msg_begin(out, 'K');

	msg_u32(out, pid);
	buf_add_span(out, key);
	msg_end(out, began);
}

void
msg_negotiate(struct buf *out, uint32_t minor, const struct span *unknown,
    uint32_t count)
{
	size_t began = msg_begin(out, 'v');
	uint32_t i;

	/* The page says "minor version"; what servers send and libpq reads is
	 * the whole version word. */
	msg_u32(out, 3u << 16 | minor);
	msg_u32(out, count);
	for (i = 0; i < count; i++)
		msg_text(out, unknown[i]);
	msg_end(out, began);
}

void
msg_command_complete(struct buf *out, const char *tag)
{
	size_t began = msg_begin(out, 'C');

	msg_text(out, span_of(tag));
	msg_end(out, began);
}

static uint16_t
size_of_type(uint32_t oid)
{
	switch (oid) {
	case OID_INT8:
		return 8;
	case OID_INT4:
		return 4;
	default:
		return UINT16_MAX;	/* -1: of any length */
	}
}

void
msg_row_description(struct buf *out, const struct msg_column *columns,
    uint16_t count)
{
	size_t began = msg_begin(out, 'T');
	uint16_t i;

	msg_u16(out, count);
	for (i = 0; i < count; i++) {
		msg_text(out, span_of(columns[i].name));
		msg_u32(out, 0);		/* of no table */
		msg_u16(out, 0);		/* and no column of it */
		msg_u32(out, columns[i].type_oid);
		msg_u16(out, size_of_type(columns[i].type_oid));
		msg_u32(out, UINT32_MAX);	/* no type modifier */
		msg_u16(out, 0);		/* text format */
	}
	msg_end(out, began);
}

void
msg_data_row(struct buf *out, const struct span *values, uint16_t count)
{
	size_t began = msg_begin(out, 'D');
	uint16_t i;

	msg_u16(out, count);
	for (i = 0; i < count; i++) {
		if (values[i].at == NULL) {
			msg_u32(out, UINT32_MAX);
			continue;
		}
		if (values[i].len > INT32_MAX)
			out->failed = true;
		msg_u32(out, (uint32_t)values[i].len);
		buf_add_span(out, values[i]);
	}
	msg_end(out, began);
}

void
msg_query(struct buf *out, struct span sql)
{
	size_t began = msg_begin(out, 'Q');

	msg_text(out, sql);
	msg_end(out, began);
}

void
msg_password(struct buf *out, struct span data, bool with_nul)
{
	size_t began = msg_begin(out, 'p');

	if (with_nul)
		msg_text(out, data);
	else
		buf_add_span(out, data);
	msg_end(out, began);
}

void
msg_sasl_initial(struct buf *out, const char *mechanism, struct span data)
{
	size_t began = msg_begin(out, 'p');

	msg_text(out, span_of(mechanism));
	/* -1 is "no initial response", which differs from an empty one. */
	msg_u32(out, data.at != NULL ? (uint32_t)data.len : UINT32_MAX);
	buf_add_span(out, data);
	msg_end(out, began);
}

void
msg_empty(struct buf *out, char type)
{
	msg_end(out, msg_begin(out, type));
}

static bool
is_sqlstate(struct span text)
{
	size_t i;

	if (text.len != 5)
		return false;
	for (i = 0; i < text.len; i++)
		if (!(text.at[i] >= '0' && text.at[i] <= '9') &&
		    !(text.at[i] >= 'A' && text.at[i] <= 'Z'))
			return false;
	return true;
}

static void
keep_first(struct span *field, struct span text)
{
	if (field->at == NULL)
		*field = text;
}

bool
error_parse(struct span bytes, struct error_fields *ret)
{
	struct body body = body_of(bytes);
	struct error_fields found = { 0 };
	struct span translated = SPAN_NONE, text;
	uint8_t code;

	while ((code = body_u8(&body)) != 0) {
		text = body_text(&body);
		if (body.bad)
			break;
		switch (code) {
		case 'V':
			keep_first(&found.severity, text);
			break;
		case 'S':
			keep_first(&translated, text);
			break;
		case 'C':
			if (is_sqlstate(text))
				keep_first(&found.sqlstate, text);
			break;
		case 'M':
			keep_first(&found.message, text);
			break;
		case 'D':
			keep_first(&found.detail, text);
			break;
		case 'H':
			keep_first(&found.hint, text);
			break;
		case 'R':
			keep_first(&found.routine, text);
			break;
		}
	}
	if (!body_is_done(&body))
		return false;
	/* Servers before 9.6 have no 'V'. */
	keep_first(&found.severity, translated);
	*ret = found;
	return true;
}
