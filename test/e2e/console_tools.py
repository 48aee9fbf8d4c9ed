"""What the tests of the console share: its tables, and a call behind."""

import threading

import pytest

import wire


def refused(session, sql):
    """The SQLSTATE that a command is answered with."""
    with pytest.raises(wire.ServerError) as error:
        session.rows(sql)
    return error.value.sqlstate


def table(session, name):
    """The rows of a SHOW as dicts."""
    answer = session.query(f"SHOW {name}")
    errors = [got for got in answer if got.kind == "E"]
    assert not errors, errors
    columns = [got for got in answer if got.kind == "T"][0].columns
    return [dict(zip(columns, got.values))
            for got in answer if got.kind == "D"]


def row(session, name, /, **wanted):
    """The one row of a table with these values; None if there is none."""
    rows = [row for row in table(session, name)
            if all(row[key] == str(value) for key, value in wanted.items())]
    assert len(rows) <= 1, rows
    return rows[0] if rows else None


def pool_of(session, database="app", user="app"):
    return row(session, "POOLS", database=database, user=user)


def client_id(session, client):
    """The id in SHOW CLIENTS of the client with this socket."""
    port = client.sock.getsockname()[1]
    return int(row(session, "CLIENTS", port=port)["id"])


class Background:
    """A call in a thread of its own; its result, or error, when asked."""

    def __init__(self, call, *arguments):
        self.outcome = None
        self.thread = threading.Thread(
            target=self._run, args=(call, arguments), daemon=True)
        self.thread.start()

    def _run(self, call, arguments):
        try:
            self.outcome = (call(*arguments), None)
        except BaseException as error:  # pylint: disable=broad-except
            self.outcome = (None, error)

    def is_done(self):
        return not self.thread.is_alive()

    def result(self):
        self.thread.join(60)
        assert self.outcome is not None, "still running"
        value, error = self.outcome
        if error is not None:
            raise error
        return value
