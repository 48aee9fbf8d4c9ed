/*
 * The migration lock on a long walk: whatever is called in whatever order,
 * nobody is in beside one who would not have him, nobody gets in front of who
 * waits, and nothing is left when all have gone. What must be true of the
 * machine itself is checked in there, after each call.
 */
#include "migration_rig.h"

#define ACTORS 12
#define STEPS 100000

static struct {
	struct migrator who;
	uint64_t order;		/* of coming to where it is */
} actor[ACTORS];

static uint64_t orders, console_until_us;
static bool console_is_in;

static int
first_of(enum migrator_place place)
{
	int first = -1;

	for (int i = 0; i < ACTORS; i++)
		if (actor[i].who.place == place && (first < 0 ||
		    actor[i].order < actor[first].order))
			first = i;
	return first;
}

static bool
may_be_beside(const struct migrator *holder, const struct migrator *who)
{
	bool same = strcmp(holder->application, who->application) == 0;
	bool idle = holder->idle_us != 0 && now_us - holder->idle_us >= SECOND;

	if (strcmp(holder->user, who->user) != 0 ||
	    who->tool == tool_of(TOOL_COMMAND))
		return false;
	switch (holder->tool->companions) {
	case COMPANIONS_ANYBODY: return true;
	case COMPANIONS_HELPERS: return same &&
	    who->tool == tool_of(TOOL_DDL);
	case COMPANIONS_ALWAYS: return same;
	case COMPANIONS_IDLE: return same && idle;
	case COMPANIONS_KIN: return same || (idle && who->tool == holder->tool);
	default: return false;
	}
}

static void
walk_claim(int i)
{
	int holder = first_of(MIGRATOR_IN), head = first_of(MIGRATOR_IN_LINE);
	enum migrator_place was = actor[i].who.place;

	if (was == MIGRATOR_OUT) {
		static const enum tool_id tools[] = { TOOL_PRISMA, TOOL_GOOSE,
			TOOL_RAILS, TOOL_YOYO, TOOL_DDL, TOOL_DECLARED,
			TOOL_COMMAND };
		actor[i].who = migrator(tools[rand() % 7],
		    rand() % 3 != 0 ? "u" : "v", rand() % 3 != 0 ? "a" : "b");
	}
	if (console_is_in && console_until_us != 0 &&
	    now_us >= console_until_us)
		console_is_in = false;
	enum migration_answer answer = claim(&actor[i].who);
	if (actor[i].who.place != was)
		actor[i].order = ++orders;
	assert_int_equal(answer, actor[i].who.place == MIGRATOR_IN ?
	    MIGRATION_PASS : MIGRATION_PARK);
	if (was == MIGRATOR_IN || answer != MIGRATION_PASS)
		return;
	assert_false(console_is_in);
	if (holder >= 0)
		assert_true(may_be_beside(&actor[holder].who, &actor[i].who));
	else
		assert_true(head < 0 || head == i);
}

static void
walk_console(void)
{
	char text[128];

	switch (rand() % 3) {
	case 0:
		console_until_us = rand() % 2 ? now_us + SECOND : 0;
		if (migration_console_lock(db.lock, span_of(db.name),
		    console_until_us, text, sizeof(text)))
			console_is_in = true;
		assert_true(!console_is_in || first_of(MIGRATOR_IN) < 0);
		break;
	default:
		if (rand() % 2)
			console_unlock();
		else
			console_abort();
		console_is_in = false;
		break;
	}
}

static void
walk_migrate(struct migrator *who)
{
	switch (rand() % 5) {
	case 0: case 1:
		set_busy((unsigned)rand() % 2);
		ddl(who);
		break;
	case 2: settle(who); break;
	case 3: migration_count_ddl(who); break;
	default: tick(who); break;
	}
}

static void
walk_step(void)
{
	int i = rand() % ACTORS;
	struct migrator *who = &actor[i].who;

	limits.on_timeout = (enum migration_on_timeout)(rand() % 3);
	limits.holds = rand() % 20 != 0;
	limits.drain_us = rand() % 3 == 0 ? 0 : 5 * SECOND;
	switch (rand() % 12) {
	case 0: case 1: walk_claim(i); break;
	case 2: set_busy((unsigned)rand() % 3); look(); break;
	case 3: pass_time((uint64_t)(rand() % 2000) * MS); break;
	case 4: leave(who); break;
	case 5:
		if (rand() % 20 == 0)
			walk_console();
		break;
	case 6: who->idle_us = rand() % 2 ? now_us : 0; break;
	default:
		if (who->place == MIGRATOR_IN)
			walk_migrate(who);
		break;
	}
	/* One without DDL holds nobody. */
	bool any = false;
	for (int k = 0; k < ACTORS; k++)
		any = any || (actor[k].who.place == MIGRATOR_IN &&
		    (actor[k].who.has_ddl || actor[k].who.wants_ddl));
	assert_int_equal(any, db.target->held || db.target->guarded ||
	    strncmp(state_now(), "draining", 8) == 0);
}

static void
a_long_walk_leaves_nothing_behind(void **state)
{
	(void)state;
	srand(20261128);
	for (int i = 0; i < STEPS; i++) {
		walk_step();
		if (i % 1000 != 0)
			continue;
		for (int k = 0; k < ACTORS; k++)
			leave(&actor[k].who);
		console_unlock();
		console_is_in = false;
		assert_string_equal(state_now(), "open");
		assert_false(db.target->held || db.target->draining ||
		    db.target->guarded || migration_is_awaited(db.lock));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_long_walk_leaves_nothing_behind),
	};

	return RUN(tests);
}
