/*
 * The migration lock, for operators: SHOW MIGRATIONS, and MIGRATION LOCK,
 * UNLOCK and ABORT.
 *
 * LOCK is for what no tool announces, a restore or a switch of servers: who
 * wants to migrate waits until UNLOCK, or until the time given is over. It
 * holds nobody else.
 */
#include "admin/answer.h"
#include "admin/rows.h"
#include "admin/show.h"
#include "base/clock.h"
#include "base/log.h"
#include "conf/conf.h"
#include "migrate/lock.h"
#include "pool/target.h"
#include "session/migrant.h"
#include "session/setup.h"
#include "session/worker.h"

static void
put_migration(void *arg, const struct migration_row *row)
{
	struct rows *rows = arg;

	row_begin(rows);
	row_int(rows, row->id);
	row_text(rows, row->database);
	row_text(rows, row->tool);
	row_text(rows, row->user);
	row_text(rows, row->address);
	row_text(rows, row->application);
	row_text(rows, row->state);
	row_time(rows, row->started_us);
	row_int(rows, row->waited_us / 1000);
	row_int(rows, row->drained_us / 1000);
	row_int(rows, row->hold_us / 1000);
	row_int(rows, row->held_clients);
	row_int(rows, row->ddl_statements);
	row_text(rows, row->outcome);
	row_text(rows, row->error);
	row_end(rows);
}

void
show_migrations(struct show *show)
{
	migrations_each(put_migration, show->rows);
}

/* NULL: it was answered with an error. */
static struct target *
find_target(struct client *client, const struct command *command)
{
	const struct conf *conf = client->worker->setup->conf;
	const struct conf_database *db =
	    conf_find_database(conf, command->arg);
	struct target *target = NULL;
	struct buf name = { 0 };

	text_add_utf8(&name, command->arg, 128);
	if (db == NULL) {
		answer_error(client, "3D000", "no such database: %.*s",
		    SPAN_ARG(buf_span(&name)));
	} else {
		target = target_get(db, command->arg);
		if (target == NULL || migration_of(target) == NULL) {
			target = NULL;
			answer_no_memory(client);
		}
	}
	buf_finish(&name);
	return target;
}

static void
lock_run(struct client *client, const struct command *command,
    struct target *target)
{
	uint64_t time_us = 0;
	char whom[256];

	if (command->value.at != NULL &&
	    !span_parse_duration_us(command->value, &time_us)) {
		answer_error(client, "22023",
		    "MIGRATION LOCK takes a time such as 10min");
		return;
	}
	if (!migration_console_lock(migration_of(target), command->arg,
	    time_us > 0 ? clock_us() + time_us : 0, whom, sizeof(whom)))
		answer_error(client, "55P03", "the migration lock is taken: "
		    "%s", whom);
	else
		answer_done(client, "MIGRATION");
}

void
migrations_run(struct client *client, const struct command *command)
{
	struct migration_news news = { 0 };
	struct target *target = find_target(client, command);
	bool done;

	if (target == NULL)
		return;
	if (span_is_case(command->action, "lock")) {
		lock_run(client, command, target);
		return;
	}
	if (span_is_case(command->action, "unlock")) {
		done = migration_console_unlock(migration_of(target), &news);
	} else if (span_is_case(command->action, "abort")) {
		done = migration_console_abort(migration_of(target), &news);
	} else {
		answer_error(client, "42601",
		    "MIGRATION takes LOCK, UNLOCK or ABORT");
		return;
	}
	migrant_obey(client->worker, target, &news);
	if (done)
		answer_done(client, "MIGRATION");
	else
		answer_error(client, "55000", "nobody migrates there");
}
