"""The Debian package: what is in it. Its life, from installing to purging, is
`make deb-check`."""

import fcntl
import glob
import os
import re
import subprocess

import pytest

from pgsluice import TOP, Pgsluice, read

# Building it takes a while, and both of pytest's workers may wait for it.
pytestmark = pytest.mark.timeout(900)

BUILD = os.path.join(TOP, "build", "deb")
UNIT = "lib/systemd/system/pgsluice.service"


def run(*command):
    done = subprocess.run(command, cwd=TOP, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


@pytest.fixture(scope="module", name="package")
def fixture_package():
    """Made once a run, whichever of pytest's workers comes first."""
    os.makedirs(BUILD, exist_ok=True)
    this_run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    made_by = os.path.join(BUILD, "made-by")
    with open(os.path.join(BUILD, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read(made_by) != this_run:
            run("make", "-s", "deb")
            with open(made_by, "w", encoding="utf-8") as file:
                file.write(this_run)
    package, = glob.glob(os.path.join(BUILD, "pgsluice_*.deb"))
    return package


@pytest.fixture(scope="module", name="tree")
def fixture_tree(package, tmp_path_factory):
    """Its files."""
    folder = str(tmp_path_factory.mktemp("tree"))
    run("dpkg-deb", "-x", package, folder)
    return folder


def test_its_version_is_the_programs(package):
    version = run("dpkg-deb", "-f", package, "Version").strip()
    assert run(Pgsluice.program, "--version").split() == \
        ["pgsluice", version]


def test_it_depends_on_what_it_is_linked_with(package):
    depends = run("dpkg-deb", "-f", package, "Depends")
    for name in ("libc6", "libevent-core", "libpq5", "libssl", "libinih",
                 "adduser"):
        assert name in depends
    assert "postgresql" not in depends


def test_it_has_what_a_service_needs(package):
    listed = {}             # path -> its mode
    for line in run("dpkg-deb", "-c", package).splitlines():
        mode, owner, _, _, _, path = line.split(None, 5)
        assert owner == "root/root"
        if not path.endswith("/"):
            listed[path.removeprefix("./")] = mode[1:]
    expected = {
        "usr/bin/pgsluice": "rwxr-xr-x",
        UNIT: "rw-r--r--",
        "etc/pgsluice/pgsluice.ini": "rw-r--r--",
        "etc/pgsluice/userlist.txt": "rw-r-----",
        "usr/share/man/man1/pgsluice.1.gz": "rw-r--r--",
        "usr/share/doc/pgsluice/README.md": "rw-r--r--",
        "usr/share/doc/pgsluice/copyright": "rw-r--r--",
        "usr/share/doc/pgsluice/doc/running.md": "rw-r--r--",
        "usr/share/doc/pgsluice/doc/settings.md": "rw-r--r--",
    }
    assert {path: listed.get(path) for path in expected} == expected
    kept = run("dpkg-deb", "-I", package, "conffiles").split()
    assert sorted(kept) == ["/etc/pgsluice/pgsluice.ini",
                            "/etc/pgsluice/userlist.txt"]
    # no place but these
    assert not [path for path in listed if not re.match(
        r"usr/(bin/pgsluice$|share/(doc/pgsluice|man|lintian))"
        r"|etc/pgsluice/|lib/systemd/system/pgsluice.service$", path)]


def test_what_it_starts_with_fits_the_unit(tree):
    """The file that the unit reads is there; so is the socket's folder."""
    unit = read(os.path.join(tree, UNIT))
    program, ini = re.search(r"^ExecStart=(\S+) (\S+)$", unit,
                             re.MULTILINE).groups()
    assert os.access(tree + program, os.X_OK)
    folder = re.search(r"^unix_socket_dir = /run/(\S+)$", read(tree + ini),
                       re.MULTILINE)[1]
    assert f"RuntimeDirectory={folder}\n" in unit


def test_its_program_works(start_pgsluice, tree, monkeypatch):
    monkeypatch.setattr(Pgsluice, "program", tree + "/usr/bin/pgsluice")
    with start_pgsluice().connect() as client:
        assert client.value("SELECT 1") == "1"


def test_dpkg_unpacks_it(package, tmp_path):
    """Into a root of its own, where nothing else is."""
    os.makedirs(tmp_path / "var/lib/dpkg/updates")
    (tmp_path / "var/lib/dpkg/status").touch()
    run("dpkg", f"--root={tmp_path}", "--force-not-root",
        "--force-depends", "--no-triggers", "--unpack", package)
    shown = run("dpkg-query", f"--admindir={tmp_path}/var/lib/dpkg", "-f",
                "${db:Status-Status}", "-W", "pgsluice")
    assert shown == "unpacked"
    assert os.access(tmp_path / "usr/bin/pgsluice", os.X_OK)


def test_the_manual_page_has_every_option(tree):
    page = read(os.path.join(TOP, "doc", "pgsluice.1")).replace("\\-", "-")
    for option in re.findall(r"--[a-z]+",
                             run(Pgsluice.program, "--help")):
        assert option in page
    said = run("man", "--warnings", "-l",
               tree + "/usr/share/man/man1/pgsluice.1.gz")
    assert "warning" not in said and "SIGNALS" in said
