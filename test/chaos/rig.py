"""Postgres, pgsluice and the checker put together, for soak and for the
tests."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))

# pylint: disable=wrong-import-position
import pgsluice as servers  # noqa: E402

CHECKER = os.environ.get("CHECKER", os.path.join(HERE, "checker"))
USERS = 3
DATABASES = 2


class OpenPostgres(servers.Postgres):
    """Lets everybody in: the checker plays users without passwords."""

    def _create(self):
        super()._create()
        servers.write(self.path("data/pg_hba.conf"),
                      ["local all all trust", "host all all all trust"])


def pooler_settings(cluster, **settings):
    """Few servers for many clients: 4 for each user of each database. The
    cache of statements is smaller than what is in use."""
    return {
        "databases": {"*": f"host=127.0.0.1 port={cluster.port}"},
        "secrets": {**{f"u{i}": "" for i in range(USERS)},
                    "admin": servers.secret("admin")},
        "auth_type": "trust",
        "default_pool_size": 4,
        "max_prepared_statements": 20,
        **settings,
    }


def checker_command(port, cluster, *options):
    return [CHECKER, "--setup", "--port", str(port),
            "--direct-host", cluster.folder,
            "--direct-port", str(cluster.port),
            "--users", str(USERS), "--databases", str(DATABASES), *options]


def run_checker(port, cluster, *options):
    """Its exit status and all that it said."""
    result = subprocess.run(
        checker_command(port, cluster, *options), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    return result.returncode, result.stdout
