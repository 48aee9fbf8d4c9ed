"""./bootstrap demo: a throw-away Postgres, pgsluice before it, and a crowd.

Stays until Ctrl-C (or SIGTERM) unless DEMO_SECONDS says how long; 0 is not at
all, once everything has been shown.
"""

import os
import signal
import subprocess
import sys
import time

import pgsluice as servers

CLIENTS = 2000
SERVERS = 10
SHOWN = ("database", "user", "cl_active", "cl_waiting", "sv_active",
         "sv_idle", "maxwait", "maxwait_us", "pool_mode")

HOW = """
  pgsluice stands before a Postgres of its own: {servers} server connections.

  export DATABASE_URL='{url}'

  psql "$DATABASE_URL" -c 'SELECT now()'

  The console:
  psql '{console}' -c 'SHOW POOLS'

  From Node.js (npm install pg):
  const {{ Client }} = require('pg')
  const db = new Client(process.env.DATABASE_URL)
  db.connect().then(() => db.query('SELECT now()'))
    .then(({{ rows }}) => console.log(rows)).finally(() => db.end())
"""


def say(line=""):
    print(line, flush=True)


def show_pools(pooler):
    """As psql would: a head, a line, the rows."""
    rows = [row for row in pooler.console("SHOW POOLS")
            if row["database"] == "app"]
    names = [name for name in SHOWN if rows and name in rows[0]]
    widths = [max(len(name), *(len(row[name] or "") for row in rows))
              for name in names]
    for line in [dict(zip(names, names)), *rows]:
        say("  " + "  ".join((line[name] or "").rjust(width)
                             for name, width in zip(names, widths)))


def line_of(crowd, word):
    line = crowd.stdout.readline()
    if not line.startswith(word):
        raise SystemExit(f"the crowd failed: {line}")
    return line.split()[1]


def show_crowd(pooler):
    say(f"  {CLIENTS:,} clients, each logs in and asks something:")
    began = time.monotonic()
    crowd = subprocess.Popen(
        [sys.executable, "-B",
         os.path.join(os.path.dirname(__file__), "crowd.py"),
         pooler.url(), str(CLIENTS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=servers.die_with_parent)
    try:
        line_of(crowd, "connected")
        say(f"  all connected after {time.monotonic() - began:.1f} s")
        line_of(crowd, "answered")
        say(f"  all answered after {time.monotonic() - began:.1f} s; "
            "SHOW POOLS while they go on:\n")
        line_of(crowd, "ok")
        show_pools(pooler)
        queries = int(line_of(crowd, "ok"))
        pids = pooler.postgres.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")
        say(f"\n  {queries:,} queries answered so far; "
            f"Postgres counts {pids[0][0]} connections.\n")
    finally:
        crowd.stdin.close()
        if crowd.wait(60) != 0:
            raise SystemExit("the crowd failed")


def stay():
    limit = os.environ.get("DEMO_SECONDS")
    if limit == "0":
        return
    say("  It stays for " + (f"{limit} s." if limit else "you until Ctrl-C."))
    if limit:
        time.sleep(float(limit))
    else:
        signal.pause()


def end(*_):
    raise KeyboardInterrupt


def main():
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    postgres = servers.Postgres(max_connections=SERVERS + 10)
    # With databases that are yet to be made, as `prisma migrate dev` does.
    where = f"host=127.0.0.1 port={postgres.port}"
    pooler = servers.Pgsluice(
        postgres, default_pool_size=SERVERS, max_client_conn=CLIENTS * 2,
        databases={"app": where, "*": where})
    try:
        postgres.start()
        postgres.rows("ALTER ROLE app CREATEDB;"
                      " ALTER DATABASE app OWNER TO app")
        pooler.start()
        say(HOW.format(url=pooler.url(), servers=SERVERS,
                       console=pooler.url("pgsluice", "admin")))
        show_crowd(pooler)
        stay()
    except KeyboardInterrupt:
        say()
    finally:
        pooler.stop()
        postgres.stop()
        pooler.clean()
        postgres.clean()


main()
