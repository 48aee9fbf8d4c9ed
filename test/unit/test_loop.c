/*
 * The event loop: timers, tasks, mail, jobs. Time is the test's own wherever
 * a test is about when something happens; the name of a test is the sentence
 * it proves.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/loop.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MINUTE_US ((uint64_t)60 * 1000000)
#define HOUR_US (60 * MINUTE_US)

/*
 * Time of our own: each turn of the loop is one step of a ticker, a task that
 * keeps the loop from sleeping, moves the clock on, and stops in the end.
 */
static uint64_t fake_now_us;

static uint64_t
fake_now(void)
{
	return fake_now_us;
}

struct ticker {
	struct loop_task task;
	struct loop *loop;
	uint64_t step_us, end_us;
	void (*each)(void);		/* NULL, or called before each step */
};

static void
ticker_run(struct loop_task *task)
{
	struct ticker *ticker = container_of(task, struct ticker, task);

	if (fake_now_us >= ticker->end_us) {
		loop_stop(ticker->loop);
		return;
	}
	if (ticker->each != NULL)
		ticker->each();
	fake_now_us += ticker->step_us;
	loop_defer(ticker->loop, task);
}

static void
pass_time(struct loop *loop, uint64_t step_us, uint64_t len_us,
    void (*each)(void))
{
	struct ticker ticker = {
		.loop = loop,
		.step_us = step_us,
		.end_us = fake_now_us + len_us,
		.each = each,
	};

	loop_task_init(&ticker.task, ticker_run);
	loop_defer(loop, &ticker.task);
	loop_run(loop);
}

static int
begin_fake_time(void **state)
{
	fake_now_us = 7 * HOUR_US + 1234;
	clock_set_source(fake_now);
	*state = loop_create("test");
	return *state == NULL;
}

static int
begin(void **state)
{
	*state = loop_create("test");
	return *state == NULL;
}

static int
end(void **state)
{
	loop_destroy(*state);
	clock_set_source(NULL);
	return 0;
}

/*
 * Timers
 */

struct alarm {
	struct loop_timer timer;
	struct loop *loop;
	uint64_t want_us;		/* when it should ring; 0 = never */
	uint64_t rang_us;
	unsigned rings;
};

static void
alarm_ring(struct loop_timer *timer)
{
	struct alarm *alarm = container_of(timer, struct alarm, timer);

	alarm->rang_us = clock_us();
	alarm->rings++;
}

static void
alarm_init(struct alarm *alarm, struct loop *loop)
{
	*alarm = (struct alarm){ .loop = loop };
	loop_timer_init(&alarm->timer, alarm_ring);
}

static void
alarm_set(struct alarm *alarm, uint64_t deadline_us)
{
	alarm->want_us = deadline_us;
	loop_timer_set(alarm->loop, &alarm->timer, deadline_us);
}

/* Rang once, at the first look after its deadline. */
static void
assert_rang(const struct alarm *alarm, uint64_t step_us)
{
	assert_int_equal(alarm->rings, 1);
	assert_true(alarm->rang_us >= alarm->want_us);
	assert_true(alarm->rang_us < alarm->want_us + LOOP_TICK_US +
	    2 * step_us);
}

static void
a_timer_fires_on_time_however_far_off_it_is(void **state)
{
	static const uint64_t after_us[] = {
		1, 9999, 10000, 10001, 2550000, 2560000, 2570000,
		3 * MINUTE_US, 11 * MINUTE_US, HOUR_US, 45 * HOUR_US,
		46 * HOUR_US + 36 * MINUTE_US, 100 * HOUR_US,
	};
	struct alarm alarms[COUNT(after_us)];

	for (size_t i = 0; i < COUNT(after_us); i++) {
		alarm_init(&alarms[i], *state);
		alarm_set(&alarms[i], fake_now_us + after_us[i]);
	}
	pass_time(*state, LOOP_TICK_US / 2, 5000000, NULL);
	pass_time(*state, 1000000, 101 * HOUR_US, NULL);
	for (size_t i = 0; i < COUNT(after_us); i++)
		assert_rang(&alarms[i], after_us[i] < 4000000 ?
		    LOOP_TICK_US / 2 : 1000000);
}

static void
a_timer_can_be_moved_both_ways(void **state)
{
	struct alarm sooner, later, back;

	alarm_init(&sooner, *state);
	alarm_init(&later, *state);
	alarm_init(&back, *state);
	alarm_set(&sooner, fake_now_us + HOUR_US);
	alarm_set(&later, fake_now_us + 500000);
	alarm_set(&back, fake_now_us + 500000);
	pass_time(*state, 5000, 100000, NULL);
	alarm_set(&sooner, fake_now_us + 200000);
	alarm_set(&later, fake_now_us + 5 * MINUTE_US);
	/* Away, where the wheel does not notice, and nearer than at first. */
	alarm_set(&back, fake_now_us + 5 * MINUTE_US);
	alarm_set(&back, fake_now_us + 300000);
	pass_time(*state, 5000, 150000, NULL);
	assert_int_equal(sooner.rings + later.rings + back.rings, 0);
	pass_time(*state, 5000, 1000000, NULL);
	assert_rang(&sooner, 5000);
	assert_rang(&back, 5000);
	assert_int_equal(later.rings, 0);
	pass_time(*state, 100000, 6 * MINUTE_US, NULL);
	assert_rang(&later, 100000);
}

static void
a_cleared_timer_stays_silent_and_can_be_set_again(void **state)
{
	struct alarm alarm;

	alarm_init(&alarm, *state);
	alarm_set(&alarm, fake_now_us + 100000);
	loop_timer_clear(&alarm.timer);
	loop_timer_clear(&alarm.timer);
	pass_time(*state, 5000, 1000000, NULL);
	assert_int_equal(alarm.rings, 0);
	assert_int_equal(alarm.timer.deadline_us, 0);
	alarm_set(&alarm, fake_now_us + 100000);
	pass_time(*state, 5000, 1000000, NULL);
	assert_rang(&alarm, 5000);
	assert_int_equal(alarm.timer.deadline_us, 0);
}

static void
a_deadline_in_the_past_fires_soon(void **state)
{
	struct alarm past, never;

	alarm_init(&past, *state);
	alarm_init(&never, *state);
	alarm_set(&past, fake_now_us - HOUR_US);
	loop_timer_set(*state, &never.timer, UINT64_MAX);
	pass_time(*state, 5000, 30000, NULL);
	assert_int_equal(past.rings, 1);
	pass_time(*state, HOUR_US, 1000 * HOUR_US, NULL);
	assert_int_equal(never.rings, 0);
	loop_timer_clear(&never.timer);
}

static void
ring_again(struct loop_timer *timer)
{
	struct alarm *alarm = container_of(timer, struct alarm, timer);

	alarm->rings++;
	loop_timer_set(alarm->loop, timer, clock_us() + 50000);
}

static void
a_timer_may_set_itself_again(void **state)
{
	struct alarm alarm;

	alarm_init(&alarm, *state);
	alarm.timer.fire = ring_again;
	alarm_set(&alarm, fake_now_us + 50000);
	pass_time(*state, LOOP_TICK_US, 10000000, NULL);
	/* Each round takes 50 ms and up to a tick. */
	assert_in_range(alarm.rings, 160, 200);
	loop_timer_clear(&alarm.timer);
}

static struct alarm pair[2];

static void
ring_and_silence_the_other(struct loop_timer *timer)
{
	struct alarm *alarm = container_of(timer, struct alarm, timer);

	alarm->rings++;
	loop_timer_clear(&pair[alarm == &pair[0]].timer);
}

static void
a_timer_may_clear_one_that_is_due_with_it(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		alarm_init(&pair[i], *state);
		pair[i].timer.fire = ring_and_silence_the_other;
		alarm_set(&pair[i], fake_now_us + 100000);
	}
	pass_time(*state, 5000, 1000000, NULL);
	assert_int_equal(pair[0].rings + pair[1].rings, 1);
}

/*
 * Many timers moved at random, against the plainest model there is: each
 * knows when it wants to ring, and must have rung by then and not before.
 */
#define CROWD 300

static struct alarm crowd[CROWD];
static uint32_t crowd_seed;
static unsigned crowd_rang;

static uint32_t
crowd_random(void)
{
	crowd_seed = crowd_seed * 1664525 + 1013904223;
	return crowd_seed >> 8;
}

static uint64_t
crowd_distance_us(void)
{
	static const uint64_t reach_us[] = {
		20000, 500000, 4000000, MINUTE_US, HOUR_US, 60 * HOUR_US,
	};
	uint64_t far = reach_us[crowd_random() % COUNT(reach_us)];

	return (((uint64_t)crowd_random() << 24) + crowd_random()) % far;
}

static void
crowd_ring(struct loop_timer *timer)
{
	struct alarm *alarm = container_of(timer, struct alarm, timer);

	assert_true(alarm->want_us != 0);
	assert_true(clock_us() >= alarm->want_us);
	alarm->want_us = 0;
	crowd_rang++;
}

static uint64_t crowd_step_us;

static void
crowd_each(void)
{
	for (unsigned i = 0; i < CROWD; i++)
		assert_true(crowd[i].want_us == 0 || fake_now_us <
		    crowd[i].want_us + LOOP_TICK_US + 2 * crowd_step_us);
	for (unsigned i = 0; i < 5; i++) {
		struct alarm *alarm = &crowd[crowd_random() % CROWD];

		if (crowd_random() % 4 == 0) {
			alarm->want_us = 0;
			loop_timer_clear(&alarm->timer);
		} else {
			alarm_set(alarm, fake_now_us + crowd_distance_us());
		}
	}
}

static void
a_crowd_of_timers_moved_at_random_is_never_early_or_late(void **state)
{
	crowd_seed = 20261123;
	crowd_rang = 0;
	for (unsigned i = 0; i < CROWD; i++) {
		alarm_init(&crowd[i], *state);
		crowd[i].timer.fire = crowd_ring;
	}
	for (crowd_step_us = 3000; crowd_step_us < 3 * HOUR_US;
	    crowd_step_us *= 7)
		pass_time(*state, crowd_step_us, crowd_step_us * 700,
		    crowd_each);
	assert_true(crowd_rang > 10000);
	for (unsigned i = 0; i < CROWD; i++)
		loop_timer_clear(&crowd[i].timer);
}

static void
stop_loop(struct loop_timer *timer)
{
	struct alarm *alarm = container_of(timer, struct alarm, timer);

	alarm_ring(timer);
	loop_stop(alarm->loop);
}

static void
a_sleeping_loop_is_woken_by_its_timer_and_by_nothing_else(void **state)
{
	struct alarm alarm, cleared;
	uint64_t turns;

	alarm_init(&alarm, *state);
	alarm_init(&cleared, *state);
	alarm.timer.fire = stop_loop;
	alarm_set(&alarm, clock_now_us() + 300000);
	alarm_set(&cleared, clock_now_us() + 150000);
	loop_timer_clear(&cleared.timer);
	turns = loop_turn_count(*state);
	loop_run(*state);
	assert_true(alarm.rang_us >= alarm.want_us);
	assert_int_equal(cleared.rings, 0);
	/* One for the timer, one that the cleared one may cost, one when the
	 * kernel's clock was a little ahead. Not thirty, one a tick. */
	assert_true(loop_turn_count(*state) - turns <= 4);
}

/*
 * Tasks
 */

struct chore {
	struct loop_task task;
	struct loop *loop;
	struct chore *other;
	unsigned runs, runs_wanted;
	uint64_t turn;
};

static void
chore_run(struct loop_task *task)
{
	struct chore *chore = container_of(task, struct chore, task);

	if (chore->runs++ != 0)
		assert_true(loop_turn_count(chore->loop) > chore->turn);
	chore->turn = loop_turn_count(chore->loop);
	if (chore->runs < chore->runs_wanted)
		loop_defer(chore->loop, task);
	else
		loop_stop(chore->loop);
}

static void
chore_init(struct chore *chore, struct loop *loop,
    void (*run)(struct loop_task *))
{
	*chore = (struct chore){ .loop = loop };
	loop_task_init(&chore->task, run);
}

static void
a_task_queued_from_its_own_run_runs_in_the_next_turn(void **state)
{
	struct chore chore;

	chore_init(&chore, *state, chore_run);
	chore.runs_wanted = 5;
	loop_defer(*state, &chore.task);
	loop_defer(*state, &chore.task);	/* once is enough */
	loop_run(*state);
	assert_int_equal(chore.runs, 5);
}

static void
chore_defer_other(struct loop_task *task)
{
	struct chore *chore = container_of(task, struct chore, task);

	chore->runs++;
	chore->turn = loop_turn_count(chore->loop);
	loop_defer(chore->loop, &chore->other->task);
}

static void
a_task_queued_by_another_runs_in_the_same_turn(void **state)
{
	struct chore first, last;

	chore_init(&first, *state, chore_defer_other);
	chore_init(&last, *state, chore_run);
	first.other = &last;
	loop_defer(*state, &first.task);
	loop_run(*state);
	assert_int_equal(first.runs, 1);
	assert_int_equal(last.runs, 1);
	assert_int_equal(first.turn, last.turn);
}

static void
chore_cancel_other(struct loop_task *task)
{
	struct chore *chore = container_of(task, struct chore, task);

	chore->runs++;
	loop_task_cancel(&chore->other->task);
	loop_stop(chore->loop);
}

static void
a_cancelled_task_does_not_run(void **state)
{
	struct chore first, last;

	chore_init(&first, *state, chore_cancel_other);
	chore_init(&last, *state, chore_run);
	first.other = &last;
	loop_defer(*state, &first.task);
	loop_defer(*state, &last.task);
	loop_run(*state);
	assert_int_equal(first.runs, 1);
	assert_int_equal(last.runs, 0);
}

static void
chore_start_dear_work(struct loop_task *task)
{
	struct chore *chore = container_of(task, struct chore, task);
	unsigned starts = 0;

	while (loop_may_start(chore->loop))
		starts++;
	assert_in_range(starts, 1, 16);
	chore->runs += starts;
	if (chore->runs < 3 * starts)
		loop_defer(chore->loop, task);
	else
		loop_stop(chore->loop);
}

static void
each_turn_has_its_own_share_of_dear_work(void **state)
{
	struct chore chore;
	uint64_t turns = loop_turn_count(*state);

	chore_init(&chore, *state, chore_start_dear_work);
	loop_defer(*state, &chore.task);
	loop_run(*state);
	assert_int_equal(loop_turn_count(*state) - turns, 3);
}

/*
 * Mail
 */

#define SENDERS 4
#define LETTERS 20000

struct letter {
	struct loop_mail mail;
	unsigned sender, number;
};

struct sender {
	pthread_t thread;
	struct loop *loop;
	struct letter *letters;
	unsigned next;			/* number expected */
};

static struct sender senders[SENDERS];
static unsigned letters_read;

static void
letter_read(struct loop *loop, struct loop_mail *mail)
{
	struct letter *letter = container_of(mail, struct letter, mail);
	struct sender *sender = &senders[letter->sender];

	assert_int_equal(letter->number, sender->next);
	sender->next++;
	memset(letter, 0xee, sizeof(*letter));	/* it is ours */
	if (++letters_read == SENDERS * LETTERS)
		loop_stop(loop);
}

static void *
sender_main(void *arg)
{
	struct sender *sender = arg;

	for (unsigned i = 0; i < LETTERS; i++) {
		struct letter *letter = &sender->letters[i];

		letter->sender = (unsigned)(sender - senders);
		letter->number = i;
		letter->mail.read = letter_read;
		loop_post(sender->loop, &letter->mail);
	}
	return NULL;
}

static void
mail_of_many_threads_arrives_once_and_in_each_ones_order(void **state)
{
	letters_read = 0;
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ .loop = *state };
		senders[i].letters = mem_zalloc(LETTERS *
		    sizeof(struct letter));
		assert_non_null(senders[i].letters);
		assert_int_equal(pthread_create(&senders[i].thread, NULL,
		    sender_main, &senders[i]), 0);
	}
	loop_run(*state);
	for (unsigned i = 0; i < SENDERS; i++) {
		pthread_join(senders[i].thread, NULL);
		assert_int_equal(senders[i].next, LETTERS);
		mem_free(senders[i].letters);
	}
}

/* One mail that two loops throw to each other: each of them sleeps whenever
 * it has thrown, so that a single lost wake-up ends the game for good. */
#define THROWS 20000

struct ball {
	struct loop_mail mail;
	struct loop *side[2];
	unsigned throws;
};

static void
ball_throw(struct loop *loop, struct loop_mail *mail)
{
	struct ball *ball = container_of(mail, struct ball, mail);
	struct loop *other = ball->side[ball->side[0] == loop];

	if (ball->throws++ >= THROWS)
		loop_stop(loop);
	/* The last throw ends the other side's game. */
	if (ball->throws <= THROWS + 1)
		loop_post(other, mail);
}

static void *
loop_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void
a_sleeping_loop_is_woken_by_every_mail(void **state)
{
	struct ball ball = { .mail.read = ball_throw };
	pthread_t thread;

	ball.side[0] = *state;
	ball.side[1] = loop_create("other");
	assert_non_null(ball.side[1]);
	assert_int_equal(pthread_create(&thread, NULL, loop_main,
	    ball.side[1]), 0);
	loop_post(ball.side[1], &ball.mail);
	loop_run(*state);
	pthread_join(thread, NULL);
	assert_int_equal(ball.throws, THROWS + 2);
	loop_destroy(ball.side[1]);
}

/*
 * Jobs
 */

#define JOBS 50

struct toil {
	struct loop_job job;
	pthread_t loop_thread;
	unsigned worked;
};

static unsigned jobs_done;
static pthread_barrier_t meeting;

static void
toil_work(struct loop_job *job)
{
	struct toil *toil = container_of(job, struct toil, job);

	assert_false(pthread_equal(pthread_self(), toil->loop_thread));
	toil->worked++;
}

static void
toil_meet(struct loop_job *job)
{
	toil_work(job);
	pthread_barrier_wait(&meeting);
}

static void
toil_done(struct loop_job *job)
{
	struct toil *toil = container_of(job, struct toil, job);

	assert_true(pthread_equal(pthread_self(), toil->loop_thread));
	assert_int_equal(toil->worked, 1);
	if (++jobs_done == JOBS)
		loop_stop(job->loop);
}

static void
run_jobs(struct loop *loop, void (*work)(struct loop_job *))
{
	static struct toil toils[JOBS];

	jobs_done = 0;
	for (unsigned i = 0; i < JOBS; i++) {
		toils[i] = (struct toil){
			.job = { .work = work, .done = toil_done },
			.loop_thread = pthread_self(),
		};
		loop_job_start(loop, &toils[i].job);
	}
	loop_run(loop);
	assert_int_equal(jobs_done, JOBS);
}

static void
a_job_works_elsewhere_and_is_done_here(void **state)
{
	run_jobs(*state, toil_work);
	loop_helpers_stop();
	run_jobs(*state, toil_work);	/* they start again when needed */
	loop_helpers_stop();
	loop_helpers_stop();
}

static void
jobs_run_side_by_side(void **state)
{
	/* Each waits for another one: a single helper would wait for ever. */
	pthread_barrier_init(&meeting, NULL, 2);
	run_jobs(*state, toil_meet);
	loop_helpers_stop();
	pthread_barrier_destroy(&meeting);
}

static void
a_loop_that_cannot_be_made_leaves_nothing_behind(void **state)
{
	(void)state;
	for (uint64_t nth = 1; nth <= 2; nth++) {
		mem_fail_nth(nth);
		assert_null(loop_create("none"));
	}
	mem_fail_nth(0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define FAKE_TIME(test) \
	cmocka_unit_test_setup_teardown(test, begin_fake_time, end)
#define REAL_TIME(test) cmocka_unit_test_setup_teardown(test, begin, end)
		FAKE_TIME(a_timer_fires_on_time_however_far_off_it_is),
		FAKE_TIME(a_timer_can_be_moved_both_ways),
		FAKE_TIME(a_cleared_timer_stays_silent_and_can_be_set_again),
		FAKE_TIME(a_deadline_in_the_past_fires_soon),
		FAKE_TIME(a_timer_may_set_itself_again),
		FAKE_TIME(a_timer_may_clear_one_that_is_due_with_it),
		FAKE_TIME(
		    a_crowd_of_timers_moved_at_random_is_never_early_or_late),
		REAL_TIME(
		    a_sleeping_loop_is_woken_by_its_timer_and_by_nothing_else),
		REAL_TIME(a_task_queued_from_its_own_run_runs_in_the_next_turn),
		REAL_TIME(a_task_queued_by_another_runs_in_the_same_turn),
		REAL_TIME(a_cancelled_task_does_not_run),
		REAL_TIME(each_turn_has_its_own_share_of_dear_work),
		REAL_TIME(
		    mail_of_many_threads_arrives_once_and_in_each_ones_order),
		REAL_TIME(a_sleeping_loop_is_woken_by_every_mail),
		REAL_TIME(a_job_works_elsewhere_and_is_done_here),
		REAL_TIME(jobs_run_side_by_side),
		cmocka_unit_test(
		    a_loop_that_cannot_be_made_leaves_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
