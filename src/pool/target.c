/*
 * Targets.
 *
 * Several entries of [databases] may lead to one and the same database of a
 * Postgres, and each user of an entry has a pool of its own. What is true of
 * the database itself is kept here, once: the age of its schema, its
 * migration lock. Two names for one host are two targets; nobody asks DNS.
 */
#include "pool/target.h"

#include <pthread.h>

#include "base/buf.h"
#include "base/mem.h"
#include "conf/conf.h"

static struct {
	pthread_mutex_t lock;
	struct hash by_key;
} targets = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void
target_put_key(struct buf *out, const struct conf_database *db,
    struct span database)
{
	for (unsigned i = 0; i < db->host_count; i++)
		buf_printf(out, "%s%s", i > 0 ? "," : "",
		    db->hosts[i]);
	buf_printf(out, ":%u/", db->port);
	if (db->dbname != NULL)
		buf_add_text(out, db->dbname);
	else
		buf_add_span(out, database);
}

static struct target *
target_find(struct span key)
{
	struct hash_node *node = hash_find(&targets.by_key, span_hash(key));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct target *target =
		    container_of(node, struct target, by_key);
		if (span_is(key, target->key))
			return target;
	}
	return NULL;
}

static struct target *
target_create(struct span key)
{
	struct target *target = mem_zalloc(sizeof(*target));

	if (target == NULL)
		return NULL;
	target->key = mem_strndup(key.at, key.len);
	if (target->key == NULL ||
	    !hash_add(&targets.by_key, &target->by_key, span_hash(key))) {
		mem_free(target->key);
		mem_free(target);
		return NULL;
	}
	return target;
}

struct target *
target_get(const struct conf_database *db, struct span database)
{
	struct target *target = NULL;
	struct buf key = { 0 };

	target_put_key(&key, db, database);
	if (!key.failed) {
		pthread_mutex_lock(&targets.lock);
		target = target_find(buf_span(&key));
		if (target == NULL)
			target = target_create(buf_span(&key));
		pthread_mutex_unlock(&targets.lock);
	}
	buf_finish(&key);
	return target;
}
