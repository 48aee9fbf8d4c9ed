"""Drivers go on while the schema changes, as well as on a connection of their
own: those that Postgres would give an error that they know how to take, and
those that would be lost directly.

A player (drivers/plans.py, drivers/PgJdbcPlans.java, node/plans.mjs) has
CLIENTS connections. It says "ready", and at each "round" asks ROUNDS times on
each of them, and on two new ones, for the one row of the table `thing`; then
it says "did" and what it got on the old ones and the new ones, columns by
name, each answer once. A schema may change in the middle of a round: then
there are answers of before and after, but none between them.

    PLANS_DIRECT     not empty: without pgsluice, to see what a driver does
"""

import json
import os
import subprocess

import pytest

from pgsluice import connect
from test_drivers import java, node, python
from test_drivers_mixed import Player

CLIENTS = 8
ROUNDS = 25
IS_DIRECT = bool(os.environ.get("PLANS_DIRECT"))

DRIVERS = {
    "asyncpg": python("plans"),
    "psycopg3": python("plans"),
    "pg": node("plans"),
    "postgresjs": node("plans"),
    "pgjdbc": java("PgJdbcPlans"),
}
# What is done to the table, and what its row is then.
CHANGES = [
    ("ALTER TABLE thing ADD COLUMN b text DEFAULT 'b'",
     {"id": "1", "a": "a", "b": "b"}),
    ("ALTER TABLE thing DROP COLUMN a", {"id": "1", "b": "b"}),
    ("ALTER TABLE thing ALTER id TYPE text USING 'n' || id",
     {"id": "n1", "b": "b"}),
    ("ALTER TABLE thing RENAME b TO c", {"id": "n1", "c": "b"}),
    ("ALTER TABLE thing RENAME TO other_thing;"
     "CREATE VIEW thing AS SELECT 7 AS id, id AS text FROM other_thing",
     {"id": "7", "text": "n1"}),
]
FIRST = {"id": "1", "a": "a"}
CREATE = """CREATE TABLE thing (id int, a text);
INSERT INTO thing VALUES (1, 'a')"""


# Who has how many servers, and who makes the changes.
PLACES = {
    "pool1": ("postgres", 1, False),
    "pool5_outside": ("postgres", 5, True),
    "pg18_pool5": ("postgres_18", 5, False),
    "pg18_pool1_outside": ("postgres_18", 1, True),
}


class Place:
    def __init__(self, cluster, pooler, changer):
        self.url = (cluster if IS_DIRECT else pooler).url()
        self.changer = changer


@pytest.fixture(params=PLACES)
def place(request, start_pgsluice):
    name, servers, from_outside = PLACES[request.param]
    cluster = request.getfixturevalue(name)
    with cluster.connect() as session:
        session.query("DROP TABLE thing CASCADE")
        session.rows(CREATE)
    pooler = start_pgsluice(cluster, default_pool_size=servers, workers=2)
    with connect(cluster if from_outside or IS_DIRECT else pooler,
                 "app", "app") as changer:
        yield Place(cluster, pooler, changer)
    with cluster.connect() as session:
        session.query("DROP VIEW thing")
        session.rows("DROP TABLE IF EXISTS thing, other_thing")


def answers(player):
    """Of the old clients and of the new ones."""
    said = json.loads(" ".join(player.await_word("did")))
    return [[json.loads(row) for row in rows] for rows in said]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_goes_on_while_the_schema_changes(driver, place):
    player = Player(driver, DRIVERS[driver], place.url,
                    CLIENTS=str(CLIENTS), ROUNDS=str(ROUNDS))
    try:
        player.await_word("ready")
        player.tell("round")
        assert answers(player) == [[FIRST], [FIRST]]
        before = FIRST
        for sql, after in CHANGES:
            player.tell("round")
            place.changer.rows(sql)
            for rows in answers(player):
                assert all(row in (before, after) for row in rows), (
                    sql, rows)
            player.tell("round")
            assert answers(player) == [[after], [after]], sql
            before = after
        player.tell("end")
        player.await_end()
    finally:
        player.kill()


def test_pgbench_goes_on_while_the_schema_changes(place, tmp_path):
    """It has never heard of a statement that is stale."""
    script = tmp_path / "thing.sql"
    script.write_text("SELECT * FROM thing;\n")
    command = ["/usr/lib/postgresql/15/bin/pgbench", "-n", "-M", "prepared",
               "-c", str(CLIENTS), "-j", "2", "-t", "200", "-f", str(script),
               place.url]
    changes = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as pgbench:
        while pgbench.poll() is None:
            changes += 1
            place.changer.rows("ALTER TABLE thing ALTER a TYPE"
                               f" varchar({changes})")
        said = pgbench.stdout.read()
    assert pgbench.returncode == 0 and "aborted" not in said, said
    assert changes > 1
