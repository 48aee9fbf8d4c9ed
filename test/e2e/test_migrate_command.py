"""pgsluice migrate: a command with the migration lock held.

What the command does in each case is tried before Lock, a server that gives
the lock away when the test says so.
"""

import contextlib
import os
import pty
import queue
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest

import wire
from pgsluice import (
    Pgsluice, die_with_parent, free_port, secret, wait_until)

TIME_LIMIT = 60
OPTION = "pgsluice.migrate=command"
NAME = "pgsluice_migrate"


# The server

def ready(status="I"):
    return wire.message("Z", status.encode())


def answer(*values):
    """One row, of as many columns as there are values."""
    count = len(values).to_bytes(2, "big")
    columns = (b"x\0" + bytes(6) + (25).to_bytes(4, "big") + b"\xff\xff"
               + b"\xff\xff\xff\xff" + bytes(2)) * len(values)
    cells = b"".join(
        b"\xff\xff\xff\xff" if value is None
        else len(value).to_bytes(4, "big") + value.encode()
        for value in values)
    return (wire.message("T", count, columns) + wire.message("D", count, cells)
            + wire.message("C", wire.text("SELECT 1")) + ready())


def complaint(kind, severity, sqlstate, text, detail=None):
    fields = [b"S", wire.text(severity), b"V", wire.text(severity),
              b"C", wire.text(sqlstate), b"M", wire.text(text)]
    if detail:
        fields += [b"D", wire.text(detail)]
    return wire.message(kind, *fields, b"\0")


class Asker:
    """One connection to Lock, logged in, with its first statement read."""

    def __init__(self, link):
        self.link = link
        self.startup = {}
        self.statement = None

    def login(self):
        while True:
            length = int.from_bytes(self.link.receive(4), "big")
            body = self.link.receive(length - 4)
            code = int.from_bytes(body[:4], "big")
            if code in (wire.SSL_CODE, wire.GSSENC_CODE):
                self.link.send(b"N")
                continue
            words = body[4:].split(b"\0")
            self.startup = {name.decode(): value.decode() for name, value
                            in zip(words[::2], words[1::2]) if name}
            break
        self.link.send(wire.message("R", bytes(4)), ready())
        self.statement = self.link.next()

    def notice(self, text, detail=None):
        self.link.send(complaint("N", "NOTICE", "00000", text, detail))

    def grant(self):
        self.link.send(answer(None, NAME))

    def refuse(self, severity, sqlstate, text):
        self.link.send(complaint("E", severity, sqlstate, text))
        if severity == "ERROR":
            self.link.send(ready())
        else:
            self.link.close()

    def wait_gone(self):
        """What comes until the other side closes."""
        return wire.Wire.shapes(self.link.until_closed())


class Lock:
    """Lets everybody in, and does with each what the test says."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.askers = queue.Queue()
        self.links = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listening.accept()
                threading.Thread(target=self._serve, args=(sock,),
                                 daemon=True).start()

    def _serve(self, sock):
        asker = Asker(wire.Wire(sock))
        self.links.append(asker.link)
        with contextlib.suppress(wire.Closed, OSError):
            asker.login()
            self.askers.put(asker)

    def asker(self):
        return self.askers.get(timeout=TIME_LIMIT)

    def url(self, more=""):
        return f"postgres://app:{secret('app')}@127.0.0.1:{self.port}/app{more}"

    def close(self):
        self.listening.close()
        for link in self.links:
            link.close()


@pytest.fixture
def lock():
    server = Lock()
    yield server
    server.close()


# The command

@pytest.fixture
def migrate(lock):
    """migrate(command, ..., options=(), url=None, env={}, **of_popen) starts
    one. It has ended when the test has."""
    started = []

    def start(*command, options=(), url=None, env=None, **arguments):
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("PG", "DATABASE_URL"))}
        environment["DATABASE_URL"] = url or lock.url()
        environment.update(env or {})
        process = subprocess.Popen(
            [Pgsluice.program, "migrate", *options, "--", *command],
            env=environment, **{
                "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE, "text": True,
                "preexec_fn": die_with_parent, **arguments})
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        with contextlib.suppress(ValueError):
            process.communicate(timeout=TIME_LIMIT)


def end(process):
    """(status, standard output, standard error)"""
    out, err = process.communicate(timeout=TIME_LIMIT)
    return process.returncode, out, err


def python(code):
    return sys.executable, "-c", "import os, signal, sys, time\n" + code


# Says when it is there, then waits for signals, and says those that come.
LISTENER = """
def handler(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(7)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT,
               signal.SIGCONT):
    signal.signal(number, handler)
print("up", flush=True)
while True:
    signal.pause()
"""


# The same as an argument in a shell, and it ends with the first.
LISTENER_IN_SH = ("import os, signal" + LISTENER.replace(
    "    if number == signal.SIGTERM:\n        sys.exit(7)",
    "    os._exit(7)")).replace("'", '"')


def is_up(process):
    assert process.stdout.readline() == "up\n"


@pytest.mark.parametrize("command, status", [
    (("true",), 0),
    (("sh", "-c", "exit 3"), 3),
    (("sh", "-c", "kill -9 $$"), 128 + 9),
    (("sh", "-c", "kill -INT $$"), 128 + 2),
    (("/no/such/command",), 127),
    (("no-such-command",), 127),
    (("/etc/passwd",), 126),
    (("/",), 126),
])
def test_the_status_is_the_commands(lock, migrate, command, status):
    process = migrate(*command)
    lock.asker().grant()
    got, _, err = end(process)
    assert got == status
    assert (status in (126, 127)) == ("cannot run" in err)


def test_the_command_has_our_files_and_its_arguments(lock, migrate):
    process = migrate("sh", "-c", 'cat; echo "$@" >&2', "sh", "--url", "-x",
                      stdin=subprocess.PIPE)
    lock.asker().grant()
    out, err = process.communicate("what is typed\n", timeout=TIME_LIMIT)
    assert (out, err) == ("what is typed\n", "--url -x\n")


def test_the_startup_packet_asks_for_the_lock(lock, migrate):
    process = migrate("sh", "-c", "echo $PGAPPNAME", env={
        "PGAPPNAME": "mine", "PGOPTIONS": "-c lock_timeout=3"})
    asker = lock.asker()
    assert f"-c {OPTION}" in asker.startup["options"]
    assert "-c lock_timeout=3 " in asker.startup["options"]
    assert f"-c application_name={NAME}" in asker.startup["options"]
    # Where a pooler that knows no options would take it from.
    assert "application_name" not in asker.startup
    assert asker.statement.body.startswith(
        b"SELECT pg_catalog.current_setting('pgsluice.migrate', true)")
    asker.grant()
    assert end(process) == (0, "mine\n", "")


def test_the_command_waits_for_the_lock_and_gives_it_back(
        lock, migrate, tmp_path):
    ran = tmp_path / "ran"
    process = migrate("sh", "-c", f"touch {ran}; echo up; read x",
                      stdin=subprocess.PIPE)
    asker = lock.asker()
    asker.notice("waiting for a migration", "It is app's,\nfor\x1b[31m 3 s.")
    assert process.stderr.readline() == (
        "pgsluice migrate: waiting for a migration. "
        "It is app's, for [31m 3 s.\n")
    assert not ran.exists()
    asker.grant()
    is_up(process)
    assert ran.exists()
    process.stdin.write("\n")
    process.stdin.close()
    assert asker.wait_gone() == "X"
    assert process.wait(TIME_LIMIT) == 0
    assert "the lock is ours" in process.stderr.read()


def test_who_waits_is_told_even_if_the_server_says_nothing(lock, migrate):
    process = migrate("true")
    asker = lock.asker()
    assert process.stderr.readline() == (
        "pgsluice migrate: waiting for the migration lock of database "
        f'"app" at 127.0.0.1:{lock.port}\n')
    asker.grant()
    assert end(process)[0] == 0


def test_the_timeout_ends_the_waiting(lock, migrate):
    process = migrate("echo", "ran", options=("--timeout", "300ms"))
    asker = lock.asker()
    status, out, err = end(process)
    assert (status, out) == (75, "")
    assert "not ours in time" in err
    assert asker.wait_gone() == "X"


def test_the_timeout_is_not_for_the_command(lock, migrate):
    process = migrate("sleep", "1.1", options=("--timeout", "1"))
    lock.asker().grant()
    assert end(process)[0] == 0


def test_a_silent_server_does_not_outlast_the_timeout(migrate):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        process = migrate("echo", "ran", options=("--timeout", "300ms"),
                          url=f"postgres://app@127.0.0.1:{port}/app")
        assert end(process)[:2] == (75, "")


def test_nobody_there_is_unreachable(migrate):
    process = migrate("echo", "ran",
                      url=f"postgres://app@127.0.0.1:{free_port()}/app")
    status, out, err = end(process)
    assert (status, out) == (69, "")
    assert "refused" in err


@pytest.mark.parametrize("severity", ["ERROR", "FATAL"])
@pytest.mark.parametrize("sqlstate, status", [("55P03", 75), ("42501", 69)])
def test_a_refusal_is_told(lock, migrate, severity, sqlstate, status):
    process = migrate("echo", "ran")
    lock.asker().refuse(severity, sqlstate, "not you")
    got, out, err = end(process)
    assert (got, out) == (status, "")
    assert err == "pgsluice migrate: no migration lock: not you\n"


# What is no pgsluice

def test_a_postgres_is_not_taken_for_a_pgsluice(any_postgres, migrate):
    process = migrate("echo", "ran", url=any_postgres.url())
    status, out, err = end(process)
    assert (status, out) == (76, "")
    assert "does not lead to pgsluice" in err
    process = migrate("echo", "ran", url=any_postgres.url(),
                      options=("--allow-direct",))
    status, out, err = end(process)
    assert (status, out) == (0, "ran\n")
    assert "There is no lock" in err


def test_a_pooler_that_drops_options_is_not_taken_for_a_pgsluice(
        start_pgbouncer, migrate):
    pooler = start_pgbouncer(ignore_startup_parameters="options")
    process = migrate("echo", "ran", url=pooler.url())
    assert end(process)[:2] == (76, "")


# Signals

def test_a_signal_ends_the_waiting(lock, migrate):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP,
                   signal.SIGQUIT):
        process = migrate("echo", "ran")
        asker = lock.asker()
        process.send_signal(number)
        assert end(process)[:2] == (-number, "")
        assert asker.wait_gone() == "X"


def test_signals_go_to_all_of_the_commands_processes(lock, migrate):
    # A shell that has not exec'd, as npx has one.
    process = migrate("sh", "-c", f"{sys.executable} -c '{LISTENER_IN_SH}'; "
                      "echo over; exit 9")
    lock.asker().grant()
    is_up(process)
    process.send_signal(signal.SIGHUP)
    status, out, _ = end(process)
    assert out == "SIGHUP\n"
    assert status == 128 + signal.SIGHUP    # of the shell


def test_signals_are_passed_on(lock, migrate):
    process = migrate(*python(LISTENER))
    lock.asker().grant()
    is_up(process)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT,
                   signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        assert process.stdout.readline() == number.name + "\n"
    assert end(process)[:2] == (7, "")


def test_an_ignored_signal_stays_ignored(lock, migrate):
    def nohup():
        die_with_parent()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = migrate("sh", "-c", "echo up; read x", preexec_fn=nohup,
                      stdin=subprocess.PIPE)
    asker = lock.asker()
    asker.notice("wait")
    assert "wait" in process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    asker.notice("some more")
    assert "some more" in process.stderr.readline()
    asker.grant()
    is_up(process)
    process.send_signal(signal.SIGHUP)
    process.stdin.write("\n")
    assert end(process)[0] == 0


class Terminal:
    """A process that is the foreground of a terminal of its own."""

    def __init__(self, migrate, *command):
        self.master, slave = pty.openpty()

        def take_terminal():
            die_with_parent()
            os.setsid()
            os.close(os.open(os.ttyname(slave), os.O_RDWR))

        self.process = migrate(*command, stdin=slave, stdout=slave,
                               stderr=slave, preexec_fn=take_terminal)
        os.close(slave)
        self.said = ""

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_line(self, line):
        while line + "\r\n" not in self.said:
            assert select.select([self.master], [], [], TIME_LIMIT)[0]
            self.said += os.read(self.master, 4096).decode()
        said, self.said = self.said.split(line + "\r\n", 1)
        return said

    def rest(self):
        with contextlib.suppress(OSError):      # EIO: nobody has it open
            while True:
                self.said += os.read(self.master, 4096).decode()
        return self.said


def test_what_is_typed_comes_once(lock, migrate):
    terminal = Terminal(migrate, *python(LISTENER))
    lock.asker().grant()
    terminal.wait_line("up")
    terminal.type("\x03")
    terminal.wait_line("SIGINT")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.wait_line("SIGTERM") == ""
    assert terminal.process.wait(TIME_LIMIT) == 7
    assert terminal.rest() == ""


def test_the_command_may_read_from_the_terminal(lock, migrate):
    terminal = Terminal(migrate, "sh", "-c", 'echo up; read x; echo "<$x>"')
    lock.asker().grant()
    terminal.wait_line("up")
    terminal.type("yes\n")
    terminal.wait_line("<yes>")
    assert terminal.process.wait(TIME_LIMIT) == 0


def test_when_the_command_is_stopped_so_are_we(lock, migrate):
    terminal = Terminal(migrate, *python(LISTENER))
    lock.asker().grant()
    terminal.wait_line("up")
    terminal.type("\x1a")
    pid = terminal.process.pid
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    assert os.tcgetpgrp(terminal.master) == pid
    os.kill(pid, signal.SIGCONT)
    terminal.wait_line("SIGCONT")
    assert os.tcgetpgrp(terminal.master) != pid
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(TIME_LIMIT) == 7


# The lock is lost

def test_when_the_lock_is_lost_the_command_is_stopped(lock, migrate):
    process = migrate(*python(LISTENER))
    asker = lock.asker()
    asker.grant()
    is_up(process)
    asker.refuse("FATAL", "57P01", "the migration was ended by an admin")
    status, out, err = end(process)
    assert status == 74
    assert out.startswith("SIGTERM\n")
    assert "the migration was ended by an admin" in err
    assert "THE MIGRATION LOCK IS LOST" in err
    assert "status 7, after the lock was lost" in err


def test_a_command_that_does_not_stop_is_killed(lock, migrate):
    process = migrate("sh", "-c", "trap '' TERM; echo up; while :; do "
                      "sleep 60; done")
    asker = lock.asker()
    asker.grant()
    is_up(process)
    asker.link.close()
    status, _, err = end(process)
    assert status == 74
    assert "status 137" in err


def test_when_we_are_killed_the_command_is_stopped(lock, migrate):
    process = migrate(*python(LISTENER))
    asker = lock.asker()
    asker.grant()
    is_up(process)
    process.kill()
    assert process.stdout.readline() == "SIGTERM\n"
    assert asker.wait_gone() == ""


# The URL

@pytest.mark.parametrize("change", [
    lambda url: url,
    lambda url: url.replace("postgres:", "postgresql+asyncpg:"),
    lambda url: url.replace("postgres:", "postgis:"),
    lambda url: "jdbc:" + url.replace("postgres:", "postgresql:"),
    lambda url: url + "?schema=public&connection_limit=1&pgbouncer=true",
    lambda url: url + "?sslmode=disable&schema=public&connect_timeout=9",
])
def test_a_url_of_any_tool_is_understood(lock, migrate, change):
    url = change(lock.url())
    process = migrate("sh", "-c", 'echo "$DATABASE_URL"', url=url)
    asker = lock.asker()
    assert asker.startup["user"] == "app"
    assert asker.startup["database"] == "app"
    asker.grant()
    status, out, err = end(process)
    assert (status, out) == (0, url + "\n")
    assert ("schema" in err) == ("schema" in url)
    assert secret("app") not in err


def test_a_given_url_is_the_commands_too(lock, migrate):
    process = migrate("sh", "-c", 'echo "$DATABASE_URL"',
                      url="postgres://nobody@127.0.0.1:1/none",
                      options=("--url", lock.url()))
    lock.asker().grant()
    assert end(process)[:2] == (0, lock.url() + "\n")


@pytest.mark.parametrize("arguments, environment, words", [
    ((), {}, "usage:"),
    (("--", "true"), {}, "DATABASE_URL"),
    (("--", "true"), {"DATABASE_URL": ""}, "DATABASE_URL"),
    (("--tiemout", "3", "--", "true"), {"DATABASE_URL": "x"}, "usage:"),
    (("--timeout", "soon", "--", "true"), {"DATABASE_URL": "x"}, "soon"),
])
def test_wrong_usage_is_told(arguments, environment, words):
    result = subprocess.run(
        [Pgsluice.program, "migrate", *arguments], text=True, env=environment,
        capture_output=True, timeout=TIME_LIMIT, check=False)
    assert result.returncode == 64
    assert words in result.stderr


@pytest.mark.parametrize("url", [
    "mysql://app:the-secret@127.0.0.1/app",
    "postgres://app:the-secret@127.0.0.1:port/app",
    "host=127.0.0.1 password='the-secret",
])
def test_a_url_that_is_none_is_refused_without_its_password(migrate, url):
    status, _, err = end(migrate("true", url=url))
    assert status == 69
    assert "the-secret" not in err


# With the real thing

def by_command(pooler, **wanted):
    return [row for row in pooler.console("SHOW MIGRATIONS")
            if row["tool"] == "pgsluice migrate"
            and all(row[name] == value for name, value in wanted.items())]


@pytest.fixture
def ledger(postgres):
    """A file name's worth of a table: who was at work from when to when."""
    postgres.rows("DROP TABLE IF EXISTS ledger; CREATE TABLE ledger"
                  " (who text, at timestamptz DEFAULT clock_timestamp())",
                  "app")
    postgres.rows("GRANT ALL ON ledger TO public", "app")
    yield lambda: [row[0] for row in postgres.rows(
        "SELECT who FROM ledger ORDER BY at", "app")]
    postgres.rows("DROP TABLE ledger", "app")


def writes(who, times=3):
    """A shell's loop: each line of the ledger is a connection of its own."""
    return ("sh", "-ec", f"for i in $(seq {times}); do psql -Xqw "
            f"\"$DATABASE_URL\" -c \"INSERT INTO ledger VALUES ('{who}')\"; "
            "done")


def test_two_on_the_same_host_take_turns(pgsluice, migrate, ledger):
    """So do more: no two intervals of the ledger overlap."""
    processes = [migrate(*writes(who), url=pgsluice.url())
                 for who in "abcd"]
    for process in processes:
        status, _, err = end(process)
        assert status == 0, err
    rows = ledger()
    assert len(rows) == 12
    for at in range(0, 12, 3):
        assert len(set(rows[at:at + 3])) == 1, rows
    wait_until(lambda: len(by_command(pgsluice, state="done")) == 4,
               "four migrations done")


def test_the_commands_ddl_is_let_through(pgsluice_any, migrate):
    process = migrate("psql", "-Xqw", pgsluice_any.url(), "-c",
                      "CREATE TABLE by_command (a int)", "-c",
                      "ALTER TABLE by_command ADD COLUMN b int", "-c",
                      "DROP TABLE by_command", url=pgsluice_any.url(),
                      options=("--timeout", "30s"))
    assert end(process)[:2] == (0, "")


def test_who_waits_is_told_for_whom(pgsluice, migrate):
    first = migrate("sh", "-c", "echo up; read x", url=pgsluice.url(),
                    stdin=subprocess.PIPE)
    is_up(first)
    second = migrate("echo", "ran", url=pgsluice.url())
    assert "migration" in second.stderr.readline()
    assert by_command(pgsluice, state="waiting")
    first.stdin.write("\n")
    assert end(first)[0] == 0
    status, out, err = end(second)
    assert (status, out) == (0, "ran\n")
    assert "the lock is ours" in err


def test_pgsluices_own_patience_is_a_timeout(start_pgsluice, migrate):
    pooler = start_pgsluice(migration_wait_timeout="300ms")
    first = migrate("sh", "-c", "echo up; read x", url=pooler.url(),
                    stdin=subprocess.PIPE)
    is_up(first)
    second = migrate("echo", "ran", url=pooler.url())
    assert end(second)[:2] == (75, "")
    first.stdin.write("\n")
    assert end(first)[0] == 0


def test_a_killed_holder_lets_go(pgsluice, migrate):
    first = migrate("sleep", "1000", url=pgsluice.url())
    wait_until(lambda: by_command(pgsluice, state="claimed"), "claimed")
    second = migrate("echo", "ran", url=pgsluice.url())
    wait_until(lambda: by_command(pgsluice, state="waiting"), "waiting")
    first.kill()
    assert end(second)[:2] == (0, "ran\n")


def test_one_whose_waiting_ends_leaves_the_line(pgsluice, migrate):
    first = migrate("sh", "-c", "echo up; read x", url=pgsluice.url(),
                    stdin=subprocess.PIPE)
    is_up(first)
    second = migrate("echo", "ran", url=pgsluice.url())
    wait_until(lambda: by_command(pgsluice, state="waiting"), "waiting")
    second.send_signal(signal.SIGINT)
    assert end(second)[0] == -signal.SIGINT
    wait_until(lambda: not by_command(pgsluice, state="waiting"), "gone")
    first.stdin.write("\n")
    assert end(first)[0] == 0


def test_a_command_that_is_long_at_it_keeps_the_lock(start_pgsluice, migrate):
    """Though its connection is idle, and another one waits."""
    pooler = start_pgsluice(migration_idle_timeout="200ms",
                            client_idle_timeout="200ms")
    first = migrate("sh", "-c", "echo up; read x", url=pooler.url(),
                    stdin=subprocess.PIPE)
    is_up(first)
    second = migrate("echo", "ran", url=pooler.url(),
                     options=("--timeout", "2s"))
    assert end(second)[:2] == (75, "")
    first.stdin.write("\n")
    assert end(first)[0] == 0


def test_an_admins_abort_stops_the_command(pgsluice, migrate):
    process = migrate(*python(LISTENER), url=pgsluice.url())
    is_up(process)
    pgsluice.console("MIGRATION ABORT app")
    status, out, err = end(process)
    assert status == 74
    assert out.startswith("SIGTERM\n")
    assert "LOST" in err


def test_a_shutdown_of_pgsluice_stops_the_command(start_pgsluice, migrate):
    pooler = start_pgsluice()
    process = migrate(*python(LISTENER), url=pooler.url())
    is_up(process)
    pooler.has_ended = True
    pooler.stop(signal.SIGQUIT)
    assert end(process)[0] == 74
