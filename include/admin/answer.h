/* A client of the console: how commands answer it, now or later. */
#ifndef ADMIN_ANSWER_H
#define ADMIN_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "admin/command.h"
#include "admin/extended.h"
#include "base/buf.h"
#include "net/loop.h"
#include "session/client.h"

struct pool_quota;

/*
 * What the console keeps of a client, from console_enter() to
 * console_leave(). Mails and gathers never point here: they name the client
 * by its id.
 */
struct console {
	uint32_t magic;
	struct client *client;
	struct extended extended;
	/* PAUSE and WAIT_CLOSE: looks whether it is over. */
	void (*look)(struct client *client);
	const char *tag;		/* to answer with then */
	const struct pool_quota *quota;	/* of which database; NULL = all */
	struct loop_timer timer;	/* for the next look */
};

/*
 * Every command is answered once, by one of these, in its handler or later:
 * until then the client is paused for PAUSE_ANSWER (by gather_start or
 * answer_later), so that its next command waits its turn.
 */
void answer_done(struct client *client, const char *tag);
void answer_error(struct client *client, const char *sqlstate,
    const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* With a DETAIL of several lines. */
void answer_error_detail(struct client *client, const char *sqlstate,
    const char *message, const struct buf *detail);
void answer_no_memory(struct client *client);
/* The text is no command. */
void answer_no_command(struct client *client, struct span text);
/* Messages that are composed already; ReadyForQuery is added, where they
 * answer a simple query. */
void answer_messages(struct client *client, struct buf *out);
/* Messages that answer one of a batch, as they are. */
void answer_part(struct client *client, struct buf *out);

/* Runs a command, which is answered by one of these. */
void console_query(struct client *client, struct span text);

struct console *console_of(struct client *client);
/* Looks at once and then every so often, until look() answers. */
void answer_when(struct client *client, const char *tag,
    const struct pool_quota *quota, void (*look)(struct client *client));
/* For a look() that has nothing to say yet. */
void answer_look_again(struct client *client);

/* The handlers of commands.def. */
#define X(name, role, shape, handler, usage) \
	void handler(struct client *client, const struct command *command);
#include "admin/commands.def"
#undef X

#endif
