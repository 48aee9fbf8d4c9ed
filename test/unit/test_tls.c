/*
 * TLS streams: against each other, and against OpenSSL used the plain way,
 * with authorities and certificates made here. The name of a test is the
 * sentence it proves.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/span.h"
#include "ends.h"
#include "net/tls.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/*
 * Certificates. Two authorities; the first has signed a server, which goes by
 * a name and an address, and a client.
 */
static char dir[] = "/tmp/test_tls.XXXXXX";
static char ca_file[64], other_ca_file[64], server_cert[64], server_key[64],
    client_cert[64], client_key[64], forged_cert[64], forged_key[64];

static void
add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(extension);
	X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
}

static X509 *
make_certificate(struct span name, EVP_PKEY *key, X509 *issuer,
    EVP_PKEY *issuer_key)
{
	static long serial;
	X509 *cert = X509_new();
	X509_NAME *subject = X509_get_subject_name(cert);

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
	    (const unsigned char *)name.at, (int)name.len, -1, 0);
	X509_set_issuer_name(cert, X509_get_subject_name(
	    issuer != NULL ? issuer : cert));
	if (issuer == NULL)
		add_extension(cert, cert, NID_basic_constraints,
		    "critical,CA:TRUE");
	else
		add_extension(cert, issuer, NID_subject_alt_name,
		    "DNS:db.example.org,IP:127.0.0.1");
	assert_true(X509_sign(cert, issuer_key, EVP_sha384()) > 0);
	return cert;
}

static void
write_files(const char *name, X509 *cert, char *cert_file, EVP_PKEY *key,
    char *key_file)
{
	FILE *file;

	snprintf(cert_file, 64, "%s/%s.crt", dir, name);
	file = fopen(cert_file, "w");
	assert_non_null(file);
	PEM_write_X509(file, cert);
	fclose(file);
	if (key_file == NULL)
		return;
	snprintf(key_file, 64, "%s/%s.key", dir, name);
	file = fopen(key_file, "w");
	assert_non_null(file);
	PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
}

static void
make_signed(struct span name, X509 *ca, EVP_PKEY *ca_key, char *cert_file,
    char *key_file)
{
	static const char *const files[] = { "one", "two", "three" };
	static unsigned made;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = make_certificate(name, key, ca, ca_key);

	write_files(files[made++], cert, cert_file, key, key_file);
	X509_free(cert);
	EVP_PKEY_free(key);
}

static int
make_files(void **state)
{
	EVP_PKEY *ca_key = EVP_EC_gen("P-256");
	EVP_PKEY *other_key = EVP_EC_gen("P-256");
	X509 *ca, *other;

	(void)state;
	assert_non_null(mkdtemp(dir));
	ca = make_certificate(SPAN("authority"), ca_key, NULL, ca_key);
	other = make_certificate(SPAN("another"), other_key, NULL,
	    other_key);
	write_files("authority", ca, ca_file, NULL, NULL);
	write_files("another", other, other_ca_file, NULL, NULL);
	make_signed(SPAN("server"), ca, ca_key, server_cert, server_key);
	make_signed(SPAN("alice"), ca, ca_key, client_cert, client_key);
	make_signed(SPAN("alice\0bob"), ca, ca_key, forged_cert, forged_key);
	X509_free(ca);
	X509_free(other);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(other_key);
	return 0;
}

static int
remove_files(void **state)
{
	(void)state;
	unlink(ca_file);
	unlink(other_ca_file);
	unlink(server_cert);
	unlink(server_key);
	unlink(client_cert);
	unlink(client_key);
	unlink(forged_cert);
	unlink(forged_key);
	return rmdir(dir);
}

static struct tls_ctx *
server_ctx(enum tls_mode mode)
{
	struct tls_settings settings = {
		.mode = mode, .cert_file = server_cert,
		.key_file = server_key, .ca_file = ca_file,
	};
	char why[200] = "";
	struct tls_ctx *ctx = tls_ctx_create_server(&settings, why,
	    sizeof(why));

	assert_string_equal(why, "");
	return ctx;
}

static struct tls_ctx *
client_ctx(enum tls_mode mode, const char *authority)
{
	struct tls_settings settings = {
		.mode = mode, .ca_file = authority,
	};
	char why[200] = "";
	struct tls_ctx *ctx = tls_ctx_create_client(&settings, why,
	    sizeof(why));

	assert_string_equal(why, "");
	return ctx;
}

/*
 * Two of our ends, one the client of the other.
 */
struct couple {
	struct end server, client;
	struct tls_ctx *server_ctx, *client_ctx;
};

static void
couple_init(struct couple *couple, struct loop *loop, struct tls_ctx *server,
    struct tls_ctx *client)
{
	int pair[2];

	make_pair(pair);
	end_init(&couple->server, loop);
	end_init(&couple->client, loop);
	couple->server.peer = &couple->client;
	couple->client.peer = &couple->server;
	couple->server_ctx = server;
	couple->client_ctx = client;
	assert_true(stream_adopt(&couple->server.stream, loop, pair[0]));
	assert_true(stream_adopt(&couple->client.stream, loop, pair[1]));
}

static void
couple_start(struct couple *couple, const char *host)
{
	assert_true(stream_start_tls_accept(&couple->server.stream,
	    couple->server_ctx, TLS_NEGOTIATED));
	assert_true(stream_start_tls_connect(&couple->client.stream,
	    couple->client_ctx, TLS_NEGOTIATED, host));
}

#define couple_run_until_open(couple) \
	run_until(&(couple)->server, \
	    (couple)->server.opens + (couple)->client.opens == 2)

static void
couple_open(struct couple *couple, struct loop *loop, enum tls_mode mode)
{
	couple_init(couple, loop, server_ctx(mode),
	    client_ctx(TLS_REQUIRE, NULL));
	couple_start(couple, NULL);
	couple_run_until_open(couple);
}

static void
couple_finish(struct couple *couple)
{
	end_finish(&couple->server);
	end_finish(&couple->client);
	tls_ctx_unref(couple->server_ctx);
	tls_ctx_unref(couple->client_ctx);
}

static void
say(struct end *end, const char *text)
{
	assert_int_equal(stream_send(&end->stream, text, strlen(text)),
	    STREAM_SENT);
}

static void
both_sides_talk_and_agree_on_the_certificate(void **state)
{
	struct couple couple;
	unsigned char ours[64], theirs[64];
	char text[100];

	couple_open(&couple, *state, TLS_REQUIRE);
	say(&couple.client, "question");
	run_until(&couple.server, couple.server.got.len == 8);
	say(&couple.server, "answer");
	run_until(&couple.client, couple.client.got.len == 6);
	assert_got(&couple.server, "question");
	assert_got(&couple.client, "answer");
	assert_int_equal(couple.server.stream.received, 8);
	assert_int_equal(couple.server.stream.sent, 6);
	stream_tls_version(&couple.server.stream, text, sizeof(text));
	assert_memory_equal(text, "TLSv1.3/TLS_AES", 15);
	/* Signed with SHA-384, and so is the channel binding. */
	assert_int_equal(stream_tls_end_point(&couple.server.stream, ours),
	    48);
	assert_int_equal(stream_tls_end_point(&couple.client.stream, theirs),
	    48);
	assert_memory_equal(ours, theirs, 48);
	assert_false(stream_tls_is_verified(&couple.client.stream));
	assert_string_equal(stream_tls_error(&couple.client.stream), "");
	couple_finish(&couple);
}

static void
a_farewell_is_an_end_and_comes_behind_the_last_bytes(void **state)
{
	struct couple couple;
	int open;

	couple_open(&couple, *state, TLS_REQUIRE);
	/* The connection stays: it is what TLS says that counts. */
	open = dup(couple.client.stream.fd);
	say(&couple.client, "last words");
	stream_close(&couple.client.stream);
	run_until(&couple.server, couple.server.closes == 1);
	assert_got(&couple.server, "last words");
	assert_int_equal(couple.server.why, STREAM_EOF);
	close(open);
	couple_finish(&couple);
}

static void
a_waiting_tls_client_that_leaves_is_noticed(void **state)
{
	struct couple couple;

	couple_open(&couple, *state, TLS_REQUIRE);
	stream_pause(&couple.server.stream, PAUSE_NO_SERVER);
	say(&couple.client, "query");
	stream_close(&couple.client.stream);
	run_until(&couple.server, couple.server.closes == 1);
	assert_int_equal(couple.server.why, STREAM_EOF);
	assert_int_equal(couple.server.offers, 0);
	couple_finish(&couple);
}

static void
pauses_hold_for_tls_as_well(void **state)
{
	static char bytes[8 * HELD_BOUND];
	struct couple couple;
	struct end *server = &couple.server;

	couple_open(&couple, *state, TLS_REQUIRE);
	stream_pause(&server->stream, PAUSE_NO_SERVER);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i * 17 >> 3);
	stream_send(&couple.client.stream, bytes, sizeof(bytes));
	go_round(*state);
	assert_int_equal(server->offers, 0);
	/* One record may be completed by the last bytes that are read. */
	assert_in_range(server->stream.held.len, HELD_BOUND / 2,
	    2 * HELD_BOUND + 512);
	stream_resume(&server->stream, PAUSE_NO_SERVER);
	run_until(server, server->got.len == sizeof(bytes));
	assert_memory_equal(server->got.at, bytes, sizeof(bytes));
	couple_finish(&couple);
}

static void
bytes_put_during_the_handshake_are_sent_after_it(void **state)
{
	struct couple couple;

	couple_init(&couple, *state, server_ctx(TLS_REQUIRE),
	    client_ctx(TLS_REQUIRE, NULL));
	couple_start(&couple, NULL);
	assert_int_equal(stream_send(&couple.client.stream, "hello", 5),
	    STREAM_QUEUED);
	assert_int_equal(stream_send(&couple.server.stream, "welcome", 7),
	    STREAM_QUEUED);
	run_until(&couple.server, couple.server.got.len == 5 &&
	    couple.client.got.len == 7 &&
	    couple.server.drains + couple.client.drains == 2);
	assert_got(&couple.server, "hello");
	assert_got(&couple.client, "welcome");
	couple_finish(&couple);
}

/*
 * How TLS begins
 */

static struct tls_ctx *the_ctx;		/* for start_in_data() */

/* As a client machine does: answer the request, then TLS. */
static void
answer_and_start(struct end *end)
{
	end->in_data = NULL;
	stream_send(&end->stream, "S", 1);
	assert_true(stream_start_tls_accept(&end->stream, the_ctx,
	    TLS_NEGOTIATED));
}

static void
ask_and_start(struct end *end)
{
	end->in_data = NULL;
	assert_true(stream_start_tls_connect(&end->stream, the_ctx,
	    TLS_NEGOTIATED, "db.example.org"));
}

static void
tls_begins_within_on_data_of_both_sides(void **state)
{
	struct couple couple;

	couple_init(&couple, *state, server_ctx(TLS_REQUIRE), NULL);
	the_ctx = couple.server_ctx;
	couple.server.in_data = answer_and_start;
	say(&couple.client, "request!");
	run_until(&couple.client, couple.client.offers == 1);
	couple.client_ctx = client_ctx(TLS_VERIFY_FULL, ca_file);
	assert_got(&couple.client, "S");
	the_ctx = couple.client_ctx;
	assert_true(stream_start_tls_connect(&couple.client.stream, the_ctx,
	    TLS_NEGOTIATED, "db.example.org"));
	couple_run_until_open(&couple);
	assert_true(stream_tls_is_verified(&couple.client.stream));
	couple_finish(&couple);
}

static void
bytes_stuffed_behind_the_request_end_the_stream(void **state)
{
	struct end client, server, held;

	the_ctx = server_ctx(TLS_REQUIRE);
	end_open(&client, *state);
	client.in_data = answer_and_start;
	client.eat = 8;
	far_say(&client, "request!and a query");
	run_until(&client, client.closes == 1);
	assert_int_equal(client.why, STREAM_TLS_FAILED);
	assert_int_equal(client.offers, 1);
	assert_string_equal(stream_tls_error(&client.stream),
	    "bytes behind the request for TLS");
	/* Held already when TLS is to start. */
	end_open(&held, *state);
	held.eat = 8;
	far_say(&held, "request!and a query");
	run_until(&held, held.offers == 1);
	assert_false(stream_start_tls_accept(&held.stream, the_ctx,
	    TLS_NEGOTIATED));
	tls_ctx_unref(the_ctx);
	/* The same, done by somebody between us and the server. */
	the_ctx = client_ctx(TLS_REQUIRE, NULL);
	end_open(&server, *state);
	server.in_data = ask_and_start;
	server.eat = 1;
	far_say(&server, "Sand an answer");
	run_until(&server, server.closes == 1);
	assert_int_equal(server.why, STREAM_TLS_FAILED);
	assert_string_equal(stream_tls_error(&server.stream),
	    "bytes behind the request for TLS");
	tls_ctx_unref(the_ctx);
	end_finish(&client);
	end_finish(&server);
	end_finish(&held);
}

static void
start_direct(struct end *end)
{
	end->in_data = NULL;
	assert_true(stream_start_tls_accept(&end->stream, the_ctx,
	    TLS_DIRECT));
}

static void
direct_tls_takes_the_hello_that_was_read_already(void **state)
{
	struct couple couple;

	couple_init(&couple, *state, server_ctx(TLS_REQUIRE),
	    client_ctx(TLS_VERIFY_FULL, ca_file));
	the_ctx = couple.server_ctx;
	couple.server.eat = 0;
	couple.server.in_data = start_direct;
	assert_true(stream_start_tls_connect(&couple.client.stream,
	    couple.client_ctx, TLS_DIRECT, "db.example.org"));
	couple_run_until_open(&couple);
	couple.server.eat = SIZE_MAX;
	buf_clear(&couple.server.got);
	say(&couple.client, "startup");
	run_until(&couple.server, couple.server.got.len == 7);
	couple_finish(&couple);
}

/*
 * Peers that use OpenSSL the plain way, on a thread, blocking.
 */
struct stranger {
	pthread_t thread;
	SSL_CTX *ctx;
	int fd;
	bool serves;
	bool leaves;			/* first, when all is said */
	const char *alpn;		/* NULL = none */
	size_t bytes;			/* to be echoed by it or by us */
	bool shook_hands;
	char sni[64];
};

static bool
stranger_talk(struct stranger *stranger, SSL *ssl)
{
	static _Thread_local char out[5000], in[5000];
	size_t n, at;

	for (size_t done = 0; done < stranger->bytes; done += sizeof(out)) {
		memset(out, (int)(done / sizeof(out)), sizeof(out));
		if (SSL_write(ssl, out, sizeof(out)) <= 0)
			return false;
		for (at = 0; at < sizeof(in); at += n)
			if (SSL_read_ex(ssl, in + at, sizeof(in) - at,
			    &n) != 1)
				return false;
		if (memcmp(in, out, sizeof(in)) != 0)
			return false;
	}
	return true;
}

static void *
stranger_main(void *arg)
{
	struct stranger *stranger = arg;
	SSL *ssl = SSL_new(stranger->ctx);
	const char *sni;
	char byte;
	int n;

	SSL_set_fd(ssl, stranger->fd);
	if (stranger->alpn != NULL)
		SSL_set_alpn_protos(ssl,
		    (const unsigned char *)stranger->alpn,
		    (unsigned)strlen(stranger->alpn));
	n = stranger->serves ? SSL_accept(ssl) : SSL_connect(ssl);
	sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	snprintf(stranger->sni, sizeof(stranger->sni), "%s",
	    sni != NULL ? sni : "");
	stranger->shook_hands = n == 1 && stranger_talk(stranger, ssl);
	/* Until the other end hangs up. */
	if (n == 1 && !stranger->leaves && SSL_read(ssl, &byte, 1) < 0)
		stranger->shook_hands = false;
	SSL_free(ssl);
	close(stranger->fd);
	ERR_clear_error();
	return NULL;
}

static void
stranger_start(struct stranger *stranger, struct end *end, struct loop *loop)
{
	end_open(end, loop);
	stranger->fd = end->far;
	end->far = -1;
	if (!stranger->serves && stranger->ctx == NULL)
		stranger->ctx = SSL_CTX_new(TLS_client_method());
	pthread_create(&stranger->thread, NULL, stranger_main, stranger);
}

static void
stranger_finish(struct stranger *stranger, struct end *end)
{
	end_finish(end);
	pthread_join(stranger->thread, NULL);
	SSL_CTX_free(stranger->ctx);
}

static size_t
echo_on_data(struct stream *s, const char *at, size_t len)
{
	struct end *end = container_of(s, struct end, stream);

	if (end->stream.state == STREAM_OPEN && end->in_data != NULL) {
		end->in_data(end);
		return 0;
	}
	stream_send(s, at, len);
	return len;
}

static const struct stream_ops echo_ops = {
	.on_data = echo_on_data,
	.on_open = end_on_open,
	.on_drain = end_on_drain,
	.on_close = end_on_close,
};

static void
direct_tls_insists_on_alpn_and_on_ours(void **state)
{
	static const struct {
		const char *alpn;
		enum tls_start start;
		bool good;
	} cases[] = {
		{ "\012postgresql", TLS_DIRECT, true },
		{ "\010http/1.1\012postgresql", TLS_DIRECT, true },
		{ "\010http/1.1", TLS_DIRECT, false },
		{ NULL, TLS_DIRECT, false },
		{ "\012postgresql", TLS_NEGOTIATED, true },
		{ "\010http/1.1", TLS_NEGOTIATED, false },
		{ NULL, TLS_NEGOTIATED, true },
	};
	struct tls_ctx *ctx = server_ctx(TLS_REQUIRE);

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct stranger stranger = { .alpn = cases[i].alpn };
		struct end end;

		stranger_start(&stranger, &end, *state);
		assert_true(stream_start_tls_accept(&end.stream, ctx,
		    cases[i].start));
		run_until(&end, end.opens + end.closes != 0);
		assert_int_equal(end.opens, cases[i].good);
		if (!cases[i].good)
			assert_int_equal(end.why, STREAM_TLS_FAILED);
		stranger_finish(&stranger, &end);
		assert_true(stranger.shook_hands || !cases[i].good);
	}
	tls_ctx_unref(ctx);
}

static void
the_name_is_told_the_server_and_an_address_is_not(void **state)
{
	static const struct {
		const char *host, *sni;
	} cases[] = {
		{ "db.example.org", "db.example.org" },
		{ "127.0.0.1", "" }, { "::1", "" }, { NULL, "" },
	};
	struct tls_ctx *ctx = client_ctx(TLS_REQUIRE, NULL);

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct stranger stranger = { .serves = true };
		struct end end;

		stranger.ctx = SSL_CTX_new(TLS_server_method());
		SSL_CTX_use_certificate_chain_file(stranger.ctx, server_cert);
		SSL_CTX_use_PrivateKey_file(stranger.ctx, server_key,
		    SSL_FILETYPE_PEM);
		stranger_start(&stranger, &end, *state);
		assert_true(stream_start_tls_connect(&end.stream, ctx,
		    TLS_NEGOTIATED, cases[i].host));
		run_until(&end, end.opens == 1);
		stranger_finish(&stranger, &end);
		assert_string_equal(stranger.sni, cases[i].sni);
	}
	tls_ctx_unref(ctx);
}

static void
a_session_with_a_server_is_resumed(void **state)
{
	static const char *const versions[] = { "tlsv1.2", "tlsv1.3" };

	for (size_t v = 0; v < 2; v++) {
		struct tls_settings settings = {
			.mode = TLS_VERIFY_FULL, .ca_file = ca_file,
			.protocols = versions[v],
		};
		char why[100];
		struct tls_ctx *ctx = tls_ctx_create_client(&settings, why,
		    sizeof(why));
		SSL_CTX *server = SSL_CTX_new(TLS_server_method());

		SSL_CTX_use_certificate_chain_file(server, server_cert);
		SSL_CTX_use_PrivateKey_file(server, server_key,
		    SSL_FILETYPE_PEM);
		SSL_CTX_set_session_id_context(server,
		    (const unsigned char *)"t", 1);
		for (unsigned i = 0; i < 3; i++) {
			struct stranger stranger = {
				.serves = true, .ctx = server,
				.bytes = 5000, .leaves = i == 0,
			};
			struct end end;
			unsigned char hash[64];

			SSL_CTX_up_ref(server);
			stranger_start(&stranger, &end, *state);
			end.stream.ops = &echo_ops;
			assert_true(stream_start_tls_connect(&end.stream, ctx,
			    TLS_NEGOTIATED, i < 2 ? "db.example.org" :
			    "127.0.0.1"));
			run_until(&end, end.opens == 1);
			/* The ticket comes with the first bytes, at last. */
			while (end.stream.received < 5000)
				go_round(*state);
			assert_int_equal(stream_tls_is_resumed(&end.stream),
			    i == 1);
			/* Whoever hangs up first, a session is good again. */
			if (stranger.leaves)
				run_until(&end, end.closes == 1);
			assert_true(stream_tls_is_verified(&end.stream));
			assert_int_equal(stream_tls_end_point(&end.stream,
			    hash), 48);
			stranger_finish(&stranger, &end);
			assert_true(stranger.shook_hands);
		}
		SSL_CTX_free(server);
		tls_ctx_unref(ctx);
	}
}

/*
 * Who is who
 */

static void
verification_does_what_its_mode_says(void **state)
{
	const struct {
		enum tls_mode mode;
		const char *authority, *host;
		bool good;
	} cases[] = {
		{ TLS_VERIFY_FULL, ca_file, "db.example.org", true },
		{ TLS_VERIFY_FULL, ca_file, "127.0.0.1", true },
		{ TLS_VERIFY_FULL, ca_file, "127.0.0.2", false },
		{ TLS_VERIFY_FULL, ca_file, "db.example.com", false },
		{ TLS_VERIFY_FULL, ca_file, "server", false },
		{ TLS_VERIFY_FULL, other_ca_file, "db.example.org", false },
		{ TLS_VERIFY_CA, ca_file, "db.example.com", true },
		{ TLS_VERIFY_CA, other_ca_file, "db.example.org", false },
		{ TLS_REQUIRE, other_ca_file, "db.example.com", true },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct couple couple;
		struct end *client = &couple.client;

		couple_init(&couple, *state, server_ctx(TLS_REQUIRE),
		    client_ctx(cases[i].mode, cases[i].authority));
		couple_start(&couple, cases[i].host);
		run_until(client, client->opens + client->closes != 0);
		assert_int_equal(client->opens, cases[i].good);
		assert_int_equal(stream_tls_is_verified(&client->stream),
		    cases[i].good && cases[i].mode != TLS_REQUIRE);
		if (!cases[i].good) {
			assert_int_equal(client->why, STREAM_TLS_FAILED);
			assert_string_not_equal(
			    stream_tls_error(&client->stream), "");
			/* The alert reaches the other side, too. */
			run_until(&couple.server, couple.server.closes == 1);
			assert_int_equal(couple.server.why,
			    STREAM_TLS_FAILED);
		}
		couple_finish(&couple);
	}
	/* Without a name there is nothing to compare. */
	{
		struct tls_ctx *ctx = client_ctx(TLS_VERIFY_FULL, ca_file);
		struct end end;

		end_open(&end, *state);
		assert_false(stream_start_tls_connect(&end.stream, ctx,
		    TLS_NEGOTIATED, ""));
		end_finish(&end);
		tls_ctx_unref(ctx);
	}
}

static void
a_client_is_known_by_its_certificate(void **state)
{
	struct tls_settings settings = {
		.mode = TLS_REQUIRE, .cert_file = client_cert,
		.key_file = client_key,
	};
	struct couple with, without, forged;
	char name[16], why[100], tiny[5];

	couple_init(&with, *state, server_ctx(TLS_VERIFY_FULL),
	    tls_ctx_create_client(&settings, why, sizeof(why)));
	couple_start(&with, NULL);
	couple_run_until_open(&with);
	assert_true(stream_tls_peer_name(&with.server.stream, name,
	    sizeof(name)));
	assert_string_equal(name, "alice");
	assert_false(stream_tls_peer_name(&with.server.stream, tiny,
	    sizeof(tiny)));
	assert_false(stream_tls_peer_name(&with.client.stream, name,
	    sizeof(name)));
	couple_finish(&with);

	settings.cert_file = forged_cert;
	settings.key_file = forged_key;
	couple_init(&forged, *state, server_ctx(TLS_VERIFY_FULL),
	    tls_ctx_create_client(&settings, why, sizeof(why)));
	couple_start(&forged, NULL);
	couple_run_until_open(&forged);
	assert_false(stream_tls_peer_name(&forged.server.stream, name,
	    sizeof(name)));
	couple_finish(&forged);

	couple_init(&without, *state, server_ctx(TLS_VERIFY_FULL),
	    client_ctx(TLS_REQUIRE, NULL));
	couple_start(&without, NULL);
	run_until(&without.server, without.server.closes == 1);
	assert_int_equal(without.server.opens, 0);
	assert_int_equal(without.server.why, STREAM_TLS_FAILED);
	couple_finish(&without);
}

static void
what_is_not_tls_ends_the_stream(void **state)
{
	static const char *const lines[] = {
		"GET / HTTP/1.1\r\n\r\n", "\026\003\001\377\377garbage", "",
	};
	struct tls_ctx *ctx = server_ctx(TLS_REQUIRE);

	for (size_t i = 0; i < COUNT(lines); i++) {
		struct end end;

		end_open(&end, *state);
		assert_true(stream_start_tls_accept(&end.stream, ctx,
		    TLS_NEGOTIATED));
		far_say(&end, lines[i]);
		shutdown(end.far, SHUT_WR);
		run_until(&end, end.closes == 1);
		assert_int_equal(end.why, STREAM_TLS_FAILED);
		assert_int_equal(end.offers, 0);
		assert_string_not_equal(stream_tls_error(&end.stream), "");
		end_finish(&end);
	}
	tls_ctx_unref(ctx);
}

static void
settings_that_cannot_be_are_refused_with_a_reason(void **state)
{
	const struct {
		struct tls_settings settings;
		const char *why;	/* a part of it */
		bool server;
	} cases[] = {
		{ { .mode = TLS_REQUIRE }, "certificate", true },
		{ { .cert_file = server_cert }, "together", true },
		{ { .cert_file = "/none", .key_file = server_key },
		    "No such file", true },
		{ { .cert_file = server_cert, .key_file = client_key },
		    "mismatch", true },
		{ { .mode = TLS_VERIFY_FULL }, "ca file", false },
		{ { .mode = TLS_VERIFY_CA, .ca_file = "system" },
		    "verify-full", false },
		{ { .ca_file = "/none" }, "No such file", false },
		{ { .protocols = "tlsv1.1" }, "tlsv1.2", false },
		{ { .protocols = "tlsv1.2,ssl" }, "ssl", false },
		{ { .ciphers = "nonsense" }, "nonsense", false },
		{ { .ciphersuites = "nonsense" }, "nonsense", false },
		{ { .ecdh_curve = "nonsense" }, "nonsense", false },
		{ { .dh_params = "nonsense" }, "nonsense", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char why[200] = "";

		assert_null(cases[i].server ?
		    tls_ctx_create_server(&cases[i].settings, why,
		    sizeof(why)) :
		    tls_ctx_create_client(&cases[i].settings, why,
		    sizeof(why)));
		if (strstr(why, cases[i].why) == NULL)
			fail_msg("%zu: %s", i, why);
	}
}

static void
settings_choose_version_and_cipher(void **state)
{
	static const struct {
		struct tls_settings settings;
		const char *version;
	} cases[] = {
		{ { .protocols = "tlsv1.2" }, "TLSv1.2/ECDHE-ECDSA-" },
		{ { .protocols = "all" }, "TLSv1.3/" },
		{ { .protocols = "tlsv1.0, tlsv1.2", .ciphers =
		    "ECDHE-ECDSA-AES128-GCM-SHA256" },
		    "TLSv1.2/ECDHE-ECDSA-AES128-GCM-SHA256" },
		{ { .ciphersuites = "TLS_CHACHA20_POLY1305_SHA256",
		    .ecdh_curve = "prime256v1", .ciphers = "secure",
		    .dh_params = "legacy" },
		    "TLSv1.3/TLS_CHACHA20_POLY1305_SHA256" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct couple couple;
		char text[100], why[100];

		couple_init(&couple, *state, server_ctx(TLS_REQUIRE),
		    tls_ctx_create_client(&cases[i].settings, why,
		    sizeof(why)));
		couple_start(&couple, NULL);
		couple_run_until_open(&couple);
		stream_tls_version(&couple.server.stream, text,
		    sizeof(text));
		assert_memory_equal(text, cases[i].version,
		    strlen(cases[i].version));
		couple_finish(&couple);
	}
}

/*
 * Bytes in any size
 */

/* Takes one byte at a time from one end's far side to the other's. */
static void
shuttle(struct end *from, struct end *to)
{
	char byte;

	fcntl(from->far, F_SETFL, O_NONBLOCK);
	while (read(from->far, &byte, 1) == 1) {
		far_write(to, &byte, 1);
		go_round(from->loop);
	}
}

static void
one_byte_at_a_time_is_enough(void **state)
{
	struct tls_ctx *accepts = server_ctx(TLS_REQUIRE);
	struct tls_ctx *connects = client_ctx(TLS_VERIFY_FULL, ca_file);
	struct end server, client;
	char text[3000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	end_open(&server, *state);
	end_open(&client, *state);
	server.eat = 0;			/* until TLS has begun */
	server.in_data = start_direct;
	the_ctx = accepts;
	assert_true(stream_start_tls_connect(&client.stream, connects,
	    TLS_DIRECT, "db.example.org"));
	stream_send(&client.stream, "early", 5);
	go_round(*state);
	while (server.opens + client.opens < 2) {
		shuttle(&client, &server);
		shuttle(&server, &client);
		if (server.opens == 1)
			server.eat = SIZE_MAX;
	}
	server.eat = SIZE_MAX;
	stream_send(&server.stream, text, sizeof(text) - 1);
	shuttle(&server, &client);
	shuttle(&client, &server);
	go_round(*state);
	assert_got(&client, text);
	/* "early" may have been offered before we were ready to eat. */
	stream_send(&client.stream, "late", 4);
	shuttle(&client, &server);
	assert_got(&server, "earlylate");
	end_finish(&server);
	end_finish(&client);
	tls_ctx_unref(accepts);
	tls_ctx_unref(connects);
}

#define BULK 20000000

/* Sends BULK bytes as fast as the kernel takes them and checks as many. */
struct bulk {
	struct end end;
	uint32_t sent, seen, wrong;	/* in bytes */
};

static char
bulk_byte(uint32_t i)
{
	return (char)((i * 2654435761u) >> 21);
}

static void
bulk_fill(struct bulk *bulk)
{
	static char piece[3 * 20000];
	uint32_t len = bulk->sent % 7 == 0 ? 60000 : 999;

	while (bulk->sent < BULK && !stream_is_blocked(&bulk->end.stream)) {
		if (len > BULK - bulk->sent)
			len = BULK - bulk->sent;
		for (uint32_t i = 0; i < len; i++)
			piece[i] = bulk_byte(bulk->sent + i);
		/* In three pieces that are no neighbours. */
		stream_put(&bulk->end.stream, piece, 1);
		stream_put(&bulk->end.stream, piece + 1, len / 3);
		stream_put(&bulk->end.stream, piece + 1 + len / 3,
		    len - len / 3 - 1);
		stream_flush(&bulk->end.stream);
		bulk->sent += len;
		len = len == 999 ? 16384 : 999;
	}
}

static size_t
bulk_on_data(struct stream *s, const char *at, size_t len)
{
	struct bulk *bulk = container_of(s, struct bulk, end.stream);

	loop_stop(bulk->end.loop);
	for (size_t i = 0; i < len; i++)
		bulk->wrong += at[i] != bulk_byte(bulk->seen++);
	return len;
}

static void
bulk_on_drain(struct stream *s)
{
	struct bulk *bulk = container_of(s, struct bulk, end.stream);

	bulk->end.drains++;
	bulk_fill(bulk);
}

static const struct stream_ops bulk_ops = {
	.on_data = bulk_on_data,
	.on_open = end_on_open,
	.on_drain = bulk_on_drain,
	.on_close = end_on_close,
};

static void
much_goes_both_ways_at_once(void **state)
{
	struct tls_ctx *accepts = server_ctx(TLS_REQUIRE);
	struct tls_ctx *connects = client_ctx(TLS_REQUIRE, NULL);
	struct bulk bulks[2];
	int pair[2], size = 4096;

	make_pair(pair);
	for (unsigned i = 0; i < 2; i++) {
		memset(&bulks[i], 0, sizeof(bulks[i]));
		end_init(&bulks[i].end, *state);
		bulks[i].end.stream.ops = &bulk_ops;
		assert_true(stream_adopt(&bulks[i].end.stream, *state,
		    pair[i]));
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size,
		    sizeof(size));
	}
	assert_true(stream_start_tls_accept(&bulks[0].end.stream, accepts,
	    TLS_NEGOTIATED));
	assert_true(stream_start_tls_connect(&bulks[1].end.stream, connects,
	    TLS_NEGOTIATED, NULL));
	run_until(&bulks[0].end, bulks[0].end.opens + bulks[1].end.opens ==
	    2);
	bulk_fill(&bulks[0]);
	bulk_fill(&bulks[1]);
	run_until(&bulks[0].end, bulks[0].seen == BULK &&
	    bulks[1].seen == BULK);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(bulks[i].wrong, 0);
		assert_true(bulks[i].end.drains > 10);
		end_finish(&bulks[i].end);
	}
	tls_ctx_unref(accepts);
	tls_ctx_unref(connects);
}

static void
a_plain_openssl_peer_is_understood(void **state)
{
	struct stranger stranger = { .bytes = 5000 * 200 };
	struct tls_ctx *ctx = server_ctx(TLS_REQUIRE);
	struct end end;

	stranger_start(&stranger, &end, *state);
	end.stream.ops = &echo_ops;
	assert_true(stream_start_tls_accept(&end.stream, ctx,
	    TLS_NEGOTIATED));
	run_until(&end, end.opens == 1);
	while (end.stream.received < stranger.bytes)
		go_round(*state);
	stranger_finish(&stranger, &end);
	assert_true(stranger.shook_hands);
	tls_ctx_unref(ctx);
}

/*
 * Many, and on other threads
 */

static void
a_crowd_shakes_hands_a_few_a_turn(void **state)
{
	enum { CROWD = 20 };
	static struct couple couples[CROWD];
	struct tls_ctx *accepts = server_ctx(TLS_REQUIRE);
	struct tls_ctx *connects = client_ctx(TLS_REQUIRE, NULL);
	uint64_t turns;
	unsigned open;

	for (unsigned i = 0; i < CROWD; i++) {
		couple_init(&couples[i], *state, tls_ctx_ref(accepts),
		    tls_ctx_ref(connects));
		couple_start(&couples[i], NULL);
	}
	turns = loop_turn_count(*state);
	do {
		loop_run(*state);
		open = 0;
		for (unsigned i = 0; i < CROWD; i++)
			open += couples[i].server.opens +
			    couples[i].client.opens;
	} while (open < 2 * CROWD);
	/* Four steps make a couple, and a turn has a handful of them. */
	assert_true(loop_turn_count(*state) - turns >= CROWD * 4 / 8);
	for (unsigned i = 0; i < CROWD; i++)
		couple_finish(&couples[i]);
	tls_ctx_unref(accepts);
	tls_ctx_unref(connects);
}

struct hopper {
	struct end end;
	struct loop_mail mail, stop;
	struct loop *side[2];
	unsigned hops;
};

static void
hopper_land(struct loop *loop, struct loop_mail *mail)
{
	struct hopper *hopper = container_of(mail, struct hopper, mail);

	assert_true(stream_attach(&hopper->end.stream, loop));
}

static void
hopper_stop(struct loop *loop, struct loop_mail *mail)
{
	(void)mail;
	loop_stop(loop);
}

static size_t
hopper_on_data(struct stream *s, const char *at, size_t len)
{
	struct hopper *hopper = container_of(s, struct hopper, end.stream);

	stream_send(s, at, len);
	if (!stream_can_move(s))
		return len;		/* half a record has come behind it */
	hopper->hops++;
	stream_detach(s);
	hopper->mail.read = hopper_land;
	loop_post(hopper->side[hopper->hops % 2], &hopper->mail);
	return len;
}

static void
hopper_on_close(struct stream *s, enum stream_end why)
{
	struct hopper *hopper = container_of(s, struct hopper, end.stream);

	(void)why;
	stream_close(s);
	hopper->stop.read = hopper->mail.read = hopper_stop;
	loop_post(hopper->side[0], &hopper->stop);
	loop_post(hopper->side[1], &hopper->mail);
}

static const struct stream_ops hopper_ops = {
	.on_data = hopper_on_data,
	.on_open = end_on_open,
	.on_close = hopper_on_close,
};

static void *
loop_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

/* Says its pieces and hangs up. */
static void *
hopper_far_main(void *arg)
{
	struct stranger *stranger = arg;
	SSL *ssl = SSL_new(stranger->ctx);

	SSL_set_fd(ssl, stranger->fd);
	stranger->shook_hands = SSL_connect(ssl) == 1 &&
	    stranger_talk(stranger, ssl);
	SSL_free(ssl);
	close(stranger->fd);
	ERR_clear_error();
	return NULL;
}

static void
a_tls_stream_moves_between_threads_and_loses_nothing(void **state)
{
	static struct hopper hopper;
	struct stranger stranger = { .bytes = 5000 * 300 };
	struct tls_ctx *ctx = server_ctx(TLS_REQUIRE);
	pthread_t side;

	end_open(&hopper.end, *state);
	hopper.end.stream.ops = &hopper_ops;
	hopper.side[0] = *state;
	hopper.side[1] = loop_create("side");
	stranger.fd = hopper.end.far;
	hopper.end.far = -1;
	stranger.ctx = SSL_CTX_new(TLS_client_method());
	assert_true(stream_start_tls_accept(&hopper.end.stream, ctx,
	    TLS_NEGOTIATED));
	pthread_create(&side, NULL, loop_main, hopper.side[1]);
	pthread_create(&stranger.thread, NULL, hopper_far_main, &stranger);
	run_until(&hopper.end, hopper.end.opens == 1);
	loop_run(*state);
	pthread_join(side, NULL);
	pthread_join(stranger.thread, NULL);
	assert_true(stranger.shook_hands);
	assert_true(hopper.hops >= 300);
	SSL_CTX_free(stranger.ctx);
	tls_ctx_unref(ctx);
	loop_destroy(hopper.side[1]);
}

static void
running_out_of_memory_while_starting_is_survived(void **state)
{
	struct tls_ctx *ctx = server_ctx(TLS_REQUIRE);
	struct loop *fresh = loop_create("fresh");
	struct end end;

	(void)state;
	end_open(&end, fresh);
	for (uint64_t nth = 1; nth <= 2; nth++) {
		mem_fail_nth(nth);
		assert_false(stream_start_tls_accept(&end.stream, ctx,
		    TLS_NEGOTIATED));
		assert_int_equal(end.stream.state, STREAM_OPEN);
		mem_fail_nth(0);
	}
	assert_true(stream_start_tls_accept(&end.stream, ctx,
	    TLS_NEGOTIATED));
	end_finish(&end);
	loop_destroy(fresh);
	tls_ctx_unref(ctx);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(test) cmocka_unit_test_setup_teardown(test, begin, finish)
		TEST(both_sides_talk_and_agree_on_the_certificate),
		TEST(a_farewell_is_an_end_and_comes_behind_the_last_bytes),
		TEST(a_waiting_tls_client_that_leaves_is_noticed),
		TEST(pauses_hold_for_tls_as_well),
		TEST(bytes_put_during_the_handshake_are_sent_after_it),
		TEST(tls_begins_within_on_data_of_both_sides),
		TEST(bytes_stuffed_behind_the_request_end_the_stream),
		TEST(direct_tls_takes_the_hello_that_was_read_already),
		TEST(direct_tls_insists_on_alpn_and_on_ours),
		TEST(the_name_is_told_the_server_and_an_address_is_not),
		TEST(a_session_with_a_server_is_resumed),
		TEST(verification_does_what_its_mode_says),
		TEST(a_client_is_known_by_its_certificate),
		TEST(what_is_not_tls_ends_the_stream),
		TEST(settings_that_cannot_be_are_refused_with_a_reason),
		TEST(settings_choose_version_and_cipher),
		TEST(one_byte_at_a_time_is_enough),
		TEST(much_goes_both_ways_at_once),
		TEST(a_plain_openssl_peer_is_understood),
		TEST(a_crowd_shakes_hands_a_few_a_turn),
		TEST(a_tls_stream_moves_between_threads_and_loses_nothing),
		TEST(running_out_of_memory_while_starting_is_survived),
	};

	signal(SIGPIPE, SIG_IGN);	/* the strangers write plainly */
	alarm(120);
	return cmocka_run_group_tests(tests, make_files, remove_files);
}
