/*
 * Logins on both sides: the arithmetic against published vectors and against
 * what Postgres has stored, and the two machines against each other, against
 * every damaged message and every call out of turn.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "auth/digest.h"
#include "auth/keys.h"
#include "auth/login.h"
#include "auth/md5.h"
#include "auth/scram.h"
#include "auth/secret.h"
#include "base/mem.h"
#include "wire/body.h"
#include "wire/frame.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* As Postgres 15 stored the password "pencil" of the user "hashed". */
#define VERIFIER "SCRAM-SHA-256$4096:Kuvi7fnbhBhyMiJOoMGpzA==" \
	"$T+G/dPqKG4f2Fmme5CegBdOIuvKS3kW56RmMEMLV3j8=" \
	":0uBw2e2nj+2ZcdjmRWALvyDmHUJTiHhQd/6W9OTTf5g="
#define HASHED "md5aa2372305aa1ff8e526fb1199e6c004f"

/* ---- two machines that talk ---- */

/* What the two sides know, and how they are joined. */
struct setting {
	enum login_method method;
	const char *kept;		/* by us as server; NULL: no user */
	const char *known;		/* by us as client; NULL: none */
	enum { IN_CLEAR, OVER_TLS, OVER_BOUND_TLS } transport;
	int iterations;			/* 0 = few */
};

struct talk {
	struct login *login;
	struct server_login *server_login;
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

static struct secret
secret_of(const char *text)
{
	struct secret secret = { 0 };

	assert_true(secret_parse(span_of(text), &secret));
	return secret;
}

static struct secret
keys_of(const char *password)
{
	struct secret secret = { .kind = SECRET_KEYS, .has_client_key = true,
	    .has_server_key = true };
	struct secret verifier = secret_of(VERIFIER);
	struct scram_keys keys;

	assert_true(scram_derive_keys(span_of(password), (struct span){
	    (const char *)verifier.salt, verifier.salt_len },
	    verifier.iterations, &keys));
	memcpy(secret.client_key, keys.client_key, SCRAM_KEY);
	memcpy(secret.stored_key, keys.stored_key, SCRAM_KEY);
	memcpy(secret.server_key, keys.server_key, SCRAM_KEY);
	secret_finish(&verifier);
	return secret;
}

static void
talk_open(struct talk *talk, const struct setting *setting)
{
	struct secret known = { 0 };
	struct login_about about = { .method = setting->method,
	    .user = SPAN("hashed"), .proved_name = SPAN("hashed"),
	    .scram_iterations = setting->iterations != 0 ?
	    setting->iterations : 2, };
	struct server_login_about server_about = { .user = SPAN("hashed"),
	    .secret = &known, };

	if (setting->known != NULL && strcmp(setting->known, "keys") == 0)
		known = keys_of("pencil");
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
	talk->login = login_create(&about);
	talk->server_login = server_login_create(&server_about);
	secret_finish(&known);
}

static void
talk_close(struct talk *talk)
{
	login_destroy(talk->login);
	server_login_destroy(talk->server_login);
	buf_finish(&talk->to_login);
	buf_finish(&talk->to_server);
}

/* Takes the first message of a buffer out; false when there is none. */
static bool
talk_take(struct talk *talk, struct buf *from, char *body, size_t *ret_len)
{
	struct frame frame;

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

static void
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

static void
talk_run(struct talk *talk, const struct setting *setting)
{
	char body[SCRAM_MESSAGE_MAX + 1];
	struct secret kept = { 0 };
	size_t len;

	if (setting->kept != NULL)
		kept = secret_of(setting->kept);
	talk->login_step = login_begin(talk->login, &talk->to_server);
	if (talk->login_step == LOGIN_NEED_SECRET)
		talk->login_step = login_secret(talk->login,
		    setting->kept != NULL ? &kept : NULL, &talk->to_server);
	secret_finish(&kept);
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

static void
talk_once(struct talk *talk, const struct setting *setting)
{
	talk_open(talk, setting);
	assert_non_null(talk->login);
	assert_non_null(talk->server_login);
	talk_run(talk, setting);
}

/* ---- mocks: these come first, while no secret has been seen yet ---- */

static void
in_a_fresh_process_a_mock_is_scram(void **state)
{
	const enum login_method methods[] = { LOGIN_MD5, LOGIN_SCRAM };
	struct setting unknown = { .known = "pencil" };
	struct talk talk;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(methods); i++) {
		unknown.method = methods[i];
		talk_once(&talk, &unknown);
		assert_int_equal(talk.login_step, LOGIN_FAIL);
		assert_string_equal(talk.types, "kl");
		assert_int_equal(talk.login_works, 0);
		assert_string_equal(login_why(talk.login), "no such user");
		talk_close(&talk);
	}
}

static void
where_secrets_are_plain_a_mock_works_like_a_plain_one(void **state)
{
	struct setting real = { .method = LOGIN_SCRAM, .kept = "other",
	    .known = "pencil" };
	struct setting unknown = { .method = LOGIN_SCRAM,
	    .known = "pencil" };
	unsigned round;
	struct talk talk;

	(void)state;
	keys_forget_all();
	for (round = 0; round < 2; round++) {
		struct talk mock;

		talk_once(&talk, &real);
		talk_once(&mock, &unknown);
		assert_int_equal(talk.login_step, LOGIN_FAIL);
		assert_int_equal(mock.login_step, LOGIN_FAIL);
		assert_string_equal(talk.types, mock.types);
		assert_int_equal(talk.login_works, round == 0);
		assert_int_equal(mock.login_works, round == 0);
		talk_close(&talk);
		talk_close(&mock);
	}
	real.method = unknown.method = LOGIN_MD5;
	talk_once(&talk, &unknown);
	assert_int_equal(talk.login_step, LOGIN_FAIL);
	assert_string_equal(talk.types, "f");
	talk_close(&talk);
}

/* Salt, iterations and their form, of a server-first-message. */
static void
server_first(struct login *login, const struct secret *secret, char *ret,
    size_t cap)
{
	struct buf out = { 0 }, initial = { 0 };

	assert_int_equal(login_begin(login, &out), LOGIN_NEED_SECRET);
	assert_int_equal(login_secret(login, secret, &out), LOGIN_SEND);
	buf_clear(&out);
	msg_sasl_initial(&initial, SCRAM_NAME, SPAN("n,,n=,r=abc"));
	buf_cut(&initial, FRAME_HEADER);
	assert_int_equal(login_message(login, buf_span(&initial), &out),
	    LOGIN_SEND);
	assert_in_range(out.len, 9 + 2 + 3 + SCRAM_NONCE_OWN, cap + 8);
	snprintf(ret, cap, "%.*s", (int)(out.len - 9 - 5 - SCRAM_NONCE_OWN),
	    out.at + 9 + 5 + SCRAM_NONCE_OWN);
	buf_finish(&out);
	buf_finish(&initial);
}

static void
a_mock_has_the_same_salt_again_and_the_form_of_a_verifier(void **state)
{
	const struct login_about one = { .method = LOGIN_SCRAM,
	    .user = SPAN("nobody"), .scram_iterations = 4096 };
	const struct login_about other = { .method = LOGIN_SCRAM,
	    .user = SPAN("nobody2"), .scram_iterations = 4096 };
	const struct login_about *abouts[] = { &one, &one, &other, &other };
	struct secret verifier = secret_of(VERIFIER);
	const struct secret *secrets[] = { NULL, NULL, NULL, &verifier };
	char texts[4][100];
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(abouts); i++) {
		struct login *login = login_create(abouts[i]);

		server_first(login, secrets[i], texts[i], sizeof(texts[i]));
		login_destroy(login);
	}
	assert_string_equal(texts[0], texts[1]);
	assert_string_not_equal(texts[0], texts[2]);
	assert_string_equal(texts[3], ",s=Kuvi7fnbhBhyMiJOoMGpzA==,i=4096");
	assert_int_equal(strlen(texts[0]), strlen(texts[3]));
	assert_memory_equal(texts[0], ",s=", 3);
	assert_string_equal(texts[0] + strlen(texts[0]) - 9, "==,i=4096");
	secret_finish(&verifier);
}

static void
where_verifiers_are_seen_a_mock_is_scram_for_good(void **state)
{
	struct setting real = { .method = LOGIN_MD5, .kept = VERIFIER,
	    .known = "wrong" };
	struct setting unknown = { .method = LOGIN_MD5, .known = "wrong" };
	struct talk talk, mock;

	(void)state;
	talk_once(&talk, &real);
	talk_once(&mock, &unknown);
	assert_int_equal(talk.login_step, LOGIN_FAIL);
	assert_int_equal(mock.login_step, LOGIN_FAIL);
	assert_string_equal(talk.types, "kl");
	assert_string_equal(mock.types, "kl");
	assert_int_equal(mock.login_works, talk.login_works);
	talk_close(&talk);
	talk_close(&mock);
	real.method = unknown.method = LOGIN_PLAIN;
	real.transport = unknown.transport = OVER_TLS;
	talk_once(&talk, &real);
	talk_once(&mock, &unknown);
	assert_int_equal(mock.login_step, LOGIN_FAIL);
	assert_int_equal(talk.login_step, LOGIN_FAIL);
	assert_int_equal(talk.login_works, 1);
	assert_int_equal(mock.login_works, 1);
	talk_close(&talk);
	talk_close(&mock);
}

/* ---- arithmetic ---- */

#define RFC_CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define RFC_NONCE RFC_CLIENT_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_BARE "n=user,r=" RFC_CLIENT_NONCE
#define RFC_SERVER_FIRST "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define RFC_CLIENT_FINAL "c=biws,r=" RFC_NONCE \
	",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define RFC_SERVER_FINAL "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static void
the_client_speaks_as_rfc_7677_does(void **state)
{
	struct scram scram = { .gs2 = 'n' };
	struct scram_keys keys;
	struct buf out = { 0 };

	(void)state;
	memcpy(scram.nonce, RFC_CLIENT_NONCE, 20);
	scram.nonce_len = 20;
	buf_add_text(&scram.auth_message, RFC_BARE);
	assert_true(scram_read_server_first(&scram, SPAN(RFC_SERVER_FIRST)));
	assert_int_equal(scram.iterations, 4096);
	assert_true(scram_derive_keys(SPAN("pencil"), (struct span){
	    (const char *)scram.salt, scram.salt_len }, 4096, &keys));
	assert_true(scram_write_client_final(&scram, keys.client_key, &out));
	assert_true(span_is(buf_span(&out), RFC_CLIENT_FINAL));
	assert_true(scram_read_server_final(&scram, SPAN(RFC_SERVER_FINAL),
	    keys.server_key));
	assert_false(scram_read_server_final(&scram, SPAN(RFC_SERVER_FINAL),
	    keys.client_key));
	buf_finish(&out);
	scram_finish(&scram);
}

static void
the_server_understands_rfc_7677(void **state)
{
	struct scram scram = { 0 };
	struct scram_keys keys;
	unsigned char salt[16], client_key[SCRAM_KEY];
	struct buf out = { 0 };
	size_t len;

	(void)state;
	assert_true(scram_decode64(SPAN("W22ZaJ0SNY7soEsUEjb6gQ=="), salt,
	    sizeof(salt), &len));
	assert_true(scram_derive_keys(SPAN("pencil"), (struct span){
	    (const char *)salt, len }, 4096, &keys));
	assert_true(scram_read_client_first(&scram, SPAN(SCRAM_NAME),
	    SPAN("n,," RFC_BARE)));
	/* What scram_write_server_first() would have said with that nonce. */
	memcpy(scram.nonce, RFC_NONCE, sizeof(RFC_NONCE) - 1);
	scram.nonce_len = sizeof(RFC_NONCE) - 1;
	buf_add_text(&scram.auth_message, "," RFC_SERVER_FIRST);
	assert_true(scram_read_client_final(&scram, SPAN(RFC_CLIENT_FINAL)));
	assert_true(scram_check_proof(&scram, keys.stored_key, client_key));
	assert_memory_equal(client_key, keys.client_key, SCRAM_KEY);
	assert_true(scram_write_server_final(&scram, keys.server_key, &out));
	assert_true(span_is(buf_span(&out), RFC_SERVER_FINAL));
	assert_false(scram_check_proof(&scram, keys.server_key, client_key));
	buf_finish(&out);
	scram_finish(&scram);
}

static void
keys_are_those_that_postgres_stores(void **state)
{
	struct secret secret = secret_of(VERIFIER);
	struct secret keys = keys_of("pencil");
	char stored[MD5_TEXT];

	(void)state;
	assert_int_equal(secret.kind, SECRET_SCRAM);
	assert_int_equal(secret.iterations, 4096);
	assert_int_equal(secret.salt_len, 16);
	assert_memory_equal(keys.stored_key, secret.stored_key, SCRAM_KEY);
	assert_memory_equal(keys.server_key, secret.server_key, SCRAM_KEY);
	assert_true(md5_stored(SPAN("pencil"), SPAN("hashed"), stored));
	assert_string_equal(stored, HASHED);
	secret_finish(&secret);
	secret_finish(&keys);
}

static void
base64_is_strict(void **state)
{
	static const struct {
		const char *text;
		int len;		/* -1: refused */
	} rows[] = {
		{ "", 0 }, { "QQ==", 1 }, { "QUI=", 2 }, { "QUJD", 3 },
		{ "QUJDRA==", 4 }, { "Q", -1 }, { "QQ", -1 }, { "QQ=", -1 },
		{ "QQ===", -1 }, { "Q===", -1 }, { "====", -1 },
		{ "QR==", -1 }, { "QUJ=", -1 }, { "QU=D", -1 },
		{ "=QQ=", -1 }, { "QQ==QUJD", -1 }, { " QQ=", -1 },
		{ "QQ=\n", -1 }, { "QU-_", -1 }, { "QUJDREVGR0hJ", -1 },
	};
	unsigned char bytes[8];
	size_t i, len;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct buf again = { 0 };
		bool good = scram_decode64(span_of(rows[i].text), bytes,
		    sizeof(bytes), &len);

		assert_int_equal(good, rows[i].len >= 0);
		if (!good)
			continue;
		assert_int_equal(len, rows[i].len);
		scram_encode64((struct span){ (const char *)bytes, len },
		    &again);
		assert_true(span_is(buf_span(&again), rows[i].text));
		buf_finish(&again);
	}
}

static void
a_secret_is_recognised_by_its_form(void **state)
{
	static const struct {
		const char *text;
		int kind;		/* -1: refused */
	} rows[] = {
		{ "", SECRET_NONE }, { "pencil", SECRET_PLAIN },
		{ HASHED, SECRET_MD5 }, { HASHED "0", SECRET_PLAIN },
		{ "md5AA2372305aa1ff8e526fb1199e6c004f", SECRET_PLAIN },
		{ VERIFIER, SECRET_SCRAM }, { VERIFIER "=", -1 },
		{ " " VERIFIER, SECRET_PLAIN },
		{ "SCRAM-SHA-256$", -1 }, { "SCRAM-SHA-256$4096", -1 },
		{ "SCRAM-SHA-256$0:QQ==$T+G/dPqKG4f2Fmme5CegBdOIuvKS3kW56R"
		    "mMEMLV3j8=:0uBw2e2nj+2ZcdjmRWALvyDmHUJTiHhQd/6W9OTTf5g=",
		    -1 },
		{ "SCRAM-SHA-256$1:$T+G/dPqKG4f2Fmme5CegBdOIuvKS3kW56R"
		    "mMEMLV3j8=:0uBw2e2nj+2ZcdjmRWALvyDmHUJTiHhQd/6W9OTTf5g=",
		    -1 },
		{ "SCRAM-SHA-256$1:QQ==$T+G/dPqKG4f2Fmme5CegBdOIuvKS3kW56R"
		    "mMEMLV3j8=:0uBw2e2nj+2ZcdjmRWALvyDmHUJTiHhQd/6W9OTT", -1 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct secret secret, copy;
		bool good = secret_parse(span_of(rows[i].text), &secret);

		assert_int_equal(good, rows[i].kind >= 0);
		if (!good)
			continue;
		assert_int_equal(secret.kind, rows[i].kind);
		assert_true(secret_copy(&copy, &secret));
		assert_true(secret_equal(&copy, &secret));
		copy.stored_key[0] ^= 1;
		assert_false(secret_equal(&copy, &secret));
		secret_finish(&copy);
		secret_finish(&secret);
	}
	assert_false(secret_parse((struct span){ "a\0b", 3 },
	    &(struct secret){ 0 }));
}

/* ---- who gets in ---- */

enum ending { GETS_IN, REFUSED_BY_US, WE_REFUSE_THE_SERVER };

static void
a_right_secret_gets_in_and_no_other(void **state)
{
	static const struct {
		struct setting setting;
		enum ending ending;
		const char *types;	/* of the server's messages */
	} rows[] = {
		/* method, kept, known, transport */
		{ { LOGIN_TRUST, NULL, NULL, IN_CLEAR, 0 }, GETS_IN, "a" },
		{ { LOGIN_ANY, NULL, NULL, IN_CLEAR, 0 }, GETS_IN, "a" },
		{ { LOGIN_REJECT, "pencil", "pencil", 0, 0 }, REFUSED_BY_US,
		    "" },
		{ { LOGIN_CERT, "pencil", NULL, OVER_TLS, 0 }, GETS_IN, "a" },
		{ { LOGIN_CERT, NULL, NULL, OVER_TLS, 0 }, REFUSED_BY_US,
		    "" },
		{ { LOGIN_PEER, "", NULL, IN_CLEAR, 0 }, GETS_IN, "a" },
		{ { LOGIN_PLAIN, "pencil", "pencil", OVER_TLS, 0 }, GETS_IN,
		    "da" },
		{ { LOGIN_PLAIN, HASHED, "pencil", OVER_TLS, 0 }, GETS_IN,
		    "da" },
		{ { LOGIN_PLAIN, VERIFIER, "pencil", OVER_TLS, 0 }, GETS_IN,
		    "da" },
		{ { LOGIN_PLAIN, "pencil", "pencil", IN_CLEAR, 0 },
		    WE_REFUSE_THE_SERVER, "d" },
		{ { LOGIN_PLAIN, "pencil", HASHED, OVER_TLS, 0 },
		    WE_REFUSE_THE_SERVER, "d" },
		{ { LOGIN_PLAIN, "pencil", "keys", OVER_TLS, 0 },
		    WE_REFUSE_THE_SERVER, "d" },
		{ { LOGIN_PLAIN, "pencil", "pencil2", OVER_TLS, 0 },
		    REFUSED_BY_US, "d" },
		{ { LOGIN_PLAIN, HASHED, "pencil2", OVER_TLS, 0 },
		    REFUSED_BY_US, "d" },
		{ { LOGIN_PLAIN, VERIFIER, "pencil2", OVER_TLS, 0 },
		    REFUSED_BY_US, "d" },
		{ { LOGIN_PLAIN, "", "pencil", OVER_TLS, 0 }, REFUSED_BY_US,
		    "d" },
		{ { LOGIN_MD5, "pencil", "pencil", IN_CLEAR, 0 }, GETS_IN,
		    "fa" },
		{ { LOGIN_MD5, HASHED, "pencil", IN_CLEAR, 0 }, GETS_IN,
		    "fa" },
		{ { LOGIN_MD5, "pencil", HASHED, IN_CLEAR, 0 }, GETS_IN,
		    "fa" },
		{ { LOGIN_MD5, VERIFIER, "pencil", IN_CLEAR, 0 }, GETS_IN,
		    "klma" },
		{ { LOGIN_MD5, "pencil", "pencil2", IN_CLEAR, 0 },
		    REFUSED_BY_US, "f" },
		{ { LOGIN_MD5, HASHED, "pencil2", IN_CLEAR, 0 },
		    REFUSED_BY_US, "f" },
		{ { LOGIN_MD5, HASHED, "keys", IN_CLEAR, 0 },
		    WE_REFUSE_THE_SERVER, "f" },
		{ { LOGIN_MD5, HASHED, NULL, IN_CLEAR, 0 },
		    WE_REFUSE_THE_SERVER, "f" },
		{ { LOGIN_SCRAM, "pencil", "pencil", IN_CLEAR, 0 }, GETS_IN,
		    "klma" },
		{ { LOGIN_SCRAM, "pencil", "pencil", OVER_TLS, 0 }, GETS_IN,
		    "klma" },
		{ { LOGIN_SCRAM, "pencil", "pencil", OVER_BOUND_TLS, 0 },
		    GETS_IN, "klma" },
		{ { LOGIN_SCRAM, VERIFIER, "pencil", OVER_BOUND_TLS, 0 },
		    GETS_IN, "klma" },
		{ { LOGIN_SCRAM, VERIFIER, "keys", OVER_BOUND_TLS, 0 },
		    GETS_IN, "klma" },
		{ { LOGIN_SCRAM, VERIFIER, "keys", IN_CLEAR, 0 }, GETS_IN,
		    "klma" },
		{ { LOGIN_SCRAM, "p\303\251ncil \360\237\220\230",
		    "p\303\251ncil \360\237\220\230", 0, 0 }, GETS_IN,
		    "klma" },
		{ { LOGIN_SCRAM, "pencil", "pencil2", IN_CLEAR, 0 },
		    REFUSED_BY_US, "kl" },
		{ { LOGIN_SCRAM, VERIFIER, "pencil2", OVER_BOUND_TLS, 0 },
		    REFUSED_BY_US, "kl" },
		{ { LOGIN_SCRAM, "pencil", "keys", IN_CLEAR, 0 },
		    REFUSED_BY_US, "kl" },
		{ { LOGIN_SCRAM, HASHED, "pencil", IN_CLEAR, 0 },
		    REFUSED_BY_US, "kl" },
		{ { LOGIN_SCRAM, HASHED, HASHED, IN_CLEAR, 0 },
		    WE_REFUSE_THE_SERVER, "k" },
		{ { LOGIN_SCRAM, NULL, "pencil", IN_CLEAR, 0 },
		    REFUSED_BY_US, "kl" },
		{ { LOGIN_SCRAM, "", "pencil", IN_CLEAR, 0 }, REFUSED_BY_US,
		    "kl" },
		/* more iterations than a server may ask for */
		{ { LOGIN_SCRAM, "SCRAM-SHA-256$1000001:QQ==$T+G/dPqKG4f2Fmm"
		    "e5CegBdOIuvKS3kW56RmMEMLV3j8=:0uBw2e2nj+2ZcdjmRWALvyDmH"
		    "UJTiHhQd/6W9OTTf5g=", "pencil", 0, 0 },
		    WE_REFUSE_THE_SERVER, "kl" },
	};
	struct talk talk;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		talk_once(&talk, &rows[i].setting);
		if (rows[i].ending == GETS_IN) {
			assert_int_equal(talk.login_step, LOGIN_OK);
			assert_int_equal(talk.server_step, LOGIN_OK);
		} else if (rows[i].ending == REFUSED_BY_US) {
			assert_int_equal(talk.login_step, LOGIN_FAIL);
			assert_true(strlen(login_why(talk.login)) > 0);
		} else {
			assert_int_equal(talk.server_step, LOGIN_FAIL);
			assert_true(strlen(server_login_why(
			    talk.server_login)) > 0);
		}
		assert_string_equal(talk.types, rows[i].types);
		talk_close(&talk);
	}
}

static void
a_proved_name_is_good_for_its_user_only(void **state)
{
	const struct login_about about = { .method = LOGIN_CERT,
	    .user = SPAN("root"), .proved_name = SPAN("roo") };
	struct login *login = login_create(&about);
	struct secret none = { 0 };
	struct buf out = { 0 };

	(void)state;
	assert_int_equal(login_begin(login, &out), LOGIN_NEED_SECRET);
	assert_int_equal(login_secret(login, &none, &out), LOGIN_FAIL);
	login_destroy(login);
}

static void
a_credential_logs_in_to_the_server_as_the_client_did(void **state)
{
	static const struct {
		struct setting setting;
		enum secret_kind kind;
	} rows[] = {
		{ { LOGIN_TRUST, NULL, NULL, 0, 0 }, SECRET_NONE },
		{ { LOGIN_PLAIN, VERIFIER, "pencil", OVER_TLS, 0 },
		    SECRET_PLAIN },
		{ { LOGIN_MD5, HASHED, "pencil", 0, 0 }, SECRET_MD5 },
		{ { LOGIN_SCRAM, "pencil", "pencil", 0, 0 }, SECRET_PLAIN },
		{ { LOGIN_SCRAM, VERIFIER, "pencil", 0, 0 }, SECRET_KEYS },
		{ { LOGIN_SCRAM, VERIFIER, "pencil2", 0, 0 }, SECRET_NONE },
		{ { LOGIN_SCRAM, NULL, "pencil", 0, 0 }, SECRET_NONE },
	};
	struct secret keys = keys_of("pencil"), credential;
	struct talk talk;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		talk_once(&talk, &rows[i].setting);
		login_credential(talk.login, &credential);
		assert_int_equal(credential.kind, rows[i].kind);
		if (credential.kind == SECRET_PLAIN)
			assert_string_equal(credential.text, "pencil");
		if (credential.kind == SECRET_KEYS)
			assert_true(secret_equal(&credential, &keys));
		secret_finish(&credential);
		talk_close(&talk);
	}
	secret_finish(&keys);
}

/* ---- PBKDF2 is paid for once ---- */

static void
keys_are_derived_once_for_each_side(void **state)
{
	/* One cache for both: the second row has another salt of its own. */
	static const struct {
		struct setting setting;
		unsigned login_works, server_works;
	} rows[] = {
		{ { LOGIN_SCRAM, "once", "once", 0, 3 }, 1, 0 },
		{ { LOGIN_SCRAM, "once", "once", 0, 3 }, 0, 0 },
		{ { LOGIN_SCRAM, "once", "once", 0, 4 }, 1, 0 },
		{ { LOGIN_SCRAM, VERIFIER, "pencil", 0, 0 }, 0, 1 },
		{ { LOGIN_SCRAM, VERIFIER, "pencil", 0, 0 }, 0, 0 },
		{ { LOGIN_SCRAM, VERIFIER, "wrong", 0, 0 }, 0, 1 },
		{ { LOGIN_SCRAM, VERIFIER, "wrong", 0, 0 }, 0, 1 },
		{ { LOGIN_SCRAM, VERIFIER, "keys", 0, 0 }, 0, 0 },
		{ { LOGIN_PLAIN, VERIFIER, "pencil", OVER_TLS, 0 }, 0, 0 },
		{ { LOGIN_PLAIN, VERIFIER, "wrong", OVER_TLS, 0 }, 1, 0 },
		{ { LOGIN_PLAIN, VERIFIER, "wrong", OVER_TLS, 0 }, 1, 0 },
	};
	struct talk talk;
	size_t i;

	(void)state;
	keys_forget_all();
	for (i = 0; i < COUNT(rows); i++) {
		talk_once(&talk, &rows[i].setting);
		/* The first row's client finds what the server has derived,
		 * unless the server has asked for it later. */
		if (i != 0 && i != 2)
			assert_int_equal(talk.server_works,
			    rows[i].server_works);
		assert_int_equal(talk.login_works + (i == 0 || i == 2 ?
		    talk.server_works : 0), rows[i].login_works +
		    (i == 0 || i == 2 ? 1u : 0u));
		talk_close(&talk);
	}
	keys_forget_all();
	talk_once(&talk, &rows[8].setting);
	assert_int_equal(talk.login_works, 1);
	talk_close(&talk);
	talk_once(&talk, &rows[8].setting);
	assert_int_equal(talk.login_works, 0);
	assert_int_equal(talk.login_step, LOGIN_OK);
	talk_close(&talk);
}

static struct keys_job
numbered_job(enum keys_shelf shelf, uint32_t number)
{
	return (struct keys_job){ .shelf = shelf, .user = SPAN("user"),
	    .password = SPAN("password"), .salt = SPAN("salt"),
	    .iterations = number, .has_keys = true };
}

static void
the_cache_of_keys_is_bounded_and_mocks_have_their_own(void **state)
{
	struct keys_job job;
	uint32_t i;

	(void)state;
	keys_forget_all();
	job = numbered_job(KEYS_REAL, 1);
	keys_keep(&job);
	job = numbered_job(KEYS_REAL, 2);
	keys_keep(&job);
	for (i = 1; i <= KEYS_CACHED_MAX; i++) {
		job = numbered_job(KEYS_MOCK, i);
		keys_keep(&job);
	}
	job = numbered_job(KEYS_REAL, 1);
	assert_true(keys_find(&job));
	for (i = 3; i <= KEYS_CACHED_MAX + 1; i++) {
		job = numbered_job(KEYS_REAL, i);
		keys_keep(&job);
	}
	/* 1 was used after 2, so 2 has gone. */
	job = numbered_job(KEYS_REAL, 2);
	assert_false(keys_find(&job));
	job = numbered_job(KEYS_REAL, 1);
	assert_true(keys_find(&job));
	job.password = SPAN("passwore");
	assert_false(keys_find(&job));
	job = numbered_job(KEYS_REAL, 1);
	job.user = SPAN("users");
	job.salt = SPAN("alt");
	assert_false(keys_find(&job));
	keys_forget_all();
	job = numbered_job(KEYS_REAL, 1);
	assert_false(keys_find(&job));
}

static void *
use_the_cache(void *arg)
{
	uint32_t i;

	for (i = 0; i < 2000; i++) {
		struct keys_job job = numbered_job(KEYS_REAL, 1 + i % 50);

		memset(&job.keys, (int)(i % 50), sizeof(job.keys));
		keys_keep(&job);
		memset(&job.keys, 0xff, sizeof(job.keys));
		if (keys_find(&job) &&
		    job.keys.server_key[SCRAM_KEY - 1] != i % 50)
			*(bool *)arg = true;
		if (i % 500 == 499)
			keys_forget_all();
	}
	return NULL;
}

static void
threads_share_the_cache_of_keys(void **state)
{
	pthread_t threads[4];
	bool mixed_up[4] = { false };
	size_t i;

	(void)state;
	keys_forget_all();
	for (i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL,
		    use_the_cache, &mixed_up[i]), 0);
	for (i = 0; i < COUNT(threads); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(mixed_up[i]);
	}
	keys_forget_all();
}

/* ---- damage on the way ---- */

static void
damage_flip(struct talk *talk, char *body, size_t *len)
{
	if (talk->damage_at >= *len)
		return;
	body[talk->damage_at] ^= 1;
	talk->damaged = true;
}

static void
damage_cut(struct talk *talk, char *body, size_t *len)
{
	(void)body;
	if (talk->damage_at >= *len)
		return;
	*len = talk->damage_at;
	talk->damaged = true;
}

static void
damage_add(struct talk *talk, char *body, size_t *len)
{
	if (talk->damage_at > 0)
		return;
	body[(*len)++] = 'x';
	talk->damaged = true;
}

static void
damage_everything(const struct setting *setting,
    void (*damage)(struct talk *, char *, size_t *))
{
	unsigned messages, nth, at;
	struct talk talk;
	bool damaged;

	talk_once(&talk, setting);
	assert_int_equal(talk.server_step, LOGIN_OK);
	messages = talk.messages;
	talk_close(&talk);
	for (nth = 0; nth < messages; nth++)
		for (at = 0, damaged = true; damaged; at++) {
			talk_open(&talk, setting);
			talk.damage = damage;
			talk.damage_nth = nth;
			talk.damage_at = at;
			talk_run(&talk, setting);
			damaged = talk.damaged;
			if (damaged)
				assert_true(talk.login_step == LOGIN_FAIL ||
				    talk.server_step == LOGIN_FAIL);
			talk_close(&talk);
		}
}

static void
no_login_survives_a_changed_cut_or_longer_message(void **state)
{
	static const struct setting settings[] = {
		{ LOGIN_PLAIN, "pencil", "pencil", OVER_TLS, 0 },
		{ LOGIN_MD5, HASHED, "pencil", IN_CLEAR, 0 },
		{ LOGIN_SCRAM, VERIFIER, "keys", IN_CLEAR, 0 },
		{ LOGIN_SCRAM, VERIFIER, "keys", OVER_BOUND_TLS, 0 },
		{ LOGIN_SCRAM, "pencil", "pencil", OVER_BOUND_TLS, 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(settings); i++) {
		damage_everything(&settings[i], damage_flip);
		damage_everything(&settings[i], damage_cut);
		damage_everything(&settings[i], damage_add);
	}
}

/* The list of mechanisms without its first, which is the bound one. */
static void
damage_downgrade(struct talk *talk, char *body, size_t *len)
{
	*len -= sizeof(SCRAM_PLUS_NAME);
	memmove(body + 4, body + 4 + sizeof(SCRAM_PLUS_NAME), *len - 4);
	talk->damaged = true;
}

static void
taking_the_offer_of_channel_binding_away_is_noticed(void **state)
{
	const struct setting setting = { LOGIN_SCRAM, VERIFIER, "keys",
	    OVER_BOUND_TLS, 0 };
	struct talk talk;

	(void)state;
	talk_open(&talk, &setting);
	talk.damage = damage_downgrade;
	talk_run(&talk, &setting);
	assert_true(talk.damaged);
	assert_int_equal(talk.login_step, LOGIN_FAIL);
	assert_non_null(strstr(login_why(talk.login), "in between"));
	talk_close(&talk);
}

static void
a_login_out_of_memory_fails_and_leaks_nothing(void **state)
{
	static const struct setting settings[] = {
		{ LOGIN_PLAIN, VERIFIER, "pencil", OVER_TLS, 0 },
		{ LOGIN_MD5, "pencil", "pencil", IN_CLEAR, 0 },
		{ LOGIN_SCRAM, "pencil", "pencil", OVER_BOUND_TLS, 0 },
		{ LOGIN_SCRAM, NULL, "pencil", IN_CLEAR, 0 },
	};
	struct talk talk;
	struct secret kept;
	uint64_t nth;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(settings); i++)
		for (nth = 1; nth < 40; nth++) {
			struct setting setting = settings[i];
			struct login_about about = {
				.method = setting.method,
				.user = SPAN("hashed"),
			};

			/* What is not the login's own gets its memory. */
			kept = secret_of("pencil");
			mem_fail_nth(nth);
			talk.login = login_create(&about);
			if (talk.login == NULL) {
				mem_fail_nth(0);
				secret_finish(&kept);
				continue;
			}
			mem_fail_nth(0);
			login_destroy(talk.login);
			secret_finish(&kept);
			talk_open(&talk, &setting);
			mem_fail_nth(nth + (setting.kept != NULL));
			talk_run(&talk, &setting);
			mem_fail_nth(0);
			talk_close(&talk);
		}
	keys_forget_all();
}

/* ---- malformed messages ---- */

#define NONCE "0123456789012345678901234567890123456789"

static void
each_malformed_client_first_is_refused(void **state)
{
	static const struct {
		const char *mechanism, *message;
		bool offers_plus, good;
	} rows[] = {
		{ SCRAM_NAME, "n,,n=,r=abc", false, true },
		{ SCRAM_NAME, "n,,n=,r=abc", true, true },
		{ SCRAM_NAME, "n,,n=*,r=a!~\"", false, true },
		{ SCRAM_NAME, "n,,n=,r=abc,x=1,y=", false, true },
		{ SCRAM_NAME, "y,,n=,r=abc", false, true },
		{ SCRAM_PLUS_NAME, "p=tls-server-end-point,,n=,r=abc", true,
		    true },
		{ SCRAM_NAME, "y,,n=,r=abc", true, false },
		{ SCRAM_PLUS_NAME, "p=tls-server-end-point,,n=,r=abc", false,
		    false },
		{ SCRAM_PLUS_NAME, "n,,n=,r=abc", true, false },
		{ SCRAM_PLUS_NAME, "y,,n=,r=abc", true, false },
		{ SCRAM_NAME, "p=tls-server-end-point,,n=,r=abc", true,
		    false },
		{ SCRAM_PLUS_NAME, "p=tls-unique,,n=,r=abc", true, false },
		{ SCRAM_PLUS_NAME, "p=tls-server-end-pointx,,n=,r=abc", true,
		    false },
		{ SCRAM_PLUS_NAME, "p=tls-server-end-point", true, false },
		{ SCRAM_PLUS_NAME, "p", true, false },
		{ "SCRAM-SHA-1", "n,,n=,r=abc", false, false },
		{ "SCRAM-SHA-256 ", "n,,n=,r=abc", false, false },
		{ "", "n,,n=,r=abc", false, false },
		{ SCRAM_NAME, "", false, false },
		{ SCRAM_NAME, "n", false, false },
		{ SCRAM_NAME, "n,", false, false },
		{ SCRAM_NAME, "n,,", false, false },
		{ SCRAM_NAME, "x,,n=,r=abc", false, false },
		{ SCRAM_NAME, "n;,n=,r=abc", false, false },
		{ SCRAM_NAME, "n,n=,r=abc", false, false },
		{ SCRAM_NAME, "n,a=root,n=,r=abc", false, false },
		{ SCRAM_NAME, "n,a=,n=,r=abc", false, false },
		{ SCRAM_NAME, "n,,m=x,n=,r=abc", false, false },
		{ SCRAM_NAME, "n,,n=,r=abc,m=x", false, false },
		{ SCRAM_NAME, "n,,r=abc", false, false },
		{ SCRAM_NAME, "n,,n=", false, false },
		{ SCRAM_NAME, "n,,n=,", false, false },
		{ SCRAM_NAME, "n,,n,r=abc", false, false },
		{ SCRAM_NAME, "n,,n=,r=", false, false },
		{ SCRAM_NAME, "n,,n=,r", false, false },
		{ SCRAM_NAME, "n,,n=,r=abc,", false, false },
		{ SCRAM_NAME, "n,,n=,r=abc,x", false, false },
		{ SCRAM_NAME, "n,,n=,r=abc,=x", false, false },
		{ SCRAM_NAME, "n,,n=,r=abc,1=x", false, false },
		{ SCRAM_NAME, "n,,n=,r=abc,p=x", false, false },
		{ SCRAM_NAME, "n,,n=,r=a b", false, false },
		{ SCRAM_NAME, "n,,n=,r=a\177b", false, false },
		{ SCRAM_NAME, "n,,n=,r=a\303\251b", false, false },
		{ SCRAM_NAME, " n,,n=,r=abc", false, false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct scram scram = { .end_point_len =
		    rows[i].offers_plus ? 32 : 0 };
		bool good = scram_read_client_first(&scram,
		    span_of(rows[i].mechanism), span_of(rows[i].message));

		if (good != rows[i].good)
			fail_msg("%s: %s", rows[i].message,
			    good ? "taken" : scram.why);
		assert_true(good || scram.why != NULL);
		scram_finish(&scram);
	}
}

static void
nonces_and_messages_have_limits(void **state)
{
	static char text[SCRAM_MESSAGE_MAX + 64];
	static const struct {
		size_t nonce, extension;
		bool good;
	} rows[] = {
		{ SCRAM_NONCE_MAX, 0, true },
		{ SCRAM_NONCE_MAX + 1, 0, false },
		{ SCRAM_MESSAGE_MAX - 8, 0, false },
		{ 1, SCRAM_MESSAGE_MAX - 12, true },
		{ 1, SCRAM_MESSAGE_MAX - 11, false },
	};
	size_t i, len;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct scram scram = { 0 };

		memset(text, 'a', sizeof(text));
		memcpy(text, "n,,n=,r=", 8);
		len = 8 + rows[i].nonce;
		if (rows[i].extension != 0) {
			memcpy(text + len, ",x=", 3);
			len += 3 + rows[i].extension;
		}
		assert_int_equal(scram_read_client_first(&scram,
		    SPAN(SCRAM_NAME), (struct span){ text, len }),
		    rows[i].good);
		scram_finish(&scram);
	}
}

static void
each_malformed_client_final_is_refused(void **state)
{
	static const char proof[] =
	    "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
	/* ~ stands for both nonces, ^ for a proof that is well formed. */
	static const struct {
		const char *message;
		bool good;
	} rows[] = {
		{ "c=biws,r=~,p=^", true }, { "c=biws,r=~,x=1,p=^", true },
		{ "c=biws,r=~,m=1,p=^", false }, { "c=biws,r=~,p=^,", false },
		{ "c=biws,r=~,p=^,x=1", false }, { "c=biws,r=~,p=", false },
		{ "c=biws,r=~", false }, { "c=biws,r=~,", false },
		{ "c=biws,r=~,p", false }, { "c=biws,p=^", false },
		{ "r=~,p=^", false }, { "", false }, { "c=biws", false },
		{ "c=,r=~,p=^", false }, { "c=eSws,r=~,p=^", false },
		{ "c=biws=,r=~,p=^", false }, { "c=biw,r=~,p=^", false },
		{ "c=biws,r=~x,p=^", false }, { "c=biws,r=,p=^", false },
		{ "c=biws,r=abc,p=^", false }, { "c=biws,r=~,p=^^", false },
		{ "c=biws,r=~,p=x^", false }, { "c=biws,r=~,p=QQ==", false },
		{ "c=biws,r=~,x,p=^", false }, { "r=~,c=biws,p=^", false },
		{ "c=biws,r=~,,p=^", false }, { "C=biws,r=~,p=^", false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct scram scram = { 0 };
		struct buf first = { 0 }, message = { 0 };
		const char *at;
		bool good;

		assert_true(scram_read_client_first(&scram, SPAN(SCRAM_NAME),
		    SPAN("n,,n=,r=abc")));
		assert_true(scram_write_server_first(&scram, SPAN("salt"), 1,
		    &first));
		for (at = rows[i].message; *at != '\0'; at++)
			if (*at == '~')
				buf_add(&message, scram.nonce,
				    scram.nonce_len);
			else if (*at == '^')
				buf_add_text(&message, proof);
			else
				buf_add(&message, at, 1);
		good = scram_read_client_final(&scram, buf_span(&message));
		if (good != rows[i].good)
			fail_msg("%s: %s", rows[i].message,
			    good ? "taken" : scram.why);
		buf_finish(&first);
		buf_finish(&message);
		scram_finish(&scram);
	}
}

static void
each_malformed_server_message_is_refused(void **state)
{
	/* ~ stands for the client's nonce. */
	static const struct {
		const char *message;
		bool good;
	} rows[] = {
		{ "r=~x,s=QQ==,i=1", true },
		{ "r=~x,s=QQ==,i=1000000", true },
		{ "r=~x,s=QQ==,i=1000001", false },
		{ "r=~x,s=QQ==,i=99999999999999999999", false },
		{ "r=~x,s=QQ==,i=0", false }, { "r=~x,s=QQ==,i=01", false },
		{ "r=~x,s=QQ==,i=-1", false }, { "r=~x,s=QQ==,i=+1", false },
		{ "r=~x,s=QQ==,i=", false }, { "r=~x,s=QQ==,i=1x", false },
		{ "r=~x,s=QQ==,i= 1", false }, { "r=~x,s=QQ==", false },
		{ "r=~x,s=QQ==,i=1,", false }, { "r=~x,s=QQ==,i=1,x=y",
		    false },
		{ "r=~,s=QQ==,i=1", false }, { "r=x~,s=QQ==,i=1", false },
		{ "r=,s=QQ==,i=1", false }, { "r=~ x,s=QQ==,i=1", false },
		{ "r=~x,s=,i=1", false }, { "r=~x,s=Q,i=1", false },
		{ "r=~x,i=1,s=QQ==", false }, { "s=QQ==,r=~x,i=1", false },
		{ "m=x,r=~x,s=QQ==,i=1", false }, { "", false },
		{ "e=other-error", false },
		{ "r=~" NONCE NONCE NONCE NONCE NONCE NONCE "0123456789abcdef"
		    ",s=QQ==,i=1", true },
		{ "r=~" NONCE NONCE NONCE NONCE NONCE NONCE "0123456789abcdefg"
		    ",s=QQ==,i=1", false },
		{ "r=~x,s=" NONCE NONCE "MDEyMw==,i=1", true },
		{ "r=~x,s=" NONCE NONCE "MDEyMzQ1,i=1", false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct scram scram = { .gs2 = 'n' };
		struct buf first = { 0 }, message = { 0 };
		const char *at;
		bool good;

		assert_true(scram_write_client_first(&scram, &first));
		for (at = rows[i].message; *at != '\0'; at++)
			if (*at == '~')
				buf_add(&message, scram.nonce,
				    scram.nonce_len);
			else
				buf_add(&message, at, 1);
		good = scram_read_server_first(&scram, buf_span(&message));
		if (good != rows[i].good)
			fail_msg("%s: %s", rows[i].message,
			    good ? "taken" : scram.why);
		buf_finish(&first);
		buf_finish(&message);
		scram_finish(&scram);
	}
}

static void
a_server_that_proves_nothing_is_refused(void **state)
{
	static const char *const bad[] = {
		"", "v=", "v=QQ==", "e=invalid-proof", "v",
		"x=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4",
		"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=,x=1",
		"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=,",
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(bad); i++) {
		struct scram scram = { .gs2 = 'n' };

		/* even by one who does not know the ServerKey */
		assert_false(scram_read_server_final(&scram,
		    span_of(bad[i]), NULL));
		assert_non_null(scram.why);
		scram_finish(&scram);
	}
}

/* ---- calls out of turn ---- */

enum call { CALL_BEGIN, CALL_SECRET, CALL_GOOD, CALL_BAD, CALL_EMPTY,
	CALL_WORKED, CALLS };

/* How far a login has come: the calls that brought it there. */
enum place { AT_BIRTH, AT_NEED, AT_ASKED_PLAIN, AT_ASKED_MD5, AT_ASKED_SASL,
	AT_SAID_FIRST, AT_NEED_WORK, AT_OK, AT_FAILURE, PLACES };

static struct buf
sasl_first(void)
{
	struct buf message = { 0 };

	msg_sasl_initial(&message, SCRAM_NAME, SPAN("n,,n=,r=abc"));
	buf_cut(&message, FRAME_HEADER);
	return message;
}

static struct login *
login_at_place(enum place place)
{
	struct login_about about = { .user = SPAN("hashed"),
	    .method = LOGIN_SCRAM, };
	struct secret secret = secret_of(place == AT_NEED_WORK ? VERIFIER :
	    "pencil");
	struct buf out = { 0 }, first = sasl_first();
	struct login *login;

	if (place == AT_ASKED_PLAIN || place == AT_NEED_WORK)
		about.method = LOGIN_PLAIN;
	if (place == AT_ASKED_MD5)
		about.method = LOGIN_MD5;
	if (place == AT_OK)
		about.method = LOGIN_TRUST;
	login = login_create(&about);
	if (place != AT_BIRTH)
		login_begin(login, &out);
	if (place > AT_NEED && place != AT_OK)
		login_secret(login, &secret, &out);
	if (place == AT_SAID_FIRST)
		login_message(login, buf_span(&first), &out);
	if (place == AT_NEED_WORK)
		assert_int_equal(login_message(login, (struct span){
		    "pencil", 7 }, &out), LOGIN_NEED_WORK);
	if (place == AT_FAILURE)
		login_message(login, SPAN_NONE, &out);
	secret_finish(&secret);
	buf_finish(&out);
	buf_finish(&first);
	return login;
}

static enum login_step
login_call(struct login *login, enum place place, enum call call)
{
	struct buf out = { 0 }, first = sasl_first();
	struct secret secret = secret_of("pencil");
	enum login_step step = LOGIN_FAIL;

	switch (call) {
	case CALL_BEGIN:
		step = login_begin(login, &out);
		break;
	case CALL_SECRET:
		step = login_secret(login, &secret, &out);
		break;
	case CALL_GOOD:
		step = login_message(login, place == AT_ASKED_PLAIN ?
		    (struct span){ "pencil", 7 } : buf_span(&first), &out);
		break;
	case CALL_BAD:
		step = login_message(login, SPAN("c=biws,r=abc,p=QQ=="),
		    &out);
		break;
	case CALL_EMPTY:
		step = login_message(login, SPAN_NONE, &out);
		break;
	case CALL_WORKED:
		login_work(login);
		step = login_worked(login, &out);
		break;
	case CALLS:
		break;
	}
	if (step == LOGIN_FAIL)
		assert_int_equal(out.len, 0);
	secret_finish(&secret);
	buf_finish(&out);
	buf_finish(&first);
	return step;
}

static void
a_call_out_of_turn_ends_a_login(void **state)
{
	static const struct {
		enum place place;
		enum call call;
		enum login_step step;
	} right[] = {
		{ AT_BIRTH, CALL_BEGIN, LOGIN_NEED_SECRET },
		{ AT_NEED, CALL_SECRET, LOGIN_SEND },
		{ AT_ASKED_PLAIN, CALL_GOOD, LOGIN_OK },
		{ AT_ASKED_SASL, CALL_GOOD, LOGIN_SEND },
		{ AT_NEED_WORK, CALL_WORKED, LOGIN_OK },
	};
	enum login_step step, expected;
	struct login *login;
	int place, call;
	size_t i;

	(void)state;
	for (place = 0; place < PLACES; place++)
		for (call = 0; call < CALLS; call++) {
			expected = LOGIN_FAIL;
			for (i = 0; i < COUNT(right); i++)
				if ((int)right[i].place == place &&
				    (int)right[i].call == call)
					expected = right[i].step;
			keys_forget_all();
			login = login_at_place((enum place)place);
			step = login_call(login, (enum place)place,
			    (enum call)call);
			if (step != expected)
				fail_msg("place %d, call %d: step %d", place,
				    call, (int)step);
			/* And it stays so. */
			if (step == LOGIN_FAIL || step == LOGIN_OK)
				assert_int_equal(login_call(login,
				    (enum place)place, (enum call)call),
				    LOGIN_FAIL);
			login_destroy(login);
		}
}

/* Bodies of 'R' messages, by their codes; SASL's with good contents. */
#define R(code, rest) { "\0\0\0" code rest, sizeof("\0\0\0" code rest) - 1 }

static const struct span server_says[] = {
	R("\0", ""), R("\2", ""), R("\3", ""), R("\5", "salt"), R("\6", ""),
	R("\7", ""), R("\10", "x"), R("\11", ""),
	R("\12", SCRAM_NAME "\0\0"), R("\13", "r=,s=QQ==,i=1"),
	R("\14", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
	R("\15", ""), R("\0", "x"), R("\3", "x"), R("\5", ""),
	R("\5", "salty"), R("\12", ""), R("\12", "\0"), R("\12", SCRAM_NAME),
	R("\12", "SCRAM-SHA-1\0\0"), R("\12", SCRAM_NAME "\0\0x"),
	R("\12", SCRAM_PLUS_NAME "\0" SCRAM_NAME "\0\0"),
	{ "", 0 }, { "\0\0\0", 3 }, { "\1\0\0\0", 4 },
	{ "\377\377\377\377", 4 },
};

enum server_place { BORN, ANSWERED, SAID_FIRST, SAID_FINAL, SERVER_PROVED,
	SERVER_OK, SERVER_FAILED, SERVER_PLACES };

/* A talk with ourselves, stopped when the client has come so far. */
static struct server_login *
server_login_at_place(enum server_place place)
{
	static const unsigned messages[] = { 0, 1, 1, 2, 3, 4, 0 };
	struct setting setting = { .kept = VERIFIER, .known = "pencil",
	    .method = place == ANSWERED ? LOGIN_PLAIN : LOGIN_SCRAM,
	    .transport = place == ANSWERED ? OVER_TLS : IN_CLEAR };
	struct secret kept = secret_of(VERIFIER);
	char body[SCRAM_MESSAGE_MAX + 1];
	struct server_login *login;
	enum login_step step;
	struct talk talk;
	unsigned i;
	size_t len;

	talk_open(&talk, &setting);
	login_begin(talk.login, &talk.to_server);
	login_secret(talk.login, &kept, &talk.to_server);
	for (i = 0; i < messages[place]; i++) {
		assert_true(talk_take(&talk, &talk.to_server, body, &len));
		step = server_login_message(talk.server_login,
		    (struct span){ body, len }, &talk.to_login);
		if (step == LOGIN_NEED_WORK) {
			server_login_work(talk.server_login);
			step = server_login_worked(talk.server_login,
			    &talk.to_login);
		}
		assert_int_equal(step, i == 3 ? LOGIN_OK : LOGIN_SEND);
		if (!talk_take(&talk, &talk.to_login, body, &len))
			continue;
		talk.login_step = login_message(talk.login,
		    (struct span){ body, len }, &talk.to_server);
		talk_settle_login(&talk);
	}
	if (place == SERVER_FAILED)
		server_login_message(talk.server_login, SPAN_NONE,
		    &talk.to_login);
	login = talk.server_login;
	talk.server_login = NULL;
	talk_close(&talk);
	secret_finish(&kept);
	return login;
}

static void
a_message_out_of_turn_ends_a_login_to_a_server(void **state)
{
	/* By the row of server_says; all the others fail. */
	static const struct {
		enum server_place place;
		size_t says;
		enum login_step step;
	} right[] = {
		{ BORN, 0, LOGIN_OK }, { BORN, 3, LOGIN_SEND },
		{ BORN, 8, LOGIN_SEND }, { ANSWERED, 0, LOGIN_OK },
		{ SERVER_PROVED, 0, LOGIN_OK },
	};
	struct server_login *login;
	enum login_step step, expected;
	struct buf out = { 0 };
	size_t says, i;
	int place;

	(void)state;
	for (place = 0; place < SERVER_PLACES; place++)
		for (says = 0; says <= COUNT(server_says); says++) {
			expected = LOGIN_FAIL;
			for (i = 0; i < COUNT(right); i++)
				if ((int)right[i].place == place &&
				    right[i].says == says)
					expected = right[i].step;
			login = server_login_at_place(
			    (enum server_place)place);
			buf_clear(&out);
			if (says == COUNT(server_says)) {
				server_login_work(login);
				step = server_login_worked(login, &out);
			} else {
				step = server_login_message(login,
				    server_says[says], &out);
			}
			if (step != expected)
				fail_msg("place %d, message %zu: step %d",
				    place, says, (int)step);
			assert_int_equal(out.len != 0, step == LOGIN_SEND);
			assert_true(step != LOGIN_FAIL ||
			    strlen(server_login_why(login)) > 0);
			server_login_destroy(login);
		}
	buf_finish(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_a_fresh_process_a_mock_is_scram),
		cmocka_unit_test(
		    where_secrets_are_plain_a_mock_works_like_a_plain_one),
		cmocka_unit_test(
		    where_verifiers_are_seen_a_mock_is_scram_for_good),
		cmocka_unit_test(
		    a_mock_has_the_same_salt_again_and_the_form_of_a_verifier),
		cmocka_unit_test(the_client_speaks_as_rfc_7677_does),
		cmocka_unit_test(the_server_understands_rfc_7677),
		cmocka_unit_test(keys_are_those_that_postgres_stores),
		cmocka_unit_test(base64_is_strict),
		cmocka_unit_test(a_secret_is_recognised_by_its_form),
		cmocka_unit_test(a_right_secret_gets_in_and_no_other),
		cmocka_unit_test(a_proved_name_is_good_for_its_user_only),
		cmocka_unit_test(
		    a_credential_logs_in_to_the_server_as_the_client_did),
		cmocka_unit_test(keys_are_derived_once_for_each_side),
		cmocka_unit_test(
		    the_cache_of_keys_is_bounded_and_mocks_have_their_own),
		cmocka_unit_test(threads_share_the_cache_of_keys),
		cmocka_unit_test(
		    no_login_survives_a_changed_cut_or_longer_message),
		cmocka_unit_test(
		    taking_the_offer_of_channel_binding_away_is_noticed),
		cmocka_unit_test(
		    a_login_out_of_memory_fails_and_leaks_nothing),
		cmocka_unit_test(each_malformed_client_first_is_refused),
		cmocka_unit_test(nonces_and_messages_have_limits),
		cmocka_unit_test(each_malformed_client_final_is_refused),
		cmocka_unit_test(each_malformed_server_message_is_refused),
		cmocka_unit_test(a_server_that_proves_nothing_is_refused),
		cmocka_unit_test(a_call_out_of_turn_ends_a_login),
		cmocka_unit_test(
		    a_message_out_of_turn_ends_a_login_to_a_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
