#!/usr/bin/python3
"""Writes the seeds of the fuzz targets for wire/ into corpus/<target>/.

The seeds are one good input of each shape, and the bad ones that have broken
poolers and servers before: lengths of 0 to 3, around 2^31 and 2^32 in every
length field, `options=-c=`, errors without a SQLSTATE, texts without an end.
Finds of a fuzzer are kept as seeds of their own, beside these.
"""

import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 9999, 10000, 10001,
           2**31 - 1, 2**31, 2**31 + 4, 2**32 - 5, 2**32 - 1)


def u16(value):
    return struct.pack(">H", value)


def u32(value):
    return struct.pack(">I", value)


def message(kind, body):
    return kind + u32(4 + len(body)) + body


def packet(body):
    return u32(4 + len(body)) + body


def login(params, version=3 << 16, end=b"\0"):
    pairs = b"".join(n + b"\0" + v + b"\0" for n, v in params)
    return packet(u32(version) + pairs + end)


def frame_seeds():
    for length in LENGTHS:
        yield f"length-{length}", b"Q" + u32(length) + b"x" * 8
        yield (f"second-{length}",
               message(b"S", b"") + b"Q" + u32(length) + b"x" * 8)
    yield "empty", b""
    yield "header-cut", b"Q\0\0"
    yield "sign-only", b"Q\x80"
    yield "pipeline", (message(b"P", b"s\0SELECT 1\0" + u16(0))
                       + message(b"B", b"\0s\0" + u16(0) * 3)
                       + message(b"E", b"\0" + u32(0)) + message(b"S", b""))
    yield "body-cut", message(b"Q", b"SELECT 1\0")[:-3]
    yield "syncs", message(b"S", b"") * 40
    yield "over-limit", message(b"d", b"x" * 1001)


def startup_seeds():
    user = (b"user", b"me")
    for length in LENGTHS:
        yield (f"length-{length}",
               u32(length) + u32(3 << 16) + b"user\0me\0\0")
        yield (f"cancel-length-{length}",
               u32(length) + u32(80877102) + b"k" * 20)
        yield f"ssl-length-{length}", u32(length) + u32(80877103)
    yield "empty", b""
    yield "ssl", packet(u32(80877103))
    yield "ssl-stuffed", packet(u32(80877103)) + login([user])
    yield "gss", packet(u32(80877104))
    yield "cancel-30", packet(u32(80877102) + u32(1234) + b"abcd")
    yield "cancel-32", packet(u32(80877102) + u32(1234) + b"k" * 256)
    yield "cancel-too-long", packet(u32(80877102) + u32(1234) + b"k" * 257)
    yield "cancel-no-key", packet(u32(80877102) + u32(1234))
    yield "direct-tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield "http", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    yield "login", login([user, (b"database", b"app")])
    yield "login-32", login([user], version=3 << 16 | 2)
    yield "login-grease", login([user, (b"_pq_.a", b"")],
                                version=3 << 16 | 9999)
    yield "login-2", login([user], version=2 << 16)
    yield "login-twice", login([user]) * 2
    yield "login-no-end", login([user], end=b"")
    yield "login-behind-end", login([user], end=b"\0\0")
    yield "login-no-value", packet(u32(3 << 16) + b"user\0")
    yield "login-no-nul", packet(u32(3 << 16) + b"user\0me")
    yield "login-nothing", packet(u32(3 << 16))
    yield "login-10000", login([(b"a", b"x" * (10000 - 8 - 4))])
    yield "login-10001", login([(b"a", b"x" * (10001 - 8 - 4))])
    for number, options in enumerate((
            b"-c=", b"-c", b"--", b"--=", b"-c =", b"-", b"\\", b"-c a",
            b"-c a=b --c-d=e -cf=g", b"-c search_path=a,\\ b\\\\",
            b"-c a=b\\", b" \t-c\n a=b ", b"-c statement-timeout=5",
            b"-c -c=-c", b"-d 5", b"-c a=" + b"\\ " * 2000)):
        yield f"options-{number}", login([user, (b"options", options)])
        yield f"options-bare-{number}", options


def body_seeds():
    def readings(ops, body):
        return bytes([len(ops)]) + bytes(ops) + body

    def error(body):
        return readings([], body)

    yield "error", error(b"SERROR\0VERROR\0C42601\0Mno\0P1\0Fscan.l\0\0")
    yield "error-no-sqlstate", error(b"SFATAL\0Mno\0\0")
    yield "error-nothing", error(b"\0")
    yield "error-empty", error(b"")
    yield "error-no-end", error(b"SERROR\0C42601\0Mno\0")
    yield "error-no-nul", error(b"SERROR\0C42601\0Mno")
    yield "error-behind-end", error(b"Mno\0\0more")
    yield "error-short-sqlstate", error(b"C4260\0\0")
    yield "error-long-sqlstate", error(b"C426010\0\0")
    yield "error-odd-sqlstate", error(b"C42\xff0a\0\0")
    yield "error-twice", error(b"C42601\0C00000\0Ma\0Mb\0\0")
    yield "error-no-texts", error(b"S\0V\0C\0M\0D\0H\0\0")
    yield "error-many", error(b"Mx\0" * 500 + b"\0")
    # u8 0, u16 1, u32 2, bytes 3 + 6 n, text 4, rest 5
    yield "read-all", readings([0, 1, 2, 21, 4, 5],
                               b"\1\2\3\4\5\6\7abctext\0end")
    yield "read-past-end", readings([2, 2, 0, 4, 5], b"\0\0\0\1\0\0\0")
    yield "read-no-nul", readings([4, 0], b"text")
    yield "read-nothing", readings([5, 3, 5, 0], b"")
    for length in LENGTHS:
        yield (f"read-length-{length}",
               readings([2, 255, 4], u32(length) + b"abc\0"))


def sqlscan_seeds():
    texts = (
        "", ";", "SELECT 1", "SELECT 1;", "SELECT 1; SELECT 2",
        "BEGIN; SET LOCAL a = 1; COMMIT AND CHAIN", "ROLLBACK TO SAVEPOINT a",
        "SELECT set_config('a.b', $1, true)",
        "SELECT set_config('a', 'b', false)",
        "SELECT \"set_config\"('a', set_config('b', 'c', true), false)",
        "SELECT pg_advisory_lock(72707369)",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT U&\"\\0073et_config\"('a', 'b', false)",
        "DEALLOCATE PREPARE \"a \"\"b\"", "DEALLOCATE ALL", "DISCARD ALL",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "SELECT 1 INTO TEMP t",
        "INSERT INTO temp SELECT 1", "CREATE TABLE pg_temp.t ()",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "LISTEN a",
        "DO $$BEGIN END$$",
        "EXPLAIN (ANALYZE) SELECT 1", "EXPLAIN " * 50, "(" * 100,
        "/*" * 100,
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true "
        "THEN 1 END; END; LISTEN x",
        "CREATE RULE r AS ON INSERT TO t DO (NOTIFY a; NOTIFY b)",
        "/* /* */ SET a = 1 */ -- x\nSELECT 1",
        "SELECT E'a\\'; SET a = 1'",
        "SELECT 'a\\'; SET x = 1; --'", "SELECT $a$ $b$ ; $a$; SET a = 1",
        "SELECT $1; SET a = $1", "SELECT '", "SELECT \"", "SELECT $$",
        "SELECT /*", "SET local.x = 1", "SET TRANSACTION READ ONLY",
        "PREPARE TRANSACTION 'x'",
        "SELECT 1e'a\\'; SET x = 1'", "SELECT \"a\"\"; SET x = 1\"",
        "CREATE DATABASE \"a\"\"b\" WITH OWNER = c TEMPLATE 'd'",
        "DROP DATABASE IF EXISTS a WITH (FORCE)",
        "ALTER DATABASE a RENAME TO b",
    )
    for number, text in enumerate(texts):
        yield f"sql-{number:02}", text.encode()
    yield "no-utf8", b"SELECT '\xff\x80' \xc3; SET \xe2\x82 = 1"
    yield "nul", b"SELECT 1\0; SET a = 1"


def detect_seeds():
    """A statement, and behind a NUL what follows the names in a Bind."""
    def values(*bind, formats=()):
        return (u16(len(formats)) + b"".join(map(u16, formats))
                + u16(len(bind)) + b"".join(
                    u32(2**32 - 1) if value is None
                    else u32(len(value)) + value for value in bind) + u16(0))

    lock = b"select pg_try_advisory_lock($1) as locked\0"
    key = 72707369
    yield "text-key", lock + values(b"4727445306447283")
    yield "binary-key", lock + values(struct.pack(">q", key), formats=(1,))
    yield "narrow-key", lock + values(u32(key), formats=(1,))
    yield "odd-key", lock + values(b"abc", formats=(1,))
    yield "null-key", lock + values(None)
    yield "second-key", (b"SELECT $1, pg_advisory_lock($2)\0"
                         + values(b"a", u32(key), formats=(0, 1)))
    yield "no-such-key", b"SELECT pg_advisory_lock($9)\0" + values(b"1")
    yield "no-key", b"SELECT pg_advisory_lock($0)\0" + values(b"1")
    yield "key-cut", (lock + values(b"4727445306447283"))[:-10]
    for length in LENGTHS:
        yield (f"length-{length}",
               lock + u16(0) + u16(1) + u32(length) + b"72707369")
    yield "many-values", lock + u16(0xffff) + u16(0xffff) + b"\0" * 40
    texts = (
        "SELECT pg_advisory_lock(72707369)", "SELECT pg_advisory_lock(-1, 2)",
        "SELECT pg_advisory_lock('72707369'::bigint)",
        "SELECT pg_advisory_lock(", "SELECT pg_advisory_lock($",
        "SELECT pg_advisory_lock('", "SELECT pg_advisory_lock(-",
        "WITH a AS (SELECT 1) SELECT pg_advisory_lock(3853314791062309107)",
        "SELECT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = $1), "
        "version()",
        "SELECT 1 FROM pg_class WHERE relname = 'alembic_version'",
        "CREATE SCHEMA IF NOT EXISTS \"drizzle\"",
        "INSERT INTO \"_prisma_migrations\" VALUES (1)",
        "ALTER TABLE IF EXISTS ONLY public.\"Accounts\" ADD COLUMN a int",
        "DROP TABLE a, b.c, \"d\".\"e\"; TRUNCATE f",
        "CREATE TABLE n (a int REFERENCES accounts ON DELETE CASCADE)",
        "ALTER TABLE \"", "ALTER TABLE \"\"", "DROP TABLE a.", "DROP TABLE .a",
        "DROP TABLE " + "a, " * 900, "DROP TABLE " + "a." * 900,
        "Flyway", "pgroll", "", ";", "/*" * 100, "\"" * 99,
    )
    for number, text in enumerate(texts):
        yield f"sql-{number:02}", text.encode()
    yield "many-tables", b"DROP TABLE " + b", ".join(
        b"t%d" % number for number in range(2000))


def main():
    for target, seeds in (("frame", frame_seeds), ("startup", startup_seeds),
                          ("body", body_seeds), ("sqlscan", sqlscan_seeds),
                          ("detect", detect_seeds)):
        folder = os.path.join(HERE, "corpus", target)
        os.makedirs(folder, exist_ok=True)
        for name, data in seeds():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)


if __name__ == "__main__":
    main()
