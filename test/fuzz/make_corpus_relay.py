#!/usr/bin/python3
"""Writes the seeds of the fuzz targets for the relay into corpus/<target>/.

A seed is two bytes for the target and records (see relay.h). The seeds are
the dialogues of drivers that have broken poolers: pipelines with an error in
the middle, COPY with its data sent too early, names used again, batches
without a Sync; and messages whose lengths are wrong, on either side.
"""

import os

HERE = os.path.dirname(os.path.abspath(__file__))
LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 16384, 16389, 2**30, 2**30 + 1,
           2**31 - 1, 2**31, 2**32 - 1)
RAW, OTHER, HANG_UP, DEAF = b"\0", b"\1", b"\2", b"\3"


def u16(value):
    return value.to_bytes(2, "big")


def u32(value):
    return value.to_bytes(4, "big")


def record(kind, body=b""):
    return kind + u16(len(body)) + body


def query(sql):
    return record(b"Q", sql + b"\0")


def parse(sql, name=b""):
    return record(b"P", name + b"\0" + sql + b"\0" + u16(0))


def bind(name=b"", portal=b""):
    return record(b"B", portal + b"\0" + name + b"\0" + u16(0) * 3)


def describe(name=b"", what=b"S"):
    return record(b"D", what + name + b"\0")


def close(name=b"", what=b"S"):
    return record(b"C", what + name + b"\0")


def execute(portal=b""):
    return record(b"E", portal + b"\0" + u32(0))


SYNC, FLUSH, DONE = record(b"S"), record(b"H"), record(b"c")
FAIL, DATA = record(b"f", b"no\0"), record(b"d", b"one\n")
TERMINATE = record(b"X")
FUNCTION = record(b"F", u32(1) + u16(0) * 3)
LATE, AT_ONCE, TURN = record(OTHER, b"\1"), record(OTHER, b"\0"), record(OTHER)
DO = bind() + execute()
RUN = bind() + describe(what=b"P") + execute() + SYNC


def client_bodies():
    """What comes behind the two bytes."""
    for kind in b"QPBDECSHFdcfXpz\x7f\xff":
        yield f"one-{kind}", record(bytes([kind]), b"\0\0\0\0\0\0")
    yield "queries", query(b"SELECT 1") * 8
    yield "transaction", (query(b"BEGIN") + query(b"SELECT 1") * 4
                          + query(b"COMMIT"))
    yield "batches", (parse(b"SELECT 1") + RUN) * 8
    yield "named", parse(b"SELECT 1", b"a") + SYNC + (bind(b"a") + execute()
                                                      + SYNC) * 8
    yield "many", b"".join(
        parse(b"SELECT %d" % n, b"s%d" % (n % 6)) + bind(b"s%d" % (n % 4))
        + execute() + SYNC + close(b"s%d" % (n % 5)) for n in range(24)) + SYNC
    yield "same-text", b"".join(parse(b"SELECT 1", b"s%d" % n) + SYNC
                                for n in range(6))
    yield "late", LATE + (parse(b"SELECT 1", b"a") + bind(b"a") + execute()
                          + SYNC) * 3 + TURN + AT_ONCE
    yield "late-close", (parse(b"SELECT 1", b"a") + SYNC + LATE + execute()
                         + close(b"a") + parse(b"SELECT 2", b"a") + SYNC
                         + bind(b"a") + SYNC + TURN)
    yield "unnamed-apart", (parse(b"SELECT 1") + SYNC + DO + SYNC
                            + query(b"SELECT 2") + DO + SYNC)
    yield "unnamed-late", LATE + (parse(b"SELECT 1") + SYNC + DO + SYNC) * 4
    yield "deallocate", (parse(b"SELECT 1", b"a") + SYNC
                         + query(b"DEALLOCATE a") + bind(b"a") + SYNC)
    yield "deallocate-extended", (
        parse(b"SELECT 1", b"a") + SYNC + parse(b"DEALLOCATE a") + RUN
        + parse(b"DEALLOCATE ALL") + RUN + bind(b"a") + SYNC)
    yield "deallocate-in-transaction", (
        query(b"BEGIN") + parse(b"DEALLOCATE ALL") + bind() + SYNC
        + execute() + SYNC + query(b"COMMIT"))
    yield "discard", (parse(b"SELECT 1", b"a") + SYNC + LATE
                      + query(b"DISCARD ALL") + parse(b"SELECT 1", b"b")
                      + bind(b"b") + SYNC + TURN)
    yield "copy", query(b"COPY t FROM STDIN") + DATA * 3 + DONE
    yield "copy-fail", query(b"COPY t FROM STDIN") + DATA + FAIL
    yield "copy-early", (LATE + query(b"COPY t FROM STDIN") + DATA * 3 + DONE
                         + query(b"SELECT 1") + TURN)
    yield "copy-extended", (parse(b"COPY t FROM STDIN") + DO + SYNC + DATA
                            + SYNC + DONE + SYNC)
    yield "copy-extended-early", (LATE + parse(b"COPY t FROM STDIN") + DO
                                  + DATA + SYNC + DONE + SYNC + TURN)
    yield "copy-and-requests", (parse(b"COPY t FROM STDIN") + DO
                                + parse(b"SELECT 1", b"a") + SYNC + DATA
                                + query(b"SELECT 1") + DONE + SYNC + SYNC)
    yield "copy-eats-request", (query(b"COPY t FROM STDIN") + DATA
                                + parse(b"SELECT 1", b"a") + bind(b"a")
                                + execute() + SYNC + close(b"a") + SYNC)
    yield "flush", (parse(b"SELECT 1") + FLUSH + bind() + FLUSH + execute()
                    + FLUSH + SYNC)
    yield "no-sync", parse(b"SELECT 1") + DO + query(b"SELECT 2") + SYNC
    yield "syncs", SYNC * 40
    yield "functions", FUNCTION * 4
    yield "portals", (parse(b"SELECT 1", b"a") + bind(b"a", b"p")
                      + execute(b"p") + close(b"p", b"P") + SYNC)
    yield "ours", bind(b"PGSLUICE_1") + SYNC
    yield "terminate", query(b"SELECT 1") + TERMINATE + query(b"SELECT 2")
    yield "hang-up", LATE + query(b"BEGIN") + record(HANG_UP)
    yield "deaf", record(DEAF) + query(b"SELECT 1") * 40 + record(DEAF)
    yield "too-large", record(RAW, b"d" + u32(4 + 16385) + b"x" * 100)
    yield "long-query", query(b"x" * 16000)
    yield "long-bind", record(b"B", b"\0a\0" + b"x" * 15000) + SYNC
    yield "name-cut", record(b"B", b"\0" + b"x" * 16000)
    for length in LENGTHS:
        yield f"length-{length}", (query(b"SELECT 1")
                                   + record(RAW, b"d" + u32(length) + b"x" * 9))


def client_seeds():
    """First byte: mode (transaction, session, statement), 4 = a parameter of
    its own, 8 * size of the pieces; second: luck."""
    for name, body in client_bodies():
        yield name, bytes([0x78, 7]) + body
    for name, body in client_bodies():
        if name in ("batches", "many", "late", "discard", "copy-extended"):
            for first in (0, 1, 2, 4, 5):
                yield f"{name}-{first}", bytes([first, 99]) + body
            for luck in range(1, 6):
                yield f"{name}-luck-{luck}", bytes([0x78, luck]) + body


def error(sqlstate, severity=b"ERROR", message=b"no"):
    return record(b"E", b"S" + severity + b"\0C" + sqlstate + b"\0M" + message
                  + b"\0\0")


def ready(status=b"I"):
    return record(b"Z", status)


def tag(text):
    return record(b"C", text + b"\0")


def parameter(name, value):
    return record(b"S", name + b"\0" + value + b"\0")


def server_bodies():
    notice = record(b"N", b"Mhm\0\0")
    news = record(b"A", u32(1) + b"a\0\0")
    copy_in = record(b"G", b"\0" + u16(0))
    row, rows = record(b"D", u16(0)), record(b"T", u16(0))
    done = tag(b"SELECT 1")
    batch = record(b"1") + record(b"2") + rows + row + done + ready()
    for kind in b"123ACDEGHIKNRSTVWZcdnstvpz\x7f\xff":
        yield f"one-{kind}", record(bytes([kind]), b"I\0\0\0\0")
        yield f"empty-{kind}", record(bytes([kind]))
    yield "batch", batch
    yield "batches", batch * 5
    yield "query", rows + row * 5 + done + ready()
    yield "queries", (done + ready()) * 5
    yield "unasked", notice + news + parameter(b"TimeZone", b"UTC") + batch
    yield "transaction", done + ready(b"T") + done + ready(b"E") + ready()
    yield "error", record(b"1") + error(b"42601") + ready()
    yield "error-first", error(b"42601") + ready() + ready()
    yield "error-no-fields", record(b"E", b"\0") + ready()
    yield "error-no-end", record(b"E", b"Sx") + ready()
    yield "error-long", error(b"42601", message=b"x" * 17000) + ready()
    yield "error-renamed", (
        error(b"42P05", message=b'prepared statement "PGSLUICE_1" exists')
        + error(b"26000", message=b'prepared statement "PGSLUICE_') + ready())
    yield "fatal", error(b"57P01", b"FATAL")
    yield "fatal-then-more", error(b"57P01", b"FATAL") + batch
    yield "copy-in", copy_in + tag(b"COPY 1") + ready()
    yield "copy-in-batch", (record(b"1") + record(b"2") + copy_in
                            + error(b"57014") + ready())
    yield "copy-in-twice", copy_in * 3
    yield "copy-out", (record(b"H", b"\0" + u16(0)) + record(b"d", b"x")
                       + record(b"c") + done + ready())
    yield "discard", tag(b"DISCARD ALL") + ready()
    yield "deallocate", tag(b"DEALLOCATE ALL") + ready()
    yield "parameters", b"".join(
        parameter(b"TimeZone", value) for value in (b"a", b"", b"a'b\\c")
    ) + ready()
    yield "parameter-cut", record(b"S", b"TimeZone") + ready()
    yield "ready-odd", ready(b"X")
    yield "ready-empty", record(b"Z") + ready()
    yield "readies", ready() * 10
    yield "hang-up", rows + record(HANG_UP)
    yield "torn", rows + record(RAW, b"D" + u32(100) + b"x") + record(HANG_UP)
    yield "client-goes", rows + record(OTHER, b"\x0c") + row + done + ready()
    yield "client-asks", b"".join(
        record(OTHER, bytes([n])) + batch for n in range(16))
    yield "deaf", record(DEAF) + record(b"D", b"x" * 30000) * 2 + ready()
    for length in LENGTHS:
        yield f"length-{length}", record(RAW, b"D" + u32(length) + b"x" * 9)


def server_seeds():
    """First byte: mode, 4 = a parameter, 8 * size of the pieces; second: what
    the client has asked first."""
    for number, (name, body) in enumerate(server_bodies()):
        for asked in (1, 2 + number % 12):
            yield f"{name}-{asked}", bytes([0x78, asked]) + body
    for name, body in server_bodies():
        if name in ("batches", "error", "copy-in-batch", "hang-up", "fatal",
                    "parameters"):
            for first in (0, 1, 3, 4):
                for asked in (0, 5):
                    yield f"{name}-{first}-{asked}", (bytes([first, asked])
                                                      + body)


def write(target, seeds):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    for name, content in seeds:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)


write("relay_client", client_seeds())
write("relay_server", server_seeds())
