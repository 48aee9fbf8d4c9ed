"""The stand-in for Prisma's schema engine (prisma/) sends what the native
engine sends; else the tests of migrations would prove nothing.

What the native one sends was recorded: the order of the startup parameters,
which statements are prepared and under which names, where the Syncs are, and
which are one Query message. That values are text is the one difference.
"""

import re
import socket
import struct
import threading

import wire
from prisma_tools import PrismaApp

PREPARED = "PDS BES CS"
INIT = 'CREATE TABLE "Author" ("id" SERIAL);\nSELECT 1;\n'


class Recorder:
    """Relays connections to a port, and writes down what clients send: a
    list of messages for each connection, in the order they were opened."""

    def __init__(self, port):
        self.to_port = port
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to_port))
            sent = bytearray()
            self.connections.append(sent)
            for ends in ((client, server, sent), (server, client, None)):
                threading.Thread(target=self._relay, args=ends,
                                 daemon=True).start()

    @staticmethod
    def _relay(source, target, record):
        try:
            while data := source.recv(1 << 16):
                if record is not None:
                    record += data
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def startup_of(sent):
    """Whether TLS was asked for, the names of the startup parameters in
    their order, and the rest."""
    asks_tls = sent[:8] == wire.ssl_request()
    at = 8 if asks_tls else 0
    length, = struct.unpack_from("!I", sent, at)
    names = sent[at + 8:at + length].split(b"\0")[::2]
    return (asks_tls, [name.decode() for name in names if name],
            sent[at + length:])


def messages_of(sent):
    at = 0
    while at < len(sent):
        length, = struct.unpack_from("!I", sent, at + 1)
        yield wire.Message(chr(sent[at]), bytes(sent[at + 5:at + 1 + length]))
        at += 1 + length


def said(sent):
    """Queries, each with how it was sent: "Q" or "s7 PDS BES CS"."""
    done = []
    for got in messages_of(sent):
        if got.kind == "Q":
            done.append(["Q", got.tag])
        elif got.kind == "P":
            name, sql = got.body.split(b"\0")[:2]
            done.append([f"{name.decode()} P", sql.decode()])
        elif got.kind == "S":
            done[-1][0] += "S "
        elif got.kind not in "pX":
            done[-1][0] += got.kind
    return [(how.strip(), " ".join(sql.split())) for how, sql in done]


def test_a_deploy_sends_what_the_native_engine_sends(
        postgres, tmp_path):
    with postgres.superuser() as session:
        session.rows("DROP DATABASE IF EXISTS engine WITH (FORCE)")
        session.rows("CREATE DATABASE engine OWNER app")
    with Recorder(postgres.port) as recorder:
        url = re.sub(r":\d+/", f":{recorder.port}/", postgres.url("engine"))
        app = PrismaApp(tmp_path / "app", f"{url}?schema=public",
                        "model Author {\n  id Int @id\n}\n")
        app.write_migration("1_init", INIT)
        app.run("migrate", "deploy").check()
    probe, engine = (startup_of(sent) for sent in recorder.connections)
    for asks_tls, names, _ in (probe, engine):
        assert asks_tls
        assert names == ["client_encoding", "user", "database"]
    first = [("Q", 'SET search_path = "public";'),
             (f"s0 {PREPARED}", "SELECT version()"),
             (f"s1 {PREPARED}",
              "SELECT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = $1),"
              " version(), current_setting('server_version_num')::integer"
              " as numeric_version;")]
    assert said(probe[2]) == first

    sent = said(engine[2])
    assert sent[:3] == first
    assert [(how, re.sub(r"\W.*", "", sql)) for how, sql in sent[3:]] == [
        ("Q", "SELECT"), (f"s2 {PREPARED}", "SELECT"), ("Q", "CREATE"),
        (f"s3 {PREPARED}", "SELECT"), (f"s4 {PREPARED}", "INSERT"),
        ("Q", "CREATE"), (f"s5 {PREPARED}", "UPDATE"),
        (f"s6 {PREPARED}", "UPDATE")]
    assert sent[3][1] == "SELECT pg_advisory_lock(72707369)"
    assert sent[8][1] == " ".join(INIT.split())     # the whole script
