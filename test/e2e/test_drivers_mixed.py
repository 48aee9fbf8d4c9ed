"""All drivers at the same time, over few servers, with nothing switched off.

Each driver's player (drivers/*_mixed.*, node/*_mixed.mjs; drivers/mixed.py
says what they are and do) has connections which differ in their settings, and
on each of them transactions that write and read back what nobody else can
have written. All of them share one pool, so that a server has been another
driver's a moment ago, with prepared statements of the same names and settings
of its own. Each player can also be run against Postgres directly, given the
environment that is described there; and so does this test if told to (for
which the cluster has connections if MIXED_CLIENTS is 5).

    MIXED_CLIENTS        connections of each driver (40)
    MIXED_TRANSACTIONS   transactions of each connection (25: a thousand for
                         each driver)
    MIXED_DRIVERS        names of those that play, if not all
    MIXED_DIRECT         not empty: without pgsluice

Of Prisma 6 two things are real, its client and its adapter for node-postgres
(prisma6_adapter); its native engine is not to be had from npm, so the
messages that it sends are replayed (prisma6).
"""

import os
import subprocess
import threading

import pytest

from pgsluice import wait_until
from test_drivers import (DRIVERS, java, node, prisma_client,  # noqa: F401
                          python)

CLIENTS = int(os.environ.get("MIXED_CLIENTS", "40"))
TRANSACTIONS = int(os.environ.get("MIXED_TRANSACTIONS", "25"))
ONLY = os.environ.get("MIXED_DRIVERS", "").split()
IS_DIRECT = bool(os.environ.get("MIXED_DIRECT"))
SERVERS = 4
TIME_LIMIT = 100 + CLIENTS * TRANSACTIONS // 2

PLAYERS = {
    "asyncpg": python("asyncpg_mixed"),
    "django": python("django_mixed"),
    "drizzle_pg": node("drizzle_mixed"),
    "drizzle_postgresjs": node("drizzle_mixed"),
    "lib_pq": None,                             # compiled by lib_pq()
    "pg": node("pg_mixed"),
    "pgjdbc": java("PgJdbcMixed"),
    "pgjdbc_1": java("PgJdbcMixed"),
    "postgresjs": node("postgresjs_mixed"),
    "prisma": node("prisma_mixed"),
    "prisma6": python("prisma6_mixed"),
    "prisma6_adapter": node("prisma6/mixed"),
    "prisma6_adapter_pgbouncer": node("prisma6/mixed"),
    "prisma6_pgbouncer": python("prisma6_mixed"),
    "prisma_pgbouncer": node("prisma_mixed"),
    "psycopg2": python("psycopg2_mixed"),
    "psycopg3": python("psycopg3_mixed"),
    "rails": ["/usr/bin/ruby", os.path.join(DRIVERS, "rails_mixed.rb")],
    "sqlalchemy": python("sqlalchemy_mixed"),
}


@pytest.fixture(scope="module")
def lib_pq(tmp_path_factory):
    """The player of lib/pq, compiled with Debian's library."""
    program = str(tmp_path_factory.mktemp("go") / "lib_pq")
    done = subprocess.run(
        ["/usr/bin/go", "build", "-o", program,
         os.path.join(DRIVERS, "LibPqMixed.go")],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=TIME_LIMIT,
        env={**os.environ, "GO111MODULE": "off", "GOFLAGS": "",
             "GOPATH": "/usr/share/gocode"})
    assert done.returncode == 0, done.stdout
    return [program]


class Player:
    """A player's process, and the words that are exchanged with it."""

    def __init__(self, driver, command, url, **settings):
        self.driver = driver
        self.said = []
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("PG")}
        environment.update(DATABASE_URL=url, DRIVER=driver,
                           **{"CLIENTS": str(CLIENTS),
                              "TRANSACTIONS": str(TRANSACTIONS), **settings})
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def await_word(self, word):
        """What it says behind that word."""
        for line in self.process.stdout:
            self.said.append(line)
            first, *others = line.split() or [""]
            if first == word:
                return others
        pytest.fail(f"{self.driver} never said {word!r}, but:\n"
                    + "".join(self.said)[-4000:], pytrace=False)

    def tell(self, word):
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass                # what it said before that tells more

    def await_end(self):
        said, _ = self.process.communicate()
        assert self.process.returncode == 0, (
            f"{self.driver} ended with {self.process.returncode}:\n{said}")

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start_players(request):
    """start_players(url): all, or those asked for. A player that is silent
    for too long is ended, which whoever listens to it then hears."""
    request.getfixturevalue("prisma_client")
    commands = {**PLAYERS, "lib_pq": request.getfixturevalue("lib_pq")}
    players = []

    def kill_all():
        for player in players:
            player.process.kill()

    timer = threading.Timer(TIME_LIMIT, kill_all)

    def start(url):
        timer.start()
        for driver in ONLY or PLAYERS:
            players.append(Player(driver, commands[driver], url))
        return players

    yield start
    timer.cancel()
    for player in players:
        player.kill()


def create_tables(cluster):
    """Each driver's schema, of which only the notes' type is not the same
    everywhere."""
    with cluster.superuser("app") as session:
        for at, driver in enumerate(PLAYERS):
            note = ("text", "varchar(80)")[at % 2]
            session.rows(f"DROP SCHEMA IF EXISTS mixed_{driver} CASCADE")
            session.rows(f"CREATE SCHEMA mixed_{driver} AUTHORIZATION app")
            session.rows(f"SET search_path = mixed_{driver}")
            session.rows("CREATE TABLE ledger (id serial PRIMARY KEY,"
                         f" client int, round int, note {note},"
                         " UNIQUE (client, round))")
            session.rows("ALTER TABLE ledger OWNER TO app")


def rows_of(cluster, driver):
    return cluster.rows(f"SELECT client, round, note FROM mixed_{driver}"
                        ".ledger ORDER BY 1, 2", "app")


@pytest.mark.timeout(2 * TIME_LIMIT)
def test_all_drivers_at_once_keep_their_sessions_and_hold_no_server(
        postgres, start_pgsluice, start_players):
    create_tables(postgres)
    pooler = start_pgsluice(default_pool_size=SERVERS, workers=2)
    players = start_players((postgres if IS_DIRECT else pooler).url())
    for player in players:
        player.await_word("ready")
    for player in players:
        player.tell("go")
    backends = {backend for player in players
                for backend in player.await_word("done")}
    if not IS_DIRECT:
        # All of their clients are still there, and none has a server.
        assert len(backends) <= SERVERS
        wait_until(lambda: pooler.pool()["sv_active"] == 0,
                   "idle clients hold no server")
        assert pooler.console("SHOW PINS") == []
    for player in players:
        player.tell("end")
    for player in players:
        player.await_end()
    for player in players:
        driver = player.driver
        assert rows_of(postgres, driver) == [
            [str(client), str(turn), f"{driver}/{client}/{turn}"]
            for client in range(CLIENTS)
            for turn in range(0, TRANSACTIONS, 2)], driver
