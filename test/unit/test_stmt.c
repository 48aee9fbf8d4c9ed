/*
 * Prepared statements: one object for equal texts, a client's names for them,
 * and what is prepared on a server.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "pool/stmt.h"
#include "wire/sqlscan.h"

#define ONE SPAN("SELECT 1\0\0")	/* the count's second byte is its NUL */
#define ONE_OF_INT SPAN("SELECT 1\0\0\1\0\0\0\27")
#define TWO SPAN("SELECT 2\0\0")

static void
equal_statements_are_one_object(void **state)
{
	char copy[sizeof("SELECT 1\0\0") - 1];
	struct stmt *one = stmt_intern(ONE, 0, 0, 0), *other;

	(void)state;
	memcpy(copy, ONE.at, sizeof(copy));
	other = stmt_intern((struct span){ copy, sizeof(copy) }, 0, 0, 0);
	assert_ptr_equal(one, other);
	assert_int_equal(one->refs, 2);
	stmt_unref(other);
	other = stmt_intern(TWO, 0, 0, 0);
	assert_ptr_not_equal(one, other);
	stmt_unref(other);
	/* The types of the parameters are part of it. */
	other = stmt_intern(ONE_OF_INT, 0, 0, 0);
	assert_ptr_not_equal(one, other);
	assert_true(span_is(stmt_sql(other), "SELECT 1"));
	stmt_unref(other);
	stmt_unref(one);
	stmt_unref(NULL);
}

static void
a_number_is_never_used_again(void **state)
{
	struct stmt *one = stmt_intern(ONE, 0, 0, 0);
	uint64_t id = one->id;
	char was[STMT_NAME_MAX], is[STMT_NAME_MAX];
	size_t len = stmt_name(one, was);

	(void)state;
	assert_int_equal(len, strlen(was));
	assert_memory_equal(was, STMT_PREFIX, strlen(STMT_PREFIX));
	stmt_unref(one);
	one = stmt_intern(ONE, 0, 0, 0);
	stmt_name(one, is);
	assert_true(one->id != id);
	assert_string_not_equal(was, is);
	stmt_unref(one);
}

static void
what_a_statement_does_is_looked_at_once(void **state)
{
	struct stmt *stmt = stmt_intern(SPAN("DEALLOCATE ALL\0\0"), 0, 0, 0);

	(void)state;
	assert_int_equal(stmt->effects, SQL_DEALLOCATE_ALL);
	stmt_unref(stmt);
}

static void
no_memory_is_no_statement(void **state)
{
	struct stmt *stmt;

	(void)state;
	mem_fail_nth(1);
	assert_null(stmt_intern(SPAN("SELECT 'none'\0\0"), 0, 0, 0));
	mem_fail_nth(0);
	stmt = stmt_intern(SPAN("SELECT 'none'\0\0"), 0, 0, 0);
	assert_non_null(stmt);
	assert_int_equal(stmt->refs, 1);
	stmt_unref(stmt);
}

/* Taking and giving back on two threads: for the sanitizers. */
static void *
intern_often(void *arg)
{
	(void)arg;
	for (int i = 0; i < 2000; i++) {
		struct stmt *stmt = stmt_intern(i % 2 == 0 ? ONE : TWO, 0,
		    0, 0);
		struct stmt *again = stmt_ref(stmt);
		stmt_unref(stmt);
		stmt_unref(again);
	}
	return NULL;
}

static void
threads_may_share_statements(void **state)
{
	pthread_t other;
	struct stmt *one;

	(void)state;
	assert_int_equal(pthread_create(&other, NULL, intern_often, NULL), 0);
	intern_often(NULL);
	pthread_join(other, NULL);
	one = stmt_intern(ONE, 0, 0, 0);
	assert_int_equal(one->refs, 1);
	stmt_unref(one);
}

/*
 * A client's names.
 */

static void
a_name_is_set_replaced_and_removed(void **state)
{
	struct stmt_names names = { 0 };
	struct stmt *one = stmt_intern(ONE, 0, 0, 0);
	struct stmt *two = stmt_intern(TWO, 0, 0, 0), *was;

	(void)state;
	assert_null(stmt_names_get(&names, SPAN("s1")));
	assert_true(stmt_names_set(&names, SPAN("s1"), NULL, &was));
	assert_null(was);
	assert_true(stmt_names_set(&names, SPAN("s1"), one, &was));
	assert_null(was);
	assert_ptr_equal(stmt_names_get(&names, SPAN("s1")), one);
	assert_null(stmt_names_get(&names, SPAN("s")));
	assert_null(stmt_names_get(&names, SPAN("S1")));
	assert_true(stmt_names_set(&names, SPAN("s1"), two, &was));
	assert_ptr_equal(was, one);
	assert_int_equal(stmt_names_count(&names), 1);
	assert_true(stmt_names_set(&names, SPAN("s1"), NULL, &was));
	assert_ptr_equal(was, two);
	assert_int_equal(stmt_names_count(&names), 0);
	assert_null(stmt_names_get(&names, SPAN("s1")));
	assert_int_equal(one->refs, 1);	/* handed over, and back */
	stmt_unref(one);
	stmt_unref(two);
	stmt_names_clear(&names);
}

static void
names_that_are_cleared_let_go_of_their_statements(void **state)
{
	struct stmt_names names = { 0 };
	struct stmt *one = stmt_intern(ONE, 0, 0, 0), *was;
	char name[16];

	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		assert_true(stmt_names_set(&names, span_of(name),
		    stmt_ref(one), &was));
	}
	assert_int_equal(stmt_names_count(&names), 100);
	assert_int_equal(one->refs, 101);
	stmt_names_clear(&names);
	assert_int_equal(stmt_names_count(&names), 0);
	assert_null(stmt_names_get(&names, SPAN("s1")));
	assert_int_equal(one->refs, 1);
	stmt_unref(one);
}

static void
the_clients_name_is_found_by_the_servers(void **state)
{
	struct stmt_names names = { 0 };
	struct stmt *one = stmt_intern(ONE, 0, 0, 0);
	struct stmt *two = stmt_intern(TWO, 0, 0, 0), *was;
	char of_one[STMT_NAME_MAX], of_two[STMT_NAME_MAX];

	(void)state;
	stmt_name(one, of_one);
	stmt_name(two, of_two);
	assert_true(stmt_names_set(&names, SPAN("mine"), one, &was));
	assert_true(span_is(stmt_names_of(&names, span_of(of_one)), "mine"));
	assert_true(span_is(stmt_names_of(&names, span_of(of_two)), of_two));
	assert_true(span_is(stmt_names_of(&names, SPAN("x")), "x"));
	stmt_names_clear(&names);
	stmt_unref(two);
}

static void
a_name_that_finds_no_memory_is_not_set(void **state)
{
	struct stmt *one = stmt_intern(ONE, 0, 0, 0), *was;

	(void)state;
	for (uint64_t nth = 1; nth <= 2; nth++) {
		struct stmt_names names = { 0 };

		mem_fail_nth(nth);
		assert_false(stmt_names_set(&names, SPAN("s1"), one, &was));
		mem_fail_nth(0);
		assert_int_equal(stmt_names_count(&names), 0);
		assert_null(stmt_names_get(&names, SPAN("s1")));
		stmt_names_clear(&names);
	}
	assert_int_equal(one->refs, 1);
	stmt_unref(one);
}

/*
 * What is prepared on a server.
 */

static void
the_oldest_is_the_one_not_asked_for_longest(void **state)
{
	struct stmt_cache cache;
	struct stmt *one = stmt_intern(ONE, 0, 0, 0);
	struct stmt *two = stmt_intern(TWO, 0, 0, 0);

	(void)state;
	stmt_cache_init(&cache);
	assert_null(stmt_cache_oldest(&cache));
	assert_false(stmt_cache_has(&cache, one));
	assert_true(stmt_cache_add(&cache, one));
	assert_true(stmt_cache_add(&cache, two));
	assert_true(stmt_cache_add(&cache, two));
	assert_int_equal(stmt_cache_count(&cache), 2);
	assert_ptr_equal(stmt_cache_oldest(&cache), one);
	assert_true(stmt_cache_has(&cache, one));	/* counts as use */
	assert_ptr_equal(stmt_cache_oldest(&cache), two);
	assert_int_equal(one->refs, 2);
	stmt_cache_remove(&cache, one);
	stmt_cache_remove(&cache, one);
	assert_int_equal(one->refs, 1);
	assert_false(stmt_cache_has(&cache, one));
	assert_int_equal(stmt_cache_count(&cache), 1);
	stmt_cache_clear(&cache);
	assert_int_equal(stmt_cache_count(&cache), 0);
	assert_null(stmt_cache_oldest(&cache));
	assert_int_equal(two->refs, 1);
	stmt_unref(one);
	stmt_unref(two);
}

static void
a_cache_that_finds_no_memory_has_not_got_it(void **state)
{
	struct stmt *one = stmt_intern(ONE, 0, 0, 0);
	struct stmt_cache cache;

	(void)state;
	for (uint64_t nth = 1; nth <= 2; nth++) {
		stmt_cache_init(&cache);
		mem_fail_nth(nth);
		assert_false(stmt_cache_add(&cache, one));
		mem_fail_nth(0);
		assert_int_equal(stmt_cache_count(&cache), 0);
		assert_null(stmt_cache_oldest(&cache));
		assert_false(stmt_cache_has(&cache, one));
		stmt_cache_clear(&cache);
	}
	assert_int_equal(one->refs, 1);
	stmt_unref(one);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test(name)
		TEST(equal_statements_are_one_object),
		TEST(a_number_is_never_used_again),
		TEST(what_a_statement_does_is_looked_at_once),
		TEST(no_memory_is_no_statement),
		TEST(threads_may_share_statements),
		TEST(a_name_is_set_replaced_and_removed),
		TEST(names_that_are_cleared_let_go_of_their_statements),
		TEST(the_clients_name_is_found_by_the_servers),
		TEST(a_name_that_finds_no_memory_is_not_set),
		TEST(the_oldest_is_the_one_not_asked_for_longest),
		TEST(a_cache_that_finds_no_memory_has_not_got_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
