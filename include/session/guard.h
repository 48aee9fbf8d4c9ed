/* Keeps those who would wait for DDL from using up a pool's servers. */
#ifndef SESSION_GUARD_H
#define SESSION_GUARD_H

#include <stdbool.h>

#include "base/span.h"

struct client;
struct worker;

enum guard {
	GUARD_NONE,
	GUARD_WAITS,			/* CLIENT_WAITING, but in no line */
	GUARD_PASSED,			/* one of the few who may try */
};

/* May guard_stops() have to say anything? Hardly ever, and this is cheap. */
bool guard_is_up(const struct client *client);
/* A client without a server is about to take one for this statement. True: it
 * waits. */
bool guard_stops(struct client *client, struct span sql);
/* It waits no longer, or its link is over. */
void guard_leave(struct client *client);
/* Those of this worker who wait look again. */
void guard_go_on(struct worker *worker);

#endif
