/*
 * Every call out of turn and every message out of turn ends a login, on both
 * sides: each place the machines can be at, against each call and message.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "auth/keys.h"
#include "auth/login.h"
#include "wire/body.h"
#include "wire/frame.h"

#include "auth_talk.h"

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
		about.method = LOGIN_ANY;
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
	char body[SCRAM_MESSAGE_MAX + 1];
	struct server_login *login;
	enum login_step step;
	struct talk talk;
	unsigned i;
	size_t len;

	talk_open(&talk, &setting);
	login_begin(talk.login, &talk.to_server);
	login_secret(talk.login, &talk.kept, &talk.to_server);
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
		cmocka_unit_test(a_call_out_of_turn_ends_a_login),
		cmocka_unit_test(
		    a_message_out_of_turn_ends_a_login_to_a_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
