"""Runs a program under the system call rules of a systemd unit, without
systemd: confine.py UNIT PROGRAM ARGUMENT ...

A call that SystemCallFilter does not permit kills the program, so that a
test cannot miss it. AF_NETLINK alone is refused and survived: getaddrinfo()
asks it for hints.
"""

import os
import resource
import socket
import subprocess
import sys

import seccomp

PROT_WRITE_EXEC = 2 | 4


def settings(unit):
    """Name -> the values it is given, in order."""
    found = {}
    with open(unit, encoding="utf-8") as file:
        for line in file:
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith(("#", ";")):
                found.setdefault(name, []).append(value)
    return found


def calls_of(group):
    """The system calls of a group such as @system-service."""
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", group],
        check=True, capture_output=True, text=True).stdout
    words = [line.strip() for line in shown.splitlines()[1:]]
    calls = set()
    for word in words:
        if word.startswith("@"):
            calls |= calls_of(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def permitted(unit):
    calls = set()
    for value in settings(unit)["SystemCallFilter"]:
        for word in value.removeprefix("~").split():
            named = calls_of(word) if word.startswith("@") else {word}
            calls = calls - named if value[0] == "~" else calls | named
    return calls


def confine(unit):
    families = [int(getattr(socket, name)) for name
                in settings(unit)["RestrictAddressFamilies"][0].split()]
    rules = seccomp.SyscallFilter(defaction=seccomp.KILL_PROCESS)
    for call in permitted(unit) - {"socket", "mmap", "mprotect"}:
        try:
            rules.add_rule(seccomp.ALLOW, call)
        except (RuntimeError, ValueError):
            pass                # of another architecture
    for family in families:
        rules.add_rule(seccomp.ALLOW, "socket",
                       seccomp.Arg(0, seccomp.EQ, family))
    rules.add_rule(seccomp.ERRNO(97), "socket",
                   seccomp.Arg(0, seccomp.EQ, int(socket.AF_NETLINK)))
    for call in ("mmap", "mprotect"):
        for both in (0, 2, 4):          # MemoryDenyWriteExecute
            rules.add_rule(seccomp.ALLOW, call, seccomp.Arg(
                2, seccomp.MASKED_EQ, PROT_WRITE_EXEC, both))
    rules.load()


def main():
    # as LimitNOFILE does; pgsluice may not do so itself
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    confine(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
