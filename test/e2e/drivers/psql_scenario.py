#!/usr/bin/python3
"""psql: scripts as people write them, with its variables and \\copy."""

import os
import signal
import subprocess
import tempfile

from scenario import (BIG_TEXT, ROUNDS, SLEEP_LOUDLY, URL,
                      committed_rounds, crowd, nonce, run,
                      same, step, tables_sql)

PSQL = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
        "--dbname", URL]


def psql(script, *options):
    """Feed a script to psql; returns (exit status, lines, messages)."""
    done = subprocess.run([*PSQL, *options], input=script, text=True,
                          capture_output=True, timeout=60)
    return done.returncode, done.stdout.splitlines(), done.stderr


def lines_of(script, *options):
    """The lines that a script prints which must work without a word."""
    status, lines, messages = psql(script, "--set=ON_ERROR_STOP=1", *options)
    same((status, messages), (0, ""))
    return lines


def has(text, part):
    if part not in text:
        raise AssertionError(f"no {part!r} in {text!r}")


@step
def tables_are_created():
    lines_of("begin; set local client_min_messages = warning;"
             + ";".join(tables_sql("psql")) + "; commit;")


@step
def rows_are_created_read_updated_and_deleted():
    same(lines_of(r"""
        insert into psql_item (email, note) values ('crud@x', 'one')
            returning id as key \gset
        select email, note from psql_item where id = :key;
        update psql_item set note = null where id = :key;
        \pset null 'null'
        select note from psql_item where id = :key;
        delete from psql_item where id = :key;
        select count(*) from psql_item where id = :key;
        \echo :ROW_COUNT :SQLSTATE
        """), ["crud@x|one", "null", "0", "1 00000"])


@step
def a_commit_is_seen_by_others_and_a_rollback_by_nobody():
    lines_of("begin; insert into psql_item (email) values ('gone@x');"
             " rollback; begin; insert into psql_item (email)"
             " values ('tx@x'); commit;")
    same(lines_of("select email from psql_item"
                  " where email in ('gone@x', 'tx@x')"), ["tx@x"])


@step
def a_script_in_one_transaction_is_all_or_nothing():
    status, _, messages = psql(
        "insert into psql_item (email) values ('half@x');\nselect 1 / 0;\n",
        "--single-transaction", "--set=ON_ERROR_STOP=1")
    same(status, 3)
    has(messages, "division by zero")
    same(lines_of("select 1 from psql_item where email = 'half@x'"), [])


@step
def errors_leave_the_connection_usable():
    status, lines, messages = psql(r"""
        \set VERBOSITY sqlstate
        insert into psql_item (email) values ('twice@x');
        insert into psql_item (email) values ('twice@x');
        selec 1;
        begin; select 1 / 0; select 'never'; rollback;
        select 'usable';
        """)
    same((status, lines), (0, ["usable"]))
    same([line.split()[-1] for line in messages.splitlines()],
         ["23505", "42601", "22012", "25P02"])


@step
def several_statements_in_one_query_are_one_transaction():
    status, lines, messages = psql(
        r"insert into psql_item (email) values ('multi@x')\; select 1 / 0;"
        "\nselect count(*) from psql_item where email = 'multi@x';")
    same((status, lines), (0, ["0"]))
    has(messages, "division by zero")
    same(lines_of(r"select 1\; select 2\; select 3;"), ["1", "2", "3"])


@step
def a_savepoint_is_made_for_every_statement():
    status, lines, _ = psql(r"""
        \set ON_ERROR_ROLLBACK on
        begin; select 1; select 1 / 0; select 2; commit;
        """)
    same((status, lines), (0, ["1", "2"]))


@step
def a_cursor_fetches_in_pieces():
    same(lines_of("\\set FETCH_COUNT 7\nselect generate_series(1, 100);"),
         [str(n) for n in range(1, 101)])


@step
def results_are_described_without_being_run():
    same(lines_of("select 1 as one, 'x'::varchar(3) as two \\gdesc"),
         ["one|integer", "two|character varying(3)"])


@step
def a_megabyte_goes_there_and_back():
    same(lines_of(f"select '{BIG_TEXT}' as big \\gset\nselect :'big';"),
         [BIG_TEXT])


@step
def copy_goes_in_and_out():
    rows = [f"{n}\t{n}\t{'copied ' * 20}" for n in range(5000)]
    with tempfile.TemporaryDirectory() as folder:
        there, back = os.path.join(folder, "in"), os.path.join(folder, "out")
        with open(there, "w", encoding="utf-8") as file:
            file.write("".join(row + "\n" for row in rows))
        lines_of(f"\\copy psql_ledger from '{there}'\n"
                 f"\\copy psql_ledger to '{back}'\n")
        with open(back, encoding="utf-8") as file:
            same(file.read().splitlines(), rows)
    same(lines_of("truncate psql_ledger; copy psql_ledger from stdin;\n"
                  "1\t2\tinline\n\\.\nselect * from psql_ledger;"
                  "copy psql_ledger to stdout; truncate psql_ledger;"),
         ["1|2|inline", "1\t2\tinline"])


@step
def a_failed_copy_leaves_the_connection_usable():
    status, lines, messages = psql(
        "copy psql_ledger from stdin;\nnot a number\t1\tx\n\\.\n"
        "select count(*) from psql_ledger;")
    same((status, lines), (0, ["0"]))
    has(messages, "invalid input syntax for type integer")


@step
def notices_arrive():
    status, lines, messages = psql(
        "do $$ begin raise notice 'hear, hear'; end $$; select 1;")
    same((status, lines), (0, ["1"]))
    has(messages, "NOTICE:  hear, hear")


@step
def an_interrupt_cancels_the_query():
    with subprocess.Popen([*PSQL, "--command", SLEEP_LOUDLY], text=True,
                          stderr=subprocess.PIPE) as sleeper:
        heard = ""
        while "asleep" not in heard:
            line = sleeper.stderr.readline()
            if not line:
                raise AssertionError(f"psql ended early, it said {heard!r}")
            heard += line
        sleeper.send_signal(signal.SIGINT)
        has(sleeper.stderr.read(), "canceling statement due to user request")
        same(sleeper.wait(), 1)


@step
def a_statement_timeout_ends_its_statement_only():
    status, lines, messages = psql(
        "begin; set local statement_timeout = '50ms'; select pg_sleep(60);"
        " rollback; select pg_sleep(0.1), 'usable';")
    same((status, lines), (0, ["|usable"]))
    has(messages, "canceling statement due to statement timeout")


@step
def the_backslash_commands_find_their_way():
    has("\n".join(lines_of("\\d psql_item")), "generated always as identity")
    has("\n".join(lines_of("\\dt psql_*")), "psql_ledger")
    has("\n".join(lines_of("\\conninfo")), "You are connected")


@step
def a_crowd_gets_its_own_answers_only():
    def member(number, everyone_is_here):
        with subprocess.Popen([*PSQL, "--set=ON_ERROR_STOP=1"], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              bufsize=1) as shell:
            def converse(script, answers):
                shell.stdin.write(script + "\n")
                return [shell.stdout.readline().rstrip("\n")
                        for _ in range(answers)]

            same(converse("select 'here';", 1), ["here"])
            everyone_is_here()
            for turn in range(ROUNDS):
                mine = nonce(number, turn)
                end = "commit" if turn in committed_rounds() else "rollback"
                echo, backend, row = converse(
                    f"select '{mine}'; begin; select pg_backend_pid();"
                    f" insert into psql_ledger values ({number}, {turn},"
                    f" '{mine}'); select note, pg_backend_pid()"
                    f" from psql_ledger where client = {number}"
                    f" and round = {turn}; {end};", 3)
                same((echo, row), (mine, f"{mine}|{backend}"))
                yield backend
            same(converse("select string_agg(round::text, ' ' order by round)"
                          f" from psql_ledger where client = {number};", 1),
                 [" ".join(map(str, committed_rounds()))])
            shell.stdin.close()
            same(shell.wait(), 0)

    crowd(member)


if __name__ == "__main__":
    run()
