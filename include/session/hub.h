/* The one connection of a pool that listens for all its clients. */
#ifndef SESSION_HUB_H
#define SESSION_HUB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/span.h"

struct hub;
struct pool;
struct server;
struct worker;

/* What a worker knows of a hub's channels; touched by its thread only. */
struct hub_branch {
	struct hash rooms;		/* by channel; session/channels.c */
	struct list clients;		/* struct channels.node */
};

/* The pool's, made at its first use. NULL: out of memory. */
struct hub *hub_of(struct pool *pool);
/* The same, if it has been made. */
struct hub *hub_find(struct pool *pool);
struct hub_branch *hub_branch(struct hub *hub, const struct worker *worker);

/*
 * Names of channels in a row, each with a NUL behind it. For these a client
 * of `from` wants to be told; channels_answer() says that the hub listens
 * now, or cannot. False: out of memory, nothing was asked.
 */
bool hub_subscribe(struct hub *hub, const struct worker *from,
    uint64_t client_id, uint64_t serial, const struct buf *names);
/* ... once less each, also where the answer was no. */
void hub_unsubscribe(struct hub *hub, const struct worker *from,
    const struct buf *names);

/* The channel on which marks are sent, which nobody else knows. */
struct span hub_mark_channel(void);
/* "client serial": what a mark says. */
void hub_put_mark(struct buf *out, uint64_t client_id, uint64_t serial);
/* Has the hub notify itself of a mark, if it listens; else the client's worker
 * hears of it when it does again (channels_resumed). False: out of memory. */
bool hub_mark(struct hub *hub, uint64_t client_id, uint64_t serial);
/* Writes `LISTEN "x";` or another word. */
void hub_put_name(struct buf *out, const char *word, struct span name);

/* PAUSE, RECONNECT: the connection is to be made anew. Any thread. */
void hub_retire(struct pool *pool);
/* Nobody is to be connected to its database who need not: on each worker. */
void hub_vacate(struct pool *pool, const struct worker *here);

/* The hub's server, which belongs to server.c and relay_server.c like any: */
void hub_opened(struct server *server);		/* it is logged in */
void hub_answered(struct server *server);	/* a ReadyForQuery */
/* A notification, without its head. False: not to be understood. */
bool hub_notified(struct server *server, struct span body);
void hub_gone(struct server *server);		/* it is closed, or was never
						 * opened */

#endif
