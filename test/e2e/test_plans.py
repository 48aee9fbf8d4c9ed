"""Prepared statements while the schema changes: nobody reads rows by an old
description, who prepares after the change never hears of it, and who did
before gets no error where it can be told the new columns.

The DDL comes through the same pool, or past it.
"""

import contextlib
import itertools

import pytest

from pgsluice import connect
from wire import ServerError, bind, describe, execute, parse, sync

SERVERS = 5
SQL = "SELECT *, pg_backend_pid() AS pid FROM thing"
STALE = "RevalidateCachedQuery"


class Driver:
    """Prepares a named statement and remembers its columns, as drivers do;
    or lets every execution describe its portal, as libpq does."""

    def __init__(self, link, describes_portals=False):
        self.link = link
        self.describes_portals = describes_portals
        self.columns = {}
        self.names = itertools.count()

    def ask(self, *messages):
        self.link.send(*messages, sync())
        answer = self.link.until_ready()
        for got in answer:
            if got.kind == "E":
                raise ServerError(got)
        return answer

    def prepare(self, sql):
        name = f"s{next(self.names)}"
        if self.describes_portals:
            self.ask(parse(name, sql))
            return name
        answer = self.ask(parse(name, sql), describe("S", name))
        self.columns[name] = next(
            (got.columns for got in answer if got.kind == "T"), [])
        return name

    def run(self, name, *values):
        """Rows as dicts, by the description that is at hand."""
        messages = [bind("", name, values), execute()]
        if self.describes_portals:
            messages.insert(1, describe("P", ""))
        answer = self.ask(*messages)
        columns = self.columns.get(name) or next(
            (got.columns for got in answer if got.kind == "T"), [])
        rows = [got.values for got in answer if got.kind == "D"]
        assert all(len(row) == len(columns) for row in rows), (columns, rows)
        return [dict(zip(columns, row)) for row in rows]

    def row(self, name, *values):
        row, = self.run(name, *values)
        row.pop("pid", None)
        return row


class Stage:
    """The database `app` with a table, and whoever changes it."""

    def __init__(self, cluster, pooler, from_outside):
        self.cluster, self.pooler = cluster, pooler
        self.links = contextlib.ExitStack()
        self.changer = self.connect(cluster if from_outside else pooler)

    def connect(self, server=None):
        return self.links.enter_context(
            connect(server or self.pooler, "app", "app"))

    def driver(self, **settings):
        return Driver(self.connect(), **settings)

    def change(self, sql):
        self.changer.rows(sql)

    def each_server(self):
        """Once for each: the one that is free, while all others are held."""
        with contextlib.ExitStack() as links:
            holders = [links.enter_context(
                connect(self.pooler, "app", "app")) for _ in range(
                self.pooler.settings["default_pool_size"])]
            pids = set()
            for holder in holders:
                holder.rows("BEGIN")
                pids.add(holder.value("SELECT pg_backend_pid()"))
            assert len(pids) == len(holders)
            for holder in holders:
                holder.rows("ROLLBACK")
                yield
                holder.rows("BEGIN")
                holder.value("SELECT 1")
            for holder in holders:
                holder.rows("ROLLBACK")

    def everywhere(self, driver, name, *values):
        """Runs the statement on every server; what all of them say."""
        answers = [driver.row(name, *values) for _ in self.each_server()]
        assert all(answer == answers[0] for answer in answers), answers
        return answers[0]


@pytest.fixture(params=[1, SERVERS], ids=["pool1", "pool5"])
def servers(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["pooled", "outside"])
def stage(request, any_postgres, servers, start_pgsluice):
    with any_postgres.connect() as session:
        session.rows("DROP TABLE IF EXISTS thing CASCADE;"
                     "DROP TYPE IF EXISTS mood CASCADE;"
                     "CREATE TABLE thing (id int, a text);"
                     "INSERT INTO thing VALUES (1, 'a')")
    pooler = start_pgsluice(any_postgres, default_pool_size=servers,
                            workers=2)
    made = Stage(any_postgres, pooler, request.param)
    with made.links:
        yield made


def assert_stale(error):
    assert error.value.sqlstate == "0A000"
    assert error.value.fields["R"] == STALE
    assert error.value.text == "cached plan must not change result type"


OLD = {"id": "1", "a": "a"}
NEW = {"id": "1", "a": "a", "b": "b"}
ADD = "ALTER TABLE thing ADD COLUMN b text DEFAULT 'b'"
CHANGES = {
    "add": (ADD, NEW),
    "drop": ("ALTER TABLE thing DROP COLUMN a", {"id": "1"}),
    "type": ("ALTER TABLE thing ALTER id TYPE text USING 'n' || id",
             {"id": "n1", "a": "a"}),
    "rename": ("ALTER TABLE thing RENAME a TO c", {"id": "1", "c": "a"}),
    "view": ("ALTER TABLE thing RENAME TO other_thing;"
             "CREATE VIEW thing AS SELECT 'v' AS v",
             {"v": "v"}),
}


@pytest.fixture(autouse=True)
def clean_up(request):
    yield
    for name in ("postgres", "postgres_18"):
        if name in request.fixturenames or "any_postgres" in \
                request.fixturenames:
            with contextlib.suppress(Exception), \
                    request.getfixturevalue(name).connect() as session:
                session.query("DROP VIEW thing")
                session.query("DROP TABLE other_thing")


@pytest.mark.parametrize("change", CHANGES)
def test_rows_are_never_read_by_an_old_description(stage, change):
    sql, after = CHANGES[change]
    driver = stage.driver()
    name = driver.prepare(SQL)
    stage.everywhere(driver, name)
    stage.change(sql)
    with pytest.raises(ServerError) as error:
        driver.row(name)
    assert_stale(error)
    # As its driver does then.
    name = driver.prepare(SQL)
    assert driver.row(name) == after
    stage.everywhere(driver, name)


@pytest.mark.parametrize("change", CHANGES)
def test_who_describes_its_portals_gets_the_new_columns(stage, change):
    sql, after = CHANGES[change]
    driver = stage.driver(describes_portals=True)
    name = driver.prepare(SQL)
    stage.everywhere(driver, name)
    stage.change(sql)
    assert driver.row(name) == after
    stage.everywhere(driver, name)


@pytest.mark.parametrize("change", CHANGES)
def test_who_prepares_after_the_change_never_hears_of_it(stage, change):
    sql, after = CHANGES[change]
    old = stage.driver()
    stage.everywhere(old, old.prepare(SQL))
    stage.change(sql)
    for portals in (False, True):
        new = stage.driver(describes_portals=portals)
        name = new.prepare(SQL)
        assert new.row(name) == after
        stage.everywhere(new, name)


def test_a_server_that_is_new_to_a_statement_is_asked_first(stage):
    """It was prepared, and described, where the schema was the old one."""
    driver = stage.driver()
    name = driver.prepare(SQL)
    assert driver.row(name) == OLD
    stage.change(ADD)
    for _ in stage.each_server():
        with pytest.raises(ServerError) as error:
            driver.row(name)
        assert_stale(error)


def test_what_is_as_it_was_goes_on_as_it_did(stage):
    driver = stage.driver()
    name = driver.prepare("SELECT id, a, pg_backend_pid() AS pid FROM thing")
    insert = driver.prepare("INSERT INTO thing VALUES ($1, $2)")
    stage.everywhere(driver, name)
    for at in range(3):
        stage.change(f"ALTER TABLE thing ADD COLUMN b{at} text")
        assert driver.row(name) == OLD
        stage.everywhere(driver, name)
        assert driver.run(insert, 2, "x") == []
        stage.change("DELETE FROM thing WHERE id = 2")


def test_in_a_transaction_the_error_ends_it_as_it_does_directly(stage):
    driver = stage.driver()
    name = driver.prepare(SQL)
    stage.everywhere(driver, name)
    stage.change(ADD)
    driver.link.rows("BEGIN")
    driver.link.rows("SELECT 1")
    with pytest.raises(ServerError) as error:
        driver.row(name)
    assert_stale(error)
    with pytest.raises(ServerError) as error:
        driver.link.rows("SELECT 1")
    assert error.value.sqlstate == "25P02"
    driver.link.rows("ROLLBACK")
    assert driver.row(driver.prepare(SQL)) == NEW


def test_a_transaction_sees_its_own_change_and_others_see_it_later(stage):
    one, other = stage.driver(), stage.driver()
    stage.everywhere(other, other.prepare(SQL))
    one.link.rows("BEGIN")
    one.link.rows(ADD)
    name = one.prepare(SQL)
    assert one.row(name) == NEW
    one.link.rows("ROLLBACK")
    assert other.row(other.prepare(SQL)) == OLD
    with pytest.raises(ServerError) as error:
        one.row(name)
    assert_stale(error)
    one.link.rows("BEGIN")
    one.link.rows(ADD)
    name = one.prepare(SQL)
    one.link.rows("COMMIT")
    assert one.row(name) == NEW
    assert other.row(other.prepare(SQL)) == NEW


@pytest.mark.parametrize("portals", [False, True])
def test_a_parameter_keeps_the_type_that_its_client_was_told(stage, portals):
    """A driver encodes by it for as long as it has the statement."""
    sql = "SELECT a FROM thing WHERE id = $1"
    driver = stage.driver()
    name = driver.prepare(sql)
    driver.describes_portals = portals
    binary = bind("", name, [b"\0\0\0\1"], [1])
    stage.change("ALTER TABLE thing ALTER id TYPE bigint")
    for _ in stage.each_server():
        answer = driver.ask(binary, execute())
        assert [got.values for got in answer if got.kind == "D"] == [["a"]]
    assert stage.everywhere(driver, driver.prepare(sql), 1) == {"a": "a"}


@pytest.mark.parametrize("portals", [False, True])
def test_a_type_that_was_made_anew_is_looked_up_anew(stage, portals):
    """What a driver was told has the old one's number."""
    enum = "CREATE TYPE mood AS ENUM ('good', 'bad')"
    stage.change(enum)
    driver = stage.driver(describes_portals=portals)
    sql = "SELECT count(*) AS n, pg_backend_pid() AS pid WHERE $1::mood = 'bad'"
    name = driver.prepare(sql)
    assert driver.row(name, "bad") == {"n": "1"}
    stage.change(f"DROP TYPE mood; {enum}")
    if portals:
        assert driver.row(name, "bad") == {"n": "1"}
        return
    with pytest.raises(ServerError):
        driver.row(name, "bad")
    assert driver.row(driver.prepare(sql), "bad") == {"n": "1"}


@pytest.mark.parametrize("kind", ["transaction", "session"])
@pytest.mark.parametrize("portals", [False, True])
def test_who_prepares_beside_a_temporary_table_sees_nothing_of_others(
        start_pgsluice, postgres, kind, portals):
    """The server has prepared the same text when another table of that name
    was there."""
    sql = "SELECT * FROM pg_temp.brief"

    def story(server):
        told = []
        for columns in ("a int", "a text, b int", "c date"):
            with connect(server, "app", "app") as link:
                driver = Driver(link, portals)
                if kind == "transaction":
                    link.rows("BEGIN")
                link.rows(f"CREATE TEMP TABLE brief ({columns})")
                link.rows("INSERT INTO brief DEFAULT VALUES")
                told += driver.run(driver.prepare(sql))
                link.rows("DROP TABLE brief")
                link.rows("CREATE TEMP TABLE brief (z bool)")
                link.rows("INSERT INTO brief DEFAULT VALUES")
                told += driver.run(driver.prepare(sql))
        return told

    assert story(start_pgsluice(default_pool_size=1)) == story(postgres)


@pytest.mark.parametrize("portals", [False, True])
def test_temporary_tables_of_a_kind_cost_no_statement_that_was_there(
        start_pgsluice, portals):
    with start_pgsluice(default_pool_size=1).connect() as link:
        driver = Driver(link, portals)
        name = driver.prepare("SELECT 7 AS seven")
        for _ in range(3):
            link.rows("BEGIN; CREATE TEMP TABLE brief (a int) ON COMMIT DROP")
            assert driver.run(name) == [{"seven": "7"}]
            found = link.rows("SELECT count(*) FROM pg_prepared_statements")
            link.rows("COMMIT")
        assert found == [["1"]]


# What a constant means is settled when its statement is prepared, by the
# session's settings: those of whoever prepared the same text must not do.

READ_BY = [
    ("datestyle", "ISO, MDY", "ISO, DMY",
     "SELECT date '01/02/2003' - date 'epoch' AS n",
     "12054", "12084"),
    ("timezone", "UTC", "Asia/Tokyo",
     "SELECT extract(epoch FROM timestamptz '2020-01-01 00:00')::int AS n",
     "1577836800", "1577804400"),
    ("intervalstyle", "postgres", "sql_standard",
     "SELECT extract(epoch FROM interval '-1 day 1:00')::int AS n",
     "-82800", "-90000"),
    ("transform_null_equals", "off", "on",
     "SELECT count(*) AS n FROM (VALUES (1)) v WHERE 1 = NULL OR NULL = NULL",
     "0", "1"),
]


@pytest.mark.parametrize("prefix", ["named", ""], ids=["named", "unnamed"])
@pytest.mark.parametrize("setting,one,other,sql,by_one,by_other", READ_BY,
                         ids=[row[0] for row in READ_BY])
def test_constants_are_read_by_the_settings_of_their_client(
        stage, prefix, setting, one, other, sql, by_one, by_other):
    def ask(link):
        name = prefix and f"{prefix}{next(count)}"
        link.send(parse(name, sql), bind("", name), execute(), sync())
        return [got.values[0] for got in link.until_ready()
                if got.kind == "D"]

    count = itertools.count()
    first = stage.driver().link
    second = stage.driver().link
    first.rows(f"SET {setting} = '{one}'")
    second.rows(f"SET {setting} = '{other}'")
    for _ in range(2):
        for _ in stage.each_server():
            assert ask(first) == [by_one]
            assert ask(second) == [by_other]
    # Somebody who changes it, with the statement prepared already.
    for link, value in ((first, other), (second, one)):
        link.send(parse("kept", sql), sync())
        link.until_ready()
        link.rows(f"SET {setting} = '{value}'")
        for _ in stage.each_server():
            link.send(bind("", "kept"), execute(), sync())
            link.until_ready()
    for _ in stage.each_server():
        assert ask(first) == [by_other]
        assert ask(second) == [by_one]
