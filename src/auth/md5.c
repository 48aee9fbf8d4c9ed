/*
 * The md5 method: the server keeps md5(password, user), the client answers a
 * random salt with md5(those digits, salt). Whoever has the stored text can
 * log in with it, and a recorded exchange can be tried against a dictionary
 * at billions of guesses a second: it is here for what cannot do better yet.
 */
#include <string.h>

#include "auth/digest.h"
#include "auth/md5.h"
#include "base/mem.h"

static bool
md5_text(struct span a, struct span b, char ret[MD5_TEXT])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char hash[DIGEST_MD5];
	size_t i;

	if (!digest_md5(a, b, hash))
		return false;
	memcpy(ret, "md5", 3);
	for (i = 0; i < DIGEST_MD5; i++) {
		ret[3 + 2 * i] = digits[hash[i] >> 4];
		ret[4 + 2 * i] = digits[hash[i] & 15];
	}
	ret[MD5_TEXT - 1] = '\0';
	mem_wipe(hash, sizeof(hash));
	return true;
}

bool
md5_stored(struct span password, struct span user, char ret[MD5_TEXT])
{
	return md5_text(password, user, ret);
}

bool
md5_answer(const char stored[MD5_TEXT], const unsigned char salt[MD5_SALT],
    char ret[MD5_TEXT])
{
	return md5_text((struct span){ stored + 3, 32 },
	    (struct span){ (const char *)salt, MD5_SALT }, ret);
}
