/*
 * The rules by which requests and replies belong together, as dialogues: what
 * one side says, what the other gets of it, and what is owed then. They are
 * those of the essay in relay_server.c, of prepared statements, and of what
 * becomes of either side when the other is lost.
 *
 * The words are those of relay_rig.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay_play.h"

/*
 * Replies and their turn.
 */

static void
a_query_ends_with_its_ready_and_both_part(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "Q SELECT 1", "Q:SELECT_1", "", "Q" },
		{ SERVER, "T; D; D; C SELECT 2", "", "T D D C", "Q" },
		{ SERVER, "Z I", "", "ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

static void
a_transaction_keeps_its_server(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "Q BEGIN", "Q:BEGIN", "", "Q" },
		{ SERVER, "C BEGIN; Z T", "", "C ZT", "" },
		{ CLIENT, "Q SELECT 1/0", "Q:SELECT_1/0", "", "Q" },
		{ SERVER, "E 22012 no; Z E", "", "E22012 ZE", "" },
	};
	static const struct step end[] = {
		{ CLIENT, "Q ROLLBACK", "Q:ROLLBACK", "", "Q" },
		{ SERVER, "C ROLLBACK; Z I", "", "C ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	assert_int_equal(rig_client()->state, CLIENT_ACTIVE);
	PLAY(end);
	is_parted();
	rig_finish();
}

static void
an_error_skips_to_the_sync(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT a; B; D @; E; P :SELECT 2; B; E; S; "
		    "Q SELECT 1",
		    "P:SELECT_a B D@ E P:SELECT_2 B E S Q:SELECT_1", "",
		    "P B D E P B E S Q" },
		{ SERVER, "1; E 42601 no", "", "1 E42601", "S Q" },
		{ SERVER, "Z I", "", "ZI", "Q" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

static void
an_error_skips_what_comes_until_a_sync_does(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT a; B; H", "P:SELECT_a B H", "", "P B" },
		{ SERVER, "E 42601 no", "", "E42601", "" },
		{ CLIENT, "D @; E; Q SELECT 1; P s1:SELECT 1; C s1",
		    "D@ E Q:SELECT_1 Ps1:SELECT_1 Cs1", "", "" },
		{ CLIENT, "S; Q SELECT 2", "S Q:SELECT_2", "", "S Q" },
		{ SERVER, "Z I; C SELECT 1; Z I", "", "ZI C ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

static void
an_error_of_a_query_skips_nothing(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "Q SELECT a; F; P :SELECT 1; S", "Q:SELECT_a "
		    "F P:SELECT_1 S", "", "Q F P S" },
		{ SERVER, "E 42703 no; Z E", "", "E42703 ZE", "F P S" },
		{ SERVER, "E 25P02 no; Z E", "", "E25P02 ZE", "P S" },
		{ SERVER, "E 25P02 no; Z E", "", "E25P02 ZE", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

static void
an_error_at_the_sync_leaves_its_ready(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :INSERT 1; B; E; S", "P:INSERT_1 B E S", "",
		    "P B E S" },
		{ SERVER, "1; 2; C INSERT 0 1", "", "1 2 C", "S" },
		/* A constraint that is checked at the commit. */
		{ SERVER, "E 23505 no; Z I", "", "E23505 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

static void
a_batch_without_a_sync_keeps_its_server(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; B; E; H", "P:SELECT_1 B E H", "",
		    "P B E" },
		{ SERVER, "1; 2; C SELECT 1", "", "1 2 C", "" },
	};
	static const struct step end[] = {
		{ CLIENT, "S", "S", "", "S" },
		{ SERVER, "Z I", "", "ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	assert_int_equal(rig_client()->state, CLIENT_ACTIVE);
	PLAY(end);
	is_parted();
	rig_finish();
}

static void
an_answer_of_ours_waits_for_its_turn(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P s1:SELECT 1; S", "P#:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		/* The server has it already, under our name. */
		{ CLIENT, "P s2:SELECT 1; B s1; P s3:SELECT 1; C s2; E; S",
		    "B# E S", "", "=P B =P =C E S" },
		{ SERVER, "2", "", "1 2 1 3", "E S" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
	};
	/* They go out when the next thing comes, if nothing was before them. */
	static const struct step at_once[] = {
		{ CLIENT, "C s3; H", "H", "3", "" },
		{ CLIENT, "S", "S", "", "S" },
		{ SERVER, "Z I", "", "ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	PLAY(at_once);
	is_parted();
	rig_finish();
}

static void
replies_may_come_in_pieces_of_any_size(void **state)
{
	(void)state;
	for (size_t size = 1; size < 40; size++) {
		struct buf bytes = { 0 };

		rig_start("");
		rig_begin("transaction");
		client_says("P s1:SELECT 1; C s0; B s1; E; S; Q SELECT 2");
		server_got();
		compose(&bytes, "1; 2; D; N 00000 hm; C SELECT 1; Z T; T; "
		    "E 22012 no; Z I", compose_reply);
		for (size_t at = 0; at < bytes.len; at += size) {
			size_t left = bytes.len - at;
			far_write(&rig.server, bytes.at + at,
			    left < size ? left : size);
			rig_settle();
		}
		assert_string_equal(client_got(),
		    "1 3 2 D N C ZT T E22012 ZI");
		is_parted();
		buf_finish(&bytes);
		rig_finish();
	}
}

static void
there_is_an_end_to_what_may_be_owed(void **state)
{
	enum { MANY = OWED_MAX + 100 };
	struct buf bytes = { 0 }, answers = { 0 };
	struct client *client;

	(void)state;
	for (int i = 0; i < MANY; i++) {
		compose(&bytes, "E", compose_request);
		compose(&answers, "I", compose_reply);
	}
	compose(&bytes, "S", compose_request);
	rig_start("");
	rig_begin("transaction");
	client = rig_client();
	for (size_t at = 0; at < bytes.len;) {
		size_t n = far_write(&rig.client, bytes.at + at,
		    bytes.len - at);
		assert_true(n > 0);
		at += n;
		rig_settle();
	}
	assert_int_equal(rig_server()->owed.count, OWED_MAX);
	assert_true(client->s.pauses & PAUSE_OWED_FULL);
	far_write(&rig.server, answers.at, OWED_MAX / 2 * FRAME_HEADER);
	rig_settle();
	assert_int_equal(rig_server()->owed.count,
	    MANY + 1 - OWED_MAX / 2);
	assert_false(stream_is_paused(&client->s));
	buf_finish(&bytes);
	buf_finish(&answers);
	rig_finish();
}

/*
 * Names that an error gives back.
 */

static const struct step s1_is_prepared[] = {
	{ CLIENT, "P s1:SELECT 1; S", "P#:SELECT_1 S", "", "P S" },
	{ SERVER, "1; Z I", "", "1 ZI", "" },
};

static void
a_name_whose_parse_failed_is_free(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P s1:SELECT a; B s1; E; S", "P#:SELECT_a B# E S", "",
		    "P B E S" },
		{ SERVER, "E 42601 no; Z I", "", "E42601 ZI", "" },
		{ CLIENT, "B s1; S", "Bs1 S", "", "B S" },
		{ SERVER, "E 26000 no; Z I", "", "E26000 ZI", "" },
		/* Nor does the server have it. */
		{ CLIENT, "P s1:SELECT a; S", "P#:SELECT_a S", "", "P S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

static void
a_close_that_was_skipped_has_not_closed(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "B s1; C s1; P s1:SELECT 2; S", "B# P#:SELECT_2 S",
		    "", "B =C P S" },
		{ SERVER, "E 08P01 no; Z I", "", "E08P01 ZI", "" },
		{ CLIENT, "D s1; S", "D# S", "", "D S" },
	};
	const struct stmt *was;

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	was = stmt_names_get(&rig_client()->names, SPAN("s1"));
	PLAY(steps);
	assert_ptr_equal(stmt_names_get(&rig_client()->names, SPAN("s1")),
	    was);
	rig_finish();
}

static void
changes_of_a_name_are_undone_last_to_first(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "E; C s1; P s1:SELECT 2; C s1; P s1:SELECT 3; S",
		    "E P#:SELECT_2 P#:SELECT_3 S", "", "E =C P =C P S" },
		{ SERVER, "E 34000 no; Z I", "", "E34000 ZI", "" },
	};
	const struct stmt *was;

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	was = stmt_names_get(&rig_client()->names, SPAN("s1"));
	PLAY(steps);
	assert_ptr_equal(stmt_names_get(&rig_client()->names, SPAN("s1")),
	    was);
	assert_int_equal(stmt_names_count(&rig_client()->names), 1);
	assert_int_equal(stmt_cache_count(&rig_server()->statements), 1);
	rig_finish();
}

static void
a_later_batch_waits_until_a_name_is_certain(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P s1:SELECT a; S; B s1; S", "P#:SELECT_a S", "",
		    "P S" },
		/* Not the statement that the name was to stand for. */
		{ SERVER, "E 42601 no; Z I", "Bs1 S", "E42601 ZI", "B S" },
		{ SERVER, "E 26000 no; Z I", "", "E26000 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

/* It was closed, and it may turn out that it was not. */
static void
a_name_that_was_closed_is_uncertain_too(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "E; C s1; S; B s1; S", "E S", "", "E =C S" },
		{ SERVER, "E 34000 no; Z I", "B# S", "E34000 ZI", "B S" },
		{ SERVER, "2; Z I", "", "2 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	PLAY(steps);
	rig_finish();
}

static void
another_name_waits_until_the_statement_is_settled(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P s1:SELECT 1; S; P s2:SELECT 1; S",
		    "P#:SELECT_1 S", "", "P S" },
		{ SERVER, "E 57014 no; Z I", "P#:SELECT_1 S", "E57014 ZI",
		    "P S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

/*
 * The unnamed statement.
 */

static void
the_unnamed_statement_follows_its_client(void **state)
{
	static const struct step parsed[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
	};
	static const struct step elsewhere[] = {
		{ CLIENT, "B; E; S", "P:SELECT_1 B E S", "", "-P B E S" },
		{ SERVER, "1; 2; C SELECT 1; Z I", "", "2 C ZI", "" },
		/* Once is enough. */
		{ CLIENT, "D; S", "D S", "", "D S" },
		{ SERVER, "t; n; Z I", "", "t n ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(parsed);
	far_close(&rig.server);
	rig_settle();
	PLAY(elsewhere);
	is_parted();
	rig_finish();
}

static void
nobody_binds_the_unnamed_statement_of_another(void **state)
{
	static const struct step one[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
	};
	static const struct step other[] = {
		{ CLIENT, "B; S", "C B S", "", "-C B S" },
		{ SERVER, "3; E 26000 no; Z I", "", "E26000 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(one);
	rig_log_in("me", "transaction", NULL);
	client_got();
	PLAY(other);
	is_parted();
	rig_finish();
}

static void
a_query_or_a_failed_parse_ends_the_unnamed_statement(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "Q SELECT 2", "Q:SELECT_2", "", "Q" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
		{ CLIENT, "B; S", "C B S", "", "-C B S" },
		{ SERVER, "3; E 26000 no; Z I", "", "E26000 ZI", "" },
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "P :SELECT a; S", "P:SELECT_a S", "", "P S" },
		{ SERVER, "E 42601 no; Z I", "", "E42601 ZI", "" },
		{ CLIENT, "B; S", "C B S", "", "-C B S" },
		{ SERVER, "3; E 26000 no; Z I", "", "E26000 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

/* A Parse that the server never looked at has ended nothing. */
static void
a_parse_that_was_skipped_leaves_the_unnamed_statement(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "E; P :SELECT 2; S", "E P:SELECT_2 S", "", "E P S" },
		{ SERVER, "E 34000 no; Z I", "", "E34000 ZI", "" },
		{ CLIENT, "B; S", "P:SELECT_1 B S", "", "-P B S" },
		{ SERVER, "1; 2; Z I", "", "2 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

static void
batches_that_were_skipped_leave_the_unnamed_statement(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "E; P :SELECT 2; S; E; P :SELECT 3; S",
		    "E P:SELECT_2 S E P:SELECT_3 S", "", "E P S E P S" },
		{ SERVER, "E 34000 no; Z I", "", "E34000 ZI", "E P S" },
		{ SERVER, "E 34000 no; Z I", "", "E34000 ZI", "" },
		{ CLIENT, "B; S", "P:SELECT_1 B S", "", "-P B S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

/* The one that was skipped and the one that was not have the same text. */
static void
a_parse_behind_a_skipped_one_is_the_last_word(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "E; P :SELECT 2; S; P :SELECT 2", "E P:SELECT_2 S "
		    "P:SELECT_2", "", "E P S P" },
		{ SERVER, "E 34000 no; Z I", "", "E34000 ZI", "P" },
		{ CLIENT, "B; S", "B S", "", "P B S" },
		{ SERVER, "E 42601 no; Z I", "", "E42601 ZI", "" },
		/* It is gone with its Parse, and so are those before. */
		{ CLIENT, "B; S", "C B S", "", "-C B S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

static void
a_query_behind_a_skipped_parse_ends_the_unnamed_statement(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "E; P :SELECT 2; S; Q SELECT 3",
		    "E P:SELECT_2 S Q:SELECT_3", "", "E P S Q" },
		{ SERVER, "E 34000 no; Z I", "", "E34000 ZI", "Q" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
		{ CLIENT, "B; S", "C B S", "", "-C B S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

/* So does one that never runs: it leaves what was there. */
static void
a_query_that_was_skipped_leaves_the_unnamed_statement(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "E; Q SELECT 3; S", "E Q:SELECT_3 S", "", "E Q S" },
		{ SERVER, "E 34000 no; Z I", "", "E34000 ZI", "" },
		{ CLIENT, "B; S", "P:SELECT_1 B S", "", "-P B S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

static void
the_same_text_again_that_fails_ends_the_unnamed_statement(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "E 42P01 no; Z I", "", "E42P01 ZI", "" },
		{ CLIENT, "B; S", "C B S", "", "-C B S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

/* One of ours that is put again for a Bind is not the client's own doing. */
static void
a_parse_of_ours_that_fails_leaves_the_unnamed_statement(void **state)
{
	static const struct step parsed[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
	};
	static const struct step elsewhere[] = {
		{ CLIENT, "B; S", "P:SELECT_1 B S", "", "-P B S" },
		{ SERVER, "E 42P01 no; Z I", "", "E42P01 ZI", "" },
		{ CLIENT, "B; S", "P:SELECT_1 B S", "", "-P B S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(parsed);
	far_close(&rig.server);
	rig_settle();
	PLAY(elsewhere);
	rig_finish();
}

static void
deallocate_as_a_query_ends_the_unnamed_statement(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "Q DEALLOCATE ALL", "", "C ZI", "" },
		{ CLIENT, "B; S", "C B S", "", "-C B S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	rig_finish();
}

/* What a client sends behind a COPY before it knows of it never runs. */
static void
what_stands_in_a_copy_is_undone_last_to_first(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :COPY t FROM STDIN; B; E; P s1:SELECT 1; "
		    "C s1; P :SELECT 2; P :SELECT 3; S",
		    "P:COPY_t_FROM_STDIN B E P#:SELECT_1 P:SELECT_2 "
		    "P:SELECT_3 H", "", "P B E P =C P P" },
		{ SERVER, "1; 2; G", "S", "1 2 G", "E S" },
	};
	struct client *client;

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	client = rig_client();
	assert_null(stmt_names_get(&client->names, SPAN("s1")));
	assert_true(span_is(stmt_sql(client->unnamed),
	    "COPY t FROM STDIN"));
	rig_finish();
}

static void
a_parse_of_ours_that_was_skipped_is_sent_again(void **state)
{
	static const struct step parsed[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
	};
	static const struct step elsewhere[] = {
		{ CLIENT, "C @; B; S", "C@ P:SELECT_1 B S", "", "C -P B S" },
		{ SERVER, "E 57014 no; Z I", "", "E57014 ZI", "" },
		{ CLIENT, "B; S", "P:SELECT_1 B S", "", "-P B S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(parsed);
	far_close(&rig.server);
	rig_settle();
	PLAY(elsewhere);
	rig_finish();
}

static void
the_query_of_one_ends_the_unnamed_statement_of_all(void **state)
{
	static const struct step parse[] = {
		{ CLIENT, "P :SELECT 1; S", "P:SELECT_1 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
	};
	static const struct step query[] = {
		{ CLIENT, "Q SELECT 2", "Q:SELECT_2", "", "Q" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
	};
	static const struct step bind[] = {
		{ CLIENT, "B; S", "P:SELECT_1 B S", "", "-P B S" },
		{ SERVER, "1; 2; Z I", "", "2 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(parse);
	rig_swap();
	rig_log_in("me", "transaction", NULL);
	client_got();
	PLAY(parse);
	PLAY(query);
	rig_swap();
	PLAY(bind);
	is_parted();
	rig_finish();
}

/*
 * What is prepared where.
 */

static void
clients_with_the_same_text_share_a_statement(void **state)
{
	static const struct step other[] = {
		{ CLIENT, "P q:SELECT 1; B q; E; S", "B# E S", "", "=P B E S" },
		{ SERVER, "2; C SELECT 1; Z I", "", "1 2 C ZI", "" },
		/* The name is this client's own. */
		{ CLIENT, "B s1; S", "Bs1 S", "", "B S" },
		{ SERVER, "E 26000 no; Z I", "", "E26000 ZI", "" },
		{ CLIENT, "Q DEALLOCATE ALL", "", "C ZI", "" },
	};
	static const struct step one[] = {
		{ CLIENT, "B s1; S", "B# S", "", "B S" },
		{ SERVER, "2; Z I", "", "2 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	rig_swap();
	rig_log_in("me", "transaction", NULL);
	client_got();
	PLAY(other);
	rig_swap();
	PLAY(one);
	is_parted();
	rig_finish();
}

static void
a_statement_is_parsed_where_it_is_missing(void **state)
{
	static const struct step elsewhere[] = {
		{ CLIENT, "B s1; E; D s1; S", "P#:SELECT_1 B# E D# S", "",
		    "-P B E D S" },
		{ SERVER, "1; 2; C SELECT 1; t; n; Z I", "", "2 C t n ZI",
		    "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	far_close(&rig.server);
	rig_settle();
	PLAY(elsewhere);
	assert_int_equal(rig.logins, 2);
	is_parted();
	rig_finish();
}

static void
the_least_recently_used_gives_way(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P s2:SELECT 2; S", "P#:SELECT_2 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "B s1; P s3:SELECT 3; S", "B# C# P#:SELECT_3 S",
		    "", "B -C P S" },
		{ SERVER, "2; 3; 1; Z I", "", "2 1 ZI", "" },
		{ CLIENT, "B s1; B s2; S", "B# C# P#:SELECT_2 B# S", "",
		    "B -C -P B S" },
		{ SERVER, "2; 3; 1; 2; Z I", "", "2 2 ZI", "" },
	};

	(void)state;
	rig_start("max_prepared_statements = 2\n");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	PLAY(steps);
	assert_int_equal(stmt_cache_count(&rig_server()->statements), 2);
	is_parted();
	rig_finish();
}

static void
a_statement_whose_close_was_skipped_is_still_there(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "E; P s2:SELECT 2; S; B s1; S",
		    "E C# P#:SELECT_2 S", "", "E -C P S" },
		{ SERVER, "E 34000 no; Z I", "B# S", "E34000 ZI", "B S" },
		{ SERVER, "2; Z I", "", "2 ZI", "" },
	};

	(void)state;
	rig_start("max_prepared_statements = 1\n");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	PLAY(steps);
	is_parted();
	rig_finish();
}

static void
without_tracking_names_are_the_servers_own(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P s1:SELECT 1; B s1; D s1; E; C s1; S",
		    "Ps1:SELECT_1 Bs1 Ds1 E Cs1 S", "", "P B D E C S" },
		{ SERVER, "1; 2; t; n; I; 3; Z I", "", "1 2 t n I 3 ZI", "" },
	};

	(void)state;
	rig_start("max_prepared_statements = 0\n");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
	rig_start("");
	rig_begin("session");
	PLAY(steps);
	assert_int_equal(rig_client()->state, CLIENT_ACTIVE);
	rig_finish();
}

static void
a_name_that_is_taken_is_refused_by_that_name(void **state)
{
	static const struct step again[] = {
		/* Its text may have another error, which comes first. */
		{ CLIENT, "P s1:SELECT 2; S", "P#:SELECT_2 S", "", "P S" },
	};
	char text[128], ours[STMT_NAME_MAX];

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	PLAY(again);
	stmt_name(stmt_names_get(&rig_client()->names, SPAN("s1")), ours);
	snprintf(text, sizeof(text), "E 42P05 prepared statement \"%s\" "
	    "already exists; Z I", ours);
	server_says(text);
	assert_non_null(memmem(rig.client.got.at, rig.client.got.len,
	    "statement \"s1\" already", 22));
	assert_string_equal(client_got(), "E42P05 ZI");
	is_parted();
	rig_finish();
}

static void
a_name_of_ours_is_nobodys(void **state)
{
	static const char *const scripts[] = {
		"B PGSLUICE_1", "D pgsluice_1", "B PgSluice_99",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(scripts); i++) {
		rig_start("");
		rig_begin("transaction");
		client_says(scripts[i]);
		assert_string_equal(client_got(), "E08P01");
		assert_string_equal(server_got(), "");
		rig_finish();
	}
}

/*
 * DEALLOCATE and DISCARD.
 */

static void
deallocate_is_about_the_clients_names(void **state)
{
	static const struct step simple[] = {
		{ CLIENT, "Q DEALLOCATE s1", "", "C ZI", "" },
		{ CLIENT, "P s1:SELECT 2; S", "P#:SELECT_2 S", "", "P S" },
		{ SERVER, "1; Z I", "", "1 ZI", "" },
		{ CLIENT, "Q DEALLOCATE ALL", "", "C ZI", "" },
		{ CLIENT, "B s1; S", "Bs1 S", "", "B S" },
		{ SERVER, "E 26000 no; Z I", "", "E26000 ZI", "" },
	};
	static const struct step extended[] = {
		{ CLIENT, "P s1:SELECT 1; S", "S", "", "=P S" },
		{ SERVER, "Z I", "", "1 ZI", "" },
		{ CLIENT, "P :DEALLOCATE s1; B; D @; E; S", "P:DEALLOCATE_s1 "
		    "S", "", "P =B =D =E S" },
		{ SERVER, "1; Z I", "", "1 2 n C ZI", "" },
		{ CLIENT, "B s1; S", "Bs1 S", "", "B S" },
		{ SERVER, "E 26000 no; Z I", "", "E26000 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	PLAY(simple);
	PLAY(extended);
	is_parted();
	rig_finish();
}

static void
a_deallocate_that_was_skipped_has_not_happened(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "E; P :DEALLOCATE s1; B; E; S",
		    "E P:DEALLOCATE_s1 S", "", "E P =B =E S" },
		{ SERVER, "E 34000 no; Z I", "", "E34000 ZI", "" },
		{ CLIENT, "B s1; S", "B# S", "", "B S" },
		/* And the portal of ours is no more. */
		{ SERVER, "2; Z I", "", "2 ZI", "" },
		{ CLIENT, "E; S", "E S", "", "E S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	PLAY(steps);
	rig_finish();
}

static void
a_local_portal_lasts_as_long_as_its_transaction(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "Q BEGIN", "Q:BEGIN", "", "Q" },
		{ SERVER, "C BEGIN; Z T", "", "C ZT", "" },
		{ CLIENT, "P :DEALLOCATE s1; B; S", "P:DEALLOCATE_s1 S", "",
		    "P =B S" },
		{ SERVER, "1; Z T", "", "1 2 ZT", "" },
		{ CLIENT, "E; S", "S", "", "=E S" },
		{ SERVER, "Z T", "", "C ZT", "" },
		/* A simple query takes the unnamed portal with it. */
		{ CLIENT, "Q COMMIT", "Q:COMMIT", "", "Q" },
		{ SERVER, "C COMMIT; Z I", "", "C ZI", "" },
		{ CLIENT, "E; S", "E S", "", "E S" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(s1_is_prepared);
	PLAY(steps);
	rig_finish();
}

static void
discard_all_that_reached_the_server_takes_everything(void **state)
{
	static const char *const tags[] = {
		"C DISCARD ALL; Z I", "C DEALLOCATE ALL; Z I",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(tags); i++) {
		rig_start("");
		rig_begin("transaction");
		PLAY(s1_is_prepared);
		client_says("Q DISCARD ALL");
		server_got();
		server_says(tags[i]);
		assert_string_equal(client_got(), "C ZI");
		assert_int_equal(stmt_names_count(&rig_client()->names), 0);
		assert_int_equal(
		    stmt_cache_count(&rig_server()->statements), 0);
		is_parted();
		rig_finish();
	}
}

/*
 * COPY.
 */

static void
a_sync_inside_copy_in_is_never_answered(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :COPY t FROM STDIN; B; E; S",
		    "P:COPY_t_FROM_STDIN B E H", "", "P B E" },
		{ SERVER, "1; 2; G", "", "1 2 G", "E" },
		{ CLIENT, "d one; S; d two; c; S", "d d c S", "", "E S" },
		{ SERVER, "C COPY 2; Z I", "", "C ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

/* It says that it reads data, but has not when it fails: a Sync that the server
 * had by then would be answered. Likewise where it never gets as far. */
static void
a_sync_behind_a_copy_that_fails_unread_is_answered(void **state)
{
	static const struct step late[] = {
		{ CLIENT, "P :COPY t FROM STDIN; B; E; S",
		    "P:COPY_t_FROM_STDIN B E H", "", "P B E" },
		{ SERVER, "1; 2; G; E 55000 no", "S", "1 2 G E55000", "S" },
		{ CLIENT, "d one; c; S", "d c S", "", "S =. S" },
		{ SERVER, "Z I; Z I", "", "ZI ZI", "" },
	};
	static const struct step early[] = {
		{ CLIENT, "P :COPY t FROM STDIN; B; E; S",
		    "P:COPY_t_FROM_STDIN B E H", "", "P B E" },
		{ SERVER, "1; 2; E 42501 no", "S", "1 2 E42501", "S" },
		{ SERVER, "Z I", "", "ZI", "" },
	};
	/* It has come too late to be kept back, but before any data. */
	static const struct step dropped[] = {
		{ CLIENT, "P :COPY t FROM STDIN; B; E; H",
		    "P:COPY_t_FROM_STDIN B E H", "", "P B E" },
		{ SERVER, "1; 2; G", "", "1 2 G", "E" },
		{ CLIENT, "S; S", "", "", "E" },
		{ SERVER, "E 55000 no", "S S", "E55000", "S S" },
		{ SERVER, "Z I; Z I", "", "ZI ZI", "" },
	};
	static const struct step simple[] = {
		{ CLIENT, "Q COPY nowhere FROM STDIN; d one; c; S",
		    "Q:COPY_nowhere_FROM_STDIN d c S", "", "Q =. S" },
		{ SERVER, "E 42P01 no; Z I; Z I", "", "E42P01 ZI ZI", "" },
		/* What comes late is dropped here: there is no server. */
		{ CLIENT, "d two; c", "", "", "" },
	};
	/* Where it could not be foreseen, the server is not used again. */
	static const struct step unseen[] = {
		{ CLIENT, "P :SELECT 1; B; E; S", "P:SELECT_1 B E S", "",
		    "P B E S" },
		{ SERVER, "1; 2; G", "", "1 2 G", "E" },
		{ SERVER, "E 55000 no", "", "E55000", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(late);
	is_parted();
	PLAY(early);
	is_parted();
	PLAY(dropped);
	is_parted();
	PLAY(simple);
	is_parted();
	assert_false(rig_server()->tainted);
	rig_finish();

	rig_start("max_prepared_statements = 0\n");
	rig_begin("transaction");
	PLAY(early);
	is_parted();
	PLAY(unseen);
	assert_true(rig_server()->tainted);
	rig_finish();
}

static void
copy_data_may_come_before_it_is_asked_for(void **state)
{
	static const struct step simple[] = {
		{ CLIENT, "Q COPY t FROM STDIN; d one; c; Q SELECT 1",
		    "Q:COPY_t_FROM_STDIN d c Q:SELECT_1", "", "Q =. Q" },
		{ SERVER, "G", "", "G", "Q Q" },
		{ SERVER, "C COPY 1; Z I; C SELECT 1; Z I", "",
		    "C ZI C ZI", "" },
	};
	static const struct step extended[] = {
		{ CLIENT, "P :COPY t FROM STDIN; B; E; d one; S; c; S",
		    "P:COPY_t_FROM_STDIN B E d H", "", "P B E" },
		{ SERVER, "1; 2; G", "c S", "1 2 G", "E S" },
		{ SERVER, "C COPY 1; Z I", "", "C ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(simple);
	is_parted();
	PLAY(extended);
	is_parted();
	assert_false(rig_server()->tainted);
	rig_finish();
}

static void
a_copy_in_ends_with_its_error(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :COPY t FROM STDIN; B; E; H",
		    "P:COPY_t_FROM_STDIN B E H", "", "P B E" },
		{ SERVER, "1; 2; G", "", "1 2 G", "E" },
		{ CLIENT, "d bad", "d", "", "E" },
		{ SERVER, "E 22P02 no", "", "E22P02", "" },
		{ CLIENT, "d more; c; S", "d c S", "", "S" },
		{ SERVER, "Z I", "", "ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

static void
requests_inside_copy_in_cost_the_server(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "P :COPY t FROM STDIN; B; E; P s1:SELECT 1; S",
		    "P:COPY_t_FROM_STDIN B E P#:SELECT_1 H", "",
		    "P B E P" },
		{ SERVER, "1; 2; G", "S", "1 2 G", "E S" },
		{ SERVER, "E 08P01 no; Z I", "X", "E08P01 ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	assert_true(rig.server.ended);
	assert_int_equal(stmt_names_count(&rig_client()->names), 0);
	rig_finish();
}

static void
copy_out_is_passed_on(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "Q COPY t TO STDOUT", "Q:COPY_t_TO_STDOUT", "", "Q"},
		{ SERVER, "H; d one; d two; c; C COPY 2; Z I", "",
		    "H d d c C ZI", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

/*
 * Parameters.
 */

/* How a server is asked what a session has set. */
#define PROBE "Q:SELECT_'v',name,setting_FROM_pg_catalog.pg_settings_" \
	"WHERE_source='session'_AND_" \
	"pg_catalog.left(name,12)<>'transaction_';" \
	"SELECT_'v',n,pg_catalog.current_setting(n,true)_FROM_" \
	"(VALUES_('role'),('session_authorization'))t(n)_WHERE_" \
	"pg_catalog.current_setting(n,true)<>'';"

/* A server that has just been opened is given them first. */
static void
parameters_are_brought(const char *time_zone)
{
	char expected[80];

	rig_log_in("me", "parameters", time_zone);
	snprintf(expected, sizeof(expected), "Q:SET_\"TimeZone\"_TO_'%s';",
	    time_zone);
	assert_string_equal(server_got(), expected);
	assert_string_equal(client_got(), "");
}

static void
parameters_are_tried_at_login_and_then_go_in_front(void **state)
{
	static const struct step tried[] = {
		{ SERVER, "C SET; S TimeZone=Asia/Tokyo; Z I", PROBE, "",
		    "-Q" },
		{ SERVER, "D v,TimeZone,Asia/Tokyo; C SELECT 1; C SELECT 0; "
		    "Z I", "", "R Sserver_version=15.0 STimeZone=Asia/Tokyo "
		    "Sapplication_name= K ZI", "" },
		/* The server is as it should be. */
		{ CLIENT, "Q SELECT 2", "Q:SELECT_2", "", "Q" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
	};
	static const struct step other[] = {
		{ CLIENT, "Q SELECT 3", "Q:RESET_\"TimeZone\"; Q:SELECT_3", "",
		    "-Q Q" },
		{ SERVER, "C RESET; S TimeZone=UTC; Z I", "", "", "Q" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
	};
	static const struct step elsewhere[] = {
		{ CLIENT, "Q SELECT 4", "Q:SET_\"TimeZone\"_TO_'Asia/Tokyo'; "
		    "Q:SELECT_4", "", "-Q Q" },
		{ SERVER, "C SET; Z I; C SELECT 1; Z I", "", "C ZI", "" },
	};

	(void)state;
	rig_start("");
	parameters_are_brought("asia/tokyo");
	PLAY(tried);
	far_close(&rig.server);
	rig_settle();
	PLAY(elsewhere);
	rig_log_in("me", "parameters", NULL);
	client_got();
	PLAY(other);
	/* What a server made of them is known now. */
	rig_log_in("me", "parameters", "asia/tokyo");
	assert_string_equal(client_got(), "R Sserver_version=15.0 "
	    "STimeZone=Asia/Tokyo Sapplication_name= K ZI");
	assert_string_equal(server_got(), "");
	rig_finish();
}

static void
parameters_that_are_refused_end_the_login(void **state)
{
	static const struct step steps[] = {
		{ SERVER, "E 22023 no; Z I", "", "E22023", "" },
	};

	(void)state;
	rig_start("");
	parameters_are_brought("Nowhere");
	PLAY(steps);
	assert_true(rig.client.ended);
	assert_true(rig.server.ended);	/* nobody knows what it has now */
	rig_finish();
}

static void
a_server_lost_while_parameters_are_tried_is_replaced(void **state)
{
	static const struct step steps[] = {
		{ SERVER, "C SET; S TimeZone=Asia/Seoul; Z I", PROBE, "",
		    "-Q" },
	};

	(void)state;
	rig_start("");
	parameters_are_brought("Asia/Seoul");
	far_close(&rig.server);
	rig_settle();
	assert_string_equal(server_got(),
	    "Q:SET_\"TimeZone\"_TO_'Asia/Seoul';");
	PLAY(steps);
	far_close(&rig.server);
	rig_settle();
	assert_string_equal(server_got(),
	    "Q:SET_\"TimeZone\"_TO_'Asia/Seoul';");
	assert_string_equal(client_got(), "");
	/* Not for ever. */
	far_close(&rig.server);
	rig_settle();
	assert_string_equal(client_got(), "E57P03");
	assert_true(rig.client.ended);
	rig_finish();
}

static void
what_was_set_for_a_client_is_its_own(void **state)
{
	static const struct step sets[] = {
		{ CLIENT, "Q SELECT 0", "Q:SELECT_0", "", "Q" },
		{ SERVER, "S TimeZone=Foo; C SELECT 1; Z I", "",
		    "STimeZone=Foo C ZI", "" },
		/* No news, no message. */
		{ CLIENT, "Q SELECT 1", "Q:SELECT_1", "", "Q" },
		{ SERVER, "S TimeZone=Foo; C SELECT 1; Z I", "", "C ZI", "" },
	};
	static const struct step other[] = {
		{ CLIENT, "Q SELECT 2", "Q:RESET_\"TimeZone\"; Q:SELECT_2", "",
		    "-Q Q" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(sets);
	rig_log_in("me", "transaction", NULL);
	client_got();
	PLAY(other);
	rig_finish();
}

/*
 * A BEGIN by itself.
 */

static void
a_begin_waits_for_its_first_statement(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "Q BEGIN", "", "C ZT", "" },
		{ CLIENT, "Q COMMIT", "", "C ZI", "" },
		{ CLIENT, "P :BEGIN; B; D @; E; S", "", "1 2 n C ZT", "" },
		{ CLIENT, "P :ROLLBACK; B; E; S", "", "1 2 C ZI", "" },
		{ CLIENT, "Q START TRANSACTION READ ONLY", "", "C ZT", "" },
		{ CLIENT, "P :SELECT 1; B; E; S",
		    "Q:START_TRANSACTION_READ_ONLY P:SELECT_1 B E S", "",
		    "-Q P B E S" },
		{ SERVER, "C START TRANSACTION; Z T; 1; 2; C SELECT 1; Z T",
		    "", "1 2 C ZT", "" },
		/* It has a server now, which has to know of the end. */
		{ CLIENT, "Q COMMIT", "Q:COMMIT", "", "Q" },
		{ SERVER, "C COMMIT; Z I", "", "C ZI", "" },
	};

	(void)state;
	rig_start("defer_begin = 1\n");
	rig_begin("transaction");
	PLAY(steps);
	is_parted();
	rig_finish();
}

static void
a_begin_that_is_not_alone_takes_a_server(void **state)
{
	static const char *const says[][2] = {
		{ "Q BEGIN; Q SELECT 1", "Q:BEGIN Q:SELECT_1" },
		{ "Q BEGIN NONSENSE", "Q:BEGIN_NONSENSE" },
		{ "Q COMMIT", "Q:COMMIT" },
		{ "P s1:BEGIN; B s1; E; S", "P#:BEGIN B# E S" },
		{ "P :BEGIN; B; E; P :SELECT 1; B; E; S",
		    "P:BEGIN B E P:SELECT_1 B E S" },
		{ "P :BEGIN; D s; S", "P:BEGIN Ds S" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(says); i++) {
		rig_start("defer_begin = 1\n");
		rig_begin("transaction");
		client_says(says[i][0]);
		assert_string_equal(server_got(), says[i][1]);
		rig_finish();
	}
}

static void
a_server_lost_behind_a_begin_ends_the_client(void **state)
{
	(void)state;
	rig_start("defer_begin = 1\n");
	rig_begin("transaction");
	client_says("Q BEGIN");
	client_says("Q UPDATE t");
	far_close(&rig.server);
	rig_settle();
	assert_string_equal(client_got(), "C ZT E08006");
	assert_true(rig.client.ended);
	rig_finish();
}

/*
 * A server is lost.
 */

static void
what_is_told_of_a_lost_server(void **state)
{
	/* What the client had said, what it had got, and what it is told. */
	static const struct {
		const char *database, *says, *got, *told;
		enum client_state after;
	} rows[] = {
		{ "transaction", "Q UPDATE t", "", "E08007 ZI", CLIENT_IDLE },
		{ "transaction", "Q UPDATE t", "C UPDATE 1", "E08007 ZI",
		    CLIENT_IDLE },
		{ "transaction", "F", "", "E08007 ZI", CLIENT_IDLE },
		{ "transaction", "P :UPDATE t; B; E; S", "1; 2",
		    "E08007 ZI", CLIENT_IDLE },
		{ "transaction", "P :UPDATE t; B; E; H", "1", "E08007",
		    CLIENT_SKIPPING },
		/* More than one request: which was it? */
		{ "transaction", "Q UPDATE t; Q UPDATE u", "", "E08007",
		    CLIENT_GONE },
		{ "transaction", "P :x; B; E; S; P :y; B; E; S", "", "E08007",
		    CLIENT_GONE },
		{ "transaction", "P :x; B; E; S; P :y; B; E", "", "E08007",
		    CLIENT_GONE },
		{ "transaction", "Q BEGIN", "C BEGIN; Z T", "E08006",
		    CLIENT_GONE },
		{ "transaction", "Q BEGIN; Q UPDATE t", "C BEGIN; Z T",
		    "E08006", CLIENT_GONE },
		{ "transaction", "Q BEGIN; Q COMMIT", "C BEGIN; Z T",
		    "E08007", CLIENT_GONE },
		{ "transaction", "Q BEGIN; P :COMMIT; B; E; S",
		    "C BEGIN; Z T; 1; 2", "E08007", CLIENT_GONE },
		{ "session", "Q SELECT 1", "C SELECT 1; Z I", "E08006",
		    CLIENT_GONE },
		{ "session", "Q SELECT 1", "", "E08007", CLIENT_GONE },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		rig_start("");
		rig_begin(rows[i].database);
		client_says(rows[i].says);
		if (rows[i].got[0] != '\0')
			server_says(rows[i].got);
		client_got();
		far_close(&rig.server);
		rig_settle();
		if (strcmp(client_got(), rows[i].told) != 0)
			fail_msg("row %zu: not as told", i);
		assert_int_equal(rig_client() == NULL ? CLIENT_GONE :
		    (enum client_state)rig_client()->state, rows[i].after);
		assert_int_equal(rig.client.ended,
		    rows[i].after == CLIENT_GONE);
		rig_finish();
	}
}

/* Half of a message is with the client: no word of ours may follow it. */
static void
a_message_torn_by_a_lost_server_is_not_gone_on_with(void **state)
{
	struct buf bytes = { 0 };

	(void)state;
	rig_start("");
	rig_begin("transaction");
	client_says("Q SELECT 1");
	compose(&bytes, "T; D", compose_reply);
	far_write(&rig.server, bytes.at, bytes.len - 1);
	rig_settle();
	far_close(&rig.server);
	rig_settle();
	assert_string_equal(client_got(), "T ~");
	assert_int_equal(rig.client.got.len, 0);
	assert_true(rig.client.ended);
	buf_finish(&bytes);
	rig_finish();
}

static void
the_last_words_of_a_server_are_the_detail(void **state)
{
	(void)state;
	rig_start("");
	rig_begin("transaction");
	client_says("Q UPDATE t");
	server_says("E 57P01 shut down by hand");
	assert_string_equal(client_got(), "");
	far_close(&rig.server);
	rig_settle();
	assert_non_null(memmem(rig.client.got.at, rig.client.got.len,
	    "Dshut down by hand", 18));
	assert_string_equal(client_got(), "E08007 ZI");
	rig_finish();
}

/*
 * A client goes.
 */

static void
a_server_left_in_a_transaction_is_rolled_back_and_used_again(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "Q BEGIN", "Q:BEGIN", "", "Q" },
		{ SERVER, "C BEGIN; Z T", "", "C ZT", "" },
		{ CLIENT, "X", "Q:ROLLBACK", "", "-Q" },
		{ SERVER, "C ROLLBACK; Z I", "", "", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(steps);
	assert_int_equal(rig_server()->state, SERVER_IDLE);
	rig_finish();
}

static void
a_server_left_in_the_middle_of_something_is_closed(void **state)
{
	/* Not so much as a Terminate: behind half a message of the client's it
	 * would be the rest of it. */
	static const char *const left_with[] = {
		"Q SELECT 1", "P :SELECT 1; H", "P :SELECT 1; B; E; S", "F",
	};
	struct buf bytes = { 0 };

	(void)state;
	for (size_t i = 0; i < COUNT(left_with); i++) {
		rig_start("");
		rig_begin("transaction");
		client_says(left_with[i]);
		server_got();
		far_close(&rig.client);
		rig_settle();
		assert_string_equal(server_got(), "");
		assert_true(rig.server.ended);
		rig_finish();
	}
	rig_start("");
	rig_begin("transaction");
	client_says("Q BEGIN");
	server_says("C BEGIN; Z T");
	server_got();
	compose(&bytes, "d one", compose_request);
	far_write(&rig.client, bytes.at, bytes.len - 1);
	rig_settle();
	far_close(&rig.client);
	rig_settle();
	assert_string_equal(server_got(), "~");
	assert_true(rig.server.ended);
	buf_finish(&bytes);
	rig_finish();
}

static void
what_stands_behind_a_terminate_is_not_passed_on(void **state)
{
	(void)state;
	rig_start("");
	rig_begin("transaction");
	client_says("Q SELECT 1; X; Q DROP TABLE t");
	assert_null(memmem(rig.server.got.at, rig.server.got.len, "DROP", 4));
	assert_true(rig.server.ended);
	rig_finish();
}

/*
 * The line.
 */

static void
those_who_wait_are_served_in_their_turn(void **state)
{
	static const struct step one[] = {
		{ CLIENT, "Q SELECT 1", "Q:SELECT_1", "", "Q" },
	};
	static const struct step other_waits[] = {
		{ CLIENT, "Q SELECT 2; Q SELECT 3", "", "", "Q" },
	};

	(void)state;
	rig_start("");
	rig_begin("transaction");
	PLAY(one);
	rig_swap();
	rig_log_in("me", "transaction", NULL);
	client_got();
	PLAY(other_waits);
	assert_int_equal(rig_client()->state, CLIENT_WAITING);
	rig_swap();
	server_says("C SELECT 1; Z I");
	assert_string_equal(client_got(), "C ZI");
	assert_string_equal(server_got(), "Q:SELECT_2 Q:SELECT_3");
	server_says("C SELECT 1; Z I; C SELECT 1; Z I");
	assert_string_equal(client_got(), "");
	rig_swap();
	rig_settle();
	assert_string_equal(client_got(), "C ZI C ZI");
	is_parted();
	rig_finish();
}

/*
 * Pool modes.
 */

static void
statement_mode_has_no_transactions(void **state)
{
	(void)state;
	rig_start("");
	rig_begin("statement");
	client_says("Q BEGIN");
	server_says("C BEGIN; Z T");
	assert_string_equal(client_got(), "E0A000");
	assert_true(rig.client.ended);
	rig_finish();
}

static void
a_session_is_reset_when_its_client_goes(void **state)
{
	static const struct step steps[] = {
		{ CLIENT, "Q SELECT 1", "Q:SELECT_1", "", "Q" },
		{ SERVER, "C SELECT 1; Z I", "", "C ZI", "" },
		{ CLIENT, "X", "Q:DISCARD_ALL", "", "-Q" },
		{ SERVER, "C DISCARD ALL; Z I", "", "", "" },
	};

	(void)state;
	rig_start("");
	rig_begin("session");
	PLAY(steps);
	assert_int_equal(rig_server()->state, SERVER_IDLE);
	rig_finish();
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_teardown(name, rig_is_done)
		TEST(a_query_ends_with_its_ready_and_both_part),
		TEST(a_transaction_keeps_its_server),
		TEST(an_error_skips_to_the_sync),
		TEST(an_error_skips_what_comes_until_a_sync_does),
		TEST(an_error_of_a_query_skips_nothing),
		TEST(an_error_at_the_sync_leaves_its_ready),
		TEST(a_batch_without_a_sync_keeps_its_server),
		TEST(an_answer_of_ours_waits_for_its_turn),
		TEST(replies_may_come_in_pieces_of_any_size),
		TEST(there_is_an_end_to_what_may_be_owed),
		TEST(a_name_whose_parse_failed_is_free),
		TEST(a_close_that_was_skipped_has_not_closed),
		TEST(changes_of_a_name_are_undone_last_to_first),
		TEST(a_later_batch_waits_until_a_name_is_certain),
		TEST(a_name_that_was_closed_is_uncertain_too),
		TEST(another_name_waits_until_the_statement_is_settled),
		TEST(the_unnamed_statement_follows_its_client),
		TEST(nobody_binds_the_unnamed_statement_of_another),
		TEST(a_query_or_a_failed_parse_ends_the_unnamed_statement),
		TEST(a_parse_that_was_skipped_leaves_the_unnamed_statement),
		TEST(batches_that_were_skipped_leave_the_unnamed_statement),
		TEST(a_parse_behind_a_skipped_one_is_the_last_word),
		TEST(a_query_behind_a_skipped_parse_ends_the_unnamed_statement),
		TEST(a_query_that_was_skipped_leaves_the_unnamed_statement),
		TEST(the_same_text_again_that_fails_ends_the_unnamed_statement),
		TEST(a_parse_of_ours_that_fails_leaves_the_unnamed_statement),
		TEST(deallocate_as_a_query_ends_the_unnamed_statement),
		TEST(what_stands_in_a_copy_is_undone_last_to_first),
		TEST(a_parse_of_ours_that_was_skipped_is_sent_again),
		TEST(the_query_of_one_ends_the_unnamed_statement_of_all),
		TEST(clients_with_the_same_text_share_a_statement),
		TEST(a_statement_is_parsed_where_it_is_missing),
		TEST(the_least_recently_used_gives_way),
		TEST(a_statement_whose_close_was_skipped_is_still_there),
		TEST(without_tracking_names_are_the_servers_own),
		TEST(a_name_that_is_taken_is_refused_by_that_name),
		TEST(a_name_of_ours_is_nobodys),
		TEST(deallocate_is_about_the_clients_names),
		TEST(a_deallocate_that_was_skipped_has_not_happened),
		TEST(a_local_portal_lasts_as_long_as_its_transaction),
		TEST(discard_all_that_reached_the_server_takes_everything),
		TEST(a_sync_inside_copy_in_is_never_answered),
		TEST(a_sync_behind_a_copy_that_fails_unread_is_answered),
		TEST(copy_data_may_come_before_it_is_asked_for),
		TEST(a_copy_in_ends_with_its_error),
		TEST(requests_inside_copy_in_cost_the_server),
		TEST(copy_out_is_passed_on),
		TEST(parameters_are_tried_at_login_and_then_go_in_front),
		TEST(parameters_that_are_refused_end_the_login),
		TEST(a_server_lost_while_parameters_are_tried_is_replaced),
		TEST(what_was_set_for_a_client_is_its_own),
		TEST(a_begin_waits_for_its_first_statement),
		TEST(a_begin_that_is_not_alone_takes_a_server),
		TEST(a_server_lost_behind_a_begin_ends_the_client),
		TEST(what_is_told_of_a_lost_server),
		TEST(a_message_torn_by_a_lost_server_is_not_gone_on_with),
		TEST(the_last_words_of_a_server_are_the_detail),
		TEST(
		  a_server_left_in_a_transaction_is_rolled_back_and_used_again),
		TEST(a_server_left_in_the_middle_of_something_is_closed),
		TEST(what_stands_behind_a_terminate_is_not_passed_on),
		TEST(those_who_wait_are_served_in_their_turn),
		TEST(statement_mode_has_no_transactions),
		TEST(a_session_is_reset_when_its_client_goes),
	};

	alarm(120);			/* what hangs has failed */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
