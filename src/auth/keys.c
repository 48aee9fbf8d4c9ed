/*
 * SCRAM keys derived from passwords, each derived once.
 *
 * PBKDF2 is slow on purpose: 4,096 rounds take a millisecond or two, and a
 * pooler that paid that for each of its logins would spend its life on it. So
 * what was derived is kept, in memory, for as long as there is room.
 *
 * An entry's name is an HMAC of user, salt, iterations and password, under a
 * key which this process drew at random. So no password is kept here, a
 * password that has changed finds nothing, and nobody can find an entry
 * without the password that made it. The keys themselves are worth guarding:
 * a ClientKey lets its holder log in as that user. An entry is wiped when it
 * goes.
 */
#include <pthread.h>
#include <string.h>

#include "auth/digest.h"
#include "auth/keys.h"
#include "base/map.h"
#include "base/mem.h"

struct keys_entry {
	struct hash_node node;		/* in shelf.index, by fingerprint */
	struct list line;		/* in shelf.line */
	unsigned char fingerprint[DIGEST_SHA256];
	struct scram_keys keys;
};

MEM_TYPE(keys_entry_mem, keys_entry);

static struct {
	pthread_mutex_t mutex;
	struct {
		struct hash index;
		struct list line;	/* most recently used first */
	} shelves[KEYS_SHELVES];
} cache = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static bool
keys_fingerprint(const struct keys_job *job,
    unsigned char ret[DIGEST_SHA256])
{
	const struct span parts[] = {
		SPAN("keys"), job->user, job->salt,
		{ (const char *)&job->iterations, sizeof(job->iterations) },
		job->password,
	};

	return digest_private(parts, sizeof(parts) / sizeof(parts[0]), ret);
}

static uint64_t
fingerprint_hash(const unsigned char fingerprint[DIGEST_SHA256])
{
	uint64_t hash;

	memcpy(&hash, fingerprint, sizeof(hash));
	return hash;
}

/* The mutex is held in these three. */
static struct keys_entry *
cache_seek(enum keys_shelf shelf,
    const unsigned char fingerprint[DIGEST_SHA256])
{
	struct hash_node *node;
	struct keys_entry *entry;

	node = hash_find(&cache.shelves[shelf].index,
	    fingerprint_hash(fingerprint));
	for (; node != NULL; node = hash_next_equal(node)) {
		entry = container_of(node, struct keys_entry, node);
		if (digest_equal(entry->fingerprint, fingerprint,
		    DIGEST_SHA256))
			return entry;
	}
	return NULL;
}

static void
cache_drop(enum keys_shelf shelf, struct keys_entry *entry)
{
	hash_remove(&cache.shelves[shelf].index, &entry->node);
	list_remove(&entry->line);
	mem_wipe(entry, sizeof(*entry));
	mem_delete(&keys_entry_mem, entry);
}

/* No memory is no error here: it costs the next login its time, no more. */
static void
cache_add(enum keys_shelf shelf,
    const unsigned char fingerprint[DIGEST_SHA256],
    const struct scram_keys *keys)
{
	struct keys_entry *entry;
	struct list *line = &cache.shelves[shelf].line;

	if (cache.shelves[shelf].index.count >= KEYS_CACHED_MAX)
		cache_drop(shelf,
		    container_of(line->prev, struct keys_entry, line));
	entry = mem_new(&keys_entry_mem);
	if (entry == NULL)
		return;
	memcpy(entry->fingerprint, fingerprint, DIGEST_SHA256);
	entry->keys = *keys;
	if (!hash_add(&cache.shelves[shelf].index, &entry->node,
	    fingerprint_hash(fingerprint))) {
		mem_wipe(entry, sizeof(*entry));
		mem_delete(&keys_entry_mem, entry);
		return;
	}
	list_push(line, &entry->line);
}

bool
keys_find(struct keys_job *job)
{
	unsigned char fingerprint[DIGEST_SHA256];
	struct keys_entry *entry;
	struct list *line = &cache.shelves[job->shelf].line;

	if (!keys_fingerprint(job, fingerprint))
		return false;
	pthread_mutex_lock(&cache.mutex);
	entry = cache_seek(job->shelf, fingerprint);
	if (entry != NULL) {
		list_remove(&entry->line);
		list_push(line, &entry->line);
		job->keys = entry->keys;
		job->has_keys = true;
	}
	pthread_mutex_unlock(&cache.mutex);
	return entry != NULL;
}

void
keys_derive(struct keys_job *job)
{
	job->has_keys = scram_derive_keys(job->password, job->salt,
	    job->iterations, &job->keys);
}

void
keys_keep(const struct keys_job *job)
{
	unsigned char fingerprint[DIGEST_SHA256];

	if (!job->has_keys || !keys_fingerprint(job, fingerprint))
		return;
	pthread_mutex_lock(&cache.mutex);
	/* Two logins may have worked on the same one at the same time. */
	if (cache_seek(job->shelf, fingerprint) == NULL)
		cache_add(job->shelf, fingerprint, &job->keys);
	pthread_mutex_unlock(&cache.mutex);
}

void
keys_finish(struct keys_job *job)
{
	mem_wipe(job, sizeof(*job));
}

void
keys_forget_all(void)
{
	struct list *node;
	int shelf;

	pthread_mutex_lock(&cache.mutex);
	for (shelf = 0; shelf < KEYS_SHELVES; shelf++) {
		while ((node = list_first(&cache.shelves[shelf].line)) != NULL)
			cache_drop((enum keys_shelf)shelf,
			    container_of(node, struct keys_entry, line));
		hash_finish(&cache.shelves[shelf].index);
	}
	pthread_mutex_unlock(&cache.mutex);
}
