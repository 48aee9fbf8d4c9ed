"""Prisma Migrate through the DATABASE_URL that the app has, while it works.

The prisma programs are as they come from npm (prisma_tools.py); the app is
Prisma Client, node-postgres, postgres.js and pgbench, more clients than the
pool of 5 has servers (load_tools.py). None of them is told of an error, and
none of them knows of pgsluice.

    MIGRATE_DIRECT   not empty: without pgsluice, to see what Postgres makes
                     of it; what asks the console is left out
"""

import contextlib
import os

import pytest

import wire
from load_tools import FIND, Load, create_items
from pgsluice import Pgsluice, connect, wait_until
from prisma_tools import PrismaApp
from test_drivers import prisma_client  # noqa: F401

IS_DIRECT = bool(os.environ.get("MIGRATE_DIRECT"))
SERVERS = 5
PRISMA_LOCK = 72707369
PRISMA_PATIENCE_MS = 10_000             # then it gives up its lock: P1002
# For how long the app may be held, and what a quick ALTER TABLE may take.
HOLD_LIMIT_MS = 1500
DDL_MS = 500

MODELS = """\
model Author {
  id    Int    @id @default(autoincrement())
  email String @unique
}
"""
INIT = """\
CREATE TABLE "Author" (
    "id" SERIAL NOT NULL,
    "email" TEXT NOT NULL,
    CONSTRAINT "Author_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "Author_email_key" ON "Author"("email");
"""

# Types' oids.
BOOLEAN, BIGINT, TEXT = 16, 20, 25
# Migrations of the table that the app works on, and a column that those see
# who connect afterwards, with its type.
CHANGES = {
    "a column more": (
        "ALTER TABLE load.item ADD COLUMN note text DEFAULT 'none';",
        ("note", TEXT)),
    "a rename, and a view in its place": (
        "ALTER TABLE load.item RENAME TO stock;\n"
        "CREATE VIEW load.item AS SELECT id, name, qty, qty < 0 AS owed"
        " FROM load.stock;",
        ("owed", BOOLEAN)),
    "a type that rewrites the table": (
        "ALTER TABLE load.item ALTER COLUMN qty TYPE bigint;",
        ("qty", BIGINT)),
}


def with_fields(*fields):
    return MODELS.replace("}", "".join(f"  {it}\n" for it in fields) + "}")


class Shop:
    """A database of its own with pgsluice before it, the app's table in it,
    and a user shop who owns it and may create others."""

    def __init__(self, cluster, folder, report):
        self.cluster = cluster
        self.folder = folder
        self.report = report            # (name, value), for who reads results
        self.pooler = None
        self.apps = []
        with cluster.superuser() as session:
            session.rows("DROP DATABASE IF EXISTS shop WITH (FORCE)")
            session.rows("DROP ROLE IF EXISTS shop")
            session.rows("CREATE ROLE shop LOGIN CREATEDB"
                         " PASSWORD 'shop-secret'")
            session.rows("CREATE DATABASE shop OWNER shop")
        with self.owner() as session:
            create_items(session)

    def owner(self):
        """A session of the owner's, past pgsluice."""
        return connect(self.cluster, "shop", "shop")

    def connect(self):
        """A session of the app's."""
        return connect(self.cluster if IS_DIRECT else self.pooler,
                       "shop", "shop")

    def rows(self, sql):
        with self.owner() as session:
            return session.rows(sql)

    @property
    def url(self):
        where = self.cluster if IS_DIRECT else self.pooler
        return where.url("shop", "shop")

    @contextlib.contextmanager
    def load(self):
        """The app works; afterwards nothing of a migrator is left, and no
        migration had held the app for too long."""
        with Load(self.url) as load:
            yield
        self.report("longest_wait_ms", load.longest_ms())
        if not IS_DIRECT:
            self.check_holds()
        with self.owner() as session:
            load.check(session)
        self.wait_clean()
        assert self.cluster.rows(
            "SELECT pid, query FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock'") == []

    def check_holds(self):
        migrations = self.migrations()
        for migration in migrations:
            print(migration)
            assert migration["state"] == "done", migration
            assert not migration["error"], migration
            assert int(migration["hold_ms"]) <= HOLD_LIMIT_MS + DDL_MS
        for name in ("hold_ms", "held_clients"):
            self.report(f"most_{name}", max(int(migration[name])
                                            for migration in migrations))

    def wait_clean(self):
        wait_until(lambda: self.leftovers() == [],
                   "no lock of Prisma's left, no shadow database", 10)

    def leftovers(self):
        """Prisma's lock, held or waited for, and its shadow databases."""
        return self.cluster.rows(
            "SELECT 'lock of ' || pid FROM pg_locks"
            f" WHERE locktype = 'advisory' AND objid = {PRISMA_LOCK}"
            " UNION ALL SELECT datname FROM pg_database"
            " WHERE datname LIKE 'prisma_migrate_shadow_db_%'")

    def run(self, app, *arguments, **options):
        """A command that works out, and leaves nothing behind."""
        finished = app.run(*arguments, **options).check()
        print(finished.command, finished.output)
        self.wait_clean()
        return finished.output

    def app(self, version=7):
        app = PrismaApp(self.folder / f"app{len(self.apps)}",
                        f"{self.url}?schema=public", MODELS, version)
        app.write_migration("2001_init", INIT)
        self.apps.append(app)
        return app

    def migrations(self):
        """Rows of SHOW MIGRATIONS, the newest last."""
        return self.pooler.console("SHOW MIGRATIONS")

    def applied(self):
        """The names that Prisma has in its books, as often as they are."""
        return [name for name, in self.rows(
            "SELECT migration_name FROM _prisma_migrations"
            " WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"
            " ORDER BY started_at")]


@pytest.fixture
def shop(any_postgres, start, tmp_path, record_property,
         prisma_client):  # noqa: F811
    made = Shop(any_postgres, tmp_path, record_property)
    where = f"host=127.0.0.1 port={any_postgres.port}"
    made.pooler = start(
        Pgsluice, any_postgres, default_pool_size=SERVERS, workers=2,
        databases={"shop": f"{where} dbname=shop"},
        secrets={"shop": "shop-secret", "admin": "admin-secret"})
    yield made
    for app in made.apps:
        app.kill()


def test_deploy_status_and_dev_work_while_the_app_does(shop):
    app = shop.app()
    with shop.load():
        shop.run(app, "migrate", "deploy")
        app.write_migration("2002_more",
                            'ALTER TABLE "Author" ADD COLUMN "name" TEXT;')
        assert "2002_more" in shop.run(app, "migrate", "deploy")
        assert "No pending" in shop.run(app, "migrate", "deploy")
        assert "up to date" in shop.run(app, "migrate", "status")
        # Its shadow database is one that pgsluice has never heard of.
        app.write_models(with_fields("name String?", "born Int?"))
        shop.run(app, "migrate", "dev", "--name", "born", terminal=True)
        assert len(app.migrations()) == 3
    assert shop.applied() == app.migrations()


def test_push_execute_resolve_and_reset_work_while_the_app_does(shop):
    app = shop.app()
    with shop.load():
        shop.run(app, "migrate", "deploy")
        app.write_models(with_fields("name String?"))
        shop.run(app, "db", "push")
        app.write("script.sql", 'ALTER TABLE "Author" DROP COLUMN "name";\n'
                                'UPDATE "Author" SET "email" = \'\';\n')
        shop.run(app, "db", "execute", "--file", "script.sql")
        app.write_migration("2002_by_hand", "SELECT 1 / 0;")
        shop.run(app, "migrate", "resolve", "--applied", "2002_by_hand")
        assert shop.applied() == app.migrations()
        app.write_migration("2002_by_hand", "SELECT 1;")
        shop.run(app, "migrate", "reset", "--force")
    assert shop.applied() == app.migrations()


def test_prisma_6_with_its_js_engine_deploys_while_the_app_works(shop):
    app = shop.app(version=6)
    with shop.load():
        shop.run(app, "migrate", "deploy")
        assert "up to date" in shop.run(app, "migrate", "status")
    assert shop.applied() == ["2001_init"]


def test_a_deploy_with_nothing_to_do_holds_nobody(shop):
    app = shop.app()
    shop.run(app, "migrate", "deploy")
    with shop.load():
        assert "No pending" in shop.run(app, "migrate", "deploy")
    if not IS_DIRECT:
        migration = shop.migrations()[-1]
        assert migration["ddl_statements"] == "0", migration
        assert migration["held_clients"] == "0", migration


def test_three_deploys_wait_in_line_for_longer_than_prisma_does(shop):
    """The first is in its migration until the two others have waited for
    longer than Prisma waits for its lock."""
    apps = [shop.app() for _ in range(3)]
    for app in apps:
        app.write_migration("2002_slow", "CREATE TABLE ran (what text);\n"
                            "SELECT pg_advisory_xact_lock(1);\n"
                            "INSERT INTO ran VALUES ('slow');\n")
        app.write_migration("2003_quick",
                            "INSERT INTO ran VALUES ('quick');\n")
    with shop.load(), shop.owner() as gate:
        gate.rows("SELECT pg_advisory_lock(1)")
        first = apps[0].start("migrate", "deploy")
        wait_until(lambda: shop.rows(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"
            " AND objid = 1 AND NOT granted"), "the first is in its migration")
        others = [app.start("migrate", "deploy") for app in apps[1:]]
        wait_until(lambda: have_waited(shop, 1.1 * PRISMA_PATIENCE_MS) == 2
                   or any(deploy.has_ended() for deploy in others),
                   "two have waited for long")
        gate.rows("SELECT pg_advisory_unlock(1)")
        for deploy in (first, *others):
            deploy.finish().check()
    assert shop.applied() == ["2001_init", "2002_slow", "2003_quick"]
    assert shop.rows("SELECT what FROM ran") == [["slow"], ["quick"]]


def have_waited(made, milliseconds):
    """How many wait in line, and have for so long."""
    if IS_DIRECT:
        waits = [wait for wait, in made.cluster.rows(
            "SELECT 1000 * extract(epoch FROM now() - query_start)"
            " FROM pg_stat_activity WHERE wait_event = 'advisory'"
            f" AND query LIKE '%{PRISMA_LOCK}%'")]
    else:
        waits = [row["waited_ms"] for row in made.migrations()
                 if row["state"] == "waiting"]
    return sum(float(wait) > milliseconds for wait in waits)


@pytest.mark.parametrize("change", CHANGES)
def test_the_app_does_not_notice(change, shop):
    script, column = CHANGES[change]
    app = shop.app()
    shop.run(app, "migrate", "deploy")
    app.write_migration("2002_change", script)
    with shop.load():
        shop.run(app, "migrate", "deploy")
        check_newcomers(shop, column)


def test_the_app_does_not_notice_a_concurrent_index(shop):
    app = shop.app()
    shop.run(app, "migrate", "deploy")
    app.write_migration(
        "2002_index", "CREATE INDEX CONCURRENTLY item_qty ON load.item (qty);")
    with shop.load():
        shop.run(app, "migrate", "deploy")
    assert shop.rows("SELECT indisvalid FROM pg_index WHERE indexrelid ="
                     " 'load.item_qty'::regclass") == [["t"]]
    if not IS_DIRECT:
        assert shop.migrations()[-1]["held_clients"] == "0"


def check_newcomers(made, column):
    """Those who connect now see the column, also with a statement that the
    app has prepared on every server before."""
    for _ in range(3 * SERVERS):
        with made.connect() as session:
            session.send(wire.parse("", FIND), wire.describe("S"),
                         wire.sync())
            described = [got.described for got in session.until_ready()
                         if got.kind == "T"]
            assert described and column in described[0], described
