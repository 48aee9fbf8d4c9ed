/* A client that runs schema migrations: the session's side of the lock. */
#ifndef SESSION_MIGRANT_H
#define SESSION_MIGRANT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "session/ending.h"
#include "session/pass.h"

struct client;
struct migrant;
struct pool;
struct server;
struct target;
struct tool;
struct worker;

/* Is this client a migrator from its first statement on, by declaration? Its
 * tool, or NULL. After login. */
const struct tool *migrant_declared(const struct client *client);

/* Is it `pgsluice migrate`? Its connection is the lock, and says nothing for as
 * long as its command is at work: no limit on idle clients is for it. */
bool migrant_may_be_silent(const struct client *client);

/*
 * A statement that the client's server is about to get, by the message at
 * hand: a Query, a Parse or a Bind. `bind` is a Bind's body behind its names,
 * SPAN_NONE if there is none. True: it is taken care of, since the client has
 * to wait or is refused, and *ret_go_on says whether the walk goes on. Call it
 * only where migrant_is_asked() says so; and once before the client takes a
 * server for it, where that is cheap, so that it does not wait with one.
 */
bool migrant_is_asked(const struct client *client, uint32_t effects);
bool migrant_takes(struct pass *pass, const struct frame *frame,
    uint32_t effects, struct span sql, struct span bind, bool *ret_go_on);

/* The client's query has got its ReadyForQuery. */
void migrant_query_ended(struct client *client);
/* Has it done nothing for so long that it is a client like any? */
bool migrant_is_done(const struct client *client);
/* It is parted from its server, which belongs to nobody else: the lock passes
 * on when that is gone for good. */
void migrant_parted(struct client *client, struct server *server);
void migrant_server_gone(struct server *server);
/* The client goes, and has no server. */
void migrant_client_gone(struct client *client);
/* The statement for which it waits, be it for a server, gets this error: it
 * stands in line no longer. */
void migrant_client_refused(struct client *client, enum ending ending);
/* A cancel for a client that has no server. False: it does not wait here. */
bool migrant_cancelled(struct client *client);

/* A transaction has ended, or a server has gone: somebody may wait for it.
 * Cheap where nobody does. */
void migrant_look(struct worker *worker, struct pool *pool);
void migrant_look_at(struct worker *worker, struct target *target);

/* Something that it waits for has happened. */
void migrant_woken(struct client *client);
/* Console: what migration_console_*() has told to do. */
struct migration_news;
void migrant_obey(struct worker *worker, struct target *target,
    const struct migration_news *news);

#endif
