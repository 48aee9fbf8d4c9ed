"""Throw-away Prisma apps, and the unmodified prisma program run in them.

    app = PrismaApp(folder, url, SCHEMA)
    app.write_migration("1_init", "CREATE TABLE ...")
    app.run("migrate", "deploy")            # a Finished: status, output

Prisma 7 has the stand-in for its schema engine (prisma/schema_engine.mjs);
Prisma 6 has its engine inside (engine: "js") and a driver adapter below it.
"""

import os
import shlex
import signal
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ENGINE = os.path.join(HERE, "prisma", "schema_engine.mjs")
TIME_LIMIT = 120

CONFIG_7 = """\
import { defineConfig } from 'prisma/config'

export default defineConfig({
  schema: 'schema.prisma',
  migrations: { path: 'migrations' },
  datasource: { url: process.env.DATABASE_URL },
})
"""

CONFIG_6 = """\
import { PrismaPg } from '@prisma/adapter-pg'
import { defineConfig } from 'prisma/config'

export default defineConfig({
  experimental: { adapter: true },
  engine: 'js',
  schema: 'schema.prisma',
  migrations: { path: 'migrations' },
  adapter: async () =>
    new PrismaPg({ connectionString: process.env.DATABASE_URL }),
})
"""

# Prisma 6 will not do without a url in the schema, Prisma 7 not with one.
HEAD = """\
datasource db {
  provider = "postgresql"
  %s
}

"""


class Finished:
    """A prisma command that has ended."""

    def __init__(self, command, status, output):
        self.command = command
        self.status = status
        self.output = output

    def check(self):
        assert self.status == 0, (
            f"{self.command} ended with {self.status}:\n{self.output}")
        return self


class PrismaApp:
    """A folder with a schema, its migrations and a prisma.config.ts."""

    def __init__(self, folder, url, models, version=7):
        self.folder = str(folder)
        self.url = url
        self.version = version
        self.started = []
        packages = {7: "node", 6: "prisma"}[version]
        os.makedirs(self.path("migrations"))
        os.symlink(os.path.join(HERE, packages, "node_modules"),
                   self.path("node_modules"))
        self.write("prisma.config.ts", {7: CONFIG_7, 6: CONFIG_6}[version])
        self.write("migrations/migration_lock.toml",
                   'provider = "postgresql"\n')
        self.write_models(models)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def write_models(self, models):
        url = {7: "", 6: 'url = env("DATABASE_URL")'}[self.version]
        self.write("schema.prisma", HEAD % url + models)

    def write_migration(self, name, sql):
        self.write(f"migrations/{name}/migration.sql", sql)

    def migrations(self):
        return sorted(entry.name for entry in
                      os.scandir(self.path("migrations")) if entry.is_dir())

    def environment(self):
        return {
            **{name: value for name, value in os.environ.items()
               if not name.startswith("PG")},
            "DATABASE_URL": self.url,
            "PRISMA_SCHEMA_ENGINE_BINARY": ENGINE,
            "PRISMA_HIDE_UPDATE_MESSAGE": "1",
            # Prisma 6 does not use it, but will not start without.
            "PRISMA_QUERY_ENGINE_LIBRARY": "/bin/true",
            "CHECKPOINT_DISABLE": "1",
            "NO_COLOR": "1",
        }

    def start(self, *arguments, terminal=False):
        command = ["node", "node_modules/prisma/build/index.js", *arguments]
        if terminal:
            command = ["script", "-qec", shlex.join(command), "/dev/null"]
        self.started.append(Running(command, subprocess.Popen(
            command, cwd=self.folder, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True)))
        return self.started[-1]

    def kill(self):
        """Whatever is still running."""
        for running in self.started:
            running.kill()

    def run(self, *arguments, terminal=False):
        return self.start(*arguments, terminal=terminal).finish()


class Running:
    """A prisma command under way."""

    def __init__(self, command, process):
        self.command = shlex.join(command)
        self.process = process

    def finish(self, deadline=TIME_LIMIT):
        try:
            output, _ = self.process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            self.kill()
            output, _ = self.process.communicate()
            raise AssertionError(f"{self.command} hangs after:\n"
                                 f"{output}") from None
        return Finished(self.command, self.process.returncode, output)

    def has_ended(self):
        return self.process.poll() is not None

    def kill(self):
        """With the schema engine that it has started."""
        if not self.has_ended():
            os.killpg(self.process.pid, signal.SIGKILL)
