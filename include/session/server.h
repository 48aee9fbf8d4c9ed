/* A server: a connection to Postgres. */
#ifndef SESSION_SERVER_H
#define SESSION_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "net/dns.h"
#include "net/stream.h"
#include "pool/pool.h"
#include "pool/stmt.h"
#include "session/owed.h"
#include "session/plans.h"
#include "session/relay.h"

struct client;
struct error_fields;
struct hub;
struct migrant;
struct server_login;
struct server_opening;
struct setup;
struct vars;
struct worker;

enum server_state {
#define X(name, shown, from) SERVER_##name,
#include "session/server_state.def"
#undef X
	SERVER_STATES
};

struct server {
	uint32_t magic;
	uint8_t state;			/* enum server_state; server_move() */
	char status;			/* of the last Z: 'I', 'T', 'E' */
	bool uncounted;			/* its failure has told the pool */
	bool tainted;			/* not for anybody else: close it */
	bool is_local;			/* unix socket or loopback */
	bool commit_sent;		/* since the last Z, or it is owed */
	bool discarded;			/* DISCARD ALL, in the batch at hand */
	struct stream s;
	struct worker *worker;
	struct list node;		/* the worker's list of this state */
	struct list dispatch;		/* to be freed up at the turn's end */
	struct pool *pool;
	struct pool_server place;
	struct client *client;		/* the link; NULL = none */
	struct hub *hub;		/* it listens for that; NULL = none */
	struct migrant *migrant;	/* it is that one's alone; NULL */
	struct relay relay;		/* bytes from this server */
	struct owed owed;
	struct stmt_cache statements;
	struct plans plans;
	struct stmt *local_portal;	/* bound to the unnamed portal, but by
					 * us: a DEALLOCATE; or NULL */
	uint32_t bound_effects;		/* of the statement bound last */
	uint32_t parsed_effects;	/* ... parsed last, where not tracked */
	unsigned max_statements;	/* kept prepared; 0 = not tracked */
	struct stmt *unnamed;		/* in its unnamed slot; or unknown */
	struct vars *vars;		/* what its session differs by */
	struct vars *baseline;		/* what it reported at login */
	/* What became of the session's state (session/state.c): */
	uint32_t touched;		/* effects since the last probe */
	uint32_t touched_since;		/* ... and since it was sent */
	uint32_t touched_final;		/* what no reset undoes, session mode*/
	uint64_t sequences_of;		/* the client that moved one last */
	uint32_t pins;			/* 1 << enum state_pin */
	uint32_t pins_probed;		/* being collected */
	uint8_t hears;			/* enum hears */
	bool channels_asked;		/* by the probe that is under way */
	bool hub_refused;		/* ... to listen for its client */
	bool recheck;			/* are the pins still there? */
	bool audited;			/* ask even if nothing is touched */
	bool auditing;			/* that is being done */
	char *audit_sql;		/* the transaction's last statement */
	bool patient;			/* the probe has no time limit */
	bool retry;			/* ask again, patiently */
	struct vars *probed;		/* being collected; or NULL */
	struct vars *customs;		/* names to ask for */
	uint64_t pinned_us;		/* wall clock */
	bool cancel_wanted;		/* when our own query has ended */
	uint64_t cancel_for;		/* ... for this canceller, or 0 */
	unsigned cancels;		/* on their way; not given meanwhile */
	uint32_t pid;			/* of the backend */
	unsigned char key[256];		/* its cancel key */
	unsigned key_len;
	union stream_address address;	/* where it was connected to */
	socklen_t address_len;
	char *host;			/* for TLS; NULL when unix */
	struct loop_timer timer;
	struct server_opening *opening;	/* only until logged in */
	char *last_words;		/* a FATAL it sent; NULL = none */
	uint64_t id;
	uint64_t epoch;			/* of its pool, when it was opened */
	uint64_t opened_us;		/* clock_us() */
	uint64_t lifetime_us;		/* with jitter; 0 = one use */
	uint64_t connected_us;		/* wall clock, for SHOW */
	uint64_t request_us;		/* when it was lent last; 0 = never */
	uint64_t waited_us;		/* how long the query that it was lent
					 * for was in line */
	struct loop_mail mail;		/* when it moves to another worker */
	uint64_t mail_client;		/* ... and for whom; 0 = the line */
};

/* One that is still to be opened (server_login_start). NULL: no memory. */
struct server *server_create(struct worker *worker, struct pool *pool);
/* Opens a connection for this pool, which has counted it already. */
void server_open(struct worker *worker, struct pool *pool);
void server_move(struct server *server, enum server_state state);
const char *server_state_shown(const struct server *server);
/*
 * The one closer. Pool's count, statements, link are taken care of; the
 * object is freed at the end of the turn, or when the last cancel for it has
 * ended. `why` goes to the log. A linked client must have been parted.
 */
void server_close(struct server *server, const char *why);
/*
 * It was a migrator's: what it runs is cancelled, and it is closed when
 * Postgres has closed its side, and so has let go of everything.
 */
void server_retire(struct server *server);
/* The connection ended by itself; a linked client is told. */
void server_lost(struct server *server, const char *why);
/* Asks something of its own, outside of any client: a Query whose replies
 * are swallowed. False: out of memory. */
bool server_ask(struct server *server, const char *sql);
/* A query of ours was answered with an error. */
void server_own_query_failed(struct server *server,
    const struct error_fields *fields);
/* A parameter that DISCARD ALL puts back, on the server's side only. */
void server_parameter_reset(struct server *server, struct span name,
    struct span value);
/* DISCARD ALL has put its session back to what it was at login; a client is
 * told where that differs from what its own login had said. */
void server_discarded(struct server *server);
void server_set_unnamed(struct server *server, struct stmt *stmt_or_null);
void server_set_local_portal(struct server *server,
    struct stmt *stmt_or_null);
/* Forgets what it owes; undoes what the client's names owe to that. */
void server_forget_owed(struct server *server);
/* An idle server is at its end. */
void server_idle_ended(struct server *server, const char *why);
/* A cancel for it has ended. */
void server_cancel_ended(struct server *server);
/* On the idle list: when is it to be looked at again? */
void server_arm_idle(struct server *server);
/* On the idle list: looked at soon, as the limits may have changed. */
void server_look(struct server *server);
/* Is it not to be used any longer (lifetime, RECONNECT, tainted)? */
bool server_is_expired(const struct server *server);
const char *server_prefix(const struct server *server, char *text,
    size_t size);
void server_free(struct server *server);	/* the reaper only */
/* At the worker's end: closes without a word. */
void server_drop(struct server *server);

/* session/server_login.c: everything up to the first ReadyForQuery. */
void server_login_start(struct server *server);
size_t server_login_data(struct server *server, const char *at, size_t len);
void server_login_opened(struct server *server);  /* connected, TLS up */
void server_login_lost(struct server *server, enum stream_end why);
void server_login_timeout(struct server *server);
void server_login_free(struct server *server);
/* A ParameterStatus of a logged-in server: what it means for both sides. */
bool server_parameter(struct server *server, struct span name,
    struct span value);

/* Hand-over between workers. */
void server_send_to(struct server *server, unsigned worker,
    uint64_t client_id);
/* Ask the worker that has this idle server (already off the idle list) to
 * give it to the line, or to close it. */
void server_offer(struct pool_server *place);
void server_dismiss(struct pool_server *place);

#endif
