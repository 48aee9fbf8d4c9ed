/*
 * The forms in which a secret is kept.
 *
 *	md5...              "md5" and 32 lower-case hex digits
 *	SCRAM-SHA-256$...   <iterations>:<salt>$<StoredKey>:<ServerKey>, the
 *	                    last three in base64: a verifier, from which nobody
 *	                    can log in anywhere without knowing the password
 *	anything else       the password itself
 *
 * Postgres tells them apart in the same way (get_password_type), with one
 * difference: a text that begins as a verifier and then is none would there be
 * a password. Here it is an error, for nobody ever means that.
 */
#include <string.h>

#include "auth/digest.h"
#include "auth/md5.h"
#include "auth/scram.h"
#include "auth/secret.h"
#include "base/mem.h"

#define VERIFIER_START SCRAM_NAME "$"

static bool
secret_is_md5(struct span text)
{
	size_t i;

	if (text.len != MD5_TEXT - 1 || memcmp(text.at, "md5", 3) != 0)
		return false;
	for (i = 3; i < text.len; i++)
		if (!(text.at[i] >= '0' && text.at[i] <= '9') &&
		    !(text.at[i] >= 'a' && text.at[i] <= 'f'))
			return false;
	return true;
}

/* What stands before `end`, which must be there, leaves *rest. */
static bool
cut_part(struct span *rest, char end, struct span *ret)
{
	const char *at = rest->len != 0 ?
	    memchr(rest->at, end, rest->len) : NULL;

	if (at == NULL)
		return false;
	ret->at = rest->at;
	ret->len = (size_t)(at - rest->at);
	rest->at = at + 1;
	rest->len -= ret->len + 1;
	return true;
}

static bool
read_key(struct span text, unsigned char ret[SCRAM_KEY])
{
	size_t len;

	return scram_decode64(text, ret, SCRAM_KEY, &len) && len == SCRAM_KEY;
}

/* `rest` is what follows the first "$". */
static bool
secret_parse_verifier(struct span rest, struct secret *ret)
{
	struct secret read = { .kind = SECRET_SCRAM, .has_server_key = true };
	struct span iterations, salt, stored_key;
	uint64_t number;

	if (!cut_part(&rest, ':', &iterations) ||
	    !cut_part(&rest, '$', &salt) ||
	    !cut_part(&rest, ':', &stored_key) ||
	    !span_parse_u64(iterations, &number) ||
	    number < 1 || number > INT32_MAX ||
	    !scram_decode64(salt, read.salt, sizeof(read.salt),
	    &read.salt_len) || read.salt_len == 0 ||
	    !read_key(stored_key, read.stored_key) ||
	    !read_key(rest, read.server_key)) {
		mem_wipe(&read, sizeof(read));
		return false;
	}
	read.iterations = (uint32_t)number;
	*ret = read;
	mem_wipe(&read, sizeof(read));
	return true;
}

bool
secret_make_plain(struct span password, struct secret *ret)
{
	char *text;

	if (password.len == 0 || password.len > SECRET_TEXT_MAX ||
	    memchr(password.at, '\0', password.len) != NULL)
		return false;
	text = mem_strndup(password.at, password.len);
	if (text == NULL)
		return false;
	*ret = (struct secret){ .kind = SECRET_PLAIN, .text = text };
	return true;
}

bool
secret_parse(struct span text, struct secret *ret)
{
	const size_t start = sizeof(VERIFIER_START) - 1;

	if (text.len == 0) {
		*ret = (struct secret){ .kind = SECRET_NONE };
		return true;
	}
	if (text.len >= start && memcmp(text.at, VERIFIER_START, start) == 0)
		return secret_parse_verifier((struct span){
		    text.at + start, text.len - start }, ret);
	if (!secret_make_plain(text, ret))
		return false;
	if (secret_is_md5(text))
		ret->kind = SECRET_MD5;
	return true;
}

struct span
secret_text(const struct secret *secret)
{
	return span_of(secret->text);
}

bool
secret_copy(struct secret *to, const struct secret *from)
{
	char *text = NULL;

	if (from->text != NULL) {
		text = mem_strdup(from->text);
		if (text == NULL)
			return false;
	}
	*to = *from;
	to->text = text;
	return true;
}

void
secret_finish(struct secret *secret)
{
	if (secret->text != NULL)
		mem_wipe(secret->text, strlen(secret->text));
	mem_free(secret->text);
	mem_wipe(secret, sizeof(*secret));
}

bool
secret_equal(const struct secret *a, const struct secret *b)
{
	struct span one = secret_text(a), other = secret_text(b);

	if (a->kind != b->kind || one.len != other.len ||
	    a->iterations != b->iterations || a->salt_len != b->salt_len ||
	    a->has_client_key != b->has_client_key ||
	    a->has_server_key != b->has_server_key)
		return false;
	return digest_equal(one.at, other.at, one.len) &
	    digest_equal(a->salt, b->salt, a->salt_len) &
	    digest_equal(a->stored_key, b->stored_key, SCRAM_KEY) &
	    digest_equal(a->server_key, b->server_key, SCRAM_KEY) &
	    digest_equal(a->client_key, b->client_key, SCRAM_KEY);
}
