/* What fuzz targets share: a limit on time, and blocks of exact size. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/*
 * A parser that a peer can stall is a hole, so each call has a limit, in
 * processor time: a busy machine must not fail it. It is generous because
 * sanitizers and coverage slow everything down; what it is there to find is
 * work that grows with the square of the input.
 */
#define FUZZ_LIMIT_MS 2000

static inline uint64_t
fuzz_cpu_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline void
fuzz_check_time(uint64_t began_ms)
{
	check(fuzz_cpu_ms() - began_ms < FUZZ_LIMIT_MS);
}

/* The bytes alone in a block of their own, so that a sanitizer sees a read
 * of one byte more; free() it. */
static inline char *
fuzz_copy(const char *at, size_t len)
{
	char *copy = malloc(len != 0 ? len : 1);

	check(copy != NULL);
	if (len != 0)
		memcpy(copy, at, len);
	return copy;
}

/* Does `part` lie within `whole`? An absent one does. */
static inline int
fuzz_is_within(struct span part, struct span whole)
{
	return part.at == NULL || (part.at >= whole.at &&
	    part.at <= whole.at + whole.len &&
	    part.len <= (size_t)(whole.at + whole.len - part.at));
}

#endif
