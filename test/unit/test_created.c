/*
 * Databases that clients have created: which entry leads there, for whom, and
 * for how long.
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
#include "conf/conf.h"
#include "pool/created.h"
#include "pool/pool.h"
#include "pool/target.h"

#define HERE "[databases]\nmain = host=here dbname=app min_pool_size=3\n"

static struct conf *
load(const char *text)
{
	struct buf why = { 0 };
	struct conf *conf = conf_load_text("t.ini", span_of(text), NULL,
	    &why);

	if (conf == NULL)
		fail_msg("%.*s", (int)why.len, why.at);
	buf_finish(&why);
	return conf;
}

/* The pool of a client that came in by this name. */
static struct pool *
pool_by(struct conf *conf, const char *database, const char *user)
{
	return pool_get(conf, created_find_entry(conf, span_of(database),
	    span_of(user)), span_of(database), span_of(user));
}

/* "host dbname" of where a client is sent, or "nowhere". */
static const char *
where(const struct conf *conf, const char *name, const char *user)
{
	static char text[100];
	const struct conf_database *db = created_find_entry(conf,
	    span_of(name), span_of(user));

	if (db == NULL)
		return "nowhere";
	snprintf(text, sizeof(text), "%s %s", db->hosts[0],
	    db->dbname != NULL ? db->dbname : name);
	return text;
}

static void
a_created_database_is_where_its_creator_was(void **state)
{
	struct conf *conf = load(HERE);
	struct pool *pool = pool_by(conf, "main", "u");

	(void)state;
	assert_string_equal(where(conf, "a1", "u"), "nowhere");
	created_add(conf, pool, SPAN("a1"));
	assert_string_equal(where(conf, "a1", "u"), "here a1");
	assert_string_equal(where(conf, "a1", "another"), "here a1");
	assert_string_equal(where(conf, "main", "u"), "here app");
	/* It keeps no servers, and shares its name with nobody. */
	assert_int_equal(created_find_entry(conf, SPAN("a1"),
	    SPAN("u"))->min_pool_size, 0);
	assert_true(pool_by(conf, "a1", "u")->is_created);
	assert_ptr_equal(pool_by(conf, "a1", "u")->target,
	    created_target(conf, pool, SPAN("a1")));
	/* One that is created from within it is where that one is. */
	created_add(conf, pool_by(conf, "a1", "u"), SPAN("a2"));
	created_forget(conf, pool, SPAN("a1"));
	assert_string_equal(where(conf, "a1", "u"), "nowhere");
	assert_string_equal(where(conf, "a2", "u"), "here a2");
	created_rename(conf, pool, SPAN("a2"), SPAN("a3"));
	assert_string_equal(where(conf, "a2", "u"), "nowhere");
	assert_string_equal(where(conf, "a3", "u"), "here a3");
	created_forget(conf, pool, SPAN("a3"));
	conf_unref(conf);
}

static void
it_follows_its_creators_entry_through_a_reload(void **state)
{
	struct conf *conf = load(HERE);
	struct conf *moved = load("[databases]\nmain = host=there\n");
	struct conf *gone = load("[databases]\nother = host=there\n");
	struct pool *pool = pool_by(conf, "main", "u");

	(void)state;
	created_add(conf, pool, SPAN("b"));
	assert_string_equal(where(moved, "b", "u"), "there b");
	assert_string_equal(where(gone, "b", "u"), "nowhere");
	assert_string_equal(where(conf, "b", "u"), "here b");
	created_forget(conf, pool, SPAN("b"));
	conf_unref(conf);
	conf_unref(moved);
	conf_unref(gone);
}

static void
an_entry_goes_first_and_a_fallback_to_the_same_place_last(void **state)
{
	struct conf *conf = load(HERE "c = host=c\n* = host=here\n");
	struct pool *pool = pool_by(conf, "main", "u");

	(void)state;
	created_add(conf, pool, SPAN("c"));
	assert_string_equal(where(conf, "c", "u"), "c c");
	created_add(conf, pool, SPAN("d"));
	assert_string_equal(where(conf, "d", "another"), "here d");
	assert_true(created_find_entry(conf, SPAN("d"),
	    SPAN("another"))->is_created);
	created_forget(conf, pool, SPAN("c"));
	created_forget(conf, pool, SPAN("d"));
	assert_false(created_find_entry(conf, SPAN("d"),
	    SPAN("another"))->is_created);
	conf_unref(conf);
}

static void
nobody_takes_names_from_others(void **state)
{
	struct conf *conf = load(HERE "second = host=second\n* = host=star\n");
	struct conf *alone = load(HERE "second = host=second\n");
	struct conf *forced = load(HERE "* = host=star user=u\n");
	struct pool *pool = pool_by(conf, "main", "u");
	struct pool *second = pool_by(conf, "second", "v");

	(void)state;
	created_add(conf, pool, SPAN("e"));
	assert_string_equal(where(conf, "e", "u"), "here e");
	assert_string_equal(where(conf, "e", "v"), "star e");
	assert_string_equal(where(forced, "e", "u"), "star e");
	/* The same name on another host: the first one's, ... */
	created_add(conf, second, SPAN("e"));
	assert_string_equal(where(alone, "e", "v"), "here e");
	/* ... which a DROP over there does not change, ... */
	created_forget(conf, second, SPAN("e"));
	assert_string_equal(where(alone, "e", "v"), "here e");
	/* ... unless it is the same who wants it. */
	created_add(conf, pool_by(conf, "second", "u"), SPAN("e"));
	assert_string_equal(where(alone, "e", "v"), "second e");
	created_forget(conf, second, SPAN("e"));
	assert_string_equal(where(alone, "e", "v"), "nowhere");
	conf_unref(conf);
	conf_unref(alone);
	conf_unref(forced);
}

static void
a_pool_that_is_there_already_is_told(void **state)
{
	struct conf *conf = load(HERE "* = host=star\n");
	struct pool *main = pool_by(conf, "main", "u");
	struct pool *pool = pool_by(conf, "f", "u");
	uint64_t epoch = pool->epoch;

	(void)state;
	assert_string_equal(pool->db->hosts[0], "star");
	created_add(conf, main, SPAN("f"));
	assert_string_equal(pool->db->hosts[0], "here");
	assert_true(pool->epoch > epoch);
	created_forget(conf, main, SPAN("f"));
	assert_string_equal(pool->db->hosts[0], "star");
	/* What could not be reached may be there now. */
	pool->trouble.since_us = 1;
	created_add(conf, pool_by(conf, "any", "u"), SPAN("f"));
	assert_int_equal(pool->trouble.since_us, 0);
	created_forget(conf, main, SPAN("f"));
	conf_unref(conf);
}

static void
the_oldest_that_nobody_uses_makes_room(void **state)
{
	struct conf *conf = load(HERE);
	struct pool *pool = pool_by(conf, "main", "u");
	char name[16];

	(void)state;
	created_add(conf, pool, SPAN("g0"));
	struct pool *used = pool_by(conf, "g0", "u");
	pool_client_joined(used, used->user_quota, 0);
	for (int i = 1; i <= 1000; i++) {
		snprintf(name, sizeof(name), "g%d", i);
		created_add(conf, pool, span_of(name));
	}
	assert_string_equal(where(conf, "g0", "u"), "here g0");
	assert_string_equal(where(conf, "g1", "u"), "nowhere");
	assert_string_equal(where(conf, "g2", "u"), "here g2");
	assert_string_equal(where(conf, "g1000", "u"), "here g1000");
	pool_client_left(used, used->user_quota, 0);
	created_add(conf, pool, SPAN("g1001"));
	assert_string_equal(where(conf, "g0", "u"), "nowhere");
	conf_unref(conf);
}

#define ROUNDS 2000
static const char *const shared_names[] = { "h0", "h1", "h2" };

static void *
create_and_drop(void *arg)
{
	struct conf *conf = arg;
	struct pool *pool = pool_by(conf, "main", "u");

	for (int i = 0; i < ROUNDS; i++) {
		struct span name = span_of(shared_names[i % 3]);
		created_add(conf, pool, name);
		mem_free(created_origin(conf, name, SPAN("u")));
		pool_by(conf, "main", "u");
		created_forget(conf, pool, name);
	}
	return NULL;
}

static void
any_thread_may_do_so(void **state)
{
	struct conf *conf = load(HERE);
	pthread_t thread[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL,
		    create_and_drop, conf), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < 3; i++)
		assert_string_equal(where(conf, shared_names[i], "u"),
		    "nowhere");
	conf_unref(conf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_created_database_is_where_its_creator_was),
		cmocka_unit_test(
		    it_follows_its_creators_entry_through_a_reload),
		cmocka_unit_test(
		    an_entry_goes_first_and_a_fallback_to_the_same_place_last),
		cmocka_unit_test(nobody_takes_names_from_others),
		cmocka_unit_test(a_pool_that_is_there_already_is_told),
		cmocka_unit_test(the_oldest_that_nobody_uses_makes_room),
		cmocka_unit_test(any_thread_may_do_so),
	};

	pools_init(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
