"""What the Python players of ../test_drivers_mixed.py share.

A player is a program that plays one driver beside all the others: CLIENTS
connections, each of which makes TRANSACTIONS transactions. Players exist in
Python, JavaScript (../node/mixed.mjs), Java, Go and Ruby; they have in
common what follows.

    DATABASE_URL   what to connect to
    DRIVER         the name that this player goes by
    CLIENTS        how many connections it opens
    TRANSACTIONS   how many transactions each of them makes

They keep step by words, one a line. A player says "ready" when all its
connections are open, and is told "go"; it says "done" and the process ids of
all backends it met when nothing is left to do, and is told "end" while all
its connections are still open and idle. Then it closes them and ends with 0.
What it finds wrong it prints, and ends with 1 at once.

The connections of a player differ, in a way that is the driver's own, in
application_name (driver/number), search_path (the schema of this driver,
mixed_driver, and one of the connection's own which does not exist) and
TimeZone. The table `ledger` exists in the schema of every driver, so that
who has another's search_path finds and leaves rows in the wrong one.

A transaction (transaction(), below) asks who it is, by a statement with the
number of the connection in its text; writes a row and reads it back; and
reads its settings back. Of every four, the first changes TimeZone and
commits, the second changes TimeZone and rolls back, the third changes
it with SET LOCAL and commits, the fourth changes nothing and rolls back.
"""

import os
import re
import sys
import threading
import traceback

URL = os.environ["DATABASE_URL"]
DRIVER = os.environ["DRIVER"]
CLIENTS = int(os.environ["CLIENTS"])
TRANSACTIONS = int(os.environ["TRANSACTIONS"])

ZONES = ("Asia/Tokyo", "America/Lima", "Africa/Cairo", "Australia/Perth",
         "Europe/Oslo", "Pacific/Fiji", "Asia/Kolkata")

SETTINGS = ("select current_setting('application_name'),"
            " current_setting('TimeZone'), current_setting('search_path')")
INSERT = "insert into ledger (client, round, note) values (%s, %s, %s)"
READ = "select note from ledger where client = %s and round = %s"
ROUNDS = "select round from ledger where client = %s order by round"


class Member:
    """One connection's identity, and what is to be true of its session."""

    def __init__(self, number):
        self.number = number
        self.name = f"{DRIVER}/{number}"
        self.search_path = f"mixed_{DRIVER}, c{number}"
        self.zone = ZONES[number % len(ZONES)]
        self.backends = set()

    @property
    def options(self):
        """search_path and TimeZone as libpq's connection option."""
        path = self.search_path.replace(" ", "\\ ")
        return f"-c search_path={path} -c TimeZone={self.zone}"


class Session:
    """What a driver has to be able to do; ask() gives rows as tuples."""

    def begin(self):
        """Nothing, where the driver begins by itself."""

    def ask(self, sql, values=()):
        raise NotImplementedError

    def commit(self):
        raise NotImplementedError

    def rollback(self):
        raise NotImplementedError

    def close(self):
        raise NotImplementedError

    # An object-relational mapper has ways of its own for these.

    def insert(self, client, turn, note):
        return self.ask(INSERT, (client, turn, note))

    def read(self, client, turn):
        return self.ask(READ, (client, turn))

    def rounds(self, client):
        return self.ask(ROUNDS, (client,))


def same(got, wanted):
    got = [tuple(row) for row in got]
    if got != wanted:
        raise AssertionError(f"got {got!r:.400}, wanted {wanted!r:.400}")


def dollars(sql):
    """%s, %s, ... as $1, $2, ..."""
    numbers = iter(range(1, 100))
    return re.sub("%s", lambda _: f"${next(numbers)}", sql)


def transaction(me, turn):
    """A generator: yields the name and the arguments of what the session is
    to do next, and is sent the answer."""
    note = f"{me.name}/{turn}"
    kind = turn % 4
    zone = me.zone
    yield "begin",
    if kind != 3:
        zone = ZONES[(me.number + turn + 1) % len(ZONES)]
        local = "local " if kind == 2 else ""
        yield "ask", f"set {local}time zone '{zone}'"
    answer = yield ("ask", f"select %s::text || ' for {me.name}',"
                    " pg_backend_pid()", (note,))
    backend = answer[0][1]
    same(answer, [(f"{note} for {me.name}", backend)])
    me.backends.add(backend)
    yield "insert", me.number, turn, note
    same((yield "read", me.number, turn), [(note,)])
    same((yield "ask", SETTINGS), [(me.name, zone, me.search_path)])
    if turn % 2:
        yield "rollback",
    else:
        yield "commit",
    if kind == 0:
        me.zone = zone


def everything(me):
    """All transactions, likewise; and in the end its rows are all there."""
    for turn in range(TRANSACTIONS):
        yield from transaction(me, turn)
    yield "begin",
    same((yield "rounds", me.number),
         [(turn,) for turn in range(0, TRANSACTIONS, 2)])
    yield "commit",


def say(*words):
    print(*words, flush=True)


def await_word(word):
    told = sys.stdin.readline().strip()
    if told != word:
        fail(f"told {told!r}, not {word!r}")


def fail(why):
    say(why)
    os._exit(1)             # whatever the other connections are doing


def say_done(members):
    say("done", *set().union(*(me.backends for me in members)))


def play(connect):
    """For drivers that block: a thread for each connection, in which
    connect(member) gives its Session."""
    in_step = threading.Barrier(CLIENTS + 1)
    members = [Member(number) for number in range(CLIENTS)]

    def live(me):
        session = connect(me)
        session.begin()
        same(session.ask("select 1"), [(1,)])
        session.commit()
        in_step.wait()              # ready
        in_step.wait()              # go
        steps, answer = everything(me), None
        try:
            while True:
                name, *arguments = steps.send(answer)
                answer = getattr(session, name)(*arguments)
        except StopIteration:
            pass
        in_step.wait()              # done
        in_step.wait()              # end
        session.close()

    def live_or_die(me):
        try:
            live(me)
        except BaseException:
            fail(f"{me.name}: {traceback.format_exc()}")

    threads = [threading.Thread(target=live_or_die, args=(me,))
               for me in members]
    for thread in threads:
        thread.start()
    in_step.wait()
    say("ready")
    await_word("go")
    in_step.wait()
    in_step.wait()
    say_done(members)
    await_word("end")
    in_step.wait()
    for thread in threads:
        thread.join()
