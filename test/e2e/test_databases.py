"""Databases that clients create and drop: known at once, forgotten in time, and
no idle server in the way of a DROP DATABASE."""

import contextlib
import itertools
import threading

import psycopg2
import pytest

import wire
from contract_tools import batch, refused, told
from pgsluice import secret, wait_until

pytestmark = pytest.mark.core

numbers = itertools.count(1)

ASK_FOR = """
    CREATE OR REPLACE FUNCTION ask_for(name text, OUT usename name,
        OUT passwd text) SECURITY DEFINER LANGUAGE sql AS
    $$SELECT usename, passwd FROM pg_shadow WHERE usename = name$$"""


def name_of_one():
    """One that no other test uses; it has to be quoted."""
    return f"prisma_migrate_shadow_db_A{next(numbers)}-4b"


def plain(cluster):
    """[databases] of one that leads to the cluster, and nowhere else."""
    return {"app": f"host=127.0.0.1 port={cluster.port} dbname=app"}


def with_fallback(cluster):
    return {**plain(cluster), "*": f"host=127.0.0.1 port={cluster.port}"}


@pytest.fixture(autouse=True)
def creators(any_postgres):
    """Those who may create databases; what a failed test leaves is dropped."""
    rows = any_postgres.rows
    for user in ("app", "scram_user"):
        rows(f"ALTER ROLE {user} CREATEDB")
    yield
    for (name,) in rows("SELECT datname FROM pg_database WHERE datname"
                        " NOT IN ('app', 'other') AND NOT datistemplate"
                        " AND datname <> 'postgres'"):
        rows(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["alone", "with fallback"])
def pooler(request, start_pgsluice, any_postgres):
    """Without and with an entry `*`."""
    databases = plain if request.param == "alone" else with_fallback
    return start_pgsluice(any_postgres, databases=databases(any_postgres))


def sessions(cluster, name):
    """How many are connected to this database."""
    (count,), = cluster.rows("SELECT count(*) FROM pg_stat_activity"
                             f" WHERE datname = '{name}'")
    return int(count)


def exists(cluster, name):
    return bool(cluster.rows("SELECT 1 FROM pg_database"
                             f" WHERE datname = '{name}'"))


@contextlib.contextmanager
def driver(pooler, name="app", user="app"):
    """A psycopg2 connection without transactions."""
    link = psycopg2.connect(pooler.url(name, user))
    try:
        link.autocommit = True
        yield link
    finally:
        link.close()


def run(link, sql, *values):
    with link.cursor() as cursor:
        cursor.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else None


def use_shadow(pooler, name, user="app"):
    """What goes on in a shadow database, and that it goes on there."""
    with driver(pooler, name, user) as shadow:
        assert run(shadow, "SELECT current_database(), current_user") == [
            (name, user)]
        run(shadow, "CREATE TEMP TABLE t (a int)")
        run(shadow, "BEGIN; INSERT INTO t VALUES (1); COMMIT")


def shadow_round(pooler, main, drop, user="app"):
    name = name_of_one()
    run(main, f'CREATE DATABASE "{name}"')
    use_shadow(pooler, name, user)
    use_shadow(pooler, name, user)
    run(main, drop.format(f'"{name}"'))
    return name


DROPS = ("DROP DATABASE IF EXISTS {} WITH (FORCE)", "DROP DATABASE {}")


def make_used(pooler, cluster, name, idle=1):
    """A database that nobody has created through the pooler, and that has so
    many idle servers there."""
    cluster.rows(f'CREATE DATABASE "{name}" OWNER app')
    with pooler.connect(database=name) as client:
        assert client.value("SELECT current_database()") == name
    wait_until(lambda: pooler.pool(name)["sv_idle"] == idle, "idle servers")
    assert sessions(cluster, name) == idle


# The shadow database of a migration tool

@pytest.mark.parametrize("drop", DROPS)
def test_a_shadow_database_is_created_used_and_dropped(
        pooler, any_postgres, drop):
    with driver(pooler) as main:
        for _ in range(3):
            name = shadow_round(pooler, main, drop)
            assert not exists(any_postgres, name)


def test_two_tools_at_once_on_two_workers(start_pgsluice, any_postgres):
    pooler = start_pgsluice(any_postgres, databases=plain(any_postgres),
                            workers=2, default_pool_size=1)
    failures = []

    def tool(user, drop):
        try:
            with driver(pooler, user=user) as main:
                for _ in range(20):
                    shadow_round(pooler, main, drop, user)
        except Exception as error:      # pylint: disable=broad-except
            failures.append(error)

    threads = [threading.Thread(target=tool, args=arguments)
               for arguments in zip(("app", "scram_user"), DROPS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# Who knows the name

def test_a_name_is_known_from_its_creation_to_its_drop(
        start_pgsluice, any_postgres):
    pooler = start_pgsluice(any_postgres, databases=plain(any_postgres))
    name = name_of_one()

    def is_shown():
        return name in [row["name"]
                        for row in pooler.console("SHOW DATABASES")]

    refused(pooler, "3D000", database=name)
    assert not is_shown()
    with pooler.connect() as main:
        main.rows(f'CREATE DATABASE "{name}"')
        assert is_shown()
        use_shadow(pooler, name)
        main.rows(f'DROP DATABASE "{name}"')
        refused(pooler, "3D000", database=name)
        assert not is_shown()
        main.rows(f'CREATE DATABASE "{name}"')
        use_shadow(pooler, name)
        main.rows(f'DROP DATABASE "{name}"')


def test_what_could_not_be_created_is_not_known(start_pgsluice, any_postgres):
    pooler = start_pgsluice(any_postgres, databases=plain(any_postgres))
    with pooler.connect() as main:
        for sql in ("CREATE DATABASE x TEMPLATE nowhere",
                    "SELECT 1; CREATE DATABASE x",
                    "BEGIN; CREATE DATABASE x"):
            assert "E" in main.shapes(main.query(sql))
            main.query("ROLLBACK")
            refused(pooler, "3D000", database="x")
        told(main.query("DROP DATABASE x"), "ERROR", "3D000")
        assert main.value("SELECT 1") == "1"


def test_other_users_may_come_in_by_the_usual_proof(pooler):
    name = name_of_one()
    with pooler.connect() as main:
        main.rows(f'CREATE DATABASE "{name}"')
        use_shadow(pooler, name, "scram_user")
        refused(pooler, "28P01", database=name, password="wrong")
        main.rows(f'DROP DATABASE "{name}"')


def test_a_database_created_from_within_a_created_one(
        start_pgsluice, any_postgres):
    pooler = start_pgsluice(any_postgres, databases=plain(any_postgres))
    with pooler.connect() as main:
        main.rows("CREATE DATABASE first")
        with pooler.connect(database="first") as inner:
            inner.rows("CREATE DATABASE second")
        main.rows("DROP DATABASE first")
        use_shadow(pooler, "second")
        main.rows("DROP DATABASE second")


def test_a_rename_is_followed(start_pgsluice, any_postgres):
    pooler = start_pgsluice(any_postgres, databases=plain(any_postgres))
    with pooler.connect() as main:
        main.rows('CREATE DATABASE "Old"')
        use_shadow(pooler, "Old")
        main.rows('ALTER DATABASE "Old" RENAME TO New')
        refused(pooler, "3D000", database="Old")
        use_shadow(pooler, "new")
        main.rows("DROP DATABASE new")


def test_a_reload_in_the_middle(start_pgsluice, any_postgres):
    pooler = start_pgsluice(any_postgres, databases=plain(any_postgres))
    with pooler.connect() as main:
        main.rows("CREATE DATABASE x")
        with pooler.connect(database="x") as shadow:
            shadow.rows("SELECT 1")
            pooler.reload()
            shadow.rows("SELECT 1")
        use_shadow(pooler, "x")
        pooler.configure(default_pool_size=2)
        use_shadow(pooler, "x")
        main.rows("DROP DATABASE x")
        refused(pooler, "3D000", database="x")
        # With the entry it came from it goes, too.
        main.rows("CREATE DATABASE x")
        pooler.databases = {"other": pooler.databases["app"]}
        pooler.reload()
        refused(pooler, "3D000", database="x")


def test_where_the_fallback_leads_elsewhere_the_name_is_its_creators(
        start_pgsluice, postgres, postgres_18, any_postgres):
    elsewhere = postgres if any_postgres is postgres_18 else postgres_18
    pooler = start_pgsluice(any_postgres, databases={
        **plain(any_postgres),
        "*": f"host=127.0.0.1 port={elsewhere.port}"})
    with pooler.connect() as main:
        main.rows("CREATE DATABASE x")
        use_shadow(pooler, "x")
        refused(pooler, "3D000", "scram_user", "x")
        elsewhere.rows("CREATE DATABASE x")
        try:
            use_shadow(pooler, "x")
            assert sessions(elsewhere, "x") == 0
            main.rows("DROP DATABASE x")
            # Now for its creator, too, it is where `*` leads.
            use_shadow(pooler, "x")
        finally:
            elsewhere.rows("DROP DATABASE x WITH (FORCE)")


def test_an_entry_of_that_name_goes_first(start_pgsluice, any_postgres):
    pooler = start_pgsluice(any_postgres, databases={
        **plain(any_postgres), "x": plain(any_postgres)["app"]})
    with pooler.connect() as main:
        main.rows("CREATE DATABASE x")
        with pooler.connect(database="x") as client:
            assert client.value("SELECT current_database()") == "app"
        main.rows("DROP DATABASE x")


def test_users_are_asked_for_where_the_creator_came_in(
        start_pgsluice, any_postgres):
    pooler = start_pgsluice(
        any_postgres, databases=plain(any_postgres),
        secrets={"app": secret("app"), "admin": secret("admin"),
                 "trust_user": secret("trust_user")},
        auth_user="trust_user",
        auth_query="SELECT usename, passwd FROM ask_for($1)")
    any_postgres.rows(ASK_FOR, database="app")
    with pooler.connect() as main:
        main.rows("CREATE DATABASE x")
        use_shadow(pooler, "x", "scram_user")
        refused(pooler, "28P01", "scram_user", "x", "wrong")
        main.rows("DROP DATABASE x")


# Servers in the way

def test_the_servers_of_a_created_database_go_with_its_last_client(
        pooler, any_postgres):
    with pooler.connect() as main:
        main.rows("CREATE DATABASE x")
        with pooler.connect(database="x") as first:
            with pooler.connect(database="x") as second:
                first.rows("BEGIN")
                second.rows("SELECT 1; SET work_mem = '1MB'")
                first.rows("SELECT 1")
            first.rows("COMMIT")
            assert pooler.pool("x")["sv_idle"] > 0
            assert sessions(any_postgres, "x") > 0
        wait_until(lambda: sessions(any_postgres, "x") == 0, "nobody in x")
        # Also of one that goes in the middle.
        with pooler.connect(database="x") as client:
            client.rows("BEGIN")
            client.rows("SELECT 1")
        wait_until(lambda: sessions(any_postgres, "x") == 0, "nobody in x")
        assert pooler.pool("x")["sv_idle"] == 0
        main.rows("DROP DATABASE x")


WAYS = {
    "simple": lambda client, sql: client.query(sql),
    "extended": lambda client, sql: (
        client.send(batch(sql), wire.sync()), client.until_ready())[1],
    "prepared": lambda client, sql: (
        client.send(wire.parse("s", sql), wire.sync(),
                    wire.bind("", "s"), wire.execute(), wire.sync()),
        client.until_ready() + client.until_ready())[1],
}
KINDS = {
    "transaction": {},
    "session": {"pool_mode": "session"},
    "untracked": {"max_prepared_statements": 0},
    "two workers": {"workers": 2},
    "kept open": {"min_pool_size": 1},
}


@pytest.mark.parametrize("kind, way", [
    *(("transaction", way) for way in WAYS),
    *((kind, "extended") for kind in KINDS if kind != "transaction"),
])
def test_idle_servers_are_gone_before_a_drop(
        start_pgsluice, any_postgres, kind, way):
    databases = with_fallback(any_postgres)
    databases["x"] = f"host=127.0.0.1 port={any_postgres.port} user=app"
    pooler = start_pgsluice(any_postgres, databases=databases, **KINDS[kind])
    make_used(pooler, any_postgres, "x")
    with pooler.connect() as main:
        answer = WAYS[way](main, "DROP DATABASE x")
        assert [got.kind for got in answer if got.kind in "EC"] == ["C"]
        assert not exists(any_postgres, "x")
        assert main.value("SELECT 1") == "1"


@pytest.mark.parametrize("sql", [
    'CREATE DATABASE copy TEMPLATE "X"',
    'ALTER DATABASE "X" RENAME TO other_x',
])
def test_idle_servers_are_gone_before_a_copy_or_a_rename(
        start_pgsluice, any_postgres, sql):
    pooler = start_pgsluice(any_postgres,
                            databases=with_fallback(any_postgres))
    make_used(pooler, any_postgres, "X")
    with pooler.connect() as main:
        main.rows(sql)


def listens(pooler, name):
    return [row for row in pooler.console("SHOW SERVERS")
            if (row["database"], row["state"]) == (name, "listening")]


def test_one_that_only_listened_is_not_in_the_way(pooler, any_postgres):
    any_postgres.rows("CREATE DATABASE y OWNER app")
    with pooler.connect() as main:
        main.rows("CREATE DATABASE x")
        for name in ("x", "y") if "*" in pooler.databases else ("x",):
            with pooler.connect(database=name) as client:
                client.rows("LISTEN here")
                wait_until(lambda: listens(pooler, name), "it listens")
            main.rows(f"DROP DATABASE {name}")


def test_a_server_that_is_given_back_meanwhile_is_closed(
        start_pgsluice, any_postgres):
    databases = with_fallback(any_postgres)
    databases["x"] = (f"host=127.0.0.1 port={any_postgres.port} user=app"
                      " min_pool_size=2")
    pooler = start_pgsluice(any_postgres, databases=databases)
    make_used(pooler, any_postgres, "x", idle=2)

    def is_waiting():
        return any_postgres.rows("SELECT 1 FROM pg_stat_activity WHERE query"
                                 " = 'DROP DATABASE x' AND state = 'active'")

    with pooler.connect(database="x") as client, pooler.connect() as main:
        client.rows("BEGIN")
        client.rows("SELECT 1")
        main.send(wire.query("DROP DATABASE x"))
        wait_until(is_waiting, "a DROP that waits")
        # Meanwhile none is opened for the sake of min_pool_size.
        assert pooler.pool("x")["sv_login"] == 0
        client.rows("COMMIT")
        assert main.shapes(main.until_ready()) == "CZ"


def test_what_is_in_use_stays_unless_forced(start_pgsluice, any_postgres):
    pooler = start_pgsluice(any_postgres,
                            databases=with_fallback(any_postgres))
    make_used(pooler, any_postgres, "x")
    with pooler.connect(database="x") as client, pooler.connect() as main:
        client.rows("BEGIN")
        client.rows("SELECT 1")
        told(main.query("DROP DATABASE x"), "ERROR", "55006")
        client.rows("SELECT 1")
        main.rows("DROP DATABASE x WITH (FORCE)")


def test_one_that_goes_while_it_waits_for_its_drop(
        start_pgsluice, any_postgres):
    """Its step ends with it: servers may idle there again."""
    pooler = start_pgsluice(any_postgres, workers=2,
                            databases=with_fallback(any_postgres))
    make_used(pooler, any_postgres, "x")
    for _ in range(20):
        main = pooler.connect()
        main.send(wire.query("CREATE DATABASE copy TEMPLATE x"))
        main.close()
    wait_until(lambda: not any_postgres.rows(
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE c%'"
        " AND state = 'active'"), "all have ended")
    with pooler.connect(database="x") as client:
        client.rows("SELECT 1")
    wait_until(lambda: pooler.pool("x")["sv_idle"] == 1, "an idle server")


def test_a_connection_for_auth_query_is_not_in_the_way(
        start_pgsluice, any_postgres):
    pooler = start_pgsluice(
        any_postgres, databases=with_fallback(any_postgres),
        secrets={"app": secret("app"), "admin": secret("admin"),
                 "trust_user": secret("trust_user")},
        auth_user="trust_user",
        auth_query="SELECT usename, passwd FROM ask_for($1)")
    any_postgres.rows("CREATE DATABASE x OWNER app")
    any_postgres.rows(ASK_FOR, database="x")
    with pooler.connect(database="x", user="scram_user"):
        pass
    with pooler.connect() as main:
        main.rows("DROP DATABASE x")
