/*
 * A client logs in to us. One machine for all methods, fed with messages and
 * with answers to its questions; it does no I/O and never waits.
 *
 *	              login_begin
 *	AT_START ----------------------> AT_SECRET        (NEED_SECRET)
 *	   | ANY: AT_DONE                    | login_secret
 *	   | REJECT: AT_FAILED               |
 *	                                     +-> AT_PASSWORD   PLAIN
 *	                                     +-> AT_MD5        MD5
 *	                                     +-> AT_SASL_FIRST SCRAM, and MD5
 *	                                     |        |        with a verifier
 *	                                     |   AT_SASL_FINAL
 *	                                     +-> AT_DONE       CERT, PEER, TRUST
 *
 *	AT_PASSWORD, AT_SASL_FINAL -> AT_WORK (NEED_WORK) -> AT_DONE, AT_FAILED
 *
 * Which proof is asked for depends on the method and on the kept secret:
 *
 *	            plain password    md5...          verifier
 *	PLAIN       compare           hash, compare   PBKDF2, compare
 *	MD5         md5               md5             SCRAM
 *	SCRAM       SCRAM             refused         SCRAM
 *
 * Nobody may learn who exists. For an unknown user a secret is made up (from
 * the name, so that it is the same the next time) and the exchange goes its
 * way with it; `doomed` then turns its end into a failure. A made-up secret
 * must also be of the kind that real ones are, or the shape of the exchange,
 * or the time of a PBKDF2, gives it away. So it is a verifier, unless this
 * process has so far seen real secrets of other kinds only. Where both kinds
 * are in use, names with the rarer kind can be told from made-up ones;
 * PgBouncer and Postgres have the same hole.
 *
 * PBKDF2 is asked for at the last message only, once nonce and channel
 * binding are right, and its result is cached (keys.c).
 */
#include <stdatomic.h>
#include <string.h>

#include "auth/digest.h"
#include "auth/keys.h"
#include "auth/login.h"
#include "auth/md5.h"
#include "auth/scram.h"
#include "base/check.h"
#include "base/mem.h"
#include "wire/body.h"

#define LOGIN_MAGIC 0x10610a01u
#define MADE_UP_SALT 16			/* bytes, as Postgres makes them */

/* Codes of Authentication messages ("Message Formats"). */
enum { ASK_CLEARTEXT = 3, ASK_MD5 = 5, ASK_SASL = 10, SASL_CONTINUE = 11,
	SASL_FINAL = 12 };

enum login_at {
	AT_START, AT_SECRET, AT_PASSWORD, AT_MD5, AT_SASL_FIRST,
	AT_SASL_FINAL, AT_WORK, AT_DONE, AT_FAILED,
};

struct login {
	uint32_t magic;
	enum login_at at;
	enum login_method method;
	char *user;
	bool is_proved;			/* CERT, PEER: as this user */
	uint32_t iterations;		/* of secrets without their own */

	struct secret secret;		/* the kept one, or made up */
	const char *doomed;		/* why it will fail, or NULL */
	unsigned char md5_salt[MD5_SALT];
	struct scram scram;
	char *password;			/* PLAIN: what the client sent */
	/* SCRAM's salt and iterations; the work; its result. Belongs to the
	 * helper thread in AT_WORK. */
	unsigned char made_up_salt[DIGEST_SHA256];
	struct keys_job job;

	struct secret credential;
	const char *why;
};

MEM_TYPE(login_mem, login);

/* Kinds of real secrets that this process has seen in use. */
static atomic_bool seen_verifier, seen_other;

static enum login_step
login_fail(struct login *login, const char *why)
{
	if (login->at != AT_FAILED)
		login->why = why;
	login->at = AT_FAILED;
	return LOGIN_FAIL;
}

/* The proof was good. */
static enum login_step
login_done(struct login *login)
{
	if (login->doomed != NULL)
		return login_fail(login, login->doomed);
	login->at = AT_DONE;
	return LOGIN_OK;
}

/* It was not, or there was nothing to prove. */
static enum login_step
login_refuse(struct login *login)
{
	return login_fail(login, login->doomed != NULL ?
	    login->doomed : "wrong password");
}

static struct span
login_user(const struct login *login)
{
	return span_of(login->user);
}

struct login *
login_create(const struct login_about *about)
{
	struct login *login = mem_new(&login_mem);

	if (login == NULL)
		return NULL;
	login->magic = LOGIN_MAGIC;
	login->method = about->method;
	login->user = mem_strndup(about->user.at, about->user.len);
	if (login->user == NULL) {
		login_destroy(login);
		return NULL;
	}
	login->is_proved = about->user.len != 0 &&
	    span_eq(about->proved_name, about->user);
	login->iterations = about->scram_iterations >= 1 ?
	    (uint32_t)about->scram_iterations : SCRAM_ITERATIONS;
	if (login->iterations > SCRAM_ITERATIONS_MAX)
		login->iterations = SCRAM_ITERATIONS_MAX;
	if (about->over_tls && about->end_point_len != 0) {
		check(about->end_point_len <= SCRAM_END_POINT_MAX);
		memcpy(login->scram.end_point, about->end_point,
		    about->end_point_len);
		login->scram.end_point_len = about->end_point_len;
	}
	return login;
}

static void
login_forget_password(struct login *login)
{
	if (login->password != NULL)
		mem_wipe(login->password, strlen(login->password));
	mem_free(login->password);
	login->password = NULL;
}

void
login_destroy(struct login *login)
{
	if (login == NULL)
		return;
	check_magic(login, LOGIN_MAGIC);
	keys_finish(&login->job);
	login_forget_password(login);
	secret_finish(&login->secret);
	secret_finish(&login->credential);
	scram_finish(&login->scram);
	mem_free(login->user);
	mem_wipe(login, sizeof(*login));
	mem_delete(&login_mem, login);
}

const char *
login_why(const struct login *login)
{
	check_magic(login, LOGIN_MAGIC);
	return login->why != NULL ? login->why : "";
}

enum login_step
login_begin(struct login *login, struct buf *out)
{
	check_magic(login, LOGIN_MAGIC);
	(void)out;
	if (login->at != AT_START)
		return login_fail(login, "login begun twice");
	if (login->method == LOGIN_REJECT)
		return login_fail(login, "rejected by a rule");
	if (login->method == LOGIN_ANY)
		return login_done(login);
	login->at = AT_SECRET;
	return LOGIN_NEED_SECRET;
}

/* ---- the secret, real or made up ---- */

/* A secret for nobody, of the kind that somebody's would be. */
static bool
login_make_up_secret(struct login *login)
{
	const struct span parts[] = { SPAN("nobody"), login_user(login) };
	struct secret *secret = &login->secret;
	unsigned char hash[DIGEST_SHA256];
	struct buf text = { 0 };
	bool good;

	if (!digest_private(parts, 2, hash))
		return false;
	if (atomic_load(&seen_verifier) || !atomic_load(&seen_other)) {
		secret->kind = SECRET_SCRAM;
		secret->iterations = login->iterations;
		memcpy(secret->salt, login->made_up_salt, MADE_UP_SALT);
		secret->salt_len = MADE_UP_SALT;
		memcpy(secret->stored_key, hash, SCRAM_KEY);
		memcpy(secret->server_key, hash, SCRAM_KEY);
		return true;
	}
	scram_encode64((struct span){ (const char *)hash, sizeof(hash) },
	    &text);
	good = !text.failed && secret_make_plain(buf_span(&text), secret);
	buf_finish(&text);
	return good;
}

/* Why this secret cannot pass this method, or NULL. */
static const char *
login_find_doom(const struct login *login, const struct secret *secret)
{
	if (secret == NULL)
		return "no such user";
	switch (secret->kind) {
	case SECRET_PLAIN:
	case SECRET_SCRAM:
		return NULL;
	case SECRET_MD5:
		return login->method != LOGIN_SCRAM ? NULL :
		    "the kept secret is md5, the method scram-sha-256";
	case SECRET_NONE:
	case SECRET_KEYS:
		break;
	}
	return "user has no secret";
}

static bool
login_take_secret(struct login *login, const struct secret *secret)
{
	const struct span parts[] = { SPAN("salt"), login_user(login) };

	if (!digest_private(parts, 2, login->made_up_salt))
		return false;
	login->doomed = login_find_doom(login, secret);
	if (login->doomed != NULL)
		return login_make_up_secret(login);
	if (secret->kind == SECRET_SCRAM)
		atomic_store(&seen_verifier, true);
	else
		atomic_store(&seen_other, true);
	return secret_copy(&login->secret, secret);
}

/* The question for keys.c: whose, with which salt, from which password. */
static void
login_set_job(struct login *login, struct span password)
{
	const struct secret *secret = &login->secret;
	struct keys_job *job = &login->job;

	job->shelf = login->doomed != NULL ? KEYS_MOCK : KEYS_REAL;
	job->user = login_user(login);
	job->password = password;
	if (secret->kind == SECRET_SCRAM) {
		job->salt.at = (const char *)secret->salt;
		job->salt.len = secret->salt_len;
		job->iterations = secret->iterations;
	} else {
		job->salt.at = (const char *)login->made_up_salt;
		job->salt.len = MADE_UP_SALT;
		job->iterations = login->iterations;
	}
}

static enum login_step
login_ask(struct login *login, enum login_at at, uint32_t code,
    struct span data, struct buf *out)
{
	msg_auth(out, code, data);
	if (out->failed)
		return login_fail(login, "out of memory");
	login->at = at;
	return LOGIN_SEND;
}

static enum login_step
login_ask_md5(struct login *login, struct buf *out)
{
	if (!digest_random(login->md5_salt, sizeof(login->md5_salt)))
		return login_fail(login, "no random bytes");
	return login_ask(login, AT_MD5, ASK_MD5, (struct span){
	    (const char *)login->md5_salt, MD5_SALT }, out);
}

static enum login_step
login_ask_sasl(struct login *login, struct buf *out)
{
	struct buf names = { 0 };
	enum login_step step;

	scram_offer(&login->scram, &names);
	out->failed |= names.failed;
	step = login_ask(login, AT_SASL_FIRST, ASK_SASL, buf_span(&names),
	    out);
	buf_finish(&names);
	return step;
}

/* The methods that ask for no secret, but for somebody whom we know. */
static bool
login_needs_user_only(const struct login *login)
{
	return login->method == LOGIN_CERT || login->method == LOGIN_PEER ||
	    login->method == LOGIN_TRUST;
}

enum login_step
login_secret(struct login *login, const struct secret *secret,
    struct buf *out)
{
	check_magic(login, LOGIN_MAGIC);
	if (login->at != AT_SECRET)
		return login_fail(login, "secret out of turn");
	if (login_needs_user_only(login)) {
		if (secret == NULL)
			return login_fail(login, "no such user");
		if (login->method != LOGIN_TRUST && !login->is_proved)
			return login_fail(login, "proved to be somebody else");
		return login_done(login);
	}
	if (!login_take_secret(login, secret))
		return login_fail(login, "out of memory");
	if (login->method == LOGIN_PLAIN)
		return login_ask(login, AT_PASSWORD, ASK_CLEARTEXT, SPAN_NONE,
		    out);
	if (login->method == LOGIN_MD5 && login->secret.kind != SECRET_SCRAM)
		return login_ask_md5(login, out);
	return login_ask_sasl(login, out);
}

/* ---- PLAIN and MD5 ---- */

/* A text and its NUL, with nothing behind it and not empty. */
static bool
read_password(struct span message, struct span *ret)
{
	struct body body = body_of(message);
	struct span text = body_text(&body);

	if (!body_is_done(&body) || text.len == 0 ||
	    text.len > SECRET_TEXT_MAX)
		return false;
	*ret = text;
	return true;
}

/* In a time that tells neither where they differ nor how long they are. */
static bool
texts_are_equal(struct span a, struct span b)
{
	unsigned char one[DIGEST_SHA256], other[DIGEST_SHA256];

	return digest_private(&a, 1, one) && digest_private(&b, 1, other) &&
	    digest_equal(one, other, sizeof(one));
}

static enum login_step
login_accept_password(struct login *login)
{
	if (login->doomed == NULL && !secret_make_plain(
	    span_of(login->password), &login->credential))
		return login_fail(login, "out of memory");
	return login_done(login);
}

static enum login_step
login_check_password(struct login *login)
{
	const struct secret *secret = &login->secret;
	struct span password = span_of(login->password);
	char hashed[MD5_TEXT];
	bool same;

	if (secret->kind == SECRET_MD5) {
		if (!md5_stored(password, login_user(login), hashed))
			return login_fail(login, "MD5 is not available");
		password = span_of(hashed);
	}
	same = texts_are_equal(password, secret_text(secret));
	mem_wipe(hashed, sizeof(hashed));
	return same ? login_accept_password(login) : login_refuse(login);
}

/* A password against a verifier, once its keys are known. */
static enum login_step
login_check_keys(struct login *login)
{
	if (!login->job.has_keys)
		return login_fail(login, "PBKDF2 failed");
	if (!digest_equal(login->job.keys.stored_key,
	    login->secret.stored_key, SCRAM_KEY))
		return login_refuse(login);
	/* Only what was right is kept: guesses push nobody out. */
	keys_keep(&login->job);
	return login_accept_password(login);
}

static enum login_step
login_read_password(struct login *login, struct span body)
{
	struct span password;

	if (!read_password(body, &password))
		return login_fail(login, "empty or malformed password");
	login->password = mem_strndup(password.at, password.len);
	if (login->password == NULL)
		return login_fail(login, "out of memory");
	if (login->secret.kind != SECRET_SCRAM)
		return login_check_password(login);
	if (login->secret.iterations > SCRAM_ITERATIONS_MAX)
		return login_fail(login, "verifier has too many iterations");
	login_set_job(login, span_of(login->password));
	if (keys_find(&login->job))
		return login_check_keys(login);
	login->at = AT_WORK;
	return LOGIN_NEED_WORK;
}

static enum login_step
login_read_md5(struct login *login, struct span body)
{
	struct secret *secret = &login->secret;
	char stored[MD5_TEXT], right[MD5_TEXT];
	struct span answer;
	bool good;

	if (!read_password(body, &answer))
		return login_fail(login, "empty or malformed password");
	if (secret->kind == SECRET_MD5)
		memcpy(stored, secret->text, MD5_TEXT);
	else if (!md5_stored(secret_text(secret), login_user(login), stored))
		return login_fail(login, "MD5 is not available");
	good = md5_answer(stored, login->md5_salt, right) &&
	    answer.len == MD5_TEXT - 1 &&
	    digest_equal(answer.at, right, answer.len);
	mem_wipe(stored, sizeof(stored));
	if (!good)
		return login_refuse(login);
	if (login->doomed == NULL &&
	    !secret_copy(&login->credential, secret))
		return login_fail(login, "out of memory");
	return login_done(login);
}

/* ---- SCRAM ---- */

/* SASLInitialResponse: mechanism, length, client-first-message. */
static enum login_step
login_read_sasl_first(struct login *login, struct span message,
    struct buf *out)
{
	struct body body = body_of(message);
	struct span mechanism = body_text(&body);
	struct span first = body_bytes(&body, body_u32(&body));
	struct buf reply = { 0 };
	enum login_step step;

	if (!body_is_done(&body))
		return login_fail(login, "malformed SASLInitialResponse");
	if (!scram_read_client_first(&login->scram, mechanism, first))
		return login_fail(login, login->scram.why);
	login_set_job(login, secret_text(&login->secret));
	if (!scram_write_server_first(&login->scram, login->job.salt,
	    login->job.iterations, &reply)) {
		buf_finish(&reply);
		return login_fail(login, login->scram.why);
	}
	step = login_ask(login, AT_SASL_FINAL, SASL_CONTINUE,
	    buf_span(&reply), out);
	buf_finish(&reply);
	return step;
}

/* The ClientKey that was in the proof, for the way to the server. */
static enum login_step
login_accept_proof(struct login *login,
    const unsigned char client_key[SCRAM_KEY],
    const unsigned char stored_key[SCRAM_KEY],
    const unsigned char server_key[SCRAM_KEY])
{
	struct secret *credential = &login->credential;

	if (login->secret.kind == SECRET_PLAIN) {
		if (!secret_copy(credential, &login->secret))
			return login_fail(login, "out of memory");
		return login_done(login);
	}
	credential->kind = SECRET_KEYS;
	credential->has_client_key = credential->has_server_key = true;
	memcpy(credential->client_key, client_key, SCRAM_KEY);
	memcpy(credential->stored_key, stored_key, SCRAM_KEY);
	memcpy(credential->server_key, server_key, SCRAM_KEY);
	return login_done(login);
}

static enum login_step
login_check_proof(struct login *login, struct buf *out)
{
	const unsigned char *stored_key = login->secret.stored_key;
	const unsigned char *server_key = login->secret.server_key;
	unsigned char client_key[SCRAM_KEY];
	struct buf reply = { 0 };
	enum login_step step;
	bool good;

	if (login->secret.kind != SECRET_SCRAM) {
		if (!login->job.has_keys)
			return login_fail(login, "PBKDF2 failed");
		stored_key = login->job.keys.stored_key;
		server_key = login->job.keys.server_key;
	}
	good = scram_check_proof(&login->scram, stored_key, client_key);
	if (login->doomed != NULL)
		good = false;
	else if (good)
		good = scram_write_server_final(&login->scram, server_key,
		    &reply);
	if (good) {
		msg_auth(out, SASL_FINAL, buf_span(&reply));
		step = out->failed ? login_fail(login, "out of memory") :
		    login_accept_proof(login, client_key, stored_key,
		    server_key);
	} else {
		step = login_fail(login, login->doomed != NULL ?
		    login->doomed : login->scram.why);
	}
	mem_wipe(client_key, sizeof(client_key));
	buf_finish(&reply);
	return step;
}

static enum login_step
login_read_sasl_final(struct login *login, struct span body,
    struct buf *out)
{
	if (!scram_read_client_final(&login->scram, body))
		return login_fail(login, login->scram.why);
	if (login->secret.kind == SECRET_SCRAM || keys_find(&login->job))
		return login_check_proof(login, out);
	login->at = AT_WORK;
	return LOGIN_NEED_WORK;
}

enum login_step
login_message(struct login *login, struct span body, struct buf *out)
{
	check_magic(login, LOGIN_MAGIC);
	switch (login->at) {
	case AT_PASSWORD:
		return login_read_password(login, body);
	case AT_MD5:
		return login_read_md5(login, body);
	case AT_SASL_FIRST:
		return login_read_sasl_first(login, body, out);
	case AT_SASL_FINAL:
		return login_read_sasl_final(login, body, out);
	case AT_START:
	case AT_SECRET:
	case AT_WORK:
	case AT_DONE:
	case AT_FAILED:
		break;
	}
	return login_fail(login, "password message out of turn");
}

/* ---- the slow part ---- */

void
login_work(struct login *login)
{
	check_magic(login, LOGIN_MAGIC);
	if (login->at == AT_WORK)
		keys_derive(&login->job);
}

enum login_step
login_worked(struct login *login, struct buf *out)
{
	check_magic(login, LOGIN_MAGIC);
	if (login->at != AT_WORK)
		return login_fail(login, "work out of turn");
	if (login->method == LOGIN_PLAIN)
		return login_check_keys(login);
	keys_keep(&login->job);
	return login_check_proof(login, out);
}

void
login_credential(const struct login *login, struct secret *ret)
{
	check_magic(login, LOGIN_MAGIC);
	if (login->at != AT_DONE || !secret_copy(ret, &login->credential))
		*ret = (struct secret){ .kind = SECRET_NONE };
}
