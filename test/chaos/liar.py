#!/usr/bin/env python3
"""A proxy that lies once in a while, to show that the checker notices.

    liar.py LISTEN_PORT SERVER_PORT LIE [EVERY]

It relays each client to a Postgres connection of its own, message by
message, and tells one kind of lie at every EVERY-th opportunity (default 20).
With the lie "honest" it tells none. Each lie is what one known mistake of a
pooler looks like from outside.
"""

import asyncio
import socket
import struct
import sys

CANCEL_CODE = 80877102

LIES = {
    "honest": "nothing is changed",
    "swap": "a row of one client goes to another",
    "reorder": "two rows that follow each other change places",
    "flip": "one byte of a row is changed",
    "drop": "an INSERT is answered without having been run",
    "double": "an INSERT is run twice",
    "rollback": "a COMMIT is carried out as a ROLLBACK",
    "keep": "a ROLLBACK is carried out as a COMMIT",
    "sync": "a Sync is made up for a client that left in mid-batch",
    "cancel_other": "a cancel goes to the wrong connection",
    "cancel_late": "a cancel is called done before it has happened",
    "setting": "a startup parameter is that of the client before",
    "status": "ReadyForQuery says idle in place of in a transaction",
    "swallow": "a reply is lost",
    "notice_row": "an unexpected row is added",
    "statement": "a named statement is another client's of that name",
}


def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


class Liar:
    def __init__(self, server_port, lie, every):
        self.server_port = server_port
        self.lie = lie
        self.every = every
        self.chances = 0
        self.row = None             # (whose, a DataRow)
        self.keys = []              # of all connections so far
        self.name = None            # the last application_name
        self.texts = {}             # statement name: (whose, Parse body)

    def now(self, lie):
        """Is this the time for that lie?"""
        if self.lie != lie:
            return False
        self.chances += 1
        return self.chances % self.every == 0

    async def serve(self, reader, writer):
        upstream = None
        try:
            start = await packet(reader)
            code, = struct.unpack_from("!I", start, 4)
            if code == CANCEL_CODE:
                await self.cancel(start, writer)
                return
            upstream = await connect(self.server_port)
            upstream[1].write(self.startup(start))
            await Session(self, reader, writer, *upstream).run()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            abort(writer)
            if upstream:
                upstream[1].close()

    def startup(self, start):
        """With the application_name of the client before, if it is time."""
        parts = start[8:].split(b"\0")
        at = parts.index(b"application_name") + 1
        mine, other = parts[at], self.name
        self.name = mine
        if other and self.now("setting"):
            parts[at] = other
        body = start[4:8] + b"\0".join(parts)
        return struct.pack("!I", len(body) + 4) + body

    async def cancel(self, request, writer):
        key = request[8:16]
        if self.now("cancel_other"):
            others = [other for other in self.keys[-40::6] if other != key]
            requests = [request[:8] + other for other in others]
        else:
            requests = [request]
        if self.now("cancel_late"):
            abort(writer)
            await asyncio.sleep(0.004)
        for each in requests:
            reader, upstream = await connect(self.server_port)
            upstream.write(each)
            await reader.read()
            upstream.close()


class Session:
    """One client and its server."""

    def __init__(self, liar, client_in, client_out, server_in, server_out):
        self.liar = liar
        self.client_in, self.client_out = client_in, client_out
        self.server_in, self.server_out = server_in, server_out
        self.turn = None            # (a tag that will come, one to show)
        self.skip_after = None      # this tag comes twice, is shown once
        self.in_batch = False
        self.held_row = None

    async def run(self):
        up = asyncio.ensure_future(self.upwards())
        down = asyncio.ensure_future(self.downwards())
        await asyncio.wait([up, down],
                           return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)

    async def upwards(self):
        try:
            while True:
                kind, body = await one(self.client_in)
                self.in_batch = kind in b"PBDE"
                self.server_out.write(self.request(kind, body))
                await self.server_out.drain()
        finally:
            if self.in_batch and self.liar.now("sync"):
                self.server_out.write(message(b"S", b""))
                await self.server_out.drain()

    def request(self, kind, body):
        liar = self.liar
        same = message(kind, body)
        if kind == b"Q" and body.startswith(b"INSERT") and b";" not in body:
            if liar.now("drop"):
                self.turn = b"DO\0", b"INSERT 0 1\0"
                return message(b"Q", b"DO 'BEGIN END'\0")
            if liar.now("double"):
                self.skip_after = b"INSERT 0 1\0"
                return message(b"Q", body[:-1] + b";" + body)
        if kind == b"Q" and body == b"COMMIT\0" and liar.now("rollback"):
            self.turn = b"ROLLBACK\0", b"COMMIT\0"
            return message(b"Q", b"ROLLBACK\0")
        if kind == b"Q" and body == b"ROLLBACK\0" and liar.now("keep"):
            self.turn = b"COMMIT\0", b"ROLLBACK\0"
            return message(b"Q", b"COMMIT\0")
        if kind == b"P" and not body.startswith(b"\0"):
            name, rest = body.split(b"\0", 1)
            whose, other = liar.texts.get(name, (None, None))
            liar.texts[name] = (self, rest)
            if whose not in (None, self) and liar.now("statement"):
                return message(b"P", name + b"\0" + other)
        return same

    async def downwards(self):
        while True:
            kind, body = await one(self.server_in)
            self.client_out.write(self.reply(kind, body))
            await self.client_out.drain()

    def reply(self, kind, body):
        liar = self.liar
        if kind == b"K":
            liar.keys.append(body)
        if kind == b"C" and self.turn and body == self.turn[0]:
            body, self.turn = self.turn[1], None
        if kind == b"C" and body == self.skip_after:
            self.skip_after = None
            return b""
        if kind == b"D":
            body = self.row(body)
        if kind == b"Z" and body == b"T" and liar.now("status"):
            body = b"I"
        if kind in b"CDZ12" and liar.now("swallow"):
            return b""
        if kind == b"Z" and liar.row and liar.now("notice_row"):
            return message(b"D", liar.row[1]) + message(kind, body)
        if self.held_row is not None:
            held, self.held_row = self.held_row, None
            return message(kind, body) + message(b"D", held)
        if kind == b"D" and liar.now("reorder"):
            self.held_row = body
            return b""
        return message(kind, body)

    def row(self, body):
        liar = self.liar
        other, liar.row = liar.row, (self, body)
        if other and other[0] is not self and liar.now("swap"):
            return other[1]
        if liar.now("flip"):
            at = len(body) - 1
            return body[:at] + bytes([body[at] ^ 1])
        return body


def abort(writer):
    """Closes without waiting for what is still to be written."""
    try:
        writer.transport.abort()
    except OSError:
        pass


async def packet(reader):
    """A packet without a type: what comes before login."""
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack("!I", head)[0] - 4)


async def one(reader):
    head = await reader.readexactly(5)
    length, = struct.unpack_from("!I", head, 1)
    return head[:1], await reader.readexactly(length - 4)


async def connect(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.get_extra_info("socket").setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return reader, writer


async def main():
    listen_port, server_port, lie = sys.argv[1:4]
    every = int(sys.argv[4]) if len(sys.argv) > 4 else 20
    if lie not in LIES:
        sys.exit(f"no such lie: {lie}; there are {', '.join(LIES)}")
    liar = Liar(int(server_port), lie, every)
    server = await asyncio.start_server(liar.serve, "127.0.0.1",
                                        int(listen_port))
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
