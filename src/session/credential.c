/*
 * Credentials.
 *
 * A client's own login leaves something that opens servers as the same user:
 * the password, or the ClientKey of a SCRAM proof. It stays with the pool, so
 * that no password needs to be stored anywhere. The pool only knows that it
 * keeps something (struct pool_credential); what it is, is known here.
 */
#include "session/credential.h"

#include "auth/secret.h"
#include "base/mem.h"
#include "pool/pool.h"

struct credential {
	struct pool_credential base;
	struct secret secret;
};

MEM_TYPE(credential_type, credential);

static void
credential_destroy(struct pool_credential *base)
{
	struct credential *credential =
	    container_of(base, struct credential, base);

	secret_finish(&credential->secret);
	mem_delete(&credential_type, credential);
}

static bool
credential_is_known(struct pool *pool, const struct secret *secret)
{
	struct pool_credential *base = pool_get_credential(pool);
	bool known = base != NULL && secret_equal(secret,
	    &container_of(base, struct credential, base)->secret);

	pool_credential_unref(base);
	return known;
}

void
credential_keep(struct pool *pool, const struct secret *secret)
{
	struct credential *credential;

	if (credential_is_known(pool, secret))
		return;
	credential = mem_new(&credential_type);
	if (credential == NULL)
		return;
	credential->base.refs = 1;
	credential->base.destroy = credential_destroy;
	if (secret_copy(&credential->secret, secret))
		pool_set_credential(pool, &credential->base);
	else
		mem_delete(&credential_type, credential);
}

bool
credential_copy(struct pool *pool, struct secret *ret)
{
	struct pool_credential *base = pool_get_credential(pool);
	bool copied;

	if (base == NULL)
		return true;
	copied = secret_copy(ret,
	    &container_of(base, struct credential, base)->secret);
	pool_credential_unref(base);
	return copied;
}
