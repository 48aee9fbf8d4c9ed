#!/usr/bin/python3
"""Random sessions, on Postgres itself and through pgsluice: each step has to
have the same answer, and each session has to look the same after it.

    sessions.py [--seed N] [--count N] [--workers N]

A session is a script of steps, drawn from what may change a session's state
in either protocol, alone, several in a string or in a pipeline. In between,
others of the same pool change their own. Left out is what
doc/session-state.md says is another matter.
"""

import argparse
import random
import sys

import rig  # noqa: F401  (it makes the next ones known)
import wire
from pgsluice import Pgsluice, Postgres
from state_tools import Session

SERVERS = 3
STEPS = 40

VALUES = {
    "work_mem": ("'7MB'", "'8MB'"),
    "TimeZone": ("'Asia/Kabul'", "'UTC'"),
    "application_name": ("'one'", "'it''s'"),
    "search_path": ("random_a", "random_b, public", "public"),
    "random.custom": ("'one'", "'two words'"),
    "statement_timeout": ("54321", "60000"),
    "DateStyle": ("German", "ISO, MDY"),
    "IntervalStyle": ("'iso_8601'", "'postgres'"),
    "client_min_messages": ("'warning'", "'error'"),
    "default_transaction_isolation": ("'serializable'", "'read committed'"),
}

SETUP = """
    CREATE ROLE random_role; GRANT random_role TO app;
    CREATE SCHEMA random_a; CREATE SCHEMA random_b;
    CREATE TABLE random_a.spot AS SELECT 'a' AS name;
    CREATE TABLE random_b.spot AS SELECT 'b' AS name;
    CREATE TABLE public.spot AS SELECT 'public' AS name;
    GRANT USAGE ON SCHEMA random_a, random_b TO public;
    GRANT SELECT ON random_a.spot, random_b.spot, public.spot TO public;
"""
CLEAN_UP = """
    DROP SCHEMA random_a, random_b CASCADE; DROP TABLE public.spot;
    DROP ROLE random_role;
"""

# '' is the same as none: a custom parameter cannot be unset in a session.
VIEW = "SELECT " + ", ".join(
    f"nullif(current_setting('{name}', true), '')" for name in VALUES) + """,
    session_user, current_user, current_setting('role'),
    (SELECT string_agg(c, ',' ORDER BY c) FROM pg_listening_channels() c),
    (SELECT count(*) FROM pg_locks
     WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    (SELECT string_agg(name, ',') FROM pg_cursors
     WHERE name <> '' AND is_holdable),
    (SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class
     WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'),
    (SELECT string_agg(name, ',') FROM pg_prepared_statements
     WHERE from_sql)"""

# One of each row is drawn; {name} is a parameter, {value} one of its values,
# {key} the session's own, for locks.
SQL = (
    (12, "SET {name} = {value}"),
    (6, "SET LOCAL {name} = {value}"),
    (5, "RESET {name}", "SET {name} TO DEFAULT", "RESET ALL"),
    (6, "SELECT set_config('{name}', {text}, false)",
     "SELECT set_config('{name}', {text}, true)"),
    (3, "SET ROLE random_role", "RESET ROLE", "SET ROLE NONE",
     "SET LOCAL ROLE random_role", "SET SESSION AUTHORIZATION app",
     "RESET SESSION AUTHORIZATION"),
    (8, "BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE",
     "START TRANSACTION READ ONLY"),
    (8, "COMMIT", "ROLLBACK", "END", "COMMIT AND CHAIN",
     "ROLLBACK AND CHAIN"),
    (7, "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"),
    (3, "SELECT 1/0", "SELEC", "SELECT * FROM nowhere"),
    (3, "DISCARD ALL", "DISCARD TEMP", "DISCARD PLANS"),
    (6, "DEALLOCATE ALL", "DEALLOCATE mine", "PREPARE mine AS SELECT 1",
     "EXECUTE mine"),
    (6, "CREATE TEMP TABLE t1 (n int)", "DROP TABLE t1",
     "SELECT count(*) FROM t1", "INSERT INTO t1 VALUES (1)",
     "CREATE TEMP TABLE t2 (n int) ON COMMIT DROP"),
    (4, "SELECT pg_advisory_lock({key})", "SELECT pg_advisory_unlock({key})",
     "SELECT pg_advisory_unlock_all()",
     "SELECT pg_advisory_xact_lock({key})"),
    (4, "LISTEN a", "UNLISTEN a", "UNLISTEN *", "LISTEN b"),
    (2, "DO $$BEGIN PERFORM set_config('{name}', {text}, false); END$$"),
    (2, "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 9)",
     "FETCH 1 FROM c", "CLOSE c", "CLOSE ALL"),
    (6, "SELECT nullif(current_setting('{name}', true), '')",
     "SELECT name FROM spot"),
)


class Script:
    """What one session does: steps of [(message, ReadyForQuerys)]."""

    def __init__(self, seed):
        self.choose = random.Random(seed)
        self.key = "<key>"
        self.startup = {name: self.value(name).strip("'").replace("''", "'")
                        for name in self.choose.sample(
                            [name for name in VALUES if "." not in name],
                            self.choose.choice((0, 0, 1, 3)))}
        # Of these, RESET and what stands behind it in one string differ.
        self.has_startup = bool(self.startup)
        self.steps = [self.step() for _ in range(STEPS)]

    def value(self, name):
        return self.choose.choice(VALUES[name])

    def sql(self):
        weights = [row[0] for row in SQL]
        row, = self.choose.choices(SQL, weights)
        name = self.choose.choice(list(VALUES))
        value = self.value(name)
        text = value if value.startswith("'") else f"'{value}'"
        return self.choose.choice(row[1:]).format(
            name=name, value=value, text=text, key=self.key)

    def string(self):
        """Several statements."""
        return "; ".join(
            sql for sql in (self.sql() for _ in range(3))
            if not (self.has_startup and ("RESET" in sql or "DEFAULT" in sql
                                          or "DISCARD" in sql)))

    def message(self):
        kind, = self.choose.choices(
            ("query", "string", "extended", "named"), (6, 1, 1, 2))
        if kind in ("query", "string"):
            sql = self.sql() if kind == "query" else self.string()
            return sql, wire.query(sql)
        if kind == "extended":
            sql = self.sql()
            return f"extended {sql}", batch(sql)
        name = self.choose.choice(("", "n1", "n2"))
        sql = self.choose.choice(("SELECT 1", "SELECT name FROM spot",
                                  "SELECT nothing", "BEGIN"))
        return self.choose.choice((
            (f"parse {name}: {sql}", wire.parse(name, sql) + wire.sync()),
            (f"bind {name}", wire.bind("", name) + wire.execute()
             + wire.sync()),
            (f"close {name}", wire.close("S", name) + wire.sync()),
            (f"skip parse {name}", wire.execute("no")
             + wire.parse(name, sql) + wire.sync())))

    def step(self):
        count = self.choose.randint(2, 4) if self.choose.random() < 0.1 else 1
        return [self.message() for _ in range(count)]


def batch(sql):
    return (wire.parse("ask", sql) + wire.bind("", "ask") + wire.describe()
            + wire.execute() + wire.close("S", "ask") + wire.sync())


def shapes(answer):
    """What has to be the same."""
    found = []
    for got in answer:
        if got.kind == "E":
            found.append(got.sqlstate)
        elif got.kind == "D":
            found.append(got.values)
        elif got.kind == "C":
            found.append(got.body)
        elif got.kind == "Z":
            found.append(got.status)
        elif got.kind not in "NSAtT":
            found.append(got.kind)
    return found


class Player:
    """A script's session on one server, and what it has seen."""

    def __init__(self, server, script, key):
        self.session = Session.open(server, **script.startup)
        self.key = str(key).rjust(len(script.key)).encode()
        self.status = "I"

    def play(self, step):
        self.session.send(*(message.replace(b"<key>", self.key)
                            for _, message in step))
        answer = [got for _ in step for got in self.session.until_ready()]
        self.status = answer[-1].status
        return shapes(answer)

    def view(self):
        self.session.send(batch(VIEW))
        return shapes(self.session.until_ready()), dict(
            self.session.parameters)


class Others:
    """Two more clients of the pool, whose settings change."""

    def __init__(self, pooler, seed):
        self.choose = random.Random(f"{seed} others")
        self.sessions = [Session.open(pooler) for _ in range(2)]

    def play(self):
        for session in self.sessions:
            name = self.choose.choice(list(VALUES))
            session.query(self.choose.choice((
                f"SET {name} = {self.choose.choice(VALUES[name])}",
                f"RESET {name}", "SELECT 1", "BEGIN; SELECT 1; COMMIT")))


def difference(seed, postgres, pooler):
    """None, or in words what was not the same, and after which steps."""
    script = Script(seed)
    number = random.Random(seed).randrange(10 ** 4)
    direct = Player(postgres, script, 2 * number)
    through = Player(pooler, script, 2 * number + 1)
    others = Others(pooler, seed)
    done = []
    try:
        for step in script.steps:
            done.append(" | ".join(said for said, _ in step))
            expected, got = direct.play(step), through.play(step)
            if expected == got and direct.status != "E":
                expected, got = direct.view(), through.view()
            if expected != got:
                return "\n".join([f"seed {seed}: {script.startup}", *done,
                                  f"directly {expected}", f"through  {got}"])
            if direct.status == "I":
                others.play()
        return None
    finally:
        for session in (direct.session, through.session, *others.sessions):
            session.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    said = parser.parse_args()
    postgres = Postgres()
    pooler = Pgsluice(postgres, default_pool_size=SERVERS,
                      workers=said.workers)
    try:
        postgres.start()
        with postgres.superuser("app") as boss:
            boss.rows(SETUP)
        pooler.start()
        found = [each for each in (
            difference(seed, postgres, pooler)
            for seed in range(said.seed, said.seed + said.count)) if each]
        pooler.assert_sound()
    finally:
        pooler.stop()
        pooler.clean()
        postgres.stop()
        postgres.clean()
    print(*found[:10], sep="\n\n")
    print(f"{said.count} sessions from seed {said.seed}, "
          f"{len(found)} violations")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
