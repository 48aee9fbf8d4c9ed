/* The replies that a server still owes, in order. */
#ifndef SESSION_OWED_H
#define SESSION_OWED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stmt;

/* What was sent: which reply will come is in protocol 3, "Message Flow". */
enum owed_kind {
	OWED_COPY_DONE,			/* nothing: marks where the client's
					 * CopyDone or CopyFail is; LOCAL */
	OWED_PARSE,			/* 1 */
	OWED_BIND,			/* 2 */
	OWED_DESCRIBE,			/* [t] T or n */
	OWED_EXECUTE,			/* ... C, I or s */
	OWED_CLOSE,			/* 3 */
	OWED_SYNC,			/* Z */
	OWED_QUERY,			/* ... Z */
	OWED_FUNCTION,			/* V Z */
};

enum owed_action {
	OWED_FORWARD,			/* the client asked, and gets it */
	OWED_SWALLOW,			/* we asked */
	OWED_LOCAL,			/* never sent: we answer when it is its
					 * turn among the others */
};

/* What is to be undone if the server skips this message: a name of the
 * client's that was changed when the message was passed on. (The unnamed
 * statement has a place of its own in the entry.) */
struct owed_change {
	struct stmt *was;		/* NULL = the name was free */
	uint32_t len;
	char name[];
};

struct owed_entry {
	uint8_t kind;			/* enum owed_kind */
	uint8_t action;			/* enum owed_action */
	bool clears;			/* DEALLOCATE ALL or DISCARD ALL: takes
					 * all the client's names */
	bool probe;			/* its rows are for session/state.c */
	bool leaves;			/* UNLISTEN: for session/channels.c */
	bool discards;			/* DISCARD ALL: puts parameters back */
	bool unnamed;			/* changes the unnamed statement: a
					 * PARSE, CLOSE or QUERY */
	bool ends;			/* a COMMIT, or it may be one */
	bool copies;			/* EXECUTE: COPY FROM STDIN, most
					 * likely; owed_set_copies() */
	/* These are for session/plans.c: */
	bool ddl, temp;			/* changes the schema; only its own */
	bool refused;			/* BIND of a statement that is stale */
	bool of_unnamed;		/* DESCRIBE of the unnamed statement */
	bool of_portal;			/* ... of a portal with the statement */
	bool again;			/* SYNC: the batch is to be repeated */
	struct stmt *stmt;		/* PARSE, CLOSE of ours, DESCRIBE of
					 * one; a reference */
	struct owed_change *change;	/* NULL = nothing to undo */
	struct stmt *unnamed_was;	/* the client's before this one, which
					 * is to be FORWARD; NULL = none */
	char *sql;			/* for the log (slow.c); or NULL */
};

struct owed {
	struct owed_entry *ring;
	uint32_t mask;			/* size - 1 */
	uint32_t head;
	uint32_t count;
	uint32_t local;			/* how many of them are OWED_LOCAL */
	uint32_t syncs;			/* ... are OWED_SYNC */
	uint32_t copies;		/* ... have `copies` set */
	bool skipping;			/* the server skips up to a Sync that
					 * has not been passed on yet */
	bool batch_open;		/* an extended batch was begun, and no Z
					 * has ended it */
	bool copy_in;			/* the server reads COPY data */
	bool copy_in_doubt;		/* ... and a Sync had been passed on */
	bool copy_data;			/* ... and was given some */
	uint32_t copy_syncs;		/* Syncs that were dropped before */
	char *sql;			/* of what was passed on, for the next
					 * entry that a Z of the client's takes
					 * off; NULL = not kept */
};

/* No more than this many entries (the client is paused before): Postgres
 * flushes its replies at 8 KB, and every reply has 5 bytes, so a server always
 * answers some of them without waiting for a Flush or Sync of ours. */
#define OWED_MAX 8192

bool owed_init(struct owed *owed);	/* false: out of memory */
void owed_finish(struct owed *owed);
/* NULL: out of memory. The entry is zero but for kind and action. */
struct owed_entry *owed_push(struct owed *owed, enum owed_kind kind,
    enum owed_action action);
struct owed_entry *owed_head(const struct owed *owed);	/* NULL = empty */
struct owed_entry *owed_at(const struct owed *owed, uint32_t i); /* 0=head */
/* The caller has taken care of what the entry holds: owed_entry_clear(). */
void owed_pop(struct owed *owed);
void owed_pop_last(struct owed *owed);
void owed_remove(struct owed *owed, uint32_t i);
/*
 * Would a message that names `name` depend on how an earlier batch ends, one
 * whose Sync has been passed on and not been answered? Then it must wait.
 */
bool owed_is_uncertain(const struct owed *owed, const char *name, size_t len);
/* The same for a statement that is being prepared or closed on the server. */
bool owed_is_pending(const struct owed *owed, const struct stmt *stmt);
/* Is a ReadyForQuery owed that the client waits for? What comes behind it
 * finds a transaction that may have failed. */
bool owed_has_ready(const struct owed *owed);
/* Is no reply owed by the server itself? */
bool owed_is_clear(const struct owed *owed);
/* Is nothing owed but answers to questions of our own? */
bool owed_is_ours(const struct owed *owed);
/* Is it nothing, or what takes no time: the answer of a probe of ours, or of an
 * UNLISTEN? */
bool owed_is_brief(const struct owed *owed);
/* Is there a Bind that we answer ourselves? */
bool owed_has_local_bind(const struct owed *owed);
void owed_set_copies(struct owed *owed, struct owed_entry *entry,
    bool copies);
void owed_note_copy_data(struct owed *owed);
/* May the server be about to read COPY data of which the client has not sent
 * the end? */
bool owed_may_copy_in(const struct owed *owed);
/* May what is owed end a transaction? */
bool owed_may_end(const struct owed *owed);
void owed_entry_clear(struct owed_entry *entry);

#endif
