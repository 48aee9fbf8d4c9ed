#!/usr/bin/python3
"""asyncpg beside other drivers (see mixed.py): all is prepared and binary.

Every transaction takes its connection out of a pool of one and gives it back.
What that resets (RESET ALL and more) goes back to what the connection had
when it was opened.
"""

import asyncio
import traceback

import asyncpg

import mixed


class Asyncpg:
    def __init__(self, pool):
        self.pool = pool
        self.conn = self.work = None

    @classmethod
    async def connect(cls, me):
        return cls(await asyncpg.create_pool(
            mixed.URL, min_size=1, max_size=1, server_settings={
                "application_name": me.name, "TimeZone": me.zone,
                "search_path": me.search_path}))

    async def begin(self):
        self.conn = await self.pool.acquire()
        self.work = self.conn.transaction()
        await self.work.start()

    async def ask(self, sql, values=()):
        return await self.conn.fetch(mixed.dollars(sql), *values)

    async def insert(self, *values):
        return await self.ask(mixed.INSERT, values)

    async def read(self, *values):
        return await self.ask(mixed.READ, values)

    async def rounds(self, *values):
        return await self.ask(mixed.ROUNDS, values)

    async def commit(self):
        await self.work.commit()
        await self.pool.release(self.conn)

    async def rollback(self):
        await self.work.rollback()
        await self.pool.release(self.conn)


async def play_all(me, session):
    zone = me.zone
    steps, answer = mixed.everything(me), None
    try:
        while True:
            name, *arguments = steps.send(answer)
            if name == "begin":
                me.zone = zone
            answer = await getattr(session, name)(*arguments)
    except StopIteration:
        pass


async def main():
    members = [mixed.Member(number) for number in range(mixed.CLIENTS)]
    sessions = await asyncio.gather(*map(Asyncpg.connect, members))
    mixed.say("ready")
    mixed.await_word("go")
    await asyncio.gather(*map(play_all, members, sessions))
    mixed.say_done(members)
    mixed.await_word("end")
    for session in sessions:
        await session.pool.close()


try:
    asyncio.run(main())
except BaseException:
    mixed.fail(traceback.format_exc())
