"""log_min_duration: what is logged, what is counted, and what is not."""

import re
import time

import pytest

import wire
from console_tools import Background, pool_of, row
from pgsluice import wait_until

pytestmark = pytest.mark.core

FAR = "1h"          # nothing here takes so long
SLOW = "SELECT pg_sleep(0.3)"
EVERYTHING = {"log_min_duration": "1us", "log_statement_text": True}
LINE = re.compile(r"C-0x\w+: app/app@\S+ slow query: (\d+\.\d+) ms "
                  r"\(wait (\d+\.\d+) ms, server (\d+\.\d+) ms\)(.*)")


def lines(pgsluice):
    """(total, wait, server, text) of each line about a slow query."""
    return [(*map(float, found.groups()[:3]), found[4])
            for found in LINE.finditer(pgsluice.log())]


def texts(pgsluice):
    """Their texts, of which each comes behind a colon."""
    return [one[3].removeprefix(": ") for one in lines(pgsluice)]


def counted(pgsluice):
    with pgsluice.connect("stats", "pgsluice") as session:
        return int(row(session, "STATS", database="app")["slow_query_count"])


def asked(session, *messages):
    """To ReadyForQuery; by then it is logged."""
    session.send(*messages)
    answer = session.until_ready()
    assert not [one for one in answer if one.kind == "E"], answer


def test_only_what_is_slow_is_logged_and_counted(start_pgsluice):
    """300 ms are longer than 250; whether the quick one is quick is up to
    the machine, so it has an hour."""
    pgsluice = start_pgsluice(log_min_duration="250ms")
    with pgsluice.connect() as client, \
            pgsluice.connect("admin", "pgsluice") as admin:
        client.rows(SLOW)
        (total, wait, server, text), = lines(pgsluice)
        assert total == pytest.approx(wait + server, abs=0.002)
        assert server >= 300 and text == ""
        assert counted(pgsluice) == 1
        admin.rows(f"SET log_min_duration = '{FAR}'")
        client.rows(SLOW)
        admin.rows("SET log_min_duration = 0")
        client.rows(SLOW)
    assert len(lines(pgsluice)) == 1 and counted(pgsluice) == 1


def test_a_bare_number_is_milliseconds(start_pgsluice):
    pgsluice = start_pgsluice(log_min_duration=250)
    with pgsluice.connect() as client:
        client.rows(SLOW)
    assert len(lines(pgsluice)) == 1


def test_by_default_nothing_is_slow(pgsluice):
    with pgsluice.connect() as client:
        client.rows(SLOW)
    assert lines(pgsluice) == [] and counted(pgsluice) == 0


def test_time_in_line_is_told_apart_from_time_on_the_server(start_pgsluice):
    pgsluice = start_pgsluice(default_pool_size=1, **EVERYTHING)
    with pgsluice.connect() as first, pgsluice.connect() as second, \
            pgsluice.connect("stats", "pgsluice") as session:
        first.rows("BEGIN; SELECT 1")
        answer = Background(second.rows, "BEGIN; SELECT 2")
        wait_until(lambda: pool_of(session)["cl_waiting"] == "1", "waiting")
        first.rows(SLOW)
        first.rows("COMMIT")
        answer.result()
        second.rows("SELECT 3")
    found = {text.removeprefix(": "): (total, wait, server)
             for total, wait, server, text in lines(pgsluice)}
    assert found[SLOW][1] == 0 and found[SLOW][2] >= 300
    # in line for as long as the other one slept
    assert found["BEGIN; SELECT 2"][1] >= 300
    # the next one of the same transaction has not waited
    assert found["SELECT 3"][1] == 0
    for total, wait, server in found.values():
        assert total == pytest.approx(wait + server, abs=0.002)
    assert counted(pgsluice) == len(found) == 5


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_each_of_a_pipeline_has_its_own_time(start_pgsluice, mode):
    """Simple queries and batches, all sent at once: none of them is taken to
    have lasted while another one did, so all their times fit into the whole
    one."""
    pgsluice = start_pgsluice(pool_mode=mode, **EVERYTHING)
    with pgsluice.connect() as client:
        began = time.monotonic()
        client.send(
            wire.query(SLOW), wire.query("SELECT 1"),
            wire.parse("", "SELECT 2"), wire.bind(), wire.execute(),
            wire.sync(),
            wire.parse("", SLOW), wire.bind(), wire.execute(), wire.sync(),
            wire.query("SELECT 3"))
        for _ in range(5):
            client.until_ready()
        elapsed = (time.monotonic() - began) * 1000
    # answers that come together take no time at all
    times = [one[0] for one in lines(pgsluice)]
    slow = [time_ms for time_ms, text in zip(times, texts(pgsluice))
            if text == SLOW]
    # what is left of the second one's when the first one's answer is here
    assert len(slow) == 2 and min(slow) >= 250
    assert set(texts(pgsluice)) <= {SLOW, "SELECT 1", "SELECT 2", "SELECT 3"}
    assert sum(times) <= elapsed
    assert counted(pgsluice) == len(times)


def test_a_prepared_statement_is_shown_by_its_text(start_pgsluice):
    pgsluice = start_pgsluice(**EVERYTHING)
    text = "SELECT pg_sleep($1)"
    with pgsluice.connect() as client:
        asked(client, wire.parse("nap", text), wire.sync())
        asked(client, wire.bind("", "nap", ["0.3125"]), wire.execute(),
              wire.sync())
    assert texts(pgsluice) == [text, text]
    assert lines(pgsluice)[1][2] >= 312
    # values are never shown
    assert "0.3125" not in pgsluice.log()


def test_of_a_batch_of_several_the_first_is_shown(start_pgsluice):
    pgsluice = start_pgsluice(log_min_duration="250ms",
                              log_statement_text=True)
    with pgsluice.connect() as client:
        asked(client, wire.parse("", "SELECT 'first'"), wire.bind(),
              wire.execute(), wire.parse("", SLOW), wire.bind(),
              wire.execute(), wire.sync())
        # and nothing of it is left over for the next
        asked(client, wire.query(SLOW))
    assert texts(pgsluice) == ["SELECT 'first'", SLOW]


def test_after_an_error_the_next_text_is_its_own(start_pgsluice):
    """What the server skips takes its text along."""
    pgsluice = start_pgsluice(log_min_duration="250ms",
                              log_statement_text=True)
    with pgsluice.connect() as client:
        client.send(wire.parse("", "SELECT pg_sleep(0.3), 1/0"), wire.bind(),
                    wire.execute(), wire.query("SELECT 'skipped'"),
                    wire.sync(), wire.query(SLOW))
        client.until_ready()
        client.until_ready()
    assert texts(pgsluice)[-1] == SLOW
    assert "SELECT 'skipped'" not in texts(pgsluice)


def test_a_copy_is_shown_with_all_its_time(start_pgsluice):
    """In the extended protocol the Sync behind the Execute is ignored, and
    the one behind the data counts."""
    pgsluice = start_pgsluice(**EVERYTHING)
    table = "CREATE TEMP TABLE nap (seconds float8 " \
            "CHECK (pg_sleep(seconds) IS NOT NULL))"
    copy = "COPY nap (seconds) FROM STDIN"
    with pgsluice.connect() as client:
        client.rows(table)
        client.send(wire.parse("", copy), wire.bind(), wire.execute(),
                    wire.sync())
        client.until("G")
        asked(client, wire.copy_data(b"0.3\n"), wire.copy_done(),
              wire.sync())
    assert texts(pgsluice) == [table, copy]
    assert lines(pgsluice)[1][2] >= 300


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_text_is_cut_and_cannot_forge_a_line(start_pgsluice, log_format):
    pgsluice = start_pgsluice(log_min_duration="250ms", log_format=log_format,
                              log_statement_text=True)
    forged = "2026-01-01 00:00:00.000 UTC [1] FATAL forged"
    with pgsluice.connect() as client:
        client.rows(f"{SLOW} /*\x1b[2J\n{forged}\r\n"
                    + "\u00e9" * 2000 + "*/")
    line, = [one for one in pgsluice.log().splitlines()
             if "slow query" in one]
    assert forged in line and "\x1b" not in pgsluice.log()
    assert ("\\u001b" if log_format == "json" else "\\x1b") in line
    # whole characters, and not too many of them
    assert re.search("\u00e9{300}\\.\\.\\.", line) and "\\xc3" not in line
    assert len(line) < 1400


def test_texts_are_not_logged_unasked(start_pgsluice):
    """Not even with one who knows what to ask for in the other settings."""
    pgsluice = start_pgsluice(log_min_duration="250ms", verbose=3)
    with pgsluice.connect() as client:
        client.rows(f"{SLOW} AS secret_word")
        asked(client, wire.parse("", f"{SLOW} AS secret_word"), wire.bind(),
              wire.execute(), wire.sync())
    assert counted(pgsluice) == 2
    assert "secret_word" not in pgsluice.log()
