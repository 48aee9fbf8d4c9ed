"""Databases that clients create and drop: known at once, forgotten in time, and
no idle server in the way of a DROP DATABASE."""

import contextlib
import itertools
import threading

import psycopg2
import pytest

import wire
from contract_tools import batch, refused, told, wait_in_line
from pgsluice import Postgres, secret, wait_until

pytestmark = pytest.mark.core

numbers = itertools.count(1)


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


# The shadow database of a migration tool

@pytest.mark.parametrize("drop", DROPS)
def test_a_shadow_database_is_created_used_and_dropped(
        pooler, any_postgres, drop):
    with driver(pooler) as main:
        for _ in range(20):
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
