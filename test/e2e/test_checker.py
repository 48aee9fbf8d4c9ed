"""The cross-talk and ledger checker (test/chaos): it finds nothing wrong with
pgsluice, and it would find what is wrong."""

import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "chaos"))

# pylint: disable=wrong-import-position
import rig  # noqa: E402

OPS = int(os.environ.get("CHECKER_OPS", "100000"))

# How often each lie is told (every so many opportunities), and in how many
# operations, so that it shows.
LIES = {
    "swap": (20, 1000),
    "reorder": (20, 1000),
    "flip": (20, 1000),
    "drop": (10, 1500),
    "double": (10, 1500),
    "rollback": (10, 2000),
    "keep": (5, 2000),
    "sync": (1, 10000),
    "cancel_other": (2, 6000),
    "cancel_late": (1, 10000),
    "setting": (20, 3000),
    "status": (20, 1000),
    "swallow": (200, 1000),
    "notice_row": (20, 1000),
    "statement": (20, 3000),
}


@pytest.fixture(scope="module")
def cluster():
    """A Postgres of the checker's own."""
    postgres = rig.OpenPostgres(autovacuum="off")
    try:
        yield postgres.start()
    finally:
        postgres.stop()
        postgres.clean()


def check(port, cluster, ops, *options):
    status, said = rig.run_checker(port, cluster, "--ops", str(ops), *options)
    assert status == 0, said[-20000:]
    assert " 0 violations" in said


@pytest.mark.parametrize("workers", [1, 4])
def test_nothing_gets_mixed_up_lost_or_doubled(start, cluster, workers):
    pooler = start(rig.servers.Pgsluice, cluster,
                   **rig.pooler_settings(cluster, workers=workers))
    check(pooler.port, cluster, OPS, "--clients", "60", "--seed",
          str(workers), "--floor", str(OPS // 2000))


@pytest.mark.core
def test_nothing_gets_mixed_up_in_a_short_run(start, cluster):
    pooler = start(rig.servers.Pgsluice, cluster,
                   **rig.pooler_settings(cluster, workers=4))
    check(pooler.port, cluster, min(OPS, 10000), "--clients", "40",
          "--stall", "120")


def test_well_behaved_clients_share_two_servers(start, cluster):
    pooler = start(rig.servers.Pgsluice, cluster, **rig.pooler_settings(
        cluster, workers=2, default_pool_size=2))
    check(pooler.port, cluster, min(OPS, 10000), "--no-misbehave",
          "--clients", "60")


def test_the_checker_finds_nothing_wrong_with_postgres(cluster):
    check(cluster.port, cluster, min(OPS, 10000))


def test_the_checker_believes_an_honest_proxy(cluster):
    assert lied_to(cluster, "honest", 1, 3000, seed=1) == 0


@pytest.mark.parametrize("lie", LIES)
def test_the_checker_notices_a_lie(cluster, lie):
    """Some lies harm nobody if they come at a bad time: one of three runs
    has to show it."""
    assert any(lied_to(cluster, lie, *LIES[lie], seed) == 1
               for seed in (1, 2, 3))


def lied_to(cluster, lie, every, ops, seed):
    """The checker's verdict on a proxy that tells such lies."""
    port = rig.servers.free_port()
    liar = subprocess.Popen(
        [sys.executable, os.path.join(rig.HERE, "liar.py"), str(port),
         str(cluster.port), lie, str(every)], stdout=subprocess.PIPE)
    try:
        assert liar.stdout.readline() == b"ready\n"
        status, said = rig.run_checker(port, cluster, "--ops", str(ops),
                                       "--clients", "20", "--stall", "5",
                                       "--seed", str(seed))
        print(said[-5000:])
        return status
    finally:
        liar.kill()
        liar.wait()
        liar.stdout.close()
