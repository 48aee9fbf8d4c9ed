"""What is measured, and how.

A scenario is one question put to every contender. measure() starts that
contender, asks once and returns {metric: number}; `metrics` says what they
are. The first metric is the one a reader looks at, and the ratios to the
floor and to PgBouncer are of each.

Where CPU is counted, it is counted between two points at which clients are
logged in and servers are open, unless logging in is the question.
"""

import json
import re
import subprocess
import time
from contextlib import ExitStack

from rig import (MAX_CONNECTIONS, PORT_ANSWERER, PORT_CONTENDER, PORT_FAR,
                 PORT_POSTGRES, Setup, Trouble)


class Metric:
    def __init__(self, name, unit, ratios=True):
        self.name = name
        self.unit = unit
        self.ratios = ratios


class Load:
    """test/bench/load under way; see its head for the dialogue."""

    def __init__(self, rig, port, mode, *options, tls=False):
        self.child = subprocess.Popen(
            [str(rig.path("load")), *map(str, options), mode,
             rig.conninfo(port, tls)], text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, **rig.identity)

    def hear(self):
        line = self.child.stdout.readline()
        if not line:
            raise Trouble("load has ended; its last words are above")
        return json.loads(line)

    def arrived(self, allow_failures=False):
        heard = self.hear()
        if heard["failed"] and not allow_failures:
            raise Trouble(f"{heard['failed']} of {heard['clients']} "
                          "clients were not served")
        return heard

    def begin(self):
        self.child.stdin.write("\n")

    def phase(self):
        """Ends a phase, and begins the next."""
        self.child.stdin.write("\n")
        heard = self.hear()
        if heard["failed"]:
            raise Trouble(f"{heard['failed']} operations failed")
        return heard

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.child.stdin.close()
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


class Scenario:
    def __init__(self, name, setup=None, without=(), quick=True):
        self.name = name
        self.setup = setup or Setup()
        self.without = without      # names of contenders, or "floor"
        self.quick = quick

    def takes(self, contender):
        return contender.name not in self.without and \
            not contender.is_narrow

    def setup_for(self, contender):
        return self.setup

    def measure(self, rig, contender):
        setup = self.setup_for(contender)
        with ExitStack() as stack:
            server_port = rig.port(PORT_POSTGRES)
            if setup.far_ms:
                stack.enter_context(rig.far_postgres(setup.far_ms))
                server_port = rig.port(PORT_FAR)
            process = stack.enter_context(
                contender.start(rig, setup, server_port))
            return self.ask(rig, contender, process)

    def ask(self, rig, contender, process):
        raise NotImplementedError


# --- CPU of an operation --------------------------------------------------

class Pgbench(Scenario):
    """pgbench -S with 64 clients over 20 servers.

    The logins of pgbench are not what is asked. A run of one transaction a
    client goes before; what it cost and did is taken off the long run.
    """

    CLIENTS = 64
    NARROW = 20

    def __init__(self, protocol, tls):
        super().__init__(f"pgbench {protocol}{' tls' if tls else ''}",
                         Setup(tls=tls))
        self.protocol = protocol
        self.metrics = [Metric("cpu", "us/transaction"),
                        Metric("rate", "transactions/s")]

    def takes(self, contender):
        return not (contender.is_floor and self.setup.tls)

    def clients_of(self, contender):
        return self.NARROW if contender.is_narrow else self.CLIENTS

    def setup_for(self, contender):
        """PgBouncer 1.18 keeps prepared statements in session mode only,
        and there each client has its own server."""
        if self.protocol == "prepared" and contender.name == "pgbouncer":
            return Setup(pool_size=self.CLIENTS, pool_mode="session",
                         tls=self.setup.tls)
        return self.setup

    def run(self, rig, process, clients, *how_long):
        before, began = process.cpu_us(), time.monotonic()
        output = rig.run("pgbench", "-n", "-S", "-M", self.protocol,
                         "-c", clients, "-j", 2, *how_long,
                         rig.conninfo(process.port, self.setup.tls))
        spent = process.cpu_us() - before
        found = re.search(r"actually processed: (\d+)", output)
        failed = re.search(r"failed transactions: (\d+)", output)
        if not found or (failed and int(failed.group(1))):
            raise Trouble("pgbench says:\n" + output)
        return spent, int(found.group(1)), time.monotonic() - began

    def ask(self, rig, contender, process):
        clients = self.clients_of(contender)
        self.run(rig, process, clients, "-t", 1)
        login = self.run(rig, process, clients, "-t", 1)
        whole = self.run(rig, process, clients, "-T", rig.options.seconds)
        cpu, count, seconds = (a - b for a, b in zip(whole, login))
        return {"cpu": cpu / count, "rate": count / seconds}


class PgbenchConnect(Scenario):
    """pgbench -C -S: a connection for every transaction.

    No floor: the relay would open a server for each, and the server with
    canned answers does not know pgbench's queries.
    """

    def __init__(self, tls):
        super().__init__(f"pgbench -C{' tls' if tls else ''}",
                         Setup(tls=tls), ["floor"])
        self.metrics = [Metric("cpu", "us/connection"),
                        Metric("rate", "connections/s")]

    def ask(self, rig, contender, process):
        def run(*how_long):
            before, began = process.cpu_us(), time.monotonic()
            output = rig.run("pgbench", "-n", "-S", "-C", "-c", 10, "-j", 2,
                             *how_long,
                             rig.conninfo(process.port, self.setup.tls))
            found = re.search(r"actually processed: (\d+)", output)
            return (process.cpu_us() - before, int(found.group(1)),
                    time.monotonic() - began)

        run("-t", 2)
        cpu, count, seconds = run("-T", rig.options.seconds)
        return {"cpu": cpu / count, "rate": count / seconds}


class Driven(Scenario):
    """CPU of what a Load does between two of its phases."""

    load_options = ()
    mode = None

    def ask(self, rig, contender, process):
        with Load(rig, process.port, self.mode, *self.load_options,
                  tls=self.setup.tls) as load:
            load.arrived()
            load.begin()
            time.sleep(0.3)             # servers open, caches warm
            load.phase()
            before = process.cpu_us()
            time.sleep(rig.options.seconds)
            spent = process.cpu_us() - before
            heard = load.phase()
        count = heard["operations"]
        if count == 0:
            raise Trouble("no operation ended in time")
        return {"cpu": spent / count, "rate": count / heard["seconds"],
                "p50": heard["p50_us"], "p99": heard["p99_us"]}


class Connect(Driven):
    """One connection a transaction: connect, log in, query, leave.

    The floor is the server with canned answers, which asks for no password:
    what the kernel and OpenSSL take for coming and going.
    """

    mode = "churn"
    load_options = ("-n", 10)

    def __init__(self, name, tls=False, secret=None):
        super().__init__(f"connect {name}", Setup(tls=tls, secret=secret,
                                                 answerer=True))
        self.metrics = [Metric("cpu", "us/connection"),
                        Metric("rate", "connections/s"),
                        Metric("p50", "us", False),
                        Metric("p99", "us", False)]


class Clients(Driven):
    """So many clients which query all the time, over 20 servers."""

    mode = "busy"

    def __init__(self, count):
        # The floor needs as many servers as there are clients.
        super().__init__(f"clients {count}", None,
                         ["floor"] if count > MAX_CONNECTIONS // 2 else [])
        self.load_options = ("-n", count)
        self.metrics = [Metric("cpu", "us/query"),
                        Metric("rate", "queries/s"),
                        Metric("p50", "us"), Metric("p99", "us")]


class State(Driven):
    """What it costs to carry settings, by transaction.

    64 of them over 20 servers: first without any, then with settings on
    which they all agree, then with settings that differ for each of them, so
    that nearly every query finds a server with another's. Only for those
    that keep such settings.
    """

    COUNT = 64
    KINDS = {"none": 0, "alike": 1, "differ": COUNT}

    def __init__(self, name, mode):
        super().__init__(f"state {name}", without=["floor", "pgbouncer"])
        self.mode = mode
        self.metrics = [Metric(name, "us/transaction", False)
                        for name in self.KINDS]
        self.metrics += [Metric("differ_rate", "transactions/s", False)]

    def ask(self, rig, contender, process):
        found = {}
        for name, kinds in self.KINDS.items():
            self.load_options = ("-n", self.COUNT, "-s", kinds)
            asked = super().ask(rig, contender, process)
            found[name] = asked["cpu"]
        return {**found, "differ_rate": asked["rate"]}


# --- memory ---------------------------------------------------------------

class Idle(Scenario):
    """Memory of a client which has logged in, queried once, and waits.

    The relay is measured with fewer clients: each has a server of its own.
    """

    RELAYED = 400

    def __init__(self, tls):
        super().__init__(f"idle{' tls' if tls else ''}",
                         Setup(tls=tls, answerer=tls))
        self.metrics = [Metric("bytes", "bytes/client")]

    def count_for(self, rig, contender):
        if contender.is_floor and not self.setup.tls:
            return self.RELAYED
        return rig.options.clients

    def ask(self, rig, contender, process):
        count = self.count_for(rig, contender)
        with Load(rig, process.port, "hold", "-q", "-n", 1,
                  tls=self.setup.tls) as warm:
            warm.arrived()
        before = process.resident_bytes()
        with Load(rig, process.port, "hold", "-q", "-n", count,
                  tls=self.setup.tls) as load:
            load.arrived()
            grown = process.resident_bytes() - before
        return {"bytes": grown / count}


# --- crowds ---------------------------------------------------------------

class ColdBurst(Scenario):
    """40 clients at once, each for a server of its own, to an empty pool.

    Each opens a transaction and keeps it until all have one. Far: a server
    login takes 100 ms more, as with TLS and a network in between; then one
    sees whether logins run side by side, whatever the number of cores.
    """

    COUNT = 40

    def __init__(self, far_ms):
        super().__init__(f"burst {'far' if far_ms else 'near'}",
                         Setup(pool_size=self.COUNT, far_ms=far_ms))
        self.metrics = [Metric("ratio", "times one's", False),
                        Metric("one", "ms"), Metric("all", "ms")]

    def burst_ms(self, rig, contender, count):
        self.count = count
        return super().measure(rig, contender)

    def measure(self, rig, contender):
        one = self.burst_ms(rig, contender, 1)
        everyone = self.burst_ms(rig, contender, self.COUNT)
        return {"ratio": everyone / one, "one": one, "all": everyone}

    def ask(self, rig, contender, process):
        with Load(rig, process.port, "burst", "-n", self.count) as load:
            return load.arrived()["seconds"] * 1000


class Storm(Scenario):
    """Thousands connect at once while 50 clients go on querying.

    The storm has a price of its own, even if no pooler is in its way: it
    takes CPU from everybody. So in the floor's turn the 50 go through the
    relay, and the storm to a server that answers all by itself. Poolers
    have 20 servers, and Postgres refuses the 21st.
    """

    WATCHED = 50

    def __init__(self, pace_ms):
        how = "paced" if pace_ms else "saturated"
        super().__init__(f"storm {how}", Setup())
        self.pace_ms = pace_ms
        self.metrics = [
            Metric("worse", "times the p99 before", False),
            Metric("p99_before", "us"), Metric("p99_during", "us"),
            Metric("p50_before", "us"), Metric("p50_during", "us"),
            Metric("seconds", "s for all"),
            Metric("refused", "clients", False),
            Metric("over_limit", "servers beyond the pool's limit", False),
        ]

    def ask(self, rig, contender, process):
        with ExitStack() as stack:
            port = rig.port(PORT_CONTENDER)
            if contender.is_floor:
                port = rig.port(PORT_ANSWERER)
                stack.enter_context(rig.answerer(port))
            else:
                rig.limit_servers(self.setup.pool_size)
                stack.callback(rig.limit_servers, -1)
            over = rig.times_over_limit()
            found = self.brew(rig, process.port, port)
            found["over_limit"] = rig.times_over_limit() - over
            return found

    def brew(self, rig, watched_port, storm_port):
        with Load(rig, watched_port, "busy", "-n", self.WATCHED,
                  "-t", self.pace_ms) as watched:
            watched.arrived()
            watched.begin()
            time.sleep(0.3)
            watched.phase()
            time.sleep(rig.options.seconds)
            before = watched.phase()
            count = rig.options.clients
            with Load(rig, storm_port, "hold", "-q", "-n", count,
                      "-p", count) as storm:
                arrived = storm.arrived(allow_failures=True)
                during = watched.phase()
        return {"worse": during["p99_us"] / max(1, before["p99_us"]),
                "p99_before": before["p99_us"],
                "p99_during": during["p99_us"],
                "p50_before": before["p50_us"],
                "p50_during": during["p50_us"],
                "seconds": arrived["seconds"],
                "refused": arrived["failed"]}


def all_scenarios():
    scenarios = [Pgbench(protocol, tls) for tls in (False, True)
                 for protocol in ("simple", "extended", "prepared")]
    scenarios += [
        PgbenchConnect(tls=False),
        PgbenchConnect(tls=True),
        Connect("trust"),
        Connect("plain secret", secret="plain"),
        Connect("md5 secret", secret="md5"),
        Connect("scram secret", secret="scram"),
        Connect("trust tls", tls=True),
        Connect("scram secret tls", tls=True, secret="scram"),
        Idle(tls=False),
        Idle(tls=True),
    ]
    scenarios += [Clients(count) for count in (1, 10, 100, 1000, 10000)]
    scenarios += [State("query", "busy"), State("transaction", "work")]
    scenarios += [ColdBurst(far_ms=0), ColdBurst(far_ms=100),
                  Storm(pace_ms=0), Storm(pace_ms=20)]
    return scenarios
