"""The kinds of session state, and the ways in which each comes about.

    Kind    name, how it is looked at, and its ways
    Way     name, startup parameters, and steps: texts are simple queries,
            bytes are messages that a Sync is put behind

A look is something that can be compared: what the same look said on a
connection to Postgres itself. It may change what the next one says (FETCH).
"""

import itertools

import wire
from state_tools import BOSS


class Way:
    """How a session gets its state."""

    def __init__(self, name, *steps, **startup):
        self.name = name
        self.steps = steps
        self.startup = startup

    def __str__(self):
        return self.name

    def walk(self, session):
        for step in self.steps:
            if isinstance(step, bytes):
                answer = session.batch(step)
                assert isinstance(answer, list), f"{answer} to {step!r}"
            elif session.is_extended:
                answer = session.ask(step)
            else:
                answer = session.rows(step)
            if answer:
                session.noted = answer[-1]


class Kind:
    """user: who may do it. pins: a client that has it keeps its server, or
    may do so."""

    def __init__(self, name, look, ways, user="app", pins=False,
                 is_extended=False):
        self.name = name
        self.user = user
        self.pins = pins
        self.is_extended = is_extended
        self.look = look
        self.ways = ways

    def __str__(self):
        return self.name

    def prepare(self, session):
        """Before anything else is done with the session."""

    def check(self, session, expected):
        got = self.look(session)
        assert got == expected, f"{self}: {got}, directly {expected}"


def extended(sql, *values):
    return wire.parse("", sql) + wire.bind(values=values) + wire.execute()


def asks(*queries):
    """The answers to these, none of which hides the others'."""
    return lambda session: [session.ask(sql) for sql in queries]


# Parameters

def in_a_do_block(sql):
    return "DO $do$BEGIN " + sql + "; END$do$"


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


class Setting:
    """A parameter and a value for it, as text and as SQL has it."""

    def __init__(self, name, value, sql=None):
        self.name = name
        self.value = value
        self.sql = sql or quoted(value)

    def set(self, how="SET"):
        return f"{how} {self.name} = {self.sql}"

    def call(self):
        return f"set_config({quoted(self.name)}, {quoted(self.value)}, false)"


def startup_ways(*settings):
    values = [(setting.name, setting.value) for setting in settings]
    return [
        Way("startup", **dict(values)),
        Way("startup_options", options=" ".join(
            f"-c {name}=" + value.replace("\\", "\\\\").replace(" ", "\\ ")
            for name, value in values)),
    ]


def ways_of(*settings):
    """The usual ways to set these parameters together."""
    sets = [setting.set() for setting in settings]
    calls = [setting.call() for setting in settings]
    return [
        Way("set", *sets),
        Way("set_extended", *(extended(sql) for sql in sets)),
        Way("set_config", *(f"SELECT {call}" for call in calls)),
        Way("set_config_bound", *(
            extended("SELECT set_config($1, $2, $3)", setting.name,
                     setting.value, "f") for setting in settings)),
        Way("in_a_transaction", "BEGIN", *sets, "COMMIT"),
        Way("in_one_string", "; ".join(["SELECT 1", *sets, "SELECT 2"])),
        Way("do", *(in_a_do_block(f"PERFORM {call}") for call in calls)),
    ]


def more_ways_of(*settings):
    """All others, for parameters that are in the view pg_settings."""
    sets = [setting.set() for setting in settings]
    calls = [setting.call() for setting in settings]
    rows = ", ".join(f"({quoted(setting.name)}, {quoted(setting.value)})"
                     for setting in settings)
    return [
        Way("set_session",
            *(setting.set("SET SESSION") for setting in settings)),
        Way("set_to", *(f"  /* now */ set {setting.name} to {setting.sql};"
                        for setting in settings)),
        Way("set_prepared", *(wire.parse(f"set {n}", sql)
                              for n, sql in enumerate(sets)),
            *(wire.bind("", f"set {n}") + wire.execute()
              for n in range(len(sets)))),
        Way("set_config_together", "SELECT " + ", ".join(calls)),
        Way("set_config_qualified", *(
            f"SELECT Pg_Catalog . \"set_config\"{call[len('set_config'):]}"
            for call in calls)),
        Way("set_config_in_a_cte", *(
            f"WITH c AS MATERIALIZED (SELECT {call}) TABLE c"
            for call in calls)),
        Way("set_config_of_rows",
            "SELECT set_config(name, value, false)"
            f" FROM (VALUES {rows}) AS v (name, value)"),
        Way("set_config_half_bound", *(
            extended("SELECT set_config($1, $2, false)", setting.name,
                     setting.value) for setting in settings)),
        Way("set_config_bound_in_a_transaction", "BEGIN", *(
            extended("SELECT set_config($1, $2, false)", setting.name,
                     setting.value) for setting in settings), "COMMIT"),
        Way("in_a_pipeline", b"".join(extended(sql) for sql in sets)),
        Way("in_one_string_with_begin",
            "; ".join(["BEGIN", *sets, "COMMIT", "SELECT 2"])),
        Way("after_one_rolled_back", "BEGIN", *sets, "ROLLBACK", *sets),
        Way("do_execute", *(in_a_do_block(f"EXECUTE {quoted(sql)}")
                            for sql in sets)),
        Way("update_pg_settings", *(
            f"UPDATE pg_settings SET setting = {quoted(setting.value)}"
            f" WHERE name = {quoted(setting.name)}"
            for setting in settings)),
    ]


def look_at(*names):
    """The values, '' being the same as none: a custom parameter that was
    ever set in a session cannot be unset in it."""
    values = ", ".join(f"nullif(current_setting('{name}', true), '')"
                       for name in names)
    return asks(*(f"SHOW {name}" for name in names if "." not in name),
                f"SELECT {values}")


def look_at_encoding(session):
    """How an umlaut arrives, in bytes."""
    session.tell("SELECT chr(228), current_setting('client_encoding')")
    return [got.body for got in session.until_ready() if got.kind == "D"]


USERS = asks("SELECT session_user, current_user, current_setting('role')")

MANY = (Setting("work_mem", "7MB"), Setting("TimeZone", "Asia/Kabul"),
        Setting("IntervalStyle", "postgres_verbose"),
        Setting("enable_seqscan", "off", "off"),
        Setting("DateStyle", "German, DMY", "German, DMY"))
CUSTOM = (Setting("state.custom", "it's \\ mine"),
          Setting("state.other", "two words"))
SEARCH_PATH = Setting("search_path", "state_a, public", "state_a, public")
ROLE = Setting("role", "state_role")
CHARACTERISTICS = (Setting("default_transaction_isolation", "serializable"),
                   Setting("default_transaction_read_only", "on"))
ENCODING = Setting("client_encoding", "LATIN1")
TIMEOUT = Setting("statement_timeout", "54321ms")

PARAMETERS = [
    Kind("parameter", look_at("work_mem", "TimeZone", "IntervalStyle",
                              "enable_seqscan", "DateStyle"),
         ways_of(*MANY) + more_ways_of(*MANY) + startup_ways(*MANY)),
    Kind("custom_parameter", look_at("state.custom", "state.other"),
         ways_of(*CUSTOM) + startup_ways(*CUSTOM)),
    Kind("search_path",
         asks("SHOW search_path", "SELECT name FROM state_where",
              "SELECT current_schemas(false)"),
         [*ways_of(SEARCH_PATH), *startup_ways(SEARCH_PATH),
          Way("set_schema", "SET SCHEMA 'state_a'")]),
    Kind("role", USERS,
         [*ways_of(ROLE), *startup_ways(ROLE),
          Way("set_role", "SET ROLE state_role"),
          Way("set_session_role", "SET SESSION ROLE 'state_role'")]),
    Kind("session_authorization", USERS,
         [*ways_of(Setting("session_authorization", "app")),
          Way("set_session_authorization", "SET SESSION AUTHORIZATION app"),
          Way("with_a_role", "SET SESSION AUTHORIZATION app",
              "SET ROLE state_role"),
          Way("with_a_role_before", "SET ROLE state_role",
              "SET SESSION AUTHORIZATION app"),
          *startup_ways(Setting("session_authorization", "app"))],
         user=BOSS),
    Kind("session_characteristics",
         asks("SHOW default_transaction_isolation",
              "SHOW default_transaction_read_only",
              "SHOW transaction_isolation", "SHOW transaction_read_only"),
         [Way("as_transaction", "SET SESSION CHARACTERISTICS AS TRANSACTION"
              " ISOLATION LEVEL SERIALIZABLE, READ ONLY"),
          Way("as_transaction_extended", extended(
              "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")),
          *ways_of(*CHARACTERISTICS), *startup_ways(*CHARACTERISTICS)]),
    Kind("client_encoding", look_at_encoding,
         [*ways_of(ENCODING), *startup_ways(ENCODING),
          Way("set_names", "SET NAMES 'LATIN1'")]),
    Kind("statement_timeout", look_at("statement_timeout"),
         ways_of(TIMEOUT) + startup_ways(TIMEOUT)),
]


# Statements

def bind_and_execute(name):
    def look(session):
        return session.batch(wire.bind("", name), wire.execute())
    return look


def look_at_prepared(session):
    return [session.ask("EXECUTE mine (7)"), session.ask(
        "SELECT name, statement, parameter_types FROM pg_prepared_statements"
        " WHERE from_sql")]


MINE = "SELECT $1::int + 1 AS mine"

STATEMENTS = [
    Kind("named_statement", bind_and_execute("mine"),
         [Way("parse", wire.parse("mine", "SELECT 'mine'")),
          Way("parse_in_a_transaction", "BEGIN",
              wire.parse("mine", "SELECT 'mine'"), "COMMIT"),
          Way("after_close", wire.parse("mine", "SELECT 'not mine'"),
              wire.close("S", "mine") + wire.parse("mine", "SELECT 'mine'")),
          Way("after_deallocate", wire.parse("mine", "SELECT 'not mine'"),
              "DEALLOCATE mine", wire.parse("mine", "SELECT 'mine'")),
          Way("deallocated", wire.parse("mine", "SELECT 'gone'"),
              "DEALLOCATE ALL")],
         is_extended=True),
    Kind("unnamed_statement", bind_and_execute(""),
         [Way("parse", wire.parse("", "SELECT 'mine'")),
          Way("parse_twice", wire.parse("", "SELECT 'not mine'"),
              wire.parse("", "SELECT 'mine'")),
          Way("parse_in_a_transaction", "BEGIN",
              wire.parse("", "SELECT 'mine'"), "COMMIT"),
          Way("with_a_describe",
              wire.parse("", "SELECT 'mine'") + wire.describe("S"))],
         is_extended=True),
    Kind("sql_prepare", look_at_prepared,
         [Way("prepare", f"PREPARE mine (int) AS {MINE}"),
          Way("prepare_extended",
              extended(f"PREPARE mine (int) AS {MINE}")),
          Way("in_a_transaction", "BEGIN",
              f"PREPARE mine (int) AS {MINE}", "COMMIT"),
          Way("in_one_string", f"SELECT 1; PREPARE mine (int) AS {MINE}"),
          Way("prepared_anew", "PREPARE mine AS SELECT 'not mine'",
              "DEALLOCATE mine", f"PREPARE mine (int) AS {MINE}"),
          Way("do_execute", in_a_do_block(
              f"EXECUTE 'PREPARE mine (int) AS {MINE}'"))],
         pins=True),
]


# What is in the server alone

def look_at_sequence(session):
    """lastval() and currval(), by whether they are what this session got."""
    answers = [session.ask("SELECT lastval()"),
               session.ask("SELECT currval('state_sequence')")]
    return ["noted" if answer == [session.noted] else answer
            for answer in answers]


class Sequences(Kind):
    """Kept for a client that has asked once: it is tied to its server then,
    as it may not be for every INSERT."""

    def prepare(self, session):
        assert session.ask("SELECT lastval()") == "55000"


# Which of the numbers that follow setseed(0.5) the next random() is, if any.
SEEDED = ("WITH next AS MATERIALIZED (SELECT random() AS value)"
          " SELECT n FROM state_random NATURAL JOIN next")

LOCKS = asks("SELECT classid, objid, objsubid, mode, granted FROM pg_locks"
             " WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
             " ORDER BY 1, 2, 3, 4")

IN_THE_SERVER = [
    Kind("temp_table",
         asks("SELECT count(*) FROM mine", "INSERT INTO mine VALUES (7)",
              "SELECT count(*) FROM mine"),
         [Way("create", "CREATE TEMP TABLE mine (n int)"),
          Way("create_extended",
              extended("CREATE TEMPORARY TABLE mine (n int)")),
          Way("create_local", "CREATE LOCAL TEMP TABLE mine (n int)"),
          Way("create_as", "CREATE TEMP TABLE mine AS SELECT 1 AS n"),
          Way("create_in_pg_temp", "CREATE TABLE pg_temp.mine (n int)"),
          Way("select_into", "SELECT 1 AS n INTO TEMP mine"),
          Way("in_a_transaction", "BEGIN", "CREATE TEMP TABLE mine (n int)",
              "COMMIT"),
          Way("in_one_string", "SELECT 1; CREATE TEMP TABLE mine (n int)"),
          Way("on_commit_drop", "BEGIN",
              "CREATE TEMP TABLE mine (n int) ON COMMIT DROP", "COMMIT"),
          Way("view_on_a_table", "CREATE TEMP TABLE base (n int)",
              "CREATE TEMP VIEW mine AS SELECT * FROM base"),
          Way("do", in_a_do_block("CREATE TEMP TABLE mine (n int)")),
          Way("by_the_path", "SET search_path = pg_temp, public",
              "CREATE TABLE mine (n int)"),
          Way("by_the_path_extended", "SET search_path = pg_temp, public",
              extended("CREATE TABLE mine (n int)"))],
         pins=True),
    Kind("temp_function", asks(
        "SELECT count(*) FROM pg_proc"
        " WHERE pronamespace = pg_my_temp_schema()"),
         [Way("create", "CREATE FUNCTION pg_temp.mine() RETURNS int"
              " LANGUAGE sql AS 'SELECT 1'"),
          Way("create_extended",
              extended("CREATE FUNCTION pg_temp.mine() RETURNS int"
                       " LANGUAGE sql AS 'SELECT 1'"))],
         pins=True),
    Kind("temp_type", asks(
        "SELECT count(*) FROM pg_type WHERE typnamespace = pg_my_temp_schema()"
        " AND typname = 'mine'"),
         [Way("create_enum", "CREATE TYPE pg_temp.mine AS ENUM ('a')"),
          Way("create_domain", "CREATE DOMAIN pg_temp.mine AS text")],
         pins=True),
    Kind("advisory_lock", LOCKS,
         [Way("lock", "SELECT pg_advisory_lock(4711)"),
          Way("lock_bound", extended("SELECT pg_advisory_lock($1)", 4711)),
          Way("lock_two_keys", "SELECT pg_advisory_lock(47, 11)"),
          Way("lock_shared", "SELECT pg_advisory_lock_shared(4711)"),
          Way("try_lock", "SELECT pg_try_advisory_lock(4711)"),
          Way("try_lock_shared", extended(
              "SELECT pg_try_advisory_lock_shared($1, $2)", 47, 11)),
          Way("in_a_transaction", "BEGIN",
              "SELECT pg_advisory_lock(4711)", "COMMIT"),
          Way("in_a_transaction_rolled_back", "BEGIN",
              "SELECT pg_advisory_lock(4711)", "ROLLBACK"),
          Way("in_one_string",
              "SELECT 1; SELECT pg_advisory_lock(4711); SELECT 2"),
          Way("in_a_cte", "WITH l AS MATERIALIZED"
              " (SELECT pg_catalog.pg_advisory_lock(4711)) TABLE l"),
          Way("of_the_transaction", "BEGIN",
              "SELECT pg_advisory_xact_lock(4711)", "COMMIT"),
          Way("do", in_a_do_block("PERFORM pg_advisory_lock(4711)"))],
         pins=True),
    Kind("hold_cursor", asks("FETCH 2 FROM mine", "SELECT name, is_holdable"
                             " FROM pg_cursors WHERE name <> ''"),
         [Way("declare", "DECLARE mine CURSOR WITH HOLD FOR"
              " SELECT generate_series(1, 1000)"),
          Way("declare_extended", extended("DECLARE mine SCROLL CURSOR WITH"
              " HOLD FOR SELECT generate_series(1, 1000)")),
          Way("in_a_transaction", "BEGIN", "DECLARE mine CURSOR WITH HOLD"
              " FOR SELECT generate_series(1, 1000)",
              "FETCH 1 FROM mine", "COMMIT"),
          Way("in_one_string", "DECLARE mine CURSOR WITH HOLD FOR"
              " SELECT generate_series(1, 1000); FETCH 1 FROM mine"),
          Way("without_hold", "BEGIN", "DECLARE mine CURSOR WITHOUT HOLD"
              " FOR SELECT generate_series(1, 1000)", "COMMIT"),
          Way("do", in_a_do_block("EXECUTE 'DECLARE mine CURSOR WITH HOLD"
              " FOR SELECT generate_series(1, 1000)'"))],
         pins=True),
    Sequences("lastval", look_at_sequence,
              [Way("nextval", "SELECT nextval('state_sequence')"),
               Way("nextval_bound",
                   extended("SELECT nextval($1)", "state_sequence")),
               Way("nextval_in_a_transaction", "BEGIN",
                   "SELECT nextval('state_sequence')", "COMMIT"),
               Way("insert", "INSERT INTO state_serial (note) VALUES ('mine')"
                   " RETURNING id"),
               Way("insert_bound", extended("INSERT INTO state_serial (note)"
                   " VALUES ($1) RETURNING id", "mine"))],
              pins=True),
    Kind("setseed", asks(SEEDED),
         [Way("setseed", "SELECT setseed(0.5)"),
          Way("setseed_bound", extended("SELECT setseed($1)", "0.5")),
          Way("in_a_transaction", "BEGIN", "SELECT setseed(0.5)", "COMMIT"),
          Way("set_seed", "SET seed = 0.5"),
          Way("do", in_a_do_block("PERFORM setseed(0.5)"))],
         pins=True),
    Kind("load", asks("SHOW auto_explain.log_min_duration",
                      "SELECT count(*) FROM pg_settings"
                      " WHERE name LIKE 'auto\\_explain.%'"),
         [Way("load", "LOAD 'auto_explain'"),
          Way("load_extended", extended("LOAD 'auto_explain'")),
          Way("in_a_transaction", "BEGIN", "LOAD 'auto_explain'", "COMMIT"),
          Way("in_one_string", "SELECT 1; LOAD 'auto_explain'; SELECT 2"),
          Way("do", in_a_do_block("EXECUTE 'LOAD ''auto_explain'''"))],
         user=BOSS, pins=True),
]


# LISTEN

numbers = itertools.count(1)


def notify(session):
    """Sends a notification like no other; returns its body behind the pid,
    and the answer so far: on a direct connection, it is there by then."""
    number = next(numbers)
    session.tell(f"SELECT pg_notify('State Channel', '{number}')")
    return f"State Channel\0{number}\0".encode(), session.until_ready()


def times(body, answer):
    return [got.kind == "A" and got.body[4:] == body
            for got in answer].count(True)


class Listen(Kind):
    """A pooler may bring a notification later: it is waited for where it has
    to come. Where not, the round trip of two more queries is all it gets."""

    def check(self, session, expected):
        body, answer = notify(session)
        while expected and not times(body, answer):
            answer.append(session.next())
        for _ in range(2):
            session.tell("SELECT 1")
            answer += session.until_ready()
        assert times(body, answer) == expected


LISTEN = [
    Listen("listen", lambda session: times(*notify(session)),
           [Way("listen", 'LISTEN "State Channel"'),
            Way("listen_extended", extended('LISTEN "State Channel"')),
            Way("listen_twice", 'LISTEN "State Channel"',
                'LISTEN "State Channel"'),
            Way("in_a_transaction", "BEGIN", 'LISTEN "State Channel"',
                "COMMIT"),
            Way("in_one_string", 'SELECT 1; LISTEN "State Channel"; SELECT 2'),
            Way("rolled_back", "BEGIN", 'LISTEN "State Channel"', "ROLLBACK"),
            Way("and_unlisten", 'LISTEN "State Channel"', "LISTEN other",
                'UNLISTEN "State Channel"'),
            Way("and_unlisten_all", 'LISTEN "State Channel"', "UNLISTEN *"),
            Way("do", in_a_do_block("LISTEN \"State Channel\""))]),
]

KINDS = PARAMETERS + STATEMENTS + IN_THE_SERVER + LISTEN
