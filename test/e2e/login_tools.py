"""What the tests of logins and of TLS share: secrets in the forms in which
they are kept, ways to knock at the door, and a server that can be told to
misbehave."""

import base64
import fcntl
import hashlib
import hmac
import os
import queue
import select
import socket
import ssl
import struct
import subprocess
import threading

import pytest

import certificates
import wire
from pgsluice import secret


# Secrets

def verifier(password, salt=None, iterations=4096):
    """As pg_authid keeps a password for SCRAM."""
    salt = salt or os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt,
                                 iterations)
    stored = hashlib.sha256(
        hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt, stored, server = (base64.b64encode(part).decode()
                            for part in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt}${stored}:{server}"


def md5(user, password):
    """As pg_authid keeps it for md5."""
    return "md5" + hashlib.md5((password + user).encode()).hexdigest()


def stored_secret(cluster, user):
    """What pg_authid has for this role."""
    (stored,), = cluster.rows("SELECT rolpassword FROM pg_authid "
                              f"WHERE rolname = '{user}'")
    return stored


# TLS

def trusting():
    """A context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def verifying(ca):
    """A context that believes this authority only, and checks the name."""
    return ssl.create_default_context(cafile=ca)


def holding(authority, name):
    """A context that shows the certificate of this name."""
    context = trusting()
    context.load_cert_chain(authority.path(f"{name}.crt"),
                            authority.path(f"{name}.key"))
    return context


def client_tls(authority, sslmode="require", name="server"):
    """pgsluice's settings for TLS to clients."""
    return {"client_tls_sslmode": sslmode,
            "client_tls_cert_file": authority.path(f"{name}.crt"),
            "client_tls_key_file": authority.path(f"{name}.key"),
            "client_tls_ca_file": authority.ca}


def serving(authority, name="server"):
    """A context for a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.path(f"{name}.crt"),
                            authority.path(f"{name}.key"))
    return context


def make_authority(folder):
    """With certificates for a server, for two clients, and with one for a
    server of another name."""
    authority = certificates.Certificates(str(folder))
    authority.server()
    authority.issue("cert_user", "cert_user")
    authority.issue("stranger", "stranger")
    authority.issue("elsewhere", "elsewhere.test", ["DNS:elsewhere.test"])
    return authority


# Knocking

def outside_address():
    """An IPv4 address of this machine's that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = struct.pack("40s", name.encode())
            try:
                answer = fcntl.ioctl(sock, 0x8915, request)  # SIOCGIFADDR
            except OSError:
                continue
            address = socket.inet_ntoa(answer[20:24])
            if not address.startswith("127."):
                return address
    return pytest.skip("this machine has no address but loopback")


def knock(pooler, host="127.0.0.1", source=None, tls=None, direct=False):
    """A connection on which nothing of a login has been said. tls is a
    context; source an address to come from."""
    if source is None:
        link = wire.Wire.connect(pooler.port, host)
    else:
        link = wire.Wire(socket.create_connection(
            (host, pooler.port), wire.TIME_LIMIT, (source, 0)))
    try:
        if tls is not None:
            link.start_tls(tls, direct=direct)
        return link
    except BaseException:
        link.close()
        raise


def log_in(pooler, user="app", password=None, database="app", bound=False,
           **how):
    """A connection past login; how as for knock(). bound: by SCRAM-PLUS."""
    link = knock(pooler, **how)
    try:
        binding = wire.certificate_hash(link.sock) if bound else None
        return link.login(user, secret(user) if password is None
                          else password, database, binding=binding)
    except BaseException:
        link.close()
        raise


def refusal(pooler, user="app", password=None, database="app", **how):
    """The error by which a login is turned away."""
    with pytest.raises(wire.ServerError) as error:
        log_in(pooler, user, password, database, **how).close()
    assert error.value.severity == "FATAL"
    return error.value


def is_let_in(pooler, user="app", password=None, database="app", **how):
    """Logs in and has a query answered."""
    with log_in(pooler, user, password, database, **how) as client:
        assert client.value("SELECT 1") == "1"
    return True


def is_let_in_by_now(pooler, *who, **how):
    """For wait_until(), while a RELOAD is under way: False, not an error."""
    try:
        return is_let_in(pooler, *who, **how)
    except wire.ServerError:
        return False


def is_refused(pooler, user="app", password=None, database="app", **how):
    """Turned away with the one text that tells nothing."""
    error = refusal(pooler, user, password, database, **how)
    assert error.sqlstate == "28P01", error
    assert error.text == f'password authentication failed for user "{user}"'
    return True


def psql(pooler, sql="SELECT 1", user="app", host="127.0.0.1", **options):
    """A completed run of psql; options are libpq's."""
    words = {"host": host, "port": pooler.port, "user": user,
             "dbname": "app", "password": secret(user), **options}
    conninfo = " ".join(f"{name}='{value}'" for name, value in words.items())
    return subprocess.run(["psql", "-XAtqc", sql, conninfo], text=True,
                          capture_output=True, timeout=60, check=False)


# A server

TRUST, CLEARTEXT, MD5 = "trust", "cleartext", "md5"


class FakeServer:
    """Speaks just enough of the protocol to be logged in to, and notes in
    .seen (a queue) what it was told:

        ("tls", name in SNI or None, is it a session taken up again?)
        ("no tls", why)             a handshake that failed
        ("startup", parameters)
        ("password", bytes)
        ("gone", None)              closed before the login was through
        ("query", text)             one with "hang" in it hangs until then:
        ("cancel", over TLS?)

    context: that of its TLS, or it has none. stuffing: bytes that come with
    the answer to SSLRequest. path: of a folder for a unix socket.
    """

    def __init__(self, method=TRUST, context=None, host="127.0.0.1",
                 path=None, stuffing=b""):
        self.method = method
        self.context = context
        self.stuffing = stuffing
        self.seen = queue.Queue()
        self.names = {}             # thread -> name in SNI
        self.cancelled = threading.Event()
        if context is not None:
            context.sni_callback = self._note_name
        self.host = path or host
        if path is not None:
            self.port = 5432
            self.listening = socket.socket(socket.AF_UNIX)
            self.listening.bind(f"{path}/.s.PGSQL.{self.port}")
            self.listening.listen(16)
        else:
            self.listening = socket.create_server((host, 0))
            self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.listening.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listening.close()

    def entry(self, host=None, **more):
        """For [databases]."""
        words = {"host": host or self.host, "port": self.port,
                 "user": "app", "password": secret("app"), **more}
        return " ".join(f"{name}={value}" for name, value in words.items())

    def saw(self, kind):
        """Waits for something of this kind; returns the rest of it."""
        while True:
            what, *rest = self.seen.get(timeout=wire.TIME_LIMIT)
            if what == kind:
                return rest if len(rest) > 1 else rest[0]

    def _note_name(self, _, name, __):
        self.names[threading.get_ident()] = name

    def _accept(self):
        while True:
            try:
                sock, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,),
                             daemon=True).start()

    def _serve(self, sock):
        link = wire.Wire(sock)
        try:
            self._welcome(link)
        except (wire.Closed, OSError):
            self.seen.put(("gone", None))
        else:
            self._answer_queries(link)
        finally:
            link.close()

    def _welcome(self, link):
        code, body = self._packet(link)
        if code == wire.SSL_CODE:
            link.send((b"N" if self.context is None else b"S")
                      + self.stuffing)
            if self.context is not None:
                self._start_tls(link)
            code, body = self._packet(link)
        if code == wire.CANCEL_CODE:
            self.seen.put(("cancel", isinstance(link.sock, ssl.SSLSocket)))
            self.cancelled.set()
            raise wire.Closed("that was all")
        words = body.rstrip(b"\0").decode().split("\0")
        self.seen.put(("startup", dict(zip(words[::2], words[1::2]))))
        if self.method != TRUST:
            link.send(wire.message("R", struct.pack("!I", 3))
                      if self.method == CLEARTEXT else
                      wire.message("R", struct.pack("!I", 5), b"salt"))
            self.seen.put(("password", link.next().body))
        link.send(wire.message("R", struct.pack("!I", 0)),
                  wire.message("S", wire.text("server_version"),
                               wire.text("15.0")),
                  wire.message("K", struct.pack("!II", 1, 2)),
                  wire.message("Z", b"I"))

    def _start_tls(self, link):
        try:
            link.sock = self.context.wrap_socket(link.sock, server_side=True)
        except OSError as error:
            self.seen.put(("no tls", str(error)))
            raise
        self.seen.put(("tls", self.names.pop(threading.get_ident(), None),
                       link.sock.session_reused))

    @staticmethod
    def _packet(link):
        length, code = struct.unpack("!II", link.receive(8))
        return code, link.receive(length - 8)

    def _answer_queries(self, link):
        try:
            while (got := link.next()).kind != "X":
                self.seen.put(("query", got.tag))
                if "hang" in got.tag:
                    self.cancelled.wait(wire.TIME_LIMIT)
                link.send(wire.message("C", wire.text("SELECT 0")),
                          wire.message("Z", b"I"))
        except (wire.Closed, OSError):
            pass


class Middleman:
    """Sits between pgsluice and a Postgres with TLS, with a certificate of
    its own: it reads along, and can change nothing."""

    def __init__(self, cluster, context):
        self.cluster = cluster
        self.context = context
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._sit, args=(sock,),
                             daemon=True).start()

    def _sit(self, sock):
        here, there = wire.Wire(sock), wire.Wire.connect(self.cluster.port)
        try:
            assert here.receive(8) == wire.ssl_request()
            here.send(b"S")
            here.sock = self.context.wrap_socket(here.sock, server_side=True)
            there.start_tls(trusting())
            while True:
                ready = select.select([here.sock, there.sock], [], [])[0]
                for one, other in ((here, there), (there, here)):
                    if one.sock in ready:
                        other.send(one.sock.recv(1 << 16))
                        while one.sock.pending():
                            other.send(one.sock.recv(1 << 16))
        except (wire.Closed, OSError):
            pass
        finally:
            here.close()
            there.close()
