/*
 * A hierarchical timing wheel, as on an old clock: a ring for the tenths of
 * a second, one for the minutes, one for the hours.
 *
 * A timer is filed under its deadline in the finest ring that reaches that
 * far. When the hand of a coarser ring arrives at a slot, what is in there is
 * filed again, finer now; at the finest ring it fires. So a timer of an hour
 * is touched three times, one of a second once, and the cost of setting one
 * does not depend on how many there are.
 *
 *      ring 0    10 ms a slot    256 slots reach  2.56 s
 *      ring 1    2.56 s a slot   256 slots reach  11 minutes
 *      ring 2    11 min a slot   256 slots reach  46 hours, beyond which a
 *                                timer is filed as far off as it goes and
 *                                looked at again there
 *
 * Laziness is what makes it cheap. A timeout is moved on by each query and
 * hardly ever fires: moving a deadline away only stores the new deadline,
 * and the timer is filed again when the hand finds it in its old slot, not
 * due. Taking a timer off unlinks it and leaves the slot's bit in `used`; the
 * hand clears the bit when it finds the slot empty. That costs one needless
 * look, not a search for each timer cleared.
 *
 * `next_tick` is the earliest slot that may hold something. The loop sleeps
 * until then, for as long as it likes when the wheel is empty.
 */
#include <stddef.h>

#include "base/check.h"
#include "net/wheel.h"

#define SLOT_MASK (WHEEL_SLOTS - 1)
#define REACH ((uint64_t)1 << (WHEEL_RINGS * WHEEL_SLOT_BITS))

void
wheel_init(struct wheel *wheel, uint64_t now_us)
{
	*wheel = (struct wheel){ 0 };
	wheel->tick = now_us / LOOP_TICK_US;
	wheel->next_tick = UINT64_MAX;
	for (unsigned ring = 0; ring < WHEEL_RINGS; ring++)
		for (unsigned i = 0; i < WHEEL_SLOTS; i++)
			list_init(&wheel->slots[ring][i]);
}

/* Rounded up: a timer never fires early. */
static uint64_t
deadline_tick(const struct loop_timer *timer)
{
	return timer->deadline_us / LOOP_TICK_US +
	    (timer->deadline_us % LOOP_TICK_US != 0);
}

void
wheel_file(struct wheel *wheel, struct loop_timer *timer)
{
	uint64_t tick = deadline_tick(timer);
	uint64_t look;			/* when the hand comes by */
	unsigned ring = 0, shift = 0, slot;

	if (tick <= wheel->tick)
		tick = wheel->tick + 1;
	if (tick - wheel->tick >= REACH)
		tick = wheel->tick + REACH - 1;
	while (tick - wheel->tick >= (uint64_t)WHEEL_SLOTS << shift) {
		ring++;
		shift += WHEEL_SLOT_BITS;
	}
	look = tick >> shift << shift;
	slot = (unsigned)(tick >> shift) & SLOT_MASK;
	list_append(&wheel->slots[ring][slot], &timer->node);
	wheel->used[ring][slot / 64] |= (uint64_t)1 << (slot % 64);
	timer->slot_us = look * LOOP_TICK_US;
	if (look < wheel->next_tick)
		wheel->next_tick = look;
}

/*
 * How many slots beyond `at` the next used one is, 1..WHEEL_SLOTS, or 0 when
 * the ring is empty. The slot the hand stands on is a full turn away.
 */
static unsigned
ring_next(const uint64_t *used, unsigned at)
{
	for (unsigned step = 1; step <= WHEEL_SLOTS;) {
		unsigned slot = (at + step) & SLOT_MASK;
		uint64_t word = used[slot / 64] >> (slot % 64);

		if (word != 0)
			return step + (unsigned)__builtin_ctzll(word);
		step += 64 - slot % 64;
	}
	return 0;
}

static uint64_t
wheel_find_next(const struct wheel *wheel)
{
	uint64_t next = UINT64_MAX;

	for (unsigned ring = 0; ring < WHEEL_RINGS; ring++) {
		unsigned shift = ring * WHEEL_SLOT_BITS;
		uint64_t hand = wheel->tick >> shift;
		unsigned step = ring_next(wheel->used[ring],
		    (unsigned)hand & SLOT_MASK);
		uint64_t tick = (hand + step) << shift;

		if (step != 0 && tick < next)
			next = tick;
	}
	return next;
}

/* Empties a slot into `due`; the timers stay where list_remove() finds them. */
static void
wheel_take_slot(struct wheel *wheel, unsigned ring, struct list *due)
{
	unsigned slot = (unsigned)(wheel->tick >> (ring * WHEEL_SLOT_BITS)) &
	    SLOT_MASK;
	struct list *head = &wheel->slots[ring][slot];
	struct list *node;

	wheel->used[ring][slot / 64] &= ~((uint64_t)1 << (slot % 64));
	while ((node = list_pop(head)) != NULL)
		list_append(due, node);
}

/* The hand stands at wheel->tick: fire what is due, file the rest again. */
static void
wheel_look(struct wheel *wheel)
{
	struct list due;
	struct list *node;

	list_init(&due);
	for (unsigned ring = 0; ring < WHEEL_RINGS; ring++) {
		uint64_t below = ((uint64_t)1 << (ring * WHEEL_SLOT_BITS)) - 1;

		if ((wheel->tick & below) == 0)
			wheel_take_slot(wheel, ring, &due);
	}
	/* A timer that fires may set and clear others, those in `due` too. */
	while ((node = list_pop(&due)) != NULL) {
		struct loop_timer *timer =
		    container_of(node, struct loop_timer, node);

		check(timer->deadline_us != 0);
		if (deadline_tick(timer) > wheel->tick) {
			wheel_file(wheel, timer);
			continue;
		}
		timer->deadline_us = 0;
		timer->fire(timer);
	}
}

void
wheel_run(struct wheel *wheel, uint64_t now_us)
{
	uint64_t now = now_us / LOOP_TICK_US;

	while (wheel->next_tick <= now) {
		wheel->tick = wheel->next_tick;
		/* What is set from now on brings it down again. */
		wheel->next_tick = UINT64_MAX;
		wheel_look(wheel);
		wheel->next_tick = wheel_find_next(wheel);
	}
	if (wheel->tick < now)
		wheel->tick = now;
}

uint64_t
wheel_next_us(const struct wheel *wheel)
{
	return wheel->next_tick == UINT64_MAX ? UINT64_MAX :
	    wheel->next_tick * LOOP_TICK_US;
}
