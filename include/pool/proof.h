/* Startup parameters that a server has accepted, and what it made of them. */
#ifndef POOL_PROOF_H
#define POOL_PROOF_H

struct pool;
struct vars;

/*
 * What `brought` (a client's, as its startup packet had them) came to on a
 * server of this pool: a new reference to a set with the values as Postgres
 * writes them. NULL: no server was asked yet, or it is too long ago.
 */
struct vars *proof_find(const struct pool *pool, const struct vars *brought);
/* A server has accepted `brought`, and calls it `accepted`. Takes references
 * of its own. */
void proof_add(const struct pool *pool, struct vars *brought,
    struct vars *accepted);
/* Servers have changed their mind: all of this pool are asked anew. */
void proof_forget(const struct pool *pool);

#endif
