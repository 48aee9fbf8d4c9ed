"""The process: how it starts, what it reads, signals, the log."""

import json
import os
import re
import signal
import socket
import subprocess

import pytest

import wire
from contract_tools import holding, loses_its_connection, told
from pgsluice import Pgsluice, read, secret, wait_until, write

URL_PORT = 6432         # the one that --url listens on

pytestmark = pytest.mark.core


def run(*arguments):
    """The program with these arguments, until it ends."""
    return subprocess.run([Pgsluice.program, *arguments], text=True,
                          capture_output=True, timeout=30, check=False)


def value_of(pooler, name):
    return {row["key"]: row["value"]
            for row in pooler.console("SHOW CONFIG")}[name]


# The file

def test_include_reads_another_file_in_its_place(start, postgres, tmp_path):
    included = tmp_path / "more.ini"
    included.write_text("default_pool_size = 7\n"
                        "[databases]\n"
                        f"more = host=127.0.0.1 port={postgres.port}"
                        " dbname=other\n")

    class Including(Pgsluice):
        def write_files(self):
            super().write_files()
            with open(self.ini, "a", encoding="utf-8") as file:
                file.write(f"%include {included}\n")

    pooler = start(Including, postgres)
    assert value_of(pooler, "default_pool_size") == "7"
    with pooler.connect(database="more") as client:
        assert client.value("SELECT current_database()") == "other"


@pytest.mark.parametrize("line, words", [
    ("no_such_setting = 1", ["no_such_setting: there is no"]),
    ("default_pool_size = many", ["default_pool_size", "many"]),
    ("query_timeout = 5 parsecs", ["query_timeout"]),
    ("pool_mode = swimming", ["pool_mode", "swimming"]),
    ("default_pool_size", ["name = value"]),
    ("[no_such_section]", ["no_such_section"]),
    ("%include /no/such/file", ["/no/such/file"]),
    ("auth_ldap_options = x", ["auth_ldap_options", "not have yet"]),
    ("auth_type = pam", ["auth_type", "not have yet"]),
    ("resolv_conf = /etc/resolv.conf", ["resolv_conf", "not have yet"]),
    ("[peers]\n1 = host=127.0.0.1", ["not have yet"]),
    ("[databases]\napp = host=127.0.0.1 prot=5432", ["prot"]),
    ("[users]\napp = pool_seize=3", ["pool_seize"]),
])
def test_an_error_in_the_file_is_told_with_its_line(tmp_path, line, words):
    path = tmp_path / "wrong.ini"
    path.write_text("; a comment\n[pgsluice]\nlisten_port = 1\n" + line + "\n")
    result = run(str(path))
    assert result.returncode == 1
    number = 4 + (line.startswith("[") and "\n" in line
                  and "peers" not in line)
    assert f"{path}:{number}:" in result.stderr, result.stderr
    for word in words:
        assert word in result.stderr
    assert secret("app") not in result.stderr


@pytest.mark.parametrize("arguments, status", [
    ([], 2), (["a.ini", "b.ini"], 2), (["--no-such-option"], 2),
    (["/no/such/file.ini"], 1), (["--url", "mysql://x"], 1),
    (["--url", "postgres://127.0.0.1/app"], 1),
    (["--help"], 0), (["--version"], 0), (["--settings"], 0),
])
def test_the_command_line_is_checked(arguments, status):
    result = run(*arguments)
    assert result.returncode == status
    assert result.stderr.endswith("\n") == bool(status)
    assert result.stdout.endswith("\n") != bool(status)


# Without a file

@pytest.fixture(name="url_port")
def fixture_url_port():
    """It is always the same one: waits until nobody else uses it."""
    def is_free():
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", URL_PORT))
                return True
            except OSError:
                return False

    wait_until(is_free, f"port {URL_PORT} free")
    return URL_PORT


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_url_is_all_it_needs(start, postgres, url_port, how):
    class OfUrl(Pgsluice):
        def command(self):
            return ([self.program, "--url", postgres.url()]
                    if how == "argument" else [self.program])

    class InEnvironment(OfUrl):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.environment = {"PGSLUICE_URL": postgres.url()}

    pooler = start(OfUrl if how == "argument" else InEnvironment, postgres,
                   listen_port=url_port, logfile=None,
                   unix_socket_dir=None)
    with pooler.connect() as client:
        assert client.value("SELECT current_user || current_database()") \
            == "appapp"
    with pytest.raises(wire.ServerError) as error:
        pooler.connect("trust_user").close()
    assert error.value.sqlstate == "28P01"
    with pytest.raises(wire.ServerError) as error:
        pooler.connect(database="other").close()
    assert error.value.sqlstate == "3D000"
    assert pooler.console("SHOW POOLS", user="app")
    if how == "environment":
        command = read(f"/proc/{pooler.process.pid}/cmdline")
        assert secret("app") not in command
    assert secret("app") not in pooler.stderr()


# RELOAD and SIGHUP

def test_sighup_reads_the_file_again(pgsluice):
    pgsluice.settings["default_pool_size"] = 3
    pgsluice.write_files()
    pgsluice.send_signal(signal.SIGHUP)
    wait_until(lambda: value_of(pgsluice, "default_pool_size") == "3",
               "reloaded")


def test_a_broken_file_changes_nothing_and_is_logged(pgsluice):
    with holding(pgsluice) as client:
        pgsluice.settings.update(default_pool_size=3, query_timeout="5 mice")
        pgsluice.write_files()
        pgsluice.send_signal(signal.SIGHUP)
        pgsluice.wait_log(r"pooler\.ini:\d+: query_timeout.*mice")
        assert value_of(pgsluice, "default_pool_size") == "20"
        assert client.value("SELECT 7") == "7"


def test_a_setting_that_needs_a_restart_is_logged_and_stays(pgsluice):
    pgsluice.configure(listen_backlog=77)
    pgsluice.wait_log("listen_backlog was changed.*restart")
    with pgsluice.connect() as client:
        assert client.value("SELECT 7") == "7"


def test_a_database_that_is_new_in_the_file_is_served(pgsluice, postgres):
    pgsluice.databases["new"] = (
        f"host=127.0.0.1 port={postgres.port} dbname=other")
    pgsluice.reload()
    with pgsluice.connect(database="new") as client:
        assert client.value("SELECT current_database()") == "other"


def test_a_database_that_moved_is_followed_by_who_is_there(
        pgsluice, postgres):
    with pgsluice.connect() as client:
        assert client.value("SELECT current_database()") == "app"
        pgsluice.databases["app"] = (
            f"host=127.0.0.1 port={postgres.port} dbname=other")
        pgsluice.reload()
        wait_until(lambda: client.value("SELECT current_database()")
                   == "other", "moved")


def test_a_database_taken_out_of_the_file_lets_nobody_new_in(pgsluice):
    with pgsluice.connect() as client:
        del pgsluice.databases["app"]
        pgsluice.reload()
        with pytest.raises(wire.ServerError) as error:
            pgsluice.connect().close()
        assert error.value.sqlstate == "3D000"
        assert client.value("SELECT 7") == "7"


def test_a_new_password_counts_from_the_reload_on(pgsluice):
    pgsluice.secrets["trust_user"] = "another"
    pgsluice.reload()
    with pytest.raises(wire.ServerError) as error:
        pgsluice.connect("trust_user").close()
    assert error.value.sqlstate == "28P01"
    with wire.Wire.connect(pgsluice.port) as client:
        client.login("trust_user", "another", "app")
        assert client.value("SELECT 7") == "7"


# Signals

def test_sigusr1_pauses_and_sigusr2_resumes(pgsluice):
    with pgsluice.connect() as client:
        assert client.value("SELECT 1") == "1"
        pgsluice.send_signal(signal.SIGUSR1)
        wait_until(lambda: any(
            row["paused"] == "1"
            for row in pgsluice.console("SHOW DATABASES")), "paused")
        client.send(wire.query("SELECT 7"))
        wait_until(lambda: pgsluice.pool()["cl_waiting"] == 1, "waiting")
        pgsluice.send_signal(signal.SIGUSR2)
        assert client.shapes(client.until_ready()) == "TDCZ"


def test_the_pidfile_is_there_as_long_as_the_process(start_pgsluice, tmp_path):
    path = tmp_path / "pid"
    pooler = start_pgsluice(pidfile=path)
    pooler.wait_log("pgsluice .* is up")
    assert int(path.read_text()) == pooler.process.pid
    assert pooler.stop() == 0
    assert not path.exists()


def test_as_a_daemon_it_works_on_in_the_background(postgres, tmp_path):
    pooler = Pgsluice(postgres, pidfile=tmp_path / "pid")
    pid = None
    try:
        pooler.write_files()
        assert run("-d", pooler.ini).returncode == 0
        wait_until((tmp_path / "pid").exists, "pidfile")
        pid = int(wait_until((tmp_path / "pid").read_text, "pid"))
        wait_until(lambda: can_connect(pooler), "listening")
        with pooler.connect() as client:
            assert client.value("SELECT 7") == "7"
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not (tmp_path / "pid").exists(), "gone")
        pid = None
    finally:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        pooler.clean()


def can_connect(pooler):
    try:
        wire.Wire.connect(pooler.port).close()
        return True
    except ConnectionError:
        return False


def test_a_port_that_is_taken_is_told(pgsluice, tmp_path):
    write(tmp_path / "second.ini", [
        "[pgsluice]", "listen_addr = 127.0.0.1",
        f"listen_port = {pgsluice.port}", "unix_socket_dir ="])
    result = run(str(tmp_path / "second.ini"))
    assert result.returncode == 1
    assert f"127.0.0.1:{pgsluice.port}" in result.stderr
    with pgsluice.connect() as client:
        assert client.value("SELECT 7") == "7"


def test_after_a_kill_it_starts_again_over_its_old_unix_socket(
        start_pgsluice):
    pooler = start_pgsluice()
    path = pooler.path(f".s.PGSQL.{pooler.port}")
    # both sockets are there, and it has said so: the log tells the starts apart
    pooler.wait_log(" is up: ")
    pooler.send_signal(signal.SIGKILL)
    pooler.wait_end()
    assert os.path.exists(path)
    pooler.start()
    # start() asked over TCP, which listens before the unix socket does
    pooler.wait_log(r"(?s)( is up: .*){2}")
    with wire.Wire.connect(pooler.port, pooler.folder) as client:
        client.login("app", secret("app"), "app")
        assert client.value("SELECT 7") == "7"


# The log

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] "


def test_the_log_is_opened_anew_by_sighup(pgsluice):
    old = pgsluice.path("log.1")
    os.rename(pgsluice.path("log"), old)
    pgsluice.send_signal(signal.SIGHUP)
    wait_until(lambda: os.path.exists(pgsluice.path("log")), "a new log")
    pgsluice.connect().close()
    pgsluice.wait_log("login attempt: db=app user=app")
    assert "login attempt" not in read(old)


def test_log_lines_have_pgbouncers_form(pgsluice):
    with pgsluice.connect() as client:
        client.value("SELECT 1")
        client.send(wire.terminate())
        client.until_closed()
    pgsluice.wait_log("closing because: client close request")
    for pattern in (
            r"LOG listening on 127\.0\.0\.1:\d+",
            r"LOG S-0x[0-9a-f]+: app/app@127\.0\.0\.1:\d+ new connection",
            r"LOG C-0x[0-9a-f]+: app/app@127\.0\.0\.1:\d+ login attempt: "
            r"db=app user=app tls=no",
            r"LOG C-0x[0-9a-f]+: app/app@127\.0\.0\.1:\d+ closing because: "
            r"client close request \(age=\d+s\)"):
        assert re.search(f"^{STAMP}{pattern}", pgsluice.log(), re.M), pattern


def test_log_format_json_is_json_line_by_line(start_pgsluice):
    pooler = start_pgsluice(log_format="json")
    with wire.Wire.connect(pooler.port) as client:
        with pytest.raises(wire.ServerError):
            client.login('na"me\n\\x', "wrong", "app")
    pooler.connect().close()
    pooler.wait_log("login attempt")
    lines = [json.loads(line) for line in pooler.log().splitlines()]
    assert len(lines) > 4
    assert len({tuple(sorted(line)) for line in lines}) <= 3
    assert any('na"me' in json.dumps(line).replace('\\\\"', '"')
               or 'na\\"me' in json.dumps(line) for line in lines)


def test_names_in_the_log_cannot_forge_a_line(start_pgsluice):
    pooler = start_pgsluice()
    forged = "x\n2026-01-01 00:00:00.000 UTC [1] LOG forged"
    with wire.Wire.connect(pooler.port) as client:
        with pytest.raises(wire.ServerError):
            client.login(forged, "wrong", forged)
    pooler.wait_log("authentication failed")
    assert not re.search(r"^2026-01-01 00:00:00\.000", pooler.log(), re.M)


def test_log_settings_quieten_it(start_pgsluice):
    pooler = start_pgsluice(
        log_connections=False, log_disconnections=False,
        log_pooler_errors=False)
    with wire.Wire.connect(pooler.port) as client:
        with pytest.raises(wire.ServerError):
            client.login("app", "wrong", "app")
    with pooler.connect() as client:
        client.value("SELECT 1")
    pooler.configure(log_connections=True)
    pooler.connect().close()
    pooler.wait_log("login attempt: db=app")
    quiet = pooler.log().split("reload")[0]
    assert pooler.log().count("login attempt: db=app") == 1
    assert "closing because" not in pooler.log()
    assert "authentication failed" not in quiet


def test_statistics_are_logged_every_stats_period(start_pgsluice):
    pooler = start_pgsluice(stats_period="1s")
    with pooler.connect() as client:
        client.value("SELECT 1")
        pooler.wait_log(r"stats: \d+ xacts/s, \d+ queries/s")


def test_passwords_are_not_in_the_log_however_much_is_logged(
        start_pgsluice, postgres):
    pooler = start_pgsluice(verbose=3, databases={
        "app": f"host=127.0.0.1 port={postgres.port} user=app"
               f" password={secret('app')}"})
    with pooler.connect("md5_user") as client:
        client.value("SELECT 1")
    with wire.Wire.connect(pooler.port) as client:
        with pytest.raises(wire.ServerError):
            client.login("app", "wr0ng-passw0rd", "app")
    pooler.reload()
    log = pooler.log() + pooler.stderr()
    for word in ("wr0ng-passw0rd", secret("app"), secret("md5_user")):
        assert word not in log


# What somebody else's trouble looks like

def test_a_log_that_cannot_be_written_stops_nobody(start_pgsluice):
    pooler = start_pgsluice(logfile="/dev/full")
    with holding(pooler) as client:
        assert client.value("SELECT 7") == "7"
        pooler.send_signal(signal.SIGTERM)
        client.rows("SELECT 1")
        client.send(wire.query("COMMIT"))
        told(client.until_closed(), "FATAL", "57P01")
    assert pooler.wait_end() == 0


def test_a_stop_while_others_log_in_and_work_is_clean(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=2)
    clients = [wire.Wire.connect(pooler.port) for _ in range(20)]
    for client in clients[:10]:
        client.login("app", secret("app"), "app")
        client.send(wire.query("SELECT pg_sleep(600)"))
    for client in clients[10:]:
        client.send(wire.startup(user="app", database="app"))
        assert client.next().kind == "R"
    wait_until(lambda: pooler.pool()["sv_active"] == 2, "at work")
    pooler.send_signal(signal.SIGQUIT)
    for client in clients:
        loses_its_connection(client, "57P01")
        client.close()
    assert pooler.wait_end() == 0
