/*
 * Migrants: clients that run schema migrations.
 *
 * What a migration is, who may run one and when the app is held is decided in
 * migrate/; here is how a session goes along with it.
 *
 *   statement that gives a migrator away (migrate/detect)
 *      |
 *      |  migration_claim: another one is in
 *      +----> PARKED    its server goes back, its bytes stay where they are; a
 *      |                NOTICE tells whom it waits for
 *      v
 *   IN        the server that it has just now becomes its own: it is put aside
 *      |      of the pool, which may open another one; never lent again
 *      |
 *      |  DDL that others have to wait for
 *      +----> HELD      until no transaction of the app runs, or as the timer
 *      |                says (migration_tick)
 *      v
 *   GONE      the client has gone, or done nothing of the kind for a while: its
 *             server is retired. Only when Postgres has closed that connection,
 *             so that nothing of it runs and no lock of it is left, does the
 *             lock pass on
 *
 * A struct migrant belongs to its client until the two part from the server,
 * then to the server, until that is gone.
 */
#include "session/migrant.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "conf/conf_database.h"
#include "migrate/detect.h"
#include "migrate/lock.h"
#include "net/loop.h"
#include "pool/pool.h"
#include "pool/target.h"
#include "pool/vars.h"
#include "session/client.h"
#include "session/errand.h"
#include "session/link.h"
#include "session/relay.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/sqlscan.h"

/* How often one that waits looks again, beside being woken. */
#define LOOK_US 250000
/* One that has only looked at the books, and one that has written, is taken
 * for an ordinary client again after so long without another sign. */
#define LINGER_READING_US 5000000
#define LINGER_WRITING_US 30000000

struct migrant {
	struct migrator who;
	struct client *client;		/* NULL: only the server is left */
	struct worker *worker;
	struct loop_timer timer;
	uint64_t sign_us;		/* when it last did what migrators do,
					 * or a companion of its */
	uint64_t company_us;		/* when one was last at work; or 0 */
	bool waits;			/* PAUSE_MIGRATION */
	bool told;			/* the NOTICE */
	enum ending refusal;		/* for the statement at hand; or 0 */
	const char *error;		/* how it failed; NULL = it did not */
	struct errand *before;		/* runs for it; NULL = no */
};

MEM_TYPE(migrant_type, migrant);

static const struct conf_options *
migrant_options(const struct migrant *migrant)
{
	return &migrant->worker->setup->conf->o;
}

static unsigned
migrant_reserve(const struct migrant *migrant)
{
	return (unsigned)migrant_options(migrant)->migration_reserve;
}

static struct target *
client_target(const struct client *client)
{
	return atomic_load(&client->pool->target);
}

/* The database that it migrates: a RELOAD may have led its pool to another one
 * meanwhile. */
static struct target *
migrant_target(const struct migrant *migrant)
{
	return migration_target(migrant->who.migration);
}

/* The database's name, as Postgres knows it. */
static struct span
client_dbname(const struct client *client)
{
	const struct conf_database *db = client->pool->db;

	return span_of(db->dbname != NULL ? db->dbname :
	    client->pool->database);
}

void
migrant_woken(struct client *client)
{
	if (client->migrant == NULL)
		return;
	if (client->migrant->who.is_aborted)
		client_end(client, END_MIGRATION_ABORTED, NULL);
	else
		stream_resume(&client->s, PAUSE_MIGRATION);
}

/*
 * The operator's commands.
 */

static struct errand_about
migrant_about(const struct migrant *migrant, const struct pool *pool,
    const char *outcome)
{
	const struct conf_database *db = pool->db;

	return (struct errand_about){
		.database = db->dbname != NULL ? db->dbname : pool->database,
		.user = pool->user, .tool = migrant->who.tool->name,
		.host = db->host_count > 0 ? db->hosts[0] : "",
		.port = db->port, .outcome = outcome,
	};
}

static void
migrant_tell_before(struct migrant *migrant, enum migration_before how)
{
	struct migration_news news = { 0 };

	migrant->before = NULL;
	migration_before_ended(&migrant->who, how, &news);
	migrant_obey(migrant->worker, migrant_target(migrant), &news);
}

static void
migrant_before_ended(void *arg, bool good)
{
	migrant_tell_before(arg, good ? MIGRATION_BEFORE_DONE :
	    MIGRATION_BEFORE_FAILED);
}

/* A migration with DDL is over. */
static void
migrant_run_after(struct migrant *migrant, const struct pool *pool,
    const char *outcome)
{
	const char *line = migrant_options(migrant)->migration_after;
	struct errand_about about = migrant_about(migrant, pool, outcome);

	if (line[0] != '\0' && migrant->who.did_ddl &&
	    process.leaving < LEAVING_NOW)
		errand_start(migrant->worker, line, &about, NULL, NULL);
}

/*
 * Coming and going.
 */

static struct migration_limits
migrant_limits(const struct migrant *migrant)
{
	const struct conf_options *o = migrant_options(migrant);

	return (struct migration_limits){
		.hold_us = o->migration_hold_limit_us,
		.drain_us = o->migration_drain_timeout_us,
		.on_timeout = o->migration_on_drain_timeout == DRAIN_ABORT ?
		    MIGRATION_ABORT :
		    o->migration_on_drain_timeout == DRAIN_CANCEL ?
		    MIGRATION_CANCEL : MIGRATION_PROCEED,
		.holds = o->migration_lock == MIGRATION_LOCK_EXCLUSIVE &&
		    o->ddl_hold != DDL_HOLD_NONE,
	};
}

static void migrant_timer(struct loop_timer *timer);

static struct migrant *
migrant_create(struct client *client, const struct tool *tool)
{
	struct migrant *migrant = mem_new(&migrant_type);
	struct migrator *who;
	union stream_address peer;
	unsigned port;

	if (migrant == NULL)
		return NULL;
	migrant->client = client;
	migrant->worker = client->worker;
	loop_timer_init(&migrant->timer, migrant_timer);
	who = &migrant->who;
	who->tool = tool;
	who->worker = client->worker->index;
	who->client_id = client->id;
	stream_peer_address(&client->s, &peer);
	address_print(&peer, who->address, sizeof(who->address), &port);
	snprintf(who->database, sizeof(who->database), "%s",
	    client->pool->database);
	snprintf(who->user, sizeof(who->user), "%s", client_user(client));
	snprintf(who->application, sizeof(who->application), "%.*s",
	    SPAN_ARG(vars_get(client->vars, SPAN("application_name"))));
	client->migrant = migrant;
	return migrant;
}

/* It leaves the lock, from wherever it stands, and is freed. */
static void
migrant_destroy(struct migrant *migrant, const char *outcome,
    const char *error)
{
	struct worker *worker = migrant->worker;
	struct target *target = migrant_target(migrant);
	struct migration_news news = { 0 };

	loop_timer_clear(&migrant->timer);
	migration_leave(&migrant->who, outcome, error, &news);
	if (migrant->client != NULL)
		migrant->client->migrant = NULL;
	mem_delete(&migrant_type, migrant);
	if (process.leaving < LEAVING_NOW)
		migrant_obey(worker, target, &news);
}

/* The server that the client has just now is nobody else's any more. */
static void
migrant_adopt(struct migrant *migrant, struct server *server)
{
	server->migrant = migrant;
	server->uncounted = true;
	pool_put_aside(server->pool);
	server->pool->migrating++;
	worker_pool_shrunk(migrant->worker, server->pool);
	/* What the pool had one busy server less for. */
	migrant_look(migrant->worker, server->pool);
}

void
migrant_parted(struct client *client, struct server *server)
{
	struct migrant *migrant = server->migrant;
	struct migration_news news = { 0 };

	check(migrant->client == client);
	loop_timer_clear(&migrant->timer);
	stream_resume(&client->s, PAUSE_MIGRATION);
	if (migrant->before != NULL) {
		errand_forget(migrant->before);
		migrant_tell_before(migrant, MIGRATION_BEFORE_RUN);
	}
	if (migrant->who.is_aborted)
		migrant->error = "aborted";
	else if (server->status != 'I' || client->query_us != 0 ||
	    migrant->waits)
		migrant->error = "went away in the middle of it";
	client->migrant = NULL;
	migrant->client = NULL;
	/* The app is not made to wait for how it ends. */
	migration_settle(&migrant->who, &news);
	migrant_obey(migrant->worker, migrant_target(migrant), &news);
}

void
migrant_server_gone(struct server *server)
{
	struct migrant *migrant = server->migrant;

	pool_release_aside(server->pool);
	server->pool->migrating--;
	server->migrant = NULL;
	check(migrant->client == NULL);
	if (server->last_words != NULL)
		migrant->error = server->last_words;
	const char *outcome = migrant->error == NULL ? "done" : "failed";
	migrant_run_after(migrant, server->pool, outcome);
	migrant_destroy(migrant, outcome, migrant->error);
}

void
migrant_client_gone(struct client *client)
{
	struct migrant *migrant = client->migrant;

	if (migrant == NULL)
		return;
	migrant_destroy(migrant, "gone",
	    migrant->who.place == MIGRATOR_IN_LINE ?
	    "went away while it waited" : NULL);
}

void
migrant_client_refused(struct client *client, enum ending ending)
{
	struct migrant *migrant = client->migrant;

	if (migrant == NULL || client->server != NULL)
		return;
	migrant_destroy(migrant, "refused", ending_row(ending)->text);
	stream_resume(&client->s, PAUSE_MIGRATION);
}

/*
 * Waiting.
 */

static void
migrant_arm(struct migrant *migrant, uint64_t at_us)
{
	loop_timer_set(migrant->worker->loop, &migrant->timer, at_us);
}

/* One that waits looks then, or sooner. */
static void
migrant_arm_waiting(struct migrant *migrant, uint64_t at_us)
{
	uint64_t look_us = clock_us() + LOOK_US;

	migrant_arm(migrant, at_us != 0 && at_us < look_us ? at_us : look_us);
}

static bool
migrant_wait(struct migrant *migrant, uint64_t look_us)
{
	migrant->waits = true;
	stream_pause(&migrant->client->s, PAUSE_MIGRATION);
	migrant_arm_waiting(migrant, look_us);
	return false;
}

/* Whom it waits for, once. */
static void
migrant_tell_parked(struct migrant *migrant)
{
	char whom[256], text[384];

	if (migrant->told)
		return;
	migrant->told = true;
	migration_whom(migrant->who.migration, whom, sizeof(whom));
	snprintf(text, sizeof(text), "waiting for another migration of this "
	    "database to end: %s", whom);
	client_notice(migrant->client, "00000", text);
}

/* The statement that waits is answered with an error, and the client is no
 * migrator any more. */
static void
migrant_refuse(struct migrant *migrant, enum ending ending)
{
	struct client *client = migrant->client;
	struct migration_news news = { 0 };

	migrant->waits = false;
	if (client->server != NULL) {
		migrant->refusal = ending;
		migration_settle(&migrant->who, &news);
		migrant_obey(migrant->worker, migrant_target(migrant), &news);
	} else {
		client_end(client, ending, NULL);
	}
	if (client->state < CLIENT_CLOSING)
		stream_resume(&client->s, PAUSE_MIGRATION);
}

bool
migrant_cancelled(struct client *client)
{
	struct migrant *migrant = client->migrant;

	if (migrant == NULL || !migrant->waits)
		return false;
	migrant_refuse(migrant, END_WAIT_CANCELLED);
	return true;
}

static void
migrant_parked_timer(struct migrant *migrant)
{
	uint64_t limit_us = migrant_options(migrant)->migration_wait_timeout_us;

	if (limit_us != 0 && migration_waited_us(&migrant->who) >= limit_us) {
		migrant_refuse(migrant, END_MIGRATION_WAIT);
		return;
	}
	/* It is no client's fault that it does nothing meanwhile. */
	migrant->client->idle_us = clock_us();
	/* It may be let in as a companion by now. */
	if (migration_may_enter(&migrant->who, migrant_reserve(migrant)))
		stream_resume(&migrant->client->s, PAUSE_MIGRATION);
	migrant_arm(migrant, clock_us() + LOOK_US);
}

/* What it has its lock for may be done by another connection of its tool, for
 * which it waits. */
static void
migrant_keep_company(struct migrant *migrant)
{
	uint64_t us = migration_company_us(&migrant->who);

	if (us > migrant->company_us)
		migrant->company_us = us;
	if (migrant->who.is_firm && us > migrant->sign_us)
		migrant->sign_us = us;
}

/* One that is in and has no statement under way. */
static void
migrant_idle_timer(struct migrant *migrant)
{
	struct client *client = migrant->client;
	uint64_t limit_us = migrant_options(migrant)->migration_idle_timeout_us;
	uint64_t idle_us = migrant->who.idle_us;

	migrant_keep_company(migrant);
	if (migrant_may_be_silent(client))
		limit_us = 0;
	if (limit_us != 0 && idle_us != 0 &&
	    clock_us() >= idle_us + limit_us &&
	    clock_us() >= migrant->company_us + limit_us &&
	    migration_is_awaited(migrant->who.migration)) {
		client_end(client, END_MIGRATION_IDLE, NULL);
		return;
	}
	migrant_arm(migrant, clock_us() + 1000000);
	if (client->server != NULL && link_is_over(client))
		link_part(client);
	/* It was let in, and then its statement did not get to a server. */
	else if (client->server == NULL && client->state == CLIENT_IDLE &&
	    !relay_has_request(client))
		migrant_destroy(migrant, "gone", NULL);
}

static void
migrant_timer(struct loop_timer *timer)
{
	struct migrant *migrant = container_of(timer, struct migrant, timer);
	struct migration_limits limits = migrant_limits(migrant);
	struct migration_news news = { 0 };
	struct client *client = migrant->client;
	struct target *target = migrant_target(migrant);
	enum migration_answer answer;
	uint64_t next_us;

	if (migrant->who.place == MIGRATOR_IN_LINE) {
		migrant_parked_timer(migrant);
		return;
	}
	next_us = migration_tick(&migrant->who, &limits, &answer, &news);
	migrant_obey(migrant->worker, target, &news);
	if (answer == MIGRATION_REFUSE) {
		migrant_refuse(migrant, END_MIGRATION_DRAIN);
		return;
	}
	if (migrant->waits) {
		/* Its transaction is idle because we make it wait. */
		client->idle_us = clock_us();
		if (answer == MIGRATION_PASS)
			stream_resume(&client->s, PAUSE_MIGRATION);
		else
			migrant_look_at(migrant->worker, target);
	}
	if (migrant->waits)
		migrant_arm_waiting(migrant, next_us);
	else if (next_us != 0)
		migrant_arm(migrant, next_us);
	else
		migrant_idle_timer(migrant);
}

/*
 * Statements.
 */

const struct tool *
migrant_declared(const struct client *client)
{
	const struct conf_options *o = &client->worker->setup->conf->o;
	struct span application =
	    vars_get(client->vars, SPAN("application_name"));

	if (o->migration_lock == MIGRATION_LOCK_OFF)
		return NULL;
	if (client->migrates != NULL)
		return client->migrates;
	if (client->pool->db->migrate ||
	    conf_list_has(o->migration_users, span_of(client_user(client))) ||
	    conf_list_has(o->migration_users, span_of(client->pool->user)) ||
	    (application.len > 0 &&
	    conf_list_has(o->migration_applications, application)))
		return tool_of(TOOL_DECLARED);
	return application.len > 0 ? detect_application(application) : NULL;
}

bool
migrant_may_be_silent(const struct client *client)
{
	return client->migrates == tool_of(TOOL_COMMAND);
}

bool
migrant_is_asked(const struct client *client, uint32_t effects)
{
	return client->migrant != NULL || client->migrates != NULL ||
	    (effects & (SQL_MIGRATION | SQL_DDL)) != 0;
}

/* DDL of one who has not been told to be a migrator: of a companion, or of
 * anybody where ddl_hold = all. */
static const struct tool *
tool_of_ddl(struct client *client, struct migration *migration)
{
	struct migrator who = { .tool = tool_of(TOOL_DDL) };
	union stream_address peer;
	unsigned port;

	if (client->worker->setup->conf->o.ddl_hold == DDL_HOLD_ALL)
		return tool_of(TOOL_DDL);
	stream_peer_address(&client->s, &peer);
	address_print(&peer, who.address, sizeof(who.address), &port);
	snprintf(who.user, sizeof(who.user), "%s", client_user(client));
	snprintf(who.application, sizeof(who.application), "%.*s",
	    SPAN_ARG(vars_get(client->vars, SPAN("application_name"))));
	return migration_admits(migration, &who) ? tool_of(TOOL_DDL) : NULL;
}

/*
 * Does the statement make its client a migrator, or show that it still is one?
 * False: it is no business of ours.
 */
static bool
migrant_is_told(struct client *client, struct migration *migration,
    uint32_t effects, struct span sql, struct span bind)
{
	struct migrant *migrant = client->migrant;
	const struct tool *tool = client->migrates;
	enum detected detected = tool != NULL ? DETECTED_WRITING :
	    DETECTED_NOTHING;

	if (effects & SQL_MIGRATION) {
		const struct tool *seen = NULL;
		enum detected now = detect_statement(sql, bind,
		    client_dbname(client), &seen);
		if (now > detected) {
			detected = now;
			tool = seen;
		}
	}
	if (detected == DETECTED_NOTHING && effects & SQL_DDL) {
		tool = migrant != NULL ? migrant->who.tool :
		    tool_of_ddl(client, migration);
		if (tool != NULL)
			detected = DETECTED_WRITING;
	}
	if (detected == DETECTED_NOTHING)
		return migrant != NULL;
	if (migrant == NULL)
		migrant = migrant_create(client, tool);
	if (migrant == NULL)
		return false;
	migrant->sign_us = clock_us();
	if (detected == DETECTED_WRITING)
		migrant->who.is_firm = true;
	return true;
}

/* Does it enter, or wait? Without a server it gets one of its own later. */
static bool
migrant_enters(struct pass *pass, struct migrant *migrant)
{
	struct client *client = migrant->client;

	if (migrant->who.place != MIGRATOR_IN &&
	    migration_claim(migrant->who.migration, &migrant->who,
	    migrant_reserve(migrant)) == MIGRATION_PARK) {
		migrant_tell_parked(migrant);
		return migrant_wait(migrant, clock_us() + LOOK_US);
	}
	migrant->told = false;
	if (client->server != NULL && client->server->migrant == migrant)
		return true;
	if (client->server != NULL)
		migrant_adopt(migrant, client->server);
	migrant_arm(migrant, clock_us() + 1000000);
	return client->server == NULL || pass_put_watch(pass);
}

/* Has it been run, and well? False: it waits for that, or is refused. */
static bool
migrant_is_prepared(struct migrant *migrant)
{
	const char *line = migrant_options(migrant)->migration_before;
	struct errand_about about =
	    migrant_about(migrant, migrant->client->pool, NULL);
	enum migration_before before = line[0] == '\0' ?
	    MIGRATION_BEFORE_DONE : migration_before(&migrant->who);

	if (before == MIGRATION_BEFORE_RUN) {
		migrant->before = errand_start(migrant->worker, line, &about,
		    migrant_before_ended, migrant);
		if (migrant->before == NULL)
			migrant_tell_before(migrant, MIGRATION_BEFORE_FAILED);
	}
	if (before == MIGRATION_BEFORE_DONE)
		return true;
	if (before == MIGRATION_BEFORE_FAILED)
		migrant->refusal = END_MIGRATION_BEFORE;
	return before == MIGRATION_BEFORE_FAILED ? false :
	    migrant_wait(migrant, clock_us() + LOOK_US);
}

/* All that was asked before must have been answered: the end of a transaction
 * is seen by that. */
static bool
migrant_sends_ddl(struct pass *pass, struct migrant *migrant,
    struct span sql)
{
	struct migration_limits limits = migrant_limits(migrant);
	struct migration_news news = { 0 };
	enum migration_answer answer;
	enum migration_answer ticked;
	uint64_t next_us;

	if (pass_must_wait(pass->client))
		return false;
	if (pass->client->server->status == 'E')
		return true;		/* it will not run */
	answer = migration_ddl(&migrant->who, sql, &limits, &news);
	next_us = migration_tick(&migrant->who, &limits, &ticked, &news);
	migrant_obey(migrant->worker, migrant_target(migrant), &news);
	if (answer == MIGRATION_HOLD && ticked == MIGRATION_REFUSE) {
		migrant->refusal = END_MIGRATION_DRAIN;
		next_us = clock_us();
	}
	if (answer == MIGRATION_HOLD)
		return migrant_wait(migrant, next_us);
	if (next_us != 0)
		migrant_arm(migrant, next_us);
	return true;
}

static bool
migrant_blocks(const struct pass *pass, const struct frame *frame,
    uint32_t effects, struct span sql)
{
	if (!pass_is_whole(pass, frame))
		return true;		/* it may do anything */
	return (effects & SQL_BLOCKS) != 0 &&
	    ((effects & SQL_MIGRATION) == 0 || detect_does(sql, SQL_BLOCKS));
}

/* The statement at hand was refused while it waited. */
static bool
migrant_put_refusal(struct pass *pass, const struct frame *frame,
    struct migrant *migrant)
{
	enum ending ending = migrant->refusal;
	const struct ending_row *row = ending_row(ending);

	migrant->refusal = 0;
	if (pass->client->server == NULL)	/* it has none any more */
		return pass_end(pass, ending, NULL);
	if (migrant->who.place != MIGRATOR_IN)
		migrant_destroy(migrant, "refused", row->text);
	return frame->type == 'Q' ?
	    pass_refuse_query(pass, frame, row->sqlstate, row->text, NULL) :
	    pass_refuse_in_batch(pass, frame, row->sqlstate, row->text, NULL);
}

/* May it be sent now? */
static bool
migrant_sends(struct pass *pass, const struct frame *frame,
    struct migrant *migrant, uint32_t effects, struct span sql)
{
	struct client *client = pass->client;

	if (!migrant_enters(pass, migrant))
		return false;
	/* Before it has a server; and a Parse locks nothing (where it is not
	 * tracked, nothing is known of it later). */
	if (client->server == NULL ||
	    (frame->type == 'P' && client_tracks_statements(client)))
		return true;

	bool blocks = migrant_blocks(pass, frame, effects, sql);
	bool changes = blocks || (effects & SQL_DDL &&
	    ((effects & SQL_MIGRATION) == 0 || detect_does(sql, SQL_DDL)));
	if (changes && client->server->status != 'E' &&
	    !migrant_is_prepared(migrant))
		return false;
	if (blocks)
		return migrant_sends_ddl(pass, migrant, sql);
	if (effects & SQL_DDL)
		migration_count_ddl(&migrant->who);
	return true;
}

bool
migrant_takes(struct pass *pass, const struct frame *frame, uint32_t effects,
    struct span sql, struct span bind, bool *ret_go_on)
{
	struct client *client = pass->client;
	struct migrant *migrant = client->migrant;
	struct migration *migration = migrant != NULL ?
	    migrant->who.migration : migration_of(client_target(client));

	*ret_go_on = false;
	if (migration == NULL || (migrant == NULL &&
	    client->worker->setup->conf->o.migration_lock ==
	    MIGRATION_LOCK_OFF))
		return false;
	if (!migrant_is_told(client, migration, effects, sql, bind))
		return false;
	migrant = client->migrant;
	if (migrant->who.place == MIGRATOR_OUT)
		migrant->who.migration = migration;
	migrant->who.idle_us = 0;
	migrant->waits = false;
	if (migrant->refusal == 0 &&
	    migrant_sends(pass, frame, migrant, effects, sql))
		return false;
	if (migrant->refusal == 0)
		return true;
	*ret_go_on = migrant_put_refusal(pass, frame, migrant);
	return true;
}

void
migrant_query_ended(struct client *client)
{
	struct migrant *migrant = client->migrant;
	const struct server *server = client->server;
	struct migration_news news = { 0 };

	/* What has ended may be what was asked before the DDL. */
	if (server->owed.count > 0)
		return;
	migrant->who.idle_us = clock_us();
	if (server->status != 'I' || migrant->who.place != MIGRATOR_IN)
		return;
	migration_settle(&migrant->who, &news);
	migrant_obey(migrant->worker, migrant_target(migrant), &news);
}

bool
migrant_is_done(const struct client *client)
{
	const struct migrant *migrant = client->migrant;
	uint64_t linger_us = migrant->who.is_firm ? LINGER_WRITING_US :
	    LINGER_READING_US;

	if (migrant->who.tool == tool_of(TOOL_DDL))
		linger_us = 0;
	else if (process.leaving != STAYING)
		linger_us = LINGER_READING_US;
	/* Not while its statement is under way, nor before it was sent: the
	 * server may be about to get the client's parameters. */
	return client->migrates == NULL && !migrant->waits &&
	    migrant->who.idle_us != 0 &&
	    clock_us() >= migrant->sign_us + linger_us;
}
