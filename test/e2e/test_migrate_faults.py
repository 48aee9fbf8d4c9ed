"""Migrations when something goes wrong: never two at a time, the lock is free
again soon, and the schema is the old one or the new one.

Meanwhile an app works on a pool of five. At the end of every test Stage.judge()
reads the ledger; see migrate_fault_tools.py. STORMS=50 in the environment runs
so many storms in place of one, each with a seed of its own.
"""

import os
import random
import signal
import threading
import time

import pytest

import wire
from contract_tools import Slow, has_news, loses_its_connection, told
from migrate_fault_tools import LOCKS, SETUP, Stage
from pgsluice import DEADLINE, Postgres, wait_until

# All of them; a test waits for what it is told by these.
SETTINGS = {
    "default_pool_size": 5,
    "migration_hold_limit": "300ms",
    "query_wait_timeout": "60s",
}
HOLDS = ("probe", "enter", "lock", "begin", "alter")


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
        wait_until(lambda: stage.rows(
            "SELECT pid FROM pg_stat_activity WHERE state = 'active'"
            " AND query LIKE 'SELECT work(%'"), "at work")
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
        second.do("enter", "lock")
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
        second.do("enter", "lock")
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


def test_a_frozen_one_does_not_keep_its_transaction(stage):
    """Also where nobody waits for it: as any client's."""
    with stage(idle_transaction_timeout="500ms") as scene:
        migrator = scene.deploy(0)
        migrator.do(*HOLDS)
        migrator.freeze()
        scene.wait_for("failed")
        scene.load.goes_on()
        migrator.ask("late")
        migrator.thaw()
        assert migrator.answer() == ("late", "25P03")
        scene.deploy(1).deploys()
        assert [scene.is_applied(who) for who in range(2)] == [False, True]


def test_one_that_is_gone_while_its_ddl_waits_in_postgres(stage):
    """Nothing is left of it in Postgres's queue, where it would stop the app.
    """
    with stage(migration_drain_timeout="200ms") as scene:
        straggler = scene.things.enter_context(scene.pooler.connect())
        straggler.rows("BEGIN; SELECT * FROM migrated")
        migrator = scene.deploy(0)
        migrator.do(*HOLDS[:-1])
        migrator.ask("alter")
        wait_until(lambda: in_postgres(scene, "ALTER TABLE"),
                   "the DDL in Postgres's queue")
        scene.load.goes_on("beside")
        migrator.kill()
        clock = Clock()
        # The straggler is where it was; everybody else is free of it.
        scene.load.goes_on()
        clock.say("the app goes on")
        scene.deploy(1).do(*HOLDS[:-1], "create", "book")
        assert not in_postgres(scene, "ALTER TABLE")
        straggler.rows("COMMIT")


def in_postgres(scene, words):
    """Backends that wait for a lock with this."""
    return scene.rows("SELECT pid FROM pg_stat_activity WHERE wait_event_type"
                      f" = 'Lock' AND query LIKE '{words}%'")


# Postgres

@pytest.mark.parametrize("place", ["drains", "holds", "runs"])
def test_a_backend_that_is_terminated_ends_its_migration(
        stage, any_postgres, place):
    with stage() as scene, Slow(any_postgres) as slow:
        migrator, _ = bring_to(scene, place, slow, scene.pooler.port)
        second = scene.deploy(2)
        second.ask("probe")
        scene.wait_for("waiting")
        (pid,), = scene.rows("SELECT pid FROM ledger WHERE who = 1")
        clock = Clock()
        scene.rows(f"SELECT pg_terminate_backend({pid})")
        assert second.answer() == ("probe", "ok")
        second.do("enter", "lock")
        clock.say("next one in")
        slow.session.close()
        migrator.fails("08006", "08007", "57P01")
        second.do(*HOLDS[3:], "create", "book", "commit", "leave")
        assert [scene.is_applied(who) for who in (1, 2)] == [False, True]


@pytest.mark.parametrize("version", ["15", "18"])
@pytest.mark.parametrize("place", ["drains", "runs"])
def test_a_backend_that_is_killed_takes_all_of_postgres_along(
        start, start_pgsluice, version, place):
    """It starts anew, and so does everything else."""
    cluster = start(Postgres, version)
    cluster.rows(SETUP, "app")
    with Stage(cluster, start_pgsluice(
            cluster, server_login_retry="100ms", **SETTINGS)) as scene:
        scene.survives = False
        slow = Slow(cluster)
        migrator, _ = bring_to(scene, place, slow, scene.pooler.port)
        second = scene.deploy(2)
        second.ask("probe")
        scene.wait_for("waiting")
        (pid,), = scene.rows("SELECT pid FROM ledger WHERE who = 1")
        started = cluster.rows("SELECT pg_postmaster_start_time()")
        with cluster.connect() as bystander:
            os.kill(int(pid), signal.SIGKILL)
            bystander.until_closed()        # Postgres has noticed
        migrator.fails("08006", "08007", "57P02", "57P03", "closed")
        wait_until(lambda: is_there(cluster), "Postgres is back")
        assert cluster.rows("SELECT pg_postmaster_start_time()") == started
        scene.load.goes_on()
        # It had nothing to lose, but may have asked at the wrong time.
        second.answer()
        scene.deploy(3).deploys()
        second.close()
        assert [scene.is_applied(who) for who in (1, 3)] == [False, True]


def is_there(cluster):
    try:
        return cluster.rows("SELECT 1")
    except (OSError, wire.ServerError, wire.Closed):
        return False


# pgsluice

@pytest.mark.parametrize("first", [
    [wire.query("SELECT pg_advisory_lock(72707369)")],
    [wire.query("BEGIN"), wire.query("SELECT pg_advisory_lock(72707369)")],
    [wire.parse("", "SELECT pg_advisory_lock(72707369)"), wire.bind(),
     wire.execute(), wire.sync()]])
def test_postgres_looks_whether_a_migrator_is_still_there(
        start_pgsluice, any_postgres, first):
    """In its session, and in no other one."""
    pooler = start_pgsluice(any_postgres, default_pool_size=1)
    with pooler.connect(application_name="app") as app, \
            pooler.connect(application_name="deploy") as migrator:
        assert app.rows("SELECT 1")
        migrator.send(*first)
        assert "E" not in migrator.shapes(migrator.until_ready())
        if len(first) == 2:
            migrator.until_ready()
        asked = "SHOW client_connection_check_interval"
        assert migrator.value(asked) == "1s"
        assert app.value(asked) == "0"


@pytest.mark.parametrize("place", ["drains", "holds", "runs", "queued"])
def test_a_pgsluice_that_is_killed_leaves_no_lock(
        stage, any_postgres, place):
    with stage(migration_drain_timeout="200ms") as scene, \
            Slow(any_postgres) as slow, any_postgres.connect() as outside:
        scene.survives = False
        if place == "queued":
            outside.rows("BEGIN; SELECT * FROM migrated")
            migrator = scene.deploy(1)
            migrator.do(*HOLDS[:-1])
            migrator.ask("alter")
            wait_until(lambda: in_postgres(scene, "ALTER TABLE"),
                       "the DDL in Postgres's queue")
        else:
            migrator, _ = bring_to(scene, place, slow, scene.pooler.port)
        scene.pooler.has_ended = True
        scene.pooler.process.kill()
        clock = Clock()
        wait_until(lambda: not scene.rows(LOCKS), "no lock left")
        clock.say("no lock")
        scene.pooler.process.wait()
        outside.close()
        slow.session.close()
        scene.pooler.start()
        scene.load.goes_on()
        migrator.fails("closed")
        scene.deploy(2).deploys()
        assert [scene.is_applied(who) for who in (1, 2)] == [False, True]


@pytest.mark.parametrize("how, ends", [
    ("SIGTERM", False), ("SHUTDOWN WAIT_FOR_CLIENTS", False),
    ("SIGINT", False), ("SHUTDOWN WAIT_FOR_SERVERS", False),
    ("SIGQUIT", True), ("SHUTDOWN", True)])
def test_a_migrator_may_finish_unless_pgsluice_has_to_go_at_once(
        stage, how, ends):
    with stage() as scene:
        scene.survives = False
        migrator = scene.deploy(1)
        migrator.do(*HOLDS)
        second = scene.deploy(2)
        second.ask("probe")
        scene.wait_for("waiting")
        scene.pooler.has_ended = True
        if how.startswith("SIG"):
            scene.pooler.send_signal(getattr(signal, how))
        else:
            scene.pooler.console(how)
        second.fails("57P01", "closed")
        if ends:
            migrator.fails("57P01", "closed")
        else:
            migrator.do("create", "book", "commit", "leave")
        assert scene.pooler.wait_end() == 0
        wait_until(lambda: not scene.rows(LOCKS), "no lock left")
        scene.pooler.start()
        scene.load.goes_on()
        scene.deploy(3).deploys()
        assert [scene.is_applied(who) for who in (1, 2, 3)] == [
            not ends, False, True]


# A transaction of the app that does not end

def test_ddl_is_given_up_when_the_app_does_not_make_room(stage):
    with stage(migration_drain_timeout="200ms",
               migration_on_drain_timeout="abort") as scene:
        straggler = scene.things.enter_context(scene.pooler.connect())
        straggler.rows("BEGIN; SELECT * FROM migrated")
        for who in range(2):
            migrator = scene.deploy(who)
            migrator.do(*HOLDS[:-1])
            migrator.ask("alter")
            assert migrator.answer() == ("alter", "55P03")
            migrator.do("leave")
            scene.load.goes_on()
        straggler.rows("COMMIT")
        scene.deploy(2).deploys()
        assert [scene.is_applied(who) for who in range(3)] == [
            False, False, True]


def test_ddl_that_goes_ahead_waits_for_its_table_only(stage):
    with stage(migration_drain_timeout="200ms") as scene:
        straggler = scene.things.enter_context(scene.pooler.connect())
        straggler.rows("BEGIN; SELECT * FROM migrated")
        migrator = scene.deploy(0)
        migrator.ask("deploy")
        wait_until(lambda: in_postgres(scene, "ALTER TABLE"),
                   "the DDL in Postgres's queue")
        for _ in range(3):
            scene.load.goes_on("beside")
        assert not scene.is_applied(0)
        straggler.rows("COMMIT")
        assert migrator.process.wait(DEADLINE) == 0
        assert scene.is_applied(0)


@pytest.mark.parametrize("is_busy", [False, True])
def test_ddl_is_made_room_for_where_the_operator_wants_it(
        stage, any_postgres, is_busy):
    """By ending who is in the way, and nobody who only came by."""
    with stage(migration_hold_limit="1500ms", migration_drain_timeout="200ms",
               migration_on_drain_timeout="cancel") as scene, \
            Slow(any_postgres) as slow:
        straggler = scene.things.enter_context(scene.pooler.connect())
        straggler.rows("BEGIN; SELECT * FROM migrated")
        if is_busy:
            straggler.send(wire.query(slow.sql))
            slow.wait_running()
        scene.deploy(0).deploys()
        if is_busy:
            told(straggler.until_ready(), "ERROR", "57014")
            straggler.rows("ROLLBACK")
        else:
            loses_its_connection(straggler, "57P01")
        assert scene.is_applied(0)


# The operator

@pytest.mark.parametrize("place", ["waits", "drains", "runs"])
@pytest.mark.parametrize("settings", [
    {"migration_lock": "off"}, {"migration_lock": "session"},
    {"migration_hold_limit": "20ms", "migration_reserve": 1,
     "ddl_hold": "all"}])
def test_a_reload_does_not_let_two_in(stage, any_postgres, place, settings):
    with stage() as scene, Slow(any_postgres) as slow:
        migrator, first = bring_to(scene, place, slow, scene.pooler.port)
        second = scene.deploy(2)
        second.ask("deploy")
        scene.wait_for("waiting", 2 if first else 1)
        scene.pooler.configure(**settings)
        scene.load.goes_on("beside")
        slow.session.close()
        if first is not None:
            first.do("create", "book", "commit", "leave")
            assert migrator.answer() == ("probe", "ok")
            migrator.do(*HOLDS[1:])
        else:
            assert migrator.answer()[1] == "ok"
        migrator.do("create", "book", "commit", "leave")
        assert second.process.wait(DEADLINE) == 0
        assert [scene.is_applied(who) for who in range(3)] == [
            first is not None, True, True]


def test_a_reload_counts_for_a_drain_that_is_under_way(stage, any_postgres):
    with stage() as scene, Slow(any_postgres) as slow:
        migrator, _ = bring_to(scene, "drains", slow, scene.pooler.port)
        scene.pooler.configure(migration_drain_timeout="100ms",
                               migration_on_drain_timeout="abort")
        assert migrator.answer() == ("alter", "55P03")
        assert slow.is_running()
        migrator.do("leave")


def is_paused(scene):
    return any(row["paused"] == "1"
               for row in scene.pooler.console("SHOW DATABASES"))


@pytest.mark.parametrize("place", ["drains", "holds", "runs"])
def test_a_pause_keeps_the_next_one_out_until_the_resume(
        stage, any_postgres, place):
    with stage() as scene, Slow(any_postgres) as slow, \
            scene.pooler.connect("admin", "pgsluice") as console:
        migrator, _ = bring_to(scene, place, slow, scene.pooler.port)
        second = scene.deploy(2)
        second.ask("deploy")
        scene.wait_for("waiting")
        console.send(wire.query("PAUSE app"))
        wait_until(lambda: is_paused(scene), "the database is paused")
        slow.session.close()
        if place != "holds":
            assert migrator.answer()[1] == "ok"
        migrator.do("create", "book", "commit", "leave")
        assert console.shapes(console.until_ready()) == "CZ"
        assert scene.is_applied(1)
        assert scene.rows("SELECT count(*) FROM ledger") == [["1"]]
        scene.pooler.console("RESUME app")
        assert second.process.wait(DEADLINE) == 0
        assert scene.is_applied(2)


def test_a_resume_does_not_end_what_a_migration_holds(stage, any_postgres):
    with stage(migration_hold_limit="60s") as scene, \
            Slow(any_postgres) as slow, \
            scene.pooler.connect("admin", "pgsluice") as console:
        migrator, _ = bring_to(scene, "drains", slow, scene.pooler.port)
        console.send(wire.query("PAUSE app"))
        wait_until(lambda: is_paused(scene), "the database is paused")
        scene.pooler.console("RESUME app")
        with scene.pooler.connect() as late:
            late.send(wire.query("SELECT 1"))
            wait_until(lambda: scene.pooler.pool()["cl_waiting"] > 8,
                       "all of the app waits, and this one")
            slow.session.close()
            assert migrator.answer() == ("alter", "ok")
            assert not has_news(late)
            migrator.do("create", "book", "commit", "leave")
            late.until_ready()


# All at once

@pytest.mark.parametrize("seed", range(int(os.environ.get("STORMS", "1"))))
def test_of_many_deploys_at_once_all_that_live_succeed(stage, seed):
    """Some are killed, one is frozen, anywhere on their way."""
    chance = random.Random(seed)
    with stage(migration_idle_timeout="500ms") as scene:
        Storm(scene, chance).blow()


class Storm:
    """After so many steps, of whoever, something happens to somebody."""

    DEPLOYS = 12
    VICTIMS = 5

    def __init__(self, scene, chance):
        self.scene = scene
        self.lock = threading.Lock()
        self.steps = 0
        victims = chance.sample(range(self.DEPLOYS), self.VICTIMS)
        self.acts = dict(zip(chance.sample(range(1, 50), self.VICTIMS),
                             victims))
        self.victims, self.frozen = victims, victims[0]
        print("after so many steps, who:", self.acts, "frozen:", self.frozen)
        self.deploys = [scene.deploy(who, "deploy")
                        for who in range(self.DEPLOYS)]
        self.faults = []

    def step(self):
        with self.lock:
            self.steps += 1
            who = self.acts.get(self.steps)
        if who == self.frozen:
            self.deploys[who].process.send_signal(signal.SIGSTOP)
        elif who is not None:
            self.deploys[who].process.kill()

    def follow(self, deploy):
        while (said := deploy.answer()) is not None:
            self.step()
            if said[1] != "ok" and (deploy.who, said[1]) != (
                    self.frozen, "57P05"):
                self.faults.append((deploy.who, said))
            if said[0] == "leave":
                break

    def blow(self):
        threads = {deploy.who: threading.Thread(target=self.follow,
                                                args=[deploy])
                   for deploy in self.deploys}
        for thread in threads.values():
            thread.start()
        for who, thread in threads.items():
            if who != self.frozen:
                thread.join()
        self.deploys[self.frozen].thaw()
        threads[self.frozen].join()
        assert self.faults == []
        for deploy in self.deploys:
            status = deploy.process.wait(DEADLINE)
            if deploy.who not in self.victims:
                assert status == 0
                assert self.scene.is_applied(deploy.who)
