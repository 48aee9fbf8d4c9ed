/* What a pool's clients have proved, kept to open servers with. */
#ifndef SESSION_CREDENTIAL_H
#define SESSION_CREDENTIAL_H

#include <stdbool.h>

struct pool;
struct secret;

/* Keeps a copy of the secret with the pool, if it is another one. */
void credential_keep(struct pool *pool, const struct secret *secret);
/* A copy of what the pool has; SECRET_NONE when it has nothing. False: out
 * of memory. */
bool credential_copy(struct pool *pool, struct secret *ret);

#endif
