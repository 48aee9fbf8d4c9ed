"""Tools that migrate a schema, each with a project of its own.

A row of TOOLS is what a user types. tools/NAME.project is the project, all
of its files in one, each behind a line "-- its/path --". What is below
later/ comes into the project at the same path without that, when a third
migration is wanted.

All projects do the same, each in its tool's own words:

    notes       creates a table of that name, with an index
    stars       adds a column to accounts, and one to its value in each row
    badges      likewise, later

To add a tool: a row, a project, and its package in tools/package.json or in
../../bootstrap.
"""

import collections
import os
import re
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "tools")
MODULES = os.path.join(FOLDER, "node_modules")
TIME_LIMIT = 60

# What SHOW MIGRATIONS calls it, the command, where it keeps its books, and the
# complaints of Postgres that it asks for, with or without a pooler.
Tool = collections.namedtuple("Tool", "names command books provokes",
                              defaults=(None,))

# Who keeps books of this name may be told apart, or not.
DBMATE = ("dbmate", "schema_migrations")
RAILS = ("rails", "schema_migrations")
SEQUELIZE = '"SequelizeMeta"'

TOOLS = {
    "alembic": Tool(
        ("alembic",), "alembic upgrade head", None),
    "dbmate": Tool(
        DBMATE, "node_modules/@dbmate/linux-x64/bin/dbmate --no-dump-schema"
        ' --url "$DATABASE_URL?sslmode=disable" up', "schema_migrations"),
    "db_migrate": Tool(
        ("db-migrate",), "db-migrate up", "migrations"),
    "django": Tool(
        ("django",), "/usr/bin/python3 manage.py migrate",
        "django_migrations"),
    "drizzle": Tool(
        ("drizzle",), "drizzle-kit migrate", "drizzle.__drizzle_migrations"),
    "drizzle_orm": Tool(
        ("drizzle",), "node migrate.mjs", "drizzle.__drizzle_migrations"),
    "drizzle_push": Tool(
        ("drizzle",), "drizzle-kit push --force", None),
    "graphile_migrate": Tool(
        ("graphile-migrate",), "graphile-migrate migrate",
        "graphile_migrate.migrations"),
    "knex": Tool(
        ("knex",), "knex migrate:latest", "knex_migrations"),
    "kysely": Tool(
        ("kysely",), "node migrate.mjs", "kysely_migration"),
    "liquibase": Tool(
        ("liquibase",), "sh migrate.sh", "databasechangelog",
        r'ERROR: +relation "public.databasechangeloglock" does not exist'),
    "mikro_orm": Tool(
        ("mikro-orm",), "node migrate.js", "mikro_orm_migrations"),
    "node_pg_migrate": Tool(
        ("node-pg-migrate",), "node-pg-migrate up", "pgmigrations"),
    "postgrator": Tool(
        ("postgrator",), "node migrate.mjs", "schemaversion WHERE version > 0"),
    "rails": Tool(
        RAILS, "/usr/bin/ruby migrate.rb", "schema_migrations"),
    "sequelize": Tool(
        ("sequelize",), "sequelize-cli db:migrate", SEQUELIZE),
    "sql_migrate": Tool(
        ("sql-migrate",), "sql-migrate up", "gorp_migrations"),
    "sqitch": Tool(
        ("sqitch", "ddl"), 'sqitch deploy --verify "db:$DATABASE_URL"',
        "sqitch.changes",
        r'ERROR: +relation "changes" does not exist'
        r"|WARNING: +Sqitch registry not initialized"
        r'|the "changes" table does not exist'),
    "typeorm": Tool(
        ("typeorm",), "typeorm migration:run -d source.js", "migrations"),
    "umzug": Tool(
        ("sequelize",), "node migrate.js", SEQUELIZE),
    "yoyo": Tool(
        ("yoyo", "ddl"), "yoyo apply --batch --no-config-file"
        ' --database "$DATABASE_URL" migrations', "_yoyo_migration",
        r'ERROR: +table "yoyo_tmp_\w+" does not exist'
        r'|ERROR: +relation "yoyo_lock" already exists'),
}

# Before Postgres 15 only.
ONCE = ("db_migrate", "liquibase", "mikro_orm", "postgrator", "sqitch", "yoyo")
# Of those, the ones that are not run two at a time.
ALONE = ("db_migrate", "liquibase", "mikro_orm", "postgrator")


class Project:
    """The project of a tool, unpacked to a folder that is there."""

    def __init__(self, tool, folder):
        self.tool = TOOLS[tool]
        self.folder = str(folder)
        with open(os.path.join(FOLDER, f"{tool}.project"),
                  encoding="utf-8") as file:
            parts = re.split(r"^-- (\S+) --\n", file.read(),
                             flags=re.MULTILINE)
        self.files = dict(zip(parts[1::2], parts[2::2]))
        self._write({path: text for path, text in self.files.items()
                     if not path.startswith("later/")})
        os.symlink(MODULES, os.path.join(self.folder, "node_modules"))

    def _write(self, files):
        for path, text in files.items():
            path = os.path.join(self.folder, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)

    def add_later(self):
        self._write({path[len("later/"):]: text
                     for path, text in self.files.items()
                     if path.startswith("later/")})

    def start(self, url):
        """The tool at work, as a process (which leads a group)."""
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("PG")}
        environment.update(
            DATABASE_URL=url, PYTHONDONTWRITEBYTECODE="1", NO_COLOR="1",
            PATH=f"{MODULES}/.bin:{os.environ['PATH']}")
        return subprocess.Popen(
            ["/bin/sh", "-ec", self.tool.command], cwd=self.folder,
            env=environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)

    def finish(self, process):
        """What it said; it must end in time, and well."""
        try:
            said, _ = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            said, _ = process.communicate()
            raise AssertionError(
                f"{self.tool.command} hangs after:\n{said}") from None
        assert process.returncode == 0, (
            f"{self.tool.command} ended with {process.returncode}:\n{said}")
        return said

    def run(self, url):
        return self.finish(self.start(url))
