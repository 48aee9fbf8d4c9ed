"""Does it work at all: the clients everybody has, and the fixtures."""

import os
import subprocess

import psycopg2
import pytest

import pgsluice as servers
import wire

pytestmark = pytest.mark.core


def psql(url, *commands):
    arguments = [part for sql in commands for part in ("-c", sql)]
    result = subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", url, *arguments],
        capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_psql_selects(pgsluice_any):
    assert psql(pgsluice_any.url(), "SELECT 6 * 7", "SELECT current_user") \
        == ["42", "app"]


def test_psql_selects_over_the_unix_socket(pgsluice):
    assert psql(pgsluice.unix_url(), "SELECT 6 * 7") == ["42"]


def test_psql_asks_the_console(pgsluice):
    url = pgsluice.url("pgsluice", "admin")
    assert any("pgsluice" in line for line in psql(url, "SHOW VERSION"))


def test_psycopg2_writes_and_reads(pgsluice_any):
    link = psycopg2.connect(pgsluice_any.url())
    try:
        with link, link.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE t (n int) ON COMMIT DROP")
            cursor.execute("INSERT INTO t SELECT generate_series(1, 100)")
            cursor.execute("SELECT sum(n) FROM t WHERE n > %s", (50,))
            assert cursor.fetchone() == (3775,)
    finally:
        link.close()


def test_more_clients_than_servers_share_them(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=2)
    clients = [pooler.connect() for _ in range(20)]
    try:
        pids = {client.value("SELECT pg_backend_pid()")
                for client in clients for _ in range(3)}
        assert 1 <= len(pids) <= 2
    finally:
        for client in clients:
            client.close()


def test_the_database_that_was_asked_for_answers(pgsluice):
    for database in servers.DATABASES:
        with pgsluice.connect("app", database) as client:
            assert client.value("SELECT current_database()") == database


@pytest.mark.parametrize("user", ["scram_user", "md5_user", "password_user"])
def test_whatever_login_postgres_wants_a_client_gets_in(pgsluice, user):
    with pgsluice.connect(user) as client:
        assert client.value("SELECT session_user") == user


def test_a_wrong_password_is_refused(pgsluice):
    with wire.Wire.connect(pgsluice.port) as client:
        with pytest.raises(wire.ServerError) as refused:
            client.login("app", "not it", "app")
        assert refused.value.sqlstate == "28P01"


def test_an_error_leaves_the_connection_usable(pgsluice):
    with pgsluice.connect() as client:
        with pytest.raises(wire.ServerError) as error:
            client.rows("SELECT 1 / 0")
        assert error.value.sqlstate == "22012"
        assert client.value("SELECT 1") == "1"


def test_extended_protocol_answers_message_for_message(pgsluice_any):
    with pgsluice_any.connect() as client:
        client.send(wire.parse("", "SELECT $1::int + 1"),
                    wire.bind(values=["41"]), wire.describe(),
                    wire.execute(), wire.sync())
        answer = client.until_ready()
        assert client.shapes(answer) == "12TDCZ"
        assert answer[3].values == ["42"]


def test_a_reload_is_taken_while_clients_stay(pgsluice):
    with pgsluice.connect() as client:
        pgsluice.configure(default_pool_size=3)
        rows = pgsluice.console("SHOW CONFIG")
        assert {row["key"]: row["value"] for row in rows}[
            "default_pool_size"] == "3"
        assert client.value("SELECT 1") == "1"


def test_pgbouncer_can_be_compared_with(pgbouncer):
    assert psql(pgbouncer.url(), "SELECT 6 * 7") == ["42"]
    assert pgbouncer.pool()["sv_idle"] == 1


def test_the_settings_are_documented_as_they_are():
    said = subprocess.run([servers.Pgsluice.program, "--settings"],
                          capture_output=True, text=True, check=True).stdout
    path = os.path.join(servers.TOP, "doc", "settings.md")
    assert servers.read(path) == said, (
        "please: ./pgsluice --settings >doc/settings.md")


def test_the_version_is_the_same_everywhere(pgsluice):
    said = subprocess.run([servers.Pgsluice.program, "--version"],
                          capture_output=True, text=True, check=True).stdout
    assert pgsluice.console("SHOW VERSION") == [
        {"version": said.splitlines()[0]}]
