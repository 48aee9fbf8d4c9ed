/* Time: one monotonic reading a loop turn, replaceable in tests. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/* This thread's reading of this turn; 0 = none yet. Not for use outside. */
extern _Thread_local uint64_t clock_turn_us;
uint64_t clock_read_turn(void);

/*
 * Microseconds of the monotonic clock. Read once a loop turn and thread, at
 * the first call after clock_turn(): cheap enough to be called anywhere.
 */
static inline uint64_t
clock_us(void)
{
	return clock_turn_us != 0 ? clock_turn_us : clock_read_turn();
}

/* A new turn begins: the next clock_us() reads the clock again. */
static inline void
clock_turn(void)
{
	clock_turn_us = 0;
}

/* Reads the clock now, whatever the turn. */
uint64_t clock_now_us(void);
/* Microseconds since 1970, for logs and SHOW. */
uint64_t clock_wall_us(void);
/* CPU time that this thread has taken. */
uint64_t clock_thread_us(void);
/*
 * Tests: another source for all clocks; NULL = the real ones. A source is
 * asked at every call, so that a test need not take turns to let time pass.
 */
void clock_set_source(uint64_t (*source)(void));

#endif
