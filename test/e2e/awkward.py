"""An SQLite file of the example app, with everything that may be in one.

    awkward.create(path, migrations, messages=500)

SQLite keeps any value in any column and Prisma has written the same types in
several ways, so columns hold a mix of forms. compare() reads both databases
and says where they differ, by rules of its own: nothing in it comes from the
script that copies.
"""

import datetime
import decimal
import glob
import json
import os
import sqlite3
import struct

TABLES = {
    "User": ("id",),
    "Account": ("provider", "providerAccountId"),
    "Session": ("sessionToken",),
    "VerificationToken": ("identifier", "token"),
    "Profile": ("id",),
    "Conversation": ("id",),
    "Member": ("conversationId", "userId"),
    "Message": ("id",),
    "Upload": ("id",),
}

TEXTS = [
    "plain", "", " spaces  ", "two\nlines\r\n", "tab\t", 'quote " and \'',
    "back\\slash \\N \\x00 \\u0000", "{1,2}", "NULL", "null", "Zürich",
    "日本語", "👩‍👩‍👧‍👦", "e\u0301 is not \u00e9", "\u202eright to left",
    "\ufeffmark",
    "\x01\x1f\x7f", "%s $1 ? ; -- /* */", "x" * 100_000,
]

# One moment in every form that has been seen, then others.
MOMENT = 1_700_000_000_123
TIMES = [
    MOMENT, "2023-11-14T22:13:20.123Z", "2023-11-14T22:13:20.123+00:00",
    "2023-11-14 22:13:20", "2023-11-14 22:13:20.123", "2023-11-14",
    "2023-11-15T03:43:20.123+05:30", "2023-11-14T22:13:20.123456Z",
    "2023-11-14T22:13:20Z", 0, -1, -62_135_596_800_000,
    253_402_300_799_999, "1969-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999+00:00", "2024-02-29T00:00:00.000Z",
    1_700_000_000_123.0,
]

# What the column makes of a number alone is a number.
JSONS = [
    "[]", "{}", '["chess", "climbing"]', '{"b": 1, "a": [1, null, true]}',
    ' { "spaces" :  [ ] } ', '"text"', "null", "true", "5", "1.5", "-0",
    '{"twice": 1, "twice": 2}', '["\\ud83d\\ude00", "\\u00e9", "é"]',
    '["\\\\u0000 is not a NUL"]', '{"long": "' + "y" * 10_000 + '"}',
    '[12345678901234567890, 0.1, 1e3]', b'["as bytes"]', b"\x2b\x131",
    "[" * 100 + "]" * 100,
]

DECIMALS = [
    0, 3, -7, 0.1, 1.5, 1e-7, 1e20, "12.50", "0.000000000000000000001",
    None, 123456789012345, -0.0, 2**53 + 1,
]

FLOATS = [None, 0, 1.75, -0.0, 1e300, 5e-324, 2**53, 0.1 + 0.2, 1 / 3]

BIGS = [None, 0, 2**53 + 1, 2**63 - 1, -2**63, -(2**53) - 1, 1]

BYTES = [None, b"", b"\0", bytes(range(256)), b"\\x41", b"\xff" * 50_000]

# The token of a session that has not expired, of one in conversation 1.
SESSION = "signed-in"

USERS = 120
CONVERSATIONS = 20


def pick(values, n):
    return values[n % len(values)]


def create(path, migrations, messages=500):
    """migrations is the folder of those for SQLite."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        for name in sorted(glob.glob(os.path.join(migrations, "*", "*.sql"))):
            with open(name, encoding="utf-8") as file:
                db.executescript(file.read())
        db.execute("CREATE TABLE _prisma_migrations (id TEXT PRIMARY KEY)")
        db.execute("INSERT INTO _prisma_migrations VALUES ('of SQLite')")
        db.execute("BEGIN")
        _fill_users(db)
        _fill_conversations(db, messages)
        db.execute("COMMIT")
    finally:
        db.close()


def insert(db, table, **values):
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join("?" * len(values))
    db.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})',
               list(values.values()))


def user(n):
    return f"user'{n}"


def _fill_users(db):
    for n in range(USERS):
        insert(db, "User", id=user(n), name=pick([*TEXTS, None], n),
               email=f"{n}@x.example", role=pick(["MEMBER", "ADMIN"], n),
               emailVerified=pick([*TIMES, None], n),
               **({"createdAt": pick(TIMES, n // 2)} if n % 2 else {}))
        insert(db, "Account", userId=user(n), type="oauth",
               provider=pick(["github", 'a "b"', "a, b"], n),
               providerAccountId=str(n), expires_at=pick([None, 0, 2**31 - 1,
                                                          -2**31], n),
               access_token=pick([*TEXTS, None], n + 1))
        insert(db, "Session", sessionToken=f"token-{n}", userId=user(n),
               expires=pick(TIMES, n))
        insert(db, "VerificationToken", identifier=f"{n // 2}@x.example",
               token=str(n % 2), expires=pick(TIMES, n + 3))
        if n % 4:
            insert(db, "Profile", userId=user(n), bio=pick(TEXTS, n),
                   interests=pick(JSONS, n), avatar=pick(BYTES, n),
                   isPublic=n % 2, rating=pick(DECIMALS, n),
                   height=pick(FLOATS, n), updatedAt=pick(TIMES, n))


def _fill_conversations(db, messages):
    insert(db, "Session", sessionToken=SESSION, userId=user(0),
           expires="2999-01-01T00:00:00.000Z")
    for n in range(CONVERSATIONS):
        insert(db, "Conversation", id=n * 10 + 1, title=pick(TEXTS, n))
        for member in range(n, n + 5):
            insert(db, "Member", conversationId=n * 10 + 1,
                   userId=user(member), isMuted=n % 2,
                   joinedAt=pick(TIMES, n))
    # SQLite will not give this id out again, and Postgres must not either.
    insert(db, "Conversation", id=5000, title="deleted")
    db.execute('DELETE FROM "Conversation" WHERE id = 5000')
    for n in range(messages):
        conversation = n % CONVERSATIONS
        big = pick(BIGS, n) if n < len(BIGS) else \
            (None if n % 2 else 2**60 + n)
        insert(db, "Message", id=n + 1, conversationId=conversation * 10 + 1,
               senderId=user(conversation + n % 5), clientId=big,
               # to an earlier one, to itself, to one that is yet to come
               replyToId=(pick([n, n + 1, messages, 1], n) or None)
               if n % 7 == 0 else None,
               body=pick(TEXTS, n) if n < 100 else f"message {n} 👋 it's me",
               isEdited=n % 3 == 0, createdAt=pick(TIMES, n))
    for n in range(40):
        insert(db, "Upload", id=f"upload-{n}", userId=user(n),
               messageId=n + 1 if n % 2 else None, name=pick(TEXTS, n),
               size=pick([0, 1, 2**53 + 1, 2**63 - 1], n),
               sha256=bytes([n]) * 32,
               state=pick(["PENDING", "STORED", "FAILED"], n),
               cost=pick(DECIMALS, n), createdAt=pick(TIMES, n))


# What a value of SQLite must be in Postgres

EPOCH = datetime.datetime(1970, 1, 1)


def _moment(value):
    if isinstance(value, (int, float)):
        at = EPOCH + datetime.timedelta(milliseconds=int(value))
    else:
        at = datetime.datetime.fromisoformat(
            value.replace("Z", "+00:00"))
        if at.tzinfo:
            at = (at - at.utcoffset()).replace(tzinfo=None)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _json(value):
    if value == b"\x2b\x131":           # SQLite's JSONB of [1]
        value = "[1]"
    if isinstance(value, (bytes, str)):
        return json.loads(value, parse_float=decimal.Decimal,
                          parse_int=decimal.Decimal)
    return decimal.Decimal(repr(value))


EXPECTED = {
    "timestamp without time zone": _moment,
    "boolean": bool,
    "numeric": lambda value: decimal.Decimal(str(value)),
    "double precision": lambda value: struct.pack("!d", value),
    "bytea": bytes,
    "jsonb": _json,
}
FOUND = {
    "bytea": bytes,
    "double precision": lambda value: struct.pack("!d", value),
    "jsonb": lambda value: json.loads(value, parse_float=decimal.Decimal,
                                      parse_int=decimal.Decimal),
}


def compare(path, connection):
    """Every value of every row; returns how many rows there were.
    connection is a psycopg2 one, to Postgres itself."""
    sqlite = sqlite3.connect(path)
    cursor = connection.cursor()
    rows_seen = 0
    for table, key in TABLES.items():
        cursor.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0", [f'"{table}"'])
        types = dict(cursor.fetchall())
        # as text: psycopg2 would make a float of a number in JSON
        names = ", ".join(f'"{name}"::text' if types[name] == "jsonb"
                          else f'"{name}"' for name in types)
        cursor.execute(f'SELECT {names} FROM "{table}"')
        theirs = {}
        for row in cursor:
            values = dict(zip(types, row))
            theirs[tuple(values[name] for name in key)] = values
        names = ", ".join(f'"{name}"' for name in types)
        for row in sqlite.execute(f'SELECT {names} FROM "{table}"'):
            ours = dict(zip(types, row))
            where = tuple(ours[name] for name in key)
            assert where in theirs, f"{table} {where} is not in Postgres"
            _compare_row(table, where, types, ours, theirs.pop(where))
            rows_seen += 1
        assert not theirs, f"{table}: only in Postgres: {list(theirs)[:5]}"
    sqlite.close()
    return rows_seen


def _compare_row(table, where, types, ours, theirs):
    for name, kind in types.items():
        value, found = ours[name], theirs[name]
        if value is None or found is None:
            assert value is found, f"{table} {where} {name}: {found!r}"
            continue
        wanted = EXPECTED.get(kind, lambda it: it)(value)
        found = FOUND.get(kind, lambda it: it)(found)
        assert found == wanted, (
            f"{table} {where} {name}: {value!r} became {found!r}")
