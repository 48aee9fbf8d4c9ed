/*
 * The ledger: what was promised about every row, and what is really there.
 *
 * A row's nonce is noted before it is sent. What becomes of it:
 *
 *	PENDING --- acknowledged -----------------------> OK       once
 *	        --- error, rollback, commit not sent ---> FAILED   never
 *	        --- connection gone after the commit ---> UNKNOWN  at most once
 *
 * The table has no unique index, so that a statement that ran twice shows.
 * It is read from Postgres itself, not through the pooler.
 */
#include "checker.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct entry {
	char outcome;		/* 0 not a row, 'P', 'K', 'F' or 'U' */
	uint8_t seen, op;
	uint16_t slot, user, database;
	const char *why;	/* what decided the outcome */
};

static struct entry *entries;
static size_t entries_cap;

/* Nonces of one run share their upper half, so that runs do not mix. */
static uint64_t
nonce_base(void)
{
	return (mix(checker.seed) & 0x7fffffff) << 32;
}

uint64_t
nonce_next(void)
{
	uint64_t n = checker.nonces++;

	entries = array_grow(entries, n, &entries_cap, sizeof(*entries));
	entries[n] = (struct entry){0};
	return nonce_base() + n;
}

void
ledger_note(uint64_t nonce, const struct client *c)
{
	entries[nonce - nonce_base()] = (struct entry){
		.outcome = 'P', .op = (uint8_t)c->plan.op,
		.slot = (uint16_t)c->slot,
		.user = (uint16_t)c->user, .database = (uint16_t)c->database
	};
}

void
ledger_settle(struct client *c, unsigned group, char outcome,
    const char *why)
{
	struct plan *p = &c->plan;
	size_t i;

	if (p->groups[group].settled)
		return;
	p->groups[group].settled = true;
	for (i = 0; i < p->row_count; i++)
		if (p->rows[i].group == group) {
			struct entry *e;

			e = &entries[p->rows[i].nonce - nonce_base()];
			e->outcome = outcome;
			e->why = why;
		}
}

/*
 * The plan is over. What was not acknowledged failed; but if the connection
 * was lost after the commit was sent, nobody can know.
 */
void
ledger_settle_rest(struct client *c, const char *why)
{
	struct plan *p = &c->plan;
	unsigned i;

	for (i = 0; i < p->group_count; i++)
		ledger_settle(c, i,
		    c->sent >= p->groups[i].commit_at ? 'U' : 'F', why);
}

/* ---- a plain connection to Postgres ----------------------------------- */

struct direct {
	int fd;
	struct bytes in;
	char error[200];
	/* called with each row's, or COPY line's, text */
	void (*on_row)(const char *text, size_t len, void *arg);
	void *arg;
};

/* Host beginning with '/' is a folder with a unix socket. */
int
connect_to(const char *host, int port, int flags)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	char service[16];
	int fd, one = 1, rc;

	if (host[0] == '/') {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
		snprintf(un.sun_path, sizeof(un.sun_path), "%s/.s.PGSQL.%d",
		    host, port);
		rc = connect(fd, (struct sockaddr *)&un, sizeof(un));
	} else {
		snprintf(service, sizeof(service), "%d", port);
		hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
		if (getaddrinfo(host, service, &hints, &found) != 0)
			return -1;
		fd = socket(found->ai_family,
		    SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		rc = connect(fd, found->ai_addr, found->ai_addrlen);
		freeaddrinfo(found);
	}
	if (rc < 0 && (flags & SOCK_NONBLOCK) == 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void
direct_send(struct direct *d, struct bytes *b)
{
	size_t at = 0;

	while (at < b->len) {
		ssize_t n = send(d->fd, b->at + at, b->len - at, MSG_NOSIGNAL);

		if (n <= 0) {
			fprintf(stderr, "checker: Postgres went away\n");
			exit(2);
		}
		at += (size_t)n;
	}
	bytes_free(b);
}

/* Takes what one message says; true at ReadyForQuery. */
static bool
direct_message(struct direct *d, char type, const char *body, size_t len)
{
	struct cursor cur = { body, body + len, false };
	uint32_t size;

	if (type == 'E')
		snprintf(d->error, sizeof(d->error), "%s %s",
		    error_field(body, len, 'C'), error_field(body, len, 'M'));
	if (type == 'd' && d->on_row != NULL)
		d->on_row(body, len, d->arg);
	if (type == 'D' && d->on_row != NULL) {
		cursor_u16(&cur);
		size = cursor_u32(&cur);
		if (size == UINT32_MAX)
			size = 0;
		d->on_row(cursor_bytes(&cur, size), size, d->arg);
	}
	if (type == 'R' && get_u32(body) != 0)
		snprintf(d->error, sizeof(d->error), "the direct port must "
		    "let the checker in without a password");
	return type == 'Z' || (type == 'R' && get_u32(body) != 0);
}

static void
direct_until_ready(struct direct *d)
{
	static char space[65536];
	bool ready = false;

	d->error[0] = '\0';
	while (!ready) {
		size_t at = 0;
		ssize_t n = recv(d->fd, space, sizeof(space), 0);

		if (n <= 0) {
			if (d->error[0] == '\0')
				snprintf(d->error, sizeof(d->error), "EOF");
			return;
		}
		bytes_add(&d->in, space, (size_t)n);
		while (d->in.len - at >= 5) {
			uint32_t len = get_u32(d->in.at + at + 1);

			if (d->in.len - at < len + 1)
				break;
			ready = direct_message(d, d->in.at[at],
			    d->in.at + at + 5, len - 4) || ready;
			at += len + 1;
		}
		bytes_drop_front(&d->in, at);
	}
}

/* Runs it; an error whose code is not in `allowed` ends the program. */
static void
direct_query(struct direct *d, const char *allowed, const char *text)
{
	struct bytes out = {0};
	size_t start = message_begin(&out, 'Q');

	put_text(&out, text);
	message_end(&out, start);
	direct_send(d, &out);
	direct_until_ready(d);
	if (d->error[0] != '\0' && (allowed == NULL ||
	    strncmp(d->error, allowed, 5) != 0)) {
		fprintf(stderr, "checker: %s: %s\n", text, d->error);
		exit(2);
	}
}

static void
direct_open(struct direct *d, const char *database)
{
	struct bytes out = {0};
	uint32_t len;

	*d = (struct direct){0};
	d->fd = connect_to(checker.direct_host, checker.direct_port, 0);
	if (d->fd < 0) {
		fprintf(stderr, "checker: no Postgres at %s port %d\n",
		    checker.direct_host, checker.direct_port);
		exit(2);
	}
	put_u32(&out, 0);
	put_u32(&out, 196608);
	put_text(&out, "user");
	put_text(&out, checker.admin);
	put_text(&out, "database");
	put_text(&out, database);
	bytes_add(&out, "", 1);
	len = (uint32_t)out.len;
	out.len = 0;
	put_u32(&out, len);
	out.len = len;
	direct_send(d, &out);
	direct_until_ready(d);
	if (d->error[0] != '\0') {
		fprintf(stderr, "checker: database %s as %s: %s\n", database,
		    checker.admin, d->error);
		exit(2);
	}
}

static void
direct_close(struct direct *d)
{
	close(d->fd);
	bytes_free(&d->in);
}

/* ---- before ----------------------------------------------------------- */

static const char tables[] =
"SET client_min_messages = error;"
"CREATE TABLE IF NOT EXISTS public.ledger (nonce int8,"
"    who name DEFAULT session_user, db name DEFAULT current_database());"
"GRANT SELECT, INSERT ON public.ledger TO PUBLIC;"
"DO $$BEGIN FOR i IN 0..3 LOOP"
"    EXECUTE format('CREATE SCHEMA IF NOT EXISTS s%s', i);"
"    EXECUTE format('GRANT USAGE ON SCHEMA s%s TO PUBLIC', i);"
"    EXECUTE format('CREATE TABLE IF NOT EXISTS s%s.whoami AS "
"        SELECT ''s%s''::text AS name', i, i);"
"    EXECUTE format('GRANT SELECT ON s%s.whoami TO PUBLIC', i);"
"END LOOP; END$$";

static void
setup(void)
{
	struct direct d;
	char text[80];
	unsigned i;

	direct_open(&d, "postgres");
	for (i = 0; i < checker.users; i++) {
		snprintf(text, sizeof(text), "CREATE ROLE u%u LOGIN", i);
		direct_query(&d, "42710", text);
	}
	for (i = 0; i < checker.databases; i++) {
		snprintf(text, sizeof(text), "CREATE DATABASE d%u", i);
		direct_query(&d, "42P04", text);
	}
	direct_close(&d);
	for (i = 0; i < checker.databases; i++) {
		snprintf(text, sizeof(text), "d%u", i);
		direct_open(&d, text);
		direct_query(&d, NULL, tables);
		direct_close(&d);
	}
}

static void
keep_text(const char *text, size_t len, void *arg)
{
	snprintf(arg, NAME_SIZE, "%.*s", (int)len, text);
}

/* Users and databases if asked for, an empty ledger in any case. */
void
ledger_prepare(void)
{
	struct direct d;
	char name[16];
	unsigned i;

	if (checker.setup)
		setup();
	for (i = 0; i < checker.databases; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		direct_open(&d, name);
		direct_query(&d, NULL, "TRUNCATE public.ledger");
		d.on_row = keep_text;
		d.arg = checker.zone;
		direct_query(&d, NULL, "SHOW TimeZone");
		d.arg = checker.style;
		direct_query(&d, NULL, "SHOW DateStyle");
		direct_close(&d);
	}
}

/* ---- after ------------------------------------------------------------ */

static uint64_t outcomes[256], rows_read;
static unsigned complaints;

static void
complain(const char *what, uint64_t n, const struct entry *e)
{
	checker.violations++;
	if (complaints++ < 20)
		printf("VIOLATION ledger: row %llu of client %u (u%u, d%u), "
		    "%s, %s (%s)\n", (unsigned long long)(nonce_base() + n),
		    e->slot, e->user, e->database, op_name(e->op), what,
		    e->why != NULL ? e->why : "never decided");
}

static void
ledger_line(const char *text, size_t len, void *arg)
{
	static const struct entry nobody;
	unsigned database = *(unsigned *)arg;
	unsigned long long nonce = 0;
	unsigned user = 0, db = 0;
	char line[120];
	struct entry *e;

	snprintf(line, sizeof(line), "%.*s", (int)len, text);
	rows_read++;
	if (sscanf(line, "%llu\tu%u\td%u", &nonce, &user, &db) != 3 ||
	    nonce - nonce_base() >= checker.nonces) {
		complain("was never sent", nonce - nonce_base(), &nobody);
		return;
	}
	e = &entries[nonce - nonce_base()];
	if (e->outcome == 0)
		complain("was never sent as a row", nonce - nonce_base(), e);
	if (e->user != user || e->database != db || db != database)
		complain("was written by somebody else, or somewhere else",
		    nonce - nonce_base(), e);
	if (e->seen < 255)
		e->seen++;
}

static void
settle_down(struct direct *d)
{
	char left[NAME_SIZE];
	unsigned i;

	d->on_row = keep_text;
	d->arg = left;
	for (i = 0; i < 300; i++) {
		direct_query(d, NULL, "SELECT count(*) FROM pg_stat_activity "
		    "WHERE datname ~ '^d[0-9]+$' AND backend_type = "
		    "'client backend' AND pid <> pg_backend_pid() "
		    "AND state IS DISTINCT FROM 'idle'");
		if (strcmp(left, "0") == 0)
			return;
		direct_query(d, NULL, "SELECT pg_sleep(0.1)");
	}
	checker.violations++;
	printf("VIOLATION ledger: %s servers are still busy or in a "
	    "transaction after all clients are gone\n", left);
}

void
ledger_read(void)
{
	struct direct d;
	char name[16];
	unsigned i;
	uint64_t n;

	for (i = 0; i < checker.databases; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		direct_open(&d, name);
		settle_down(&d);
		d.on_row = ledger_line;
		d.arg = &i;
		direct_query(&d, NULL,
		    "COPY (SELECT nonce, who, db FROM public.ledger) "
		    "TO STDOUT");
		direct_close(&d);
	}
	for (n = 0; n < checker.nonces; n++) {
		const struct entry *e = &entries[n];

		outcomes[(unsigned char)e->outcome]++;
		if (e->seen > 1)
			complain("was written more than once", n, e);
		else if (e->outcome == 'K' && e->seen == 0)
			complain("was acknowledged and is not there", n, e);
		else if (e->outcome == 'F' && e->seen > 0)
			complain("failed and is there", n, e);
		else if (e->outcome == 'P')
			complain("was not accounted for (the checker's own "
			    "mistake)", n, e);
	}
	printf("ledger: %llu rows; %llu acknowledged, %llu failed, "
	    "%llu unknown\n", (unsigned long long)rows_read,
	    (unsigned long long)outcomes['K'],
	    (unsigned long long)outcomes['F'],
	    (unsigned long long)outcomes['U']);
	free(entries);
}
