/* Prepared statements: shared text, per-client names, per-server LRU. */
#ifndef POOL_STMT_H
#define POOL_STMT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"
#include "base/span.h"

struct stmt_types {
	uint32_t len;
	char text[];			/* count, oids */
};

/*
 * A statement: the text and parameter types of a Parse message. Equal ones
 * are one object for the whole process. Immutable but for `shape` and `types`,
 * which are set once; any thread.
 */
struct stmt {
	_Atomic unsigned refs;
	struct hash_node by_text;
	uint64_t id;			/* never used again */
	uint64_t context, reading, epoch;	/* see stmt_intern() */
	_Atomic uint64_t shape;		/* as clients know it: of its first
					 * description; 0 = not described.
					 * session/plans.c */
	/* The types that its parameters were found to have, as at the end of
	 * `tail`; NULL = not described, or none. */
	_Atomic(struct stmt_types *) types;
	uint32_t effects;		/* wire/sqlscan's set */
	uint32_t sql_len;
	uint32_t len;
	char tail[];			/* query NUL, count, type oids */
};

#define STMT_NAME_MAX 32
#define STMT_PREFIX "PGSLUICE_"

/*
 * `tail` is a Parse body behind the statement's name. `context` tells texts
 * apart that mean different things: a hash of where they are run, and of the
 * search_path that the client has set. (Postgres keeps a prepared statement
 * when the path changes but refuses to run it if its columns would.) `reading`
 * is a hash of what its constants are read by, vars_reading(): that is done
 * once, when it is prepared. `epoch` does the same for what changes with time.
 * +1 reference, NULL: out of memory.
 */
struct stmt *stmt_intern(struct span tail, uint64_t context, uint64_t reading,
    uint64_t epoch);
struct stmt *stmt_ref(struct stmt *stmt);
void stmt_unref(struct stmt *stmt);	/* takes NULL */
/* Its name on servers; NUL-terminated. Returns the length. */
size_t stmt_name(const struct stmt *stmt, char name[STMT_NAME_MAX]);
struct span stmt_sql(const struct stmt *stmt);
/* Those types, unless they are set. */
void stmt_set_types(struct stmt *stmt, struct span types);
/* The same statement with those types given in the Parse; in this epoch. +1
 * reference; NULL: out of memory, or there are none. */
struct stmt *stmt_with_types(const struct stmt *stmt, uint64_t epoch);
struct span stmt_tail(const struct stmt *stmt);	/* ... and its types */

/* A client's names. All zeroes is empty. */
struct stmt_names {
	struct hash map;
};
/* NULL: no such name. Borrowed. */
struct stmt *stmt_names_get(const struct stmt_names *names,
    struct span name);
/* Sets or (stmt NULL) removes; takes over the caller's reference, hands the
 * former one to *ret_was (may be NULL there). False: out of memory. */
bool stmt_names_set(struct stmt_names *names, struct span name,
    struct stmt *stmt, struct stmt **ret_was);
/* Every name that stands for `was` stands for `stmt` from now on. */
void stmt_names_replace(struct stmt_names *names, const struct stmt *was,
    struct stmt *stmt);
/* The client's name for the statement that servers know as `server_name`;
 * server_name itself when it has none. */
struct span stmt_names_of(const struct stmt_names *names,
    struct span server_name);
void stmt_names_clear(struct stmt_names *names);
unsigned stmt_names_count(const struct stmt_names *names);

/* What is prepared on a server, least recently used last. Zero + init. */
struct stmt_cache {
	struct hash map;
	struct list used;		/* most recent first */
};
void stmt_cache_init(struct stmt_cache *cache);
bool stmt_cache_has(struct stmt_cache *cache, const struct stmt *stmt);
/* The same, and its shape on this server; 0 = it was not described there. */
bool stmt_cache_shape(struct stmt_cache *cache, const struct stmt *stmt,
    uint64_t *ret_shape);
void stmt_cache_set_shape(struct stmt_cache *cache, const struct stmt *stmt,
    uint64_t shape);
/* Holds a reference of its own. False: out of memory. */
bool stmt_cache_add(struct stmt_cache *cache, struct stmt *stmt);
void stmt_cache_remove(struct stmt_cache *cache, const struct stmt *stmt);
/* The least recently used, borrowed; NULL when empty. */
struct stmt *stmt_cache_oldest(const struct stmt_cache *cache);
unsigned stmt_cache_count(const struct stmt_cache *cache);
void stmt_cache_clear(struct stmt_cache *cache);

#endif
