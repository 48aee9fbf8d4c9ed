/*
 * What a server owes, by itself: the ring, its counts, and what is asked of
 * it. What replies do to it is in test_relay_rules.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "pool/stmt.h"
#include "session/owed.h"

static struct owed_entry *
owe(struct owed *owed, enum owed_kind kind)
{
	struct owed_entry *entry = owed_push(owed, kind, OWED_FORWARD);

	assert_non_null(entry);
	return entry;
}

/* An entry that changes what `name` means. */
static struct owed_entry *
owe_change(struct owed *owed, enum owed_kind kind, const char *name)
{
	struct owed_entry *entry = owe(owed, kind);

	entry->change = mem_zalloc(sizeof(*entry->change) + strlen(name));
	assert_non_null(entry->change);
	entry->change->len = (uint32_t)strlen(name);
	memcpy(entry->change->name, name, strlen(name));
	return entry;
}

static bool
is_uncertain(const struct owed *owed, const char *name)
{
	return owed_is_uncertain(owed, name, strlen(name));
}

static void
debts_come_off_in_the_order_they_went_on(void **state)
{
	static const enum owed_kind kinds[] = {
		OWED_PARSE, OWED_BIND, OWED_DESCRIBE, OWED_EXECUTE, OWED_SYNC,
	};
	enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), MANY = 1000 };
	struct owed owed;
	unsigned on = 0, off = 0;

	(void)state;
	assert_true(owed_init(&owed));
	assert_null(owed_head(&owed));
	/* Two on, one off: the ring turns while it grows. */
	while (on < MANY) {
		owe(&owed, kinds[on++ % KINDS]);
		owe(&owed, kinds[on++ % KINDS]);
		assert_int_equal(owed_head(&owed)->kind, kinds[off % KINDS]);
		owed_pop(&owed);
		off++;
		assert_int_equal(owed.count, on - off);
		assert_int_equal(owed_at(&owed, owed.count - 1)->kind,
		    kinds[(on - 1) % KINDS]);
	}
	for (; owed.count > 0; off++) {
		assert_int_equal(owed_head(&owed)->kind, kinds[off % KINDS]);
		owed_pop(&owed);
	}
	assert_int_equal(off, on);
	assert_int_equal(owed.syncs, 0);
	owed_finish(&owed);
}

static void
what_is_local_and_what_is_a_sync_is_counted(void **state)
{
	struct owed owed;

	(void)state;
	assert_true(owed_init(&owed));
	assert_true(owed_is_clear(&owed));
	assert_non_null(owed_push(&owed, OWED_CLOSE, OWED_LOCAL));
	assert_true(owed_is_clear(&owed));
	assert_false(owed.batch_open);	/* the server knows nothing of it */
	owe(&owed, OWED_SYNC);
	assert_false(owed_is_clear(&owed));
	owe(&owed, OWED_SYNC);
	assert_non_null(owed_push(&owed, OWED_BIND, OWED_LOCAL));
	assert_int_equal(owed.local, 2);
	assert_int_equal(owed.syncs, 2);
	owed_remove(&owed, 1);
	assert_int_equal(owed.syncs, 1);
	assert_int_equal(owed_at(&owed, 2)->kind, OWED_BIND);
	owed_pop_last(&owed);
	assert_int_equal(owed.local, 1);
	owed_pop(&owed);
	assert_int_equal(owed.local, 0);
	assert_int_equal(owed.count, 1);
	assert_int_equal(owed_head(&owed)->kind, OWED_SYNC);
	owed_finish(&owed);
}

static void
only_an_extended_message_opens_a_batch(void **state)
{
	(void)state;
	for (int kind = OWED_PARSE; kind <= OWED_FUNCTION; kind++) {
		struct owed owed;

		assert_true(owed_init(&owed));
		owe(&owed, (enum owed_kind)kind);
		assert_int_equal(owed.batch_open, kind < OWED_SYNC);
		owed_finish(&owed);
	}
}

static void
a_name_is_uncertain_while_an_earlier_batch_may_undo_it(void **state)
{
	struct owed owed;

	(void)state;
	assert_true(owed_init(&owed));
	owe_change(&owed, OWED_PARSE, "s1");
	/* In its own batch an error skips what is built on it as well. */
	assert_false(is_uncertain(&owed, "s1"));
	owe(&owed, OWED_SYNC);
	assert_true(is_uncertain(&owed, "s1"));
	assert_false(is_uncertain(&owed, "s"));
	assert_false(is_uncertain(&owed, "s11"));
	assert_false(is_uncertain(&owed, ""));
	/* Said again in a later batch: still, for that may be skipped too. */
	owe_change(&owed, OWED_CLOSE, "s1");
	assert_true(is_uncertain(&owed, "s1"));
	owed_finish(&owed);
}

static void
what_takes_all_names_makes_all_uncertain(void **state)
{
	struct owed owed;

	(void)state;
	assert_true(owed_init(&owed));
	owe(&owed, OWED_EXECUTE)->clears = true;
	assert_false(is_uncertain(&owed, "s1"));
	owe(&owed, OWED_SYNC);
	assert_true(is_uncertain(&owed, "s1"));
	owed_finish(&owed);
	/* A query is a batch of its own: nothing is in it with what comes. */
	assert_true(owed_init(&owed));
	owe(&owed, OWED_QUERY)->clears = true;
	assert_true(is_uncertain(&owed, "s1"));
	owed_finish(&owed);
}

static void
the_unnamed_statement_is_what_the_last_parse_says(void **state)
{
	struct owed owed;

	(void)state;
	assert_true(owed_init(&owed));
	owe(&owed, OWED_PARSE)->unnamed = true;
	assert_false(is_uncertain(&owed, ""));
	owe(&owed, OWED_SYNC);
	assert_true(is_uncertain(&owed, ""));
	owe(&owed, OWED_PARSE)->unnamed = true;
	assert_false(is_uncertain(&owed, ""));
	owed_finish(&owed);
}

static void
a_statement_is_pending_across_a_sync(void **state)
{
	struct stmt *one = stmt_intern(SPAN("SELECT 1\0\0"), 0, 0, 0);
	struct stmt *two = stmt_intern(SPAN("SELECT 2\0\0"), 0, 0, 0);
	struct owed owed;

	(void)state;
	assert_true(owed_init(&owed));
	owe(&owed, OWED_PARSE)->stmt = stmt_ref(one);
	assert_false(owed_is_pending(&owed, one));
	owe(&owed, OWED_SYNC);
	assert_true(owed_is_pending(&owed, one));
	assert_false(owed_is_pending(&owed, two));
	owed_finish(&owed);		/* gives the reference back */
	assert_int_equal(one->refs, 1);
	stmt_unref(one);
	stmt_unref(two);
}

static void
it_is_known_whether_a_commit_is_among_them(void **state)
{
	struct owed owed;

	(void)state;
	assert_true(owed_init(&owed));
	owe(&owed, OWED_EXECUTE);
	owe(&owed, OWED_EXECUTE)->ends = true;
	owe(&owed, OWED_SYNC);
	assert_true(owed_may_end(&owed));
	owed_pop(&owed);
	assert_true(owed_may_end(&owed));
	owed_pop(&owed);
	assert_false(owed_may_end(&owed));
	owed_finish(&owed);
}

static void
it_is_known_whether_a_portal_of_ours_is_among_them(void **state)
{
	struct owed owed;

	(void)state;
	assert_true(owed_init(&owed));
	owe(&owed, OWED_BIND);
	assert_non_null(owed_push(&owed, OWED_CLOSE, OWED_LOCAL));
	assert_false(owed_has_local_bind(&owed));
	assert_non_null(owed_push(&owed, OWED_BIND, OWED_LOCAL));
	assert_true(owed_has_local_bind(&owed));
	owed_finish(&owed);
}

static void
out_of_memory_leaves_what_was_owed(void **state)
{
	struct owed owed;
	uint32_t count;

	(void)state;
	mem_fail_nth(1);
	assert_false(owed_init(&owed));
	mem_fail_nth(0);
	assert_true(owed_init(&owed));
	for (count = 0; count <= owed.mask; count++)
		owe(&owed, count % 2 == 0 ? OWED_PARSE : OWED_SYNC);
	mem_fail_nth(1);
	assert_null(owed_push(&owed, OWED_QUERY, OWED_LOCAL));
	mem_fail_nth(0);
	assert_int_equal(owed.count, count);
	assert_int_equal(owed.local, 0);
	assert_int_equal(owed_at(&owed, count - 1)->kind, OWED_SYNC);
	owe(&owed, OWED_QUERY);
	assert_int_equal(owed.count, count + 1);
	owed_finish(&owed);
}

static void
what_takes_no_time_is_told_from_what_may(void **state)
{
	struct owed owed;

	(void)state;
	assert_true(owed_init(&owed));
	assert_true(owed_is_brief(&owed));
	owe(&owed, OWED_QUERY)->probe = true;
	assert_true(owed_is_brief(&owed));
	owe(&owed, OWED_QUERY);
	assert_false(owed_is_brief(&owed));
	owed_pop(&owed);
	assert_false(owed_is_brief(&owed));
	owed_pop(&owed);
	owe(&owed, OWED_QUERY)->leaves = true;
	assert_true(owed_is_brief(&owed));
	owed_finish(&owed);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test(name)
		TEST(debts_come_off_in_the_order_they_went_on),
		TEST(what_is_local_and_what_is_a_sync_is_counted),
		TEST(only_an_extended_message_opens_a_batch),
		TEST(a_name_is_uncertain_while_an_earlier_batch_may_undo_it),
		TEST(what_takes_all_names_makes_all_uncertain),
		TEST(the_unnamed_statement_is_what_the_last_parse_says),
		TEST(a_statement_is_pending_across_a_sync),
		TEST(it_is_known_whether_a_commit_is_among_them),
		TEST(it_is_known_whether_a_portal_of_ours_is_among_them),
		TEST(what_takes_no_time_is_told_from_what_may),
		TEST(out_of_memory_leaves_what_was_owed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
