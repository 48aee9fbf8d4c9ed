/*
 * Startup parameters that a server has accepted.
 *
 * Postgres judges the parameters of a startup packet at login, so pgsluice
 * has to: a bad one is refused then and there, and a good one is told as
 * Postgres writes it ('German' becomes 'German, DMY'). But a login is not to
 * need a server. So a server is asked once for each set that is new to its
 * pool, and what came of it is remembered here.
 *
 * The sets of an app are few. They stand in a ring, the oldest of which gives
 * way, and are found by going over it: they are interned, so that is a
 * comparison of two pointers each.
 */
#include "pool/proof.h"

#include <pthread.h>
#include <stddef.h>

#include "pool/vars.h"

#define PROOFS_MAX 256

struct proof {
	const struct pool *pool;	/* NULL = none here */
	struct vars *brought, *accepted;
};

static struct {
	pthread_mutex_t lock;
	unsigned next;			/* the oldest */
	struct proof ring[PROOFS_MAX];
} proofs = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct proof *
proof_at(const struct pool *pool, const struct vars *brought)
{
	for (unsigned i = 0; i < PROOFS_MAX; i++)
		if (proofs.ring[i].brought == brought &&
		    proofs.ring[i].pool == pool)
			return &proofs.ring[i];
	return NULL;
}

static void
proof_clear(struct proof *proof)
{
	vars_unref(proof->brought);
	vars_unref(proof->accepted);
	*proof = (struct proof){ 0 };
}

struct vars *
proof_find(const struct pool *pool, const struct vars *brought)
{
	struct vars *accepted = NULL;

	pthread_mutex_lock(&proofs.lock);
	const struct proof *proof = proof_at(pool, brought);
	if (proof != NULL)
		accepted = vars_ref(proof->accepted);
	pthread_mutex_unlock(&proofs.lock);
	return accepted;
}

void
proof_add(const struct pool *pool, struct vars *brought,
    struct vars *accepted)
{
	pthread_mutex_lock(&proofs.lock);
	if (proof_at(pool, brought) == NULL) {
		struct proof *proof = &proofs.ring[proofs.next];
		proof_clear(proof);
		proof->pool = pool;
		proof->brought = vars_ref(brought);
		proof->accepted = vars_ref(accepted);
		proofs.next = (proofs.next + 1) % PROOFS_MAX;
	}
	pthread_mutex_unlock(&proofs.lock);
}

void
proof_forget(const struct pool *pool)
{
	pthread_mutex_lock(&proofs.lock);
	for (unsigned i = 0; i < PROOFS_MAX; i++)
		if (proofs.ring[i].pool == pool)
			proof_clear(&proofs.ring[i]);
	pthread_mutex_unlock(&proofs.lock);
}
