/* What tls.c and tls_ctx.c share: the two know OpenSSL, nobody else does. */
#ifndef NET_TLS_INSIDE_H
#define NET_TLS_INSIDE_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "net/tls.h"

#define TLS_CTX_MAGIC 0x746c7363u

/* What resumes the last session with a host; lives as long as its context. */
struct tls_resume {
	struct tls_resume *next;
	SSL_SESSION *session;		/* NULL = none yet */
	char host[256];
};

struct tls_ctx {
	uint32_t magic;
	_Atomic unsigned refs;
	SSL_CTX *ssl;
	enum tls_mode mode;
	/* tls-server-end-point of our own certificate (RFC 5929, section 4),
	 * the same for all who come. */
	unsigned char end_point[64];
	size_t end_point_len;		/* 0 = none */
	pthread_mutex_t lock;		/* of what follows; workers share it */
	struct tls_resume *resumes;
	unsigned resume_count;
};

/* Postgres' name in ALPN, with its length in front. */
extern const unsigned char tls_alpn[11];

/* For channel binding; 0: there is none for this certificate, or NULL. */
size_t tls_certificate_hash(X509 *certificate, unsigned char hash[64]);
bool tls_ctx_verifies(const struct tls_ctx *ctx);
/* NULL: none for this host, and none can be kept. */
struct tls_resume *tls_resume_find(struct tls_ctx *ctx, const char *host);
/* The session to try, for SSL_set_session(); NULL = none. The caller's. */
SSL_SESSION *tls_resume_get(struct tls_ctx *ctx, struct tls_resume *resume);
/* Takes over the session. */
void tls_resume_set(struct tls_ctx *ctx, struct tls_resume *resume,
    SSL_SESSION *session);

/* tls.c: the server sent a session. 1 = taken over. */
int tls_link_new_session(SSL *ssl, SSL_SESSION *session);

#endif
