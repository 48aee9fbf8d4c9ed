"""An application at work while something is done to its database.

    with Load(url) as load:             # it is working now
        ...
    load.check(session)                 # nothing went wrong, nothing is lost

The clients are node/load.mjs (Prisma Client, node-postgres, postgres.js) and
pgbench with prepared statements. They share the table load.item, of which
create_items() makes one; every quantity in it starts at 0, so their sum is
how often something was added.

The load ends by itself after TIME_LIMIT, and with whoever started it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile

from pgsluice import die_with_parent

HERE = os.path.dirname(os.path.abspath(__file__))
TIME_LIMIT = 150
ITEMS = 1000                            # those that the load works on
MORE_ITEMS = 50_000                     # so that a rewrite is one
WORKERS = 3                             # of each driver
PAUSE_MS = 50

# What all clients but Prisma's prepare, each as its driver does.
FIND = "select * from load.item where id = $1"

PGBENCH_SCRIPT = rf"""
\set id random(1, {ITEMS})
{FIND.replace('$1', ':id')};
begin;
update load.item set qty = qty + 1 where id = :id;
select qty from load.item where id = :id;
commit;
\sleep {PAUSE_MS} ms
"""


def create_items(session):
    """As the owner of all of it."""
    session.rows("CREATE SCHEMA load")
    session.rows("CREATE TABLE load.item (id serial PRIMARY KEY,"
                 " name text NOT NULL, qty int NOT NULL DEFAULT 0)")
    session.rows("INSERT INTO load.item (name) SELECT 'item ' || n"
                 f" FROM generate_series(1, {MORE_ITEMS}) n")
    session.rows("ANALYZE load.item")


class Tally:
    """What one kind of client has to say."""

    def __init__(self, added, longest_ms, errors):
        self.added = added
        self.longest_ms = longest_ms
        self.errors = errors

    def __repr__(self):
        said = f"{self.added} added, longest wait {self.longest_ms} ms"
        return "\n    ".join([said, *self.errors])


def await_line(process, pattern):
    said = []
    for line in process.stdout:
        if re.match(pattern, line):
            return
        said.append(line)
    raise AssertionError(f"{process.args} ended with {process.wait()}:\n"
                         + "".join(said))


class Load:
    """Starts when entered, and has tallies when left."""

    def __init__(self, url):
        self.url = url
        self.tallies = {}
        self.folder = tempfile.mkdtemp(prefix="load-")
        self.node = None
        self.pgbench = None

    def __enter__(self):
        try:
            self.node = self._spawn(
                ["node", os.path.join(HERE, "node", "load.mjs")],
                stdin=subprocess.PIPE, env={
                    **os.environ, "DATABASE_URL": self.url,
                    "ITEMS": str(ITEMS), "WORKERS": str(WORKERS),
                    "PAUSE_MS": str(PAUSE_MS), "SECONDS": str(TIME_LIMIT)})
            await_line(self.node, r"ready\n")
            self.pgbench = self._spawn_pgbench()
            await_line(self.pgbench, r"progress: .* s, (?!0\.0 tps)")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.kill()
            return
        try:
            self.tallies = {**self._end_node(),
                            "pgbench": self._end_pgbench()}
        finally:
            self.kill()

    def _spawn(self, command, **arguments):
        return subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, cwd=self.folder,
            stderr=subprocess.STDOUT, preexec_fn=die_with_parent,
            **arguments)

    def _spawn_pgbench(self):
        script = os.path.join(self.folder, "script.sql")
        with open(script, "w", encoding="utf-8") as file:
            file.write(PGBENCH_SCRIPT)
        # A thread each: it waits for PQprepare() with all of a thread's.
        return self._spawn(
            ["pgbench", "--no-vacuum", "--protocol=prepared", "--progress=1",
             f"--client={WORKERS}", f"--jobs={WORKERS}", "--log",
             f"--time={TIME_LIMIT}", f"--file={script}", self.url])

    def _end_node(self):
        said, _ = self.node.communicate(timeout=TIME_LIMIT)
        assert self.node.returncode == 0, said
        return {name: Tally(**tally)
                for name, tally in json.loads(said.splitlines()[-1]).items()}

    def _end_pgbench(self):
        ended_early = self.pgbench.poll() is not None
        if not ended_early:
            self.pgbench.send_signal(signal.SIGALRM)    # its time is over
        said, _ = self.pgbench.communicate(timeout=TIME_LIMIT)
        added = re.search(r"actually processed: (\d+)", said)
        errors = re.findall(r"pgbench: error: .*", said)
        if (ended_early or self.pgbench.returncode != 0) and not errors:
            errors = [said]
        return Tally(int(added[1]) if added else 0, self._longest_ms(),
                     errors)

    def _longest_ms(self):
        """Of what pgbench logs: a line a transaction, which paused too."""
        longest = 0
        for entry in os.scandir(self.folder):
            if entry.name.startswith("pgbench_log."):
                with open(entry.path, encoding="utf-8") as file:
                    longest = max([longest, *(int(line.split()[2])
                                              for line in file)])
        return max(0, longest // 1000 - PAUSE_MS)

    def check(self, session):
        """Nobody was told of an error, and every addition is there."""
        said = "\n".join(f"{name}: {tally}"
                         for name, tally in self.tallies.items())
        print(said)
        for name, tally in self.tallies.items():
            assert not tally.errors, said
            assert tally.added > 0, f"{name} did nothing\n{said}"
        total = int(session.value("SELECT sum(qty) FROM load.item"))
        assert total == sum(tally.added for tally in self.tallies.values()), (
            f"{total} in the table, but\n{said}")

    def longest_ms(self):
        return max(tally.longest_ms for tally in self.tallies.values())

    def kill(self):
        for process in (self.node, self.pgbench):
            if process is not None:
                process.kill()
                process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)
