/* Queries that took long: the log's line, the count, the text for it. */
#ifndef SESSION_SLOW_H
#define SESSION_SLOW_H

#include <stdint.h>

#include "base/span.h"

struct client;

/* A statement is on its way to the client's server: keeps its text for the
 * log until its ReadyForQuery, where the operator has asked for texts. The
 * first one of a batch stands for all of it. */
void slow_keep_text(struct client *client, struct span sql);
/* A query has ended, and took at least log_min_duration. `sql` may be NULL. */
void slow_log_query(struct client *client, uint64_t wait_us,
    uint64_t server_us, const char *sql);

#endif
