/* Our two login machines in a conversation, for tests. */
#ifndef UNIT_AUTH_TALK_H
#define UNIT_AUTH_TALK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "auth/login.h"
#include "auth/scram.h"
#include "auth/secret.h"
#include "wire/body.h"
#include "wire/frame.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* As Postgres 15 stored the password "pencil" of the user "hashed". */
#define VERIFIER "SCRAM-SHA-256$4096:Kuvi7fnbhBhyMiJOoMGpzA==" \
	"$T+G/dPqKG4f2Fmme5CegBdOIuvKS3kW56RmMEMLV3j8=" \
	":0uBw2e2nj+2ZcdjmRWALvyDmHUJTiHhQd/6W9OTTf5g="
#define HASHED "md5aa2372305aa1ff8e526fb1199e6c004f"

/* What the two sides know, and how they are joined. */
struct setting {
	enum login_method method;
	const char *kept;		/* by us as server; NULL: no user */
	/* By us as client. NULL: nothing; "keys": those of "pencil" by
	 * VERIFIER; "=...": a password, whatever it looks like. */
	const char *known;
	enum { IN_CLEAR, OVER_TLS, OVER_BOUND_TLS } transport;
	int iterations;			/* 0 = few */
};

struct talk {
	struct login *login;
	struct server_login *server_login;
	struct secret kept;
	struct buf to_login, to_server;	/* messages on their way */
	enum login_step login_step, server_step;
	unsigned messages;		/* that have been handed over */
	unsigned login_works, server_works;
	/* Changes the body of a message on its way; NULL: nobody does. */
	void (*damage)(struct talk *talk, char *body, size_t *len);
	unsigned damage_nth, damage_at;
	bool damaged;
	char types[64];			/* codes of 'R' messages, for shapes */
};

static inline struct secret
secret_of(const char *text)
{
	struct secret secret = { 0 };

	assert_true(secret_parse(span_of(text), &secret));
	return secret;
}

/* What its client's proof would show. */
static inline struct secret
keys_of_pencil(void)
{
	struct secret secret = { .kind = SECRET_KEYS, .has_client_key = true,
	    .has_server_key = true };
	static struct scram_keys keys;
	static bool derived;
	struct secret verifier = secret_of(VERIFIER);

	if (!derived)
		derived = scram_derive_keys(SPAN("pencil"), (struct span){
		    (const char *)verifier.salt, verifier.salt_len },
		    verifier.iterations, &keys);
	assert_true(derived);
	memcpy(secret.client_key, keys.client_key, SCRAM_KEY);
	memcpy(secret.stored_key, keys.stored_key, SCRAM_KEY);
	memcpy(secret.server_key, keys.server_key, SCRAM_KEY);
	secret_finish(&verifier);
	return secret;
}

static inline void
talk_open_as(struct talk *talk, const struct setting *setting,
    const char *user)
{
	struct secret known = { 0 };
	struct login_about about = { .method = setting->method,
	    .user = span_of(user), .proved_name = span_of(user),
	    .scram_iterations = setting->iterations != 0 ?
	    setting->iterations : 2, };
	struct server_login_about server_about = { .user = span_of(user),
	    .secret = &known, };

	if (setting->known != NULL && strcmp(setting->known, "keys") == 0)
		known = keys_of_pencil();
	else if (setting->known != NULL && setting->known[0] == '=')
		assert_true(secret_make_plain(span_of(setting->known + 1),
		    &known));
	else if (setting->known != NULL)
		known = secret_of(setting->known);
	if (setting->transport != IN_CLEAR) {
		about.over_tls = server_about.over_tls = true;
		server_about.tls_verified = true;
	}
	if (setting->transport == OVER_BOUND_TLS) {
		about.end_point_len = server_about.end_point_len = 32;
		memset(about.end_point, 7, 32);
		memset(server_about.end_point, 7, 32);
	}
	*talk = (struct talk){ .login_step = LOGIN_SEND,
	    .server_step = LOGIN_SEND };
	if (setting->kept != NULL)
		talk->kept = secret_of(setting->kept);
	talk->login = login_create(&about);
	talk->server_login = server_login_create(&server_about);
	secret_finish(&known);
}

static inline void
talk_open(struct talk *talk, const struct setting *setting)
{
	talk_open_as(talk, setting, "hashed");
}

static inline void
talk_close(struct talk *talk)
{
	login_destroy(talk->login);
	server_login_destroy(talk->server_login);
	secret_finish(&talk->kept);
	buf_finish(&talk->to_login);
	buf_finish(&talk->to_server);
}

/* Takes the first message of a buffer out; false when there is none. */
static inline bool
talk_take(struct talk *talk, struct buf *from, char *body, size_t *ret_len)
{
	struct frame frame = { 0 };

	if (from->failed || from->len == 0)
		return false;
	assert_int_equal(frame_peek(from->at, from->len, &frame), FRAME_OK);
	assert_true(from->len >= FRAME_HEADER + frame.body);
	assert_true(frame.body < SCRAM_MESSAGE_MAX);
	memcpy(body, from->at + FRAME_HEADER, frame.body);
	*ret_len = frame.body;
	if (frame.type == 'R' && strlen(talk->types) + 2 < sizeof(talk->types))
		talk->types[strlen(talk->types)] = (char)('a' + body[3]);
	buf_cut(from, FRAME_HEADER + frame.body);
	if (talk->damage != NULL && talk->messages == talk->damage_nth)
		talk->damage(talk, body, ret_len);
	talk->messages++;
	return true;
}

static inline void
talk_settle_login(struct talk *talk)
{
	while (talk->login_step == LOGIN_NEED_WORK) {
		talk->login_works++;
		login_work(talk->login);
		talk->login_step = login_worked(talk->login, &talk->to_server);
	}
	if (talk->login_step == LOGIN_OK)
		msg_auth(&talk->to_server, 0, SPAN_NONE);
}

static inline void
talk_run(struct talk *talk, const struct setting *setting)
{
	char body[SCRAM_MESSAGE_MAX + 1];
	size_t len;

	talk->login_step = login_begin(talk->login, &talk->to_server);
	if (talk->login_step == LOGIN_NEED_SECRET)
		talk->login_step = login_secret(talk->login,
		    setting->kept != NULL ? &talk->kept : NULL,
		    &talk->to_server);
	talk_settle_login(talk);
	while (talk_take(talk, &talk->to_server, body, &len)) {
		talk->server_step = server_login_message(talk->server_login,
		    (struct span){ body, len }, &talk->to_login);
		if (talk->server_step == LOGIN_NEED_WORK) {
			talk->server_works++;
			server_login_work(talk->server_login);
			talk->server_step = server_login_worked(
			    talk->server_login, &talk->to_login);
		}
		if (talk->server_step != LOGIN_SEND)
			break;
		if (!talk_take(talk, &talk->to_login, body, &len))
			continue;
		talk->login_step = login_message(talk->login,
		    (struct span){ body, len }, &talk->to_server);
		talk_settle_login(talk);
	}
}

static inline void
talk_once(struct talk *talk, const struct setting *setting)
{
	talk_open(talk, setting);
	assert_non_null(talk->login);
	assert_non_null(talk->server_login);
	talk_run(talk, setting);
}

#endif
