/*
 * Session parameters: sets with the same content are one object, and the
 * statements that make one session like another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "pool/vars.h"

/* "name=value,name=value"; a value may not have a comma. */
static struct vars *
vars_of(const char *text)
{
	struct vars *vars = vars_none();
	struct span rest = span_of(text), pair, name;

	while (span_next(&rest, ',', &pair)) {
		assert_true(span_next(&pair, '=', &name));
		vars = vars_with(vars, name, span_trim(pair));
		assert_non_null(vars);
	}
	return vars;
}

static void
equal_sets_are_one_object(void **state)
{
	static const struct {
		const char *one, *other;
		bool same;
	} rows[] = {
		{ "", "", true },
		{ "a=1", "a=1", true },
		{ "a=1,b=2", "b=2,a=1", true },
		{ "A=1", "a=1", true },
		{ "a=1", "a=2", false },
		{ "a=1", "a=1,b=2", false },
		{ "a=x", "a=X", false },
		{ "a=1,a=2", "a=2", true },
		{ "ab=c", "a=bc", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct vars *one = vars_of(rows[i].one);
		struct vars *other = vars_of(rows[i].other);

		assert_int_equal(one == other, rows[i].same);
		vars_unref(one);
		vars_unref(other);
	}
	vars_unref(NULL);
}

static void
a_set_is_read_by_name_without_case(void **state)
{
	struct vars *vars = vars_of("TimeZone=UTC,app=me");
	struct span name, value;

	(void)state;
	assert_true(span_is(vars_get(vars, SPAN("timezone")), "UTC"));
	assert_true(span_is(vars_get(vars, SPAN("APP")), "me"));
	assert_null(vars_get(vars, SPAN("ap")).at);
	assert_null(vars_get(vars, SPAN("apps")).at);
	assert_int_equal(vars_count(vars), 2);
	vars_at(vars, 0, &name, &value);	/* sorted */
	assert_true(span_is(name, "app"));
	vars_at(vars, 1, &name, &value);
	assert_true(span_is(name, "TimeZone"));	/* as it was first spelt */
	assert_true(span_is(value, "UTC"));
	vars_unref(vars);
}

static void
a_value_may_be_empty_and_is_there(void **state)
{
	struct vars *vars = vars_with(vars_none(), SPAN("a"), SPAN(""));

	(void)state;
	assert_int_equal(vars_count(vars), 1);
	assert_non_null(vars_get(vars, SPAN("a")).at);
	assert_int_equal(vars_get(vars, SPAN("a")).len, 0);
	vars = vars_with(vars, SPAN("a"), SPAN_NONE);
	assert_int_equal(vars_count(vars), 0);
	vars_unref(vars);
}

static void
what_changes_nothing_gives_the_same_set(void **state)
{
	struct vars *vars = vars_of("a=1,b=2");

	(void)state;
	assert_ptr_equal(vars_with(vars, SPAN("A"), SPAN("1")), vars);
	assert_ptr_equal(vars_with(vars, SPAN("c"), SPAN_NONE), vars);
	vars_unref(vars);
}

static void
no_memory_keeps_the_set(void **state)
{
	struct vars *vars = vars_of("a=1");

	(void)state;
	for (uint64_t nth = 1; nth <= 2; nth++) {
		mem_fail_nth(nth);
		assert_null(vars_with(vars, SPAN("b"), SPAN("2")));
		mem_fail_nth(0);
		assert_true(span_is(vars_get(vars, SPAN("a")), "1"));
		assert_int_equal(vars_count(vars), 1);
	}
	vars_unref(vars);
}

static void
one_session_is_made_like_another(void **state)
{
	static const struct {
		const char *have, *want, *sql;
	} rows[] = {
		{ "", "", "" },
		{ "a=1", "a=1", "" },
		{ "", "a=1", "SET \"a\" TO '1';" },
		{ "a=1", "", "RESET \"a\";" },
		{ "a=1", "a=2", "SET \"a\" TO '2';" },
		{ "a=1,c=3", "b=2,c=4", "RESET \"a\";SET \"b\" TO '2';"
		    "SET \"c\" TO '4';" },
		{ "b=1", "a=1,b=1,c=1", "SET \"a\" TO '1';"
		    "SET \"c\" TO '1';" },
		/* What is in a name or value ends no string. */
		{ "", "a=it's", "SET \"a\" TO 'it''s';" },
		{ "", "a=b\\'c", "SET \"a\" TO  E'b\\\\''c';" },
		{ "", "a\"b=1",
		  "SELECT pg_catalog.set_config('a\"b','1',false);" },
		{ "a\";DROP=1", "", "RESET \"a\"\";DROP\";" },
		{ "", "app.user=me", "SET \"app\".\"user\" TO 'me';" },
		/* A list has words of its own, which quoting would join. */
		{ "", "search_path=a", "SELECT pg_catalog.set_config("
		    "'search_path','a',false);" },
		{ "", "DateStyle=ISO", "SELECT pg_catalog.set_config("
		    "'DateStyle','ISO',false);" },
		{ "search_path=a", "", "RESET \"search_path\";" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct vars *have = vars_of(rows[i].have);
		struct vars *want = vars_of(rows[i].want);
		struct buf out = { 0 };

		vars_diff(have, want, &out);
		buf_add(&out, "", 1);
		assert_string_equal(out.at, rows[i].sql);
		buf_finish(&out);
		vars_unref(have);
		vars_unref(want);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test(name)
		TEST(equal_sets_are_one_object),
		TEST(a_set_is_read_by_name_without_case),
		TEST(a_value_may_be_empty_and_is_there),
		TEST(what_changes_nothing_gives_the_same_set),
		TEST(no_memory_keeps_the_set),
		TEST(one_session_is_made_like_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
