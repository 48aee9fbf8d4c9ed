"""From SQLite to Postgres behind pgsluice: the example and its guide."""

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


def test_three_hundred_functions_share_twenty_connections(
        road, cluster, database, start, record_property):
    pooler = start(Pgsluice, cluster, default_pool_size=POOL, databases={
        "*": f"host=127.0.0.1 port={cluster.port}"}, workers=2,
        idle_transaction_timeout="2s")
    session = add_session(cluster, database)
    with Fleet(road, pooler.url(database), session, 1) as fleet:
        machines = fleet.machines
        fleet.start()
        fleet.burst(machines, 2)

        # Some freeze with nothing to do. Of others a third of the pool is
        # in the middle of a transaction: two freeze, and one of those is
        # never heard of again; one dies.
        idle, holding, dying = machines[:3], machines[3:5], machines[5:6]
        others = machines[6:]
        for machine in holding + dying:
            machine.tell("hold", instances=POOL // 3)
        for machine in holding + dying:
            machine.answer()
        for machine in idle + holding:
            machine.freeze()
        dying[0].kill()
        fleet.burst(others, 4)

        # One dies in the middle of a burst, one freezes there for good.
        fleet.begin(others, 4)
        others[0].kill()
        others[1].freeze()
        fleet.finish(others[2:])

        # Who wakes up finds its connections, or is given new ones.
        for machine in (*idle, holding[0]):
            machine.thaw()
        fleet.burst([*idle, holding[0], *others[2:]], 4)

        assert not fleet.errors, fleet.errors[:5]
        assert len(fleet.times) > 3000
        wait_until(lambda: set(backends(cluster, database)) == {"idle"},
                   "nothing under way")
        assert backends(cluster, database)["idle"] <= POOL
        pool = pooler.pool(database)
        assert (pool["sv_active"], pool["cl_waiting"]) == (0, 0)
        assert backends(cluster, database)["idle"] == pool["sv_idle"]

    # What was answered is there, and there once.
    with connect(cluster, database) as connection:
        cursor = connection.cursor()
        cursor.execute('SELECT "clientId" FROM "Message"')
        there = [str(row[0]) for row in cursor]
    connection.close()
    assert not set(fleet.stored) - set(there)
    for share in (0.5, 0.99):
        record_property(f"p{round(share * 100)}_ms", fleet.percentile(share))
    record_property("requests", len(fleet.times))
    print("requests", len(fleet.times), "p50", fleet.percentile(.5), "ms, p99",
          fleet.percentile(.99), "ms")
    wait_until(lambda: pooler.pool(database)["cl_active"] == 0,
               "clients that are gone are forgotten")


def test_without_pgsluice_the_same_functions_fail(
        road, cluster, database, record_property):
    session = add_session(cluster, database)
    with Fleet(road, cluster.url(database), session, 1) as fleet:
        fleet.start()
        fleet.burst(fleet.machines, 2)
    assert fleet.errors
    assert any("too many clients" in error or "remaining connection slots"
               in error for error in fleet.errors), fleet.errors[:5]
    record_property("requests", len(fleet.times))
    record_property("failed", len(fleet.errors))
    record_property("how", fleet.errors[0])
    print(len(fleet.errors), "of", len(fleet.times), "failed:",
          fleet.errors[0])
