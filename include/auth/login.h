/* A login, step by step, on either side; no I/O, no waiting. */
#ifndef AUTH_LOGIN_H
#define AUTH_LOGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/secret.h"
#include "base/buf.h"
#include "base/span.h"

enum login_step {
	LOGIN_SEND,		/* send what is in `out`, wait for more */
	LOGIN_NEED_SECRET,	/* look the user up, then login_secret() */
	LOGIN_NEED_WORK,	/* run login_work() on a helper thread, then
				 * login_worked() */
	LOGIN_OK,		/* `out` may hold last messages, not AuthOk */
	LOGIN_FAIL,		/* login->why for the log only */
};

enum login_method {
	LOGIN_TRUST, LOGIN_ANY, LOGIN_PLAIN, LOGIN_MD5, LOGIN_SCRAM,
	LOGIN_CERT, LOGIN_PEER, LOGIN_REJECT,
};

/* Both machines: a call out of turn, or after OK or FAIL, is a FAIL. During
 * NEED_WORK the login is the helper thread's: nothing but login_work() may be
 * called, and it is not destroyed before that has returned. */

/* A client that logs in to us: exists for the time of the login only. */
struct login;

struct login_about {
	enum login_method method;
	struct span user;
	bool over_tls;
	/* tls-server-end-point of our certificate; 0 = no SCRAM-PLUS */
	unsigned char end_point[64];
	size_t end_point_len;
	/* CERT, PEER: the name proved by certificate or kernel, mapped */
	struct span proved_name;
	int scram_iterations;		/* for mock and plain secrets */
};

struct login *login_create(const struct login_about *about); /* NULL: OOM */
void login_destroy(struct login *login);	/* wipes; takes NULL */
/* First step: ANY gives OK at once, others NEED_SECRET. */
enum login_step login_begin(struct login *login, struct buf *out);
/* The answer to NEED_SECRET; copied. NULL or SECRET_NONE: no such user, or
 * one who cannot log in: the exchange goes on as a mock and fails at its end,
 * in the same time. CERT, PEER and TRUST need no secret, but a user: NULL
 * fails. */
enum login_step login_secret(struct login *login, const struct secret *secret,
    struct buf *out);
/* A 'p' message's body. */
enum login_step login_message(struct login *login, struct span body,
    struct buf *out);
/* PBKDF2 for secrets kept plain; touches nothing but the login itself. */
void login_work(struct login *login);
enum login_step login_worked(struct login *login, struct buf *out);
const char *login_why(const struct login *login);
/* After LOGIN_OK: what can be used to log in to a server as this user: the
 * plain password, the md5 secret (good for a server that asks for md5), or
 * SECRET_KEYS from the SCRAM proof; SECRET_NONE else, or when out of memory.
 * Also, for later logins, keys derived on the way are cached process-wide
 * per (user, salt, iterations). */
void login_credential(const struct login *login, struct secret *ret);

/* We log in to a server. */
struct server_login;

struct server_login_about {
	struct span user;
	const struct secret *secret;	/* copied; NULL or NONE: has none */
	bool over_tls, tls_verified;
	bool is_local;			/* unix socket or loopback */
	bool binding_required;		/* SCRAM-SHA-256-PLUS, or no login */
	unsigned char end_point[64];	/* the server's certificate */
	size_t end_point_len;
};

/* NULL: out of memory. */
struct server_login *server_login_create(const struct server_login_about *);
void server_login_destroy(struct server_login *login);
/* The body of an 'R' message: code and data. LOGIN_OK on AuthenticationOk
 * (refused if the server has not proved itself although SCRAM was begun). */
enum login_step server_login_message(struct server_login *login,
    struct span body, struct buf *out);
void server_login_work(struct server_login *login);
enum login_step server_login_worked(struct server_login *login,
    struct buf *out);
const char *server_login_why(const struct server_login *login);

#endif
