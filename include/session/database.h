/* CREATE, DROP and ALTER DATABASE by clients: what they need of pgsluice. */
#ifndef SESSION_DATABASE_H
#define SESSION_DATABASE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

struct client;
struct pool;
struct server;

/* The statement of a client that is under way. */
struct database_step;

/*
 * A statement with SQL_DATABASE is about to be passed on, and nothing that was
 * asked before is unanswered. False: the client is paused until the idle
 * servers are gone that would be in its way; then it is offered again.
 */
bool database_may_pass(struct client *client, uint32_t effects,
    struct span sql);
/* A CommandComplete's tag, of a client that has a step. */
void database_completed(struct client *client, struct span tag);
/* ReadyForQuery, or the link's end: whatever came of it. */
void database_answered(struct client *client);
void database_ended(struct client *client);

/* Is no server to idle where this pool's are? */
bool database_is_left_alone(const struct pool *pool);
/* The last client of a pool whose database a client has created may have gone:
 * if so its servers are closed. */
void database_client_left(struct pool *pool);
/* A server has become idle. It is closed where none is to idle. */
void database_server_idles(struct server *server);

#endif
