"""From SQLite to Postgres behind pgsluice: the example and its guide."""

import os
import re
import signal
import sqlite3
import time

import pytest

import awkward
from fleet import Fleet
from pgsluice import Pgsluice, Postgres, wait_until
from road_tools import Road, connect

MAX_CONNECTIONS = 20


@pytest.fixture(name="cluster", scope="module")
def cluster_():
    """A Postgres as a small plan at a provider has it."""
    cluster = Postgres(max_connections=MAX_CONNECTIONS)
    try:
        cluster.start()
        cluster.rows("ALTER ROLE app CREATEDB")     # for shadow databases
        yield cluster
    finally:
        cluster.stop()
        cluster.clean()


@pytest.fixture(name="database")
def database_(cluster, request):
    """An empty one, owned by app."""
    name = request.node.name[:60]
    cluster.rows(f'CREATE DATABASE "{name}" OWNER app')
    yield name
    cluster.rows(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(name="pooler")
def pooler_(cluster, start):
    return start(Pgsluice, cluster, databases={
        "*": f"host=127.0.0.1 port={cluster.port}"}, default_pool_size=10,
        workers=2)


@pytest.fixture(name="ported", scope="module")
def ported_(cluster, tmp_path_factory):
    """The example, its provider changed to Postgres."""
    return Road(tmp_path_factory.mktemp("ported"),
                cluster.url()).to_postgres()


@pytest.fixture(name="road")
def road_(ported, cluster, database, pooler):
    """The same, with its tables in an empty database behind pgsluice."""
    with connect(cluster, database) as connection:
        connection.cursor().execute(ported.schema())
    connection.close()
    ported.url = pooler.url(database)
    return ported


@pytest.fixture(name="sqlite")
def sqlite_(ported, tmp_path):
    path = str(tmp_path / "dev.db")
    awkward.create(path, ported.path("prisma", "migrations-sqlite"))
    return path


def test_every_awkward_value_arrives(road, sqlite, cluster, database):
    said = road.copy(sqlite)
    with connect(cluster, database) as connection:
        assert awkward.compare(sqlite, connection) > 1000
    connection.close()
    assert "DIFFERENT" not in said


def add_session(cluster, database):
    """A user who is signed in and takes part in conversation 1; returns the
    token of the session."""
    with connect(cluster, database) as connection:
        cursor = connection.cursor()
        for sql in (
                "INSERT INTO \"User\" (id, email) VALUES ('u', 'u@x')",
                'INSERT INTO "Session" VALUES'
                " ('a-token', 'u', now() + interval '1 day')",
                'INSERT INTO "Conversation" (id, title) VALUES (1, \'all\')',
                'INSERT INTO "Member" ("conversationId", "userId")'
                " VALUES (1, 'u')"):
            cursor.execute(sql)
    connection.close()
    return "a-token"


def backends(cluster, database):
    """Of Postgres, by what they are doing."""
    rows = cluster.rows("SELECT state, count(*) FROM pg_stat_activity"
                        f" WHERE datname = '{database}' GROUP BY 1")
    return {state: int(count) for state, count in rows}


POOL = 15
LONG = "60s"


def test_three_hundred_functions_share_twenty_connections(
        road, cluster, database, start, record_property):
    pooler = start(Pgsluice, cluster, default_pool_size=POOL, databases={
        "*": f"host=127.0.0.1 port={cluster.port}"}, workers=2,
        idle_transaction_timeout=LONG)
    session = add_session(cluster, database)

    def free_servers():
        """Of those who hold one and will not let go."""
        pooler.configure(idle_transaction_timeout="1s")
        wait_until(lambda: set(backends(cluster, database)) <= {"idle"},
                   "nobody holds a server")
        pooler.configure(idle_transaction_timeout=LONG)

    with Fleet(road, pooler.url(database), session, 1) as fleet:
        machines = fleet.machines
        fleet.start()
        fleet.burst(machines, 2)

        # Some freeze with nothing to do. The whole pool is in the middle of
        # transactions of others: two of these freeze, one dies.
        idle, holding, dying = machines[:3], machines[3:5], machines[5:6]
        others = machines[6:]
        fleet.tell(holding + dying, "hold", instances=POOL // 3)
        assert pooler.pool(database)["sv_active"] == POOL
        for machine in idle + holding:
            machine.freeze()
        dying[0].kill()
        free_servers()
        fleet.burst(others, 4)

        # One dies in the middle of a burst; one freezes there and is never
        # heard of again, as if its network had gone.
        fleet.begin(others[:2], 4)
        wait_until(lambda: pooler.pool(database)["sv_active"], "a burst")
        others[0].kill()
        others[1].freeze()
        free_servers()

        # Who wakes up finds its connections, or is given new ones.
        awake = [*idle, holding[0], *others[2:]]
        for machine in awake:
            machine.thaw()
        fleet.burst(awake, 4)

        assert not fleet.errors, fleet.errors[:5]
        wait_until(lambda: set(backends(cluster, database)) == {"idle"},
                   "nothing under way")
        pool = pooler.pool(database)
        assert (pool["sv_active"], pool["cl_waiting"]) == (0, 0)
        assert backends(cluster, database)["idle"] == pool["sv_idle"] <= POOL

    wait_until(lambda: not pooler.pool(database)["cl_active"],
               "those who are gone are forgotten")
    # What was answered is there, and there once: clientId is unique.
    there = cluster.rows('SELECT "clientId" FROM "Message"', database)
    assert set(fleet.stored) <= {row[0] for row in there}
    record_property("requests", len(fleet.times))
    for share in (50, 99):
        record_property(f"p{share}_ms", fleet.percentile(share / 100))


def test_without_pgsluice_the_same_functions_fail(
        road, cluster, database, record_property):
    session = add_session(cluster, database)
    with Fleet(road, cluster.url(database), session, 1) as fleet:
        fleet.start()
        fleet.burst(fleet.machines, 2)
    reasons = re.findall(r"too many clients|remaining connection slots",
                         " ".join(fleet.errors))
    assert reasons, fleet.errors[:5]
    record_property("requests", len(fleet.times))
    record_property("failed", len(fleet.errors))
    record_property("how", reasons[0])


def test_a_hundred_thousand_messages_though_interrupted(
        road, cluster, database, tmp_path, record_property):
    file = str(tmp_path / "large.db")
    awkward.create(file, road.path("prisma", "migrations-sqlite"),
                   messages=100_000)

    def copied():
        return int(cluster.rows('SELECT count(*) FROM "Message"',
                                database)[0][0])

    first = road.start_copy(file)
    wait_until(copied, "the first messages are there")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert 0 < copied() < 100_000

    began = time.monotonic()
    road.copy(file)
    record_property("seconds", round(time.monotonic() - began, 1))
    with connect(cluster, database) as connection:
        assert awkward.compare(file, connection) > 100_000
    connection.close()


def test_a_copy_of_what_has_changed_meanwhile(
        road, sqlite, cluster, database):
    road.copy(sqlite)
    change = sqlite3.connect(sqlite)
    change.execute("UPDATE \"Message\" SET body = 'edited', \"replyToId\" ="
                   " 3 WHERE id < 50")
    change.execute("INSERT INTO \"Conversation\" (title) VALUES ('new')")
    change.commit()
    change.close()
    road.copy(sqlite)
    with connect(cluster, database) as connection:
        awkward.compare(sqlite, connection)
    connection.close()
    # 5001 was the next one in SQLite, and has been used there.
    assert cluster.rows("INSERT INTO \"Conversation\" (title)"
                        " VALUES ('newer') RETURNING id",
                        database) == [["5002"]]


def test_what_postgres_cannot_hold_is_reported_and_nothing_written(
        road, sqlite, cluster, database):
    change = sqlite3.connect(sqlite)
    for sql in (
            "UPDATE \"Message\" SET body = 'a' || char(0) || 'b'"
            " WHERE id = 7",
            "UPDATE \"User\" SET name = CAST(x'ff41' AS TEXT)"
            " WHERE email = '3@x.example'",
            "UPDATE \"User\" SET role = 'KING' WHERE email = '4@x.example'",
            "UPDATE \"Profile\" SET interests = '[\"\\u0000\"]'"
            " WHERE id = 2",
            "UPDATE \"Profile\" SET interests = '[1' WHERE id = 3",
            "UPDATE \"Profile\" SET \"isPublic\" = 2 WHERE id = 4",
            "UPDATE \"Session\" SET expires = 'tomorrow'"
            " WHERE \"sessionToken\" = 'token-5'",
            "UPDATE \"Session\" SET expires = '2023-02-29T00:00:00Z'"
            " WHERE \"sessionToken\" = 'token-6'",
            "UPDATE \"Account\" SET expires_at = 2147483648"
            " WHERE \"providerAccountId\" = '9'"):
        assert change.execute(sql).rowcount == 1, sql
    change.commit()
    change.close()
    said = road.copy(sqlite, status=1)
    for problem in (
            'Message, row id = 7, column body: NUL byte at character 2 of'
            ' "a\\u0000b"',
            "User, row id = \"user'3\", column name: a BLOB of 2 bytes is not"
            " text in UTF-8",
            "User, row id = \"user'4\", column role: \"KING\" is not of",
            "Profile, row id = 2, column interests: NUL byte (\\u0000) in",
            'Profile, row id = 3, column interests: "[1" is not JSON',
            "Profile, row id = 4, column isPublic: 2 is not a boolean",
            'row sessionToken = "token-5", column expires: "tomorrow" is not'
            " a time",
            'row sessionToken = "token-6", column expires: '
            '"2023-02-29T00:00:00Z" is not a time',
            'Account, row provider = "github", providerAccountId = "9",'
            " column expires_at: 2147483648 is not an integer of 32 bits"):
        assert problem in said, said
    assert cluster.rows('SELECT count(*) FROM "User"', database) == [["0"]]


def test_nul_bytes_are_taken_out_if_that_is_asked_for(
        road, sqlite, cluster, database):
    change = sqlite3.connect(sqlite)
    change.execute("UPDATE \"Message\" SET body = 'a' || char(0) || 'b'"
                   " WHERE id = 7")
    change.execute("UPDATE \"Profile\" SET interests ="
                   " '[\"\\u0000 \\\\u0000\"]' WHERE id = 2")
    change.commit()
    change.close()
    road.copy(sqlite, "--remove-nul")
    assert cluster.rows('SELECT body, interests FROM "Message", "Profile" p'
                        ' WHERE "Message".id = 7 AND p.id = 2',
                        database) == [["ab", '[" \\\\u0000"]']]


@pytest.mark.parametrize("damage, found", [
    ("UPDATE \"Message\" SET body = body || ' ' WHERE id = 70",
     "row id = 70 differs"),
    ("UPDATE \"Session\" SET expires = expires + interval '1 ms'"
     " WHERE \"sessionToken\" = 'token-5'",
     "row sessionToken = token-5 differs"),
    ("DELETE FROM \"Upload\" WHERE id = 'upload-3'",
     "row id = upload-3 is in SQLite only"),
    ("INSERT INTO \"Conversation\" (title) VALUES ('more')",
     "is in Postgres only"),
    ("UPDATE \"Profile\" SET interests = '[]' WHERE id = 7",
     "row id = 7 differs"),
])
def test_a_difference_fails_the_verification(
        road, sqlite, cluster, database, damage, found):
    road.copy(sqlite)
    cluster.rows(damage, database)
    said = road.copy(sqlite, "--verify-only", status=1)
    assert "DIFFERENT" in said and found in said, said
