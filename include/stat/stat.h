/* Counters: named once in counters.def, one block per worker, summed. */
#ifndef STAT_STAT_H
#define STAT_STAT_H

#include <stdint.h>

enum stat_counter {
#define X(name, help) STAT_##name,
#include "stat/counters.def"
#undef X
	STAT_COUNT
};

/*
 * One worker's counters for one object (a pool, the process). Only that
 * worker writes; any thread reads. Aligned so that workers never share a
 * cache line.
 */
struct stat_block {
	_Alignas(64) _Atomic uint64_t value[STAT_COUNT];
};

struct stat_sums {
	uint64_t value[STAT_COUNT];
};

static inline void
stat_add(struct stat_block *block, enum stat_counter counter, uint64_t n)
{
	_Atomic uint64_t *at = &block->value[counter];

	/* The single writer needs no locked add. */
	__atomic_store_n((uint64_t *)at,
	    __atomic_load_n((uint64_t *)at, __ATOMIC_RELAXED) + n,
	    __ATOMIC_RELAXED);
}

/* Adds `count` blocks to *sums (which the caller has zeroed). */
void stat_sum(const struct stat_block *blocks, unsigned count,
    struct stat_sums *sums);
const char *stat_name(enum stat_counter counter);
const char *stat_help(enum stat_counter counter);

#endif
