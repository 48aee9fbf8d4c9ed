/*
 * From settings to an SSL_CTX. One is made per configuration, at start and at
 * RELOAD, and shared by all workers; sessions that were made with it hold
 * a reference and end with the settings they began with.
 *
 * Choices that are not settings:
 *
 * * TLS 1.2 is the least, whatever `protocols` says; "all" means all of
 *   those that are left.
 * * No compression, no renegotiation.
 * * No tickets to clients, as Postgres does it: its drivers open long
 *   connections from short-lived processes and never resume one, so a ticket
 *   would be a serialised session, an encryption and a quarter kilobyte for
 *   nothing, with each handshake.
 * * Sessions with servers are resumed if the server offers it (Postgres does
 *   not, TLS-terminating proxies of hosting companies do). A session is kept
 *   per host and context: what was verified when it was made is then just
 *   what would be verified now.
 * * Buffers are released when idle: 34 KB a connection otherwise.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "net/tls_inside.h"

/* Hosts whose sessions are kept; there are more only by mistake. */
#define RESUMES_MAX 256

#define TLS_OPTIONS (SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | \
	SSL_OP_CIPHER_SERVER_PREFERENCE)

MEM_TYPE(ctx_type, tls_ctx);
MEM_TYPE(resume_type, tls_resume);

const unsigned char tls_alpn[11] = "\012postgresql";

/* PgBouncer's short names, in OpenSSL's words. */
static const struct {
	const char *name, *ciphers;
} cipher_names[] = {
	{ "default", NULL },		/* OpenSSL's own choice */
	{ "secure", "HIGH:!aNULL:!SHA1:!kRSA" },
	{ "normal", "HIGH:!aNULL" },
	{ "fast", "HIGH:!aNULL" },
	{ "compat", "HIGH:MEDIUM:!aNULL" },
	{ "legacy", "HIGH:MEDIUM:!aNULL" },
	{ "all", "ALL:!aNULL:!eNULL" },
	{ "insecure", "ALL:!aNULL:!eNULL" },
};

static const struct {
	const char *name;
	unsigned versions;		/* bit 0 = TLS 1.2, bit 1 = TLS 1.3 */
} protocol_names[] = {
	{ "secure", 3 }, { "default", 3 }, { "all", 3 }, { "legacy", 3 },
	{ "tlsv1", 3 }, { "tlsv1.0", 0 }, { "tlsv1.1", 0 },
	{ "tlsv1.2", 1 }, { "tlsv1.3", 2 },
};

static bool
is_set(const char *text)
{
	return text != NULL && text[0] != '\0';
}

/* Says what OpenSSL was asked to do and what it made of it. */
static bool
refuse(char *why, size_t why_size, const char *what, const char *value)
{
	/* The first error is the cause, the others are its echoes. */
	unsigned long error = ERR_get_error();
	const char *reason = NULL;

	ERR_clear_error();
	if (error != 0)
		reason = ERR_SYSTEM_ERROR(error) ?
		    strerrordesc_np(ERR_GET_REASON(error)) :
		    ERR_reason_error_string(error);
	snprintf(why, why_size, "%s \"%s\": %s", what,
	    value != NULL ? value : "",
	    reason != NULL ? reason : "not accepted");
	return false;
}

static bool
set_protocols(SSL_CTX *ssl, const char *names, char *why, size_t why_size)
{
	struct span rest = span_of(is_set(names) ? names : "secure"), word;
	unsigned versions = 0;

	while (span_next(&rest, ',', &word)) {
		size_t i = 0, count = sizeof(protocol_names) /
		    sizeof(protocol_names[0]);

		while (i < count && !span_is_case(word,
		    protocol_names[i].name))
			i++;
		if (i == count)
			return refuse(why, why_size, "TLS protocols", names);
		versions |= protocol_names[i].versions;
	}
	if (versions == 0) {
		snprintf(why, why_size, "TLS protocols \"%s\": "
		    "tlsv1.2 is the oldest that is spoken", names);
		return false;
	}
	if (SSL_CTX_set_min_proto_version(ssl, (versions & 1) != 0 ?
	    TLS1_2_VERSION : TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_max_proto_version(ssl, (versions & 2) != 0 ?
	    TLS1_3_VERSION : TLS1_2_VERSION) != 1)
		return refuse(why, why_size, "TLS protocols", names);
	return true;
}

/* `no_ecdh` is the curve "none": it can only be said in cipher names. */
static bool
set_ciphers(SSL_CTX *ssl, const struct tls_settings *settings, bool no_ecdh,
    char *why, size_t why_size)
{
	const char *ciphers = settings->ciphers;
	char text[1024];
	int len;

	if (!is_set(ciphers))
		ciphers = NULL;
	for (size_t i = 0; ciphers != NULL && i < sizeof(cipher_names) /
	    sizeof(cipher_names[0]); i++)
		if (strcmp(ciphers, cipher_names[i].name) == 0)
			ciphers = cipher_names[i].ciphers;
	if (ciphers != NULL || no_ecdh) {
		len = snprintf(text, sizeof(text), "%s%s",
		    ciphers != NULL ? ciphers : "DEFAULT",
		    no_ecdh ? ":!kECDHE" : "");
		if (len < 0 || (size_t)len >= sizeof(text) ||
		    SSL_CTX_set_cipher_list(ssl, text) != 1)
			return refuse(why, why_size, "TLS ciphers",
			    settings->ciphers);
	}
	if (is_set(settings->ciphersuites) &&
	    SSL_CTX_set_ciphersuites(ssl, settings->ciphersuites) != 1)
		return refuse(why, why_size, "TLS 1.3 cipher suites",
		    settings->ciphersuites);
	return true;
}

static bool
set_key_exchange(SSL_CTX *ssl, const struct tls_settings *settings,
    char *why, size_t why_size)
{
	const char *curve = settings->ecdh_curve;
	const char *dh = settings->dh_params;
	bool no_ecdh = is_set(curve) && strcmp(curve, "none") == 0;

	if (is_set(curve) && !no_ecdh && strcmp(curve, "auto") != 0 &&
	    SSL_CTX_set1_groups_list(ssl, curve) != 1)
		return refuse(why, why_size, "TLS ecdh curve", curve);
	if (!is_set(dh) || strcmp(dh, "auto") == 0)
		SSL_CTX_set_dh_auto(ssl, 1);
	else if (strcmp(dh, "legacy") == 0)
		SSL_CTX_set_dh_auto(ssl, 2);	/* 1024 bits */
	else if (strcmp(dh, "none") != 0)
		return refuse(why, why_size, "TLS dh parameters", dh);
	return set_ciphers(ssl, settings, no_ecdh, why, why_size);
}

/* A key under a passphrase would ask for it on the terminal. */
static int
no_passphrase(char *text, int size, int rwflag, void *arg)
{
	(void)text;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static bool
load_certificate(SSL_CTX *ssl, const struct tls_settings *settings,
    char *why, size_t why_size)
{
	if (!is_set(settings->cert_file) && !is_set(settings->key_file))
		return true;
	if (!is_set(settings->cert_file) || !is_set(settings->key_file)) {
		snprintf(why, why_size,
		    "a TLS certificate and its key go together");
		return false;
	}
	SSL_CTX_set_default_passwd_cb(ssl, no_passphrase);
	if (SSL_CTX_use_certificate_chain_file(ssl,
	    settings->cert_file) != 1)
		return refuse(why, why_size, "TLS certificate",
		    settings->cert_file);
	if (SSL_CTX_use_PrivateKey_file(ssl, settings->key_file,
	    SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ssl) != 1)
		return refuse(why, why_size, "TLS key", settings->key_file);
	return true;
}

static bool
load_authorities(SSL_CTX *ssl, const struct tls_settings *settings,
    char *why, size_t why_size)
{
	if (!is_set(settings->ca_file)) {
		if (settings->mode < TLS_VERIFY_CA)
			return true;
		snprintf(why, why_size, "verify-ca and verify-full need a "
		    "TLS ca file (\"system\" for the system's)");
		return false;
	}
	if (strcmp(settings->ca_file, "system") == 0)
		return SSL_CTX_set_default_verify_paths(ssl) == 1 ||
		    refuse(why, why_size, "TLS ca file", "system");
	return SSL_CTX_load_verify_file(ssl, settings->ca_file) == 1 ||
	    refuse(why, why_size, "TLS ca file", settings->ca_file);
}

/* Of the hash functions that are too weak SHA-256 takes the place; of those
 * signatures that have none (Ed25519) the RFC says nothing. */
static const EVP_MD *
end_point_digest(X509 *certificate)
{
	int digest, key;

	if (X509_get_signature_info(certificate, &digest, &key, NULL,
	    NULL) != 1 || digest == NID_undef)
		return NULL;
	if (digest == NID_md5 || digest == NID_sha1)
		return EVP_sha256();
	return EVP_get_digestbynid(digest);
}

size_t
tls_certificate_hash(X509 *certificate, unsigned char hash[64])
{
	const EVP_MD *digest = certificate != NULL ?
	    end_point_digest(certificate) : NULL;
	unsigned len = 0;

	_Static_assert(EVP_MAX_MD_SIZE <= 64, "every hash fits");
	if (digest == NULL ||
	    X509_digest(certificate, digest, hash, &len) != 1)
		len = 0;
	ERR_clear_error();
	return len;
}

static bool
ctx_set_up(struct tls_ctx *ctx, const struct tls_settings *settings,
    char *why, size_t why_size)
{
	SSL_CTX_set_options(ctx->ssl, TLS_OPTIONS);
	SSL_CTX_set_mode(ctx->ssl, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(ctx->ssl, 1);
	return set_protocols(ctx->ssl, settings->protocols, why, why_size) &&
	    set_key_exchange(ctx->ssl, settings, why, why_size) &&
	    load_certificate(ctx->ssl, settings, why, why_size) &&
	    load_authorities(ctx->ssl, settings, why, why_size);
}

/*
 * OpenSSL works out what is in a certificate when it is first asked, whichever
 * thread that is. Asked here, it is done before any of them comes.
 */
static void
read_certificates(SSL_CTX *ssl)
{
	STACK_OF(X509) *chain = NULL;
	STACK_OF(X509_OBJECT) *trusted =
	    X509_STORE_get0_objects(SSL_CTX_get_cert_store(ssl));
	X509 *own = SSL_CTX_get0_certificate(ssl);

	if (own != NULL)
		X509_check_purpose(own, -1, 0);
	SSL_CTX_get0_chain_certs(ssl, &chain);
	for (int i = 0; i < sk_X509_num(chain); i++)
		X509_check_purpose(sk_X509_value(chain, i), -1, 0);
	for (int i = 0; i < sk_X509_OBJECT_num(trusted); i++) {
		X509 *one = X509_OBJECT_get0_X509(
		    sk_X509_OBJECT_value(trusted, i));
		if (one != NULL)
			X509_check_purpose(one, -1, 0);
	}
	ERR_clear_error();
}

static struct tls_ctx *
ctx_create(const struct tls_settings *settings, const SSL_METHOD *method,
    char *why, size_t why_size)
{
	struct tls_ctx *ctx = mem_new(&ctx_type);

	ERR_clear_error();
	if (ctx != NULL) {
		ctx->magic = TLS_CTX_MAGIC;
		ctx->refs = 1;
		ctx->mode = settings->mode;
		pthread_mutex_init(&ctx->lock, NULL);
		ctx->ssl = SSL_CTX_new(method);
	}
	if (ctx == NULL || ctx->ssl == NULL) {
		snprintf(why, why_size, "out of memory");
	} else if (ctx_set_up(ctx, settings, why, why_size)) {
		read_certificates(ctx->ssl);
		return ctx;
	}
	tls_ctx_unref(ctx);
	ERR_clear_error();
	return NULL;
}

/* A client that names protocols must name ours, be it a client that speaks
 * TLS at once or one that has asked; as Postgres 17 does. */
static int
select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
    const unsigned char *in, unsigned in_len, void *arg)
{
	unsigned char *chosen = NULL;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, out_len, tls_alpn,
	    sizeof(tls_alpn), in, in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* Where no mode demands one, a rule of auth_hba_file may: those who have one
 * then bring it, and only a bad one is refused. */
static bool
ask_for_client_certificate(struct tls_ctx *ctx, const char *ca_file, char *why,
    size_t why_size)
{
	SSL_CTX *ssl = ctx->ssl;
	STACK_OF(X509_NAME) *names;

	SSL_CTX_set_verify(ssl, tls_ctx_verifies(ctx) ? SSL_VERIFY_PEER |
	    SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_PEER, NULL);
	if (strcmp(ca_file, "system") == 0)
		return true;
	/* Tells the client which of its certificates will do. */
	names = SSL_load_client_CA_file(ca_file);
	if (names == NULL)
		return refuse(why, why_size, "TLS ca file", ca_file);
	SSL_CTX_set_client_CA_list(ssl, names);
	return true;
}

struct tls_ctx *
tls_ctx_create_server(const struct tls_settings *settings, char *why,
    size_t why_size)
{
	struct tls_ctx *ctx;

	if (!is_set(settings->cert_file)) {
		snprintf(why, why_size, "TLS to clients needs a "
		    "certificate and a key");
		return NULL;
	}
	ctx = ctx_create(settings, TLS_server_method(), why, why_size);
	if (ctx == NULL)
		return NULL;
	SSL_CTX_set_options(ctx->ssl, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(ctx->ssl, 0);
	SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_alpn_select_cb(ctx->ssl, select_alpn, NULL);
	if (is_set(settings->ca_file) && !ask_for_client_certificate(ctx,
	    settings->ca_file, why, why_size)) {
		tls_ctx_unref(ctx);
		return NULL;
	}
	ctx->end_point_len = tls_certificate_hash(
	    SSL_CTX_get0_certificate(ctx->ssl), ctx->end_point);
	return ctx;
}

struct tls_ctx *
tls_ctx_create_client(const struct tls_settings *settings, char *why,
    size_t why_size)
{
	struct tls_ctx *ctx;

	/* Anybody can have a certificate of one of the world's authorities;
	 * only the name in it tells one holder from another. */
	if (settings->mode == TLS_VERIFY_CA && is_set(settings->ca_file) &&
	    strcmp(settings->ca_file, "system") == 0) {
		snprintf(why, why_size, "TLS ca file \"system\" proves "
		    "nothing without verify-full");
		return NULL;
	}
	ctx = ctx_create(settings, TLS_client_method(), why, why_size);
	if (ctx == NULL)
		return NULL;
	if (tls_ctx_verifies(ctx))
		SSL_CTX_set_verify(ctx->ssl, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(ctx->ssl,
	    SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx->ssl, tls_link_new_session);
	return ctx;
}

bool
tls_ctx_verifies(const struct tls_ctx *ctx)
{
	return ctx->mode == TLS_VERIFY_CA || ctx->mode == TLS_VERIFY_FULL;
}

struct tls_ctx *
tls_ctx_ref(struct tls_ctx *ctx)
{
	check_magic(ctx, TLS_CTX_MAGIC);
	atomic_fetch_add(&ctx->refs, 1);
	return ctx;
}

void
tls_ctx_unref(struct tls_ctx *ctx)
{
	struct tls_resume *resume, *next;

	if (ctx == NULL)
		return;
	check_magic(ctx, TLS_CTX_MAGIC);
	if (atomic_fetch_sub(&ctx->refs, 1) != 1)
		return;
	for (resume = ctx->resumes; resume != NULL; resume = next) {
		next = resume->next;
		SSL_SESSION_free(resume->session);
		mem_delete(&resume_type, resume);
	}
	SSL_CTX_free(ctx->ssl);
	pthread_mutex_destroy(&ctx->lock);
	mem_delete(&ctx_type, ctx);
}

/* Sessions with servers */

/* Called with the lock held. */
static struct tls_resume *
resume_create(struct tls_ctx *ctx, const char *host)
{
	struct tls_resume *resume;

	if (ctx->resume_count == RESUMES_MAX ||
	    strlen(host) >= sizeof(resume->host))
		return NULL;
	resume = mem_new(&resume_type);
	if (resume == NULL)
		return NULL;
	snprintf(resume->host, sizeof(resume->host), "%s", host);
	resume->next = ctx->resumes;
	ctx->resumes = resume;
	ctx->resume_count++;
	return resume;
}

struct tls_resume *
tls_resume_find(struct tls_ctx *ctx, const char *host)
{
	struct tls_resume *resume;

	if (!is_set(host))
		return NULL;
	pthread_mutex_lock(&ctx->lock);
	resume = ctx->resumes;
	while (resume != NULL && strcmp(resume->host, host) != 0)
		resume = resume->next;
	if (resume == NULL)
		resume = resume_create(ctx, host);
	pthread_mutex_unlock(&ctx->lock);
	return resume;
}

SSL_SESSION *
tls_resume_get(struct tls_ctx *ctx, struct tls_resume *resume)
{
	SSL_SESSION *session;

	pthread_mutex_lock(&ctx->lock);
	session = resume->session;
	if (session != NULL && SSL_SESSION_is_resumable(session))
		SSL_SESSION_up_ref(session);
	else
		session = NULL;
	pthread_mutex_unlock(&ctx->lock);
	return session;
}

void
tls_resume_set(struct tls_ctx *ctx, struct tls_resume *resume,
    SSL_SESSION *session)
{
	SSL_SESSION *old;

	pthread_mutex_lock(&ctx->lock);
	old = resume->session;
	resume->session = session;
	pthread_mutex_unlock(&ctx->lock);
	SSL_SESSION_free(old);
}
