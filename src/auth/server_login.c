/*
 * We log in to a server, which is not trusted: it may be an impostor that
 * collects secrets, or somebody may sit in between.
 *
 *	START --R 0 (Ok)------------------------------> DONE  (trust)
 *	  |-----R 3, R 5 (cleartext, md5)--> ANSWERED --R 0--> DONE
 *	  +-----R 10 (SASL)--> FIRST_SENT --R 11--> [WORK] --> FINAL_SENT
 *	                                        --R 12--> PROVED --R 0--> DONE
 *
 * What keeps a secret safe on the way:
 *
 * - The password itself goes only to a unix socket or loopback, or over TLS
 *   with a verified certificate.
 * - SCRAM ends well only if the server's signature shows that it knows the
 *   secret too; an AuthenticationOk that comes earlier is refused. (With keys
 *   from a client's proof the ServerKey is in our own verifier.)
 * - Over TLS the exchange is bound to the server's certificate if the server
 *   can; if it says that it cannot, the flag 'y' lets it notice that somebody
 *   cut its offer out. Where binding is required, nothing else will do: no
 *   other method, and no login without one.
 * - A server may ask for a million rounds of PBKDF2, not for more.
 *
 * What is not kept safe: an impostor may ask for md5 and try the answer
 * against a dictionary. Verified TLS is the remedy.
 */
#include <string.h>

#include "auth/keys.h"
#include "auth/login.h"
#include "auth/md5.h"
#include "auth/scram.h"
#include "base/check.h"
#include "base/mem.h"
#include "wire/body.h"

#define SERVER_LOGIN_MAGIC 0x10610b02u

/* Codes of Authentication messages ("Message Formats"). */
enum { AUTH_OK = 0, ASK_CLEARTEXT = 3, ASK_MD5 = 5, ASK_GSS = 7,
	ASK_SSPI = 9, ASK_SASL = 10, SASL_CONTINUE = 11, SASL_FINAL = 12 };

enum server_login_at {
	AT_START, AT_ANSWERED, AT_FIRST_SENT, AT_WORK, AT_FINAL_SENT,
	AT_PROVED, AT_DONE, AT_FAILED,
};

struct server_login {
	uint32_t magic;
	enum server_login_at at;
	char *user;
	struct secret secret;
	enum scram_transport transport;
	bool may_send_password;		/* in clear */
	bool binding_required;
	struct scram scram;
	/* Belongs to the helper thread in AT_WORK. */
	struct keys_job job;
	const char *why;
};

MEM_TYPE(server_login_mem, server_login);

static enum login_step
server_login_fail(struct server_login *login, const char *why)
{
	if (login->at != AT_FAILED)
		login->why = why;
	login->at = AT_FAILED;
	return LOGIN_FAIL;
}

struct server_login *
server_login_create(const struct server_login_about *about)
{
	struct server_login *login = mem_new(&server_login_mem);

	if (login == NULL)
		return NULL;
	login->magic = SERVER_LOGIN_MAGIC;
	login->transport = about->over_tls ? SCRAM_OVER_TLS : SCRAM_IN_CLEAR;
	login->may_send_password = about->is_local ||
	    (about->over_tls && about->tls_verified);
	login->binding_required = about->binding_required;
	if (about->over_tls && about->end_point_len != 0) {
		check(about->end_point_len <= SCRAM_END_POINT_MAX);
		memcpy(login->scram.end_point, about->end_point,
		    about->end_point_len);
		login->scram.end_point_len = about->end_point_len;
	}
	login->user = mem_strndup(about->user.at, about->user.len);
	if (login->user == NULL || (about->secret != NULL &&
	    !secret_copy(&login->secret, about->secret))) {
		server_login_destroy(login);
		return NULL;
	}
	return login;
}

void
server_login_destroy(struct server_login *login)
{
	if (login == NULL)
		return;
	check_magic(login, SERVER_LOGIN_MAGIC);
	keys_finish(&login->job);
	secret_finish(&login->secret);
	scram_finish(&login->scram);
	mem_free(login->user);
	mem_wipe(login, sizeof(*login));
	mem_delete(&server_login_mem, login);
}

const char *
server_login_why(const struct server_login *login)
{
	check_magic(login, SERVER_LOGIN_MAGIC);
	return login->why != NULL ? login->why : "";
}

static enum login_step
server_login_sent(struct server_login *login, enum server_login_at at,
    const struct buf *out)
{
	if (out->failed)
		return server_login_fail(login, "out of memory");
	login->at = at;
	return LOGIN_SEND;
}

static const char unbound[] = "channel binding is required, but the server "
    "does not do it";

/* ---- the password, and md5 ---- */

static enum login_step
server_login_send_password(struct server_login *login, struct buf *out)
{
	if (login->secret.kind != SECRET_PLAIN)
		return server_login_fail(login, "server asks for the password "
		    "itself, which is not known");
	if (!login->may_send_password)
		return server_login_fail(login, "server asks for the password "
		    "in clear: that needs TLS with a verified certificate, "
		    "loopback or a unix socket");
	msg_password(out, secret_text(&login->secret), true);
	return server_login_sent(login, AT_ANSWERED, out);
}

static enum login_step
server_login_send_md5(struct server_login *login, struct span salt,
    struct buf *out)
{
	const struct secret *secret = &login->secret;
	char stored[MD5_TEXT], answer[MD5_TEXT];
	bool good;

	if (salt.len != MD5_SALT)
		return server_login_fail(login, "malformed md5 request");
	if (secret->kind == SECRET_MD5)
		memcpy(stored, secret->text, MD5_TEXT);
	else if (secret->kind != SECRET_PLAIN)
		return server_login_fail(login, "server asks for md5, for "
		    "which neither password nor md5 secret is known");
	else if (!md5_stored(secret_text(secret), span_of(login->user),
	    stored))
		return server_login_fail(login, "MD5 is not available");
	good = md5_answer(stored, (const unsigned char *)salt.at, answer);
	mem_wipe(stored, sizeof(stored));
	if (!good)
		return server_login_fail(login, "MD5 is not available");
	msg_password(out, span_of(answer), true);
	return server_login_sent(login, AT_ANSWERED, out);
}

/* ---- SCRAM ---- */

static bool
server_login_can_scram(const struct server_login *login)
{
	return login->secret.kind == SECRET_PLAIN ||
	    (login->secret.kind == SECRET_KEYS &&
	    login->secret.has_client_key);
}

static enum login_step
server_login_begin_scram(struct server_login *login, struct span mechanisms,
    struct buf *out)
{
	struct buf first = { 0 };
	const char *mechanism;
	bool good;

	if (!server_login_can_scram(login))
		return server_login_fail(login, "server asks for SCRAM, for "
		    "which neither password nor keys are known");
	mechanism = scram_choose(&login->scram, mechanisms, login->transport);
	if (login->binding_required && mechanism != NULL &&
	    login->scram.gs2 != 'p')
		return server_login_fail(login, unbound);
	good = mechanism != NULL &&
	    scram_write_client_first(&login->scram, &first);
	if (good)
		msg_sasl_initial(out, mechanism, buf_span(&first));
	buf_finish(&first);
	if (!good)
		return server_login_fail(login, login->scram.why);
	return server_login_sent(login, AT_FIRST_SENT, out);
}

/* The ClientKey is known by now, from the client or from the password. */
static enum login_step
server_login_send_final(struct server_login *login, struct buf *out)
{
	const unsigned char *client_key = login->secret.client_key;
	struct buf final = { 0 };
	bool good;

	if (login->secret.kind == SECRET_PLAIN) {
		if (!login->job.has_keys)
			return server_login_fail(login, "PBKDF2 failed");
		client_key = login->job.keys.client_key;
	}
	good = scram_write_client_final(&login->scram, client_key, &final);
	if (good)
		msg_password(out, buf_span(&final), false);
	buf_finish(&final);
	if (!good)
		return server_login_fail(login, login->scram.why);
	return server_login_sent(login, AT_FINAL_SENT, out);
}

static enum login_step
server_login_continue_scram(struct server_login *login, struct span message,
    struct buf *out)
{
	struct keys_job *job = &login->job;

	if (!scram_read_server_first(&login->scram, message))
		return server_login_fail(login, login->scram.why);
	if (login->secret.kind == SECRET_KEYS)
		return server_login_send_final(login, out);
	job->user = span_of(login->user);
	job->password = secret_text(&login->secret);
	job->salt.at = (const char *)login->scram.salt;
	job->salt.len = login->scram.salt_len;
	job->iterations = login->scram.iterations;
	if (keys_find(job))
		return server_login_send_final(login, out);
	login->at = AT_WORK;
	return LOGIN_NEED_WORK;
}

static enum login_step
server_login_check_signature(struct server_login *login, struct span message)
{
	const unsigned char *server_key = NULL;

	if (login->secret.kind == SECRET_PLAIN)
		server_key = login->job.keys.server_key;
	else if (login->secret.has_server_key)
		server_key = login->secret.server_key;
	if (!scram_read_server_final(&login->scram, message, server_key))
		return server_login_fail(login, login->scram.why);
	/* Only now is it known that this salt is a real one. */
	if (login->secret.kind == SECRET_PLAIN)
		keys_keep(&login->job);
	login->at = AT_PROVED;
	return LOGIN_SEND;
}

/* ---- the machine ---- */

static enum login_step
server_login_accept(struct server_login *login, struct span rest)
{
	if (rest.len != 0)
		return server_login_fail(login, "malformed AuthenticationOk");
	if (login->at == AT_FIRST_SENT || login->at == AT_FINAL_SENT)
		return server_login_fail(login, "server ended SCRAM without "
		    "proving that it knows the secret");
	if (login->binding_required && login->at != AT_PROVED)
		return server_login_fail(login, unbound);
	login->at = AT_DONE;
	return LOGIN_OK;
}

/* A request for a proof: only the first message may be one. */
static enum login_step
server_login_asked(struct server_login *login, uint32_t code,
    struct span data, struct buf *out)
{
	if (login->at != AT_START)
		return server_login_fail(login,
		    "server asks for a second proof");
	if (login->binding_required && code != ASK_SASL)
		return server_login_fail(login, unbound);
	if (code == ASK_CLEARTEXT && data.len == 0)
		return server_login_send_password(login, out);
	if (code == ASK_MD5)
		return server_login_send_md5(login, data, out);
	if (code == ASK_SASL)
		return server_login_begin_scram(login, data, out);
	if (code == ASK_GSS || code == ASK_SSPI)
		return server_login_fail(login,
		    "server asks for GSSAPI or SSPI, which is not supported");
	return server_login_fail(login,
	    "server asks for an unknown kind of authentication");
}

enum login_step
server_login_message(struct server_login *login, struct span body,
    struct buf *out)
{
	struct body at = body_of(body);
	uint32_t code = body_u32(&at);
	struct span data = body_rest(&at);

	check_magic(login, SERVER_LOGIN_MAGIC);
	if (login->at == AT_WORK || login->at == AT_DONE ||
	    login->at == AT_FAILED)
		return server_login_fail(login,
		    "authentication message out of turn");
	if (at.bad)
		return server_login_fail(login,
		    "malformed authentication message");
	if (code == AUTH_OK)
		return server_login_accept(login, data);
	if (code == SASL_CONTINUE && login->at == AT_FIRST_SENT)
		return server_login_continue_scram(login, data, out);
	if (code == SASL_FINAL && login->at == AT_FINAL_SENT)
		return server_login_check_signature(login, data);
	return server_login_asked(login, code, data, out);
}

void
server_login_work(struct server_login *login)
{
	check_magic(login, SERVER_LOGIN_MAGIC);
	if (login->at == AT_WORK)
		keys_derive(&login->job);
}

enum login_step
server_login_worked(struct server_login *login, struct buf *out)
{
	check_magic(login, SERVER_LOGIN_MAGIC);
	if (login->at != AT_WORK)
		return server_login_fail(login, "work out of turn");
	return server_login_send_final(login, out);
}
