/*
 * A log-linear histogram. Durations spread over nine powers of ten, and what
 * matters is their relative error: each octave (from a power of two to the
 * next) is cut into 8 equal buckets, so that a quantile read from it is at
 * most an eighth too high.
 *
 *	us      0 1 2 ... 15  16-17 18-19 ... 30-31  32-35 36-39 ...
 *	bucket  0 1 2 ... 15   16    17   ...  23     24    25   ...
 *
 * 256 buckets reach to 2^34 us, nearly five hours; the last one also takes
 * whatever is longer.
 */
#include <stdatomic.h>

#include "base/check.h"
#include "stat/hist.h"

#define SUB_BITS	3		/* 2^3 buckets an octave */
#define SUB_COUNT	(1u << SUB_BITS)

unsigned
hist_bucket_of(uint64_t us)
{
	unsigned octave, bucket;

	if (us < SUB_COUNT)
		return (unsigned)us;
	octave = 63 - (unsigned)__builtin_clzll(us);
	bucket = (octave - SUB_BITS + 1) * SUB_COUNT +
	    (unsigned)(us >> (octave - SUB_BITS)) % SUB_COUNT;
	return bucket < HIST_BUCKETS ? bucket : HIST_BUCKETS - 1;
}

uint64_t
hist_bucket_top(unsigned bucket)
{
	unsigned shift;

	check(bucket < HIST_BUCKETS);
	if (bucket < SUB_COUNT)
		return bucket;
	shift = bucket / SUB_COUNT - 1;
	return ((uint64_t)(SUB_COUNT + bucket % SUB_COUNT + 1) << shift) - 1;
}

static uint64_t
load(const _Atomic uint64_t *at)
{
	return atomic_load_explicit(at, memory_order_relaxed);
}

/* The single writer needs no locked add. */
static void
add(_Atomic uint64_t *at, uint64_t n)
{
	atomic_store_explicit(at, load(at) + n, memory_order_relaxed);
}

void
hist_add(struct hist *hist, uint64_t us)
{
	add(&hist->bucket[hist_bucket_of(us)], 1);
	add(&hist->sum, us);
}

void
hist_merge(struct hist *into, const struct hist *from)
{
	unsigned i;

	for (i = 0; i < HIST_BUCKETS; i++)
		add(&into->bucket[i], load(&from->bucket[i]));
	add(&into->sum, load(&from->sum));
}

uint64_t
hist_count(const struct hist *hist)
{
	uint64_t count = 0;
	unsigned i;

	for (i = 0; i < HIST_BUCKETS; i++)
		count += load(&hist->bucket[i]);
	return count;
}

uint64_t
hist_quantile(const struct hist *hist, double share)
{
	uint64_t counts[HIST_BUCKETS], total = 0, seen = 0;
	unsigned i;

	/* One reading serves the total and the search: they must agree. */
	for (i = 0; i < HIST_BUCKETS; i++)
		total += counts[i] = load(&hist->bucket[i]);
	if (total == 0)
		return 0;
	if (!(share > 0))
		share = 0;
	else if (share > 1)
		share = 1;
	for (i = 0; i < HIST_BUCKETS; i++) {
		seen += counts[i];
		if (seen > 0 && (double)seen >= share * (double)total)
			return hist_bucket_top(i);
	}
	return hist_bucket_top(HIST_BUCKETS - 1);
}
