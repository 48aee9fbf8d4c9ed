/*
 * A server that we log in to, hostile. The first byte chooses what we know
 * and how we are connected; bodies of 'R' messages follow, each behind two
 * bytes of length, of which 65535 means all the rest. Random bytes are zeroes
 * here, so that a seed can hold a whole good login.
 */
#include "auth/digest.h"
#include "auth/login.h"
#include "auth/scram.h"
#include "fuzz.h"

static bool
no_random(unsigned char *at, size_t len)
{
	memset(at, 0, len);
	return true;
}

static bool
holds(const struct buf *out, const char *text)
{
	return out->len != 0 &&
	    memmem(out->at, out->len, text, strlen(text)) != NULL;
}

/* Is it the password itself? (A nonce may hold its letters by chance.) */
static bool
is_password(const struct buf *out)
{
	return out->len == 12 && memcmp(out->at + 5, "pencil", 7) == 0;
}

static bool
cut_message(struct span *rest, struct span *ret)
{
	const unsigned char *at = (const unsigned char *)rest->at;
	size_t len;

	if (rest->len < 2)
		return false;
	len = (size_t)at[0] << 8 | at[1];
	rest->at += 2;
	rest->len -= 2;
	if (len == 65535 || len > rest->len)
		len = rest->len;
	*ret = (struct span){ rest->at, len };
	rest->at += len;
	rest->len -= len;
	return true;
}

/* PLAIN, MD5, nothing, or the keys of "pencil" with a salt of zeroes. */
static void
make_secret(unsigned which, struct secret *ret)
{
	static const unsigned char salt[16];
	static struct scram_keys keys;
	static bool derived;

	*ret = (struct secret){ 0 };
	if (which == 0)
		check(secret_make_plain(SPAN("pencil"), ret));
	else if (which == 1)
		check(secret_parse(
		    SPAN("md5aa2372305aa1ff8e526fb1199e6c004f"), ret));
	if (which < 3)
		return;
	if (!derived)
		derived = scram_derive_keys(SPAN("pencil"), (struct span){
		    (const char *)salt, sizeof(salt) }, 1, &keys);
	check(derived);
	ret->kind = SECRET_KEYS;
	ret->has_client_key = ret->has_server_key = true;
	memcpy(ret->client_key, keys.client_key, SCRAM_KEY);
	memcpy(ret->server_key, keys.server_key, SCRAM_KEY);
}

static enum login_step
hear(struct server_login *login, struct span message, struct buf *out)
{
	char *copy = fuzz_copy(message.at, message.len);
	enum login_step step = server_login_message(login,
	    (struct span){ copy, message.len }, out);

	free(copy);
	if (step != LOGIN_NEED_WORK)
		return step;
	/* The work is left out: a million rounds are allowed, and slow. */
	return server_login_worked(login, out);
}

static void
talk(struct server_login *login, struct span rest, bool may_send_password)
{
	enum login_step step = LOGIN_SEND;
	bool over, in_scram = false, proved = false;
	struct buf out = { 0 };
	struct span message;

	while (cut_message(&rest, &message)) {
		over = step != LOGIN_SEND;
		step = hear(login, message, &out);
		check(!over || step == LOGIN_FAIL);
		check(!out.failed);
		check(step == LOGIN_SEND || out.len == 0);
		check((step == LOGIN_FAIL) ==
		    (server_login_why(login)[0] != '\0'));
		check(may_send_password || !is_password(&out));
		in_scram |= holds(&out, SCRAM_NAME);
		proved |= step == LOGIN_SEND && message.len > 3 &&
		    message.at[3] == 12;
		check(step != LOGIN_OK || !in_scram || proved);
		buf_clear(&out);
	}
	buf_finish(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();
	struct server_login_about about = { .user = SPAN("hashed") };
	struct server_login *login;
	struct secret secret;

	if (len == 0)
		return 0;
	digest_set_random(no_random);
	make_secret(data[0] & 3, &secret);
	about.secret = &secret;
	about.over_tls = (data[0] & 4) != 0;
	about.tls_verified = (data[0] & 8) != 0;
	about.end_point_len = (data[0] & 16) != 0 ? 32 : 0;
	about.is_local = (data[0] & 32) != 0;
	login = server_login_create(&about);
	check(login != NULL);
	talk(login, (struct span){ (const char *)data + 1, len - 1 },
	    about.is_local || (about.over_tls && about.tls_verified));
	server_login_destroy(login);
	secret_finish(&secret);
	fuzz_check_time(began);
	return 0;
}
