"""The example app (doc/examples/vercel-prisma) in a folder of its own."""

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request

import psycopg2
import yaml

import awkward
from pgsluice import TOP, free_port, read, secret, write
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

    def like(self, other):
        """Gets what to_postgres() has made there."""
        for name in ("prisma", "src"):
            shutil.copytree(other.path(name), self.path(name),
                            dirs_exist_ok=True)
        shutil.rmtree(self.path("prisma", "migrations"))
        shutil.copytree(other.path("prisma", "migrations"),
                        self.path("prisma", "migrations"))
        return self

    def migration(self, name):
        """The SQL of the one whose name ends so."""
        path, = glob.glob(self.path("prisma", "migrations", f"*_{name}",
                                    "migration.sql"))
        return read(path)

    def schema(self):
        return self.migration("init")

    def write_migration(self, name, sql):
        os.makedirs(self.path("prisma", "migrations", name))
        write(self.path("prisma", "migrations", name, "migration.sql"), [sql])

    def serve(self, url):
        return Served(self, url)


class Served:
    """The app, answering requests as long as the with block lasts."""

    def __init__(self, road, url):
        self.port = free_port()
        self.address = f"http://localhost:{self.port}"
        self.process = road.start("tsx", "scripts/dev.ts", DATABASE_URL=url,
                                  PORT=str(self.port))

    def __enter__(self):
        line = self.process.stdout.readline()
        assert self.address in line, line + self.process.stdout.read()
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, 9)
        self.process.communicate()

    def get(self, path):
        request = urllib.request.Request(self.address + path, headers={
            "Cookie": f"authjs.session-token={awkward.SESSION}"})
        with urllib.request.urlopen(request, timeout=TIME_LIMIT) as response:
            return json.load(response)

    def refuses(self, path, status):
        try:
            self.get(path)
        except urllib.error.HTTPError as error:
            assert error.code == status, error.read()
            return
        raise AssertionError(f"{path} is served")


class Job:
    """Runs steps of the example's workflow as GitHub does, for a push to
    main. `vercel` is a program that notes what it is told."""

    def __init__(self, road, url, shadow=""):
        road.url = url
        self.road = road
        with open(road.path(".github", "workflows", "deploy.yml"),
                  encoding="utf-8") as file:
            job = yaml.safe_load(file)["jobs"]["deploy"]
        self.environment = job["env"]
        self.steps = {step["name"]: step for step in job["steps"]
                      if "run" in step and step["name"] != "Install"}
        self.secrets = {"DATABASE_URL": url, "SHADOW_DATABASE_URL": shadow,
                        "AUTH_SECRET": AUTH_SECRET}
        os.mkdir(road.path("bin"))
        self.deploys_to("nowhere")

    def deploys_to(self, address):
        write(self.road.path("bin", "vercel"), [
            "#!/bin/sh", f'echo "$@" >>{self.road.path("vercel.log")}',
            f'case $1 in deploy) echo {address} ;; esac'], 0o755)

    def vercel_was_told(self):
        return read(self.road.path("vercel.log")).splitlines()

    def value(self, text):
        found = re.fullmatch(r"\$\{\{ (.*) \}\}", text)
        if not found:
            return text
        if found[1].startswith("secrets."):
            return self.secrets.get(found[1][len("secrets."):], "x")
        assert found[1] == ("github.ref == 'refs/heads/main'"
                            " && 'production' || 'preview'")
        return "production"

    def start(self, name):
        step = self.steps[name]
        given = {**self.environment, **step.get("env", {})}
        environment = {key: self.value(text) for key, text in given.items()}
        path = os.pathsep.join([self.road.path("bin"),
                                self.road.environment()["PATH"]])
        return self.road.start("bash", "-eo", "pipefail", "-c", step["run"],
                               PATH=path, **environment)

    def run(self, name, status=0):
        return self.road.finish(self.start(name), status)

    def fails(self, name):
        return self.run(name, status=2)


def upstream_text(provider):
    return read(os.path.join(TOP, "doc", "examples", "upstream",
                             f"{provider}.ini"))


def upstream(provider, folder, keys, settings):
    """The file for a provider with other keys of the database and other
    settings, which must be in it, and the users of tests."""
    text = upstream_text(provider)
    users = os.path.join(folder, "userlist.txt")
    write(users, [f'"{user}" "{secret(user)}"' for user in ("app", "admin")],
          0o600)
    for key, value in keys.items():
        text, count = re.subn(rf"\b{key}=\S+", f"{key}={value}", text)
        if key == "port" and not count:
            text, count = re.subn("(?<= )dbname=", f"port={value} dbname=",
                                  text)
        assert count == 1, key
    for key, value in {**settings, "auth_file": users}.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1, key
    path = os.path.join(folder, f"{provider}.ini")
    write(path, [text])
    return path


def blocks(path, language):
    """The fenced blocks of a page that are in this language."""
    with open(path, encoding="utf-8") as file:
        return re.findall(rf"^```{language}\n(.*?)^```", file.read(),
                          re.MULTILINE | re.DOTALL)


def connect(cluster, database, user="app"):
    """psycopg2, to Postgres itself."""
    return psycopg2.connect(host="127.0.0.1", port=cluster.port, user=user,
                            password=secret(user), dbname=database)
