"""Migrations when something goes wrong: never two at a time, the lock is free
again soon, and the schema is the old one or the new one.

Meanwhile an app works on a pool of five. At the end of every test Stage.judge()
reads the ledger; see migrate_fault_tools.py.
"""

import time

import pytest

import wire
from contract_tools import Slow
from migrate_fault_tools import SETUP, Stage

# All of them; a test waits for what it is told by these.
SETTINGS = {
    "default_pool_size": 5,
    "migration_hold_limit": "300ms",
    "query_wait_timeout": "60s",
}
HOLDS = ("probe", "lock", "enter", "begin", "alter")


@pytest.fixture(name="stage")
def fixture_stage(any_postgres, start_pgsluice):
    """stage(setting=...): as a context."""
    def make(**settings):
        any_postgres.rows(SETUP, "app")
        return Stage(any_postgres, start_pgsluice(
            any_postgres, **{**SETTINGS, **settings}))

    return make


class Clock:
    """What it takes is said, not judged."""

    def __init__(self):
        self.began = time.monotonic()

    def say(self, what):
        print(f"{what} after {time.monotonic() - self.began:.3f} s")


# The migrator

def bring_to(stage, place, slow, port):
    """Deploy 1 is there now; returns it, and the one before it or None."""
    first = None
    if place == "waits":
        first = stage.deploy(0)
        first.do(*HOLDS)
    migrator = stage.deploy(1, port=port)
    if place == "waits":
        migrator.ask("probe")
        stage.wait_for("waiting")
    elif place == "holds":
        migrator.do(*HOLDS)
    elif place == "runs":
        migrator.do(*HOLDS)
        migrator.ask(f"work {slow.number}")
        stage.pooler.wait_log("-> exclusive")
    else:
        migrator.do(*HOLDS[:-1])
        straggle(stage, slow)
        migrator.ask("alter")
        stage.wait_for("draining")
    return migrator, first


def straggle(stage, slow):
    """A client of the app whose transaction takes until slow lets go."""
    client = stage.things.enter_context(stage.pooler.connect())
    client.send(wire.query(f"SELECT * FROM beside; {slow.sql}"))
    slow.wait_running()
    return client


@pytest.mark.parametrize("place", ["waits", "drains", "holds", "runs"])
@pytest.mark.parametrize("how", ["killed", "torn"])
def test_a_migrator_that_is_gone_lets_the_next_one_in(
        stage, any_postgres, place, how):
    with stage() as scene, Slow(any_postgres) as slow:
        cable = scene.cable()
        migrator, first = bring_to(scene, place, slow, cable.port)
        second = scene.deploy(2)
        second.ask("probe")
        scene.wait_for("waiting", 2 if first else 1)
        clock = Clock()
        if how == "killed":
            migrator.kill()
        else:
            cable.tear()
        if first is not None:
            scene.wait_for("failed")
            clock.say("gone from the line")
            first.do("create", "book", "commit", "leave")
        # Whatever it was at, or waited for, still goes on.
        assert second.answer() == ("probe", "ok")
        second.do("lock", "enter")
        clock.say("next one in")
        slow.session.close()
        second.do(*HOLDS[3:], "create", "book", "commit", "leave")
        assert [scene.is_applied(who) for who in range(3)] == [
            first is not None, False, True]


@pytest.mark.parametrize("place", ["waits", "drains", "holds", "runs"])
@pytest.mark.parametrize("how", ["frozen", "cut off"])
def test_a_migrator_that_says_nothing_has_to_make_room(
        stage, any_postgres, place, how):
    """It finds that out when it wakes up; what it says then is not done."""
    with stage(migration_idle_timeout="500ms") as scene, \
            Slow(any_postgres) as slow:
        cable = scene.cable()
        migrator, first = bring_to(scene, place, slow, cable.port)
        second = scene.deploy(2)
        second.ask("probe")
        scene.wait_for("waiting", 2 if first else 1)
        if how == "frozen":
            migrator.freeze()
        else:
            cable.cut()
        clock = Clock()
        if first is not None:
            first.do("create", "book", "commit", "leave")
        slow.session.close()
        # It is at work as long as Postgres is for it; then it is idle.
        assert second.answer() == ("probe", "ok")
        second.do("lock", "enter")
        clock.say("next one in")
        migrator.ask("late")
        if how == "frozen":
            migrator.thaw()
        else:
            cable.whole.set()
        while (said := migrator.answer())[1] == "ok":
            assert said[0] != "late"
        assert said[1] == "57P05"
        second.do(*HOLDS[3:], "create", "book", "commit", "leave")
        assert [scene.is_applied(who) for who in range(3)] == [
            first is not None, False, True]
