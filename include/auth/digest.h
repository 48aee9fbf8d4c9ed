/* Hashes, random bytes, constant-time comparison: all that auth has of
 * OpenSSL. */
#ifndef AUTH_DIGEST_H
#define AUTH_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define DIGEST_SHA256 32		/* bytes */
#define DIGEST_MD5 16

/* Any thread. False: OpenSSL failed (no memory, or the algorithm is not to be
 * had, as MD5 under FIPS); then nothing may be concluded from *ret. */
bool digest_sha256(struct span text, unsigned char ret[DIGEST_SHA256]);
bool digest_md5(struct span a, struct span b, unsigned char ret[DIGEST_MD5]);
bool digest_hmac(struct span key, struct span text,
    unsigned char ret[DIGEST_SHA256]);
/* PBKDF2-HMAC-SHA-256, one block: milliseconds, so never on a loop. */
bool digest_pbkdf2(struct span password, struct span salt,
    uint32_t iterations, unsigned char ret[DIGEST_SHA256]);

/*
 * HMAC of the parts, told apart by their lengths, with a key that this
 * process drew at random and shows to nobody: gives values that look random
 * to others and are the same each time.
 */
bool digest_private(const struct span *parts, size_t count,
    unsigned char ret[DIGEST_SHA256]);

bool digest_random(void *at, size_t len);
/* Tests: another source of random bytes; NULL = the real one. */
void digest_set_random(bool (*source)(unsigned char *at, size_t len));

/* Takes the same time wherever the first difference is. */
bool digest_equal(const void *a, const void *b, size_t len);

#endif
