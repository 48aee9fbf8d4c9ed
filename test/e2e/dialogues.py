"""What is said to Postgres and to pgsluice alike; see differential.py."""

import struct

import wire
from differential import INT4, TEXT, dialogue
from wire import (bind, close, copy_data, copy_done, copy_fail, describe,
                  execute, flush, function_call, message, parse, query, sync)


# ---- simple protocol

@dialogue()
def a_simple_query(talk):
    talk.send(query("SELECT 1 AS one, 'two' AS two, NULL AS three"))
    talk.ready()


@dialogue()
def several_statements_in_one_query(talk):
    talk.send(query("SELECT 1; INSERT INTO diff_t VALUES (1, 'x'); "
                    "SELECT * FROM diff_t; DELETE FROM diff_t"))
    talk.ready()


@dialogue()
def empty_queries(talk):
    for sql in ("", " ", ";", "-- nothing", "SELECT 1;;SELECT 2;"):
        talk.send(query(sql))
        talk.ready()


@dialogue()
def queries_without_waiting(talk):
    talk.send(*(query(f"SELECT {n}") for n in range(50)))
    talk.ready(50)


@dialogue()
def errors_of_many_kinds(talk):
    for sql in ("SELEC 1", "SELECT 1/0", "SELECT * FROM nowhere",
                "SELECT nothing", "INSERT INTO diff_t VALUES (1), (1)",
                "SELECT 'x'::int", "SELECT 'unfinished"):
        talk.send(query(sql))
        talk.ready()


@dialogue()
def an_error_takes_back_what_came_before_it_in_the_query(talk):
    talk.send(query("INSERT INTO diff_t VALUES (5, 'x'); SELECT 1/0; "
                    "SELECT 'never'"))
    talk.ready()
    talk.send(query("SELECT count(*) FROM diff_t"))
    talk.ready()


@dialogue()
def notices_and_warnings(talk):
    talk.send(query(
        "DO $$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second' "
        "USING HINT = 'a hint', DETAIL = 'a detail'; END$$"))
    talk.ready()
    talk.send(query("COMMIT"))          # WARNING: no transaction
    talk.ready()
    talk.send(query("BEGIN; BEGIN; ROLLBACK"))
    talk.ready()


@dialogue()
def an_error_with_all_its_fields(talk):
    talk.send(query(
        "DO $$BEGIN RAISE EXCEPTION 'text' USING ERRCODE = 'XX123', "
        "DETAIL = 'd', HINT = 'h', COLUMN = 'c', CONSTRAINT = 'k', "
        "DATATYPE = 't', TABLE = 'r', SCHEMA = 's'; END$$"))
    talk.ready()


# ---- transactions

@dialogue()
def a_transaction(talk):
    for sql in ("BEGIN", "INSERT INTO diff_t VALUES (1, 'a')", "COMMIT",
                "SELECT * FROM diff_t"):
        talk.send(query(sql))
        talk.ready()


@dialogue()
def a_failed_transaction(talk):
    for sql in ("BEGIN", "SELECT 1/0", "SELECT 1", "COMMIT", "SELECT 2"):
        talk.send(query(sql))
        talk.ready()


@dialogue()
def a_transaction_within_one_query(talk):
    talk.send(query("BEGIN; INSERT INTO diff_t VALUES (1, 'a'); COMMIT; "
                    "SELECT 1/0"))
    talk.ready()
    talk.send(query("SELECT * FROM diff_t"))
    talk.ready()


@dialogue()
def a_transaction_left_open_by_a_query(talk):
    talk.send(query("SELECT 1; BEGIN; SELECT 2"))
    talk.ready()
    talk.send(query("SELECT 3; COMMIT; BEGIN; SELECT 4"))
    talk.ready()
    talk.send(query("COMMIT AND CHAIN"))
    talk.ready()
    talk.send(query("ROLLBACK"))
    talk.ready()


@dialogue()
def savepoints(talk):
    for sql in ("BEGIN", "SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO a",
                "INSERT INTO diff_t VALUES (1, 'a')", "RELEASE a", "COMMIT",
                "SELECT * FROM diff_t"):
        talk.send(query(sql))
        talk.ready()


@dialogue()
def rollback_of_a_failed_transaction_by_the_extended_protocol(talk):
    talk.send(query("BEGIN"), query("SELECT 1/0"))
    talk.ready(2)
    talk.send(parse("", "SELECT 1"), bind(), execute(), sync())
    talk.ready()
    talk.send(parse("", "ROLLBACK"), bind(), describe(), execute(), sync())
    talk.ready()
    talk.send(query("SELECT 1"))
    talk.ready()


@dialogue()
def a_statement_that_takes_too_long(talk):
    talk.send(query("BEGIN; SET LOCAL statement_timeout = '20ms'"))
    talk.ready()
    talk.send(query("SELECT pg_sleep(10)"))
    talk.ready()
    talk.send(query("ROLLBACK"))
    talk.ready()


# ---- extended protocol

@dialogue()
def an_extended_query(talk):
    talk.send(parse("", "SELECT $1::int + 1 AS n, $2::text", [INT4, TEXT]),
              bind(values=["41", "x"]), describe(), execute(), sync())
    talk.ready()


@dialogue()
def nulls_and_binary_values(talk):
    talk.send(parse("", "SELECT $1::int8, $2::bytea, $3::text"),
              bind(values=[struct.pack("!q", 1 << 40), b"\0\1\2", None],
                   formats=[1, 1, 0], results=[1, 1, 0]),
              describe(), execute(), sync())
    talk.ready()
    talk.send(bind(values=[b"7", b"\\x00", None], results=[0]),
              execute(), sync())
    talk.ready()


@dialogue()
def extended_in_pieces_with_flush(talk):
    talk.send(parse("", "SELECT g FROM generate_series(1, $1::int) g"),
              describe("S"), flush())
    talk.until("T")
    talk.send(bind(values=["3"]), flush())
    talk.until("2")
    talk.send(describe(), execute(), flush())
    talk.until("C")
    talk.send(sync())
    talk.ready()


@dialogue()
def an_empty_extended_query(talk):
    talk.send(parse("", ""), describe("S"), bind(), describe(), execute(),
              sync())
    talk.ready()


@dialogue()
def describe_of_what_returns_nothing(talk):
    talk.send(parse("", "INSERT INTO diff_t VALUES ($1, $2)"), describe("S"),
              bind(values=["1", "x"]), describe(), execute(), sync())
    talk.ready()


@dialogue()
def sync_and_flush_alone(talk):
    talk.send(sync(), flush(), sync(), sync())
    talk.ready(3)


@dialogue()
def errors_at_every_message_of_a_batch(talk):
    after = (bind(), describe(), execute(), sync())
    talk.send(parse("", "SELEC"), *after)
    talk.ready()
    talk.send(parse("", "SELECT 1; SELECT 2"), *after)
    talk.ready()
    talk.send(parse("", "SELECT $1::int"), bind(values=["x"]), *after)
    talk.ready()
    talk.send(parse("", "SELECT $1::int"), bind(values=[]), *after)
    talk.ready()
    talk.send(parse("", "SELECT 1/(a - a) FROM (SELECT 1 AS a) x"), *after)
    talk.ready()


@dialogue()
def what_follows_an_error_is_skipped_until_sync(talk):
    talk.send(parse("", "SELEC"), bind(), execute(),
              parse("s1", "SELECT 1"), bind("", "s1"), execute(), flush(),
              query("SELECT 'skipped too'"), close("S", "s1"))
    talk.until("E")
    talk.send(parse("", "SELECT 2"), bind(), execute(), sync())
    talk.ready()
    talk.send(bind("", "s1"), sync())
    talk.ready()


@dialogue()
def a_query_in_an_unfinished_batch(talk):
    talk.send(parse("", "INSERT INTO diff_t VALUES (1, 'x')"), bind(),
              execute(), query("SELECT count(*) FROM diff_t"), sync())
    talk.ready(2)


# ---- pipelines

@dialogue()
def a_pipeline(talk):
    talk.send(*(part for n in range(20) for part in (
        parse("", "SELECT $1::int"), bind(values=[n]), describe(), execute(),
        sync())))
    talk.ready(20)


@dialogue()
def a_pipeline_with_errors(talk):
    for n in range(12):
        sql = "SELECT 1/$1::int" if n % 3 else "SELECT $1::int"
        talk.send(parse("", sql), bind(values=[n % 2]), execute(), sync())
    talk.ready(12)


@dialogue()
def several_statements_before_one_sync_are_one_transaction(talk):
    for sql in ("INSERT INTO diff_t VALUES (1, 'a')",
                "INSERT INTO diff_t VALUES (2, 'b')", "SELECT 1/0"):
        talk.send(parse("", sql), bind(), execute())
    talk.send(sync())
    talk.ready()
    talk.send(query("SELECT count(*) FROM diff_t"))
    talk.ready()


@dialogue()
def a_transaction_in_a_pipeline(talk):
    for sql in ("BEGIN", "INSERT INTO diff_t VALUES (1, 'a')", "SELECT 1/0",
                "SELECT 1", "COMMIT", "SELECT count(*) FROM diff_t"):
        talk.send(parse("", sql), bind(), execute(), sync())
    talk.ready(6)


@dialogue()
def a_pipeline_of_both_protocols(talk):
    talk.send(query("SELECT 1"), parse("", "SELECT 2"), bind(), execute(),
              sync(), query("SELECT 1/0"), parse("s1", "SELECT 3"),
              bind("", "s1"), execute(), sync(), query("SELECT 4; SELECT 5"))
    talk.ready(5)


# ---- prepared statements

@dialogue()
def named_statements(talk):
    talk.send(parse("s1", "SELECT 'one'"),
              parse("s2", "SELECT $1::int, 'two'", [INT4]), sync())
    talk.ready()
    for _ in range(3):
        talk.send(bind("", "s1"), execute(), sync())
        talk.ready()
        talk.send(bind("", "s2", ["7"]), describe("S", "s2"), execute(),
                  sync())
        talk.ready()


@dialogue()
def a_name_that_is_taken(talk):
    talk.send(parse("s1", "SELECT 1"), sync())
    talk.ready()
    talk.send(parse("s1", "SELECT 2"), sync())
    talk.ready()
    talk.send(parse("s1", "SELECT 1"), sync())
    talk.ready()
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()


@dialogue()
def a_name_that_is_taken_for_a_text_with_another_error(talk):
    talk.send(parse("s1", "ROLLBACK TO x"), sync())
    talk.ready()
    for sql in ("SELEC", "SELECT nothing", "SELECT 1", "COMMIT"):
        talk.send(parse("s1", sql), sync())
        talk.ready()
    talk.send(query("BEGIN"))
    talk.ready()
    for sql in ("SELECT 1/0", "SELECT 1", "SELECT nothing", "SELEC", "COMMIT"):
        talk.send(parse("s1", sql), sync())
        talk.ready()
    talk.send(query("ROLLBACK"))
    talk.ready()


@dialogue()
def statements_in_a_transaction_that_fails_before_them(talk):
    for name in ("s1", "s2", "s3"):
        talk.send(parse(name, f"SELECT '{name}'"), sync())
        talk.ready()
        talk.send(close("S", name), sync())
        talk.ready()
    talk.send(query("BEGIN"), query("SELECT 1/0"),
              parse("s1", "SELECT 's1'"), bind("", "s1"), execute(), sync(),
              query("ROLLBACK"),
              parse("s1", "SELECT 's2'"), bind("", "s1"), execute(), sync())
    talk.ready(5)
    talk.send(parse("s2", "BEGIN"), bind("", "s2"), execute(), sync(),
              bind("", "no"), sync(),
              parse("s3", "SELECT 's3'"), sync(), bind("", "s3"), sync(),
              query("ROLLBACK"), bind("", "s3"), execute(), sync())
    talk.ready(6)


@dialogue()
def a_name_taken_twice_in_one_batch(talk):
    talk.send(parse("s1", "SELECT 1"), parse("s1", "SELECT 2"),
              bind("", "s1"), execute(), sync())
    talk.ready()
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()


@dialogue()
def a_statement_that_does_not_parse_is_not_there(talk):
    talk.send(parse("s1", "SELEC 1"), sync())
    talk.ready()
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()
    talk.send(parse("s1", "SELECT 1"), bind("", "s1"), execute(), sync())
    talk.ready()


@dialogue()
def closed_statements(talk):
    talk.send(parse("s1", "SELECT 1"), close("S", "s1"), close("S", "s1"),
              close("S", "nobody"), close("P", "nobody"), close("S"),
              close("P"), sync())
    talk.ready()
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()
    talk.send(parse("s1", "SELECT 'again'"), sync())
    talk.ready()
    talk.send(close("S", "s1"), parse("s1", "SELECT 'and again'"), sync())
    talk.ready()
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()


@dialogue()
def names_nobody_gave(talk):
    for messages in ((bind("", "nobody"), execute()),
                     (describe("S", "nobody"),), (describe("P", "nobody"),),
                     (execute("nobody"),), (describe("S"),), (describe("P"),),
                     (execute(),)):
        talk.send(*messages, sync())
        talk.ready()


@dialogue()
def names_with_odd_characters(talk):
    for name in ('with "quotes"', "with space", "ü€", "x" * 200, "$1"):
        talk.send(parse(name, f"SELECT {len(name)}"), bind("", name),
                  describe("S", name), execute(), sync())
        talk.ready()
        talk.send(parse(name, "SELECT 0"), sync())
        talk.ready()
        talk.send(close("S", name), bind("", name), sync())
        talk.ready()


@dialogue()
def the_unnamed_statement_lives_on_after_sync(talk):
    talk.send(parse("", "SELECT $1::int * 2"), describe("S"), sync())
    talk.ready()
    talk.send(bind(values=["21"]), describe(), execute(), sync())
    talk.ready()
    talk.send(bind(values=["4"]), execute(), sync())
    talk.ready()
    talk.send(describe("S"), sync())
    talk.ready()


@dialogue()
def a_simple_query_ends_the_unnamed_statement(talk):
    talk.send(parse("", "SELECT 1"), sync())
    talk.ready()
    talk.send(query("SELECT 2"))
    talk.ready()
    talk.send(bind(), execute(), sync())
    talk.ready()


@dialogue()
def a_failed_parse_ends_the_unnamed_statement(talk):
    talk.send(parse("", "SELECT 1"), sync())
    talk.ready()
    talk.send(parse("", "SELEC"), sync())
    talk.ready()
    talk.send(bind(), execute(), sync())
    talk.ready()


def bound(talk):
    talk.send(bind("", ""), execute(""), sync())
    talk.ready()


@dialogue()
def a_skipped_parse_leaves_the_unnamed_statement(talk):
    for n in range(2):
        talk.send(parse("", "SELECT 1"), sync())
        talk.ready()
        talk.send(*[execute("no"), parse("", "SELECT 2"), sync()] * (n + 1))
        talk.ready(n + 1)
        bound(talk)


@dialogue()
def a_parse_behind_a_skipped_one_is_the_last_word(talk):
    for sql in ("SELECT 2", "SELECT 3", "SELECT nothing"):
        talk.send(parse("", "SELECT 1"), sync())
        talk.ready()
        talk.send(execute("no"), parse("", "SELECT 2"), sync(),
                  parse("", sql), sync())
        talk.ready(2)
        bound(talk)


@dialogue()
def a_query_behind_a_skipped_parse_ends_the_unnamed_statement(talk):
    talk.send(parse("", "SELECT 1"), sync())
    talk.ready()
    talk.send(execute("no"), parse("", "SELECT 2"), sync(), query("SELECT 3"))
    talk.ready(2)
    bound(talk)


@dialogue()
def a_skipped_query_or_close_leaves_the_unnamed_statement(talk):
    for skipped in (query("SELECT 3"), close("S", "")):
        talk.send(parse("", "SELECT 1"), sync())
        talk.ready()
        talk.send(execute("no"), skipped, sync())
        talk.ready()
        bound(talk)
        talk.send(execute("no"), skipped, sync(), bind("", ""), execute(""),
                  sync())
        talk.ready(2)


@dialogue()
def the_same_text_that_no_longer_parses_ends_the_unnamed_statement(talk):
    talk.send(query("CREATE TABLE diff_soon (a int)"))
    talk.ready()
    talk.send(parse("", "SELECT * FROM diff_soon"), sync())
    talk.ready()
    talk.send(parse("drop", "DROP TABLE diff_soon"), bind("", "drop"),
              execute(""), sync())
    talk.ready()
    talk.send(parse("", "SELECT * FROM diff_soon"), sync())
    talk.ready()
    bound(talk)


@dialogue()
def a_statement_that_no_longer_parses_is_still_there(talk):
    talk.send(query("CREATE TABLE diff_soon (a int)"))
    talk.ready()
    talk.send(parse("", "SELECT * FROM diff_soon"), sync())
    talk.ready()
    talk.send(parse("drop", "DROP TABLE diff_soon"), bind("", "drop"),
              execute(""), sync())
    talk.ready()
    bound(talk)
    bound(talk)


@dialogue()
def deallocate_as_a_query_ends_the_unnamed_statement(talk):
    for sql in ("DEALLOCATE ALL", "DEALLOCATE s1", "BEGIN; COMMIT", ""):
        talk.send(parse("s1", "SELECT 1"), parse("", "SELECT 1"), sync())
        talk.ready()
        talk.send(query(sql))
        talk.ready()
        bound(talk)
        talk.send(close("S", "s1"), sync())
        talk.ready()


@dialogue()
def the_unnamed_statement_can_be_closed(talk):
    talk.send(parse("", "SELECT 1"), sync())
    talk.ready()
    talk.send(close("S"), sync())
    talk.ready()
    talk.send(bind(), execute(), sync())
    talk.ready()


@dialogue()
def a_statement_survives_the_rollback_that_it_was_made_in(talk):
    talk.send(query("BEGIN"), parse("s1", "SELECT 1"), sync(),
              query("ROLLBACK"))
    talk.ready(3)
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()


@dialogue()
def statements_in_a_failed_transaction(talk):
    talk.send(parse("s1", "SELECT 1"), parse("s2", "ROLLBACK"), sync())
    talk.ready()
    talk.send(query("BEGIN"), query("SELECT 1/0"))
    talk.ready(2)
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()
    talk.send(parse("s3", "SELECT 3"), sync())
    talk.ready()
    talk.send(bind("", "s2"), execute(), sync())
    talk.ready()
    talk.send(bind("", "s3"), execute(), sync())
    talk.ready()
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()


@dialogue()
def deallocate(talk):
    for sql in ("DEALLOCATE s1", "deallocate prepare s1", "DEALLOCATE ALL",
                "DISCARD ALL"):
        talk.send(parse("s1", "SELECT 1"), sync())
        talk.ready()
        talk.send(query(sql))
        talk.ready()
        talk.send(bind("", "s1"), execute(), sync())
        talk.ready()
        talk.send(parse("s1", "SELECT 2"), bind("", "s1"), execute(), sync())
        talk.ready()
        talk.send(close("S", "s1"), sync())
        talk.ready()


@dialogue()
def deallocate_by_the_extended_protocol(talk):
    for sql in ("DEALLOCATE s1", "DEALLOCATE ALL"):
        talk.send(parse("s1", "SELECT 1"), parse("s2", "SELECT 2"), sync())
        talk.ready()
        talk.send(parse("", sql), bind(), execute(), sync())
        talk.ready()
        talk.send(bind("", "s1"), execute(), sync())
        talk.ready()
        talk.send(bind("", "s2"), execute(), sync())
        talk.ready()
        talk.send(close("S", "s1"), close("S", "s2"), sync())
        talk.ready()


@dialogue()
def deallocate_of_a_name_nobody_gave(talk):
    talk.send(query("DEALLOCATE nobody"))
    talk.ready()
    talk.send(query("DEALLOCATE ALL"))
    talk.ready()


@dialogue()
def sql_level_prepare_within_a_transaction(talk):
    talk.send(query("BEGIN; PREPARE p(int) AS SELECT $1 + 1; EXECUTE p(1)"))
    talk.ready()
    talk.send(bind("", "p", ["5"]), execute(), sync())
    talk.ready()
    talk.send(query("DEALLOCATE p; COMMIT"))
    talk.ready()


@dialogue()
def statements_of_sql_and_of_the_protocol_are_closed_alike(talk):
    talk.send(parse("s1", "SELECT 1"), parse("d1", "DEALLOCATE s1"), sync())
    talk.ready()
    for end in (query("DEALLOCATE s1"),
                bind("", "d1") + execute() + sync()):
        talk.send(query("BEGIN"))
        talk.ready()
        talk.send(query("PREPARE mine AS SELECT 2"))
        talk.ready()
        talk.send(end)
        talk.ready()
        talk.send(close("S", "mine"), sync())
        talk.ready()
        talk.send(query("EXECUTE mine"))
        talk.ready()
        talk.send(query("ROLLBACK"))
        talk.ready()
        talk.send(parse("s1", "SELECT 1"), sync())
        talk.ready()


@dialogue()
def an_error_before_statements_that_this_server_may_lack(talk):
    talk.send(parse("s1", "SELECT 'one'"), parse("s2", "SELECT 'two'"),
              sync())
    talk.ready()
    talk.send(parse("", "SELEC"), bind("", "s1"), execute(),
              describe("S", "s2"), sync(), bind("", "s1"), execute(), sync(),
              parse("s2", "SELECT 'taken'"), sync())
    talk.ready(3)
    talk.send(bind("", "s2"), execute(), sync())
    talk.ready()


@dialogue()
def an_error_before_close(talk):
    talk.send(parse("s1", "SELECT 'one'"), sync())
    talk.ready()
    talk.send(parse("", "SELEC"), close("S", "s1"), sync(),
              parse("s1", "SELECT 'taken'"), sync(), bind("", "s1"),
              execute(), sync())
    talk.ready(3)


# ---- portals

@dialogue()
def a_portal_in_pieces(talk):
    talk.send(parse("", "SELECT g FROM generate_series(1, 7) g"), bind(),
              execute(rows=3), execute(rows=3), execute(rows=3),
              execute(rows=3), sync())
    talk.ready()
    talk.send(execute(), sync())        # gone with its transaction
    talk.ready()


@dialogue()
def a_suspended_portal_with_flush(talk):
    talk.send(parse("", "SELECT g FROM generate_series(1, 7) g"), bind(),
              execute(rows=3), flush())
    talk.until("s")
    talk.send(execute(rows=3), flush())
    talk.until("s")
    talk.send(close("P"), flush())
    talk.until("3")
    talk.send(execute(rows=3), sync())
    talk.ready()


@dialogue()
def two_named_portals_in_a_transaction(talk):
    talk.send(query("BEGIN"))
    talk.ready()
    talk.send(parse("s1", "SELECT g FROM generate_series(1, $1::int) g"),
              bind("p1", "s1", ["4"]), bind("p2", "s1", ["5"]), sync())
    talk.ready()
    for portal in ("p1", "p2", "p1", "p2", "p1"):
        talk.send(execute(portal, 2), sync())
        talk.ready()
    talk.send(bind("p1", "s1", ["1"]), sync())      # taken
    talk.ready()
    talk.send(query("ROLLBACK"))
    talk.ready()
    talk.send(execute("p1"), sync())
    talk.ready()


@dialogue()
def a_cursor_is_a_portal(talk):
    talk.send(query("BEGIN; DECLARE c CURSOR FOR "
                    "SELECT g FROM generate_series(1, 9) g"))
    talk.ready()
    talk.send(describe("P", "c"), execute("c", 2), sync())
    talk.ready()
    talk.send(query("FETCH 2 FROM c; MOVE 1 IN c; FETCH 1 FROM c; CLOSE c; "
                    "COMMIT"))
    talk.ready()


@dialogue()
def an_insert_runs_once_per_bind(talk):
    talk.send(parse("", "INSERT INTO diff_copy VALUES (1, 'x')"), bind(),
              execute(), execute(), sync())
    talk.ready()
    talk.send(query("SELECT count(*) FROM diff_copy"))
    talk.ready()


# ---- COPY

@dialogue()
def copy_in(talk):
    talk.send(query("COPY diff_copy FROM STDIN"))
    talk.until("G")
    talk.send(copy_data(b"1\ta\n2\t"), copy_data(b"b\n"), flush(), sync(),
              copy_data(b""), copy_done())
    talk.ready()
    talk.send(query("SELECT * FROM diff_copy"))
    talk.ready()


@dialogue()
def copy_in_without_waiting(talk):
    talk.send(query("COPY diff_copy FROM STDIN"), copy_data(b"1\ta\n"),
              copy_done(), query("SELECT * FROM diff_copy"))
    talk.ready(2)


@dialogue()
def copy_in_fails_by_request(talk):
    talk.send(query("COPY diff_copy FROM STDIN"))
    talk.until("G")
    talk.send(copy_data(b"1\ta\n"), copy_fail("changed my mind"))
    talk.ready()
    talk.send(query("SELECT count(*) FROM diff_copy"))
    talk.ready()


@dialogue()
def copy_in_fails_by_its_data(talk):
    talk.send(query("COPY diff_copy FROM STDIN"))
    talk.until("G")
    talk.send(copy_data(b"1\ta\nno number\tb\n"))
    talk.send(copy_data(b"3\tc\n" * 100), copy_done())
    talk.ready()
    talk.send(query("SELECT count(*) FROM diff_copy"))
    talk.ready()


@dialogue()
def copy_in_by_the_extended_protocol(talk):
    start = (parse("", "COPY diff_copy FROM STDIN"), bind(), describe(),
             execute())
    talk.send(*start, flush())
    talk.until("G")
    talk.send(copy_data(b"1\ta\n"), sync(), flush(), copy_done(), sync())
    talk.ready()
    talk.send(*start, copy_data(b"2\tb\n"), copy_done(), sync())
    talk.ready()
    talk.send(*start, copy_data(b"3\tc\n"), copy_fail(), sync())
    talk.ready()
    talk.send(query("SELECT * FROM diff_copy"))
    talk.ready()


@dialogue()
def copy_in_by_the_extended_protocol_that_fails_before_it_reads(talk):
    # It cannot FREEZE, and says so when it has asked for data already; a Sync
    # that came with it is answered then, and not where data is read.
    freeze = (parse("", "COPY diff_copy FROM STDIN (FREEZE)"), bind(),
              describe(), execute(), sync())
    plain = (parse("", "COPY diff_copy FROM STDIN"), bind(), describe(),
             execute(), sync())
    for _ in range(3):
        talk.send(*freeze)
        talk.ready()
        talk.send(copy_data(b"1\ta\n"), copy_done(), sync())
        talk.ready()
        talk.send(query("SELECT count(*) FROM diff_copy"))
        talk.ready()
        talk.send(*plain)
        talk.until("G")
        talk.send(copy_data(b"no number\ta\n"), copy_done(), sync())
        talk.ready()
    talk.send(query("BEGIN"), *freeze)
    talk.ready(2)
    talk.send(copy_data(b"1\ta\n"), copy_done(), sync(), query("ROLLBACK"))
    talk.ready(2)


@dialogue()
def copy_in_fails_by_its_data_in_a_pipeline(talk):
    talk.send(parse("", "COPY diff_copy FROM STDIN"), bind(), execute(),
              copy_data(b"no number\ta\n"), copy_data(b"2\tb\n"),
              copy_done(), parse("", "SELECT 'skipped'"), bind(), execute(),
              sync(), parse("", "SELECT 'not skipped'"), bind(), execute(),
              sync(), query("SELECT count(*) FROM diff_copy"))
    talk.ready(3)


@dialogue()
def copy_in_that_cannot_begin(talk):
    talk.send(query("COPY nowhere FROM STDIN"), copy_data(b"1\ta\n"),
              copy_done(), query("SELECT 1"))
    talk.ready(2)
    talk.send(parse("", "COPY nowhere FROM STDIN"), bind(), execute(),
              copy_data(b"1\ta\n"), copy_fail(), sync())
    talk.ready()


@dialogue()
def copies_among_other_statements_of_a_query(talk):
    talk.send(query("SELECT 1; COPY diff_copy FROM STDIN; "
                    "COPY diff_copy FROM STDIN; SELECT * FROM diff_copy; "
                    "COPY diff_copy TO STDOUT; SELECT 2"))
    talk.until("G")
    talk.send(copy_data(b"1\ta\n"), copy_done())
    talk.until("G")
    talk.send(copy_data(b"2\tb\n"), copy_done())
    talk.ready()


@dialogue()
def copy_in_a_transaction(talk):
    talk.send(query("BEGIN"), query("COPY diff_copy FROM STDIN"))
    talk.until("G")
    talk.send(copy_data(b"1\ta\n"), copy_done())
    talk.ready()
    talk.send(query("COPY diff_copy FROM STDIN"))
    talk.until("G")
    talk.send(copy_fail("no"))
    talk.ready()
    talk.send(query("COPY diff_copy TO STDOUT"), query("ROLLBACK"))
    talk.ready(2)


@dialogue()
def copy_out(talk):
    text = "COPY (SELECT g, 'x' FROM generate_series(1, 200) g) TO STDOUT"
    talk.send(query(text))
    talk.ready()
    talk.send(parse("", text), bind(), describe(), execute(), sync())
    talk.ready()
    talk.send(query("COPY (SELECT 1/(5 - g) FROM generate_series(1, 9) g) "
                    "TO STDOUT"))
    talk.ready()


@dialogue()
def copy_binary(talk):
    talk.send(query("COPY (SELECT 1::int4, 'x'::text) TO STDOUT (FORMAT "
                    "binary)"))
    talk.ready()
    row = struct.pack("!hiiis", 2, 4, 7, 1, b"y")
    talk.send(query("COPY diff_copy FROM STDIN (FORMAT binary)"),
              copy_data(b"PGCOPY\n\xff\r\n\0" + bytes(8) + row +
                        struct.pack("!h", -1)), copy_done(),
              query("SELECT * FROM diff_copy"))
    talk.ready(2)


# ---- FunctionCall

@dialogue()
def function_calls(talk):
    talk.send(function_call(1283, b"it's"))         # quote_literal(text)
    talk.ready()
    talk.send(function_call(1283))                  # too few arguments
    talk.ready()
    talk.send(function_call(0, b"x"))               # no such function
    talk.ready()
    talk.send(query("BEGIN"), function_call(1283, b"x"),
              function_call(999999), function_call(1283, b"x"),
              query("ROLLBACK"))
    talk.ready(5)


# ---- settings

@dialogue()
def set_is_reported(talk):
    for sql in ("SET application_name TO 'mine'", "SET TimeZone TO 'UTC'",
                "SHOW application_name", "SHOW TimeZone",
                "RESET application_name", "SHOW application_name"):
        talk.send(query(sql))
        talk.ready()


@dialogue()
def set_in_transactions(talk):
    for sql in ("SET application_name TO 'before'", "BEGIN",
                "SET application_name TO 'rolled back'", "ROLLBACK",
                "SHOW application_name", "BEGIN",
                "SET LOCAL application_name TO 'local'", "COMMIT",
                "SHOW application_name", "BEGIN",
                "SET application_name TO 'kept'", "COMMIT",
                "SHOW application_name",
                "BEGIN; SET DateStyle TO 'German'; SELECT 1/0", "COMMIT",
                "SHOW DateStyle"):
        talk.send(query(sql))
        talk.ready()


@dialogue()
def set_by_the_extended_protocol(talk):
    talk.send(parse("", "SET application_name TO 'extended'"), bind(),
              execute(), sync())
    talk.ready()
    talk.send(parse("", "SELECT set_config('TimeZone', $1, false)"),
              bind(values=["Europe/Berlin"]), execute(), sync())
    talk.ready()
    talk.send(query("SELECT current_setting('application_name'), "
                    "current_setting('TimeZone')"))
    talk.ready()


@dialogue()
def set_to_something_impossible(talk):
    talk.send(query("SET TimeZone TO 'Nowhere/At_All'"))
    talk.ready()
    talk.send(query("SET application_name TO 'x'; SELECT 1/0"))
    talk.ready()
    talk.send(query("SHOW application_name"))
    talk.ready()


@dialogue(application_name="from the start", TimeZone="America/Lima",
          DateStyle="SQL, DMY", client_encoding="LATIN1")
def settings_of_the_startup_packet(talk):
    talk.send(query("SELECT '2001-02-03'::date, current_setting('TimeZone'), "
                    "current_setting('application_name'), U&'\\00fc'"))
    talk.ready()
    talk.send(query("RESET TimeZone"))
    talk.ready()
    talk.send(query("SHOW TimeZone"))
    talk.ready()


@dialogue(search_path="pg_catalog", extra_float_digits="0")
def startup_parameters_that_are_not_reported(talk):
    for _ in range(2):
        talk.send(query("SELECT current_setting('search_path'), "
                        "0.1::float8 + 0.2::float8"))
        talk.ready()


@dialogue(application_name="mine")
def discard_all_goes_back_to_the_startup_packet(talk):
    for sql in ("SET application_name TO 'other'", "DISCARD ALL",
                "SHOW application_name"):
        talk.send(query(sql))
        talk.ready()


@dialogue(statement_timeout="54321", IntervalStyle="iso_8601")
def discard_all_goes_back_before_anything_else_is_asked(talk):
    show = query("SHOW statement_timeout")
    for before in ("SELECT 1", "SET work_mem = '7MB'", "LISTEN a",
                   "SET statement_timeout = 0",
                   "SET IntervalStyle = 'iso_8601'"):
        talk.send(query(before), query("DISCARD ALL"), show,
                  query("SELECT interval '1 day'"))
        talk.ready(4)
        talk.send(query(before))
        talk.ready()
        talk.send(query("DISCARD ALL"))
        talk.ready()
        talk.send(parse("", "SHOW statement_timeout"), bind(), execute(),
                  sync())
        talk.ready()
        talk.send(show)
        talk.ready()


@dialogue()
def discard_all_in_a_transaction_takes_back_what_was_set(talk):
    talk.send(query("BEGIN"))
    talk.ready()
    talk.send(query("SET TimeZone = 'Asia/Tokyo'"))
    talk.ready()
    talk.send(query("DISCARD ALL"))
    talk.ready()
    talk.send(query("ROLLBACK"))
    talk.ready()


@dialogue()
def another_client_encoding(talk):
    talk.send(query("SET client_encoding TO 'LATIN1'"))
    talk.ready()
    talk.send(message("Q", b"SELECT '\xfc', length('\xfc')\0"))
    talk.ready()


# ---- notifications

@dialogue()
def notifications_to_oneself(talk):
    talk.send(query("BEGIN; LISTEN diff; NOTIFY diff, 'first'; "
                    "NOTIFY diff, 'second'; COMMIT"), query("UNLISTEN *"))
    talk.ready(2)


# ---- large

@dialogue(heavy=True)
def large_rows(talk):
    talk.send(query("SELECT repeat('x', 3000000), 1"))
    talk.ready()
    talk.send(query("SELECT repeat('abc', g) FROM generate_series(1, 2000) "
                    "g"))
    talk.ready()


@dialogue(heavy=True)
def large_parameters_and_queries(talk):
    talk.send(parse("", "SELECT length($1), md5($1)"),
              bind(values=["z" * 3000000]), execute(), sync())
    talk.ready()
    talk.send(query("SELECT length('" + "y" * 2000000 + "')"))
    talk.ready()
    talk.send(parse("s1", "SELECT length('" + "w" * 500000 + "')"), sync())
    talk.ready()
    talk.send(bind("", "s1"), execute(), sync())
    talk.ready()


@dialogue(heavy=True)
def a_large_copy(talk):
    talk.send(query("COPY diff_copy FROM STDIN"))
    talk.until("G")
    talk.send(*(copy_data(b"%d\t%s\n" % (n, b"v" * 1000))
                for n in range(2000)), copy_done())
    talk.ready()
    talk.send(query("COPY diff_copy TO STDOUT"))
    talk.ready()


@dialogue(heavy=True)
def a_long_pipeline(talk):
    batch = b"".join((parse("", "SELECT $1::int"), bind(values=["1"]),
                      execute(), sync()))
    talk.send(batch * 1000)
    talk.ready(1000)
