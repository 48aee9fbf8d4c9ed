/*
 * A worker with one client and one server, both at the far ends of socket
 * pairs, for tests and fuzz targets of the relay.
 *
 *      far end --socketpair-- client == link == server --socketpair-- far end
 *         ^                       one worker, one loop                  ^
 *         +------------------------ the test -------------------------+
 *
 * All of it is the real thing, streams and loop included, but for
 * session/server_login.c: its functions are defined here, so that the linker
 * takes these, and a server is logged in as soon as somebody wants one.
 *
 * The test's thread is the worker's. rig_settle() lets the loop go round until
 * nothing moves any more; nothing waits for a clock. Messages are written and
 * read in a small language, a type and what matters of the rest:
 *
 *      client_says("P s1:SELECT 1; B s1; E; S");
 *      server_got()                    "P#:SELECT_1 B# E S"
 *      server_says("1; 2; C SELECT 1; Z I");
 *      client_got()                    "1 2 C ZI"
 *
 * "#" is a name of ours (PGSLUICE_7). "~" at the end is half a message.
 */
#ifndef TEST_RELAY_RIG_H
#define TEST_RELAY_RIG_H

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"
#include "pool/vars.h"
#include "session/client.h"
#include "session/link.h"
#include "session/owed.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"
#include "wire/startup.h"

/* One end that the test has in hand. */
struct far {
	int fd;				/* -1 = none, or closed by us */
	bool ended;			/* the pooler has closed it */
	bool deaf;			/* nothing is read from it */
	struct buf got;
};

static struct rig {
	struct worker *worker;
	uint64_t client_id;		/* 0 = none */
	struct far client, server;
	uint64_t other_id;		/* another client: rig_swap() */
	struct far other;
	struct server *opening;		/* wants to be logged in */
	bool no_servers;		/* ... and is not */
	unsigned logins;		/* of servers */
	struct buf script;
	char text[2][2048];		/* of client_got(), server_got() */
} rig = { .client.fd = -1, .server.fd = -1, .other.fd = -1 };

/*
 * In the place of session/server_login.c.
 */

void
server_login_start(struct server *server)
{
	check(rig.opening == NULL);
	/* Not NULL: it counts as one that opens. Nobody looks inside. */
	server->opening = (struct server_opening *)(void *)server;
	rig.opening = server;
}

void
server_login_free(struct server *server)
{
	if (rig.opening == server)
		rig.opening = NULL;
	server->opening = NULL;
}

size_t
server_login_data(struct server *server, const char *at, size_t len)
{
	(void)server;
	(void)at;
	return len;
}

void
server_login_opened(struct server *server)
{
	(void)server;
}

void
server_login_lost(struct server *server, enum stream_end why)
{
	(void)why;
	server_close(server, "lost");
}

void
server_login_timeout(struct server *server)
{
	server_close(server, "timeout");
}

/*
 * The far ends.
 */

static inline void
far_open(struct far *far, int *ret_near)
{
	int pair[2];

	check(far->fd == -1);
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
	    0, pair) == 0);
	far->fd = pair[0];
	far->ended = false;
	*ret_near = pair[1];
}

static inline void
far_close(struct far *far)
{
	if (far->fd != -1)
		close(far->fd);
	far->fd = -1;
}

/* True: something came. */
static inline bool
far_listen(struct far *far)
{
	char block[16384];
	bool moved = false;
	ssize_t n;

	if (far->fd == -1 || far->ended || far->deaf)
		return false;
	while ((n = read(far->fd, block, sizeof(block))) > 0) {
		buf_add(&far->got, block, (size_t)n);
		moved = true;
	}
	if (n == 0 || (n == -1 && errno != EAGAIN)) {
		far->ended = true;
		moved = true;
	}
	return moved;
}

/* How many bytes were taken: fewer than all, when the pooler has paused. */
static inline size_t
far_write(struct far *far, const char *at, size_t len)
{
	ssize_t n = far->fd == -1 || len == 0 ? 0 :
	    send(far->fd, at, len, MSG_NOSIGNAL);

	return n > 0 ? (size_t)n : 0;
}

/*
 * Who is there.
 */

static inline struct client *
rig_client(void)
{
	return rig.client_id == 0 ? NULL :
	    worker_find_client(rig.worker, rig.client_id);
}

/* There is one at most: the pools of the rig have one place. */
static inline struct server *
rig_server(void)
{
	for (int state = 0; state < SERVER_CLOSING; state++) {
		struct list *node = list_first(&rig.worker->servers[state]);
		if (node != NULL && container_of(node, struct server, node) !=
		    rig.opening)
			return container_of(node, struct server, node);
	}
	return NULL;
}

/* What a fresh server reports, as it does for everybody. */
static inline void
rig_baseline(struct server *server, struct buf *welcome)
{
	static const char *const params[][2] = {
		{ "server_version", "15.0" }, { "TimeZone", "UTC" },
		{ "application_name", "" },
	};

	for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++) {
		struct span name = span_of(params[i][0]);
		struct span value = span_of(params[i][1]);
		msg_parameter(welcome, name, value);
		server->baseline = vars_with(server->baseline, name, value);
		check(server->baseline != NULL);
	}
}

/* Logs a server in; false: nobody wants one. */
static inline bool
rig_open_server(void)
{
	struct server *server = rig.opening;
	struct buf welcome = { 0 };
	int near;

	if (server == NULL || rig.no_servers)
		return false;
	far_listen(&rig.server);
	far_close(&rig.server);
	buf_clear(&rig.server.got);
	far_open(&rig.server, &near);
	check(stream_adopt(&server->s, rig.worker->loop, near));
	server_login_free(server);
	rig_baseline(server, &welcome);
	if (pool_set_welcome(server->pool, &welcome, server->baseline))
		workers_post(client_login_welcome, server->pool);
	buf_finish(&welcome);
	pool_opened(server->pool);
	server_move(server, SERVER_CONNECTING);
	server_move(server, SERVER_LOGIN);
	rig.logins++;
	if (server->pool->db->connect_query != NULL) {
		server_move(server, SERVER_SETUP);
		check(server_ask(server, server->pool->db->connect_query));
		return true;
	}
	server_move(server, SERVER_FREE);
	server_free_up_later(server);
	return true;
}

/*
 * Time.
 */

static inline void
rig_stop(struct loop_task *task)
{
	(void)task;
	loop_stop(rig.worker->loop);
}

/* One turn of the loop, which does not wait for anything. */
static inline void
rig_turn(void)
{
	static struct loop_task stop;

	loop_task_init(&stop, rig_stop);
	stop.ran_turn = loop_turn_count(rig.worker->loop);
	loop_defer(rig.worker->loop, &stop);
	loop_run(rig.worker->loop);
}

static inline void
rig_settle(void)
{
	for (unsigned quiet = 0; quiet < 3; quiet++) {
		bool moved;

		rig_turn();
		moved = rig_open_server();
		moved = far_listen(&rig.client) || moved;
		moved = far_listen(&rig.server) || moved;
		if (moved)
			quiet = 0;
	}
}

/*
 * Life.
 */

static inline void
rig_console_enter(struct client *client)
{
	(void)client;
}

static inline size_t
rig_console_data(struct client *client, const char *at, size_t len)
{
	(void)client;
	(void)at;
	return len;
}

/* `options`: more lines of [pgsluice]. One rig at a time. */
static inline void
rig_start(const char *options)
{
	static bool pools;
	const struct log_settings silence = { .verbose = 0 };
	struct buf text = { 0 }, why = { 0 };

	buf_add_text(&text, "[databases]\n"
	    "transaction = host=/nowhere pool_mode=transaction\n"
	    "session = host=/nowhere pool_mode=session\n"
	    "statement = host=/nowhere pool_mode=statement\n"
	    "asking = host=/nowhere connect_query='SELECT 1'\n"
	    "* = host=/nowhere\n"
	    "[pgsluice]\nauth_type = any\ndefault_pool_size = 1\n"
	    "max_client_conn = 10\nadmin_users = admin\n"
	    /* So that texts are kept, and have to be given back. */
	    "log_min_duration = 1us\nlog_statement_text = 1\n");
	/* A BEGIN is the handiest way to hold a server. */
	if (strstr(options, "defer_begin") == NULL)
		buf_add_text(&text, "defer_begin = 0\n");
	buf_add_text(&text, options);
	log_setup(&silence);
	struct conf *conf = conf_load_text("rig", buf_span(&text), NULL, &why);
	if (conf == NULL)
		fprintf(stderr, "%.*s\n", (int)why.len, why.at);
	check(conf != NULL);
	buf_finish(&text);
	struct setup *setup = setup_create(conf, &why);
	check(setup != NULL);
	if (!pools)
		pools_init(1);
	pools = true;
	rig.worker = worker_create(0, setup);
	check(rig.worker != NULL);
	setup_unref(setup);
	process.worker_count = 1;
	process.worker[0] = rig.worker;
	process.console_enter = process.console_leave = rig_console_enter;
	process.console_data = rig_console_data;
}

/* The sessions go, the worker stays. */
static inline void
rig_clear(void)
{
	for (int state = 0; state < CLIENT_GONE; state++)
		list_each(node, &rig.worker->clients[state])
			client_drop(container_of(node, struct client, node));
	for (int state = 0; state < SERVER_GONE; state++)
		list_each(node, &rig.worker->servers[state])
			server_drop(container_of(node, struct server, node));
	rig_turn();
	check(process.clients == 0 && process.logged_in == 0);
	far_close(&rig.client);
	far_close(&rig.server);
	far_close(&rig.other);
	buf_clear(&rig.client.got);
	buf_clear(&rig.server.got);
	rig.client.deaf = rig.server.deaf = false;
	rig.no_servers = false;
	rig.client_id = rig.other_id = 0;
	rig.logins = 0;
}

/* May be called twice. */
static inline void
rig_finish(void)
{
	if (rig.worker == NULL)
		return;
	rig_clear();
	workers_finish();
	process.leaving = STAYING;
	buf_finish(&rig.client.got);
	buf_finish(&rig.server.got);
	buf_finish(&rig.script);
	buf_finish(&rig.other.got);
	rig = (struct rig){ .client.fd = -1, .server.fd = -1, .other.fd = -1 };
}

/* A test's teardown, also when it has failed. */
static inline int
rig_is_done(void **state)
{
	(void)state;
	rig_finish();
	return 0;
}

/* The client's place is taken by another one, or is free for one; the next
 * call brings it back. */
static inline void
rig_swap(void)
{
	struct far client = rig.client;
	uint64_t id = rig.client_id;

	rig.client = rig.other;
	rig.client_id = rig.other_id;
	rig.other = client;
	rig.other_id = id;
}

/* A new client, of which nothing has come yet. */
static inline void
rig_connect(void)
{
	struct list *node;
	int near;

	far_close(&rig.client);
	buf_clear(&rig.client.got);
	far_open(&rig.client, &near);
	workers_accept(NULL, rig.worker->loop, near, true);
	rig_turn();
	node = list_first(&rig.worker->clients[CLIENT_STARTUP]);
	check(node != NULL);
	rig.client_id = container_of(node, struct client, node)->id;
}

static inline void
rig_log_in(const char *user, const char *database, const char *time_zone)
{
	struct buf *out = &rig.script;
	size_t began;

	rig_connect();
	buf_clear(out);
	began = startup_begin(out, 3, 0);
	startup_param(out, SPAN("user"), span_of(user));
	startup_param(out, SPAN("database"), span_of(database));
	if (time_zone != NULL)
		startup_param(out, SPAN("TimeZone"), span_of(time_zone));
	startup_end(out, began);
	check(far_write(&rig.client, out->at, out->len) == out->len);
	rig_settle();
}

/*
 * What is said.
 */

static inline void
compose_error(struct buf *out, struct span rest)
{
	struct span sqlstate = SPAN_NONE;

	span_next(&rest, ' ', &sqlstate);
	msg_u8(out, 'S');
	msg_text(out, span_is(sqlstate, "57P01") ? SPAN("FATAL") :
	    SPAN("ERROR"));
	msg_u8(out, 'C');
	msg_text(out, sqlstate);
	msg_u8(out, 'M');
	msg_text(out, rest);
	if (span_is(sqlstate, "0A000")) {
		msg_u8(out, 'R');
		msg_text(out, SPAN("RevalidateCachedQuery"));
	}
	msg_u8(out, 0);
}

/* "P name:text" */
static inline void
compose_parse(struct buf *out, struct span rest)
{
	struct span name = rest;

	for (name.len = 0; name.len < rest.len && rest.at[name.len] != ':';)
		name.len++;
	check(name.len < rest.len);
	msg_text(out, name);
	msg_text(out, (struct span){ rest.at + name.len + 1,
	    rest.len - name.len - 1 });
	msg_u16(out, 0);
}

/* "B name/2": with formats for two columns of the result. */
static inline void
compose_bind(struct buf *out, struct span rest)
{
	struct span name = SPAN("");
	uint64_t formats = 0;

	span_next(&rest, '/', &name);
	span_parse_u64(rest, &formats);
	msg_text(out, name);
	msg_u16(out, 0);
	msg_u16(out, 0);
	msg_u16(out, (uint16_t)formats);
	for (uint64_t i = 0; i < formats; i++)
		msg_u16(out, 0);
}

/* A client's body, where it is more than its text. */
static inline void
compose_request(struct buf *out, char type, struct span rest)
{
	bool portal = rest.len > 0 && rest.at[0] == '@';

	switch (type) {
	case 'P':
		compose_parse(out, rest);
		break;
	case 'B':
		msg_u8(out, 0);
		compose_bind(out, rest);
		break;
	case 'D': case 'C':
		msg_u8(out, portal ? 'P' : 'S');
		msg_text(out, (struct span){ rest.at + portal,
		    rest.len - portal });
		break;
	case 'E':
		msg_text(out, rest);
		msg_u32(out, 0);
		break;
	case 'F':
		for (int i = 0; i < 5; i++)
			msg_u16(out, 0);
		break;
	case 'S': case 'H': case 'X': case 'c':
		break;
	case 'd':
		buf_add_span(out, rest);
		break;
	default:
		msg_text(out, rest);
	}
}

/* "S name=value" */
static inline void
compose_parameter(struct buf *out, struct span rest)
{
	struct span name = SPAN_NONE;

	span_next(&rest, '=', &name);
	msg_text(out, name);
	msg_text(out, span_trim(rest));
}

/* "D one,two": a row of so many columns; of none, when nothing is said. */
static inline void
compose_row(struct buf *out, struct span rest)
{
	size_t at = out->len;
	uint16_t count = 0;
	struct span column;

	msg_u16(out, 0);
	for (; span_next(&rest, ',', &column); count++) {
		msg_u32(out, (uint32_t)column.len);
		buf_add_span(out, column);
	}
	out->at[at + 1] = (char)count;
}

/* "T one,two": columns of these names. */
static inline void
compose_columns(struct buf *out, struct span rest)
{
	static const char zeroes[18];
	size_t at = out->len;
	uint16_t count = 0;
	struct span column;

	msg_u16(out, 0);
	for (; span_next(&rest, ',', &column); count++) {
		msg_text(out, column);
		buf_add(out, zeroes, sizeof(zeroes));
	}
	out->at[at + 1] = (char)count;
}

/* "t 23": one parameter of that type, or none. */
static inline void
compose_types(struct buf *out, struct span rest)
{
	uint64_t oid;

	msg_u16(out, rest.len > 0);
	if (rest.len > 0 && span_parse_u64(rest, &oid))
		msg_u32(out, (uint32_t)oid);
}

static inline void
compose_reply(struct buf *out, char type, struct span rest)
{
	switch (type) {
	case 'E': case 'N':
		compose_error(out, rest);
		break;
	case 'C':
		msg_text(out, rest);
		break;
	case 'S':
		compose_parameter(out, rest);
		break;
	case 'A':
		msg_u32(out, 1);
		msg_text(out, rest);
		msg_text(out, SPAN(""));
		break;
	case 'D':
		compose_row(out, rest);
		break;
	case 'T':
		compose_columns(out, rest);
		break;
	case 't':
		compose_types(out, rest);
		break;
	case 'V':
		msg_u16(out, 0);
		break;
	case 'G': case 'H': case 'W':
		msg_u8(out, 0);
		msg_u16(out, 0);
		break;
	default:
		buf_add_span(out, rest);
	}
}

static inline void
compose(struct buf *out, const char *script,
    void (*body)(struct buf *out, char type, struct span rest))
{
	struct span all = span_of(script), word;

	while (span_next(&all, ';', &word)) {
		check(word.len > 0);
		size_t began = msg_begin(out, word.at[0]);
		body(out, word.at[0], span_trim((struct span){ word.at + 1,
		    word.len - 1 }));
		msg_end(out, began);
	}
	check(!out->failed);
}

static inline void
client_says(const char *script)
{
	buf_clear(&rig.script);
	compose(&rig.script, script, compose_request);
	check(far_write(&rig.client, rig.script.at, rig.script.len) ==
	    rig.script.len);
	rig_settle();
}

static inline void
server_says(const char *script)
{
	buf_clear(&rig.script);
	compose(&rig.script, script, compose_reply);
	check(far_write(&rig.server, rig.script.at, rig.script.len) ==
	    rig.script.len);
	rig_settle();
}

/* A client that has logged in, and a server: both idle, or in session mode
 * linked. */
static inline void
rig_begin(const char *database)
{
	rig_log_in("me", database, NULL);
	check(rig_client() != NULL && rig_client()->state == CLIENT_IDLE);
	client_says("S");
	server_says("Z I");
	buf_clear(&rig.client.got);
	buf_clear(&rig.server.got);
}

/*
 * What was got.
 */

static inline void
say(char *text, struct span word)
{
	size_t at = strlen(text);

	for (size_t i = 0; i < word.len && at + 1 < sizeof(rig.text[0]); i++)
		text[at++] = word.at[i] == ' ' ? '_' : word.at[i];
	text[at] = '\0';
}

static inline void
say_name(char *text, struct span name)
{
	say(text, span_starts_case(name, STMT_PREFIX) ? SPAN("#") : name);
}

static inline void
tell_request(char *text, char type, struct span bytes)
{
	struct body body = body_of(bytes);

	switch (type) {
	case 'P':
		say_name(text, body_text(&body));
		say(text, SPAN(":"));
		say(text, body_text(&body));
		break;
	case 'B':
		body_text(&body);
		say_name(text, body_text(&body));
		break;
	case 'C': case 'D':
		if (body_u8(&body) == 'P')
			say(text, SPAN("@"));
		say_name(text, body_text(&body));
		break;
	case 'Q':
		say(text, SPAN(":"));
		say(text, body_text(&body));
		break;
	default:
		break;
	}
}

static inline void
tell_reply(char *text, char type, struct span bytes)
{
	struct body body = body_of(bytes);
	struct error_fields fields;

	switch (type) {
	case 'E':
		check(error_parse(bytes, &fields));
		say(text, fields.sqlstate);
		break;
	case 'S':
		say(text, body_text(&body));
		say(text, SPAN("="));
		say(text, body_text(&body));
		break;
	case 'Z':
		say(text, bytes);
		break;
	default:
		break;
	}
}

/* In words, and forgotten. */
static inline const char *
far_tell(struct far *far, char *text,
    void (*tell)(char *text, char type, struct span bytes))
{
	const char *at = far->got.at;
	size_t left = far->got.len;
	struct frame frame;

	text[0] = '\0';
	while (left > 0) {
		if (text[0] != '\0')
			say(text, SPAN("\t"));
		if (frame_peek(at, left, &frame) != FRAME_OK ||
		    left - FRAME_HEADER < frame.body) {
			say(text, SPAN("~"));
			break;
		}
		say(text, (struct span){ at, 1 });
		tell(text, (char)frame.type, (struct span){ at + FRAME_HEADER,
		    frame.body });
		at += FRAME_HEADER + frame.body;
		left -= FRAME_HEADER + frame.body;
	}
	for (char *c = text; *c != '\0'; c++)
		if (*c == '\t')
			*c = ' ';
	buf_clear(&far->got);
	return text;
}

static inline const char *
client_got(void)
{
	return far_tell(&rig.client, rig.text[0], tell_reply);
}

static inline const char *
server_got(void)
{
	return far_tell(&rig.server, rig.text[1], tell_request);
}

/*
 * What is owed, an entry a word: its kind as the type of its message ("." is
 * the mark of a CopyDone), "-" before one of ours, "=" before one that was
 * never sent.
 */
static inline const char *
rig_owed(void)
{
	static const char kinds[] = ".PBDECSQF";
	static char text[256];
	const struct server *server = rig_server();
	size_t at = 0;

	for (uint32_t i = 0; server != NULL && i < server->owed.count &&
	    at + 4 < sizeof(text); i++) {
		const struct owed_entry *entry = owed_at(&server->owed, i);
		if (i > 0)
			text[at++] = ' ';
		if (entry->action != OWED_FORWARD)
			text[at++] = entry->action == OWED_SWALLOW ? '-' : '=';
		text[at++] = kinds[entry->kind];
	}
	text[at] = '\0';
	return text;
}

#endif
