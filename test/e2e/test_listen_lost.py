"""The listening connection is lost while a client is in a transaction: what it
hears after that is in order, each once, with the NOTICE where something may
be missing."""

from test_listen import Ear, hub_of
from wire import query

ROUNDS = 10


class Ordered(Ear):
    """One that hears a NOTICE, too, among the rest."""

    def next(self):
        got = super().next()
        if got.kind == "N":
            self.heard.append(("", "NOTICE"))
        return got

    def hear(self, *expected):
        while len(self.heard) < len(expected):
            self.until("AN")
        super().hear(*expected)


def lose(pooler, boss):
    was = hub_of(pooler)
    assert boss.value(f"SELECT pg_terminate_backend({was})") == "t"


def test_the_notice_stands_where_something_may_be_missing(
        start_pgsluice, postgres):
    # One worker: what one of its clients has heard is there for the other.
    pooler = start_pgsluice(workers=1)
    with Ordered.open(pooler) as busy, Ordered.open(pooler) as idle, \
            Ear.open(postgres) as direct, postgres.superuser() as boss:
        for client in busy, idle:
            client.do("LISTEN news")
        for _ in range(ROUNDS):
            busy.do("BEGIN")
            direct.do("NOTIFY news, 'before'")
            idle.hear(("news", "before"))
            lose(pooler, boss)
            idle.hear(("", "NOTICE"))
            direct.do("NOTIFY news, 'after'")
            idle.hear(("news", "after"))
            assert busy.heard == []
            busy.do("COMMIT")
            busy.hear(("news", "before"), ("", "NOTICE"), ("news", "after"))


def test_what_a_client_says_itself_after_a_loss_comes_once(
        start_pgsluice, postgres):
    pooler = start_pgsluice(workers=1)
    with Ordered.open(pooler) as busy, Ordered.open(pooler) as idle, \
            postgres.superuser() as boss:
        for client in busy, idle:
            client.do("LISTEN news")
        for _ in range(ROUNDS):
            busy.do("BEGIN")
            busy.do("NOTIFY news, 'own'")
            lose(pooler, boss)
            idle.hear(("", "NOTICE"))
            busy.do("COMMIT")
            idle.hear(("news", "own"))
            busy.hear(("news", "own"), ("", "NOTICE"))


def test_each_loss_has_its_notice_where_it_was(start_pgsluice, postgres):
    pooler = start_pgsluice(workers=1)
    with Ordered.open(pooler) as busy, Ordered.open(pooler) as idle, \
            Ear.open(postgres) as direct, postgres.superuser() as boss:
        for client in busy, idle:
            client.do("LISTEN news")
        busy.do("BEGIN")
        expected = []
        for number in range(3):
            direct.do(f"NOTIFY news, '{number}'")
            idle.hear(("news", str(number)))
            lose(pooler, boss)
            idle.hear(("", "NOTICE"))
            expected += [("news", str(number)), ("", "NOTICE")]
        assert busy.heard == []
        busy.do("COMMIT")
        busy.hear(*expected)


def test_nor_does_it_come_twice_if_it_has_waited_since_before_the_loss(
        start_pgsluice, postgres):
    """For longer than a copy is awaited that may have been lost."""
    pooler = start_pgsluice(workers=1)
    with Ordered.open(pooler) as busy, Ordered.open(pooler) as idle, \
            postgres.superuser() as boss:
        for client in busy, idle:
            client.do("LISTEN news")
        # In the next transaction before the copy can be told.
        busy.send(query("NOTIFY news, 'own'"), query("BEGIN"),
                  query("SELECT pg_sleep(1.5)"))
        idle.hear(("news", "own"))
        lose(pooler, boss)
        idle.hear(("", "NOTICE"))
        for _ in range(3):
            busy.until_ready()
        busy.do("COMMIT")
        busy.hear(("news", "own"), ("", "NOTICE"))
