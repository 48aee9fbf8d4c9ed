/*
 * CREATE, DROP and ALTER DATABASE.
 *
 * Tools that migrate or test make themselves a database, work in it over
 * another connection, and drop it again. Two things are in their way behind a
 * pooler. It has never heard of the new name: pool/created.c sees to that. And
 * Postgres drops, renames or copies a database only while nobody else is
 * connected to it, but a pooler's servers stay connected when their clients
 * have gone. So:
 *
 *   - a database that a client has created keeps no server beyond its last
 *     client (database_client_left);
 *   - a statement that needs a database for itself makes a step:
 *
 *	VACATING   every worker is asked to close its idle servers there,
 *	   |       whatever entry or user they are for; the client is paused,
 *	   |       its statement is held
 *	READY      all have done so: the statement is offered again
 *	   |
 *	PASSED     it is with Postgres, which waits up to 5 s for those that
 *	           are still leaving. Its tag, if it comes, says that it is done
 *
 *     Until it is over no server idles there: one that is given back is closed
 *     (target->vacated). Those in use stay; what Postgres thinks of that it
 *     says itself.
 *
 * A step lasts no longer than the link it began in. In a transaction block
 * such statements fail: nothing is done for them.
 */
#include "session/database.h"

#include <stdatomic.h>

#include "base/map.h"
#include "base/mem.h"
#include "pool/created.h"
#include "pool/hold.h"
#include "pool/target.h"
#include "session/client.h"
#include "session/hub.h"
#include "session/lookup.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/sqldatabase.h"
#include "wire/sqlscan.h"

enum step_state { STEP_VACATING, STEP_READY, STEP_PASSED };

struct database_step {
	enum step_state state;
	struct sqldatabase what;
	struct target *target;		/* which is to be free of sessions */
	struct vacating *vacating;	/* while VACATING */
};

/* The workers' errand; outlives a client that goes. */
struct vacating {
	struct loop_mail mail;		/* back to the client's worker */
	_Atomic unsigned left;		/* workers */
	struct target *target;
	struct worker *worker;
	uint64_t client_id;
};

MEM_TYPE(database_step_type, database_step);
MEM_TYPE(vacating_type, vacating);

/*
 * The errand.
 */

static void
vacating_done(struct loop *loop, struct loop_mail *mail)
{
	struct vacating *vacating =
	    container_of(mail, struct vacating, mail);
	struct client *client =
	    worker_find_client(vacating->worker, vacating->client_id);
	struct database_step *step =
	    client != NULL ? client->database_step : NULL;

	(void)loop;
	if (step != NULL && step->vacating == vacating) {
		step->state = STEP_READY;
		step->vacating = NULL;
		stream_resume(&client->s, PAUSE_DATABASE);
	}
	mem_delete(&vacating_type, vacating);
}

static void
vacating_count_down(struct vacating *vacating)
{
	if (--vacating->left > 0)
		return;
	vacating->mail.read = vacating_done;
	loop_post(vacating->worker->loop, &vacating->mail);
}

/* On each worker: what idles there and is its own. */
static void
vacate(struct worker *worker, void *arg)
{
	struct vacating *vacating = arg;
	struct pool *pool = NULL;

	list_each(node, &worker->servers[SERVER_IDLE]) {
		struct server *server =
		    container_of(node, struct server, node);
		if (server->pool->target == vacating->target &&
		    pool_remove_idle(server->pool, &server->place))
			server_close(server, "its database is wanted alone");
	}
	while ((pool = hold_next_pool(vacating->target, pool)) != NULL)
		hub_vacate(pool, worker);
	lookup_vacate(worker, vacating->target);
	vacating_count_down(vacating);
}

/* False: out of memory, nobody was asked. */
static bool
vacate_start(struct client *client, struct database_step *step)
{
	struct vacating *vacating = mem_new(&vacating_type);

	if (vacating == NULL)
		return false;
	vacating->left = process.worker_count;
	vacating->target = step->target;
	vacating->worker = client->worker;
	vacating->client_id = client->id;
	step->vacating = vacating;
	for (unsigned i = 0; i < process.worker_count; i++)
		if (!worker_post(process.worker[i], vacate, vacating))
			vacating_count_down(vacating);
	return true;
}

/*
 * The step.
 */

static struct conf *
conf_of(const struct client *client)
{
	return client->worker->setup->conf;
}

/* Which database has to be free of sessions for this? */
static struct span
step_needs(const struct database_step *step)
{
	return span_of(step->what.verb == DATABASE_CREATE ?
	    step->what.other : step->what.name);
}

static void
step_begin(struct client *client, const struct sqldatabase *what)
{
	struct database_step *step = mem_new(&database_step_type);

	/* Without memory for it Postgres is asked as things are. */
	if (step == NULL)
		return;
	step->what = *what;
	step->target = created_target(conf_of(client), client->pool,
	    step_needs(step));
	if (step->target == NULL) {
		mem_delete(&database_step_type, step);
		return;
	}
	/* Before anybody closes a server: else one may take its place. */
	step->target->vacated++;
	client->database_step = step;
	if (vacate_start(client, step))
		stream_pause(&client->s, PAUSE_DATABASE);
	else
		database_ended(client);
}

bool
database_may_pass(struct client *client, uint32_t effects, struct span sql)
{
	struct database_step *step = client->database_step;
	struct sqldatabase what;

	if (step == NULL) {
		if (effects & SQL_SEVERAL || client->in_transaction ||
		    client->begin != NULL || !sqldatabase_read(sql, &what))
			return true;
		step_begin(client, &what);
		return client->database_step == NULL;
	}
	if (step->state == STEP_READY)
		step->state = STEP_PASSED;
	return step->state == STEP_PASSED;
}

void
database_completed(struct client *client, struct span tag)
{
	const struct database_step *step = client->database_step;
	struct span name = span_of(step->what.name);
	struct span other = span_of(step->what.other);

	if (step->state != STEP_PASSED)
		return;
	switch (step->what.verb) {
	case DATABASE_CREATE:
		if (span_is(tag, "CREATE DATABASE"))
			created_add(conf_of(client), client->pool, name);
		break;
	case DATABASE_DROP:
		if (span_is(tag, "DROP DATABASE"))
			created_forget(conf_of(client), client->pool, name);
		break;
	case DATABASE_RENAME:
		if (span_is(tag, "ALTER DATABASE"))
			created_rename(conf_of(client), client->pool, name,
			    other);
		break;
	case DATABASE_MOVE:
		break;
	}
}

void
database_answered(struct client *client)
{
	if (client->database_step->state != STEP_VACATING)
		database_ended(client);
}

void
database_ended(struct client *client)
{
	struct database_step *step = client->database_step;

	if (step == NULL)
		return;
	client->database_step = NULL;
	step->target->vacated--;
	mem_delete(&database_step_type, step);
	stream_resume(&client->s, PAUSE_DATABASE);
}

/*
 * Servers that are not to idle.
 */

static bool
pool_is_deserted(const struct pool *pool)
{
	return pool->is_created && pool_clients(pool) == 0;
}

bool
database_is_left_alone(const struct pool *pool)
{
	return pool_is_deserted(pool) ||
	    atomic_load(&pool->target)->vacated > 0;
}

void
database_client_left(struct pool *pool)
{
	struct pool_server *place;

	/* At the end the servers are closed anyway, and no mail is read. */
	if (!pool_is_deserted(pool) || process.leaving == LEAVING_NOW)
		return;
	hub_retire(pool);
	while ((place = pool_pop_idle(pool)) != NULL)
		server_dismiss(place);
}

/* It is on the idle list before this is looked at. So either it is found here,
 * or by whoever makes its database one that keeps none. */
void
database_server_idles(struct server *server)
{
	struct pool *pool = server->pool;

	if (database_is_left_alone(pool) &&
	    pool_remove_idle(pool, &server->place))
		server_close(server, "its database keeps no idle servers");
}
