"""Function instances of the example app, on machines that freeze and die.

A machine is a process (node/functions.mjs) with a number of instances in it.
Each of these has loaded the app for itself, with a Prisma Client and a pool
of its own; what they share is the code of packages. Real ones are a process
each: that many would need more memory than a test should take.
"""

import json
import os
import signal
import subprocess

from road_tools import Road

HERE = os.path.dirname(os.path.abspath(__file__))
MACHINES = 15
INSTANCES = 20          # on each

# The functions in one file, to be loaded once for each instance.
ENTRY = """\
export { prisma } from './src/db.js'
export * as messages from './api/messages.js'
"""


def bundle(road: Road):
    with open(road.path("functions.ts"), "w", encoding="utf-8") as file:
        file.write(ENTRY)
    road.run("esbuild", "functions.ts", "--bundle", "--platform=node",
             "--format=esm", "--packages=external",
             "--outfile=functions.mjs")
    return road.path("functions.mjs")


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
