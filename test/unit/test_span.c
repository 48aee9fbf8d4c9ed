/* Text: spans, their hashes and numbers, and the buffers they grow in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/span.h"
#include "base/words.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/*
 * buf
 */

static void
a_buffer_grows_and_keeps_its_bytes(void **state)
{
	struct buf buf = { 0 };
	int i;

	(void)state;
	assert_int_equal(buf_span(&buf).len, 0);
	for (i = 0; i < 1000; i++)
		buf_printf(&buf, "%04d,", i);
	assert_int_equal(buf.len, 5000);
	assert_memory_equal(buf.at, "0000,0001,", 10);
	assert_memory_equal(buf.at + 4990, "0998,0999,", 10);
	buf_cut(&buf, 4995);
	assert_int_equal(buf.len, 5);
	assert_memory_equal(buf.at, "0999,", 5);
	buf_cut(&buf, 0);
	buf_cut(&buf, 5);
	assert_int_equal(buf.len, 0);
	buf_add(&buf, NULL, 0);
	buf_add_span(&buf, SPAN_NONE);
	buf_add_text(&buf, "");
	assert_int_equal(buf.len, 0);
	buf_finish(&buf);
	assert_null(buf.at);
	assert_int_equal(buf.cap, 0);
	buf_finish(&buf);
}

static void
printing_fits_at_every_length(void **state)
{
	size_t len;

	(void)state;
	for (len = 1; len < 1100; len++) {
		struct buf buf = { 0 };

		buf_printf(&buf, "%0*d", (int)len, 0);
		assert_int_equal(buf.len, len);
		assert_int_equal(buf.at[len - 1], '0');
		buf_printf(&buf, "%s", "next");
		assert_memory_equal(buf.at + len, "next", 4);
		assert_false(buf.failed);
		buf_finish(&buf);
	}
}

static void
a_buffer_out_of_memory_stays_failed(void **state)
{
	struct buf buf = { 0 };
	char big[1000] = { 0 };

	(void)state;
	mem_fail_nth(1);
	buf_add_text(&buf, "lost");
	assert_true(buf.failed);
	assert_int_equal(buf.len, 0);
	buf_add_text(&buf, "too late");
	buf_printf(&buf, "too late");
	assert_false(buf_reserve(&buf, 1));
	assert_int_equal(buf.len, 0);
	buf_clear(&buf);
	assert_false(buf.failed);
	buf_add_text(&buf, "kept");
	mem_fail_nth(1);
	buf_printf(&buf, "%0999d", 0);
	assert_true(buf.failed);
	buf_add(&buf, big, sizeof(big));
	assert_int_equal(buf.len, 4);
	assert_memory_equal(buf.at, "kept", 4);
	buf_finish(&buf);
}

static void
a_length_that_overflows_is_out_of_memory(void **state)
{
	struct buf buf = { 0 };

	(void)state;
	buf_add_text(&buf, "x");
	assert_false(buf_reserve(&buf, SIZE_MAX));
	assert_true(buf.failed);
	buf_clear(&buf);
	buf_add_text(&buf, "x");
	assert_true(buf_reserve(&buf, buf.cap - buf.len));
	assert_int_equal(buf.cap, 256);
	assert_true(buf_reserve(&buf, buf.cap - buf.len + 1));
	assert_int_equal(buf.cap, 512);
	buf_finish(&buf);
}

/*
 * span
 */

static void
spans_are_compared_by_content(void **state)
{
	(void)state;
	assert_true(span_eq(SPAN("abc"), span_of("abc")));
	assert_false(span_eq(SPAN("abc"), SPAN("abd")));
	assert_false(span_eq(SPAN("abc"), SPAN("ab")));
	assert_true(span_eq(SPAN_NONE, SPAN("")));
	assert_true(span_eq(span_of(NULL), SPAN_NONE));
	assert_true(span_eq_case(SPAN("aBz@[Z"), SPAN("AbZ@[z")));
	assert_false(span_eq_case(SPAN("@"), SPAN("`")));
	assert_false(span_eq_case(SPAN("["), SPAN("{")));
	assert_false(span_eq_case(SPAN("a"), SPAN("ab")));
	assert_false(span_eq_case(SPAN("\xc3\x84"), SPAN("\xc3\xa4")));
	assert_true(span_is(SPAN("on"), "on"));
	assert_false(span_is(SPAN("on"), "ON"));
	assert_true(span_is_case(SPAN("on"), "ON"));
	assert_true(span_starts_case(SPAN("Options"), "opt"));
	assert_true(span_starts_case(SPAN("opt"), "opt"));
	assert_false(span_starts_case(SPAN("op"), "opt"));
	assert_false(span_starts_case(SPAN("opx"), "opt"));
}

static void
trimming_takes_blanks_at_both_ends(void **state)
{
	(void)state;
	assert_true(span_is(span_trim(SPAN(" \t\r\n\v\f a b \n")), "a b"));
	assert_true(span_is(span_trim(SPAN("a")), "a"));
	assert_int_equal(span_trim(SPAN(" \t ")).len, 0);
	assert_int_equal(span_trim(SPAN_NONE).len, 0);
}

/* The words of a text, joined by '|'. */
static void
expect_words(const char *text, char sep, const char *expected)
{
	struct span rest = span_of(text), word;
	struct buf all = { 0 };

	while (span_next(&rest, sep, &word)) {
		buf_add_span(&all, word);
		buf_add_text(&all, "|");
	}
	if (!span_eq(buf_span(&all), span_of(expected)))
		fail_msg("'%s' gave '%.*s'", text, SPAN_ARG(buf_span(&all)));
	assert_int_equal(rest.len, 0);
	buf_finish(&all);
}

static void
words_are_cut_at_the_separator(void **state)
{
	(void)state;
	expect_words("", ',', "");
	expect_words("  ", ',', "");
	expect_words("a", ',', "a|");
	expect_words(" a , b c ,d", ',', "a|b c|d|");
	expect_words("a,,b", ',', "a||b|");
	expect_words(",a", ',', "|a|");
	expect_words("a,", ',', "a|");
	expect_words("a, ", ',', "a|");
	expect_words(",", ',', "|");
	expect_words("  a\t b \n c", ' ', "a|b|c|");
	expect_words("a=b=c", '=', "a|b|c|");
}

static void
a_failed_span_next_leaves_the_word_alone(void **state)
{
	struct span rest = SPAN(" "), word = SPAN("before");

	(void)state;
	assert_false(span_next(&rest, ',', &word));
	assert_true(span_is(word, "before"));
}

static void
numbers_are_read_whole_or_not_at_all(void **state)
{
	static const char *const bad[] = {
		"", " ", "-1", "+1", "1 ", " 1", "1x", "x", "0x10", "1.0",
		"18446744073709551616", "99999999999999999999999",
	};
	uint64_t value = 77;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(bad); i++)
		if (span_parse_u64(span_of(bad[i]), &value))
			fail_msg("'%s' was taken for a number", bad[i]);
	assert_int_equal(value, 77);
	assert_true(span_parse_u64(SPAN("0"), &value));
	assert_int_equal(value, 0);
	assert_true(span_parse_u64(SPAN("007"), &value));
	assert_int_equal(value, 7);
	assert_true(span_parse_u64(SPAN("18446744073709551615"), &value));
	assert_true(value == UINT64_MAX);
	/* what stands behind the span is not looked at */
	assert_true(span_parse_u64((struct span){ "123", 2 }, &value));
	assert_int_equal(value, 12);
}

static void
signed_numbers_reach_both_ends(void **state)
{
	int64_t value = 77;

	(void)state;
	assert_false(span_parse_i64(SPAN(""), &value));
	assert_false(span_parse_i64(SPAN("-"), &value));
	assert_false(span_parse_i64(SPAN("--1"), &value));
	assert_false(span_parse_i64(SPAN("9223372036854775808"), &value));
	assert_false(span_parse_i64(SPAN("-9223372036854775809"), &value));
	assert_int_equal(value, 77);
	assert_true(span_parse_i64(SPAN("9223372036854775807"), &value));
	assert_true(value == INT64_MAX);
	assert_true(span_parse_i64(SPAN("-9223372036854775808"), &value));
	assert_true(value == INT64_MIN);
	assert_true(span_parse_i64(SPAN("-1"), &value));
	assert_true(value == -1);
	assert_true(span_parse_i64(SPAN("-0"), &value));
	assert_true(value == 0);
}

static void
truth_has_eight_words(void **state)
{
	static const char *const words[] = {
		"no", "yes", "off", "ON", "False", "true", "0", "1",
	};
	bool value;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(words); i++) {
		value = i % 2 == 0;
		assert_true(span_parse_bool(span_of(words[i]), &value));
		assert_int_equal(value, i % 2);
	}
	assert_false(span_parse_bool(SPAN(""), &value));
	assert_false(span_parse_bool(SPAN("2"), &value));
	assert_false(span_parse_bool(SPAN("yess"), &value));
}

static void
durations_have_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t us;
	} good[] = {
		{ "0", 0 }, { "120", 120000000 }, { "1.5", 1500000 },
		{ "500ms", 500000 }, { "2min", 120000000 },
		{ "1h", 3600000000 }, { "7d", 604800000000 },
		{ "30us", 30 }, { "1 s", 1000000 }, { "0.25ms", 250 },
		{ "0.5d", 43200000000 }, { "1.999999d", 172799913600 },
		{ "0.000001", 1 }, { "0.0000001", 1 }, { "0.1us", 1 },
		{ "0.0us", 0 }, { "0.0000000", 0 }, { "1.0000000000", 1000000 },
		{ "213503982d", 213503982 * UINT64_C(86400000000) },
		{ "18446744073709551615us", UINT64_MAX },
	};
	static const char *const bad[] = {
		"", "s", "-1", "1.", ".5", "1.s", "1x", "1 m", "1 s s",
		"1.5.5", "1e3", "213503983d", "18446744073709551616us",
		"18446744073709551615.1us", "99999999999999999999", "1,5",
	};
	uint64_t us = 77;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(bad); i++)
		if (span_parse_duration_us(span_of(bad[i]), &us))
			fail_msg("'%s' was taken for a duration", bad[i]);
	assert_int_equal(us, 77);
	for (i = 0; i < COUNT(good); i++) {
		if (!span_parse_duration_us(span_of(good[i].text), &us))
			fail_msg("'%s' was refused", good[i].text);
		if (us != good[i].us)
			fail_msg("'%s' gave %ju", good[i].text, (uintmax_t)us);
	}
}

static void
sizes_have_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 }, { "4096", 4096 }, { "64kB", 65536 },
		{ "64 KB", 65536 }, { "1MB", 1048576 },
		{ "2GB", 2147483648 }, { "1TB", UINT64_C(1) << 40 },
		{ "5B", 5 }, { "16777215TB", UINT64_C(16777215) << 40 },
	};
	static const char *const bad[] = {
		"", "kB", "-1", "1.5MB", "1k", "1MBx", "16777216TB",
	};
	uint64_t bytes = 77;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(bad); i++)
		if (span_parse_size(span_of(bad[i]), &bytes))
			fail_msg("'%s' was taken for a size", bad[i]);
	assert_int_equal(bytes, 77);
	for (i = 0; i < COUNT(good); i++) {
		assert_true(span_parse_size(span_of(good[i].text), &bytes));
		assert_true(bytes == good[i].bytes);
	}
}

/* A flipped bit anywhere changes the hash, at every length that takes
 * another way through the code. */
static void
every_bit_counts_in_a_hash(void **state)
{
	char text[50];
	size_t len, bit;
	uint64_t hash;

	(void)state;
	memset(text, 'x', sizeof(text));
	for (len = 0; len < sizeof(text); len++) {
		hash = span_hash((struct span){ text, len });
		assert_true(hash == span_hash((struct span){ text, len }));
		assert_true(hash !=
		    span_hash((struct span){ text, len + 1 }));
		for (bit = 0; bit < len * 8; bit++) {
			text[bit / 8] ^= (char)(1 << bit % 8);
			assert_true(hash !=
			    span_hash((struct span){ text, len }));
			text[bit / 8] ^= (char)(1 << bit % 8);
		}
	}
	assert_true(span_hash(SPAN_NONE) == span_hash(SPAN("")));
}

static void
the_folded_hash_ignores_case_and_nothing_else(void **state)
{
	static const char upper[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ-ABCDEFGH";
	static const char lower[] = "abcdefghijklmnopqrstuvwxyz-abcdefgh";
	size_t len;
	int a, b;

	(void)state;
	for (len = 0; len < sizeof(upper); len++)
		assert_true(span_hash_case((struct span){ upper, len }) ==
		    span_hash_case((struct span){ lower, len }));
	for (a = 0; a < 256; a++)
		for (b = 0; b < 256; b++) {
			char x[8] = "1234567", y[8] = "1234567";

			x[3] = (char)a;
			y[3] = (char)b;
			assert_int_equal(
			    span_hash_case((struct span){ x, 8 }) ==
			    span_hash_case((struct span){ y, 8 }),
			    span_eq_case((struct span){ x, 8 },
			    (struct span){ y, 8 }));
		}
}

static void
hashes_spread_over_all_slots(void **state)
{
	unsigned low[64] = { 0 }, high[64] = { 0 };
	char text[16];
	uint64_t hash;
	int i;

	(void)state;
	for (i = 0; i < 64000; i++) {
		struct span s = { text, (size_t)snprintf(text, sizeof(text),
		    "user%d", i) };

		hash = span_hash(s);
		low[hash % 64]++;
		high[hash >> 58]++;
	}
	/* 1000 each expected, sigma 31: nine sigma to either side */
	for (i = 0; i < 64; i++) {
		assert_in_range(low[i], 720, 1280);
		assert_in_range(high[i], 720, 1280);
	}
}

/* Two processes (here: a child that starts over) must not agree. */
static void
hashes_are_keyed_by_process(void **state)
{
	char self[] = "/proc/self/exe", line[2][32];
	int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		char path[4096] = { 0 };
		char *command;
		FILE *pipe;

		assert_true(readlink(self, path, sizeof(path) - 1) > 0);
		command = mem_printf("'%s' hash", path);
		pipe = popen(command, "r");
		assert_non_null(fgets(line[i], sizeof(line[i]), pipe));
		pclose(pipe);
		mem_free(command);
	}
	assert_string_not_equal(line[0], line[1]);
}

/*
 * words
 */

/* The words, each in brackets; or why not. */
static void
split_is(const char *text, const char *expected)
{
	struct buf why = { 0 }, got = { 0 };
	char **words = words_split(span_of(text), &why);

	for (char **word = words; words != NULL && *word != NULL; word++)
		buf_printf(&got, "[%s]", *word);
	if (words == NULL)
		buf_add_span(&got, buf_span(&why));
	buf_add(&got, "", 1);
	assert_string_equal(got.at, expected);
	mem_free(words);
	buf_finish(&got);
	buf_finish(&why);
}

static void
a_command_line_is_split_as_a_shell_does(void **state)
{
	(void)state;
	split_is("a", "[a]");
	split_is("  pg_dump -Fc\t-f  /x y ", "[pg_dump][-Fc][-f][/x][y]");
	split_is("a 'b c' \"d e\"", "[a][b c][d e]");
	split_is("a '' \"\" b", "[a][][][b]");
	split_is("a x'y'\"z\"\\ w", "[a][xyz w]");
	split_is("a 'it'\\''s' \"say \\\"hi\\\" \\\\ \\n\"",
	    "[a][it's][say \"hi\" \\ \\n]");
	split_is("a '\\' b\\\\", "[a][\\][b\\]");
	split_is("a '$x' \\| \"a|b;c\" ~ * ? [ { # % =",
	    "[a][$x][|][a|b;c][~][*][?][[][{][#][%][=]");
	split_is("a b c d e f g h", "[a][b][c][d][e][f][g][h]");
}

static void
a_command_line_that_is_none_is_refused(void **state)
{
	struct buf why = { 0 };

	(void)state;
	split_is("", "there is no command in it");
	split_is(" \t", "there is no command in it");
	split_is("'' a", "there is no command in it");
	split_is("a 'b", "a ' without its end");
	split_is("a \"b", "a \" without its end");
	split_is("a \"b\\\"", "a \" without its end");
	split_is("a \\", "a \\ with nothing behind it");
	split_is("pg_dump > x", "no shell reads this, and > would be given to "
	    "the command as it is: write '>' if that is meant, or run sh -c "
	    "'...'");
	split_is("a \"$HOME\"", "no shell reads this, and $ would be given to "
	    "the command as it is: write '$' if that is meant, or run sh -c "
	    "'...'");
	assert_null(words_split((struct span){ "a\0b", 3 }, &why));
	buf_finish(&why);
	/* The first is for the words, the second for the complaint. */
	mem_fail_nth(1);
	assert_null(words_split(SPAN("a b"), &why));
	mem_fail_nth(0);
	assert_true(span_is(buf_span(&why), "out of memory"));
	buf_finish(&why);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buffer_grows_and_keeps_its_bytes),
		cmocka_unit_test(printing_fits_at_every_length),
		cmocka_unit_test(a_buffer_out_of_memory_stays_failed),
		cmocka_unit_test(a_length_that_overflows_is_out_of_memory),
		cmocka_unit_test(spans_are_compared_by_content),
		cmocka_unit_test(trimming_takes_blanks_at_both_ends),
		cmocka_unit_test(words_are_cut_at_the_separator),
		cmocka_unit_test(a_failed_span_next_leaves_the_word_alone),
		cmocka_unit_test(numbers_are_read_whole_or_not_at_all),
		cmocka_unit_test(signed_numbers_reach_both_ends),
		cmocka_unit_test(truth_has_eight_words),
		cmocka_unit_test(durations_have_units),
		cmocka_unit_test(sizes_have_units),
		cmocka_unit_test(every_bit_counts_in_a_hash),
		cmocka_unit_test(the_folded_hash_ignores_case_and_nothing_else),
		cmocka_unit_test(hashes_spread_over_all_slots),
		cmocka_unit_test(hashes_are_keyed_by_process),
		cmocka_unit_test(a_command_line_is_split_as_a_shell_does),
		cmocka_unit_test(a_command_line_that_is_none_is_refused),
	};

	/* For hashes_are_keyed_by_process(). */
	if (argc == 2 && strcmp(argv[1], "hash") == 0) {
		printf("%016jx\n", (uintmax_t)span_hash(SPAN("pgsluice")));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
