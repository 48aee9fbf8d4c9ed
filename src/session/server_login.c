/*
 * A server's way in: from a name to the first ReadyForQuery.
 *
 *   RESOLVING   the host's name (off the loop)
 *   CONNECTING  one address after the other
 *   TLS_ASKED   SSLRequest is sent; one byte comes back, and nothing else may
 *   TLS         the handshake
 *   LOGIN       StartupMessage, authentication, ParameterStatus, key
 *   SETUP       connect_query, if there is one
 *
 * A server connection is opened with nothing that came from a client: startup
 * parameters survive even a DISCARD ALL, so one that a client chose would stay
 * with the connection for all who come later.
 *
 * What can be tried again and what cannot: a connection that was not made, a
 * server that says 57P03 (starting up) or 53300 (too many connections) has
 * run nothing, and may do better in a moment; any other error is the server's
 * answer to this database or user, and goes to those who wait.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "auth/login.h"
#include "auth/users.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/dns.h"
#include "net/tls.h"
#include "pool/created.h"
#include "pool/vars.h"
#include "session/client.h"
#include "session/credential.h"
#include "session/link.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"
#include "wire/startup.h"

/* One message of a login: an error's text, an authentication exchange. */
#define LOGIN_MESSAGE_MAX 65536

/* A name look-up that may outlive the server that wanted it. */
struct server_lookup {
	struct dns_request request;
	struct server *server;		/* NULL: has gone meanwhile */
};

/* A computation on a helper thread, likewise. */
struct server_work {
	struct loop_job job;
	struct server *server;		/* NULL: has gone meanwhile */
	struct server_login *login;
};

/* What only matters until the server is logged in. */
struct server_opening {
	struct setup *setup;		/* a reference */
	const struct conf_database *db;	/* in setup */
	struct tls_ctx *tls;		/* NULL = none; in setup */
	struct server_lookup *lookup;
	struct server_work *work;
	struct dns_answer answer;
	unsigned next_address;
	struct server_login *login;
	struct buf welcome;		/* ParameterStatus messages */
	struct secret secret;
	unsigned host;			/* of the pool's next_host */
	bool authenticated;
};

MEM_TYPE(server_opening_type, server_opening);
MEM_TYPE(server_lookup_type, server_lookup);
MEM_TYPE(server_work_type, server_work);

static void server_connect_next(struct server *server);

void
server_login_free(struct server *server)
{
	struct server_opening *opening = server->opening;

	if (opening == NULL)
		return;
	server->opening = NULL;
	if (opening->lookup != NULL)
		opening->lookup->server = NULL;
	if (opening->work != NULL)
		opening->work->server = NULL;	/* the login goes with it */
	else
		server_login_destroy(opening->login);
	secret_finish(&opening->secret);
	buf_finish(&opening->welcome);
	setup_unref(opening->setup);
	mem_delete(&server_opening_type, opening);
}

/* The pool turns to its next host, unless it has done so already. */
static void
server_leave_host(struct server *server)
{
	unsigned was = server->opening->host;

	atomic_compare_exchange_strong(&server->pool->next_host, &was,
	    was + 1);
}

/* The login has failed: the pool notes it, those who wait may be told. */
static void
server_login_failed(struct server *server, bool refused,
    const char *sqlstate, const char *message)
{
	static struct log_limit limit;
	uint32_t left_out;
	char prefix[320];

	if (log_limit_pass(&limit, 10, &left_out))
		log_line(LOG_LEVEL_WARNING, server_prefix(server, prefix,
		    sizeof(prefix)), "server login failed: %s: %s (%u more)",
		    sqlstate, message, left_out);
	stat_add(&server->pool->shard[server->worker->index].stat,
	    STAT_server_login_failed_count, 1);
	if (server->opening != NULL && !refused)
		server_leave_host(server);
	if (server->hub == NULL) {
		pool_open_failed(server->pool, refused, sqlstate, message);
		server->uncounted = true;
		worker_pool_failed(server->worker, server->pool);
	}
	server_close(server, "login failed");
}

void
server_login_timeout(struct server *server)
{
	server_login_failed(server, false, "08006", "connect timeout");
}

void
server_login_lost(struct server *server, enum stream_end why)
{
	char text[256];

	if (server->state == SERVER_CONNECTING) {
		stream_close(&server->s);
		server_connect_next(server);
		return;
	}
	if (why == STREAM_TLS_FAILED)
		snprintf(text, sizeof(text), "TLS: %s",
		    stream_tls_error(&server->s));
	else
		snprintf(text, sizeof(text), "%s",
		    "server closed the connection during login");
	/* A certificate does not get better by trying again. */
	server_login_failed(server, why == STREAM_TLS_FAILED, "08006", text);
}

/*
 * Connecting.
 */

static bool
address_is_local(const union stream_address *address)
{
	switch (address->any.sa_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return (ntohl(address->v4.sin_addr.s_addr) >> 24) == 127;
	case AF_INET6:
		return IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr);
	default:
		return false;
	}
}

static void
server_connect_next(struct server *server)
{
	struct server_opening *opening = server->opening;
	const struct dns_answer *answer = &opening->answer;

	while (opening->next_address < answer->count) {
		unsigned i = opening->next_address++;
		server->address = answer->address[i];
		server->address_len = answer->length[i];
		server->is_local = address_is_local(&server->address);
		if (stream_connect(&server->s, server->worker->loop,
		    &server->address.any, server->address_len)) {
			if (server->state != SERVER_CONNECTING)
				server_move(server, SERVER_CONNECTING);
			return;
		}
	}
	server_login_failed(server, false, "08006",
	    answer->count == 0 ? answer->why : "cannot connect to server");
}

static void
server_resolved(struct dns_request *request)
{
	struct server_lookup *lookup =
	    container_of(request, struct server_lookup, request);
	struct server *server = lookup->server;

	if (server != NULL) {
		server->opening->lookup = NULL;
		server->opening->answer = request->answer;
	}
	mem_delete(&server_lookup_type, lookup);
	if (server != NULL)
		server_connect_next(server);
}

/* The secret to log in with: the entry's own, what the pool's clients have
 * proved, or what the auth_file has for this user. */
static bool
server_find_secret(struct server *server, struct server_opening *opening)
{
	const struct conf_database *db = opening->db;
	struct span user = span_of(db->user != NULL ? db->user :
	    server->pool->user);
	const struct secret *secret;

	if (db->password != NULL) {
		opening->secret.kind = SECRET_PLAIN;
		opening->secret.text = mem_strdup(db->password);
		return opening->secret.text != NULL;
	}
	if (!credential_copy(server->pool, &opening->secret))
		return false;
	if (opening->secret.kind != SECRET_NONE)
		return true;
	secret = users_find(opening->setup->users, user);
	return secret == NULL || secret_copy(&opening->secret, secret);
}

static const struct conf_database *
server_find_database(struct setup *setup, struct pool *pool)
{
	const struct conf_database *db = created_find_entry(setup->conf,
	    span_of(pool->database), span_of(pool->user));

	return db != NULL ? db : pool->db;
}

void
server_login_start(struct server *server)
{
	struct server_opening *opening = mem_new(&server_opening_type);
	struct server_lookup *lookup = mem_new(&server_lookup_type);
	const struct conf_database *db;
	const char *host;
	uint64_t limit_us;

	server->opening = opening;
	if (opening != NULL)
		opening->setup = setup_ref(server->worker->setup);
	if (opening == NULL || lookup == NULL) {
		mem_delete(&server_lookup_type, lookup);
		server_login_failed(server, false, "53200", "out of memory");
		return;
	}
	db = server_find_database(opening->setup, server->pool);
	opening->db = db;
	limit_us = opening->setup->conf->o.server_connect_timeout_us;
	if (limit_us > 0)
		loop_timer_set(server->worker->loop, &server->timer,
		    clock_us() + limit_us);
	opening->host = server->pool->next_host;
	host = db->hosts[opening->host % db->host_count];
	if (db->load_balance_hosts)
		server->pool->next_host++;
	if (host[0] != '\0' && host[0] != '/' && host[0] != '@') {
		server->host = mem_strdup(host);
		opening->tls = setup_server_tls(opening->setup, db);
	}
	opening->lookup = lookup;
	lookup->server = server;
	lookup->request.done = server_resolved;
	if (!server_find_secret(server, opening)) {
		opening->lookup = NULL;
		mem_delete(&server_lookup_type, lookup);
		server_login_failed(server, false, "53200", "out of memory");
	} else if (dns_resolve(server->worker->loop, &lookup->request, host,
	    db->port)) {
		server_resolved(&lookup->request);
	}
}

/*
 * TLS and StartupMessage.
 */

static void
server_send_startup(struct server *server)
{
	const struct conf_database *db = server->opening->db;
	struct buf *out = &server->worker->scratch;
	const struct { const char *name, *value; } params[] = {
		{ "user", db->user != NULL ? db->user : server->pool->user },
		{ "database", db->dbname != NULL ? db->dbname :
		    server->pool->database },
		{ "client_encoding", db->client_encoding },
		{ "DateStyle", db->datestyle },
		{ "TimeZone", db->timezone },
		{ "application_name", db->application_name },
	};

	server_move(server, SERVER_LOGIN);
	buf_clear(out);
	size_t began = startup_begin(out, 3, 0);
	for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++)
		if (params[i].value != NULL)
			startup_param(out, span_of(params[i].name),
			    span_of(params[i].value));
	startup_end(out, began);
	if (out->failed)
		server_login_failed(server, false, "53200", "out of memory");
	else
		stream_send(&server->s, out->at, out->len);
}

static void
server_tune(struct server *server)
{
	const struct conf_options *o = &server->opening->setup->conf->o;
	struct stream_tuning tuning = worker_tuning(o);

	stream_tune(&server->s, &tuning);
}

void
server_login_opened(struct server *server)
{
	struct server_opening *opening = server->opening;

	if (server->state == SERVER_CONNECTING) {
		server_tune(server);
		if (opening->tls != NULL) {
			struct buf *out = &server->worker->scratch;
			buf_clear(out);
			startup_ssl_request(out);
			server_move(server, SERVER_TLS_ASKED);
			stream_send(&server->s, out->at, out->len);
			return;
		}
	}
	server_send_startup(server);
}

/* The answer to SSLRequest: one byte, and nothing behind it that could have
 * been put there by somebody in between. */
static void
server_tls_answered(struct server *server, char answer, size_t len)
{
	struct server_opening *opening = server->opening;

	if (len != 1) {
		server_login_failed(server, true, "08P01",
		    "bytes behind the answer to SSLRequest");
	} else if (answer == 'S') {
		server_move(server, SERVER_TLS);
		if (!stream_start_tls_connect(&server->s, opening->tls,
		    TLS_NEGOTIATED, server->host))
			server_login_failed(server, false, "53200",
			    "out of memory");
	} else if (answer == 'N' &&
	    opening->db->sslmode < CONF_SSL_REQUIRE) {
		server_send_startup(server);
	} else {
		server_login_failed(server, true, "08006",
		    "server does not support SSL, but SSL was required");
	}
}

/*
 * Authentication.
 */

static bool
server_login_begin(struct server *server)
{
	struct server_opening *opening = server->opening;
	const struct conf_database *db = opening->db;
	struct server_login_about about = {
		.user = span_of(db->user != NULL ? db->user :
		    server->pool->user),
		.secret = &opening->secret,
		.over_tls = server->s.tls != NULL,
		.tls_verified = stream_tls_is_verified(&server->s),
		.is_local = server->is_local,
		.binding_required = db->channel_binding == BINDING_REQUIRE,
	};

	if (about.over_tls && db->channel_binding != BINDING_DISABLE)
		about.end_point_len = stream_tls_end_point(&server->s,
		    about.end_point);
	opening->login = server_login_create(&about);
	return opening->login != NULL;
}

static void server_login_act(struct server *server, enum login_step step,
    struct buf *out);

static void
server_work_run(struct loop_job *job)
{
	server_login_work(container_of(job, struct server_work, job)->login);
}

static void
server_work_done(struct loop_job *job)
{
	struct server_work *work = container_of(job, struct server_work, job);
	struct server *server = work->server;

	if (server == NULL) {
		server_login_destroy(work->login);
	} else {
		struct buf *out = &server->worker->scratch;
		server->opening->work = NULL;
		stream_resume(&server->s, PAUSE_HELPER);
		buf_clear(out);
		server_login_act(server, server_login_worked(work->login, out),
		    out);
	}
	mem_delete(&server_work_type, work);
}

static void
server_work_start(struct server *server)
{
	struct server_work *work = mem_new(&server_work_type);

	if (work == NULL) {
		server_login_failed(server, false, "53200", "out of memory");
		return;
	}
	work->server = server;
	work->login = server->opening->login;
	work->job.work = server_work_run;
	work->job.done = server_work_done;
	server->opening->work = work;
	stream_pause(&server->s, PAUSE_HELPER);
	loop_job_start(server->worker->loop, &work->job);
}

static void
server_login_act(struct server *server, enum login_step step,
    struct buf *out)
{
	struct server_opening *opening = server->opening;

	switch (step) {
	case LOGIN_SEND:
		stream_send(&server->s, out->at, out->len);
		break;
	case LOGIN_NEED_WORK:
		server_work_start(server);
		break;
	case LOGIN_OK:
		opening->authenticated = true;
		break;
	case LOGIN_NEED_SECRET:
	case LOGIN_FAIL:
		server_login_failed(server, true, "28000",
		    server_login_why(opening->login));
		break;
	}
}

static void
server_login_auth(struct server *server, struct span body)
{
	struct buf *out = &server->worker->scratch;

	if (server->opening->login == NULL && !server_login_begin(server)) {
		server_login_failed(server, false, "53200", "out of memory");
		return;
	}
	buf_clear(out);
	server_login_act(server, server_login_message(server->opening->login,
	    body, out), out);
}

/*
 * What comes after authentication.
 */

static bool
server_login_parameter(struct server *server, struct span message,
    struct span bytes)
{
	struct body body = body_of(bytes);
	struct span name = body_text(&body);
	struct span value = body_text(&body);
	struct vars *vars;

	if (!body_is_done(&body))
		return false;
	buf_add_span(&server->opening->welcome, message);
	vars = vars_with(server->baseline, name, value);
	if (vars == NULL || server->opening->welcome.failed)
		return false;
	server->baseline = vars;
	return true;
}

static bool
server_login_key(struct server *server, struct span bytes)
{
	struct body body = body_of(bytes);

	server->pid = body_u32(&body);
	struct span key = body_rest(&body);
	if (body.bad || key.len < 4 || key.len > sizeof(server->key))
		return false;
	memcpy(server->key, key.at, key.len);
	server->key_len = (unsigned)key.len;
	return true;
}

static void
server_login_error(struct server *server, struct span bytes)
{
	struct error_fields fields;
	char sqlstate[6] = "08006";
	char message[256] = "server login failed";

	if (error_parse(bytes, &fields)) {
		if (fields.sqlstate.len == 5)
			memcpy(sqlstate, fields.sqlstate.at, 5);
		snprintf(message, sizeof(message), "%.*s",
		    SPAN_ARG(fields.message));
	}
	/* Starting up, or full: nothing was decided about this user. */
	bool refused = strcmp(sqlstate, "57P03") != 0 &&
	    strcmp(sqlstate, "53300") != 0;
	server_login_failed(server, refused, sqlstate, message);
}

static void
server_login_done(struct server *server)
{
	struct server_opening *opening = server->opening;
	struct pool *pool = server->pool;
	const char *query = opening->db->connect_query;
	bool first;
	char prefix[320];

	if (opening->setup->conf->o.log_connections)
		log_line(LOG_LEVEL_LOG, server_prefix(server, prefix,
		    sizeof(prefix)), "new connection to server (pid %u)",
		    server->pid);
	stat_add(&pool->shard[server->worker->index].stat,
	    STAT_server_login_count, 1);
	loop_timer_clear(&server->timer);
	first = pool_set_welcome(pool, &opening->welcome, server->baseline);
	if (server->hub == NULL)
		pool_opened(pool);
	if (first)
		workers_post(client_login_welcome, pool);
	server_move(server, SERVER_SETUP);
	if (query != NULL && query[0] != '\0') {
		server_login_free(server);
		if (!server_ask(server, query))
			server_close(server, "out of memory");
		return;
	}
	server_login_free(server);
	server_move(server, SERVER_FREE);
	server_free_up_later(server);
}

/* One whole message; false: the server makes no sense. */
static bool
server_login_take(struct server *server, const struct frame *frame,
    const char *at)
{
	struct server_opening *opening = server->opening;
	struct span body = { at + FRAME_HEADER, frame->body };

	switch (frame->type) {
	case 'R':
		if (opening->authenticated)
			return false;
		server_login_auth(server, body);
		return true;
	case 'E':
		server_login_error(server, body);
		return true;
	case 'N': case 'v':
		return true;
	case 'S':
		return opening->authenticated &&
		    server_login_parameter(server, (struct span){ at,
		    FRAME_HEADER + frame->body }, body);
	case 'K':
		return opening->authenticated &&
		    server_login_key(server, body);
	case 'Z':
		if (!opening->authenticated || frame->body != 1 ||
		    body.at[0] != 'I')
			return false;
		server_login_done(server);
		return true;
	default:
		return false;
	}
}

size_t
server_login_data(struct server *server, const char *at, size_t len)
{
	size_t pos = 0;
	struct frame frame;

	if (server->state == SERVER_TLS_ASKED) {
		server_tls_answered(server, at[0], len);
		return len;
	}
	while (server->state == SERVER_LOGIN &&
	    !stream_is_paused(&server->s)) {
		enum frame_result result =
		    frame_peek(at + pos, len - pos, &frame);
		if (result == FRAME_OK && frame.body > LOGIN_MESSAGE_MAX)
			result = FRAME_BAD;
		if (result == FRAME_OK &&
		    len - pos - FRAME_HEADER < frame.body)
			result = FRAME_MORE;
		if (result == FRAME_MORE)
			return pos;
		if (result == FRAME_BAD ||
		    !server_login_take(server, &frame, at + pos)) {
			server_login_failed(server, false, "08P01",
			    "server sent something unexpected at login");
			return len;
		}
		pos += FRAME_HEADER + frame.body;
	}
	return server->state >= SERVER_CLOSING ? len : pos;
}
