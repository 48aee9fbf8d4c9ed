/* An event loop a thread: timers, mailbox, end-of-turn work, helper jobs. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/map.h"

struct event_base;
struct loop;

/* Size of the receive block that all streams of a loop share. */
#define LOOP_BLOCK (64 * 1024)

struct loop *loop_create(const char *name);	/* NULL: out of memory/fds */
void loop_destroy(struct loop *loop);
/* Runs turns until loop_stop(). */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);		/* from this loop's thread */
struct event_base *loop_base(struct loop *loop);
char *loop_block(struct loop *loop);		/* LOOP_BLOCK bytes */
uint64_t loop_turn_count(const struct loop *loop);

/*
 * Timers: coarse (LOOP_TICK_US), on a wheel, O(1), lazy. loop_timer_set()
 * moves a deadline in either direction; setting it later costs one store.
 * Never fires early. One timer is one object's; all zeroes + init is idle.
 */
#define LOOP_TICK_US 10000

struct loop_timer {
	struct list node;
	uint64_t deadline_us;		/* 0 = not set */
	uint64_t slot_us;		/* when the wheel looks at it next */
	void (*fire)(struct loop_timer *timer);
};

void loop_timer_init(struct loop_timer *timer,
    void (*fire)(struct loop_timer *));
void loop_timer_set(struct loop *loop, struct loop_timer *timer,
    uint64_t deadline_us);		/* absolute, of clock_us() */
void loop_timer_clear(struct loop_timer *timer);

/*
 * Work for the end of this turn, after all socket events: the reaper that
 * frees, the queue that dispatches. A task is queued at most once and runs
 * at most once a turn; queued again when it has run already, it runs in the
 * next turn (which then does not block in epoll).
 */
struct loop_task {
	struct list node;
	uint64_t ran_turn;		/* private */
	void (*run)(struct loop_task *task);
};

void loop_task_init(struct loop_task *task, void (*run)(struct loop_task *));
void loop_defer(struct loop *loop, struct loop_task *task);
void loop_task_cancel(struct loop_task *task);

/*
 * Mailbox. loop_post() may be called from any thread: the mail is the
 * receiver's from then on, and `read` runs on the receiver's thread, in the
 * order of posting. Wakes the receiver with one eventfd write at most
 * (none when it is awake and will look anyway).
 */
struct loop_mail {
	struct loop_mail *next;
	void (*read)(struct loop *loop, struct loop_mail *mail);
};

void loop_post(struct loop *loop, struct loop_mail *mail);
/* At exit, when the loop does not run any more: reads what has come. */
void loop_drain(struct loop *loop);

/*
 * Jobs that would stall a loop (PBKDF2, name look-ups, files, commands) run
 * on a few helper threads of the process. `work` runs there, then `done` on
 * the loop's own thread. The job is the caller's and must live until `done`;
 * it cannot be called back.
 */
struct loop_job {
	struct loop_mail mail;		/* private */
	struct loop *loop;		/* private */
	void (*work)(struct loop_job *job);
	void (*done)(struct loop_job *job);
};

void loop_job_start(struct loop *loop, struct loop_job *job);
/* At exit: waits for running jobs, then ends the helper threads. */
void loop_helpers_stop(void);

/*
 * Established traffic comes first: dear work (a TLS handshake step, a new
 * connection) asks before it starts. False: this turn's share is used up;
 * leave the event be (level-triggered, it comes again next turn).
 */
bool loop_may_start(struct loop *loop);

#endif
