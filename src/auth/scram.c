/*
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), both sides. No
 * I/O, no states: login.c and server_login.c call the steps in order.
 *
 *	client                                      server
 *	client-first   n,,n=,r=<cnonce>          ->
 *	            <- r=<cnonce><snonce>,s=<salt>,i=<count>  server-first
 *	client-final   c=<binding>,r=<both>,p=<proof>  ->
 *	            <- v=<signature>                          server-final
 *
 *	SaltedPassword  = PBKDF2(password, salt, count)
 *	ClientKey       = HMAC(SaltedPassword, "Client Key")
 *	StoredKey       = SHA256(ClientKey)
 *	ServerKey       = HMAC(SaltedPassword, "Server Key")
 *	proof           = ClientKey XOR HMAC(StoredKey, AuthMessage)
 *	signature       = HMAC(ServerKey, AuthMessage)
 *
 * A server keeps StoredKey and ServerKey, the verifier. It takes the ClientKey
 * out of a good proof, which is what lets a pooler log in elsewhere as this
 * user without ever having seen the password.
 *
 * Channel binding: the flag in front of client-first is 'p' when the client
 * binds the exchange to the certificate it saw, 'y' when it would have done
 * so had the server offered it, 'n' when it cannot. A 'y' to a server that
 * did offer it means that somebody in between cut the offer out.
 *
 * As in Postgres the user name in client-first is not looked at (the startup
 * packet had it; drivers send "", "*" or the name, not all of them escaped),
 * an authorization identity and mandatory extensions are refused, optional
 * extensions are signed but mean nothing.
 *
 * The password should go through SASLprep (RFC 4013) first. For ASCII that
 * changes nothing. Other passwords are taken as the bytes they are: right for
 * composed letters, as keyboards produce them, and for what is no UTF-8 at
 * all, but different from Postgres for a full-width letter, a non-breaking
 * space or a letter followed by its accent. A password with one of these does
 * not match when it is kept plain; as a verifier it does, for then it is the
 * client that prepares it.
 */
#include <string.h>

#include "auth/digest.h"
#include "auth/scram.h"
#include "base/check.h"
#include "base/mem.h"
#include "wire/body.h"

#define BINDING_TYPE "tls-server-end-point"

static struct span
key_span(const unsigned char key[SCRAM_KEY])
{
	return (struct span){ (const char *)key, SCRAM_KEY };
}

bool
scram_hash_client_key(const unsigned char client_key[SCRAM_KEY],
    unsigned char ret_stored_key[SCRAM_KEY])
{
	return digest_sha256(key_span(client_key), ret_stored_key);
}

bool
scram_derive_keys(struct span password, struct span salt,
    uint32_t iterations, struct scram_keys *ret)
{
	unsigned char salted[SCRAM_KEY];
	bool good;

	good = digest_pbkdf2(password, salt, iterations, salted) &&
	    digest_hmac(key_span(salted), SPAN("Client Key"),
	    ret->client_key) &&
	    digest_hmac(key_span(salted), SPAN("Server Key"),
	    ret->server_key) &&
	    scram_hash_client_key(ret->client_key, ret->stored_key);
	mem_wipe(salted, sizeof(salted));
	return good;
}

static const char digits64[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void
scram_encode64(struct span text, struct buf *out)
{
	const unsigned char *at = (const unsigned char *)text.at;
	size_t left;

	for (left = text.len; left > 0; ) {
		size_t n = left < 3 ? left : 3;
		uint32_t group = (uint32_t)at[0] << 16;
		char four[4];

		if (n > 1)
			group |= (uint32_t)at[1] << 8;
		if (n > 2)
			group |= at[2];
		four[0] = digits64[group >> 18];
		four[1] = digits64[group >> 12 & 63];
		four[2] = n > 1 ? digits64[group >> 6 & 63] : '=';
		four[3] = n > 2 ? digits64[group & 63] : '=';
		buf_add(out, four, sizeof(four));
		at += n;
		left -= n;
	}
}

static int
value64(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool
scram_decode64(struct span text, unsigned char *ret, size_t cap,
    size_t *ret_len)
{
	size_t padding = 0, len, made = 0, i;
	uint32_t bits = 0;

	if (text.len % 4 != 0)
		return false;
	while (padding < 2 && padding < text.len &&
	    text.at[text.len - 1 - padding] == '=')
		padding++;
	len = text.len / 4 * 3 - padding;
	if (len > cap)
		return false;
	for (i = 0; i < text.len; i++) {
		int value = i < text.len - padding ? value64(text.at[i]) : 0;

		if (value < 0)
			return false;
		bits = bits << 6 | (uint32_t)value;
		if (i % 4 != 3)
			continue;
		for (int shift = 16; shift >= 0; shift -= 8)
			if (made < len)
				ret[made++] = (unsigned char)(bits >> shift);
			else if ((bits >> shift & 255) != 0)
				return false;	/* bits behind the end */
		bits = 0;
	}
	*ret_len = len;
	return true;
}

void
scram_finish(struct scram *scram)
{
	buf_finish(&scram->auth_message);
	mem_wipe(scram, sizeof(*scram));
}

static bool
scram_fail(struct scram *scram, const char *why)
{
	scram->why = why;
	return false;
}

/* What every message must be before it is looked at. */
static bool
scram_message_is_sane(struct scram *scram, struct span message)
{
	if (message.len == 0)
		return scram_fail(scram, "empty SCRAM message");
	if (message.len > SCRAM_MESSAGE_MAX)
		return scram_fail(scram, "SCRAM message too long");
	if (memchr(message.at, '\0', message.len) != NULL)
		return scram_fail(scram, "SCRAM message holds a NUL");
	return true;
}

/*
 * Cuts "<letter>=<value>" off *rest, with the comma behind it. With the last
 * one *rest becomes SPAN_NONE, while a comma at the very end leaves an empty
 * text that is not SPAN_NONE: something should have followed.
 */
static bool
cut_any(struct span *rest, char *ret_name, struct span *ret_value)
{
	const char *comma;

	if (rest->len < 2 || rest->at[1] != '=' ||
	    !((rest->at[0] | 0x20) >= 'a' && (rest->at[0] | 0x20) <= 'z'))
		return false;
	*ret_name = rest->at[0];
	ret_value->at = rest->at + 2;
	ret_value->len = rest->len - 2;
	comma = memchr(ret_value->at, ',', ret_value->len);
	if (comma == NULL) {
		*rest = SPAN_NONE;
		return true;
	}
	ret_value->len = (size_t)(comma - ret_value->at);
	rest->len -= ret_value->len + 3;
	rest->at = comma + 1;
	return true;
}

static bool
cut_named(struct span *rest, char name, struct span *ret_value)
{
	char found;

	return rest->len > 0 && rest->at[0] == name &&
	    cut_any(rest, &found, ret_value);
}

/* RFC 5802's "printable": no blank, no comma, no control character. */
static bool
nonce_is_good(struct span nonce, size_t max)
{
	size_t i;

	if (nonce.len == 0 || nonce.len > max)
		return false;
	for (i = 0; i < nonce.len; i++)
		if (nonce.at[i] <= ' ' || nonce.at[i] > '~' ||
		    nonce.at[i] == ',')
			return false;
	return true;
}

static void
scram_set_nonce(struct scram *scram, struct span nonce)
{
	check(nonce.len <= sizeof(scram->nonce));
	memcpy(scram->nonce, nonce.at, nonce.len);
	scram->nonce_len = nonce.len;
}

/* Appends fresh random characters to the nonce. */
static bool
scram_add_nonce(struct scram *scram)
{
	unsigned char random[SCRAM_NONCE_OWN / 4 * 3];
	struct buf text = { 0 };
	bool good;

	good = digest_random(random, sizeof(random));
	if (good)
		scram_encode64((struct span){ (const char *)random,
		    sizeof(random) }, &text);
	good = good && !text.failed &&
	    text.len <= sizeof(scram->nonce) - scram->nonce_len;
	if (good) {
		memcpy(scram->nonce + scram->nonce_len, text.at, text.len);
		scram->nonce_len += text.len;
	}
	buf_finish(&text);
	return good || scram_fail(scram, "no random bytes or no memory");
}

static struct span
scram_nonce(const struct scram *scram)
{
	return (struct span){ scram->nonce, scram->nonce_len };
}

/* The next part of what both sides will sign. */
static bool
scram_sign_also(struct scram *scram, struct span text)
{
	if (scram->auth_message.len != 0)
		buf_add(&scram->auth_message, ",", 1);
	buf_add_span(&scram->auth_message, text);
	return !scram->auth_message.failed ||
	    scram_fail(scram, "out of memory");
}

static bool
scram_sign(struct scram *scram, const unsigned char key[SCRAM_KEY],
    unsigned char ret[SCRAM_KEY])
{
	return digest_hmac(key_span(key), buf_span(&scram->auth_message),
	    ret) || scram_fail(scram, "HMAC failed");
}

/* "n,,", "y,," or "p=tls-server-end-point,,". */
static void
write_gs2_header(const struct scram *scram, struct buf *out)
{
	buf_add(out, &scram->gs2, 1);
	if (scram->gs2 == 'p')
		buf_add_text(out, "=" BINDING_TYPE);
	buf_add_text(out, ",,");
}

/* The value of "c=": the GS2 header again, with the binding's data. */
static void
write_binding(const struct scram *scram, struct buf *out)
{
	struct buf raw = { 0 };

	write_gs2_header(scram, &raw);
	if (scram->gs2 == 'p')
		buf_add(&raw, scram->end_point, scram->end_point_len);
	scram_encode64(buf_span(&raw), out);
	out->failed |= raw.failed;
	buf_finish(&raw);
}

/* ---- the server's side ---- */

void
scram_offer(const struct scram *scram, struct buf *out)
{
	if (scram->end_point_len != 0)
		buf_add(out, SCRAM_PLUS_NAME, sizeof(SCRAM_PLUS_NAME));
	buf_add(out, SCRAM_NAME, sizeof(SCRAM_NAME));
	buf_add(out, "", 1);
}

/* The flag against what was offered and chosen. */
static bool
scram_check_flag(struct scram *scram, struct span mechanism)
{
	bool plus = span_is(mechanism, SCRAM_PLUS_NAME);

	if (plus ? scram->end_point_len == 0 : !span_is(mechanism, SCRAM_NAME))
		return scram_fail(scram, "SASL mechanism was not offered");
	if (scram->gs2 == 'p' && !plus)
		return scram_fail(scram,
		    "channel binding with a mechanism that has none");
	if (scram->gs2 != 'p' && plus)
		return scram_fail(scram,
		    "SCRAM-SHA-256-PLUS without channel binding");
	if (scram->gs2 == 'y' && scram->end_point_len != 0)
		return scram_fail(scram, "client did not see the offer of "
		    "channel binding: somebody may be in between");
	return true;
}

/* Reads the GS2 header; *rest becomes client-first-bare. */
static bool
scram_read_gs2_header(struct scram *scram, struct span *rest)
{
	static const char bound[] = "p=" BINDING_TYPE ",";
	size_t len = 2;

	scram->gs2 = rest->at[0];
	if (scram->gs2 == 'p') {
		len = sizeof(bound) - 1;
		if (rest->len < len || memcmp(rest->at, bound, len) != 0)
			return scram_fail(scram,
			    "unknown type of channel binding");
	} else if ((scram->gs2 != 'n' && scram->gs2 != 'y') ||
	    rest->len < len || rest->at[1] != ',') {
		return scram_fail(scram, "malformed channel binding flag");
	}
	rest->at += len;
	rest->len -= len;
	if (rest->len > 0 && rest->at[0] == 'a')
		return scram_fail(scram,
		    "an authorization identity is not supported");
	if (rest->len == 0 || rest->at[0] != ',')
		return scram_fail(scram, "malformed GS2 header");
	rest->at++;
	rest->len--;
	return true;
}

/* Any number of optional extensions up to the end, or up to "p=". */
static bool
scram_skip_extensions(struct scram *scram, struct span *rest)
{
	struct span value;
	char name;

	while (rest->at != NULL && !(rest->len > 0 && rest->at[0] == 'p')) {
		if (!cut_any(rest, &name, &value))
			return scram_fail(scram, "malformed attribute");
		if (name == 'm')
			return scram_fail(scram,
			    "a mandatory extension is not supported");
	}
	return true;
}

bool
scram_read_client_first(struct scram *scram, struct span mechanism,
    struct span message)
{
	struct span rest = message, bare, user, nonce;

	if (!scram_message_is_sane(scram, message) ||
	    !scram_read_gs2_header(scram, &rest) ||
	    !scram_check_flag(scram, mechanism))
		return false;
	bare = rest;
	if (rest.len > 0 && rest.at[0] == 'm')
		return scram_fail(scram,
		    "a mandatory extension is not supported");
	if (!cut_named(&rest, 'n', &user) || !cut_named(&rest, 'r', &nonce))
		return scram_fail(scram, "malformed client-first-message");
	if (!nonce_is_good(nonce, SCRAM_NONCE_MAX))
		return scram_fail(scram, "bad nonce");
	if (!scram_skip_extensions(scram, &rest))
		return false;
	if (rest.at != NULL)
		return scram_fail(scram, "malformed client-first-message");
	scram_set_nonce(scram, nonce);
	return scram_sign_also(scram, bare);
}

bool
scram_write_server_first(struct scram *scram, struct span salt,
    uint32_t iterations, struct buf *out)
{
	size_t began = out->len;

	if (!scram_add_nonce(scram))
		return false;
	buf_add_text(out, "r=");
	buf_add_span(out, scram_nonce(scram));
	buf_add_text(out, ",s=");
	scram_encode64(salt, out);
	buf_printf(out, ",i=%u", (unsigned)iterations);
	if (out->failed)
		return scram_fail(scram, "out of memory");
	return scram_sign_also(scram,
	    (struct span){ out->at + began, out->len - began });
}

/* Does "c=" say what the GS2 header said and what our certificate is? */
static bool
scram_check_binding(struct scram *scram, struct span value)
{
	struct buf right = { 0 };
	bool same;

	write_binding(scram, &right);
	same = !right.failed && span_eq(buf_span(&right), value);
	buf_finish(&right);
	return same || scram_fail(scram, "channel binding check failed");
}

bool
scram_read_client_final(struct scram *scram, struct span message)
{
	struct span rest = message, binding, nonce, proof;
	struct span without_proof;
	size_t len;

	if (!scram_message_is_sane(scram, message))
		return false;
	if (!cut_named(&rest, 'c', &binding) ||
	    !cut_named(&rest, 'r', &nonce))
		return scram_fail(scram, "malformed client-final-message");
	if (!scram_skip_extensions(scram, &rest))
		return false;
	if (rest.at == NULL)
		return scram_fail(scram, "malformed client-final-message");
	without_proof.at = message.at;
	without_proof.len = (size_t)(rest.at - message.at) - 1;
	if (!cut_named(&rest, 'p', &proof) || rest.at != NULL ||
	    !scram_decode64(proof, scram->proof, SCRAM_KEY, &len) ||
	    len != SCRAM_KEY)
		return scram_fail(scram, "malformed proof");
	if (!scram_check_binding(scram, binding))
		return false;
	if (!span_eq(nonce, scram_nonce(scram)))
		return scram_fail(scram, "nonce does not match");
	return scram_sign_also(scram, without_proof);
}

bool
scram_check_proof(struct scram *scram,
    const unsigned char stored_key[SCRAM_KEY],
    unsigned char ret_client_key[SCRAM_KEY])
{
	unsigned char key[SCRAM_KEY], hash[SCRAM_KEY];
	bool good;
	size_t i;

	if (!scram_sign(scram, stored_key, key))
		return false;
	for (i = 0; i < SCRAM_KEY; i++)
		key[i] ^= scram->proof[i];
	good = scram_hash_client_key(key, hash) &&
	    digest_equal(hash, stored_key, SCRAM_KEY);
	if (good)
		memcpy(ret_client_key, key, SCRAM_KEY);
	mem_wipe(key, sizeof(key));
	return good || scram_fail(scram, "wrong password");
}

bool
scram_write_server_final(struct scram *scram,
    const unsigned char server_key[SCRAM_KEY], struct buf *out)
{
	unsigned char signature[SCRAM_KEY];

	if (!scram_sign(scram, server_key, signature))
		return false;
	buf_add_text(out, "v=");
	scram_encode64(key_span(signature), out);
	return !out->failed || scram_fail(scram, "out of memory");
}

/* ---- the client's side ---- */

const char *
scram_choose(struct scram *scram, struct span mechanisms,
    enum scram_transport transport)
{
	struct body list = body_of(mechanisms);
	bool plain = false, plus = false;
	struct span name;

	for (name = body_text(&list); name.len != 0; name = body_text(&list)) {
		plain |= span_is(name, SCRAM_NAME);
		plus |= span_is(name, SCRAM_PLUS_NAME);
	}
	scram->gs2 = 'n';
	if (!body_is_done(&list)) {
		scram->why = "malformed list of SASL mechanisms";
	} else if (plus && transport == SCRAM_IN_CLEAR) {
		scram->why = "server offers channel binding without TLS";
	} else if (plus && scram->end_point_len != 0) {
		scram->gs2 = 'p';
		return SCRAM_PLUS_NAME;
	} else if (plain) {
		if (transport == SCRAM_OVER_TLS && scram->end_point_len != 0)
			scram->gs2 = 'y';
		return SCRAM_NAME;
	} else {
		scram->why = "no SASL mechanism of the server's is supported";
	}
	return NULL;
}

bool
scram_write_client_first(struct scram *scram, struct buf *out)
{
	size_t bare;

	if (!scram_add_nonce(scram))
		return false;
	write_gs2_header(scram, out);
	bare = out->len;
	buf_add_text(out, "n=,r=");
	buf_add_span(out, scram_nonce(scram));
	if (out->failed)
		return scram_fail(scram, "out of memory");
	return scram_sign_also(scram,
	    (struct span){ out->at + bare, out->len - bare });
}

/* Ours with something behind it: else this is a replay. */
static bool
scram_nonce_goes_on(const struct scram *scram, struct span nonce)
{
	return nonce.len > scram->nonce_len &&
	    memcmp(nonce.at, scram->nonce, scram->nonce_len) == 0 &&
	    nonce_is_good(nonce, SCRAM_NONCE_BOTH);
}

bool
scram_read_server_first(struct scram *scram, struct span message)
{
	struct span rest = message, nonce, salt, iterations;
	uint64_t number;

	if (!scram_message_is_sane(scram, message))
		return false;
	if (message.at[0] == 'm')
		return scram_fail(scram,
		    "a mandatory extension is not supported");
	if (!cut_named(&rest, 'r', &nonce) || !cut_named(&rest, 's', &salt) ||
	    !cut_named(&rest, 'i', &iterations) || rest.at != NULL)
		return scram_fail(scram, "malformed server-first-message");
	if (!scram_nonce_goes_on(scram, nonce))
		return scram_fail(scram, "nonce does not match");
	if (!scram_decode64(salt, scram->salt, sizeof(scram->salt),
	    &scram->salt_len) || scram->salt_len == 0)
		return scram_fail(scram, "bad salt");
	if (!span_parse_u64(iterations, &number) || iterations.at[0] == '0' ||
	    number > SCRAM_ITERATIONS_MAX)
		return scram_fail(scram, "bad iteration count");
	scram->iterations = (uint32_t)number;
	scram_set_nonce(scram, nonce);
	return scram_sign_also(scram, message);
}

bool
scram_write_client_final(struct scram *scram,
    const unsigned char client_key[SCRAM_KEY], struct buf *out)
{
	unsigned char key[SCRAM_KEY];
	size_t began = out->len, i;
	bool good;

	buf_add_text(out, "c=");
	write_binding(scram, out);
	buf_add_text(out, ",r=");
	buf_add_span(out, scram_nonce(scram));
	if (out->failed)
		return scram_fail(scram, "out of memory");
	good = scram_sign_also(scram,
	    (struct span){ out->at + began, out->len - began }) &&
	    scram_hash_client_key(client_key, key) &&
	    scram_sign(scram, key, key);
	if (!good)
		return scram_fail(scram, "SCRAM proof could not be made");
	for (i = 0; i < SCRAM_KEY; i++)
		key[i] ^= client_key[i];
	buf_add_text(out, ",p=");
	scram_encode64(key_span(key), out);
	return !out->failed || scram_fail(scram, "out of memory");
}

bool
scram_read_server_final(struct scram *scram, struct span message,
    const unsigned char *server_key)
{
	unsigned char right[SCRAM_KEY], said[SCRAM_KEY];
	struct span rest = message, value;
	size_t len;

	if (!scram_message_is_sane(scram, message))
		return false;
	if (message.at[0] == 'e')
		return scram_fail(scram, "server refused the SCRAM proof");
	if (!cut_named(&rest, 'v', &value) || rest.at != NULL ||
	    !scram_decode64(value, said, sizeof(said), &len) ||
	    len != SCRAM_KEY)
		return scram_fail(scram, "malformed server-final-message");
	if (server_key == NULL)
		return true;
	return (scram_sign(scram, server_key, right) &&
	    digest_equal(right, said, SCRAM_KEY)) ||
	    scram_fail(scram, "server does not know the secret: its "
	    "signature is wrong");
}
