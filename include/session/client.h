/* A client: a connection from an app. */
#ifndef SESSION_CLIENT_H
#define SESSION_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "net/stream.h"
#include "pool/pool.h"
#include "pool/stmt.h"
#include "session/ending.h"
#include "session/relay.h"

struct channels;
struct database_step;
struct migrant;
struct tool;
struct client_login;
struct msg_error;
struct server;
struct vars;
struct worker;

enum client_state {
#define X(name, shown, from) CLIENT_##name,
#include "session/client_state.def"
#undef X
	CLIENT_STATES
};

#define CLIENT_KEY 32			/* bytes of a cancel key */

struct client {
	uint32_t magic;
	uint8_t state;			/* enum client_state; client_move() */
	bool is_admin;			/* console: may do everything */
	bool in_transaction;		/* status of the last Z: T or E */
	uint8_t end_reason;		/* enum ending, once CLOSING or GONE */
	bool wants_long_key;		/* protocol 3.2 */
	bool notified;			/* the NOTICE to those who wait */
	bool joined;			/* counted in its pool */
	bool begin_failed;		/* that transaction is in error */
	bool keeps_sequences;		/* it has asked for lastval() */
	bool is_resting;		/* with a server, between two
					 * transactions: pool/hold.h */
	bool repeats;			/* its batch is to be walked again */
	uint8_t repeated;		/* so many times, of this batch */
	struct stream s;
	struct worker *worker;
	struct list node;		/* the worker's list of this state */
	uint64_t id;			/* never used again; see worker.c */
	uint64_t sequences_on;		/* the server that moved one for it */
	struct pool *pool;		/* NULL before login */
	struct pool_quota *user;	/* who it is, with a pool: whom it has
					 * logged in as; its servers may be
					 * somebody else's */
	struct server *server;		/* the link; NULL = none */
	struct relay relay;		/* bytes from this client */
	struct pool_wait wait;
	struct loop_timer timer;
	struct vars *vars;		/* session parameters; a reference */
	struct vars *startup_vars;	/* as they were at login */
	char *begin;			/* a BEGIN no server knows of */
	struct stmt *unnamed;		/* the unnamed statement, or NULL */
	struct stmt_names names;
	struct channels *channels;	/* LISTEN; NULL = none */
	struct database_step *database_step; /* CREATE DATABASE...; or NULL */
	uint8_t guard;			/* enum guard; session/guard.h */
	struct target *guard_target;	/* where it is GUARD_PASSED */
	struct migrant *migrant;	/* it runs migrations; NULL = no */
	const struct tool *migrates;	/* it has said so; NULL = no */
	struct client_login *login;	/* only until logged in */
	void *console;			/* admin's own, for CLIENT_CONSOLE */
	char *console_user;		/* who, when there is no pool */
	unsigned char key[CLIENT_KEY];	/* cancel key */
	uint64_t connected_us;		/* wall clock, for SHOW */
	uint64_t request_us;		/* when the last request came */
	uint64_t state_us;		/* clock_us() when the state began */
	uint64_t query_us;		/* when the query began; 0 = none */
	uint64_t stopped_us;		/* query_us of one that had its time
					 * and was cancelled */
	uint64_t xact_us;		/* when the transaction began */
	uint64_t idle_us;		/* when the transaction went idle */
	uint64_t sent_counted;		/* of s.sent: in the pool's sum */
};

/* Takes over the socket; on the worker's thread. */
void client_create(struct worker *worker, int fd, bool is_unix);
/* The one setter of the state. */
void client_move(struct client *client, enum client_state state);
const char *client_state_shown(const struct client *client);
uint32_t client_cancel_pid(const struct client *client);

/*
 * The one closer. Tells the client (if the ending has words for it), takes
 * care of the server, the line, the limits, the log; the object is freed at
 * the end of the turn. `detail` (may be NULL) goes behind the text. Endings
 * of severity ERROR keep the connection: the request at hand is answered and
 * skipped (client_refuse), where the protocol's phase allows that.
 */
void client_end(struct client *client, enum ending ending,
    const char *detail);
/* The same with another SQLSTATE and message: what a server has said. */
void client_end_as(struct client *client, enum ending ending,
    const char *sqlstate, const char *message);
/* ... and with detail and hint; its severity is set to FATAL. */
void client_end_with(struct client *client, enum ending ending,
    const struct msg_error *error);
/* The server is lost: takes the link apart, leaves the rest to the caller. */
void client_detach(struct client *client);
/* An ErrorResponse, and the log's line, nothing else. */
void client_error(struct client *client, enum ending ending,
    const char *detail);
/* The transaction status that it is to be told: 'I', 'T' or 'E'. */
char client_status(const struct client *client);
void client_ready(struct client *client);	/* ReadyForQuery, with that */
/* No server for this client: end or refuse, with the pool's trouble. */
void client_end_trouble(struct client *client, enum ending ending);

/* Adds to the pool's sums: bytes taken from this client just now, and what it
 * was sent since the last time. */
void client_count_bytes(struct client *client, size_t received);

/* Re-arms the client's timer for its state and configuration. Nothing happens
 * in here, even if it is due. */
void client_arm(struct client *client);
/* At a transaction's end: is this client to go (shutdown)? */
bool client_should_leave(const struct client *client);
/* Are its prepared statements ours to keep (not in session mode)? */
bool client_tracks_statements(const struct client *client);
void client_notice(struct client *client, const char *sqlstate,
    const char *message);
/* "C-0x...: db/user@addr:port " */
const char *client_prefix(const struct client *client, char *text,
    size_t size);
void client_free(struct client *client);	/* the reaper only */
/* At the worker's end: closes without a word. */
void client_drop(struct client *client);

/* session/login.c: everything up to ReadyForQuery. */
size_t client_login_data(struct client *client, const char *at, size_t len);
void client_login_opened(struct client *client);	/* TLS is up */
void client_login_free(struct client *client);
/* The pool's welcome is there (or its trouble): go on. On each worker. */
void client_login_welcome(struct worker *worker, void *pool);
/*
 * A server is wanted, or is there, only so that it takes the parameters of
 * the startup packet. Each goes on with the login; true: it is done, and the
 * server is free.
 */
bool client_login_is_done(struct client *client);
void client_login_accepted(struct client *client);
/* The server was lost over it. */
void client_login_again(struct client *client);
/* The name of user and database a client has or wants; for logs and SHOW. */
const char *client_user(const struct client *client);
const char *client_database(const struct client *client);

#endif
