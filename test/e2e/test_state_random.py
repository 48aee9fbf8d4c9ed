"""Random sessions have the same answers on Postgres itself and through
pgsluice, and look the same after each step (test/chaos/sessions.py)."""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "chaos"))

# pylint: disable=wrong-import-position
import sessions  # noqa: E402

COUNT = int(os.environ.get("SESSIONS_COUNT", "40"))


@pytest.fixture(scope="module")
def database(postgres):
    """With all that the scripts name."""
    with postgres.superuser("app") as boss:
        boss.rows(sessions.SETUP)
        yield postgres
        boss.rows(sessions.CLEAN_UP)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_random_session_is_as_on_a_connection_of_its_own(
        workers, start_pgsluice, database):
    pooler = start_pgsluice(default_pool_size=sessions.SERVERS,
                            workers=workers)
    for seed in range(workers * 1000, workers * 1000 + COUNT):
        found = sessions.difference(seed, database, pooler)
        assert found is None, found


def test_a_random_session_is_the_same_twice_on_postgres(database):
    """Or else the scripts are of no use."""
    for seed in range(20):
        found = sessions.difference(seed, database, database)
        assert found is None, found
