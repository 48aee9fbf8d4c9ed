/* Users and their secrets: the auth_file, and cached auth_query answers. */
#ifndef AUTH_USERS_H
#define AUTH_USERS_H

#include <stdbool.h>
#include <stdint.h>

#include "auth/secret.h"
#include "base/buf.h"
#include "base/span.h"

/* auth_file: immutable, reference-counted, swapped by a reload. */
struct users;

struct users *users_create(void);		/* empty, one reference */
/* NULL: every error with file:line in ret_why (one a line), or refused for
 * its mode (readable by all) unless `any_mode`. */
struct users *users_load(const char *path, bool any_mode,
    struct buf *ret_why);
/* The same for a text; `file` is what the errors call it. */
struct users *users_parse(struct span text, const char *file,
    struct buf *ret_why);
struct users *users_ref(struct users *users);
void users_unref(struct users *users);
/* For a URL's one user. Before the first users_ref() only. */
bool users_add(struct users *users, struct span name, struct span secret);
const struct secret *users_find(const struct users *users, struct span name);
unsigned users_count(const struct users *users);
void users_each(const struct users *users,
    void (*each)(void *arg, struct span name), void *arg);

/*
 * auth_query answers, cached for the process; any thread. A key is the
 * database entry's name and the user's name. Negative answers are cached for
 * a shorter time. users_cached() false: not known or too old, ask.
 * `*ret_known` false with true returned: the server said there is no such
 * user.
 */
bool users_cached(struct span database, struct span user, struct secret *ret,
    bool *ret_known);
void users_cache(struct span database, struct span user,
    const struct secret *secret_or_null);
/* A login failed with this answer: may it be asked again now? At most once
 * in a while for a user; forgets the answer if so. */
bool users_cache_refresh(struct span database, struct span user);
/* Another configuration may ask another question. */
void users_cache_clear(void);

#endif
