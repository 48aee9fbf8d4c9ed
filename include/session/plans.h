/* Prepared statements outlive the schema they were prepared for. */
#ifndef SESSION_PLANS_H
#define SESSION_PLANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "wire/frame.h"

struct client;
struct error_fields;
struct owed_entry;
struct pass;
struct server;
struct stmt;
struct target;

/* What a server knows; all zeroes is nothing. */
struct plans {
	uint64_t own_epoch;		/* statements of this link are its own,
					 * for what it has changed itself; 0 =
					 * they are as old as the schema */
	uint64_t temp_epoch;		/* of what was prepared beside temporary
					 * tables as they are now; 0 = nothing
					 * was */
	uint64_t bound_epoch;		/* of the statement bound, or described
					 * last */
	struct stmt *bound;		/* what the last message has bound, if
					 * its columns are not known; a
					 * reference */
	uint64_t bound_portal;		/* ... to this one */
	uint64_t unnamed_shape;		/* of the unnamed slot's statement */
	struct buf types;		/* of parameters: what is described */
	bool rows_known;		/* those of what is bound now */
	bool unnamed_asked;		/* that shape decides about a Bind */
	bool changed;			/* the open transaction has DDL */
	bool undone;			/* ... and its last tag was ROLLBACK */
	struct buf kept;		/* the batch that is owed; empty = not
					 * to be repeated */
};

enum plan {
	PLAN_READY,			/* on this server, the statement is
					 * what the client takes it for */
	PLAN_GO,			/* the same when it has been prepared,
					 * which may still have to be done */
	PLAN_WAIT,			/* paused, or at its end */
	PLAN_REFUSED,			/* it is something else now */
};

/* A name that no server has a statement for. */
#define PLANS_NOBODY STMT_PREFIX "0"

/* The schema of this database has changed. Any thread. */
void plans_schema_changed(struct target *target);

/*
 * From client to server.
 */

/* The statement of a Parse of this client, told from the same text of others
 * to whom it means something else; +1 reference, NULL: out of memory. */
struct stmt *plans_intern(const struct client *client, struct span tail,
    bool named);
/* Is that this one? For the unnamed one. */
bool plans_is_of(const struct client *client, const struct stmt *stmt,
    struct span tail);
/* Before a Bind; *stmt may be replaced by one that is prepared anew. */
enum plan plans_check_bind(struct pass *pass, const struct frame *frame,
    struct span portal, struct span name, struct stmt **stmt);
/* Before the Describe of a named statement: the one to describe, +1 reference;
 * NULL = out of memory. */
struct stmt *plans_for_describe(const struct client *client,
    struct stmt *stmt);
/* That Bind was passed on. */
void plans_note_bind(struct server *server, struct span portal,
    struct stmt *stmt_or_null);
/* Notes what is described: the portal that was just bound, or a statement. */
void plans_note_portal(struct server *server, struct owed_entry *entry,
    struct span portal);
void plans_note_describe(struct server *server, struct owed_entry *entry,
    struct stmt *stmt, bool unnamed);
/* Is nothing under way? Then what comes may be a batch to be kept. */
bool plans_is_fresh(const struct client *client);
/* The bytes of one read were passed on, the first of them when that was so. */
void plans_keep(struct client *client, bool fresh, const char *at,
    size_t len);

/*
 * From server to client.
 */

/* A whole ParameterDescription, RowDescription or NoData for the head. */
void plans_described(struct server *server, uint8_t type, struct span body);
/* A command of a client's is complete. */
void plans_completed(struct server *server, const struct owed_entry *head,
    struct span tag);
/* The server is ready. */
void plans_ready(struct server *server);
/* An error for the head. True: the client is not to see it, for its batch can
 * be repeated; plans_swallow_batch() when the server has skipped it. */
bool plans_failed(struct server *server, const struct owed_entry *head,
    const struct error_fields *fields);
void plans_swallow_batch(struct server *server);
/* That batch is over. */
void plans_repeat_batch(struct server *server);
/* The error that Postgres has for it. */
void plans_put_refusal(struct client *client);

void plans_unlinked(struct server *server);
void plans_finish(struct server *server);

#endif
