/* What the tests of the migration lock share: a database, a clock, and whoever
 * migrates. A transaction that runs is a number in a pool without servers. */
#ifndef UNIT_MIGRATION_RIG_H
#define UNIT_MIGRATION_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "conf/conf.h"
#include "migrate/detect.h"
#include "migrate/lock.h"
#include "pool/pool.h"
#include "pool/target.h"

#define MS UINT64_C(1000)
#define SECOND (1000 * MS)
#define DDL SPAN("ALTER TABLE accounts ADD a int")
#define RESERVE 4

static uint64_t now_us = 1000 * SECOND;
static struct conf *conf;

/* A database, and what the last call has told to do. */
static struct {
	char name[16];
	struct pool *pool;
	struct target *target;
	struct migration *lock;
	struct migration_news news;
} db;

static struct migration_limits limits;

static inline uint64_t
fake_clock(void)
{
	return now_us;
}

static inline void
pass_time(uint64_t us)
{
	now_us += us;
}

/* Another one, that nobody has used. */
static inline int
fresh_database(void **state)
{
	static unsigned count;

	(void)state;
	snprintf(db.name, sizeof(db.name), "db%u", count++);
	db.pool = pool_get(conf, conf_find_database(conf, span_of(db.name)),
	    span_of(db.name), SPAN("u"));
	db.target = db.pool->target;
	db.lock = migration_of(db.target);
	limits = (struct migration_limits){ .hold_us = 1500 * MS,
		.drain_us = 30 * SECOND, .holds = true };
	return db.lock != NULL ? 0 : -1;
}

/* So many transactions run. */
static inline void
set_busy(unsigned count)
{
	db.pool->servers = count;
}

static inline struct migrator
migrator(enum tool_id tool, const char *user, const char *application)
{
	static uint64_t next_id = 1;
	struct migrator who = { .tool = tool_of(tool), .client_id = next_id++ };

	snprintf(who.database, sizeof(who.database), "%s", db.name);
	snprintf(who.user, sizeof(who.user), "%s", user);
	snprintf(who.address, sizeof(who.address), "10.0.0.7");
	snprintf(who.application, sizeof(who.application), "%s", application);
	return who;
}

static inline void
forget_news(void)
{
	db.news = (struct migration_news){ 0 };
}

static inline enum migration_answer
claim(struct migrator *who)
{
	return migration_claim(db.lock, who, RESERVE);
}

static inline enum migration_answer
ddl(struct migrator *who)
{
	forget_news();
	return migration_ddl(who, DDL, &limits, &db.news);
}

static inline void
settle(struct migrator *who)
{
	forget_news();
	migration_settle(who, &db.news);
}

static inline void
leave(struct migrator *who)
{
	forget_news();
	migration_leave(who, "done", NULL, &db.news);
}

static inline void
look(void)
{
	forget_news();
	migration_look(db.target, &db.news);
}

static inline enum migration_answer
tick(struct migrator *who)
{
	enum migration_answer answer;

	forget_news();
	migration_tick(who, &limits, &answer, &db.news);
	return answer;
}

/* Was this one told to try again? */
static inline bool
is_woken(const struct migrator *who)
{
	for (unsigned i = 0; i < db.news.wake_count; i++)
		if (db.news.wake[i].client_id == who->client_id)
			return true;
	return false;
}

static inline void
find_state(void *arg, const struct migration_row *row)
{
	if (strcmp(row->database, db.name) == 0 && row->outcome[0] == '\0' &&
	    strcmp(row->state, "waiting") != 0)
		*(const char **)arg = row->state;
}

/* "open", "draining held", "exclusive guarded", ... */
static inline const char *
state_now(void)
{
	static char text[64];
	const char *shown = "open";

	migrations_each(find_state, &shown);
	snprintf(text, sizeof(text), "%s%s%s", shown,
	    db.target->held ? " held" : "",
	    db.target->guarded ? " guarded" : "");
	assert_int_equal(db.target->draining,
	    strcmp(text, "draining held") == 0);
	return text;
}

static inline bool
console_unlock(void)
{
	forget_news();
	return migration_console_unlock(db.lock, &db.news);
}

static inline bool
console_abort(void)
{
	forget_news();
	return migration_console_abort(db.lock, &db.news);
}

static inline int
run_migration_tests(const struct CMUnitTest *tests, size_t count)
{
	struct log_settings quiet = { .file = "/dev/null" };
	struct buf why = { 0 };
	int failed = 1;

	log_setup(&quiet);
	clock_set_source(fake_clock);
	pools_init(1);
	conf = conf_load_text("t.ini", SPAN("[databases]\n* = host=here\n"),
	    NULL, &why);
	if (conf != NULL)
		failed = _cmocka_run_group_tests("tests", tests, count, NULL,
		    NULL);
	conf_unref(conf);
	buf_finish(&why);
	return failed;
}
#define TEST(name) cmocka_unit_test_setup(name, fresh_database)
#define RUN(tests) \
	run_migration_tests(tests, sizeof(tests) / sizeof((tests)[0]))

#endif
