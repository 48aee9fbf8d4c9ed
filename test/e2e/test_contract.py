"""What clients are told: a test for every row of the table in doc/errors.md,
by the SQLSTATE, whether the connection stays, and what comes after it."""

import os
import re
import resource
import signal

import pytest

import wire
from contract_tools import (
    Door, Slow, backend, batch, before, cancel, error_response, free_again,
    has_news, holding, is_told_and_stays, length_only, loses_its_connection,
    only_sync_brings_ready, refused, terminate, told, wait_in_line)
from pgsluice import Postgres, secret, wait_until

pytestmark = pytest.mark.core


@pytest.fixture(scope="module", name="mortal_cluster")
def fixture_mortal_cluster():
    cluster = Postgres()
    try:
        yield cluster.start()
    finally:
        cluster.stop()
        cluster.clean()


@pytest.fixture(name="mortal")
def fixture_mortal(mortal_cluster):
    """A Postgres that may be stopped."""
    yield mortal_cluster
    if not mortal_cluster.is_running():
        mortal_cluster.start()


# 53300: client limits

def test_over_max_client_conn_one_is_refused_until_another_leaves(
        start_pgsluice):
    pooler = start_pgsluice(max_client_conn=2)
    with pooler.connect() as first, pooler.connect("trust_user", "other"):
        fields = refused(pooler, "53300")
        assert "max_client_conn" in fields["M"]
        assert pooler.console("SHOW VERSION"), "the console is not counted"
        first.close()
        wait_until(lambda: pooler.pool()["cl_active"] == 0, "one gone")
        pooler.connect().close()


def test_over_max_db_client_connections_other_databases_stay_open(
        start_pgsluice):
    pooler = start_pgsluice(max_db_client_connections=1)
    with pooler.connect():
        fields = refused(pooler, "53300", user="trust_user")
        assert "max_db_client_connections" in fields["M"]
        pooler.connect(database="other").close()


def test_over_max_user_client_connections_other_users_get_in(start_pgsluice):
    pooler = start_pgsluice(max_user_client_connections=1)
    with pooler.connect():
        fields = refused(pooler, "53300", database="other")
        assert "max_user_client_connections" in fields["M"]
        pooler.connect("trust_user").close()


def test_a_user_may_have_a_client_limit_of_its_own(start_pgsluice):
    pooler = start_pgsluice(
        max_user_client_connections=1,
        users={"app": "max_user_client_connections=2"})
    with pooler.connect(), pooler.connect():
        refused(pooler, "53300")


def test_connections_that_do_not_log_in_do_not_use_up_the_client_limit(
        start_pgsluice):
    pooler = start_pgsluice(max_client_conn=2)
    silent = [wire.Wire.connect(pooler.port) for _ in range(20)]
    for client in silent:
        client.send(b"\0")
    with pooler.connect(), pooler.connect():
        refused(pooler, "53300")
    for client in silent:
        client.close()


# 53300: waited too long for a server

def test_a_query_that_waited_too_long_is_told_and_the_client_stays(
        start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1, query_wait_timeout="200ms")
    with holding(pooler) as holder, pooler.connect() as client:
        fields = is_told_and_stays(client, "53300")
        assert fields["M"] == "query_wait_timeout"
        assert re.fullmatch(
            r"waited [2-9]\d\d+ ms; 1 servers of at most 1 are in use, "
            r"1 clients wait", fields["D"]), fields["D"]
        holder.rows("COMMIT")
        assert client.value("SELECT 7") == "7"


def test_a_batch_that_waited_too_long_is_told_now_and_ready_by_its_own_sync(
        start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1, query_wait_timeout="200ms")
    with holding(pooler) as holder, pooler.connect() as client:
        client.send(batch("SELECT 1"))
        told([client.next()], "ERROR", "53300")
        holder.rows("COMMIT")
        only_sync_brings_ready(client)


def test_a_function_call_that_waited_too_long_is_told_and_the_client_stays(
        start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1, query_wait_timeout="200ms")
    abs_int4 = 1397
    with holding(pooler) as holder, pooler.connect() as client:
        client.send(wire.function_call(abs_int4, b"-7"))
        assert client.shapes(client.until_ready()) == "EZ"
        holder.rows("COMMIT")
        client.send(wire.function_call(abs_int4, b"-7"))
        assert client.shapes(client.until_ready()) == "VZ"


def test_each_of_several_queries_that_wait_gets_an_answer(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1, query_wait_timeout="200ms")
    with holding(pooler), pooler.connect() as client:
        client.send(*[wire.query("SELECT 1")] * 3)
        for _ in range(3):
            told(client.until_ready(), "ERROR", "53300")


@pytest.mark.parametrize("where", ["databases", "users"])
def test_a_database_or_user_may_have_its_own_query_wait_timeout(
        start_pgsluice, postgres, where):
    own = {"databases": {"databases": {
               "app": f"host=127.0.0.1 port={postgres.port} "
                      "query_wait_timeout=100ms"}},
           "users": {"users": {"app": "query_wait_timeout=100ms"}}}[where]
    pooler = start_pgsluice(default_pool_size=1, query_wait_timeout=0, **own)
    with holding(pooler), pooler.connect() as client:
        is_told_and_stays(client, "53300")


def test_one_that_waits_long_gets_a_notice_each_time_it_waits(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1, query_wait_notify="50ms")
    with holding(pooler) as holder, pooler.connect() as client:
        for _ in range(2):
            client.send(wire.query("SELECT 1"))
            notice = client.next()
            assert notice.kind == "N"
            assert notice.fields["V"] == "NOTICE"
            assert "No server connection available" in notice.fields["M"]
            holder.rows("COMMIT")
            assert client.shapes(client.until_ready()) == "TDCZ"
            holder.rows("BEGIN; SELECT 1")


# 57P03: no server

def test_a_server_that_is_down_is_told_and_served_again_when_it_is_back(
        start_pgsluice, mortal):
    pooler = start_pgsluice(mortal, server_login_retry="300ms")
    with pooler.connect() as client, pooler.connect() as other:
        assert client.value("SELECT 1") == "1"
        mortal.stop()
        assert "server connection failed" in \
            is_told_and_stays(client, "57P03")["M"]
        other.send(batch("SELECT 1"))
        told([other.next()], "ERROR", "57P03")
        with pooler.connect() as newcomer:
            is_told_and_stays(newcomer, "57P03")
        mortal.start()
        wait_until(lambda: client.query("SELECT 1")[0].kind == "T", "served")
        only_sync_brings_ready(other)


def test_those_who_wait_while_the_server_restarts_are_served(
        start_pgsluice, mortal):
    pooler = start_pgsluice(mortal, default_pool_size=2)
    with pooler.connect() as simple, pooler.connect() as extended, \
            pooler.connect() as third:
        mortal.stop()
        for client in (simple, third):
            client.send(wire.query("SELECT 'back'"))
        extended.send(batch("SELECT 'back'"), wire.sync())
        wait_in_line(pooler, 3)
        mortal.start()
        for client, shapes in ((simple, "TDCZ"), (third, "TDCZ"),
                               (extended, "12TDCZ")):
            answer = client.until_ready()
            assert client.shapes(answer) == shapes
            assert ["back"] in [got.values for got in answer
                                if got.kind == "D"]


def test_a_login_to_a_server_that_never_was_there_ends_with_57P03(
        start_pgsluice, mortal):
    mortal.stop()
    pooler = start_pgsluice(mortal, server_login_retry="300ms")
    refused(pooler, "57P03")
    refused(pooler, "28P01", password="wrong")
    mortal.start()
    wait_until(lambda: can_log_in(pooler), "let in")


def can_log_in(pooler):
    try:
        pooler.connect().close()
        return True
    except wire.ServerError as error:
        assert error.sqlstate == "57P03"
        return False


@pytest.mark.parametrize("sqlstate, text", [
    ("57P03", "the database system is starting up"),
    ("53300", "sorry, too many clients already"),
])
def test_a_server_that_will_do_better_soon_is_waited_for(
        start_pgsluice, postgres, sqlstate, text):
    with Door(postgres) as door:
        pooler = start_pgsluice(door, databases=before(door))
        with pooler.connect() as client:
            door.says(error_response(sqlstate, text))
            pooler.console("RECONNECT")
            client.send(wire.query("SELECT 7"))
            knocks = door.knocks
            wait_until(lambda: door.knocks > knocks + 1, "tried twice")
            door.lets_through()
            assert client.shapes(client.until_ready()) == "TDCZ"


def test_a_server_that_stays_full_is_told_as_57P03_with_its_words(
        start_pgsluice, postgres):
    with Door(postgres) as door:
        pooler = start_pgsluice(door, databases=before(door),
                                server_login_retry="300ms")
        with pooler.connect() as client:
            door.says(error_response("53300", "sorry, too many clients"))
            pooler.console("RECONNECT")
            fields = is_told_and_stays(client, "57P03")
            assert "sorry, too many clients" in fields["D"]


def test_a_server_that_does_not_answer_is_given_up_after_connect_timeout(
        start_pgsluice, postgres):
    with Door(postgres) as door:
        pooler = start_pgsluice(
            door, databases=before(door), server_connect_timeout="200ms",
            server_login_retry="300ms")
        with pooler.connect() as client:
            door.ignores()
            pooler.console("RECONNECT")
            fields = is_told_and_stays(client, "57P03")
            assert "timeout" in fields["D"]
            door.lets_through()
            wait_until(lambda: client.query("SELECT 1")[0].kind == "T",
                       "served")


# The server refuses

def test_a_database_that_the_server_has_not_is_told_after_the_login(
        start_pgsluice, postgres):
    pooler = start_pgsluice(databases={
        "app": f"host=127.0.0.1 port={postgres.port} dbname=not_there"})
    fields = refused(pooler, "3D000")
    assert fields["M"] == 'database "not_there" does not exist'
    refused(pooler, "28P01", password="wrong")


def test_a_user_that_the_server_refuses_is_told_after_the_login(
        start_pgsluice, postgres):
    postgres.rows("CREATE ROLE locked NOLOGIN PASSWORD 'locked-secret'")
    try:
        pooler = start_pgsluice(secrets={"locked": "locked-secret"})
        fields = refused(pooler, "28000", "locked")
        assert fields["M"] == 'role "locked" is not permitted to log in'
        refused(pooler, "28P01", "locked", password="wrong")
    finally:
        postgres.rows("DROP ROLE locked")


def test_a_database_that_was_dropped_meanwhile_is_told_at_the_next_query(
        start_pgsluice, postgres):
    postgres.rows("CREATE DATABASE doomed")
    pooler = start_pgsluice(databases={
        "doomed": f"host=127.0.0.1 port={postgres.port}"})
    with pooler.connect(database="doomed") as client:
        assert client.value("SELECT 1") == "1"
        postgres.rows("DROP DATABASE doomed WITH (FORCE)")
        client.send(wire.query("SELECT 1"))
        loses_its_connection(client, "3D000")


# 08006 and 08007: the server is lost

def test_a_server_lost_while_idle_is_replaced_and_nobody_is_told(
        pgsluice, postgres):
    with pgsluice.connect() as client, postgres.superuser() as superuser:
        pid = backend(client)
        terminate(superuser, pid)
        assert backend(client) != pid


def test_a_server_lost_under_an_autocommit_query_is_told_as_08007(
        pgsluice, postgres):
    with pgsluice.connect() as client, Slow(postgres) as slow:
        client.send(wire.query(slow.sql))
        slow.terminate()
        answer = client.until_ready()
        assert answer[-1].status == "I"
        fields = told(answer, "ERROR", "08007")
        assert "terminating connection" in fields["D"]
        assert client.value("SELECT 7") == "7"


def test_a_server_lost_under_a_batch_is_told_now_and_ready_by_its_own_sync(
        pgsluice, postgres):
    with pgsluice.connect() as client, Slow(postgres) as slow:
        client.send(batch(slow.sql), wire.flush())
        slow.terminate()
        told(client.until("E"), "ERROR", "08007")
        only_sync_brings_ready(client)


def test_a_server_lost_under_a_batch_whose_sync_was_sent_is_answered_once(
        pgsluice, postgres):
    with pgsluice.connect() as client, Slow(postgres) as slow:
        client.send(batch(slow.sql), wire.sync())
        slow.terminate()
        answer = client.until_ready()
        told(answer, "ERROR", "08007")
        assert client.value("SELECT 7") == "7"


def test_a_server_lost_before_a_batch_could_commit_is_told_as_08006(
        pgsluice, postgres):
    with pgsluice.connect() as client, postgres.superuser() as superuser:
        client.send(batch("SELECT pg_backend_pid()"), wire.flush())
        (pid,), = [got.values for got in client.until("C") if got.kind == "D"]
        terminate(superuser, pid)
        told([client.next()], "ERROR", "08006")
        only_sync_brings_ready(client)


def test_a_server_lost_with_a_pipeline_behind_it_ends_the_connection(
        pgsluice, postgres):
    with pgsluice.connect() as client, Slow(postgres) as slow:
        client.send(wire.query(slow.sql), wire.query("SELECT 1"))
        slow.terminate()
        loses_its_connection(client, "08007")


def test_a_server_lost_in_a_transaction_ends_the_connection_with_08006(
        pgsluice, postgres):
    with holding(pgsluice) as client, postgres.superuser() as superuser:
        terminate(superuser, backend(client))
        loses_its_connection(client, "08006")


def test_a_server_lost_in_a_transactions_query_ends_it_with_08006(
        pgsluice, postgres):
    with holding(pgsluice) as client, Slow(postgres) as slow:
        client.send(wire.query(slow.sql))
        slow.terminate()
        loses_its_connection(client, "08006")


SLOW_COMMIT = """
    CREATE TEMP TABLE t (n int) ON COMMIT DROP;
    CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION pg_temp.slow();
    INSERT INTO t VALUES (1)"""


@pytest.mark.parametrize("how", ["simple", "extended", "long"])
@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_a_server_lost_at_commit_ends_the_connection_with_08007(
        start_pgsluice, postgres, pool_mode, how):
    pooler = start_pgsluice(pool_mode=pool_mode)
    commit = {"simple": wire.query("COMMIT"),
              "extended": batch("COMMIT") + wire.sync(),
              "long": wire.query("SELECT 1 /*" + "-" * 300 + "*/; COMMIT"),
              }[how]
    with holding(pooler) as client, postgres.superuser() as superuser:
        pid = backend(client)
        client.rows(SLOW_COMMIT)
        client.send(commit)
        wait_until(lambda: superuser.rows(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            f" AND pid = {pid}"), "the commit at work")
        terminate(superuser, pid)
        loses_its_connection(client, "08007")


def test_a_server_lost_in_session_mode_ends_the_session(
        start_pgsluice, postgres):
    pooler = start_pgsluice(pool_mode="session")
    with pooler.connect() as client, postgres.superuser() as superuser:
        client.rows("CREATE TEMP TABLE mine (n int)")
        terminate(superuser, backend(client))
        loses_its_connection(client, "08006")


def test_a_server_lost_in_the_middle_of_a_message_ends_the_connection(
        start_pgsluice, postgres):
    with Door(postgres) as door:
        pooler = start_pgsluice(door, databases=before(door))
        with pooler.connect() as client:
            assert client.value("SELECT 1") == "1"
            door.cut_after(100_000)
            client.send(wire.query("SELECT repeat('x', 1000000)"))
            assert client.shapes(client.until_closed()) == "T"
        door.left = None
        with pooler.connect() as other:
            assert other.value("SELECT 7") == "7"


def test_a_request_of_which_nothing_was_written_is_not_lost(
        start_pgsluice, postgres):
    """Servers that end while idle, under many clients: every one is served."""
    pooler = start_pgsluice(default_pool_size=3)
    with postgres.superuser() as superuser:
        clients = [pooler.connect() for _ in range(6)]
        for _ in range(20):
            superuser.rows("SELECT pg_terminate_backend(pid) FROM"
                           " pg_stat_activity WHERE usename = 'app'"
                           " AND state = 'idle'")
            for client in clients:
                client.send(wire.query("SELECT 7"))
            for client in clients:
                answer = client.until_ready()
                # The kill may still strike the query itself.
                if client.shapes(answer) != "TDCZ":
                    told(answer, "ERROR", "08007")
        for client in clients:
            client.close()


# 57014: timeout and cancel

def test_a_query_over_query_timeout_is_cancelled_and_the_client_stays(
        start_pgsluice, postgres):
    pooler = start_pgsluice(query_timeout="200ms")
    with pooler.connect() as client, Slow(postgres) as slow:
        is_told_and_stays(client, "57014", slow.sql)
        client.send(batch(slow.sql), wire.sync())
        told(client.until_ready(), "ERROR", "57014")
        assert client.value("SELECT 7") == "7"


def test_a_query_timeout_in_a_transaction_leaves_it_failed(
        start_pgsluice, postgres):
    pooler = start_pgsluice(users={"app": "query_timeout=200ms"})
    with holding(pooler) as client, Slow(postgres) as slow:
        answer = client.query(slow.sql)
        told(answer, "ERROR", "57014")
        assert answer[-1].status == "E"
        assert client.query("ROLLBACK")[-1].status == "I"


@pytest.mark.parametrize("protocol", [wire.PROTOCOL_3_0, wire.PROTOCOL_3_2])
def test_a_cancel_ends_the_query_and_the_client_stays(
        pgsluice, postgres, protocol):
    with pgsluice.connect(protocol=protocol) as client, \
            Slow(postgres) as slow:
        client.send(wire.query(slow.sql))
        slow.wait_running()
        cancel(pgsluice, client.pid, client.key)
        answer = client.until_ready()
        assert client.shapes(answer)[-2:] == "EZ"
        told(answer, "ERROR", "57014")
        assert client.value("SELECT 7") == "7"


def test_a_cancel_with_a_wrong_key_does_nothing(pgsluice, postgres):
    with pgsluice.connect() as client, pgsluice.connect() as other, \
            Slow(postgres) as slow:
        client.send(wire.query(slow.sql))
        slow.wait_running()
        wrong = bytes([client.key[0] ^ 1]) + client.key[1:]
        cancel(pgsluice, client.pid, wrong)
        cancel(pgsluice, client.pid, other.key)
        cancel(pgsluice, client.pid, client.key + b"\0")
        cancel(pgsluice, client.pid, client.key + b"\0" * 28)
        cancel(pgsluice, client.pid + 1, client.key)
        cancel(pgsluice, 0, client.key)
        cancel(pgsluice, 2**32 - 1, client.key)
        slow.let_go()
        assert client.shapes(client.until_ready()) == "TDCZ"


def test_a_new_client_has_not_the_process_id_of_one_that_has_just_gone(
        start_pgsluice):
    """By which the pools of drivers tell connections apart."""
    pooler = start_pgsluice(workers=1)
    seen = []
    for _ in range(20):
        with pooler.connect() as client:
            seen.append(client.pid)
        wait_until(lambda: len(pooler.console("SHOW CLIENTS")) == 1,
                   "the client has gone")
    assert len(set(seen)) == 20


def test_a_cancel_of_one_that_does_nothing_does_nothing(pgsluice):
    with pgsluice.connect() as client:
        cancel(pgsluice, client.pid, client.key)
        assert client.value("SELECT 7") == "7"


def test_one_that_waits_in_line_can_be_cancelled(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    with holding(pooler) as holder, pooler.connect() as client, \
            pooler.connect() as extended:
        client.send(wire.query("SELECT 1"))
        extended.send(batch("SELECT 1"))
        wait_in_line(pooler, 2)
        cancel(pooler, client.pid, client.key)
        answer = client.until_ready()
        assert client.shapes(answer) == "EZ"
        told(answer, "ERROR", "57014")
        cancel(pooler, extended.pid, extended.key)
        told([extended.next()], "ERROR", "57014")
        holder.rows("COMMIT")
        assert client.value("SELECT 7") == "7"
        only_sync_brings_ready(extended)


# 25P03, 25P04, 57P05: idle and lasting too long

def test_a_transaction_idle_too_long_ends_the_connection_with_25P03(
        start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1,
                            idle_transaction_timeout="200ms")
    with holding(pooler) as client:
        pid = backend(client)
        loses_its_connection(client, "25P03")
    with pooler.connect() as other:
        assert backend(other) == pid, "rolled back and used again"


def test_a_query_in_a_transaction_is_not_idle(start_pgsluice, postgres):
    pooler = start_pgsluice(users={"app": "idle_transaction_timeout=200ms"})
    with holding(pooler) as client, holding(pooler) as idle, \
            Slow(postgres) as slow:
        client.send(wire.query(slow.sql))
        loses_its_connection(idle, "25P03")
        slow.let_go()
        assert client.shapes(client.until_ready()) == "TDCZ"


def test_a_transaction_that_takes_too_long_ends_with_25P04(
        start_pgsluice, postgres):
    pooler = start_pgsluice(transaction_timeout="200ms")
    with holding(pooler) as idle, holding(pooler) as busy, \
            Slow(postgres) as slow:
        busy.send(wire.query(slow.sql))
        loses_its_connection(idle, "25P04")
        loses_its_connection(busy, "25P04")
        slow.wait_over()


def test_transactions_in_a_row_are_not_one_that_takes_too_long(
        start_pgsluice):
    pooler = start_pgsluice(transaction_timeout="200ms")
    with pooler.connect() as client, holding(pooler) as clock:
        while not has_news(clock):
            assert client.value("SELECT 7") == "7"
        loses_its_connection(clock, "25P04")
        assert client.value("SELECT 7") == "7"


def test_one_idle_too_long_ends_with_57P05_but_not_in_a_transaction(
        start_pgsluice):
    pooler = start_pgsluice(client_idle_timeout="200ms")
    with holding(pooler) as busy, pooler.connect() as idle:
        loses_its_connection(idle, "57P05")
        assert busy.value("SELECT 7") == "7"
        assert busy.query("COMMIT")[-1].status == "I"
        loses_its_connection(busy, "57P05")


def test_a_query_that_comes_while_its_server_is_being_asked_is_not_idle(
        start_pgsluice, postgres):
    pooler = start_pgsluice(client_idle_timeout="200ms")
    with pooler.connect() as client, pooler.connect() as idle, \
            Slow(postgres) as slow:
        # the server is asked what is set now, behind the answer
        assert client.shapes(client.query("SET work_mem = '7MB'")) == "CZ"
        client.send(wire.query(slow.sql))
        loses_its_connection(idle, "57P05")
        assert idle.until_closed() == []
        with pooler.connect() as later:
            loses_its_connection(later, "57P05")
        slow.let_go()
        assert client.shapes(client.until_ready()) == "TDCZ"


@pytest.mark.parametrize("so_far", [
    b"\0\0", wire.ssl_request(),
    wire.startup(user="app", database="app"),
], ids=["half a packet", "an encryption request", "no password"])
def test_a_login_that_takes_too_long_is_ended(start_pgsluice, so_far):
    pooler = start_pgsluice(client_login_timeout="200ms")
    with wire.Wire.connect(pooler.port) as client:
        client.send(so_far)
        if so_far == wire.ssl_request():
            assert client.receive(1) == b"N"
        loses_its_connection(client, "57P05")
    with pooler.connect() as client:
        assert client.value("SELECT 7") == "7"


# 57P01: drain

def test_a_drain_ends_the_idle_and_lets_transactions_finish(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    with pooler.connect() as idle, holding(pooler) as busy, \
            pooler.connect() as waiting:
        waiting.send(wire.query("SELECT 'served'"))
        wait_in_line(pooler, 1)
        pooler.send_signal(signal.SIGTERM)
        loses_its_connection(idle, "57P01")
        assert busy.value("SELECT 7") == "7"
        busy.send(wire.query("COMMIT"))
        answer = busy.until_closed()
        assert busy.shapes(answer) == "CZE"
        told(answer, "FATAL", "57P01")
        answer = waiting.until_closed()
        assert waiting.shapes(answer) == "TDCZE"
        told(answer, "FATAL", "57P01")
        assert pooler.wait_end() == 0


def test_a_drain_lets_nobody_else_in(start_pgsluice):
    pooler = start_pgsluice()
    with holding(pooler) as busy:
        pooler.send_signal(signal.SIGTERM)
        wait_until(lambda: not can_connect(pooler), "nobody let in")
        busy.rows("SELECT 1")
        busy.send(wire.query("ROLLBACK"))
        loses_its_connection(busy, "57P01")
        assert pooler.wait_end() == 0


def can_connect(pooler):
    try:
        wire.Wire.connect(pooler.port).close()
        return True
    except ConnectionError:
        return False


def test_a_drain_ends_sessions_between_transactions(start_pgsluice):
    pooler = start_pgsluice(pool_mode="session")
    with pooler.connect() as idle, holding(pooler) as busy:
        assert idle.value("SELECT 7") == "7"
        pooler.send_signal(signal.SIGTERM)
        loses_its_connection(idle, "57P01")
        assert busy.value("SELECT 7") == "7"
        busy.send(wire.query("COMMIT"))
        assert busy.shapes(busy.until_closed()) == "CZE"
        assert pooler.wait_end() == 0


def test_a_drain_ends_at_shutdown_timeout(start_pgsluice):
    pooler = start_pgsluice(shutdown_timeout="300ms")
    with holding(pooler) as busy:
        pooler.send_signal(signal.SIGTERM)
        loses_its_connection(busy, "57P01")
        assert pooler.wait_end() == 0


@pytest.mark.parametrize("numbers", [
    [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGINT],
    [signal.SIGQUIT],
], ids=["TERM twice", "INT twice", "QUIT"])
def test_a_second_request_or_sigquit_ends_at_once(start_pgsluice, numbers):
    pooler = start_pgsluice(shutdown_timeout=0)
    with holding(pooler) as busy, pooler.connect() as idle:
        pooler.send_signal(numbers[0])
        loses_its_connection(idle, "57P01")
        for number in numbers[1:]:
            pooler.send_signal(number)
        loses_its_connection(busy, "57P01")
        assert pooler.wait_end() == 0


def test_sigint_lets_transactions_finish_and_no_new_one_begin(
        start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    with holding(pooler) as busy, pooler.connect() as waiting:
        waiting.send(wire.query("SELECT 1"))
        wait_in_line(pooler, 1)
        pooler.send_signal(signal.SIGINT)
        loses_its_connection(waiting, "57P01")
        busy.rows("SELECT 1")
        busy.send(wire.query("COMMIT"))
        assert busy.shapes(busy.until_closed()) == "CZE"
        assert pooler.wait_end() == 0


# 08P01: malformed, or out of phase

NONSENSE = {
    "an unknown type": wire.message("z"),
    "a length of 0": length_only("Q", 0),
    "a length of 3": length_only("Q", 3),
    "a length of 2^31": length_only("Q", 2**31),
    "a length of 2^32 - 1": length_only("Q", 2**32 - 1),
    "a second StartupMessage": wire.startup(user="postgres"),
    "a password after login": wire.password("app-secret"),
    "a cancel after login": wire.cancel_request(1, b"1234"),
    "a Parse without NULs": wire.message("P", b"abc"),
    "a Bind without NULs": wire.message("B", b"abc"),
    "a Describe of nothing": wire.message("D"),
    "a Describe without NUL": wire.message("D", b"Sabc"),
    "a Close with bytes behind it": wire.message("C", b"Sabc\0def"),
}


@pytest.mark.parametrize("what", NONSENSE)
@pytest.mark.parametrize("phase", ["idle", "in a transaction"])
def test_nonsense_ends_the_connection_with_08P01_and_nobody_elses(
        start_pgsluice, phase, what):
    pooler = start_pgsluice(default_pool_size=1)
    with pooler.connect() as client, pooler.connect() as other:
        if phase != "idle":
            client.rows("BEGIN; SELECT 1")
        client.send(NONSENSE[what])
        loses_its_connection(client, "08P01")
        assert other.query("COMMIT")[0].kind == "N", "no transaction"
        assert other.value("SELECT 7") == "7"


BEFORE_LOGIN = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "a packet of 7 bytes": b"\0\0\0\x07\0\x03\0",
    "a packet of 10,001 bytes": b"\0\0\x27\x11\0\x03\0\0",
    "a packet of 2^31 bytes": b"\x80\0\0\0\0\x03\0\0",
    "protocol 2.0": wire.message("", b"\0\x02\0\0", b"\0" * 288),
    "no end of the parameters": wire.message("", b"\0\x03\0\0", b"user\0app"),
    "bytes behind the parameters": wire.message(
        "", b"\0\x03\0\0", b"user\0app\0\0more"),
    "a query": wire.query("SELECT 1"),
    "bytes behind an SSLRequest":
        wire.ssl_request() + wire.startup(user="app"),
    "bytes behind a GSSENCRequest":
        wire.gssenc_request() + wire.startup(user="app"),
}


@pytest.mark.parametrize("what", BEFORE_LOGIN)
def test_nonsense_before_login_is_closed_with_08P01(pgsluice, what):
    with wire.Wire.connect(pgsluice.port) as client:
        client.send(BEFORE_LOGIN[what])
        loses_its_connection(client, "08P01")


def test_one_that_takes_leave_before_it_has_come_is_told_nothing(pgsluice):
    """As by Postgres: node-postgres does so when it is told to connect and to
    end at once, and an error would be an exception that nobody catches."""
    with wire.Wire.connect(pgsluice.port) as client:
        client.send(wire.terminate(), wire.startup(user="app"))
        assert client.until_closed() == []


def test_two_encryption_requests_of_a_kind_are_one_too_many(pgsluice):
    with wire.Wire.connect(pgsluice.port) as client:
        for request in (wire.ssl_request(), wire.gssenc_request()):
            client.send(request)
            assert client.receive(1) == b"N"
        client.send(wire.ssl_request())
        loses_its_connection(client, "08P01")


def test_something_else_than_a_password_is_closed_with_08P01(pgsluice):
    for message in (wire.query("SELECT 1"), wire.sync(), wire.terminate()):
        with wire.Wire.connect(pgsluice.port) as client:
            client.send(wire.startup(user="app", database="app"))
            assert client.next().kind == "R"
            client.send(message)
            loses_its_connection(client, "08P01")


# 54000: over a limit

@pytest.mark.parametrize("message", [
    length_only("Q", 2 << 20), length_only("B", 2 << 20),
    length_only("d", 2 << 20), length_only("D", 20_000),
], ids=["a query", "a Bind", "COPY data", "a name"])
def test_a_message_over_a_limit_ends_the_connection_with_54000(
        start_pgsluice, message):
    pooler = start_pgsluice(max_packet_size="1MB")
    with pooler.connect() as client:
        client.send(message)
        loses_its_connection(client, "54000")


def test_a_password_over_8_kib_is_closed_with_54000(pgsluice):
    with wire.Wire.connect(pgsluice.port) as client:
        client.send(wire.startup(user="app", database="app"))
        assert client.next().kind == "R"
        client.send(wire.password("x" * 8192))
        loses_its_connection(client, "54000")


# 28P01: login failed

@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "plain"])
def test_why_a_login_failed_is_not_told(start_pgsluice, auth_type):
    pooler = start_pgsluice(auth_type=auth_type)
    texts = {str(refused(pooler, "28P01", user, database, password))
             .replace(user, "NAME")
             for user, password in (("app", "wrong"), ("nobody", "wrong"),
                                    ("app", "\1"), ("admin", "app-secret"))
             for database in ("app", "not_there", "pgsluice")}
    assert len(texts) == 1, texts


def test_an_unknown_user_sees_the_same_scram_exchange_each_time(pgsluice):
    def challenge(user):
        with wire.Wire.connect(pgsluice.port) as client:
            client.send(wire.startup(user=user, database="app"))
            offer = client.next()
            scram = wire.Scram("wrong")
            first = scram.client_first()
            client.send(wire.message(
                "p", wire.text(scram.mechanism),
                len(first).to_bytes(4, "big"), first))
            fields = client.next().body[4:].decode().split(",")
            return offer, [part for part in fields if part[0] != "r"]

    assert challenge("nobody") == challenge("nobody")
    assert challenge("nobody")[1] != challenge("somebody")[1]
    assert challenge("nobody")[0] == challenge("app")[0]
    assert challenge("nobody")[1][-1] == challenge("app")[1][-1], "i="
    assert len(challenge("nobody")[1][0]) == len(challenge("app")[1][0])


# The rest of the table

def test_an_unknown_database_is_told_after_the_login(pgsluice):
    fields = refused(pgsluice, "3D000", database="not_there")
    assert fields["M"] == "no such database: not_there"
    refused(pgsluice, "28P01", database="not_there", password="wrong")


@pytest.mark.parametrize("how", ["simple", "extended"])
def test_statement_mode_has_no_transactions(start_pgsluice, how):
    pooler = start_pgsluice(pool_mode="statement", default_pool_size=1)
    with pooler.connect() as client, pooler.connect() as other:
        pid = backend(client)
        client.send(wire.query("BEGIN; SELECT 1") if how == "simple" else
                    batch("BEGIN") + wire.sync())
        loses_its_connection(client, "0A000")
        assert backend(other) == pid, "rolled back and used again"
        assert other.query("COMMIT")[0].kind == "N", "no transaction"


def test_disable_pqexec_refuses_simple_queries_only(start_pgsluice):
    pooler = start_pgsluice(disable_pqexec=True)
    with pooler.connect() as client:
        client.send(batch("SELECT 7"), wire.sync())
        assert client.shapes(client.until_ready()) == "12TDCZ"
        client.send(wire.query("SELECT 7"))
        loses_its_connection(client, "0A000")


def test_without_tls_where_it_is_required_28000(start_pgsluice, postgres_tls):
    crt, key = postgres_tls.certificates.server("pooler")
    pooler = start_pgsluice(postgres_tls, client_tls_sslmode="require",
                            client_tls_cert_file=crt, client_tls_key_file=key)
    fields = refused(pooler, "28000")
    assert "SSL" in fields["M"]
    with wire.Wire.connect(pooler.port) as client:
        client.start_tls()
        client.login("app", secret("app"), "app")
        assert client.value("SELECT 7") == "7"


def test_replication_is_not_pooled(pgsluice):
    refused(pgsluice, "0A000", replication="database")


def test_without_descriptors_who_is_in_stays_and_others_wait(
        start_pgsluice):
    pooler = start_pgsluice()
    with pooler.connect() as client:
        assert client.value("SELECT 1") == "1"
        resource.prlimit(pooler.process.pid, resource.RLIMIT_NOFILE,
                         (40, 40))
        crowd = [wire.Wire.connect(pooler.port) for _ in range(60)]
        for silent in crowd:
            silent.send(b"\0")
        pooler.wait_log("[Tt]oo many open files")
        assert client.value("SELECT 7") == "7"
        for silent in crowd:
            silent.close()
        with pooler.connect() as other:
            assert other.value("SELECT 7") == "7"
    free_again(pooler)


# query_timeout, where the server does not answer

def test_over_query_timeout_a_dead_server_is_given_up(start, start_pgsluice):
    pooler = start_pgsluice(start(Postgres), query_timeout="300ms",
                            cancel_wait_timeout="200ms")
    with pooler.connect() as client:
        pid = int(backend(client))
        os.kill(pid, signal.SIGSTOP)
        try:
            client.send(wire.query("SELECT pg_sleep(60)"))
            fields = loses_its_connection(client, "57014")
        finally:
            os.kill(pid, signal.SIGCONT)
    assert fields["M"] == "query_timeout"
    assert "query_timeout: cancelling a query after" in pooler.log()
    with pooler.connect() as client:
        assert client.value("SELECT 1") == "1"


# server_fast_close

@pytest.mark.parametrize("fast", [True, False])
def test_a_replaced_server_ends_its_session_with_server_fast_close(
        start_pgsluice, fast):
    pooler = start_pgsluice(pool_mode="session", server_fast_close=fast)
    with pooler.connect() as idle, holding(pooler) as busy:
        pid = backend(idle)
        pooler.console("RECONNECT")
        assert busy.value("SELECT 2") == "2"
        if fast:
            fields = loses_its_connection(idle, "57P01")
            assert fields["M"] == "database configuration changed"
            busy.send(wire.query("COMMIT"))
            assert busy.shapes(busy.until_closed()) == "CZE"
        else:
            assert backend(idle) == pid
            busy.rows("COMMIT")
            assert busy.value("SELECT 3") == "3"


def test_a_session_goes_on_over_pause_with_server_fast_close(start_pgsluice):
    pooler = start_pgsluice(pool_mode="session", server_fast_close=True)
    with pooler.connect() as client:
        pid = backend(client)
        with pooler.connect("admin", "pgsluice") as admin:
            admin.send(wire.query("PAUSE"))
            wait_until(lambda: any(
                row["key"] == "paused" and row["value"] == "yes"
                for row in pooler.console("SHOW STATE")), "paused")
            assert backend(client) == pid
            pooler.console("RESUME")
        assert backend(client) == pid
