/* The parameters of a client's startup packet. */
#ifndef SESSION_PARAMS_H
#define SESSION_PARAMS_H

#include <stdbool.h>

#include "base/span.h"

struct buf;
struct client;
struct conf_options;
struct pool_welcome;
struct vars;

/* One of them. False: out of memory. */
bool params_take(struct client *client, const struct conf_options *o,
    struct span name, struct span value);
/* The "options" among the parameters of a packet, a command line full of them.
 * It comes before all others, as in Postgres, wherever it stands. False: the
 * client has ended. */
bool params_take_options(struct client *client, const struct conf_options *o,
    struct span packet);
/* application_name_add_host. False: out of memory. */
bool params_add_host(struct client *client, const struct conf_options *o);
/* All are there, and so is the pool: what it has anyway need not be set. */
bool params_settle(struct client *client,
    const struct pool_welcome *welcome);

/* Is it known what a server makes of them? Then that is client->vars, and its
 * startup_vars. Asked again where a server had to be waited for. */
bool params_are_known(struct client *client);
/* A server has taken what was `brought`, and has said what it makes of it:
 * client->vars. False: out of memory. */
bool params_are_accepted(struct client *client, struct vars *brought);
/* ParameterStatus for all that servers report, with the client's own values
 * where it brought some. */
void params_put(const struct client *client,
    const struct pool_welcome *welcome, struct buf *out);

#endif
