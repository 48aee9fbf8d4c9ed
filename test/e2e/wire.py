"""The Postgres protocol, small and bare: for tests that care about bytes.

Messages are built by functions (query(), bind(), sync(), ...) and taken apart
by Message. Wire is a connection that blocks, with a time limit on everything:

    with Wire.connect(port=6432) as wire:
        wire.login("app", "secret", "app")
        wire.rows("SELECT 1")                       # [["1"]]
        wire.send(parse("", "SELECT $1::int"), bind(values=["7"]),
                  execute(), sync())
        wire.shapes(wire.until_ready())             # "12DCZ"

The dialogue of a login (login_steps) does no I/O itself; a program with a
thousand connections can drive it as well as Wire does.
"""

import base64
import functools
import hashlib
import hmac
import os
import socket
import ssl
import struct

TIME_LIMIT = 30
PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = 3 << 16 | 2
CANCEL_CODE = 1234 << 16 | 5678
SSL_CODE = 1234 << 16 | 5679
GSSENC_CODE = 1234 << 16 | 5680


# Building messages

def message(kind, *parts):
    """A message of one type byte ("" for those sent before login)."""
    body = b"".join(parts)
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def text(value):
    return (value if isinstance(value, bytes) else value.encode()) + b"\0"


def startup(protocol=PROTOCOL_3_0, **parameters):
    pairs = (text(name) + text(value) for name, value in parameters.items())
    return message("", struct.pack("!I", protocol), *pairs, b"\0")


def ssl_request():
    return message("", struct.pack("!I", SSL_CODE))


def gssenc_request():
    return message("", struct.pack("!I", GSSENC_CODE))


def cancel_request(pid, key):
    return message("", struct.pack("!II", CANCEL_CODE, pid), key)


def password(secret):
    return message("p", text(secret))


def query(sql):
    return message("Q", text(sql))


def parse(name, sql, types=()):
    return message("P", text(name), text(sql), struct.pack("!H", len(types)),
                   *(struct.pack("!I", oid) for oid in types))


def bind(portal="", statement="", values=(), formats=(), results=()):
    """Values are None, text or bytes; formats are 0 (text) or 1 (binary)."""
    parts = [text(portal), text(statement), struct.pack("!H", len(formats)),
             *(struct.pack("!H", code) for code in formats),
             struct.pack("!H", len(values))]
    for value in values:
        if value is None:
            parts.append(struct.pack("!i", -1))
        else:
            value = value if isinstance(value, bytes) else str(value).encode()
            parts.append(struct.pack("!i", len(value)) + value)
    parts.append(struct.pack("!H", len(results)))
    parts += (struct.pack("!H", code) for code in results)
    return message("B", *parts)


def describe(kind="P", name=""):
    return message("D", kind.encode(), text(name))


def execute(portal="", rows=0):
    return message("E", text(portal), struct.pack("!I", rows))


def close(kind, name=""):
    return message("C", kind.encode(), text(name))


def function_call(oid, *arguments):
    """Arguments and result as text."""
    return message(
        "F", struct.pack("!IHHH", oid, 1, 0, len(arguments)),
        *(struct.pack("!I", len(value)) + value for value in arguments),
        struct.pack("!H", 0))


def copy_data(data):
    return message("d", data)


def copy_done():
    return message("c")


def copy_fail(why="no"):
    return message("f", text(why))


def sync():
    return message("S")


def flush():
    return message("H")


def terminate():
    return message("X")


# Taking messages apart

class Message:
    """One message from the server: a type, as one letter, and a body."""

    def __init__(self, kind, body):
        self.kind = kind
        self.body = body

    def __repr__(self):
        return f"{self.kind}{self.body!r}"

    def __eq__(self, other):
        return (self.kind, self.body) == (other.kind, other.body)

    def __hash__(self):
        return hash((self.kind, self.body))

    @property
    def fields(self):
        """An error's or a notice's: {"C": sqlstate, "M": message, ...}"""
        parts = self.body.split(b"\0")
        return {part[:1].decode(): part[1:].decode(errors="replace")
                for part in parts if part}

    @property
    def sqlstate(self):
        return self.fields.get("C")

    @property
    def tag(self):
        """A command's tag: "SELECT 1"."""
        return self.body.rstrip(b"\0").decode()

    @property
    def status(self):
        """A ReadyForQuery's: I, T or E."""
        return self.body.decode()

    @property
    def parameter(self):
        """A ParameterStatus's name and value."""
        name, value, _ = self.body.split(b"\0")
        return name.decode(), value.decode()

    @property
    def columns(self):
        """The names in a RowDescription."""
        return [name for name, _ in self.described]

    @property
    def described(self):
        """The names in a RowDescription, each with its type's oid."""
        columns, at = [], 2
        for _ in range(struct.unpack_from("!H", self.body)[0]):
            end = self.body.index(b"\0", at)
            oid, = struct.unpack_from("!I", self.body, end + 7)
            columns.append((self.body[at:end].decode(), oid))
            at = end + 19
        return columns

    @property
    def values(self):
        """A DataRow's values, as text."""
        row, at = [], 2
        for _ in range(struct.unpack_from("!H", self.body)[0]):
            length, = struct.unpack_from("!i", self.body, at)
            at += 4
            if length < 0:
                row.append(None)
            else:
                row.append(self.body[at:at + length].decode())
                at += length
        return row


class ServerError(Exception):
    """An ErrorResponse where the caller wanted something else."""

    def __init__(self, answer):
        self.fields = answer.fields
        self.severity = self.fields.get("V", self.fields.get("S"))
        self.sqlstate = self.fields.get("C")
        self.text = self.fields.get("M", "")
        super().__init__(f"{self.severity} {self.sqlstate}: {self.text}")


class Closed(Exception):
    """The other side closed the connection."""


# Login

@functools.lru_cache(maxsize=1000)
def salted_password(secret, salt, iterations):
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, iterations)


class Scram:
    """A client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677).

    binding is the hash of the server's certificate for -PLUS, else None.
    """

    def __init__(self, secret, binding=None, header=None):
        self.secret = secret
        self.mechanism = "SCRAM-SHA-256" + ("-PLUS" if binding else "")
        self.header = header or (
            "p=tls-server-end-point,," if binding else "n,,")
        self.binding = binding or b""
        self.first = "n=,r=" + base64.b64encode(os.urandom(18)).decode()
        self.server_signature = None

    def client_first(self):
        return (self.header + self.first).encode()

    def client_final(self, server_first):
        fields = dict(part.split("=", 1)
                      for part in server_first.decode().split(","))
        salted = salted_password(self.secret, base64.b64decode(fields["s"]),
                                 int(fields["i"]))
        binding = base64.b64encode(self.header.encode() + self.binding)
        bare = f"c={binding.decode()},r={fields['r']}"
        signed = f"{self.first},{server_first.decode()},{bare}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        signature = hmac.digest(stored_key, signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self.server_signature = hmac.digest(server_key, signed, "sha256")
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()

    def check_server_final(self, server_final):
        expected = b"v=" + base64.b64encode(self.server_signature)
        if server_final != expected:
            raise AssertionError("the server does not know the secret")


def md5_answer(user, secret, salt):
    inner = hashlib.md5((secret + user).encode()).hexdigest()
    return "md5" + hashlib.md5(inner.encode() + salt).hexdigest()


def login_steps(user, secret, database, binding=None,
                protocol=PROTOCOL_3_0, **parameters):
    """A generator: yields bytes to send, is sent every message that comes,
    and ends at ReadyForQuery. An ErrorResponse is raised as ServerError."""
    scram = None
    got = yield startup(protocol, user=user, database=database, **parameters)
    while got.kind != "Z":
        answer = b""
        if got.kind == "E":
            raise ServerError(got)
        if got.kind == "R":
            method, = struct.unpack_from("!I", got.body)
            data = got.body[4:]
            if method == 3:
                answer = password(secret)
            elif method == 5:
                answer = password(md5_answer(user, secret, data))
            elif method == 10:
                scram = Scram(secret, binding)
                if text(scram.mechanism) not in data:
                    raise AssertionError(f"{scram.mechanism} not in {data}")
                first = scram.client_first()
                answer = message("p", text(scram.mechanism),
                                 struct.pack("!I", len(first)), first)
            elif method == 11:
                answer = message("p", scram.client_final(data))
            elif method == 12:
                scram.check_server_final(data)
        got = yield answer


def certificate_hash(sock):
    """tls-server-end-point (RFC 5929), for certificates signed with SHA-256
    or less."""
    return hashlib.sha256(sock.getpeercert(binary_form=True)).digest()


class Wire:
    """A blocking connection. Anything that takes too long is an error."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(TIME_LIMIT)
        self.got = bytearray()
        self.parameters = {}    # as last reported
        self.pid = None         # from BackendKeyData, for a cancel
        self.key = None
        self.notices = []

    @classmethod
    def connect(cls, port, host="127.0.0.1"):
        """host may be a directory: then a unix socket in it."""
        if host.startswith("/"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(TIME_LIMIT)
            sock.connect(f"{host}/.s.PGSQL.{port}")
        else:
            sock = socket.create_connection((host, port), TIME_LIMIT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def start_tls(self, context=None, name="localhost", direct=False):
        """SSLRequest and handshake; direct: ALPN in place of the request."""
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if direct:
            context.set_alpn_protocols(["postgresql"])
        else:
            self.send(ssl_request())
            answer = self.sock.recv(1)
            if answer != b"S":
                raise Closed(f"{answer!r} to SSLRequest")
        self.sock = context.wrap_socket(self.sock, server_hostname=name)

    # bytes and messages

    def send(self, *messages):
        self.sock.sendall(b"".join(messages))

    def receive(self, length):
        while len(self.got) < length:
            try:
                data = self.sock.recv(1 << 16)
            except (ConnectionResetError, ssl.SSLError) as error:
                raise Closed(str(error)) from error
            if not data:
                raise Closed(f"with {bytes(self.got)!r} unfinished")
            self.got += data
        data = bytes(self.got[:length])
        del self.got[:length]
        return data

    def next(self):
        """The next message, whatever it is."""
        kind, length = struct.unpack("!cI", self.receive(5))
        got = Message(kind.decode("latin-1"), self.receive(length - 4))
        if got.kind == "S":
            name, value = got.parameter
            self.parameters[name] = value
        elif got.kind == "K":
            self.pid, = struct.unpack_from("!I", got.body)
            self.key = got.body[4:]
        elif got.kind == "N":
            self.notices.append(got)
        return got

    def until(self, kinds):
        """Messages up to and with the first of one of these types."""
        messages = [self.next()]
        while messages[-1].kind not in kinds:
            messages.append(self.next())
        return messages

    def until_ready(self):
        return self.until("Z")

    def until_closed(self):
        """All that still comes before the other side closes."""
        messages = []
        try:
            while True:
                messages.append(self.next())
        except Closed:
            return messages

    # whole dialogues

    def login(self, user, secret, database, **parameters):
        """Raises ServerError when refused. parameters may hold binding and
        protocol (see login_steps)."""
        steps = login_steps(user, secret, database, **parameters)
        self.send(next(steps))
        try:
            while True:
                self.send(steps.send(self.next()))
        except StopIteration:
            return self

    def query(self, sql):
        """Every message that answers a simple query."""
        self.send(query(sql))
        return self.until_ready()

    def rows(self, sql):
        """The rows of a simple query as lists of text; raises its error."""
        answer = self.query(sql)
        for got in answer:
            if got.kind == "E":
                raise ServerError(got)
        return [got.values for got in answer if got.kind == "D"]

    def value(self, sql):
        """The one value of a query that has one."""
        (value,), = self.rows(sql)
        return value

    @staticmethod
    def shapes(messages):
        """The types alone: "TDCZ"."""
        return "".join(got.kind for got in messages)
