"""Who is let through: PAUSE, SUSPEND, RESUME, DISABLE, RECONNECT, KILL."""

import contextlib

import pytest

import wire
from console_tools import (Background, client_id, pool_of, refused, row,
                           table)
from pgsluice import wait_until

pytestmark = pytest.mark.core


@pytest.fixture(name="admin")
def fixture_admin(pgsluice):
    with pgsluice.connect("admin", "pgsluice") as session:
        yield session


# PAUSE, RESUME, DISABLE, ENABLE

def test_pause_closes_the_servers_and_resume_serves_who_waits(
        pgsluice, admin):
    with pgsluice.connect() as client:
        pid = client.value("SELECT pg_backend_pid()")
        assert admin.query("PAUSE app")[0].tag == "PAUSE"
        found = row(admin, "DATABASES", name="app")
        assert (found["paused"], found["current_connections"]) == ("1", "0")
        assert pgsluice.postgres.rows(
            f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}") == []
        client.send(wire.query("SELECT 'served'"))
        wait_until(lambda: pool_of(admin)["cl_waiting"] == "1", "waiting")
        with pgsluice.connect(database="other") as other:
            assert other.value("SELECT 1") == "1"
        assert admin.query("RESUME app")[0].tag == "RESUME"
        assert client.until_ready()[1].values == ["served"]
        assert row(admin, "DATABASES", name="app")["paused"] == "0"


def test_pause_answers_when_the_last_transaction_is_over(pgsluice, admin):
    with pgsluice.connect() as client, \
            pgsluice.connect("admin", "pgsluice") as pauser:
        client.rows("BEGIN; SELECT 1")
        pause = Background(pauser.query, "PAUSE")
        wait_until(lambda: row(admin, "STATE", key="paused")["value"]
                   == "yes", "paused")
        client.rows("SELECT 1")
        assert not pause.is_done()
        client.rows("COMMIT")
        assert pause.result()[0].tag == "PAUSE"
        assert refused(admin, "PAUSE") == "55000"
        admin.rows("RESUME")
        assert client.value("SELECT 1") == "1"


def test_a_resume_by_somebody_else_ends_the_wait(pgsluice, admin):
    with pgsluice.connect() as client, \
            pgsluice.connect("admin", "pgsluice") as pauser:
        client.rows("BEGIN; SELECT 1")
        pause = Background(refused, pauser, "PAUSE app")
        wait_until(lambda: row(admin, "DATABASES", name="app")["paused"]
                   == "1", "paused")
        admin.rows("RESUME app")
        assert pause.result() == "57014"
        client.rows("COMMIT")


def test_a_console_that_goes_while_it_waits_leaves_the_pause(
        pgsluice, admin):
    with pgsluice.connect() as client:
        client.rows("BEGIN; SELECT 1")
        with pgsluice.connect("admin", "pgsluice") as pauser:
            pauser.send(wire.query("PAUSE app"))
            wait_until(lambda: row(admin, "DATABASES", name="app")["paused"]
                       == "1", "paused")
        wait_until(lambda: pool_of(admin, "pgsluice", "pgsluice")[
            "cl_active"] == "1", "one console left")
        client.rows("COMMIT")
        assert row(admin, "DATABASES", name="app")["paused"] == "1"
        admin.rows("RESUME app")
        assert client.value("SELECT 1") == "1"


def start_login(pgsluice, database="app"):
    """In the background: one that goes as far as it is let."""
    client = wire.Wire.connect(pgsluice.port)
    return Background(client.login, "app", "app-secret", database)


def database(session, name, column):
    return row(session, "DATABASES", name=name)[column]


def test_a_database_can_be_paused_before_anybody_has_used_it(
        pgsluice, admin):
    assert admin.query("PAUSE app")[0].tag == "PAUSE"
    assert database(admin, "app", "paused") == "1"
    assert database(admin, "other", "paused") == "0"
    assert pool_of(admin, user="admin") is None
    login = start_login(pgsluice)
    wait_until(lambda: row(admin, "CLIENTS", state="waiting_login"), "login")
    assert refused(admin, "PAUSE app") == "55000"
    admin.rows("RESUME app")
    assert database(admin, "app", "paused") == "0"
    with login.result() as client:
        assert client.value("SELECT 1") == "1"


@pytest.mark.parametrize("sql", ["RECONNECT", "WAIT_CLOSE", "KILL",
                                 "DISABLE", "ENABLE"])
def test_commands_know_databases_that_nobody_has_used_yet(
        pgsluice, admin, sql):
    assert admin.query(f"{sql} app")[0].tag == sql
    assert database(admin, "app", "paused") == str(int(sql == "KILL"))
    assert database(admin, "app", "disabled") == str(int(sql == "DISABLE"))
    if sql == "DISABLE":
        with pytest.raises(wire.ServerError) as error:
            pgsluice.connect().close()
        assert error.value.sqlstate == "57P03"
        admin.rows("ENABLE app")
    if sql == "KILL":
        admin.rows("RESUME app")
    with pgsluice.connect() as client:
        assert client.value("SELECT 1") == "1"


def test_a_pause_of_all_holds_databases_that_come_up_later(
        start_pgsluice, postgres):
    pgsluice = start_pgsluice(databases={
        "*": f"host=127.0.0.1 port={postgres.port}"})
    with pgsluice.connect("admin", "pgsluice") as admin:
        admin.rows("PAUSE")
        login = start_login(pgsluice)
        wait_until(lambda: row(admin, "CLIENTS", state="waiting_login"),
                   "login")
        assert database(admin, "app", "paused") == "1"
        assert database(admin, "app", "current_connections") == "0"
        assert table(admin, "SERVERS") == []
        admin.rows("RESUME")
        with login.result() as client:
            assert client.value("SELECT 1") == "1"
        assert database(admin, "app", "paused") == "0"


def test_a_database_behind_the_star_can_be_paused_by_its_name(
        start_pgsluice, postgres):
    pgsluice = start_pgsluice(databases={
        "*": f"host=127.0.0.1 port={postgres.port}"})
    with pgsluice.connect("admin", "pgsluice") as admin:
        admin.rows("PAUSE app")
        login = start_login(pgsluice)
        wait_until(lambda: row(admin, "CLIENTS", state="waiting_login"),
                   "login")
        with pgsluice.connect(database="other") as other:
            assert other.value("SELECT 1") == "1"
        admin.rows("RESUME app")
        login.result().close()


def test_pauses_of_one_and_of_all_end_each_by_its_own_resume(
        pgsluice, admin):
    admin.rows("PAUSE app")
    assert refused(admin, "RESUME") == "55000"
    admin.rows("PAUSE")
    assert refused(admin, "RESUME other") == "55000"
    assert database(admin, "other", "paused") == "1"
    admin.rows("RESUME")
    assert database(admin, "other", "paused") == "0"
    assert database(admin, "app", "paused") == "1"
    login = start_login(pgsluice)
    wait_until(lambda: row(admin, "CLIENTS", state="waiting_login"), "login")
    admin.rows("RESUME app")
    login.result().close()


def test_a_disabled_database_lets_nobody_in_until_it_is_enabled(
        pgsluice, admin):
    with pgsluice.connect() as inside:
        assert admin.query("DISABLE app")[0].tag == "DISABLE"
        assert row(admin, "DATABASES", name="app")["disabled"] == "1"
        with pytest.raises(wire.ServerError) as error:
            pgsluice.connect().close()
        assert error.value.sqlstate == "57P03"
        assert inside.value("SELECT 1") == "1"
        assert admin.query("ENABLE app")[0].tag == "ENABLE"
        pgsluice.connect().close()


# SUSPEND

def state(session):
    return {key for key, value in session.rows("SHOW STATE")
            if value == "yes"}


def test_suspend_stops_transactions_where_they_are(start_pgsluice):
    pgsluice = start_pgsluice(workers=2)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(pgsluice.connect("admin", "pgsluice"))
        clients = [stack.enter_context(pgsluice.connect())
                   for _ in range(4)]
        for client in clients[:2]:
            client.rows("BEGIN; SELECT 1")
        assert admin.query("SUSPEND")[0].tag == "SUSPEND"
        assert state(admin) == {"suspended"}
        before = row(admin, "STATS", database="app")
        for number, client in enumerate(clients):
            client.send(wire.query(f"SELECT {number}"))
        # a question that goes the same way as theirs, and is answered
        with pgsluice.connect("admin", "pgsluice") as other:
            for _ in range(20):
                assert state(other) == {"suspended"}
        found = row(admin, "STATS", database="app")
        assert found["total_query_count"] == "2"
        assert found["total_received"] == before["total_received"]
        for sql in ("SUSPEND", "PAUSE"):
            assert refused(admin, sql) == "55000"
        admin.rows("RESUME")
        assert state(admin) == {"active"}
        for number, client in enumerate(clients):
            assert client.until_ready()[1].values == [str(number)]
        for client in clients[:2]:
            assert client.query("COMMIT")[0].tag == "COMMIT"


def test_who_logs_in_during_a_suspend_is_stopped_behind_it(pgsluice, admin):
    with pgsluice.connect() as first:
        first.rows("SELECT 1")
        admin.rows("SUSPEND")
        with pgsluice.connect() as second:
            second.send(wire.query("SELECT 2"))
            login = start_login(pgsluice, "other")
            wait_until(lambda: row(admin, "CLIENTS", state="waiting_login"),
                       "login")
            # not even in line for a server: it was not read
            assert row(admin, "CLIENTS", state="waiting") is None
            admin.rows("RESUME")
            assert second.until_ready()[1].values == ["2"]
            with login.result() as third:
                assert third.value("SELECT 3") == "3"


def test_suspend_answers_when_all_is_flushed(pgsluice, admin):
    """What a client is owed it gets; only then is there an answer."""
    with pgsluice.connect() as client, \
            pgsluice.connect("admin", "pgsluice") as other:
        client.send(wire.query(
            "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
        wait_until(lambda: row(admin, "SOCKETS", type="C", database="app")[
            "send_remain"] != "0", "more than it takes")
        suspend = Background(other.query, "SUSPEND")
        wait_until(lambda: state(admin) == {"suspended"}, "suspended")
        assert not suspend.is_done()
        got = Background(client.until_ready)
        assert suspend.result()[0].tag == "SUSPEND"
        assert row(admin, "SOCKETS", type="C", database="app")[
            "send_remain"] == "0"
        assert not got.is_done()
        admin.rows("RESUME")
        assert len(got.result()) == 100003


def test_suspend_timeout_ends_those_who_do_not_read(start_pgsluice):
    pgsluice = start_pgsluice(suspend_timeout=0.2)
    with pgsluice.connect() as client, \
            pgsluice.connect("admin", "pgsluice") as admin:
        client.send(wire.query(
            "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
        wait_until(lambda: row(admin, "SOCKETS", type="C", database="app")[
            "send_remain"] != "0", "more than it takes")
        assert admin.query("SUSPEND")[0].tag == "SUSPEND"
        assert "admin forced disconnect: suspend_timeout" in pgsluice.log()
        admin.rows("RESUME")


# RECONNECT, WAIT_CLOSE, KILL, SHUTDOWN

def test_reconnect_replaces_servers_when_they_are_free(start_pgsluice):
    pgsluice = start_pgsluice(default_pool_size=2, workers=2)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(pgsluice.connect("admin", "pgsluice"))
        busy = stack.enter_context(pgsluice.connect())
        idle = stack.enter_context(pgsluice.connect())
        was = busy.value("BEGIN; SELECT pg_backend_pid()")
        other = idle.value("SELECT pg_backend_pid()")
        assert admin.query("RECONNECT app")[0].tag == "RECONNECT"
        assert busy.value("SELECT pg_backend_pid()") == was
        assert row(admin, "SERVERS", remote_pid=was)["close_needed"] == "1"
        assert idle.value("SELECT pg_backend_pid()") not in (was, other)
        waiter = stack.enter_context(pgsluice.connect("admin", "pgsluice"))
        wait = Background(waiter.query, "WAIT_CLOSE app")
        assert admin.query("WAIT_CLOSE other")[0].tag == "WAIT_CLOSE"
        assert not wait.is_done()
        busy.rows("COMMIT")
        assert wait.result()[0].tag == "WAIT_CLOSE"
        assert busy.value("SELECT pg_backend_pid()") != was


def test_kill_ends_the_clients_of_a_database(start_pgsluice):
    pgsluice = start_pgsluice(workers=3)
    clients = [pgsluice.connect() for _ in range(9)]
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(pgsluice.connect("admin", "pgsluice"))
        other = stack.enter_context(pgsluice.connect(database="other"))
        for client in clients:
            stack.enter_context(client)
        clients[0].rows("BEGIN; SELECT 1")
        clients[1].send(wire.query("SELECT pg_sleep(1000)"))
        wait_until(lambda: pool_of(admin)["sv_active"] == "2", "active")
        assert admin.query("KILL app")[0].tag == "KILL"
        for client in clients:
            fatal = client.until_closed()[-1]
            assert (fatal.kind, fatal.sqlstate) == ("E", "57P01")
        assert other.value("SELECT 1") == "1"
        # it stays paused, as with PgBouncer
        wait_until(lambda: row(admin, "DATABASES", name="app")[
            "current_connections"] == "0", "servers closed")
        admin.rows("RESUME app")
        with pgsluice.connect() as client:
            assert client.value("SELECT 1") == "1"


def test_kill_without_a_database_ends_all_clients(pgsluice, admin):
    with pgsluice.connect() as one, pgsluice.connect(database="other") as two:
        admin.rows("KILL")
        for client in (one, two):
            assert client.until_closed()[-1].sqlstate == "57P01"
    admin.rows("RESUME")


def test_kill_client_ends_the_one_with_this_id(start_pgsluice):
    pgsluice = start_pgsluice(workers=2)
    clients = [pgsluice.connect() for _ in range(6)]
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(pgsluice.connect("admin", "pgsluice"))
        for client in clients:
            stack.enter_context(client)
        number = client_id(admin, clients[3])
        assert admin.query(f"KILL_CLIENT {number}")[0].tag == "KILL_CLIENT"
        assert clients.pop(3).until_closed()[-1].sqlstate == "57P01"
        assert refused(admin, f"KILL_CLIENT {number}") == "42704"
        for client in clients:
            assert client.value("SELECT 1") == "1"


def test_a_console_may_kill_itself(pgsluice, admin):
    number = client_id(admin, admin)
    admin.send(wire.query(f"KILL_CLIENT {number}"))
    assert admin.until_closed()[-1].sqlstate == "57P01"
    pgsluice.console("SHOW VERSION")


def test_shutdown_answers_and_ends_the_process(start_pgsluice):
    pgsluice = start_pgsluice(workers=2)
    with pgsluice.connect("admin", "pgsluice") as admin:
        assert admin.query("SHUTDOWN")[0].tag == "SHUTDOWN"
        assert pgsluice.process.wait(60) == 0
    pgsluice.is_running = lambda: True      # it was to end


@pytest.mark.parametrize("how", ["WAIT_FOR_SERVERS", "WAIT_FOR_CLIENTS"])
def test_shutdown_waits_for_transactions(start_pgsluice, how):
    pgsluice = start_pgsluice(workers=2)
    with pgsluice.connect() as client:
        client.rows("BEGIN; SELECT 1")
        pgsluice.console(f"SHUTDOWN {how}")
        assert client.value("SELECT 1") == "1"
        assert client.query("COMMIT")[0].tag == "COMMIT"
        client.until_closed()
    assert pgsluice.process.wait(60) == 0
    pgsluice.is_running = lambda: True      # it was to end
