/*
 * What SHOW MIGRATIONS has: those who wait or are in, and the last ones that
 * were.
 *
 * A record is begun when somebody comes to the lock of a database, and filled
 * in by migrate/lock.c as things happen. One that has only looked is forgotten
 * at its end. All of it is under the lock of lock.c.
 */
#include "migrate/record.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "migrate/detect.h"

/* Finished ones that are kept. */
#define RECORDS_MAX 200

static struct {
	struct list past, present;	/* struct migration_record */
	unsigned past_count;
	uint64_t next_id;
} records = { .next_id = 1 };

static void
record_copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from != NULL ? from : "");
}

/* Without memory for one there is no row in SHOW MIGRATIONS. */
void
record_begin(struct migrator *who)
{
	struct migration_record *record = mem_zalloc(sizeof(*record));

	if (record == NULL)
		return;
	record->who = who;
	record_copy(record->database, sizeof(record->database),
	    who->database);
	record_copy(record->user, sizeof(record->user), who->user);
	record_copy(record->address, sizeof(record->address), who->address);
	record_copy(record->application, sizeof(record->application),
	    who->application);
	record->row = (struct migration_row){
		.id = records.next_id++, .database = record->database,
		.tool = record->tool, .user = record->user,
		.address = record->address,
		.application = record->application,
		.outcome = record->outcome, .error = record->error,
		.started_us = clock_wall_us(),
	};
	who->record = record;
	list_append(&records.present, &record->node);
}

static void
record_forget_oldest(void)
{
	struct list *node = list_first(&records.past);

	list_remove(node);
	mem_free(container_of(node, struct migration_record, node));
	records.past_count--;
}

/* One that has only looked is not remembered. */
void
record_end(struct migrator *who, const char *outcome, const char *error)
{
	struct migration_record *record = who->record;

	if (record == NULL)
		return;
	who->record = NULL;
	list_remove(&record->node);
	if (!who->is_firm && record->row.ddl_statements == 0 &&
	    record->row.waited_us == 0) {
		mem_free(record);
		return;
	}
	record->who = NULL;
	record_copy(record->tool, sizeof(record->tool), who->tool->name);
	record_copy(record->outcome, sizeof(record->outcome), outcome);
	record_copy(record->error, sizeof(record->error), error);
	list_append(&records.past, &record->node);
	if (++records.past_count > RECORDS_MAX)
		record_forget_oldest();
}

/* What is known of one that is not over. */
static void
record_refresh(struct migration_record *record,
    const char *(*state)(const struct migrator *who))
{
	const struct migrator *who = record->who;

	if (who == NULL) {
		record->row.state = record->error[0] != '\0' ? "failed" :
		    "done";
		return;
	}
	record->row.state = state(who);
	record_copy(record->tool, sizeof(record->tool), who->tool->name);
	if (who->place == MIGRATOR_IN_LINE)
		record->row.waited_us = clock_us() - who->since_us;
}

void
records_each(const char *(*state)(const struct migrator *who),
    void (*each)(void *arg, const struct migration_row *row), void *arg)
{
	struct list *lists[] = { &records.past, &records.present };

	for (size_t i = 0; i < 2; i++)
		list_each(node, lists[i]) {
			struct migration_record *record = container_of(node,
			    struct migration_record, node);
			record_refresh(record, state);
			each(arg, &record->row);
		}
}
