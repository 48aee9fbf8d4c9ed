"""The console as drivers and monitoring agents speak to it."""

import asyncio
import os
import subprocess

import asyncpg
import psycopg
import psycopg2
import pytest

import wire
from console_tools import Background, refused, row
from pgsluice import wait_until

POSTGRES_JAR = "/usr/share/java/postgresql.jar"
JDBC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "drivers",
                    "PgJdbcConsole.java")


@pytest.fixture(name="admin")
def fixture_admin(pgsluice):
    with pgsluice.connect("admin", "pgsluice") as session:
        yield session


def batch(session, *messages):
    """The answer up to ReadyForQuery."""
    session.send(*messages, wire.sync())
    return session.until_ready()


def one_batch(sql, **bind):
    return (wire.parse("", sql), wire.bind(**bind), wire.describe(),
            wire.execute())


# The extended protocol, message by message

@pytest.mark.core
@pytest.mark.parametrize("sql, shape", [
    ("SHOW VERSION", "12TDCZ"), ("SHOW PEERS", "12TCZ"),
    ("SHOW client_encoding", "12TDCZ"), ("SHOW HELP", "12nNCZ"),
    ("RECONNECT", "12nCZ"), ("SET verbose = 0", "12nCZ"),
    ("SET application_name = 'x'", "12nCZ"), ("", "12nIZ"),
    ("SHOW FDS", "12nEZ"), ("SELECT 1", "12nEZ"),
])
def test_a_batch_is_answered_as_the_protocol_has_it(admin, sql, shape):
    assert admin.shapes(batch(admin, *one_batch(sql))) == shape
    assert admin.shapes(admin.query("SHOW VERSION")) == "TDCZ"


@pytest.mark.core
def test_a_batch_shows_what_a_simple_query_does(admin):
    for name in ("CONFIG", "DATABASES", "USERS", "LISTS"):
        simple = admin.query(f"SHOW {name}")
        extended = batch(admin, *one_batch(f"SHOW {name}"))
        assert extended[2:] == simple


@pytest.mark.core
def test_numbers_are_binary_where_that_is_asked_for(pgsluice, admin):
    with pgsluice.connect() as client:
        client.rows("SELECT 1")
    admin.query("SHOW CLIENTS")         # all workers have counted by then
    text = [got for got in admin.query("SHOW STATS") if got.kind == "D"]
    for formats in ([1], [0] + [1] * 28):
        answer = batch(admin, *one_batch("SHOW STATS", results=formats))
        found, = [got for got in answer if got.kind == "D"]
        values, at = [], 2
        for _ in text[0].values:
            length = int.from_bytes(found.body[at:at + 4], "big")
            values.append(found.body[at + 4:at + 4 + length])
            at += 4 + length
        assert values[0] == b"app"
        totals = [int(value) for value in text[0].values[1:13]]
        assert [len(value) for value in values[1:]] == [8] * 28
        assert [int.from_bytes(value, "big")
                for value in values[1:13]] == totals
        described = [got for got in answer if got.kind == "T"][0]
        assert described.body[-2:] == b"\0\1"


@pytest.mark.core
def test_a_statement_can_be_prepared_described_used_and_closed(admin):
    answer = batch(admin, wire.parse("s", "SHOW STATE"),
                   wire.describe("S", "s"))
    assert admin.shapes(answer) == "1tTZ"
    assert answer[2].columns == ["key", "value"]
    for _ in range(3):
        answer = batch(admin, wire.bind("", "s"), wire.execute())
        assert admin.shapes(answer) == "2DDDCZ"
    answer = batch(admin, wire.close("S", "s"), wire.bind("", "s"))
    assert admin.shapes(answer) == "3EZ"
    assert answer[1].sqlstate == "26000"


@pytest.mark.core
@pytest.mark.parametrize("messages, shape, sqlstate", [
    ((wire.parse("", "BEGIN"),), "EZ", "42601"),
    ((wire.parse("", "SHOW"),), "EZ", "42601"),
    ((wire.bind("", "none"),), "EZ", "26000"),
    ((wire.describe("S", "none"),), "EZ", "26000"),
    ((wire.describe("P", ""),), "EZ", "34000"),
    ((wire.execute(),), "EZ", "34000"),
    ((wire.parse("a", ""), wire.parse("a", "")), "1EZ", "42P05"),
    ((wire.parse("", "SHOW $1"), wire.bind(values=["x"])), "1EZ", "0A000"),
    ((wire.parse("", ""), wire.bind("portal")), "1EZ", "0A000"),
    ((wire.parse("", ""), wire.bind(), wire.sync(), wire.execute()),
     "12ZEZ", "34000"),
])
def test_an_error_skips_the_rest_of_its_batch(admin, messages, shape,
                                              sqlstate):
    admin.send(*messages, *one_batch("SHOW VERSION"), wire.sync())
    answer = []
    for _ in range(shape.count("Z")):
        answer += admin.until_ready()
    assert admin.shapes(answer) == shape
    assert [got.sqlstate for got in answer if got.kind == "E"] == [sqlstate]
    assert admin.shapes(batch(admin, *one_batch("SHOW VERSION"))) == "12TDCZ"


@pytest.mark.core
def test_batches_in_one_write_are_answered_in_order(admin):
    names = ["CLIENTS", "VERSION", "POOLS", "STATE"]
    columns = {name: admin.query(f"SHOW {name}")[0] for name in names}
    admin.send(*(part for name in names * 20
                 for part in (*one_batch(f"SHOW {name}"), wire.sync())))
    for name in names * 20:
        assert admin.until_ready()[2] == columns[name]


@pytest.mark.core
def test_a_command_that_takes_its_time_may_be_executed_too(pgsluice, admin):
    with pgsluice.connect() as client, \
            pgsluice.connect("admin", "pgsluice") as pauser:
        client.rows("BEGIN")
        pause = Background(batch, pauser, *one_batch("PAUSE app"))
        wait_until(lambda: row(admin, "DATABASES", name="app")["paused"]
                   == "1", "paused")
        assert not pause.is_done()
        client.rows("COMMIT")
        assert pauser.shapes(pause.result()) == "12nCZ"
        admin.rows("RESUME app")


@pytest.mark.core
def test_statements_do_not_pile_up_without_a_bound(admin):
    for number in range(200):
        admin.send(wire.parse(f"s{number}", "SHOW VERSION"))
    answer = batch(admin, wire.parse("more", "SHOW VERSION"))
    assert admin.shapes(answer) == "1" * 200 + "EZ"
    assert answer[-2].sqlstate == "53400"


@pytest.mark.core
def test_a_stats_user_changes_nothing_by_a_batch_either(pgsluice):
    with pgsluice.connect("stats", "pgsluice") as session:
        answer = batch(session, *one_batch("PAUSE"))
        assert session.shapes(answer) == "12nEZ"
        assert answer[3].sqlstate == "42501"


# What drivers send of their own accord

@pytest.mark.core
@pytest.mark.parametrize("sql", [
    "SET client_encoding TO 'UTF8'", "SET client_encoding = 'utf-8';",
    "set client_encoding to UNICODE", "SET DateStyle = 'ISO'",
    "SET datestyle TO 'ISO, MDY'", "SET TimeZone = 'UTC'",
    "SET standard_conforming_strings = on", "SET extra_float_digits = 3",
    "SET application_name = 'PostgreSQL JDBC Driver'",
    "SET statement_timeout = 0",
])
def test_what_makes_no_difference_may_be_set(pgsluice, sql):
    with pgsluice.connect("stats", "pgsluice") as session:
        assert session.query(sql)[0].tag == "SET"


@pytest.mark.core
@pytest.mark.parametrize("sql", [
    "SET client_encoding = 'LATIN1'", "SET datestyle = 'German'",
    "SET timezone = 'Asia/Tokyo'", "SET standard_conforming_strings = off",
])
def test_what_would_make_one_is_refused(pgsluice, sql):
    with pgsluice.connect("stats", "pgsluice") as session:
        assert refused(session, sql) == "22023"


@pytest.mark.core
@pytest.mark.parametrize("sql, hint", [
    ("BEGIN", "autocommit"), ("START TRANSACTION READ ONLY", "autocommit"),
    ("commit", "autocommit"), ("DISCARD ALL", "state"),
    ("SELECT 1", "SHOW DATABASES"),
    ("SELECT datname FROM pg_database", "SHOW DATABASES"),
    ("INSERT INTO t VALUES (1)", None),
])
def test_sql_is_refused_in_plain_words(admin, sql, hint):
    with pytest.raises(wire.ServerError) as error:
        admin.rows(sql)
    assert error.value.sqlstate == "42601"
    assert "no SQL" in error.value.fields["D"]
    if hint:
        assert hint in error.value.fields["H"]
    else:
        assert "H" not in error.value.fields


# Drivers

@pytest.fixture(name="used")
def fixture_used(pgsluice):
    """A pgsluice with one query to show."""
    with pgsluice.connect() as client:
        client.rows("SELECT 1")
    return pgsluice


def psql(pgsluice, *arguments):
    return subprocess.run(
        ["psql", "-XAt", *arguments, pgsluice.url("pgsluice", "stats")],
        capture_output=True, text=True, check=False, timeout=60)


def test_psql_runs_commands_from_its_command_line(used):
    result = psql(used, "-c", "SHOW STATS;", "-c", "SHOW STATE")
    assert result.returncode == 0
    assert result.stdout.startswith("app|1|1|1|")
    assert "active|yes" in result.stdout


def test_psql_asking_for_databases_is_told_how_to(used):
    for arguments in (["-l"], ["-c", "\\d"]):
        result = psql(used, *arguments)
        assert result.returncode != 0
        assert "SHOW DATABASES" in result.stderr


def test_psycopg2_in_autocommit(used):
    link = psycopg2.connect(used.url("pgsluice", "stats"))
    link.autocommit = True
    link.set_client_encoding("UTF8")
    with link.cursor() as cursor:
        cursor.execute("SHOW STATS;")
        assert cursor.fetchone()[:4] == ("app", 1, 1, 1)
    link.close()


def test_psycopg2_in_a_transaction_is_told_of_autocommit(used):
    link = psycopg2.connect(used.url("pgsluice", "stats"))
    with link.cursor() as cursor:
        with pytest.raises(psycopg2.errors.SyntaxError, match="autocommit"):
            cursor.execute("SHOW STATS;")
    link.close()


def test_psycopg3_in_both_protocols(used):
    with psycopg.connect(used.url("pgsluice", "stats"),
                         autocommit=True) as link:
        for options in ({}, {"prepare": True}, {"binary": True},
                        {"prepare": True, "binary": True}):
            found = link.execute("SHOW STATS", **options).fetchone()
            assert found[:4] == ("app", 1, 1, 1)
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            link.execute("SHOW %s", ["POOLS"])
        assert link.execute("SHOW VERSION").fetchone()


def test_asyncpg_reads_rows_as_records(used):
    async def ask():
        link = await asyncpg.connect(used.url("pgsluice", "stats"))
        for _ in range(3):
            found, = await link.fetch("SHOW STATS")
            assert found["database"] == "app"
            assert found["total_query_count"] == 1
        assert await link.execute("SHOW VERSION") == "SHOW"
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await link.fetch("SELECT 1")
        assert len(await link.fetch("SHOW STATE")) == 3
        await link.close()

    asyncio.run(ask())


def test_pgjdbc_with_nothing_special_in_its_url(used):
    result = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
         "-cp", POSTGRES_JAR, JDBC,
         f"jdbc:postgresql://127.0.0.1:{used.port}/pgsluice"
         "?user=stats&password=stats-secret"],
        capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["app", "1"] * 10 + ["valid"]


# Where they come from

@pytest.mark.core
def test_a_client_on_the_unix_socket_has_a_process_id(pgsluice, admin):
    with wire.Wire.connect(pgsluice.port, pgsluice.folder) as client:
        client.login("app", "app-secret", "app")
        found = row(admin, "CLIENTS", database="app")
        assert found["remote_pid"] == str(os.getpid())
        assert (found["addr"], found["port"]) == ("unix", str(pgsluice.port))
        assert (found["local_addr"], found["local_port"]) == (
            "unix", str(pgsluice.port))
    # over TCP nobody knows
    assert row(admin, "CLIENTS", database="pgsluice")["remote_pid"] == "0"
