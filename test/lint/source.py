"""What the lint scripts share: finding the C files, and reading them."""

import os
import re
import sys

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))

# Which folder may include which: those of a lower number.
RANKS = {
    "base": 0,
    "stat": 1, "wire": 1, "net": 1, "conf": 1,
    "auth": 2, "pool": 2,
    "migrate": 3,
    "session": 4,
    "admin": 5,
    "main": 6,
}

HIDDEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'
                    r"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


def files(*folders, endings=(".c", ".h", ".def")):
    """Paths relative to the top, sorted."""
    found = []
    for folder in folders:
        for where, _, names in os.walk(os.path.join(TOP, folder)):
            found += (os.path.relpath(os.path.join(where, name), TOP)
                      for name in names if name.endswith(tuple(endings)))
    return sorted(found)


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def code(path):
    """The text with comments and literals blanked, line for line."""
    return HIDDEN.sub(
        lambda hidden: re.sub(r"[^\n]", " ", hidden.group()), read(path))


def layer(path):
    """The folder of src/ or include/ that a file is in."""
    return path.split("/")[1]


def finish(complaints):
    """Prints what was found, and ends the script."""
    for complaint in complaints:
        print(complaint)
    sys.exit(1 if complaints else 0)
