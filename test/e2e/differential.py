"""The same dialogues with Postgres directly and through pgsluice.

A dialogue (they are in dialogues*.py) is a function that sends protocol
messages and says how far to read in between; what came back is the result.
play() runs one over a connection and returns every message, with what must
differ masked out: process ids and cancel keys, and where exactly a
ParameterStatus comes, which the protocol leaves open (here they come in order
of name before the ReadyForQuery, as in Postgres). Two runs of one dialogue
must give equal lists.

    @dialogue()
    def a_select(talk):
        talk.send(query("SELECT 1"))
        talk.ready()

talk.ready() reads up to ReadyForQuery. Where that leaves no transaction open,
somebody else may be let at the pool (a Neighbour), who gets the server that
was just used, leaves statements under the same names and settings of its own
behind, and may keep it, so that the dialogue goes on with another.

Dialogues that break the protocol are loose: what pgsluice refuses by itself
has its own words, so errors are compared by severity and SQLSTATE. Some of
them are silent too: there Postgres closes the connection without a word and
pgsluice may say why.
"""

import wire
from wire import bind, close, execute, parse, sync

DIALOGUES = {}              # by name; dialogues*.py fill it

# Made once before all, emptied before each run.
TABLES = """
    CREATE TABLE IF NOT EXISTS diff_t (a int PRIMARY KEY, b text);
    CREATE TABLE IF NOT EXISTS diff_copy (a int, b text);
    GRANT ALL ON diff_t, diff_copy TO PUBLIC;
"""
EMPTY = "TRUNCATE diff_t, diff_copy"

INT4, TEXT = 23, 25         # type OIDs


class Dialogue:
    def __init__(self, run, loose, silent, heavy, parameters):
        self.run = run
        self.loose = loose or silent    # errors by severity and code only
        self.silent = silent            # its last errors do not count
        self.parameters = parameters    # of the startup packet
        self.heavy = heavy              # not byte by byte


def dialogue(loose=False, silent=False, heavy=False, **parameters):
    def add(run):
        DIALOGUES[run.__name__] = Dialogue(run, loose, silent, heavy,
                                           parameters)
        return run
    return add


class Slow(wire.Wire):
    """Writes and reads one byte at a time."""

    def send(self, *messages):
        for byte in b"".join(messages):
            self.sock.sendall(bytes((byte,)))

    def receive(self, length):
        while len(self.got) < length:
            try:
                data = self.sock.recv(1)
            except ConnectionResetError as error:
                raise wire.Closed(str(error)) from error
            if not data:
                raise wire.Closed("")
            self.got += data
        return super().receive(length)


class Talk:
    """What a dialogue does; keeps what came back."""

    def __init__(self, link, between):
        self.link = link
        self.between = between
        self.got = []

    def send(self, *messages):
        self.link.send(*messages)

    def until(self, kinds):
        self.got += self.link.until(kinds)

    def ready(self, count=1):
        for _ in range(count):
            self.until("Z")
        if self.got[-1].status == "I":
            self.between()

    def closed(self):
        """Up to the end of the connection."""
        self.got += self.link.until_closed()
        self.got.append("closed")


class Neighbour:
    """Another client of the same pool, between the others' transactions."""

    SETTINGS = ("application_name TO 'the neighbour'",
                "TimeZone TO 'Asia/Tokyo'", "DateStyle TO 'SQL, DMY'")

    def __init__(self, connect, keeps):
        self.keeps = keeps          # the server, until called again
        self.links = [connect() for _ in range(2)]
        self.busy = None

    def __call__(self):
        link = self.links.pop(0)
        self.links.append(link)
        for setting in self.SETTINGS:
            link.rows(f"SET {setting}")
        link.send(close("S", "s1"), close("S", "s2"),
                  parse("s1", "SELECT 'not yours, s1'"),
                  parse("s2", "SELECT 'not yours, s2', $1::int", [INT4]),
                  parse("", "SELECT 'not yours, unnamed', $1::int", [INT4]),
                  bind(values=["1"]), execute(), sync())
        link.until_ready()
        if not self.keeps:
            return
        link.rows("BEGIN")
        link.rows("SELECT 1")
        if self.busy is not None:
            self.busy.rows("COMMIT")
        self.busy = link

    def close(self):
        for link in self.links:
            link.close()


# Running and comparing

def masked(got, loose):
    """What of a message has to be the same."""
    if not isinstance(got, wire.Message):
        return got
    if got.kind == "A":
        return "A", got.body[4:]
    if got.kind == "E" and loose:
        return "E", got.fields.get("V"), got.sqlstate
    return got.kind, got.body


def parameters_last(messages):
    """Each ParameterStatus moved to the ReadyForQuery that follows it."""
    moved, result = [], []
    for got in messages:
        kind = got.kind if isinstance(got, wire.Message) else "closed"
        if kind == "S":
            moved.append(got)
            continue
        if kind in ("Z", "closed"):
            result += sorted(moved, key=lambda each: each.body)
            moved = []
        result.append(got)
    return result + moved


def login(link, parameters):
    """All that came in answer, in an order of its own."""
    got = []
    steps = wire.login_steps("app", "app-secret", "app", **parameters)
    link.send(next(steps))
    try:
        while True:
            answer = link.next()
            if answer.kind in "SZN":
                got.append((answer.kind, answer.body))
            link.send(steps.send(answer))
    except StopIteration:
        return sorted(got)


def play(dialogue_, connect, between=lambda: None):
    """The whole dialogue over a new connection from connect()."""
    link = connect()
    try:
        result = login(link, dialogue_.parameters)
        talk = Talk(link, between)
        dialogue_.run(talk)
        result += [masked(got, dialogue_.loose)
                   for got in parameters_last(talk.got)]
        if result[-1] != "closed":
            link.send(wire.terminate())
            assert link.until_closed() == []
        while dialogue_.silent and result[-2][0] == "E":
            del result[-2]
        return result
    finally:
        link.close()


def difference(direct, through):
    """What a reader wants to see first; None if there is none."""
    for at, (left, right) in enumerate(zip(direct, through)):
        if left != right:
            return (f"message {at}: direct {left!r:.600}, "
                    f"through pgsluice {right!r:.600}")
    if len(direct) != len(through):
        return (f"{len(direct)} messages directly, {len(through)} through "
                f"pgsluice; the rest is "
                f"{(direct + through)[min(len(direct), len(through)):]!r:.600}"
                )
    return None
