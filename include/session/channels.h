/* What a client LISTENs to, in transaction mode. */
#ifndef SESSION_CHANNELS_H
#define SESSION_CHANNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

struct channels;
struct client;
struct hub;
struct server;
struct worker;

/* What a linked server listens to. */
enum hears {
	HEARS_NOTHING,
	HEARS_CLIENT,			/* what its client does */
	HEARS_WAITS,			/* ... some of which the hub is asked
					 * for; the client waits */
	HEARS_LEAVING,			/* it is told to stop; so does it */
};

/* Is LISTEN of this client no reason to keep its server? */
bool channels_are_carried(const struct client *client);
/* The effects of a statement, with SQL_LISTEN added where it may change what
 * the client listens to. */
uint32_t channels_note(const struct server *server, uint32_t effects);

/* The server that a client gets: composes in the worker's scratch a query
 * that has it listen as well. False: there is nothing to be said. */
bool channels_compose(struct server *server, struct client *client);
/* The probe asks for the channels; a row of its answer; its end. */
void channels_probe_begin(struct server *server);
void channels_probe_row(struct server *server, struct span name);
void channels_probed(struct server *server);
/* Nothing is under way: has the server stop to listen, if its client need not
 * keep it. True: the link goes on until that is done. */
bool channels_leave(struct server *server);
/* What it has waited for (the hub, a cancel) is there. */
void channels_go_on(struct server *server);
/* The last is answered with an error; with a ReadyForQuery. */
void channels_leave_failed(struct server *server);
void channels_left(struct server *server);
/* The two are taken apart. */
void channels_unlinked(struct server *server, struct client *client);
/* The client is going. */
void channels_forget(struct client *client);

/* A notification, by the client's own server. */
enum channels_verdict {
	CHANNELS_PASS,			/* as it is */
	CHANNELS_DROP,			/* the hub brings it, too */
	CHANNELS_OWN,			/* it was this client's: with its pid */
	CHANNELS_BAD,			/* not to be understood */
};
enum channels_verdict channels_judge(struct server *server,
    struct span body);
void channels_tell_own(struct client *client, struct span body);
/* The client may be between two transactions now: tells it what came
 * meanwhile, at the end of this turn. */
void channels_tell_later(struct client *client);

/* Is there a channel of this name? */
bool channels_have(const struct client *client, struct span name);

/* From the hub, on each worker's thread. */
void channels_answer(struct worker *worker, struct hub *hub,
    uint64_t client_id, uint64_t serial, bool good);
void channels_notified(struct worker *worker, struct hub *hub,
    struct span body);
void channels_marked(struct worker *worker, uint64_t client_id,
    uint64_t serial);
void channels_resumed(struct worker *worker, struct hub *hub);
/* For SHOW: each channel that this worker's clients listen to. */
void channels_each(struct worker *worker, struct hub *hub,
    void (*each)(void *arg, struct span name, unsigned clients), void *arg);

#endif
