"""The admin console: every command, every table, who may do what."""

import contextlib
import random
import re
import socket
import struct
import subprocess

import psycopg2
import pytest

import wire
from console_tools import client_id, pool_of, refused, row, table
from pgsluice import wait_until

pytestmark = pytest.mark.core

TEXT, INT8, INT4 = 25, 20, 23

SESSION = """type user database replication state addr port local_addr
    local_port connect_time request_time wait wait_us close_needed ptr link
    remote_pid tls application_name prepared_statements id""".split()
SOCKET = SESSION + """recv_pos pkt_pos pkt_remain send_pos send_remain
    pkt_avail send_avail""".split()
COUNTS = """server_assignment_count xact_count query_count {received} {sent}
    xact_time query_time wait_time {ps}client_parse_count
    {ps}server_parse_count {ps}bind_count client_login_count"""


def counts(prefix, received="received", sent="sent", short=""):
    words = COUNTS.format(received=received, sent=sent, ps=short).split()
    return [prefix + word for word in words]


# What PgBouncer's tables begin with, name by name.
COLUMNS = {
    "CLIENTS": SESSION,
    "SERVERS": SESSION,
    "SOCKETS": SOCKET,
    "ACTIVE_SOCKETS": SOCKET,
    "POOLS": """database user cl_active cl_waiting cl_active_cancel_req
        cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled
        sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode
        load_balance_hosts""".split(),
    "DATABASES": """name host port database force_user pool_size
        min_pool_size reserve_pool_size server_lifetime pool_mode
        load_balance_hosts max_connections current_connections
        max_client_connections current_client_connections paused
        disabled""".split(),
    "USERS": """name pool_size reserve_pool_size pool_mode
        max_user_connections current_connections max_user_client_connections
        current_client_connections""".split(),
    "STATS": ["database", *counts("total_"), *counts("avg_", "recv")],
    "STATS_TOTALS": ["database",
                     *counts("", "bytes_received", "bytes_sent")],
    "STATS_AVERAGES": [
        "database", *counts("", "bytes_received", "bytes_sent")[:-4],
        "avg_client_parse_count", "avg_server_parse_count",
        "avg_bind_count", "avg_client_login_count"],
    "TOTALS": ["name", "value"],
    "LISTS": ["list", "items"],
    "MEM": ["name", "size", "used", "free", "memtotal"],
    "STATE": ["key", "value"],
    "CONFIG": ["key", "value", "default", "changeable"],
    "DNS_HOSTS": ["hostname", "ttl", "addrs"],
    "DNS_ZONES": ["zonename", "serial", "count"],
    "PEERS": ["peer_id", "host", "port", "pool_size"],
    "PEER_POOLS": """peer_id cl_active_cancel_req cl_waiting_cancel_req
        sv_active_cancel sv_login""".split(),
    "VERSION": ["version"],
}

# Columns that are text; all others are numbers.
TEXTS = set("""type user database replication state addr local_addr
    connect_time request_time ptr link tls application_name name host
    force_user pool_mode load_balance_hosts trouble list key value default
    changeable hostname addrs version zonename pin reason""".split())

ADMIN_ONLY = [
    "SET verbose = 1", "RELOAD", "PAUSE", "RESUME", "DISABLE app",
    "ENABLE app", "RECONNECT", "KILL app", "KILL_CLIENT 1", "WAIT_CLOSE",
    "SUSPEND", "SHUTDOWN",
]


def types_of(description):
    """The type oids in a RowDescription."""
    oids, at = [], 2
    for _ in range(struct.unpack_from("!H", description.body)[0]):
        at = description.body.index(b"\0", at) + 1
        oids.append(struct.unpack_from("!IHI", description.body, at)[2])
        at += 18
    return oids


@pytest.fixture(name="admin")
def fixture_admin(pgsluice):
    with pgsluice.connect("admin", "pgsluice") as session:
        yield session


# The connection

def test_the_greeting_has_what_tools_look_for(pgsluice):
    with pgsluice.connect("admin", "pgbouncer") as session:
        assert re.fullmatch(r"[\d.]+/bouncer",
                            session.parameters["server_version"])
        assert session.parameters.items() >= {
            "client_encoding": "UTF8", "server_encoding": "UTF8",
            "DateStyle": "ISO", "TimeZone": "GMT", "is_superuser": "on",
            "standard_conforming_strings": "on",
            "integer_datetimes": "on"}.items()
        assert len(session.key) == 4


def test_protocol_3_2_gets_a_long_key(pgsluice):
    with wire.Wire.connect(pgsluice.port) as session:
        session.login("admin", "admin-secret", "pgsluice",
                      protocol=wire.PROTOCOL_3_2)
        assert len(session.key) == 32
        assert session.rows("SHOW VERSION")


def test_only_admin_and_stats_users_get_in(pgsluice):
    with pytest.raises(wire.ServerError) as error:
        pgsluice.connect("app", "pgsluice").close()
    assert error.value.sqlstate == "42501"


@pytest.mark.parametrize("database", ["pgsluice", "pgbouncer"])
def test_psql_watches(pgsluice, database):
    with subprocess.Popen(
            ["psql", "-XAt", pgsluice.url(database, "stats")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True) as psql:
        psql.stdin.write("SHOW LISTS \\watch 0.05\n")
        psql.stdin.flush()
        rounds = 0
        while rounds < 4:
            line = psql.stdout.readline()
            assert line and "ERROR" not in line, line
            rounds += line.startswith("dns_pending|")
        psql.kill()


def test_psycopg2_reads_numbers_as_numbers(pgsluice):
    with pgsluice.connect() as client:
        client.rows("SELECT 1")
    link = psycopg2.connect(pgsluice.url("pgsluice", "stats"))
    link.autocommit = True
    try:
        with link.cursor() as cursor:
            cursor.execute("SHOW STATS")
            names = [column.name for column in cursor.description]
            found = dict(zip(names, cursor.fetchone()))
            assert isinstance(found["total_query_count"], int)
            assert found["database"] == "app"
    finally:
        link.close()


def test_a_login_with_commands_right_behind_it_is_answered(pgsluice):
    """All in one write; trust, so that nothing has to be waited for."""
    pgsluice.configure(auth_type="trust")
    with wire.Wire.connect(pgsluice.port) as session:
        session.send(wire.startup(user="admin", database="pgsluice"),
                     wire.query("SHOW VERSION"), wire.query("SHOW CLIENTS"))
        session.until_ready()
        assert session.shapes(session.until_ready()) == "TDCZ"
        assert session.shapes(session.until_ready()).endswith("CZ")


def test_commands_in_one_write_are_answered_in_order(admin):
    names = ["CLIENTS", "VERSION", "POOLS", "STATE", "SERVERS", "CONFIG"]
    admin.send(*(wire.query(f"SHOW {name}") for name in names * 50))
    for name in names * 50:
        answer = admin.until_ready()
        assert answer[0].columns[:len(COLUMNS[name])] == COLUMNS[name]


def test_commands_byte_by_byte_are_answered(admin):
    for byte in wire.query("SHOW VERSION"):
        admin.send(bytes([byte]))
    assert admin.shapes(admin.until_ready()) == "TDCZ"


def test_one_that_does_not_read_is_not_read_from(pgsluice, admin):
    """As much is asked as the sockets take; then everything is answered."""
    with pgsluice.connect("admin", "pgsluice") as session:
        session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        session.sock.settimeout(1)
        request = wire.query("SHOW CONFIG -- " + "x" * 4000)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += session.sock.send(request[sent % len(request):])
        assert sent < 100_000_000
        blocked = row(admin, "SOCKETS", id=client_id(admin, session))
        assert 0 < int(blocked["send_remain"]) < 1_000_000
        session.sock.settimeout(wire.TIME_LIMIT)
        for _ in range(sent // len(request)):
            assert session.shapes(session.until_ready()).endswith("DCZ")


# Messages

def test_function_calls_and_copy_data_do_no_harm(admin):
    admin.send(wire.copy_data(b"x"), wire.copy_done(), wire.copy_fail(),
               wire.function_call(1, b"1"), wire.sync())
    answer = admin.until_ready()
    assert admin.shapes(answer) == "EZ"
    assert answer[0].sqlstate == "0A000"
    assert admin.shapes(admin.until_ready()) == "Z"


@pytest.mark.parametrize("data, sqlstate", [
    (b"p\0\0\0\5\0", "08P01"), (b"Z\0\0\0\5I", "08P01"),
    (b"Q\0\0\0\4", "08P01"), (b"Q\0\0\0\7a\0b", "08P01"),
    (b"Q\0\0\0\3", "08P01"), (b"Q\xff\xff\xff\xff", "08P01"),
    (b"P\x7f\xff\xff\xff", "08P01"),
    (b"Q\0\1\0\5", "54000"), (b"P\x3f\xff\xff\xfe", "54000"),
    (b"P\0\0\0\6a\0", "08P01"), (b"B\0\0\0\6\0\0", "08P01"),
    (b"B\0\0\0\x0e\0\0\0\0\0\0\0\1\0\2", "08P01"),
    (b"D\0\0\0\6X\0", "08P01"), (b"E\0\0\0\5\0", "08P01"),
])
def test_what_is_no_message_ends_the_connection(admin, data, sqlstate):
    admin.send(data)
    answer = admin.until_closed()
    assert admin.shapes(answer) == "E"
    assert answer[0].sqlstate == sqlstate
    assert answer[0].fields["V"] == "FATAL"


# SHOW

@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_pgbouncers_and_numbers_are_numbers(pgsluice, name):
    with pgsluice.connect() as client:
        client.rows("SELECT 1")
        with pgsluice.connect("stats", "pgsluice") as session:
            answer = session.query(f"SHOW {name}")
    description = answer[0]
    assert description.columns[:len(COLUMNS[name])] == COLUMNS[name]
    for column, oid in zip(description.columns, types_of(description)):
        is_text = column in TEXTS and (name, column) != ("TOTALS", "value")
        assert (oid == TEXT) == is_text, column
        assert oid in (TEXT, INT4, INT8)
    assert answer[-2].tag == "SHOW"
    rows = [got.values for got in answer if got.kind == "D"]
    assert rows or name in ("ACTIVE_SOCKETS", "DNS_HOSTS", "DNS_ZONES",
                            "PEERS", "PEER_POOLS")
    for values in rows:
        for oid, value in zip(types_of(description), values):
            assert oid == TEXT or value is None or value.isdigit()


def test_select_and_case_and_semicolons_do_not_matter(admin):
    version = admin.value("SHOW VERSION")
    assert re.match(r"pgsluice \d", version)
    for sql in ("select VERSION", "show version;", " Show\n\"version\" ; ",
                "/* who */ SHOW version -- are you"):
        assert admin.value(sql) == version


@pytest.mark.parametrize("name, value", [
    ("client_encoding", "UTF8"), ("datestyle", "ISO"), ("timezone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("default_transaction_isolation", "read committed"),
])
def test_parameters_that_drivers_ask_for_are_shown(admin, name, value):
    assert admin.value(f"SHOW {name}") == value


def test_help_names_every_table_and_command(admin):
    answer = admin.query("SHOW HELP")
    assert admin.shapes(answer) == "NCZ"
    text = answer[0].fields["D"]
    for word in (*COLUMNS, *(sql.split()[0] for sql in ADMIN_ONLY)):
        assert word in text


def test_clients_and_servers_show_their_link(pgsluice, admin):
    with pgsluice.connect(application_name="linked") as client:
        pid = client.value("BEGIN; SELECT pg_backend_pid()")
        mine = row(admin, "CLIENTS", application_name="linked")
        assert (mine["type"], mine["state"], mine["user"],
                mine["database"]) == ("C", "active", "app", "app")
        assert (mine["addr"], mine["local_addr"], mine["local_port"]) == (
            "127.0.0.1", "127.0.0.1", str(pgsluice.port))
        server = row(admin, "SERVERS", ptr=mine["link"])
        assert server["link"] == mine["ptr"]
        assert server["remote_pid"] == pid
        assert (server["type"], server["state"]) == ("S", "active")
        assert server["addr"] == "127.0.0.1"
        assert server["port"] == str(pgsluice.postgres.port)
        assert mine["ptr"] + ":" in pgsluice.log()
        active = {one["ptr"] for one in table(admin, "ACTIVE_SOCKETS")}
        assert active >= {mine["ptr"], server["ptr"]}
        client.rows("COMMIT")
        mine = row(admin, "CLIENTS", application_name="linked")
        assert (mine["state"], mine["link"]) == ("idle", "")


def test_clients_of_all_workers_are_shown(start_pgsluice):
    pgsluice = start_pgsluice(workers=3)
    clients = [pgsluice.connect() for _ in range(12)]
    try:
        with pgsluice.connect("stats", "pgsluice") as session:
            rows = [one for one in table(session, "CLIENTS")
                    if one["database"] == "app"]
            ports = {int(one["port"]) for one in rows}
            assert ports == {client.sock.getsockname()[1]
                             for client in clients}
            assert {one["worker"] for one in rows} == {"0", "1", "2"}
            assert pool_of(session)["cl_active"] == "12"
    finally:
        for client in clients:
            client.close()


def test_names_that_are_no_utf8_do_not_break_the_table(pgsluice, admin):
    with wire.Wire.connect(pgsluice.port) as client:
        client.login("app", "app-secret", "app",
                     application_name=b"a\xff\xc3(\xe2\x82\xacz")
        names = {one["application_name"] for one in table(admin, "CLIENTS")}
        assert "a??(???z" in names          # as Postgres makes it


def test_pools_count_who_waits_and_for_how_long(start_pgsluice):
    pgsluice = start_pgsluice(default_pool_size=1)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(pgsluice.connect("admin", "pgsluice"))
        first = stack.enter_context(pgsluice.connect())
        second = stack.enter_context(pgsluice.connect())
        first.rows("BEGIN; SELECT 1")
        second.send(wire.query("SELECT 1"))
        wait_until(lambda: pool_of(admin)["cl_waiting"] == "1", "waiting")
        found = pool_of(admin)
        assert (found["cl_active"], found["sv_active"],
                found["sv_idle"]) == ("1", "1", "0")
        assert found["pool_mode"] == "transaction"
        assert found["pool_size"] == "1"
        wait_until(lambda: int(pool_of(admin)["maxwait_us"]) > 0, "maxwait")
        waiting = row(admin, "CLIENTS", state="waiting")
        assert int(waiting["wait"]) * 1000000 + int(waiting["wait_us"]) > 0
        first.rows("COMMIT")
        second.until_ready()
        assert pool_of(admin)["cl_waiting"] == "0"


def test_why_a_pool_has_no_servers_is_shown(start_pgsluice):
    pgsluice = start_pgsluice(databases={
        "app": "host=127.0.0.1 port=1 dbname=app"}, server_login_retry=1)
    with pgsluice.connect("admin", "pgsluice") as admin:
        with pytest.raises(wire.ServerError):
            pgsluice.connect().close()
        assert pool_of(admin)["trouble"]


def test_databases_are_those_of_the_file_and_those_behind_the_star(
        start_pgsluice, postgres):
    where = f"host=127.0.0.1 port={postgres.port}"
    pgsluice = start_pgsluice(databases={
        "b": f"{where} dbname=app user=app pool_size=3 min_pool_size=1",
        "a": f"{where} dbname=app pool_mode=session max_db_connections=9",
        "*": where})
    with pgsluice.connect("admin", "pgsluice") as admin:
        assert [one["name"] for one in table(admin, "DATABASES")] == [
            "a", "b", "pgsluice"]
        found = row(admin, "DATABASES", name="b")
        assert (found["database"], found["force_user"], found["pool_size"],
                found["min_pool_size"]) == ("app", "app", "3", "1")
        assert (found["host"], found["port"]) == (
            "127.0.0.1", str(postgres.port))
        found = row(admin, "DATABASES", name="a")
        assert (found["pool_mode"], found["max_connections"]) == (
            "session", "9")
        with pgsluice.connect(database="other") as client:
            client.rows("SELECT 1")
            found = row(admin, "DATABASES", name="other")
            assert (found["database"], found["current_connections"],
                    found["current_client_connections"]) == (
                        "other", "1", "1")


def test_users_are_those_of_the_files(start_pgsluice):
    pgsluice = start_pgsluice(users={
        "app": "pool_size=4 pool_mode=session max_user_connections=7"})
    with pgsluice.connect("stats", "pgsluice") as session:
        found = row(session, "USERS", name="app")
        assert (found["pool_size"], found["pool_mode"],
                found["max_user_connections"]) == ("4", "session", "7")
        names = [one["name"] for one in table(session, "USERS")]
        assert names == sorted(pgsluice.secrets)


def test_stats_count_and_average(start_pgsluice):
    pgsluice = start_pgsluice(stats_period=1)
    with pgsluice.connect() as client, \
            pgsluice.connect("stats", "pgsluice") as session:
        for _ in range(20):
            client.rows("SELECT 1")
        client.rows("BEGIN; SELECT pg_sleep(0.01); COMMIT")
        found = row(session, "STATS", database="app")
        assert found["total_query_count"] == "21"
        assert found["total_xact_count"] == "21"
        assert int(found["total_query_time"]) >= 10000
        assert found["total_client_login_count"] == "1"
        totals = row(session, "STATS_TOTALS", database="app")
        assert totals["query_count"] == "21"
        values = {one["name"]: int(one["value"])
                  for one in table(session, "TOTALS")}
        assert values["total_query_count"] == 21
        assert list(values)[:24] == [
            *counts("total_", "client_bytes", "server_bytes", "ps_"),
            *counts("avg_", "client_bytes", "server_bytes", "ps_")]

        def averages():
            client.rows("SELECT 1")
            found = row(session, "STATS_AVERAGES", database="app")
            return int(found["query_count"]) > 0 and int(found["query_time"])

        wait_until(averages, "averages")
        wait_until(lambda: re.search(
            r"LOG stats: \d+ xacts/s, \d+ queries/s, \d+ client parses/s, "
            r"\d+ server parses/s, \d+ binds/s, in \d+ B/s, out \d+ B/s, "
            r"xact \d+ us, query \d+ us, wait \d+ us", pgsluice.log()),
            "the log's line")


def test_lists_and_memory_count_the_clients(pgsluice, admin):
    def used():
        lists = {one["list"]: int(one["items"])
                 for one in table(admin, "LISTS")}
        memory = row(admin, "MEM", name="client")
        assert int(memory["memtotal"]) == (
            int(memory["used"]) * int(memory["size"]))
        return lists["used_clients"], int(memory["used"])

    before = used()
    with pgsluice.connect():
        assert used() == (before[0] + 1, before[1] + 1)
    wait_until(lambda: used() == before, "as before")


# Roles and errors

@pytest.mark.parametrize("sql", ADMIN_ONLY)
def test_a_stats_user_changes_nothing(pgsluice, sql):
    with pgsluice.connect("stats", "pgsluice") as session:
        assert refused(session, sql) == "42501"
        assert session.rows("SHOW STATE")[0] == ["active", "yes"]


@pytest.mark.parametrize("sql, sqlstate", [
    ("BEGIN", "42601"), ("SHOW", "42601"), ("SHOW nonsense", "42601"),
    ("SELECT 1", "42601"), ("SHOW POOLS; SHOW POOLS", "42601"),
    ("SHOW 'POOLS", "42601"), ("RELOAD now", "42601"), ("SET x", "42601"),
    ("SUSPEND now", "42601"), ("SHOW FDS", "0A000"),
    ("PAUSE nodb", "3D000"), ("RESUME nodb", "3D000"),
    ("KILL nodb", "3D000"), ("DISABLE nodb", "3D000"),
    ("RECONNECT nodb", "3D000"), ("WAIT_CLOSE nodb", "3D000"),
    ("PAUSE pgsluice", "0A000"), ("KILL pgbouncer", "0A000"),
    ("RESUME", "55000"), ("RESUME app", "55000"),
    ("KILL_CLIENT 1", "42704"), ("KILL_CLIENT x", "22023"),
    ("KILL_CLIENT -1", "22023"),
    ("SHUTDOWN later", "42601"), ("SET nonsense = 1", "22023"),
    ("SET pool_mode = nonsense", "22023"), ("SET listen_port = 1", "22023"),
])
def test_errors_have_their_sqlstate_and_leave_the_console_usable(
        admin, sql, sqlstate):
    assert refused(admin, sql) == sqlstate
    assert admin.rows("SHOW STATE")[0] == ["active", "yes"]


def test_an_empty_query_is_answered_as_one(admin):
    for sql in ("", ";", " -- nothing"):
        assert admin.shapes(admin.query(sql)) == "IZ"


def test_random_texts_are_answered_one_by_one(admin):
    """What begins like SHUTDOWN is left out; the seed is in the message."""
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    words = ["SHOW", "SET", "POOLS", "CLIENTS", "=", ";", "'", '"', "--",
             "/*", "*/", "app", "verbose", "1", "\n", "\u20ac", "RECONNECT",
             "KILL_CLIENT", "TOTALS", "\\", "%s", "x" * 300]
    for _ in range(300):
        sql = dice.choice(["", " "]).join(
            dice.choice(words) for _ in range(dice.randrange(8)))
        answer = admin.shapes(admin.query(sql))
        assert re.fullmatch(r"(I|E|TD*C|N?C)Z", answer), (seed, sql, answer)


# SET and RELOAD

def setting(session, name):
    return row(session, "CONFIG", key=name)["value"]


def test_set_takes_effect_at_once_everywhere(start_pgsluice):
    pgsluice = start_pgsluice(workers=3)
    sessions = [pgsluice.connect("admin", "pgsluice") for _ in range(6)]
    try:
        for size, session in enumerate(sessions, 3):
            answer = session.query(f"SET default_pool_size = {size}")
            assert answer[0].tag == "SET"
            for other in sessions:
                assert setting(other, "default_pool_size") == str(size)
        assert row(sessions[0], "DATABASES",
                   name="app")["pool_size"] == str(size)
    finally:
        for session in sessions:
            session.close()


def test_set_takes_quoted_values_and_to(admin):
    for sql, value in (("SET server_check_query = 'SELECT ''a'', 1;'",
                        "SELECT 'a', 1;"),
                       ("SET server_check_query TO ''", "")):
        admin.rows(sql)
        assert setting(admin, "server_check_query") == value


def test_set_at_the_same_time_loses_nothing(start_pgsluice):
    """Each of two either takes effect or says that it did not."""
    pgsluice = start_pgsluice(workers=2)
    with pgsluice.connect("admin", "pgsluice") as one, \
            pgsluice.connect("admin", "pgsluice") as two:
        for value in range(10, 40):
            one.send(wire.query(f"SET default_pool_size = {value}"))
            two.send(wire.query(f"SET reserve_pool_size = {value}"))
            for session, name in ((one, "default_pool_size"),
                                  (two, "reserve_pool_size")):
                answer = session.until_ready()[0]
                assert answer.kind == "C" or answer.sqlstate == "55006"
                if answer.kind == "C":
                    assert setting(session, name) == str(value)


def test_reload_reads_the_file_again(pgsluice, admin):
    pgsluice.settings["default_pool_size"] = 11
    pgsluice.write_files()
    assert setting(admin, "default_pool_size") == "20"
    assert admin.query("RELOAD")[0].tag == "RELOAD"
    assert setting(admin, "default_pool_size") == "11"


def test_a_file_with_an_error_changes_nothing(pgsluice, admin):
    pgsluice.settings.update(default_pool_size=12, pool_mode="nonsense")
    pgsluice.write_files()
    with pytest.raises(wire.ServerError) as error:
        admin.rows("RELOAD")
    assert error.value.sqlstate == "F0000"
    assert "pool_mode" in error.value.fields["D"]
    assert setting(admin, "default_pool_size") == "20"
    with pgsluice.connect() as client:
        assert client.value("SELECT 1") == "1"
