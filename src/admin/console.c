/*
 * The console: the database "pgsluice", which is no database but answers to
 * psql and to everything else that speaks the simple query protocol.
 *
 *   console_enter   a client has logged in: AuthenticationOk to ReadyForQuery
 *   console_data    Query messages; each is one command (command.c), whose
 *        |          handler answers at once, or later (answer.h)
 *   console_leave   the client is gone, and whatever it waited for with it
 *
 * A client that waits for its answer is paused, so commands are answered one
 * after another, in order, and a client that does not read what it is sent is
 * not read from either. Messages of the extended protocol are answered as the
 * protocol wants them answered (extended.c); what a driver sends of its own
 * accord is in driver.c.
 *
 * Who may do what is said in commands.def and show.def, row by row.
 */
#include "admin/console.h"

#include <stdarg.h>
#include <stdio.h>

#include "admin/answer.h"
#include "admin/driver.h"
#include "admin/role.h"
#include "admin/rows.h"
#include "admin/version.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"

#define CONSOLE_MAGIC 0x636f6e73u
/* The longest message: a command, or a Parse that we refuse anyway. */
#define MESSAGE_MAX (64 * 1024)
#define LOOK_US 50000
#define ECHO_MAX 64			/* bytes of a command in an error */

MEM_TYPE(console_type, console);

static const struct {
	enum role role;
	void (*run)(struct client *client, const struct command *command);
} handlers[COMMAND_COUNT] = {
#define X(name, role, shape, handler, usage) { role, handler },
#include "admin/commands.def"
#undef X
};

struct console *
console_of(struct client *client)
{
	struct console *console = client->console;

	check_magic(console, CONSOLE_MAGIC);
	return console;
}

/*
 * Answers.
 */

static void
answer_send(struct client *client, const struct buf *out)
{
	if (out->failed) {
		client_end(client, END_NO_MEMORY, NULL);
		return;
	}
	if (stream_send(&client->s, out->at, out->len) == STREAM_QUEUED)
		stream_pause(&client->s, PAUSE_PEER_FULL);
	stream_resume(&client->s, PAUSE_ANSWER);
}

void
answer_messages(struct client *client, struct buf *out)
{
	struct extended *extended = &console_of(client)->extended;
	struct buf part = { 0 };

	if (extended->running && !out->failed) {
		extended_answer(extended, buf_span(out), &part);
		answer_send(client, &part);
		buf_finish(&part);
	} else {
		msg_ready(out, 'I');
		answer_send(client, out);
	}
}

void
answer_part(struct client *client, struct buf *out)
{
	console_of(client)->extended.running = false;
	answer_send(client, out);
}

/* Where the next answer is composed. */
static struct buf *
answer_begin(struct client *client)
{
	struct buf *out = &client->worker->scratch;

	buf_clear(out);
	return out;
}

void
answer_done(struct client *client, const char *tag)
{
	struct buf *out = answer_begin(client);

	msg_command_complete(out, tag);
	answer_messages(client, out);
}

static void
answer_with(struct client *client, const struct msg_error *error)
{
	struct buf *out = answer_begin(client);

	msg_error(out, error);
	answer_messages(client, out);
}

void
answer_error(struct client *client, const char *sqlstate, const char *fmt,
    ...)
{
	char message[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	answer_with(client, &(struct msg_error){ .severity = "ERROR",
	    .sqlstate = sqlstate, .message = message });
}

void
answer_error_detail(struct client *client, const char *sqlstate,
    const char *message, const struct buf *detail)
{
	struct buf text = { 0 };
	struct span lines = span_trim(buf_span(detail));

	text_add_utf8(&text, lines, SIZE_MAX);
	buf_add(&text, "", 1);
	answer_with(client, &(struct msg_error){ .severity = "ERROR",
	    .sqlstate = sqlstate, .message = message,
	    .detail = text.failed || lines.len == 0 ? NULL : text.at });
	buf_finish(&text);
}

void
answer_no_memory(struct client *client)
{
	answer_error(client, "53200", "out of memory");
}

static void
console_timer(struct loop_timer *timer)
{
	struct console *console =
	    container_of(timer, struct console, timer);

	check_magic(console, CONSOLE_MAGIC);
	console->look(console->client);
}

void
answer_when(struct client *client, const char *tag,
    const struct pool_quota *quota, void (*look)(struct client *client))
{
	struct console *console = console_of(client);

	console->tag = tag;
	console->quota = quota;
	console->look = look;
	stream_pause(&client->s, PAUSE_ANSWER);
	look(client);
}

void
answer_look_again(struct client *client)
{
	loop_timer_set(client->worker->loop, &console_of(client)->timer,
	    clock_us() + LOOK_US);
}

/*
 * Commands.
 */

static void
console_run(struct client *client, struct span text,
    const struct command *command)
{
	char prefix[512];
	enum role role = handlers[command->verb].role;

	if (command->verb == COMMAND_SET && driver_set(client, command))
		return;
	if (!role_allows(role, client)) {
		answer_error(client, "42501", "admin access needed");
		return;
	}
	/* Whatever changes something is on record. */
	if (role == ADMIN)
		log_line(LOG_LEVEL_LOG, client_prefix(client, prefix,
		    sizeof(prefix)), "console: %.*s", SPAN_ARG(text));
	handlers[command->verb].run(client, command);
}

void
answer_no_command(struct client *client, struct span text)
{
	struct buf message = { 0 };

	text = span_trim(text);
	buf_add_text(&message, "invalid command '");
	text_add_utf8(&message, text, ECHO_MAX);
	buf_add_text(&message, "', use SHOW HELP;");
	buf_add(&message, "", 1);
	if (message.failed)
		answer_no_memory(client);
	else
		answer_with(client, &(struct msg_error){ .severity = "ERROR",
		    .sqlstate = "42601", .message = message.at,
		    .detail = "This is the admin console and no database: it "
		    "takes the commands of SHOW HELP, and no SQL.",
		    .hint = driver_hint(text) });
	buf_finish(&message);
}

void
console_query(struct client *client, struct span text)
{
	char *room = mem_alloc(text.len);
	struct command command;
	const char *why = NULL;

	if (room == NULL) {
		answer_no_memory(client);
		return;
	}
	client->request_us = clock_us();
	switch (command_parse(text, room, &command, &why)) {
	case COMMAND_OK:
		console_run(client, span_trim(text), &command);
		break;
	case COMMAND_EMPTY: {
		struct buf *out = answer_begin(client);
		msg_empty(out, 'I');
		answer_messages(client, out);
		break;
	}
	case COMMAND_UNKNOWN:
		answer_no_command(client, text);
		break;
	case COMMAND_BAD:
		answer_error(client, "42601", "%s", why);
		break;
	}
	mem_free(room);
}

/*
 * Messages.
 */

static void
console_message(struct client *client, uint8_t type, struct span bytes)
{
	struct extended *extended = &console_of(client)->extended;
	struct body body = body_of(bytes);
	struct span text;

	switch (type) {
	case 'Q':
		text = body_text(&body);
		if (!body_is_done(&body))
			client_end(client, END_PROTOCOL, "Query");
		else if (!extended->skipping)
			console_query(client, text);
		return;
	case 'P': case 'B': case 'D': case 'E': case 'C':
		if (!extended->skipping &&
		    !extended_message(client, type, bytes))
			client_end(client, END_PROTOCOL, "extended query");
		return;
	case 'H':
		return;		/* nothing is ever held back */
	case 'S':
		extended->skipping = false;
		extended->has_portal = false;	/* as at a commit */
		answer_messages(client, answer_begin(client));
		return;
	case 'F':
		if (!extended->skipping)
			answer_error(client, "0A000",
			    "the console has no functions");
		return;
	case 'd': case 'c': case 'f':
		return;		/* as Postgres does outside of a COPY */
	case 'X':
		client_end(client, END_CLIENT_CLOSED, NULL);
		return;
	default:
		client_end(client, END_PROTOCOL, "unknown message type");
	}
}

static size_t
console_data(struct client *client, const char *at, size_t len)
{
	size_t pos = 0;

	while (client->state == CLIENT_CONSOLE &&
	    !stream_is_paused(&client->s)) {
		struct frame frame;

		switch (frame_peek(at + pos, len - pos, &frame)) {
		case FRAME_MORE:
			return pos;
		case FRAME_BAD:
			client_end(client, END_PROTOCOL, NULL);
			return len;
		case FRAME_OK:
			break;
		}
		if (frame.body > MESSAGE_MAX) {
			client_end(client, END_TOO_LARGE, NULL);
			return len;
		}
		if (len - pos - FRAME_HEADER < frame.body)
			return pos;
		pos += FRAME_HEADER + frame.body;
		console_message(client, frame.type, (struct span){
		    at + pos - frame.body, frame.body });
	}
	return client->state == CLIENT_CONSOLE ? pos : len;
}

/*
 * Coming and going.
 */

static void
put_greeting(const struct client *client, struct buf *out)
{
	static const char *const parameters[][2] = {
		{ "server_version", PGSLUICE_VERSION "/bouncer" },
		{ "client_encoding", "UTF8" },
		{ "server_encoding", "UTF8" },
		{ "DateStyle", "ISO" },
		{ "TimeZone", "GMT" },
		{ "standard_conforming_strings", "on" },
		{ "integer_datetimes", "on" },
		{ "is_superuser", "on" },
	};
	size_t key_len = client->wants_long_key ? CLIENT_KEY : 4;

	msg_auth(out, 0, SPAN_NONE);
	for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++)
		msg_parameter(out, span_of(parameters[i][0]),
		    span_of(parameters[i][1]));
	msg_key_data(out, client_cancel_pid(client),
	    (struct span){ (const char *)client->key, key_len });
}

static void
console_enter(struct client *client)
{
	struct console *console = mem_new(&console_type);
	char prefix[512];
	struct buf *out;

	check(client->state == CLIENT_CONSOLE && client->console == NULL);
	if (console == NULL) {
		client_end(client, END_NO_MEMORY, NULL);
		return;
	}
	console->magic = CONSOLE_MAGIC;
	console->client = client;
	loop_timer_init(&console->timer, console_timer);
	client->console = console;
	if (client->worker->setup->conf->o.log_connections)
		log_line(LOG_LEVEL_LOG, client_prefix(client, prefix,
		    sizeof(prefix)), "login attempt: db=%s user=%s tls=%s",
		    client_database(client), client_user(client),
		    client->s.tls != NULL ? "yes" : "no");
	/* Commands that came right behind the login are offered again. */
	stream_pause(&client->s, PAUSE_ANSWER);
	out = answer_begin(client);
	put_greeting(client, out);
	answer_messages(client, out);
}

/* Nobody but the client points to its console, so it may go at once. */
static void
console_leave(struct client *client)
{
	struct console *console = client->console;

	if (console == NULL)
		return;
	loop_timer_clear(&console->timer);
	extended_finish(&console->extended);
	client->console = NULL;
	mem_delete(&console_type, console);
}

void
console_install(void)
{
	process.console_enter = console_enter;
	process.console_data = console_data;
	process.console_leave = console_leave;
}
