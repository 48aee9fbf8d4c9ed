/*
 * A client's way in: from the first byte to ReadyForQuery.
 *
 *   STARTUP   [SSLRequest, GSSENCRequest: at most one of each] then one
 *      |      StartupMessage, or a CancelRequest, or TLS at once
 *      |
 *   AUTH      the exchange of auth/login; the secret may have to be asked
 *      |      for (auth_query), keys may have to be derived (helper thread)
 *      |
 *   WELCOME   authenticated; waits until a server of its pool has told the
 *      |      parameters. Once they are known nobody waits here, unless the
 *      |      client brings some that no server has seen yet (params.c).
 *      v
 *   IDLE      AuthenticationOk, ParameterStatus, BackendKeyData and
 *             ReadyForQuery have left in one write
 *
 * Identity is set once, by login_verified(), from what the exchange proved.
 * Whether a database exists, whether limits are reached, is told only to those
 * who have proved who they are.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "auth/digest.h"
#include "auth/hba.h"
#include "auth/login.h"
#include "auth/users.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/tls.h"
#include "pool/created.h"
#include "pool/vars.h"
#include "session/cancel.h"
#include "session/client.h"
#include "session/credential.h"
#include "session/link.h"
#include "session/lookup.h"
#include "session/migrant.h"
#include "session/params.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"
#include "wire/startup.h"

/* SASL and password messages; a SCRAM message is at most 8 KiB. */
#define PASSWORD_MAX 8192
#define UNKNOWN_OPTIONS_MAX 8
/* Servers that may be lost while they take a client's parameters. */
#define TRIES_MAX 3

/* A computation on a helper thread that may outlive its client. */
struct login_job {
	struct loop_job job;
	struct client *client;		/* NULL: has gone meanwhile */
	struct login *login;
};

/* What only matters until the client is logged in. */
struct client_login {
	char *user, *database;
	char *origin;			/* through which a client has created
					 * the database; NULL = none has */
	struct login *exchange;
	struct login_job *job;
	struct lookup *lookup;		/* an auth_query under way */
	struct setup *setup;		/* a reference */
	bool asked_ssl, asked_gss;
	bool welcome_wanted;		/* counted in the pool */
	bool from_query;		/* the secret is auth_query's */
	bool refreshed;
	bool is_anybody;		/* auth_type is `any` */
	unsigned tries;			/* servers lost over the parameters */
	struct vars *brought;		/* they; NULL: not tried */
};

MEM_TYPE(client_login_type, client_login);
MEM_TYPE(login_job_type, login_job);

void
client_login_free(struct client *client)
{
	struct client_login *login = client->login;

	if (login == NULL)
		return;
	client->login = NULL;
	if (login->welcome_wanted)
		client->pool->welcome_wanted--;
	if (login->job != NULL)
		login->job->client = NULL;	/* the exchange goes with it */
	else
		login_destroy(login->exchange);
	lookup_cancel(login->lookup);
	vars_unref(login->brought);
	mem_free(login->user);
	mem_free(login->database);
	mem_free(login->origin);
	setup_unref(login->setup);
	mem_delete(&client_login_type, login);
}

const char *
client_user(const struct client *client)
{
	if (client->pool != NULL)
		return client->user->name;
	if (client->console_user != NULL)
		return client->console_user;
	return client->login != NULL && client->login->user != NULL ?
	    client->login->user : "(nouser)";
}

const char *
client_database(const struct client *client)
{
	if (client->pool != NULL)
		return client->pool->database;
	if (client->console_user != NULL)
		return "pgsluice";
	return client->login != NULL && client->login->database != NULL ?
	    client->login->database : "(nodb)";
}

static void
login_send(struct client *client, const struct buf *out)
{
	if (out->failed)
		client_end(client, END_NO_MEMORY, NULL);
	else if (out->len > 0)
		stream_send(&client->s, out->at, out->len);
}

static bool
is_console(const char *database)
{
	return strcmp(database, "pgsluice") == 0 ||
	    strcmp(database, "pgbouncer") == 0;
}

/* The end of the way: the pool, its limits, its welcome. */

static void
login_finish(struct client *client, const struct pool_welcome *welcome)
{
	struct buf *out = &client->worker->scratch;
	unsigned key_len = client->wants_long_key ? CLIENT_KEY : 4;
	char prefix[512];

	buf_clear(out);
	msg_auth(out, 0, SPAN_NONE);
	params_put(client, welcome, out);
	msg_key_data(out, client_cancel_pid(client), (struct span){
	    (const char *)client->key, key_len });
	msg_ready(out, 'I');
	if (client->login->setup->conf->o.log_connections)
		log_line(LOG_LEVEL_LOG, client_prefix(client, prefix,
		    sizeof(prefix)), "login attempt: db=%s user=%s tls=%s",
		    client->pool->database, client->user->name,
		    client->s.tls != NULL ? "yes" : "no");
	struct stat_block *stat =
	    &client->pool->shard[client->worker->index].stat;
	stat_add(stat, STAT_client_login_count, 1);
	if (client->state == CLIENT_WELCOME)
		stat_add(stat, STAT_wait_time, clock_us() - client->state_us);
	client_login_free(client);
	loop_timer_clear(&client->timer);
	if (client->state != CLIENT_IDLE)
		client_move(client, CLIENT_IDLE);
	client_arm(client);
	stream_resume(&client->s, PAUSE_ANSWER);
	login_send(client, out);
	client->sent_counted = client->s.sent;
	if (process.suspended)
		stream_pause(&client->s, PAUSE_SUSPENDED);
	if (client_should_leave(client))
		client_end(client, END_SHUTDOWN, NULL);
}

/*
 * Parameters that no server has seen yet: the client takes a server like any
 * that has a query. link_join() gives it the parameters, state.c asks what
 * became of them, and client_login_accepted() follows; or the server refuses
 * them (server_own_query_failed), or is lost.
 */
static void
login_try(struct client *client)
{
	struct client_login *login = client->login;

	if (login->tries++ >= TRIES_MAX) {
		client_end_trouble(client, END_SERVER_DOWN_LOGIN);
		return;
	}
	if (login->brought == NULL)
		login->brought = vars_ref(client->vars);
	stream_pause(&client->s, PAUSE_ANSWER);
	if (client->state != CLIENT_IDLE)
		client_move(client, CLIENT_IDLE);
	if (link_take(client))
		state_ask_params(client->server);
}

void
client_login_again(struct client *client)
{
	vars_unref(client->vars);
	client->vars = vars_ref(client->login->brought);
	login_try(client);
}

/* Takes the server away first: what the client is told may end it. */
static void
login_part(struct client *client)
{
	struct server *server = client->server;
	struct pool_welcome *welcome = pool_get_welcome(client->pool);

	link_part(client);
	if (client->state == CLIENT_IDLE)
		login_finish(client, welcome);
	pool_welcome_unref(welcome);
	if (server->state == SERVER_FREE)
		server_free_up_later(server);
}

bool
client_login_is_done(struct client *client)
{
	if (client->login == NULL || !params_are_known(client))
		return false;
	login_part(client);
	return true;
}

void
client_login_accepted(struct client *client)
{
	if (params_are_accepted(client, client->login->brought))
		login_part(client);
	else
		client_end(client, END_NO_MEMORY, NULL);
}

/* Goes on as soon as the pool's parameters are known. */
static void
login_welcome(struct client *client)
{
	struct pool *pool = client->pool;
	struct client_login *login = client->login;
	struct pool_welcome *welcome = pool_get_welcome(pool);

	if (welcome != NULL) {
		if (!params_settle(client, welcome))
			client_end(client, END_NO_MEMORY, NULL);
		else if (params_are_known(client))
			login_finish(client, welcome);
		else
			login_try(client);
		pool_welcome_unref(welcome);
		return;
	}
	if (!login->welcome_wanted) {
		login->welcome_wanted = true;
		pool->welcome_wanted++;
	}
	worker_open_servers(client->worker, pool);
	if (pool_is_hopeless(pool, clock_us())) {
		client_end_trouble(client, END_SERVER_DOWN_LOGIN);
		return;
	}
	if (client->state != CLIENT_WELCOME)
		client_move(client, CLIENT_WELCOME);
}

void
client_login_welcome(struct worker *worker, void *arg)
{
	struct pool *pool = arg;

	list_each(node, &worker->clients[CLIENT_WELCOME]) {
		struct client *client =
		    container_of(node, struct client, node);
		if (client->pool == pool)
			login_welcome(client);
	}
}

/* A copy of the name is told: the login is gone by then. */
static void
login_end_naming(struct client *client, enum ending ending, const char *before,
    const char *name, const char *after)
{
	char message[320];

	snprintf(message, sizeof(message), "%s%.200s%s", before, name, after);
	client_end_as(client, ending, ending_row(ending)->sqlstate, message);
}

static bool
login_within_limits(struct client *client)
{
	struct pool *pool = client->pool;
	const struct conf_options *o = &client->login->setup->conf->o;

	if (pool->database_quota->disabled) {
		login_end_naming(client, END_DISABLED, "database \"",
		    pool->database, "\" is disabled");
	} else if (process.logged_in > o->max_client_conn) {
		client_end(client, END_CLIENT_LIMIT, NULL);
	} else if (pool->database_quota->max_clients > 0 &&
	    pool->database_quota->clients > pool->database_quota->max_clients){
		client_end(client, END_DATABASE_LIMIT, NULL);
	} else if (client->user->max_clients > 0 &&
	    client->user->clients > client->user->max_clients) {
		client_end(client, END_USER_LIMIT, NULL);
	} else {
		return true;
	}
	return false;
}

static void
login_console(struct client *client)
{
	const struct conf_options *o = &client->login->setup->conf->o;
	struct span user = span_of(client->login->user);

	client->is_admin = client->is_admin ||
	    conf_list_has(o->admin_users, user);
	if (!client->is_admin && !conf_list_has(o->stats_users, user)) {
		client_end(client, END_NOT_ADMIN, NULL);
		return;
	}
	client->console_user = mem_strdup(client->login->user);
	client_login_free(client);
	loop_timer_clear(&client->timer);
	client_move(client, CLIENT_CONSOLE);
	process.console_enter(client);
}

/* By `any` it may have said any name: none of those is kept. */
static bool
login_find_pool(struct client *client, const struct conf_database *db)
{
	struct client_login *login = client->login;
	struct conf *conf = login->setup->conf;
	struct pool *pool = pool_get(conf, db, span_of(login->database),
	    span_of(db->user != NULL ? db->user : login->user));

	if (pool != NULL)
		client->user = db->user == NULL || login->is_anybody ?
		    pool->user_quota :
		    pool_user_get(conf, span_of(login->user));
	client->pool = client->user != NULL ? pool : NULL;
	return client->pool != NULL;
}

/* The client is who it says. Sets its identity, here and nowhere else. */
static void
login_verified(struct client *client)
{
	struct client_login *login = client->login;
	struct setup *setup = login->setup;
	const struct conf_database *db;
	struct secret credential = { .kind = SECRET_NONE };

	if (is_console(login->database)) {
		login_console(client);
		return;
	}
	db = created_find_entry(setup->conf, span_of(login->database),
	    span_of(login->user));
	if (db == NULL) {
		login_end_naming(client, END_NO_DATABASE,
		    "no such database: ", login->database, "");
		return;
	}
	if (!login_find_pool(client, db)) {
		client_end(client, END_NO_MEMORY, NULL);
		return;
	}
	client->migrates = migrant_declared(client);
	client->joined = true;
	process.logged_in++;
	pool_client_joined(client->pool, client->user, client->worker->index);
	if (!login_within_limits(client))
		return;
	/* What it proved may open servers, where nothing else was given. */
	if (db->user == NULL && login->exchange != NULL) {
		login_credential(login->exchange, &credential);
		if (credential.kind != SECRET_NONE)
			credential_keep(client->pool, &credential);
		secret_finish(&credential);
	}
	login_welcome(client);
}

static void login_act(struct client *client, enum login_step step,
    struct buf *out);

static void
login_job_run(struct loop_job *job)
{
	login_work(container_of(job, struct login_job, job)->login);
}

static void
login_job_done(struct loop_job *loop_job)
{
	struct login_job *job = container_of(loop_job, struct login_job, job);
	struct client *client = job->client;

	if (client == NULL) {
		login_destroy(job->login);
	} else {
		struct buf *out = &client->worker->scratch;
		client->login->job = NULL;
		stream_resume(&client->s, PAUSE_HELPER);
		buf_clear(out);
		login_act(client, login_worked(job->login, out), out);
	}
	mem_delete(&login_job_type, job);
}

static void
login_job_start(struct client *client)
{
	struct login_job *job = mem_new(&login_job_type);

	if (job == NULL) {
		client_end(client, END_NO_MEMORY, NULL);
		return;
	}
	job->client = client;
	job->login = client->login->exchange;
	job->job.work = login_job_run;
	job->job.done = login_job_done;
	client->login->job = job;
	stream_pause(&client->s, PAUSE_HELPER);
	loop_job_start(client->worker->loop, &job->job);
}

/* The secret that auth_query gave; NULL: no such user. */
static void
login_looked_up(void *arg, const struct secret *secret)
{
	struct client *client = arg;
	struct buf *out = &client->worker->scratch;

	client->login->from_query = true;
	stream_resume(&client->s, PAUSE_HELPER);
	buf_clear(out);
	login_act(client, login_secret(client->login->exchange, secret, out),
	    out);
}

/* The database whose users are asked for: one that a client has just created
 * has none of its own to be asked. */
static const char *
login_database(const struct client_login *login)
{
	return login->origin != NULL ? login->origin : login->database;
}

static void
login_find_secret(struct client *client)
{
	struct client_login *login = client->login;
	struct buf *out = &client->worker->scratch;
	const struct secret *secret =
	    users_find(login->setup->users, span_of(login->user));

	if (secret == NULL && lookup_is_configured(login->setup->conf,
	    login_database(login))) {
		stream_pause(&client->s, PAUSE_HELPER);
		lookup_start(client->worker, login_database(login),
		    login->user, login_looked_up, client, &login->lookup);
		return;
	}
	buf_clear(out);
	login_act(client, login_secret(login->exchange, secret, out), out);
}

static void
login_act(struct client *client, enum login_step step, struct buf *out)
{
	struct client_login *login = client->login;

	switch (step) {
	case LOGIN_SEND:
		login_send(client, out);
		return;
	case LOGIN_NEED_SECRET:
		login_find_secret(client);
		return;
	case LOGIN_NEED_WORK:
		login_job_start(client);
		return;
	case LOGIN_OK:
		login_send(client, out);
		if (client->state == CLIENT_AUTH)
			login_verified(client);
		return;
	case LOGIN_FAIL:
		break;
	}

	char prefix[512], message[320];
	if (login->from_query)
		users_cache_refresh(span_of(login_database(login)),
		    span_of(login->user));
	log_line(LOG_LEVEL_DEBUG, client_prefix(client, prefix,
	    sizeof(prefix)), "login failed: %s", login_why(login->exchange));
	snprintf(message, sizeof(message),
	    "password authentication failed for user \"%.200s\"", login->user);
	client_end_as(client, END_LOGIN_FAILED, "28P01", message);
}

static enum login_method
method_of(int auth_type)
{
	switch (auth_type) {
	case AUTH_TRUST:
		return LOGIN_TRUST;
	case AUTH_ANY:
		return LOGIN_ANY;
	case AUTH_PLAIN:
		return LOGIN_PLAIN;
	case AUTH_MD5:
		return LOGIN_MD5;
	case AUTH_CERT:
		return LOGIN_CERT;
	default:
		return LOGIN_SCRAM;
	}
}

static bool
peer_is_local(const struct client *client)
{
	union stream_address peer;

	stream_peer_address(&client->s, &peer);
	if (peer.any.sa_family == AF_UNIX)
		return true;
	if (peer.any.sa_family == AF_INET)
		return ntohl(peer.v4.sin_addr.s_addr) >> 24 == 127;
	return peer.any.sa_family == AF_INET6 &&
	    (IN6_IS_ADDR_LOOPBACK(&peer.v6.sin6_addr) ||
	    (IN6_IS_ADDR_V4MAPPED(&peer.v6.sin6_addr) &&
	    peer.v6.sin6_addr.s6_addr[12] == 127));
}

/*
 * How is this client to prove itself? Rules of the operator's own mean what
 * they say. By auth_type alone, trust is for peers on this machine, and a
 * password in clear text is asked for over TLS or on this machine only.
 */
static enum login_method
login_choose_method(struct client *client, const char **ret_map)
{
	struct client_login *login = client->login;
	union stream_address peer;
	struct hba_answer answer;

	*ret_map = NULL;
	if (login->setup->hba != NULL) {
		stream_peer_address(&client->s, &peer);
		bool local = peer.any.sa_family == AF_UNIX;
		hba_match(login->setup->hba, &(struct hba_question){
		    .address = local ? NULL : &peer.any,
		    .over_tls = client->s.tls != NULL,
		    .database = span_of(login->database),
		    .user = span_of(login->user) }, &answer);
		*ret_map = answer.map;
		return answer.method;
	}

	enum login_method method = method_of(login->setup->conf->o.auth_type);
	bool local = peer_is_local(client);
	if ((method == LOGIN_TRUST || method == LOGIN_ANY) && !local)
		return LOGIN_REJECT;
	if (method == LOGIN_PLAIN && !local && client->s.tls == NULL)
		return LOGIN_REJECT;
	return method;
}

/* The console over the unix socket, from pgsluice's own uid: no password. */
static bool
login_is_owner(const struct client *client)
{
	uint32_t uid;

	return is_console(client->login->database) &&
	    is_console(client->login->user) && stream_is_unix(&client->s) &&
	    stream_peer_uid(&client->s, &uid) && uid == geteuid();
}

/* The name that a certificate or the kernel has for this client, where the
 * method goes by that. */
static bool
login_system_name(const struct client *client, enum login_method method,
    char *name, size_t size)
{
	if (method == LOGIN_CERT)
		return stream_tls_peer_name(&client->s, name, size);
	return method == LOGIN_PEER &&
	    stream_peer_user(&client->s, name, size);
}

static void
login_begin_exchange(struct client *client)
{
	struct client_login *login = client->login;
	struct buf *out = &client->worker->scratch;
	char name[256] = "";
	const char *map;
	struct login_about about = {
		.method = login_choose_method(client, &map),
		.user = span_of(login->user),
		.over_tls = client->s.tls != NULL,
		.scram_iterations = login->setup->conf->o.scram_iterations,
	};

	login->origin = created_origin(login->setup->conf,
	    span_of(login->database), span_of(login->user));
	client_move(client, CLIENT_AUTH);
	if (login_is_owner(client)) {
		client->is_admin = true;
		login_verified(client);
		return;
	}
	if (about.over_tls)
		about.end_point_len = stream_tls_end_point(&client->s,
		    about.end_point);
	if (login_system_name(client, about.method, name, sizeof(name)) &&
	    hba_map_allows(login->setup->hba, map, span_of(name), about.user))
		about.proved_name = about.user;
	login->is_anybody = about.method == LOGIN_ANY;
	login->exchange = login_create(&about);
	if (login->exchange == NULL) {
		client_end(client, END_NO_MEMORY, NULL);
		return;
	}
	buf_clear(out);
	login_act(client, login_begin(login->exchange, out), out);
}

/*
 * The StartupMessage.
 */

static bool
startup_set(char **at, struct span value)
{
	mem_free(*at);
	*at = mem_strndup(value.at, value.len);
	return *at != NULL;
}

struct startup_unknown {
	struct span name[UNKNOWN_OPTIONS_MAX];
	unsigned count;
};

/* One parameter of the packet; false: the client has ended. */
static bool
startup_take(struct client *client, struct span name, struct span value,
    struct startup_unknown *unknown)
{
	struct client_login *login = client->login;
	bool replication;
	bool kept = true;

	if (span_is(name, "user")) {
		kept = startup_set(&login->user, value);
	} else if (span_is(name, "database")) {
		kept = startup_set(&login->database, value);
	} else if (span_is(name, "replication")) {
		if (!span_parse_bool(value, &replication) || replication) {
			client_end(client, END_NO_REPLICATION, NULL);
			return false;
		}
	} else if (name.len > 5 && memcmp(name.at, "_pq_.", 5) == 0) {
		if (unknown->count < UNKNOWN_OPTIONS_MAX)
			unknown->name[unknown->count++] = name;
	} else if (!span_is(name, "options")) {
		kept = params_take(client, &login->setup->conf->o, name,
		    value);
	}
	if (!kept)
		client_end(client, END_NO_MEMORY, NULL);
	return kept;
}

static bool
login_needs_tls(const struct client *client)
{
	return client->login->setup->conf->o.client_tls_sslmode >=
	    CONF_SSL_REQUIRE && client->s.tls == NULL &&
	    !stream_is_unix(&client->s);
}

static void
login_startup(struct client *client, const struct startup *startup)
{
	struct client_login *login = client->login;
	struct startup_unknown unknown = { .count = 0 };
	struct span params = startup->params;
	struct buf *out = &client->worker->scratch;
	struct span name, value;

	if (startup->major != 3) {
		client_end(client, END_NO_PROTOCOL, NULL);
		return;
	}
	if (login_needs_tls(client)) {
		client_end(client, END_TLS_REQUIRED, NULL);
		return;
	}
	if (!params_take_options(client, &login->setup->conf->o, params))
		return;
	while (startup_next_param(&params, &name, &value))
		if (!startup_take(client, name, value, &unknown))
			return;
	if (login->user == NULL || login->user[0] == '\0') {
		client_end(client, END_BAD_PARAMETER,
		    "no user name in the startup packet");
		return;
	}
	if (((login->database == NULL || login->database[0] == '\0') &&
	    !startup_set(&login->database, span_of(login->user))) ||
	    (login->setup->conf->o.application_name_add_host &&
	    !params_add_host(client, &login->setup->conf->o))) {
		client_end(client, END_NO_MEMORY, NULL);
		return;
	}
	client->wants_long_key = startup->minor >= 2;
	if (startup->minor > 2 || startup->minor == 1 || unknown.count > 0) {
		buf_clear(out);
		msg_negotiate(out, startup->minor >= 2 ? 2 : 0, unknown.name,
		    unknown.count);
		login_send(client, out);
	}
	if (!digest_random(client->key, CLIENT_KEY))
		client_end(client, END_NO_MEMORY, "no random bytes");
	else
		login_begin_exchange(client);
}

/*
 * Before it.
 */

void
client_login_opened(struct client *client)
{
	(void)client;			/* TLS is up; StartupMessage follows */
}

/* SSLRequest or GSSENCRequest: one of each, and nothing behind it. */
static size_t
login_encryption(struct client *client, bool ssl, size_t size, size_t len)
{
	struct client_login *login = client->login;
	bool *asked = ssl ? &login->asked_ssl : &login->asked_gss;
	bool use = ssl && login->setup->client_tls != NULL &&
	    !stream_is_unix(&client->s);

	if (*asked || client->s.tls != NULL || len != size) {
		client_end(client, END_PROTOCOL, "encryption request");
		return len;
	}
	*asked = true;
	stream_send(&client->s, use ? "S" : "N", 1);
	if (use && !stream_start_tls_accept(&client->s,
	    login->setup->client_tls, TLS_NEGOTIATED))
		client_end(client, END_NO_MEMORY, NULL);
	return size;
}

static bool
login_prepare(struct client *client)
{
	if (client->login != NULL)
		return true;
	client->login = mem_new(&client_login_type);
	if (client->login == NULL) {
		client_end(client, END_NO_MEMORY, NULL);
		return false;
	}
	client->login->setup = setup_ref(client->worker->setup);
	return true;
}

static size_t
login_first(struct client *client, const char *at, size_t len)
{
	struct startup startup;
	const char *why = NULL;
	size_t size = 0;

	switch (startup_peek(at, len, &startup, &size, &why)) {
	case FRAME_MORE:
		return 0;
	case FRAME_BAD:
		client_end(client, END_PROTOCOL, why);
		return len;
	case FRAME_OK:
		break;
	}
	switch (startup.kind) {
	case STARTUP_DIRECT_TLS:
		if (client->login->setup->client_tls == NULL ||
		    client->s.tls != NULL ||
		    !stream_start_tls_accept(&client->s,
		    client->login->setup->client_tls, TLS_DIRECT))
			client_end(client, END_PROTOCOL, "direct TLS");
		return 0;
	case STARTUP_SSL:
	case STARTUP_GSS:
		return login_encryption(client, startup.kind == STARTUP_SSL,
		    size, len);
	case STARTUP_CANCEL:
		cancel_request(client, startup.pid, startup.key);
		return len;
	case STARTUP_TERMINATE:
		client_end(client, END_CLIENT_CLOSED, NULL);
		return len;
	case STARTUP_LOGIN:
		login_startup(client, &startup);
		return size;
	}
	return len;
}

/* Password and SASL messages. */
static size_t
login_answer(struct client *client, const char *at, size_t len)
{
	struct buf *out = &client->worker->scratch;
	struct frame frame;
	enum frame_result result = frame_peek(at, len, &frame);

	if (result == FRAME_MORE)
		return 0;
	if (result == FRAME_BAD || frame.type != 'p') {
		client_end(client, END_PROTOCOL, "expected a password");
		return len;
	}
	if (frame.body > PASSWORD_MAX) {
		client_end(client, END_TOO_LARGE, "password message");
		return len;
	}
	if (len - FRAME_HEADER < frame.body)
		return 0;
	buf_clear(out);
	login_act(client, login_message(client->login->exchange,
	    (struct span){ at + FRAME_HEADER, frame.body }, out), out);
	return FRAME_HEADER + frame.body;
}

size_t
client_login_data(struct client *client, const char *at, size_t len)
{
	size_t pos = 0, used = 1;

	if (!login_prepare(client))
		return len;
	while (pos < len && used > 0 && !stream_is_paused(&client->s) &&
	    client->s.state == STREAM_OPEN) {
		if (client->state == CLIENT_STARTUP)
			used = login_first(client, at + pos, len - pos);
		else if (client->state == CLIENT_AUTH)
			used = login_answer(client, at + pos, len - pos);
		else
			break;
		pos += used;
	}
	if (client->state >= CLIENT_CLOSING)
		return len;
	/* One that pipelines requests behind its login has them held until
	 * it is in. */
	if (client->state == CLIENT_WELCOME)
		stream_pause(&client->s, PAUSE_ANSWER);
	else if (client->state == CLIENT_IDLE && pos < len) {
		used = relay_client(client, at + pos, len - pos);
		client_count_bytes(client, used);
		pos += used;
	}
	return pos;
}
