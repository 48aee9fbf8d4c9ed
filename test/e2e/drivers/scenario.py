"""What the Python driver scenarios share.

A scenario is a program that plays one driver against the database named by
DATABASE_URL, through whatever stands in front of it, and knows nothing about
poolers.  It is a list of steps; a step is a function whose name is the
sentence it proves, which opens its own connections and raises when the
sentence is false.  Every step runs, also after one has failed; the exit
status says whether all of them held.

    DATABASE_URL   what to connect to
    CLIENTS        connections that are open at once in the crowd (20)
    ROUNDS         transactions that each of them makes (10)
    SERVERS        if given: the most Postgres backends the crowd may meet

`program.py name...` runs only the steps whose name contains one of the words.
The Node scenarios have the same shape: see ../node/scenario.mjs.
"""

import asyncio
import inspect
import os
import random
import sys
import threading
import traceback

URL = os.environ["DATABASE_URL"]
CLIENTS = int(os.environ.get("CLIENTS", "20"))
ROUNDS = int(os.environ.get("ROUNDS", "10"))
SERVERS = int(os.environ.get("SERVERS", "0"))

# One megabyte in which every part differs from every other part, so that a
# block lost, doubled or moved on the way is seen.
BIG_TEXT = "".join("%07x " % at for at in range(131072))
BIG_BYTES = random.Random(1).randbytes(1 << 20)

# Says NOTICE as soon as it runs (the server flushes notices at once), so that
# a test can await that moment, and then sleeps for as long as a hang would be.
SLEEP_LOUDLY = "do $$ begin raise notice 'asleep'; perform pg_sleep(60); end $$"


def tables_sql(driver):
    """Statements which (re)create the tables of a scenario, empty."""
    return [
        f"drop table if exists {driver}_item, {driver}_ledger",
        f"create table {driver}_item (id int generated always as identity"
        " primary key, email text not null unique, note text)",
        f"create table {driver}_ledger (client int, round int, note text)",
    ]


steps = []


def step(function):
    """Decorator: this function (plain or async) is a step."""
    steps.append(function)
    return function


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {shorten(got)}, wanted {shorten(wanted)}")


def shorten(value):
    text = repr(value)
    return text if len(text) < 400 else f"{text[:400]}... ({len(text)} long)"


class raises:
    """`with raises(Kind, sqlstate):` the block must end in that error."""

    def __init__(self, kind, sqlstate=None):
        self.kind = kind
        self.sqlstate = sqlstate

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            raise AssertionError(f"no {self.kind.__name__} was raised")
        if not issubclass(kind, self.kind):
            return False
        state = getattr(error, "sqlstate", None) \
            or getattr(error, "pgcode", None)
        if self.sqlstate:
            same(state, self.sqlstate)
        return True


def nonce(client, turn):
    """A text that nobody else's query can have in it."""
    return f"{client}/{turn}/{random.getrandbits(64):016x}"


def committed_rounds():
    """The rounds that a member of the crowd commits; the rest roll back."""
    return [turn for turn in range(ROUNDS) if turn % 2 == 0]


def check_backends(backends):
    """The crowd met no more backends than there may be servers."""
    if SERVERS and len(set(backends)) > SERVERS:
        raise AssertionError(
            f"{len(set(backends))} backends served the crowd, not {SERVERS}")


def crowd(member):
    """Run member(number, everyone_is_here) in CLIENTS threads at once.

    Each returns the backends it met and calls everyone_is_here() once it is
    connected: nobody starts to work before all connections are open.
    """
    barrier = threading.Barrier(CLIENTS)
    backends, errors = [], []

    def body(number):
        try:
            backends.extend(member(number, barrier.wait))
        except threading.BrokenBarrierError:
            pass                # the one that broke it reports why
        except BaseException as error:
            barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=body, args=(number,))
               for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    check_backends(backends)


def run():
    """Run the steps in their order and exit."""
    failed = 0
    wanted = sys.argv[1:]
    for function in steps:
        name = function.__name__.replace("_", " ")
        if wanted and not any(word in name for word in wanted):
            continue
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(function())
            else:
                function()
            print(f"ok      {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    sys.exit(1 if failed else 0)
