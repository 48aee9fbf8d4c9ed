"""doc/running.md: what it tells people to type is typed here, and what it
says of node-postgres is asked of node-postgres."""

import contextlib
import grp
import os
import re
import shutil
import signal
import stat
import subprocess
import tomllib

import pytest

import wire
from login_tools import stored_secret
from pgsluice import TOP, Pgsluice, read, secret, wait_until

PAGE = os.path.join(TOP, "doc", "running.md")
CONTAINER = os.path.join(TOP, "doc", "examples", "container")
NODE = os.path.join(TOP, "test", "e2e", "node", "tls.mjs")


class Walk:
    """Somebody who follows the page, in a folder in the place of the ones
    that it names and with a pgsluice in the place of the service."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.tls = os.path.join(self.folder, "tls")
        self.pgsluice = None
        tools = os.path.join(self.folder, "bin")
        os.mkdir(tools)
        with open(os.path.join(tools, "systemctl"), "w",
                  encoding="utf-8") as file:
            file.write('#!/bin/sh -e\n[ "$*" = "reload pgsluice" ]\n'
                       'kill -HUP "$SERVICE_PID"\n')
            os.fchmod(file.fileno(), 0o755)
        self.path = f"{tools}:{os.environ['PATH']}"

    def here(self, text):
        """The page's text with the names that hold here."""
        group = grp.getgrgid(os.getegid()).gr_name
        text = text.replace("/etc/pgsluice/tls", self.tls) \
            .replace("-g pgsluice", f"-g {group}")
        if self.pgsluice is not None:
            text = text.replace("pooler.example.com:6432",
                                f"localhost:{self.pgsluice.port}")
        return text.replace("pooler.example.com", "localhost")

    def type_in(self, name, **environment):
        """A block of the page; returns what it prints."""
        block, = re.findall(rf"<!-- test: {name} -->\n```sh\n(.*?)```",
                            read(PAGE), re.DOTALL)
        if self.pgsluice is not None:
            environment["SERVICE_PID"] = str(self.pgsluice.process.pid)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", self.here(block)],
            cwd=self.folder, text=True, check=False, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "PATH": self.path})
        assert done.returncode == 0, done.stdout
        return done.stdout

    def settings(self):
        """What the page has one put into the file."""
        block, = re.findall(r"```ini\n(.*?)```", read(PAGE), re.DOTALL)
        return dict(line.split(" = ")
                    for line in self.here(block).splitlines())

    def serial(self):
        """Of the certificate that was made last, as Node.js has it."""
        shown = subprocess.run(
            ["openssl", "x509", "-noout", "-serial", "-in",
             os.path.join(self.folder, "server.crt")],
            capture_output=True, text=True, check=True).stdout
        return shown.strip().removeprefix("serial=")

    def url(self, sslmode="require", host="localhost", extra=""):
        return (f"postgres://app:{secret('app')}@{host}:{self.pgsluice.port}"
                f"/app?sslmode={sslmode}{extra}")

    @contextlib.contextmanager
    def app(self, *urls, trusts=True):
        """node-postgres; gives a function for what it says next."""
        environment = {**os.environ}
        environment.pop("NODE_EXTRA_CA_CERTS", None)
        if trusts:
            environment["NODE_EXTRA_CA_CERTS"] = \
                os.path.join(self.folder, "ca.crt")
        with subprocess.Popen(
                ["node", "--no-warnings", NODE, *urls], text=True,
                env=environment, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE) as process:
            try:
                yield process, lambda: process.stdout.readline().strip()
            finally:
                process.stdin.close()

    def tried(self, *urls, trusts=True):
        """How it went with each of them."""
        with self.app(*urls, trusts=trusts) as (_, said):
            return [said() for _ in urls]

    def reload(self):
        """Over the unix socket, which needs no certificate."""
        link = wire.Wire.connect(self.pgsluice.port, self.pgsluice.folder)
        with link.login("admin", secret("admin"), "pgsluice") as admin:
            admin.rows("RELOAD")


@pytest.fixture(name="walk")
def fixture_walk(tmp_path, start_pgsluice):
    walk = Walk(tmp_path)
    for name in ("authority", "certificate", "install"):
        walk.type_in(name)
    walk.pgsluice = start_pgsluice(listen_addr="localhost",
                                   **walk.settings())
    return walk


def test_the_authority_of_ones_own_is_one_that_node_postgres_takes(walk):
    ok = f"ok {walk.serial()}"
    assert walk.tried(walk.url("require"), walk.url("verify-full")) == \
        [ok, ok]
    root = f"&sslrootcert={walk.folder}/ca.crt"
    assert walk.tried(walk.url("verify-full", extra=root),
                      walk.url("no-verify"), trusts=False) == [ok, ok]
    shown = walk.type_in("look")
    assert f"serial={walk.serial()}\n" in shown and "notAfter=" in shown
    mode = os.stat(os.path.join(walk.tls, "server.key")).st_mode
    assert stat.S_IMODE(mode) == 0o640


def test_node_postgres_verifies_whatever_it_is_asked_for(walk):
    """With the codes that the page names."""
    modes = ["prefer", "require", "verify-ca", "verify-full"]
    for urls, trusts, why in (
            (map(walk.url, modes), False, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
            ([walk.url(mode, "127.0.0.1") for mode in modes], True,
             "ERR_TLS_CERT_ALTNAME_INVALID")):
        assert walk.tried(*urls, trusts=trusts) == [why] * len(modes)
        assert why in read(PAGE)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
         "-keyout", f"{walk.tls}/server.key", "-out",
         f"{walk.tls}/server.crt", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True)
    walk.reload()
    why = "DEPTH_ZERO_SELF_SIGNED_CERT"
    assert walk.tried(walk.url()) == [why] and why in read(PAGE)


def test_a_renewed_certificate_is_in_use_after_the_hook(walk):
    """New connections get it, and one that is open does not notice."""
    with walk.app(walk.url()) as (process, said):
        before = walk.serial()
        assert said() == f"ok {before}"
        walk.type_in("certificate")
        after = walk.serial()
        assert after != before
        lineage = os.path.join(walk.folder, "lineage")
        os.mkdir(lineage)
        for ours, theirs in (("server.crt", "fullchain.pem"),
                             ("server.key", "privkey.pem")):
            shutil.copy(os.path.join(walk.folder, ours),
                        os.path.join(lineage, theirs))
        walk.type_in("hook", RENEWED_LINEAGE=lineage)

        def is_renewed():
            process.stdin.write("\n")
            process.stdin.flush()
            answer = said()
            assert answer in (f"ok {before} 42", f"ok {after} 42")
            return after in answer

        wait_until(is_renewed, "the new certificate")


def test_a_key_that_does_not_fit_leaves_the_old_ones_in_use(walk):
    before = walk.serial()
    walk.type_in("certificate")
    shutil.copy(os.path.join(walk.folder, "server.key"), walk.tls)
    with pytest.raises(wire.ServerError) as error:
        walk.reload()
    assert error.value.sqlstate == "F0000"
    assert walk.tried(walk.url()) == [f"ok {before}"]


# In a container

class Contained(Pgsluice):
    """As the image starts it: the entrypoint, the configuration, the
    secrets in the environment."""

    def __init__(self, cluster, folder, authority):
        super().__init__(cluster, unix_socket_dir=None)
        self.run = str(folder)
        self.authority = authority
        self.entrypoint = os.path.join(CONTAINER, "entrypoint")
        self.environment = {
            "PGSLUICE_RUN": self.run,
            "PGSLUICE_USERLIST": f'"app" "{stored_secret(cluster, "app")}"\n'
                                 '"admin" "admin-secret"',
            "PGSLUICE_TLS_CERT": read(authority.path("server.crt")),
            "PGSLUICE_TLS_KEY": read(authority.path("server.key"))}

    def write_files(self):
        text = read(os.path.join(CONTAINER, "pgsluice.ini"))
        for theirs, ours in (
                ("host=db.example.com port=5432",
                 f"host=localhost port={self.postgres.port}"),
                ("listen_port = 6432", f"listen_port = {self.port}"),
                ("/run/pgsluice", self.run),
                ("= system", f"= {self.postgres.certificates.ca}")):
            assert theirs in text
            text = text.replace(theirs, ours)
        with open(self.ini, "w", encoding="utf-8") as file:
            file.write(text)

    def command(self):
        return [self.entrypoint, *super().command()]


def test_in_a_container_secrets_come_from_the_environment(
        start, postgres_tls, authority, tmp_path):
    """And are in nobody's environment any more, nor readable by others. The
    database's password is nowhere: the client brings it."""
    pgsluice = start(Contained, postgres_tls, tmp_path, authority)
    link = wire.Wire.connect(pgsluice.port)
    link.start_tls()
    with link.login("app", secret("app"), "app") as client:
        assert client.value("SELECT current_user") == "app"
    for name in ("userlist.txt", "server.crt", "server.key"):
        mode = os.stat(tmp_path / name).st_mode
        assert stat.S_IMODE(mode) == 0o600
    environment = read(f"/proc/{pgsluice.process.pid}/environ")
    assert "PGSLUICE_RUN" in environment and "SCRAM" not in environment \
        and "PRIVATE KEY" not in environment
    assert pgsluice.stop(signal.SIGTERM) == 0


def test_what_the_container_files_name_is_there():
    dockerfile = read(os.path.join(CONTAINER, "Dockerfile"))
    copied = re.findall(r"^COPY (?:--\S+ )?(doc/\S+)", dockerfile,
                        re.MULTILINE)
    assert len(copied) == 2
    for path in copied:
        assert os.path.exists(os.path.join(TOP, path))
    port = re.search(r"^listen_port = (\d+)$", read(
        os.path.join(CONTAINER, "pgsluice.ini")), re.MULTILINE)[1]
    assert f"EXPOSE {port}\n" in dockerfile
    fly = tomllib.loads(read(os.path.join(CONTAINER, "fly.toml")))
    assert fly["services"][0]["internal_port"] == int(port)
    # as much as pgsluice takes for itself, and more
    assert fly["kill_signal"] == "SIGTERM" and fly["kill_timeout"] > 30
