/*
 * The gate between clients and servers: PAUSE, SUSPEND and RESUME, DISABLE and
 * ENABLE, RECONNECT, KILL, WAIT_CLOSE, SHUTDOWN.
 *
 * A database that is paused lends no servers: clients may log in and wait.
 * Pausing also retires its servers, so that Postgres may be restarted when
 * PAUSE has answered: those that idle are closed now, and those in use when
 * they are given back, for they belong to an earlier epoch of their pool than
 * the present one (server_is_expired). RECONNECT is the same without the
 * pause, KILL the same without the patience.
 *
 * PAUSE of one database and PAUSE of all are two reasons, each of which ends
 * by its own RESUME. The one for all is a state of the process, not a mark on
 * each database: it holds those too that come up later by way of `*`.
 *
 * SUSPEND stops the process where it is, transactions in the middle: nothing
 * is read from clients that have logged in, nor from their servers, and what
 * they are still to be sent leaves before it answers. No servers are lent
 * either, so that whoever comes now stops at the same place.
 *
 * What a pool allows is shared by all workers, and set here at once. What is
 * done to sessions is done by their workers (gather.h).
 */
#include <pthread.h>
#include <string.h>

#include "admin/answer.h"
#include "admin/console.h"
#include "admin/gather.h"
#include "admin/rows.h"
#include "admin/show.h"
#include "base/clock.h"
#include "base/log.h"
#include "conf/conf.h"
#include "session/hub.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"

/* Held by whoever moves the gate, until all workers have been told. */
static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int gate;		/* enum gate */
static _Atomic uint64_t suspended_us;	/* when; clock_us() */

enum gate
gate_state(void)
{
	return (enum gate)gate;
}

/* Under the lock, as all that sets it. */
static void
gate_set(enum gate how)
{
	process.suspended = how == GATE_SUSPENDED;
	pools_paused = how != GATE_OPEN;
	gate = (int)how;
}

/*
 * Databases.
 */

static bool
is_console(struct span name)
{
	return span_is(name, "pgsluice") || span_is(name, "pgbouncer");
}

/* What all pools of a database share, if it has any yet or not. NULL: there
 * is no such database, or no memory. */
static struct pool_quota *
quota_of(struct client *client, struct span name)
{
	const struct conf *conf = client->worker->setup->conf;
	struct pool_quota *quota = pool_quota_find(name, false);

	if (quota != NULL || conf_find_database(conf, name) == NULL)
		return quota;
	return pool_quota_get(name);
}

/*
 * The database that a command names: *ret is NULL for none, which is all.
 * False: it was answered with an error.
 */
static bool
find_database(struct client *client, const struct command *command,
    struct pool_quota **ret)
{
	struct buf name = { 0 };

	*ret = NULL;
	if (command->arg.at == NULL)
		return true;
	text_add_utf8(&name, command->arg, 128);
	if (is_console(command->arg)) {
		answer_error(client, "0A000", "not for the admin database: "
		    "%.*s", SPAN_ARG(buf_span(&name)));
	} else {
		*ret = quota_of(client, command->arg);
		if (*ret == NULL)
			answer_error(client, "3D000",
			    "no such database: %.*s",
			    SPAN_ARG(buf_span(&name)));
	}
	buf_finish(&name);
	return *ret != NULL;
}

/* The next pool of this database, or of all. */
static struct pool *
pool_next_of(struct pool *pool, const struct pool_quota *quota)
{
	do {
		pool = pool_next(pool);
	} while (pool != NULL && quota != NULL &&
	    pool->database_quota != quota);
	return pool;
}

bool
gate_is_outdated(const struct server *server)
{
	return server->tainted || server->epoch != server->pool->epoch;
}

/* Closes all servers: those that idle now, the others when they are free. */
static void
retire_servers(const struct pool_quota *quota)
{
	struct pool *pool = NULL;
	struct pool_server *place;

	while ((pool = pool_next_of(pool, quota)) != NULL) {
		pool->epoch++;
		hub_retire(pool);
		while ((place = pool_pop_idle(pool)) != NULL)
			server_dismiss(place);
	}
}

/* Ending one client may change the lists that others are on: first all are
 * noted by their ids, then ended one by one. */
static void
end_noted(struct worker *worker, struct gather_part *part, const char *why)
{
	uint64_t id;

	for (size_t at = 0; at < part->out.len; at += sizeof(id)) {
		struct client *client;
		memcpy(&id, part->out.at + at, sizeof(id));
		client = worker_find_client(worker, id);
		if (client != NULL)
			client_end(client, END_KILLED, why);
	}
}

/* For answer_when(): asks the workers each time. */
static void
look_at_workers(struct client *client,
    void (*visit)(struct worker *worker, struct gather_part *part),
    void (*done)(struct client *client, struct gather *gather))
{
	struct gather *gather = gather_create(client);

	if (gather == NULL) {
		answer_no_memory(client);
		return;
	}
	gather->visit = visit;
	gather->done = done;
	gather->quota = console_of(client)->quota;
	gather_start(gather);
}

/*
 * PAUSE and RESUME.
 */

static void
pause_database(struct pool_quota *quota)
{
	quota->paused = true;
	retire_servers(quota);
}

/* False: they are already, or suspended. */
static bool
pause_all(void)
{
	pthread_mutex_lock(&gate_lock);
	bool open = gate == GATE_OPEN;
	if (open)
		gate_set(GATE_PAUSED);
	pthread_mutex_unlock(&gate_lock);
	if (open)
		retire_servers(NULL);
	return open;
}

static unsigned
count_servers(const struct pool_quota *quota)
{
	struct pool *pool = NULL;
	struct pool_counts counts;
	unsigned servers = 0;

	while ((pool = pool_next_of(pool, quota)) != NULL) {
		pool_count(pool, &counts);
		servers += counts.servers + pool->migrating;
	}
	return servers;
}

static bool
is_paused(const struct pool_quota *quota)
{
	return quota != NULL ? quota->paused : gate == GATE_PAUSED;
}

static void
look_paused(struct client *client)
{
	const struct console *console = console_of(client);

	if (!is_paused(console->quota))
		answer_error(client, "57014", "ended by a RESUME");
	else if (count_servers(console->quota) == 0)
		answer_done(client, console->tag);
	else
		answer_look_again(client);
}

void
gate_pause(struct client *client, const struct command *command)
{
	struct pool_quota *quota;

	if (!find_database(client, command, &quota))
		return;
	if (quota == NULL ? !pause_all() : quota->paused) {
		answer_error(client, "55000", "already suspended/paused");
		return;
	}
	if (quota != NULL)
		pause_database(quota);
	answer_when(client, "PAUSE", quota, look_paused);
}

/* Runs on every worker. False: some could not be told; all may be told
 * again. */
static bool
tell_workers(void (*run)(struct worker *worker, void *arg))
{
	bool told = true;

	for (unsigned i = 0; i < process.worker_count; i++)
		told = worker_post(process.worker[i], run, NULL) && told;
	return told;
}

static void
kick_pools(struct worker *worker, const struct pool_quota *quota)
{
	struct pool *pool = NULL;

	while ((pool = pool_next_of(pool, quota)) != NULL)
		worker_kick_pool(worker, pool);
}

/* SUSPEND is over: on each worker. */
static void
go_on_run(struct worker *worker, void *arg)
{
	(void)arg;
	for (int state = 0; state < CLIENT_CLOSING; state++)
		list_each(node, &worker->clients[state])
			stream_resume(&container_of(node, struct client,
			    node)->s, PAUSE_SUSPENDED);
	list_each(node, &worker->servers[SERVER_ACTIVE])
		stream_resume(&container_of(node, struct server, node)->s,
		    PAUSE_SUSPENDED);
}

/* On a worker's thread. False: out of memory, it is as before. */
static bool
resume_all(struct worker *worker)
{
	pthread_mutex_lock(&gate_lock);
	bool was_suspended = gate == GATE_SUSPENDED;
	/* First the flag: who logs in from now on is not stopped. */
	gate_set(GATE_OPEN);
	bool told = !was_suspended || tell_workers(go_on_run);
	if (!told)
		gate_set(GATE_SUSPENDED);
	pthread_mutex_unlock(&gate_lock);
	if (told)
		kick_pools(worker, NULL);
	return told;
}

static void
resume_database(struct client *client, struct pool_quota *quota)
{
	if (!quota->paused) {
		answer_error(client, "55000", gate == GATE_OPEN ?
		    "database is not paused" : "database is not paused by "
		    "itself, all are: RESUME without a name");
		return;
	}
	quota->paused = false;
	kick_pools(client->worker, quota);
	answer_done(client, "RESUME");
}

void
gate_resume(struct client *client, const struct command *command)
{
	struct pool_quota *quota;

	if (!find_database(client, command, &quota))
		return;
	if (quota != NULL)
		resume_database(client, quota);
	else if (gate == GATE_OPEN)
		answer_error(client, "55000",
		    "pooler is not paused/suspended");
	else if (!resume_all(client->worker))
		answer_no_memory(client);
	else
		answer_done(client, "RESUME");
}

void
console_pause_all(void)
{
	if (!pause_all())
		log_warning("already suspended/paused");
}

static void
resume_run(struct worker *worker, void *arg)
{
	(void)arg;
	if (gate != GATE_OPEN && !resume_all(worker))
		log_error("cannot resume: out of memory");
}

void
console_resume_all(void)
{
	if (!worker_post(process.worker[0], resume_run, NULL))
		log_error("cannot resume: out of memory");
}

/*
 * SUSPEND.
 */

/* Those that are logging in may go on: the console has to be reached. */
static bool
client_can_be_stopped(const struct client *client)
{
	return client->pool != NULL && client->state != CLIENT_WELCOME;
}

static void
stop_run(struct worker *worker, void *arg)
{
	(void)arg;
	if (!process.suspended)
		return;
	for (int state = 0; state < CLIENT_CLOSING; state++)
		list_each(node, &worker->clients[state]) {
			struct client *client =
			    container_of(node, struct client, node);
			if (client_can_be_stopped(client))
				stream_pause(&client->s, PAUSE_SUSPENDED);
		}
	list_each(node, &worker->servers[SERVER_ACTIVE])
		stream_pause(&container_of(node, struct server, node)->s,
		    PAUSE_SUSPENDED);
}

/* Has this client, or its server, not taken yet what it was sent? */
static bool
client_is_blocked(const struct client *client)
{
	return client_can_be_stopped(client) && (stream_is_blocked(&client->s)
	    || (client->server != NULL &&
	    stream_is_blocked(&client->server->s)));
}

/* Counts those that are still to be sent something; when the patience is over
 * they are closed. */
static void
flush_visit(struct worker *worker, struct gather_part *part)
{
	uint64_t limit_us = worker->setup->conf->o.suspend_timeout_us;
	bool too_late = limit_us > 0 && clock_us() >= suspended_us + limit_us;

	for (int state = 0; state < CLIENT_CLOSING; state++)
		list_each(node, &worker->clients[state]) {
			struct client *client =
			    container_of(node, struct client, node);
			if (!client_is_blocked(client))
				continue;
			if (too_late)
				buf_add(&part->out, &client->id,
				    sizeof(client->id));
			part->count++;
		}
	end_noted(worker, part, "suspend_timeout");
}

static void
flush_gathered(struct client *client, struct gather *gather)
{
	if (client == NULL)
		return;
	if (gate != GATE_SUSPENDED)
		answer_error(client, "57014", "ended by a RESUME");
	else if (gather_sum(gather) == 0)
		answer_done(client, console_of(client)->tag);
	else
		answer_look_again(client);
}

static void
look_flushed(struct client *client)
{
	look_at_workers(client, flush_visit, flush_gathered);
}

void
gate_suspend(struct client *client, const struct command *command)
{
	(void)command;
	pthread_mutex_lock(&gate_lock);
	bool open = gate == GATE_OPEN, told = false;
	if (open) {
		suspended_us = clock_us();
		gate_set(GATE_SUSPENDED);
		told = tell_workers(stop_run);
	}
	pthread_mutex_unlock(&gate_lock);
	if (told) {
		answer_when(client, "SUSPEND", NULL, look_flushed);
	} else if (open) {
		/* Some have stopped: they go on. */
		resume_all(client->worker);
		answer_no_memory(client);
	} else {
		answer_error(client, "55000", "already suspended/paused");
	}
}

/*
 * DISABLE and ENABLE: may clients log in?
 */

static void
gate_set_disabled(struct client *client, const struct command *command,
    bool disabled)
{
	struct pool_quota *quota;

	if (!find_database(client, command, &quota))
		return;
	quota->disabled = disabled;
	answer_done(client, command_name(command->verb));
}

void
gate_disable(struct client *client, const struct command *command)
{
	gate_set_disabled(client, command, true);
}

void
gate_enable(struct client *client, const struct command *command)
{
	gate_set_disabled(client, command, false);
}

/*
 * RECONNECT and WAIT_CLOSE.
 */

void
gate_reconnect(struct client *client, const struct command *command)
{
	struct pool_quota *quota;
	struct pool *pool = NULL;

	if (!find_database(client, command, &quota))
		return;
	retire_servers(quota);
	while ((pool = pool_next_of(pool, quota)) != NULL)
		pool->replaced = pool->epoch;
	workers_post(worker_end_replaced, NULL);
	answer_done(client, "RECONNECT");
}

static void
outdated_visit(struct worker *worker, struct gather_part *part)
{
	const struct pool_quota *quota = part->gather->quota;

	for (int state = 0; state < SERVER_GONE; state++)
		list_each(node, &worker->servers[state]) {
			const struct server *server =
			    container_of(node, struct server, node);
			if (gate_is_outdated(server) && (quota == NULL ||
			    server->pool->database_quota == quota))
				part->count++;
		}
}

static void
outdated_gathered(struct client *client, struct gather *gather)
{
	if (client == NULL)
		return;
	if (gather_sum(gather) == 0)
		answer_done(client, console_of(client)->tag);
	else
		answer_look_again(client);
}

static void
look_closed(struct client *client)
{
	look_at_workers(client, outdated_visit, outdated_gathered);
}

void
gate_wait_close(struct client *client, const struct command *command)
{
	struct pool_quota *quota;

	if (!find_database(client, command, &quota))
		return;
	answer_when(client, "WAIT_CLOSE", quota, look_closed);
}

/*
 * KILL and KILL_CLIENT.
 */

static void
kill_visit(struct worker *worker, struct gather_part *part)
{
	const struct pool_quota *quota = part->gather->quota;

	for (int state = 0; state < CLIENT_CLOSING; state++)
		list_each(node, &worker->clients[state]) {
			const struct client *client =
			    container_of(node, struct client, node);
			if (client->pool != NULL && (quota == NULL ||
			    client->pool->database_quota == quota))
				buf_add(&part->out, &client->id,
				    sizeof(client->id));
		}
	end_noted(worker, part, NULL);
}

static void
killed(struct client *client, struct gather *gather)
{
	if (client == NULL)
		return;
	if (gather_has_failed(gather))
		answer_no_memory(client);
	else
		answer_done(client, "KILL");
}

void
gate_kill(struct client *client, const struct command *command)
{
	struct pool_quota *quota;
	struct gather *gather;

	if (!find_database(client, command, &quota))
		return;
	gather = gather_create(client);
	if (gather == NULL) {
		answer_no_memory(client);
		return;
	}
	if (quota != NULL)
		pause_database(quota);
	else if (!pause_all())
		retire_servers(NULL);
	gather->visit = kill_visit;
	gather->done = killed;
	gather->quota = quota;
	gather_start(gather);
}

static void
kill_client_visit(struct worker *worker, struct gather_part *part)
{
	struct client *client =
	    worker_find_client(worker, part->gather->id);

	if (client == NULL || client->worker != worker)
		return;
	part->count = 1;
	client_end(client, END_KILLED, NULL);
}

static void
client_killed(struct client *client, struct gather *gather)
{
	if (client == NULL)
		return;
	if (gather_sum(gather) == 0)
		answer_error(client, "42704", "client not found");
	else
		answer_done(client, "KILL_CLIENT");
}

void
gate_kill_client(struct client *client, const struct command *command)
{
	struct gather *gather;
	uint64_t id;

	if (!span_parse_u64(command->arg, &id)) {
		answer_error(client, "22023",
		    "KILL_CLIENT takes an id of SHOW CLIENTS");
		return;
	}
	gather = gather_create(client);
	if (gather == NULL) {
		answer_no_memory(client);
		return;
	}
	gather->visit = kill_client_visit;
	gather->done = client_killed;
	gather->id = id;
	gather_start(gather);
}

/*
 * SHUTDOWN
 */

void
gate_shutdown(struct client *client, const struct command *command)
{
	enum leaving how;

	if (command->arg.at == NULL) {
		how = LEAVING_NOW;
	} else if (span_is_case(command->arg, "wait_for_servers")) {
		how = LEAVING_SERVERS;
	} else if (span_is_case(command->arg, "wait_for_clients")) {
		how = LEAVING_IDLE;
	} else {
		answer_error(client, "42601", "SHUTDOWN takes "
		    "WAIT_FOR_SERVERS, WAIT_FOR_CLIENTS or nothing");
		return;
	}
	/* Before the connection goes down with the rest. */
	answer_done(client, "SHUTDOWN");
	process.leave(how);
}
