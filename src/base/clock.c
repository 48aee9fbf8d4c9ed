/*
 * The only file that reads a clock.
 *
 * A loop turn handles hundreds of events that happened "now". One reading
 * serves them all: it is cheaper, and two things that happened in one turn
 * have the same time, so that sums of intervals add up.
 */
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "base/clock.h"

_Thread_local uint64_t clock_turn_us;

static uint64_t (*_Atomic clock_source)(void);

static uint64_t
clock_read(clockid_t id)
{
	uint64_t (*source)(void) = atomic_load_explicit(&clock_source,
	    memory_order_relaxed);
	struct timespec now;

	if (source != NULL)
		return source();
	clock_gettime(id, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t
clock_read_turn(void)
{
	uint64_t now_us = clock_now_us();

	if (atomic_load_explicit(&clock_source, memory_order_relaxed) == NULL)
		clock_turn_us = now_us;
	return now_us;
}

uint64_t
clock_now_us(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

uint64_t
clock_wall_us(void)
{
	return clock_read(CLOCK_REALTIME);
}

uint64_t
clock_thread_us(void)
{
	return clock_read(CLOCK_THREAD_CPUTIME_ID);
}

void
clock_set_source(uint64_t (*source)(void))
{
	atomic_store(&clock_source, source);
	clock_turn();
}
