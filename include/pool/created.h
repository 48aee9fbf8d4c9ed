/* Databases that clients have created, which no configuration knows. */
#ifndef POOL_CREATED_H
#define POOL_CREATED_H

#include "base/span.h"

struct conf;
struct conf_database;
struct pool;
struct target;

/*
 * The entry for a client that asks for database `name` as `user`: its own in
 * [databases], else that of the database which a client has created, else `*`.
 * NULL: there is no such database. It lives as long as `conf`. Any thread, as
 * all in here.
 */
const struct conf_database *created_find_entry(const struct conf *conf,
    struct span name, struct span user);
/* If that is one which a client has created: the name by which its creator
 * came in. To be freed. NULL: it is not (or out of memory). */
char *created_origin(const struct conf *conf, struct span name,
    struct span user);

/* The database `name` where the servers of this pool are. NULL: no memory. */
struct target *created_target(const struct conf *conf,
    const struct pool *pool, struct span name);

/* A client of `pool` has created `name`, dropped it, or renamed it. */
void created_add(struct conf *conf, const struct pool *pool,
    struct span name);
void created_forget(struct conf *conf, const struct pool *pool,
    struct span name);
void created_rename(struct conf *conf, const struct pool *pool,
    struct span name, struct span other);

#endif
