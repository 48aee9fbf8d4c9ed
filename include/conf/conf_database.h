/* Entries of the [databases] and [users] sections. */
#ifndef CONF_CONF_DATABASE_H
#define CONF_CONF_DATABASE_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"
#include "conf/conf.h"

/* NULL: out of memory. The destroyers take NULL and half-built objects. */
struct conf_database *conf_database_create(struct span name);
struct conf_database *conf_database_copy(const struct conf_database *from);
/* Its `created`, made if need be; any thread. NULL: out of memory. */
struct conf_database *conf_database_created(struct conf_database *database);
void conf_database_destroy(struct conf_database *database);

/*
 * What stands behind "name =": `key=value ...` with '' around what has
 * spaces, or a postgres:// URL and then such keys. False: a fragment in why,
 * which never shows a password.
 */
bool conf_database_parse(struct conf_database *database, struct span text,
    conf_conninfo_parser *conninfo, struct buf *why);
/* Gives every key that the entry did not set the global value, and the hosts
 * and the name theirs. May be called again. False: out of memory. */
bool conf_database_resolve(struct conf_database *database,
    const struct conf_options *options);

/* Do both mean the same server, logged in to in the same way? */
bool conf_database_is_same_server(const struct conf_database *a,
    const struct conf_database *b);

struct conf_user *conf_user_create(struct span name);
struct conf_user *conf_user_copy(const struct conf_user *from);
void conf_user_destroy(struct conf_user *user);
bool conf_user_parse(struct conf_user *user, struct span text,
    struct buf *why);

/* Can the process read this file (of a certificate)? False: why. */
bool conf_file_is_readable(const char *path, struct buf *why);

/* For the documentation: each key with what it takes and which option holds
 * where it is not given ("" = none). */
void conf_database_each_key(void (*each)(void *arg, const char *key,
    const char *expect, const char *option, const char *help), void *arg);
void conf_user_each_key(void (*each)(void *arg, const char *key,
    const char *expect, const char *option, const char *help), void *arg);

#endif
