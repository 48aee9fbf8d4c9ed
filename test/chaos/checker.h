/*
 * The cross-talk and ledger checker: what its parts share.
 *
 * It is read best from checker.c, which says what the whole is for.
 */
#ifndef CHECKER_H
#define CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
	STATEMENT_NAMES = 5,	/* every client uses s1..s5, for other texts */
	TRACE_LINES = 48,	/* what a violation's trace goes back */
	MAX_CANCELS = 64,	/* cancel requests under way at one time */
	NAME_SIZE = 48		/* any name or setting's value, with its NUL */
};

/* ---- bytes (checker_wire.c) ------------------------------------------- */

/* A growing run of bytes. All zero is an empty one. */
struct bytes {
	char *at;
	size_t len, cap;
};

void bytes_add(struct bytes *b, const void *data, size_t len);
void bytes_print(struct bytes *b, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void bytes_drop_front(struct bytes *b, size_t len);
void bytes_free(struct bytes *b);
/* Room for one more item of `size` bytes in an array; the array moves. */
void *array_grow(void *items, size_t count, size_t *cap, size_t size);

uint16_t get_u16(const char *p);
uint32_t get_u32(const char *p);

/* A message being built: its length is filled in by message_end(). */
size_t message_begin(struct bytes *b, char type);
void message_end(struct bytes *b, size_t start);
void put_u16(struct bytes *b, unsigned value);
void put_u32(struct bytes *b, uint32_t value);
void put_text(struct bytes *b, const char *text);	/* with its NUL */

/* Reads a body; `bad` is set, and stays set, when it ends too early. */
struct cursor {
	const char *at, *end;
	bool bad;
};

uint16_t cursor_u16(struct cursor *cur);
uint32_t cursor_u32(struct cursor *cur);
const char *cursor_text(struct cursor *cur);
const char *cursor_bytes(struct cursor *cur, size_t len);

/* One field of an ErrorResponse or NoticeResponse; "" if it is not there. */
const char *error_field(const char *body, size_t len, char field);

uint64_t mix(uint64_t x);

/* The i-th byte of the payload that belongs to a nonce: 'a'..'p'. */
static inline char
payload_byte(uint64_t nonce, size_t i)
{
	return (char)('a' + ((mix(nonce + i / 16) >> (4 * (i % 16))) & 15));
}

/* ---- what is counted -------------------------------------------------- */

enum counter {
#define X(name, dangerous, text) COUNT_##name,
#include "checker_counters.def"
#undef X
	COUNTERS
};

enum op {
#define X(name, weight, cancel, doom, text) OP_##name,
#include "checker_ops.def"
#undef X
	OPS,
	OP_login = OPS,
	OP_recover
};

/* ---- options and totals ----------------------------------------------- */

struct checker {
	const char *host, *direct_host, *admin;
	int port, direct_port;
	unsigned clients, users, databases;
	uint64_t ops, seed;
	unsigned seconds, stall_s, floor;
	bool misbehave, setup, faults, search_path, session_set;
	bool whole_startup;
	bool without[OPS];

	uint64_t started_us, now_us;
	uint64_t ops_begun, ops_done, nonces;
	uint64_t done[OPS];
	uint64_t counts[COUNTERS];
	unsigned violations, alive;
	bool stopping;
	int epoll;
	/* what a session has that asked for nothing, from the direct port */
	char zone[NAME_SIZE], style[NAME_SIZE];
};

extern struct checker checker;

#define COUNT(name) (checker.counts[COUNT_##name]++)

/* ---- a plan: what one operation sends, and what must come back -------- */

enum check {
	CHECK_TYPE,	/* the type of the message says it all */
	CHECK_TAG,	/* CommandComplete: words */
	CHECK_CODE,	/* ErrorResponse: words, perhaps "a|b" */
	CHECK_READY,	/* ReadyForQuery: status */
	CHECK_NAMES,	/* RowDescription: first column is called words */
	CHECK_IDENT,	/* DataRow: who I am, with nonce, and a payload */
	CHECK_SERIES,	/* DataRow: nonce + i, user */
	CHECK_LINE,	/* CopyData: "nonce + i <tab> user" */
	CHECK_PARAMS,	/* ParameterDescription: one type OID, in size */
	CHECK_CALL	/* FunctionCallResponse: words */
};

enum payload {
	PAYLOAD_WORDS,	/* the text given */
	PAYLOAD_REPEAT,	/* "<nonce>." again and again, size times */
	PAYLOAD_PARAM	/* size bytes of payload_byte() */
};

/* One message, or `repeat` of one kind, that the server has to send. */
struct want {
	char type, status;
	enum check check;
	enum payload payload;
	unsigned repeat, seen;
	int statement;		/* s1.. as 0.., -2 all of them, or -1 */
	int group;		/* ledger group it acknowledges, or -1 */
	int setting;		/* setting that it makes, or -1 */
	bool local, unnamed;
	uint64_t nonce;
	size_t words, value;	/* offsets into plan.words, 0 is "" */
	size_t size;
	size_t resume;		/* 'Z': where its Sync or Query begins */
};

/* Bytes sent together; the next step waits for this one's replies. */
struct step {
	size_t out_end, want_end;
	unsigned delay_us;
};

/* Ledger rows that stand or fall together. */
struct group {
	size_t commit_at;	/* before this much is sent it cannot commit */
	bool settled;
};

struct row {
	uint64_t nonce;
	unsigned group;
};

struct plan {
	enum op op;
	struct bytes out, words;
	struct want *wants;
	struct step *steps;
	struct group *groups;
	struct row *rows;
	size_t *marks;		/* where messages begin in `out` */
	size_t want_count, want_cap, step_count, step_cap;
	size_t group_count, group_cap, row_count, row_cap;
	size_t mark_count, mark_cap;
	char block;		/* while building: I, T or E */
	bool mute;		/* while building: the server is skipping */
	size_t last_start;	/* while building: the last message */
};

/* ---- settings of a session -------------------------------------------- */

enum setting {
	SET_APP, SET_ZONE, SET_STYLE, SET_PATH, SETTINGS
};

typedef char setting_value[NAME_SIZE];

struct statement {
	bool prepared;
	char tag[NAME_SIZE];	/* what its rows must carry */
	uint32_t oid;		/* the type declared for $1 */
	uint32_t pid;		/* the server that was there at Parse */
};

/* ---- mischief --------------------------------------------------------- */

enum doom {
	DOOM_NONE,	/* stays to the end */
	DOOM_SENT,	/* when doom_at bytes of the plan are sent */
	DOOM_RECEIVED,	/* when doom_at bytes of replies are read */
	DOOM_STEP	/* before step doom_at */
};

enum leave {
	LEAVE_RST, LEAVE_FIN, LEAVE_TERMINATE, LEAVE_HALF
};

struct mischief {
	enum doom doom;
	enum leave leave;
	size_t doom_at;
	uint64_t cancel_us;	/* when to cancel; 0 never */
	size_t freeze_at;	/* freeze once so much was read; 0 never */
	unsigned freeze_us;
	size_t read_max, write_max;
	size_t narrow_until;	/* write_max counts up to here */
};

/* ---- a client --------------------------------------------------------- */

enum state {
	CLIENT_IDLE,	/* not connected, or about to start something */
	CLIENT_CONNECTING,
	CLIENT_LOGIN,
	CLIENT_BUSY,
	CLIENT_READY,	/* logged in, no plan */
	CLIENT_LEAVING,	/* half closed: reads what comes until EOF */
	CLIENT_DONE
};

struct trace {
	char way, type;
	uint32_t len;
	char text[104];
};

struct client {
	unsigned slot, generation;
	uint64_t rng;
	enum state state;
	int fd;
	uint32_t interest;	/* what epoll was told */
	unsigned user, database;
	uint32_t key_pid, key_secret;		/* 0: no key known */
	uint32_t old_pid, old_secret;		/* of a former connection */
	setting_value startup[SETTINGS];	/* asked for at login */
	setting_value session[SETTINGS];	/* committed */
	setting_value now[SETTINGS];		/* in this transaction */
	setting_value local[SETTINGS];		/* SET LOCAL, "" if none */
	setting_value told[SETTINGS];		/* by ParameterStatus */
	struct statement statements[STATEMENT_NAMES];
	unsigned names;				/* made so far, for SET */

	struct plan plan;
	size_t sent, step, want, marked;
	uint64_t received;			/* bytes, in this plan */
	struct bytes in;
	bool in_block, savepoint, copying, segment_failed, rolled_back;
	bool struck, block_failed;
	bool cancel_allowed;			/* 57014 may come now */
	bool skip_all;				/* leaving, after an error */
	unsigned cancels;			/* requests under way */
	unsigned ready_seen;			/* 'Z' in this plan */
	uint32_t last_pid, tx_pid, held_pid, unnamed_pid;
	struct mischief mischief;
	bool wait_for_cancel;			/* before the next operation */
	uint64_t wake_us, frozen_until_us, progress_us;
	uint64_t step_us;			/* when this step began */

	struct trace trace[TRACE_LINES];
	unsigned trace_at;
};

extern struct client *clients;

uint32_t roll(struct client *c, uint32_t sides);	/* 0..sides-1 */
bool chance(struct client *c, unsigned permille);
const char *op_name(enum op op);

/* checker.c */
void client_wants(struct client *c);	/* tells epoll what is awaited */
void client_close(struct client *c);
void violation(struct client *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void trace_note(struct client *c, char way, char type, const char *text,
	size_t len);

/* checker_plan.c */
void plan_reset(struct plan *p, enum op op);
void plan_free(struct plan *p);
void plan_query(struct plan *p, const char *sql);
void plan_parse(struct plan *p, const char *name, uint32_t oid,
	const char *sql);
void plan_bind(struct plan *p, const char *portal, const char *name,
	unsigned count, const struct bytes *params);
void plan_describe(struct plan *p, char kind, const char *name);
void plan_execute(struct plan *p, const char *portal, uint32_t max_rows);
void plan_close(struct plan *p, char kind, const char *name);
void plan_call_quote(struct plan *p, const char *text);
void plan_copy_data(struct plan *p, const char *data, size_t len);
void plan_message(struct plan *p, char type, const char *text);
void plan_sync(struct plan *p);
void plan_step(struct plan *p, unsigned delay_us);
struct want *plan_want(struct plan *p, char type, enum check check);
void plan_want_types(struct plan *p, const char *types);
void plan_want_tag(struct plan *p, const char *tag);
void plan_want_error(struct plan *p, const char *codes);
void plan_want_ready(struct plan *p);
size_t plan_words(struct plan *p, const char *words);
unsigned plan_group(struct plan *p);
uint64_t plan_row(struct plan *p, unsigned group);
void plan_commits(struct plan *p, unsigned group);
void plan_fails(struct plan *p, unsigned group);
uint64_t nonce_next(void);

/* checker_ops.c */
void op_plan(struct client *c);
void op_plan_rollback(struct client *c);
void op_plan_login(struct client *c);

/* checker_match.c */
void match_message(struct client *c, char type, const char *body, size_t len);
void settings_start(struct client *c);
void client_release_server(struct client *c);

/* checker_mischief.c */
void mischief_choose(struct client *c);
void mischief_tick(struct client *c);
void mischief_late(struct client *c);
enum leave leave_choose(struct client *c);
void client_drop(struct client *c, enum leave leave);
void client_lost(struct client *c);
void cancel_event(unsigned index);
bool cancel_any(void);

/* checker_ledger.c */
void ledger_note(uint64_t nonce, const struct client *c);
void ledger_settle(struct client *c, unsigned group, char outcome,
	const char *why);
void ledger_settle_rest(struct client *c, const char *why);
void ledger_prepare(void);
void ledger_read(void);
int connect_to(const char *host, int port, int flags);

#endif
