/*
 * The protocol's bytes: frames, bodies, startup packets. No parser may look
 * behind the bytes it was given, so each gets them in a block of exactly that
 * size, where the address sanitizer sees one byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "wire/body.h"
#include "wire/frame.h"
#include "wire/startup.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* For texts with NULs in them. */
#define BYTES(lit) (lit), sizeof(lit) - 1

static void
assert_bytes(const struct buf *buf, const char *at, size_t len)
{
	assert_false(buf->failed);
	assert_int_equal(buf->len, len);
	assert_memory_equal(buf->at, at, len);
}

/*
 * frame
 */

static void
put_u32(char *at, uint32_t value)
{
	at[0] = (char)(value >> 24);
	at[1] = (char)(value >> 16);
	at[2] = (char)(value >> 8);
	at[3] = (char)value;
}

static void
a_length_is_from_4_to_what_postgres_takes(void **state)
{
	static const struct {
		uint32_t length;
		enum frame_result result;
	} rows[] = {
		{ 0, FRAME_BAD }, { 1, FRAME_BAD }, { 2, FRAME_BAD },
		{ 3, FRAME_BAD }, { 4, FRAME_OK }, { 5, FRAME_OK },
		{ 0x3ffffffd, FRAME_OK }, { 0x3ffffffe, FRAME_OK },
		{ 0x3fffffff, FRAME_BAD }, { 0x7fffffff, FRAME_BAD },
		{ 0x80000000, FRAME_BAD }, { 0x80000004, FRAME_BAD },
		{ 0xfffffffe, FRAME_BAD }, { 0xffffffff, FRAME_BAD },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct frame frame = { .type = '?', .body = 77 };
		char bytes[FRAME_HEADER] = { 'Q' };

		put_u32(bytes + 1, rows[i].length);
		assert_int_equal(frame_peek(bytes, sizeof(bytes), &frame),
		    rows[i].result);
		if (rows[i].result == FRAME_OK) {
			assert_int_equal(frame.type, 'Q');
			assert_int_equal(frame.body, rows[i].length - 4);
		} else {
			assert_int_equal(frame.type, '?');
			assert_int_equal(frame.body, 77);
		}
	}
}

static void
a_header_cut_short_is_never_ok(void **state)
{
	static const uint32_t lengths[] = {
		0, 3, 4, 0x3fffffff, 0x40000000, 0x80000000, 0xffffffff,
	};
	struct frame frame;
	size_t i, len;

	(void)state;
	assert_int_equal(frame_peek(NULL, 0, &frame), FRAME_MORE);
	for (i = 0; i < COUNT(lengths); i++)
		for (len = 1; len < FRAME_HEADER; len++) {
			char bytes[FRAME_HEADER] = { 'Q' }, *cut;

			put_u32(bytes + 1, lengths[i]);
			cut = mem_dup(bytes, len);
			/* 1 GB is known from the second byte on */
			assert_int_equal(frame_peek(cut, len, &frame),
			    len >= 2 && lengths[i] >= 0x40000000 ?
			    FRAME_BAD : FRAME_MORE);
			mem_free(cut);
		}
}

static void
types_and_lengths_are_not_signed_chars(void **state)
{
	struct frame frame;

	(void)state;
	assert_int_equal(frame_peek("\xff\x00\x80\xff\xfe", 5, &frame),
	    FRAME_OK);
	assert_int_equal(frame.type, 0xff);
	assert_int_equal(frame.body, 0x80fffe - 4);
}

static void
a_message_is_taken_when_all_of_it_is_there(void **state)
{
	static const char bytes[] = "Z\0\0\0\5I...";
	struct frame frame = { .body = 77 };
	struct span body = SPAN("untouched");
	size_t len;

	(void)state;
	for (len = 0; len < 6; len++)
		assert_int_equal(frame_take(bytes, len, 100, &frame, &body),
		    FRAME_MORE);
	assert_int_equal(frame.body, 77);
	assert_true(span_is(body, "untouched"));
	for (len = 6; len <= sizeof(bytes); len++) {
		assert_int_equal(frame_take(bytes, len, 1, &frame, &body),
		    FRAME_OK);
		assert_int_equal(frame.type, 'Z');
		assert_ptr_equal(body.at, bytes + 5);
		assert_int_equal(body.len, 1);
	}
	/* over the limit: bad as soon as the header is there */
	assert_int_equal(frame_take(bytes, 4, 0, &frame, &body), FRAME_MORE);
	assert_int_equal(frame_take(bytes, 5, 0, &frame, &body), FRAME_BAD);
	assert_int_equal(frame_take("Z\0\0\0\3", 5, 9, &frame, &body),
	    FRAME_BAD);
	assert_int_equal(frame_take("Z\x7f\xff\xff\xff", 5, 9, &frame, &body),
	    FRAME_BAD);
	assert_int_equal(frame_take("Z\x3f\xff\xff\xfe", 5, UINT32_MAX,
	    &frame, &body), FRAME_MORE);
	assert_int_equal(frame_take("S\0\0\0\4", 5, 0, &frame, &body),
	    FRAME_OK);
	assert_int_equal(body.len, 0);
}

/*
 * body
 */

static void
a_body_is_read_field_by_field(void **state)
{
	struct body body = body_of((struct span){
	    BYTES("\xfe\xff\x01\x80\x00\x00\x01" "abc\0" "\0" "xyz" "rest") });

	(void)state;
	assert_int_equal(body_u8(&body), 0xfe);
	assert_int_equal(body_u16(&body), 0xff01);
	assert_int_equal(body_u32(&body), 0x80000001);
	assert_true(span_is(body_text(&body), "abc"));
	assert_int_equal(body_text(&body).len, 0);
	assert_true(span_is(body_bytes(&body, 3), "xyz"));
	assert_false(body_is_done(&body));
	assert_true(span_is(body_rest(&body), "rest"));
	assert_true(body_is_done(&body));
	assert_int_equal(body_rest(&body).len, 0);
	assert_true(body_is_done(&body));
}

static void
reading_past_the_end_is_bad_for_good(void **state)
{
	struct body body;
	size_t len;

	(void)state;
	for (len = 0; len < 4; len++) {
		char *bytes = mem_dup("\1\2\3\4", len);

		body = body_of((struct span){ bytes, len });
		assert_int_equal(body_u32(&body), 0);
		assert_true(body.bad);
		/* nothing was moved, yet nothing more can be read */
		assert_ptr_equal(body.at, bytes);
		assert_int_equal(body_u8(&body), 0);
		assert_int_equal(body_u16(&body), 0);
		assert_null(body_bytes(&body, 0).at);
		assert_null(body_text(&body).at);
		assert_null(body_rest(&body).at);
		assert_false(body_is_done(&body));
		mem_free(bytes);
	}
	body = body_of((struct span){ "\1", 1 });
	assert_int_equal(body_u16(&body), 0);
	assert_true(body.bad);
	body = body_of(SPAN_NONE);
	assert_true(body_is_done(&body));
	assert_int_equal(body_u8(&body), 0);
	assert_true(body.bad);
}

static void
no_length_overflows(void **state)
{
	static const size_t lengths[] = {
		4, 0x7fffffff, 0x80000000, 0xffffffff, SIZE_MAX / 2, SIZE_MAX,
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(lengths); i++) {
		struct body body = body_of(SPAN("abc"));

		assert_null(body_bytes(&body, lengths[i]).at);
		assert_true(body.bad);
	}
}

static void
a_text_needs_its_nul(void **state)
{
	char *bytes = mem_dup("abc", 3);
	struct body body = body_of((struct span){ bytes, 3 });

	(void)state;
	assert_null(body_text(&body).at);
	assert_true(body.bad);
	mem_free(bytes);
	body = body_of(SPAN_NONE);
	assert_null(body_text(&body).at);
	assert_true(body.bad);
}

/*
 * Composing. The expected bytes are written out from "Message Formats".
 */

static void
messages_to_clients_have_their_layout(void **state)
{
	struct buf out = { 0 };
	struct span unknown[] = { SPAN("_pq_.a"), SPAN("_pq_.b") };

	(void)state;
	msg_ready(&out, 'I');
	assert_bytes(&out, BYTES("Z\0\0\0\5I"));
	buf_clear(&out);
	msg_parameter(&out, SPAN("TimeZone"), SPAN("UTC"));
	assert_bytes(&out, BYTES("S\0\0\0\21TimeZone\0UTC\0"));
	buf_clear(&out);
	msg_auth(&out, 0, SPAN_NONE);
	msg_auth(&out, 5, SPAN("salt"));
	assert_bytes(&out,
	    BYTES("R\0\0\0\10\0\0\0\0" "R\0\0\0\14\0\0\0\5salt"));
	buf_clear(&out);
	msg_key_data(&out, 0x01020304, SPAN("key!"));
	assert_bytes(&out, BYTES("K\0\0\0\14\1\2\3\4key!"));
	buf_clear(&out);
	msg_negotiate(&out, 2, unknown, 2);
	assert_bytes(&out,
	    BYTES("v\0\0\0\32\0\3\0\2\0\0\0\2_pq_.a\0_pq_.b\0"));
	buf_clear(&out);
	msg_command_complete(&out, "SELECT 1");
	assert_bytes(&out, BYTES("C\0\0\0\15SELECT 1\0"));
	buf_finish(&out);
}

static void
rows_have_their_layout(void **state)
{
	static const struct msg_column columns[] = {
		{ "a", 25 }, { "bc", 20 }, { "d", 23 },
	};
	struct span values[] = { SPAN("x"), SPAN_NONE, SPAN("") };
	struct buf out = { 0 };

	(void)state;
	msg_row_description(&out, columns, 3);
	assert_bytes(&out, BYTES("T\0\0\0\103\0\3"
	    "a\0\0\0\0\0\0\0\0\0\0\31\xff\xff\xff\xff\xff\xff\0\0"
	    "bc\0\0\0\0\0\0\0\0\0\0\24\0\10\xff\xff\xff\xff\0\0"
	    "d\0\0\0\0\0\0\0\0\0\0\27\0\4\xff\xff\xff\xff\0\0"));
	buf_clear(&out);
	msg_data_row(&out, values, 3);
	assert_bytes(&out, BYTES("D\0\0\0\23\0\3\0\0\0\1x"
	    "\xff\xff\xff\xff\0\0\0\0"));
	buf_clear(&out);
	msg_row_description(&out, NULL, 0);
	assert_bytes(&out, BYTES("T\0\0\0\6\0\0"));
	buf_finish(&out);
}

static void
messages_to_servers_have_their_layout(void **state)
{
	struct buf out = { 0 };

	(void)state;
	msg_query(&out, SPAN("BEGIN"));
	assert_bytes(&out, BYTES("Q\0\0\0\12BEGIN\0"));
	buf_clear(&out);
	msg_password(&out, SPAN("pw"), true);
	msg_password(&out, SPAN("c=,r="), false);
	assert_bytes(&out, BYTES("p\0\0\0\7pw\0" "p\0\0\0\11c=,r="));
	buf_clear(&out);
	msg_sasl_initial(&out, "SCRAM-SHA-256", SPAN("n,,"));
	assert_bytes(&out,
	    BYTES("p\0\0\0\31SCRAM-SHA-256\0\0\0\0\3n,,"));
	buf_clear(&out);
	msg_sasl_initial(&out, "X", SPAN_NONE);
	assert_bytes(&out, BYTES("p\0\0\0\12X\0\xff\xff\xff\xff"));
	buf_clear(&out);
	msg_empty(&out, 'S');
	assert_bytes(&out, BYTES("S\0\0\0\4"));
	buf_finish(&out);
}

static void
errors_have_their_fields(void **state)
{
	const struct msg_error full = { .severity = "FATAL",
	    .sqlstate = "53300", .message = "m", .detail = "d", .hint = "h" };
	const struct msg_error lean = { .severity = "NOTICE",
	    .sqlstate = "00000", .message = "m" };
	struct error_fields fields;
	struct buf out = { 0 };

	(void)state;
	msg_error(&out, &full);
	assert_bytes(&out, BYTES("E\0\0\0\43SFATAL\0VFATAL\0C53300\0Mm\0"
	    "Dd\0Hh\0\0"));
	assert_true(error_parse((struct span){ out.at + 5, out.len - 5 },
	    &fields));
	assert_true(span_is(fields.severity, "FATAL"));
	assert_true(span_is(fields.sqlstate, "53300"));
	assert_true(span_is(fields.message, "m"));
	assert_true(span_is(fields.detail, "d"));
	assert_true(span_is(fields.hint, "h"));
	buf_clear(&out);
	msg_notice(&out, &lean);
	assert_bytes(&out,
	    BYTES("N\0\0\0\37SNOTICE\0VNOTICE\0C00000\0Mm\0\0"));
	buf_finish(&out);
}

static void
a_text_with_a_nul_in_it_is_not_sent(void **state)
{
	struct buf out = { 0 };

	(void)state;
	msg_query(&out, (struct span){ BYTES("SELECT 1\0; DROP") });
	assert_true(out.failed);
	buf_clear(&out);
	msg_parameter(&out, (struct span){ BYTES("a\0") }, SPAN("b"));
	assert_true(out.failed);
	buf_finish(&out);
}

static void
composing_out_of_memory_fails_and_no_more(void **state)
{
	struct buf out = { 0 };

	(void)state;
	mem_fail_nth(1);
	msg_query(&out, SPAN("SELECT 1"));
	assert_true(out.failed);
	assert_int_equal(out.len, 0);
	buf_finish(&out);
}

/*
 * ErrorResponse
 */

static void
a_server_may_leave_any_field_out(void **state)
{
	struct error_fields fields;

	(void)state;
	assert_true(error_parse((struct span){ BYTES("\0") }, &fields));
	assert_null(fields.severity.at);
	assert_null(fields.sqlstate.at);
	assert_null(fields.message.at);
	assert_null(fields.detail.at);
	assert_null(fields.hint.at);
	assert_true(error_parse((struct span){ BYTES("Mm\0\0") }, &fields));
	assert_null(fields.sqlstate.at);
	assert_true(span_is(fields.message, "m"));
	/* an empty text is there, and empty */
	assert_true(error_parse((struct span){ BYTES("M\0\0") }, &fields));
	assert_non_null(fields.message.at);
	assert_int_equal(fields.message.len, 0);
}

static void
a_sqlstate_is_five_characters_or_none(void **state)
{
	static const char *const bad[] = {
		"", "5", "5330", "533000", "5330a", "5330-", "53 00",
		"5330\xff",
	};
	struct error_fields fields;
	struct buf body = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(bad); i++) {
		buf_clear(&body);
		buf_printf(&body, "C%s", bad[i]);
		buf_add(&body, "\0\0", 2);
		assert_true(error_parse(buf_span(&body), &fields));
		assert_null(fields.sqlstate.at);
	}
	buf_finish(&body);
	assert_true(error_parse((struct span){ BYTES("C09AZ5\0\0") },
	    &fields));
	assert_true(span_is(fields.sqlstate, "09AZ5"));
}

static void
severity_is_the_untranslated_one_if_there_is_one(void **state)
{
	struct error_fields fields;

	(void)state;
	assert_true(error_parse(
	    (struct span){ BYTES("SFEHLER\0VERROR\0\0") }, &fields));
	assert_true(span_is(fields.severity, "ERROR"));
	assert_true(error_parse(
	    (struct span){ BYTES("VERROR\0SFEHLER\0\0") }, &fields));
	assert_true(span_is(fields.severity, "ERROR"));
	assert_true(error_parse((struct span){ BYTES("SFEHLER\0\0") },
	    &fields));
	assert_true(span_is(fields.severity, "FEHLER"));
}

static void
the_first_of_two_fields_counts(void **state)
{
	struct error_fields fields;

	(void)state;
	assert_true(error_parse((struct span){
	    BYTES("?what\0Mone\0\xff" "x\0Mtwo\0C00000\0C11111\0\0") },
	    &fields));
	assert_true(span_is(fields.message, "one"));
	assert_true(span_is(fields.sqlstate, "00000"));
}

static void
a_malformed_error_is_refused_wherever_it_is_cut(void **state)
{
	static const char good[] = "SERROR\0C42601\0Mtext\0Dd\0Hh\0";
	struct error_fields fields = { .hint = SPAN("untouched") };
	size_t len;

	(void)state;
	for (len = 0; len < sizeof(good) - 1; len++) {
		char *bytes = mem_dup(good, len);

		assert_false(error_parse((struct span){ bytes, len },
		    &fields));
		mem_free(bytes);
	}
	assert_false(error_parse((struct span){ BYTES("Mm\0\0more") },
	    &fields));
	assert_false(error_parse((struct span){ BYTES("Mm\0\0\0") },
	    &fields));
	assert_true(span_is(fields.hint, "untouched"));
	assert_true(error_parse((struct span){ good, sizeof(good) },
	    &fields));
}

/*
 * startup
 */

/* Feeds the packet byte by byte: MORE, MORE, ... then this, and the same if
 * more bytes follow. */
static void
expect_startup(struct span bytes, enum frame_result expected,
    struct startup *ret)
{
	enum frame_result result, before = FRAME_MORE;
	struct startup found;
	const char *why;
	size_t len, size;

	for (len = 0; len <= bytes.len; len++) {
		char *cut = mem_dup(bytes.at, len);

		why = NULL;
		size = 77;
		result = startup_peek(cut, len, &found, &size, &why);
		if (before != FRAME_MORE)
			assert_int_equal(result, before);
		assert_int_equal(why != NULL, result == FRAME_BAD);
		if (result != FRAME_OK)
			assert_int_equal(size, 77);
		else if (found.kind != STARTUP_DIRECT_TLS)
			assert_true(size <= len);
		before = result;
		mem_free(cut);
	}
	assert_int_equal(before, expected);
	if (expected == FRAME_OK && ret != NULL) {
		assert_int_equal(startup_peek(bytes.at, bytes.len, ret,
		    &size, &why), FRAME_OK);
		assert_int_equal(size, ret->kind == STARTUP_DIRECT_TLS ?
		    0 : bytes.len);
	}
}

static void
expect_startup_bad(const char *at, size_t len)
{
	expect_startup((struct span){ at, len }, FRAME_BAD, NULL);
}

static void
requests_are_told_apart_by_their_code(void **state)
{
	struct startup startup;

	(void)state;
	expect_startup((struct span){ BYTES("\0\0\0\10\4\xd2\x16\x2f") },
	    FRAME_OK, &startup);
	assert_int_equal(startup.kind, STARTUP_SSL);
	expect_startup((struct span){ BYTES("\0\0\0\10\4\xd2\x16\x30") },
	    FRAME_OK, &startup);
	assert_int_equal(startup.kind, STARTUP_GSS);
	expect_startup((struct span){
	    BYTES("\0\0\0\20\4\xd2\x16\x2e\x80\0\0\1abcd") }, FRAME_OK,
	    &startup);
	assert_int_equal(startup.kind, STARTUP_CANCEL);
	assert_int_equal(startup.pid, 0x80000001);
	assert_true(span_is(startup.key, "abcd"));
	expect_startup(SPAN("\x16"), FRAME_OK, &startup);
	assert_int_equal(startup.kind, STARTUP_DIRECT_TLS);
	expect_startup((struct span){ BYTES("\x16\3\1\2\0\1") }, FRAME_OK,
	    &startup);
	assert_int_equal(startup.kind, STARTUP_DIRECT_TLS);
	expect_startup((struct span){ BYTES("X\0\0\0\4") }, FRAME_OK,
	    &startup);
	assert_int_equal(startup.kind, STARTUP_TERMINATE);
	expect_startup_bad(BYTES("X\0\0\0\5"));
}

static void
an_encryption_request_has_nothing_behind_its_code(void **state)
{
	(void)state;
	expect_startup_bad(BYTES("\0\0\0\11\4\xd2\x16\x2f\0"));
	expect_startup_bad(BYTES("\0\0\0\20\4\xd2\x16\x30" "12345678"));
}

static void
a_cancel_key_has_4_to_256_bytes(void **state)
{
	struct startup startup;
	char bytes[12 + 300] = { 0 };
	uint32_t len;

	(void)state;
	put_u32(bytes + 4, 1234 << 16 | 5678);
	for (len = 0; len < 300; len++) {
		bool good = len >= 4 && len <= 256;

		put_u32(bytes, 12 + len);
		expect_startup((struct span){ bytes, 12 + len },
		    good ? FRAME_OK : FRAME_BAD, &startup);
		if (good)
			assert_int_equal(startup.key.len, len);
	}
	expect_startup_bad(BYTES("\0\0\0\10\4\xd2\x16\x2e"));
}

static void
a_startup_length_is_from_8_to_10000(void **state)
{
	static const uint32_t bad[] = {
		0, 1, 2, 3, 4, 7, 10001, 0x7fffffff, 0x80000000, 0xffffffff,
	};
	static char bytes[10000];
	struct startup startup;
	size_t i, size;
	const char *why;

	(void)state;
	for (i = 0; i < COUNT(bad); i++) {
		char head[8];

		put_u32(head, bad[i]);
		put_u32(head + 4, 3 << 16);
		expect_startup_bad(head, sizeof(head));
	}
	/* of the largest possible size: a name, and a value of x'es */
	put_u32(bytes, sizeof(bytes));
	put_u32(bytes + 4, 3 << 16);
	memset(bytes + 8, 'x', sizeof(bytes) - 8);
	bytes[12] = bytes[9998] = bytes[9999] = '\0';
	assert_int_equal(startup_peek(bytes, 9999, &startup, &size, &why),
	    FRAME_MORE);
	assert_int_equal(startup_peek(bytes, 10000, &startup, &size, &why),
	    FRAME_OK);
	assert_int_equal(size, 10000);
	put_u32(bytes, 10001);
	assert_int_equal(startup_peek(bytes, 10000, &startup, &size, &why),
	    FRAME_BAD);
}

static void
only_protocol_3_is_spoken(void **state)
{
	struct startup startup;

	(void)state;
	expect_startup_bad(BYTES("\0\0\0\11\0\2\0\0\0"));
	expect_startup_bad(BYTES("\0\0\0\11\0\4\0\0\0"));
	expect_startup_bad(BYTES("\0\0\0\11\4\xd2\x16\x31\0"));
	expect_startup_bad(BYTES("GET / HTTP/1.1\r\n"));
	expect_startup_bad(BYTES("\xff\xff\xff\xff"));
	expect_startup((struct span){ BYTES("\0\0\0\11\0\3\0\2\0") },
	    FRAME_OK, &startup);
	assert_int_equal(startup.major, 3);
	assert_int_equal(startup.minor, 2);
	expect_startup((struct span){ BYTES("\0\0\0\11\0\3\x27\x0f\0") },
	    FRAME_OK, &startup);
	assert_int_equal(startup.minor, 9999);
}

static void
parameters_come_in_pairs_with_an_end(void **state)
{
	struct startup startup;
	struct span name, value, rest;

	(void)state;
	expect_startup((struct span){ BYTES("\0\0\0\30\0\3\0\0"
	    "user\0me\0" "empty\0\0" "\0") }, FRAME_OK, &startup);
	assert_int_equal(startup.kind, STARTUP_LOGIN);
	rest = startup.params;
	assert_true(startup_next_param(&rest, &name, &value));
	assert_true(span_is(name, "user"));
	assert_true(span_is(value, "me"));
	assert_true(startup_next_param(&rest, &name, &value));
	assert_true(span_is(name, "empty"));
	assert_int_equal(value.len, 0);
	assert_false(startup_next_param(&rest, &name, &value));
	assert_false(startup_next_param(&rest, &name, &value));
	assert_true(span_is(name, "empty"));
	/* an empty packet body: not even an end */
	expect_startup_bad(BYTES("\0\0\0\10\0\3\0\0"));
	/* no end; no NUL behind the value; no value; no NUL behind the name */
	expect_startup_bad(BYTES("\0\0\0\20\0\3\0\0user\0me\0"));
	expect_startup_bad(BYTES("\0\0\0\17\0\3\0\0user\0me"));
	expect_startup_bad(BYTES("\0\0\0\15\0\3\0\0user\0"));
	expect_startup_bad(BYTES("\0\0\0\14\0\3\0\0user"));
	/* a name and an end, where a value should be: it is that value, and
	 * then there is no end */
	expect_startup_bad(BYTES("\0\0\0\16\0\3\0\0user\0\0"));
	/* bytes behind the end */
	expect_startup_bad(BYTES("\0\0\0\22\0\3\0\0user\0me\0\0x"));
	expect_startup_bad(BYTES("\0\0\0\22\0\3\0\0user\0me\0\0\0"));
	expect_startup_bad(BYTES("\0\0\0\12\0\3\0\0\0\0"));
}

static void
what_follows_a_packet_is_not_part_of_it(void **state)
{
	static const char bytes[] = "\0\0\0\10\4\xd2\x16\x2fstuffed";
	struct startup startup;
	const char *why;
	size_t size;

	(void)state;
	assert_int_equal(startup_peek(bytes, sizeof(bytes), &startup, &size,
	    &why), FRAME_OK);
	assert_int_equal(size, 8);
}

/* The settings of an `options` text as "name=value;", with "BAD" at the end
 * if it ends badly. */
static void
expect_options(const char *options, const char *expected)
{
	struct span rest = span_of(options), name, value, before = rest;
	struct buf all = { 0 }, scratch = { 0 };
	enum frame_result result;

	while ((result = startup_next_option(&rest, &scratch, &name,
	    &value)) == FRAME_OK) {
		buf_add_span(&all, name);
		buf_add_text(&all, "=");
		buf_add_span(&all, value);
		buf_add_text(&all, ";");
		assert_true(rest.len < before.len);
		before = rest;
	}
	if (result == FRAME_BAD) {
		assert_ptr_equal(rest.at, before.at);
		buf_add_text(&all, "BAD");
	}
	if (!span_eq(buf_span(&all), span_of(expected)))
		fail_msg("'%s' gave '%.*s', not '%s'", options,
		    SPAN_ARG(buf_span(&all)), expected);
	buf_finish(&all);
	buf_finish(&scratch);
}

static void
options_are_split_as_postgres_does(void **state)
{
	(void)state;
	expect_options("", "");
	expect_options("  \t ", "");
	expect_options("-c a=b", "a=b;");
	expect_options("-c\ta=b\r-c\vc=d\f", "a=b;c=d;");
	expect_options("-ca=b", "a=b;");
	expect_options("--a=b", "a=b;");
	expect_options("-c  a=b -cc=d\n--e=f ", "a=b;c=d;e=f;");
	expect_options("-c a=", "a=;");
	expect_options("-c a=b=c", "a=b=c;");
	expect_options("-c search_path=a,\\ b", "search_path=a, b;");
	expect_options("-c a=\\\\", "a=\\;");
	expect_options("-c a=b\\", "a=b;");
	expect_options("-c a=\\\\\\ b --c=d", "a=\\ b;c=d;");
	expect_options("-c statement-timeout=5", "statement_timeout=5;");
	expect_options("--statement-timeout=a-b", "statement_timeout=a-b;");
	expect_options("-c --a=b", "__a=b;");
	expect_options("-c -c=d", "_c=d;");
	/* Postgres knows no parameter of that name, and says so. */
	expect_options("-c=", "=;");
	expect_options("-c =x", "=x;");
	expect_options("--=x", "=x;");
}

static void
options_that_are_no_settings_are_refused(void **state)
{
	(void)state;
	expect_options("-c", "BAD");
	expect_options("-c ", "BAD");
	expect_options("--", "BAD");
	expect_options("--a", "BAD");
	expect_options("-c a", "BAD");
	expect_options("-", "BAD");
	expect_options("a=b", "BAD");
	expect_options("-d 5", "BAD");
	expect_options("-e", "BAD");
	expect_options("\\", "BAD");
	expect_options("-c a=b rest", "a=b;BAD");
	expect_options("-c \\", "BAD");
	expect_options("\\-c a=b", "a=b;");
}

static void
options_out_of_memory_are_refused(void **state)
{
	struct span rest = SPAN("-c a=b"), name, value;
	struct buf scratch = { 0 };

	(void)state;
	mem_fail_nth(1);
	assert_int_equal(startup_next_option(&rest, &scratch, &name, &value),
	    FRAME_BAD);
	assert_true(span_is(rest, "-c a=b"));
	assert_int_equal(startup_next_option(&rest, &scratch, &name, &value),
	    FRAME_OK);
	assert_true(span_is(value, "b"));
	buf_finish(&scratch);
}

static void
our_own_packets_have_their_layout(void **state)
{
	struct buf out = { 0 };
	struct startup startup;
	size_t began;

	(void)state;
	startup_ssl_request(&out);
	assert_bytes(&out, BYTES("\0\0\0\10\4\xd2\x16\x2f"));
	buf_clear(&out);
	startup_cancel(&out, 0x01020304, SPAN("abcd"));
	assert_bytes(&out, BYTES("\0\0\0\20\4\xd2\x16\x2e\1\2\3\4abcd"));
	buf_clear(&out);
	buf_add_text(&out, "before");
	began = startup_begin(&out, 3, 2);
	startup_param(&out, SPAN("user"), SPAN("me"));
	startup_param(&out, SPAN("database"), SPAN(""));
	startup_end(&out, began);
	assert_bytes(&out, BYTES("before\0\0\0\33\0\3\0\2user\0me\0"
	    "database\0\0\0"));
	expect_startup((struct span){ out.at + 6, out.len - 6 }, FRAME_OK,
	    &startup);
	buf_finish(&out);
}

static void
packets_that_cannot_be_said_are_not_sent(void **state)
{
	static char long_text[STARTUP_MAX];
	struct buf out = { 0 };
	size_t began, len;

	(void)state;
	startup_cancel(&out, 1, SPAN("abc"));
	assert_true(out.failed);
	buf_clear(&out);
	startup_cancel(&out, 1, (struct span){ long_text, 256 });
	assert_int_equal(out.len, 12 + 256);
	startup_cancel(&out, 1, (struct span){ long_text, 257 });
	assert_true(out.failed);
	buf_clear(&out);
	startup_param(&out, SPAN(""), SPAN("x"));
	assert_true(out.failed);
	buf_clear(&out);
	startup_param(&out, SPAN("user"), (struct span){ "a\0b", 3 });
	assert_true(out.failed);
	memset(long_text, 'x', sizeof(long_text));
	for (len = STARTUP_MAX - 14; len <= STARTUP_MAX - 13; len++) {
		buf_clear(&out);
		began = startup_begin(&out, 3, 0);
		startup_param(&out, SPAN("abc"),
		    (struct span){ long_text, len });
		startup_end(&out, began);
		assert_int_equal(out.failed, len > STARTUP_MAX - 14);
		assert_int_equal(out.len - began, len + 14);
	}
	buf_finish(&out);
}

int
main(void)
{
	const struct CMUnitTest frames[] = {
		cmocka_unit_test(a_length_is_from_4_to_what_postgres_takes),
		cmocka_unit_test(a_header_cut_short_is_never_ok),
		cmocka_unit_test(types_and_lengths_are_not_signed_chars),
		cmocka_unit_test(a_message_is_taken_when_all_of_it_is_there),
	};
	const struct CMUnitTest bodies[] = {
		cmocka_unit_test(a_body_is_read_field_by_field),
		cmocka_unit_test(reading_past_the_end_is_bad_for_good),
		cmocka_unit_test(no_length_overflows),
		cmocka_unit_test(a_text_needs_its_nul),
		cmocka_unit_test(messages_to_clients_have_their_layout),
		cmocka_unit_test(rows_have_their_layout),
		cmocka_unit_test(messages_to_servers_have_their_layout),
		cmocka_unit_test(errors_have_their_fields),
		cmocka_unit_test(a_text_with_a_nul_in_it_is_not_sent),
		cmocka_unit_test(composing_out_of_memory_fails_and_no_more),
		cmocka_unit_test(a_server_may_leave_any_field_out),
		cmocka_unit_test(a_sqlstate_is_five_characters_or_none),
		cmocka_unit_test(
		    severity_is_the_untranslated_one_if_there_is_one),
		cmocka_unit_test(the_first_of_two_fields_counts),
		cmocka_unit_test(
		    a_malformed_error_is_refused_wherever_it_is_cut),
	};
	const struct CMUnitTest startups[] = {
		cmocka_unit_test(requests_are_told_apart_by_their_code),
		cmocka_unit_test(
		    an_encryption_request_has_nothing_behind_its_code),
		cmocka_unit_test(a_cancel_key_has_4_to_256_bytes),
		cmocka_unit_test(a_startup_length_is_from_8_to_10000),
		cmocka_unit_test(only_protocol_3_is_spoken),
		cmocka_unit_test(parameters_come_in_pairs_with_an_end),
		cmocka_unit_test(what_follows_a_packet_is_not_part_of_it),
		cmocka_unit_test(options_are_split_as_postgres_does),
		cmocka_unit_test(options_that_are_no_settings_are_refused),
		cmocka_unit_test(options_out_of_memory_are_refused),
		cmocka_unit_test(our_own_packets_have_their_layout),
		cmocka_unit_test(packets_that_cannot_be_said_are_not_sent),
	};

	return cmocka_run_group_tests_name("frame", frames, NULL, NULL) +
	    cmocka_run_group_tests_name("body", bodies, NULL, NULL) +
	    cmocka_run_group_tests_name("startup", startups, NULL, NULL);
}
