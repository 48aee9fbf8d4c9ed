/*
 * The auth_file in PgBouncer's dialect, and the cache of auth_query's answers
 * under a clock that the test turns.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth/users.h"
#include "base/clock.h"
#include "base/mem.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define VERIFIER "SCRAM-SHA-256$4096:Kuvi7fnbhBhyMiJOoMGpzA==" \
	"$T+G/dPqKG4f2Fmme5CegBdOIuvKS3kW56RmMEMLV3j8=" \
	":0uBw2e2nj+2ZcdjmRWALvyDmHUJTiHhQd/6W9OTTf5g="

static void
a_line_is_a_name_and_a_secret(void **state)
{
	static const struct {
		const char *line, *name, *secret;
		enum secret_kind kind;
	} rows[] = {
		{ "\"a\" \"b\"", "a", "b", SECRET_PLAIN },
		{ "\"a\" \"b\"\n", "a", "b", SECRET_PLAIN },
		{ "\"a\" \"b\"\r\n", "a", "b", SECRET_PLAIN },
		{ "  \t\"a\"\t\t\"b\"  ", "a", "b", SECRET_PLAIN },
		{ "\"a\"\"b\"", NULL, NULL, 0 },
		{ "\"a\" \"b\" \"c\" whatever", "a", "b", SECRET_PLAIN },
		{ "\"a\" \"b\";", "a", "b", SECRET_PLAIN },
		{ "\"a b\" \"c;d#\"", "a b", "c;d#", SECRET_PLAIN },
		{ "\"a\"\"b\" \"\"\"\"", "a\"b", "\"", SECRET_PLAIN },
		{ "\"a\" \"\"\"b\"\"\"", "a", "\"b\"", SECRET_PLAIN },
		{ "\"a\" \"\"", "a", "", SECRET_NONE },
		{ "\"a\" \"md5aa2372305aa1ff8e526fb1199e6c004f\"", "a",
		    "md5aa2372305aa1ff8e526fb1199e6c004f", SECRET_MD5 },
		{ "\"a\" \"" VERIFIER "\"", "a", "", SECRET_SCRAM },
		{ ";\"a\" \"b\"", NULL, "", 0 },
		{ "", NULL, "", 0 },
		{ "\n\n \n", NULL, "", 0 },
		{ "a b", NULL, NULL, 0 },
		{ "#\"a\" \"b\"", NULL, NULL, 0 },
		{ "\"", NULL, NULL, 0 },
		{ "\"a", NULL, NULL, 0 },
		{ "\"a\"", NULL, NULL, 0 },
		{ "\"a\" ", NULL, NULL, 0 },
		{ "\"a\" b", NULL, NULL, 0 },
		{ "\"a\" \"b", NULL, NULL, 0 },
		{ "\"a\" \"b\"\"", NULL, NULL, 0 },
		{ "\"a\" \"b\nc\"", NULL, NULL, 0 },
		{ "\"\" \"b\"", NULL, NULL, 0 },
		{ "\"a\" \"SCRAM-SHA-256$x\"", NULL, NULL, 0 },
	};
	const struct secret *secret;
	struct users *users;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct buf why = { 0 };
		/* not NUL-terminated: an exact block, for the sanitizers */
		size_t len = strlen(rows[i].line);
		char *text = mem_dup(rows[i].line, len);

		users = users_parse((struct span){ text, len }, "f", &why);
		if ((users != NULL) != (rows[i].secret != NULL))
			fail_msg("%s", rows[i].line);
		if (users == NULL) {
			assert_memory_equal(why.at, "f:1: ", 5);
		} else if (rows[i].name == NULL) {
			assert_int_equal(users_count(users), 0);
		} else {
			secret = users_find(users, span_of(rows[i].name));
			assert_non_null(secret);
			assert_int_equal(secret->kind, rows[i].kind);
			assert_true(span_is(secret_text(secret),
			    rows[i].secret));
			assert_int_equal(users_count(users), 1);
		}
		users_unref(users);
		buf_finish(&why);
		mem_free(text);
	}
}

static void
every_error_is_told_with_its_line(void **state)
{
	struct buf why = { 0 };

	(void)state;
	assert_null(users_parse(SPAN("\"a\" \"b\"\nc\n\n\"d\n"), "list", &why));
	buf_add(&why, "", 1);
	assert_string_equal(why.at,
	    "list:2: a quote should stand here\n"
	    "list:4: a quote is not closed");
	buf_finish(&why);
}

static void
a_list_of_errors_has_an_end(void **state)
{
	struct buf text = { 0 }, why = { 0 };
	int i;

	(void)state;
	for (i = 0; i < 10000; i++)
		buf_add_text(&text, "x\n");
	assert_null(users_parse(buf_span(&text), "list", &why));
	assert_in_range(why.len, 1000, 20000);
	buf_finish(&text);
	buf_finish(&why);
}

static void
names_and_secrets_have_limits(void **state)
{
	static const struct {
		size_t name, secret;
		bool good;
	} rows[] = {
		{ 127, 1, true }, { 128, 1, false }, { 1, 65535, true },
		{ 1, 65536, false },
	};
	char *text = mem_alloc(70000);
	size_t i, len;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct buf why = { 0 };
		struct users *users;

		memset(text, 'x', 70000);
		len = rows[i].name + 1;
		text[0] = '"';
		memcpy(text + len, "\" \"", 3);
		len += 3 + rows[i].secret;
		text[len++] = '"';
		users = users_parse((struct span){ text, len }, "f", &why);
		assert_int_equal(users != NULL, rows[i].good);
		users_unref(users);
		buf_finish(&why);
	}
	mem_free(text);
}

struct seen {
	struct buf names;
};

static void
see_name(void *arg, struct span name)
{
	struct seen *seen = arg;

	buf_add_span(&seen->names, name);
	buf_add_text(&seen->names, " ");
}

static void
a_name_that_comes_again_replaces_the_one_before(void **state)
{
	struct buf why = { 0 };
	struct seen seen = { { 0 } };
	struct users *users, *other;

	(void)state;
	users = users_parse(SPAN("\"a\" \"1\"\n\"b\" \"2\"\n\"a\" \"3\"\n"),
	    "f", &why);
	assert_non_null(users);
	assert_string_equal(users_find(users, SPAN("a"))->text, "3");
	assert_string_equal(users_find(users, SPAN("b"))->text, "2");
	assert_null(users_find(users, SPAN("A")));
	assert_null(users_find(users, SPAN("")));
	assert_true(users_add(users, SPAN("c"), SPAN("4")));
	assert_false(users_add(users, SPAN("d"), SPAN("SCRAM-SHA-256$")));
	assert_false(users_add(users, SPAN("a\0d"), SPAN("4")));
	assert_false(users_add(users, SPAN(""), SPAN("4")));
	assert_int_equal(users_count(users), 3);
	users_each(users, see_name, &seen);
	assert_true(span_is(buf_span(&seen.names), "a b c "));
	other = users_ref(users);
	users_unref(users);
	assert_string_equal(users_find(other, SPAN("c"))->text, "4");
	users_unref(other);
	buf_finish(&seen.names);
	assert_null(users_parse(SPAN("\"a\0d\" \"1\"\n"), "f", &why));
	assert_int_not_equal(why.len, 0);
	buf_finish(&why);
}

static void
write_file(const char *path, const char *text, size_t len, mode_t mode)
{
	FILE *file = fopen(path, "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static void
a_file_that_all_may_read_is_refused(void **state)
{
	static const struct {
		mode_t mode;
		bool any_mode, good;
	} rows[] = {
		{ 0600, false, true }, { 0640, false, true },
		{ 0644, false, false }, { 0604, false, false },
		{ 0644, true, true },
	};
	char folder[] = "/tmp/test_users.XXXXXX", path[64];
	size_t i;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/list", folder);
	for (i = 0; i < COUNT(rows); i++) {
		struct buf why = { 0 };
		struct users *users;

		write_file(path, "\"a\" \"b\"\n", 8, rows[i].mode);
		users = users_load(path, rows[i].any_mode, &why);
		assert_int_equal(users != NULL, rows[i].good);
		assert_int_equal(why.len == 0, rows[i].good);
		users_unref(users);
		buf_finish(&why);
	}
	unlink(path);
	rmdir(folder);
}

static void
what_is_no_text_file_is_refused(void **state)
{
	char folder[] = "/tmp/test_users.XXXXXX", path[64];
	struct buf why = { 0 };

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/list", folder);
	assert_null(users_load(path, true, &why));	/* not there */
	assert_non_null(memmem(why.at, why.len, path, strlen(path)));
	assert_null(users_load(folder, true, &why));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_null(users_load(path, true, &why));	/* and does not wait */
	unlink(path);
	write_file(path, "\"a\" \"b\0c\"\n", 10, 0600);
	assert_null(users_load(path, true, &why));
	buf_finish(&why);
	unlink(path);
	rmdir(folder);
}

static void
without_memory_there_is_no_table(void **state)
{
	struct span text = SPAN("\"a\" \"1\"\n\"b\" \"2\"\n");
	struct users *users = NULL;
	uint64_t nth;

	(void)state;
	for (nth = 1; users == NULL; nth++) {
		struct buf why = { 0 };

		mem_fail_nth(nth);
		users = users_parse(text, "f", &why);
		mem_fail_nth(0);
		buf_finish(&why);
		assert_true(nth < 50);
	}
	assert_true(nth > 5);
	assert_int_equal(users_count(users), 2);
	users_unref(users);
}

/* ---- cached answers ---- */

#define SECOND 1000000u

static uint64_t now_us = 1000 * (uint64_t)SECOND;

static uint64_t
test_clock(void)
{
	return now_us;
}

static struct secret
plain(const char *text)
{
	struct secret secret;

	assert_true(secret_parse(span_of(text), &secret));
	return secret;
}

/* "?": ask; "-": no such user; else the secret's text. */
static void
assert_cached(const char *database, const char *user, const char *expected)
{
	struct secret secret = { 0 };
	bool known = false;
	const char *found = "?";

	if (users_cached(span_of(database), span_of(user), &secret, &known))
		found = known ? secret.text : "-";
	assert_string_equal(found, expected);
	secret_finish(&secret);
}

static int
start_of_time(void **state)
{
	(void)state;
	clock_set_source(test_clock);
	users_cache_clear();
	return 0;
}

static int
end_of_time(void **state)
{
	(void)state;
	users_cache_clear();
	clock_set_source(NULL);
	return 0;
}

static void
an_answer_is_good_for_a_while_and_a_missing_user_for_less(void **state)
{
	struct secret secret = plain("one");

	(void)state;
	assert_cached("d", "a", "?");
	users_cache(SPAN("d"), SPAN("a"), &secret);
	users_cache(SPAN("d"), SPAN("b"), NULL);
	assert_cached("d", "a", "one");
	assert_cached("d", "b", "-");
	assert_cached("e", "a", "?");
	assert_cached("a", "d", "?");
	now_us += 5 * SECOND - 1;
	assert_cached("d", "b", "-");
	now_us += 1;
	assert_cached("d", "b", "?");
	now_us += 25 * SECOND - 1;
	assert_cached("d", "a", "one");
	now_us += 1;
	assert_cached("d", "a", "?");
	secret_finish(&secret);
}

static void
a_newer_answer_replaces_the_older(void **state)
{
	struct secret one = plain("one"), two = plain("two");

	(void)state;
	users_cache(SPAN("d"), SPAN("a"), &one);
	now_us += 20 * SECOND;
	users_cache(SPAN("d"), SPAN("a"), &two);
	now_us += 20 * SECOND;
	assert_cached("d", "a", "two");
	users_cache(SPAN("d"), SPAN("a"), NULL);
	assert_cached("d", "a", "-");
	secret_finish(&one);
	secret_finish(&two);
}

static void
a_failed_login_asks_again_but_guesses_do_not(void **state)
{
	struct secret one = plain("one");

	(void)state;
	assert_false(users_cache_refresh(SPAN("d"), SPAN("a")));
	users_cache(SPAN("d"), SPAN("a"), &one);
	assert_false(users_cache_refresh(SPAN("d"), SPAN("a")));
	now_us += 2 * SECOND - 1;
	assert_false(users_cache_refresh(SPAN("d"), SPAN("a")));
	assert_cached("d", "a", "one");
	now_us += 1;
	assert_true(users_cache_refresh(SPAN("d"), SPAN("a")));
	assert_cached("d", "a", "?");
	assert_false(users_cache_refresh(SPAN("d"), SPAN("a")));
	users_cache(SPAN("d"), SPAN("a"), &one);
	assert_false(users_cache_refresh(SPAN("d"), SPAN("a")));
	secret_finish(&one);
}

static void
the_cache_is_bounded_and_drops_what_is_used_least(void **state)
{
	struct secret one = plain("one");
	char name[16];
	int i;

	(void)state;
	users_cache(SPAN("d"), SPAN("first"), &one);
	users_cache(SPAN("d"), SPAN("second"), &one);
	assert_cached("d", "first", "one");
	for (i = 0; i < 16383; i++) {
		snprintf(name, sizeof(name), "%d", i);
		users_cache(SPAN("d"), span_of(name), NULL);
	}
	assert_cached("d", "first", "one");
	assert_cached("d", "second", "?");
	assert_cached("d", "0", "-");
	users_cache_clear();
	assert_cached("d", "first", "?");
	secret_finish(&one);
}

static void
without_memory_nothing_is_cached(void **state)
{
	struct secret one = plain("one");
	uint64_t nth;

	(void)state;
	for (nth = 1; nth <= 5; nth++) {
		mem_fail_nth(nth);
		users_cache(SPAN("d"), SPAN("a"), &one);
		mem_fail_nth(0);
		assert_cached("d", "a", "?");
	}
	users_cache(SPAN("d"), SPAN("a"), &one);
	mem_fail_nth(1);
	assert_cached("d", "a", "?");		/* the copy needs memory */
	mem_fail_nth(0);
	assert_cached("d", "a", "one");
	secret_finish(&one);
}

#define timed(test) \
	cmocka_unit_test_setup_teardown(test, start_of_time, end_of_time)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_a_name_and_a_secret),
		cmocka_unit_test(every_error_is_told_with_its_line),
		cmocka_unit_test(a_list_of_errors_has_an_end),
		cmocka_unit_test(names_and_secrets_have_limits),
		cmocka_unit_test(
		    a_name_that_comes_again_replaces_the_one_before),
		cmocka_unit_test(a_file_that_all_may_read_is_refused),
		cmocka_unit_test(what_is_no_text_file_is_refused),
		cmocka_unit_test(without_memory_there_is_no_table),
		timed(
		    an_answer_is_good_for_a_while_and_a_missing_user_for_less),
		timed(a_newer_answer_replaces_the_older),
		timed(a_failed_login_asks_again_but_guesses_do_not),
		timed(the_cache_is_bounded_and_drops_what_is_used_least),
		timed(without_memory_nothing_is_cached),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
