/*
 * Errands: commands of the operator's that are run around a migration.
 *
 * Each is on its worker's list from its start to its end, so that none is left
 * when the worker's loop ends. Whoever wants to know how it went is called;
 * migration_after has nobody who does.
 */
#include "session/errand.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/words.h"
#include "conf/conf.h"
#include "net/command.h"
#include "session/setup.h"
#include "session/worker.h"

#define VARIABLES 6

struct errand {
	struct list node;		/* worker->errands */
	struct command *command;
	char **argv;
	char *environment[VARIABLES + 1];
	const char *what;		/* for the log */
	void (*ended)(void *arg, bool good);
	void *arg;
};

MEM_TYPE(errand_type, errand);

static void
errand_free(struct errand *errand)
{
	list_remove(&errand->node);
	command_destroy(errand->command);
	mem_free(errand->argv);
	for (size_t i = 0; i < VARIABLES; i++)
		mem_free(errand->environment[i]);
	mem_delete(&errand_type, errand);
}

static void
errand_ended(void *arg, const struct command_result *result)
{
	struct errand *errand = arg;
	bool good = command_succeeded(result);
	struct buf how = { 0 };

	command_describe(result, &how);
	buf_add(&how, "", 1);
	log_line(good ? LOG_LEVEL_LOG : LOG_LEVEL_ERROR, "",
	    "%s %s after %.3f s; its output: %s%.*s", errand->what,
	    how.failed ? "ended" : how.at, (double)result->took_us / 1e6,
	    result->output_is_cut ? "..." : "", SPAN_ARG(result->output));
	buf_finish(&how);
	if (errand->ended != NULL)
		errand->ended(errand->arg, good);
	errand_free(errand);
}

static bool
errand_describe(struct errand *errand, const struct errand_about *about)
{
	char **at = errand->environment;
	bool good;

	at[0] = mem_printf("PGSLUICE_DATABASE=%s", about->database);
	at[1] = mem_printf("PGSLUICE_USER=%s", about->user);
	at[2] = mem_printf("PGSLUICE_TOOL=%s", about->tool);
	at[3] = mem_printf("PGSLUICE_HOST=%s", about->host);
	at[4] = mem_printf("PGSLUICE_PORT=%u", about->port);
	good = at[0] != NULL && at[1] != NULL && at[2] != NULL &&
	    at[3] != NULL && at[4] != NULL;
	if (about->outcome == NULL)
		return good;
	at[5] = mem_printf("PGSLUICE_OUTCOME=%s", about->outcome);
	return good && at[5] != NULL;
}

struct errand *
errand_start(struct worker *worker, const char *line,
    const struct errand_about *about, void (*ended)(void *arg, bool good),
    void *arg)
{
	struct errand *errand = mem_new(&errand_type);
	struct buf why = { 0 };

	if (errand == NULL)
		return NULL;
	errand->what = about->outcome == NULL ? "migration_before" :
	    "migration_after";
	errand->ended = ended;
	errand->arg = arg;
	errand->argv = words_split(span_of(line), &why);
	buf_finish(&why);
	if (errand->argv != NULL && errand_describe(errand, about))
		errand->command = command_start(worker->loop,
		    &(struct command_settings){
			.argv = errand->argv,
			.environment =
			    (const char *const *)errand->environment,
			.timeout_us = worker->setup->conf->o.
			    migration_command_timeout_us,
		    }, errand_ended, errand);
	if (errand->command == NULL) {
		errand_free(errand);
		return NULL;
	}
	list_append(&worker->errands, &errand->node);
	return errand;
}

void
errand_forget(struct errand *errand)
{
	if (errand != NULL)
		errand_free(errand);
}

void
errands_drop(struct worker *worker)
{
	list_each(node, &worker->errands)
		errand_free(container_of(node, struct errand, node));
}
