/*
 * A client that logs in to us, hostile. The first byte chooses method, secret
 * and channel binding; messages follow, each behind two bytes of length, of
 * which 65535 means all the rest. Random bytes are zeroes here, so that a seed
 * can hold a whole good login.
 */
#include "auth/digest.h"
#include "auth/login.h"
#include "fuzz.h"

#define VERIFIER "SCRAM-SHA-256$4096:Kuvi7fnbhBhyMiJOoMGpzA==" \
	"$T+G/dPqKG4f2Fmme5CegBdOIuvKS3kW56RmMEMLV3j8=" \
	":0uBw2e2nj+2ZcdjmRWALvyDmHUJTiHhQd/6W9OTTf5g="

static bool
no_random(unsigned char *at, size_t len)
{
	memset(at, 0, len);
	return true;
}

/* What holds after each step. */
static void
check_step(struct login *login, enum login_step step, struct buf *out,
    bool exists)
{
	struct secret credential;

	check(!out->failed);
	check(step != LOGIN_OK || exists);
	check(step == LOGIN_SEND || step == LOGIN_OK || out->len == 0);
	check((step == LOGIN_FAIL) == (login_why(login)[0] != '\0'));
	login_credential(login, &credential);
	check((credential.kind != SECRET_NONE) == (step == LOGIN_OK));
	secret_finish(&credential);
	buf_clear(out);
}

static enum login_step
say(struct login *login, struct span message, struct buf *out)
{
	char *copy = fuzz_copy(message.at, message.len);
	enum login_step step = login_message(login,
	    (struct span){ copy, message.len }, out);

	free(copy);
	if (step != LOGIN_NEED_WORK)
		return step;
	login_work(login);
	return login_worked(login, out);
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

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const enum login_method methods[] = {
		LOGIN_SCRAM, LOGIN_MD5, LOGIN_PLAIN, LOGIN_SCRAM,
	};
	static const char *const secrets[] = {
		VERIFIER, "pencil", "md5aa2372305aa1ff8e526fb1199e6c004f",
		NULL,
	};
	uint64_t began = fuzz_cpu_ms();
	struct login_about about = { .user = SPAN("hashed"),
	    .scram_iterations = 1 };
	struct span rest = { (const char *)data + 1, len - 1 }, message;
	struct secret secret = { 0 };
	struct buf out = { 0 };
	enum login_step step;
	struct login *login;
	bool exists;

	if (len == 0)
		return 0;
	digest_set_random(no_random);
	about.method = methods[data[0] & 3];
	exists = secrets[data[0] >> 2 & 3] != NULL;
	if (exists)
		check(secret_parse(span_of(secrets[data[0] >> 2 & 3]),
		    &secret));
	if ((data[0] & 16) != 0) {
		about.over_tls = true;
		about.end_point_len = 32;
	}
	login = login_create(&about);
	check(login != NULL);
	check(login_begin(login, &out) == LOGIN_NEED_SECRET);
	step = login_secret(login, exists ? &secret : NULL, &out);
	check(step == LOGIN_SEND);
	check_step(login, step, &out, exists);
	while (cut_message(&rest, &message)) {
		/* What is over stays over. */
		bool over = step != LOGIN_SEND;

		step = say(login, message, &out);
		check(!over || step == LOGIN_FAIL);
		check_step(login, step, &out, exists);
	}
	login_destroy(login);
	secret_finish(&secret);
	buf_finish(&out);
	fuzz_check_time(began);
	return 0;
}
