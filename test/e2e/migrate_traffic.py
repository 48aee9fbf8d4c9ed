"""An app at work on a table while somebody migrates it.

It has a table of accounts and adds to them, in transactions of its own, over
more connections than there are servers: one half by simple queries, the other
by prepared statements. It knows what it has added; so does the table, if
nothing was lost and nothing done twice.
"""

import itertools
import random
import threading

import psycopg
import psycopg2

ACCOUNTS = 20
CLIENTS = 8
PAUSE = 0.025                   # between transactions: the tools want a CPU

ADD = "UPDATE accounts SET n = n + 1 WHERE id = %s RETURNING n"


def create_accounts(session):
    """By a wire.Wire of whoever is to migrate."""
    session.rows("CREATE TABLE accounts (id serial PRIMARY KEY,"
                 " n int NOT NULL DEFAULT 0)")
    session.rows("INSERT INTO accounts (n)"
                 f" SELECT 0 FROM generate_series(1, {ACCOUNTS})")


def connect_simple(url):
    return psycopg2.connect(url)


def connect_prepared(url):
    return psycopg.connect(url, prepare_threshold=0)


class Traffic:
    """In a with statement, which fails if the app ever saw an error. All
    columns are read, so that statements prepared before a column was there
    have another result after; Postgres by itself refuses to run those, so
    directly it must be columns="id, n"."""

    def __init__(self, url, columns="*"):
        self.url = url
        self.read = f"SELECT {columns} FROM accounts WHERE id = %s"
        self.errors = []
        self.added = [0] * CLIENTS
        self.stopping = threading.Event()
        connects = itertools.cycle((connect_simple, connect_prepared))
        self.threads = [
            threading.Thread(target=self._work, args=(number, connect))
            for number, connect in zip(range(CLIENTS), connects)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        if error[0] is None:
            assert not self.errors, self.errors

    def total(self):
        """Transactions up to now."""
        return sum(self.added)

    def is_going_on(self):
        """Asked again and again: has every client got on since the first
        time, or has one failed?"""
        before = list(self.added)

        def is_so():
            return self.errors or all(
                now > then for now, then in zip(self.added, before))

        return is_so

    def _work(self, number, connect):
        try:
            connection = connect(self.url)
            while not self.stopping.wait(PAUSE):
                self._add(connection, random.randint(1, ACCOUNTS))
                self.added[number] += 1
            connection.close()
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(f"{type(error).__name__}: {error}")

    def _add(self, connection, account):
        with connection.cursor() as cursor:
            cursor.execute(self.read, (account,))
            _, before, *_ = cursor.fetchone()
            cursor.execute(ADD, (account,))
            (after,) = cursor.fetchone()
            connection.commit()
        if after <= before:
            raise AssertionError(f"{account} went from {before} to {after}")
