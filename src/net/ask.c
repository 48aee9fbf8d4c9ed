/*
 * One query over libpq, without waiting for it.
 *
 *   CLOSED --question--> RESOLVING --address--> CONNECTING --ok--> IDLE
 *      ^                     |                      |               | ^
 *      |                     |                      |       question| |answer
 *      |                     v                      v               v |
 *      +--- failed, timed out: all who wait are told ------------ ASKING
 *      +--- lost in mid-question: who asked it is told ---------- ASKING
 *      +--- idle for too long, closed by the server ------------- IDLE
 *
 * libpq tells which way its socket is to be watched, libevent watches it, and
 * a timer of the loop ends what takes too long. libpq would look a name up
 * itself, and wait for that; so it is given addresses (hostaddr), which come
 * from net/dns, and the name only for the certificate.
 *
 * libpq does what the server asks for: to a server that asks for the password
 * in clear it sends that. So it gets the password only where nobody else can
 * be that server: over TLS with a verified certificate, on this host, through
 * a unix socket. Where libpq can be told to do nothing but SCRAM, which does
 * not give the password away (from version 16), that is good enough, too.
 *
 * What libpq would fill in from the files of whoever started us (.pgpass,
 * ~/.postgresql) is kept from it.
 *
 * `answered` may ask again and may destroy the asker. Questions are started
 * at the end of a turn and never from within ask_query(), so nothing runs
 * under a caller's feet.
 */
#include "net/ask.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "net/dns.h"
#include "net/stream.h"

#define ASK_MAGIC 0x61736b21u
#define PARAMS 16

enum ask_state {
	ASK_CLOSED,
	ASK_RESOLVING,
	ASK_CONNECTING,
	ASK_IDLE,
	ASK_ASKING,
};

struct question {
	struct list node;		/* in ask.waiting */
	char *sql;
	unsigned param_count;
	char *params[PARAMS];
	void (*answered)(void *arg, const struct ask_answer *answer);
	void *arg;
};

/* A name being looked up; outlives the asker if need be. */
struct resolving {
	struct dns_request request;
	struct ask *ask;		/* NULL = destroyed meanwhile */
};

struct ask {
	uint32_t magic;
	enum ask_state state;
	struct loop *loop;
	struct ask_settings settings;	/* its texts are ours */
	struct list waiting;		/* questions */
	struct list failing;		/* questions being told so */
	struct question *current;	/* while ASKING */
	struct resolving *resolving;	/* while RESOLVING */
	PGconn *conn;
	PGresult *result;		/* of current: the first, or an error */
	struct event event;		/* the socket, one shot */
	struct loop_timer timer;	/* connect, query or idle, by state */
	struct loop_task pump;		/* starts what waits */
	unsigned upcalls;		/* `answered` calls under way */
	bool is_destroyed;		/* in one of them */
};

MEM_TYPE(ask_type, ask);
MEM_TYPE(question_type, question);
MEM_TYPE(resolving_type, resolving);

static void connecting_step(struct ask *ask);
static void asking_step(struct ask *ask);

/*
 * Answers
 */

static const char *
answer_cell(const struct ask_answer *answer, unsigned row, unsigned column)
{
	check(row < answer->rows && column < answer->columns);
	if (PQgetisnull(answer->private, (int)row, (int)column))
		return NULL;
	return PQgetvalue(answer->private, (int)row, (int)column);
}

static void
question_destroy(struct question *question)
{
	if (question == NULL)
		return;
	for (unsigned i = 0; i < question->param_count; i++)
		mem_free(question->params[i]);
	mem_free(question->sql);
	mem_delete(&question_type, question);
}

static void
text_free(const char *text)
{
	mem_free((char *)(uintptr_t)text);
}

static void
ask_free(struct ask *ask)
{
	struct ask_settings *s = &ask->settings;

	if (s->password != NULL)
		mem_wipe((char *)(uintptr_t)s->password,
		    strlen(s->password));
	text_free(s->host);
	text_free(s->dbname);
	text_free(s->user);
	text_free(s->password);
	text_free(s->sslmode);
	text_free(s->ca_file);
	text_free(s->cert_file);
	text_free(s->key_file);
	mem_delete(&ask_type, ask);
}

/* An upcall is over; whoever destroyed the asker in it left the last step
 * to the outermost one. */
static void
upcall_end(struct ask *ask)
{
	if (--ask->upcalls == 0 && ask->is_destroyed)
		ask_free(ask);
}

/* Hands the answer over and forgets the question. The asker may be gone
 * afterwards, unless there is an upcall around this one. */
static void
question_answer(struct ask *ask, struct question *question,
    const struct ask_answer *answer)
{
	ask->upcalls++;
	question->answered(question->arg, answer);
	question_destroy(question);
	upcall_end(ask);
}

/*
 * Everybody who waits is told why there is no answer; the asker may be gone
 * afterwards. Questions that the answers bring up are for the next try. The
 * list is the asker's, so that ask_destroy() from one of the answers gets to
 * the others, too, before it returns.
 */
static void
ask_fail_all(struct ask *ask, const char *why)
{
	struct ask_answer answer = {
		.result = ASK_UNREACHABLE, .cell = answer_cell, .error = why,
	};
	struct list *node;

	if (ask->current != NULL)
		list_append(&ask->failing, &ask->current->node);
	ask->current = NULL;
	while ((node = list_pop(&ask->waiting)) != NULL)
		list_append(&ask->failing, node);
	ask->upcalls++;
	while ((node = list_pop(&ask->failing)) != NULL)
		question_answer(ask, container_of(node, struct question,
		    node), &answer);
	upcall_end(ask);
}

/*
 * The connection
 */

static void
ask_disconnect(struct ask *ask)
{
	if (event_initialized(&ask->event))
		event_del(&ask->event);
	loop_timer_clear(&ask->timer);
	if (ask->resolving != NULL)
		ask->resolving->ask = NULL;
	ask->resolving = NULL;
	PQclear(ask->result);
	ask->result = NULL;
	/* Its goodbye is one send() that does not wait. */
	PQfinish(ask->conn);
	ask->conn = NULL;
	ask->state = ASK_CLOSED;
}

/* libpq's text, which may be of several lines, as one. */
static void
copy_error(char *to, size_t size, const char *error)
{
	size_t len = 0;

	for (; *error != '\0' && len + 1 < size; error++)
		if (*error != '\n' && *error != '\t')
			to[len++] = *error;
		else if (len > 0 && to[len - 1] != ' ')
			to[len++] = ' ';
	while (len > 0 && to[len - 1] == ' ')
		len--;
	to[len] = '\0';
}

/* Ends the connection and tells all who wait: there is no getting through,
 * or it takes too long. */
static void
ask_give_up(struct ask *ask, const char *why)
{
	char text[512];

	copy_error(text, sizeof(text), why);
	ask_disconnect(ask);
	ask_fail_all(ask, text);
}

/* Ends the connection, which worked until this question. Those who wait get
 * another one. */
static void
ask_lose(struct ask *ask, const char *why)
{
	struct ask_answer answer = {
		.result = ASK_UNREACHABLE, .cell = answer_cell,
	};
	struct question *question = ask->current;
	char text[512];

	check(question != NULL);
	copy_error(text, sizeof(text), why);
	answer.error = text;
	ask_disconnect(ask);
	ask->current = NULL;
	if (!list_is_empty(&ask->waiting))
		loop_defer(ask->loop, &ask->pump);
	question_answer(ask, question, &answer);
}

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct ask *ask = arg;

	(void)fd;
	(void)what;
	check_magic(ask, ASK_MAGIC);
	switch (ask->state) {
	case ASK_CONNECTING:
		connecting_step(ask);
		break;
	case ASK_ASKING:
		asking_step(ask);
		break;
	case ASK_IDLE:
		/* Nobody asked: a notice, a parameter, or the end. */
		if (PQconsumeInput(ask->conn) == 0)
			ask_disconnect(ask);
		else
			event_add(&ask->event, NULL);
		break;
	case ASK_CLOSED:
	case ASK_RESOLVING:
		break;
	}
}

/* One shot: libpq may close its socket and open another in any step. */
static bool
ask_watch(struct ask *ask, short what)
{
	if (event_initialized(&ask->event))
		event_del(&ask->event);
	return event_assign(&ask->event, loop_base(ask->loop),
	    PQsocket(ask->conn), what, on_socket, ask) == 0 &&
	    event_add(&ask->event, NULL) == 0;
}

static void
ask_set_timer(struct ask *ask, uint64_t after_us)
{
	if (after_us == 0)
		loop_timer_clear(&ask->timer);
	else
		loop_timer_set(ask->loop, &ask->timer, clock_now_us() +
		    after_us);
}

static void
on_timer(struct loop_timer *timer)
{
	struct ask *ask = container_of(timer, struct ask, timer);

	check_magic(ask, ASK_MAGIC);
	switch (ask->state) {
	case ASK_RESOLVING:
	case ASK_CONNECTING:
		ask_give_up(ask, "the connection took too long");
		break;
	case ASK_ASKING:
		ask_give_up(ask, "the query took too long");
		break;
	case ASK_IDLE:
	case ASK_CLOSED:
		ask_disconnect(ask);
		break;
	}
}

/* libpq's default is to write them to standard error. */
static void
on_notice(void *arg, const PGresult *result)
{
	(void)arg;
	(void)result;
}

static void
ask_become_idle(struct ask *ask)
{
	ask->state = ASK_IDLE;
	ask_set_timer(ask, ask->settings.idle_us);
	if (!ask_watch(ask, EV_READ))
		ask_disconnect(ask);
	if (!list_is_empty(&ask->waiting))
		loop_defer(ask->loop, &ask->pump);
}

static void
connecting_step(struct ask *ask)
{
	bool ok = true;

	switch (PQconnectPoll(ask->conn)) {
	case PGRES_POLLING_READING:
		ok = ask_watch(ask, EV_READ);
		break;
	case PGRES_POLLING_WRITING:
		ok = ask_watch(ask, EV_WRITE);
		break;
	case PGRES_POLLING_OK:
		PQsetnonblocking(ask->conn, 1);
		ask_become_idle(ask);
		break;
	default:
		ask_give_up(ask, PQerrorMessage(ask->conn));
		return;
	}
	if (!ok)
		ask_give_up(ask, "out of memory");
}

/*
 * Where to
 */

static bool
is_this_host(const union stream_address *address)
{
	const struct in6_addr *v6 = &address->v6.sin6_addr;

	switch (address->any.sa_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
	case AF_INET6:
		return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6)
		    && v6->s6_addr[12] == 127);
	default:
		return false;
	}
}

/* May the server at these addresses be given the password? */
static bool
password_is_safe(const struct ask *ask, const struct dns_answer *answer)
{
	const char *sslmode = ask->settings.sslmode;

	if (strcmp(sslmode, "verify-full") == 0 ||
	    strcmp(sslmode, "verify-ca") == 0)
		return true;
	for (unsigned i = 0; i < answer->count; i++)
		if (!is_this_host(&answer->address[i]))
			return false;
	return true;
}

/* libpq takes PGPASSWORD by itself. */
static bool
has_password(const struct ask *ask)
{
	return ask->settings.password != NULL || getenv("PGPASSWORD") != NULL;
}

/* "system" as a file: libpq knows the word from version 16 on. */
static const char *
ca_file_of(const char *ca_file)
{
	static const char *const bundles[] = {
		"/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem",
		"/etc/ssl/cert.pem",
	};
	const char *file = getenv("SSL_CERT_FILE");

	if (ca_file == NULL)
		return "/nonexistent/root.crt";
	if (strcmp(ca_file, "system") != 0 || PQlibVersion() >= 160000)
		return ca_file;
	if (file != NULL && access(file, R_OK) == 0)
		return file;
	for (size_t i = 0; i < sizeof(bundles) / sizeof(bundles[0]); i++)
		if (access(bundles[i], R_OK) == 0)
			return bundles[i];
	return "/nonexistent/root.crt";
}

/*
 * The lists that libpq tries one after the other: each address, and the name
 * again for each. A unix socket is named by its directory, without hostaddr.
 */
static bool
print_hosts(const struct ask *ask, const struct dns_answer *answer,
    struct buf *hosts, struct buf *addresses)
{
	const struct sockaddr_un *local = &answer->address[0].local;
	const char *path = local->sun_path, *slash;
	char text[64];

	if (local->sun_family == AF_UNIX) {
		if (path[0] == '\0') {
			path++;
			buf_add_text(hosts, "@");
		}
		slash = strrchr(path, '/');
		check(slash != NULL);
		buf_add(hosts, path, slash == path ? 1 :
		    (size_t)(slash - path));
	}
	for (unsigned i = 0; local->sun_family != AF_UNIX &&
	    i < answer->count; i++) {
		address_print(&answer->address[i], text, sizeof(text), NULL);
		buf_printf(hosts, "%s%s", i > 0 ? "," : "",
		    ask->settings.host);
		buf_printf(addresses, "%s%s", i > 0 ? "," : "", text);
	}
	buf_add(hosts, "", 1);
	buf_add(addresses, "", 1);
	return !hosts->failed && !addresses->failed;
}

static PGconn *
connect_start(const struct ask *ask, const char *hosts,
    const char *addresses, const char *require_auth)
{
	const struct ask_settings *s = &ask->settings;
	char port[16];
	const char *keywords[20], *values[20];
	unsigned count = 0;

	snprintf(port, sizeof(port), "%u", s->port);
#define SET(keyword, value) \
	(keywords[count] = (keyword), values[count++] = (value))
	SET("host", hosts);
	SET("hostaddr", addresses);
	SET("port", port);
	SET("dbname", s->dbname);
	SET("user", s->user);
	SET("password", s->password);
	SET("sslmode", s->sslmode);
	SET("sslrootcert", ca_file_of(s->ca_file));
	SET("sslcert", s->cert_file != NULL ? s->cert_file :
	    "/nonexistent/postgresql.crt");
	SET("sslkey", s->key_file != NULL ? s->key_file :
	    "/nonexistent/postgresql.key");
	SET("channel_binding", s->channel_binding);
	SET("passfile", "/nonexistent/pgpass");
	SET("application_name", "pgsluice");
	SET("client_encoding", "UTF8");
	SET("gssencmode", "disable");
	if (require_auth != NULL)
		SET("require_auth", require_auth);
	SET(NULL, NULL);
#undef SET
	/* 0: a dbname is a name, and no connection string. */
	return PQconnectStartParams(keywords, values, 0);
}

static void
ask_connect(struct ask *ask, const struct dns_answer *answer)
{
	struct buf hosts = { 0 }, addresses = { 0 };
	const char *require_auth = NULL;

	if (answer->count == 0) {
		ask_give_up(ask, answer->why);
		return;
	}
	if (has_password(ask) && !password_is_safe(ask, answer)) {
		if (PQlibVersion() < 160000) {
			ask_give_up(ask, "a password is not sent there: the "
			    "server is not on this host, and its certificate "
			    "is not verified (sslmode verify-full would do)");
			return;
		}
		require_auth = "scram-sha-256";
	}
	if (print_hosts(ask, answer, &hosts, &addresses))
		ask->conn = connect_start(ask, hosts.at, addresses.at,
		    require_auth);
	buf_finish(&hosts);
	buf_finish(&addresses);
	if (ask->conn == NULL) {
		ask_give_up(ask, "out of memory");
	} else if (PQstatus(ask->conn) == CONNECTION_BAD) {
		ask_give_up(ask, PQerrorMessage(ask->conn));
	} else {
		PQsetNoticeReceiver(ask->conn, on_notice, NULL);
		ask->state = ASK_CONNECTING;
		/* "Begin as if it had said PGRES_POLLING_WRITING." */
		if (!ask_watch(ask, EV_WRITE))
			ask_give_up(ask, "out of memory");
	}
}

static void
on_resolved(struct dns_request *request)
{
	struct resolving *resolving = container_of(request, struct resolving,
	    request);
	struct ask *ask = resolving->ask;

	if (ask != NULL) {
		check_magic(ask, ASK_MAGIC);
		ask->resolving = NULL;
		ask_connect(ask, &request->answer);
	}
	mem_delete(&resolving_type, resolving);
}

static void
ask_open(struct ask *ask)
{
	struct resolving *resolving = mem_new(&resolving_type);

	if (resolving == NULL) {
		ask_give_up(ask, "out of memory");
		return;
	}
	resolving->ask = ask;
	resolving->request.done = on_resolved;
	ask->resolving = resolving;
	ask->state = ASK_RESOLVING;
	ask_set_timer(ask, ask->settings.connect_timeout_us);
	if (dns_resolve(ask->loop, &resolving->request, ask->settings.host,
	    ask->settings.port))
		on_resolved(&resolving->request);
}

/*
 * Asking
 */

static bool
is_error(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK &&
	    status != PGRES_EMPTY_QUERY;
}

/* libpq would hand these out for ever. */
static bool
is_copy(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	return status == PGRES_COPY_IN || status == PGRES_COPY_OUT ||
	    status == PGRES_COPY_BOTH;
}

/* The question's end: ReadyForQuery has come. */
static void
ask_finish(struct ask *ask)
{
	struct question *question = ask->current;
	PGresult *result = ask->result;
	struct ask_answer answer = { .cell = answer_cell, .private = result };
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result,
	    PG_DIAG_MESSAGE_PRIMARY);

	if (is_error(result)) {
		answer.result = ASK_FAILED;
		answer.error = message != NULL ? message :
		    PQresultErrorMessage(result);
		snprintf(answer.sqlstate, sizeof(answer.sqlstate), "%s",
		    state != NULL ? state : "");
	} else {
		answer.result = ASK_ROWS;
		answer.rows = (unsigned)PQntuples(result);
		answer.columns = (unsigned)PQnfields(result);
	}
	/* First the state, then the upcall: it may ask again. */
	ask->current = NULL;
	ask->result = NULL;
	ask_become_idle(ask);
	question_answer(ask, question, &answer);
	PQclear(result);
}

static void
asking_step(struct ask *ask)
{
	PGresult *result;
	int unsent = PQflush(ask->conn);

	if (unsent < 0 || PQconsumeInput(ask->conn) == 0) {
		ask_lose(ask, PQerrorMessage(ask->conn));
		return;
	}
	while (!PQisBusy(ask->conn)) {
		result = PQgetResult(ask->conn);
		if (result == NULL && ask->result == NULL) {
			ask_lose(ask, PQerrorMessage(ask->conn));
			return;
		}
		if (result == NULL) {
			if (PQstatus(ask->conn) == CONNECTION_BAD)
				ask_lose(ask, PQerrorMessage(ask->conn));
			else
				ask_finish(ask);
			return;
		}
		if (is_copy(result)) {
			PQclear(result);
			ask_lose(ask, "COPY is not a question");
			return;
		}
		/* One result a statement; an error behind it counts. */
		if (ask->result == NULL || is_error(result)) {
			PQclear(ask->result);
			ask->result = result;
		} else {
			PQclear(result);
		}
	}
	if (!ask_watch(ask, (short)(unsent > 0 ? EV_READ | EV_WRITE :
	    EV_READ)))
		ask_lose(ask, "out of memory");
}

static void
ask_send(struct ask *ask)
{
	struct question *question = container_of(list_pop(&ask->waiting),
	    struct question, node);

	ask->current = question;
	ask->state = ASK_ASKING;
	ask_set_timer(ask, ask->settings.query_timeout_us);
	if (PQsendQueryParams(ask->conn, question->sql,
	    (int)question->param_count, NULL,
	    (const char *const *)question->params, NULL, NULL, 0) == 0)
		ask_lose(ask, PQerrorMessage(ask->conn));
	else
		asking_step(ask);
}

/* At the end of a turn: starts what waits, if nothing is under way. A server
 * that closed has been noticed by then, from the socket's event. */
static void
on_pump(struct loop_task *task)
{
	struct ask *ask = container_of(task, struct ask, pump);

	check_magic(ask, ASK_MAGIC);
	if (list_is_empty(&ask->waiting))
		return;
	if (ask->state == ASK_IDLE)
		ask_send(ask);
	else if (ask->state == ASK_CLOSED)
		ask_open(ask);
}

void
ask_query(struct ask *ask, const char *sql, unsigned param_count,
    const char *const *params,
    void (*answered)(void *arg, const struct ask_answer *answer), void *arg)
{
	struct ask_answer none = {
		.result = ASK_UNREACHABLE, .cell = answer_cell,
		.error = "out of memory",
	};
	struct question *question;
	bool ok;

	check_magic(ask, ASK_MAGIC);
	check(param_count <= PARAMS && !ask->is_destroyed);
	question = mem_new(&question_type);
	if (question == NULL) {
		answered(arg, &none);
		return;
	}
	question->answered = answered;
	question->arg = arg;
	question->sql = mem_strdup(sql);
	ok = question->sql != NULL;
	for (unsigned i = 0; i < param_count; i++) {
		question->params[i] = params[i] != NULL ?
		    mem_strdup(params[i]) : NULL;
		ok = ok && (params[i] == NULL || question->params[i] != NULL);
	}
	question->param_count = param_count;
	if (!ok) {
		question_destroy(question);
		answered(arg, &none);
		return;
	}
	list_append(&ask->waiting, &question->node);
	loop_defer(ask->loop, &ask->pump);
}

/*
 * The asker
 */

static bool
copy_text(const char **text)
{
	if (*text == NULL)
		return true;
	*text = mem_strdup(*text);
	return *text != NULL;
}

struct ask *
ask_create(struct loop *loop, const struct ask_settings *settings)
{
	struct ask *ask = mem_new(&ask_type);
	struct ask_settings *s;
	bool ok = true;

	if (ask == NULL)
		return NULL;
	ask->magic = ASK_MAGIC;
	ask->loop = loop;
	list_init(&ask->waiting);
	list_init(&ask->failing);
	loop_timer_init(&ask->timer, on_timer);
	loop_task_init(&ask->pump, on_pump);
	s = &ask->settings;
	*s = *settings;
	if (s->sslmode == NULL)
		s->sslmode = "prefer";
	if (s->host == NULL)
		s->host = "";
	/* No short cut: what is not copied must not be freed. */
	ok = copy_text(&s->host) && ok;
	ok = copy_text(&s->dbname) && ok;
	ok = copy_text(&s->user) && ok;
	ok = copy_text(&s->password) && ok;
	ok = copy_text(&s->sslmode) && ok;
	ok = copy_text(&s->ca_file) && ok;
	ok = copy_text(&s->cert_file) && ok;
	ok = copy_text(&s->key_file) && ok;
	if (!ok) {
		ask_free(ask);
		return NULL;
	}
	return ask;
}

void
ask_destroy(struct ask *ask)
{
	if (ask == NULL)
		return;
	check_magic(ask, ASK_MAGIC);
	check(!ask->is_destroyed);
	ask->is_destroyed = true;
	ask_disconnect(ask);
	loop_task_cancel(&ask->pump);
	ask_fail_all(ask, "closed");
}

bool
ask_is_at_rest(const struct ask *ask)
{
	return ask->current == NULL && list_is_empty(&ask->waiting) &&
	    list_is_empty(&ask->failing);
}

/*
 * Connection strings
 */

/*
 * libpq's complaints quote what they did not understand, which may be the
 * password. Only the name of a parameter is let through, and only if the
 * user and password ended where they seem to: a "?" in a password that should
 * have been written %3f makes a parameter of the rest of it.
 */
static void
say_conninfo_error(const char *text, const char *error, char *why,
    size_t why_size)
{
	static const char named[] = "invalid URI query parameter: ";
	const char *mark = strchr(text, '?');
	size_t len = strcspn(error, "\n\"");

	if (strncmp(error, named, sizeof(named) - 1) == 0 &&
	    mark != NULL && strchr(mark, '@') == NULL)
		len = strcspn(error, "\n");
	while (len > 0 && (error[len - 1] == ' ' || error[len - 1] == ':'))
		len--;
	snprintf(why, why_size, "not a connection string that libpq "
	    "understands: %.*s", (int)len, error);
}

bool
ask_parse_conninfo(const char *text,
    void (*each)(void *arg, const char *keyword, const char *value),
    void *arg, char *why, size_t why_size)
{
	char *error = NULL;
	PQconninfoOption *options = PQconninfoParse(text, &error);

	if (options == NULL) {
		say_conninfo_error(text, error != NULL ? error :
		    "out of memory", why, why_size);
		PQfreemem(error);
		return false;
	}
	for (PQconninfoOption *option = options; option->keyword != NULL;
	    option++)
		if (option->val != NULL)
			each(arg, option->keyword, option->val);
	PQconninfoFree(options);
	return true;
}
