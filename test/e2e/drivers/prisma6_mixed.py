#!/usr/bin/python3
"""What the native query engine of Prisma 6 sends, beside other drivers (see
mixed.py). The engine itself is downloaded by npm's scripts and not to be had
from npm; what it says is simple.

Every statement is prepared by Parse, Describe and Sync, and run by Bind,
Execute and Sync. Names are s0, s1, ... for the whole process. Statements
are kept, and the schema is a startup parameter, as DRIVER prisma6. As
prisma6_pgbouncer it is as with ?pgbouncer=true: nothing is kept, so each
statement ends with Close and Sync; the schema is SET; and each transaction
starts with DEALLOCATE ALL.
"""

import itertools
import os
import sys
from urllib.parse import urlsplit

import mixed

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

# pylint: disable=wrong-import-position
import wire  # noqa: E402

IS_FOR_PGBOUNCER = mixed.DRIVER == "prisma6_pgbouncer"
numbers = itertools.count()


class Prisma6(mixed.Session):
    def __init__(self, me):
        url = urlsplit(mixed.URL)
        startup = {"application_name": me.name, "TimeZone": me.zone}
        if not IS_FOR_PGBOUNCER:
            startup["search_path"] = me.search_path
        self.kept = {}
        self.link = wire.Wire.connect(url.port)
        self.link.login(url.username, url.password, url.path[1:],
                        client_encoding="UTF8", **startup)
        if IS_FOR_PGBOUNCER:
            self.simply(f"SET search_path = {me.search_path};\n")

    def answer(self, *messages):
        """What comes back for these and a Sync; its rows as lists."""
        self.link.send(*messages, wire.sync())
        got = self.link.until_ready()
        for it in got:
            if it.kind == "E":
                raise wire.ServerError(it)
        return [it.values for it in got if it.kind == "D"]

    def simply(self, sql):
        self.link.rows(sql)

    def begin(self):
        self.simply("BEGIN")
        if IS_FOR_PGBOUNCER:
            self.simply("DEALLOCATE ALL")

    def commit(self):
        self.simply("COMMIT")

    def rollback(self):
        self.simply("ROLLBACK")

    def ask(self, sql, values=()):
        name = self.kept.get(sql)
        if name is None:
            name = f"s{next(numbers)}"
            self.answer(wire.parse(name, mixed.dollars(sql)),
                        wire.describe("S", name))
        rows = self.answer(wire.bind("", name, values), wire.execute())
        if IS_FOR_PGBOUNCER:
            self.answer(wire.close("S", name))
        else:
            self.kept[sql] = name
        # Whatever is a number was asked for as one.
        return [[int(value) if value.isdigit() else value for value in row]
                for row in rows]

    def close(self):
        self.link.send(wire.terminate())
        self.link.close()


mixed.play(Prisma6)
