"""The machines of the benchmark: one Postgres, and what stands before it.

Everything lives in one temporary folder and listens on 127.0.0.1. A Rig
owns Postgres and the helper programs; a contender (the floor, PgBouncer,
pgsluice) is started afresh for every single measurement, so that none
inherits memory or warm servers from the one before, and is a Process whose
CPU time and memory can be read.
"""

import base64
import ctypes
import hashlib
import hmac
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
USER = "bench"
PASSWORD = "a password of usual length"
MAX_CONNECTIONS = 500

# Offsets from the first port.
PORT_POSTGRES, PORT_FAR, PORT_CONTENDER, PORT_ANSWERER = range(4)


class Trouble(Exception):
    """Something which is not a result; the text says what to do."""


def die_with_parent():
    """In a child: end when the harness does, however it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Process:
    """A program on a port, running."""

    def __init__(self, argv, port, log, identity):
        self.port = port
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(
                [str(word) for word in argv], stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, preexec_fn=die_with_parent,
                **identity)
        self.pid = self.child.pid
        self._await_port()

    def _await_port(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise Trouble(f"{self.child.args[0]} ended at its start:\n"
                              + self.log_tail())
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.01)
        self.stop()
        raise Trouble(f"{self.child.args[0]} does not listen on {self.port}:"
                      "\n" + self.log_tail())

    def log_tail(self):
        return "\n".join(Path(self.log).read_text().splitlines()[-10:])

    def cpu_us(self):
        """User and system time of all threads, also of those which ended.

        This is the process's CPU-time clock, which counts what /proc's utime
        and stime count, in nanoseconds rather than ticks. Its number is that
        of clock_getcpuclockid(3), which Python has for threads only.
        """
        return time.clock_gettime_ns((~self.pid << 3) | 2) / 1000

    def resident_bytes(self):
        """Exact, unlike VmRSS, which the kernel counts in batches by CPU."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        for line in text.splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise Trouble(f"no Rss in smaps_rollup of {self.pid}")

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                print(f"  {self.child.args[0]} did not end at SIGTERM")
                self.child.kill()
                self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()


def scram_verifier(password, iterations=4096):
    """The secret as Postgres stores it (RFC 5802, section 3)."""
    def mac(key, message):
        return hmac.digest(key, message, "sha256")

    def text(raw):
        return base64.b64encode(raw).decode()

    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt,
                                 iterations)
    stored = hashlib.sha256(mac(salted, b"Client Key")).digest()
    server = mac(salted, b"Server Key")
    return (f"SCRAM-SHA-256${iterations}:{text(salt)}"
            f"${text(stored)}:{text(server)}")


def secret_in_form(form):
    """What auth_file holds: the password itself, or what hides it."""
    if form == "plain":
        return PASSWORD
    if form == "md5":
        digest = hashlib.md5((PASSWORD + USER).encode()).hexdigest()
        return "md5" + digest
    return scram_verifier(PASSWORD)


class Rig:
    """The temporary folder, the helpers, Postgres."""

    def __init__(self, options):
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="pgsluice-bench-"))
        self.postgres = None
        self.serial = 0
        raise_file_limit()
        self.identity = self._choose_identity()

    def __enter__(self):
        try:
            self._build_helpers()
            self._make_certificate()
            self._start_postgres()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        if self.postgres is not None:
            # Fast shutdown: SIGTERM would wait for clients to leave.
            self.postgres.child.send_signal(signal.SIGINT)
            self.postgres.child.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _choose_identity(self):
        """Postgres and PgBouncer refuse to be root; all run as one user.

        With a home that is empty, and none of libpq's variables.
        """
        env = {name: value for name, value in os.environ.items()
               if not name.startswith("PG")}
        env["HOME"] = str(self.folder)
        if os.geteuid() != 0:
            return {"env": env, "cwd": self.folder}
        user = pwd.getpwnam(self.options.user)
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.folder.chmod(0o755)
        return {"user": user.pw_uid, "group": user.pw_gid,
                "extra_groups": [], "env": env, "cwd": self.folder}

    def port(self, offset):
        return self.options.port + offset

    def path(self, name):
        return self.folder / name

    def run(self, *argv):
        """A short command, as that user; its output."""
        done = subprocess.run([str(word) for word in argv], text=True,
                              stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, **self.identity)
        if done.returncode != 0:
            raise Trouble(f"{argv[0]} failed:\n{done.stdout}")
        return done.stdout

    def write(self, name, text):
        """A file of this folder, readable by the user and no one else."""
        path = self.path(name)
        path.write_text(text)
        path.chmod(0o600)
        if "user" in self.identity:
            os.chown(path, self.identity["user"], self.identity["group"])
        return path

    def log(self, name):
        """A log of its own for each process; the folder goes at the end."""
        self.serial += 1
        return self.path(f"{self.serial}-{name}.log")

    # -- what is needed before anything can be measured

    def _build_helpers(self):
        include = subprocess.check_output(
            ["pg_config", "--includedir"], text=True).strip()
        compiler = os.environ.get("CC", "cc")
        for name, libraries in (("floor", []), ("load", ["-lpq"]),
                                ("tls_floor", ["-lssl", "-lcrypto"])):
            subprocess.run(
                [compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", "-g",
                 "-I" + include, "-o", str(self.path(name)),
                 str(HERE / (name + ".c"))] + libraries, check=True)
        if self.options.pgsluice.exists():
            # A copy: that user may not be able to reach it where it is, and
            # a build in the meantime does not change what is measured.
            shutil.copy(self.options.pgsluice, self.path("pgsluice"))

    def _make_certificate(self):
        self.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-subj", "/CN=localhost", "-keyout", self.path("tls.key"),
                 "-out", self.path("tls.crt"))

    def _program(self, name):
        return Path(self.options.pg_bin) / name

    def _start_postgres(self):
        data = self.path("data")
        self.run(self._program("initdb"), "-D", data, "-U", "postgres",
                 "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8")
        settings = {
            "port": self.port(PORT_POSTGRES),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "max_connections": MAX_CONNECTIONS,
            "fsync": "off", "synchronous_commit": "off",
            "autovacuum": "off", "jit": "off", "ssl": "off",
        }
        argv = [self._program("postgres"), "-D", data]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        self.postgres = Process(argv, self.port(PORT_POSTGRES),
                                self.log("postgres"), self.identity)
        self._await_postgres()
        self.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        self.sql(f"CREATE DATABASE {USER} OWNER {USER}")
        self.run("pgbench", "-i", "-q", "-s", "1",
                 self.conninfo(self.port(PORT_POSTGRES)))

    def _await_postgres(self):
        """It listens before it has read its own files."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self.sql("SELECT 1")
                return
            except Trouble:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def sql(self, statement):
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c",
                        statement, f"host=127.0.0.1 user=postgres "
                        f"port={self.port(PORT_POSTGRES)} dbname=postgres")

    def conninfo(self, port, tls=False):
        return (f"hostaddr=127.0.0.1 port={port} user={USER} dbname={USER} "
                f"password='{PASSWORD}' gssencmode=disable "
                f"sslmode={'require' if tls else 'disable'}")

    # -- the guard of the pool's limit: Postgres itself counts

    def limit_servers(self, limit):
        self.sql(f"ALTER ROLE {USER} CONNECTION LIMIT {limit}")

    def times_over_limit(self):
        text = Path(self.postgres.log).read_text(errors="replace")
        return text.count(f'too many connections for role "{USER}"')

    # -- helpers that measurements start

    def floor(self, port=None, server_port=None, delay_ms=0):
        """The relay that parses nothing."""
        return Process(
            [self.path("floor"), "-d", delay_ms,
             port or self.port(PORT_CONTENDER),
             server_port or self.port(PORT_POSTGRES)],
            port or self.port(PORT_CONTENDER), self.log("floor"),
            self.identity)

    def far_postgres(self, delay_ms):
        """Postgres, but each connection to it begins so much later."""
        return self.floor(self.port(PORT_FAR), None, delay_ms)

    def answerer(self, port):
        """The bare OpenSSL server with canned answers."""
        return Process([self.path("tls_floor"), port, self.path("tls.crt"),
                        self.path("tls.key")], port, self.log("tls_floor"),
                       self.identity)


def raise_file_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- the contenders -------------------------------------------------------

class Setup:
    """How a measurement wants its contender."""

    def __init__(self, pool_size=20, pool_mode="transaction", tls=False,
                 secret=None, far_ms=0, answerer=False):
        self.pool_size = pool_size
        self.pool_mode = pool_mode
        self.tls = tls
        self.secret = secret        # None: trust; plain, md5, scram
        self.far_ms = far_ms        # server logins take that much longer
        self.answerer = answerer    # the floor needs no Postgres

    def auth_type(self):
        return {None: "trust", "md5": "md5"}.get(self.secret,
                                                 "scram-sha-256")


class Contender:
    name = None
    is_floor = False
    is_narrow = False           # for pgbench only, with fewer clients

    def missing(self, rig):
        """Why it cannot take part, or None."""
        return None

    def start(self, rig, setup, server_port):
        raise NotImplementedError


class Floor(Contender):
    """The relay; or, where no bytes of Postgres are needed, the server with
    canned answers, which knows TLS as well."""

    name = "floor"
    is_floor = True

    def start(self, rig, setup, server_port):
        if setup.answerer:
            return rig.answerer(rig.port(PORT_CONTENDER))
        return rig.floor(server_port=server_port)


class NarrowFloor(Floor):
    """The relay with as many clients as the poolers have servers.

    64 Postgres processes wake each other up and share the caches worse than
    20 do, and the relay before them pays for that. This one does not.
    """

    name = "floor-20"
    is_narrow = True


class Pooler(Contender):
    """One that reads PgBouncer's ini file."""

    section = "pgbouncer"
    own_settings = {}

    def settings(self, rig, setup):
        secret = secret_in_form(setup.secret)
        users = rig.write("users.txt", f'"{USER}" "{secret}"\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": rig.port(PORT_CONTENDER),
            "listen_backlog": 4096,
            "unix_socket_dir": "",
            "auth_type": setup.auth_type(),
            "auth_file": users,
            "pool_mode": setup.pool_mode,
            "default_pool_size": setup.pool_size,
            "max_client_conn": 11000,
            "server_tls_sslmode": "disable",
            "log_connections": 0,
            "log_disconnections": 0,
            "log_stats": 0,
        }
        if setup.tls:
            settings.update({
                "client_tls_sslmode": "require",
                "client_tls_key_file": rig.path("tls.key"),
                "client_tls_cert_file": rig.path("tls.crt"),
            })
        settings.update(self.own_settings)
        return settings

    def write_ini(self, rig, setup, server_port):
        lines = ["[databases]",
                 f"{USER} = host=127.0.0.1 port={server_port}",
                 "", f"[{self.section}]"]
        lines += [f"{name} = {value}" for name, value
                  in self.settings(rig, setup).items()]
        return rig.write(f"{self.name}.ini", "\n".join(lines) + "\n")

    def start(self, rig, setup, server_port):
        ini = self.write_ini(rig, setup, server_port)
        return Process([self.program(rig), ini], rig.port(PORT_CONTENDER),
                       rig.log(self.name), rig.identity)


class PgBouncer(Pooler):
    name = "pgbouncer"

    def program(self, rig):
        return shutil.which(rig.options.pgbouncer)

    def missing(self, rig):
        if self.program(rig) is None:
            return f"there is no {rig.options.pgbouncer} here"
        return None


class Pgsluice(Pooler):
    section = "pgsluice"

    def __init__(self, workers):
        self.name = f"pgsluice-{workers}"
        self.own_settings = {"workers": workers}

    def program(self, rig):
        return rig.path("pgsluice")

    def missing(self, rig):
        if not self.program(rig).exists():
            return f"{rig.options.pgsluice} has not been built"
        return None


CONTENDERS = [Floor(), NarrowFloor(), PgBouncer(), Pgsluice(1),
              Pgsluice(2)]
