/* A timing wheel: the timers of one loop, sorted just enough. */
#ifndef NET_WHEEL_H
#define NET_WHEEL_H

#include <stdint.h>

#include "base/map.h"
#include "net/loop.h"

/* Three rings of 256 slots: 2.56 s, 11 minutes, 46 hours. */
#define WHEEL_RINGS 3
#define WHEEL_SLOT_BITS 8
#define WHEEL_SLOTS (1 << WHEEL_SLOT_BITS)

struct wheel {
	uint64_t tick;			/* slots up to it were looked at */
	uint64_t next_tick;		/* nothing to look at before it;
					 * UINT64_MAX = no timers at all */
	uint64_t used[WHEEL_RINGS][WHEEL_SLOTS / 64];
	struct list slots[WHEEL_RINGS][WHEEL_SLOTS];
};

void wheel_init(struct wheel *wheel, uint64_t now_us);
/* The timer's deadline has been set; it is on no list. */
void wheel_file(struct wheel *wheel, struct loop_timer *timer);
/* Fires what is due. */
void wheel_run(struct wheel *wheel, uint64_t now_us);
/* When wheel_run() wants to be called next; UINT64_MAX = never. */
uint64_t wheel_next_us(const struct wheel *wheel);

#endif
