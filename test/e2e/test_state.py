"""Session state in transaction mode: a client finds its own as on a
connection to Postgres of its own, and nothing of anybody else's."""

import collections
import contextlib

import pytest

import differential
import wire
from contract_tools import (
    backend, free_again, only_sync_brings_ready, told, wait_in_line)
from pgsluice import ROLES, Pgsluice, secret, wait_until
from state_endings import ENDINGS, Story, ThroughPgsluice, disconnect
from state_kinds import KINDS, Way, extended, in_a_do_block
from state_scripts import PARAMETERS, TRANSACTIONS, message_of, play
from state_tools import (
    BOSS, CLEAN_UP, SETUP, Crowd, Session, assert_same_view, result)

SECRETS = {user: secret(user) for user in (*ROLES, BOSS, "admin")}
PARAMETER = KINDS[0]


@pytest.fixture(scope="module", name="superuser")
def fixture_superuser(postgres):
    """A session, in a database with all that SETUP makes."""
    with postgres.superuser("app") as session:
        session.rows(SETUP)
        try:
            yield session
        finally:
            session.rows(CLEAN_UP)


# Servers in each pool, and the mode.
POOLS = {
    "pool1": {"default_pool_size": 1},
    "pool5": {"default_pool_size": 5},
    "session_mode": {"default_pool_size": 20, "pool_mode": "session"},
}


def end(pooler):
    try:
        pooler.assert_sound()
        assert pooler.stop() == 0
    finally:
        pooler.clean()


@pytest.fixture(scope="module", name="poolers")
def fixture_poolers():
    """Those that run, by their names in POOLS."""
    running = {}
    yield running
    for pooler in running.values():
        end(pooler)


@pytest.fixture(name="pooler_of")
def fixture_pooler_of(poolers, postgres, superuser, request):
    """pooler_of(name): the pgsluice of that name in POOLS. All tests share
    it, but none finds a server that the one before had; after a failure
    there is a new one."""
    # pylint: disable=unused-argument
    used = []

    def give(name):
        if name not in poolers:
            poolers[name] = Pgsluice(postgres, query_wait_timeout="5s",
                                     secrets=SECRETS, **POOLS[name]).start()
        used.append(name)
        return poolers[name]

    yield give
    went = request.node.__dict__.get("reports", {}).get("call")
    for name in used:
        pooler = poolers[name]
        if went is not None and went.passed:
            pooler.assert_sound()
            with pooler.connect("admin", "pgsluice") as console:
                console.rows("KILL app")
                console.rows("RESUME app")
            continue
        del poolers[name]
        print(f"--- log of pgsluice\n{pooler.log()[-4000:]}")
        end(pooler)


# What others find

class Stranger:
    """A client that has not been here before, and keeps its server."""

    def __init__(self, server, kind):
        self.kind = kind
        self.session = Session.open(server, kind.user)
        self.session.do("BEGIN")
        self.saw = self.session.view()

    def ends(self):
        """All that it saw."""
        looked = self.kind.look(self.session)
        self.session.tell("ROLLBACK")
        answer = self.session.until_ready()
        self.session.leave()
        return self.saw, looked, self.session.shapes(answer)


def nobody_sees_it(pooler, kind, count, postgres):
    """So many, each with a server of its own, are as if they were alone."""
    view, looked, ended = Stranger(postgres, kind).ends()
    with contextlib.ExitStack() as stack:
        strangers = []
        for _ in range(count):
            strangers.append(Stranger(pooler, kind))
            stack.callback(strangers[-1].session.close)
        for stranger in strangers:
            saw = stranger.ends()
            assert_same_view(view, saw[0], f"a stranger to {kind}")
            assert saw[1:] == (looked, ended), f"a stranger to {kind}"


def open_servers(pooler, kind):
    pool = pooler.pool("app", kind.user) or collections.Counter()
    return sum(pool[state] for state in (
        "sv_active", "sv_idle", "sv_used", "sv_tested"))


def tell(kind, way, ending, pool, postgres, superuser):
    """The whole story, first as Postgres has it. pool: a pgsluice."""
    direct = Story(kind, way, postgres, superuser)
    with contextlib.closing(direct):
        ending(direct)
        direct.ends()
    story = ThroughPgsluice(kind, way, pool, superuser, direct.seen)
    with contextlib.closing(story):
        ending(story)
        story.rest()
        if story.is_there and story.crowd is not None:
            nobody_sees_it(pool, kind, open_servers(pool, kind) - kind.pins,
                           postgres)
        story.ends()
        story.others_go()
        free_again(pool, kind.user)
        nobody_sees_it(pool, kind, open_servers(pool, kind), postgres)


@pytest.mark.parametrize("name", ["pool1", "pool5"])
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_state_is_kept_for_its_owner_and_hidden_from_others(
        kind, ending, name, pooler_of, postgres, superuser):
    tell(kind, kind.ways[0], ending, pooler_of(name), postgres, superuser)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_with_a_kind_of_state_a_session_looks_different(
        kind, postgres, superuser):
    """On Postgres itself: or else the tests here are of no use."""
    # pylint: disable=unused-argument
    def look(way):
        with Session.open(postgres, kind.user, **way.startup) as session:
            session.is_extended = kind.is_extended
            way.walk(session)
            return kind.look(session)

    assert look(kind.ways[0]) != look(Way("nothing"))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_in_session_mode_too(kind, pooler_of, postgres, superuser):
    tell(kind, kind.ways[0], disconnect, pooler_of("session_mode"), postgres,
         superuser)


@pytest.mark.parametrize("kind, way", [
    pytest.param(kind, way, id=f"{kind}-{way}")
    for kind in KINDS for way in kind.ways])
def test_however_state_comes_about(
        kind, way, pooler_of, postgres, superuser):
    tell(kind, way, disconnect, pooler_of("pool5"), postgres, superuser)


# The rules of transactions, by scripts

NOT_YET = pytest.mark.xfail(
    strict=True, reason="SET LOCAL x TO DEFAULT: the server's default is "
    "taken, not what the startup packet had")


def scripts(*lists, through=True):
    return pytest.mark.parametrize("script, protocol", [
        pytest.param(script, protocol, id=f"{script.name}-{protocol}",
                     marks=[NOT_YET] if through
                     and script.name == "reset_local" else [])
        for each in lists for script in each
        for protocol in script.protocols()])


def is_answered_alike(script, protocol, pooler, postgres):
    direct = play(script, protocol, postgres)
    with contextlib.closing(Crowd(
            pooler, pooler.settings["default_pool_size"],
            script.user)) as crowd:
        through = play(script, protocol, pooler, crowd)
    assert differential.difference(direct, through) is None


@pytest.mark.parametrize("name", ["pool1", "pool5"])
@scripts(PARAMETERS)
def test_a_parameter_follows_the_rules_of_postgres(
        script, protocol, name, pooler_of, postgres):
    is_answered_alike(script, protocol, pooler_of(name), postgres)


@scripts(TRANSACTIONS)
def test_a_transaction_that_begins_late_cannot_be_told_from_others(
        script, protocol, pooler_of, postgres):
    is_answered_alike(script, protocol, pooler_of("pool1"), postgres)


@scripts(PARAMETERS, TRANSACTIONS, through=False)
def test_postgres_answers_a_script_the_same_twice(
        script, protocol, postgres, superuser):
    """Or else it is of no use."""
    # pylint: disable=unused-argument
    assert differential.difference(
        play(script, protocol, postgres), play(script, protocol, postgres)
    ) is None


BAD_STARTUPS = [
    {"work_mem": "nonsense"}, {"no_such_parameter": "1"},
    {"role": "nobody"}, {"TimeZone": "Nowhere"}, {"DateStyle": "Mayan"},
    {"client_encoding": "nonsense"}, {"statement_timeout": "-7"},
    {"log_statement": "all"}, {"port": "1"}, {"data_checksums": "on"},
    {"search_path": "a b"}, {"state.custom": "x", "work_mem": "1"},
    {"options": "-c work_mem=nonsense"}, {"options": "-c no_such=1"},
    {"options": "--no-such=1"}, {"options": "-c"}, {"options": "nonsense"},
    {"options": "-c state.custom"}, {"options": "-c work_mem=7MB -c =1"},
]


@pytest.mark.parametrize("parameters", BAD_STARTUPS, ids=str)
def test_a_bad_startup_parameter_is_told_in_the_words_of_postgres(
        parameters, pooler_of, postgres):
    def refusal(server):
        with Session.connect(server.port) as link:
            with pytest.raises(wire.ServerError) as refused:
                link.login("app", secret("app"), "app", **parameters)
            assert link.until_closed() == []
            return {name: refused.value.fields.get(name) for name in "VSCMDH"}

    expected = refusal(postgres)
    pooler = pooler_of("pool1")
    assert refusal(pooler) == expected
    nobody_sees_it(pooler, PARAMETER, 1, postgres)


@pytest.mark.parametrize("order", [("options", "client_encoding", "work_mem"),
                                   ("client_encoding", "work_mem", "options")],
                         ids=["first", "last"])
def test_options_of_the_startup_packet_come_before_all_else_of_it(
        order, pooler_of, postgres):
    brought = {"options": "-c client_encoding=SQL_ASCII -c work_mem=7MB "
                          "-c geqo=off",
               "client_encoding": "UTF8", "work_mem": "8MB"}
    startup = {name: brought[name] for name in order}
    ask = ("SELECT " + ", ".join(f"current_setting('{name}')" for name in
                                 ("client_encoding", "work_mem", "geqo")))
    for server in (postgres, pooler_of("pool1")):
        with Session.open(server, **startup) as session:
            assert session.ask(ask) == [["UTF8", "8MB", "off"]], server.name


def test_two_clients_alternate_on_one_server(pooler_of):
    pooler = pooler_of("pool1")
    one = {"work_mem": "7MB", "TimeZone": "Asia/Kabul", "role": "state_role",
           "search_path": "state_a", "state.custom": "one"}
    two = {"work_mem": "8MB", "TimeZone": "Asia/Tokyo", "role": "state_noise",
           "search_path": "state_noise", "state.custom": "two"}
    ask = "SELECT " + ", ".join(f"current_setting('{name}')" for name in one)
    with Session.open(pooler, **one) as left, Session.open(pooler) as right:
        for name, value in two.items():
            right.do(f"SET {name} = '{value}'")
        for number in range(100):
            one["work_mem"] = f"{1001 + 2 * number}kB"
            left.do(f"SET work_mem = '{one['work_mem']}'")
            assert right.ask(ask) == [list(two.values())]
            assert left.batch(extended(ask)) == [list(one.values())]
            if number % 10 == 0:
                two["state.custom"] = f"two, {number}"
                right.do("BEGIN")
                right.do(f"SET state.custom = '{two['state.custom']}'")
                right.do("COMMIT")


# What no text tells

@pytest.mark.parametrize("sql", ["SELECT state_set('work_mem', '7MB')",
                                 "SELECT state_set('state.custom', 'x')",
                                 "SELECT state_make_temp()"])
def test_what_a_function_left_behind_is_found_by_an_audit(
        sql, start_pgsluice, postgres, superuser):
    # pylint: disable=unused-argument
    pooler = start_pgsluice(default_pool_size=1, state_audit=1)
    with Session.open(pooler) as owner:
        owner.do(sql)
        nobody_sees_it(pooler, PARAMETER, 1, postgres)


def test_what_we_tell_the_server_of_a_migrator_is_no_leak(
        start_pgsluice):
    pooler = start_pgsluice(state_audit=1)
    with pooler.connect(options="-c pgsluice.migrate=on") as migrator:
        for number in range(5):
            migrator.rows(f"CREATE TABLE state_watched_{number} ()")
            migrator.rows("BEGIN; SELECT 1")
            migrator.rows("COMMIT")
            migrator.rows(f"DROP TABLE state_watched_{number}")
            migrator.rows("SELECT 1")
    assert "state audit" not in pooler.log()


# Pins

def pins(pooler):
    return pooler.console("SHOW PINS")


def row_of(link, rows):
    """That of a client."""
    found, = [row for row in rows
              if (row["addr"], row["port"]) == link.address]
    return found


def pin_of(pooler, link):
    """Its reason, or None."""
    row = row_of(link, pooler.console("SHOW CLIENTS"))
    return row["pin"] or None


def no_pins(pooler):
    wait_until(lambda: not pins(pooler), "no client pinned")


# Why, what makes it so, and what ends it.
PINS = [
    ("temp_table", "CREATE TEMP TABLE mine (n int)",
     ["DROP TABLE mine", "DISCARD TEMP", "DISCARD ALL"]),
    ("advisory_lock", "SELECT pg_advisory_lock(4711)",
     ["SELECT pg_advisory_unlock(4711)", "SELECT pg_advisory_unlock_all()",
      "DISCARD ALL"]),
    ("hold_cursor", "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
     ["CLOSE mine", "CLOSE ALL", "DISCARD ALL"]),
    ("prepare", "PREPARE mine AS SELECT 1",
     ["DEALLOCATE mine", "DEALLOCATE PREPARE ALL", "DISCARD ALL"]),
]
TAKEN = [pytest.param(reason, take, id=reason) for reason, take, _ in PINS]
ENDED = [pytest.param(reason, take, end, id=f"{reason}-{end}")
         for reason, take, ends in PINS for end in ends]


@pytest.mark.parametrize("reason, take", TAKEN)
def test_a_pin_is_shown_with_its_reason(reason, take, pooler_of, superuser):
    # pylint: disable=unused-argument
    pooler = pooler_of("pool5")
    with Session.open(pooler) as owner, Session.open(pooler) as other:
        other.do("SET work_mem = '7MB'")
        assert pins(pooler) == []
        assert pin_of(pooler, owner) is None
        owner.do(take)
        client = row_of(owner, pooler.console("SHOW CLIENTS"))
        assert client["pin"] == reason
        assert int(client["pin_age"]) >= 0
        pin, = pins(pooler)
        host, port = owner.address
        assert {name: pin[name] for name in (
            "database", "user", "addr", "port", "reason")} == {
                "database": "app", "user": "app", "addr": host, "port": port,
                "reason": reason}
        assert int(pin["age_s"]) >= 0
        assert pin_of(pooler, other) is None
        owner.leave()
        no_pins(pooler)


def test_a_loaded_library_is_a_pin_until_the_server_is_closed(
        pooler_of, superuser):
    # pylint: disable=unused-argument
    pooler = pooler_of("pool5")
    with Session.open(pooler, BOSS) as owner:
        pid = backend(owner)
        owner.do("LOAD 'auto_explain'")
        assert pin_of(pooler, owner) == "load"
        owner.do("DISCARD ALL")
        assert pin_of(pooler, owner) == "load"
        owner.leave()
        wait_until(lambda: superuser.value(
            f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")
            == "0", "the server gone")


@pytest.mark.parametrize("sql", [
    in_a_do_block("CREATE TEMP TABLE mine (n int)"),
    in_a_do_block("EXECUTE 'CREATE TEMP ' || 'TABLE mine (n int)'")])
def test_what_a_do_block_did_is_found_out(sql, pooler_of, superuser):
    # pylint: disable=unused-argument
    pooler = pooler_of("pool5")
    with Session.open(pooler) as owner:
        owner.do(sql)
        assert pin_of(pooler, owner) in ("temp_table", "unknown")
        owner.do("DROP TABLE mine")
        no_pins(pooler)


@pytest.mark.parametrize("reason, take, end", ENDED)
@pytest.mark.parametrize("how", ["simple", "extended", "transaction"])
def test_a_pin_ends_by_itself(
        reason, take, end, how, pooler_of, postgres, superuser):
    # pylint: disable=unused-argument
    if how == "transaction" and end == "DISCARD ALL":
        pytest.skip("not in a transaction")
    pooler = pooler_of("pool1")
    with Session.open(pooler) as owner, Session.open(pooler) as other:
        owner.do(take)
        assert pin_of(pooler, owner) == reason
        other.tell("SELECT 7")
        wait_in_line(pooler, 1)
        if how == "simple":
            owner.do(end)
        elif how == "extended":
            assert isinstance(owner.batch(extended(end)), list)
        else:
            owner.do("BEGIN")
            owner.do(end)
            owner.do("COMMIT")
        assert result(other.until_ready()) == [["7"]]
        assert pins(pooler) == []
        nobody_sees_it(pooler, PARAMETER, 1, postgres)
        assert owner.ask("SELECT 7") == [["7"]]


@pytest.mark.parametrize("statements", [
    ["CREATE TEMP TABLE mine (n int) ON COMMIT DROP"],
    ["CREATE TEMP TABLE mine (n int)", "DROP TABLE mine"],
    ["SELECT pg_advisory_xact_lock(4711)"],
    ["SELECT pg_advisory_lock(4711)", "SELECT pg_advisory_unlock(4711)"],
    ["DECLARE mine CURSOR FOR SELECT 1", "FETCH 1 FROM mine"],
    ["SET LOCAL work_mem = '7MB'"],
    ["LISTEN a", "UNLISTEN a"],
    ["PREPARE mine AS SELECT 1", "EXECUTE mine", "DEALLOCATE mine"],
], ids=lambda each: each[0])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_what_ends_with_the_transaction_is_no_pin(
        statements, end, pooler_of, superuser):
    # pylint: disable=unused-argument
    pooler = pooler_of("pool1")
    if end == "ROLLBACK" and "lock(4711)" in statements[-1]:
        pytest.skip("an unlock is not undone")
    with Session.open(pooler) as owner, Session.open(pooler) as other:
        owner.do("BEGIN")
        for sql in statements:
            owner.do(sql)
        owner.do(end)
        assert other.ask("SELECT 7") == [["7"]]
        no_pins(pooler)


@pytest.mark.parametrize("take", [
    "CREATE TEMP TABLE mine (n int)", 'LISTEN "State Channel"'])
def test_what_was_rolled_back_is_no_pin(take, pooler_of, superuser):
    # pylint: disable=unused-argument
    pooler = pooler_of("pool1")
    with Session.open(pooler) as owner, Session.open(pooler) as other:
        owner.do("BEGIN")
        owner.do(take)
        owner.do("ROLLBACK")
        assert other.ask("SELECT 7") == [["7"]]
        no_pins(pooler)


def is_locked(superuser):
    """By another session than this one."""
    if superuser.value("SELECT pg_try_advisory_lock(4711)") == "f":
        return True
    superuser.rows("SELECT pg_advisory_unlock(4711)")
    return False


def test_a_lock_taken_twice_and_given_once_is_still_held(
        pooler_of, superuser):
    pooler = pooler_of("pool5")
    with Session.open(pooler) as owner, \
            contextlib.closing(Crowd(pooler, 5, "app")) as crowd:
        owner.do("SELECT pg_advisory_lock(4711)")
        owner.do("SELECT pg_advisory_lock(4711)")
        pid = backend(owner)
        for sql in ("SELECT pg_advisory_unlock(4711)",
                    "SELECT pg_advisory_unlock(1)", "SELECT 1"):
            owner.do(sql)
            crowd()
            assert backend(owner) == pid
            assert pin_of(pooler, owner) == "advisory_lock"
            assert is_locked(superuser)
        owner.do("SELECT pg_advisory_unlock(4711)")
        no_pins(pooler)
        assert not is_locked(superuser)


def test_of_two_reasons_one_remains(pooler_of, superuser):
    # pylint: disable=unused-argument
    pooler = pooler_of("pool5")
    with Session.open(pooler) as owner:
        owner.do("CREATE TEMP TABLE mine (n int)")
        owner.do("SELECT pg_advisory_lock(4711)")
        owner.do("DROP TABLE mine")
        wait_until(lambda: pin_of(pooler, owner) == "advisory_lock",
                   "the other reason")
        owner.do("SELECT pg_advisory_unlock(4711)")
        no_pins(pooler)


def is_refused_a_pin(answer, reason):
    fields = told(answer, "ERROR", "53400")
    said = " ".join(fields.get(name, "") for name in "MDH")
    assert reason in said or reason.replace("_", " ") in said, fields
    assert "max_pinned" in said, fields


@pytest.mark.parametrize("reason, take", TAKEN)
def test_beyond_max_pinned_a_client_is_told_the_reason(
        reason, take, start_pgsluice, superuser):
    # pylint: disable=unused-argument
    pooler = start_pgsluice(default_pool_size=3, max_pinned=1)
    with Session.open(pooler) as first, Session.open(pooler) as second:
        first.do("CREATE TEMP TABLE firsts (n int)")
        second.do("SET work_mem = '7MB'")
        before = second.own_view()

        is_refused_a_pin(second.query(take), reason)
        second.send(extended(take))
        is_refused_a_pin(second.until("E"), reason)
        only_sync_brings_ready(second)
        second.do("BEGIN")
        second.do("SELECT 1")
        answer = second.query(take)
        is_refused_a_pin(answer, reason)
        assert answer[-1].status == "E"
        assert second.ask("SELECT 1") == "25P02"
        second.do("ROLLBACK")

        assert_same_view(before, second.own_view(), "one that was refused")
        assert pin_of(pooler, second) is None
        first.do("DROP TABLE firsts")
        no_pins(pooler)
        second.do(take)
        assert pin_of(pooler, second) == reason


def test_max_pinned_counts_each_pool_by_itself(start_pgsluice):
    pooler = start_pgsluice(default_pool_size=3, max_pinned=1)
    with Session.open(pooler) as one, \
            Session.open(pooler, database="other") as two, \
            Session.open(pooler, "scram_user") as three:
        for link in one, two, three:
            link.do("CREATE TEMP TABLE mine (n int)")
        one.do("SELECT pg_advisory_lock(4711)")     # pinned as it is
        assert len(pins(pooler)) == 3


# A BEGIN by itself takes no server

BEGINS = ["BEGIN", "START TRANSACTION", "begin work",
          "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
          "/* so */ BEGIN -- it goes"]


@contextlib.contextmanager
def all_servers_taken(pooler):
    """The only one, that is."""
    with Session.open(pooler) as holder:
        holder.do("BEGIN")
        holder.do("SELECT 1")
        assert pooler.pool()["sv_active"] == 1
        yield
        holder.do("COMMIT")


@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_a_begin_waits_for_its_first_statement(begin, protocol, pooler_of):
    pooler = pooler_of("pool1")
    with Session.open(pooler) as client:
        with all_servers_taken(pooler):
            client.send(message_of(begin, protocol))
            answer = client.until_ready()
            assert client.shapes(answer) == {
                "simple": "CZ", "extended": "12nCZ"}[protocol]
            assert answer[-1].status == "T"
            assert pooler.pool()["cl_waiting"] == 0
        wait_until(lambda: pooler.pool()["sv_active"] == 0, "no server used")
        assert client.ask("SELECT 7") == [["7"]]
        assert pooler.pool()["sv_active"] == 1
        client.do("COMMIT")
        wait_until(lambda: pooler.pool()["sv_active"] == 0, "no server used")


@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "END"])
@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_a_transaction_of_nothing_needs_no_server(
        begin, end, protocol, pooler_of):
    pooler = pooler_of("pool1")
    with Session.open(pooler) as client, all_servers_taken(pooler):
        for _ in range(3):
            client.send(message_of(begin, protocol))
            assert client.until_ready()[-1].status == "T"
            client.send(message_of(end, protocol))
            assert client.until_ready()[-1].status == "I"


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_begin_that_finds_no_server_has_failed(end, start_pgsluice):
    pooler = start_pgsluice(default_pool_size=1, query_wait_timeout="100ms")
    with Session.open(pooler) as client:
        with all_servers_taken(pooler):
            client.do("BEGIN")
            answer = client.query("SELECT 1")
            told(answer, "ERROR", "53300")
            assert answer[-1].status == "E"
            for message in (wire.query("SELECT 2"), wire.query("BEGIN"),
                            extended("SELECT 3") + wire.sync()):
                client.send(message)
                answer = client.until_ready()
                told(answer, "ERROR", "25P02")
                assert answer[-1].status == "E"
            client.send(wire.sync())
            assert client.until_ready()[-1].status == "E"
            answer = client.query(end)
            assert client.shapes(answer) == "CZ"
            assert answer[0].body == b"ROLLBACK\0"
            assert answer[-1].status == "I"
        assert client.ask("SELECT 4") == [["4"]]


def test_who_leaves_in_a_transaction_of_nothing_leaves_nothing(
        pooler_of, postgres, superuser):
    # pylint: disable=unused-argument
    pooler = pooler_of("pool1")
    for leave in (Session.leave, Session.reset, Session.close):
        link = Session.open(pooler)
        link.do("BEGIN ISOLATION LEVEL SERIALIZABLE")
        leave(link)
        nobody_sees_it(pooler, PARAMETER, 1, postgres)


def test_a_pipeline_that_begins_with_begin_is_answered_in_order(
        pooler_of, postgres):
    def answer(server):
        with Session.open(server) as link:
            for protocol in ("simple", "extended"):
                link.send(*(message_of(sql, protocol) for sql in (
                    "BEGIN", "BEGIN", "SELECT 1", "COMMIT", "BEGIN",
                    "COMMIT", "COMMIT", "BEGIN", "SELECT 1/0", "SELECT 2",
                    "ROLLBACK", "SELECT 3")))
            link.send(extended("BEGIN"), extended("SELECT 4"),
                      extended("COMMIT"), wire.sync())
            return [(got.kind, got.body) for _ in range(25)
                    for got in link.until_ready()]

    assert answer(pooler_of("pool1")) == answer(postgres)


# Many on few

CLIENTS, SERVERS, ROUNDS = 40, 4, 25


def test_clients_that_all_differ_share_few_servers(
        start_pgsluice, superuser):
    # pylint: disable=unused-argument
    pooler = start_pgsluice(default_pool_size=SERVERS)
    zones = ("Asia/Kabul", "Asia/Tokyo", "UTC", "Europe/Berlin")
    paths = ("state_a", "state_noise", "public")
    ask = ("SELECT current_setting('work_mem'), current_setting('TimeZone'),"
           " current_setting('state.custom'), (SELECT name FROM state_where),"
           " current_user, pg_backend_pid()")

    def values(number, turn):
        return {"work_mem": f"{2000 + 100 * number + turn // 5}kB",
                "TimeZone": zones[number % len(zones)],
                "state.custom": f"client {number}",
                "search_path": paths[number % len(paths)],
                "role": ("state_role", "state_noise")[number % 2]}

    pids = set()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Session.open(
            pooler, **values(number, 0))) for number in range(CLIENTS)]
        for turn in range(ROUNDS):
            for number, link in enumerate(clients):
                mine = values(number, turn)
                if turn % 5 == 0:
                    link.send(wire.query(
                        f"SET work_mem = '{mine['work_mem']}'"))
                if (number + turn) % 3 == 0:
                    link.send(*map(wire.query, ("BEGIN", ask, "COMMIT")))
                else:
                    link.send(extended(ask), wire.sync())
            for number, link in enumerate(clients):
                mine = values(number, turn)
                path = mine["search_path"].replace("state_a", "a")
                count = 1 + (turn % 5 == 0) + 2 * ((number + turn) % 3 == 0)
                answer = [got for _ in range(count)
                          for got in link.until_ready()]
                row, = result(answer)
                pids.add(row.pop())
                assert row == [mine["work_mem"], mine["TimeZone"],
                               mine["state.custom"],
                               path.replace("state_noise", "noise"),
                               mine["role"]]
        assert pins(pooler) == []
    assert len(pids) <= SERVERS


# Sequences

def test_currval_is_not_what_another_server_had_given_before(start_pgsluice):
    """The client has moved the sequence on two servers, and asks the one
    that it had first: an error, as in a new session, or the last."""
    pooler = start_pgsluice(default_pool_size=2, server_round_robin=1,
                            workers=1)
    with pooler.connect() as client:
        client.rows("DROP SEQUENCE IF EXISTS state_moved;"
                    " CREATE SEQUENCE state_moved")
        with pooler.connect() as other:
            for link in (client, other):
                link.rows("BEGIN; SELECT 1")
            for link in (client, other):
                link.rows("COMMIT")
        pids = {client.value("SELECT pg_backend_pid()") for _ in range(2)}
        assert len(pids) == 2
        assert client.value("SELECT nextval('state_moved')") == "1"
        assert client.value("SELECT nextval('state_moved')") == "2"
        with pytest.raises(wire.ServerError) as error:
            client.value("SELECT currval('state_moved')")
        assert error.value.sqlstate == "55000"
        assert client.value("SELECT nextval('state_moved')") == "3"
        for _ in range(3):
            assert client.value("SELECT currval('state_moved')") == "3"
        client.rows("DROP SEQUENCE state_moved")
