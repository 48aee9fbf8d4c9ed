"""The migration tools that people use, each before an app at work.

migrate_tools.py has them. Each runs three times through the same pgsluice as
the app (migrate_traffic.py), on the same few servers: with two migrations,
with nothing new, with one more. Everything must look as if it had been alone
with Postgres: what it says, what Postgres logs, the locks it leaves behind.
The app must not notice.

    MIGRATE_DIRECT      not empty: without pgsluice, which is the first thing
                        to do when a tool fails here
"""

import os
import re

import pytest

from migrate_tools import ALONE, ONCE, TOOLS, Project
from migrate_traffic import Traffic, create_accounts
from pgsluice import wait_until

SERVERS = 5
IS_DIRECT = bool(os.environ.get("MIGRATE_DIRECT"))

# What no tool says, nor Postgres, when all is well.
COMPLAINTS = re.compile(
    r"already exists(?!, skipping)|does not exist|don't own|deadlock"
    r"|\b(?:ERROR|FATAL|PANIC|WARNING)\b|Error:|cached plan", re.MULTILINE)

# In pgsluice's log: it stops the app for a statement.
HOLDS = re.compile(r"migration lock of .* -> draining")

LOCKS = """
    SELECT classid, objid, objsubid, mode, granted FROM pg_locks
     WHERE locktype = 'advisory' AND database =
           (SELECT oid FROM pg_database WHERE datname = current_database())
     ORDER BY 1, 2, 3, 4, 5"""
WAITING = """
    SELECT query FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock'"""
STUCK = """
    SELECT pid, state, wait_event_type, query FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND (wait_event_type = 'Lock' OR state <> 'idle')"""
BACKENDS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND backend_type = 'client backend'"""


class Deployment:
    """A tool, its project and its database, and the pooler between."""

    def __init__(self, tool, folder, cluster, start_pgsluice):
        self.name = tool
        self.cluster = cluster
        self.database = f"migrate_{tool}"
        self._create_database()
        self.pooler = start_pgsluice(
            cluster, default_pool_size=SERVERS, workers=2, databases={
                name: f"host=127.0.0.1 port={cluster.port} dbname={name}"
                for name in (self.database, "postgres")})
        self.url = (cluster if IS_DIRECT else self.pooler).url(self.database)
        self.project = Project(tool, folder)
        self.tool = self.project.tool
        self.log_before = len(cluster.log())
        self.locks_before = self.rows(LOCKS)

    def _create_database(self):
        self.cluster.rows(f"DROP DATABASE IF EXISTS {self.database} (FORCE)")
        self.cluster.rows(f"CREATE DATABASE {self.database} OWNER app")
        with self.cluster.superuser(self.database) as session:
            session.rows("ALTER SCHEMA public OWNER TO app")
        with self.cluster.connect("app", self.database) as session:
            create_accounts(session)

    def rows(self, sql):
        return self.cluster.rows(sql, self.database)

    def value(self, sql):
        ((value,),) = self.rows(sql)
        return value

    def deploy(self, has_news=True):
        """Runs the tool, which must look right to whoever watches it."""
        seen = {row["id"] for row in self.migrations()}
        logged = len(self.pooler.log())
        said = self.project.run(self.url)
        assert not COMPLAINTS.search(said), said
        wait_until(lambda: self.rows(LOCKS) == self.locks_before,
                   "its locks are gone")
        if IS_DIRECT:
            return
        wait_until(lambda: all(row["outcome"] for row in self.migrations()),
                   "it has ended")
        rows = [row for row in self.migrations() if row["id"] not in seen]
        for row in rows:
            assert row["tool"] in self.tool.names, row
            assert not row["error"], row
            assert has_news or row["held_clients"] == "0", row
        # Who has only read its books, to find nothing new, needs no row.
        assert not has_news or any(row["ddl_statements"] != "0"
                                   for row in rows), rows
        log = self.pooler.log()[logged:]
        assert has_news == bool(HOLDS.search(log)), log

    def migrations(self):
        """Those of its database in SHOW MIGRATIONS."""
        if IS_DIRECT:
            return []
        return [row for row in self.pooler.console("SHOW MIGRATIONS")
                if row["database"] == self.database]

    def has_applied(self, *columns):
        """Each of these migrations once, and no other."""
        for column in ("stars", "badges"):
            there = self.value(
                "SELECT count(*) FROM information_schema.columns WHERE"
                f" table_name = 'accounts' AND column_name = '{column}'")
            assert there == str(int(column in columns)), column
        for column in columns:
            assert self.rows(f"SELECT DISTINCT {column} FROM accounts") == [
                ["1"]]
        assert self.value("SELECT count(*) FROM pg_indexes WHERE"
                          " indexname = 'notes_account'") == "1"
        if self.tool.books:
            assert self.value(f"SELECT count(*) FROM {self.tool.books}"
                              ) == str(1 + len(columns))

    def assert_nothing_left(self):
        """When the app has stopped."""
        wait_until(lambda: self.rows(STUCK) == [], "no backend at work")
        wait_until(lambda: int(self.value(BACKENDS)) <= SERVERS,
                   "no more backends than there are servers")
        assert self.pooler.console("SHOW PINS") == []
        for log in self.pooler.log(), self.cluster.log()[self.log_before:]:
            if self.tool.provokes:
                log = re.sub(self.tool.provokes, "", log)
            assert not COMPLAINTS.search(log), log


@pytest.mark.parametrize(
    "any_postgres, tool",
    [(version, tool) for tool in TOOLS for version in ("pg15", "pg18")
     if version == "pg15" or tool not in ONCE], indirect=["any_postgres"])
def test_a_tool_migrates_and_the_app_goes_on(
        tool, any_postgres, start_pgsluice, tmp_path):
    deployment = Deployment(tool, tmp_path, any_postgres, start_pgsluice)
    with Traffic(deployment.url, "id, n" if IS_DIRECT else "*") as traffic:
        wait_until(traffic.is_going_on(), "the app is at work")
        deployment.deploy()
        deployment.has_applied("stars")
        deployment.deploy(has_news=False)
        deployment.has_applied("stars")
        deployment.project.add_later()
        deployment.deploy()
        deployment.has_applied("stars", "badges")
        wait_until(traffic.is_going_on(), "the app is still at work")
    assert deployment.value("SELECT sum(n) FROM accounts") == str(
        traffic.total())
    deployment.assert_nothing_left()


@pytest.mark.skipif(IS_DIRECT, reason="Postgres has no line to wait in")
@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool not in ALONE])
def test_of_two_deploys_at_once_the_second_has_nothing_to_do(
        tool, postgres, start_pgsluice, tmp_path):
    deployment = Deployment(tool, tmp_path, postgres, start_pgsluice)
    project, url = deployment.project, deployment.url
    deployment.deploy()
    project.add_later()
    with postgres.superuser(deployment.database) as session:
        session.rows("BEGIN")
        session.rows("LOCK TABLE accounts IN ACCESS SHARE MODE")
        first = project.start(url)
        wait_until(lambda: deployment.rows(WAITING),
                   "the first one's DDL waits for the table")
        second = project.start(url)
        wait_until(lambda: deployment.migrations()[-1]["state"] == "waiting",
                   "the second one waits")
        session.rows("COMMIT")
    for process in (first, second):
        said = project.finish(process)
        assert not COMPLAINTS.search(said), said
    deployment.has_applied("stars", "badges")
    deployment.assert_nothing_left()
