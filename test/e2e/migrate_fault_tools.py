"""What the tests of migrations under faults share: deploys that can be killed,
frozen and cut off, a ledger of when each of them was at work, and an app.

The ledger is a table without any index. A deploy's interval there begins with
its row, and ends when its session was last seen alive: that is kept in a
sequence, as a ROLLBACK takes nothing back from those. Also with its row it
takes note whose sessions Postgres still has.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import wire
from pgsluice import DEADLINE, die_with_parent, wait_until

MIGRATOR = os.path.join(os.path.dirname(__file__), "migrator.py")
POOL = 5
CLIENTS = 8
DEPLOYS = 16            # at most, in a test

SETUP = f"""
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT ALL ON SCHEMA public TO public;
CREATE TABLE migrated (id int);
INSERT INTO migrated VALUES (1);
CREATE TABLE beside (a int);
CREATE TABLE _prisma_migrations (who int);
CREATE TABLE ledger (who int, pid int, backend timestamptz,
    began timestamptz, others int[]);
DO $$ BEGIN
    FOR who IN 0 .. {DEPLOYS - 1} LOOP
        EXECUTE format('CREATE SEQUENCE seen%s', who);
    END LOOP;
END $$;
CREATE FUNCTION seen(who int) RETURNS void LANGUAGE sql AS $$
    SELECT setval('seen' || who,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) $$;
CREATE FUNCTION ended(who int) RETURNS timestamptz LANGUAGE plpgsql AS $$
    DECLARE at bigint;
    BEGIN
        EXECUTE format('SELECT last_value FROM seen%s', who) INTO at;
        RETURN to_timestamp(at / 1000000.0);
    END $$;
CREATE FUNCTION enter(me int) RETURNS void LANGUAGE sql AS $$
    SELECT seen(me);
    INSERT INTO ledger SELECT me, pg_backend_pid(), backend_start,
        clock_timestamp(), ARRAY(
            SELECT l.who FROM ledger l JOIN pg_stat_activity a ON
            a.pid = l.pid AND a.backend_start = l.backend WHERE l.who <> me)
        FROM pg_stat_activity WHERE pid = pg_backend_pid() $$;
CREATE FUNCTION work(who int, number bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        LOOP
            PERFORM seen(who);
            EXIT WHEN pg_try_advisory_xact_lock_shared(number);
            PERFORM pg_sleep(0.005);
        END LOOP;
    END $$;
ALTER TABLE migrated OWNER TO app;
ALTER TABLE _prisma_migrations OWNER TO app;
GRANT ALL ON ALL TABLES IN SCHEMA public TO public;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO public;
"""
OVERLAPS = """
SELECT a.who, b.who FROM ledger a JOIN ledger b ON a.who < b.who
    AND a.began < ended(b.who) AND b.began < ended(a.who)"""
LOCKS = """
SELECT pid, mode, granted FROM pg_locks WHERE locktype = 'advisory' AND
    objid = 72707369"""
WAITING = """
SELECT pid, query FROM pg_stat_activity WHERE datname = 'app' AND
    wait_event_type = 'Lock' AND wait_event = 'advisory'"""


class Cable:
    """Between a migrator and pgsluice: cut() leaves both ends as they are, and
    nothing comes through any more; tear() resets both."""

    def __init__(self, port):
        self.to = port
        self.whole = threading.Event()
        self.whole.set()
        self.torn = False
        self.sockets = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self._thread(self._accept)

    @staticmethod
    def _thread(call, *arguments):
        threading.Thread(target=call, args=arguments, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                self.sockets += [near, far]
                self._thread(self._copy, near, far)
                self._thread(self._copy, far, near)

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.whole.wait()
                target.sendall(data)
            self.whole.wait()
            if not self.torn:
                target.shutdown(socket.SHUT_WR)

    def cut(self):
        self.whole.clear()

    def tear(self):
        self.torn = True
        for sock in self.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                            struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                # Whoever reads from it holds it open until then.
                sock.shutdown(socket.SHUT_RD)
            sock.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self.whole.set()


class Deploy:
    """A migrator.py; its steps are asked for by do(), or by ask() and
    answer()."""

    def __init__(self, port, who, *steps):
        self.who = who
        self.heard = b""
        self.process = subprocess.Popen(
            [sys.executable, "-B", MIGRATOR, str(port), str(who), *steps],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=die_with_parent)

    def ask(self, step):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{step}\n".encode())
            self.process.stdin.flush()

    def answer(self):
        """(step, how it went); how is "ok", an SQLSTATE or "closed". None:
        it has ended."""
        end = time.monotonic() + DEADLINE
        while b"\n" not in self.heard:
            wait = max(end - time.monotonic(), 0)
            assert select.select([self.process.stdout], [], [], wait)[0], \
                f"deploy {self.who} says nothing"
            data = os.read(self.process.stdout.fileno(), 4096)
            if not data:
                return None
            self.heard += data
        line, _, self.heard = self.heard.partition(b"\n")
        step, *_, how = line.decode().split()
        return step, how

    def do(self, *steps):
        for step in steps:
            self.ask(step)
            assert self.answer() == (step.split()[0], "ok")

    def fails(self, *reasons):
        """What it was at, or is at next, fails for one of these reasons."""
        self.ask("late")
        while (said := self.answer())[1] == "ok":
            assert said[0] != "late"
        assert said[1] in reasons, said

    def deploys(self):
        """All of it, which must succeed."""
        self.ask("deploy")
        while (answer := self.answer())[0] != "leave":
            assert answer[1] == "ok", (self.who, answer)
        assert self.process.wait(DEADLINE) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        if self.process.poll() is None:
            self.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


class Load:
    """An app: clients that run a transaction after another. Half of them
    never touch the table that is migrated."""

    def __init__(self, pooler, clients=CLIENTS):
        self.pooler = pooler
        self.stopped = threading.Event()
        self.done = [0] * clients
        self.errors = []
        self.threads = [threading.Thread(target=self._client, args=[number])
                        for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def _client(self, number):
        table = ("migrated", "beside")[number % 2]
        while not self.stopped.is_set():
            try:
                with self.pooler.connect() as link:
                    while not self.stopped.wait(0.01):
                        link.rows("BEGIN")
                        link.rows(f"SELECT * FROM {table}")
                        link.rows("INSERT INTO beside VALUES (1)")
                        link.rows("COMMIT")
                        self.done[number] += 1
            except (OSError, wire.Closed, wire.ServerError) as error:
                self.errors.append(str(error))
                self.stopped.wait(0.05)

    def goes_on(self, table=None):
        """Until every client (of this table) has had another transaction."""
        before = list(self.done)
        which = [number for number in range(len(before))
                 if table in (None, ("migrated", "beside")[number % 2])]
        wait_until(lambda: all(self.done[number] > before[number] + 1
                               for number in which), "the app goes on")

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


class Stage:
    """A database, a pooler, an app, deploys, and the judgement at the end."""

    def __init__(self, cluster, pooler):
        self.cluster = cluster
        self.pooler = pooler
        self.things = contextlib.ExitStack()
        self.load = None
        self.survives = True    # the app's clients have no error

    def __enter__(self):
        self.start_load()
        return self

    def __exit__(self, kind, *_):
        self.things.close()
        if kind is None:
            self.load.goes_on()
        self.load.stop()
        if kind is None:
            self.judge()

    def start_load(self):
        self.load = Load(self.pooler)
        self.load.goes_on()

    def deploy(self, who, *steps, port=None):
        deploy = Deploy(port or self.pooler.port, who, *steps)
        self.things.callback(deploy.close)
        return deploy

    def cable(self):
        cable = Cable(self.pooler.port)
        self.things.callback(cable.close)
        return cable

    def rows(self, sql):
        return self.cluster.rows(sql, "app")

    def migrations(self, **wanted):
        return [row for row in self.pooler.console("SHOW MIGRATIONS")
                if all(row[name] == value for name, value in wanted.items())]

    def wait_for(self, state, count=1):
        wait_until(lambda: len(self.migrations(state=state)) == count,
                   f"{count} {state} in SHOW MIGRATIONS")

    def is_applied(self, who):
        """Wholly or not at all."""
        found = self.rows(f"""
            SELECT (SELECT count(*) FROM information_schema.columns WHERE
                table_name = 'migrated' AND column_name = 'c{who}'),
            (SELECT count(*) FROM pg_class WHERE relname = 'made{who}'),
            (SELECT count(*) FROM _prisma_migrations WHERE who = {who})""")
        assert found in ([["0"] * 3], [["1"] * 3]), (who, found)
        return found[0][0] == "1"

    def judge(self):
        assert self.rows(OVERLAPS) == []
        ledger = self.rows("SELECT who, others FROM ledger")
        assert all(others == "{}" for _, others in ledger), ledger
        assert self.rows("SELECT relname FROM pg_class WHERE relname"
                         " LIKE 'late%'") == []
        for who in range(DEPLOYS):
            self.is_applied(who)
        wait_until(lambda: not self.rows(LOCKS), "no lock left")
        wait_until(lambda: not self.rows(WAITING), "no backend waits")
        if self.survives:
            assert self.load.errors == []
        wait_until(lambda: not [
            row for row in self.pooler.console("SHOW MIGRATIONS")
            if row["state"] not in ("done", "failed")], "nobody migrates")
        self.judge_pool()

    def judge_pool(self):
        """As many servers can be had as there were, and no more."""
        wait_until(lambda: self.pooler.pool()["sv_active"] == 0, "all free")
        with contextlib.ExitStack() as clients:
            for _ in range(POOL):
                client = clients.enter_context(self.pooler.connect())
                client.rows("BEGIN; SELECT 1")
            late = clients.enter_context(self.pooler.connect())
            late.send(wire.query("SELECT 1"))
            wait_until(lambda: self.pooler.pool()["cl_waiting"] == 1,
                       "the pool is used up")
            assert self.pooler.pool()["sv_active"] == POOL
