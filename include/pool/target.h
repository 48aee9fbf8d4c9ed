/* A database that Postgres has, whatever names and users lead to it. */
#ifndef POOL_TARGET_H
#define POOL_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"
#include "base/span.h"

struct conf_database;
struct migration;

/* What pools that lead to the same database share. Never freed. */
struct target {
	struct hash_node by_key;
	char *key;			/* "host,host:port/dbname" */
	/* Goes up when the schema may have changed: what was prepared before
	 * may be stale. */
	_Atomic uint64_t schema_epoch;
	_Atomic(struct migration *) migration;	/* of migrate/; NULL: none */
	/* New transactions wait (pool/hold.h); and somebody waits for those
	 * that run to end. */
	_Atomic bool held;
	_Atomic bool draining;
	/* So many statements under way need it to be free of sessions, such as
	 * DROP DATABASE: no server idles (session/database.c). */
	_Atomic unsigned vacated;
	/* Statements about some tables wait (session/guard.h), but for so
	 * many that have been let through. */
	_Atomic bool guarded;
	_Atomic int guard_passed;
};

/* The one that this entry leads to, for clients that ask for `database`. Any
 * thread. NULL: out of memory. */
struct target *target_get(const struct conf_database *db,
    struct span database);

#endif
