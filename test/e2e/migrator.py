"""A deploy as a process of its own, so that it can be killed and frozen.

    migrator.py PORT WHO [STEP ...]

It does on the wire what Prisma's schema engine does. WHO is a number. The
steps named are carried out one after another, then those that come on its
input, one a line. After each it says a line: the step, and "ok" or "error
SQLSTATE". It ends when its input does, or when it has lost its connection.

    probe     the engine's first statement, prepared
    lock      its advisory lock
    enter     a row in the ledger: who, when, and whose sessions there still are
    begin, alter, create, book, commit    a migration: a column, a table, and
              the row that says it was applied
    work N    at work in Postgres until the advisory lock N can be had
    late      a table that must not be there when it was too late for this
    leave     says goodbye
    deploy    all of them but work and late
"""

import sys

import wire

PROBE = (
    "SELECT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = $1), version(),"
    " current_setting('server_version_num')::integer as numeric_version;")
STEPS = {
    "lock": "SELECT pg_advisory_lock(72707369)",
    "enter": "SELECT enter({who})",
    "begin": "BEGIN",
    "alter": "ALTER TABLE migrated ADD COLUMN c{who} int",
    "create": "CREATE TABLE made{who} (a int)",
    "book": "INSERT INTO _prisma_migrations VALUES ({who})",
    "commit": "COMMIT",
    "work": "SELECT work({who}, {argument})",
    "late": "CREATE TABLE late{who} (a int)",
}
# In the ledger before it has Prisma's own lock, which would keep two apart even
# if pgsluice did not.
DEPLOY = ("probe", "enter", "lock", "begin", "alter", "create", "book",
          "commit", "leave")
# Takes note that this session is alive, which outlasts a ROLLBACK.
SEEN = "SELECT seen({who})"


class Migrator:
    def __init__(self, port, who):
        self.who = who
        self.link = wire.Wire.connect(port)
        self.link.sock.settimeout(None)
        self.link.login("app", "app-secret", "app")

    def probe(self):
        for messages in ((wire.parse("s0", PROBE), wire.describe("S", "s0")),
                         (wire.bind("", "s0", ["public"]), wire.execute())):
            self.link.send(*messages, wire.sync())
            self.answered()

    def answered(self):
        answer = self.link.until("ZE")
        if answer[-1].kind == "E":
            if answer[-1].fields["V"] == "ERROR":
                self.link.until_ready()
            raise wire.ServerError(answer[-1])

    def do(self, step):
        name, _, argument = step.partition(" ")
        if name == "probe":
            self.probe()
        elif name == "leave":
            self.link.send(wire.terminate())
            self.link.until_closed()
        else:
            for sql in (STEPS[name], SEEN):
                self.link.send(wire.query(sql.format(
                    who=self.who, argument=argument)))
                self.answered()


def steps_asked_for(arguments):
    yield from arguments
    for line in sys.stdin:
        yield line.strip()


def main():
    migrator = Migrator(int(sys.argv[1]), int(sys.argv[2]))
    for asked in steps_asked_for(sys.argv[3:]):
        for step in DEPLOY if asked == "deploy" else (asked,):
            try:
                migrator.do(step)
                print(step, "ok", flush=True)
            except wire.ServerError as error:
                print(step, "error", error.sqlstate, flush=True)
                if error.severity == "FATAL":
                    sys.exit(1)
            except (wire.Closed, OSError) as error:
                print(step, "error", "closed", flush=True)
                sys.exit(1)
            if step == "leave":
                return


if __name__ == "__main__":
    main()
