/*
 * Databases that clients have created.
 *
 * A tool that migrates or tests creates a database on the connection that it
 * has, and then opens another with nothing but the database's name changed. No
 * entry of [databases] has that name, so it is remembered here from the moment
 * Postgres has answered CREATE DATABASE:
 *
 *	name -> the name by which the creator came in (its origin)
 *
 * and a client that asks for it gets the origin's entry, for another database
 * (conf_find_created). What the configuration says of the origin, a RELOAD
 * included, is so true of what was created there.
 *
 * Who wins: an entry of [databases] says what the operator wants, and goes
 * first. `*` is for names that nobody has said anything about, so what was
 * created goes before it. But where `*` leads to another place than the origin,
 * the name is its creator's alone, and everybody else goes where `*` leads:
 * else somebody who may create databases on one host could have others' logins
 * sent there. For the same reason a name that was created in two places stays
 * with the first, while its creators are two. Login asks for the same proofs
 * as for any database.
 *
 * Forgotten with DROP DATABASE; at CREATED_MAX the oldest that nobody uses
 * makes room. What is dropped behind our back stays known: Postgres says then
 * that it does not exist.
 */
#include "pool/created.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "pool/hold.h"
#include "pool/pool.h"
#include "pool/target.h"

#define CREATED_MAX 1000

struct created {
	struct hash_node by_name;
	struct list by_age;
	const char *name;		/* the quota's, which is never freed */
	char *origin;
	char *creator;			/* as whom its servers log in */
	struct pool_quota *quota;
};

MEM_TYPE(created_type, created);

static struct {
	pthread_mutex_t lock;
	struct hash by_name;
	struct list by_age;		/* oldest first */
	_Atomic unsigned count;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* All static functions up to the public ones: under the lock. */

static struct created *
created_lookup(struct span name)
{
	struct hash_node *node = hash_find(&all.by_name, span_hash(name));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct created *created =
		    container_of(node, struct created, by_name);
		if (span_is(name, created->name))
			return created;
	}
	return NULL;
}

static void
created_destroy(struct created *created)
{
	mem_free(created->origin);
	mem_free(created->creator);
	mem_delete(&created_type, created);
}

static void
created_remove(struct created *created)
{
	hash_remove(&all.by_name, &created->by_name);
	list_remove(&created->by_age);
	all.count--;
	created_destroy(created);
}

static bool
created_put(const char *origin, const char *creator,
    struct pool_quota *quota)
{
	struct span name = span_of(quota->name);
	struct created *created = mem_new(&created_type);

	if (created == NULL)
		return false;
	created->name = quota->name;
	created->origin = mem_strdup(origin);
	created->creator = mem_strdup(creator);
	created->quota = quota;
	if (created->origin == NULL || created->creator == NULL ||
	    !hash_add(&all.by_name, &created->by_name, span_hash(name))) {
		created_destroy(created);
		return false;
	}
	list_append(&all.by_age, &created->by_age);
	all.count++;
	return true;
}

/* False: all are in use. */
static bool
created_make_room(void)
{
	if (all.count < CREATED_MAX)
		return true;
	list_each(node, &all.by_age) {
		struct created *created =
		    container_of(node, struct created, by_age);
		if (created->quota->clients == 0) {
			created_remove(created);
			return true;
		}
	}
	return false;
}

/* Where it is; NULL: its origin is not known any more. */
static struct target *
created_leads_to(const struct conf *conf, const struct created *created)
{
	const struct conf_database *db =
	    conf_find_created(conf, span_of(created->origin));

	return db != NULL ? target_get(db, span_of(created->name)) : NULL;
}

/* May this user have it, or is the name for `*`? */
static bool
created_is_for(const struct created *created, const struct conf *conf,
    const struct conf_database *db, struct span user)
{
	const struct conf_database *fallback = conf->fallback;
	struct span name = span_of(created->name);

	if (fallback == NULL ||
	    target_get(fallback, name) == target_get(db, name))
		return true;
	/* Where all log in as one user, nobody is its creator. */
	return fallback->user == NULL && db->user == NULL &&
	    span_is(user, created->creator);
}

static const struct created *
created_choose(const struct conf *conf, struct span name, struct span user,
    const struct conf_database **ret_db)
{
	const struct created *created = created_lookup(name);

	if (created == NULL)
		return NULL;
	*ret_db = conf_find_created(conf, span_of(created->origin));
	return *ret_db != NULL &&
	    created_is_for(created, conf, *ret_db, user) ? created : NULL;
}

/*
 * What others ask.
 */

const struct conf_database *
created_find_entry(const struct conf *conf, struct span name,
    struct span user)
{
	const struct conf_database *db = conf_find_own_database(conf, name);
	const struct created *created = NULL;

	if (db != NULL || all.count == 0)
		return db != NULL ? db : conf->fallback;
	pthread_mutex_lock(&all.lock);
	created = created_choose(conf, name, user, &db);
	pthread_mutex_unlock(&all.lock);
	return created != NULL ? db : conf->fallback;
}

char *
created_origin(const struct conf *conf, struct span name, struct span user)
{
	const struct conf_database *db;
	char *origin = NULL;

	if (all.count == 0 || conf_find_own_database(conf, name) != NULL)
		return NULL;
	pthread_mutex_lock(&all.lock);
	const struct created *created =
	    created_choose(conf, name, user, &db);
	if (created != NULL)
		origin = mem_strdup(created->origin);
	pthread_mutex_unlock(&all.lock);
	return origin;
}

struct target *
created_target(const struct conf *conf, const struct pool *pool,
    struct span name)
{
	const struct conf_database *db = created_find_entry(conf,
	    span_of(pool->database), span_of(pool->user));

	if (db == NULL || !db->is_created)
		db = conf_find_created(conf, span_of(pool->database));
	return db != NULL ? target_get(db, name) : NULL;
}

/*
 * What clients do.
 */

/* Pools of this name may lead elsewhere now. */
static void
pools_look_again(struct conf *conf, struct span name)
{
	struct pool *pool = NULL;

	while ((pool = pool_next(pool)) != NULL)
		if (span_is(name, pool->database))
			pool_configure_again(pool, conf);
}

/* "database does not exist" was true until now. */
static void
pools_forget_trouble(const struct target *target)
{
	struct pool *pool = NULL;

	while ((pool = hold_next_pool(target, pool)) != NULL) {
		pthread_mutex_lock(&pool->lock);
		memset(&pool->trouble, 0, sizeof(pool->trouble));
		pthread_mutex_unlock(&pool->lock);
	}
}

/* Under the lock. */
static bool
created_replace(const struct conf *conf, const struct pool *pool,
    struct pool_quota *quota, const char *origin, const struct target *target)
{
	struct created *before = created_lookup(span_of(quota->name));

	if (before != NULL && strcmp(before->creator, pool->user) != 0 &&
	    created_leads_to(conf, before) != target)
		return false;
	if (before != NULL)
		created_remove(before);
	return created_make_room() &&
	    created_put(origin, pool->user, quota);
}

void
created_add(struct conf *conf, const struct pool *pool, struct span name)
{
	struct target *target = created_target(conf, pool, name);
	char *through = created_origin(conf, span_of(pool->database),
	    span_of(pool->user));
	struct pool_quota *quota = pool_quota_get(name);
	bool added = false;

	if (target != NULL && quota != NULL) {
		pthread_mutex_lock(&all.lock);
		added = created_replace(conf, pool, quota,
		    through != NULL ? through : pool->database, target);
		pthread_mutex_unlock(&all.lock);
	}
	mem_free(through);
	if (added)
		pools_look_again(conf, name);
	else
		log_warning("database %.*s was created, but logins to it "
		    "cannot be sent there", SPAN_ARG(name));
	if (target != NULL)
		pools_forget_trouble(target);
}

static bool
forget(struct conf *conf, const struct pool *pool, struct span name)
{
	struct target *target = created_target(conf, pool, name);

	pthread_mutex_lock(&all.lock);
	struct created *created = created_lookup(name);
	bool found = created != NULL && target != NULL &&
	    created_leads_to(conf, created) == target;
	if (found)
		created_remove(created);
	pthread_mutex_unlock(&all.lock);
	if (found)
		pools_look_again(conf, name);
	return found;
}

void
created_forget(struct conf *conf, const struct pool *pool, struct span name)
{
	forget(conf, pool, name);
}

void
created_rename(struct conf *conf, const struct pool *pool, struct span name,
    struct span other)
{
	if (forget(conf, pool, name))
		created_add(conf, pool, other);
}
