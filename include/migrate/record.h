/* Records of migrations, for SHOW MIGRATIONS; migrate/lock.c's own. */
#ifndef MIGRATE_RECORD_H
#define MIGRATE_RECORD_H

#include "base/map.h"
#include "migrate/lock.h"

struct migration_record {
	struct list node;
	struct migrator *who;		/* NULL: it is over */
	struct migration_row row;
	char tool[32], database[64], user[64], address[64], application[64];
	char outcome[32], error[256];
};

/* who->record; NULL without memory, and then there is no row. */
void record_begin(struct migrator *who);
/* The texts are copied; error may be NULL. */
void record_end(struct migrator *who, const char *outcome, const char *error);
/* Those that are over, then those that are not, each by age. `state` names the
 * state of one that is not. */
void records_each(const char *(*state)(const struct migrator *who),
    void (*each)(void *arg, const struct migration_row *row), void *arg);

#endif
