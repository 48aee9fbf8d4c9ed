"""The console's numbers, held against a load of which every byte is known."""

import contextlib
import time

import pytest

import wire
from console_tools import Background, pool_of, row, table
from pgsluice import wait_until

pytestmark = pytest.mark.core

# Never counted by what a test does, but only by the clock.
TIMES = {"total_xact_time", "total_query_time", "total_wait_time"}


class Ledger:
    """Sends through a Wire past its login and keeps the books."""

    def __init__(self, session):
        self.session = session
        self.received = self.sent = 0

    def ask(self, *messages):
        """Up to ReadyForQuery; received and sent are from pgsluice's side,
        as in SHOW STATS."""
        self.session.send(*messages)
        self.received += sum(len(one) for one in messages)
        answer = self.session.until_ready()
        self.sent += sum(5 + len(one.body) for one in answer)
        assert not [one for one in answer if one.kind == "E"], answer
        return answer


@contextlib.contextmanager
def ledgers(pgsluice, count):
    with contextlib.ExitStack() as stack:
        yield [Ledger(stack.enter_context(pgsluice.connect()))
               for _ in range(count)]


def totals(pgsluice, database="app"):
    """The row of SHOW STATS, its totals as numbers, without the times; and
    all other tables that have the same numbers must have them."""
    with pgsluice.connect("stats", "pgsluice") as session:
        # asks every worker: the one that sent an answer a moment ago has
        # counted it by the time it looks up
        table(session, "CLIENTS")
        stats = row(session, "STATS", database=database)
        again = row(session, "STATS_TOTALS", database=database)
        whole = {one["name"]: one["value"]
                 for one in table(session, "TOTALS")}
    found = {name: value for name, value in stats.items()
             if name.startswith("total_")}
    assert list(again.values())[1:] == list(found.values())
    assert list(whole.values())[:12] == list(found.values())
    return {name[len("total_"):]: int(value)
            for name, value in found.items() if name not in TIMES}


def expected(books, **counts):
    return {"received": sum(one.received for one in books),
            "sent": sum(one.sent for one in books),
            "client_parse_count": 0, "server_parse_count": 0,
            "bind_count": 0, "client_login_count": len(books), **counts}


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_simple_queries_are_counted_to_the_byte(start_pgsluice, mode):
    pgsluice = start_pgsluice(pool_mode=mode, workers=2)
    with ledgers(pgsluice, 3) as books:
        for book in books:
            for number in range(7):
                book.ask(wire.query(f"SELECT {number}"))
            for _ in range(5):
                for sql in ("BEGIN", "SELECT 1; SELECT 2", "COMMIT"):
                    book.ask(wire.query(sql))
        assert totals(pgsluice) == expected(
            books, query_count=3 * (7 + 15), xact_count=3 * (7 + 5),
            server_assignment_count=3 * (12 if mode == "transaction"
                                         else 1))


def test_prepared_statements_are_counted_to_the_byte(start_pgsluice):
    """One server: what is prepared there once need not be again."""
    pgsluice = start_pgsluice(default_pool_size=1, workers=1)
    with ledgers(pgsluice, 2) as books:
        for book in books:
            book.ask(wire.parse("one", "SELECT $1::int"), wire.sync())
            for number in range(4):
                book.ask(wire.bind("", "one", [number]), wire.describe(),
                         wire.execute(), wire.sync())
            for number in range(3):
                book.ask(wire.parse("", f"SELECT {number}"), wire.bind(),
                         wire.execute(), wire.sync())
        assert totals(pgsluice) == expected(
            books, query_count=16, xact_count=16,
            server_assignment_count=16, client_parse_count=2 * (1 + 3),
            server_parse_count=1 + 2 * 3, bind_count=2 * (4 + 3))
        with pgsluice.connect("stats", "pgsluice") as session:
            assert {one["prepared_statements"]
                    for one in table(session, "CLIENTS")
                    if one["database"] == "app"} == {"1"}
            server, = table(session, "SERVERS")
            assert server["prepared_statements"] == "1"


def test_statements_of_a_session_are_its_servers_own(start_pgsluice):
    pgsluice = start_pgsluice(pool_mode="session")
    with ledgers(pgsluice, 1) as books:
        books[0].ask(wire.parse("one", "SELECT 1"), wire.bind("", "one"),
                     wire.execute(), wire.sync())
        assert totals(pgsluice) == expected(
            books, query_count=1, xact_count=1, server_assignment_count=1,
            client_parse_count=1, server_parse_count=1, bind_count=1)


def test_long_answers_and_those_of_our_own_are_counted_too(start_pgsluice):
    pgsluice = start_pgsluice()
    with ledgers(pgsluice, 1) as books:
        book, = books
        book.ask(wire.query("SELECT repeat('x', 3000000)"))
        book.ask(wire.query("SELECT '" + "x" * 300000 + "'"))
        # no server is asked for that
        book.ask(wire.query("DEALLOCATE ALL"))
        counts = {"query_count": 2, "xact_count": 2,
                  "server_assignment_count": 2}
        assert totals(pgsluice) == expected(books, **counts)
    # and nothing more when it has gone
    with pgsluice.connect("stats", "pgsluice") as session:
        wait_until(lambda: pool_of(session)["cl_active"] == "0", "gone")
    assert totals(pgsluice) == expected(books, **counts)


def test_a_long_answer_is_counted_while_it_goes_out(start_pgsluice):
    """One that reads slowly is not a surprise at the end."""
    pgsluice = start_pgsluice()
    with pgsluice.connect() as client, \
            pgsluice.connect("stats", "pgsluice") as session:
        client.send(wire.query(
            "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
        client.next()

        def found():
            return row(session, "STATS", database="app")

        wait_until(lambda: int(found()["total_sent"]) > 100000, "a part")
        assert found()["total_query_count"] == "0"
        client.until_ready()
        assert totals(pgsluice)["sent"] > 100000000


def test_averages_are_those_of_what_was_counted(start_pgsluice):
    pgsluice = start_pgsluice(stats_period=1000)
    with ledgers(pgsluice, 1) as books:
        for _ in range(50):
            books[0].ask(wire.query("SELECT 1"))
        books[0].ask(wire.query("SELECT pg_sleep(0.02)"))
        with pgsluice.connect("stats", "pgsluice") as session:
            found = {name: int(value) for name, value in
                     row(session, "STATS", database="app").items()
                     if name != "database"}
    assert found["avg_query_time"] == found["total_query_time"] // 51
    assert found["avg_xact_time"] == found["total_xact_time"] // 51
    assert found["total_query_time"] >= 20000
    assert found["total_xact_time"] >= found["total_query_time"]
    # the counts by the same seconds
    for count, average in (("received", "recv"), ("sent", "sent")):
        seconds = found[f"total_{count}"] / found[f"avg_{average}"]
        assert found["avg_query_count"] == pytest.approx(
            51 / seconds, rel=0.1, abs=1)


def test_a_query_that_comes_while_its_server_is_being_asked_takes_its_own_time(
        start_pgsluice):
    pgsluice = start_pgsluice()
    began = time.monotonic()
    with ledgers(pgsluice, 1) as books:
        for number in range(20):
            # the server is asked what is set now, behind the answer
            books[0].ask(wire.query(f"SET work_mem = '{100 + number}kB'"))
            books[0].ask(wire.query("SELECT 1"))
        with pgsluice.connect("stats", "pgsluice") as session:
            found = row(session, "STATS", database="app")
    took_us = (time.monotonic() - began) * 1e6
    assert int(found["total_query_time"]) <= took_us
    assert int(found["total_xact_time"]) <= took_us


def test_waiting_is_counted_where_somebody_waited(start_pgsluice):
    pgsluice = start_pgsluice(default_pool_size=1)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(pgsluice.connect("admin", "pgsluice"))
        first = stack.enter_context(pgsluice.connect())
        second = stack.enter_context(pgsluice.connect())

        def waited():
            return int(row(admin, "STATS", database="app")[
                "total_wait_time"])

        at_login = waited()
        assert at_login > 0             # for the first server
        first.rows("SELECT 1")
        assert waited() == at_login
        first.rows("BEGIN; SELECT 1")
        second.send(wire.query("SELECT 1"))
        wait_until(lambda: pool_of(admin)["cl_waiting"] == "1", "waiting")
        first.rows("SELECT pg_sleep(0.02)")
        first.rows("COMMIT")
        second.until_ready()
        assert waited() >= at_login + 20000


def test_pools_count_every_client_and_server_once(start_pgsluice):
    """In all states that a test can hold them in."""
    pgsluice = start_pgsluice(default_pool_size=3, workers=2)
    zero = {name: "0" for name in (
        "cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req "
        "sv_active sv_active_cancel sv_being_canceled sv_idle sv_used "
        "sv_tested sv_login maxwait").split()}

    def numbers():
        return {name: value for name, value in pool_of(admin).items()
                if name in zero}

    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(pgsluice.connect("admin", "pgsluice"))
        clients = [stack.enter_context(pgsluice.connect())
                   for _ in range(5)]
        wait_until(lambda: numbers() == {
            **zero, "cl_active": "5", "sv_idle": "1"}, "one at login")
        for client in clients[:2]:
            client.rows("BEGIN; SELECT 1")
        clients[2].rows("BEGIN; SELECT 1")
        assert numbers() == {**zero, "cl_active": "5", "sv_active": "3"}
        for client in clients[3:]:
            client.send(wire.query("SELECT 1"))
        wait_until(lambda: numbers() == {
            **zero, "cl_active": "3", "cl_waiting": "2",
            "sv_active": "3"}, "two wait")
        clients[0].rows("COMMIT")
        for client in clients[3:]:
            client.until_ready()
        assert numbers() == {**zero, "cl_active": "5", "sv_active": "2",
                             "sv_idle": "1"}
        for client in clients[1:3]:
            client.rows("COMMIT")
        admin.rows("SET server_check_delay = '0.001'")
        wait_until(lambda: numbers() == {
            **zero, "cl_active": "5", "sv_used": "3"}, "idle for long")
        assert {one["state"] for one in table(admin, "SERVERS")} == {"used"}


def test_who_waits_in_the_login_is_counted_as_waiting(start_pgsluice):
    pgsluice = start_pgsluice()
    with pgsluice.connect("admin", "pgsluice") as admin:
        admin.rows("PAUSE")
        login = Background(wire.Wire.connect(pgsluice.port).login,
                           "app", "app-secret", "app")
        wait_until(lambda: pool_of(admin) and
                   pool_of(admin)["cl_waiting"] == "1", "waiting")
        assert pool_of(admin)["cl_active"] == "0"
        wait_until(lambda: int(pool_of(admin)["maxwait_us"]) > 0, "maxwait")
        admin.rows("RESUME")
        login.result().close()


def test_a_request_is_the_last_one_of_a_transaction_too(start_pgsluice):
    pgsluice = start_pgsluice()
    with pgsluice.connect() as client, \
            pgsluice.connect("admin", "pgsluice") as admin:
        def requested(name):
            return row(admin, name, database="app")["request_time"]

        client.rows("BEGIN; SELECT 1")
        first = requested("CLIENTS")
        assert first is not None and requested("SERVERS") == first

        def later():
            client.rows("SELECT 1")
            return requested("CLIENTS") > first

        wait_until(later, "a second later")
        assert requested("SERVERS") > first
        client.rows("COMMIT")
        assert requested("SERVERS") > first
