/*
 * SET and RELOAD: another configuration for the running process.
 *
 *   console's worker    helper thread            all workers
 *      SET ----job---->  conf_with
 *      RELOAD            setup_create (reads files, makes TLS contexts)
 *                        process.configure --mail--> worker->setup
 *                        gather_start -------mail--> (behind the other mail)
 *      answer <----------------------------------------+
 *
 * When the answer comes, every worker works by the new configuration. One
 * change at a time: two at once would each begin with what was before, and the
 * later one would undo the earlier.
 */
#include <stdatomic.h>

#include "admin/answer.h"
#include "admin/gather.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "session/setup.h"
#include "session/worker.h"

struct change {
	struct loop_job job;
	struct worker *worker;		/* the console client's */
	uint64_t client;
	bool is_set;			/* else RELOAD */
	struct setup *setup;		/* SET: what is to be changed, */
	char *name, *value;		/* and how */
	struct gather *gather;		/* for when it is made */
	struct buf why;			/* it was not */
};

MEM_TYPE(change_type, change);

/* A change is under way, until its last worker has it. */
static _Atomic bool is_changing;

static void
change_destroy(struct change *change)
{
	setup_unref(change->setup);
	mem_free(change->name);
	mem_free(change->value);
	gather_destroy(change->gather);
	buf_finish(&change->why);
	mem_delete(&change_type, change);
}

/* A worker has read its mail up to here. */
static void
change_visit(struct worker *worker, struct gather_part *part)
{
	(void)worker;
	(void)part;
}

static void
set_arrived(struct client *client, struct gather *gather)
{
	(void)gather;
	is_changing = false;
	if (client != NULL)
		answer_done(client, "SET");
}

static void
reload_arrived(struct client *client, struct gather *gather)
{
	(void)gather;
	is_changing = false;
	if (client != NULL)
		answer_done(client, "RELOAD");
}

/* On a helper thread. */
static bool
change_make(struct change *change)
{
	struct conf *conf;
	struct setup *setup;

	if (!change->is_set)
		return process.reload(&change->why);
	conf = conf_with(change->setup->conf, span_of(change->name),
	    span_of(change->value), &change->why);
	setup = conf == NULL ? NULL : setup_create(conf, &change->why);
	if (setup == NULL)
		return false;
	process.configure(setup);
	return true;
}

static void
change_work(struct loop_job *job)
{
	struct change *change = container_of(job, struct change, job);

	if (change_make(change)) {
		gather_start(change->gather);
		change->gather = NULL;
	}
}

/* Refused, for this client: it may have gone. */
static void
change_refused(struct change *change)
{
	struct client *client =
	    worker_find_client(change->worker, change->client);

	is_changing = false;
	if (client == NULL || client->state != CLIENT_CONSOLE)
		return;
	if (change->is_set)
		answer_error_detail(client, "22023", "SET failed",
		    &change->why);
	else
		answer_error_detail(client, "F0000",
		    "RELOAD failed, nothing was changed", &change->why);
}

static void
change_done(struct loop_job *job)
{
	struct change *change = container_of(job, struct change, job);

	if (change->gather != NULL)
		change_refused(change);
	change_destroy(change);
}

static struct change *
change_create(struct client *client)
{
	struct change *change = mem_new(&change_type);

	if (change == NULL)
		return NULL;
	change->gather = gather_create(client);
	if (change->gather == NULL) {
		change_destroy(change);
		return NULL;
	}
	change->worker = client->worker;
	change->client = client->id;
	change->job.work = change_work;
	change->job.done = change_done;
	change->gather->visit = change_visit;
	change->gather->done = reload_arrived;
	return change;
}

/* May this client begin a change? If not, it was answered. */
static bool
change_may_begin(struct client *client)
{
	if (!atomic_exchange(&is_changing, true))
		return true;
	answer_error(client, "55006",
	    "another change of the configuration is under way");
	return false;
}

static void
change_failed(struct client *client, struct change *change)
{
	if (change != NULL)
		change_destroy(change);
	is_changing = false;
	answer_no_memory(client);
}

void
config_reload(struct client *client, const struct command *command)
{
	struct change *change;

	(void)command;
	if (!change_may_begin(client))
		return;
	change = change_create(client);
	if (change == NULL)
		change_failed(client, NULL);
	else
		loop_job_start(client->worker->loop, &change->job);
}

void
config_set(struct client *client, const struct command *command)
{
	struct change *change;

	if (!change_may_begin(client))
		return;
	change = change_create(client);
	if (change == NULL) {
		change_failed(client, NULL);
		return;
	}
	change->is_set = true;
	change->gather->done = set_arrived;
	change->setup = setup_ref(client->worker->setup);
	change->name = mem_strndup(command->arg.at, command->arg.len);
	change->value = mem_strndup(command->value.at, command->value.len);
	if (change->name == NULL || change->value == NULL)
		change_failed(client, change);
	else
		loop_job_start(client->worker->loop, &change->job);
}
