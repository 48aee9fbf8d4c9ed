"""Function instances of the example app, on machines that freeze and die.

A machine is a process (node/functions.mjs) with a number of instances in it,
each of which is a thread that has loaded the app for itself, with a Prisma
Client and a pool of its own: as many processes would need twice the memory.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess

from road_tools import Road

HERE = os.path.dirname(os.path.abspath(__file__))
PIDFD_GETFD = 438       # of every architecture
TCP_REPAIR = 19         # linux/tcp.h: what is closed now is just forgotten
MACHINES = 15
INSTANCES = 20          # on each

# The functions and all that they need in one file, which is loaded sooner. What
# is used with SQLite is not needed; CommonJS in it wants `require`.
ENTRY = """\
export { prisma } from './src/db.js'
export * as messages from './api/messages.js'
"""
REQUIRE = "import { createRequire } from 'node:module';" \
    "const require = createRequire(import.meta.url);"


def bundle(road: Road):
    with open(road.path("functions.ts"), "w", encoding="utf-8") as file:
        file.write(ENTRY)
    road.run("esbuild", "functions.ts", "--bundle", "--minify",
             "--platform=node", "--format=esm", f"--banner:js={REQUIRE}",
             "--external:@prisma/adapter-better-sqlite3",
             "--external:pg-native", "--outfile=functions.mjs")
    return road.path("functions.mjs")


def sockets(pid):
    """A process's TCP connections, as ours: they are still its own."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    pidfd = os.pidfd_open(pid)
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            if not os.readlink(f"{folder}/{name}").startswith("socket:"):
                continue
            fd = call(PIDFD_GETFD, pidfd, int(name), 0)
            if fd < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            found = socket.socket(fileno=fd)
            if found.family in (socket.AF_INET, socket.AF_INET6):
                yield found
            else:
                found.close()
    finally:
        os.close(pidfd)


class Machine:
    def __init__(self, path, number, environment):
        self.is_gone = False
        with open(f"{path}.{number}.stderr", "wb") as errors:
            self.process = subprocess.Popen(
                ["node", os.path.join(HERE, "node", "functions.mjs"), path,
                 str(number * INSTANCES), str(INSTANCES)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=environment, text=True)

    def tell(self, what, **more):
        self.process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        assert line, f"a machine ended with {self.process.poll()}"
        answer = json.loads(line)
        assert "failed" not in answer, answer["failed"]
        return answer

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def vanish(self):
        """Is gone at once, and says so to none of its peers: no FIN, no
        RST, as if its host had lost its power. Only root may do that to a
        connection; for anyone else it is frozen for good."""
        self.freeze()
        connections = []
        try:
            for connection in sockets(self.process.pid):
                connections.append(connection)
                connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except PermissionError:
            return
        self.kill()
        for connection in connections:
            connection.close()

    def kill(self):
        self.is_gone = True
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Fleet:
    """All of them; ends with the with block."""

    def __init__(self, road, url, session, conversation):
        path = bundle(road)
        environment = {**road.environment(), "DATABASE_URL": url,
                       "SESSION": session, "CONVERSATION": str(conversation),
                       # The processors may be busy with other things.
                       "DATABASE_PATIENCE_MS": "600000",
                       # or @vercel/functions does nothing
                       "VERCEL_URL": "app.example", "VERCEL_REGION": "fra1"}
        self.machines = [Machine(path, number, environment)
                         for number in range(MACHINES)]
        self.times = []
        self.errors = []
        self.stored = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for machine in self.machines:
            if not machine.is_gone:
                machine.kill()

    def start(self):
        self.tell(self.machines, "start")

    @staticmethod
    def tell(machines, what, **more):
        for machine in machines:
            machine.tell(what, **more)
        for machine in machines:
            machine.answer()

    def begin(self, machines, requests):
        for machine in machines:
            machine.tell("burst", requests=requests)

    def finish(self, machines):
        for machine in machines:
            answer = machine.answer()
            self.times += answer["times"]
            self.errors += answer["errors"]
            self.stored += answer["stored"]

    def burst(self, machines, requests):
        self.begin(machines, requests)
        self.finish(machines)

    def percentile(self, share):
        times = sorted(self.times)
        return round(times[min(int(len(times) * share), len(times) - 1)])
