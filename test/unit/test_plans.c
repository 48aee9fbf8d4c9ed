/*
 * Prepared statements while the schema changes, message by message: when a
 * server is asked what it makes of a statement, what is put in its place, and
 * which batches are repeated. See session/plans.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay_play.h"

#define DESCRIBED(columns) \
	{ CLIENT, "P s:SELECT 1; D s; S", "P#:SELECT_1 D# S", "", "P D S" }, \
	{ SERVER, "1; t; T " columns "; Z I", "", "1 t T ZI", "" }
#define PREPARED \
	{ CLIENT, "P s:SELECT 1; S", "P#:SELECT_1 S", "", "P S" }, \
	{ SERVER, "1; Z I", "", "1 ZI", "" }
#define CHANGED \
	{ CLIENT, "Q ALTER TABLE t", "Q:ALTER_TABLE_t", "", "Q" }, \
	{ SERVER, "C ALTER TABLE; Z I", "", "C ZI", "" }
#define PLAIN_BIND \
	{ CLIENT, "B s; E; S", "B# E S", "", "B E S" }, \
	{ SERVER, "2; C SELECT 1; Z I", "", "2 C ZI", "" }

/* Another server: nothing is prepared there. */
static void
lose_server(void)
{
	far_close(&rig.server);
	rig_settle();
	assert_null(rig_server());
}

static void
begin(void)
{
	rig_start("");
	rig_begin("transaction");
}

static void
a_server_is_asked_once_after_a_change_and_agrees(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		PLAIN_BIND,
		CHANGED,
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t", "", "", "-D" },
		{ SERVER, "T a", "C# B# E S", "", "-C B E S" },
		{ SERVER, "3; 2; C SELECT 1; Z I", "", "2 C ZI", "" },
		PLAIN_BIND,
	};

	(void)state;
	begin();
	PLAY(steps);
	assert_int_equal(stmt_cache_count(&rig_server()->statements), 1);
	rig_finish();
}

static void
where_it_does_not_agree_the_error_is_that_of_postgres(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		CHANGED,
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t; T a,b", "B# E S", "", "B E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
		/* Nobody needs to be asked again. */
		{ CLIENT, "B s; E; S", "B# E S", "", "B E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
		/* The server has it already, as it is now. */
		{ CLIENT, "P s2:SELECT 1; D s2; S", "D# S", "", "=P D S" },
		{ SERVER, "t; T a,b; Z I", "", "1 t T ZI", "" },
		{ CLIENT, "B s2; E; S", "B# E S", "", "B E S" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
a_column_of_another_name_is_another_shape(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		CHANGED,
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t; T b", "B# E S", "", "B E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
who_describes_the_portal_does_not_wait(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		CHANGED,
		{ CLIENT, "B s; D @; E; S", "C# P#:SELECT_1 B# D@ E S", "",
		    "-C -P B D E S" },
		{ SERVER, "3; 1; 2; T a,b; D; C SELECT 1; Z I", "",
		    "2 T D C ZI", "" },
		{ CLIENT, "B s; D @; E; S", "B# D@ E S", "", "B D E S" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
what_was_told_of_a_portal_binds_who_does_not_ask_again(void **state)
{
	static const struct step steps[] = {
		PREPARED,
		{ CLIENT, "B s; D @; E; S", "B# D@ E S", "", "B D E S" },
		{ SERVER, "2; T a; C SELECT 1; Z I", "", "2 T C ZI", "" },
		PLAIN_BIND,
		CHANGED,
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t; T a,b", "B# E S", "", "B E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
who_has_formats_for_each_column_knows_them(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		CHANGED,
		{ CLIENT, "B s/2; D @; E; S", "P#:SELECT_1 D# H", "",
		    "-P -D" },
		{ SERVER, "1; t; T a,b", "B# D@ E S", "", "B D E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
nor_does_who_was_told_nothing(void **state)
{
	static const struct step steps[] = {
		PREPARED,
		CHANGED,
		{ CLIENT, "B s; E; S", "C# P#:SELECT_1 B# E S", "",
		    "-C -P B E S" },
		{ SERVER, "3; 1; 2; C SELECT 1; Z I", "", "2 C ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
a_parameter_keeps_its_type(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P s:SELECT 1; D s; S", "P#:SELECT_1 D# S", "",
		    "P D S" },
		{ SERVER, "1; t 23; T a; Z I", "", "1 t T ZI", "" },
		CHANGED,
		{ CLIENT, "B s; D @; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		/* Not what it was told: so it is told what it is to be. */
		{ SERVER, "1; t 20; T a", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t 23; T a", "C# B# D@ E S", "",
		    "-C B D E S" },
		{ SERVER, "3; 2; T a; C SELECT 1; Z I", "", "2 T C ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
a_change_that_is_rolled_back_is_none(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		{ CLIENT, "Q BEGIN", "Q:BEGIN", "", "Q" },
		{ SERVER, "C BEGIN; Z T", "", "C ZT", "" },
		{ CLIENT, "Q ALTER TABLE t", "Q:ALTER_TABLE_t", "", "Q" },
		{ SERVER, "C ALTER TABLE; Z T", "", "C ZT", "" },
		{ CLIENT, "Q ROLLBACK", "Q:ROLLBACK", "", "Q" },
		{ SERVER, "C ROLLBACK; Z I", "", "C ZI", "" },
		PLAIN_BIND,
	};
	static const struct step to_savepoint[] = {
		{ CLIENT, "Q BEGIN", "Q:BEGIN", "", "Q" },
		{ SERVER, "C BEGIN; Z T", "", "C ZT", "" },
		{ CLIENT, "Q ALTER TABLE t", "Q:ALTER_TABLE_t", "", "Q" },
		{ SERVER, "C ALTER TABLE; Z T", "", "C ZT", "" },
		{ CLIENT, "Q ROLLBACK TO a", "Q:ROLLBACK_TO_a", "", "Q" },
		{ SERVER, "C ROLLBACK; Z T", "", "C ZT", "" },
		{ CLIENT, "Q COMMIT", "Q:COMMIT", "", "Q" },
		{ SERVER, "C COMMIT; Z I", "", "C ZI", "" },
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
	};

	(void)state;
	begin();
	PLAY(steps);
	PLAY(to_savepoint);
	rig_finish();
}

static void
an_index_is_no_change(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		{ CLIENT, "Q CREATE INDEX i", "Q:CREATE_INDEX_i", "", "Q" },
		{ SERVER, "C CREATE INDEX; Z I", "", "C ZI", "" },
		PLAIN_BIND,
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
in_its_own_transaction_a_change_is_its_own(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		{ CLIENT, "Q BEGIN", "Q:BEGIN", "", "Q" },
		{ SERVER, "C BEGIN; Z T", "", "C ZT", "" },
		{ CLIENT, "Q ALTER TABLE t", "Q:ALTER_TABLE_t", "", "Q" },
		{ SERVER, "C ALTER TABLE; Z T", "", "C ZT", "" },
		{ CLIENT, "P s2:SELECT 1; D s2; S", "P#:SELECT_1 D# S", "",
		    "P D S" },
		{ SERVER, "1; t; T a,b; Z T", "", "1 t T ZT", "" },
		{ CLIENT, "B s2; E; S", "B# E S", "", "B E S" },
		{ SERVER, "2; C SELECT 1; Z T", "", "2 C ZT", "" },
		{ CLIENT, "Q ROLLBACK", "Q:ROLLBACK", "", "Q" },
		{ SERVER, "C ROLLBACK; Z I", "", "C ZI", "" },
		PLAIN_BIND,
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
what_nobody_said_is_found_where_a_server_disagrees(void **state)
{
	static const struct step one[] = {
		DESCRIBED("a"),
	};
	/* The second client is told something else. */
	static const struct step other[] = {
		DESCRIBED("a,b"),
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t; T a,b", "B# E S", "", "B E S" },
		{ SERVER, "2; C SELECT 1; Z I", "", "2 C ZI", "" },
	};
	static const struct step again[] = {
		{ CLIENT, "B s; E; S", "B# E S", "", "B E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(one);
	lose_server();
	rig_swap();
	rig_log_in("me", "transaction", NULL);
	client_got();
	PLAY(other);
	rig_swap();
	PLAY(again);
	rig_finish();
}

static void
a_server_that_is_new_is_asked_though_nothing_has_changed(void **state)
{
	static const struct step one[] = {
		DESCRIBED("a"),
	};
	static const struct step same[] = {
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t; T a", "B# E S", "", "B E S" },
		{ SERVER, "2; C SELECT 1; Z I", "", "2 C ZI", "" },
		PLAIN_BIND,
	};
	static const struct step differs[] = {
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t; T b", "B# E S", "", "B E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(one);
	lose_server();
	PLAY(same);
	lose_server();
	PLAY(differs);
	rig_finish();
}

static void
the_unnamed_statement_is_asked_about_where_it_is_put_anew(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; D ; S", "P:SELECT_1 D S", "",
		    "P D S" },
		{ SERVER, "1; t; T a; Z I", "", "1 t T ZI", "" },
		{ CLIENT, "B; E; S", "B E S", "", "B E S" },
		{ SERVER, "2; C SELECT 1; Z I", "", "2 C ZI", "" },
	};
	static const struct step moved[] = {
		{ CLIENT, "B; E; S", "P:SELECT_1 D H", "", "-P -D" },
		{ SERVER, "1; t; T a", "B E S", "", "B E S" },
		{ SERVER, "2; C SELECT 1; Z I", "", "2 C ZI", "" },
		{ CLIENT, "B; E; S", "B E S", "", "B E S" },
		{ SERVER, "2; C SELECT 1; Z I", "", "2 C ZI", "" },
	};
	static const struct step differs[] = {
		{ CLIENT, "B; E; S", "P:SELECT_1 D H", "", "-P -D" },
		{ SERVER, "1; t; T b", "B# E S", "", "B E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	lose_server();
	PLAY(moved);
	lose_server();
	PLAY(differs);
	rig_finish();
}

static void
what_the_batch_itself_asks_is_not_asked_again(void **state)
{
	static const struct step one[] = {
		DESCRIBED("a"),
	};
	static const struct step steps[] = {
		{ CLIENT, "D s; B s; E; S", "P#:SELECT_1 D# B# E S", "",
		    "-P D B E S" },
		{ SERVER, "1; t; T a; 2; C SELECT 1; Z I", "", "t T 2 C ZI",
		    "" },
	};

	(void)state;
	begin();
	PLAY(one);
	lose_server();
	PLAY(steps);
	rig_finish();
}

static void
a_question_that_fails_is_the_clients_error(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		CHANGED,
		{ CLIENT, "B s; E; S", "P#:SELECT_1 D# H", "", "-P -D" },
		/* What the server skips goes as the client has sent it. */
		{ SERVER, "E 42P01 gone", "Bs E S", "E42P01", "S" },
		{ SERVER, "Z I", "", "ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	is_parted();
	rig_finish();
}

/*
 * Once more.
 */

#define STALE "E 0A000 stale"

static void
a_batch_of_which_nothing_has_run_is_repeated(void **state)
{
	static const struct step steps[] = {
		PREPARED,
		{ CLIENT, "B s; D @; E; S", "B# D@ E S", "", "B D E S" },
		{ SERVER, STALE, "", "", "-S" },
		{ SERVER, "Z I", "C# P#:SELECT_1 B# D@ E S", "",
		    "-C -P B D E S" },
		{ SERVER, "3; 1; 2; T a; D; C SELECT 1; Z I", "",
		    "2 T D C ZI", "" },
		/* And what it sends then is another one. */
		{ CLIENT, "B s; D @; E; S", "B# D@ E S", "", "B D E S" },
		{ SERVER, STALE, "", "", "-S" },
		{ SERVER, "Z I", "C# P#:SELECT_1 B# D@ E S", "",
		    "-C -P B D E S" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
it_is_repeated_until_it_is_plainly_no_use(void **state)
{
	static const struct step first[] = {
		PREPARED,
		{ CLIENT, "B s; E; S", "B# E S", "", "B E S" },
	};
	static const struct step more[] = {
		{ SERVER, STALE "; Z I", "C# P#:SELECT_1 B# E S", "",
		    "-C -P B E S" },
		{ SERVER, "3; 1", "", "", "B E S" },
	};
	static const struct step last[] = {
		{ SERVER, STALE "; Z I", "", "E0A000 ZI", "" },
		{ CLIENT, "B s; E; S", "C# P#:SELECT_1 B# E S", "",
		    "-C -P B E S" },
		{ SERVER, "3; 1", "", "", "B E S" },
	};

	(void)state;
	begin();
	PLAY(first);
	for (int i = 0; i < 10; i++)
		PLAY(more);
	PLAY(last);
	/* That was another batch. */
	PLAY(more);
	rig_finish();
}

static void
a_type_that_is_gone_is_as_good_a_reason(void **state)
{
	static const struct step steps[] = {
		PREPARED,
		{ CLIENT, "B s; E; S", "B# E S", "", "B E S" },
		{ SERVER, "E XX000 cache lookup failed for type 5; Z I",
		    "C# P#:SELECT_1 B# E S", "", "-C -P B E S" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
another_error_is_not(void **state)
{
	static const struct step steps[] = {
		PREPARED,
		{ CLIENT, "B s; E; S", "B# E S", "", "B E S" },
		{ SERVER, "E XX000 cache lookup failed for relation 5; Z I",
		    "", "EXX000 ZI", "" },
		PLAIN_BIND,
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
what_was_answered_is_not_repeated(void **state)
{
	static const struct step steps[] = {
		PREPARED,
		{ CLIENT, "P s2:SELECT 1; D s2; S", "D# S", "", "=P D S" },
		{ SERVER, STALE "; Z I", "P#:SELECT_1 D# S", "1",
		    "-P D S" },
		{ SERVER, "1; t; T a; Z I", "", "t T ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
in_a_transaction_nothing_is_repeated(void **state)
{
	static const struct step steps[] = {
		PREPARED,
		{ CLIENT, "Q BEGIN", "Q:BEGIN", "", "Q" },
		{ SERVER, "C BEGIN; Z T", "", "C ZT", "" },
		{ CLIENT, "B s; D @; E; S", "B# D@ E S", "", "B D E S" },
		{ SERVER, STALE "; Z E", "", "E0A000 ZE", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

static void
nor_is_it_in_one_that_was_put_off(void **state)
{
	static const struct step steps[] = {
		PREPARED,
		{ CLIENT, "Q BEGIN", "", "C ZT", "" },
		{ CLIENT, "B s; D @; E; S", "Q:BEGIN B# D@ E S", "",
		    "-Q B D E S" },
		{ SERVER, "C BEGIN; Z T; " STALE "; Z E", "", "E0A000 ZE",
		    "" },
	};

	(void)state;
	rig_start("defer_begin = 1\n");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

static void
nor_is_what_others_stand_before_or_behind(void **state)
{
	static const struct step behind[] = {
		PREPARED,
		{ CLIENT, "B s; D @; E; S; Q SELECT 2",
		    "B# D@ E S Q:SELECT_2", "", "B D E S Q" },
		{ SERVER, STALE "; Z I", "", "E0A000 ZI", "Q" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
	};
	static const struct step before[] = {
		{ CLIENT, "B s; D @; E; B s; D @; E; S",
		    "C# P#:SELECT_1 B# D@ E B# D@ E S", "",
		    "-C -P B D E B D E S" },
		{ SERVER, "3; 1; 2; T a; C SELECT 1; " STALE "; Z I", "",
		    "2 T C E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(behind);
	PLAY(before);
	rig_finish();
}

static void
nor_is_half_of_what_ran_together(void **state)
{
	static const struct step open_behind[] = {
		PREPARED,
		{ CLIENT, "B s; E; S; B s; E", "B# E S B# E", "",
		    "B E S B E" },
		{ SERVER, STALE "; Z I", "", "E0A000 ZI", "B E" },
		{ SERVER, "2; C SELECT 1", "", "2 C", "" },
	};
	static const struct step open_before[] = {
		{ CLIENT, "B s; E; S", "C# P#:SELECT_1 B# E S", "",
		    "-C -P B E S" },
		{ SERVER, "3; 1; " STALE "; Z I", "", "E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(open_behind);
	PLAY(open_before);
	rig_finish();
}

static void
a_client_that_was_told_gets_its_answer_after_all(void **state)
{
	static const struct step steps[] = {
		DESCRIBED("a"),
		{ CLIENT, "B s; E; S", "B# E S", "", "B E S" },
		{ SERVER, STALE "; Z I", "P#:SELECT_1 D# H", "", "-P -D" },
		{ SERVER, "1; t; T b", "B# E S", "", "B E S" },
		{ SERVER, "E 26000 nobody; Z I", "", "E0A000 ZI", "" },
	};

	(void)state;
	begin();
	PLAY(steps);
	rig_finish();
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, rig_is_done)
	const struct CMUnitTest tests[] = {
		TEST(a_server_is_asked_once_after_a_change_and_agrees),
		TEST(where_it_does_not_agree_the_error_is_that_of_postgres),
		TEST(a_column_of_another_name_is_another_shape),
		TEST(who_describes_the_portal_does_not_wait),
		TEST(nor_does_who_was_told_nothing),
		TEST(what_was_told_of_a_portal_binds_who_does_not_ask_again),
		TEST(who_has_formats_for_each_column_knows_them),
		TEST(a_parameter_keeps_its_type),
		TEST(a_change_that_is_rolled_back_is_none),
		TEST(an_index_is_no_change),
		TEST(in_its_own_transaction_a_change_is_its_own),
		TEST(what_nobody_said_is_found_where_a_server_disagrees),
		TEST(a_server_that_is_new_is_asked_though_nothing_has_changed),
		TEST(the_unnamed_statement_is_asked_about_where_it_is_put_anew
		    ),
		TEST(what_the_batch_itself_asks_is_not_asked_again),
		TEST(a_question_that_fails_is_the_clients_error),
		TEST(a_batch_of_which_nothing_has_run_is_repeated),
		TEST(it_is_repeated_until_it_is_plainly_no_use),
		TEST(a_type_that_is_gone_is_as_good_a_reason),
		TEST(another_error_is_not),
		TEST(what_was_answered_is_not_repeated),
		TEST(in_a_transaction_nothing_is_repeated),
		TEST(nor_is_it_in_one_that_was_put_off),
		TEST(nor_is_what_others_stand_before_or_behind),
		TEST(nor_is_half_of_what_ran_together),
		TEST(a_client_that_was_told_gets_its_answer_after_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
