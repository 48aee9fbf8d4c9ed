"""How a client's work with a piece of session state ends.

Each ending is played twice: on a connection to Postgres itself, where what
is seen is noted, and through pgsluice, where the same must be seen.

    Story       a session, what is done with it, what it sees
    ENDINGS     functions of a story

Where Postgres has no such ending (pgsluice's timeouts), the direct story
has what comes closest: a cancel, or no more than what went before.
"""

import wire
from contract_tools import cancel, told
from state_tools import Crowd, Session, Sleep, assert_same_view


class Story:
    """The direct one, that others are compared with."""

    def __init__(self, kind, way, server, superuser):
        self.kind = kind
        self.way = way
        self.server = server
        self.superuser = superuser
        self.session = Session.open(server, kind.user, **way.startup)
        self.session.is_extended = kind.is_extended
        kind.prepare(self.session)
        self.seen = []
        self.is_there = True            # the session

    def between(self):
        """Outside of a transaction: whoever wants may have the server."""

    def set(self):
        self.way.walk(self.session)

    def look(self):
        # first the one that says less when it finds something wrong
        self.seen.append((self.kind.look(self.session),
                          self.session.own_view()))

    def fails(self, sqlstate):
        """What was asked last ends so."""
        told(self.session.until_ready(), "ERROR", sqlstate)

    def sleep(self):
        """A query that does not end by itself; returns when it runs."""
        query = Sleep(self.superuser)
        self.session.tell(query.sql)
        query.wait_running()

    def cancel(self):
        self.sleep()
        cancel(self.server, self.session.pid, self.session.key)
        self.fails("57014")

    def query_timeout(self):
        self.session.do("BEGIN")
        self.cancel()

    def idle_transaction_timeout(self):
        pass

    def ends(self):
        if self.is_there:
            self.session.leave()
        self.is_there = False

    def close(self):
        self.session.close()


class ThroughPgsluice(Story):
    """One that is compared; others use the same servers in between."""

    def __init__(self, kind, way, pooler, superuser, expected):
        super().__init__(kind, way, pooler, superuser)
        self.expected = iter(expected)
        # a client that keeps the only server leaves none to the others
        self.crowd = None
        servers = pooler.settings["default_pool_size"]
        if servers > 1 or not kind.pins:
            self.crowd = Crowd(pooler, servers, kind.user)

    def between(self):
        if self.crowd is not None:
            self.crowd()

    def look(self):
        looked, view = next(self.expected)
        self.kind.check(self.session, looked)
        assert_same_view(view, self.session.own_view(),
                         f"the session with {self.kind}")

    def query_timeout(self):
        self.server.configure(query_timeout="100ms")
        self.session.do("BEGIN")
        self.session.tell("SELECT pg_sleep(600)")
        self.fails("57014")
        self.server.configure(query_timeout=None)

    def idle_transaction_timeout(self):
        self.rest()
        self.server.configure(idle_transaction_timeout="50ms")
        self.session.send(wire.query("BEGIN"), wire.query("SELECT 1"))
        told(self.session.until_closed(), "FATAL", "25P03")
        self.is_there = False
        self.server.configure(idle_transaction_timeout=None)

    def rest(self):
        """The others let go of what they hold."""
        if self.crowd is not None:
            self.crowd.rest()

    def others_go(self):
        if self.crowd is not None:
            self.crowd.close()

    def close(self):
        super().close()
        self.others_go()


# Endings after which the session is still there

def commit(story):
    story.between()
    story.session.do("BEGIN")
    story.set()
    story.look()
    story.session.do("COMMIT")
    for _ in range(2):
        story.between()
        story.look()


def rollback(story):
    story.between()
    story.session.do("BEGIN")
    story.set()
    story.session.do("ROLLBACK")
    story.between()
    story.look()


def interrupted(story, interrupt):
    """The state is there, and then a transaction begins and fails."""
    story.set()
    story.between()
    story.look()
    interrupt()
    story.session.do("ROLLBACK")
    story.between()
    story.look()


def cancelled(story):
    def interrupt():
        story.session.do("BEGIN")
        story.cancel()

    interrupted(story, interrupt)


def query_timeout(story):
    interrupted(story, story.query_timeout)


def statement_timeout(story):
    def interrupt():
        story.session.do("BEGIN")
        story.session.do("SET LOCAL statement_timeout = '20ms'")
        story.session.tell("SELECT pg_sleep(600)")
        story.fails("57014")

    interrupted(story, interrupt)


# Endings of the session

def disconnect(story):
    story.set()
    story.between()
    story.look()
    story.ends()


def reset_by_peer(story):
    """In the middle of a transaction."""
    story.set()
    story.between()
    story.look()
    story.session.do("BEGIN")
    story.session.do("SELECT 1")
    story.session.reset()
    story.is_there = False


def idle_transaction_timeout(story):
    story.set()
    story.between()
    story.look()
    story.idle_transaction_timeout()


ENDINGS = (commit, rollback, cancelled, query_timeout, statement_timeout,
           disconnect, reset_by_peer, idle_transaction_timeout)
