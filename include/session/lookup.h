/* auth_query: asks the database for a user's secret. */
#ifndef SESSION_LOOKUP_H
#define SESSION_LOOKUP_H

#include <stdbool.h>

struct conf;
struct secret;
struct target;
struct worker;

/* A question under way for one login. */
struct lookup;

/* Is there an auth_user to ask as, for this database? */
bool lookup_is_configured(const struct conf *conf, const char *database);
/*
 * The secret of `user`, from the cache or the database. `found` runs once,
 * perhaps before this returns; its secret is NULL when there is no such user
 * or the database cannot be asked (which the log tells). *ret_lookup is set
 * while the question is under way.
 */
void lookup_start(struct worker *worker, const char *database,
    const char *user, void (*found)(void *arg, const struct secret *secret),
    void *arg, struct lookup **ret_lookup);
/* `found` is not to run any more. Takes NULL. */
void lookup_cancel(struct lookup *lookup);
/* Closes the worker's connection to this database that nobody waits for. */
void lookup_vacate(struct worker *worker, const struct target *target);
/* Closes the connections of a worker that is at its end. */
void lookup_finish(struct worker *worker);

#endif
