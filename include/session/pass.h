/* The walk through a client's bytes: what relay_client.c and
 * relay_statements.c share, and nobody else needs. */
#ifndef SESSION_PASS_H
#define SESSION_PASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "session/ending.h"
#include "session/owed.h"
#include "wire/frame.h"

struct client;
struct server;
struct stmt;

/* A simple query up to this size is looked at for DEALLOCATE; so no name in
 * one is longer. */
#define PASS_SCAN_MAX 256
/* max_pinned: what a client is told. */
#define PASS_REFUSAL 160
#define PASS_PIN_HINT "Raise max_pinned, use pool_mode = session for this " \
    "database, or keep such state within one transaction."

/* The walk through one read. */
struct pass {
	struct client *client;
	const char *at;
	size_t len;
	size_t pos;		/* the next message starts here */
	size_t run;		/* what was passed, but not put yet, too */
};

/* Handlers of a message type. False: the walk stops, because more bytes are
 * needed, the client waits, or it has ended. */
typedef bool pass_handler(struct pass *pass, const struct frame *frame);

pass_handler pass_parse, pass_bind, pass_describe, pass_close, pass_execute;

/* Puts what was passed so far. */
void pass_put(struct pass *pass);
/* Bytes of ours between the client's. They are copied. */
void pass_put_bytes(struct pass *pass, const struct buf *bytes);
size_t pass_available(const struct pass *pass);
/* The message's body, as far as it has arrived. */
struct span pass_body(const struct pass *pass, const struct frame *frame);
bool pass_is_whole(const struct pass *pass, const struct frame *frame);
/* Steps over `size` bytes of a message, of which some may be still to come.*/
void pass_step_over(struct pass *pass, size_t size, bool drop);
/* The message at hand is passed on, or not; both give true. */
pass_handler pass_as_is, pass_drop;
/* Ends the client; gives false. */
bool pass_end(struct pass *pass, enum ending ending, const char *detail);
/* Makes sure that there is a server; false: not now. */
bool pass_link(struct pass *pass);
/* Postgres is to look whether its client, a migrator, is still there. False:
 * the client has ended. */
bool pass_put_watch(struct pass *pass);
/* Notes a debt; NULL: the client has ended for want of memory. */
struct owed_entry *pass_owe(struct pass *pass, enum owed_kind kind,
    enum owed_action action);
/* A statement that fails with these words, as a Query or a Parse; the hint
 * may be NULL. No quotes in them. */
void pass_put_refusal(struct pass *pass, char type, const char *sqlstate,
    const char *message, const char *hint);
/* The same in the place of the message at hand: a simple query or, in an
 * extended batch, a Parse or Bind. Gives what a handler gives. */
bool pass_refuse_query(struct pass *pass, const struct frame *frame,
    const char *sqlstate, const char *message, const char *hint);
bool pass_refuse_in_batch(struct pass *pass, const struct frame *frame,
    const char *sqlstate, const char *message, const char *hint);
const char *pass_pin_refusal(const char *reason, char message[PASS_REFUSAL]);
/* Waits for the answers to all that was asked before. False: they are in, or
 * will not be before the client has said more. */
bool pass_must_wait(struct client *client);
/*
 * Statements on the server: prepares one there, or makes it the unnamed one,
 * or closes it; waits while that is uncertain. False: not now, or the client
 * has ended.
 */
bool pass_ensure(struct pass *pass, struct stmt *stmt);
bool pass_put_unnamed(struct pass *pass, struct stmt *stmt);
bool pass_close_ours(struct pass *pass, struct stmt *stmt);
bool pass_is_settled(struct pass *pass, const struct stmt *stmt);
/* Notes with what is owed what the statement does beside answering. */
void pass_note_effects(struct server *server, struct owed_entry *entry,
    uint32_t effects);
/*
 * relay_begin.c: a BEGIN that needs no server yet, or the end of one; as a
 * simple query (`word` is its first), or as a batch. True: it was answered,
 * and *ret_go_on says whether the walk goes on.
 */
bool pass_begin_query(struct pass *pass, const struct frame *frame,
    uint32_t effects, struct span sql, struct span word, bool *ret_go_on);
bool pass_begin_batch(struct pass *pass, bool *ret_go_on);
/* Waits for the answers to all that was asked before. False: they are in, or
 * will not be before the client has said more. */
bool pass_must_wait(struct client *client);
/* May this statement be passed on, as far as it is a CREATE DATABASE or the
 * like? False: not yet. */
bool pass_database(struct client *client, uint32_t effects, struct span sql);
/* Are this client's statements tracked by us? */
bool pass_tracks(const struct client *client);
/* The name as SQL means it: unquoted, or folded to lower case. */
struct span pass_sql_name(struct span text, char *room, size_t size);

#endif
