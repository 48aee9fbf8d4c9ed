"""From SQLite to Postgres behind pgsluice: the example and its guide."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import psycopg2
import pytest

import awkward
from certificates import Certificates
from fleet import Fleet
from pgsluice import (TOP, Pgsluice, Postgres, free_port, read, secret,
                      wait_until)
from road_tools import (GUIDE, TIME_LIMIT, Job, Road, blocks, connect,
                        upstream, upstream_text)

MAX_CONNECTIONS = 20
MESSAGES = "/api/messages?conversation=1"


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


def every_row(file, cluster, database):
    """Is in Postgres as it is in SQLite; returns how many there are."""
    with connect(cluster, database) as connection:
        rows = awkward.compare(file, connection)
    connection.close()
    return rows


def test_every_awkward_value_arrives(road, sqlite, cluster, database):
    said = road.copy(sqlite)
    assert every_row(sqlite, cluster, database) > 1000
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


@pytest.mark.timeout(600)
def test_three_hundred_functions_share_twenty_connections(
        road, cluster, database, start, measured):
    pooler = start(Pgsluice, cluster, default_pool_size=POOL, databases={
        "*": f"host=127.0.0.1 port={cluster.port}"}, workers=2,
        idle_transaction_timeout=LONG, tcp_keepidle=1, tcp_keepintvl=1,
        tcp_keepcnt=2)
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
        # transactions of others: two of these freeze, one vanishes.
        idle, holding, dying = machines[:3], machines[3:5], machines[5:6]
        others = machines[6:]
        fleet.tell(holding + dying, "hold", instances=POOL // 3)
        assert pooler.pool(database)["sv_active"] == POOL
        for machine in idle + holding:
            machine.freeze()
        dying[0].vanish()
        free_servers()
        fleet.burst(others, 4)

        # One dies in the middle of a burst, one vanishes there.
        fleet.begin(others[:2], 4)
        wait_until(lambda: pooler.pool(database)["sv_active"], "a burst")
        others[0].kill()
        others[1].vanish()
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
    measured(requests=len(fleet.times), p50_ms=fleet.percentile(0.5),
             p99_ms=fleet.percentile(0.99))


@pytest.mark.timeout(600)
def test_without_pgsluice_the_same_functions_fail(
        road, cluster, database, measured):
    session = add_session(cluster, database)
    with Fleet(road, cluster.url(database), session, 1) as fleet:
        fleet.start()
        fleet.burst(fleet.machines, 2)
    reasons = re.findall(r"too many clients|remaining connection slots",
                         " ".join(fleet.errors))
    assert reasons, fleet.errors[:5]
    measured(requests=len(fleet.times), failed=len(fleet.errors),
             because=reasons[0])


def test_a_hundred_thousand_messages_though_interrupted(
        road, cluster, database, tmp_path, measured):
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
    measured(seconds=round(time.monotonic() - began, 1))
    assert every_row(file, cluster, database) > 100_000


def test_a_copy_of_what_has_changed_meanwhile(
        road, sqlite, cluster, database):
    road.copy(sqlite)
    # SQLite has given out 5000, and deleted it.
    new = "INSERT INTO \"Conversation\" (title) VALUES ('new')"
    assert cluster.rows(f"{new} RETURNING id", database) == [["5001"]]
    change = sqlite3.connect(sqlite)
    change.execute("UPDATE \"Message\" SET body = 'edited', \"replyToId\" ="
                   " 3 WHERE id < 50")
    change.execute(new)
    change.commit()
    change.close()
    road.copy(sqlite)
    assert every_row(sqlite, cluster, database) > 1000
    assert cluster.rows(f"{new} RETURNING id", database) == [["5002"]]


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


def test_a_difference_fails_the_verification(
        road, sqlite, cluster, database):
    road.copy(sqlite)
    for damage in (
            "UPDATE \"Message\" SET body = body || ' ' WHERE id = 70",
            "UPDATE \"Session\" SET expires = expires + interval '1 ms'"
            " WHERE \"sessionToken\" = 'token-5'",
            "DELETE FROM \"Upload\" WHERE id = 'upload-3'",
            "INSERT INTO \"Conversation\" (title) VALUES ('more')",
            "UPDATE \"Profile\" SET interests = '[2]' WHERE id = 7"):
        cluster.rows(damage, database)
    said = road.copy(sqlite, "--verify-only", status=1)
    for table, found in (
            ("Message", "row id = 70 differs"),
            ("Session", "row sessionToken = token-5 differs"),
            ("Upload", "row id = upload-3 is in SQLite only"),
            ("Conversation", "row id = 5001 is in Postgres only"),
            ("Profile", "row id = 7 differs")):
        assert re.search(rf"DIFFERENT {table} .*\n +{found}\n", said), said
    assert re.search("same +User ", said), said


def test_the_guide_from_sqlite_to_a_served_request(
        tmp_path, cluster, database, pooler):
    road = Road(tmp_path / "app", pooler.url(database))
    file = road.path("dev.db")
    awkward.create(file, road.path("prisma", "migrations"))
    schema, data, smoke, back = blocks(GUIDE, "sh")

    # As it was on SQLite
    road.run("npm", "run", "build")
    with road.serve("file:" + file) as app:
        before = app.get(MESSAGES)
    assert len(before) == 25

    road.run_script(schema)
    assert "CREATE TYPE" in road.migration("init")
    said = road.run_script(data)
    assert "same      Message" in said
    assert every_row(file, cluster, database) > 1000
    with road.serve(road.url) as app:
        assert app.get(MESSAGES) == before
        app.refuses("/api/messages?conversation=11", 404)

    assert "ok  send, read, upload record" in road.run_script(smoke)
    assert every_row(file, cluster, database) > 1000    # nothing is left of it

    road.run_script(back)
    assert cluster.rows('SELECT count(*) FROM "User"', database) == [["0"]]
    assert not cluster.rows(
        "SELECT datname FROM pg_database WHERE datname LIKE '%shadow%'")


def test_the_readme_leads_to_the_app(tmp_path, cluster, database, pooler):
    section = read(os.path.join(TOP, "README.md")).split(
        "## From SQLite to Postgres")[1].split("\n## ")[0]
    first, *lines = re.findall(r"^    (.*)$", section, re.MULTILINE)
    assert first.startswith("cp -r doc/examples/vercel-prisma ")
    road = Road(tmp_path / "app", pooler.url(database))
    said = road.run_script("\n".join(lines))
    assert "ok  send, read, upload record" in said


def test_the_workflow_migrates_deploys_and_can_go_back(
        ported, tmp_path, sqlite, cluster, database, pooler):
    cluster.rows(f'CREATE DATABASE "{database}_s" OWNER app')
    job = Job(Road(tmp_path / "app").like(ported), pooler.url(database),
              shadow=pooler.url(f"{database}_s"))
    names = list(job.steps)
    with job.road.serve(job.road.url) as app:
        job.deploys_to(app.address)
        for name in names[:names.index("Build")]:
            job.run(name)
        assert cluster.rows('SELECT count(*) FROM "User"', database)
        assert not job.vercel_was_told()
        for name in names[names.index("Build"):]:
            job.run(name)
    pull, build, deploy = job.vercel_was_told()
    assert "production" in pull and "production" in build
    assert deploy.startswith("deploy --prebuilt")
    job.road.copy(sqlite)

    # One that should not have been
    job.road.write_migration("2_bad", 'ALTER TABLE "Message" DROP COLUMN body;'
                             ' DELETE FROM "Upload"')
    job.fails("Do migrations and schema agree?")
    job.run("Take the rollback point")
    job.run("Migrate")
    point = sorted(os.listdir(job.road.path("rollback")))[-1]
    job.road.run("scripts/rollback_point", "restore", f"rollback/{point}")
    assert every_row(sqlite, cluster, database) > 1000
    assert cluster.rows("SELECT migration_name FROM _prisma_migrations",
                        database) == [["1_init"]]
    cluster.rows(f'DROP DATABASE "{database}_s" WITH (FORCE)')


def test_previews_that_deploy_at_the_same_time_wait_for_one_another(
        ported, road, tmp_path, cluster, database, pooler):
    cluster.rows("CREATE TABLE _prisma_migrations (id varchar(36) PRIMARY KEY,"
                 " checksum varchar(64) NOT NULL, finished_at timestamptz,"
                 " migration_name varchar(255) NOT NULL, logs text,"
                 " rolled_back_at timestamptz, started_at timestamptz NOT NULL"
                 " DEFAULT now(), applied_steps_count int NOT NULL DEFAULT 0);"
                 " ALTER TABLE _prisma_migrations OWNER TO app", database)
    jobs = []
    for number in range(2):
        preview = Road(tmp_path / str(number), road.url).like(ported)
        shutil.rmtree(preview.path("prisma", "migrations", "1_init"))
        preview.write_migration("2_nick", 'ALTER TABLE "User"'
                                " ADD COLUMN nick text")
        jobs.append(Job(preview, road.url))

    def states():
        return sorted(row["state"] for row in
                      pooler.console("SHOW MIGRATIONS"))

    # The first cannot get on, as somebody has the table.
    with connect(cluster, database) as somebody:
        somebody.cursor().execute('LOCK TABLE "User"')
        deploys = [job.start("Migrate") for job in jobs]
        wait_until(lambda: "waiting" in states() and len(
            set(states()) & {"claimed", "exclusive", "draining"}),
            "one has the lock, one waits for it")
    somebody.close()
    said = [job.road.finish(deploy) for job, deploy in zip(jobs, deploys)]
    assert sorted("2_nick" in it for it in said) == [False, True], said
    assert cluster.rows("SELECT count(*) FROM _prisma_migrations",
                        database) == [["1"]]


# Connections that the smallest plan has room for
ROOM = {"neon": 97, "supabase": 60, "rds": 75, "railway": 97}


@pytest.mark.parametrize("provider", ROOM)
def test_the_configuration_for_a_provider(
        provider, postgres_tls, start, tmp_path):
    def start_with(server_authority):
        port = free_port()
        path = upstream(provider, tmp_path, {
            "host": "localhost", "port": postgres_tls.port, "dbname": "app",
            "sslrootcert": server_authority}, {
            "listen_addr": "127.0.0.1", "listen_port": port,
            "client_tls_cert_file": server[0],
            "client_tls_key_file": server[1]})
        start(Pgsluice, None, arguments=[path], listen_port=port,
              unix_socket_dir=None)
        return psycopg2.connect(
            host="localhost", port=port, user="app", password=secret("app"),
            dbname="app", sslmode="verify-full", sslrootcert=ours.ca)

    ours = Certificates(str(tmp_path))
    server = ours.server("pooler")
    settings = dict(re.findall(r"^(\w+) = (\d+)$", upstream_text(provider),
                               re.MULTILINE))
    assert (int(settings["default_pool_size"])
            < int(settings["max_db_connections"]) < ROOM[provider])

    connection = start_with(postgres_tls.certificates.ca)
    cursor = connection.cursor()
    cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert cursor.fetchone() == (True,)
    connection.close()
    with pytest.raises(psycopg2.OperationalError, match="certificate"):
        start_with(ours.ca)


def load(file, url):
    """pgloader, which says that all is well whatever happens."""
    return subprocess.run(
        ["pgloader", "--with", "data only", "--with", "quote identifiers",
         file, url], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=True,
        timeout=TIME_LIMIT).stdout


def test_pgloader_works_through_pgsluice(
        cluster, database, pooler, tmp_path):
    file = str(tmp_path / "plain.db")
    tables = ("CREATE TABLE author (id integer PRIMARY KEY, name text);"
              "CREATE TABLE book (id integer PRIMARY KEY, title text,"
              " author integer REFERENCES author (id));")
    sqlite = sqlite3.connect(file)
    sqlite.executescript(tables)
    sqlite.executemany("INSERT INTO author VALUES (?, ?)",
                       [(n, f"author {n} é") for n in range(500)])
    sqlite.executemany("INSERT INTO book VALUES (?, ?, ?)",
                       [(n, f"book\t{n}", n % 500) for n in range(5000)])
    sqlite.commit()
    sqlite.close()
    cluster.rows(tables + "ALTER TABLE author OWNER TO app;"
                 " ALTER TABLE book OWNER TO app", database)
    said = load(file, pooler.url(database))
    assert "ERROR" not in said, said
    rows = cluster.rows("SELECT title, name FROM book JOIN author"
                        " ON author = author.id ORDER BY book.id", database)
    assert rows == [[f"book\t{n}", f"author {n % 500} é"]
                    for n in range(5000)]
    assert not pooler.console("SHOW PINS")


def test_pgloader_loses_rows_of_prisma_as_the_guide_says(
        road, sqlite, cluster, database):
    keys = "SELECT conname FROM pg_constraint WHERE contype = 'f'"
    before = cluster.rows(keys, database)
    said = load(sqlite, road.url)
    assert 'out of range: "1700000000123-01-01"' in said, said
    assert cluster.rows('SELECT count(*) FROM "Message"', database) == [["0"]]
    assert len(cluster.rows(keys, database)) < len(before)
