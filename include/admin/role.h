/* Who may use a command or look at a table. */
#ifndef ADMIN_ROLE_H
#define ADMIN_ROLE_H

#include <stdbool.h>

#include "session/client.h"

enum role {
	ADMIN,				/* admin_users; also what 0 means */
	STATS,				/* and stats_users */
};

static inline bool
role_allows(enum role role, const struct client *client)
{
	return role == STATS || client->is_admin;
}

#endif
