/* SCRAM keys derived from passwords, and a cache of them for the process. */
#ifndef AUTH_KEYS_H
#define AUTH_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "auth/scram.h"
#include "base/span.h"

/* Where a derivation is cached. Names that do not exist have a place of their
 * own: whoever makes them up cannot push real users out. */
enum keys_shelf { KEYS_REAL, KEYS_MOCK, KEYS_SHELVES };

#define KEYS_CACHED_MAX 4096		/* on each shelf; least used goes */

/* A question (the spans are borrowed) and its answer. */
struct keys_job {
	enum keys_shelf shelf;
	struct span user, password, salt;
	uint32_t iterations;
	struct scram_keys keys;
	bool has_keys;
};

/* True: the answer was in the cache. Any thread. */
bool keys_find(struct keys_job *job);
/* Works the answer out, in milliseconds and more: on a helper thread. Touches
 * nothing but the job. has_keys stays false if OpenSSL failed. */
void keys_derive(struct keys_job *job);
/* Puts the answer into the cache. Any thread. */
void keys_keep(const struct keys_job *job);
/* Wipes the answer and forgets the question. */
void keys_finish(struct keys_job *job);

void keys_forget_all(void);

#endif
