"""What the tests of the contract share: helpers that say what a client was
told, queries that last until they are let go, and a door before Postgres."""

import contextlib
import itertools
import select
import socket
import struct
import threading

import pytest

import wire
from pgsluice import DATABASES, secret, wait_until


# What a client is told

def told(answer, severity, sqlstate):
    """The fields of the one error in these messages, which must be this."""
    errors = [got.fields for got in answer if got.kind == "E"]
    assert len(errors) == 1, answer
    fields, = errors
    assert (fields["V"], fields["C"]) == (severity, sqlstate), fields
    assert fields["S"] == severity
    return fields


def refused(server, sqlstate, user="app", database="app", password=None,
            **parameters):
    """A login that is turned away by FATAL, and nothing behind it; returns
    the error's fields."""
    with wire.Wire.connect(server.port) as client:
        with pytest.raises(wire.ServerError) as error:
            client.login(user, password or secret(user), database,
                         **parameters)
        assert error.value.severity == "FATAL"
        assert error.value.sqlstate == sqlstate, error.value
        assert client.until_closed() == []
        return error.value.fields


def loses_its_connection(client, sqlstate):
    """What still comes is this FATAL, and then the end."""
    return told(client.until_closed(), "FATAL", sqlstate)


def is_told_and_stays(client, sqlstate, sql="SELECT 1"):
    """A simple query is answered by this ERROR, and by its ReadyForQuery."""
    answer = client.query(sql)
    assert client.shapes(answer)[-2:] == "EZ", answer
    assert answer[-1].status == "I"
    return told(answer, "ERROR", sqlstate)


def batch(sql, *values, statement=""):
    """An extended query without its Sync."""
    return (wire.parse(statement, sql) + wire.bind("", statement, values)
            + wire.describe() + wire.execute())


def only_sync_brings_ready(client):
    """After an error in a batch: messages are skipped, and ReadyForQuery is
    the answer to this client's Sync, once."""
    client.send(batch("SELECT 'skipped'"), wire.sync(), batch("SELECT 7"),
                wire.sync())
    assert client.shapes(client.until_ready()) == "Z"
    assert client.shapes(client.until_ready()) == "12TDCZ"


def has_news(client):
    """Has anything come for this client, be it the end?"""
    return bool(select.select([client.sock], [], [], 0)[0])


# Clients that do something for a while

@contextlib.contextmanager
def holding(pooler, user="app", database="app", **parameters):
    """A client inside a transaction: it has a server."""
    with pooler.connect(user, database, **parameters) as client:
        assert client.query("BEGIN; SELECT 1")[-1].status == "T"
        yield client


def wait_in_line(pooler, count, user="app", database="app"):
    """Until so many clients of this pool stand in line."""
    wait_until(lambda: pooler.pool(database, user)["cl_waiting"] == count,
               f"{count} clients in line")


def free_again(pooler, user="app", database="app"):
    """Until no server of this pool is at work."""
    def is_free():
        pool = pooler.pool(database, user)
        return pool["sv_active"] == 0 and pool["sv_used"] == 0

    wait_until(is_free, "all servers free")


class Slow:
    """A query that runs until let go, told apart by a number of its own.

        with Slow(postgres) as slow:
            client.send(wire.query(slow.sql))
            slow.wait_running()
    """

    numbers = itertools.count(1000)

    def __init__(self, cluster, database="app"):
        self.number = next(self.numbers)
        self.session = cluster.superuser(database)
        self.session.rows(f"SELECT pg_advisory_lock({self.number})")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()

    @property
    def sql(self):
        return f"SELECT pg_advisory_xact_lock_shared({self.number})"

    def rows(self, condition="true"):
        """[pid, state] of the backends whose last query was this one."""
        return self.session.rows(
            "SELECT pid, state FROM pg_stat_activity WHERE"
            f" query LIKE '%lock_shared({self.number})%' AND"
            f" pid <> pg_backend_pid() AND {condition}")

    def is_running(self):
        return bool(self.rows("state = 'active' AND wait_event = 'advisory'"))

    def wait_running(self):
        wait_until(self.is_running, "the slow query at work")

    def wait_over(self):
        wait_until(lambda: not self.rows("state = 'active'"),
                   "the slow query over")

    def let_go(self):
        self.session.rows(f"SELECT pg_advisory_unlock({self.number})")

    def terminate(self):
        """Kills the backend that runs it."""
        self.wait_running()
        (pid, _), = self.rows()
        terminate(self.session, pid)


def terminate(superuser, pid):
    """Kills a backend, and waits until it is gone."""
    assert superuser.value(f"SELECT pg_terminate_backend({pid})") == "t"
    wait_until(lambda: superuser.value(
        f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == "0",
        "backend gone")


def cancel(server, pid, key):
    """Asks for a cancel, and waits until it has been dealt with."""
    with wire.Wire.connect(server.port) as canceller:
        canceller.send(wire.cancel_request(pid, key))
        assert canceller.until_closed() == []


def backend(client):
    return client.value("SELECT pg_backend_pid()")


# Between pgsluice and Postgres

def error_response(sqlstate, text, severity="FATAL"):
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text}
    return wire.message("E", *(name.encode() + wire.text(value)
                               for name, value in fields.items()), b"\0")


def before(server, **settings):
    """[databases] for a pooler before this server, or door."""
    more = "".join(f" {name}={value}" for name, value in settings.items())
    return {name: f"host=127.0.0.1 port={server.port}{more}"
            for name in DATABASES}


class Door:
    """A proxy before a server. It lets everything through, until told.

    door.says(bytes)    new connections get this answer to their first
                        packet, and are closed
    door.ignores()      new connections get no answer
    door.lets_through() again
    door.cut_after(n)   each connection is closed once n more bytes have come
                        from the server
    """

    def __init__(self, server):
        self.server = server
        self.answer = None
        self.is_silent = False
        self.left = None
        self.knocks = 0
        self.sockets = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self._thread(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in (self.listening, *self.sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def says(self, answer):
        self.answer = answer

    def ignores(self):
        self.is_silent = True

    def lets_through(self):
        self.answer, self.is_silent = None, False

    def cut_after(self, count):
        self.left = count

    @staticmethod
    def _thread(call, *arguments):
        threading.Thread(target=call, args=arguments, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                self.sockets.append(client)
                self._thread(self._serve, client)

    def _serve(self, client):
        self.knocks += 1
        with contextlib.suppress(OSError):
            first = client.recv(1 << 16)
            if self.is_silent:
                return
            if self.answer is not None:
                client.sendall(self.answer)
                client.shutdown(socket.SHUT_RDWR)
                return
            server = socket.create_connection(("127.0.0.1",
                                               self.server.port))
            self.sockets.append(server)
            server.sendall(first)
            self._thread(self._copy, client, server, lambda count: count)
            self._copy(server, client, self._allow)

    def _allow(self, count):
        if self.left is None:
            return count
        count = min(count, self.left)
        self.left -= count
        return count

    @staticmethod
    def _copy(source, target, allow):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                count = allow(len(data))
                target.sendall(data[:count])
                if count < len(data):
                    break
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


# What a process costs

def peak_memory(process):
    """Bytes, the most it ever had."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def length_only(kind, length):
    """The head of a message that says it is so long."""
    return kind.encode() + struct.pack("!I", length)
