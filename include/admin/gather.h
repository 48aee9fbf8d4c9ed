/* Asks every worker something and brings the answers back to the console. */
#ifndef ADMIN_GATHER_H
#define ADMIN_GATHER_H

#include <stdint.h>

#include "base/buf.h"
#include "net/loop.h"

struct client;
struct gather;
struct pool_quota;
struct show_table;
struct worker;

/* What one worker adds; only it touches this until all are through. */
struct gather_part {
	struct loop_mail mail;
	struct gather *gather;
	unsigned worker;
	struct buf out;			/* as the visitor likes */
	uint64_t count;			/* likewise */
};

struct gather {
	/* Runs on each worker's thread. */
	void (*visit)(struct worker *worker, struct gather_part *part);
	/* Runs on the asking client's worker when all are through; NULL:
	 * the client has gone meanwhile. The gather is freed behind it. */
	void (*done)(struct client *client, struct gather *gather);
	/* What the visitor is to look for, as the command has it. */
	const struct show_table *table;
	const struct pool_quota *quota;	/* a database; NULL = all */
	uint64_t id;
	/* private */
	struct loop_mail back;
	unsigned asker;			/* a worker's number */
	uint64_t client;
	_Atomic unsigned left;		/* parts under way */
	unsigned part_count;
	struct gather_part part[];
};

/* For this client of the console, which is paused: `done` has to answer it.
 * The caller fills in visit, done and what they need, then starts it. NULL:
 * out of memory. */
struct gather *gather_create(struct client *client);
void gather_start(struct gather *gather);
/* One that has not been started; takes NULL. */
void gather_destroy(struct gather *gather);
/* Of all parts. */
uint64_t gather_sum(const struct gather *gather);
/* Did a part run out of memory? */
bool gather_has_failed(const struct gather *gather);

#endif
