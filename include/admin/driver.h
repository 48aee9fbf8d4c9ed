/* What drivers send of their own accord, and expect to be understood. */
#ifndef ADMIN_DRIVER_H
#define ADMIN_DRIVER_H

#include <stdbool.h>

#include "base/span.h"
#include "wire/body.h"

struct client;
struct command;

/* A session parameter that a driver asks for: its value, and the one column
 * of the answer. NULL: there is none of this name. */
const char *driver_parameter(struct span name,
    const struct msg_column **ret_column);
/* SET of a session parameter, which is no setting of ours. False: it is not
 * about one, and was not answered. */
bool driver_set(struct client *client, const struct command *command);
/* For a text that is no command: what to do about it; NULL = nothing comes to
 * mind. */
const char *driver_hint(struct span text);

#endif
