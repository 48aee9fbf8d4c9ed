/* A worker: a thread with an event loop, and the sessions that belong to it. */
#ifndef SESSION_WORKER_H
#define SESSION_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "net/loop.h"
#include "pool/pool.h"
#include "session/client.h"
#include "session/server.h"
#include "stat/stat.h"

struct setup;
struct ask;
struct listener;

/* How the process is on its way out; only ever goes up. */
enum leaving {
	STAYING,
	LEAVING_IDLE,		/* clients go at their transaction's end */
	LEAVING_SERVERS,	/* clients in a transaction may finish it, new
				 * transactions are refused */
	LEAVING_NOW,
};

struct worker {
	uint32_t magic;
	unsigned index;
	struct loop *loop;
	struct setup *setup;		/* a reference */
	struct list clients[CLIENT_STATES];
	struct list servers[SERVER_STATES];
	_Atomic unsigned client_count;	/* sockets, for who accepts */
	int setup_max_clients;		/* max_client_conn */
	/* Which of its clients may stay where they are more than elsewhere: */
	unsigned fleeting;		/* that came and went of late */
	unsigned waiting;		/* clients in line for a server */
	bool holds_accepts;		/* it is long enough */
	bool is_busy;			/* nearly all of the last second */
	uint64_t cpu_us;		/* its thread's, at the last tick */
	struct client **slots;		/* by slot number; NULL = free */
	uint32_t slot_count;
	uint32_t *free_slots;		/* a ring of slot_count */
	uint32_t free_first;
	uint32_t free_count;
	struct list cancels;		/* on their way to servers */
	struct list errands;		/* session/errand.h */
	struct list dead_clients;	/* freed at the end of the turn */
	struct list dead_servers;
	struct list to_dispatch;	/* free servers, for the next client */
	struct loop_task reaper;
	struct loop_task dispatcher;
	struct loop_timer tick;		/* housekeeping, each second */
	char *arena;			/* rewritten heads, until the flush */
	size_t arena_used;
	struct buf scratch;		/* for one message being composed */
	struct hash asks;		/* auth_query connections */
	struct stat_block stat;		/* what belongs to no pool */
};

#define WORKER_ARENA (32 * 1024)

/* The process: what all workers see. */
struct process {
	unsigned worker_count;
	struct worker *worker[POOL_WORKERS];
	struct listener *listener;	/* NULL: no more, or not yet */
	struct stream_tuning inherited;	/* what its TCP sockets give on */
	_Atomic int clients;		/* sockets, all */
	_Atomic int logged_in;		/* clients with a pool */
	_Atomic int leaving;		/* enum leaving */
	_Atomic bool suspended;		/* console: SUSPEND; clients that have
					 * logged in are not read from */
	uint64_t started_us;		/* wall clock */
	/* The console's door, set by admin/: takes over a client that has
	 * logged in to the console's database; offers it each message. */
	void (*console_enter)(struct client *client);
	size_t (*console_data)(struct client *client, const char *at,
	    size_t len);
	void (*console_leave)(struct client *client);
	/* RELOAD, set by main/; false: texts in why, nothing changed. */
	bool (*reload)(struct buf *why);
	/* Makes another setup the one in force (SET); takes it over. */
	void (*configure)(struct setup *setup);
	/* Shutdown, as by a signal. */
	void (*leave)(enum leaving how);
};
extern struct process process;

/* Makes worker number `index` with its loop (not yet running). */
struct worker *worker_create(unsigned index, struct setup *setup);
/* Thread body. */
void worker_run(struct worker *worker);
void worker_destroy(struct worker *worker);
/* At exit, when no worker runs any more: ends all sessions, frees all. */
void workers_finish(void);

/* Sends a function with an argument to a worker's thread; false: no memory.*/
bool worker_post(struct worker *worker,
    void (*run)(struct worker *worker, void *arg), void *arg);
/* The same to all workers; `arg` must allow that. */
void workers_post(void (*run)(struct worker *worker, void *arg), void *arg);

/* The listener's: a new client, on the thread of the worker with this loop,
 * who keeps it or hands it to one with fewer clients. */
struct loop *workers_accept(void *arg, struct loop *loop, int fd,
    bool is_unix);
/* A client has left the line. */
void worker_line_moved(struct worker *worker);
/* Hands a new setup to every worker and pool. Takes over the reference. */
void workers_configure(struct setup *setup);
/* Shutdown: from STAYING on. */
void workers_leave(enum leaving how);
/* Makes the pools that are to have servers (min_pool_size) before anybody has
 * come: those of entries with a user of their own. */
void workers_prepare(struct conf *conf);
/* Servers were replaced: sessions that still hold one end, if they may. */
void worker_end_replaced(struct worker *worker, void *unused);

/* The client with this id, if it still is; on its worker's thread only. */
struct client *worker_find_client(struct worker *worker, uint64_t id);
/* The same by the number that CancelRequests carry; whoever has it now. */
struct client *worker_find_slot(struct worker *worker, uint32_t pid);
/* Where a client with this number lives; NULL: nowhere. */
struct worker *worker_of_pid(uint32_t pid);
struct worker *worker_of_client(uint64_t id);
/* Numbers a new client; false: out of memory. */
bool worker_add_client(struct worker *worker, struct client *client);
void worker_remove_client(struct worker *worker, struct client *client);

/* Room for rewritten bytes that live until the next flush of the stream they
 * are put to; NULL: full, flush first (worker_arena_reset). */
char *worker_arena(struct worker *worker, size_t len);
void worker_arena_reset(struct worker *worker);

/* Looks at a pool from its worker's thread: opens what may be opened. */
void worker_open_servers(struct worker *worker, struct pool *pool);
/* A server of this pool could not be opened: those who have waited too long
 * for it, or who have been refused, are told; it is tried again in time. */
void worker_pool_failed(struct worker *worker, struct pool *pool);
/* A server of this pool is closed: others may be opened. */
void worker_pool_shrunk(struct worker *worker, struct pool *pool);
struct stream_tuning worker_tuning(const struct conf_options *options);
/* A limit over several pools is used up: has an idle server of another one
 * closed, if there is one, so that this pool may open one. */
void worker_evict_for(struct worker *worker, struct pool *pool);
/* A server of this pool has become idle: if others wait for room under a limit
 * that they share with it, one that is idle is closed for them. */
void worker_make_room(struct worker *worker, struct pool *pool);
/* RESUME, RELOAD, a limit that was freed: has idle servers offered to those
 * who wait, and opens what may be opened. Any worker's thread. */
void worker_kick_pool(struct worker *worker, struct pool *pool);

#endif
