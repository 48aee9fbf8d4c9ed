/*
 * Pools.
 *
 * A pool is the set of server connections to one database as one user, and
 * the line of clients that wait for one. All workers share it:
 *
 *                      struct pool (one short mutex)
 *        line  o--o--o--o--o--o        one FIFO for the whole process
 *                |     |  |
 *        shard 0 |line o  o  idle s s  what belongs to worker 0
 *        shard 1 |line o     idle s    what belongs to worker 1
 *
 * A client never moves between workers; an idle server may. Its socket is
 * registered with its worker's event loop, so moving it costs a few system
 * calls and a mail. Hence the rules:
 *
 *   take  an idle server of this worker; else open one, if the limits let
 *         us; else have one fetched that idles elsewhere; else wait.
 *   give  to the head of the line. If that one lives on another worker but
 *         somebody here has waited nearly as long (within SLACK_US), to the
 *         one here: with deep lines on all workers servers then hardly ever
 *         move, and nobody is overtaken by more than the slack.
 *
 * What the mutex guards is said in pool.h. Nothing in here waits, calls the
 * system, or calls up: answers tell the caller whom to wake and what to open.
 *
 * Invariants, whenever the lock is free:
 *   servers  = opening + idle + in use + closing, never above the limit
 *              (checked where it grows)
 *   waiting  = length of the line
 *   somebody waits  =>  no idle server, unless the database is paused, a
 *              migration holds it (pool/hold.c) or a server was let go of and
 *              is on its way to the line
 */
#include "pool/pool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "conf/conf_database.h"
#include "pool/created.h"
#include "pool/target.h"
#include "pool/vars.h"

#define POOL_MAGIC 0x706f6f6cu
/* A local waiter may be served this much before an older one elsewhere. */
#define SLACK_US 5000
#define RETRY_FIRST_US 100000
/* Logins to servers that run at the same time, in one pool. */
#define OPENING_MAX 64

MEM_TYPE(pool_type, pool);
MEM_TYPE(pool_quota_type, pool_quota);

static struct {
	pthread_mutex_t lock;
	unsigned workers;
	struct hash pools;
	struct list all;
	struct conf *conf;		/* the newest; a reference, or NULL */
	struct hash quotas[2];		/* of databases, of users */
} directory = { .lock = PTHREAD_MUTEX_INITIALIZER };

_Atomic bool pools_paused;

void
pools_init(unsigned workers)
{
	check(workers >= 1 && workers <= POOL_WORKERS);
	directory.workers = workers;
	list_init(&directory.all);
}

static uint64_t
pool_hash(struct span database, struct span user)
{
	return span_hash(database) * 31 + span_hash(user);
}

static struct pool_quota *
quota_lookup(bool of_user, struct span name)
{
	struct hash_node *node = hash_find(&directory.quotas[of_user],
	    span_hash(name));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct pool_quota *quota =
		    container_of(node, struct pool_quota, by_name);
		if (span_is(name, quota->name))
			return quota;
	}
	return NULL;
}

static struct pool_quota *
quota_get(bool of_user, struct span name)
{
	struct pool_quota *quota = quota_lookup(of_user, name);

	if (quota != NULL)
		return quota;
	quota = mem_new(&pool_quota_type);
	if (quota == NULL)
		return NULL;
	quota->name = mem_strndup(name.at, name.len);
	if (quota->name == NULL ||
	    !hash_add(&directory.quotas[of_user], &quota->by_name,
	    span_hash(name))) {
		mem_free(quota->name);
		mem_delete(&pool_quota_type, quota);
		return NULL;
	}
	return quota;
}

static void
user_configure(struct pool_quota *quota, const struct conf *conf)
{
	const struct conf_user *user =
	    conf_find_user(conf, span_of(quota->name));
	int servers = user != NULL ? user->max_user_connections : -1;
	int clients = user != NULL ? user->max_user_client_connections : -1;

	quota->max_servers =
	    servers >= 0 ? servers : conf->o.max_user_connections;
	quota->max_clients =
	    clients >= 0 ? clients : conf->o.max_user_client_connections;
}

/* Under the pool's lock, or before anybody else knows the pool. */
static void
pool_configure(struct pool *pool, struct conf *conf,
    const struct conf_database *db)
{
	struct target *target;

	conf_ref(conf);
	if (pool->conf != NULL)
		conf_unref(pool->conf);
	pool->conf = conf;
	pool->db = db;
	pool->is_created = db->is_created;
	/* Without memory for another one it stays with the one it has. */
	target = target_get(db, span_of(pool->database));
	if (target != NULL)
		pool->target = target;
	pool->conf_user = conf_find_user(conf, span_of(pool->user));
	pool->database_quota->max_servers = db->max_db_connections;
	pool->database_quota->max_clients = db->max_db_client_connections;
	user_configure(pool->user_quota, conf);
}

static void
pool_destroy(struct pool *pool)
{
	mem_free(pool->shard);
	mem_free(pool->database);
	mem_free(pool->user);
	mem_delete(&pool_type, pool);
}

static struct pool *
pool_create(struct conf *conf, const struct conf_database *db,
    struct span database, struct span user)
{
	struct pool *pool = mem_new(&pool_type);

	if (pool == NULL)
		return NULL;
	pool->magic = POOL_MAGIC;
	pool->database = mem_strndup(database.at, database.len);
	pool->user = mem_strndup(user.at, user.len);
	pool->target = target_get(db, database);
	pool->database_quota = quota_get(false, database);
	pool->user_quota = quota_get(true, user);
	pool->shard_count = directory.workers;
	pool->shard = mem_zalloc(directory.workers * sizeof(*pool->shard));
	if (pool->database == NULL || pool->user == NULL ||
	    pool->target == NULL || pool->database_quota == NULL ||
	    pool->user_quota == NULL || pool->shard == NULL ||
	    !hash_add(&directory.pools, &pool->by_name,
	    pool_hash(database, user))) {
		pool_destroy(pool);
		return NULL;
	}
	pthread_mutexattr_t adaptive;
	pthread_mutexattr_init(&adaptive);
	pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&pool->lock, &adaptive);
	list_init(&pool->line);
	for (unsigned i = 0; i < pool->shard_count; i++) {
		list_init(&pool->shard[i].idle);
		list_init(&pool->shard[i].line);
	}
	pool_configure(pool, conf, db);
	list_append(&directory.all, &pool->all);
	return pool;
}

/* A login that began before a reload brings the old configuration. */
static struct pool *
pool_create_newest(struct conf *conf, const struct conf_database *db,
    struct span database, struct span user)
{
	const struct conf_database *newest = directory.conf == NULL ? NULL :
	    created_find_entry(directory.conf, database, user);

	return newest == NULL ? pool_create(conf, db, database, user) :
	    pool_create(directory.conf, newest, database, user);
}

struct pool *
pool_get(struct conf *conf, const struct conf_database *db,
    struct span database, struct span user)
{
	struct pool *found = NULL;

	pthread_mutex_lock(&directory.lock);
	struct hash_node *node = hash_find(&directory.pools,
	    pool_hash(database, user));
	for (; node != NULL && found == NULL; node = hash_next_equal(node)) {
		struct pool *pool = container_of(node, struct pool, by_name);
		if (span_is(database, pool->database) &&
		    span_is(user, pool->user))
			found = pool;
	}
	if (found == NULL)
		found = pool_create_newest(conf, db, database, user);
	pthread_mutex_unlock(&directory.lock);
	return found;
}

struct pool *
pool_next(struct pool *after)
{
	struct list *node;

	pthread_mutex_lock(&directory.lock);
	node = after == NULL ? directory.all.next : after->all.next;
	pthread_mutex_unlock(&directory.lock);
	return node == &directory.all ? NULL :
	    container_of(node, struct pool, all);
}

/* Its servers are somewhere else now: those that are open are of an epoch
 * that is over, and what was wrong with them does not count. */
static void
pool_move(struct pool *pool)
{
	pool->replaced = ++pool->epoch;
	memset(&pool->trouble, 0, sizeof(pool->trouble));
}

static void
pool_reconfigure(struct pool *pool, struct conf *conf)
{
	const struct conf_database *db = created_find_entry(conf,
	    span_of(pool->database), span_of(pool->user));

	/* A database that was taken out of the file keeps its last settings
	 * for the clients that are still there. */
	if (db == NULL)
		return;
	pthread_mutex_lock(&pool->lock);
	if (!conf_database_is_same_server(pool->db, db))
		pool_move(pool);
	pool_configure(pool, conf, db);
	pthread_mutex_unlock(&pool->lock);
}

void
pools_configure(struct conf *conf)
{
	struct hash_node *node = NULL;
	struct pool *pool = NULL;

	pthread_mutex_lock(&directory.lock);
	if (directory.conf != NULL)
		conf_unref(directory.conf);
	directory.conf = conf_ref(conf);
	while ((node = hash_walk(&directory.quotas[true], node)) != NULL)
		user_configure(container_of(node, struct pool_quota, by_name),
		    conf);
	pthread_mutex_unlock(&directory.lock);
	while ((pool = pool_next(pool)) != NULL)
		pool_reconfigure(pool, conf);
}

void
pool_configure_again(struct pool *pool, struct conf *conf)
{
	pthread_mutex_lock(&directory.lock);
	conf = conf_ref(directory.conf != NULL ? directory.conf : conf);
	pthread_mutex_unlock(&directory.lock);
	pool_reconfigure(pool, conf);
	conf_unref(conf);
}

struct pool_quota *
pool_quota_find(struct span name, bool of_user)
{
	pthread_mutex_lock(&directory.lock);
	struct pool_quota *quota = quota_lookup(of_user, name);
	pthread_mutex_unlock(&directory.lock);
	return quota;
}

struct pool_quota *
pool_quota_get(struct span database)
{
	pthread_mutex_lock(&directory.lock);
	struct pool_quota *quota = quota_get(false, database);
	pthread_mutex_unlock(&directory.lock);
	return quota;
}

struct pool_quota *
pool_user_get(const struct conf *conf, struct span user)
{
	pthread_mutex_lock(&directory.lock);
	struct pool_quota *quota = quota_get(true, user);
	if (quota != NULL)
		user_configure(quota, directory.conf != NULL ?
		    directory.conf : conf);
	pthread_mutex_unlock(&directory.lock);
	return quota;
}

struct pool_quota *
pool_quota_next(struct pool_quota *after, bool of_user)
{
	pthread_mutex_lock(&directory.lock);
	struct hash_node *node = hash_walk(&directory.quotas[of_user],
	    after != NULL ? &after->by_name : NULL);
	pthread_mutex_unlock(&directory.lock);
	return node == NULL ? NULL :
	    container_of(node, struct pool_quota, by_name);
}

/* The limits. */

unsigned
pool_size(const struct pool *pool)
{
	int size = pool->db->pool_size;

	if (pool->conf_user != NULL && pool->conf_user->pool_size >= 0)
		size = pool->conf_user->pool_size;
	return size > 0 ? (unsigned)size : 0;	/* 0 = no limit */
}

enum pool_mode
pool_mode(const struct pool *pool)
{
	if (pool->conf_user != NULL && pool->conf_user->pool_mode >= 0)
		return (enum pool_mode)pool->conf_user->pool_mode;
	return (enum pool_mode)pool->db->pool_mode;
}

static unsigned
pool_reserve_size(const struct pool *pool)
{
	int size = pool->db->reserve_pool_size;

	if (pool->conf_user != NULL && pool->conf_user->reserve_pool_size >= 0)
		size = pool->conf_user->reserve_pool_size;
	return size > 0 ? (unsigned)size : 0;
}

static bool
pool_is_paused(const struct pool *pool)
{
	return pools_paused || pool->database_quota->paused;
}

/* New transactions wait, be it for an operator or for a migration. */
static bool
pool_lends_nothing(const struct pool *pool)
{
	return pool_is_paused(pool) || atomic_load(&pool->target)->held;
}

static struct pool_wait *
pool_head(const struct pool *pool)
{
	struct list *node = list_first(&pool->line);

	return node == NULL ? NULL : container_of(node, struct pool_wait, node);
}

/* Workers read the clock once a turn: "now" may lie before what another one
 * has noted. */
static uint64_t
time_since(uint64_t then_us, uint64_t now_us)
{
	return now_us > then_us ? now_us - then_us : 0;
}

/* How many servers the pool may have now: the reserve is for those who have
 * waited long. */
static unsigned
pool_limit(const struct pool *pool)
{
	unsigned size = pool_size(pool);
	unsigned reserve = pool_reserve_size(pool);
	uint64_t patience_us = pool->conf->o.reserve_pool_timeout_us;
	const struct pool_wait *head = pool_head(pool);

	if (size == 0)
		return UINT32_MAX;
	if (reserve > 0 && patience_us > 0 && head != NULL &&
	    time_since(head->since_us, clock_us()) >= patience_us)
		return size + reserve;
	return size;
}

static bool
quota_acquire(struct pool_quota *quota)
{
	int used = quota->servers;

	do {
		if (quota->max_servers > 0 && used >= quota->max_servers)
			return false;
	} while (!atomic_compare_exchange_weak(&quota->servers, &used,
	    used + 1));
	return true;
}

static bool
quotas_acquire(struct pool *pool)
{
	if (!quota_acquire(pool->database_quota))
		return false;
	if (!quota_acquire(pool->user_quota)) {
		pool->database_quota->servers--;
		return false;
	}
	return true;
}

bool
pool_reserve_aside(struct pool *pool)
{
	return !pool_is_paused(pool) && quotas_acquire(pool);
}

void
pool_release_aside(struct pool *pool)
{
	pool->database_quota->servers--;
	pool->user_quota->servers--;
}

void
pool_put_aside(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	check(pool->servers > 0);
	pool->servers--;
	pthread_mutex_unlock(&pool->lock);
}

/* Counts one more server as being opened, if all limits let us. */
static bool
pool_reserve(struct pool *pool)
{
	if (pool_is_paused(pool) || pool->opening >= OPENING_MAX ||
	    pool->servers >= pool_limit(pool))
		return false;
	if (pool->trouble.since_us != 0 &&
	    (pool->opening > 0 || clock_us() < pool->trouble.retry_us))
		return false;
	if (!quotas_acquire(pool))
		return false;
	pool->servers++;
	pool->opening++;
	return true;
}

static void
pool_release(struct pool *pool)
{
	check(pool->servers > 0);
	pool->servers--;
	pool->database_quota->servers--;
	pool->user_quota->servers--;
}

/*
 * Clients.
 */

void
pool_client_joined(struct pool *pool, struct pool_quota *user,
    unsigned worker)
{
	pool->shard[worker].clients++;
	pool->database_quota->clients++;
	user->clients++;
}

void
pool_client_left(struct pool *pool, struct pool_quota *user,
    unsigned worker)
{
	pool->shard[worker].clients--;
	pool->database_quota->clients--;
	user->clients--;
}

unsigned
pool_clients(const struct pool *pool)
{
	unsigned clients = 0;

	for (unsigned i = 0; i < pool->shard_count; i++)
		clients += pool->shard[i].clients;
	return clients;
}

/*
 * Take and give.
 */

static struct pool_server *
shard_pop_idle(struct pool_shard *shard, bool oldest)
{
	struct list *node = oldest ? shard->idle.prev : shard->idle.next;

	if (node == &shard->idle)
		return NULL;
	list_remove(node);
	shard->idle_count--;

	struct pool_server *server =
	    container_of(node, struct pool_server, node);
	server->is_idle = false;
	return server;
}

static void
pool_enqueue(struct pool *pool, unsigned worker, struct pool_wait *wait)
{
	check(!wait->queued);
	wait->queued = true;
	wait->worker = worker;
	wait->since_us = clock_us();
	list_append(&pool->line, &wait->node);
	list_append(&pool->shard[worker].line, &wait->local);
	pool->waiting++;
	pool->database_quota->waiting++;
	pool->user_quota->waiting++;
}

static void
pool_dequeue(struct pool *pool, struct pool_wait *wait)
{
	check(wait->queued && pool->waiting > 0);
	wait->queued = false;
	list_remove(&wait->node);
	list_remove(&wait->local);
	pool->waiting--;
	pool->database_quota->waiting--;
	pool->user_quota->waiting--;
}

static bool
pool_is_hopeless_locked(const struct pool *pool, uint64_t now_us)
{
	const struct pool_trouble *trouble = &pool->trouble;

	if (trouble->since_us == 0 || pool->servers > pool->opening)
		return false;
	/* When the next try is due, those who come wait for how it ends. */
	if (now_us >= trouble->retry_us)
		return false;
	return trouble->refused || time_since(trouble->since_us, now_us) >=
	    pool->conf->o.server_login_retry_us;
}

bool
pool_is_hopeless(struct pool *pool, uint64_t now_us)
{
	pthread_mutex_lock(&pool->lock);
	bool hopeless = pool_is_hopeless_locked(pool, now_us);
	pthread_mutex_unlock(&pool->lock);
	return hopeless;
}

/* An idle server of another worker, which is to be told to let go of it. */
static struct pool_server *
pool_find_elsewhere(struct pool *pool, unsigned worker)
{
	for (unsigned i = 1; i < pool->shard_count; i++) {
		struct pool_shard *shard =
		    &pool->shard[(worker + i) % pool->shard_count];
		if (shard->idle_count > 0)
			return shard_pop_idle(shard, true);
	}
	return NULL;
}

enum pool_taken
pool_take(struct pool *pool, unsigned worker, struct pool_wait *wait,
    struct pool_server **ret_server, bool *ret_open)
{
	enum pool_taken taken = POOL_WAIT;
	struct pool_shard *shard = &pool->shard[worker];

	*ret_open = false;
	pthread_mutex_lock(&pool->lock);
	if (!pool_lends_nothing(pool) && shard->idle_count > 0) {
		*ret_server = shard_pop_idle(shard,
		    pool->conf->o.server_round_robin);
		taken = POOL_GOT;
	} else if (pool_is_hopeless_locked(pool, clock_us())) {
		taken = POOL_TROUBLE;
	} else {
		pool_enqueue(pool, worker, wait);
		if (pool->opening < pool->waiting)
			*ret_open = pool_reserve(pool);
		if (!*ret_open && !pool_lends_nothing(pool)) {
			*ret_server = pool_find_elsewhere(pool, worker);
			if (*ret_server != NULL)
				taken = POOL_FETCH;
		}
	}
	pthread_mutex_unlock(&pool->lock);
	return taken;
}

bool
pool_leave(struct pool *pool, struct pool_wait *wait)
{
	pthread_mutex_lock(&pool->lock);
	bool queued = wait->queued;
	if (queued)
		pool_dequeue(pool, wait);
	pthread_mutex_unlock(&pool->lock);
	return queued;
}

/* Who of the line is served by a server of this worker? */
static struct pool_wait *
pool_choose(struct pool *pool, unsigned worker)
{
	struct pool_wait *head = pool_head(pool);
	struct list *node = list_first(&pool->shard[worker].line);

	if (head == NULL || head->worker == worker || node == NULL)
		return head;

	struct pool_wait *local = container_of(node, struct pool_wait, local);
	return local->since_us - head->since_us <= SLACK_US ? local : head;
}

enum pool_given
pool_give(struct pool *pool, unsigned worker, struct pool_server *server,
    struct pool_wait **ret_wait, unsigned *ret_worker, uint64_t *ret_id)
{
	enum pool_given given = POOL_IDLE;
	struct pool_wait *wait = NULL;

	check(!server->is_idle && server->worker == worker);
	pthread_mutex_lock(&pool->lock);
	if (!pool_lends_nothing(pool))
		wait = pool_choose(pool, worker);
	if (wait == NULL) {
		server->is_idle = true;
		server->idle_since_us = clock_us();
		list_push(&pool->shard[worker].idle, &server->node);
		pool->shard[worker].idle_count++;
	} else {
		pool_dequeue(pool, wait);
		if (wait->worker == worker) {
			given = POOL_HERE;
			*ret_wait = wait;
		} else {
			given = POOL_THERE;
			*ret_worker = wait->worker;
			*ret_id = wait->id;
		}
	}
	pthread_mutex_unlock(&pool->lock);
	return given;
}

bool
pool_remove_idle(struct pool *pool, struct pool_server *server)
{
	pthread_mutex_lock(&pool->lock);
	bool idle = server->is_idle;
	if (idle) {
		server->is_idle = false;
		list_remove(&server->node);
		pool->shard[server->worker].idle_count--;
	}
	pthread_mutex_unlock(&pool->lock);
	return idle;
}

static struct pool_server *
pool_pop_any(struct pool *pool)
{
	for (unsigned i = 0; i < pool->shard_count; i++)
		if (pool->shard[i].idle_count > 0)
			return shard_pop_idle(&pool->shard[i], true);
	return NULL;
}

struct pool_server *
pool_pop_idle(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	struct pool_server *server = pool_pop_any(pool);
	pthread_mutex_unlock(&pool->lock);
	return server;
}

struct pool_server *
pool_pop_wanted(struct pool *pool)
{
	struct pool_server *server = NULL;

	pthread_mutex_lock(&pool->lock);
	if (pool->waiting > 0 && !pool_lends_nothing(pool))
		server = pool_pop_any(pool);
	pthread_mutex_unlock(&pool->lock);
	return server;
}

/*
 * Opening and closing.
 */

void
pool_opened(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	check(pool->opening > 0);
	pool->opening--;
	memset(&pool->trouble, 0, sizeof(pool->trouble));
	pthread_mutex_unlock(&pool->lock);
}

static void
trouble_note(struct pool_trouble *trouble, uint64_t longest_us, bool refused,
    const char *sqlstate, const char *message)
{
	uint64_t now_us = clock_us();
	uint64_t pause_us = RETRY_FIRST_US <<
	    (trouble->failures < 12 ? trouble->failures : 12);

	if (pause_us > longest_us)
		pause_us = longest_us;
	/* Even where no pause is wanted: else logins would fail in a hot loop,
	 * and those who wait, who are told in the pause, never would be. */
	if (pause_us < RETRY_FIRST_US)
		pause_us = RETRY_FIRST_US;
	if (trouble->since_us == 0)
		trouble->since_us = now_us;
	trouble->failures++;
	trouble->retry_us = now_us + pause_us;
	trouble->refused = refused;
	snprintf(trouble->sqlstate, sizeof(trouble->sqlstate), "%s", sqlstate);
	snprintf(trouble->message, sizeof(trouble->message), "%s", message);
}

void
pool_open_failed(struct pool *pool, bool refused, const char *sqlstate,
    const char *message)
{
	pthread_mutex_lock(&pool->lock);
	check(pool->opening > 0);
	pool->opening--;
	pool_release(pool);
	/* While others work, a failure is this connection's own, such as
	 * "too many clients already": try again, and tell nobody. */
	if (pool->trouble.since_us == 0 || clock_us() >=
	    pool->trouble.retry_us || refused)
		trouble_note(&pool->trouble,
		    pool->conf->o.server_login_retry_us, refused, sqlstate,
		    message);
	pthread_mutex_unlock(&pool->lock);
}

void
pool_closed(struct pool *pool, bool was_opening)
{
	pthread_mutex_lock(&pool->lock);
	if (was_opening) {
		check(pool->opening > 0);
		pool->opening--;
	}
	pool_release(pool);
	pthread_mutex_unlock(&pool->lock);
}

/* Is one more server wanted, limits apart? */
static bool
pool_wants_more(const struct pool *pool)
{
	if (pool->waiting > pool->opening)
		return true;
	/* Those who log in will ask something at once. */
	if (pool->welcome == NULL && pool->welcome_wanted > 0)
		return pool->servers < pool->welcome_wanted;
	return (int)pool->servers < pool->db->min_pool_size &&
	    atomic_load(&pool->target)->vacated == 0 &&
	    (pool->db->user != NULL || pool_clients(pool) > 0);
}

bool
pool_may_open(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	bool open = pool_wants_more(pool) && pool_reserve(pool);
	pthread_mutex_unlock(&pool->lock);
	return open;
}

static bool
quota_is_full(const struct pool_quota *quota)
{
	return quota->max_servers > 0 && quota->servers >= quota->max_servers;
}

bool
pool_is_in_the_way(const struct pool *pool)
{
	return (pool->database_quota->waiting > 0 &&
	    quota_is_full(pool->database_quota)) ||
	    (pool->user_quota->waiting > 0 && quota_is_full(pool->user_quota));
}

/* Where both limits are used up it makes room under one, and when that server
 * is closed the pool asks again, for the other. */
struct pool_server *
pool_evict(struct pool *pool, struct pool **ret_pool)
{
	bool by_database = quota_is_full(pool->database_quota);
	struct pool *other = NULL;

	if (!by_database && !quota_is_full(pool->user_quota))
		return NULL;
	pthread_mutex_lock(&pool->lock);
	bool wanted = pool_wants_more(pool) && !pool_is_paused(pool) &&
	    pool->servers < pool_limit(pool);
	pthread_mutex_unlock(&pool->lock);
	if (!wanted)
		return NULL;
	while ((other = pool_next(other)) != NULL) {
		if (other == pool || (by_database ?
		    other->database_quota != pool->database_quota :
		    other->user_quota != pool->user_quota))
			continue;

		struct pool_server *server = pool_pop_idle(other);
		if (server != NULL) {
			*ret_pool = other;
			return server;
		}
	}
	return NULL;
}

/* For SHOW and the like. */

void
pool_copy_trouble(struct pool *pool, struct pool_trouble *ret)
{
	pthread_mutex_lock(&pool->lock);
	*ret = pool->trouble;
	pthread_mutex_unlock(&pool->lock);
}

void
pool_count(struct pool *pool, struct pool_counts *ret)
{
	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->shard_count; i++) {
		ret->active += pool->shard[i].active;
		ret->idle += pool->shard[i].idle_count;
	}
	ret->clients = pool_clients(pool);
	ret->waiting = pool->waiting;
	ret->servers = pool->servers;
	ret->opening = pool->opening;
	if (pool_head(pool) != NULL)
		ret->oldest_wait_us = time_since(pool_head(pool)->since_us,
		    clock_us());
	pthread_mutex_unlock(&pool->lock);
}
