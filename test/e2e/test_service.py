"""As a system service: etc/pgsluice.service, and what systemd is told."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

import confine
import wire
from contract_tools import Slow, cancel
from login_tools import client_tls, log_in, verifying
from pgsluice import TOP, Pgsluice, read

UNIT = os.path.join(TOP, "etc", "pgsluice.service")
WORST_SCORE = 1.5


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", "--no-pager", *arguments],
                          capture_output=True, text=True, check=False)


def test_the_unit_is_hardened():
    found = analyze("security", "--offline=yes",
                    f"--threshold={WORST_SCORE * 10:.0f}", UNIT)
    score, = re.findall(r"exposure level for pgsluice.service: (\S+)",
                        found.stdout)
    assert found.returncode == 0 and float(score) <= WORST_SCORE, found.stdout
    page = read(os.path.join(TOP, "doc", "running.md"))
    assert f"rates it {score}," in page


def test_the_unit_is_one_that_systemd_understands(tmp_path):
    """The program in it stands where the package puts it: not here."""
    with open(UNIT, encoding="utf-8") as file:
        text = file.read()
    assert text.count("/usr/bin/pgsluice") == 1
    copy = tmp_path / "pgsluice.service"
    copy.write_text(text.replace("/usr/bin/pgsluice", Pgsluice.program))
    found = analyze("verify", "--man=no", str(copy))
    about = [line for line in found.stderr.splitlines()
             if "pgsluice" in line]
    assert found.returncode == 0 and about == [], found.stderr


class Confined(Pgsluice):
    """Under the unit's rules."""

    def command(self):
        return [sys.executable, confine.__file__, UNIT, *super().command()]


def test_the_units_rules_leave_it_what_it_needs(
        start, postgres_tls, authority):
    """TLS on both sides, a name to look up, the unix socket, a RELOAD, a
    cancel request, and the way out."""
    pgsluice = start(
        Confined, postgres_tls, listen_addr="localhost",
        databases={"app": f"host=localhost port={postgres_tls.port}"},
        server_tls_sslmode="require", syslog=True, workers=2,
        **client_tls(authority))
    with log_in(pgsluice, tls=verifying(authority.ca)) as client, \
            Slow(postgres_tls) as slow:
        assert client.value("SELECT ssl::text FROM pg_stat_ssl "
                            "WHERE pid = pg_backend_pid()") == "true"
        client.send(wire.query(slow.sql))
        slow.wait_running()
        cancel(pgsluice, client.pid, client.key)
        assert client.shapes(client.until_ready())[-2:] == "EZ"
    unix = wire.Wire.connect(pgsluice.port, pgsluice.folder)
    with unix.login("admin", "admin-secret", "pgsluice") as admin:
        admin.rows("RELOAD")
        assert admin.rows("SHOW DNS_HOSTS")
    assert pgsluice.stop(signal.SIGTERM) == 0


def test_what_the_units_rules_do_not_permit_ends_a_program():
    """Else the test above would prove nothing."""
    command = [sys.executable, confine.__file__, UNIT]
    assert subprocess.run([*command, "/bin/true"],
                          check=False).returncode == 0
    tried = subprocess.run([*command, "/usr/bin/nice", "/bin/true"],
                           check=False)
    assert tried.returncode == -signal.SIGSYS


# What systemd is told

@pytest.fixture(name="manager", params=["file", "abstract"])
def fixture_manager(request, tmp_path):
    """A socket as systemd's, and its name as NOTIFY_SOCKET has it."""
    path = str(tmp_path / "notify")
    if request.param == "abstract":
        path = f"@pgsluice-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path.replace("@", "\0"))
        sock.settimeout(60)
        yield sock, path


def told(sock):
    """The next thing that it is told, as a dict."""
    return dict(line.split("=", 1)
                for line in sock.recv(4096).decode().splitlines())


def test_systemd_is_told_how_it_is(start, postgres, manager):
    sock, name = manager

    class Notifying(Pgsluice):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.environment = {"NOTIFY_SOCKET": name}

    pgsluice = start(Notifying, postgres, shutdown_timeout="20s")
    assert told(sock)["READY"] == "1"

    def reloaded(how):
        how()
        first, then = told(sock), told(sock)
        assert first["RELOADING"] == "1" and then["READY"] == "1"
        assert int(first["MONOTONIC_USEC"]) > 0
        return then["STATUS"]

    serving = reloaded(lambda: pgsluice.send_signal(signal.SIGHUP))
    assert reloaded(lambda: pgsluice.console("RELOAD")) == serving
    pgsluice.settings["pool_mode"] = "swimming"
    pgsluice.write_files()
    assert "refused" in reloaded(lambda: pgsluice.send_signal(signal.SIGHUP))
    with pgsluice.connect() as client:
        client.rows("BEGIN; SELECT 1")
        pgsluice.send_signal(signal.SIGTERM)
        leaving = told(sock)
        assert leaving["STOPPING"] == "1"
        # longer than it waits itself
        assert int(leaving["EXTEND_TIMEOUT_USEC"]) > 20_000_000
        client.rows("COMMIT")
    assert pgsluice.wait_end() == 0


def test_with_nobody_to_tell_it_starts_all_the_same(start, postgres):
    class Notifying(Pgsluice):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.environment = {"NOTIFY_SOCKET": "/no/such/socket"}

    pgsluice = start(Notifying, postgres)
    with pgsluice.connect() as client:
        assert client.value("SELECT 1") == "1"
