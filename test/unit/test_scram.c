/*
 * SCRAM and md5 by themselves: the arithmetic against published vectors and
 * against what Postgres has stored, and every way in which a message can be
 * malformed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "auth/md5.h"
#include "auth/scram.h"
#include "auth/secret.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* As Postgres 15 stored the password "pencil" of the user "hashed". */
#define VERIFIER "SCRAM-SHA-256$4096:Kuvi7fnbhBhyMiJOoMGpzA==" \
	"$T+G/dPqKG4f2Fmme5CegBdOIuvKS3kW56RmMEMLV3j8=" \
	":0uBw2e2nj+2ZcdjmRWALvyDmHUJTiHhQd/6W9OTTf5g="
#define HASHED "md5aa2372305aa1ff8e526fb1199e6c004f"

static struct secret
secret_of(const char *text)
{
	struct secret secret = { 0 };

	assert_true(secret_parse(span_of(text), &secret));
	return secret;
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
	struct scram_keys keys;
	char stored[MD5_TEXT], answer[MD5_TEXT];

	(void)state;
	assert_int_equal(secret.kind, SECRET_SCRAM);
	assert_int_equal(secret.iterations, 4096);
	assert_int_equal(secret.salt_len, 16);
	assert_true(scram_derive_keys(SPAN("pencil"), (struct span){
	    (const char *)secret.salt, secret.salt_len }, secret.iterations,
	    &keys));
	assert_memory_equal(keys.stored_key, secret.stored_key, SCRAM_KEY);
	assert_memory_equal(keys.server_key, secret.server_key, SCRAM_KEY);
	assert_true(md5_stored(SPAN("pencil"), SPAN("hashed"), stored));
	assert_string_equal(stored, HASHED);
	assert_true(md5_answer(stored, (const unsigned char *)"\1\2\3\377",
	    answer));
	assert_string_equal(answer, "md54a5cd7a902e7bcbb55ad998069d227e5");
	secret_finish(&secret);
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_client_speaks_as_rfc_7677_does),
		cmocka_unit_test(the_server_understands_rfc_7677),
		cmocka_unit_test(keys_are_those_that_postgres_stores),
		cmocka_unit_test(base64_is_strict),
		cmocka_unit_test(a_secret_is_recognised_by_its_form),
		cmocka_unit_test(each_malformed_client_first_is_refused),
		cmocka_unit_test(nonces_and_messages_have_limits),
		cmocka_unit_test(each_malformed_client_final_is_refused),
		cmocka_unit_test(each_malformed_server_message_is_refused),
		cmocka_unit_test(a_server_that_proves_nothing_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
