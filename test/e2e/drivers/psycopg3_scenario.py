#!/usr/bin/python3
"""psycopg 3: extended queries, prepared after five uses, and pipelines."""

import asyncio
import datetime
import decimal
import threading
import uuid

import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus
from psycopg.types.json import Jsonb

from scenario import (BIG_BYTES, BIG_TEXT, CLIENTS, ROUNDS, SLEEP_LOUDLY, URL,
                      check_backends, committed_rounds, nonce, raises, run,
                      same, step, tables_sql)

INSERT = "insert into psycopg3_item (email, note) values (%s, %s) returning id"


def connected(**options):
    return psycopg.connect(URL, **options)


def ask(conn, sql, *params, **options):
    cur = conn.execute(sql, params, **options)
    return cur.fetchall() if cur.description else cur.rowcount


@step
def tables_are_created():
    with connected() as conn:
        for sql in tables_sql("psycopg3"):
            conn.execute(sql)


@step
def rows_are_created_read_updated_and_deleted():
    with connected() as conn:
        (key,), = ask(conn, INSERT, "crud@x", "one")
        same(ask(conn, "select email, note from psycopg3_item where id = %s",
                 key), [("crud@x", "one")])
        same(ask(conn, "update psycopg3_item set note = %s where id = %s",
                 None, key), 1)
        same(ask(conn, "select note from psycopg3_item where id = %s", key),
             [(None,)])
        same(ask(conn, "delete from psycopg3_item where id = %s", key), 1)
        same(ask(conn, "select 1 from psycopg3_item where id = %s", key), [])


@step
def a_commit_is_seen_by_others_and_a_rollback_by_nobody():
    find = "select count(*) from psycopg3_item where email = %s"
    with connected() as one, connected(autocommit=True) as two:
        ask(one, INSERT, "tx@x", None)
        same(ask(two, find, "tx@x"), [(0,)])
        one.commit()
        same(ask(two, find, "tx@x"), [(1,)])
        ask(one, INSERT, "gone@x", None)
        one.rollback()
        same(ask(two, find, "gone@x"), [(0,)])


@step
def an_inner_transaction_rolls_back_alone():
    with connected(autocommit=True) as conn:
        with conn.transaction():
            ask(conn, INSERT, "outer@x", None)
            with raises(errors.DivisionByZero), conn.transaction():
                ask(conn, INSERT, "inner@x", None)
                conn.execute("select 1 / 0")
        same(ask(conn, "select email from psycopg3_item where email"
                 " in ('outer@x', 'inner@x')"), [("outer@x",)])


@step
def errors_leave_the_connection_usable():
    with connected(autocommit=True) as conn:
        ask(conn, INSERT, "twice@x", None)
        with raises(errors.UniqueViolation, "23505"):
            ask(conn, INSERT, "twice@x", None)
        with raises(errors.SyntaxError, "42601"):
            conn.execute("selec 1")
        with raises(errors.InvalidTextRepresentation, "22P02"):
            ask(conn, "select %s::text::int", "seven")
        with raises(errors.InFailedSqlTransaction), conn.transaction():
            with raises(errors.UndefinedTable):
                conn.execute("select * from not_there")
            conn.execute("select 1")
        same(ask(conn, "select %s::int", 1), [(1,)])


@step
def a_statement_used_often_becomes_prepared_and_keeps_its_meaning():
    with connected(autocommit=True) as conn:
        for n in range(20):
            same(ask(conn, "select %s::int + 1", n), [(n + 1,)])
        for n in range(20):
            with conn.transaction():
                same(ask(conn, "select %s::text || 'x'", str(n)),
                     [(f"{n}x",)])


@step
def many_clients_prepare_other_statements_under_the_same_name():
    # psycopg names them _pg3_0, _pg3_1, ... on every connection.
    conns = [connected(autocommit=True) for _ in range(CLIENTS)]
    for _ in range(5):
        for n, conn in enumerate(conns):
            same(ask(conn, f"select {n}, %s::text", "own", prepare=True),
                 [(n, "own")])
    for conn in conns:
        conn.close()


@step
def a_full_cache_deallocates_this_clients_statements_only():
    with connected(autocommit=True) as one, connected(autocommit=True) as two:
        one.prepared_max = two.prepared_max = 2
        for turn in range(3):
            for n in range(6):
                same(ask(one, f"select 'one {n}'", prepare=True),
                     [(f"one {n}",)])
                same(ask(two, f"select 'two {n}'", prepare=True),
                     [(f"two {n}",)])


@step
def values_come_back_as_they_were_in_text_and_in_binary():
    sent = (-7, 2 ** 40, 2.5, decimal.Decimal("1.50"), "\u00e9\n'\\", True,
            b"\0\1\xff", uuid.UUID(int=5), datetime.date(2026, 11, 30),
            datetime.datetime(2026, 11, 30, 1, 2, 3, 4, datetime.timezone.utc),
            [1, None, 3], None, "")
    sql = ("select {}::int, {}::int8, {}::float8, {}::numeric, {}::text,"
           " {}::bool, {}::bytea, {}::uuid, {}::date, {}::timestamptz,"
           " {}::int[], {}::text, {}::text")
    with connected() as conn:
        for holder in ("%s", "%t", "%b"):
            for binary in (False, True):
                with conn.cursor(binary=binary) as cur:
                    cur.execute(sql.replace("{}", holder), sent)
                    same(cur.fetchall(), [sent])
        same(ask(conn, "select %s, %s::jsonb -> 'a'",
                 Jsonb({"a": [1, None]}), Jsonb({"a": "b"})),
             [({"a": [1, None]}, "b")])


@step
def a_megabyte_goes_there_and_back():
    with connected() as conn:
        for holder in ("%t", "%b"):
            with conn.cursor(binary=(holder == "%b")) as cur:
                cur.execute(f"select {holder}::text, {holder}::bytea",
                            (BIG_TEXT, BIG_BYTES))
                (text, raw), = cur.fetchall()
                same(text, BIG_TEXT)
                same(raw, BIG_BYTES)


@step
def a_pipeline_answers_in_order():
    with connected(autocommit=True) as conn, conn.pipeline():
        curs = [conn.execute("select %s::int", (n,)) for n in range(200)]
        same([cur.fetchone()[0] for cur in curs], list(range(200)))


@step
def a_pipeline_is_one_transaction_up_to_its_sync():
    with connected(autocommit=True) as conn:
        with raises(errors.UniqueViolation), conn.pipeline() as pipeline:
            ask(conn, "insert into psycopg3_item (email) values ('pipe@x')")
            pipeline.sync()
            ask(conn, "insert into psycopg3_item (email) values ('lost@x')")
            ask(conn, "insert into psycopg3_item (email) values ('pipe@x')")
            pipeline.sync()
        same(ask(conn, "select email from psycopg3_item where email"
                 " in ('pipe@x', 'lost@x')"), [("pipe@x",)])


@step
def after_an_error_a_pipeline_skips_to_its_sync():
    # By hand: when psycopg itself reads the answers is a matter of timing.
    with connected() as conn:
        libpq = conn.pgconn
        libpq.nonblocking = 0
        libpq.enter_pipeline_mode()
        for sql in (b"select 'before'", b"select 1 / 0", b"select 'skipped'",
                    None, b"select 'after'", None):
            if sql:
                libpq.send_query_params(sql, None)
            else:
                libpq.pipeline_sync()
        answers = []
        while answers.count("PIPELINE_SYNC") < 2:
            result = libpq.get_result()     # None: the end of one query's
            if result:
                answers.append(ExecStatus(result.status).name)
        same(answers, ["TUPLES_OK", "FATAL_ERROR", "PIPELINE_ABORTED",
                       "PIPELINE_SYNC", "TUPLES_OK", "PIPELINE_SYNC"])
        libpq.exit_pipeline_mode()
        libpq.nonblocking = 1
        same(ask(conn, "select 'usable'"), [("usable",)])


@step
def transactions_run_inside_a_pipeline():
    with connected() as conn:
        with conn.pipeline():
            with conn.transaction():
                cur = conn.execute(INSERT, ("piped@x", None))
            with raises(KeyError), conn.transaction():
                conn.execute(INSERT, ("unpiped@x", None))
                raise KeyError("the application changed its mind")
            same(len(cur.fetchall()), 1)
        same(ask(conn, "select email from psycopg3_item"
                 " where email like '%%piped@x'"), [("piped@x",)])


@step
def executemany_returns_every_row():
    with connected() as conn, conn.cursor() as cur:
        cur.executemany(INSERT, [(f"many{n}@x", "m") for n in range(500)],
                        returning=True)
        keys = []
        while True:
            keys.append(cur.fetchone()[0])
            if not cur.nextset():
                break
        same(len(set(keys)), 500)
        conn.rollback()


@step
def copy_goes_in_and_out_in_text_and_in_binary():
    rows = [(n, n * 2, None if n % 7 == 0 else "copied " * 20)
            for n in range(5000)]
    for form in ("", "with (format binary)"):
        with connected() as conn, conn.cursor() as cur:
            with cur.copy(f"copy psycopg3_ledger from stdin {form}") as copy:
                copy.set_types(["int4", "int4", "text"])
                for row in rows:
                    copy.write_row(row)
            same(cur.rowcount, 5000)
            with cur.copy("copy (select * from psycopg3_ledger order by 1)"
                          f" to stdout {form}") as copy:
                copy.set_types(["int4", "int4", "text"])
                same(list(copy.rows()), rows)
            conn.rollback()


@step
def a_failed_copy_leaves_the_connection_usable():
    with connected(autocommit=True) as conn, conn.cursor() as cur:
        with raises(errors.InvalidTextRepresentation):
            with cur.copy("copy psycopg3_ledger from stdin") as copy:
                for _ in range(5000):
                    copy.write("not a number\t1\tx\n")
        with raises(errors.QueryCanceled):
            with cur.copy("copy psycopg3_ledger from stdin") as copy:
                copy.write("1\t1\tx\n")
                raise KeyError("the source of the data broke")
        with raises(KeyError):
            with cur.copy("copy (select generate_series(1, 100000))"
                          " to stdout") as copy:
                copy.read()
                raise KeyError("enough")    # psycopg cancels the rest
        same(ask(conn, "select count(*) from psycopg3_ledger"), [(0,)])


@step
def a_server_cursor_scrolls():
    with connected() as conn:
        with conn.cursor(name="pieces", scrollable=True) as cur:
            cur.execute("select * from generate_series(1, 1000)")
            same([row[0] for row in cur.fetchmany(10)], list(range(1, 11)))
            cur.scroll(-5)
            same(cur.fetchone(), (6,))
            same(len(cur.fetchall()), 994)


@step
def a_stream_gives_rows_one_by_one():
    with connected(autocommit=True) as conn, conn.cursor() as cur:
        same([row[0] for row in
              cur.stream("select generate_series(1, %s)", (1000,))],
             list(range(1, 1001)))


@step
def notices_arrive():
    heard = []
    with connected() as conn:
        conn.add_notice_handler(lambda it: heard.append(it.message_primary))
        conn.execute("do $$ begin raise notice 'hear, %', 'hear'; end $$")
    same([text for text in heard if "hear" in text], ["hear, hear"])


@step
def notifications_arrive():
    with connected(autocommit=True) as hearer, \
            connected(autocommit=True) as teller:
        hearer.execute("listen psycopg3_news")
        for number in range(3):
            with teller.transaction():
                ask(teller, "select pg_notify('psycopg3_news', %s)",
                    str(number))
        heard = []
        for it in hearer.notifies():
            heard.append(it.payload)
            if len(heard) == 3:
                break
        same(heard, ["0", "1", "2"])
        # Its own comes with the answer: for a handler, not for notifies().
        own = []
        hearer.add_notify_handler(own.append)
        ask(hearer, "select pg_notify('psycopg3_news', 'own')")
        same([(it.pid, it.payload) for it in own],
             [(hearer.info.backend_pid, "own")])
        hearer.execute("unlisten *")


@step
def a_cancel_ends_the_query_it_is_meant_for():
    with connected(autocommit=True) as conn:
        def on_notice(notice):
            if notice.message_primary == "asleep":
                threading.Thread(target=conn.cancel).start()

        conn.add_notice_handler(on_notice)
        for _ in range(3):
            with raises(errors.QueryCanceled, "57014"):
                conn.execute(SLEEP_LOUDLY)
            same(ask(conn, "select 'usable'"), [("usable",)])


@step
def a_statement_timeout_ends_its_statement_only():
    with connected() as conn:
        conn.execute("set local statement_timeout = '50ms'")
        with raises(errors.QueryCanceled, "57014"):
            conn.execute("select pg_sleep(60)")
        conn.rollback()
        same(ask(conn, "select pg_sleep(0.1)::text"), [("",)])


@step
def the_connection_knows_its_server():
    with connected() as conn:
        same(ask(conn, "show server_version_num"),
             [(str(conn.info.server_version),)])
        same(conn.info.encoding, "utf-8")


@step
async def a_crowd_gets_its_own_answers_only():
    here = 0
    all_here = asyncio.Event()
    backends = []

    async def member(number):
        nonlocal here
        async with await psycopg.AsyncConnection.connect(URL) as conn:
            here += 1
            if here == CLIENTS:
                all_here.set()
            await all_here.wait()
            for turn in range(ROUNDS):
                await one_transaction(conn, number, turn)
            cur = await conn.execute(
                "select round from psycopg3_ledger where client = %s"
                " order by 1", (number,))
            same(await cur.fetchall(),
                 [(turn,) for turn in committed_rounds()])

    async def one_transaction(conn, number, turn):
        mine = nonce(number, turn)
        async with conn.pipeline():
            # The same name for another text on every connection.
            cur = await conn.execute(
                f"select %s::text, {number}, pg_backend_pid()", (mine,),
                prepare=True)
            await conn.execute("insert into psycopg3_ledger values"
                               " (%s, %s, %s)", (number, turn, mine))
            again = await conn.execute(
                "select note, pg_backend_pid() from psycopg3_ledger"
                " where client = %s and round = %s", (number, turn))
            echo, who, backend = await cur.fetchone()
            same((echo, who), (mine, number))
            same(await again.fetchall(), [(mine, backend)])
        backends.append(backend)
        if turn in committed_rounds():
            await conn.commit()
        else:
            await conn.rollback()

    await asyncio.wait_for(
        asyncio.gather(*[member(number) for number in range(CLIENTS)]), 60)
    check_backends(backends)


if __name__ == "__main__":
    run()
