#!/usr/bin/python3
"""asyncpg: everything prepared, everything binary, and a pool that resets."""

import asyncio
import contextlib
import datetime
import decimal
import io
import json
import uuid

import asyncpg

from scenario import (BIG_BYTES, BIG_TEXT, CLIENTS, ROUNDS, SLEEP_LOUDLY, URL,
                      check_backends, committed_rounds, nonce, raises, run,
                      same, step, tables_sql)

INSERT = "insert into asyncpg_item (email, note) values ($1, $2) returning id"


@contextlib.asynccontextmanager
async def connected(**options):
    conn = await asyncpg.connect(URL, **options)
    try:
        yield conn
    finally:
        await conn.close(timeout=10)


async def ask(conn, sql, *params):
    return [tuple(row) for row in await conn.fetch(sql, *params)]


@step
async def tables_are_created():
    async with connected() as conn:
        await conn.execute(";".join(
            tables_sql("asyncpg") +
            ["drop type if exists asyncpg_mood, asyncpg_pair",
             "create type asyncpg_mood as enum ('glad', 'sad')",
             "create type asyncpg_pair as (n int, mood asyncpg_mood)"]))


@step
async def rows_are_created_read_updated_and_deleted():
    async with connected() as conn:
        key = await conn.fetchval(INSERT, "crud@x", "one")
        same(await ask(conn, "select email, note from asyncpg_item"
                       " where id = $1", key), [("crud@x", "one")])
        same(await conn.execute("update asyncpg_item set note = $1"
                                " where id = $2", None, key), "UPDATE 1")
        same(await ask(conn, "select note from asyncpg_item where id = $1",
                       key), [(None,)])
        same(await conn.execute("delete from asyncpg_item where id = $1",
                                key), "DELETE 1")
        same(await ask(conn, "select 1 from asyncpg_item where id = $1", key),
             [])


@step
async def a_commit_is_seen_by_others_and_a_rollback_by_nobody():
    find = "select count(*) from asyncpg_item where email = $1"
    async with connected() as one, connected() as two:
        async with one.transaction():
            await one.fetch(INSERT, "tx@x", None)
            same(await two.fetchval(find, "tx@x"), 0)
        same(await two.fetchval(find, "tx@x"), 1)
        with raises(KeyError):
            async with one.transaction():
                await one.fetch(INSERT, "gone@x", None)
                raise KeyError("the application changed its mind")
        same(await two.fetchval(find, "gone@x"), 0)


@step
async def an_inner_transaction_rolls_back_alone():
    async with connected() as conn:
        async with conn.transaction(isolation="serializable"):
            await conn.fetch(INSERT, "outer@x", None)
            with raises(asyncpg.DivisionByZeroError):
                async with conn.transaction():
                    await conn.fetch(INSERT, "inner@x", None)
                    await conn.execute("select 1 / 0")
        same(await ask(conn, "select email from asyncpg_item where email"
                       " = any($1)", ["outer@x", "inner@x"]), [("outer@x",)])


@step
async def errors_leave_the_connection_usable():
    async with connected() as conn:
        await conn.fetch(INSERT, "twice@x", None)
        with raises(asyncpg.UniqueViolationError, "23505"):
            await conn.fetch(INSERT, "twice@x", None)
        with raises(asyncpg.PostgresSyntaxError, "42601"):
            await conn.fetch("selec 1")
        with raises(asyncpg.PostgresSyntaxError, "42601"):
            await conn.execute("selec 1")
        with raises(asyncpg.InvalidTextRepresentationError):
            await conn.fetch("select $1::text::int", "seven")
        with raises(asyncpg.InFailedSQLTransactionError):
            async with conn.transaction():
                with raises(asyncpg.UndefinedTableError):
                    await conn.fetch("select * from not_there")
                await conn.fetch("select 1")
        same(await conn.fetchval("select $1::int", 1), 1)


@step
async def a_prepared_statement_keeps_its_meaning_over_transactions():
    async with connected() as conn:
        plus = await conn.prepare("select $1::int + 1")
        same([str(it.type.name) for it in plus.get_attributes()], ["int4"])
        for n in range(20):
            same(await plus.fetchval(n), n + 1)
            async with conn.transaction():
                same(await plus.fetchval(-n), 1 - n)


@step
async def many_clients_prepare_other_statements_under_the_same_name():
    # asyncpg names them __asyncpg_stmt_1__, ... on every connection.
    conns = await asyncio.gather(*[asyncpg.connect(URL)
                                   for _ in range(CLIENTS)])
    for _ in range(5):
        await asyncio.gather(*[echo(n, conn) for n, conn in enumerate(conns)])
    await asyncio.gather(*[conn.close() for conn in conns])


async def echo(number, conn):
    same(await ask(conn, f"select {number}, $1::text", "own"),
         [(number, "own")])


@step
async def a_full_cache_closes_this_clients_statements_only():
    async with connected(statement_cache_size=2) as one, \
            connected(statement_cache_size=2) as two:
        for _ in range(3):
            for n in range(6):
                same(await one.fetchval(f"select 'one {n}'"), f"one {n}")
                same(await two.fetchval(f"select 'two {n}'"), f"two {n}")


@step
async def statements_work_without_a_cache():
    async with connected(statement_cache_size=0) as conn:
        for n in range(10):
            same(await conn.fetchval("select $1::int", n), n)


@step
async def values_come_back_as_they_were_in_binary():
    sent = (-7, 2 ** 40, 2.5, decimal.Decimal("1.50"), "\u00e9\n'\\", True,
            b"\0\1\xff", uuid.UUID(int=5), datetime.date(2026, 11, 30),
            datetime.datetime(2026, 11, 30, 1, 2, 3, 4, datetime.timezone.utc),
            [1, None, 3], None, "", '{"a": null}')
    async with connected() as conn:
        same(await ask(
            conn, "select $1::int, $2::int8, $3::float8, $4::numeric,"
            " $5::text, $6::bool, $7::bytea, $8::uuid, $9::date,"
            " $10::timestamptz, $11::int[], $12::text, $13::text, $14::jsonb",
            *sent), [sent])


@step
async def types_of_the_user_are_looked_up():
    # For each of them asyncpg asks the catalogue, with jit switched off.
    async with connected() as conn:
        same(await conn.fetchval("select $1::asyncpg_mood", "sad"), "sad")
        same(tuple(await conn.fetchval("select $1::asyncpg_pair",
                                       (3, "glad"))), (3, "glad"))
        same(await conn.fetchval("select array[(1, 'sad')::asyncpg_pair]"),
             [(1, "sad")])
        await conn.set_type_codec("jsonb", encoder=json.dumps,
                                  decoder=json.loads, schema="pg_catalog")
        same(await conn.fetchval("select $1::jsonb", {"a": [1, None]}),
             {"a": [1, None]})


@step
async def a_megabyte_goes_there_and_back():
    async with connected() as conn:
        row = await conn.fetchrow("select $1::text, $2::bytea",
                                  BIG_TEXT, BIG_BYTES)
        same(row[0], BIG_TEXT)
        same(row[1], BIG_BYTES)


@step
async def executemany_is_all_or_nothing():
    sql = "insert into asyncpg_item (email) values ($1)"
    count = "select count(*) from asyncpg_item where email like 'many%'"
    async with connected() as conn:
        await conn.executemany(sql, [(f"many{n}@x",) for n in range(1000)])
        same(await conn.fetchval(count), 1000)
        with raises(asyncpg.UniqueViolationError):
            await conn.executemany(sql, [("many-a@x",), ("many0@x",),
                                         ("many-b@x",)])
        same(await conn.fetchval(count), 1000)


@step
async def a_cursor_fetches_in_pieces():
    async with connected() as conn, conn.transaction():
        rows = conn.cursor("select generate_series(1, $1::int)", 1000,
                           prefetch=100)
        same([row[0] async for row in rows], list(range(1, 1001)))
        cur = await conn.cursor("select generate_series(1, 100)")
        same(await cur.forward(10), 10)
        same(await conn.fetchval("select 'between'"), "between")
        same((await cur.fetchrow())[0], 11)


@step
async def copy_goes_in_and_out_in_binary_and_in_text():
    rows = [(n, n * 2, None if n % 7 == 0 else "copied " * 20)
            for n in range(5000)]
    async with connected() as conn:
        same(await conn.copy_records_to_table("asyncpg_ledger", records=rows),
             "COPY 5000")
        same(await ask(conn, "select * from asyncpg_ledger order by 1"), rows)
        out = io.BytesIO()
        same(await conn.copy_from_query(
            "select * from asyncpg_ledger where client < $1 order by 1", 3000,
            output=out, format="csv"), "COPY 3000")
        await conn.execute("truncate asyncpg_ledger")
        out.seek(0)
        await conn.copy_to_table("asyncpg_ledger", source=out, format="csv")
        same(await ask(conn, "select * from asyncpg_ledger order by 1"),
             rows[:3000])
        await conn.execute("truncate asyncpg_ledger")


@step
async def a_failed_copy_leaves_the_connection_usable():
    async def broken():
        yield b"1\t1\tx\n"
        raise KeyError("the source of the data broke")

    async with connected() as conn:
        with raises(asyncpg.InvalidTextRepresentationError):
            await conn.copy_to_table(
                "asyncpg_ledger",
                source=io.BytesIO(b"not a number\t1\tx\n" * 5000))
        with raises(KeyError):
            await conn.copy_to_table("asyncpg_ledger", source=broken())
        same(await conn.fetchval("select count(*) from asyncpg_ledger"), 0)


@step
async def notices_arrive():
    heard = []
    async with connected() as conn:
        conn.add_log_listener(lambda _, it: heard.append(it.message))
        await conn.execute("do $$ begin raise notice 'hear, hear'; end $$")
        await conn.fetch("select 1")
    same([text for text in heard if "hear" in text], ["hear, hear"])


@step
async def notifications_arrive():
    heard = asyncio.Queue()

    def hear(_, pid, channel, payload):
        heard.put_nowait((pid, channel, payload))

    async with connected() as hearer, connected() as teller:
        await hearer.add_listener("asyncpg_news", hear)
        async with teller.transaction():
            await teller.execute("notify asyncpg_news, 'theirs'")
        same((await heard.get())[1:], ("asyncpg_news", "theirs"))
        await hearer.execute("select pg_notify('asyncpg_news', $1)", "own")
        same(await heard.get(),
             (hearer.get_server_pid(), "asyncpg_news", "own"))
        await hearer.remove_listener("asyncpg_news", hear)
        await teller.execute("notify asyncpg_news, 'too late'")
        same(await hearer.fetchval("select 'usable'"), "usable")
        same(heard.qsize(), 0)


@step
async def a_cancel_ends_the_query_it_is_meant_for():
    async with connected() as conn:
        asleep = asyncio.Event()
        conn.add_log_listener(
            lambda _, it: asleep.set() if it.message == "asleep" else None)
        for _ in range(3):
            asleep.clear()
            task = asyncio.create_task(conn.execute(SLEEP_LOUDLY))
            await asleep.wait()
            task.cancel()
            with raises(asyncio.CancelledError):
                await task
            same(await conn.fetchval("select 'usable'"), "usable")


@step
async def a_timeout_of_the_driver_cancels_the_query():
    async with connected() as conn:
        with raises(asyncio.TimeoutError):
            await conn.fetch("select pg_sleep(60)", timeout=0.1)
        same(await conn.fetchval("select 'usable'"), "usable")


@step
async def a_statement_timeout_ends_its_statement_only():
    async with connected() as conn:
        with raises(asyncpg.QueryCanceledError, "57014"):
            async with conn.transaction():
                await conn.execute("set local statement_timeout = '50ms'")
                await conn.fetch("select pg_sleep(60)")
        same(await conn.fetchval("select pg_sleep(0.1)::text"), "")


@step
async def a_crowd_gets_its_own_answers_only():
    here = 0
    all_here = asyncio.Event()
    backends = []

    async def member(number):
        nonlocal here
        async with connected() as conn:
            here += 1
            if here == CLIENTS:
                all_here.set()
            await all_here.wait()
            for turn in range(ROUNDS):
                await one_transaction(conn, number, turn)
            same(await ask(conn, "select round from asyncpg_ledger"
                           " where client = $1 order by 1", number),
                 [(turn,) for turn in committed_rounds()])

    async def one_transaction(conn, number, turn):
        mine = nonce(number, turn)
        # The same name for another text on every connection.
        same(await ask(conn, f"select $1::text, {number}", mine),
             [(mine, number)])
        work = conn.transaction()
        await work.start()
        await conn.execute("insert into asyncpg_ledger values ($1, $2, $3)",
                           number, turn, mine)
        backend = await conn.fetchval("select pg_backend_pid()")
        same(await ask(conn, "select note, pg_backend_pid()"
                       " from asyncpg_ledger where client = $1"
                       " and round = $2", number, turn), [(mine, backend)])
        backends.append(backend)
        if turn in committed_rounds():
            await work.commit()
        else:
            await work.rollback()

    await asyncio.wait_for(
        asyncio.gather(*[member(number) for number in range(CLIENTS)]), 60)
    check_backends(backends)


@step
async def connections_of_a_pool_are_reset_and_used_again():
    async with asyncpg.create_pool(URL, min_size=CLIENTS,
                                   max_size=CLIENTS) as pool:
        async def one(number):
            async with pool.acquire() as conn:
                return await conn.fetchval("select $1::int", number)

        same(await asyncio.gather(*[one(n) for n in range(5 * CLIENTS)]),
             list(range(5 * CLIENTS)))


if __name__ == "__main__":
    run()
