/*
 * Reading the counters. Writers never wait: every worker counts in a block of
 * its own, and whoever wants to know adds the blocks up. The sum is not a
 * moment's picture (counters move while it is made), but each counter only
 * grows from one reading to the next.
 */
#include <stdatomic.h>

#include "base/check.h"
#include "stat/stat.h"

static const struct {
	const char *name;
	const char *help;
} counters[STAT_COUNT] = {
#define X(name, help) [STAT_##name] = { #name, help },
#include "stat/counters.def"
#undef X
};

void
stat_sum(const struct stat_block *blocks, unsigned count,
    struct stat_sums *sums)
{
	unsigned block, i;

	for (block = 0; block < count; block++)
		for (i = 0; i < STAT_COUNT; i++)
			sums->value[i] += atomic_load_explicit(
			    &blocks[block].value[i], memory_order_relaxed);
}

const char *
stat_name(enum stat_counter counter)
{
	check(counter < STAT_COUNT);
	return counters[counter].name;
}

const char *
stat_help(enum stat_counter counter)
{
	check(counter < STAT_COUNT);
	return counters[counter].help;
}
