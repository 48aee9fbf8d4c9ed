"""The example app (doc/examples/vercel-prisma) in a folder of its own."""

import os
import re
import shlex
import shutil
import subprocess

import psycopg2

from pgsluice import TOP, secret
from prisma_tools import ENGINE

EXAMPLE = os.path.join(TOP, "doc", "examples", "vercel-prisma")
GUIDE = os.path.join(TOP, "doc", "deploy.md")
TIME_LIMIT = 120
AUTH_SECRET = "not-so-secret"


class Road:
    """A copy of the example that commands are run in, and where its
    DATABASE_URL leads."""

    def __init__(self, folder, url=""):
        self.folder = str(folder)
        self.url = url
        shutil.copytree(EXAMPLE, self.folder, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns(
                            "node_modules", "generated", ".env", "*.db"))
        os.symlink(os.path.join(EXAMPLE, "node_modules"),
                   self.path("node_modules"))

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def environment(self, **more):
        programs = os.pathsep.join([self.path("node_modules", ".bin"),
                                    os.environ["PATH"]])
        return {
            **{name: value for name, value in os.environ.items()
               if not name.startswith("PG")},
            "PATH": programs,
            "DATABASE_URL": self.url,
            "AUTH_SECRET": AUTH_SECRET,
            # The example uses Prisma's own engine, a binary that its
            # packages download; this one is in its place.
            "PRISMA_SCHEMA_ENGINE_BINARY": ENGINE,
            "PRISMA_HIDE_UPDATE_MESSAGE": "1",
            "CHECKPOINT_DISABLE": "1",
            "NO_COLOR": "1",
            **more,
        }

    def start(self, *command, **environment):
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment(**environment),
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True)

    def run(self, *command, status=0, **environment):
        """Output of a command, which must end with this status."""
        return self.finish(self.start(*command, **environment), status)

    @staticmethod
    def finish(process, status=0):
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            raise AssertionError(f"{process.args} hangs after:\n"
                                 f"{output}") from None
        assert process.returncode == status, (
            f"{process.args} ended with {process.returncode}:\n{output}")
        return output

    def run_script(self, script, **environment):
        """Lines of shell, on a terminal: `prisma migrate dev` wants one."""
        return self.run("script", "-qec",
                        shlex.join(["bash", "-euxc", script]), "/dev/null",
                        **environment)

    def start_copy(self, file, *options):
        """The script that copies data."""
        return self.start("tsx", "scripts/migrate_sqlite_to_pg.ts", file,
                          *options)

    def copy(self, file, *options, status=0):
        return self.finish(self.start_copy(file, *options), status)

    def to_postgres(self):
        """What the guide does, and a migration named init."""
        self.run("sed", "-i", 's/"sqlite"/"postgresql"/',
                 "prisma/datasource.prisma")
        shutil.move(self.path("prisma", "migrations"),
                    self.path("prisma", "migrations-sqlite"))
        os.makedirs(self.path("prisma", "migrations", "1_init"))
        self.run("prisma", "migrate", "diff", "--from-empty", "--to-schema",
                 "prisma", "--script", "--output",
                 "prisma/migrations/1_init/migration.sql")
        self.run("cp", "prisma/migrations-sqlite/migration_lock.toml",
                 "prisma/migrations")
        self.run("sed", "-i", 's/"sqlite"/"postgresql"/',
                 "prisma/migrations/migration_lock.toml")
        self.run("prisma", "generate")
        return self

    def schema(self):
        with open(self.path("prisma", "migrations", "1_init",
                            "migration.sql"), encoding="utf-8") as file:
            return file.read()


def blocks(path, language):
    """The fenced blocks of a page that are in this language."""
    with open(path, encoding="utf-8") as file:
        return re.findall(rf"^```{language}\n(.*?)^```", file.read(),
                          re.MULTILINE | re.DOTALL)


def connect(cluster, database, user="app"):
    """psycopg2, to Postgres itself."""
    return psycopg2.connect(host="127.0.0.1", port=cluster.port, user=user,
                            password=secret(user), dbname=database)
