"""A crowd: many clients at once, each logged in and running queries.

    crowd.py URL [CLIENTS]      2,000 unless said

It connects them all, has each run a query and check the answer, and then
keeps them working until its input ends. Lines on its output: "connected N",
"answered N", then "ok N" once a second: how many queries have been answered.
Anything unexpected ends it with an error.
"""

import asyncio
import random
import resource
import struct
import sys
import urllib.parse

import wire

AT_ONCE = 100           # handshakes under way; the rest stand in line
PAUSE_S = 0.5           # a client thinks so long between queries, on average


class Client:
    """One connection over asyncio."""

    def __init__(self, url):
        self.url = url
        self.reader = None
        self.writer = None

    async def next(self):
        kind, length = struct.unpack("!cI", await self.reader.readexactly(5))
        body = await self.reader.readexactly(length - 4)
        return wire.Message(kind.decode("latin-1"), body)

    async def login(self):
        url = self.url
        self.reader, self.writer = await asyncio.open_connection(
            url.hostname, url.port)
        steps = wire.login_steps(url.username, url.password, url.path[1:])
        self.writer.write(next(steps))
        try:
            while True:
                self.writer.write(steps.send(await self.next()))
        except StopIteration:
            pass

    async def ask(self):
        """A sum that only this answer fits."""
        a, b = random.randrange(10**6), random.randrange(10**6)
        self.writer.write(wire.query(f"SELECT {a} + {b}"))
        values = None
        while True:
            got = await self.next()
            if got.kind == "E":
                raise wire.ServerError(got)
            if got.kind == "D":
                values = got.values
            if got.kind == "Z":
                break
        if values != [str(a + b)]:
            raise AssertionError(f"{a} + {b} is not {values}")


class Crowd:
    """All of them, and what they have done so far."""

    def __init__(self, url, size):
        self.clients = [Client(url) for _ in range(size)]
        self.door = asyncio.Semaphore(AT_ONCE)
        self.answered = 0

    async def enter(self, client):
        async with self.door:
            await client.login()

    async def ask(self, client):
        await client.ask()
        self.answered += 1

    async def work(self, client):
        while True:
            await asyncio.sleep(random.uniform(0, 2 * PAUSE_S))
            await self.ask(client)

    async def tell(self):
        while True:
            await asyncio.sleep(1)
            say(f"ok {self.answered}")

    async def run(self):
        await asyncio.gather(*map(self.enter, self.clients))
        say(f"connected {len(self.clients)}")
        await asyncio.gather(*map(self.ask, self.clients))
        say(f"answered {self.answered}")
        over = asyncio.get_running_loop().run_in_executor(
            None, sys.stdin.read)
        going = [asyncio.ensure_future(work) for work in
                 (*map(self.work, self.clients), self.tell())]
        done, _ = await asyncio.wait(
            [over, *going], return_when=asyncio.FIRST_COMPLETED)
        for ended in done:
            ended.result()


def say(line):
    print(line, flush=True)


def main():
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def run():
        url = urllib.parse.urlsplit(sys.argv[1])
        await Crowd(url, size).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
