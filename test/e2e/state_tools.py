"""What the tests of session state share.

    Session     a connection to Postgres or to a pooler, with a look at all
                that a session consists of
    Crowd       other clients of the same pool, that between the steps of a
                test take the servers and give them back
    SETUP       what has to be in the database

Whatever a test sees through pgsluice is compared with the same done on a
connection to Postgres itself; nothing is expected by heart.
"""

import itertools
import json
import socket
import struct

import wire
from pgsluice import secret, wait_until

BOSS = "state_boss"                     # a superuser who may log in by TCP

SETUP = f"""
    CREATE ROLE {BOSS} SUPERUSER LOGIN PASSWORD '{secret(BOSS)}';
    CREATE ROLE state_role;
    CREATE ROLE state_noise;
    GRANT state_role, state_noise TO app;
    CREATE SEQUENCE state_sequence;
    CREATE TABLE state_serial (
        id bigint DEFAULT nextval('state_sequence'), note text);
    CREATE TABLE state_where (name text);
    INSERT INTO state_where VALUES ('public');
    SELECT setseed(0.5);
    CREATE TABLE state_random AS
        SELECT n, random() AS value FROM generate_series(1, 50) AS n;
    CREATE SCHEMA state_a;
    CREATE TABLE state_a.state_where (name text);
    INSERT INTO state_a.state_where VALUES ('a');
    CREATE SCHEMA state_noise;
    CREATE TABLE state_noise.state_where (name text);
    INSERT INTO state_noise.state_where VALUES ('noise');
    CREATE FUNCTION state_set(name text, value text) RETURNS text
        LANGUAGE plpgsql AS
        'BEGIN RETURN pg_catalog.set_config(name, value, false); END';
    CREATE FUNCTION state_make_temp() RETURNS void LANGUAGE plpgsql AS
        'BEGIN CREATE TEMP TABLE hidden (n int); END';
    GRANT USAGE ON SCHEMA state_a, state_noise TO public;
    GRANT ALL ON ALL TABLES IN SCHEMA public, state_a, state_noise TO public;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO public;
"""

CLEAN_UP = f"""
    DROP FUNCTION state_set, state_make_temp;
    DROP SCHEMA state_a, state_noise CASCADE;
    DROP TABLE state_where, state_random, state_serial;
    DROP SEQUENCE state_sequence;
    DROP ROLE {BOSS}, state_role, state_noise;
"""

# All of a session that one query can tell, as one JSON text. Left out are
# settings that are what they are without any doing, those of PL/pgSQL (which
# come with the first DO), and the statement that asks (see Session.tell).
VIEW = """
SELECT json_build_object(
    'settings', (SELECT json_object_agg(name, setting ORDER BY name)
        FROM pg_settings WHERE setting IS DISTINCT FROM boot_val
        AND name NOT LIKE 'plpgsql.%'),
    'set', (SELECT json_agg(name ORDER BY name) FROM pg_settings
        WHERE source = 'session' AND name NOT LIKE 'plpgsql.%'),
    'users', (SELECT json_agg(name) FROM unnest(ARRAY[session_user,
        current_user, current_setting('role')]) name),
    'custom', (SELECT json_agg(nullif(current_setting(name, true), ''))
        FROM unnest(ARRAY['state.custom', 'state.other']) name),
    'search_path', current_setting('search_path'),
    'schemas', (SELECT json_agg(name)
        FROM unnest(current_schemas(false)) name),
    'prepared', (SELECT json_agg(name ORDER BY name)
        FROM pg_prepared_statements
        WHERE name NOT LIKE 'PGSLUICE\\_%' AND name <> 'ask'),
    'cursors', (SELECT json_agg(name ORDER BY name) FROM pg_cursors
        WHERE name <> ''),
    'channels', (SELECT json_agg(name ORDER BY name)
        FROM pg_listening_channels() name),
    'advisory_locks', (SELECT json_agg(concat_ws(' ', classid, objid, objsubid,
        mode) ORDER BY classid, objid, objsubid, mode) FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    'temporary', (SELECT json_agg(relname ORDER BY relname) FROM pg_class
        WHERE relnamespace = pg_my_temp_schema()),
    'temporary_functions', (SELECT json_agg(proname ORDER BY proname)
        FROM pg_proc WHERE pronamespace = pg_my_temp_schema()))
"""

# What of the view a pooler may have in its own way for the owner: names of
# statements, a place to listen, a startup parameter that it sets.
NOT_THE_OWNERS = ("prepared", "channels", "set")


class Session(wire.Wire):
    """A connection, to Postgres or through a pooler.

    ask() and tell() are simple queries, or, if is_extended, batches that
    leave the unnamed statement alone, as a simple query does not.
    """

    is_extended = False
    noted = None            # the last row of what brought the state about

    @classmethod
    def open(cls, server, user="app", database="app", **parameters):
        link = cls.connect(server.port)
        try:
            return link.login(user, secret(user), database, **parameters)
        except BaseException:
            link.close()
            raise

    def tell(self, sql):
        """Sends it, and returns nothing."""
        if self.is_extended:
            self.send(wire.close("S", "ask"), wire.parse("ask", sql),
                      wire.bind("", "ask"), wire.describe(), wire.execute(),
                      wire.close("S", "ask"), wire.sync())
        else:
            self.send(wire.query(sql))

    def ask(self, sql):
        """The rows, or the SQLSTATE of the error."""
        self.tell(sql)
        return result(self.until_ready())

    def do(self, sql):
        """Something that has to work."""
        answer = self.ask(sql)
        assert isinstance(answer, list), f"{answer} to {sql}"

    def batch(self, *messages):
        """The rows, or the SQLSTATE of the error."""
        self.send(*messages, wire.sync())
        return result(self.until_ready())

    def view(self):
        """All that VIEW tells, and the parameters reported so far."""
        answer = self.ask(VIEW)
        assert isinstance(answer, list), answer
        return {**json.loads(answer[0][0]), "reported": dict(self.parameters)}

    def own_view(self):
        """The same for one whose session it is."""
        return {name: value for name, value in self.view().items()
                if name not in NOT_THE_OWNERS}

    def leave(self):
        """Terminate; a direct session is over then."""
        self.send(wire.terminate())
        self.until_closed()
        self.close()

    def reset(self):
        """A TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                             struct.pack("ii", 1, 0))
        self.close()

    @property
    def address(self):
        """As in SHOW CLIENTS: (addr, port)."""
        host, port = self.sock.getsockname()
        return host, str(port)


def result(answer):
    """Rows as lists of text, or the SQLSTATE of the error."""
    for got in answer:
        if got.kind == "E":
            return got.sqlstate
    return [got.values for got in answer if got.kind == "D"]


def differing(expected, got):
    """What two views do not agree about: name -> (expected, got)."""
    found = {}
    for name in {**expected, **got}:
        left, right = expected.get(name), got.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            found.update(differing(left, right))
        elif left != right:
            found[name] = left, right
    return found


def assert_same_view(expected, got, whose):
    found = differing(expected, got)
    assert not found, f"{whose}, directly and through pgsluice: {found}"


# A statement that lasts until somebody ends it

class Sleep:
    """A query that does not end by itself, told apart by a number."""

    numbers = itertools.count(1000)

    def __init__(self, superuser):
        self.superuser = superuser
        self.number = next(self.numbers)
        self.sql = f"SELECT {self.number}, pg_sleep(600)"

    def is_running(self):
        return self.superuser.value(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
            " AND wait_event = 'PgSleep'"
            f" AND query LIKE 'SELECT {self.number},%'") == "1"

    def wait_running(self):
        wait_until(self.is_running, "pg_sleep at work")


# Others

NOISE = (
    ("work_mem", "3141kB"), ("TimeZone", "Asia/Tokyo"),
    ("DateStyle", "SQL, DMY"), ("search_path", "state_noise"),
    ("state.custom", "noise"), ("statement_timeout", "77777ms"),
    ("default_transaction_isolation", "repeatable read"),
    ("application_name", "noise"), ("IntervalStyle", "iso_8601"),
)


class Noise(Session):
    """One of the others: it has a state of its own, and finds it again."""

    ASK = ("SELECT " + ", ".join(f"current_setting('{name}')"
                                 for name, _ in NOISE)
           + ", (SELECT name FROM state_where)")

    def settle(self):
        for name, value in NOISE:
            self.do(f"SET {name} = '{value}'")
        assert self.batch(wire.parse("mine", "SELECT 'noise named'")) == []
        return self

    def is_as_it_was(self):
        """In the transaction that it is in, or in one of its own."""
        assert self.ask(self.ASK) == [[value for _, value in NOISE]
                                      + ["noise"]]
        assert self.batch(wire.bind("", "mine"), wire.execute()) \
            == [["noise named"]]
        assert self.batch(wire.parse("", "SELECT 'noise unnamed'")) == []


class Crowd:
    """Others, called between the steps of a test.

    With more than one server, whoever was called last keeps a server until
    the next call, and it is the one that was used last: so the next to come
    gets another. With one server they only use it.
    """

    def __init__(self, pooler, servers, user):
        self.keeps = servers > 1
        self.others = [Noise.open(pooler, user).settle() for _ in range(2)]
        self.busy = None

    def __call__(self):
        link = self.others.pop(0)
        self.others.append(link)
        if not self.keeps:
            link.is_as_it_was()
            return
        link.do("BEGIN")
        link.is_as_it_was()
        self.rest()
        self.busy = link

    def rest(self):
        """Gives back what is held."""
        if self.busy is not None:
            self.busy.do("COMMIT")
            self.busy = None

    def close(self):
        for link in self.others:
            link.close()
