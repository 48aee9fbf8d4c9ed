"""Every test there is, one suite after another, and a tally at the end.

The last line printed is "N passed, N failed"; the exit status is 1 if any
failed. A suite that does not even start counts as one failure.

    lint        test/lint: each script is a test
    build       no warning from the compiler, anywhere
    unit        test/unit and the corpora of test/fuzz, by make check
    e2e         test/e2e by pytest, with the ./pgsluice of the top folder
    valgrind    the unit tests again, under it
    asan, tsan  the same built with sanitizers: all units, and those of e2e
                that are marked core
    dist        make distcheck: a release, built and tested elsewhere

With names of suites as arguments it runs those only.
"""

import glob
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as etree

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
PYTHON = "/usr/bin/python3"
SECONDS_A_TEST = 180
SECONDS_A_SUITE = 1200


def announce(line):
    print(line, flush=True)


def output_of(*command, **environment):
    """Exit status, and what it printed, both streams as one."""
    try:
        result = subprocess.run(
            command, cwd=TOP, env={**os.environ, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", check=False, timeout=SECONDS_A_SUITE)
        return result.returncode, result.stdout
    except subprocess.TimeoutExpired as expired:
        text = (expired.stdout or b"").decode(errors="replace")
        return 1, f"{text}\nnot done after {SECONDS_A_SUITE} s"


def make(*arguments, **environment):
    jobs = str(min(os.cpu_count() or 1, 8))
    return output_of("make", "-s", "-j", jobs, *arguments, **environment)


class Tally:
    """Counts; and says what failed when it does, and again at the end."""

    def __init__(self):
        self.passed = 0
        self.failures = []

    def add_pass(self, count=1):
        self.passed += count

    def add_failure(self, name, output=""):
        if output:
            announce(f"FAILED  {name}\n{output[-8000:]}".rstrip())
        self.failures.append(name)

    def add(self, name, is_good, output=""):
        if is_good:
            self.add_pass()
        else:
            self.add_failure(name, output)


# The suites

def lint(tally):
    for path in sorted(glob.glob(os.path.join(TOP, "test", "lint", "*"))):
        name = os.path.basename(path)
        if name != "run" and os.access(path, os.X_OK) and "." not in name \
                and os.path.isfile(path):
            status, output = output_of(path, PYTHONDONTWRITEBYTECODE="1")
            tally.add(f"lint: {name}", status == 0, output)


def build(tally):
    """All of it anew, test programs too: make says nothing but warnings."""
    make("mostlyclean")
    status, output = make("all")
    if status == 0:
        status, output = make("check", "TESTS=")
    is_quiet = status == 0 and "warning:" not in output
    tally.add("build: not one warning", is_quiet, output)


def unit(tally, name="unit", folder=".", *arguments):
    """make check, counting the tests within each program by what cmocka
    prints; a corpus is one test."""
    results = os.path.join(TOP, folder, "test", "*", "*_*.trs")
    for path in glob.glob(results):
        os.remove(path)
    failures = len(tally.failures)
    status, output = make("-C", folder, "check", *arguments)
    count = 0
    for path in sorted(glob.glob(results)):
        program = f"{name}: {os.path.basename(path)[:-len('.trs')]}"
        with open(path, encoding="utf-8") as file:
            is_good = ":test-result: PASS" in file.read()
        with open(path[:-len("trs")] + "log", encoding="utf-8",
                  errors="replace") as file:
            log = file.read()
        good = len(re.findall(r"^\[ +OK \]", log, re.MULTILINE))
        bad = set(re.findall(r"^\[  FAILED  \] ([a-z]\w*)$", log,
                             re.MULTILINE))
        count += 1
        tally.add_pass(good or is_good)
        if not is_good:
            for test in sorted(bad) or ["(ended early)"]:
                tally.add_failure(f"{program}: {test}", log)
    if count == 0 or (status != 0 and failures == len(tally.failures)):
        tally.add_failure(f"{name}: make check", output)


def pytest(tally, name, program, *arguments):
    """pytest in the foreground, as its dots are all there is to see for a
    while; two tests a processor, as they mostly wait."""
    report = os.path.join(TOP, "build", f"{name}.xml")
    if os.path.exists(report):
        os.remove(report)
    os.makedirs(os.path.dirname(report), exist_ok=True)
    subprocess.run(
        [PYTHON, "-B", "-m", "pytest", "-q", "--color=no", "-p",
         "no:cacheprovider", "-n", str(2 * (os.cpu_count() or 1)),
         "-o", f"timeout={SECONDS_A_TEST}",
         "--tb=short", f"--junitxml={report}", *arguments, "test/e2e"],
        cwd=TOP, check=False,
        env={**os.environ, "PGSLUICE": os.path.join(TOP, program)})
    if not os.path.exists(report):
        tally.add_failure(f"{name}: pytest did not run")
        return
    # A test that fails, and whose fixtures then do, is in there twice.
    verdicts = {}
    for case in etree.parse(report).iter("testcase"):
        test = f"{name}: {case.get('classname')}::{case.get('name')}"
        verdict = ("failed" if case.find("failure") is not None
                   or case.find("error") is not None else
                   "skipped" if case.find("skipped") is not None else
                   "passed")
        if verdicts.get(test) != "failed":
            verdicts[test] = verdict
    for test, verdict in verdicts.items():
        if verdict == "failed":
            tally.add_failure(test)
        elif verdict == "skipped":
            announce(f"skipped {test}")
        else:
            tally.add_pass()


def e2e(tally):
    status, output = make("all", "test/chaos/checker")
    if status != 0:
        tally.add_failure("e2e: build", output)
        return
    pytest(tally, "e2e", "pgsluice")


def valgrind(tally):
    """A test that cannot be under it looks at UNDER_VALGRIND and skips."""
    os.environ["UNDER_VALGRIND"] = "1"
    unit(tally, "valgrind", ".", "TESTS=$(UNIT)",
         "LOG_FLAGS=valgrind -q --error-exitcode=9 --leak-check=full "
         "--show-leak-kinds=definite --errors-for-leak-kinds=definite")


def sanitized(tally, name):
    status, output = make(name)
    if status != 0:
        tally.add_failure(f"{name}: build", output)
        return
    unit(tally, f"{name} unit", f"build/{name}")
    pytest(tally, f"{name}-e2e", f"build/{name}/pgsluice", "-m", "core")


def asan(tally):
    sanitized(tally, "asan")


def tsan(tally):
    sanitized(tally, "tsan")


def dist(tally):
    status, output = make("distcheck")
    tally.add("dist: make distcheck", status == 0, output)


SUITES = [lint, build, unit, valgrind, e2e, asan, tsan, dist]


def main():
    wanted = sys.argv[1:] or [suite.__name__ for suite in SUITES]
    tally = Tally()
    for suite in SUITES:
        if suite.__name__ not in wanted:
            continue
        began = time.monotonic()
        passed, failed = tally.passed, len(tally.failures)
        announce(f"-- {suite.__name__}")
        suite(tally)
        announce(f"-- {suite.__name__}: {tally.passed - passed} passed, "
                 f"{len(tally.failures) - failed} failed, "
                 f"{time.monotonic() - began:.0f} s")
    for name in tally.failures:
        announce(f"FAILED  {name}")
    announce(f"{tally.passed} passed, {len(tally.failures)} failed")
    sys.exit(1 if tally.failures else 0)


main()
