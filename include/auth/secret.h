/* What proves an identity: the forms in which a secret is kept. */
#ifndef AUTH_SECRET_H
#define AUTH_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define SCRAM_KEY 32			/* SHA-256 */
#define SCRAM_SALT_MAX 64
#define SECRET_TEXT_MAX 65535		/* bytes */

enum secret_kind {
	SECRET_NONE,			/* nobody can log in with it */
	SECRET_PLAIN,			/* the password itself */
	SECRET_MD5,			/* "md5" + 32 hex digits */
	SECRET_SCRAM,			/* a verifier as in pg_authid */
	SECRET_KEYS,			/* ClientKey (pass-through), no salt */
	/* What an empty text parses to is NONE: no password is empty. */
};

/* No pointers but text: wiped and freed by secret_finish(). */
struct secret {
	enum secret_kind kind;
	char *text;			/* PLAIN, MD5: NUL-terminated */
	uint32_t iterations;		/* SCRAM */
	unsigned char salt[SCRAM_SALT_MAX];
	size_t salt_len;
	unsigned char stored_key[SCRAM_KEY], server_key[SCRAM_KEY];
	unsigned char client_key[SCRAM_KEY];	/* KEYS */
	bool has_client_key;
	bool has_server_key;		/* SCRAM: always; KEYS: when known */
};

/* Parses what stands in auth_file or pg_authid.rolpassword: "md5..." and
 * "SCRAM-SHA-256$..." are recognised, everything else is a plain password.
 * False: out of memory, a malformed verifier, or a NUL in the text. */
bool secret_parse(struct span text, struct secret *ret);
/* The text of a PLAIN or MD5 secret; SPAN_NONE of the others. */
struct span secret_text(const struct secret *secret);
/* A plain password, whatever it looks like. False: out of memory, empty, too
 * long, or a NUL in it. */
bool secret_make_plain(struct span password, struct secret *ret);
bool secret_copy(struct secret *to, const struct secret *from);
void secret_finish(struct secret *secret);
/* Do the two prove the same password? (same kind and content) */
bool secret_equal(const struct secret *a, const struct secret *b);

#endif
