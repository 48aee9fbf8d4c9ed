/*
 * What everything else stands on: checks, memory, lists and hashes, clocks.
 * The name of a test is the sentence it proves.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Does this abort? It runs in a child whose stderr is thrown away. */
static bool
aborts(void (*run)(void))
{
	struct rlimit no_core = { 0, 0 };
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		int null = open("/dev/null", O_WRONLY);

		setrlimit(RLIMIT_CORE, &no_core);
		dup2(null, STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		run();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

/*
 * check
 */

struct badge {
	uint32_t magic;
};

static void
check_what_is_false(void)
{
	check(1 + 1 == 3);
}

static void
check_what_is_true(void)
{
	struct badge badge = { 0xbad6e };

	check(1 + 1 == 2);
	check_magic(&badge, 0xbad6e);
}

static void
check_wrong_magic(void)
{
	struct badge badge = { 0xdead };

	check_magic(&badge, 0xbad6e);
}

static void
check_magic_of_nothing(void)
{
	struct badge *badge = NULL;

	check_magic(badge, 0xbad6e);
}

static void
a_failed_check_aborts_and_a_good_one_does_not(void **state)
{
	(void)state;
	assert_false(aborts(check_what_is_true));
	assert_true(aborts(check_what_is_false));
	assert_true(aborts(check_wrong_magic));
	assert_true(aborts(check_magic_of_nothing));
}

static void
cut_more_than_there_is(void)
{
	struct buf buf = { 0 };

	buf_add_text(&buf, "ab");
	buf_cut(&buf, 3);
}

static void
cutting_more_than_there_is_is_a_bug(void **state)
{
	(void)state;
	assert_true(aborts(cut_more_than_there_is));
}

/*
 * mem
 */

struct apple {
	uint32_t magic;
	char peel[60];
};
struct pear {
	uint32_t magic;
};
struct seed {
	char byte;
};

MEM_TYPE(apples, apple);
MEM_TYPE(pears, pear);
MEM_TYPE(seeds, seed);
MEM_TYPE(never_used, pear);

static void
objects_come_zeroed_and_are_counted(void **state)
{
	struct apple *a = mem_new(&apples), *b = mem_new(&apples);
	struct apple zero = { 0 };

	(void)state;
	assert_memory_equal(a, &zero, sizeof(zero));
	assert_int_equal(apples.live, 2);
	memset(a, 0x55, sizeof(*a));
	mem_delete(&apples, a);
	mem_delete(&apples, NULL);
	assert_int_equal(apples.live, 1);
	a = mem_new(&apples);
	assert_memory_equal(a, &zero, sizeof(zero));
	mem_delete(&apples, a);
	mem_delete(&apples, b);
	assert_int_equal(apples.live, 0);
	assert_int_equal(apples.made, 3);
}

static void
an_object_smaller_than_a_magic_can_be_deleted(void **state)
{
	(void)state;
	mem_delete(&seeds, mem_new(&seeds));
	assert_int_equal(seeds.live, 0);
}

static void
delete_one_too_many(void)
{
	struct pear *pear = mem_new(&pears);
	static struct mem_type wrong = { .name = "wrong", .size = 1,
	    .listed = ATOMIC_FLAG_INIT };

	mem_delete(&wrong, pear);
}

static void
an_object_deleted_as_another_type_is_noticed(void **state)
{
	(void)state;
	assert_true(aborts(delete_one_too_many));
}

static void
note_type(const struct mem_type *type, void *arg)
{
	int *seen = arg;

	if (type == &apples)
		seen[0]++;
	if (type == &pears)
		seen[1]++;
	if (type == &never_used)
		seen[2]++;
}

static void
every_used_type_is_listed_once(void **state)
{
	int seen[3] = { 0 };
	int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		mem_delete(&apples, mem_new(&apples));
		mem_delete(&pears, mem_new(&pears));
	}
	mem_each_type(note_type, seen);
	assert_int_equal(seen[0], 1);
	assert_int_equal(seen[1], 1);
	assert_int_equal(seen[2], 0);
}

static void
the_nth_allocation_fails_and_only_that_one(void **state)
{
	void *a, *b, *c;

	(void)state;
	mem_fail_nth(2);
	a = mem_alloc(1);
	b = mem_alloc(1);
	c = mem_alloc(1);
	assert_non_null(a);
	assert_null(b);
	assert_non_null(c);
	mem_free(a);
	mem_free(c);
	mem_fail_nth(3);
	mem_fail_nth(0);
	for (int i = 0; i < 5; i++) {
		a = mem_alloc(1);
		assert_non_null(a);
		mem_free(a);
	}
}

static void
every_kind_of_allocation_can_fail(void **state)
{
	uint64_t live = apples.live, made = apples.made;
	char *block = mem_strdup("kept");

	(void)state;
	mem_fail_nth(1);
	assert_null(mem_new(&apples));
	assert_int_equal(apples.live, live);
	assert_int_equal(apples.made, made);
	mem_fail_nth(1);
	assert_null(mem_zalloc(1));
	mem_fail_nth(1);
	assert_null(mem_realloc(block, 1000));
	assert_string_equal(block, "kept");
	mem_fail_nth(1);
	assert_null(mem_dup("x", 1));
	mem_fail_nth(1);
	assert_null(mem_strdup("x"));
	mem_fail_nth(1);
	assert_null(mem_strndup("x", 1));
	mem_fail_nth(1);
	assert_null(mem_printf("x"));
	mem_free(block);
}

static void
nothing_is_not_out_of_memory(void **state)
{
	void *block = mem_alloc(0);

	(void)state;
	assert_non_null(block);
	block = mem_realloc(block, 0);
	assert_non_null(block);
	mem_free(block);
	block = mem_zalloc(0);
	assert_non_null(block);
	mem_free(block);
	block = mem_dup(NULL, 0);
	assert_non_null(block);
	mem_free(block);
	block = mem_strndup(NULL, 0);
	assert_string_equal(block, "");
	mem_free(block);
	mem_free(NULL);
	assert_null(mem_strndup("x", SIZE_MAX));
}

static void
copies_are_exact(void **state)
{
	char *text = mem_strndup("abcdef", 3);
	char *long_text = mem_printf("%0500d|%s", 7, "end");
	char *bytes = mem_dup("a\0b", 3);
	char *more = mem_strdup("hello");

	(void)state;
	assert_string_equal(text, "abc");
	assert_int_equal(strlen(long_text), 504);
	assert_string_equal(long_text + 499, "7|end");
	assert_memory_equal(bytes, "a\0b", 3);
	more = mem_realloc(more, 1 << 20);
	assert_string_equal(more, "hello");
	mem_wipe(more, 5);
	assert_memory_equal(more, "\0\0\0\0\0", 6);
	mem_wipe(NULL, 0);
	mem_free(text);
	mem_free(long_text);
	mem_free(bytes);
	mem_free(more);
}

/*
 * map
 */

struct item {
	struct list node;
	struct hash_node by_key;
	uint64_t key;
};

static void
a_list_keeps_order(void **state)
{
	struct list head;
	struct item items[4] = { 0 };
	int seen = 0;

	(void)state;
	list_init(&head);
	assert_true(list_is_empty(&head));
	assert_null(list_first(&head));
	assert_null(list_pop(&head));
	list_append(&head, &items[1].node);
	list_append(&head, &items[2].node);
	list_push(&head, &items[0].node);
	list_append(&head, &items[3].node);
	assert_int_equal(list_count(&head), 4);
	list_each(node, &head)
		assert_ptr_equal(container_of(node, struct item, node),
		    &items[seen++]);
	assert_int_equal(seen, 4);
	assert_ptr_equal(list_pop(&head), &items[0].node);
	assert_ptr_equal(list_first(&head), &items[1].node);
	assert_false(list_is_on(&items[0].node));
	assert_true(list_is_on(&items[1].node));
}

static void
removing_twice_is_harmless(void **state)
{
	struct list head = { 0 };
	struct list a = { 0 }, b = { 0 };

	(void)state;
	list_remove(&a);		/* never was on one */
	list_append(&head, &a);
	list_append(&head, &b);
	list_remove(&a);
	list_remove(&a);
	assert_ptr_equal(list_first(&head), &b);
	assert_int_equal(list_count(&head), 1);
	list_append(&head, &a);		/* and can be put back */
	assert_int_equal(list_count(&head), 2);
}

static void
a_zeroed_head_is_an_empty_list(void **state)
{
	struct list head = { 0 }, other = { 0 }, node = { 0 };

	(void)state;
	assert_true(list_is_empty(&head));
	assert_int_equal(list_count(&head), 0);
	assert_null(list_pop(&head));
	list_each(each, &head)
		fail();
	list_push(&head, &node);
	assert_int_equal(list_count(&head), 1);
	list_remove(&node);
	list_append(&other, &node);
	assert_int_equal(list_count(&other), 1);
	assert_true(list_is_empty(&head));
}

static void
the_node_at_hand_may_be_removed_in_a_walk(void **state)
{
	struct list head = { 0 };
	struct list nodes[5] = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(nodes); i++)
		list_append(&head, &nodes[i]);
	list_each(node, &head)
		if (node != &nodes[2])
			list_remove(node);
	assert_int_equal(list_count(&head), 1);
	assert_ptr_equal(list_first(&head), &nodes[2]);
}

static void
append_twice(void)
{
	struct list a = { 0 }, b = { 0 }, node = { 0 };

	list_append(&a, &node);
	list_append(&b, &node);
}

static void
a_node_on_two_lists_is_a_bug(void **state)
{
	(void)state;
	assert_true(aborts(append_twice));
}

#define ITEMS 3000

static void
a_hash_finds_what_was_added_and_nothing_else(void **state)
{
	static struct item items[ITEMS];
	struct hash hash = { 0 };
	struct hash_node *node = NULL;
	size_t i, walked = 0;

	(void)state;
	assert_null(hash_find(&hash, 1));
	assert_null(hash_walk(&hash, NULL));
	for (i = 0; i < ITEMS; i++) {
		items[i].key = i * 64;	/* as addresses are */
		assert_true(hash_add(&hash, &items[i].by_key, items[i].key));
	}
	assert_int_equal(hash.count, ITEMS);
	for (i = 0; i < ITEMS; i++)
		assert_ptr_equal(hash_find(&hash, i * 64), &items[i].by_key);
	assert_null(hash_find(&hash, 63));
	assert_null(hash_find(&hash, ITEMS * 64));
	while ((node = hash_walk(&hash, node)) != NULL)
		walked++;
	assert_int_equal(walked, ITEMS);
	for (i = 0; i < ITEMS; i += 2)
		hash_remove(&hash, &items[i].by_key);
	assert_int_equal(hash.count, ITEMS / 2);
	for (i = 0; i < ITEMS; i++)
		assert_int_equal(hash_find(&hash, i * 64) != NULL, i % 2);
	hash_finish(&hash);
	assert_int_equal(hash.count, 0);
	assert_null(hash_find(&hash, 64));
}

static void
keys_like_addresses_do_not_pile_up(void **state)
{
	static struct item items[ITEMS];
	struct hash hash = { 0 };
	size_t i, longest = 0;

	(void)state;
	for (i = 0; i < ITEMS; i++)
		assert_true(hash_add(&hash, &items[i].by_key, i << 12));
	for (i = 0; i < hash.slot_count; i++) {
		struct hash_node *node;
		size_t len = 0;

		for (node = hash.slots[i]; node != NULL; node = node->next)
			len++;
		longest = len > longest ? len : longest;
	}
	assert_true(longest <= 8);
	hash_finish(&hash);
}

static void
equal_hashes_are_all_found(void **state)
{
	struct item a = { 0 }, b = { 0 }, c = { 0 };
	struct hash hash = { 0 };
	struct hash_node *node;
	int seen = 0;

	(void)state;
	assert_true(hash_add(&hash, &a.by_key, 5));
	assert_true(hash_add(&hash, &c.by_key, 6));
	assert_true(hash_add(&hash, &b.by_key, 5));
	for (node = hash_find(&hash, 5); node != NULL;
	    node = hash_next_equal(node)) {
		assert_true(node == &a.by_key || node == &b.by_key);
		seen++;
	}
	assert_int_equal(seen, 2);
	hash_remove(&hash, &a.by_key);
	node = hash_find(&hash, 5);
	assert_ptr_equal(node, &b.by_key);
	assert_null(hash_next_equal(node));
	hash_finish(&hash);
}

static void
a_hash_that_cannot_grow_goes_on(void **state)
{
	static struct item items[100];
	struct hash hash = { 0 };
	size_t i;

	(void)state;
	mem_fail_nth(1);
	assert_false(hash_add(&hash, &items[0].by_key, 0));
	assert_int_equal(hash.count, 0);
	assert_null(hash_find(&hash, 0));
	for (i = 0; i < COUNT(items); i++) {
		mem_fail_nth(i == 0 ? 0 : 1);
		assert_true(hash_add(&hash, &items[i].by_key, i));
	}
	mem_fail_nth(0);
	assert_int_equal(hash.slot_count, 16);
	for (i = 0; i < COUNT(items); i++)
		assert_ptr_equal(hash_find(&hash, i), &items[i].by_key);
	hash_finish(&hash);
}

static void
remove_a_stranger(void)
{
	struct item in = { 0 }, out = { 0 };
	struct hash hash = { 0 };

	hash_add(&hash, &in.by_key, 1);
	hash_remove(&hash, &out.by_key);
}

static void
removing_from_a_hash_what_is_not_in_it_is_a_bug(void **state)
{
	(void)state;
	assert_true(aborts(remove_a_stranger));
}

/*
 * clock
 */

static uint64_t fake_us;

static uint64_t
fake_clock(void)
{
	return fake_us;
}

static void
a_turn_has_one_time(void **state)
{
	uint64_t before, turn, after;

	(void)state;
	clock_turn();
	before = clock_now_us();
	turn = clock_us();
	while (clock_now_us() == turn)
		continue;
	assert_true(before <= turn);
	assert_true(clock_us() == turn);
	clock_turn();
	after = clock_us();
	assert_true(after > turn);
}

static void
tests_can_set_the_time(void **state)
{
	(void)state;
	fake_us = 1000;
	clock_set_source(fake_clock);
	assert_int_equal(clock_us(), 1000);
	assert_int_equal(clock_wall_us(), 1000);
	fake_us = 2000;
	assert_int_equal(clock_us(), 2000);
	assert_int_equal(clock_now_us(), 2000);
	clock_set_source(NULL);
	assert_true(clock_us() != 2000);
	/* later than the year 2020 */
	assert_true(clock_wall_us() > UINT64_C(1577836800000000));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failed_check_aborts_and_a_good_one_does_not),
		cmocka_unit_test(cutting_more_than_there_is_is_a_bug),
		cmocka_unit_test(objects_come_zeroed_and_are_counted),
		cmocka_unit_test(an_object_smaller_than_a_magic_can_be_deleted),
		cmocka_unit_test(an_object_deleted_as_another_type_is_noticed),
		cmocka_unit_test(every_used_type_is_listed_once),
		cmocka_unit_test(the_nth_allocation_fails_and_only_that_one),
		cmocka_unit_test(every_kind_of_allocation_can_fail),
		cmocka_unit_test(nothing_is_not_out_of_memory),
		cmocka_unit_test(copies_are_exact),
		cmocka_unit_test(a_list_keeps_order),
		cmocka_unit_test(removing_twice_is_harmless),
		cmocka_unit_test(a_zeroed_head_is_an_empty_list),
		cmocka_unit_test(the_node_at_hand_may_be_removed_in_a_walk),
		cmocka_unit_test(a_node_on_two_lists_is_a_bug),
		cmocka_unit_test(a_hash_finds_what_was_added_and_nothing_else),
		cmocka_unit_test(keys_like_addresses_do_not_pile_up),
		cmocka_unit_test(equal_hashes_are_all_found),
		cmocka_unit_test(a_hash_that_cannot_grow_goes_on),
		cmocka_unit_test(
		    removing_from_a_hash_what_is_not_in_it_is_a_bug),
		cmocka_unit_test(a_turn_has_one_time),
		cmocka_unit_test(tests_can_set_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
