/* A log-linear histogram of durations: 8 buckets an octave, 0 us to 1 h. */
#ifndef STAT_HIST_H
#define STAT_HIST_H

#include <stdint.h>

#define HIST_BUCKETS 256

/* Single writer, any reader, like stat_block. */
struct hist {
	_Atomic uint64_t bucket[HIST_BUCKETS];
	_Atomic uint64_t sum;
};

void hist_add(struct hist *hist, uint64_t us);
/* Adds `from` to `into`. */
void hist_merge(struct hist *into, const struct hist *from);
uint64_t hist_count(const struct hist *hist);
/* The value below which `share` (0..1) of the entries lie; 0 when empty. */
uint64_t hist_quantile(const struct hist *hist, double share);
unsigned hist_bucket_of(uint64_t us);
uint64_t hist_bucket_top(unsigned bucket);	/* its largest value, us */

#endif
