/* TLS by OpenSSL: contexts from settings, and what a session asks of them. */
#ifndef NET_TLS_H
#define NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "net/stream.h"

enum tls_mode {
	TLS_DISABLE, TLS_ALLOW, TLS_PREFER, TLS_REQUIRE, TLS_VERIFY_CA,
	TLS_VERIFY_FULL,
};

/* PgBouncer's client_tls_* / server_tls_* settings. NULL or "" = none. */
struct tls_settings {
	enum tls_mode mode;
	const char *key_file, *cert_file, *ca_file;	/* ca "system": OS's */
	const char *protocols;		/* "secure", "all", "tlsv1.2,tlsv1.3" */
	const char *ciphers;		/* TLS 1.2 and below; "default" ... */
	const char *ciphersuites;	/* TLS 1.3 */
	const char *ecdh_curve;		/* "auto", "none", name */
	const char *dh_params;		/* "auto", "none", "legacy" */
};

/* Immutable, reference-counted; a reload makes a new one and old sessions
 * keep theirs. NULL on failure, with a text in why. */
struct tls_ctx;
struct tls_ctx *tls_ctx_create_server(const struct tls_settings *settings,
    char *why, size_t why_size);	/* we are the TLS server (clients) */
struct tls_ctx *tls_ctx_create_client(const struct tls_settings *settings,
    char *why, size_t why_size);	/* we are the TLS client (servers) */
struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx);
void tls_ctx_unref(struct tls_ctx *ctx);

/* How TLS begins: behind an answered SSLRequest, or at once with ALPN
 * "postgresql" (where ALPN is then mandatory, as in Postgres 17). */
enum tls_start { TLS_NEGOTIATED, TLS_DIRECT };

/*
 * Starts TLS on an open stream; on_open (with STREAM_OPEN) or on_close
 * (STREAM_TLS_FAILED) follows. For accept, `held` must be empty with
 * TLS_NEGOTIATED (bytes stuffed behind an SSLRequest) and is fed to the
 * handshake with TLS_DIRECT. `host` is the name for SNI and for verify-full.
 * False: out of memory, or bytes stuffed.
 */
bool stream_start_tls_accept(struct stream *s, struct tls_ctx *ctx,
    enum tls_start start);
bool stream_start_tls_connect(struct stream *s, struct tls_ctx *ctx,
    enum tls_start start, const char *host);

/* "TLSv1.3/TLS_AES_256_GCM_SHA384"; "" when plain. */
const char *stream_tls_version(const struct stream *s, char *text,
    size_t size);
/* What went wrong with TLS, for the log. */
const char *stream_tls_error(const struct stream *s);
/* Was the server's certificate verified (verify-ca, verify-full)? */
bool stream_tls_is_verified(const struct stream *s);
/* Was an earlier session taken up again? */
bool stream_tls_is_resumed(const struct stream *s);
/*
 * Channel binding data tls-server-end-point (RFC 5929 4.1): hash of the
 * server's certificate, our own or the peer's; up to 64 bytes; 0 = none.
 */
size_t stream_tls_end_point(const struct stream *s, unsigned char hash[64]);
/* The peer certificate's common name; false: no (verified) certificate. */
bool stream_tls_peer_name(const struct stream *s, char *name, size_t size);

#endif
