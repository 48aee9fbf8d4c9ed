/*
 * The migration lock of a pgsluice, from outside.
 *
 *   CONNECTING --login--> WAITING --answer--> HELD --connection ends--> LOST
 *        |                   |  \
 *        |                   |   +--> DIRECT    somebody else has answered
 *        +---- no, or lost --+------> FAILED
 *
 * All it takes is a connection with the startup option
 * pgsluice.migrate=command. pgsluice parks such a client at its first
 * statement until the lock is its own; then the statement runs, and its
 * answer is how we learn of it. The connection is the lock: it is kept, and
 * nothing more is asked on it.
 *
 * That statement also asks who has answered. pgsluice keeps pgsluice.migrate
 * to itself, a Postgres reached directly takes it for a parameter that it has
 * not heard of and gives it back. Another pooler may have swallowed all
 * options of the startup packet, and then it is not there either. So one more
 * option is sent, the application_name, which pgsluice does pass on: it must
 * have arrived. (In its usual place in the packet every pooler knows it; it
 * must not be there, not even from PGAPPNAME.)
 *
 * net/ask, which knows libpq too, is for the pooler's own questions: it lives
 * on a loop, drops what is idle, looks names up elsewhere, and keeps from
 * libpq what is in the files of whoever started us. Here it is the other way
 * round. The connection is one that somebody makes from a shell, with their
 * .pgpass, their service file and PG* variables, it must stay, and its notices
 * are what there is to read.
 */
#include "net/claim.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "net/ask.h"

#define CLAIM_MAGIC 0x636c6d21u
#define WORDS 64

#define NAME "pgsluice_migrate"
#define OPTIONS "-c pgsluice.migrate=command -c application_name=" NAME
#define QUESTION \
	"SELECT pg_catalog.current_setting('pgsluice.migrate', true)," \
	" pg_catalog.current_setting('application_name')"

/* A dead peer is noticed within 25 s, unless the URL says otherwise. */
static const char *const keepalives[][2] = {
	{ "keepalives_idle", "10" }, { "keepalives_interval", "5" },
	{ "keepalives_count", "3" }, { "tcp_user_timeout", "25000" },
	{ "client_encoding", "UTF8" }, { NULL, NULL },
};

struct claim {
	uint32_t magic;
	enum claim_state state;
	PGconn *conn;
	PGresult *result;		/* the answer, or an error */
	short events;
	void (*say)(void *arg, const char *line);
	void *arg;
	char where[256];
	char why[512];
	char sqlstate[6];
};

/* The connection's parameters, as PQconnectStartParams() wants them. */
struct words {
	const char *keyword[WORDS + 1], *value[WORDS + 1];
	unsigned count;
	struct buf options;		/* those given, and ours */
	bool failed;
};

MEM_TYPE(claim_type, claim);

/*
 * The URL
 */

static bool
is_libpq_keyword(const PQconninfoOption *known, struct span name)
{
	for (; known != NULL && known->keyword != NULL; known++)
		if (span_is(name, known->keyword))
			return true;
	return false;
}

/* "postgresql+psycopg2://", "postgis://", "jdbc:postgresql://"; what is
 * nothing of the kind is left for libpq to refuse. */
static bool
is_scheme(struct span scheme)
{
	return span_starts_case(scheme, "postg") ||
	    span_starts_case(scheme, "jdbc:postg");
}

/* Behind user, password and hosts, in which a "?" may be, too. */
static const char *
find_query(const char *authority)
{
	const char *slash = strchr(authority, '/');
	const char *at = strchr(authority, '@');

	if (at != NULL && (slash == NULL || at < slash))
		authority = at;
	return strchr(authority, '?');
}

static void
clean_query(const char *query, struct buf *ret, struct buf *left_out)
{
	PQconninfoOption *known = PQconndefaults();
	struct span rest = span_of(query), word, name;
	char sep = '?';

	while (span_next(&rest, '&', &word)) {
		const char *equals = memchr(word.at, '=', word.len);

		name = word;
		if (equals != NULL)
			name.len = (size_t)(equals - word.at);
		if (word.len == 0)
			continue;
		/* libpq's, though it is in no list: as JDBC has it. */
		if (!span_is(word, "ssl=true") &&
		    !is_libpq_keyword(known, name)) {
			buf_printf(left_out, "%s%.*s",
			    left_out->len > 0 ? ", " : "", SPAN_ARG(name));
			continue;
		}
		/* node-postgres: TLS, whoever it is. */
		if (span_is(word, "sslmode=no-verify"))
			word = SPAN("sslmode=require");
		buf_printf(ret, "%c%.*s", sep, SPAN_ARG(word));
		sep = '&';
	}
	PQconninfoFree(known);
}

void
claim_clean_url(const char *url, struct buf *ret, struct buf *left_out)
{
	const char *mark = strstr(url, "://"), *query;

	if (mark != NULL &&
	    is_scheme((struct span){ url, (size_t)(mark - url) })) {
		query = find_query(mark + 3);
		buf_add_text(ret, "postgresql");
		buf_add(ret, mark, query != NULL ? (size_t)(query - mark) :
		    strlen(mark));
		if (query != NULL)
			clean_query(query + 1, ret, left_out);
	} else {
		buf_add_text(ret, url);
	}
	buf_add(ret, "", 1);
	buf_add(left_out, "", 1);
}

/*
 * What is said
 */

/* As one line, and nothing in it that a terminal would obey. */
static void
copy_line(char *to, size_t size, const char *text)
{
	size_t len = 0;

	for (; *text != '\0' && len + 1 < size; text++)
		if ((unsigned char)*text > ' ' && *text != 0x7f)
			to[len++] = *text;
		else if (len > 0 && to[len - 1] != ' ')
			to[len++] = ' ';
	while (len > 0 && to[len - 1] == ' ')
		len--;
	to[len] = '\0';
}

static void
print_error(const PGresult *result, char *to, size_t size)
{
	static const int fields[] = {
		PG_DIAG_MESSAGE_PRIMARY, PG_DIAG_MESSAGE_DETAIL,
		PG_DIAG_MESSAGE_HINT,
	};
	struct buf text = { 0 };

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		const char *field = PQresultErrorField(result, fields[i]);

		if (field != NULL)
			buf_printf(&text, "%s%s", text.len > 0 ? ". " : "",
			    field);
	}
	buf_add(&text, "", 1);
	copy_line(to, size, text.failed || text.len == 1 ?
	    PQresultErrorMessage(result) : text.at);
	buf_finish(&text);
}

static void
keep_sqlstate(struct claim *claim, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	snprintf(claim->sqlstate, sizeof(claim->sqlstate), "%s",
	    state != NULL ? state : "");
}

/* What comes to a connection that is idle is a notice, be it FATAL. */
static void
on_notice(void *arg, const PGresult *result)
{
	struct claim *claim = arg;
	char line[512];

	print_error(result, line, sizeof(line));
	claim->say(claim->arg, line);
}

static enum claim_state
claim_end(struct claim *claim, enum claim_state state, const char *why)
{
	copy_line(claim->why, sizeof(claim->why), why);
	claim->state = state;
	PQfinish(claim->conn);
	claim->conn = NULL;
	return state;
}

/*
 * Connecting
 */

static void
add_word(struct words *words, const char *keyword, const char *value)
{
	if (words->count == WORDS) {
		words->failed = true;
		return;
	}
	words->keyword[words->count] = keyword;
	words->value[words->count++] = value;
}

/* The texts live until the next call at most: they are copied. */
static void
take_pair(void *arg, const char *keyword, const char *value)
{
	struct words *words = arg;
	char *name, *text;

	if (strcmp(keyword, "options") == 0) {
		buf_clear(&words->options);
		buf_printf(&words->options, "%s ", value);
		return;
	}
	if (strcmp(keyword, "application_name") == 0)
		return;
	name = mem_strdup(keyword);
	text = mem_strdup(value);
	if (name == NULL || text == NULL || words->count == WORDS) {
		mem_free(name);
		mem_free(text);
		words->failed = true;
		return;
	}
	add_word(words, name, text);
}

static bool
has_word(const struct words *words, const char *keyword)
{
	for (unsigned i = 0; i < words->count; i++)
		if (strcmp(words->keyword[i], keyword) == 0)
			return true;
	return false;
}

static PGconn *
connect_with(struct words *words)
{
	const char *name = getenv("PGAPPNAME");
	char *kept = name != NULL ? mem_strdup(name) : NULL;
	PGconn *conn;

	for (unsigned i = 0; keepalives[i][0] != NULL; i++)
		if (!has_word(words, keepalives[i][0]))
			add_word(words, keepalives[i][0], keepalives[i][1]);
	buf_add(&words->options, OPTIONS, sizeof(OPTIONS));
	add_word(words, "options", words->options.at);
	if (words->failed || words->options.failed ||
	    (name != NULL && kept == NULL)) {
		mem_free(kept);
		return NULL;
	}
	unsetenv("PGAPPNAME");
	conn = PQconnectStartParams(words->keyword, words->value, 0);
	if (kept != NULL)
		setenv("PGAPPNAME", kept, 1);
	mem_free(kept);
	return conn;
}

static void
words_finish(struct words *words, unsigned copied)
{
	for (unsigned i = 0; i < copied; i++) {
		char *value = (char *)(uintptr_t)words->value[i];

		mem_wipe(value, strlen(value));
		mem_free(value);
		mem_free((char *)(uintptr_t)words->keyword[i]);
	}
	buf_finish(&words->options);
}

static void
claim_connect(struct claim *claim, const char *url)
{
	struct words words = { 0 };
	const char *options = getenv("PGOPTIONS");
	char why[sizeof(claim->why)];
	unsigned copied;

	if (options != NULL)
		buf_printf(&words.options, "%s ", options);
	if (!ask_parse_conninfo(url, take_pair, &words, why, sizeof(why))) {
		claim_end(claim, CLAIM_FAILED, why);
		words_finish(&words, words.count);
		return;
	}
	copied = words.count;
	claim->conn = connect_with(&words);
	words_finish(&words, copied);
	if (claim->conn == NULL) {
		claim_end(claim, CLAIM_FAILED, "out of memory");
	} else if (PQstatus(claim->conn) == CONNECTION_BAD) {
		claim_end(claim, CLAIM_FAILED, PQerrorMessage(claim->conn));
	} else {
		PQsetNoticeReceiver(claim->conn, on_notice, claim);
		claim->events = POLLOUT;
	}
}

static void
tell_left_out(struct claim *claim, const char *left_out)
{
	char names[256], line[320];

	if (left_out[0] == '\0')
		return;
	copy_line(names, sizeof(names), left_out);
	snprintf(line, sizeof(line), "of the URL, libpq does not know, and "
	    "is not given: %s", names);
	claim->say(claim->arg, line);
}

struct claim *
claim_open(const char *url, void (*say)(void *arg, const char *line),
    void *arg)
{
	struct claim *claim = mem_new(&claim_type);
	struct buf clean = { 0 }, left_out = { 0 };

	if (claim == NULL)
		return NULL;
	claim->magic = CLAIM_MAGIC;
	claim->say = say;
	claim->arg = arg;
	claim_clean_url(url, &clean, &left_out);
	if (clean.failed || left_out.failed) {
		claim_end(claim, CLAIM_FAILED, "out of memory");
	} else {
		tell_left_out(claim, left_out.at);
		claim_connect(claim, clean.at);
	}
	if (clean.at != NULL)
		mem_wipe(clean.at, clean.len);
	buf_finish(&clean);
	buf_finish(&left_out);
	return claim;
}

/*
 * Steps
 */

static void
note_where(struct claim *claim)
{
	const char *host = PQhost(claim->conn);
	char line[sizeof(claim->where)];

	snprintf(line, sizeof(line), "database \"%s\" at %s:%s",
	    PQdb(claim->conn), host != NULL ? host : "", PQport(claim->conn));
	copy_line(claim->where, sizeof(claim->where), line);
}

/* Who has answered? */
static enum claim_state
claim_judge(struct claim *claim)
{
	const PGresult *result = claim->result;
	const char *name;

	if (PQresultStatus(result) != PGRES_TUPLES_OK ||
	    PQntuples(result) != 1 || PQnfields(result) != 2) {
		keep_sqlstate(claim, result);
		print_error(result, claim->why, sizeof(claim->why));
		return claim_end(claim, CLAIM_FAILED, claim->why);
	}
	/* application_name_add_host may have put something behind it. */
	name = PQgetvalue(result, 0, 1);
	if (PQgetvalue(result, 0, 0)[0] != '\0' ||
	    strncmp(name, NAME, sizeof(NAME) - 1) != 0)
		return claim_end(claim, CLAIM_DIRECT, "");
	claim->events = POLLIN;
	return claim->state = CLAIM_HELD;
}

static enum claim_state
waiting_step(struct claim *claim)
{
	int unsent = PQflush(claim->conn);
	bool is_broken = unsent < 0 || PQconsumeInput(claim->conn) == 0;

	/* Of a broken connection, too: its last words say why. */
	while (is_broken || !PQisBusy(claim->conn)) {
		PGresult *result = PQgetResult(claim->conn);

		if (result == NULL && claim->result == NULL)
			return claim_end(claim, CLAIM_FAILED,
			    PQerrorMessage(claim->conn));
		if (result == NULL)
			return claim_judge(claim);
		/* The first is the answer; what FATAL leaves behind is not. */
		if (claim->result == NULL)
			claim->result = result;
		else
			PQclear(result);
	}
	claim->events = (short)(unsent > 0 ? POLLIN | POLLOUT : POLLIN);
	return claim->state;
}

static enum claim_state
held_step(struct claim *claim)
{
	PGnotify *notify;

	if (PQconsumeInput(claim->conn) == 0 ||
	    PQstatus(claim->conn) == CONNECTION_BAD)
		return claim_end(claim, CLAIM_LOST,
		    PQerrorMessage(claim->conn));
	(void)PQisBusy(claim->conn);	/* notices are told in here */
	while ((notify = PQnotifies(claim->conn)) != NULL)
		PQfreemem(notify);
	return claim->state;
}

static enum claim_state
connecting_step(struct claim *claim)
{
	PostgresPollingStatusType status = PQconnectPoll(claim->conn);

	note_where(claim);
	switch (status) {
	case PGRES_POLLING_READING:
		claim->events = POLLIN;
		return claim->state;
	case PGRES_POLLING_WRITING:
		claim->events = POLLOUT;
		return claim->state;
	case PGRES_POLLING_OK:
		break;
	default:
		return claim_end(claim, CLAIM_FAILED,
		    PQerrorMessage(claim->conn));
	}
	claim->state = CLAIM_WAITING;
	PQsetnonblocking(claim->conn, 1);
	if (PQsendQuery(claim->conn, QUESTION) == 0)
		return claim_end(claim, CLAIM_FAILED,
		    PQerrorMessage(claim->conn));
	return waiting_step(claim);
}

enum claim_state
claim_step(struct claim *claim)
{
	check_magic(claim, CLAIM_MAGIC);
	switch (claim->state) {
	case CLAIM_CONNECTING:
		return connecting_step(claim);
	case CLAIM_WAITING:
		return waiting_step(claim);
	case CLAIM_HELD:
		return held_step(claim);
	case CLAIM_DIRECT:
	case CLAIM_FAILED:
	case CLAIM_LOST:
		break;
	}
	return claim->state;
}

void
claim_close(struct claim *claim)
{
	if (claim == NULL)
		return;
	check_magic(claim, CLAIM_MAGIC);
	PQclear(claim->result);
	PQfinish(claim->conn);
	mem_delete(&claim_type, claim);
}

int
claim_fd(const struct claim *claim)
{
	return claim->conn != NULL ? PQsocket(claim->conn) : -1;
}

short
claim_events(const struct claim *claim)
{
	return claim->events;
}

const char *
claim_where(const struct claim *claim)
{
	return claim->where;
}

const char *
claim_why(const struct claim *claim)
{
	return claim->why;
}

const char *
claim_sqlstate(const struct claim *claim)
{
	return claim->sqlstate;
}
