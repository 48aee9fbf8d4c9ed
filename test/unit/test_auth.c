/*
 * Logins on both sides: the two machines against each other, and against
 * every damaged message. (Every call out of turn: test_auth_turns.c; the
 * arithmetic and the messages by themselves: test_scram.c.)
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "auth/keys.h"
#include "auth/login.h"
#include "auth/scram.h"
#include "auth/secret.h"
#include "base/mem.h"
#include "wire/body.h"
#include "wire/frame.h"

#include "auth_talk.h"

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

static void
names_made_up_push_no_real_user_out_of_the_cache(void **state)
{
	struct setting real = { .method = LOGIN_SCRAM, .kept = "mine",
	    .known = "keys" };
	struct setting unknown = { .method = LOGIN_SCRAM, .known = "keys",
	    .iterations = 1 };
	char name[16];
	struct talk talk;
	unsigned i;

	(void)state;
	keys_forget_all();
	for (i = 0; i <= KEYS_CACHED_MAX; i++) {
		snprintf(name, sizeof(name), "%u", i);
		talk_open_as(&talk, i == 0 ? &real : &unknown,
		    i == 0 ? "hashed" : name);
		talk_run(&talk, i == 0 ? &real : &unknown);
		assert_int_equal(talk.login_works, 1);
		talk_close(&talk);
	}
	talk_once(&talk, &real);
	assert_int_equal(talk.login_works, 0);
	talk_close(&talk);
	keys_forget_all();
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

/* ---- who gets in ---- */

enum ending { GETS_IN, REFUSED_BY_US, WE_REFUSE_THE_SERVER };

static const struct {
	struct setting setting;
	enum ending ending;
	const char *types;	/* of the server's messages */
} logins[] = {
	/* method, kept, known, transport */
	{ { LOGIN_TRUST, "", NULL, IN_CLEAR, 0 }, GETS_IN, "a" },
	{ { LOGIN_TRUST, NULL, NULL, IN_CLEAR, 0 }, REFUSED_BY_US,
	    "" },
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
	/* an md5 secret is no password */
	{ { LOGIN_SCRAM, HASHED, "=" HASHED, IN_CLEAR, 0 },
	    REFUSED_BY_US, "kl" },
	{ { LOGIN_PLAIN, HASHED, "=" HASHED, OVER_TLS, 0 },
	    REFUSED_BY_US, "d" },
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

static void
a_right_secret_gets_in_and_no_other(void **state)
{
	struct talk talk;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(logins); i++) {
		talk_once(&talk, &logins[i].setting);
		if (logins[i].ending == GETS_IN) {
			assert_int_equal(talk.login_step, LOGIN_OK);
			assert_int_equal(talk.server_step, LOGIN_OK);
		} else if (logins[i].ending == REFUSED_BY_US) {
			assert_int_equal(talk.login_step, LOGIN_FAIL);
			assert_true(strlen(login_why(talk.login)) > 0);
		} else {
			assert_int_equal(talk.server_step, LOGIN_FAIL);
			assert_true(strlen(server_login_why(
			    talk.server_login)) > 0);
		}
		assert_string_equal(talk.types, logins[i].types);
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
		{ { LOGIN_TRUST, "", NULL, 0, 0 }, SECRET_NONE },
		{ { LOGIN_PLAIN, VERIFIER, "pencil", OVER_TLS, 0 },
		    SECRET_PLAIN },
		{ { LOGIN_MD5, HASHED, "pencil", 0, 0 }, SECRET_MD5 },
		{ { LOGIN_SCRAM, "pencil", "pencil", 0, 0 }, SECRET_PLAIN },
		{ { LOGIN_SCRAM, VERIFIER, "pencil", 0, 0 }, SECRET_KEYS },
		{ { LOGIN_SCRAM, VERIFIER, "pencil2", 0, 0 }, SECRET_NONE },
		{ { LOGIN_SCRAM, NULL, "pencil", 0, 0 }, SECRET_NONE },
	};
	struct secret keys = keys_of_pencil(), credential;
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
	static const struct {
		struct setting setting;
		unsigned login_works, server_works;
	} rows[] = {
		{ { LOGIN_SCRAM, "once", "once", 0, 3 }, 1, 1 },
		{ { LOGIN_SCRAM, "once", "once", 0, 3 }, 0, 0 },
		{ { LOGIN_SCRAM, "once", "once", 0, 4 }, 1, 1 },
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
		assert_int_equal(talk.login_works, rows[i].login_works);
		assert_int_equal(talk.server_works, rows[i].server_works);
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

/* The name of the second mechanism, where the first one is chosen, is read by
 * nobody. */
static bool
is_harmless(const struct setting *setting, const struct talk *talk)
{
	const unsigned second = 4 + sizeof(SCRAM_PLUS_NAME);

	return setting->transport == OVER_BOUND_TLS &&
	    talk->damage == damage_flip && talk->damage_nth == 0 &&
	    talk->damage_at >= second &&
	    talk->damage_at < second + sizeof(SCRAM_NAME) - 1;
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
			if (is_harmless(setting, &talk))
				assert_int_equal(talk.server_step, LOGIN_OK);
			else if (damaged)
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
without_memory_nobody_gets_in_who_does_not_belong(void **state)
{
	static const struct {
		struct setting setting;
		bool belongs;
	} rows[] = {
		{ { LOGIN_PLAIN, VERIFIER, "pencil", OVER_TLS, 0 }, true },
		{ { LOGIN_PLAIN, VERIFIER, "wrong", OVER_TLS, 0 }, false },
		{ { LOGIN_PLAIN, HASHED, "wrong", OVER_TLS, 0 }, false },
		{ { LOGIN_MD5, "pencil", "pencil", IN_CLEAR, 0 }, true },
		{ { LOGIN_MD5, "pencil", "wrong", IN_CLEAR, 0 }, false },
		{ { LOGIN_SCRAM, "pencil", "pencil", OVER_BOUND_TLS, 0 },
		    true },
		{ { LOGIN_SCRAM, "pencil", "wrong", IN_CLEAR, 0 }, false },
		{ { LOGIN_SCRAM, NULL, "pencil", IN_CLEAR, 0 }, false },
	};
	bool got_in, stopped;
	struct talk talk;
	uint64_t nth;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		got_in = stopped = false;
		for (nth = 1; nth < 60; nth++) {
			talk_open(&talk, &rows[i].setting);
			mem_fail_nth(nth);
			talk_run(&talk, &rows[i].setting);
			mem_fail_nth(0);
			if (talk.login_step == LOGIN_OK)
				got_in = true;
			else if (rows[i].belongs)
				stopped = true;
			talk_close(&talk);
		}
		assert_int_equal(got_in, rows[i].belongs);
		assert_int_equal(stopped, rows[i].belongs);
	}
	keys_forget_all();
}

static void
a_login_is_not_begun_without_memory(void **state)
{
	const struct login_about about = { .user = SPAN("hashed") };
	struct secret secret = secret_of("pencil");
	const struct server_login_about server_about = {
	    .user = SPAN("hashed"), .secret = &secret };
	uint64_t nth;

	(void)state;
	for (nth = 1; nth <= 3; nth++) {
		mem_fail_nth(nth);
		if (nth < 3)
			assert_null(login_create(&about));
		else
			assert_null(server_login_create(&server_about));
	}
	mem_fail_nth(0);
	secret_finish(&secret);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_a_fresh_process_a_mock_is_scram),
		cmocka_unit_test(
		    where_secrets_are_plain_a_mock_works_like_a_plain_one),
		cmocka_unit_test(
		    names_made_up_push_no_real_user_out_of_the_cache),
		cmocka_unit_test(
		    where_verifiers_are_seen_a_mock_is_scram_for_good),
		cmocka_unit_test(
		    a_mock_has_the_same_salt_again_and_the_form_of_a_verifier),
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
		    without_memory_nobody_gets_in_who_does_not_belong),
		cmocka_unit_test(a_login_is_not_begun_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
