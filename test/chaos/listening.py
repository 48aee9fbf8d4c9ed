#!/usr/bin/python3
"""LISTEN for long: what clients of pgsluice hear, held against what they must.

    listening.py [--ops N] [--seed N ...] [--workers N] [--clients N]

Clients in transaction mode listen, stop to, notify, roll back, leave and come
again, at random, while others notify, directly and through pgsluice, and the
listening connection is killed or made anew time and again. A connection to
Postgres itself listens to all channels: what it hears, in that order, is what
there was to be heard (the record). Of each session it must be true that

  * on each channel, from the answer to its LISTEN up to its UNLISTEN, it
    hears all of the record, in that order and once; where something is
    missing between two of them a NOTICE stands, which only a loss allows
  * nothing from before its LISTEN, after its UNLISTEN, or rolled back
  * nothing in the middle of a transaction of its own
  * what it notified itself comes before the answer, once, with its own pid

The last line says how much was done and how many violations there were; each
is printed as it is found. The exit status is 1 if there was one.
"""

import argparse
import bisect
import collections
import random
import struct
import sys
import threading
import time
import traceback

import rig
import wire

CHANNELS = [f"channel {n}" for n in range(6)]
# After so many in the record the listening connection is lost, on average.
LOSS_EVERY = 400
SERVERS = 3

Heard = collections.namedtuple("Heard", "channel payload is_own")
Notice = collections.namedtuple("Notice", "")
# A channel is listened to from here on, or no longer; `sent` is where in the
# session's events it was asked for.
Begun = collections.namedtuple("Begun", "channel asked_at answered_at sent")
Ended = collections.namedtuple("Ended", "channel")


class Record:
    """What Postgres has brought, by a connection that hears everything."""

    def __init__(self, cluster):
        self.link = cluster.connect()
        for channel in CHANNELS:
            self.link.rows(f'LISTEN "{channel}"')
        self.place = {}                 # payload -> its number
        self.entries = []               # (channel, payload), in order
        self.heard_at = []
        self.said_at = {}               # payload -> before it was sent
        self.more = threading.Condition()
        self.is_over = False
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        try:
            while True:
                got = self.link.next()
                if got.kind != "A":
                    continue
                channel, payload, _ = got.body[4:].decode().split("\0")
                with self.more:
                    self.place[payload] = len(self.entries)
                    self.entries.append((channel, payload))
                    self.heard_at.append(time.monotonic())
                    self.more.notify_all()
                if payload == "over":
                    return
        finally:
            with self.more:
                self.is_over = True
                self.more.notify_all()

    def wait(self, fact):
        """Until it is true, or there is nothing more to come."""
        with self.more:
            self.more.wait_for(lambda: fact() or self.is_over)

    def end(self, cluster):
        with cluster.connect() as link:
            link.rows(f"NOTIFY \"{CHANNELS[0]}\", 'over'")
        self.thread.join()
        self.link.close()


class Session(wire.Wire):
    """One client's connection, and all that happens to it."""

    def begin(self, name, record):
        self.name = name
        self.record = record
        self.events = []
        self.channels = set()
        self.said = 0
        self.status = "I"
        self.is_ending = False          # its transaction
        self.complaints = []
        return self

    def next(self):
        got = super().next()
        if got.kind == "A":
            self.hear(got)
        elif got.kind == "N" and b"may have been missed" in got.body:
            self.events.append(Notice())
        elif got.kind == "Z":
            self.status = got.status
        elif got.kind == "E":
            self.complaints.append(f"an error: {got.fields}")
        return got

    def hear(self, got):
        channel, payload, _ = got.body[4:].decode().split("\0")
        pid, = struct.unpack_from("!I", got.body)
        is_own = payload.startswith(self.name + "/")
        self.events.append(Heard(channel, payload, is_own))
        if is_own != (pid == self.pid):
            self.complaints.append(f"{payload} has the pid {pid}")
        if self.status != "I" and not self.is_ending:
            self.complaints.append(f"{payload} within a transaction")

    def say(self, channel):
        """A NOTIFY like no other, as SQL."""
        self.said += 1
        payload = f"{self.name}/{self.said}"
        self.record.said_at[payload] = time.monotonic()
        return payload, f"NOTIFY \"{channel}\", '{payload}'"

    def ask(self, sql, is_extended=False):
        if is_extended:
            self.send(wire.parse("", sql), wire.bind(), wire.execute(),
                      wire.sync())
        else:
            self.send(wire.query(sql))
        return self.until_ready()

    def changed(self, now, asked_at, sent):
        for channel in sorted(now - self.channels):
            self.events.append(
                Begun(channel, asked_at, time.monotonic(), sent))
        for channel in sorted(self.channels - now):
            self.events.append(Ended(channel))
        self.channels = now

    def commit(self, sql, now, said, is_extended=False):
        """What ends a transaction, or is one; `said` are the notifications
        that it sends, by channel."""
        # Who listens already may hear of before, as on Postgres itself.
        asked_at = time.monotonic() if not self.channels else 0
        sent = len(self.events)
        self.is_ending = True
        self.ask(sql, is_extended)
        self.is_ending = False
        got = [each.payload for each in self.events[sent:]
               if isinstance(each, Heard) and each.is_own]
        want = [payload for channel, payload in said if channel in now]
        if got != want:
            self.complaints.append(f"of its own it heard {got}, not {want}")
        self.changed(now, asked_at, sent)


# What clients do

def listen(session, choose):
    channel = choose.choice(CHANNELS)
    session.commit(f'LISTEN "{channel}"', session.channels | {channel}, [],
                   choose.random() < 0.5)


def unlisten(session, choose):
    if choose.random() < 0.2:
        session.commit("UNLISTEN *", set(), [])
        return
    channel = choose.choice(CHANNELS)
    session.commit(f'UNLISTEN "{channel}"', session.channels - {channel}, [],
                   choose.random() < 0.5)


def notify(session, choose):
    channel = choose.choice(CHANNELS)
    payload, sql = session.say(channel)
    session.commit(sql, session.channels, [(channel, payload)],
                   choose.random() < 0.5)


def select(session, choose):
    session.ask("SELECT 1", choose.random() < 0.5)


def transaction(session, choose):
    now, said, saved = set(session.channels), [], None
    session.ask("BEGIN")
    for _ in range(choose.randint(0, 4)):
        channel = choose.choice(CHANNELS)
        what = choose.random()
        if what < 0.25:
            session.ask(f'LISTEN "{channel}"')
            now.add(channel)
        elif what < 0.4:
            session.ask(f'UNLISTEN "{channel}"')
            now.discard(channel)
        elif what < 0.7:
            payload, sql = session.say(channel)
            session.ask(sql)
            said.append((channel, payload))
        elif what < 0.8 and saved is None:
            session.ask("SAVEPOINT s")
            saved = set(now), list(said)
        elif what < 0.85 and saved is not None:
            session.ask("ROLLBACK TO s")
            now, said = set(saved[0]), list(saved[1])
        else:
            session.ask("SELECT 1")
    if choose.random() < 0.7:
        session.commit("COMMIT", now, said)
    else:
        session.commit("ROLLBACK", session.channels, [])


def pin(session, choose):
    """It has a server for itself for a while."""
    session.ask("CREATE TEMP TABLE mine (n int)")
    for _ in range(choose.randint(0, 3)):
        choose.choice((listen, unlisten, notify, transaction))(
            session, choose)
    session.ask("DROP TABLE mine")


WORK = ((listen, 4), (unlisten, 2), (notify, 3), (select, 4),
        (transaction, 5), (pin, 1))


class Soak:
    """All of them, for one seed."""

    def __init__(self, said, seed, cluster, pooler):
        self.cluster = cluster
        self.pooler = pooler
        self.seed = seed
        self.clients = said.clients
        self.ops_each = said.ops // said.clients
        self.record = Record(cluster)
        self.sessions = []
        self.failures = []
        self.losses = 0
        self.is_over = threading.Event()

    def open(self, server, name):
        session = Session.connect(server.port).begin(name, self.record)
        session.login("app", rig.servers.secret("app"), "app")
        return session

    def client(self, number):
        choose = random.Random(f"{self.seed} client {number}")
        visits = 0
        left = self.ops_each
        while left > 0:
            visits += 1
            session = self.open(self.pooler, f"c{number}.{visits}")
            self.sessions.append(session)
            stay = min(choose.randint(10, 150), left)
            left -= stay
            work, weights = zip(*WORK)
            for act in choose.choices(work, weights, k=stay):
                act(session, choose)
            if left > 0 or choose.random() < 0.5:
                session.close()

    def final(self, session):
        """Whoever is still there hears the last word on each channel."""
        with self.open(self.cluster, f"{session.name}.last") as last:
            for channel in sorted(session.channels):
                heard = False
                while not heard:
                    payload, sql = last.say(channel)
                    last.ask(sql)
                    said = len(session.events)
                    while not heard and Notice() not in session.events[said:]:
                        session.until("AN")
                        heard = Heard(channel, payload, False) in \
                            session.events[said:]
        session.close()

    def speaker(self, server, number):
        choose = random.Random(f"{self.seed} speaker {number}")
        with self.open(server, f"s{number}") as session:
            while not self.is_over.is_set():
                session.ask("BEGIN")
                for _ in range(choose.randint(1, 5)):
                    payload, sql = session.say(choose.choice(CHANNELS))
                    session.ask(sql)
                if choose.random() < 0.9:
                    session.ask("COMMIT")
                    self.record.wait(
                        lambda last=payload: last in self.record.place)
                else:
                    session.ask("ROLLBACK")

    def lose(self):
        """The listening connection, again and again."""
        choose = random.Random(f"{self.seed} losses")
        record = self.record
        with self.cluster.superuser() as boss:
            while not self.is_over.is_set():
                next_one = len(record.entries) + choose.randint(
                    1, 2 * LOSS_EVERY)
                record.wait(lambda until=next_one: self.is_over.is_set() or
                            len(record.entries) >= until)
                if choose.random() < 0.2:
                    self.pooler.console("RECONNECT app")
                for row in self.pooler.console("SHOW SERVERS"):
                    if row["state"] == "listening":
                        pid = row["remote_pid"]
                        boss.rows(f"SELECT pg_terminate_backend({pid})")
                self.losses += 1

    def guard(self, target, *arguments):
        try:
            target(*arguments)
        except Exception:               # pylint: disable=broad-except
            self.failures.append(
                f"{target.__name__}{arguments}: {traceback.format_exc()}")

    def threads(self, *targets):
        threads = [threading.Thread(target=self.guard, args=target)
                   for target in targets]
        for thread in threads:
            thread.start()
        return threads

    def run(self):
        others = self.threads(
            (self.speaker, self.cluster, 1), (self.speaker, self.cluster, 2),
            (self.speaker, self.pooler, 3), (self.lose,))
        try:
            for thread in self.threads(*(
                    (self.client, number)
                    for number in range(self.clients))):
                thread.join()
        finally:
            self.is_over.set()
            with self.record.more:
                self.record.more.notify_all()
            for thread in others:
                thread.join()
        for session in self.sessions:
            if session.sock.fileno() >= 0 and not self.failures:
                self.guard(self.final, session)
        self.record.end(self.cluster)
        return self.failures + [
            f"{session.name}: {what}" for session in self.sessions
            for what in session.complaints + judge(session, self.record)]


# What they must have heard

class Stay:
    """From a LISTEN to an UNLISTEN, or to the end."""

    def __init__(self, begun):
        self.begun = begun
        self.channel = begun.channel
        self.until = None

    def has(self, channel, at):
        return (channel == self.channel and self.begun.sent <= at
                and (self.until is None or at < self.until))


def stays_of(session):
    stays, here = [], {}
    for at, event in enumerate(session.events):
        if isinstance(event, Begun):
            here[event.channel] = Stay(event)
            stays.append(here[event.channel])
        elif isinstance(event, Ended):
            here.pop(event.channel).until = at
    return stays


def judge(session, record):
    """What is wrong with what it has heard, in words."""
    stays = stays_of(session)
    found = [said for stay in stays
             for said in judge_stay(session, stay, record)]
    seen = set()
    for at, event in enumerate(session.events):
        if not isinstance(event, Heard):
            continue
        if event.payload in seen:
            found.append(f"{event.payload} was heard twice")
        seen.add(event.payload)
        if event.payload not in record.place:
            found.append(f"{event.payload} was never sent")
        if not any(stay.has(event.channel, at) for stay in stays):
            found.append(f"{event.payload}: it did not listen to that")
    return found


def missing(session, stay, record, last, number):
    """What it should have heard between these two of the record."""
    first = last + 1 if last is not None else bisect.bisect(
        record.heard_at, stay.begun.answered_at)
    return [payload for channel, payload in record.entries[first:number]
            if channel == stay.channel
            and not payload.startswith(session.name + "/")
            and (last is not None
                 or record.said_at[payload] > stay.begun.answered_at)]


def judge_stay(session, stay, record):
    found = []
    last = None                         # its number in the record
    is_excused = False                  # a NOTICE since then
    for event in session.events[stay.begun.sent:stay.until]:
        if isinstance(event, Notice):
            is_excused = True
        if not isinstance(event, Heard) or event.channel != stay.channel \
                or event.is_own or event.payload not in record.place:
            continue
        number = record.place[event.payload]
        if last is not None and number <= last:
            found.append(f"{event.payload} comes too late")
            continue
        if last is None and record.heard_at[number] < stay.begun.asked_at:
            found.append(f"{event.payload} is from before its LISTEN")
        lost = missing(session, stay, record, last, number)
        if lost and not is_excused:
            found.append(f"lost before {event.payload}: {lost}")
        last = number
        is_excused = False
    return found


def soak(said, seed, cluster):
    """Violations found with this seed, after they have been printed."""
    pooler = rig.servers.Pgsluice(cluster, default_pool_size=SERVERS,
                                  workers=said.workers)
    try:
        pooler.start()
        play = Soak(said, seed, cluster, pooler)
        began = time.monotonic()
        found = play.run()
        pooler.assert_sound()
        for line in found[:20]:
            print(line[:300])
        if found:
            print(pooler.log()[-4000:], file=sys.stderr)
        heard = sum(isinstance(event, Heard) for session in play.sessions
                    for event in session.events)
        notices = sum(isinstance(event, Notice) for session in play.sessions
                      for event in session.events)
        print(f"{said.ops} operations, seed {seed}, {said.clients} clients, "
              f"{len(play.sessions)} sessions, {len(play.record.entries)} "
              f"notifications, heard {heard}, {play.losses} losses, "
              f"{notices} notices, {time.monotonic() - began:.1f} seconds, "
              f"{len(found)} violations", flush=True)
        return found
    finally:
        pooler.stop()
        pooler.clean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ops", type=int, default=20_000)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=12)
    said = parser.parse_args()
    cluster = rig.servers.Postgres()
    try:
        cluster.start()
        found = [soak(said, seed, cluster) for seed in said.seed or [1]]
    finally:
        cluster.stop()
        cluster.clean()
    sys.exit(1 if any(found) else 0)


if __name__ == "__main__":
    main()
