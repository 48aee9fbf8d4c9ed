/*
 * What logins leave with a pool, for those that come later.
 *
 * A client that logs in is told what a server would tell it (the welcome), and
 * has none yet; the first server of the pool leaves that here. A server that
 * is opened needs a secret, which only clients bring; the last one that has
 * proved its own leaves what follows from it (the credential).
 */
#include <string.h>

#include "base/mem.h"
#include "pool/pool.h"
#include "pool/vars.h"

MEM_TYPE(pool_welcome_type, pool_welcome);

struct pool_credential *
pool_get_credential(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	struct pool_credential *credential = pool->credential;
	if (credential != NULL)
		credential->refs++;
	pthread_mutex_unlock(&pool->lock);
	return credential;
}

void
pool_set_credential(struct pool *pool, struct pool_credential *credential)
{
	struct pool_credential *was;

	pthread_mutex_lock(&pool->lock);
	was = pool->credential;
	pool->credential = credential;
	/* A new password: what was refused may work now. */
	if (pool->trouble.refused)
		memset(&pool->trouble, 0, sizeof(pool->trouble));
	pthread_mutex_unlock(&pool->lock);
	pool_credential_unref(was);
}

void
pool_credential_unref(struct pool_credential *credential)
{
	if (credential != NULL && --credential->refs == 0)
		credential->destroy(credential);
}

struct pool_welcome *
pool_get_welcome(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	struct pool_welcome *welcome = pool->welcome;
	if (welcome != NULL)
		welcome->refs++;
	pthread_mutex_unlock(&pool->lock);
	return welcome;
}

void
pool_welcome_unref(struct pool_welcome *welcome)
{
	if (welcome == NULL || --welcome->refs > 0)
		return;
	buf_finish(&welcome->messages);
	vars_unref(welcome->baseline);
	mem_delete(&pool_welcome_type, welcome);
}

bool
pool_set_welcome(struct pool *pool, const struct buf *messages,
    struct vars *baseline)
{
	struct pool_welcome *welcome = mem_new(&pool_welcome_type);
	struct pool_welcome *was;

	if (welcome == NULL)
		return false;
	welcome->refs = 1;
	welcome->baseline = vars_ref(baseline);
	buf_add_span(&welcome->messages, buf_span(messages));
	if (welcome->messages.failed) {
		pool_welcome_unref(welcome);
		return false;
	}
	pthread_mutex_lock(&pool->lock);
	was = pool->welcome;
	pool->welcome = welcome;
	pthread_mutex_unlock(&pool->lock);
	pool_welcome_unref(was);
	return was == NULL;
}
