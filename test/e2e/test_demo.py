"""What ./bootstrap demo shows is what it says."""

import os
import re
import subprocess
import sys

from pgsluice import TOP


def test_the_demo_shows_2000_clients_on_10_servers_and_ends():
    demo = subprocess.run(
        [sys.executable, "-B", os.path.join(TOP, "test", "e2e", "demo.py")],
        env={**os.environ, "DEMO_SECONDS": "0"}, capture_output=True,
        text=True, timeout=120, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "export DATABASE_URL='postgres://" in demo.stdout
    head, row = re.search(r"^ +(database .*)\n(.*)$", demo.stdout,
                          re.MULTILINE).groups()
    pool = dict(zip(head.split(), row.split()))
    assert int(pool["cl_active"]) + int(pool["cl_waiting"]) == 2000
    assert int(pool["sv_active"]) + int(pool["sv_idle"]) <= 10
    counted = re.search(r"Postgres counts (\d+) connections", demo.stdout)
    assert 1 <= int(counted[1]) <= 10
