"""The drivers that people use, each playing its scenario through pgsluice.

A scenario (drivers/*, node/*.mjs) is a program of its own that is given a
DATABASE_URL and knows nothing of poolers: it can be run against Postgres
directly, which is the first thing to do when it fails here. Every scenario
ends with a crowd of more clients than there are servers, each of which must
get its own answers, and no more backends than there are servers.
"""

import fcntl
import os
import subprocess
import sys

import pytest

from pgsluice import read

HERE = os.path.dirname(os.path.abspath(__file__))
DRIVERS = os.path.join(HERE, "drivers")
NODE = os.path.join(HERE, "node")
POSTGRES_JAR = "/usr/share/java/postgresql.jar"

CLIENTS = 20
SERVERS = 4
ROUNDS = 10
TIME_LIMIT = 120


def python(name):
    return [sys.executable, os.path.join(DRIVERS, f"{name}.py")]


def java(name):
    # Compiled as it starts; C1 alone is the quicker compiler for that.
    return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            "-cp", POSTGRES_JAR, os.path.join(DRIVERS, f"{name}.java")]


def node(name):
    return ["node", os.path.join(NODE, f"{name}.mjs")]


SCENARIOS = {
    "psql": python("psql_scenario"),
    "pgbench": python("pgbench_scenario"),
    "psycopg2": python("psycopg2_scenario"),
    "psycopg3": python("psycopg3_scenario"),
    "asyncpg": python("asyncpg_scenario"),
    "pgjdbc": java("PgJdbcScenario"),
    "pg": node("pg"),
    "postgresjs": node("postgresjs"),
    "drizzle": node("drizzle"),
    "prisma": node("prisma"),
}
# Also run under the sanitizers: between them, all ways to use the protocol.
CORE = ("psycopg3", "asyncpg", "postgresjs")
OVER_TLS = ("psql", "pgbench", "pg", "pgjdbc")


@pytest.fixture(scope="session")
def prisma_client():
    """Generates the clients of node/prisma*.mjs and node/prisma6 into their
    node_modules, once for each schema.prisma; pytest may run in several
    processes.

    The prisma program looks for its native engines before anything else, and
    would download them; to generate it does not start them. So any program
    will do.
    """
    for folder in (NODE, os.path.join(NODE, "prisma6")):
        have_prisma_client(folder)


def have_prisma_client(folder):
    modules = os.path.join(folder, "node_modules")
    with open(os.path.join(modules, ".generating"), "w",
              encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # It leaves a copy of what it was made from.
        made_from = os.path.join(modules, ".prisma", "client",
                                 "schema.prisma")
        if read(made_from) != read(os.path.join(folder, "schema.prisma")):
            generate_prisma_client(folder)


def generate_prisma_client(folder):
    done = subprocess.run(
        ["node", "node_modules/prisma/build/index.js", "generate",
         "--schema", "schema.prisma"], cwd=folder, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=TIME_LIMIT,
        env={**os.environ, "PRISMA_SCHEMA_ENGINE_BINARY": "/bin/true",
             "PRISMA_QUERY_ENGINE_LIBRARY": "/bin/true",
             "PRISMA_HIDE_UPDATE_MESSAGE": "1", "CHECKPOINT_DISABLE": "1"})
    assert done.returncode == 0, done.stdout


def play(driver, url):
    """The scenario must say of all its steps that they hold."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("PG")}
    environment.update(DATABASE_URL=url, CLIENTS=str(CLIENTS),
                       SERVERS=str(SERVERS), ROUNDS=str(ROUNDS))
    with subprocess.Popen(SCENARIOS[driver], env=environment, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          start_new_session=True) as scenario:
        try:
            said, _ = scenario.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(scenario.pid, 9)      # with the psql and pgbench in it
            said, _ = scenario.communicate()
            pytest.fail(f"{driver} hangs after:\n{said}", pytrace=False)
    if scenario.returncode != 0 or "ok      " not in said:
        pytest.fail(f"{driver} ended with {scenario.returncode}:\n{said}",
                    pytrace=False)


@pytest.mark.parametrize("driver", [
    pytest.param(driver, marks=pytest.mark.core if driver in CORE else ())
    for driver in SCENARIOS])
def test_a_driver_works_with_more_clients_than_servers(
        driver, any_postgres, start_pgsluice, request):
    if driver == "prisma":
        request.getfixturevalue("prisma_client")
    pooler = start_pgsluice(any_postgres, default_pool_size=SERVERS,
                            workers=2)
    play(driver, pooler.url())


@pytest.mark.parametrize("driver", OVER_TLS)
def test_a_driver_works_over_tls_that_it_verifies(
        driver, postgres_tls, start_pgsluice):
    authority = postgres_tls.certificates
    certificate, key = authority.server("pooler")
    pooler = start_pgsluice(
        postgres_tls, default_pool_size=SERVERS, workers=2,
        client_tls_sslmode="require", client_tls_cert_file=certificate,
        client_tls_key_file=key, server_tls_sslmode="verify-full",
        server_tls_ca_file=authority.ca)
    play(driver, pooler.url(host="localhost")
         + f"?sslmode=verify-full&sslrootcert={authority.ca}")
