"""The migration lock: who gets it, who waits for it, and what the app notices.

Clients speak the wire themselves, so that what a tool would send is sent at
the moment that matters. The tools themselves: test_migrate_prisma.py,
test_migrate_tools.py.
"""

import os
import select
import threading

import pytest

import wire
from contract_tools import Slow, has_news, holding, loses_its_connection, told
from pgsluice import wait_until

PRISMA_LOCK = "SELECT pg_advisory_lock(72707369)"
PRISMA_FIRST = (
    "SELECT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = $1), version(),"
    " current_setting('server_version_num')::integer as numeric_version;")


@pytest.fixture
def table(postgres):
    """A table that every test may change."""
    postgres.rows("DROP TABLE IF EXISTS migrated; CREATE TABLE migrated"
                  " (id int); GRANT ALL ON migrated TO public;"
                  " ALTER TABLE migrated OWNER TO app", "app")
    yield "migrated"
    postgres.rows("DROP TABLE IF EXISTS migrated", "app")


def migrations(pooler, **wanted):
    """Rows of SHOW MIGRATIONS that have these values."""
    return [row for row in pooler.console("SHOW MIGRATIONS")
            if all(row[name] == value for name, value in wanted.items())]


def wait_for(pooler, **wanted):
    return wait_until(lambda: migrations(pooler, **wanted),
                      f"{wanted} in SHOW MIGRATIONS")


def locks(postgres):
    """Session locks of the app's database that anybody has."""
    return postgres.rows(
        "SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database"
        " WHERE datname = 'app')")


def active_servers(pooler):
    return [row for row in pooler.console("SHOW SERVERS")
            if row["state"] == "active"]


def test_a_migrator_has_a_server_of_its_own(start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1)
    with pooler.connect() as migrator, pooler.connect() as app:
        migrator.rows(PRISMA_LOCK)
        pid = migrator.value("SELECT pg_backend_pid()")
        # The pool of one is the app's.
        with holding(pooler) as other:
            assert other.value("SELECT pg_backend_pid()") != pid
            assert migrator.value("SELECT pg_backend_pid()") == pid
        assert app.value("SELECT pg_backend_pid()") != pid
        row, = migrations(pooler, state="claimed")
        assert (row["tool"], row["database"]) == ("prisma", "app")
    wait_for(pooler, state="done")
    wait_until(lambda: not locks(postgres), "no advisory lock left")


def test_the_second_one_waits_at_its_first_statement(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=2)
    with pooler.connect() as first, pooler.connect() as second:
        first.rows(PRISMA_LOCK)
        second.send(wire.parse("s0", PRISMA_FIRST),
                    wire.describe("S", "s0"), wire.sync())
        wait_for(pooler, state="waiting")
        # It keeps no server while it waits.
        wait_until(lambda: len(active_servers(pooler)) == 1,
                   "the second one has no server")
        notice = second.next()
        assert notice.kind == "N"
        assert "prisma of app@127.0.0.1" in notice.fields["M"]
        first.close()
        assert second.shapes(second.until_ready()) == "1tTZ"
        assert second.rows(PRISMA_LOCK)
        assert len(migrations(pooler, state="claimed")) == 1


@pytest.mark.parametrize("before", ["", "SELECT 1"])
def test_one_that_waits_in_a_transaction_is_in_nobodys_way(
        start_pgsluice, postgres, table, before):
    """Alembic looks at its books behind a BEGIN."""
    pooler = start_pgsluice(default_pool_size=3,
                            migration_drain_timeout="0")
    look = "SELECT 1 FROM pg_class WHERE relname='alembic_version'"
    with pooler.connect() as first, pooler.connect() as second:
        first.rows("BEGIN")
        first.rows(look)
        second.rows("BEGIN")
        if before:
            second.rows(before)
        second.send(wire.query(look))
        wait_for(pooler, tool="alembic", state="waiting")
        first.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        assert not has_news(second) or second.next().kind == "N"
        first.rows("COMMIT")
        first.close()
        assert second.until_ready()[-1].status == "T"
        second.rows(f"ALTER TABLE {table} ADD COLUMN b int")
        second.rows("COMMIT")


def test_a_key_in_a_bind_counts(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=2)
    key = "4727445306447283"            # graphile-migrate
    sql = "select pg_try_advisory_lock($1) as locked"
    with pooler.connect() as first, pooler.connect() as second:
        first.send(wire.parse("", sql), wire.bind("", "", [key]),
                   wire.execute(), wire.sync())
        assert first.until_ready()[2].values == ["t"]
        assert migrations(pooler, tool="graphile-migrate", state="claimed")
        # As lib/pq does: prepared by one batch, run by the next.
        second.send(wire.parse("", sql), wire.describe("S", ""), wire.sync())
        second.until_ready()
        second.send(wire.bind("", "", [key]), wire.execute(), wire.sync())
        wait_for(pooler, tool="graphile-migrate", state="waiting")
        first.close()
        answer = second.until_ready()
        assert [got.values for got in answer if got.kind == "D"] == [["t"]]


def test_an_unknown_key_only_pins(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=2)
    with pooler.connect() as client:
        client.rows("SELECT pg_advisory_lock(4711)")
        assert not migrations(pooler)
        assert len(pooler.console("SHOW PINS")) == 1


def test_ddl_waits_for_the_app_and_the_app_for_ddl(start_pgsluice, postgres,
                                                   table):
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="30s")
    with pooler.connect() as migrator, pooler.connect() as app, \
            Slow(postgres) as slow:
        migrator.rows(PRISMA_LOCK)
        app.send(wire.query(slow.sql))
        slow.wait_running()
        migrator.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        wait_for(pooler, state="draining")
        # Postgres has not seen it: nobody queues behind it there.
        assert not postgres.rows(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'ALTER TABLE"
            " migrated%' AND pid <> pg_backend_pid()")
        with pooler.connect() as late:
            late.send(wire.query(f"SELECT count(*) FROM {table}"))
            wait_until(lambda: pooler.pool()["cl_waiting"] == 1,
                       "the app's new transaction waits")
            assert not has_news(late)
            slow.session.close()        # lets go
            app.until_ready()
            assert migrator.shapes(migrator.until_ready()) == "CZ"
            assert late.shapes(late.until_ready()) == "TDCZ"
        row, = wait_for(pooler, state="claimed")
        assert int(row["held_clients"]) >= 1
        assert row["ddl_statements"] == "1"


def test_traffic_goes_on_when_the_drain_takes_too_long(start_pgsluice,
                                                       postgres, table):
    """A long transaction is in the way: others do not wait for its end."""
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="300ms",
                            migration_drain_timeout="60s")
    with pooler.connect() as migrator, holding(pooler) as straggler, \
            pooler.connect() as app:
        migrator.rows(PRISMA_LOCK)
        migrator.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        wait_for(pooler, state="draining")
        for _ in range(20):
            assert app.value(f"SELECT count(*) FROM {table}") == "0"
        assert not has_news(migrator)
        straggler.rows("COMMIT")
        assert migrator.shapes(migrator.until_ready()) == "CZ"


def test_traffic_goes_on_while_long_ddl_runs(start_pgsluice, table):
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="200ms")
    with pooler.connect() as migrator, pooler.connect() as app:
        migrator.rows(PRISMA_LOCK)
        migrator.rows("BEGIN")
        migrator.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        assert migrations(pooler, state="exclusive")
        # The migrator thinks; the app is only held for so long.
        assert app.value("SELECT 1") == "1"
        migrator.rows("COMMIT")
        assert migrations(pooler, state="claimed")


@pytest.mark.parametrize("how, answer", [
    ("abort", "EZ"), ("proceed", "CZ"), ("cancel", "CZ")])
def test_what_the_operator_wants_when_no_moment_comes(
        start_pgsluice, postgres, table, how, answer):
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="100ms",
                            migration_drain_timeout="500ms",
                            migration_on_drain_timeout=how)
    with pooler.connect() as migrator, holding(pooler) as straggler:
        migrator.rows(PRISMA_LOCK)
        migrator.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        got = migrator.until_ready()
        assert migrator.shapes(got) == answer, got
        if how == "abort":
            told(got, "ERROR", "55P03")
            assert postgres.rows("SELECT 1 FROM information_schema.columns"
                                 " WHERE table_name = 'migrated'"
                                 " AND column_name = 'a'", "app") == []
        if how == "cancel":
            loses_its_connection(straggler, "57P01")
        else:
            assert straggler.value("SELECT 2") == "2"


@pytest.mark.parametrize("extended", [False, True])
def test_ddl_that_waits_in_postgres_does_not_use_up_the_pool(
        start_pgsluice, table, extended):
    """Those who want its table wait here; the rest of the app goes on."""
    pooler = start_pgsluice(default_pool_size=5, migration_hold_limit="50ms",
                            migration_drain_timeout="100ms")
    with pooler.connect() as migrator, holding(pooler) as straggler:
        straggler.rows(f"SELECT count(*) FROM {table}")
        migrator.rows(PRISMA_LOCK)
        migrator.send(wire.query(f'ALTER TABLE "{table}" ADD COLUMN a int'))
        wait_for(pooler, state="exclusive")
        crowd = [pooler.connect() for _ in range(12)]
        for client in crowd:
            sql = f"SELECT count(*) FROM public.{table.upper()}"
            client.send(*([wire.parse("", sql), wire.bind(), wire.execute(),
                           wire.sync()] if extended else [wire.query(sql)]))
        wait_until(lambda: pooler.pool()["sv_active"] == 3,
                   "migrator, straggler and one of the crowd have servers")
        with pooler.connect() as app:
            for _ in range(50):
                assert app.value("SELECT count(*) FROM pg_class") != "0"
        assert pooler.pool()["sv_active"] == 3
        straggler.rows("COMMIT")
        assert migrator.shapes(migrator.until_ready()) == "CZ"
        for client in crowd:
            assert "D" in client.shapes(client.until_ready())
            client.close()


def test_what_blocks_nobody_holds_nobody(start_pgsluice, table):
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="30s")
    with pooler.connect() as migrator, holding(pooler):
        migrator.rows(PRISMA_LOCK)
        for sql in ("CREATE TABLE IF NOT EXISTS _prisma_migrations (a int)",
                    f"SELECT count(*) FROM {table}",
                    f"INSERT INTO {table} VALUES (1)",
                    "DROP TABLE _prisma_migrations"):
            migrator.rows(sql)
        row, = migrations(pooler, state="claimed")
        assert (row["held_clients"], row["hold_ms"]) == ("0", "0")


def test_one_that_only_reads_the_books_is_let_go(start_pgsluice, postgres):
    """A status page is no migration: it keeps nobody out for long."""
    pooler = start_pgsluice(default_pool_size=2)
    postgres.rows("CREATE TABLE IF NOT EXISTS django_migrations (id int);"
                  " GRANT ALL ON django_migrations TO public", "app")
    with pooler.connect() as page, pooler.connect() as deploy:
        page.rows("SELECT * FROM django_migrations")
        deploy.send(wire.query("SELECT * FROM django_migrations"))
        wait_for(pooler, state="waiting")
        deploy.until_ready()
        assert page.value("SELECT 1") == "1"
    postgres.rows("DROP TABLE django_migrations", "app")


def test_a_companion_is_let_in(start_pgsluice, table):
    """Rails takes its lock on one connection and migrates on another."""
    pooler = start_pgsluice(default_pool_size=2)
    name = {"application_name": "bin/rails"}
    with pooler.connect(**name) as one, pooler.connect(**name) as two, \
            pooler.connect(application_name="elsewhere") as third:
        one.rows("CREATE TABLE IF NOT EXISTS schema_migrations (a int)")
        two.rows("SELECT pg_try_advisory_lock(1)")
        two.rows("SELECT * FROM schema_migrations")
        one.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        two.rows(f"ALTER TABLE {table} ADD COLUMN b int")
        third.send(wire.query("SELECT * FROM schema_migrations"))
        wait_for(pooler, application_name="elsewhere", state="waiting")
        one.rows("DROP TABLE schema_migrations")
        third.close()


def test_a_declared_one_with_another_name_is_let_in(start_pgsluice, table):
    """What has psql do the DDL while a transaction of its own is open."""
    pooler = start_pgsluice(default_pool_size=2, migration_users="app")
    with pooler.connect(application_name="deploy") as one, \
            pooler.connect(application_name="psql") as two:
        one.rows("BEGIN")
        one.rows("SELECT 1")
        assert two.rows(f"ALTER TABLE {table} ADD COLUMN a int") == []
        one.rows("COMMIT")


def test_waiting_has_an_end(start_pgsluice):
    pooler = start_pgsluice(migration_wait_timeout="300ms")
    with pooler.connect() as first, pooler.connect() as second:
        first.rows(PRISMA_LOCK)
        told(second.query(PRISMA_LOCK)[1:], "ERROR", "55P03")
        assert second.value("SELECT 1") == "1"
        assert migrations(pooler, state="failed", outcome="refused")


def test_one_that_waits_can_be_cancelled(start_pgsluice):
    pooler = start_pgsluice()
    with pooler.connect() as first, pooler.connect() as second:
        first.rows(PRISMA_LOCK)
        second.send(wire.query(PRISMA_LOCK))
        wait_for(pooler, state="waiting")
        with wire.Wire.connect(pooler.port) as canceller:
            canceller.send(wire.cancel_request(second.pid, second.key))
            canceller.until_closed()
        told([got for got in second.until_ready() if got.kind != "N"],
             "ERROR", "57014")


@pytest.mark.parametrize("place", ["waits", "drains", "holds", "runs"])
def test_a_migrator_that_dies_lets_go(start_pgsluice, postgres, table, place):
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="30s")
    with pooler.connect() as first, pooler.connect() as second, \
            pooler.connect() as app, Slow(postgres) as slow:
        first.rows(PRISMA_LOCK)
        dying = first
        if place == "waits":
            dying = second
            second.send(wire.query(PRISMA_LOCK))
            wait_for(pooler, state="waiting")
        elif place == "drains":
            app.send(wire.query(slow.sql))
            slow.wait_running()
            first.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
            wait_for(pooler, state="draining")
        elif place == "holds":
            first.rows("BEGIN")
            first.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        else:
            first.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int;"
                                  + slow.sql))
            slow.wait_running()
        dying.sock.close()
        if place == "waits":
            wait_for(pooler, state="failed")
            assert first.value("SELECT 1") == "1"
        else:
            assert second.rows(PRISMA_LOCK)
            assert len(migrations(pooler, state="claimed")) == 1
        slow.session.close()
        if place == "drains":
            app.until_ready()
        assert app.value("SELECT 1") == "1"
        assert postgres.rows("SELECT 1 FROM information_schema.columns"
                             " WHERE table_name = 'migrated'"
                             " AND column_name = 'a'", "app") == []


def test_the_console_locks_unlocks_and_aborts(start_pgsluice):
    pooler = start_pgsluice()
    pooler.console("MIGRATION LOCK app")
    with pytest.raises(wire.ServerError) as error:
        pooler.console("MIGRATION LOCK app")
    assert error.value.sqlstate == "55P03"
    with pooler.connect() as migrator:
        migrator.send(wire.query(PRISMA_LOCK))
        wait_for(pooler, state="waiting")
        pooler.console("MIGRATION UNLOCK app")
        migrator.until_ready()
        pooler.console("MIGRATION ABORT app")
        loses_its_connection(migrator, "57P01")
    wait_for(pooler, state="failed", error="aborted")
    pooler.console("MIGRATION LOCK app 300ms")
    with pooler.connect() as migrator:
        assert migrator.rows(PRISMA_LOCK)


def test_a_declared_migrator_claims_with_its_first_statement(start_pgsluice):
    pooler = start_pgsluice(migration_applications="deploy, seed",
                            migration_users="md5_user")
    with pooler.connect(options="-c pgsluice.migrate=on") as migrator:
        assert migrator.value(
            "SELECT current_setting('pgsluice.migrate', true)") is None
        assert migrations(pooler, tool="declared", state="claimed")
    with pooler.connect(application_name="seed") as migrator:
        migrator.rows("SELECT 1")
        assert migrations(pooler, application_name="seed", state="claimed")
    with pooler.connect("md5_user") as migrator:
        migrator.rows("SELECT 1")
        assert migrations(pooler, user="md5_user", state="claimed")


@pytest.mark.parametrize("setting, state", [
    ({"migration_lock": "session"}, "claimed"),
    ({"ddl_hold": "none"}, "claimed"),
    ({"migration_lock": "off"}, None)])
def test_less_than_exclusive_holds_nobody(start_pgsluice, table, setting,
                                          state):
    pooler = start_pgsluice(default_pool_size=3, **setting)
    with pooler.connect() as migrator, holding(pooler):
        migrator.rows(PRISMA_LOCK)
        migrator.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        found = migrations(pooler)
        assert [row["state"] for row in found] == ([state] if state else [])
        assert all(row["hold_ms"] == "0" for row in found)


def test_clients_with_a_server_of_their_own_are_held_too(start_pgsluice,
                                                         postgres, table):
    """Pinned, or in session mode: between two transactions they wait."""
    pooler = start_pgsluice(default_pool_size=3, migration_hold_limit="30s")
    with pooler.connect() as migrator, pooler.connect() as pinned, \
            pooler.connect() as app, Slow(postgres) as slow:
        pinned.rows("CREATE TEMP TABLE mine (a int)")
        migrator.rows(PRISMA_LOCK)
        app.send(wire.query(slow.sql))
        slow.wait_running()
        migrator.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        wait_for(pooler, state="draining")
        pinned.send(wire.query("SELECT count(*) FROM mine"))
        assert not select.select([pinned.sock], [], [], 0.2)[0]
        slow.session.close()
        migrator.until_ready()
        assert pinned.shapes(pinned.until_ready()) == "TDCZ"
        app.until_ready()


def test_three_at_once_take_turns(start_pgsluice, postgres):
    """A ledger of intervals: no two overlap."""
    pooler = start_pgsluice(default_pool_size=2)
    postgres.rows("DROP TABLE IF EXISTS ledger; CREATE TABLE ledger"
                  " (who int, at timestamptz DEFAULT clock_timestamp(),"
                  " what text); GRANT ALL ON ledger TO public", "app")

    def migrate(who):
        with pooler.connect() as client:
            client.rows(PRISMA_LOCK)
            for what in ("begin", "work", "end"):
                client.rows(f"INSERT INTO ledger (who, what)"
                            f" VALUES ({who}, '{what}')")

    threads = [threading.Thread(target=migrate, args=[who])
               for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = postgres.rows("SELECT who FROM ledger ORDER BY at", "app")
    assert len(rows) == 24
    for at in range(0, 24, 3):
        assert len({row[0] for row in rows[at:at + 3]}) == 1, rows
    wait_until(lambda: len(migrations(pooler, state="done")) == 8,
               "eight migrations done")
    postgres.rows("DROP TABLE ledger", "app")


def test_a_lost_backend_ends_the_migration(start_pgsluice, postgres, table):
    pooler = start_pgsluice(default_pool_size=2)
    with pooler.connect() as migrator, pooler.connect() as second:
        migrator.rows(PRISMA_LOCK)
        migrator.rows("BEGIN")
        migrator.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        pid = migrator.value("SELECT pg_backend_pid()")
        postgres.rows(f"SELECT pg_terminate_backend({pid})")
        loses_its_connection(migrator, "08006")
        assert second.rows(PRISMA_LOCK)
        assert migrations(pooler, state="failed")


def test_an_idle_migrator_yields_to_one_that_waits(start_pgsluice):
    pooler = start_pgsluice(migration_idle_timeout="1s")
    with pooler.connect() as frozen, pooler.connect() as second:
        frozen.rows(PRISMA_LOCK)
        assert second.rows(PRISMA_LOCK)
        loses_its_connection(frozen, "57P05")


def test_one_whose_companion_is_at_work_does_not_yield(start_pgsluice):
    """A tool's lock is on one connection, and the long work on another."""
    pooler = start_pgsluice(migration_idle_timeout="1s")
    name = {"application_name": "bin/rails"}
    with pooler.connect(**name) as one, pooler.connect(**name) as two, \
            pooler.connect() as third:
        one.rows("CREATE TABLE schema_migrations (a int)")
        two.rows("INSERT INTO schema_migrations VALUES (1)")
        third.send(wire.query("SELECT * FROM schema_migrations"))
        wait_for(pooler, state="waiting")
        for busy in one, two:
            busy.rows("SELECT pg_sleep(2.5)")
        two.rows("SELECT 1")
        one.rows("DROP TABLE schema_migrations")
        third.close()


def test_nothing_of_a_migrator_that_has_ended_is_cancelled(
        start_pgsluice, postgres):
    """It may go while pgsluice asks what its transaction has left behind."""
    pooler = start_pgsluice()
    logged = len(postgres.log())
    for _ in range(100):
        with pooler.connect() as migrator:
            migrator.rows("BEGIN")
            migrator.rows("SELECT pg_try_advisory_lock(72707369)")
            migrator.rows("COMMIT")
    wait_until(lambda: not pooler.console("SHOW SERVERS"), "all have gone")
    assert "ERROR" not in postgres.log()[logged:]


def test_a_pause_lets_a_migrator_finish(start_pgsluice, table):
    pooler = start_pgsluice(default_pool_size=2)
    with pooler.connect() as migrator, \
            pooler.connect("admin", "pgsluice") as console:
        migrator.rows(PRISMA_LOCK)
        console.send(wire.query("PAUSE app"))
        wait_until(lambda: any(row["paused"] == "1" for row in
                               pooler.console("SHOW DATABASES")),
                   "the database is paused")
        migrator.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        assert not has_news(console)
        migrator.close()
        assert console.shapes(console.until_ready()) == "CZ"


def commands(tmp_path, before="exit 0"):
    """Settings whose commands write what they find to files."""
    script = tmp_path / "command"
    script.write_text("#!/bin/sh\n"
                      "env | grep ^PGSLUICE_ | sort >>" f"{tmp_path}/$1\n"
                      f'[ "$1" = after ] || {before}\n')
    script.chmod(0o755)
    return {"migration_before": f"{script} before",
            "migration_after": f"'{script}' \"after\""}


def test_commands_are_run_around_a_migration(start_pgsluice, table, tmp_path):
    pooler = start_pgsluice(**commands(tmp_path))
    with pooler.connect() as migrator:
        migrator.rows(PRISMA_LOCK)
        migrator.rows("CREATE TABLE IF NOT EXISTS _prisma_migrations (a int)")
        assert not (tmp_path / "before").exists()
        migrator.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        migrator.rows(f"ALTER TABLE {table} ADD COLUMN b int")
        migrator.rows("DROP TABLE _prisma_migrations")
    wait_until((tmp_path / "after").exists, "the second command has run")
    said = (tmp_path / "before").read_text()
    assert said.count("PGSLUICE_TOOL=prisma\n") == 1
    assert "PGSLUICE_DATABASE=app\nPGSLUICE_HOST=127.0.0.1\n" in said
    wait_until(lambda: "PGSLUICE_OUTCOME=done\n" in
               (tmp_path / "after").read_text(), "how it ended")


@pytest.mark.parametrize("sql", ["CREATE TABLE t_new (a int)",
                                 "ALTER TABLE {table} ADD COLUMN a int"])
def test_a_command_that_fails_refuses_the_migration(
        start_pgsluice, postgres, table, tmp_path, sql):
    pooler = start_pgsluice(**commands(tmp_path, "exit 3"))
    with pooler.connect() as migrator:
        migrator.rows(PRISMA_LOCK)
        told(migrator.query(sql.format(table=table)), "ERROR", "55000")
        migrator.rows("BEGIN")
        migrator.send(wire.parse("", sql.format(table=table)), wire.bind(),
                      wire.execute(), wire.sync())
        told(migrator.until_ready(), "ERROR", "55000")
        migrator.rows("ROLLBACK")
    assert "exited with status 3" in pooler.log()
    assert postgres.rows("SELECT 1 FROM information_schema.columns WHERE"
                         " (table_name, column_name) IN (('t_new', 'a'),"
                         " ('migrated', 'a'))", "app") == []


def test_a_migrator_that_goes_ends_its_command(start_pgsluice, table,
                                               tmp_path):
    pooler = start_pgsluice(**commands(tmp_path, "exec sleep 1000"))
    with pooler.connect() as migrator:
        migrator.rows(PRISMA_LOCK)
        migrator.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        wait_until((tmp_path / "before").exists, "the command runs")
    wait_for(pooler, state="failed")
    with pooler.connect() as second:
        assert second.rows(PRISMA_LOCK)


def test_ddl_of_anybody_drains_where_the_operator_wants(start_pgsluice,
                                                        table):
    pooler = start_pgsluice(default_pool_size=3, ddl_hold="all",
                            migration_hold_limit="30s")
    with pooler.connect() as client, holding(pooler) as app:
        client.send(wire.query(f"ALTER TABLE {table} ADD COLUMN a int"))
        wait_for(pooler, tool="ddl", state="draining")
        app.rows("COMMIT")
        client.until_ready()
        wait_for(pooler, tool="ddl", state="done")
        assert client.value("SELECT 1") == "1"


def test_a_migrator_may_finish_when_pgsluice_is_told_to_stop(
        start_pgsluice, postgres, table):
    pooler = start_pgsluice(default_pool_size=2)
    with pooler.connect() as migrator, pooler.connect() as second:
        migrator.rows(PRISMA_LOCK)
        second.send(wire.query(PRISMA_LOCK))
        wait_for(pooler, state="waiting")
        pooler.has_ended = True
        os.kill(pooler.process.pid, 15)
        loses_its_connection(second, "57P01")
        migrator.rows(f"ALTER TABLE {table} ADD COLUMN a int")
        migrator.rows(f"INSERT INTO {table} VALUES (1, 2)")
    wait_until(lambda: not pooler.is_running(), "pgsluice has ended")
    assert postgres.rows("SELECT a FROM migrated", "app") == [["2"]]
