/* Joins a client and a server for a transaction, and parts them. */
#ifndef SESSION_LINK_H
#define SESSION_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "session/ending.h"

struct client;
struct server;
struct worker;

/* True: the client has a server now. False: it waits in line (paused), or
 * was told that there is none. */
bool link_take(struct client *client);
/* A server for a client that has waited: joins them and goes on. */
void link_serve(struct server *server, struct client *client);
/* The server that was to come for a client that left the line is lost: the
 * client looks for another one. */
void link_retry(struct worker *worker, uint64_t client_id);
/* A session that goes on after a DISCARD ALL has the parameters of the
 * client's login set again. False: nothing is to be passed on now. */
bool link_refresh(struct client *client);
/* The parameters that were tried alone are good. */
void link_vars_accepted(struct server *server);
/* A query of the client's has got its ReadyForQuery: times and counts. `sql`
 * is the text that was kept for the log; or NULL. */
void link_query_ended(struct client *client, const char *sql);
/*
 * Any client that keeps its server beyond a transaction. At rest: between two
 * of them. link_stir(): it is about to begin another one; false: the app is
 * held, it must wait.
 */
void link_rest(struct client *client);
bool link_stir(struct client *client);
/* Is the transaction over, and nothing under way in either direction? */
bool link_is_over(const struct client *client);
/* Is its session to end because the server is to be replaced? */
bool link_is_replaced(const struct client *client);
/* The transaction is over: both go their ways. */
void link_part(struct client *client);
/* Takes the two apart, and no more. */
void link_undo(struct client *client);
/* The client goes away in the middle of something: what becomes of the
 * server depends on what it owes. */
void link_cut(struct client *client);
/* Has this idle server to be tried before it is lent? */
bool link_needs_check(const struct server *server);
/* A server has nothing to do: test, reset, cool, close, or the next client.*/
void server_free_up(struct server *server);
/* The same at the end of this turn: not inside somebody else's walk. */
void server_free_up_later(struct server *server);

#endif
