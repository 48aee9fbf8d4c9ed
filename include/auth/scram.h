/* SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: the arithmetic and the messages of
 * both sides. */
#ifndef AUTH_SCRAM_H
#define AUTH_SCRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/secret.h"
#include "base/buf.h"
#include "base/span.h"

#define SCRAM_NAME "SCRAM-SHA-256"
#define SCRAM_PLUS_NAME "SCRAM-SHA-256-PLUS"

#define SCRAM_MESSAGE_MAX 8192		/* bytes, of any message */
#define SCRAM_NONCE_MAX 256		/* characters of the peer's part */
#define SCRAM_NONCE_OWN 24		/* characters of ours: 18 bytes */
#define SCRAM_NONCE_BOTH (SCRAM_NONCE_MAX + SCRAM_NONCE_OWN)
#define SCRAM_ITERATIONS 4096		/* as Postgres makes them */
#define SCRAM_ITERATIONS_MAX 1000000	/* that we let a peer ask of us */
#define SCRAM_END_POINT_MAX 64

struct scram_keys {
	unsigned char client_key[SCRAM_KEY];
	unsigned char stored_key[SCRAM_KEY];	/* the hash of client_key */
	unsigned char server_key[SCRAM_KEY];
};

/* RFC 5802 section 3. Slow (PBKDF2): for a helper thread. */
bool scram_derive_keys(struct span password, struct span salt,
    uint32_t iterations, struct scram_keys *ret);
/* StoredKey of a ClientKey. */
bool scram_hash_client_key(const unsigned char client_key[SCRAM_KEY],
    unsigned char ret_stored_key[SCRAM_KEY]);

/* Base64 as RFC 4648 section 4 has it: padded, canonical, no white space. */
void scram_encode64(struct span bytes, struct buf *out);
bool scram_decode64(struct span text, unsigned char *ret, size_t cap,
    size_t *ret_len);

/*
 * One exchange, on either side. All zeroes but end_point is a fresh one;
 * scram_finish() wipes and frees. The functions below are called in the order
 * in which they stand here, each at most once. False: the exchange has
 * failed and `why` says why (a constant text, with nothing of the peer's).
 */
struct scram {
	/* In: tls-server-end-point (RFC 5929); 0 = no channel binding. */
	unsigned char end_point[SCRAM_END_POINT_MAX];
	size_t end_point_len;

	const char *why;
	char gs2;			/* flag of the GS2 header: n, y, p */
	char nonce[SCRAM_NONCE_BOTH];	/* the client's part, then both */
	size_t nonce_len;
	/* Signed by both proofs: "client-first-bare,server-first,
	 * client-final-without-proof", as far as it has been said. */
	struct buf auth_message;
	unsigned char proof[SCRAM_KEY];

	/* The client's side: what the server asked for. */
	unsigned char salt[SCRAM_SALT_MAX];
	size_t salt_len;
	uint32_t iterations;
};

void scram_finish(struct scram *scram);

/* Server. Offers what goes into AuthenticationSASL. */
void scram_offer(const struct scram *scram, struct buf *out);
bool scram_read_client_first(struct scram *scram, struct span mechanism,
    struct span message);
bool scram_write_server_first(struct scram *scram, struct span salt,
    uint32_t iterations, struct buf *out);
/* The nonces and the channel binding are right; the proof is still to be
 * checked. */
bool scram_read_client_final(struct scram *scram, struct span message);
bool scram_check_proof(struct scram *scram,
    const unsigned char stored_key[SCRAM_KEY],
    unsigned char ret_client_key[SCRAM_KEY]);
bool scram_write_server_final(struct scram *scram,
    const unsigned char server_key[SCRAM_KEY], struct buf *out);

/* Client. `mechanisms` is AuthenticationSASL's list; the best one is chosen,
 * NULL if there is none that we speak. */
enum scram_transport { SCRAM_OVER_TLS, SCRAM_IN_CLEAR };
const char *scram_choose(struct scram *scram, struct span mechanisms,
    enum scram_transport transport);
bool scram_write_client_first(struct scram *scram, struct buf *out);
/* Sets salt and iterations. */
bool scram_read_server_first(struct scram *scram, struct span message);
bool scram_write_client_final(struct scram *scram,
    const unsigned char client_key[SCRAM_KEY], struct buf *out);
/* server_key NULL: not known, the signature goes unchecked. */
bool scram_read_server_final(struct scram *scram, struct span message,
    const unsigned char *server_key);

#endif
