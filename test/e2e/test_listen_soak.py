"""Clients that listen, notify and leave at random, while the listening
connection is lost time and again (test/chaos/listening.py), hear all they
must; and a client that did not would be found."""

import argparse
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "chaos"))

# pylint: disable=wrong-import-position
import listening  # noqa: E402
from listening import Heard, Notice  # noqa: E402

OPS = int(os.environ.get("LISTENING_OPS", "5000"))


def play(postgres, pooler, ops, seed):
    said = argparse.Namespace(ops=ops, clients=12)
    soak = listening.Soak(said, seed, postgres, pooler)
    return soak, soak.run()


@pytest.mark.core
@pytest.mark.parametrize("workers", [1, 4])
def test_all_that_must_be_heard_is_heard_once(
        workers, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=listening.SERVERS,
                            workers=workers)
    soak, found = play(postgres, pooler, OPS, workers)
    assert found == []
    assert soak.losses > 1           # how many, depends on how fast it goes
    events = [event for session in soak.sessions for event in session.events]
    assert Notice() in events
    assert sum(isinstance(event, Heard) for event in events) > OPS


def without_one(events, at):
    del events[at]


def with_one_twice(events, at):
    events.insert(at + 1, events[at])


def with_two_swapped(events, at):
    events[at], events[at + 1] = events[at + 1], events[at]


def with_another_payload(events, at):
    events[at] = events[at]._replace(payload="nobody's")


def on_another_channel(events, at):
    events[at] = events[at]._replace(channel="none")


@pytest.mark.parametrize("lie", [
    without_one, with_one_twice, with_two_swapped, with_another_payload,
    on_another_channel], ids=lambda lie: lie.__name__)
def test_a_lie_is_found(lie, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=listening.SERVERS)
    soak, found = play(postgres, pooler, 600, 1)
    assert found == []

    def is_plain(event):
        return isinstance(event, Heard) and not event.is_own

    lies = 0
    for session in soak.sessions:
        events = session.events
        for at in range(len(events) - 2):
            # Three in a row of one channel: something is on both sides.
            three = events[at:at + 3]
            if lies < 50 and all(map(is_plain, three)) and len(
                    {event.channel for event in three}) == 1:
                lies += 1
                session.events = list(events)
                lie(session.events, at + 1)
                assert listening.judge(session, soak.record)
        session.events = events
    assert lies > 10
