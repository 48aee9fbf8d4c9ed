/*
 * All that auth has of OpenSSL.
 *
 * A login over SCRAM with a stored verifier is three HMACs and a hash of 32
 * bytes: microseconds, if OpenSSL 3 does not look the algorithms up by name
 * each time, which costs as much as the arithmetic. So they are fetched once,
 * and an HMAC starts as a copy of a context that knows its hash already.
 */
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>

#include "auth/digest.h"

/* Fetched at the first use, kept for good; written by digest_fetch() only. */
static struct {
	pthread_once_t once;
	EVP_MD *sha256;
	EVP_MD *md5;			/* NULL where it is forbidden */
	EVP_MAC_CTX *hmac;		/* with its hash, without a key */
	unsigned char secret[DIGEST_SHA256];	/* digest_private()'s key */
	bool ready;			/* all but md5 */
} digest = { .once = PTHREAD_ONCE_INIT };

static _Atomic(bool (*)(unsigned char *, size_t)) random_source;

static void
digest_fetch(void)
{
	char hash[] = "SHA256";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
		    hash, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);

	digest.sha256 = EVP_MD_fetch(NULL, hash, NULL);
	digest.md5 = EVP_MD_fetch(NULL, "MD5", NULL);
	digest.hmac = mac != NULL ? EVP_MAC_CTX_new(mac) : NULL;
	EVP_MAC_free(mac);		/* the context holds its own */
	digest.ready = digest.sha256 != NULL && digest.hmac != NULL &&
	    EVP_MAC_CTX_set_params(digest.hmac, params) == 1 &&
	    RAND_priv_bytes(digest.secret, sizeof(digest.secret)) == 1;
}

static bool
digest_is_ready(void)
{
	pthread_once(&digest.once, digest_fetch);
	return digest.ready;
}

static const unsigned char *
bytes(struct span s)
{
	return (const unsigned char *)s.at;
}

static bool
digest_two(const EVP_MD *md, struct span a, struct span b,
    unsigned char *ret)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool good = ctx != NULL && md != NULL &&
	    EVP_DigestInit_ex2(ctx, md, NULL) == 1 &&
	    EVP_DigestUpdate(ctx, a.at, a.len) == 1 &&
	    EVP_DigestUpdate(ctx, b.at, b.len) == 1 &&
	    EVP_DigestFinal_ex(ctx, ret, NULL) == 1;

	EVP_MD_CTX_free(ctx);
	return good;
}

bool
digest_sha256(struct span text, unsigned char ret[DIGEST_SHA256])
{
	return digest_is_ready() &&
	    digest_two(digest.sha256, text, SPAN_NONE, ret);
}

bool
digest_md5(struct span a, struct span b, unsigned char ret[DIGEST_MD5])
{
	return digest_is_ready() && digest_two(digest.md5, a, b, ret);
}

/* A context keyed and ready for text, or NULL. */
static EVP_MAC_CTX *
hmac_begin(struct span key)
{
	EVP_MAC_CTX *ctx = digest_is_ready() ?
	    EVP_MAC_CTX_dup(digest.hmac) : NULL;

	if (ctx != NULL && EVP_MAC_init(ctx, bytes(key), key.len, NULL) != 1) {
		EVP_MAC_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

static bool
hmac_end(EVP_MAC_CTX *ctx, bool good, unsigned char ret[DIGEST_SHA256])
{
	size_t len = 0;

	good = good && ctx != NULL &&
	    EVP_MAC_final(ctx, ret, &len, DIGEST_SHA256) == 1 &&
	    len == DIGEST_SHA256;
	EVP_MAC_CTX_free(ctx);		/* wipes the key */
	return good;
}

bool
digest_hmac(struct span key, struct span text,
    unsigned char ret[DIGEST_SHA256])
{
	EVP_MAC_CTX *ctx = hmac_begin(key);
	bool good = ctx != NULL &&
	    EVP_MAC_update(ctx, bytes(text), text.len) == 1;

	return hmac_end(ctx, good, ret);
}

bool
digest_private(const struct span *parts, size_t count,
    unsigned char ret[DIGEST_SHA256])
{
	EVP_MAC_CTX *ctx = NULL;
	bool good;
	size_t i;

	if (digest_is_ready())
		ctx = hmac_begin((struct span){
		    (const char *)digest.secret, sizeof(digest.secret) });
	good = ctx != NULL;
	for (i = 0; good && i < count; i++) {
		uint64_t len = parts[i].len;

		good = EVP_MAC_update(ctx, (const unsigned char *)&len,
		    sizeof(len)) == 1 && EVP_MAC_update(ctx,
		    bytes(parts[i]), parts[i].len) == 1;
	}
	return hmac_end(ctx, good, ret);
}

bool
digest_pbkdf2(struct span password, struct span salt, uint32_t iterations,
    unsigned char ret[DIGEST_SHA256])
{
	if (!digest_is_ready() || password.len > INT32_MAX ||
	    salt.len > INT32_MAX || iterations < 1 || iterations > INT32_MAX)
		return false;
	return PKCS5_PBKDF2_HMAC(password.at, (int)password.len, bytes(salt),
	    (int)salt.len, (int)iterations, digest.sha256, DIGEST_SHA256,
	    ret) == 1;
}

bool
digest_random(void *at, size_t len)
{
	bool (*source)(unsigned char *, size_t) = atomic_load(&random_source);

	if (source != NULL)
		return source(at, len);
	/* The kernel's own, in one piece up to this length: OpenSSL's generator
	 * takes seven times as long for the few bytes that a login needs. */
	return len <= 256 && getrandom(at, len, 0) == (ssize_t)len;
}

void
digest_set_random(bool (*source)(unsigned char *at, size_t len))
{
	atomic_store(&random_source, source);
}

bool
digest_equal(const void *a, const void *b, size_t len)
{
	return CRYPTO_memcmp(a, b, len) == 0;
}
