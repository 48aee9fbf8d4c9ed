/* Cancelling what a server runs. */
#ifndef SESSION_CANCEL_H
#define SESSION_CANCEL_H

#include <stdint.h>

#include "base/span.h"

struct client;
struct server;
struct worker;

/* A CancelRequest came in on this client's socket: finds whom it means, on
 * whichever worker, passes it on, and closes the socket when that is done. */
void cancel_request(struct client *canceller, uint32_t pid, struct span key);
/* Sends a CancelRequest for what the server runs now. While one is on its
 * way (server->cancels) the server is not given to anybody. */
void cancel_server(struct server *server);
/* At the worker's end: forgets all that are on their way. */
void cancels_drop(struct worker *worker);
/* Our own query in front of the client's has ended, or the link has: a cancel
 * that came meanwhile is sent now, or is void. */
void cancel_put_off_ended(struct server *server, bool send);

#endif
