/*
 * The gate between clients and servers: PAUSE and RESUME, DISABLE and ENABLE,
 * RECONNECT, KILL, WAIT_CLOSE, SHUTDOWN.
 *
 * A database that is paused lends no servers: clients may log in and wait.
 * Pausing also retires its servers, so that Postgres may be restarted when
 * PAUSE has answered: those that idle are closed now, and those in use when
 * they are given back, for they belong to an earlier epoch of their pool than
 * the present one (server_is_expired). RECONNECT is the same without the
 * pause, KILL the same without the patience.
 *
 * What a pool allows is shared by all workers, and set here at once. What is
 * done to sessions is done by their workers (gather.h).
 */
#include <string.h>

#include "admin/answer.h"
#include "admin/console.h"
#include "admin/gather.h"
#include "admin/rows.h"
#include "admin/show.h"
#include "base/log.h"
#include "conf/conf.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"

/* By PAUSE without a database, or SIGUSR1; for SHOW STATE. */
static _Atomic bool all_paused;

bool
gate_is_closed(void)
{
	return all_paused;
}

/*
 * Databases.
 */

static bool
is_console(struct span name)
{
	return span_is(name, "pgsluice") || span_is(name, "pgbouncer");
}

/*
 * What all pools of a database share. One that nobody has used yet has no
 * pool; it gets its first one, for the user that the entry forces or, for
 * want of another, the one who asks. NULL: there is no such database, or no
 * memory.
 */
static struct pool_quota *
quota_of(struct client *client, struct span name)
{
	struct conf *conf = client->worker->setup->conf;
	struct pool_quota *quota = pool_quota_find(name, false);
	const struct conf_database *db;
	struct pool *pool;

	if (quota != NULL)
		return quota;
	db = conf_find_database(conf, name);
	if (db == NULL)
		return NULL;
	pool = pool_get(conf, db, name, span_of(db->user != NULL ? db->user :
	    client_user(client)));
	return pool == NULL ? NULL : pool->database_quota;
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
		while ((place = pool_pop_idle(pool)) != NULL)
			server_dismiss(place);
	}
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

static void
pause_all(void)
{
	struct pool_quota *quota = NULL;

	all_paused = true;
	while ((quota = pool_quota_next(quota, false)) != NULL)
		quota->paused = true;
	retire_servers(NULL);
}

/* The databases of the file that nobody has used yet. */
static void
make_all_quotas(struct client *client)
{
	struct hash_node *node = NULL;
	const struct conf *conf = client->worker->setup->conf;

	while ((node = hash_walk(&conf->databases, node)) != NULL)
		quota_of(client, span_of(container_of(node,
		    struct conf_database, by_name)->name));
}

static bool
is_any_paused(const struct pool_quota *quota)
{
	struct pool_quota *other = NULL;

	if (quota != NULL)
		return quota->paused;
	while ((other = pool_quota_next(other, false)) != NULL)
		if (other->paused)
			return true;
	return all_paused;
}

static unsigned
count_servers(const struct pool_quota *quota)
{
	struct pool *pool = NULL;
	struct pool_counts counts;
	unsigned servers = 0;

	while ((pool = pool_next_of(pool, quota)) != NULL) {
		pool_count(pool, &counts);
		servers += counts.servers;
	}
	return servers;
}

static void
look_paused(struct client *client)
{
	const struct console *console = console_of(client);

	if (!is_any_paused(console->quota))
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
	if (quota == NULL ? all_paused : quota->paused) {
		answer_error(client, "55000", "already suspended/paused");
		return;
	}
	if (quota != NULL) {
		pause_database(quota);
	} else {
		make_all_quotas(client);
		pause_all();
	}
	answer_when(client, "PAUSE", quota, look_paused);
}

/* On a worker's thread. */
static void
resume(struct worker *worker, struct pool_quota *quota)
{
	struct pool_quota *other = NULL;
	struct pool *pool = NULL;

	if (quota != NULL) {
		quota->paused = false;
	} else {
		all_paused = false;
		while ((other = pool_quota_next(other, false)) != NULL)
			other->paused = false;
	}
	while ((pool = pool_next_of(pool, quota)) != NULL)
		worker_kick_pool(worker, pool);
}

void
gate_resume(struct client *client, const struct command *command)
{
	struct pool_quota *quota;

	if (!find_database(client, command, &quota))
		return;
	if (is_any_paused(quota)) {
		resume(client->worker, quota);
		answer_done(client, "RESUME");
	} else if (quota == NULL) {
		answer_error(client, "55000",
		    "pooler is not paused/suspended");
	} else {
		answer_error(client, "55000", "database is not paused");
	}
}

void
console_pause_all(void)
{
	pause_all();
}

static void
resume_run(struct worker *worker, void *arg)
{
	(void)arg;
	resume(worker, NULL);
}

void
console_resume_all(void)
{
	if (!worker_post(process.worker[0], resume_run, NULL))
		log_error("cannot resume: out of memory");
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

	if (!find_database(client, command, &quota))
		return;
	retire_servers(quota);
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
	struct gather *gather = gather_create(client);

	if (gather == NULL) {
		answer_no_memory(client);
		return;
	}
	gather->visit = outdated_visit;
	gather->done = outdated_gathered;
	gather->quota = console_of(client)->quota;
	gather_start(gather);
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

/* Ending one client may change the lists that others are on: first all are
 * noted, then ended one by one. */
static void
kill_visit(struct worker *worker, struct gather_part *part)
{
	const struct pool_quota *quota = part->gather->quota;
	uint64_t id;

	for (int state = 0; state < CLIENT_CLOSING; state++)
		list_each(node, &worker->clients[state]) {
			const struct client *client =
			    container_of(node, struct client, node);
			if (client->pool != NULL && (quota == NULL ||
			    client->pool->database_quota == quota))
				buf_add(&part->out, &client->id, sizeof(id));
		}
	for (size_t at = 0; at < part->out.len; at += sizeof(id)) {
		struct client *client;
		memcpy(&id, part->out.at + at, sizeof(id));
		client = worker_find_client(worker, id);
		if (client != NULL)
			client_end(client, END_KILLED, NULL);
	}
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
	if (quota != NULL) {
		pause_database(quota);
	} else {
		make_all_quotas(client);
		pause_all();
	}
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
