/*
 * The migration lock.
 *
 * One machine for each database that Postgres has (struct target):
 *
 *            migration_claim            migration_ddl
 *     OPEN ------------------> CLAIMED ---------------> DRAINING
 *      ^                        ^   ^                    |   |
 *      |     migration_leave    |   +---- given up ------+   | nothing runs
 *      +------------------------+                            | (migration_look)
 *      |      (the last one)    |    migration_settle        v
 *      +------------------------+<---------------------- EXCLUSIVE
 *
 *   OPEN       nobody migrates
 *   CLAIMED    a migrator is in, perhaps with companions; the app notices
 *              nothing; others who want to migrate stand in line
 *   DRAINING   a statement of DDL has not been sent yet: the app's new
 *              transactions are held (pool/hold) until those that run have
 *              ended, but only for a short try; then traffic goes on for a
 *              while, and it is tried again, and at last the operator's
 *              migration_on_drain_timeout decides
 *   EXCLUSIVE  the DDL runs. When traffic has been held for long enough it
 *              goes on; Postgres's own locks protect what is worked on. Who
 *              would wait for them is kept from using up the pool's servers
 *              for that (target->guarded, session/guard.c)
 *
 * Why the statement is held back before it reaches Postgres: one ALTER TABLE
 * that waits there for its lock stops every query that comes behind it.
 *
 * Invariants (migration_check), whenever the lock is free:
 *   OPEN       <=>  nobody is in
 *   target->held  =>  DRAINING or EXCLUSIVE
 *   target->draining  <=>  DRAINING and held
 *   target->guarded  <=>  EXCLUSIVE and not held
 *   somebody in has_ddl  =>  EXCLUSIVE
 *   somebody in wants_ddl  =>  DRAINING
 *
 * One mutex guards all of it, for all databases: migrations are rare. Under it
 * the pools' locks may be taken (to count), never the other way round. Nobody
 * is called: whom to wake, and that traffic goes on, is told by
 * struct migration_news. All that waits, waits in session/migrant.c, which
 * also has the timers.
 */
#include "migrate/lock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "migrate/detect.h"
#include "migrate/record.h"
#include "pool/hold.h"
#include "pool/target.h"

/* A holder that has been idle for so long may be waiting for another
 * connection of its own that stands in line. */
#define IDLE_US 1000000
/* Pauses between two tries to drain. */
#define PAUSE_FIRST_US 250000
#define PAUSE_MAX_US 4000000

struct migration {
	struct target *target;
	enum migration_state state;
	uint64_t state_us;		/* when it began */
	struct list in;			/* struct migrator, the first is the
					 * one who claimed */
	struct list line;		/* struct migrator, oldest first */
	struct migrator *console;	/* MIGRATION LOCK; NULL = none */
	uint64_t console_until_us;	/* 0 = no end */
	uint64_t drain_us;		/* when the drain began */
	uint64_t held_us;		/* when the hold did; 0 = not held */
	uint64_t try_us;		/* not held: when to try again */
	uint64_t pause_us;		/* ... and for how long after that */
	bool has_cancelled;		/* the stragglers, in this drain */
	enum migration_before before;	/* the operator's command */
	unsigned held_clients;		/* at rest, in this hold */
	size_t names_len;
	char names[2048];		/* what the DDL at hand is about, see
					 * detect_names() */
};

/* Of all databases, and of their records. */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;

static const struct {
	const char *shown;
	uint32_t from;
} states[MIGRATION_STATES] = {
#define X(name, shown, from) { shown, from },
#include "migrate/lock_state.def"
#undef X
};

static struct migrator *
migrator_at(struct list *node)
{
	return container_of(node, struct migrator, node);
}

static struct migrator *
migration_holder(const struct migration *migration)
{
	struct list *node = list_first(&migration->in);

	return node == NULL ? NULL : migrator_at(node);
}

static void
migration_check(struct migration *migration)
{
	const struct target *target = migration->target;
	bool wants = false, has = false;

	list_each(node, &migration->in) {
		wants = wants || migrator_at(node)->wants_ddl;
		has = has || migrator_at(node)->has_ddl;
	}
	check((migration->state == MIGRATION_OPEN) ==
	    list_is_empty(&migration->in));
	check((migration->held_us != 0) == target->held);
	check(!target->held || migration->state >= MIGRATION_DRAINING);
	check(target->draining == (target->held &&
	    migration->state == MIGRATION_DRAINING));
	check(target->guarded == (!target->held &&
	    migration->state == MIGRATION_EXCLUSIVE));
	check(!has || migration->state == MIGRATION_EXCLUSIVE);
	check(!wants || migration->state == MIGRATION_DRAINING);
}

static void
migration_lock(void)
{
	pthread_mutex_lock(&all_lock);
}

static void
migration_unlock(struct migration *migration)
{
	if (migration != NULL)
		migration_check(migration);
	pthread_mutex_unlock(&all_lock);
}

static void
migration_move(struct migration *migration, enum migration_state state)
{
	const struct migrator *who = migration_holder(migration);

	if (migration->state == state)
		return;
	check(states[state].from & 1u << migration->state);
	if (who != NULL && (who->is_firm || state != MIGRATION_CLAIMED))
		log_line(LOG_LEVEL_LOG, "", "migration lock of %s: %s -> %s "
		    "after %llu ms (%s of %s@%s)", migration->target->key,
		    states[migration->state].shown, states[state].shown,
		    migration->state == MIGRATION_OPEN ? 0 :
		    (unsigned long long)(clock_us() - migration->state_us) /
		    1000, who->tool->name, who->user, who->address);
	migration->state = state;
	migration->state_us = clock_us();
}

struct migration *
migration_of(struct target *target)
{
	struct migration *migration = atomic_load(&target->migration);

	if (migration != NULL)
		return migration;
	migration_lock();
	migration = atomic_load(&target->migration);
	if (migration == NULL)
		migration = mem_zalloc(sizeof(*migration));
	if (migration != NULL && migration->target == NULL) {
		migration->target = target;
		atomic_store(&target->migration, migration);
	}
	migration_unlock(migration);
	return migration;
}

struct target *
migration_target(const struct migration *migration)
{
	return migration->target;
}

static const char *
migrator_state(const struct migrator *who)
{
	return who->place == MIGRATOR_IN_LINE ? "waiting" :
	    states[who->migration->state].shown;
}

void
migrations_each(void (*each)(void *arg, const struct migration_row *row),
    void *arg)
{
	migration_lock();
	records_each(migrator_state, each, arg);
	migration_unlock(NULL);
}

/*
 * Holding and letting go.
 */

static void
news_wake(struct migration_news *news, const struct migrator *who)
{
	if (who->client_id == 0 || news->wake_count == MIGRATION_WAKES)
		return;			/* its timer sees to it */
	news->wake[news->wake_count].worker = who->worker;
	news->wake[news->wake_count++].client_id = who->client_id;
}

static void
migration_hold(struct migration *migration)
{
	struct target *target = migration->target;

	migration->held_us = clock_us();
	migration->held_clients = 0;
	hold_begin(target);
	target->draining = migration->state == MIGRATION_DRAINING;
}

/* Notes with those whose DDL it was for how long, and for how many. */
static void
migration_release(struct migration *migration, struct migration_news *news)
{
	struct target *target = migration->target;

	if (migration->held_us == 0)
		return;

	uint64_t hold_us = clock_us() - migration->held_us;
	unsigned held = hold_count_waiting(target) + migration->held_clients;
	list_each(node, &migration->in) {
		struct migrator *who = migrator_at(node);
		if (who->record == NULL || (!who->has_ddl && !who->wants_ddl))
			continue;
		if (hold_us > who->record->row.hold_us)
			who->record->row.hold_us = hold_us;
		if (held > who->record->row.held_clients)
			who->record->row.held_clients = held;
	}
	log_line(LOG_LEVEL_LOG, "", "migration lock of %s: held %u clients "
	    "for %llu ms", target->key, held,
	    (unsigned long long)hold_us / 1000);
	migration->held_us = 0;
	hold_end(target);
	target->draining = false;
	target->guarded = migration->state == MIGRATION_EXCLUSIVE;
	news->released = true;
}

/* From EXCLUSIVE or DRAINING. */
static void
migration_calm(struct migration *migration, struct migration_news *news)
{
	if (migration->target->guarded)
		news->released = true;
	migration->target->guarded = false;
	migration->names_len = 0;
	migration_move(migration, MIGRATION_CLAIMED);
}

/* This one has no DDL under way any more, nor wants any: if nobody else does,
 * the app goes on. */
static void
migration_relax(struct migration *migration, struct migrator *who,
    struct migration_news *news)
{
	bool last = true;

	list_each(node, &migration->in) {
		const struct migrator *other = migrator_at(node);
		if (other != who && (other->has_ddl || other->wants_ddl))
			last = false;
	}
	if (last)
		migration_release(migration, news);
	who->has_ddl = who->wants_ddl = false;
	if (last && migration->state >= MIGRATION_DRAINING)
		migration_calm(migration, news);
}

/*
 * Who is in, and who waits.
 */

static bool
is_same_origin(const struct migrator *a, const struct migrator *b)
{
	return strcmp(a->user, b->user) == 0 &&
	    strcmp(a->address, b->address) == 0;
}

/* May this one be at work beside the one who is in? */
static bool
is_companion(const struct migrator *holder, const struct migrator *who)
{
	uint64_t idle_us = holder->idle_us;
	bool idle = idle_us != 0 && clock_us() >= idle_us + IDLE_US;
	bool same = strcmp(holder->application, who->application) == 0;

	if (!is_same_origin(holder, who))
		return false;
	/* Who asks for the lock itself is another migration, though it be
	 * on the same host. */
	if (who->tool == tool_of(TOOL_COMMAND))
		return false;
	switch (holder->tool->companions) {
	case COMPANIONS_IDLE:
		return same && idle;
	case COMPANIONS_ALWAYS:
		return same;
	case COMPANIONS_KIN:
		return same || (idle && who->tool == holder->tool);
	case COMPANIONS_HELPERS:
		return who->tool == tool_of(TOOL_DDL) &&
		    (same || strcmp(who->application, "psql") == 0);
	case COMPANIONS_ANYBODY:
		return true;
	default:
		return false;
	}
}

bool
migration_admits(struct migration *migration, const struct migrator *who)
{
	migration_lock();
	const struct migrator *holder = migration_holder(migration);
	bool admits = holder != NULL && is_companion(holder, who);
	migration_unlock(migration);
	return admits;
}

/* The next in line, if nobody is in; and those who may come along. */
static void
migration_wake_line(struct migration *migration, struct migration_news *news)
{
	struct list *first = list_first(&migration->line);

	if (first != NULL && migration_holder(migration) == NULL)
		news_wake(news, migrator_at(first));
}

uint64_t
migration_company_us(const struct migrator *who)
{
	uint64_t last_us = 0;

	migration_lock();
	list_each(node, &who->migration->in) {
		const struct migrator *other = migrator_at(node);
		uint64_t idle_us = other->idle_us;
		if (other == who || !other->is_firm || other->client_id == 0)
			continue;
		if (idle_us == 0)
			idle_us = clock_us();
		if (idle_us > last_us)
			last_us = idle_us;
	}
	migration_unlock(who->migration);
	return last_us;
}

static void
migration_leave_locked(struct migrator *who, const char *outcome,
    const char *error, struct migration_news *news)
{
	struct migration *migration = who->migration;
	bool was_in = who->place == MIGRATOR_IN;

	if (!was_in && who->record != NULL)
		who->record->row.waited_us = clock_us() - who->since_us;
	/* What it was at may have been committed after its last word. */
	if (who->did_ddl)
		migration->target->schema_epoch++;
	if (was_in)
		migration_relax(migration, who, news);
	record_end(who, outcome, error);
	if (was_in && migration->in.next == migration->in.prev) {
		migration->before = MIGRATION_BEFORE_RUN;
		migration_move(migration, MIGRATION_OPEN);
	}
	list_remove(&who->node);
	who->place = MIGRATOR_OUT;
	migration_wake_line(migration, news);
}

static void
console_unlock(struct migration *migration, const char *outcome,
    struct migration_news *news)
{
	struct migrator *who = migration->console;

	migration->console = NULL;
	migration_leave_locked(who, outcome, NULL, news);
	mem_free(who);
}

/* MIGRATION LOCK for a time that is over. Those in line find out by themselves.
 */
static void
console_expire(struct migration *migration)
{
	struct migration_news none = { 0 };

	if (migration->console != NULL && migration->console_until_us != 0 &&
	    clock_us() >= migration->console_until_us)
		console_unlock(migration, "timed out", &none);
}

static bool
may_enter(struct migration *migration, const struct migrator *who,
    unsigned reserve)
{
	const struct migrator *holder = migration_holder(migration);
	const struct list *first = list_first(&migration->line);
	unsigned count = 0;

	if (holder == NULL)
		return first == NULL || first == &who->node;
	list_each(node, &migration->in)
		count++;
	return count < reserve && is_companion(holder, who);
}

bool
migration_may_enter(const struct migrator *who, unsigned reserve)
{
	migration_lock();
	console_expire(who->migration);
	bool may = may_enter(who->migration, who, reserve);
	migration_unlock(who->migration);
	return may;
}

bool
migration_is_awaited(struct migration *migration)
{
	migration_lock();
	bool awaited = !list_is_empty(&migration->line);
	migration_unlock(migration);
	return awaited;
}

static void
migration_enter(struct migration *migration, struct migrator *who)
{
	uint64_t now_us = clock_us();

	if (who->place == MIGRATOR_IN_LINE && who->record != NULL)
		who->record->row.waited_us = now_us - who->since_us;
	list_remove(&who->node);
	list_append(&migration->in, &who->node);
	who->place = MIGRATOR_IN;
	who->since_us = now_us;
	if (migration->state == MIGRATION_OPEN)
		migration_move(migration, MIGRATION_CLAIMED);
}

enum migration_answer
migration_claim(struct migration *migration, struct migrator *who,
    unsigned reserve)
{
	enum migration_answer answer = MIGRATION_PASS;

	migration_lock();
	console_expire(migration);
	if (who->place == MIGRATOR_OUT) {
		who->migration = migration;
		who->since_us = clock_us();
		record_begin(who);
	}
	if (who->place == MIGRATOR_IN) {
		answer = MIGRATION_PASS;
	} else if (may_enter(migration, who, reserve)) {
		migration_enter(migration, who);
	} else {
		answer = MIGRATION_PARK;
		if (who->place == MIGRATOR_OUT)
			list_append(&migration->line, &who->node);
		who->place = MIGRATOR_IN_LINE;
	}
	migration_unlock(migration);
	return answer;
}

void
migration_leave(struct migrator *who, const char *outcome, const char *error,
    struct migration_news *news)
{
	if (who->place == MIGRATOR_OUT)
		return;
	migration_lock();
	migration_leave_locked(who, outcome, error, news);
	migration_unlock(who->migration);
}

uint64_t
migration_waited_us(const struct migrator *who)
{
	return clock_us() - who->since_us;
}

void
migration_whom(struct migration *migration, char *text, size_t size)
{
	migration_lock();
	const struct migrator *holder = migration_holder(migration);
	if (holder == NULL)
		snprintf(text, size, "nobody");
	else
		snprintf(text, size, "%s of %s@%s, since %llu s",
		    holder->tool->name, holder->user, holder->address,
		    (unsigned long long)(clock_us() - holder->since_us) /
		    1000000);
	migration_unlock(migration);
}

/*
 * DDL.
 */

static void
migration_start_drain(struct migration *migration)
{
	migration_move(migration, MIGRATION_DRAINING);
	migration->drain_us = clock_us();
	migration->pause_us = PAUSE_FIRST_US;
	migration->has_cancelled = false;
	migration_hold(migration);
}

void
migration_count_ddl(struct migrator *who)
{
	migration_lock();
	if (who->record != NULL)
		who->record->row.ddl_statements++;
	who->is_firm = true;
	who->did_ddl = true;
	migration_unlock(who->migration);
}

/* Those whose statements wait may send them now. */
static void
migration_go(struct migration *migration, struct migration_news *news)
{
	uint64_t drained_us = clock_us() - migration->drain_us;

	migration_move(migration, MIGRATION_EXCLUSIVE);
	migration->target->draining = false;
	migration->target->guarded = migration->held_us == 0;
	list_each(node, &migration->in) {
		struct migrator *who = migrator_at(node);
		if (!who->wants_ddl)
			continue;
		who->wants_ddl = false;
		who->has_ddl = true;
		if (who->record != NULL)
			who->record->row.drained_us += drained_us;
		news_wake(news, who);
	}
}

enum migration_answer
migration_ddl(struct migrator *who, struct span sql,
    const struct migration_limits *limits, struct migration_news *news)
{
	struct migration *migration = who->migration;
	enum migration_answer answer = MIGRATION_PASS;

	migration_lock();
	check(who->place == MIGRATOR_IN);
	who->is_firm = true;
	if (limits->holds)
		migration->names_len = detect_names(sql, migration->names,
		    migration->names_len, sizeof(migration->names));
	if (limits->holds && migration->state == MIGRATION_CLAIMED)
		migration_start_drain(migration);
	if (migration->state == MIGRATION_DRAINING) {
		who->wants_ddl = true;
		if (migration->target->draining &&
		    hold_count_busy(migration->target) == 0)
			migration_go(migration, news);
	}
	if (migration->state == MIGRATION_DRAINING) {
		answer = MIGRATION_HOLD;
	} else {
		who->has_ddl = migration->state == MIGRATION_EXCLUSIVE;
		who->did_ddl = true;
		if (who->record != NULL)
			who->record->row.ddl_statements++;
	}
	migration_unlock(migration);
	return answer;
}

void
migration_look(struct target *target, struct migration_news *news)
{
	struct migration *migration = atomic_load(&target->migration);

	if (migration == NULL)
		return;
	migration_lock();
	if (target->draining && hold_count_busy(target) == 0)
		migration_go(migration, news);
	migration_unlock(migration);
}

void
migration_settle(struct migrator *who, struct migration_news *news)
{
	struct migration *migration = who->migration;

	migration_lock();
	if (who->has_ddl)
		migration->target->schema_epoch++;
	if (who->has_ddl || who->wants_ddl)
		migration_relax(migration, who, news);
	migration_unlock(migration);
}

bool
migration_guards(struct target *target, struct span sql)
{
	struct migration *migration = atomic_load(&target->migration);

	migration_lock();
	bool guards = target->guarded && detect_mentions(sql,
	    (struct span){ migration->names, migration->names_len });
	migration_unlock(migration);
	return guards;
}

void
migration_count_held(struct target *target)
{
	struct migration *migration = atomic_load(&target->migration);

	if (migration == NULL)
		return;
	migration_lock();
	migration->held_clients++;
	migration_unlock(migration);
}

enum migration_before
migration_before(struct migrator *who)
{
	struct migration *migration = who->migration;

	migration_lock();
	enum migration_before before = migration->before;
	if (before == MIGRATION_BEFORE_RUN)
		migration->before = MIGRATION_BEFORE_RUNS;
	migration_unlock(migration);
	return before;
}

void
migration_before_ended(struct migrator *who, enum migration_before how,
    struct migration_news *news)
{
	struct migration *migration = who->migration;

	migration_lock();
	migration->before = how;
	list_each(node, &migration->in)
		news_wake(news, migrator_at(node));
	migration_unlock(migration);
}

/*
 * Time.
 */

/* How much of the hold the app's transactions get to end in; the rest is for
 * the DDL. */
static uint64_t
try_us(const struct migration_limits *limits)
{
	return limits->hold_us * 2 / 3;
}

/* Nothing helped: what the operator wants. */
static enum migration_answer
migration_drain_over(struct migration *migration, struct migrator *who,
    const struct migration_limits *limits, struct migration_news *news)
{
	if (limits->on_timeout == MIGRATION_ABORT) {
		migration_relax(migration, who, news);
		return MIGRATION_REFUSE;
	}
	if (limits->on_timeout == MIGRATION_CANCEL &&
	    !migration->has_cancelled) {
		migration_hold(migration);
		return MIGRATION_HOLD;
	}
	migration_go(migration, news);
	return MIGRATION_PASS;
}

static bool
drain_is_over(const struct migration *migration,
    const struct migration_limits *limits)
{
	return limits->drain_us != 0 &&
	    clock_us() >= migration->drain_us + limits->drain_us;
}

/* A try has not helped. One who just happened to be in a transaction when it
 * began has had the time to end it: who is to be cancelled is the rest. */
static void
migration_try_over(struct migration *migration,
    const struct migration_limits *limits, struct migration_news *news)
{
	if (limits->on_timeout == MIGRATION_CANCEL &&
	    !migration->has_cancelled && drain_is_over(migration, limits)) {
		migration->has_cancelled = true;
		news->cancels = true;
		return;
	}
	migration_release(migration, news);
	migration->try_us = clock_us() + migration->pause_us;
	if (migration->pause_us < PAUSE_MAX_US)
		migration->pause_us *= 2;
}

/* When it is over. Those who are cancelled get the whole hold to end in. */
static uint64_t
try_until_us(const struct migration *migration,
    const struct migration_limits *limits)
{
	return migration->held_us + (migration->has_cancelled ?
	    limits->hold_us : try_us(limits));
}

static enum migration_answer
migration_tick_drain(struct migration *migration, struct migrator *who,
    const struct migration_limits *limits, struct migration_news *news)
{
	uint64_t now_us = clock_us();

	if (migration->held_us != 0) {
		if (now_us >= try_until_us(migration, limits))
			migration_try_over(migration, limits, news);
		return MIGRATION_HOLD;
	}
	if (drain_is_over(migration, limits))
		return migration_drain_over(migration, who, limits, news);
	if (now_us >= migration->try_us)
		migration_hold(migration);
	return MIGRATION_HOLD;
}

uint64_t
migration_tick(struct migrator *who, const struct migration_limits *limits,
    enum migration_answer *ret_answer, struct migration_news *news)
{
	struct migration *migration = who->migration;
	uint64_t next_us = 0;

	*ret_answer = MIGRATION_PASS;
	migration_lock();
	if (who->wants_ddl) {
		*ret_answer = migration_tick_drain(migration, who, limits,
		    news);
		if (migration->state == MIGRATION_DRAINING)
			next_us = migration->held_us != 0 ?
			    try_until_us(migration, limits) :
			    migration->try_us;
	}
	if (migration->state == MIGRATION_EXCLUSIVE && who->has_ddl &&
	    migration->held_us != 0) {
		next_us = migration->held_us + limits->hold_us;
		if (clock_us() >= next_us) {
			migration_release(migration, news);
			next_us = 0;
		}
	}
	migration_unlock(migration);
	return next_us;
}

/*
 * The console.
 */

bool
migration_console_lock(struct migration *migration, struct span database,
    uint64_t until_us, char *text, size_t size)
{
	struct migrator *who = NULL;

	migration_lock();
	console_expire(migration);
	migration_unlock(migration);
	migration_whom(migration, text, size);
	migration_lock();
	if (migration_holder(migration) == NULL)
		who = mem_zalloc(sizeof(*who));
	if (who != NULL) {
		who->tool = tool_of(TOOL_CONSOLE);
		who->is_firm = true;
		who->migration = migration;
		snprintf(who->database, sizeof(who->database), "%.*s",
		    SPAN_ARG(database));
		snprintf(who->user, sizeof(who->user), "admin");
		snprintf(who->address, sizeof(who->address), "console");
		record_begin(who);
		migration_enter(migration, who);
		migration->console = who;
		migration->console_until_us = until_us;
	}
	migration_unlock(migration);
	return who != NULL;
}

bool
migration_console_unlock(struct migration *migration,
    struct migration_news *news)
{
	migration_lock();
	bool locked = migration->console != NULL;
	if (locked)
		console_unlock(migration, "unlocked", news);
	migration_unlock(migration);
	return locked;
}

bool
migration_console_abort(struct migration *migration,
    struct migration_news *news)
{
	bool found = false;

	migration_lock();
	if (migration->console != NULL) {
		console_unlock(migration, "aborted", news);
		found = true;
	}
	list_each(node, &migration->in) {
		migrator_at(node)->is_aborted = true;
		news_wake(news, migrator_at(node));
		found = true;
	}
	migration_unlock(migration);
	return found;
}
