/*
 * Prepared statements under transaction pooling.
 *
 *   client A  "s1" --+                        +-- server 1  PGSLUICE_7
 *   client B  "q"  --+--> struct stmt id 7 <--+-- server 2  PGSLUICE_7
 *   client C  ""   --+    (text and types)        server 3  (not yet)
 *
 * A statement is its text and parameter types, and what they are read by;
 * clients that prepare the same share it, under whatever names. On a server it
 * has one name, made from its id. A client's Bind is rewritten to that name,
 * and where the server at hand has not seen the statement, a Parse goes in
 * front.
 *
 * Statements are interned in shards by hash, so that workers seldom meet on a
 * lock, and only a Parse looks there: Bind goes through the client's names.
 */
#include "pool/stmt.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "wire/sqlscan.h"

#define SHARDS 16

static struct stmt_shard {
	pthread_mutex_t lock;
	struct hash statements;
} shards[SHARDS] = {
	[0 ... SHARDS - 1] = { .lock = PTHREAD_MUTEX_INITIALIZER },
};

static _Atomic uint64_t next_id = 1;

/* A client's name for a statement. */
struct stmt_name {
	struct hash_node by_name;
	struct stmt *stmt;
	size_t len;
	char text[];
};

/* A statement on a server. */
struct stmt_entry {
	struct hash_node by_id;
	struct list used;
	struct stmt *stmt;
	uint64_t shape;
};

MEM_TYPE(stmt_entry_type, stmt_entry);

static uint64_t
id_hash(uint64_t id)
{
	return id * 0x9e3779b97f4a7c15u;
}

static struct stmt_shard *
shard_of(uint64_t hash)
{
	return &shards[hash >> 60 & (SHARDS - 1)];
}

static struct stmt *
stmt_create(struct span tail, uint64_t context, uint64_t reading,
    uint64_t epoch, uint64_t hash, struct stmt_shard *shard)
{
	struct stmt *stmt = mem_zalloc(sizeof(*stmt) + tail.len);

	if (stmt == NULL)
		return NULL;
	stmt->refs = 1;
	stmt->id = next_id++;
	stmt->context = context;
	stmt->reading = reading;
	stmt->epoch = epoch;
	stmt->len = (uint32_t)tail.len;
	memcpy(stmt->tail, tail.at, tail.len);
	stmt->sql_len = (uint32_t)strnlen(tail.at, tail.len);
	stmt->effects = sqlscan(stmt_sql(stmt), NULL);
	if (!hash_add(&shard->statements, &stmt->by_text, hash)) {
		mem_free(stmt);
		return NULL;
	}
	return stmt;
}

struct stmt *
stmt_intern(struct span tail, uint64_t context, uint64_t reading,
    uint64_t epoch)
{
	uint64_t hash = span_hash(tail) ^ context ^ id_hash(epoch + reading);
	struct stmt_shard *shard = shard_of(hash);
	struct stmt *found = NULL;

	pthread_mutex_lock(&shard->lock);
	struct hash_node *node = hash_find(&shard->statements, hash);
	for (; node != NULL && found == NULL; node = hash_next_equal(node)) {
		struct stmt *stmt = container_of(node, struct stmt, by_text);
		if (stmt->context == context && stmt->reading == reading &&
		    stmt->epoch == epoch &&
		    span_eq((struct span){ stmt->tail, stmt->len }, tail)) {
			stmt->refs++;
			found = stmt;
		}
	}
	if (found == NULL)
		found = stmt_create(tail, context, reading, epoch, hash,
		    shard);
	pthread_mutex_unlock(&shard->lock);
	return found;
}

struct stmt *
stmt_ref(struct stmt *stmt)
{
	stmt->refs++;
	return stmt;
}

void
stmt_unref(struct stmt *stmt)
{
	if (stmt == NULL)
		return;

	unsigned refs = stmt->refs;
	while (refs > 1)
		if (atomic_compare_exchange_weak(&stmt->refs, &refs, refs - 1))
			return;

	/* The last reference goes under the lock: see vars_unref(). */
	struct stmt_shard *shard = shard_of(stmt->by_text.hash);
	pthread_mutex_lock(&shard->lock);
	bool last = --stmt->refs == 0;
	if (last)
		hash_remove(&shard->statements, &stmt->by_text);
	pthread_mutex_unlock(&shard->lock);
	if (last) {
		mem_free(stmt->types);
		mem_free(stmt);
	}
}

void
stmt_set_types(struct stmt *stmt, struct span types)
{
	struct stmt_types *set = NULL, *none = NULL;

	if (stmt->types == NULL)
		set = mem_zalloc(sizeof(*set) + types.len);
	if (set == NULL)
		return;
	set->len = (uint32_t)types.len;
	memcpy(set->text, types.at, types.len);
	if (!atomic_compare_exchange_strong(&stmt->types, &none, set))
		mem_free(set);
}

struct stmt *
stmt_with_types(const struct stmt *stmt, uint64_t epoch)
{
	const struct stmt_types *types = stmt->types;
	struct span sql = stmt_sql(stmt);
	struct buf tail = { 0 };
	struct stmt *typed = NULL;

	if (types == NULL)
		return NULL;
	buf_add(&tail, sql.at, sql.len + 1);
	buf_add(&tail, types->text, types->len);
	if (!tail.failed)
		typed = stmt_intern(buf_span(&tail), stmt->context,
		    stmt->reading, epoch);
	buf_finish(&tail);
	return typed;
}

size_t
stmt_name(const struct stmt *stmt, char name[STMT_NAME_MAX])
{
	char digits[20];		/* of UINT64_MAX */
	uint64_t id = stmt->id;
	size_t len = sizeof(STMT_PREFIX) - 1;
	unsigned count = 0;

	/* Not by snprintf(): it would be the dearest part of a Bind. */
	do
		digits[count++] = (char)('0' + id % 10);
	while ((id /= 10) > 0);
	memcpy(name, STMT_PREFIX, len);
	while (count > 0)
		name[len++] = digits[--count];
	name[len] = '\0';
	return len;
}

struct span
stmt_sql(const struct stmt *stmt)
{
	return (struct span){ stmt->tail, stmt->sql_len };
}

struct span
stmt_tail(const struct stmt *stmt)
{
	return (struct span){ stmt->tail, stmt->len };
}

/*
 * A client's names.
 */

static struct stmt_name *
names_find(const struct stmt_names *names, struct span text)
{
	struct hash_node *node = hash_find(&names->map, span_hash(text));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct stmt_name *name =
		    container_of(node, struct stmt_name, by_name);
		if (span_eq((struct span){ name->text, name->len }, text))
			return name;
	}
	return NULL;
}

struct stmt *
stmt_names_get(const struct stmt_names *names, struct span text)
{
	struct stmt_name *name = names->map.count == 0 ? NULL :
	    names_find(names, text);

	return name != NULL ? name->stmt : NULL;
}

bool
stmt_names_set(struct stmt_names *names, struct span text, struct stmt *stmt,
    struct stmt **ret_was)
{
	struct stmt_name *name = names_find(names, text);

	if (name != NULL) {
		*ret_was = name->stmt;
		name->stmt = stmt;
		if (stmt == NULL) {
			hash_remove(&names->map, &name->by_name);
			mem_free(name);
		}
		return true;
	}
	if (stmt == NULL) {
		*ret_was = NULL;
		return true;
	}
	name = mem_zalloc(sizeof(*name) + text.len);
	if (name == NULL)
		return false;
	name->stmt = stmt;
	name->len = text.len;
	memcpy(name->text, text.at, text.len);
	if (!hash_add(&names->map, &name->by_name, span_hash(text))) {
		mem_free(name);
		return false;
	}
	*ret_was = NULL;
	return true;
}

void
stmt_names_replace(struct stmt_names *names, const struct stmt *was,
    struct stmt *stmt)
{
	struct hash_node *node = NULL;

	while ((node = hash_walk(&names->map, node)) != NULL) {
		struct stmt_name *name =
		    container_of(node, struct stmt_name, by_name);
		if (name->stmt != was)
			continue;
		stmt_unref(name->stmt);
		name->stmt = stmt_ref(stmt);
	}
}

void
stmt_names_clear(struct stmt_names *names)
{
	struct hash_node *node = hash_walk(&names->map, NULL);

	while (node != NULL) {
		struct stmt_name *name =
		    container_of(node, struct stmt_name, by_name);
		node = hash_walk(&names->map, node);
		stmt_unref(name->stmt);
		mem_free(name);
	}
	hash_finish(&names->map);
}

struct span
stmt_names_of(const struct stmt_names *names, struct span server_name)
{
	struct hash_node *node = NULL;
	char ours[STMT_NAME_MAX];

	while ((node = hash_walk(&names->map, node)) != NULL) {
		struct stmt_name *name =
		    container_of(node, struct stmt_name, by_name);
		stmt_name(name->stmt, ours);
		if (span_is(server_name, ours))
			return (struct span){ name->text, name->len };
	}
	return server_name;
}

unsigned
stmt_names_count(const struct stmt_names *names)
{
	return (unsigned)names->map.count;
}

/*
 * What is prepared on a server.
 */

static struct stmt_entry *
cache_find(const struct stmt_cache *cache, const struct stmt *stmt)
{
	struct hash_node *node = hash_find(&cache->map, id_hash(stmt->id));

	/* The hash is a permutation of the id: equal hashes, equal ids. */
	return node == NULL ? NULL :
	    container_of(node, struct stmt_entry, by_id);
}

void
stmt_cache_init(struct stmt_cache *cache)
{
	memset(&cache->map, 0, sizeof(cache->map));
	list_init(&cache->used);
}

bool
stmt_cache_shape(struct stmt_cache *cache, const struct stmt *stmt,
    uint64_t *ret_shape)
{
	struct stmt_entry *entry = cache_find(cache, stmt);

	if (entry == NULL)
		return false;
	list_remove(&entry->used);
	list_push(&cache->used, &entry->used);
	*ret_shape = entry->shape;
	return true;
}

void
stmt_cache_set_shape(struct stmt_cache *cache, const struct stmt *stmt,
    uint64_t shape)
{
	struct stmt_entry *entry = cache_find(cache, stmt);

	if (entry != NULL)
		entry->shape = shape;
}

bool
stmt_cache_has(struct stmt_cache *cache, const struct stmt *stmt)
{
	uint64_t shape;

	return stmt_cache_shape(cache, stmt, &shape);
}

bool
stmt_cache_add(struct stmt_cache *cache, struct stmt *stmt)
{
	if (stmt_cache_has(cache, stmt))
		return true;

	struct stmt_entry *entry = mem_new(&stmt_entry_type);
	if (entry == NULL)
		return false;
	if (!hash_add(&cache->map, &entry->by_id, id_hash(stmt->id))) {
		mem_delete(&stmt_entry_type, entry);
		return false;
	}
	entry->stmt = stmt_ref(stmt);
	list_push(&cache->used, &entry->used);
	return true;
}

static void
cache_drop(struct stmt_cache *cache, struct stmt_entry *entry)
{
	hash_remove(&cache->map, &entry->by_id);
	list_remove(&entry->used);
	stmt_unref(entry->stmt);
	mem_delete(&stmt_entry_type, entry);
}

void
stmt_cache_remove(struct stmt_cache *cache, const struct stmt *stmt)
{
	struct stmt_entry *entry = cache_find(cache, stmt);

	if (entry != NULL)
		cache_drop(cache, entry);
}

struct stmt *
stmt_cache_oldest(const struct stmt_cache *cache)
{
	return list_is_empty(&cache->used) ? NULL :
	    container_of(cache->used.prev, struct stmt_entry, used)->stmt;
}

unsigned
stmt_cache_count(const struct stmt_cache *cache)
{
	return (unsigned)cache->map.count;
}

void
stmt_cache_clear(struct stmt_cache *cache)
{
	struct list *node;

	while ((node = list_first(&cache->used)) != NULL)
		cache_drop(cache, container_of(node, struct stmt_entry, used));
	hash_finish(&cache->map);
}
