/* Pools: the servers of one (database, user), shared by all workers. */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/span.h"
#include "conf/conf.h"
#include "stat/hist.h"
#include "stat/stat.h"

struct hub;
struct target;
struct vars;

#define POOL_WORKERS 64			/* the most workers there can be */

/*
 * A place in a pool's waiting line; part of the session that waits. The
 * pool's lock guards all fields.
 */
struct pool_wait {
	struct list node;		/* in the pool's line */
	struct list local;		/* in the line of its worker */
	unsigned worker;
	uint64_t id;			/* the session, for a mail */
	uint64_t since_us;
	bool queued;
};

/*
 * A server as its pool sees it; part of the session's server. Only its
 * worker touches it while it is not idle; while idle the pool's lock does.
 */
struct pool_server {
	struct list node;		/* in the idle list of its worker */
	unsigned worker;
	uint64_t idle_since_us;
	bool is_idle;
};

/* Why no server can be had just now. */
struct pool_trouble {
	uint64_t since_us;		/* 0 = none */
	uint64_t retry_us;		/* no new try before that */
	unsigned failures;
	bool refused;			/* the server answered: never mind */
	char sqlstate[6];
	char message[256];
};

/* What is a worker's own in a pool. */
struct pool_shard {
	struct list idle;		/* pool_server.node, newest first */
	struct list line;		/* pool_wait.local */
	unsigned idle_count;
	_Atomic unsigned clients;	/* logged in, all states */
	_Atomic unsigned active;	/* linked */
	struct hist wait_time;
	struct hist query_time;
	struct stat_block stat;
};

/* Connections to one database or of one user, over all their pools. */
struct pool_quota {
	struct hash_node by_name;
	char *name;
	_Atomic int servers;
	_Atomic int clients;
	_Atomic int waiting;		/* in the lines of all its pools */
	_Atomic int max_servers;	/* 0 = none */
	_Atomic int max_clients;
	_Atomic bool paused;		/* console: PAUSE db */
	_Atomic bool disabled;		/* console: DISABLE db */
};

/*
 * What opens servers, as far as a pool is concerned: an object that somebody
 * above has made, counted by references.
 */
struct pool_credential {
	_Atomic unsigned refs;
	void (*destroy)(struct pool_credential *credential);
};

/* What a server says of itself at login, for the clients' logins. */
struct pool_welcome {
	_Atomic unsigned refs;
	struct buf messages;		/* ParameterStatus messages, as sent */
	struct vars *baseline;		/* the same, as a set */
};

struct pool {
	uint32_t magic;
	struct hash_node by_name;
	struct list all;		/* in the directory, oldest first */
	_Atomic uint64_t epoch;		/* RECONNECT: servers of older epochs
					 * are closed when they are free */
	_Atomic uint64_t replaced;	/* servers of older epochs than this
					 * are to go even from a session, with
					 * server_fast_close */
	_Atomic bool is_created;	/* a client has made its database
					 * (pool/created.h) */
	char *database, *user;
	struct pool_quota *database_quota, *user_quota;
	_Atomic(struct target *) target; /* where it leads to */
	pthread_mutex_t lock;		/* guards what follows */
	/* A reference; the other two point into it. Read without the lock by
	 * workers, whose own setup keeps the old ones alive at a reload. */
	_Atomic(struct conf *) conf;
	_Atomic(const struct conf_database *) db;
	_Atomic(const struct conf_user *) conf_user;	/* may be NULL */
	struct pool_credential *credential; /* of its clients, or NULL */
	struct pool_welcome *welcome;	/* NULL: no server yet */
	struct list line;		/* pool_wait.node, oldest first */
	unsigned waiting;		/* length of the line */
	_Atomic unsigned servers;	/* opening, in use, idle, closing */
	_Atomic unsigned migrating;	/* set aside for migrators */
	_Atomic unsigned pinned;	/* tied to a client by session state */
	_Atomic unsigned audits;	/* counts up to state_audit */
	unsigned opening;
	unsigned resting;		/* tied to a client, between two
					 * transactions (pool/hold.h) */
	struct pool_trouble trouble;
	_Atomic unsigned welcome_wanted; /* logins that wait for it */
	_Atomic unsigned next_host;
	_Atomic(struct hub *) hub;	/* of session/; NULL: none yet */
	unsigned shard_count;
	struct pool_shard *shard;
};

/* Console: no database lends servers, be it there already or yet to come. */
extern _Atomic bool pools_paused;

/* The directory of pools. Configures how many workers there are. */
void pools_init(unsigned workers);
/* The pool of this database entry and user; made when it is new. NULL: out
 * of memory. `database` is the name the client asked for. */
struct pool *pool_get(struct conf *conf, const struct conf_database *db,
    struct span database, struct span user);
/* Walks all pools; they are never freed, so the walk needs no lock held. */
struct pool *pool_next(struct pool *after);	/* NULL = first / end */
/* Hands a new configuration to all pools. */
void pools_configure(struct conf *conf);
/* Another entry may lead to this one now. `conf` is in force if there was no
 * pools_configure() yet. */
void pool_configure_again(struct pool *pool, struct conf *conf);
struct pool_quota *pool_quota_find(struct span name, bool of_user);
/* A database's, made if nobody has used it yet. NULL: out of memory. */
struct pool_quota *pool_quota_get(struct span database);
/* A user's, made likewise. `conf` as for pool_configure_again(). */
struct pool_quota *pool_user_get(const struct conf *conf, struct span user);
struct pool_quota *pool_quota_next(struct pool_quota *after, bool of_user);

/* The limits in force. */
unsigned pool_size(const struct pool *pool);
enum pool_mode pool_mode(const struct pool *pool);

/* A client logged in or left. It counts for who it has logged in as, whoever
 * the pool's servers are. */
void pool_client_joined(struct pool *pool, struct pool_quota *user,
    unsigned worker);
void pool_client_left(struct pool *pool, struct pool_quota *user,
    unsigned worker);
unsigned pool_clients(const struct pool *pool);

enum pool_taken {
	POOL_GOT,		/* *ret_server, off the idle list */
	POOL_WAIT,		/* in line */
	POOL_FETCH,		/* in line, and *ret_server idles at another
				 * worker: mail it there to be given */
	POOL_TROUBLE,		/* the pool is failing; pool->trouble says it */
};

/*
 * A server for a client of this worker, or a place in the line. Sets
 * *ret_open to how many server connections the caller is to open now
 * (already counted).
 */
enum pool_taken pool_take(struct pool *pool, unsigned worker,
    struct pool_wait *wait, struct pool_server **ret_server,
    bool *ret_open);
/* Leaves the line. False: was not in it (a server may be on its way). */
bool pool_leave(struct pool *pool, struct pool_wait *wait);

enum pool_given {
	POOL_IDLE,		/* nobody waits: it is on the idle list */
	POOL_HERE,		/* *ret_wait waits on this worker: link them */
	POOL_THERE,		/* *ret_worker, *ret_id: detach and mail it */
};

/* A server of this worker is free. */
enum pool_given pool_give(struct pool *pool, unsigned worker,
    struct pool_server *server, struct pool_wait **ret_wait,
    unsigned *ret_worker, uint64_t *ret_id);
/* Takes an idle server off the list, to close it. False: it is not idle
 * (any more). */
bool pool_remove_idle(struct pool *pool, struct pool_server *server);
/* An idle server, off the list: to be offered or closed; NULL: none. The
 * caller mails it to server->worker. */
struct pool_server *pool_pop_idle(struct pool *pool);
/* The same, when somebody waits and may be served (after RESUME). */
struct pool_server *pool_pop_wanted(struct pool *pool);

/* A counted server connection is open: its login is done. */
void pool_opened(struct pool *pool);
/* ... could not be opened. `refused`: the server answered with an error that
 * trying again will not change. */
void pool_open_failed(struct pool *pool, bool refused, const char *sqlstate,
    const char *message);
/* A server connection is closed for good (its socket and its cancels). */
void pool_closed(struct pool *pool, bool was_opening);
/* A server beside those that are lent: it counts for the limits of database
 * and user only. False: they are used up, or the database is paused. */
bool pool_reserve_aside(struct pool *pool);
void pool_release_aside(struct pool *pool);
/* A server that is in use goes aside: the pool may open another one. */
void pool_put_aside(struct pool *pool);
/* May one more server be opened now, for those in line or for min_pool_size?
 * If so it is counted and the caller opens it. */
bool pool_may_open(struct pool *pool);
/* For a pool that wants a server and meets an exhausted limit: an idle one of
 * another pool under the same limit, off its list, to be closed. *ret_pool is
 * its pool. */
struct pool_server *pool_evict(struct pool *pool, struct pool **ret_pool);
/* Does another pool wait for room under a limit that this one helps to use
 * up? Cheap: for each server that becomes idle. */
bool pool_is_in_the_way(const struct pool *pool);
/* A failing pool: has it failed for so long that those in line are told? */
bool pool_is_hopeless(struct pool *pool, uint64_t now_us);

/* +1 reference, or NULL. */
struct pool_credential *pool_get_credential(struct pool *pool);
/* Takes over the reference. What was refused is tried anew. */
void pool_set_credential(struct pool *pool,
    struct pool_credential *credential);
void pool_credential_unref(struct pool_credential *credential);
struct pool_welcome *pool_get_welcome(struct pool *pool); /* +1 ref or NULL */
/* Keeps a copy of the messages when there is no welcome yet, or they
 * changed; true when it is the first. */
bool pool_set_welcome(struct pool *pool, const struct buf *messages,
    struct vars *baseline);
void pool_welcome_unref(struct pool_welcome *welcome);
void pool_copy_trouble(struct pool *pool, struct pool_trouble *ret);

/* Sums over shards, under the lock; for SHOW. */
struct pool_counts {
	unsigned clients, active, waiting, servers, idle, opening;
	uint64_t oldest_wait_us;	/* age of the line's head */
};
void pool_count(struct pool *pool, struct pool_counts *ret);

#endif
