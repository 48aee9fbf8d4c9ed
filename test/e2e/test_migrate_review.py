"""The migration lock where it meets the rest: clients that are refused, time
out or are moved elsewhere while they migrate or wait for those who do."""

import pytest

import wire
from contract_tools import Slow, batch, holding, told, wait_in_line
from pgsluice import wait_until
from test_migrate import (PRISMA_LOCK, active_servers, has_news, migrations,
                          table, wait_for)

__all__ = ["table"]


def cancel(pooler, client):
    with wire.Wire.connect(pooler.port) as canceller:
        canceller.send(wire.cancel_request(client.pid, client.key))
        canceller.until_closed()


def answer(client):
    """What it gets but for notices."""
    return [got for got in client.until_ready() if got.kind != "N"]


def test_one_that_is_refused_leaves_the_line(start_pgsluice):
    """Let in, it waits for a server of the pool, and is cancelled there: the
    next one is not kept waiting by it."""
    pooler = start_pgsluice(default_pool_size=1)
    with pooler.connect() as first, pooler.connect() as second, \
            pooler.connect() as third:
        first.rows(PRISMA_LOCK)
        second.send(wire.query(PRISMA_LOCK))
        wait_for(pooler, state="waiting")
        with holding(pooler):
            first.close()
            wait_in_line(pooler, 1)
            cancel(pooler, second)
            told(answer(second), "ERROR", "57014")
        assert third.rows(PRISMA_LOCK)
        assert not migrations(pooler, state="waiting")
        assert second.value("SELECT 1") == "1"


def test_one_that_waits_is_not_idle(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=3, client_idle_timeout="300ms",
                            idle_transaction_timeout="300ms")
    pooler.console("MIGRATION LOCK app")
    with pooler.connect() as outside, pooler.connect() as inside:
        outside.send(wire.query(PRISMA_LOCK))
        inside.rows("BEGIN")
        inside.rows("SELECT 1")
        inside.send(wire.query(PRISMA_LOCK))
        wait_until(lambda: len(migrations(pooler, state="waiting")) == 2,
                   "both in line")
        with pooler.connect() as idle:
            told(idle.until_closed(), "FATAL", "57P05")
        with holding(pooler) as idle:
            told(idle.until_closed(), "FATAL", "25P03")
        pooler.console("MIGRATION UNLOCK app")
        assert outside.shapes(answer(outside)) == "TDCZ"
        outside.close()
        assert inside.shapes(answer(inside)) == "TDCZ"


@pytest.mark.parametrize("session", [False, True])
def test_ddl_does_not_wait_for_one_that_waits_for_it(start_pgsluice, table,
                                                     session):
    """alembic begins a transaction before it tells what it is."""
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="60s",
                            migration_drain_timeout="60s",
                            pool_mode="session" if session else "transaction")
    with pooler.connect() as first, pooler.connect() as second:
        second.rows("BEGIN")
        second.rows("SELECT 1")
        first.rows(PRISMA_LOCK)
        second.send(wire.query(PRISMA_LOCK))
        wait_for(pooler, state="waiting")
        assert first.shapes(first.query(
            f"ALTER TABLE {table} ADD COLUMN a int")) == "CZ"
        first.close()
        assert second.shapes(answer(second)) == "TDCZ"
        assert second.value(f"SELECT count(a) FROM {table}") == "0"
        second.rows("COMMIT")


def test_one_that_is_refused_with_a_server_of_its_own_is_told(
        start_pgsluice, postgres, table):
    """Also when the app is held just then."""
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="60s",
                            migration_drain_timeout="60s")
    with pooler.connect() as first, pooler.connect() as second, \
            pooler.connect() as app, Slow(postgres) as slow:
        second.rows("CREATE TEMP TABLE mine (a int)")
        first.rows(PRISMA_LOCK)
        second.send(wire.query(PRISMA_LOCK))
        wait_for(pooler, state="waiting")
        app.send(wire.query(slow.sql))
        slow.wait_running()
        first.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        wait_for(pooler, state="draining")
        cancel(pooler, second)
        slow.session.close()
        assert first.shapes(first.until_ready()) == "CZ"
        told(answer(second), "ERROR", "57014")
        assert second.value("SELECT count(*) FROM mine") == "0"


def test_ddl_behind_a_query_is_not_over_with_it(start_pgsluice, postgres,
                                                table):
    """The batch with the DDL was sent before the query was answered."""
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="60s")
    postgres.rows(f"INSERT INTO {table} VALUES (1)", "app")
    with pooler.connect() as migrator, Slow(postgres) as first, \
            Slow(postgres) as second:
        migrator.rows(PRISMA_LOCK)
        sql = second.sql.replace("SELECT ", "")
        migrator.send(wire.query(first.sql), batch(
            f"ALTER TABLE {table} ALTER id TYPE text USING {sql}::text"),
            wire.sync())
        first.wait_running()
        first.let_go()
        assert migrator.shapes(migrator.until_ready()) == "TDCZ"
        second.wait_running()
        assert migrations(pooler, state="exclusive")
        second.let_go()
        assert migrator.shapes(migrator.until_ready()) == "12nCZ"
        wait_for(pooler, state="claimed")


def move(pooler, postgres):
    """The database is led to by another name of its host from now on."""
    pooler.databases["app"] = f"host=localhost port={postgres.port} dbname=app"
    pooler.reload()


def test_a_reload_that_moves_the_database_ends_no_migration(
        start_pgsluice, postgres, table):
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="60s",
                            migration_drain_timeout="60s")
    with pooler.connect() as migrator, holding(pooler) as straggler, \
            pooler.connect() as app:
        migrator.rows(PRISMA_LOCK)
        migrator.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        wait_for(pooler, state="draining")
        app.send(wire.query("SELECT 7"))
        wait_in_line(pooler, 1)
        move(pooler, postgres)
        straggler.rows("COMMIT")
        assert migrator.shapes(migrator.until_ready()) == "CZ"
        assert app.shapes(app.until_ready()) == "TDCZ"
        # The lock over there is another one.
        with pooler.connect() as other:
            assert other.rows("SELECT pg_try_advisory_lock(72707369)")
            assert len(migrations(pooler, state="claimed")) == 2
    wait_until(lambda: not migrations(pooler, state="claimed"), "both gone")
    with pooler.connect() as other:
        other.rows(PRISMA_LOCK)
        assert other.shapes(other.query(
            f"ALTER TABLE {table} ADD COLUMN b int")) == "CZ"


def test_who_was_let_past_the_guard_is_counted_where_it_was(
        start_pgsluice, postgres, table):
    pooler = start_pgsluice(default_pool_size=5, migration_hold_limit="50ms",
                            migration_drain_timeout="100ms")
    sql = f"SELECT count(*) FROM {table}"
    for _ in range(2):
        with pooler.connect() as migrator, holding(pooler) as straggler, \
                pooler.connect() as app, pooler.connect() as waits:
            straggler.rows(sql)
            migrator.rows(PRISMA_LOCK)
            migrator.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int;"
                                     f" ALTER TABLE {table} DROP a"))
            wait_for(pooler, state="exclusive")
            app.send(wire.query(sql))
            wait_until(lambda: pooler.pool()["sv_active"] == 3,
                       "one is let past the guard")
            move(pooler, postgres)
            straggler.rows("COMMIT")
            migrator.until_ready()
            assert app.shapes(app.until_ready()) == "TDCZ"
            waits.rows("SELECT 1")
        wait_until(lambda: not active_servers(pooler), "all gone")


@pytest.mark.parametrize("command", [
    "RELOAD", "RECONNECT app", "DISABLE app", "KILL app",
    "MIGRATION ABORT app", "PAUSE app"])
@pytest.mark.parametrize("state", ["draining", "exclusive"])
def test_no_command_leaves_the_app_held(start_pgsluice, table, command,
                                        state):
    """While the app is held for DDL."""
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="60s",
                            migration_drain_timeout="60s")
    with pooler.connect() as migrator, pooler.connect() as pinned, \
            pooler.connect() as paused:
        pinned.rows("CREATE TEMP TABLE mine (a int)")
        migrator.rows(PRISMA_LOCK)
        straggler = pooler.connect()
        if state == "draining":
            straggler.rows("BEGIN")
            straggler.rows("SELECT 1")
            migrator.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        else:
            migrator.rows("BEGIN")
            migrator.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        wait_for(pooler, state=state)
        pinned.send(wire.query("SELECT count(*) FROM mine"))
        if command.startswith("PAUSE"):
            paused.close()
            with pooler.connect("admin", "pgsluice") as console:
                console.send(wire.query(command))
                wait_until(lambda: pooler.pool()["maxwait"] is not None,
                           "the console")
                straggler.close()
                migrator.close()
                wait_until(lambda: not migrations(pooler, state=state),
                           "over")
                pinned.close()
                console.until_ready()
        else:
            pooler.console(command)
            straggler.close()
            migrator.close()
            wait_until(lambda: not migrations(pooler, state=state), "over")
        for undo in ("ENABLE app", "RESUME app"):
            try:
                pooler.console(undo)
            except wire.ServerError:
                pass
        if command in ("RELOAD", "RECONNECT app", "DISABLE app",
                       "MIGRATION ABORT app"):
            assert pinned.shapes(pinned.until_ready()) == "TDCZ"
        with pooler.connect() as app, pooler.connect() as again:
            assert app.value("SELECT 1") == "1"
            again.rows(PRISMA_LOCK)
            assert again.shapes(again.query(
                f"ALTER TABLE {table} ADD COLUMN b int")) == "CZ"


def test_a_statement_that_waits_may_be_bigger_than_what_is_kept(
        start_pgsluice, table):
    """And what it is refused with comes before what is sent behind it."""
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="100ms",
                            migration_drain_timeout="300ms",
                            migration_on_drain_timeout="abort")
    big = f"ALTER TABLE {table} ADD COLUMN a int -- " + "x" * 300000
    with pooler.connect() as migrator, holding(pooler) as straggler:
        migrator.rows(PRISMA_LOCK)
        migrator.send(wire.query(big), wire.query("SELECT 7"),
                      batch(big), wire.sync(), batch("SELECT 8"), wire.sync())
        told(migrator.until_ready(), "ERROR", "55P03")
        assert migrator.shapes(migrator.until_ready()) == "TDCZ"
        told(migrator.until_ready(), "ERROR", "55P03")
        assert migrator.shapes(migrator.until_ready()) == "12TDCZ"
        straggler.rows("COMMIT")
        assert migrator.shapes(migrator.query(big)) == "CZ"
        migrator.send(wire.query(f"ALTER TABLE {table} DROP a"), batch(big),
                      wire.sync())
        assert migrator.shapes(migrator.until_ready()) == "CZ"
        assert migrator.shapes(migrator.until_ready()) == "12nCZ"


@pytest.mark.parametrize("what", ["query", "batch"])
def test_ddl_in_a_failed_transaction_holds_nobody(start_pgsluice, table,
                                                  what):
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="60s",
                            migration_drain_timeout="60s")
    with pooler.connect() as migrator, holding(pooler), \
            pooler.connect() as app:
        migrator.rows(PRISMA_LOCK)
        migrator.rows("BEGIN")
        told(migrator.query("SELECT nothing"), "ERROR", "42703")
        ddl = f"ALTER TABLE {table} ADD COLUMN a int"
        migrator.send(*([wire.query(ddl)] if what == "query" else
                        [batch(ddl), wire.sync()]))
        told(migrator.until_ready(), "ERROR", "25P02")
        assert app.value("SELECT 1") == "1"
        assert migrations(pooler, state="claimed")
        migrator.rows("ROLLBACK")


def test_statement_mode_migrates_too(start_pgsluice, table):
    pooler = start_pgsluice(default_pool_size=3, pool_mode="statement")
    with pooler.connect() as first, pooler.connect() as second:
        first.rows(PRISMA_LOCK)
        second.send(wire.query(PRISMA_LOCK))
        wait_for(pooler, state="waiting")
        assert not has_news(first)
        assert first.shapes(first.query(
            f"ALTER TABLE {table} ADD COLUMN a int")) == "CZ"
        first.close()
        assert second.shapes(answer(second)) == "TDCZ"
