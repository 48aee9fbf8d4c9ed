/*
 * What becomes of each message that a client can send, in each state that the
 * client can be in: passed on, dropped, answered, held, or the end. A state or
 * a message that the tables of session/ have and this one does not fails.
 *
 * Then every ending, from the table of endings: what the client is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay_rig.h"

enum message {
#define X(letter, name, handler) MESSAGE_##name,
#include "session/messages.def"
#undef X
	MESSAGE_unknown,		/* a type that is no message */
	MESSAGES
};

static const struct {
	const char *name;
	const char *sample;
} messages[MESSAGES] = {
	[MESSAGE_Query] = { "Query", "Q SELECT 1" },
	[MESSAGE_Parse] = { "Parse", "P s1:SELECT 1" },
	[MESSAGE_Bind] = { "Bind", "B" },
	[MESSAGE_Describe] = { "Describe", "D" },
	[MESSAGE_Execute] = { "Execute", "E" },
	[MESSAGE_Close] = { "Close", "C s1" },
	[MESSAGE_Sync] = { "Sync", "S" },
	[MESSAGE_Flush] = { "Flush", "H" },
	[MESSAGE_FunctionCall] = { "FunctionCall", "F" },
	[MESSAGE_CopyData] = { "CopyData", "d one" },
	[MESSAGE_CopyDone] = { "CopyDone", "c" },
	[MESSAGE_CopyFail] = { "CopyFail", "f no" },
	[MESSAGE_Terminate] = { "Terminate", "X" },
	[MESSAGE_unknown] = { "a type that is no message", "z what" },
};

/* The letters of messages.def, for a sample that is of another type. */
static const char letters[MESSAGES] = {
#define X(letter, name, handler) letter,
#include "session/messages.def"
#undef X
	'z',
};

/* In the words of relay_rig.h. */
struct outcome {
	const char *server, *client;	/* what they get; NULL = no row */
	const char *owed;
	enum client_state after;
	bool held;			/* the message waits */
};

#define PASSED(as, owed)	{ as, "", owed, CLIENT_ACTIVE, false }
#define WAITS			{ "", "", "", CLIENT_WAITING, true }
#define DROPPED(after)		{ "", "", "", after, false }
#define ANSWERED(with, after)	{ "", with, "", after, false }
#define ENDS(with)		{ "", with, "", CLIENT_GONE, false }

/*
 * How a client gets there.
 */

static void
login_is_awaited(void)
{
	rig_connect();
}

static void
password_is_awaited(void)
{
	rig_log_in("me", "transaction", NULL);
}

static void
pool_has_no_server_yet(void)
{
	rig.no_servers = true;
	rig_log_in("me", "nothing_opens", NULL);
}

static void
no_server_is_to_be_had(void)
{
	rig_begin("transaction");
	far_close(&rig.server);
	rig_settle();
	rig.no_servers = true;
}

static void
waits_with_a_query(void)
{
	no_server_is_to_be_had();
	client_says("Q SELECT 0");
}

static void
is_in_a_transaction(void)
{
	rig_begin("transaction");
	client_says("Q BEGIN");
	server_says("C BEGIN; Z T");
}

static void
server_skips_to_a_sync(void)
{
	is_in_a_transaction();
	client_says("P :SELECT a; H");
	server_says("E 42703 no");
}

static void
server_reads_copy_data(void)
{
	is_in_a_transaction();
	client_says("Q COPY t FROM STDIN");
	server_says("G");
}

static void
has_a_session(void)
{
	rig_begin("session");
	client_says("Q SELECT 0");
	server_says("C SELECT 1; Z I");
}

static void
was_refused(void)
{
	rig_begin("transaction");
	client_end(rig_client(), END_WAIT_TIMEOUT, NULL);
	rig_settle();
}

static void
skips_its_batch(void)
{
	was_refused();
	client_says("P :SELECT 0");
}

static void
talks_to_the_console(void)
{
	rig_log_in("admin", "pgsluice", NULL);
}

static void
asks_to_cancel(void)
{
	rig_connect();
	client_move(rig_client(), CLIENT_CANCELLER);
}

static void
does_not_take_its_last_words(void)
{
	static const char many[65536];

	rig_begin("transaction");
	rig.client.deaf = true;
	while (stream_send(&rig_client()->s, many, sizeof(many)) ==
	    STREAM_SENT)
		continue;
	client_end(rig_client(), END_KILLED, NULL);
}

static void
has_gone(void)
{
	rig_begin("transaction");
	client_end(rig_client(), END_KILLED, NULL);
	rig_settle();
}

/*
 * The table. In a login and after the end the types of messages mean nothing,
 * and one outcome is for all.
 */
static const struct situation {
	void (*enter)(void);
	const char *name;
	const char *options;		/* of the configuration */
	struct outcome all;		/* or else: */
	struct outcome of[MESSAGES];
	enum client_state state;
} situations[] = {
	{ login_is_awaited, "login is awaited", "", .state = CLIENT_STARTUP,
	    .of = {
		[MESSAGE_Query] = ENDS("E08P01"),
		[MESSAGE_Parse] = ENDS("E08P01"),
		[MESSAGE_Bind] = ENDS("E08P01"),
		[MESSAGE_Describe] = ENDS("E08P01"),
		[MESSAGE_Execute] = ENDS("E08P01"),
		[MESSAGE_Close] = ENDS("E08P01"),
		[MESSAGE_Sync] = ENDS("E08P01"),
		[MESSAGE_Flush] = ENDS("E08P01"),
		[MESSAGE_FunctionCall] = ENDS("E08P01"),
		[MESSAGE_CopyData] = ENDS("E08P01"),
		[MESSAGE_CopyDone] = ENDS("E08P01"),
		[MESSAGE_CopyFail] = ENDS("E08P01"),
		/* But for one who has thought better of it. */
		[MESSAGE_Terminate] = ENDS(""),
		[MESSAGE_unknown] = ENDS("E08P01"),
	} },
	{ password_is_awaited, "password is awaited", "auth_type = plain\n",
	    .state = CLIENT_AUTH, .all = ENDS("E08P01") },
	{ pool_has_no_server_yet, "pool has no server yet", "",
	    .state = CLIENT_WELCOME,
	    .all = { "", "", "", CLIENT_WELCOME, true } },
	{ no_server_is_to_be_had, "no server is to be had", "",
	    .state = CLIENT_IDLE, .of = {
		[MESSAGE_Query] = WAITS,
		[MESSAGE_Parse] = WAITS,
		[MESSAGE_Bind] = WAITS,
		[MESSAGE_Describe] = WAITS,
		[MESSAGE_Execute] = WAITS,
		[MESSAGE_Close] = WAITS,
		[MESSAGE_Sync] = WAITS,
		[MESSAGE_Flush] = DROPPED(CLIENT_IDLE),
		[MESSAGE_FunctionCall] = WAITS,
		[MESSAGE_CopyData] = DROPPED(CLIENT_IDLE),
		[MESSAGE_CopyDone] = DROPPED(CLIENT_IDLE),
		[MESSAGE_CopyFail] = DROPPED(CLIENT_IDLE),
		[MESSAGE_Terminate] = ENDS(""),
		[MESSAGE_unknown] = ENDS("E08P01"),
	} },
	{ waits_with_a_query, "waits with a query", "",
	    .state = CLIENT_WAITING, .all = WAITS },
	{ is_in_a_transaction, "is in a transaction", "",
	    .state = CLIENT_ACTIVE, .of = {
		[MESSAGE_Query] = PASSED("Q:SELECT_1", "Q"),
		[MESSAGE_Parse] = PASSED("P#:SELECT_1", "P"),
		/* There is no unnamed statement: nor may there be one of
		 * somebody else's. */
		[MESSAGE_Bind] = PASSED("C B", "-C B"),
		[MESSAGE_Describe] = PASSED("C D", "-C D"),
		[MESSAGE_Execute] = PASSED("E", "E"),
		[MESSAGE_Close] = ANSWERED("3", CLIENT_ACTIVE),
		[MESSAGE_Sync] = PASSED("S", "S"),
		[MESSAGE_Flush] = PASSED("H", ""),
		[MESSAGE_FunctionCall] = PASSED("F", "F"),
		[MESSAGE_CopyData] = PASSED("d", ""),
		[MESSAGE_CopyDone] = PASSED("c", ""),
		[MESSAGE_CopyFail] = PASSED("f", ""),
		[MESSAGE_Terminate] = { "Q:ROLLBACK", "", "-Q", CLIENT_GONE,
		    false },
		[MESSAGE_unknown] = { "Q:ROLLBACK", "E08P01", "-Q",
		    CLIENT_GONE, false },
	} },
	{ server_skips_to_a_sync, "server skips to a Sync", "",
	    .state = CLIENT_ACTIVE, .of = {
		[MESSAGE_Query] = PASSED("Q:SELECT_1", ""),
		[MESSAGE_Parse] = PASSED("Ps1:SELECT_1", ""),
		[MESSAGE_Bind] = PASSED("B", ""),
		[MESSAGE_Describe] = PASSED("D", ""),
		[MESSAGE_Execute] = PASSED("E", ""),
		[MESSAGE_Close] = PASSED("Cs1", ""),
		[MESSAGE_Sync] = PASSED("S", "S"),
		[MESSAGE_Flush] = PASSED("H", ""),
		[MESSAGE_FunctionCall] = PASSED("F", ""),
		[MESSAGE_CopyData] = PASSED("d", ""),
		[MESSAGE_CopyDone] = PASSED("c", ""),
		[MESSAGE_CopyFail] = PASSED("f", ""),
		[MESSAGE_Terminate] = ENDS(""),
		[MESSAGE_unknown] = ENDS("E08P01"),
	} },
	{ server_reads_copy_data, "server reads COPY data", "",
	    .state = CLIENT_ACTIVE, .of = {
		[MESSAGE_Query] = PASSED("Q:SELECT_1", "Q Q"),
		[MESSAGE_Parse] = PASSED("P#:SELECT_1", "Q P"),
		[MESSAGE_Bind] = PASSED("C B", "Q -C B"),
		[MESSAGE_Describe] = PASSED("C D", "Q -C D"),
		[MESSAGE_Execute] = PASSED("E", "Q E"),
		[MESSAGE_Close] = PASSED("", "Q =C"),
		[MESSAGE_Sync] = PASSED("", "Q"),
		[MESSAGE_Flush] = PASSED("H", "Q"),
		[MESSAGE_FunctionCall] = PASSED("F", "Q F"),
		[MESSAGE_CopyData] = PASSED("d", "Q"),
		[MESSAGE_CopyDone] = PASSED("c", "Q"),
		[MESSAGE_CopyFail] = PASSED("f", "Q"),
		[MESSAGE_Terminate] = ENDS(""),
		[MESSAGE_unknown] = ENDS("E08P01"),
	} },
	{ has_a_session, "has a session, with names of its own", "",
	    .state = CLIENT_ACTIVE, .of = {
		[MESSAGE_Query] = PASSED("Q:SELECT_1", "Q"),
		[MESSAGE_Parse] = PASSED("Ps1:SELECT_1", "P"),
		[MESSAGE_Bind] = PASSED("B", "B"),
		[MESSAGE_Describe] = PASSED("D", "D"),
		[MESSAGE_Execute] = PASSED("E", "E"),
		[MESSAGE_Close] = PASSED("Cs1", "C"),
		[MESSAGE_Sync] = PASSED("S", "S"),
		[MESSAGE_Flush] = PASSED("H", ""),
		[MESSAGE_FunctionCall] = PASSED("F", "F"),
		[MESSAGE_CopyData] = PASSED("d", ""),
		[MESSAGE_CopyDone] = PASSED("c", ""),
		[MESSAGE_CopyFail] = PASSED("f", ""),
		[MESSAGE_Terminate] = { "Q:DISCARD_ALL", "", "-Q", CLIENT_GONE,
		    false },
		[MESSAGE_unknown] = { "Q:DISCARD_ALL", "E08P01", "-Q",
		    CLIENT_GONE, false },
	} },
	{ was_refused, "was refused", "", .state = CLIENT_REFUSED, .of = {
		[MESSAGE_Query] = ANSWERED("ZI", CLIENT_IDLE),
		[MESSAGE_Parse] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Bind] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Describe] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Execute] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Close] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Sync] = ANSWERED("ZI", CLIENT_IDLE),
		[MESSAGE_Flush] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_FunctionCall] = ANSWERED("ZI", CLIENT_IDLE),
		[MESSAGE_CopyData] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_CopyDone] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_CopyFail] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Terminate] = ENDS(""),
		[MESSAGE_unknown] = ENDS("E08P01"),
	} },
	{ skips_its_batch, "skips its batch", "", .state = CLIENT_SKIPPING,
	    .of = {
		[MESSAGE_Query] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Parse] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Bind] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Describe] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Execute] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Close] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Sync] = ANSWERED("ZI", CLIENT_IDLE),
		[MESSAGE_Flush] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_FunctionCall] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_CopyData] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_CopyDone] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_CopyFail] = DROPPED(CLIENT_SKIPPING),
		[MESSAGE_Terminate] = ENDS(""),
		[MESSAGE_unknown] = ENDS("E08P01"),
	} },
	{ talks_to_the_console, "talks to the console", "",
	    .state = CLIENT_CONSOLE, .all = DROPPED(CLIENT_CONSOLE) },
	{ asks_to_cancel, "asks to cancel", "", .state = CLIENT_CANCELLER,
	    .all = DROPPED(CLIENT_CANCELLER) },
	{ does_not_take_its_last_words, "does not take its last words", "",
	    .state = CLIENT_CLOSING,
	    .all = { "", "", "", CLIENT_CLOSING, true } },
	{ has_gone, "has gone", "", .state = CLIENT_GONE, .all = ENDS("") },
};

#define SITUATIONS (sizeof(situations) / sizeof(situations[0]))

static enum client_state
client_state(void)
{
	const struct client *client = rig_client();

	return client == NULL ? CLIENT_GONE : (enum client_state)client->state;
}

static bool
is_text(const char *what, const char *got, const char *expected)
{
	if (strcmp(got, expected) == 0)
		return true;
	print_error("    %s: \"%s\", not \"%s\"\n", what, got, expected);
	return false;
}

static bool
is_outcome(const struct outcome *expected)
{
	const struct client *client = rig_client();
	bool good = is_text("the server gets", server_got(),
	    expected->server);

	good = is_text("the client gets", client_got(), expected->client) &&
	    good;
	good = is_text("owed", rig_owed(), expected->owed) && good;
	if (client_state() != expected->after) {
		print_error("    state %d, not %d\n", (int)client_state(),
		    (int)expected->after);
		good = false;
	}
	if (client != NULL && (client->s.held.len > 0) != expected->held) {
		print_error("    %s\n", expected->held ? "not held" : "held");
		good = false;
	}
	return good;
}

static bool
message_does(const struct situation *situation, enum message message)
{
	const struct outcome *of = &situation->of[message];
	const struct outcome *expected =
	    of->server != NULL ? of : &situation->all;
	bool good;

	rig_start(situation->options);
	situation->enter();
	assert_int_equal(client_state(), situation->state);
	buf_clear(&rig.client.got);
	buf_clear(&rig.server.got);
	buf_clear(&rig.script);
	compose(&rig.script, messages[message].sample, compose_request);
	far_write(&rig.client, rig.script.at, rig.script.len);
	rig_settle();
	good = expected->server != NULL && is_outcome(expected);
	if (!good)
		print_error("  %s, when client %s%s\n",
		    messages[message].name, situation->name,
		    expected->server == NULL ? ": no row for that" : "");
	rig_finish();
	return good;
}

static void
each_message_does_in_each_state_what_the_table_says(void **state)
{
	unsigned bad = 0;

	(void)state;
	for (size_t i = 0; i < SITUATIONS; i++)
		for (int message = 0; message < MESSAGES; message++) {
			assert_non_null(messages[message].sample);
			assert_int_equal(messages[message].sample[0],
			    letters[message]);
			bad += !message_does(&situations[i],
			    (enum message)message);
		}
	assert_int_equal(bad, 0);
}

static void
the_table_has_each_state(void **state)
{
	bool has[CLIENT_STATES] = { false };

	(void)state;
	for (size_t i = 0; i < SITUATIONS; i++)
		has[situations[i].state] = true;
	for (int i = 0; i < CLIENT_STATES; i++)
		if (!has[i])
			fail_msg("no situation in state %d", i);
}

/*
 * However it is cut, the same comes out.
 */

static void
client_says_in_pieces(const char *script, size_t size)
{
	struct buf bytes = { 0 };

	compose(&bytes, script, compose_request);
	for (size_t at = 0; at < bytes.len; at += size) {
		size_t n = bytes.len - at < size ? bytes.len - at : size;
		assert_int_equal(far_write(&rig.client, bytes.at + at, n), n);
		rig_settle();
	}
	buf_finish(&bytes);
}

static void
messages_may_come_in_pieces_of_any_size(void **state)
{
	(void)state;
	for (size_t size = 1; size < 64; size++) {
		rig_start("");
		rig_begin("transaction");
		client_says_in_pieces("P s1:SELECT 1; P :SELECT 2; B s1; "
		    "D s1; E; B; C s1; S; Q SELECT 3", size);
		assert_string_equal(server_got(), "P#:SELECT_1 P:SELECT_2 B# "
		    "D# E B S Q:SELECT_3");
		assert_string_equal(rig_owed(), "P P B D E B =C S Q");
		assert_string_equal(client_got(), "");
		rig_finish();
	}
}

static void
a_slow_sender_holds_no_server(void **state)
{
	static const struct {
		const char *script, *passed;
	} rows[] = {
		{ "Q SELECT 1", "Q:SELECT_1" },
		{ "P s1:SELECT 1", "P#:SELECT_1" },
		{ "B s1", "Bs1" },
		{ "D @", "D@" },
		{ "E", "E" },
		{ "F", "F" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf bytes = { 0 };

		rig_start("");
		rig_begin("transaction");
		compose(&bytes, rows[i].script, compose_request);
		far_write(&rig.client, bytes.at, bytes.len - 1);
		rig_settle();
		assert_int_equal(client_state(), CLIENT_IDLE);
		assert_int_equal(rig_server()->state, SERVER_IDLE);
		far_write(&rig.client, bytes.at + bytes.len - 1, 1);
		rig_settle();
		assert_string_equal(server_got(), rows[i].passed);
		buf_finish(&bytes);
		rig_finish();
	}
}

static void
a_length_that_cannot_be_ends_the_client(void **state)
{
	static const char bad[][5] = {
		{ 'Q', 0, 0, 0, 0 }, { 'Q', 0, 0, 0, 3 },
		{ 'S', '\x80', 0, 0, 0 }, { 'd', '\xff', '\xff', '\xff',
		    '\xff' },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		rig_start("");
		rig_begin("transaction");
		far_write(&rig.client, bad[i], sizeof(bad[i]));
		rig_settle();
		assert_string_equal(client_got(), "E08P01");
		assert_true(rig.client.ended);
		assert_string_equal(server_got(), "");
		rig_finish();
	}
}

static void
bodies_that_make_no_sense_end_the_client(void **state)
{
	/* Type, and bytes of a body that has no end, or too much of one. */
	static const struct {
		char type;
		const char *body;
		size_t len;
	} bad[] = {
		{ 'P', "no end", 6 }, { 'P', "s1\0no end", 9 },
		{ 'B', "no end", 6 }, { 'B', "\0no end", 7 },
		{ 'D', "", 0 }, { 'D', "Sno end", 7 }, { 'D', "Ss1\0x", 5 },
		{ 'C', "", 0 }, { 'C', "Pno end", 7 }, { 'C', "P\0x", 3 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct buf bytes = { 0 };
		size_t began = msg_begin(&bytes, bad[i].type);

		rig_start("");
		rig_begin("transaction");
		buf_add(&bytes, bad[i].body, bad[i].len);
		msg_end(&bytes, began);
		far_write(&rig.client, bytes.at, bytes.len);
		rig_settle();
		assert_string_equal(client_got(), "E08P01");
		assert_true(rig.client.ended);
		assert_string_equal(server_got(), "");
		buf_finish(&bytes);
		rig_finish();
	}
}

static void
limits_of_the_configuration_are_kept(void **state)
{
	static const struct {
		const char *options, *script, *told;
	} rows[] = {
		{ "disable_pqexec = 1\n", "Q SELECT 1", "E0A000" },
		{ "max_packet_size = 1024\n", "d x", "" },
	};
	static char long_data[2048];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		rig_start(rows[i].options);
		rig_begin("transaction");
		client_says(rows[i].script);
		assert_string_equal(client_got(), rows[i].told);
		rig_finish();
	}
	memset(long_data, 'x', sizeof(long_data));
	memcpy(long_data, "d ", 2);
	long_data[sizeof(long_data) - 1] = '\0';
	rig_start("max_packet_size = 1024\n");
	rig_begin("transaction");
	client_says(long_data);
	assert_string_equal(client_got(), "E54000");
	rig_finish();
}

/*
 * Endings.
 */

static uint64_t
count_of(int counter)
{
	const struct client *client = rig_client();

	return counter < 0 ? 0 :
	    client->pool->shard[0].stat.value[counter];
}

static struct error_fields
the_error(void)
{
	struct error_fields fields;
	struct frame frame = { 0 };

	assert_int_equal(frame_peek(rig.client.got.at, rig.client.got.len,
	    &frame), FRAME_OK);
	assert_int_equal(frame.type, 'E');
	assert_int_equal(rig.client.got.len, FRAME_HEADER + frame.body);
	assert_true(error_parse((struct span){ rig.client.got.at +
	    FRAME_HEADER, frame.body }, &fields));
	return fields;
}

static void
ending_is_told(enum ending ending)
{
	const struct ending_row *row = ending_row(ending);
	const struct pool *pool;
	uint64_t count;

	rig_start("");
	rig_begin("transaction");
	pool = rig_client()->pool;
	count = count_of(row->counter);
	client_end(rig_client(), ending, "a detail");
	rig_settle();
	if (row->counter >= 0)
		assert_int_equal(pool->shard[0].stat.value[row->counter],
		    count + 1);
	if (row->severity != ENDING_NONE) {
		struct error_fields fields = the_error();
		assert_true(span_is(fields.severity,
		    row->severity == ENDING_ERROR ? "ERROR" : "FATAL"));
		assert_true(span_is(fields.sqlstate, row->sqlstate));
		assert_true(span_is(fields.message, row->text));
		assert_true(span_is(fields.detail, "a detail"));
	} else {
		assert_int_equal(rig.client.got.len, 0);
	}
	assert_int_equal(rig.client.ended, row->severity != ENDING_ERROR);
	assert_int_equal(client_state(), row->severity == ENDING_ERROR ?
	    CLIENT_REFUSED : CLIENT_GONE);
	assert_int_equal(rig_server()->state, SERVER_IDLE);
	rig_finish();
}

static void
each_ending_is_told_as_its_row_says(void **state)
{
	(void)state;
	for (int ending = 0; ending < END_COUNT; ending++) {
		const struct ending_row *row =
		    ending_row((enum ending)ending);

		assert_true(row->text[0] != '\0');
		assert_int_equal(strlen(row->sqlstate),
		    row->severity == ENDING_NONE ? 0 : 5);
		ending_is_told((enum ending)ending);
	}
}

static void
one_that_waits_gets_the_error_and_its_request_is_skipped(void **state)
{
	static const struct {
		const char *waits_with, *told, *then;
		enum client_state after;
	} rows[] = {
		{ "Q SELECT 1", "E53300 ZI", "", CLIENT_IDLE },
		{ "F", "E53300 ZI", "", CLIENT_IDLE },
		{ "P :SELECT 1; B; E", "E53300", "ZI", CLIENT_SKIPPING },
		{ "P :SELECT 1; B; E; S", "E53300 ZI", "", CLIENT_IDLE },
		{ "S", "E53300 ZI", "", CLIENT_IDLE },
		/* What stands behind what was refused is another request. */
		{ "Q SELECT 1; P :SELECT 2", "E53300 ZI", "", CLIENT_WAITING },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		rig_start("");
		no_server_is_to_be_had();
		client_says(rows[i].waits_with);
		assert_int_equal(client_state(), CLIENT_WAITING);
		client_end(rig_client(), END_WAIT_TIMEOUT, NULL);
		rig_settle();
		assert_string_equal(client_got(), rows[i].told);
		assert_int_equal(client_state(), rows[i].after);
		if (rows[i].after == CLIENT_SKIPPING) {
			client_says("S");
			assert_string_equal(client_got(), rows[i].then);
			assert_int_equal(client_state(), CLIENT_IDLE);
		}
		rig_finish();
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_teardown(name, rig_is_done)
		TEST(each_message_does_in_each_state_what_the_table_says),
		TEST(the_table_has_each_state),
		TEST(messages_may_come_in_pieces_of_any_size),
		TEST(a_slow_sender_holds_no_server),
		TEST(a_length_that_cannot_be_ends_the_client),
		TEST(bodies_that_make_no_sense_end_the_client),
		TEST(limits_of_the_configuration_are_kept),
		TEST(each_ending_is_told_as_its_row_says),
		TEST(one_that_waits_gets_the_error_and_its_request_is_skipped),
	};

	alarm(120);			/* what hangs has failed */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
