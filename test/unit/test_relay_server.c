/*
 * What becomes of each message that a server can send: by what it owes to a
 * client, and by its own state when it has none. A kind of debt or a state
 * that the tables here do not have fails.
 *
 * The rules that take more than one message are in test_relay_rules.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay_rig.h"

/* All that Postgres sends, and some that it never does. */
static const char *const replies[] = {
	"1", "2", "3", "A LISTEN", "C SELECT 1", "D", "E 42601 no", "G", "H",
	"I", "K 12345678", "N 00000 hm", "R 0000", "S TimeZone=Foo", "T",
	"V", "W", "Z T", "c", "d x", "n", "s", "t", "v 00000000", "p", "\t?",
};

#define REPLIES (sizeof(replies) / sizeof(replies[0]))

/*
 * With a client.
 */

static void
transaction_begins(void)
{
	rig_begin("transaction");
	client_says("Q BEGIN");
	server_says("C BEGIN; Z T");
}

static void
nothing_is_owed(void)
{
	transaction_begins();
}

static void
parse_is_owed(void)
{
	transaction_begins();
	client_says("P s1:SELECT 1");
}

static void
bind_is_owed(void)
{
	parse_is_owed();
	client_says("B s1");
	server_says("1");
}

static void
describe_is_owed(void)
{
	parse_is_owed();
	client_says("D s1");
	server_says("1");
}

static void
execute_is_owed(void)
{
	transaction_begins();
	client_says("E");
}

static void
close_is_owed(void)
{
	transaction_begins();
	client_says("C @");
}

static void
sync_is_owed(void)
{
	transaction_begins();
	client_says("S");
}

static void
query_is_owed(void)
{
	transaction_begins();
	client_says("Q SELECT 1");
}

static void
function_is_owed(void)
{
	transaction_begins();
	client_says("F");
}

/* The client's statement is not on the new server. */
static void
parse_of_ours_is_owed(void)
{
	rig_begin("transaction");
	client_says("P s1:SELECT 1; S");
	server_says("1; Z I");
	far_close(&rig.server);
	rig_settle();
	client_says("Q BEGIN");
	server_says("C BEGIN; Z T");
	client_says("B s1");
}

static void
close_of_ours_is_owed(void)
{
	transaction_begins();
	client_says("B");
}

/* The client's parameters are set first. They have been accepted before. */
static void
query_of_ours_is_owed(void)
{
	static unsigned number;
	char zone[32], row[64];

	/* New each time: once accepted, it would not be tried at login. */
	snprintf(zone, sizeof(zone), "Zone%u", number++);
	snprintf(row, sizeof(row), "D v,TimeZone,%s; C SELECT 1; Z I", zone);
	rig_log_in("me", "transaction", zone);
	server_says("C SET; Z I");
	server_says(row);
	far_close(&rig.server);
	rig_settle();
	client_says("Q SELECT 1");
}

/*
 * Letters of replies: those that take the first debt off, and those that
 * leave it. Any other ends the server, but for E. Asynchronous ones (A, S)
 * are passed on even amid replies to a question of ours, all others are not.
 */
static const struct debt {
	const char *name;
	enum owed_kind kind;
	enum owed_action action;
	void (*enter)(void);
	const char *owed;		/* as in rig_owed() */
	const char *takes, *leaves;
	const char *then_owed;		/* when it was taken off */
	const char *error_told, *error_owed;
	const char *lost_told;
	bool client_stays;		/* when the server is lost */
} debts[] = {
	{ "Parse", OWED_PARSE, OWED_FORWARD, parse_is_owed, "P",
	    "1", "ANSDdctHVnTsIC", "", "E42601", "", "E08006", false },
	{ "Bind", OWED_BIND, OWED_FORWARD, bind_is_owed, "B",
	    "2", "ANSDdctHVnTsIC", "", "E42601", "", "E08006", false },
	{ "Describe", OWED_DESCRIBE, OWED_FORWARD, describe_is_owed, "D",
	    "Tn", "ANSDdctHVsIC", "", "E42601", "", "E08006", false },
	{ "Execute", OWED_EXECUTE, OWED_FORWARD, execute_is_owed, "E",
	    "CIs", "ANSDdctHVnTG", "", "E42601", "", "E08006", false },
	{ "Close", OWED_CLOSE, OWED_FORWARD, close_is_owed, "C",
	    "3", "ANSDdctHVnTsIC", "", "E42601", "", "E08006", false },
	{ "Sync", OWED_SYNC, OWED_FORWARD, sync_is_owed, "S",
	    "Z", "ANSDdctHVnTsIC", "", "E42601", "S", "E08006", false },
	{ "Query", OWED_QUERY, OWED_FORWARD, query_is_owed, "Q",
	    "Z", "ANSDdctHVnTsICG", "", "E42601", "Q", "E08006", false },
	{ "FunctionCall", OWED_FUNCTION, OWED_FORWARD, function_is_owed, "F",
	    "Z", "ANSDdctHVnTsIC", "", "E42601", "F", "E08006", false },
	{ "our Parse", OWED_PARSE, OWED_SWALLOW, parse_of_ours_is_owed, "-P B",
	    "1", "ANSDdctHVnTsIC", "B", "E42601", "", "E08006", false },
	{ "our Close", OWED_CLOSE, OWED_SWALLOW, close_of_ours_is_owed, "-C B",
	    "3", "ANSDdctHVnTsIC", "B", "E42601", "", "E08006", false },
	/* What was accepted once is refused: the request runs behind it in a
	 * session that is not the client's. */
	{ "our Query", OWED_QUERY, OWED_SWALLOW, query_of_ours_is_owed, "-Q Q",
	    "Z", "ANSDdctHVnTsIC", "Q", "E08007", "", "E08007 ZI", true },
	{ "nothing", OWED_COPY_DONE, OWED_FORWARD, nothing_is_owed, "",
	    "", "ANS", "", "", "", "E08006", false },
};

#define DEBTS (sizeof(debts) / sizeof(debts[0]))

/* As a client gets it: in the words of client_got(). */
static void
as_told(const char *reply, char *told)
{
	buf_clear(&rig.script);
	compose(&rig.script, reply, compose_reply);
	struct far far = { .got = rig.script };
	rig.script = (struct buf){ 0 };
	far_tell(&far, told, tell_reply);
	buf_finish(&far.got);
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
reply_does(const struct debt *debt, const char *reply)
{
	char letter = reply[0];
	bool takes = strchr(debt->takes, letter) != NULL;
	bool leaves = strchr(debt->leaves, letter) != NULL;
	bool passes = debt->action == OWED_FORWARD ||
	    letter == 'A' || letter == 'S';
	bool lost = !takes && !leaves && letter != 'E';
	char told[sizeof(rig.text[0])];
	bool good;

	rig_start("");
	debt->enter();
	assert_string_equal(rig_owed(), debt->owed);
	buf_clear(&rig.client.got);
	if (letter == 'E')
		snprintf(told, sizeof(told), "%s", debt->error_told);
	else if (lost)
		snprintf(told, sizeof(told), "%s", debt->lost_told);
	else if (passes)
		as_told(reply, told);
	else
		told[0] = '\0';
	server_says(reply);
	good = is_text("the client gets", client_got(), told);
	good = is_text("owed", rig_owed(), lost ? "" : takes ?
	    debt->then_owed : leaves ? debt->owed : debt->error_owed) && good;
	if (lost) {
		good = good && rig.server.ended && rig_server() == NULL;
		good = good && (rig_client() != NULL) == debt->client_stays;
	}
	if (letter == 'G' && leaves)
		good = good && rig_server()->owed.copy_in;
	if (!good)
		print_error("  %s, when %s is owed\n", reply, debt->name);
	rig_finish();
	return good;
}

static void
each_reply_does_to_each_debt_what_the_table_says(void **state)
{
	unsigned bad = 0;

	(void)state;
	for (size_t i = 0; i < DEBTS; i++)
		for (size_t k = 0; k < REPLIES; k++)
			bad += !reply_does(&debts[i], replies[k]);
	assert_int_equal(bad, 0);
}

static void
the_table_has_each_kind_of_debt(void **state)
{
	(void)state;
	/* The first kind is a mark that no reply is ever held against. */
	for (int kind = OWED_COPY_DONE + 1; kind <= OWED_FUNCTION; kind++) {
		bool has = false;
		for (size_t i = 0; i < DEBTS; i++)
			has = has || (debts[i].kind == (enum owed_kind)kind &&
			    debts[i].action == OWED_FORWARD);
		if (!has)
			fail_msg("no row for debts of kind %d", kind);
	}
}

/*
 * Without a client.
 */

static void
is_idle(void)
{
	rig_begin("transaction");
	rig.no_servers = true;
}

static void
is_tested(void)
{
	rig_begin("transaction");
	rig.no_servers = true;
	client_says("Q SELECT 1");
}

static void
is_reset(void)
{
	rig_begin("session");
	client_says("X");
}

static void
is_set_up(void)
{
	rig_log_in("me", "asking", NULL);
	client_says("S");
}

static void
is_cooling(void)
{
	rig_begin("transaction");
	client_says("Q SELECT 1");
	rig_server()->cancels = 1;
	server_says("C SELECT 1; Z I");
}

/* Letters of the replies with which it stays as it is. Z ends what it was
 * asked; any other ends the server. */
static const struct alone {
	const char *name;
	enum server_state state;
	const char *options;
	void (*enter)(void);
	const char *stays;
	enum server_state after_ready;	/* GONE: there is no Z to come */
	bool survives_error;		/* ... with a Z behind it */
} alones[] = {
	{ "idle", SERVER_IDLE, "", is_idle, "ANS", SERVER_GONE, false },
	{ "tested", SERVER_TESTED, "server_check_delay = 1us\n", is_tested,
	    "ANSDdctHVnTsICE", SERVER_ACTIVE, false },
	{ "reset", SERVER_RESETTING, "", is_reset, "ANSDdctHVnTsICE",
	    SERVER_IDLE, false },
	{ "set up", SERVER_SETUP, "", is_set_up, "ANSDdctHVnTsICE",
	    SERVER_ACTIVE, true },
	/* A late cancel may still make it send an error; it is closed when
	 * that cancel has ended. */
	{ "cooling", SERVER_COOLING, "", is_cooling, "ANSE", SERVER_GONE,
	    false },
};

#define ALONES (sizeof(alones) / sizeof(alones[0]))

static enum server_state
server_state(void)
{
	const struct server *server = rig_server();

	return server == NULL ? SERVER_GONE :
	    (enum server_state)server->state;
}

static bool
alone_does(const struct alone *alone, const char *reply)
{
	enum server_state after = SERVER_GONE;
	bool good;

	if (reply[0] == 'Z') {
		reply = "Z I";
		after = alone->after_ready;
	} else if (strchr(alone->stays, reply[0]) != NULL) {
		after = alone->state;
	}
	rig_start(alone->options);
	alone->enter();
	rig.no_servers = true;
	assert_int_equal(server_state(), alone->state);
	buf_clear(&rig.client.got);
	server_says(reply);
	good = server_state() == after &&
	    is_text("the client gets", client_got(), "");
	if (good && alone->after_ready != SERVER_GONE && reply[0] == 'E') {
		server_says("Z I");
		after = alone->survives_error ? alone->after_ready :
		    SERVER_GONE;
		good = server_state() == after;
	}
	if (!good)
		print_error("  %s, when the server is %s: state %d, not %d\n",
		    reply, alone->name, (int)server_state(), (int)after);
	rig_finish();
	return good;
}

static void
each_reply_does_to_a_server_alone_what_the_table_says(void **state)
{
	unsigned bad = 0;

	(void)state;
	for (size_t i = 0; i < ALONES; i++)
		for (size_t k = 0; k < REPLIES; k++)
			bad += !alone_does(&alones[i], replies[k]);
	assert_int_equal(bad, 0);
}

static void
the_tables_have_each_state_of_a_server(void **state)
{
	bool has[SERVER_STATES] = {
		/* Its login reads what it says: session/server_login.c. */
		[SERVER_RESOLVING] = true, [SERVER_CONNECTING] = true,
		[SERVER_TLS_ASKED] = true, [SERVER_TLS] = true,
		[SERVER_LOGIN] = true,
		/* The first table. */
		[SERVER_ACTIVE] = true,
		/* Lasts no longer than half a message: below. */
		[SERVER_FREE] = true,
		/* Its rows are those of pg_listening_channels(), and its
		 * notifications many clients': test/e2e/test_listen.py. */
		[SERVER_LISTENING] = true,
		/* Whatever it still says is dropped: test_migrate.py. */
		[SERVER_RETIRING] = true,
		/* Its socket is closed. */
		[SERVER_CLOSING] = true, [SERVER_GONE] = true,
	};

	(void)state;
	for (size_t i = 0; i < ALONES; i++)
		has[alones[i].state] = true;
	for (int i = 0; i < SERVER_STATES; i++)
		if (!has[i])
			fail_msg("no row for servers in state %d", i);
}

static void
nobody_gets_a_server_in_the_middle_of_a_message(void **state)
{
	struct buf bytes = { 0 };
	size_t half;

	(void)state;
	rig_start("");
	is_reset();
	compose(&bytes, "C DISCARD ALL; Z I; N 00000 hm", compose_reply);
	half = bytes.len - 3;
	far_write(&rig.server, bytes.at, half);
	rig_settle();
	assert_int_equal(server_state(), SERVER_FREE);
	rig_begin("session");		/* says S, which waits for a server */
	assert_int_equal(rig_client()->state, CLIENT_WAITING);
	buf_finish(&bytes);
	rig_finish();
}

static void
a_server_with_a_cancel_on_its_way_counts_until_that_ends(void **state)
{
	struct server *server;
	struct pool *pool;

	(void)state;
	rig_start("");
	rig_begin("transaction");
	server = rig_server();
	pool = server->pool;
	client_says("Q SELECT 1");
	server->cancels = 2;
	server_says("C SELECT 1; Z I");
	assert_int_equal(server->state, SERVER_COOLING);
	far_close(&rig.server);
	rig_settle();
	assert_int_equal(server->state, SERVER_CLOSING);
	assert_int_equal(pool->servers, 1);
	server_cancel_ended(server);
	assert_int_equal(pool->servers, 1);
	server_cancel_ended(server);
	assert_int_equal(pool->servers, 0);
	rig_finish();
}

static void
a_cooled_server_goes_to_the_next_in_line(void **state)
{
	(void)state;
	rig_start("");
	is_cooling();
	client_says("Q SELECT 2");
	assert_int_equal(rig_client()->state, CLIENT_WAITING);
	buf_clear(&rig.server.got);
	server_cancel_ended(rig_server());
	rig_settle();
	assert_string_equal(server_got(), "Q:SELECT_2");
	rig_finish();
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_teardown(name, rig_is_done)
		TEST(each_reply_does_to_each_debt_what_the_table_says),
		TEST(the_table_has_each_kind_of_debt),
		TEST(each_reply_does_to_a_server_alone_what_the_table_says),
		TEST(the_tables_have_each_state_of_a_server),
		TEST(nobody_gets_a_server_in_the_middle_of_a_message),
		TEST(a_server_with_a_cancel_on_its_way_counts_until_that_ends),
		TEST(a_cooled_server_goes_to_the_next_in_line),
	};

	alarm(120);			/* what hangs has failed */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
