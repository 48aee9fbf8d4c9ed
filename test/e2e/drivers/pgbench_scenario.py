#!/usr/bin/python3
"""pgbench in its three protocols; afterwards the books must balance."""

import re
import subprocess
import tempfile

import psycopg2

from scenario import CLIENTS, ROUNDS, URL, run, same, step

PROTOCOLS = ("simple", "extended", "prepared")

# Two statements under way before the first answer is read; pgbench has no
# pipelines in its simple protocol.
PIPELINE = r"""
\set aid random(1, 100000)
\startpipeline
update pgbench_accounts set abalance = abalance + 1 where aid = :aid;
update pgbench_tellers set tbalance = tbalance + 1 where tid = 1;
update pgbench_branches set bbalance = bbalance + 1 where bid = 1;
insert into pgbench_history (tid, bid, aid, delta) values (1, 1, :aid, 1);
\endpipeline
"""

# An answer that is not this script's own divides by zero, which aborts it.
OWN_ANSWER = r"""
\set mine random(1, 1000000000)
select :mine as echo \gset
select 1 / (:mine = :echo)::int;
begin;
select :mine + 1 as echo, pg_backend_pid() as one \gset
select pg_backend_pid() as two \gset
end;
select 1 / (:mine + 1 = :echo and :one = :two)::int;
"""


def pgbench(*options):
    return subprocess.run(["pgbench", *options, URL], text=True, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=120).stdout


def bench(*options):
    """A run in which every transaction of every client must succeed."""
    try:
        # A thread each: pgbench waits for PQprepare() with all clients of a
        # thread, also those that are in a transaction and hold a server.
        said = pgbench("--no-vacuum", "--client", str(CLIENTS), "--jobs",
                       str(CLIENTS), "--transactions", str(ROUNDS), *options)
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.stdout) from error
    done, planned = re.search(r"actually processed: (\d+)/(\d+)", said).groups()
    same((done, planned), (str(CLIENTS * ROUNDS),) * 2)
    same(re.search(r"failed transactions: (\d+)", said).group(1), "0")


def scripted(script, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        bench("--file", file.name, *options)


def balance():
    conn = psycopg2.connect(URL)
    with conn.cursor() as cur:
        cur.execute("select (select sum(abalance) from pgbench_accounts),"
                    " (select sum(tbalance) from pgbench_tellers),"
                    " (select sum(bbalance) from pgbench_branches),"
                    " coalesce(sum(delta), 0), count(*) from pgbench_history")
        row = cur.fetchone()
    conn.close()
    return row


@step
def tables_are_created_and_filled():
    pgbench("--initialize", "--quiet")
    same(balance(), (0, 0, 0, 0, 0))


@step
def transfers_balance_in_every_protocol():
    for count, protocol in enumerate(PROTOCOLS, 1):
        bench("--protocol", protocol)
        accounts, tellers, branches, history, rows = balance()
        same((accounts, tellers, branches), (history,) * 3)
        same(rows, count * CLIENTS * ROUNDS)


@step
def pipelines_balance():
    before = balance()
    for protocol in PROTOCOLS[1:]:
        scripted(PIPELINE, "--protocol", protocol)
    added = 2 * CLIENTS * ROUNDS
    same(balance(), tuple(total + added for total in before))


@step
def clients_get_their_own_answers_only():
    for protocol in PROTOCOLS:
        scripted(OWN_ANSWER, "--protocol", protocol)


@step
def a_connection_may_be_made_for_every_transaction():
    bench("--select-only", "--connect")


@step
def a_broken_script_is_noticed():
    # Or all of the above would prove nothing.
    try:
        scripted("select 1 / 0;\n")
    except AssertionError as error:
        if "division by zero" not in str(error):
            raise
    else:
        raise AssertionError("pgbench did not mind a division by zero")


if __name__ == "__main__":
    run()
