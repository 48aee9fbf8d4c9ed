/* Moves bytes between a linked client and server. */
#ifndef SESSION_RELAY_H
#define SESSION_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct server;

/* One direction: where in a message the stream stands. */
struct relay {
	uint32_t left;			/* bytes of this message to come */
	uint8_t drop;			/* ... which are dropped, not passed */
};

/* Bytes from a client that has logged in. Returns how many were consumed. */
size_t relay_client(struct client *client, const char *at, size_t len);
/* Has a client that waits sent the whole message that it waits with? */
bool relay_has_request(const struct client *client);
/* Bytes from a server that has logged in. */
size_t relay_server(struct server *server, const char *at, size_t len);
/* Answers what needs no server, when nothing else is owed before it. */
void relay_answer_local(struct server *server);

#endif
