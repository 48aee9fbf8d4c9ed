/*
 * The auth_file. What was read is written again, and then means the same; a
 * file is either taken as a whole, or refused with a reason.
 */
#include "auth/users.h"
#include "fuzz.h"

struct written {
	const struct users *users;
	const struct users *again;	/* what was written, read */
	struct buf text;
	unsigned count;
};

static void
write_quoted(struct buf *out, struct span text)
{
	size_t i;

	buf_add_text(out, "\"");
	for (i = 0; i < text.len; i++) {
		if (text.at[i] == '"')
			buf_add_text(out, "\"");
		buf_add(out, text.at + i, 1);
	}
	buf_add_text(out, "\"");
}

static void
write_user(void *arg, struct span name)
{
	struct written *written = arg;
	const struct secret *secret = users_find(written->users, name);

	check(secret != NULL && name.len > 0);
	check(secret->kind != SECRET_KEYS);
	check((secret->text != NULL) == (secret->kind == SECRET_PLAIN ||
	    secret->kind == SECRET_MD5));
	written->count++;
	write_quoted(&written->text, name);
	buf_add_text(&written->text, " ");
	write_quoted(&written->text, secret_text(secret));
	buf_add_text(&written->text, "\n");
}

static void
compare_user(void *arg, struct span name)
{
	const struct written *written = arg;
	const struct secret *before, *after;

	before = users_find(written->users, name);
	check(before != NULL);
	after = users_find(written->again, name);
	check(after != NULL);
	/* A verifier has no text and was written as an empty one. */
	check(before->kind == SECRET_SCRAM ? after->kind == SECRET_NONE :
	    secret_equal(before, after));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();
	char *copy = fuzz_copy((const char *)data, len);
	struct written written = { 0 };
	struct users *users, *again;
	struct buf why = { 0 };

	users = users_parse((struct span){ copy, len }, "users", &why);
	check((users == NULL) == (why.len != 0));
	free(copy);
	if (users != NULL) {
		written.users = users;
		users_each(users, write_user, &written);
		check(!written.text.failed);
		check(written.count == users_count(users));
		again = users_parse(buf_span(&written.text), "again", &why);
		check(again != NULL && why.len == 0);
		check(users_count(again) == users_count(users));
		written.again = again;
		users_each(again, compare_user, &written);
		users_unref(again);
	}
	users_unref(users);
	buf_finish(&written.text);
	buf_finish(&why);
	fuzz_check_time(began);
	return 0;
}
