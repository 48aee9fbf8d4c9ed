#!/usr/bin/python3
"""asyncpg and psycopg 3 (as DRIVER says) while the schema changes: the
Python player of ../test_plans_drivers.py, which says what a player does."""

import asyncio
import json
import os
import sys

import asyncpg
import psycopg
from psycopg.rows import dict_row

URL = os.environ["DATABASE_URL"]
DRIVER = os.environ["DRIVER"]
CLIENTS = int(os.environ["CLIENTS"])
ROUNDS = int(os.environ["ROUNDS"])
SQL = "SELECT * FROM thing"


class Psycopg:
    """Binary results, and prepared at the first use."""

    @classmethod
    async def connect(cls):
        return cls(await psycopg.AsyncConnection.connect(
            URL, autocommit=True, prepare_threshold=0, row_factory=dict_row))

    def __init__(self, conn):
        self.conn = conn
        self.close = conn.close

    async def rows(self):
        async with self.conn.cursor(binary=True) as cursor:
            await cursor.execute(SQL)
            return await cursor.fetchall()


class Asyncpg:
    @classmethod
    async def connect(cls):
        return cls(await asyncpg.connect(URL))

    def __init__(self, conn):
        self.conn = conn
        self.close = conn.close

    async def rows(self):
        return [dict(row) for row in await self.conn.fetch(SQL)]


CONNECT = {"asyncpg": Asyncpg, "psycopg3": Psycopg}[DRIVER].connect


async def run(client, seen):
    for _ in range(ROUNDS):
        try:
            row, = await client.rows()
        except (psycopg.Error, asyncpg.PostgresError) as error:
            row = {"error": f"{error.sqlstate} {error}"}
        seen.add(json.dumps({name: str(value)
                             for name, value in row.items()}))


async def fresh(seen):
    client = await CONNECT()
    await run(client, seen)
    await client.close()


async def play():
    loop = asyncio.get_running_loop()
    clients = [await CONNECT() for _ in range(CLIENTS)]
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline) == "round\n":
        old, new = set(), set()
        await asyncio.gather(*(run(client, old) for client in clients),
                             *(fresh(new) for _ in range(2)))
        print("did", json.dumps([sorted(old), sorted(new)]), flush=True)
    for client in clients:
        await client.close()


asyncio.run(play())
