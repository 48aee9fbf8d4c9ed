/*
 * One loop a thread. A turn of it:
 *
 *      clock_turn
 *      epoll_wait                  blocks only if nothing at all is left over
 *      socket events               on_data, on_drain, accepts
 *      mail                        what other threads have posted
 *      timers                      those that are due
 *   +- streams with something due  held bytes, on_close
 *   +- tasks                       dispatch, the reaper
 *   +- both once more              for what the first round has brought up
 *
 * libevent's part is small: epoll, and one timer that ends the wait when the
 * wheel wants to be looked at. Its change list is left off. It would save an
 * epoll_ctl now and then (the steady state has none), but a stream that moves
 * must be off this loop's epoll before it is mailed, not at our next wait,
 * when its new owner may have closed it and the number be somebody else's.
 *
 * Nothing here takes a lock. What other threads may touch is one word, the
 * mailbox: a stack they push onto, which the loop takes whole and turns
 * around. The word also says whether the loop sleeps: before it waits, the
 * loop swaps its empty mailbox for MAIL_ASLEEP, and whoever pushes onto that
 * writes the eventfd. So there is one such write a sleep and none at all
 * while the loop is awake, and no moment at which a mail can be missed: the
 * swap fails if one has come in before it.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/inside.h"
#include "net/loop.h"

/* Dear work a turn. A TLS handshake takes up to a millisecond, so this is
 * the delay that newcomers may add to those who are in. */
#define LOOP_STARTS 4

/* libevent's coarse clock runs up to a kernel tick behind ours; without this
 * it wakes us just before the deadline, to wait again. */
#define TIMER_SLACK_US 4000

MEM_TYPE(loop_type, loop);

/* The mailbox of a loop that sleeps. Its address is all that is used. */
static struct loop_mail mail_asleep;
#define MAIL_ASLEEP (&mail_asleep)

static struct event_base *
loop_create_base(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (config == NULL)
		return NULL;
	if (event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0)
		base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

/* Edge-triggered: each write wakes us once and nobody needs to read it. */
static void
loop_wake(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

static void
loop_timer_wake(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;

	(void)fd;
	(void)what;
	loop->timer_us = UINT64_MAX;
}

static bool
loop_open(struct loop *loop)
{
	loop->block = mem_alloc(LOOP_BLOCK);
	loop->base = loop_create_base();
	loop->mail_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (loop->block == NULL || loop->base == NULL || loop->mail_fd == -1)
		return false;
	return event_assign(&loop->mail_event, loop->base, loop->mail_fd,
	    EV_READ | EV_ET | EV_PERSIST, loop_wake, loop) == 0 &&
	    event_assign(&loop->timer_event, loop->base, -1, 0,
	    loop_timer_wake, loop) == 0 &&
	    event_add(&loop->mail_event, NULL) == 0;
}

struct loop *
loop_create(const char *name)
{
	struct loop *loop = mem_new(&loop_type);

	if (loop == NULL)
		return NULL;
	loop->magic = LOOP_MAGIC;
	loop->mail_fd = -1;
	loop->hangup_fd = -1;
	loop->timer_us = UINT64_MAX;
	loop->starts_left = LOOP_STARTS;
	list_init(&loop->ready);
	list_init(&loop->tasks);
	list_init(&loop->later);
	list_init(&loop->commands);
	snprintf(loop->name, sizeof(loop->name), "%s", name);
	wheel_init(&loop->wheel, clock_now_us());
	if (!loop_open(loop)) {
		loop_destroy(loop);
		return NULL;
	}
	return loop;
}

void
loop_destroy(struct loop *loop)
{
	if (loop == NULL)
		return;
	check_magic(loop, LOOP_MAGIC);
	command_finish(loop);
	hangup_finish(loop);
	tls_room_destroy(loop->tls_room);
	if (event_initialized(&loop->mail_event))
		event_del(&loop->mail_event);
	if (event_initialized(&loop->timer_event))
		event_del(&loop->timer_event);
	if (loop->base != NULL)
		event_base_free(loop->base);
	if (loop->mail_fd != -1)
		close(loop->mail_fd);
	mem_free(loop->block);
	mem_delete(&loop_type, loop);
}

struct event_base *
loop_base(struct loop *loop)
{
	return loop->base;
}

char *
loop_block(struct loop *loop)
{
	return loop->block;
}

uint64_t
loop_turn_count(const struct loop *loop)
{
	return loop->turn;
}

bool
loop_may_start(struct loop *loop)
{
	if (loop->starts_left == 0)
		return false;
	loop->starts_left--;
	return true;
}

/* Timers */

void
loop_timer_init(struct loop_timer *timer, void (*fire)(struct loop_timer *))
{
	*timer = (struct loop_timer){ .fire = fire };
	list_init(&timer->node);
}

void
loop_timer_set(struct loop *loop, struct loop_timer *timer,
    uint64_t deadline_us)
{
	/* Zero says "not set", and would be due at once anyway. */
	timer->deadline_us = deadline_us != 0 ? deadline_us : 1;
	if (list_is_on(&timer->node)) {
		if (timer->deadline_us >= timer->slot_us)
			return;		/* the hand will find out */
		list_remove(&timer->node);
	}
	wheel_file(&loop->wheel, timer);
}

void
loop_timer_clear(struct loop_timer *timer)
{
	timer->deadline_us = 0;
	list_remove(&timer->node);
}

static void
loop_run_timers(struct loop *loop)
{
	uint64_t next_us = wheel_next_us(&loop->wheel);

	if (next_us != UINT64_MAX && next_us <= clock_us())
		wheel_run(&loop->wheel, clock_us());
}

/* An earlier wake-up than the one armed is never worth a second look: it
 * costs one empty turn. */
static void
loop_arm_timer(struct loop *loop)
{
	uint64_t next_us = wheel_next_us(&loop->wheel);
	uint64_t now_us, wait_us;
	struct timeval wait;

	if (next_us >= loop->timer_us)
		return;
	now_us = clock_us();
	wait_us = (next_us > now_us ? next_us - now_us : 0) + TIMER_SLACK_US;
	wait.tv_sec = (time_t)(wait_us / 1000000);
	wait.tv_usec = (suseconds_t)(wait_us % 1000000);
	if (event_add(&loop->timer_event, &wait) == 0)
		loop->timer_us = next_us;
}

/* Tasks */

void
loop_task_init(struct loop_task *task, void (*run)(struct loop_task *))
{
	*task = (struct loop_task){ .run = run };
	list_init(&task->node);
}

void
loop_defer(struct loop *loop, struct loop_task *task)
{
	if (list_is_on(&task->node))
		return;
	list_append(task->ran_turn == loop->turn ? &loop->later :
	    &loop->tasks, &task->node);
}

void
loop_task_cancel(struct loop_task *task)
{
	list_remove(&task->node);
}

static void
loop_run_tasks(struct loop *loop)
{
	struct list *node;

	/* Ends: a task that ran in this turn goes to `later`. */
	while ((node = list_pop(&loop->tasks)) != NULL) {
		struct loop_task *task =
		    container_of(node, struct loop_task, node);

		task->ran_turn = loop->turn;
		task->run(task);
	}
}

static void
loop_take_later(struct loop *loop)
{
	struct list *node;

	while ((node = list_pop(&loop->later)) != NULL)
		list_append(&loop->tasks, node);
}

/* Mail */

void
loop_post(struct loop *loop, struct loop_mail *mail)
{
	struct loop_mail *top = atomic_load_explicit(&loop->mail,
	    memory_order_relaxed);
	static const uint64_t one = 1;

	do {
		mail->next = top == MAIL_ASLEEP ? NULL : top;
	} while (!atomic_compare_exchange_weak_explicit(&loop->mail, &top,
	    mail, memory_order_acq_rel, memory_order_relaxed));
	/* Only a full counter could refuse this write, and that wakes too. */
	if (top == MAIL_ASLEEP)
		(void)!write(loop->mail_fd, &one, sizeof(one));
}

/* True: the mailbox is empty and says so to those who post. */
static bool
loop_fall_asleep(struct loop *loop)
{
	struct loop_mail *none = NULL;

	loop->asleep = atomic_compare_exchange_strong(&loop->mail, &none,
	    MAIL_ASLEEP);
	return loop->asleep;
}

void
loop_tell_awake(struct loop *loop)
{
	struct loop_mail *top = MAIL_ASLEEP;

	/* Fails if mail has come, which takes the sign down as well. */
	atomic_compare_exchange_strong(&loop->mail, &top, NULL);
	loop->asleep = false;
}

static void
loop_read_mail(struct loop *loop)
{
	struct loop_mail *top, *next, *oldest = NULL;

	loop_awake(loop);
	if (atomic_load_explicit(&loop->mail, memory_order_relaxed) == NULL)
		return;
	top = atomic_exchange_explicit(&loop->mail, NULL,
	    memory_order_acquire);
	for (; top != NULL; top = next) {
		next = top->next;
		top->next = oldest;
		oldest = top;
	}
	for (; oldest != NULL; oldest = next) {
		next = oldest->next;	/* the reader may free or post it */
		oldest->read(loop, oldest);
	}
}

void
loop_drain(struct loop *loop)
{
	loop_read_mail(loop);
}

/* The turn */

static void
loop_turn(struct loop *loop)
{
	int how = EVLOOP_ONCE;

	loop_take_later(loop);
	loop_arm_timer(loop);
	if (!list_is_empty(&loop->tasks) || !list_is_empty(&loop->ready) ||
	    !loop_fall_asleep(loop))
		how |= EVLOOP_NONBLOCK;
	loop->turn++;
	loop->starts_left = LOOP_STARTS;
	clock_turn();
	event_base_loop(loop->base, how);
	loop_read_mail(loop);
	loop_run_timers(loop);
	for (unsigned round = 0; round < 2; round++) {
		stream_run_ready(loop);
		loop_run_tasks(loop);
	}
}

/* The thread's name, for top and gdb; the first thread's is the program's. */
static void
loop_name_thread(const struct loop *loop)
{
	if (syscall(SYS_gettid) != getpid())
		pthread_setname_np(pthread_self(), loop->name);
}

void
loop_run(struct loop *loop)
{
	check_magic(loop, LOOP_MAGIC);
	loop_name_thread(loop);
	loop->stopped = false;
	while (!loop->stopped)
		loop_turn(loop);
}

void
loop_stop(struct loop *loop)
{
	loop->stopped = true;
}
