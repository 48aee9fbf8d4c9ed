#!/usr/bin/python3
"""psycopg2: libpq with nothing but simple queries, and COPY."""

import contextlib
import hashlib
import io
import threading

import psycopg2
import psycopg2.errors
import psycopg2.extras

from scenario import (BIG_BYTES, BIG_TEXT, ROUNDS, URL, committed_rounds, crowd,
                      nonce, raises, run, same, step, tables_sql)


def connected():
    return contextlib.closing(psycopg2.connect(URL))


def ask(conn, sql, *params):
    with conn.cursor() as cur:
        cur.execute(sql, params or None)
        return cur.fetchall() if cur.description else cur.rowcount


@step
def tables_are_created():
    with connected() as conn, conn:
        for sql in tables_sql("psycopg2"):
            ask(conn, sql)


@step
def rows_are_created_read_updated_and_deleted():
    with connected() as conn, conn:
        (key,), = ask(conn, "insert into psycopg2_item (email, note)"
                      " values (%s, %s) returning id", "crud@x", "one")
        same(ask(conn, "select email, note from psycopg2_item where id = %s",
                 key), [("crud@x", "one")])
        same(ask(conn, "update psycopg2_item set note = null where id = %s",
                 key), 1)
        same(ask(conn, "select note from psycopg2_item where id = %s", key),
             [(None,)])
        same(ask(conn, "delete from psycopg2_item where id = %s", key), 1)
        same(ask(conn, "select 1 from psycopg2_item where id = %s", key), [])


@step
def a_commit_is_seen_by_others_and_a_rollback_by_nobody():
    insert = "insert into psycopg2_item (email) values (%s)"
    find = "select count(*) from psycopg2_item where email = %s"
    with connected() as one, connected() as two:
        two.autocommit = True
        ask(one, insert, "tx@x")
        same(ask(two, find, "tx@x"), [(0,)])
        one.commit()
        same(ask(two, find, "tx@x"), [(1,)])
        ask(one, insert, "gone@x")
        one.rollback()
        same(ask(two, find, "gone@x"), [(0,)])


@step
def an_isolation_level_lasts_for_its_transaction():
    with connected() as conn:
        conn.set_session(isolation_level="SERIALIZABLE", readonly=True)
        same(ask(conn, "show transaction_isolation"), [("serializable",)])
        with raises(psycopg2.errors.ReadOnlySqlTransaction):
            ask(conn, "insert into psycopg2_item (email) values ('ro@x')")
        conn.rollback()
        conn.set_session(isolation_level="DEFAULT", readonly=False)
        same(ask(conn, "show transaction_isolation"), [("read committed",)])


@step
def errors_leave_the_connection_usable():
    with connected() as conn:
        ask(conn, "insert into psycopg2_item (email) values ('twice@x')")
        conn.commit()
        with raises(psycopg2.errors.UniqueViolation, "23505"):
            ask(conn, "insert into psycopg2_item (email) values ('twice@x')")
        with raises(psycopg2.errors.InFailedSqlTransaction, "25P02"):
            ask(conn, "select 1")
        conn.rollback()
        conn.autocommit = True
        with raises(psycopg2.errors.SyntaxError, "42601"):
            ask(conn, "selec 1")
        same(ask(conn, "select 1"), [(1,)])


@step
def a_savepoint_survives_an_error():
    with connected() as conn:
        ask(conn, "savepoint here")
        with raises(psycopg2.errors.DivisionByZero):
            ask(conn, "select 1 / 0")
        ask(conn, "rollback to savepoint here")
        same(ask(conn, "select 2"), [(2,)])
        conn.commit()


@step
def several_statements_in_one_query_are_one_transaction():
    with connected() as conn:
        conn.autocommit = True
        with raises(psycopg2.errors.DivisionByZero):
            ask(conn, "insert into psycopg2_item (email) values ('multi@x');"
                " select 1 / 0; select 'never'")
        same(ask(conn, "select 1 from psycopg2_item where email = 'multi@x'"),
             [])
        same(ask(conn, "select 'first'; select 'last'"), [("last",)])
        same(ask(conn, "begin; select 1; commit; select 'after'"),
             [("after",)])


@step
def values_and_nulls_come_back_as_they_were():
    sent = (-7, 2.5, "\u00e9\n\t'\\", True, [1, None, 3], None, "")
    with connected() as conn:
        same(ask(conn, "select %s, %s::float8, %s, %s, %s, %s, %s", *sent),
             [sent])
        (raw, json), = ask(conn, "select %s, %s::jsonb",
                           psycopg2.Binary(b"\0\1\xff"),
                           psycopg2.extras.Json({"a": [1, None]}))
        same((bytes(raw), json), (b"\0\1\xff", {"a": [1, None]}))


@step
def a_megabyte_goes_there_and_back():
    with connected() as conn:
        (text, digest, raw), = ask(conn, "select %s, md5(%s), %s::bytea",
                                   BIG_TEXT, BIG_TEXT,
                                   psycopg2.Binary(BIG_BYTES))
        same(text, BIG_TEXT)
        same(digest, hashlib.md5(BIG_TEXT.encode()).hexdigest())
        same(bytes(raw), BIG_BYTES)


@step
def copy_goes_in_and_out():
    rows = "".join(f"{n}\t{n}\t{'copied ' * 20}\n" for n in range(5000))
    with connected() as conn, conn.cursor() as cur:
        cur.copy_expert("copy psycopg2_ledger from stdin", io.StringIO(rows))
        out = io.StringIO()
        cur.copy_expert("copy (select * from psycopg2_ledger order by 1)"
                        " to stdout", out)
        same(out.getvalue(), rows)
        conn.rollback()


@step
def a_failed_copy_leaves_the_connection_usable():
    with connected() as conn, conn.cursor() as cur:
        with raises(psycopg2.errors.InvalidTextRepresentation):
            cur.copy_expert("copy psycopg2_ledger from stdin",
                            io.StringIO("not a number\t1\tx\n" * 5000))
        conn.rollback()

        def broken(size):
            raise KeyError("the source of the data broke")

        source = io.StringIO()
        source.read = broken
        with raises(psycopg2.errors.QueryCanceled):
            cur.copy_expert("copy psycopg2_ledger from stdin", source)
        conn.rollback()
        same(ask(conn, "select count(*) from psycopg2_ledger"), [(0,)])


@step
def a_named_cursor_fetches_in_pieces():
    with connected() as conn:
        with conn.cursor(name="pieces") as cur:
            cur.itersize = 100
            cur.execute("select * from generate_series(1, 1000)")
            same([n for (n,) in cur], list(range(1, 1001)))
        conn.commit()


@step
def notices_arrive():
    with connected() as conn:
        ask(conn, "do $$ begin raise notice 'hear, %', 'hear'; end $$")
        same([n for n in conn.notices if "hear, hear" in n],
             ["NOTICE:  hear, hear\n"])


@step
def a_cancel_ends_the_query_it_is_meant_for():
    mark = nonce("cancel", 0)
    with connected() as sleeper, connected() as watcher:
        watcher.autocommit = True
        errors = []

        def sleep():
            try:
                ask(sleeper, f"select pg_sleep(60) /* {mark} */")
            except psycopg2.Error as error:
                errors.append(error.pgcode)

        thread = threading.Thread(target=sleep)
        thread.start()
        # psycopg2 shows notices after the query only, so ask somebody else.
        while thread.is_alive() and not ask(
                watcher, "select from pg_stat_activity where query like %s"
                " and state = 'active' and pid <> pg_backend_pid()",
                f"%{mark}%"):
            pass
        sleeper.cancel()
        thread.join()
        same(errors, ["57014"])
        sleeper.rollback()
        same(ask(sleeper, "select 'usable'"), [("usable",)])


@step
def a_statement_timeout_ends_its_statement_only():
    with connected() as conn:
        ask(conn, "set local statement_timeout = '50ms'")
        with raises(psycopg2.errors.QueryCanceled, "57014"):
            ask(conn, "select pg_sleep(60)")
        conn.rollback()
        same(ask(conn, "select pg_sleep(0.1)::text"), [("",)])


@step
def a_crowd_gets_its_own_answers_only():
    def member(number, everyone_is_here):
        backends = []
        with connected() as conn:
            everyone_is_here()
            for turn in range(ROUNDS):
                mine = nonce(number, turn)
                (echo, backend), = ask(
                    conn, "select %s, pg_backend_pid()", mine)
                same(echo, mine)
                backends.append(backend)
                ask(conn, "insert into psycopg2_ledger values (%s, %s, %s)",
                    number, turn, mine)
                same(ask(conn, "select note, pg_backend_pid()"
                         " from psycopg2_ledger where client = %s"
                         " and round = %s", number, turn), [(mine, backend)])
                if turn in committed_rounds():
                    conn.commit()
                else:
                    conn.rollback()
            same(ask(conn, "select round from psycopg2_ledger"
                     " where client = %s order by 1", number),
                 [(turn,) for turn in committed_rounds()])
            # To leave inside a transaction would cost the server.
            conn.commit()
        return backends

    crowd(member)


if __name__ == "__main__":
    run()
