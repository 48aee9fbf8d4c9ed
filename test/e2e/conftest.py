"""Fixtures: clusters for the whole run, poolers for one test each.

A pooler that a test has started must still be running when the test ends,
have found nothing wrong with itself, and stop when told to.
"""

import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

# pylint: disable=wrong-import-position
from login_tools import make_authority  # noqa: E402
from pgsluice import PgBouncer, Pgsluice, Postgres  # noqa: E402


def pytest_configure(config):
    # What runs in a shell's background or under nohup ignores these, and so
    # would all that is started here.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    config.addinivalue_line(
        "markers", "core: also run under the sanitizers")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Fixtures see in item.reports how their test went."""
    outcome = yield
    reports = item.__dict__.setdefault("reports", {})
    reports[call.when] = outcome.get_result()


def pytest_terminal_summary(terminalreporter):
    """What tests have measured."""
    for report in terminalreporter.stats.get("passed", []):
        if report.user_properties:
            terminalreporter.write_line(
                f"{report.nodeid.split('::')[-1]}: " + ", ".join(
                    f"{name} {value}"
                    for name, value in report.user_properties))


@pytest.fixture
def measured(request):
    """measured(p99_ms=7): is printed with the tally, if the test passes."""
    return lambda **values: request.node.user_properties.extend(
        values.items())


def run_postgres(**arguments):
    cluster = Postgres(**arguments)
    try:
        yield cluster.start()
    finally:
        cluster.stop()
        cluster.clean()


@pytest.fixture(scope="session")
def postgres():
    """Postgres 15 without TLS."""
    yield from run_postgres()


@pytest.fixture(scope="session")
def postgres_tls():
    """Postgres 15 with TLS."""
    yield from run_postgres(tls=True)


@pytest.fixture(scope="session")
def postgres_18():
    """Postgres 18 without TLS."""
    yield from run_postgres(version="18")


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Certificates for pgsluice and for its clients; see login_tools."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["pg15", "pg18"])
def any_postgres(request):
    """Each version in turn."""
    name = {"pg15": "postgres", "pg18": "postgres_18"}[request.param]
    return request.getfixturevalue(name)


@pytest.fixture
def start(request):
    """start(Class, ...) makes and starts one; it lives as long as the test.
    For a Postgres of the test's own, and for what is below."""
    started = []

    def start_one(kind, *arguments, **settings):
        started.append(kind(*arguments, **settings))
        return started[-1].start()

    yield start_one
    try:
        for program in started:
            if isinstance(program, Pgsluice):
                program.assert_sound()
    finally:
        went = request.node.__dict__.get("reports", {}).get("call")
        for program in reversed(started):
            try:
                if went is None or went.failed:
                    print(f"--- log of {program.name}\n"
                          + (program.log() + program.stderr())[-6000:],
                          file=sys.stderr)
                status = program.stop()
                if isinstance(program, Pgsluice):
                    assert status == 0, program.stderr()[-4000:]
            finally:
                program.clean()


@pytest.fixture
def start_pgsluice(start, request):
    """start_pgsluice(pool_mode="session", ...) before Postgres 15, or before
    the cluster given first."""
    def start_one(cluster=None, **settings):
        cluster = cluster or request.getfixturevalue("postgres")
        return start(Pgsluice, cluster, **settings)

    return start_one


@pytest.fixture
def pgsluice(start_pgsluice):
    """One with nothing special about it, before Postgres 15."""
    return start_pgsluice()


@pytest.fixture
def pgsluice_any(start_pgsluice, any_postgres):
    """The same before each version."""
    return start_pgsluice(any_postgres)


@pytest.fixture
def start_pgbouncer(start, request):
    """As start_pgsluice."""
    def start_one(cluster=None, **settings):
        cluster = cluster or request.getfixturevalue("postgres")
        return start(PgBouncer, cluster, **settings)

    return start_one


@pytest.fixture
def pgbouncer(start_pgbouncer):
    """Debian's PgBouncer with the settings of the fixture pgsluice."""
    return start_pgbouncer()
