/*
 * The console's language and its rows, without a connection: which text is
 * which command, and how values become messages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "admin/command.h"
#include "admin/driver.h"
#include "admin/extended.h"
#include "admin/rows.h"
#include "base/mem.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NONE ((const char *)NULL)

/* Parsed from a block of exactly its size; the spans are copied out. */
struct parsed {
	enum command_result result;
	enum command_verb verb;
	char *arg, *value;		/* NULL = none */
	const char *why;
};

static char *
copy_of(struct span s)
{
	return s.at == NULL ? NULL : mem_strndup(s.at, s.len);
}

static struct parsed
parse(const char *text)
{
	struct parsed parsed = { .why = NULL };
	struct command command;
	size_t len = strlen(text);
	char *exact = mem_dup(text, len), *room = mem_alloc(len);

	parsed.result = command_parse((struct span){ exact, len }, room,
	    &command, &parsed.why);
	if (parsed.result == COMMAND_OK) {
		parsed.verb = command.verb;
		parsed.arg = copy_of(command.arg);
		parsed.value = copy_of(command.value);
	}
	mem_free(exact);
	mem_free(room);
	return parsed;
}

static void
parsed_finish(struct parsed *parsed)
{
	mem_free(parsed->arg);
	mem_free(parsed->value);
}

static void
assert_text(const char *got, const char *expected)
{
	if (expected == NULL)
		assert_null(got);
	else
		assert_string_equal(got, expected);
}

static void
commands_are_what_they_look_like(void **state)
{
	static const struct {
		const char *text;
		enum command_verb verb;
		const char *arg, *value;
	} rows[] = {
		{ "SHOW POOLS", COMMAND_SHOW, "POOLS", NONE },
		{ "show pools;", COMMAND_SHOW, "pools", NONE },
		{ " \t\nShOw\r\n pools ; ; ", COMMAND_SHOW, "pools", NONE },
		{ ";;SHOW x", COMMAND_SHOW, "x", NONE },
		{ "-- a\n/* b */SHOW /**/x--c", COMMAND_SHOW, "x--c", NONE },
		{ "SHOW x -- the end", COMMAND_SHOW, "x", NONE },
		{ "SELECT version", COMMAND_SELECT, "version", NONE },
		{ "RELOAD", COMMAND_RELOAD, NONE, NONE },
		{ "PAUSE", COMMAND_PAUSE, NONE, NONE },
		{ "PAUSE;", COMMAND_PAUSE, NONE, NONE },
		{ "PAUSE MyDb", COMMAND_PAUSE, "MyDb", NONE },
		{ "PAUSE \"my db\"", COMMAND_PAUSE, "my db", NONE },
		{ "PAUSE \"a\"\"b\"", COMMAND_PAUSE, "a\"b", NONE },
		{ "PAUSE \"a'b\"", COMMAND_PAUSE, "a'b", NONE },
		{ "PAUSE ''", COMMAND_PAUSE, "", NONE },
		{ "KILL_CLIENT 12", COMMAND_KILL_CLIENT, "12", NONE },
		{ "KILL db", COMMAND_KILL, "db", NONE },
		{ "SET a=b", COMMAND_SET, "a", "b" },
		{ "set a = 1.5min;", COMMAND_SET, "a", "1.5min" },
		{ "SET a TO b", COMMAND_SET, "a", "b" },
		{ "SET a=''", COMMAND_SET, "a", "" },
		{ "SET a='it''s; = \"'", COMMAND_SET, "a", "it's; = \"" },
		{ "SHUTDOWN wait_for_servers", COMMAND_SHUTDOWN,
		  "wait_for_servers", NONE },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct parsed parsed = parse(rows[i].text);

		if (parsed.result != COMMAND_OK ||
		    parsed.verb != rows[i].verb)
			fail_msg("%s: not as expected", rows[i].text);
		assert_text(parsed.arg, rows[i].arg);
		assert_text(parsed.value, rows[i].value);
		parsed_finish(&parsed);
	}
}

static void
other_texts_are_not_commands(void **state)
{
	static const struct {
		const char *text;
		enum command_result result;
	} rows[] = {
		{ "", COMMAND_EMPTY }, { " ; ;", COMMAND_EMPTY },
		{ "-- SHOW x", COMMAND_EMPTY }, { "/**/", COMMAND_EMPTY },
		{ "BEGIN", COMMAND_UNKNOWN }, { "SHOWPOOLS", COMMAND_UNKNOWN },
		{ "SELECT", COMMAND_UNKNOWN },
		{ "SELECT a, b FROM c", COMMAND_UNKNOWN },
		{ "SELECT 'a", COMMAND_UNKNOWN },
		{ "SHO", COMMAND_UNKNOWN }, { "\"SHOW\" x", COMMAND_UNKNOWN },
		{ "=", COMMAND_UNKNOWN }, { "'", COMMAND_UNKNOWN },
		{ "/*", COMMAND_UNKNOWN }, { "\xff\xfe", COMMAND_UNKNOWN },
		{ "SHOW", COMMAND_BAD }, { "SHOW;", COMMAND_BAD },
		{ "SHOW a b", COMMAND_BAD }, { "SHOW =", COMMAND_BAD },
		{ "SHOW a; SHOW b", COMMAND_BAD }, { "SHOW 'a", COMMAND_BAD },
		{ "RELOAD x", COMMAND_BAD }, { "PAUSE a b", COMMAND_BAD },
		{ "PAUSE \"a", COMMAND_BAD }, { "PAUSE =", COMMAND_BAD },
		{ "DISABLE", COMMAND_BAD }, { "SHOW a /*", COMMAND_BAD },
		{ "SET", COMMAND_BAD }, { "SET a", COMMAND_BAD },
		{ "SET a=", COMMAND_BAD }, { "SET a=;", COMMAND_BAD },
		{ "SET a b", COMMAND_BAD }, { "SET a=b c", COMMAND_BAD },
		{ "SET 'a'=b", COMMAND_BAD }, { "SET a='b", COMMAND_BAD },
		{ "SET =b", COMMAND_BAD }, { "SET a==b", COMMAND_BAD },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct parsed parsed = parse(rows[i].text);

		if (parsed.result != rows[i].result)
			fail_msg("%s: not as expected", rows[i].text);
		assert_int_equal(parsed.why != NULL,
		    rows[i].result == COMMAND_BAD);
		parsed_finish(&parsed);
	}
}

static void
every_command_is_found_by_its_name(void **state)
{
	(void)state;
	for (unsigned verb = 0; verb < COMMAND_COUNT; verb++) {
		struct parsed parsed =
		    parse(command_name((enum command_verb)verb));
		/* SELECT alone is SQL like any other. */
		assert_true(parsed.result == COMMAND_OK ||
		    parsed.result == COMMAND_BAD || verb == COMMAND_SELECT);
		if (parsed.result == COMMAND_OK)
			assert_int_equal(parsed.verb, verb);
		parsed_finish(&parsed);
	}
}

/* Random texts out of the pieces that matter: never a crash, and what is
 * taken for a command lies within what was given. */
static void
no_text_confuses_the_parser(void **state)
{
	static const char *const pieces[] = {
		"SHOW", "SET", "PAUSE", "KILL_CLIENT", " ", "=", ";", "'",
		"\"", "''", "--", "/*", "*/", "\n", "x", "TO", "\xc3", "\t",
	};
	uint32_t seed = 1;

	(void)state;
	for (int round = 0; round < 100000; round++) {
		char text[64] = "", room[64];
		size_t len = 0;
		struct command command;
		const char *why = NULL;

		for (int i = 0; i < 8; i++) {
			seed = seed * 1664525 + 1013904223;
			const char *piece =
			    pieces[(seed >> 16) % COUNT(pieces)];
			size_t add = strlen(piece);
			if (len + add > 40)
				break;
			memcpy(text + len, piece, add);
			len += add;
		}
		switch (command_parse((struct span){ text, len }, room,
		    &command, &why)) {
		case COMMAND_OK:
			assert_true(command.verb < COMMAND_COUNT);
			assert_true(command.arg.len <= len);
			assert_true(command.value.len <= len);
			break;
		case COMMAND_BAD:
			assert_non_null(why);
			break;
		default:
			assert_null(why);
		}
	}
}

static void
sql_words_have_their_hints(void **state)
{
	(void)state;
	assert_non_null(strstr(driver_hint(SPAN("begin")), "autocommit"));
	assert_non_null(strstr(driver_hint(SPAN("SELECT 1")), "DATABASES"));
	assert_null(driver_hint(SPAN("INSERT")));
	assert_null(driver_hint(SPAN("")));
}

/*
 * Answers to an Execute.
 */

static void
an_answer_to_execute_is_what_a_query_gets_less_its_frame(void **state)
{
	static const struct msg_column columns[] = {
		{ "t", OID_TEXT }, { "four", OID_INT4 }, { "eight", OID_INT8 },
	};
	const struct span values[] = { SPAN("ab"), SPAN("7"), SPAN_NONE };
	static const char row[] = "D\0\0\0\030\0\3"
	    "\0\0\0\2ab" "\0\0\0\4\0\0\0\7" "\377\377\377\377";
	struct extended extended = { .format_count = 1, .running = true };
	struct buf from = { 0 }, out = { 0 }, done = { 0 };

	(void)state;
	extended.binary[0] = true;
	msg_row_description(&from, columns, 3);
	msg_data_row(&from, values, 3);
	msg_command_complete(&from, "SHOW");
	msg_command_complete(&done, "SHOW");
	extended_answer(&extended, buf_span(&from), &out);
	assert_int_equal(out.len, sizeof(row) - 1 + done.len);
	assert_memory_equal(out.at, row, sizeof(row) - 1);
	assert_memory_equal(out.at + sizeof(row) - 1, done.at, done.len);
	assert_false(extended.running || extended.skipping);
	buf_finish(&from);
	buf_finish(&out);
	buf_finish(&done);
}

static void
an_error_in_an_answer_skips_what_follows(void **state)
{
	const struct msg_error error = {
		.severity = "ERROR", .sqlstate = "42601", .message = "no",
	};
	struct extended extended = { .running = true };
	struct buf from = { 0 }, out = { 0 };

	(void)state;
	msg_error(&from, &error);
	extended_answer(&extended, buf_span(&from), &out);
	assert_true(span_eq(buf_span(&from), buf_span(&out)));
	assert_true(extended.skipping && !extended.running);
	buf_finish(&from);
	buf_finish(&out);
}

/*
 * Rows.
 */

static void
text_becomes_valid_utf8(void **state)
{
	static const struct {
		const char *text, *shown;
	} rows[] = {
		{ "plain", "plain" },
		{ "", "" },
		{ "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
		{ "\xe2\x82\xac \xf0\x9f\x90\x98",
		  "\xe2\x82\xac \xf0\x9f\x90\x98" },
		{ "\xff", "?" },
		{ "a\xc3", "a?" },		/* cut short */
		{ "a\x80z", "a?z" },		/* begins in the middle */
		{ "\xc0\xaf", "??" },		/* not the shortest form */
		{ "\xe0\x80\x80", "???" },
		{ "\xed\xa0\x80", "???" },	/* a surrogate */
		{ "\xf4\x90\x80\x80", "????" },	/* above U+10FFFF */
		{ "\xf5\x80\x80\x80", "????" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t len = strlen(rows[i].text);
		char *exact = mem_dup(rows[i].text, len);
		struct buf out = { 0 };

		text_add_utf8(&out, (struct span){ exact, len }, 100);
		assert_true(span_is(buf_span(&out), rows[i].shown));
		buf_finish(&out);
		mem_free(exact);
	}
}

static void
text_is_cut_between_characters(void **state)
{
	struct buf out = { 0 };

	(void)state;
	text_add_utf8(&out, SPAN("ab\xe2\x82\xac" "c"), 4);
	assert_true(span_is(buf_span(&out), "ab"));
	buf_clear(&out);
	text_add_utf8(&out, SPAN("ab\xe2\x82\xac" "c"), 5);
	assert_true(span_is(buf_span(&out), "ab\xe2\x82\xac"));
	buf_finish(&out);
}

static const struct msg_column columns[] = {
	{ "t", OID_TEXT }, { "four", OID_INT4 }, { "eight", OID_INT8 },
	{ "n", OID_TEXT }, { "when", OID_TEXT },
};

static void
a_row_is_a_data_row_of_its_columns(void **state)
{
	struct buf out = { 0 };
	struct rows rows = { &out, columns, COUNT(columns), 0, 0 };
	struct frame frame;
	struct span bytes;
	struct body body;

	(void)state;
	row_begin(&rows);
	row_text(&rows, "hello");
	row_int(&rows, UINT64_MAX);
	row_int(&rows, UINT64_MAX);
	row_span(&rows, SPAN_NONE);
	row_time(&rows, 0);
	row_end(&rows);
	assert_int_equal(frame_take(out.at, out.len, 1000, &frame, &bytes),
	    FRAME_OK);
	assert_int_equal(frame.type, 'D');
	assert_int_equal(FRAME_HEADER + bytes.len, out.len);
	body = body_of(bytes);
	assert_int_equal(body_u16(&body), COUNT(columns));
	assert_int_equal(body_u32(&body), 5);
	assert_true(span_is(body_bytes(&body, 5), "hello"));
	/* the largest that the type has */
	assert_int_equal(body_u32(&body), 10);
	assert_true(span_is(body_bytes(&body, 10), "2147483647"));
	assert_int_equal(body_u32(&body), 19);
	assert_true(span_is(body_bytes(&body, 19), "9223372036854775807"));
	assert_int_equal(body_u32(&body), UINT32_MAX);
	assert_int_equal(body_u32(&body), UINT32_MAX);
	assert_true(body_is_done(&body));
	buf_finish(&out);
}

static void
a_row_without_memory_fails_and_does_not_crash(void **state)
{
	(void)state;
	for (uint64_t nth = 1; nth <= 4; nth++) {
		struct buf out = { 0 };
		struct rows rows = { &out, columns, COUNT(columns), 0, 0 };
		char *big = mem_alloc(1000);

		memset(big, 'x', 999);
		big[999] = '\0';
		mem_fail_nth(nth);
		row_begin(&rows);
		row_text(&rows, big);
		row_int(&rows, 1);
		row_int(&rows, 1);
		row_text(&rows, big);
		row_text(&rows, big);
		row_end(&rows);
		mem_fail_nth(0);
		assert_true(out.failed);
		buf_finish(&out);
		mem_free(big);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_are_what_they_look_like),
		cmocka_unit_test(other_texts_are_not_commands),
		cmocka_unit_test(every_command_is_found_by_its_name),
		cmocka_unit_test(no_text_confuses_the_parser),
		cmocka_unit_test(sql_words_have_their_hints),
		cmocka_unit_test(
		    an_answer_to_execute_is_what_a_query_gets_less_its_frame),
		cmocka_unit_test(an_error_in_an_answer_skips_what_follows),
		cmocka_unit_test(text_becomes_valid_utf8),
		cmocka_unit_test(text_is_cut_between_characters),
		cmocka_unit_test(a_row_is_a_data_row_of_its_columns),
		cmocka_unit_test(a_row_without_memory_fails_and_does_not_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
