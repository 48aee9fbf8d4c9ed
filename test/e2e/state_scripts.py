"""What a client says one after the other, to be answered as by Postgres.

A script is a list of queries, and the startup parameters of the client that
sends them. Each is sent as a simple query, and again in the extended
protocol if no query is of several statements. Others use the server in
between, whenever the client is not in a transaction.
"""

import differential
import wire
from state_tools import Session


class Script:
    def __init__(self, name, *steps, user="app", **startup):
        self.name = name
        self.steps = steps
        self.user = user
        self.startup = startup

    def protocols(self):
        return ("simple",) if any(";" in sql for sql in self.steps) \
            else ("simple", "extended")


def message_of(sql, protocol):
    if protocol == "simple":
        return wire.query(sql)
    return (wire.parse("", sql) + wire.bind() + wire.describe()
            + wire.execute() + wire.sync())


def play(script, protocol, server, between=lambda: None):
    """All that came in answer, as differential.difference() takes it."""
    with Session.open(server, script.user, **script.startup) as link:
        talk = differential.Talk(link, between)
        between()
        for sql in script.steps:
            talk.send(message_of(sql, protocol))
            talk.ready()
        link.leave()
    return [differential.masked(got, loose=False)
            for got in differential.parameters_last(talk.got)]


LOOK = ("SELECT current_setting('work_mem'), current_setting('TimeZone'),"
        " current_setting('search_path'),"
        " nullif(current_setting('state.custom', true), ''),"
        " current_user, session_user, current_setting('statement_timeout')")

STARTUP = {
    "work_mem": "9MB", "TimeZone": "Asia/Kabul", "search_path": "state_a",
    "application_name": "me",
    "options": "-c statement_timeout=54321 -c state.custom=mine"
               " --enable-seqscan=off -cIntervalStyle=iso_8601",
}
SET_ALL = ("SET work_mem = '8MB'", "SET TimeZone = 'Asia/Tokyo'",
           "SET search_path = state_noise", "SET state.custom = 'other'",
           "SET statement_timeout = '2h'")


PARAMETERS = [
    # a transaction's end, and what it does to a SET
    Script("set_then_rollback", "SET work_mem = '7MB'", "BEGIN",
           "SET work_mem = '8MB'", "SET TimeZone = 'Asia/Tokyo'", LOOK,
           "ROLLBACK", LOOK),
    Script("set_then_commit", "BEGIN", *SET_ALL, LOOK, "COMMIT", LOOK),
    Script("set_in_a_failed_transaction", "SET work_mem = '7MB'", "BEGIN",
           "SET work_mem = '8MB'", "SET TimeZone = 'Asia/Tokyo'",
           "SELECT 1/0", "SET work_mem = '10MB'", "COMMIT", LOOK),
    Script("set_local", "SET work_mem = '7MB'", "BEGIN",
           "SET LOCAL work_mem = '8MB'", "SET LOCAL TimeZone = 'Asia/Tokyo'",
           "SET LOCAL state.custom = 'here'", LOOK, "COMMIT", LOOK),
    Script("set_local_then_set", "BEGIN", "SET LOCAL work_mem = '8MB'",
           "SET work_mem = '7MB'", "SET LOCAL work_mem = '10MB'", LOOK,
           "COMMIT", LOOK),
    Script("set_then_set_local", "BEGIN", "SET work_mem = '7MB'",
           "SET LOCAL work_mem = '8MB'", "SET TimeZone = 'Asia/Tokyo'",
           "SET LOCAL TimeZone = 'Asia/Dhaka'", LOOK, "COMMIT", LOOK),
    Script("set_local_outside", "SET LOCAL work_mem = '8MB'", LOOK),
    Script("set_config_is_local", "BEGIN",
           "SELECT set_config('work_mem', '8MB', true)", LOOK, "COMMIT",
           LOOK),
    Script("savepoint_rolled_back", "BEGIN", "SET work_mem = '7MB'",
           "SAVEPOINT s", "SET work_mem = '8MB'",
           "SET TimeZone = 'Asia/Tokyo'", "ROLLBACK TO s", LOOK, "COMMIT",
           LOOK),
    Script("savepoint_released", "BEGIN", "SAVEPOINT s",
           "SET work_mem = '8MB'", "SET state.custom = 'x'", "RELEASE s",
           LOOK, "COMMIT", LOOK),
    Script("savepoints_nested", "BEGIN", "SET work_mem = '7MB'",
           "SAVEPOINT a", "SET work_mem = '8MB'", "SAVEPOINT b",
           "SET work_mem = '10MB'", "SET TimeZone = 'Asia/Tokyo'",
           "ROLLBACK TO b", "RELEASE a", LOOK, "SAVEPOINT c",
           "SET work_mem = '11MB'", "SELECT 1/0", "ROLLBACK TO SAVEPOINT c",
           "SET TimeZone = 'Asia/Dhaka'", "COMMIT", LOOK),
    Script("and_chain", "BEGIN", "SET work_mem = '7MB'", "COMMIT AND CHAIN",
           "SET work_mem = '8MB'", "ROLLBACK AND CHAIN", LOOK,
           "SET work_mem = '10MB'", "END", LOOK),
    Script("two_transactions_in_one_string",
           "BEGIN; SET work_mem = '7MB'; COMMIT; SET TimeZone = 'Asia/Tokyo'",
           LOOK, "BEGIN; SET work_mem = '8MB'; ROLLBACK;"
           " SET state.custom = 'x'", LOOK),
    Script("an_error_in_one_string", "SET work_mem = '7MB'",
           "SET work_mem = '8MB'; SET TimeZone = 'Asia/Tokyo'; SELECT 1/0",
           LOOK, "SET work_mem = '8MB'; COMMIT; SELECT 1/0", LOOK),
    Script("a_transaction_left_open_by_a_string",
           "SET work_mem = '7MB'; BEGIN; SET TimeZone = 'Asia/Tokyo'", LOOK,
           "ROLLBACK; SET state.custom = 'x'", LOOK),
    Script("words_that_only_look_like_it",
           "SELECT 'SET work_mem = ''7MB''' AS \"set_config\"",
           "SELECT $x$; SET work_mem = '7MB'; $x$ -- ; SET work_mem = '8MB'",
           LOOK),

    # bad ones change nothing
    Script("bad_values", "SET work_mem = '7MB'", "SET work_mem = 'nonsense'",
           "SET no_such_parameter = 1", "SET TimeZone = 'Nowhere'",
           "SET log_statement = 'all'", "SET port = 1", "SET ROLE nobody",
           "SELECT set_config('work_mem', '-7', false)",
           "SET SESSION AUTHORIZATION postgres", LOOK, "SHOW no.such"),

    # back to what the client began with
    Script("startup", LOOK, "SHOW application_name", "SHOW DateStyle",
           "SHOW enable_seqscan", "SHOW IntervalStyle", "SHOW state.custom",
           "SELECT name FROM state_where", **STARTUP),
    Script("startup_in_short", "SHOW DateStyle", "SHOW TimeZone",
           "SHOW work_mem", DateStyle="German", TimeZone="asia/kabul",
           work_mem="9216"),
    Script("reset_each", *SET_ALL, "RESET work_mem", "RESET TimeZone",
           "RESET search_path", "RESET state.custom",
           "RESET statement_timeout", LOOK, **STARTUP),
    Script("set_to_default", *SET_ALL, "SET work_mem TO DEFAULT",
           "SET TimeZone = DEFAULT", "SET SESSION search_path TO DEFAULT",
           "SET TIME ZONE LOCAL", "SET statement_timeout TO DEFAULT", LOOK,
           **STARTUP),
    Script("reset_all", *SET_ALL, "SET ROLE state_role", "RESET ALL", LOOK,
           **STARTUP),
    Script("reset_all_rolled_back", *SET_ALL, "BEGIN", "RESET ALL", LOOK,
           "ROLLBACK", LOOK, **STARTUP),
    Script("discard_all", *SET_ALL, "SET ROLE state_role", "DISCARD ALL",
           LOOK, **STARTUP),
    Script("discard_all_in_a_transaction", *SET_ALL, "BEGIN", "DISCARD ALL",
           "ROLLBACK", LOOK, **STARTUP),
    Script("reset_without_startup", *SET_ALL, "RESET work_mem",
           "RESET TimeZone", LOOK, "RESET ALL", LOOK, *SET_ALL,
           "DISCARD ALL", LOOK),
    Script("reset_in_one_string", *SET_ALL,
           "RESET work_mem; RESET ALL; SET work_mem = '12MB'", LOOK,
           **STARTUP),
    Script("reset_local", "SET work_mem = '7MB'", "BEGIN",
           "SET LOCAL work_mem TO DEFAULT", LOOK, "COMMIT", LOOK,
           **STARTUP),

    # what is reported, or asked
    Script("show", "SET work_mem = '7MB'", "SHOW work_mem", "SHOW TimeZone",
           "SHOW search_path", "SHOW application_name", "SHOW ALL",
           "SELECT name, setting FROM pg_settings ORDER BY name"),
    Script("reported", "SET application_name = 'one'",
           "SET application_name = 'one'", "SET TimeZone TO 'Asia/Tokyo'",
           "SET DateStyle TO 'SQL'", "BEGIN", "SET application_name = 'two'",
           "SET client_encoding = 'SQL_ASCII'", "ROLLBACK",
           "SHOW application_name", "SHOW client_encoding"),
    Script("reported_from_a_function",
           "SELECT state_set('TimeZone', 'Asia/Kabul')", "SHOW TimeZone",
           "BEGIN", "SELECT state_set('application_name', 'f')", "ROLLBACK",
           "SHOW application_name"),

    # names
    Script("any_case", "SET Work_Mem = '7MB'", "SET TIMEZONE = 'Asia/Tokyo'",
           "SET \"work_mem\" = '8MB'", "SET State.Custom = 'x'",
           "SHOW state.CUSTOM", LOOK),
    Script("time_zone", "SET TIME ZONE 'Asia/Tokyo'", LOOK,
           "SET TIME ZONE -3", LOOK, "SET TIME ZONE INTERVAL '2:30'"
           " HOUR TO MINUTE", "SHOW TIME ZONE", "SELECT now()::timestamptz"
           " IS NOT NULL", LOOK),
    Script("search_paths", "SET search_path = ''", LOOK,
           "SET search_path = \"a b\", 'c,d', \"e\"\"f\"", LOOK,
           "SET search_path TO state_a, pg_temp, \"$user\"", LOOK),
    Script("values_that_need_quotes", "SET state.custom = 'it''s'",
           "SHOW state.custom", r"SET state.custom = E'a\\b\n"
           "\u00e4'", "SHOW state.custom", "SET state.custom = $$;$$",
           "SET application_name = '; DROP TABLE x; --'",
           "SHOW application_name",
           "SET application_name = ''", "SHOW application_name"),

    # who one is
    Script("role", "SET ROLE state_role", LOOK, "SET ROLE NONE", LOOK,
           "SET ROLE state_noise", "RESET ROLE", LOOK, "BEGIN",
           "SET LOCAL ROLE state_role", LOOK, "COMMIT", LOOK, "BEGIN",
           "SET ROLE state_role", "ROLLBACK", LOOK),
    Script("role_from_startup", LOOK, "SET ROLE NONE", LOOK, "RESET ROLE",
           LOOK, "SET ROLE state_noise", "RESET ALL", LOOK, "DISCARD ALL",
           LOOK, role="state_role"),
    Script("session_authorization", "SET SESSION AUTHORIZATION app", LOOK,
           "SET ROLE state_role", LOOK, "SET SESSION AUTHORIZATION app",
           LOOK, "SET ROLE state_noise",
           "SET SESSION AUTHORIZATION DEFAULT", LOOK,
           "SET ROLE state_role", "RESET SESSION AUTHORIZATION", LOOK,
           user="state_boss"),
    Script("session_authorization_rolled_back", "BEGIN",
           "SET SESSION AUTHORIZATION app", "SET ROLE state_role", LOOK,
           "ROLLBACK", LOOK, "BEGIN", "SET LOCAL SESSION AUTHORIZATION app",
           LOOK, "COMMIT", LOOK, user="state_boss"),
    Script("what_only_the_role_may", "SET log_statement = 'all'",
           "SET SESSION AUTHORIZATION app", "SET log_statement = 'none'",
           "SHOW log_statement", "RESET SESSION AUTHORIZATION",
           "SHOW log_statement", user="state_boss"),
]

# A BEGIN by itself
TRANSACTIONS = [
    Script("begin_commit", "BEGIN", "COMMIT", "BEGIN", "ROLLBACK"),
    Script("begin_twice", "BEGIN", "BEGIN", "START TRANSACTION", "COMMIT",
           "COMMIT"),
    Script("no_transaction", "COMMIT", "ROLLBACK", "END", "ABORT"),
    Script("spellings", "begin work", "end transaction",
           "Start Transaction", "commit work", "/* a */ BEGIN -- b",
           "ROLLBACK TRANSACTION"),
    Script("with_options",
           "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
           "SHOW transaction_isolation", "SHOW transaction_read_only",
           "SHOW transaction_deferrable", "COMMIT",
           "SHOW transaction_isolation", "START TRANSACTION READ ONLY,"
           " ISOLATION LEVEL REPEATABLE READ", "SHOW transaction_isolation",
           "INSERT INTO state_serial (note) VALUES ('no')", "COMMIT"),
    Script("options_that_are_none", "BEGIN ISOLATION LEVEL NONSENSE",
           "SELECT 1", "BEGIN READ SOMETHING", "COMMIT"),
    Script("options_then_begin_again", "BEGIN READ ONLY",
           "BEGIN ISOLATION LEVEL SERIALIZABLE",
           "SHOW transaction_isolation", "SHOW transaction_read_only",
           "ROLLBACK"),
    Script("set_transaction", "BEGIN",
           "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
           "SHOW transaction_isolation", "COMMIT", "BEGIN", "SELECT 1",
           "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "ROLLBACK"),
    Script("with_a_default", "SET default_transaction_read_only = on",
           "BEGIN", "SHOW transaction_read_only", "COMMIT",
           "BEGIN READ WRITE", "SHOW transaction_read_only", "COMMIT"),
    Script("and_chain", "BEGIN ISOLATION LEVEL SERIALIZABLE",
           "COMMIT AND CHAIN", "SHOW transaction_isolation",
           "ROLLBACK AND CHAIN", "SHOW transaction_isolation", "COMMIT",
           "COMMIT AND CHAIN"),
    Script("savepoint_first", "BEGIN", "SAVEPOINT s", "ROLLBACK TO s",
           "RELEASE s", "COMMIT", "BEGIN", "ROLLBACK TO s", "ROLLBACK",
           "SAVEPOINT s"),
    Script("an_error_first", "BEGIN", "SELECT 1/0", "SELECT 1", "BEGIN",
           "COMMIT", "BEGIN", "SELEC 1", "ROLLBACK"),
    Script("nothing_first", "BEGIN", "", "COMMIT", "BEGIN", "-- nothing",
           "SELECT 1", "COMMIT"),
    Script("what_no_transaction_may_have", "BEGIN", "DISCARD ALL",
           "ROLLBACK", "BEGIN", "VACUUM", "ROLLBACK"),
    Script("of_several", "BEGIN; BEGIN; COMMIT; COMMIT", "BEGIN; SELECT 1",
           "COMMIT; BEGIN", "BEGIN; COMMIT; BEGIN", "COMMIT",
           "BEGIN; SELECT 1/0; COMMIT", "COMMIT", "BEGIN;", "COMMIT;"),
    Script("prepared_transaction", "BEGIN", "PREPARE TRANSACTION 'x'",
           "COMMIT PREPARED 'x'"),
    Script("a_deferred_one_then_set", "BEGIN", "SET work_mem = '7MB'",
           "SHOW work_mem", "COMMIT", "SHOW work_mem", "BEGIN",
           "SET LOCAL work_mem = '8MB'", "COMMIT", "SHOW work_mem"),
]
