"""LISTEN in transaction mode: a client hears what it would hear on a
connection to Postgres of its own, each notification once, and keeps no
server for it."""

import contextlib
import struct
import threading

import pytest

import wire
from pgsluice import wait_until
from state_kinds import extended, in_a_do_block
from state_tools import Session, result

LISTENING = "SELECT c FROM pg_listening_channels() c ORDER BY c COLLATE \"C\""

# Channel names as SQL has them, and as they are.
NAMES = [
    ("plain", "plain"),
    ("FoLdEd", "folded"),
    ('"Mixed Case"', "Mixed Case"),
    ('"with ""quotes"""', 'with "quotes"'),
    ('"it\'s; -- all /* of"', "it's; -- all /* of"),
    ('"\\ $$"', "\\ $$"),
    ('"grün ☃"', "grün ☃"),
    ('"*"', "*"),
    ("n" * 63, "n" * 63),
    ("l" * 80, "l" * 63),           # Postgres cuts it
]


class Ear(Session):
    """A client that keeps what it hears as (channel, payload)."""

    def __init__(self, sock):
        super().__init__(sock)
        self.heard = []
        self.pids = []

    def next(self):
        got = super().next()
        if got.kind == "A":
            channel, payload, _ = got.body[4:].split(b"\0")
            self.heard.append((channel.decode(), payload.decode()))
            self.pids += struct.unpack_from("!I", got.body)
        return got

    def hear(self, *expected):
        """Waits for as many, and for what two more queries bring."""
        while len(self.heard) < len(expected):
            self.until("A")
        self.settle()
        assert self.heard == list(expected)
        self.heard.clear()

    def settle(self):
        for _ in range(2):
            self.do("SELECT 1")


class Extended(Ear):
    is_extended = True


def opened(kind):
    def open_one(pooler, **arguments):
        return kind.open(pooler, **arguments)
    return open_one


@pytest.fixture(name="ear", params=[Ear, Extended],
                ids=["simple", "extended"])
def fixture_ear(request):
    return opened(request.param)


def hub_of(pooler):
    """The backend that listens, or None."""
    pids = [row["remote_pid"] for row in servers(pooler)
            if row["state"] == "listening"]
    assert len(pids) <= 1
    return pids[0] if pids else None


def servers(pooler):
    return pooler.console("SHOW SERVERS")


def listeners(pooler):
    """Clients by channel."""
    found = {}
    for row in pooler.console("SHOW LISTENERS"):
        name = row["channel"]
        found[name] = found.get(name, 0) + int(row["clients"])
    return found


def is_free(pooler):
    """Nobody keeps a server."""
    wait_until(lambda: pooler.pool()["sv_active"] == 0, "no server in use")
    assert pooler.console("SHOW PINS") == []


@pytest.mark.core
def test_what_others_notify_is_heard_without_a_server(
        ear, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1)
    with ear(pooler) as listener, ear(pooler) as other, \
            Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        is_free(pooler)
        assert listeners(pooler) == {"news": 1}
        assert hub_of(pooler) is not None
        direct.do("NOTIFY news, 'from a direct connection'")
        other.do("NOTIFY news, 'from another client'")
        other.do("NOTIFY olds")
        other.do("SELECT pg_notify('news', '')")
        listener.hear(("news", "from a direct connection"),
                      ("news", "from another client"), ("news", ""))
        is_free(pooler)
        assert direct.pid in listener.pids
        assert other.heard == []


@pytest.mark.parametrize("mode", ["transaction", "session", "direct"])
def test_its_own_comes_before_the_answer_s_end_and_with_its_own_pid(
        mode, ear, start_pgsluice, postgres):
    pooler = postgres if mode == "direct" else start_pgsluice(
        default_pool_size=2, pool_mode=mode)
    with ear(pooler) as listener, ear(pooler) as other:
        listener.do("LISTEN news")
        for number in range(20):
            listener.do(f"NOTIFY news, 'mine {number}'")
            assert listener.heard == [("news", f"mine {number}")]
            assert listener.pids == [listener.pid]
            listener.heard.clear()
            listener.pids.clear()
            other.do(f"NOTIFY news, 'mine {number}'")
            listener.hear(("news", f"mine {number}"))
            assert listener.pids != [listener.pid]
            listener.pids.clear()


def test_its_own_by_a_trigger_is_known_as_such(start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1)
    with postgres.superuser("app") as boss:
        boss.rows("CREATE TABLE listened (n int)")
        boss.rows("GRANT ALL ON listened TO public")
        boss.rows("CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
                  " $$BEGIN PERFORM pg_notify('news', NEW.n::text);"
                  " RETURN NEW; END$$")
        boss.rows("CREATE TRIGGER tell AFTER INSERT ON listened"
                  " FOR EACH ROW EXECUTE FUNCTION tell()")
        try:
            with Ear.open(pooler) as listener:
                listener.do("LISTEN news")
                listener.do("INSERT INTO listened VALUES (7), (8)")
                assert listener.pids == [listener.pid] * 2
                listener.hear(("news", "7"), ("news", "8"))
        finally:
            boss.rows("DROP TABLE listened; DROP FUNCTION tell")


def test_a_notify_arrives_after_its_commit_or_not_at_all(
        ear, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=2)
    with ear(pooler) as listener, ear(pooler) as other, \
            Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        other.do("BEGIN")
        other.do("NOTIFY news, 'rolled back'")
        other.do("ROLLBACK")
        other.do("BEGIN")
        other.do("NOTIFY news, 'committed'")
        direct.do("NOTIFY news, 'meanwhile'")
        listener.until("A")
        other.do("COMMIT")
        listener.hear(("news", "meanwhile"), ("news", "committed"))


def ended(*steps):
    """A name for a test's case."""
    return pytest.param(*steps, id="; ".join(steps[0]))


CHANGES = [
    ended(["LISTEN a"], ["a"]),
    ended(["LISTEN a", "LISTEN a", "LISTEN b"], ["a", "b"]),
    ended(["LISTEN a; SELECT 1; LISTEN b"], ["a", "b"]),
    ended(["BEGIN", "LISTEN a", "COMMIT"], ["a"]),
    ended(["BEGIN", "LISTEN a", "ROLLBACK"], []),
    ended(["LISTEN a", "BEGIN", "LISTEN b", "ROLLBACK"], ["a"]),
    ended(["BEGIN", "LISTEN a", "SAVEPOINT s", "LISTEN b",
           "ROLLBACK TO SAVEPOINT s", "LISTEN c", "COMMIT"], ["a", "c"]),
    ended(["LISTEN a", "LISTEN b", "UNLISTEN a"], ["b"]),
    ended(["LISTEN a", "SELECT 1", "LISTEN b", "SELECT 1", "UNLISTEN *"],
          []),
    ended(["LISTEN a", "BEGIN", "UNLISTEN *", "ROLLBACK"], ["a"]),
    ended(["LISTEN a", "LISTEN b", "BEGIN", "SAVEPOINT s", "UNLISTEN *",
           "ROLLBACK TO SAVEPOINT s", "UNLISTEN b", "COMMIT"], ["a"]),
    ended(["LISTEN a", "BEGIN", "UNLISTEN a", "LISTEN c", "COMMIT"], ["c"]),
    ended(["LISTEN a", "BEGIN; UNLISTEN *; LISTEN b; COMMIT; LISTEN c"],
          ["b", "c"]),
    ended(["LISTEN a", "UNLISTEN *", "LISTEN a"], ["a"]),
    ended(["LISTEN a", "DISCARD ALL"], []),
    ended(["LISTEN a", "DISCARD ALL", "LISTEN b"], ["b"]),
    ended(["UNLISTEN nothing", "UNLISTEN *", "LISTEN a"], ["a"]),
    ended([in_a_do_block("EXECUTE 'LISTEN a'")], ["a"]),
    ended(["LISTEN a", in_a_do_block("EXECUTE 'UNLISTEN a'")], []),
]


@pytest.mark.parametrize("steps, expected", CHANGES)
def test_listen_and_unlisten_follow_the_rules_of_transactions(
        steps, expected, ear, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=2)
    with ear(pooler) as listener, Ear.open(postgres) as direct, \
            Ear.open(pooler) as other:
        for link in (listener, direct):
            for sql in steps:
                if link.is_extended and ";" in sql and "DO" not in sql:
                    link.query(sql)
                else:
                    link.do(sql)
        assert direct.ask(LISTENING) == [[name] for name in expected]
        assert listener.ask(LISTENING) == direct.ask(LISTENING)
        is_free(pooler)
        assert listeners(pooler) == {name: 1 for name in expected}
        assert other.ask(LISTENING) == []
        for name in "abc":
            other.do(f"NOTIFY {name}")
        listener.hear(*((name, "") for name in expected))


def test_a_channel_may_have_any_name(ear, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1)
    with ear(pooler) as listener, Ear.open(postgres) as direct:
        for sql, _ in NAMES:
            listener.do(f"LISTEN {sql}")
        wait_until(lambda: sorted(listeners(pooler)) == sorted(
            name for _, name in NAMES), "all listened to")
        for sql, _ in NAMES:
            direct.do(f"NOTIFY {sql}, 'payload'")
        listener.hear(*((name, "payload") for _, name in NAMES))
        for sql, name in NAMES:
            listener.do(f"UNLISTEN {sql}")
            wait_until(lambda gone=name: gone not in listeners(pooler),
                       "unlistened")
        is_free(pooler)


@pytest.mark.parametrize("payload", [
    "x" * 7999, "ä" * 3999, "with ' and \\ and \n"],
    ids=["longest", "utf8", "signs"])
@pytest.mark.parametrize("sender", ["own", "direct"])
def test_a_payload_arrives_as_it_was_sent(
        payload, sender, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1)
    with Ear.open(pooler) as listener, Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        link = listener if sender == "own" else direct
        link.batch(extended("SELECT pg_notify('news', $1)", payload))
        listener.hear(("news", payload))


@pytest.mark.parametrize("inside", ["nothing", "SELECT 1"])
def test_a_client_in_a_transaction_hears_when_it_is_over(
        inside, ear, start_pgsluice, postgres):
    """A BEGIN by itself has no server yet."""
    pooler = start_pgsluice(default_pool_size=2)
    with ear(pooler) as listener, ear(pooler) as idle, \
            Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        idle.do("LISTEN news")
        listener.do("BEGIN")
        if inside != "nothing":
            listener.do(inside)
        direct.do("NOTIFY news, 'early'")
        idle.until("A")                 # so it has come as far as that
        if inside != "nothing":
            listener.do("SELECT 2")
        assert listener.heard == []
        listener.tell("COMMIT")
        kinds = listener.shapes(listener.until("A"))
        # From its own server, which may listen until the hub does, it comes
        # in front of the ReadyForQuery.
        assert kinds.endswith(("ZA", "CA")), kinds
        assert listener.heard == [("news", "early")]
        idle.heard.clear()


@pytest.mark.parametrize("count", [300, pytest.param(
    1000, marks=pytest.mark.core)])
def test_many_clients_hear_each_notification_once(
        count, start_pgsluice, postgres):
    channels, rounds = 10, 20
    pooler = start_pgsluice(default_pool_size=4, workers=2,
                            max_client_conn=count + 100)
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(Ear.open(postgres))
        crowd = [stack.enter_context(Ear.open(pooler))
                 for _ in range(count)]
        for number, client in enumerate(crowd):
            client.tell(f"LISTEN channel_{number % channels}")
        for client in crowd:
            assert isinstance(result(client.until_ready()), list)
        wait_until(lambda: sum(listeners(pooler).values()) == count,
                   "all listen")
        is_free(pooler)
        assert len(servers(pooler)) <= 4 + 1
        for at in range(rounds):
            for number in range(channels):
                direct.do(f"NOTIFY channel_{number}, '{at}'")
        for number, client in enumerate(crowd):
            while len(client.heard) < rounds:
                client.until("A")
            client.do("SELECT 1")
            assert client.heard == [
                (f"channel_{number % channels}", str(at))
                for at in range(rounds)]
        is_free(pooler)


def test_nothing_is_missed_or_doubled_while_a_client_starts_to_listen(
        start_pgsluice, postgres):
    """From the answer to its LISTEN on, whatever it does meanwhile."""
    pooler = start_pgsluice(default_pool_size=3, workers=2)
    stop = threading.Event()
    sent = []

    def notify():
        with Ear.open(postgres) as direct:
            while not stop.is_set():
                sent.append(len(sent))
                direct.do(f"NOTIFY numbers, '{sent[-1]}'")

    notifier = threading.Thread(target=notify)
    notifier.start()
    try:
        with contextlib.ExitStack() as stack:
            crowd = []
            for number in range(60):
                client = stack.enter_context(Ear.open(pooler))
                crowd.append(client)
                after = len(sent)
                client.do("LISTEN numbers")
                before = len(sent)
                if number % 3 == 0:
                    client.do("LISTEN others")
                if number % 3 == 1:
                    client.do("BEGIN")
                    client.do("SELECT 1")
                    client.do("COMMIT")
                client.between = (after, before)
            stop.set()
            notifier.join()
            with Ear.open(postgres) as direct:
                direct.do("NOTIFY numbers, 'end'")
            for client in crowd:
                while ("numbers", "end") not in client.heard:
                    client.until("A")
                client.settle()
                assert client.heard.pop() == ("numbers", "end")
                numbers = [int(text) for _, text in client.heard]
                assert numbers == list(range(len(sent) - len(numbers),
                                             len(sent)))
                # One is noted before it is sent.
                after, before = client.between
                assert after - 1 <= len(sent) - len(numbers) <= before + 1
    finally:
        stop.set()
        notifier.join()


def missed(client):
    """Waits for the NOTICE about it."""
    notice = client.until("N")[-1]
    assert "missed" in notice.fields["M"]
    assert notice.sqlstate == "01000"


def test_a_lost_listening_connection_is_made_anew_and_told_of(
        start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=2, workers=2)
    with Ear.open(pooler) as one, Ear.open(pooler) as two, \
            Ear.open(pooler) as deaf, Ear.open(postgres) as direct, \
            postgres.superuser() as boss:
        one.do("LISTEN news")
        two.do("LISTEN news")
        two.do("LISTEN more")
        is_free(pooler)
        two.do("BEGIN")
        was = hub_of(pooler)
        assert boss.value(f"SELECT pg_terminate_backend({was})") == "t"
        missed(one)
        assert hub_of(pooler) not in (None, was)
        direct.do("NOTIFY news, 'again'")
        direct.do("NOTIFY more")
        one.hear(("news", "again"))
        assert two.notices == []
        two.do("COMMIT")
        two.hear(("news", "again"), ("more", ""))
        if not two.notices:
            missed(two)
        assert len(one.notices) == len(two.notices) == 1
        deaf.settle()
        assert deaf.notices == []
        one.do("NOTIFY news, 'own'")
        one.hear(("news", "own"))


@pytest.mark.parametrize("command", ["RECONNECT app", "RECONNECT"])
def test_reconnect_is_for_the_listening_connection_too(
        command, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=2)
    with Ear.open(pooler) as listener, Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        is_free(pooler)
        was = hub_of(pooler)
        pooler.console(command)
        missed(listener)
        assert hub_of(pooler) not in (None, was)
        direct.do("NOTIFY news")
        listener.hear(("news", ""))


def test_pause_closes_the_listening_connection_until_resume(
        start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=2)
    with Ear.open(pooler) as listener, Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        is_free(pooler)
        pooler.console("PAUSE app")
        wait_until(lambda: servers(pooler) == [], "all servers closed")
        pooler.console("RESUME app")
        missed(listener)
        direct.do("NOTIFY news")
        listener.hear(("news", ""))


def test_whoever_leaves_is_forgotten_and_the_last_takes_the_hub_along(
        start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=2, workers=2)
    with Ear.open(postgres) as direct:
        with Ear.open(pooler) as stays:
            stays.do("LISTEN news")
            with Ear.open(pooler) as leaves, Ear.open(pooler) as torn:
                leaves.do("LISTEN news")
                torn.do("LISTEN more")
                leaves.send(wire.terminate())
            wait_until(lambda: listeners(pooler) == {"news": 1},
                       "forgotten")
            direct.do("NOTIFY news")
            stays.hear(("news", ""))
        wait_until(lambda: listeners(pooler) == {}, "all forgotten")
        wait_until(lambda: hub_of(pooler) is None, "the hub closed")


def test_one_that_leaves_in_the_middle_of_a_listen_leaves_nothing(
        start_pgsluice):
    pooler = start_pgsluice(default_pool_size=2)
    for _ in range(30):
        with Ear.open(pooler) as listener:
            listener.tell("LISTEN news")
    wait_until(lambda: listeners(pooler) == {}, "all forgotten")
    is_free(pooler)
    with Ear.open(pooler) as client:
        assert client.ask(LISTENING) == []


def test_one_that_does_not_read_is_told_what_it_has_missed(
        start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1)
    payload = "x" * 7900
    count = 2000
    with Ear.open(pooler) as slow, Ear.open(pooler) as quick, \
            Ear.open(postgres) as direct:
        slow.do("LISTEN news")
        quick.do("LISTEN news")
        for first in range(0, count, 100):
            direct.do("BEGIN")
            for number in range(first, first + 100):
                direct.do(f"NOTIFY news, '{number} {payload}'")
            direct.do("COMMIT")
            while len(quick.heard) < first + 100:
                quick.until("A")
        missed(slow)
        assert 0 < len(slow.heard) < count
        numbers = [int(text.split()[0]) for _, text in slow.heard]
        assert numbers == list(range(len(numbers)))
        slow.heard.clear()
        direct.do("NOTIFY news, 'again'")
        slow.hear(("news", "again"))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_client_that_is_pinned_for_another_reason_hears_once(
        when, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=2)
    with Ear.open(pooler) as listener, Ear.open(postgres) as direct:
        if when == "before":
            listener.do("LISTEN news")
        listener.do("CREATE TEMP TABLE mine (n int)")
        if when == "after":
            listener.do("LISTEN news")
        for number in range(3):
            direct.do(f"NOTIFY news, '{number}'")
            listener.hear(("news", str(number)))
            listener.do("NOTIFY news, 'own'")
            listener.hear(("news", "own"))
        pin, = pooler.console("SHOW PINS")
        assert pin["reason"] == "temp_table"
        assert listener.ask(LISTENING) == [["news"]]
        listener.do("UNLISTEN news")
        direct.do("NOTIFY news")
        listener.hear()
        listener.do("LISTEN news")
        listener.do("DROP TABLE mine")
        is_free(pooler)
        direct.do("NOTIFY news")
        listener.hear(("news", ""))


def is_pinned(pooler):
    return [row["reason"] for row in pooler.console("SHOW PINS")] == [
        "listen"]


def test_where_the_hub_cannot_be_had_a_client_is_pinned_for_as_long(
        start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1, max_db_connections=1)
    with Ear.open(pooler) as listener, Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        wait_until(lambda: is_pinned(pooler), "pinned")
        assert hub_of(pooler) is None
        direct.do("NOTIFY news, 'one'")
        listener.hear(("news", "one"))
        pooler.configure(max_db_connections=0)
        wait_until(lambda: listener.ask("SELECT 1") == [["1"]]
                   and pooler.console("SHOW PINS") == [], "no longer pinned")
        is_free(pooler)
        direct.do("NOTIFY news, 'two'")
        listener.hear(("news", "two"))
        assert listener.notices == []


def test_another_encoding_is_heard_right(start_pgsluice, postgres):
    """Its bytes would come in the hub's, so it is pinned."""
    pooler = start_pgsluice(default_pool_size=1)
    with Ear.open(pooler, client_encoding="LATIN1") as listener, \
            Ear.open(postgres) as direct:
        listener.tell("LISTEN news")
        listener.until_ready()
        wait_until(lambda: is_pinned(pooler), "pinned")
        direct.do("NOTIFY news, 'grün'")
        listener.tell("SELECT 1")
        got = [each.body[4:] for each in listener_answer(listener)]
        assert got == [b"news\0gr\xfcn\0"]


def listener_answer(listener):
    """All notifications up to and with the first."""
    found = []
    while not found:
        message = wire.Wire.next(listener)
        if message.kind == "A":
            found.append(message)
    return found


# Switched off

@pytest.mark.parametrize("end", ["UNLISTEN news", "UNLISTEN *",
                                 "DISCARD ALL"])
def test_without_listen_fanout_a_client_is_pinned(
        end, start_pgsluice, postgres):
    pooler = start_pgsluice(default_pool_size=1, listen_fanout=0)
    with Ear.open(pooler) as listener, Ear.open(pooler) as other, \
            Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        wait_until(lambda: is_pinned(pooler), "pinned")
        direct.do("NOTIFY news, 'one'")
        listener.hear(("news", "one"))
        listener.do("NOTIFY news, 'own'")
        assert listener.pids[-1] == listener.pid
        listener.hear(("news", "own"))
        assert hub_of(pooler) is None
        other.tell("SELECT 7")
        listener.do(end)
        assert result(other.until_ready()) == [["7"]]
        assert pooler.console("SHOW PINS") == []


def test_in_session_mode_the_server_itself_listens(start_pgsluice, postgres):
    pooler = start_pgsluice(pool_mode="session")
    with Ear.open(pooler) as listener, Ear.open(postgres) as direct:
        listener.do("LISTEN news")
        direct.do("NOTIFY news")
        listener.hear(("news", ""))
        assert hub_of(pooler) is None
        assert listeners(pooler) == {}
