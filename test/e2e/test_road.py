"""From SQLite to Postgres behind pgsluice: the example and its guide."""

import pytest

import awkward
from pgsluice import Pgsluice, Postgres
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
