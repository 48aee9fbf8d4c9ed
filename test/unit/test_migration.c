/*
 * The migration lock by itself: who is let in, when the app is held, and what
 * is remembered. Time stands still but for pass_time().
 */
#include "migration_rig.h"

static void
reach(struct migrator *who, const char *state)
{
	if (strcmp(state, "open") == 0)
		return;
	assert_int_equal(claim(who), MIGRATION_PASS);
	if (strcmp(state, "claimed") == 0)
		return;
	set_busy(strncmp(state, "draining", 8) == 0);
	ddl(who);
	if (strcmp(state, "draining") == 0)
		pass_time(1000 * MS);
	if (strcmp(state, "exclusive guarded") == 0)
		pass_time(1500 * MS);
	tick(who);
	assert_string_equal(state_now(), state);
}

/*
 * The machine.
 */

enum call {
	CLAIM, CLAIM_OTHER, DDL_BUSY, DDL_FREE, LOOK_BUSY, LOOK_FREE, SETTLE,
	LEAVE, TICK_SOON, TICK_TRY, TICK_HELD, TICK_DRAIN, LOCK, UNLOCK,
	ABORT, COUNT,
};

/* What is answered; 'r' where those who were held are to go on. */
static const char *
make_call(enum call call, struct migrator *who, struct migrator *other)
{
	static const char *const answers[] = {
		"pass", "park", "hold", "refuse" };
	enum migration_answer answer = MIGRATION_PASS;
	char text[128];

	switch (call) {
	case CLAIM: return answers[claim(who)];
	case CLAIM_OTHER: return answers[claim(other)];
	case DDL_BUSY: set_busy(1); answer = ddl(who); break;
	case DDL_FREE: set_busy(0); answer = ddl(who); break;
	case LOOK_BUSY: set_busy(1); look(); break;
	case LOOK_FREE: set_busy(0); look(); break;
	case SETTLE: settle(who); break;
	case LEAVE: leave(who); break;
	case TICK_SOON: pass_time(MS); answer = tick(who); break;
	case TICK_TRY: pass_time(1000 * MS); answer = tick(who); break;
	case TICK_HELD: pass_time(1500 * MS); answer = tick(who); break;
	case TICK_DRAIN: pass_time(30 * SECOND); answer = tick(who); break;
	case COUNT: migration_count_ddl(who); break;
	case LOCK:
		return migration_console_lock(db.lock, span_of(db.name), 0,
		    text, sizeof(text)) ? "yes" : "no";
	case UNLOCK: return console_unlock() ? "yes" : "no";
	case ABORT: return console_abort() ? "yes" : "no";
	}
	if (db.news.released)
		return answer == MIGRATION_HOLD ? "hold r" : "pass r";
	return answers[answer];
}

static const struct {
	const char *from;
	enum call call;
	const char *to, *answer;
} machine[] = {
	{ "open", CLAIM, "claimed", "pass" },
	{ "open", CLAIM_OTHER, "claimed", "pass" },
	{ "open", LOOK_FREE, "open", "pass" },
	{ "open", LEAVE, "open", "pass" },
	{ "open", LOCK, "claimed", "yes" },
	{ "open", UNLOCK, "open", "no" },
	{ "open", ABORT, "open", "no" },
	{ "claimed", CLAIM, "claimed", "pass" },
	{ "claimed", CLAIM_OTHER, "claimed", "park" },
	{ "claimed", DDL_BUSY, "draining held", "hold" },
	{ "claimed", DDL_FREE, "exclusive held", "pass" },
	{ "claimed", LOOK_FREE, "claimed", "pass" },
	{ "claimed", SETTLE, "claimed", "pass" },
	{ "claimed", LEAVE, "open", "pass" },
	{ "claimed", TICK_DRAIN, "claimed", "pass" },
	{ "claimed", LOCK, "claimed", "no" },
	{ "claimed", UNLOCK, "claimed", "no" },
	{ "claimed", ABORT, "claimed", "yes" },
	{ "claimed", COUNT, "claimed", "pass" },
	{ "draining held", CLAIM, "draining held", "pass" },
	{ "draining held", CLAIM_OTHER, "draining held", "park" },
	{ "draining held", DDL_BUSY, "draining held", "hold" },
	{ "draining held", DDL_FREE, "exclusive held", "pass" },
	{ "draining held", LOOK_BUSY, "draining held", "pass" },
	{ "draining held", LOOK_FREE, "exclusive held", "pass" },
	{ "draining held", SETTLE, "claimed", "pass r" },
	{ "draining held", LEAVE, "open", "pass r" },
	{ "draining held", TICK_SOON, "draining held", "hold" },
	{ "draining held", TICK_TRY, "draining", "hold r" },
	{ "draining held", LOCK, "draining held", "no" },
	{ "draining held", UNLOCK, "draining held", "no" },
	{ "draining held", ABORT, "draining held", "yes" },
	{ "draining held", COUNT, "draining held", "pass" },
	{ "draining", CLAIM_OTHER, "draining", "park" },
	{ "draining", DDL_BUSY, "draining", "hold" },
	{ "draining", DDL_FREE, "draining", "hold" },
	{ "draining", LOOK_FREE, "draining", "pass" },
	{ "draining", SETTLE, "claimed", "pass" },
	{ "draining", LEAVE, "open", "pass" },
	{ "draining", TICK_SOON, "draining", "hold" },
	{ "draining", TICK_TRY, "draining held", "hold" },
	{ "draining", TICK_DRAIN, "exclusive guarded", "pass" },
	{ "draining", LOCK, "draining", "no" },
	{ "draining", ABORT, "draining", "yes" },
	{ "exclusive held", CLAIM_OTHER, "exclusive held", "park" },
	{ "exclusive held", DDL_BUSY, "exclusive held", "pass" },
	{ "exclusive held", LOOK_FREE, "exclusive held", "pass" },
	{ "exclusive held", SETTLE, "claimed", "pass r" },
	{ "exclusive held", LEAVE, "open", "pass r" },
	{ "exclusive held", TICK_SOON, "exclusive held", "pass" },
	{ "exclusive held", TICK_HELD, "exclusive guarded", "pass r" },
	{ "exclusive held", LOCK, "exclusive held", "no" },
	{ "exclusive held", ABORT, "exclusive held", "yes" },
	{ "exclusive held", COUNT, "exclusive held", "pass" },
	{ "exclusive guarded", CLAIM_OTHER, "exclusive guarded",
	  "park" },
	{ "exclusive guarded", DDL_BUSY, "exclusive guarded", "pass" },
	{ "exclusive guarded", TICK_SOON, "exclusive guarded", "pass" },
	{ "exclusive guarded", SETTLE, "claimed", "pass r" },
	{ "exclusive guarded", LEAVE, "open", "pass r" },
};

static void
every_state_takes_every_call(void **state)
{
	for (size_t i = 0; i < sizeof(machine) / sizeof(machine[0]); i++) {
		fresh_database(state);
		struct migrator who = migrator(TOOL_PRISMA, "u", "");
		struct migrator other = migrator(TOOL_PRISMA, "v", "");
		reach(&who, machine[i].from);
		const char *answer = make_call(machine[i].call, &who, &other);
		if (strcmp(answer, machine[i].answer) != 0 ||
		    strcmp(state_now(), machine[i].to) != 0)
			fail_msg("%s, call %d: %s, %s", machine[i].from,
			    machine[i].call, state_now(), answer);
		/* Whatever it was, nothing is left of it. */
		leave(&other);
		leave(&who);
		console_unlock();
		assert_string_equal(state_now(), "open");
		set_busy(0);
	}
}

static void
those_in_line_take_turns(void **state)
{
	struct migrator who[5];

	(void)state;
	for (int i = 0; i < 5; i++) {
		who[i] = migrator(TOOL_PRISMA, "u", "");
		assert_int_equal(claim(&who[i]),
		    i == 0 ? MIGRATION_PASS : MIGRATION_PARK);
	}
	/* One in the middle goes away. */
	leave(&who[2]);
	assert_int_equal(db.news.wake_count, 0);
	for (int i = 0; i < 5; i = i == 1 ? 3 : i + 1) {
		int next = i == 1 ? 3 : i + 1;
		leave(&who[i]);
		if (next == 5)
			break;
		assert_int_equal(db.news.wake_count, 1);
		assert_true(is_woken(&who[next]));
		/* Nobody gets in front of it. */
		struct migrator newcomer = migrator(TOOL_PRISMA, "u", "");
		assert_int_equal(claim(&newcomer), MIGRATION_PARK);
		leave(&newcomer);
		assert_true(migration_may_enter(&who[next], RESERVE));
		assert_int_equal(claim(&who[next]), MIGRATION_PASS);
	}
	assert_string_equal(state_now(), "open");
	assert_false(migration_is_awaited(db.lock));
}

static void
companions_are_let_in_by_the_rule_of_the_tool(void **state)
{
	static const struct {
		enum tool_id tool, other;
		const char *user, *application;
		bool at_once, when_idle;
	} rows[] = {
		{ TOOL_PRISMA, TOOL_PRISMA, "u", "a", false, false },
		{ TOOL_GOOSE, TOOL_GOOSE, "u", "a", false, true },
		{ TOOL_GOOSE, TOOL_GOOSE, "u", "b", false, false },
		{ TOOL_RAILS, TOOL_RAILS, "u", "a", true, true },
		{ TOOL_RAILS, TOOL_RAILS, "u", "b", false, false },
		{ TOOL_RAILS, TOOL_RAILS, "v", "a", false, false },
		{ TOOL_YOYO, TOOL_DDL, "u", "a", true, true },
		{ TOOL_YOYO, TOOL_DDL, "v", "a", false, false },
		{ TOOL_YOYO, TOOL_YOYO, "u", "a", false, false },
		{ TOOL_SQITCH, TOOL_DDL, "u", "psql", true, true },
		{ TOOL_SQITCH, TOOL_DDL, "u", "b", false, false },
		{ TOOL_SQITCH, TOOL_DDL, "v", "psql", false, false },
		{ TOOL_SQITCH, TOOL_SQITCH, "u", "psql", false, false },
		{ TOOL_DECLARED, TOOL_DECLARED, "u", "a", true, true },
		{ TOOL_DECLARED, TOOL_DECLARED, "u", "psql", false, true },
		{ TOOL_DECLARED, TOOL_DECLARED, "v", "psql", false, false },
		{ TOOL_DECLARED, TOOL_PRISMA, "u", "b", false, false },
		/* Another `pgsluice migrate` is another migration. */
		{ TOOL_COMMAND, TOOL_DDL, "u", "b", true, true },
		{ TOOL_COMMAND, TOOL_DDL, "v", "a", false, false },
	};
	struct migrator first, second;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		fresh_database(state);
		struct migrator holder = migrator(rows[i].tool, "u", "a");
		struct migrator who = migrator(rows[i].other, rows[i].user,
		    rows[i].application);
		struct migrator command = migrator(TOOL_COMMAND, "u", "a");
		claim(&holder);
		assert_false(migration_admits(db.lock, &command));
		assert_int_equal(migration_admits(db.lock, &who),
		    rows[i].at_once);
		assert_int_equal(claim(&who), rows[i].at_once ?
		    MIGRATION_PASS : MIGRATION_PARK);
		holder.idle_us = now_us;
		pass_time(SECOND - 1);
		assert_int_equal(claim(&who), rows[i].at_once ?
		    MIGRATION_PASS : MIGRATION_PARK);
		pass_time(1);
		assert_int_equal(claim(&who), rows[i].when_idle ?
		    MIGRATION_PASS : MIGRATION_PARK);
		/* From elsewhere it is somebody else. */
		struct migrator stranger = migrator(rows[i].tool, "u", "a");
		strcpy(stranger.address, "10.0.0.8");
		assert_int_equal(claim(&stranger), MIGRATION_PARK);
		leave(&stranger);
		leave(&holder);
		leave(&who);
		assert_string_equal(state_now(), "open");
	}
	fresh_database(state);
	first = migrator(TOOL_COMMAND, "u", "a");
	second = migrator(TOOL_COMMAND, "u", "a");
	assert_int_equal(claim(&first), MIGRATION_PASS);
	assert_int_equal(claim(&second), MIGRATION_PARK);
	leave(&second);
	leave(&first);
}

static void
it_is_known_when_a_companion_was_last_at_work(void **state)
{
	struct migrator first = migrator(TOOL_RAILS, "u", "a");
	struct migrator second = migrator(TOOL_RAILS, "u", "a");
	struct migrator other = migrator(TOOL_RAILS, "u", "b");

	(void)state;
	claim(&first);
	claim(&other);			/* waits: is nobody's companion */
	first.is_firm = other.is_firm = true;
	assert_int_equal(migration_company_us(&first), 0);
	claim(&second);			/* has only looked */
	assert_int_equal(migration_company_us(&first), 0);
	second.is_firm = true;
	pass_time(SECOND);
	assert_int_equal(migration_company_us(&first), now_us);
	second.idle_us = now_us;
	pass_time(SECOND);
	assert_int_equal(migration_company_us(&first), now_us - SECOND);
	assert_int_equal(migration_company_us(&second), now_us);
	leave(&first);
	assert_int_equal(migration_company_us(&second), 0);
	leave(&other);
	leave(&second);
}

static void
no_more_than_the_reserve_are_in(void **state)
{
	struct migrator who[RESERVE + 1];

	(void)state;
	for (int i = 0; i <= RESERVE; i++) {
		who[i] = migrator(TOOL_RAILS, "u", "a");
		assert_int_equal(claim(&who[i]), i < RESERVE ?
		    MIGRATION_PASS : MIGRATION_PARK);
	}
	leave(&who[2]);
	assert_true(migration_may_enter(&who[RESERVE], RESERVE));
	assert_int_equal(claim(&who[RESERVE]), MIGRATION_PASS);
	for (int i = 0; i <= RESERVE; i++)
		leave(&who[i]);
	assert_string_equal(state_now(), "open");
}

static void
a_drain_is_tried_with_longer_and_longer_pauses(void **state)
{
	static const unsigned pauses_ms[] = { 250, 500, 1000, 2000, 4000,
		4000, 4000 };
	struct migrator who = migrator(TOOL_PRISMA, "u", "");

	(void)state;
	limits.drain_us = 0;			/* as long as it takes */
	claim(&who);
	set_busy(1);
	assert_int_equal(ddl(&who), MIGRATION_HOLD);
	for (size_t i = 0; i < sizeof(pauses_ms) / sizeof(pauses_ms[0]); i++) {
		pass_time(1000 * MS - 1);
		assert_int_equal(tick(&who), MIGRATION_HOLD);
		assert_string_equal(state_now(), "draining held");
		pass_time(1);
		assert_int_equal(tick(&who), MIGRATION_HOLD);
		assert_string_equal(state_now(), "draining");
		pass_time(pauses_ms[i] * MS - 1);
		tick(&who);
		assert_string_equal(state_now(), "draining");
		pass_time(1);
		tick(&who);
		assert_string_equal(state_now(), "draining held");
	}
	set_busy(0);
	look();
	assert_true(is_woken(&who));
	assert_string_equal(state_now(), "exclusive held");
	uint64_t epoch = db.target->schema_epoch;
	settle(&who);
	assert_true(db.target->schema_epoch > epoch);
	leave(&who);
}

/* Until the drain has taken as long as it may. */
static enum migration_answer
drain_to_the_end(struct migrator *who)
{
	enum migration_answer answer = MIGRATION_HOLD;
	uint64_t end_us = now_us + limits.drain_us + 5 * SECOND;

	while (answer == MIGRATION_HOLD && !db.news.cancels &&
	    now_us < end_us) {
		pass_time(50 * MS);
		answer = tick(who);
	}
	return answer;
}

static void
at_last_it_proceeds_is_refused_or_cancels(void **state)
{
	struct migrator who = migrator(TOOL_PRISMA, "u", "");

	(void)state;
	claim(&who);
	set_busy(1);
	limits.on_timeout = MIGRATION_PROCEED;
	ddl(&who);
	assert_int_equal(drain_to_the_end(&who), MIGRATION_PASS);
	assert_string_equal(state_now(), "exclusive guarded");
	assert_true(is_woken(&who));
	assert_true(migration_guards(db.target, SPAN("SELECT accounts.a")));
	assert_false(migration_guards(db.target, SPAN("SELECT * FROM t")));
	settle(&who);
	assert_false(migration_guards(db.target, SPAN("SELECT accounts")));

	limits.on_timeout = MIGRATION_ABORT;
	assert_int_equal(ddl(&who), MIGRATION_HOLD);
	uint64_t epoch = db.target->schema_epoch;
	assert_int_equal(drain_to_the_end(&who), MIGRATION_REFUSE);
	assert_string_equal(state_now(), "claimed");
	assert_int_equal(db.target->schema_epoch, epoch);

	limits.on_timeout = MIGRATION_CANCEL;
	assert_int_equal(ddl(&who), MIGRATION_HOLD);
	assert_int_equal(drain_to_the_end(&who), MIGRATION_HOLD);
	assert_true(db.news.cancels);
	assert_string_equal(state_now(), "draining held");
	set_busy(0);
	look();
	assert_string_equal(state_now(), "exclusive held");
	settle(&who);

	/* Those that not even that ends are not waited for. */
	set_busy(1);
	ddl(&who);
	drain_to_the_end(&who);
	assert_true(db.news.cancels);
	forget_news();
	assert_int_equal(drain_to_the_end(&who), MIGRATION_PASS);
	assert_false(db.news.cancels);
	assert_string_equal(state_now(), "exclusive guarded");
	leave(&who);
	assert_string_equal(state_now(), "open");
}

static void
several_with_ddl_are_drained_for_together(void **state)
{
	struct migrator a = migrator(TOOL_RAILS, "u", "a");
	struct migrator b = migrator(TOOL_RAILS, "u", "a");

	(void)state;
	claim(&a);
	claim(&b);
	set_busy(1);
	assert_int_equal(ddl(&a), MIGRATION_HOLD);
	assert_int_equal(ddl(&b), MIGRATION_HOLD);
	/* One thinks better of it. */
	settle(&a);
	assert_string_equal(state_now(), "draining held");
	assert_false(db.news.released);
	assert_int_equal(ddl(&a), MIGRATION_HOLD);
	set_busy(0);
	look();
	assert_true(is_woken(&a) && is_woken(&b));
	assert_int_equal(ddl(&a), MIGRATION_PASS);
	assert_int_equal(ddl(&b), MIGRATION_PASS);
	/* The app is held for the one that is not done. */
	settle(&a);
	assert_string_equal(state_now(), "exclusive held");
	assert_false(db.news.released);
	leave(&a);
	assert_string_equal(state_now(), "exclusive held");
	settle(&b);
	assert_string_equal(state_now(), "claimed");
	assert_true(db.news.released);
	leave(&b);
}

static void
without_holding_ddl_passes(void **state)
{
	struct migrator who = migrator(TOOL_PRISMA, "u", "");

	(void)state;
	limits.holds = false;
	claim(&who);
	set_busy(3);
	assert_int_equal(ddl(&who), MIGRATION_PASS);
	assert_string_equal(state_now(), "claimed");
	settle(&who);
	uint64_t epoch = db.target->schema_epoch;
	leave(&who);
	assert_true(db.target->schema_epoch > epoch);
}

static void
the_console_locks_until_it_unlocks_or_time_is_over(void **state)
{
	struct migrator who = migrator(TOOL_PRISMA, "u", "");
	char text[128];

	(void)state;
	assert_true(migration_console_lock(db.lock, span_of(db.name),
	    now_us + SECOND, text, sizeof(text)));
	assert_int_equal(claim(&who), MIGRATION_PARK);
	migration_whom(db.lock, text, sizeof(text));
	assert_string_equal(text, "console of admin@console, since 0 s");
	assert_false(migration_console_lock(db.lock, span_of(db.name), 0,
	    text, sizeof(text)));
	pass_time(SECOND - 1);
	assert_false(migration_may_enter(&who, RESERVE));
	pass_time(1);
	assert_true(migration_may_enter(&who, RESERVE));
	assert_int_equal(claim(&who), MIGRATION_PASS);
	leave(&who);
	/* One whose time is over is nobody. */
	assert_true(migration_console_lock(db.lock, span_of(db.name),
	    now_us + SECOND, text, sizeof(text)));
	pass_time(SECOND);
	assert_true(migration_console_lock(db.lock, span_of(db.name), 0,
	    text, sizeof(text)));
	assert_int_equal(claim(&who), MIGRATION_PARK);
	pass_time(1000 * SECOND);
	assert_int_equal(claim(&who), MIGRATION_PARK);
	assert_true(console_unlock());
	assert_true(is_woken(&who));
	assert_int_equal(claim(&who), MIGRATION_PASS);
	assert_true(console_abort());
	assert_true(who.is_aborted && is_woken(&who));
	leave(&who);
}

/*
 * What is remembered.
 */

struct seen {
	unsigned count, of_us;
	uint64_t last_id;
	struct migration_row last;
};

static void
see_row(void *arg, const struct migration_row *row)
{
	struct seen *seen = arg;

	assert_true(row->id > seen->last_id);
	seen->last_id = row->id;
	seen->count++;
	if (strcmp(row->database, db.name) == 0) {
		seen->of_us++;
		seen->last = *row;
	}
}

static struct seen
see_rows(void)
{
	struct seen seen = { 0 };

	migrations_each(see_row, &seen);
	return seen;
}

static void
what_was_is_remembered_but_not_for_ever(void **state)
{
	struct migrator who = migrator(TOOL_PRISMA, "u", "");
	struct migrator second = migrator(TOOL_PRISMA, "u", "");

	(void)state;
	/* One that has only looked. */
	claim(&who);
	leave(&who);
	assert_int_equal(see_rows().of_us, 0);
	claim(&who);
	claim(&second);
	set_busy(1);
	ddl(&who);
	pass_time(300 * MS);
	set_busy(0);
	look();
	ddl(&who);
	pass_time(200 * MS);
	settle(&who);
	migration_count_ddl(&who);
	forget_news();
	migration_leave(&who, "failed", "boom", &db.news);
	struct seen seen = see_rows();
	assert_int_equal(seen.of_us, 2);
	assert_string_equal(seen.last.state, "waiting");
	assert_int_equal(seen.last.waited_us, 500 * MS);
	claim(&second);
	leave(&second);
	seen = see_rows();
	assert_string_equal(seen.last.state, "done");
	assert_int_equal(seen.last.waited_us, 500 * MS);
	for (int i = 0; i < 250; i++) {
		who = migrator(TOOL_PRISMA, "u", "");
		claim(&who);
		migration_count_ddl(&who);
		leave(&who);
	}
	seen = see_rows();
	assert_int_equal(seen.count, 200);
	assert_int_equal(seen.of_us, 200);
	assert_int_equal(seen.last.ddl_statements, 1);
}

static void
a_migration_is_told_with_its_times(void **state)
{
	struct migrator who = migrator(TOOL_PRISMA, "u", "psql");

	(void)state;
	claim(&who);
	set_busy(1);
	ddl(&who);
	pass_time(300 * MS);
	migration_count_held(db.target);
	set_busy(0);
	look();
	ddl(&who);
	pass_time(200 * MS);
	settle(&who);
	forget_news();
	migration_leave(&who, "failed", "boom", &db.news);
	struct seen seen = see_rows();
	assert_string_equal(seen.last.state, "failed");
	assert_string_equal(seen.last.error, "boom");
	assert_string_equal(seen.last.tool, "prisma");
	assert_string_equal(seen.last.application, "psql");
	assert_int_equal(seen.last.drained_us, 300 * MS);
	assert_int_equal(seen.last.hold_us, 500 * MS);
	assert_int_equal(seen.last.held_clients, 1);
	assert_int_equal(seen.last.ddl_statements, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_state_takes_every_call),
		TEST(those_in_line_take_turns),
		TEST(companions_are_let_in_by_the_rule_of_the_tool),
		TEST(it_is_known_when_a_companion_was_last_at_work),
		TEST(no_more_than_the_reserve_are_in),
		TEST(a_drain_is_tried_with_longer_and_longer_pauses),
		TEST(at_last_it_proceeds_is_refused_or_cancels),
		TEST(several_with_ddl_are_drained_for_together),
		TEST(without_holding_ddl_passes),
		TEST(the_console_locks_until_it_unlocks_or_time_is_over),
		TEST(a_migration_is_told_with_its_times),
		TEST(what_was_is_remembered_but_not_for_ever),
	};

	return RUN(tests);
}
