"""Pools: who gets a server, how many there are, and what is left in one when
it goes to somebody else."""

import os
import re
import stat
import threading

import pytest

import wire
from contract_tools import (
    Door, Slow, backend, batch, before, free_again, holding, peak_memory,
    refused, terminate, told, wait_in_line)
from pgsluice import DATABASES, Postgres, secret, wait_until

pytestmark = pytest.mark.core


def wait_pool(pooler, user="app", database="app", **wanted):
    """Until the row of SHOW POOLS has these numbers."""
    def is_so():
        row = pooler.pool(database, user) or {}
        return all(row.get(name) == value for name, value in wanted.items())

    wait_until(is_so, f"{wanted} in SHOW POOLS")


def settings_of(client, *names):
    return [client.value(f"SHOW {name}") for name in names]


# Pool modes

def test_transaction_mode_lends_a_server_for_a_transaction(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    with holding(pooler) as first, pooler.connect() as second:
        second.send(wire.query("SELECT 1"))
        wait_in_line(pooler, 1)
        pid = backend(first)
        first.rows("COMMIT")
        assert second.shapes(second.until_ready()) == "TDCZ"
        assert backend(second) == pid


def test_session_mode_lends_a_server_until_the_client_goes(start_pgsluice):
    pooler = start_pgsluice(pool_mode="session", default_pool_size=1)
    with pooler.connect() as first, pooler.connect() as second:
        pid = backend(first)
        second.send(wire.query("SELECT pg_backend_pid()"))
        wait_in_line(pooler, 1)
        assert backend(first) == pid
        first.close()
        answer = second.until_ready()
        assert answer[1].values == [pid]


def test_session_mode_gives_the_next_client_a_clean_session(start_pgsluice):
    pooler = start_pgsluice(pool_mode="session", default_pool_size=1)
    with pooler.connect() as first:
        pid = backend(first)
        first.rows("SET work_mem = '1234kB'; SET search_path = nowhere;"
                   " SET DateStyle = 'German'")
        first.rows("CREATE TEMP TABLE mine (n int)")
        first.rows("PREPARE mine AS SELECT 1")
        first.rows("SELECT pg_advisory_lock(4711)")
        first.rows("BEGIN; SELECT 1")
    with pooler.connect() as second:
        assert backend(second) == pid
        assert settings_of(second, "work_mem", "search_path",
                           "DateStyle") == ["4MB", '"$user", public',
                                            "ISO, MDY"]
        assert second.value("SELECT to_regclass('mine')") is None
        assert second.rows("SELECT name FROM pg_prepared_statements") == []
        assert second.value("SELECT count(*) FROM pg_locks"
                            " WHERE locktype = 'advisory'"
                            " AND pid = pg_backend_pid()") == "0"
        assert second.query("COMMIT")[0].kind == "N", "no transaction"


def test_server_reset_query_may_be_another_one(start_pgsluice):
    pooler = start_pgsluice(pool_mode="session", default_pool_size=1,
                            server_reset_query="SET work_mem = '777kB'")
    with pooler.connect() as first:
        first.rows("SET work_mem = '1234kB'")
    with pooler.connect() as second:
        assert settings_of(second, "work_mem") == ["777kB"]


def test_server_reset_query_always_cleans_after_each_transaction(
        start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1,
                            server_reset_query_always=True)
    with pooler.connect() as client:
        pid = backend(client)
        client.rows("CREATE SEQUENCE counts")
        client.rows("SELECT nextval('counts')")
        with pytest.raises(wire.ServerError, match="55000"):
            client.rows("SELECT lastval()")
        assert backend(client) == pid
        client.rows("DROP SEQUENCE counts")


def test_statement_mode_lends_a_server_for_a_statement(start_pgsluice):
    pooler = start_pgsluice(pool_mode="statement", default_pool_size=1)
    with pooler.connect() as first, pooler.connect() as second:
        assert backend(first) == backend(second)
        first.send(batch("SELECT $1::int", 7), wire.sync())
        assert first.shapes(first.until_ready()) == "12TDCZ"


def test_a_database_and_a_user_may_have_a_pool_mode_of_their_own(
        start_pgsluice, postgres):
    pooler = start_pgsluice(
        databases=before(postgres, pool_mode="session"),
        users={"trust_user": "pool_mode=statement"})
    with pooler.connect() as session:
        session.value("SELECT 1")
        wait_pool(pooler, sv_active=1, pool_mode="session")
    with pooler.connect("trust_user") as client:
        client.send(wire.query("BEGIN; SELECT 1"))
        told(client.until_closed(), "FATAL", "0A000")


# How many servers

def test_reload_takes_on_a_larger_pool_at_once(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    with holding(pooler), pooler.connect() as client:
        client.send(wire.query("SELECT 7"))
        wait_in_line(pooler, 1)
        pooler.configure(default_pool_size=2)
        assert client.shapes(client.until_ready()) == "TDCZ"


def test_a_pool_never_has_more_servers_than_its_size(
        start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=3)
    with postgres.superuser() as superuser:
        # those of an earlier pooler may still be on their way out
        wait_until(lambda: superuser.value(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")
            == "0", "no servers")
        clients = [pooler.connect() for _ in range(30)]
        for client in clients:
            client.send(*[wire.query("SELECT pg_sleep(0.002)")] * 5)
        seen = set()
        for client in clients:
            seen.add(int(superuser.value(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE usename = 'app'")))
            for _ in range(5):
                client.until_ready()
        assert 1 < max(seen) <= 3
        for client in clients:
            client.close()


def test_a_user_may_have_a_pool_size_of_its_own(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1,
                            users={"app": "pool_size=2"})
    with holding(pooler) as first, holding(pooler) as second:
        assert backend(first) != backend(second)


def test_min_pool_size_is_kept_once_a_client_is_there(
        start_pgsluice, postgres):
    pooler = start_pgsluice(min_pool_size=3)
    with pooler.connect() as client:
        wait_pool(pooler, sv_idle=3)
        with postgres.superuser() as superuser:
            terminate(superuser, backend(client))
        wait_pool(pooler, sv_idle=3)


def test_min_pool_size_needs_no_client_where_the_user_is_forced(
        start_pgsluice, postgres):
    pooler = start_pgsluice(databases={
        "app": f"host=127.0.0.1 port={postgres.port} min_pool_size=2"
               f" user=app password={secret('app')}"})
    with pooler.connect() as client:
        assert client.value("SELECT 1") == "1"
    wait_pool(pooler, sv_idle=2)


def test_min_pool_size_of_a_forced_user_waits_for_nobody(
        start_pgsluice, postgres):
    entry = (f"host=127.0.0.1 port={postgres.port} dbname=app"
             f" user=app password={secret('app')} min_pool_size=")
    pooler = start_pgsluice(databases={"app": entry + "2"})
    wait_pool(pooler, sv_idle=2)
    pooler.databases["other"] = entry + "1"
    pooler.reload()
    wait_pool(pooler, database="other", sv_idle=1)


def test_the_reserve_is_for_those_who_have_waited(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1, reserve_pool_size=1,
                            reserve_pool_timeout="100ms")
    with holding(pooler) as first, pooler.connect() as second, \
            pooler.connect() as third:
        second.send(wire.query("BEGIN; SELECT 1"))
        assert second.until_ready()[-1].status == "T"
        third.send(wire.query("SELECT 1"))
        wait_in_line(pooler, 1)
        first.rows("COMMIT")
        assert third.shapes(third.until_ready()) == "TDCZ"


def test_the_reserve_is_never_opened_where_its_timeout_is_0(start_pgsluice):
    pooler = start_pgsluice(
        default_pool_size=1, reserve_pool_size=1, reserve_pool_timeout=0,
        query_wait_timeout="300ms")
    with holding(pooler), pooler.connect() as second:
        told(second.query("SELECT 1"), "ERROR", "53300")


# Limits over several pools

def other_pool(limit):
    """Of two pools under this limit, who the second's clients are."""
    return {"max_db_connections": ("trust_user", "app"),
            "max_user_connections": ("app", "other")}[limit]


SHARED = ["max_db_connections", "max_user_connections"]


@pytest.mark.parametrize("limit", SHARED)
def test_an_idle_server_makes_room_for_another_pool(start_pgsluice, limit):
    pooler = start_pgsluice(**{limit: 1})
    with pooler.connect() as first:
        for _ in range(3):
            assert first.value("SELECT 7") == "7"
            with pooler.connect(*other_pool(limit)) as second:
                assert second.value("SELECT 7") == "7"


@pytest.mark.parametrize("limit", SHARED)
def test_a_server_that_becomes_idle_makes_room_for_another_pool(
        start_pgsluice, limit):
    pooler = start_pgsluice(**{limit: 1})
    with pooler.connect(*other_pool(limit)) as second:
        second.value("SELECT 1")
        with holding(pooler) as first:
            second.send(wire.query("SELECT 7"))
            wait_in_line(pooler, 1, *other_pool(limit))
            first.rows("COMMIT")
            assert second.shapes(second.until_ready()) == "TDCZ"


@pytest.mark.parametrize("limit", SHARED)
def test_a_login_to_a_pool_without_servers_gets_room(start_pgsluice, limit):
    pooler = start_pgsluice(**{limit: 1})
    with pooler.connect() as first:
        assert first.value("SELECT 7") == "7"
        pooler.connect(*other_pool(limit)).close()


def test_a_user_may_have_a_connection_limit_of_its_own(start_pgsluice):
    pooler = start_pgsluice(users={"app": "max_user_connections=1"})
    with holding(pooler) as first, pooler.connect() as second:
        second.send(wire.query("SELECT 7"))
        wait_in_line(pooler, 1)
        with holding(pooler, "trust_user"), holding(pooler, "trust_user"):
            pass
        first.rows("COMMIT")
        assert second.shapes(second.until_ready()) == "TDCZ"


# Servers come and go

def test_a_server_over_its_lifetime_is_replaced(start_pgsluice):
    pooler = start_pgsluice(server_lifetime="200ms")
    with pooler.connect() as client:
        pid = backend(client)
        wait_until(lambda: backend(client) != pid, "another server")


def test_a_server_over_its_lifetime_is_closed_while_idle(start_pgsluice):
    pooler = start_pgsluice(server_lifetime="200ms")
    with pooler.connect() as client:
        client.value("SELECT 1")
        wait_pool(pooler, sv_idle=0)


def test_a_server_with_a_lifetime_of_0_is_used_once(start_pgsluice):
    pooler = start_pgsluice(server_lifetime=0, default_pool_size=1)
    with pooler.connect() as client:
        assert len({backend(client) for _ in range(4)}) == 4


def test_a_transaction_is_not_cut_by_the_servers_lifetime(start_pgsluice):
    pooler = start_pgsluice(server_lifetime="100ms")
    with holding(pooler) as busy, pooler.connect() as client:
        pid = backend(busy)
        other = backend(client)
        wait_until(lambda: backend(client) != other, "another server")
        assert backend(busy) == pid


def test_a_server_idle_too_long_is_closed(start_pgsluice):
    pooler = start_pgsluice(server_idle_timeout="200ms")
    with pooler.connect() as client:
        client.value("SELECT 1")
        wait_pool(pooler, sv_idle=0)
        assert client.value("SELECT 7") == "7"


LIMITS = {
    # what it ends, and the SQLSTATE in whose name
    "idle_transaction_timeout": ("in a transaction", "25P03"),
    "transaction_timeout": ("in a transaction", "25P04"),
    "client_idle_timeout": ("idle", "57P05"),
    "query_timeout": ("at work", "57014"),
    "query_wait_timeout": ("in line", "53300"),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_changed_is_for_those_who_wait_already(
        start_pgsluice, limit):
    """Long ago they had been told to look again in an hour."""
    state, sqlstate = LIMITS[limit]
    pooler = start_pgsluice(default_pool_size=1, **{limit: "1h"})
    with pooler.connect() as client, pooler.connect() as other:
        if state == "in line":
            other.query("BEGIN")
            other.query("SELECT 1")
            client.send(wire.query("SELECT 1"))
            wait_pool(pooler, cl_waiting=1)
        elif state == "at work":
            client.send(wire.query("SELECT pg_sleep(100)"))
            wait_pool(pooler, sv_active=1)
        else:
            client.query("BEGIN")
            client.query("SELECT 1")
            if state == "idle":
                client.query("COMMIT")
        pooler.console(f"SET {limit} = '100ms'")
        assert client.until("E")[-1].sqlstate == sqlstate


def test_a_change_of_server_idle_timeout_is_for_idle_ones_too(start_pgsluice):
    pooler = start_pgsluice(server_idle_timeout="1h")
    with pooler.connect() as client:
        client.query("SELECT 1")
        wait_pool(pooler, sv_idle=1)
        pooler.console("SET server_idle_timeout = '100ms'")
        wait_pool(pooler, sv_idle=0)


def test_a_server_idle_for_server_check_delay_is_checked_before_use(
        start_pgsluice):
    checked = start_pgsluice(server_check_delay="1ms", default_pool_size=1)
    with checked.connect() as client:
        pid = backend(client)
        wait_until(lambda: checked.pool()["sv_used"] == 1, "idle")
        assert backend(client) == pid


def test_a_server_that_fails_its_check_is_replaced(start_pgsluice):
    pooler = start_pgsluice(server_check_delay="1ms", default_pool_size=1,
                            server_check_query="SELECT 1/0")
    with pooler.connect() as client:
        pid = backend(client)
        wait_until(lambda: pooler.pool()["sv_used"] == 1, "idle")
        assert backend(client) != pid


def test_connect_query_runs_on_each_new_server(start_pgsluice, postgres):
    pooler = start_pgsluice(databases=before(
        postgres, connect_query="'SET work_mem TO ''888kB'''"))
    with holding(pooler) as first, holding(pooler) as second:
        assert settings_of(first, "work_mem") == ["888kB"]
        assert settings_of(second, "work_mem") == ["888kB"]


def test_a_connect_query_that_fails_is_only_logged(start_pgsluice, postgres):
    pooler = start_pgsluice(databases=before(
        postgres, connect_query="'SELECT 1/0'"))
    with pooler.connect() as client:
        assert client.value("SELECT 7") == "7"
    pooler.wait_log("division by zero")


@pytest.mark.parametrize("round_robin, count", [(False, 1), (True, 2)])
def test_server_round_robin_takes_the_one_that_rested_longest(
        start_pgsluice, round_robin, count):
    pooler = start_pgsluice(workers=1, server_round_robin=round_robin)
    with holding(pooler), holding(pooler):
        pass
    wait_pool(pooler, sv_idle=2)
    with pooler.connect() as client:
        assert len({backend(client) for _ in range(4)}) == count


@pytest.mark.parametrize("balance", ["round-robin", "disable"])
def test_of_several_hosts_one_that_answers_is_found(
        start_pgsluice, postgres, balance):
    """Nothing listens on the first."""
    pooler = start_pgsluice(databases={
        "app": f"host=127.9.9.9,127.0.0.1 port={postgres.port}"
               f" load_balance_hosts={balance}"})
    with pooler.connect() as client:
        assert client.value("SELECT 7") == "7"


# Clients that leave

def test_one_that_hangs_up_leaves_the_line_at_once(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    with holding(pooler) as holder, pooler.connect() as client, \
            pooler.connect() as last:
        client.send(*[wire.query("SELECT 1")] * 10)
        wait_in_line(pooler, 1)
        last.send(wire.query("SELECT 7"))
        wait_in_line(pooler, 2)
        client.close()
        wait_in_line(pooler, 1)
        holder.rows("COMMIT")
        assert last.shapes(last.until_ready()) == "TDCZ"


@pytest.mark.parametrize("how", ["simple", "extended", "by Terminate"])
def test_one_that_leaves_in_mid_query_has_it_cancelled(
        start_pgsluice, postgres, how):
    pooler = start_pgsluice(default_pool_size=1)
    with pooler.connect() as client, Slow(postgres) as slow:
        client.send(batch(slow.sql) + wire.sync() if how == "extended"
                    else wire.query(slow.sql))
        slow.wait_running()
        if how == "by Terminate":
            client.send(wire.terminate())
        client.close()
        slow.wait_over()
        with pooler.connect() as other:
            assert other.value("SELECT 7") == "7"


def test_one_that_leaves_a_transaction_has_it_rolled_back(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    with holding(pooler) as client:
        pid = backend(client)
        client.rows("SELECT pg_advisory_xact_lock(4712)")
    with pooler.connect() as other:
        assert backend(other) == pid
        assert other.value("SELECT count(*) FROM pg_locks"
                           " WHERE locktype = 'advisory'"
                           " AND pid = pg_backend_pid()") == "0"


def test_one_that_leaves_in_a_copy_leaves_nothing_behind(
        start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1)
    postgres.rows("CREATE TABLE copied (n int);"
                  " GRANT ALL ON copied TO app", "app")
    try:
        with pooler.connect() as client:
            client.send(wire.query("COPY copied FROM STDIN"))
            assert client.until("G")
            client.send(wire.copy_data(b"1\n" * 1000))
        with pooler.connect() as other:
            assert other.value("SELECT count(*) FROM copied") == "0"
    finally:
        postgres.rows("DROP TABLE copied", "app")


def test_one_that_leaves_in_mid_message_costs_nobody_else_anything(
        start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    for size in (1, 4, 5, 100, 100_000):
        with pooler.connect() as client:
            client.send(wire.query("SELECT '" + "x" * 200_000 + "'")[:size])
        with pooler.connect() as other:
            assert other.value("SELECT 7") == "7"
    free_again(pooler)


# Databases and users

def test_the_star_entry_serves_databases_that_are_not_listed(
        start_pgsluice, postgres):
    pooler = start_pgsluice(databases={
        "*": f"host=127.0.0.1 port={postgres.port}",
        "alias": f"host=127.0.0.1 port={postgres.port} dbname=other"})
    for database, there in (("app", "app"), ("other", "other"),
                            ("alias", "other")):
        with pooler.connect(database=database) as client:
            assert client.value("SELECT current_database()") == there
    assert refused(pooler, "3D000", database="not_there")["M"] \
        == 'database "not_there" does not exist'


def test_a_forced_user_has_one_pool_for_all(start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1, databases=before(
        postgres, user="scram_user", password=secret("scram_user")))
    with pooler.connect() as first, pooler.connect("md5_user") as second:
        for client in (first, second):
            assert client.value("SELECT session_user") == "scram_user"
        assert backend(first) == backend(second)
        assert pooler.pool(user="scram_user")["cl_active"] == 2
    refused(pooler, "28P01", password=secret("scram_user"))


def test_an_idle_server_is_had_where_a_new_one_is_not(start, start_pgsluice):
    cluster = start(Postgres)
    pooler = start_pgsluice(cluster, workers=2)
    with pooler.connect() as first:
        assert first.value("SELECT 1") == "1"
    cluster.rows("ALTER ROLE app NOLOGIN")
    clients = [pooler.connect() for _ in range(4)]
    assert {row["worker"] for row in pooler.console("SHOW CLIENTS")
            if row["database"] == "app"} == {"0", "1"}
    for client in clients:
        client.sock.settimeout(20)
        assert client.value("SELECT 2") == "2"
        client.close()


def test_a_client_of_a_forced_user_is_still_itself(start_pgsluice, postgres):
    pooler = start_pgsluice(databases=before(
        postgres, user="scram_user", password=secret("scram_user")),
        users={"app": "max_user_client_connections=1",
               "scram_user": "max_user_client_connections=5"})

    def counted(user):
        return {row["name"]: int(row["current_client_connections"])
                for row in pooler.console("SHOW USERS")}.get(user)

    with pooler.connect(), pooler.connect("md5_user"):
        assert sorted(row["user"] for row in pooler.console("SHOW CLIENTS")
                      if row["database"] == "app") == ["app", "md5_user"]
        assert (counted("app"), counted("md5_user"),
                counted("scram_user")) == (1, 1, 0)
        assert "max_user_client_connections" in refused(pooler, "53300")["M"]
        pooler.configure(max_user_client_connections=1)
        refused(pooler, "53300", user="md5_user")
    wait_until(lambda: counted("app") == 0, "app has gone")
    assert re.search(r"C-\S+: app/md5_user@\S+ login attempt: db=app "
                     r"user=md5_user", pooler.log())


# Startup parameters

def test_startup_parameters_are_each_clients_own(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1)
    with pooler.connect(application_name="one", search_path="pg_catalog",
                        options="-c work_mem=111kB"
                                " --statement-timeout=1234") as one, \
            pooler.connect(application_name="two", TimeZone="Asia/Tokyo",
                           options=r"-c DateStyle=German,\ DMY") as two, \
            pooler.connect() as three:
        for _ in range(3):
            pids = set()
            for client, wanted in (
                    (one, ["one", "pg_catalog", "111kB", "1234ms",
                           "ISO, MDY"]),
                    (two, ["two", '"$user", public', "4MB", "0",
                           "German, DMY"]),
                    (three, ["", '"$user", public', "4MB", "0",
                             "ISO, MDY"])):
                assert settings_of(
                    client, "application_name", "search_path", "work_mem",
                    "statement_timeout", "DateStyle") == wanted
                pids.add(backend(client))
            assert len(pids) == 1
        assert one.parameters["application_name"] == "one"
        assert two.parameters["TimeZone"] == "Asia/Tokyo"
        assert two.parameters["DateStyle"] == "German, DMY"


@pytest.mark.parametrize("parameters, sqlstate, words", [
    ({"DateStyle": "no such style"}, "22023", "DateStyle"),
    ({"options": "-c work_mem=lots"}, "22023", "work_mem"),
    ({"no_such_parameter": "1"}, "42704", "no_such_parameter"),
    ({"client_encoding": "KLINGON"}, "22023", "client_encoding"),
])
def test_a_startup_parameter_that_postgres_refuses_is_refused_with_its_words(
        pgsluice, postgres, parameters, sqlstate, words):
    with pytest.raises(wire.ServerError) as error:
        postgres.connect(**parameters).close()
    with pgsluice.connect() as other:
        assert other.value("SELECT 1") == "1"
        with wire.Wire.connect(pgsluice.port) as client:
            try:
                client.login("app", secret("app"), "app", **parameters)
                client.send(wire.query("SELECT 1"))
                answer = client.until_closed()
            except wire.ServerError as at_login:
                fields = at_login.fields
            else:
                fields = told(answer, "FATAL", sqlstate)
        assert words in fields["M"]
        assert (fields["C"], fields["M"]) == (
            error.value.sqlstate, error.value.text)
        assert other.value("SELECT 7") == "7"


def test_ignored_startup_parameters_are_dropped(start_pgsluice):
    pooler = start_pgsluice(ignore_startup_parameters="nonsense,work_mem")
    with pooler.connect(nonsense="1", work_mem="111kB") as client:
        assert settings_of(client, "work_mem") == ["4MB"]


def test_application_name_add_host_says_where_a_client_is(start_pgsluice):
    pooler = start_pgsluice(application_name_add_host=True)
    with pooler.connect(application_name="shop") as client:
        host, port = client.sock.getsockname()
        assert settings_of(client, "application_name") == [
            f"shop - {host}:{port}"]
    with pooler.connect() as client:
        host, port = client.sock.getsockname()
        assert settings_of(client, "application_name") == [
            f"app - {host}:{port}"]


# Prepared statements

@pytest.mark.parametrize("limit", [1, 2])
def test_no_more_prepared_statements_are_kept_than_the_limit(
        start_pgsluice, limit):
    pooler = start_pgsluice(max_prepared_statements=limit,
                            default_pool_size=1)
    with pooler.connect() as one, pooler.connect() as two:
        for client, word in ((one, "one"), (two, "two")):
            for n in range(5):
                client.send(wire.parse(f"s{n}", f"SELECT '{word}', {n}"))
            client.send(wire.sync())
            assert client.shapes(client.until_ready()) == "11111Z"
        for n in (0, 1, 2, 3, 4, 3, 1, 4, 0, 0, 2):
            for client, word in ((one, "one"), (two, "two")):
                client.send(wire.bind(statement=f"s{n}"), wire.execute(),
                            wire.sync())
                answer = client.until_ready()
                assert client.shapes(answer) == "2DCZ"
                assert answer[1].values == [word, str(n)]
        assert int(one.value("SELECT count(*) FROM pg_prepared_statements"
                             )) <= limit


# Protocol 3.2

@pytest.mark.parametrize("minor, long", [(0, False), (2, True)])
def test_protocol_3_2_brings_a_long_cancel_key(pgsluice, minor, long):
    with pgsluice.connect(protocol=3 << 16 | minor) as client:
        assert len(client.key) == (32 if long else 4)


@pytest.mark.parametrize("protocol, extra, answer", [
    (3 << 16 | 9, {}, b"\0\x03\0\x02\0\0\0\0"),
    (3 << 16 | 2, {"_pq_.new": "1"}, b"\0\x03\0\x02\0\0\0\1_pq_.new\0"),
    (3 << 16, {"_pq_.new": "1"}, b"\0\x03\0\0\0\0\0\1_pq_.new\0"),
])
def test_what_is_newer_is_negotiated_down(pgsluice, protocol, extra, answer):
    with wire.Wire.connect(pgsluice.port) as client:
        client.send(wire.startup(protocol, user="app", database="app",
                                 **extra))
        negotiate = client.next()
        assert (negotiate.kind, negotiate.body) == ("v", answer)
        assert client.next().kind == "R"
    with pgsluice.connect(protocol=protocol, **extra) as client:
        assert client.value("SELECT 7") == "7"


# Large and many

LARGE = 64 << 20
ALLOWANCE = 16 << 20


@pytest.fixture(name="fresh_memory")
def fixture_fresh_memory(start_pgsluice):
    """A pooler that has worked a little; afterwards it must not have used
    much more memory."""
    pooler = start_pgsluice(default_pool_size=2)
    with pooler.connect() as client:
        client.value("SELECT repeat('x', 100000)")
    peak = peak_memory(pooler.process)
    yield pooler
    assert peak_memory(pooler.process) < peak + ALLOWANCE


def test_a_large_reply_streams_through(fresh_memory):
    with fresh_memory.connect() as client:
        assert len(client.value(f"SELECT repeat('x', {LARGE})")) == LARGE
        assert client.value("SELECT 7") == "7"


def test_a_large_reply_to_one_that_does_not_read_waits(fresh_memory):
    with fresh_memory.connect() as client, fresh_memory.connect() as other:
        client.send(wire.query(f"SELECT repeat('x', {LARGE})"))
        assert client.next().kind == "T"
        for _ in range(100):
            assert other.value("SELECT 7") == "7"
        assert client.shapes(client.until_ready()) == "DCZ"


def test_a_large_parameter_streams_through(fresh_memory):
    with fresh_memory.connect() as client:
        client.send(batch("SELECT length($1)", b"x" * LARGE), wire.sync())
        answer = client.until_ready()
        assert answer[3].values == [str(LARGE)]
        assert client.value("SELECT 7") == "7"


def test_a_large_simple_query_streams_through(fresh_memory):
    with fresh_memory.connect() as client:
        assert client.value("SELECT length('" + "x" * LARGE + "')") \
            == str(LARGE)


def send_meanwhile(client, *messages):
    """Sends in a thread, so that nobody waits for one who does not read."""
    thread = threading.Thread(target=client.send, args=messages, daemon=True)
    thread.start()
    return thread


def test_10000_queries_in_one_go_are_answered_in_order(fresh_memory):
    with fresh_memory.connect() as client:
        sender = send_meanwhile(
            client, *(wire.query(f"SELECT {n}") for n in range(10_000)))
        for n in range(10_000):
            answer = client.until_ready()
            assert client.shapes(answer) == "TDCZ"
            assert answer[1].values == [str(n)]
        sender.join()


def test_10000_messages_before_one_sync_are_answered_in_order(fresh_memory):
    with fresh_memory.connect() as client:
        sender = send_meanwhile(
            client, wire.parse("s", "SELECT $1::int"),
            *(wire.bind("", "s", [n]) + wire.execute()
              for n in range(10_000)), wire.sync())
        answer = client.until_ready()
        assert client.shapes(answer) == "1" + "2DC" * 10_000 + "Z"
        assert [got.values for got in answer if got.kind == "D"] \
            == [[str(n)] for n in range(10_000)]
        sender.join()


def test_an_error_among_10000_messages_skips_the_rest(fresh_memory):
    with fresh_memory.connect() as client:
        sender = send_meanwhile(
            client, *(batch("SELECT 1 / $1::int", n)
                      for n in [1] * 5000 + [0] + [1] * 5000),
            wire.sync(), wire.query("SELECT 7"))
        answer = client.until_ready()
        assert client.shapes(answer) == "12TDC" * 5000 + "1EZ"
        assert client.shapes(client.until_ready()) == "TDCZ"
        sender.join()


# Listening

def test_the_unix_socket_has_its_mode_and_lets_clients_in(start_pgsluice):
    pooler = start_pgsluice(unix_socket_mode="0770")
    path = pooler.path(f".s.PGSQL.{pooler.port}")
    # it is given once the socket is there
    wait_until(lambda: os.path.exists(path)
               and stat.S_IMODE(os.stat(path).st_mode) == 0o770, "its mode")
    with wire.Wire.connect(pooler.port, pooler.folder) as client:
        client.login("app", secret("app"), "app")
        assert client.value("SELECT 7") == "7"


def test_postgres_is_reached_over_its_unix_socket_too(
        start_pgsluice, postgres):
    pooler = start_pgsluice(databases={
        name: f"host={postgres.folder} port={postgres.port}"
        for name in DATABASES})
    with pooler.connect() as client:
        assert client.value("SELECT inet_client_addr()") is None


def test_every_address_of_listen_addr_is_listened_on(start_pgsluice):
    pooler = start_pgsluice(listen_addr="127.0.0.1, 127.0.0.2,::1")
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        with wire.Wire.connect(pooler.port, host) as client:
            client.login("app", secret("app"), "app")
            assert client.value("SELECT 7") == "7"


def test_a_burst_of_logins_is_served_in_full(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=2)
    clients = [wire.Wire.connect(pooler.port) for _ in range(200)]
    threads = [threading.Thread(
        target=client.login, args=("app", secret("app"), "app"))
        for client in clients]
    for thread in threads:
        thread.start()
    for thread, client in zip(threads, clients):
        thread.join()
        assert client.value("SELECT 7") == "7"
        client.close()


def test_a_server_login_that_hangs_holds_up_nobody_else(
        start_pgsluice, postgres):
    with Door(postgres) as door:
        databases = before(postgres)
        databases["other"] = before(door)["other"]
        pooler = start_pgsluice(databases=databases)
        door.ignores()
        with wire.Wire.connect(pooler.port) as stuck:
            stuck.send(wire.startup(user="trust_user", database="other"))
            with pooler.connect() as client:
                assert client.value("SELECT 7") == "7"
