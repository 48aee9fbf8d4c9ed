/* The md5 method's arithmetic, for both sides. */
#ifndef AUTH_MD5_H
#define AUTH_MD5_H

#include <stdbool.h>

#include "base/span.h"

#define MD5_TEXT 36			/* "md5", 32 digits, NUL */
#define MD5_SALT 4

/* What pg_authid keeps: "md5" and the hash of password and user name. False:
 * MD5 is not to be had here. */
bool md5_stored(struct span password, struct span user, char ret[MD5_TEXT]);
/* What goes over the wire: the hash of the stored digits and the salt. */
bool md5_answer(const char stored[MD5_TEXT], const unsigned char salt[MD5_SALT],
    char ret[MD5_TEXT]);

#endif
