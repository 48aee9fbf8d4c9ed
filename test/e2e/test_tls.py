"""TLS to clients and to servers: every sslmode, certificates good and bad,
reloads, cancels, and what somebody in between can do (nothing)."""

import concurrent.futures
import os
import shutil
import signal
import ssl
import subprocess

import psycopg2
import pytest

import wire
from login_tools import (
    TRUST, FakeServer, Middleman, client_tls, holding, is_let_in, knock,
    log_in, make_authority, psql, refusal, serving, stored_secret, trusting,
    verifying)
from pgsluice import Postgres, secret, wait_until

pytestmark = pytest.mark.core

MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


@pytest.fixture(name="forced")
def fixture_forced(start_pgsluice, postgres):
    """start_pgsluice() whose servers need nothing of the clients."""
    def start_one(**settings):
        settings.setdefault("databases", {
            "app": f"host=127.0.0.1 port={postgres.port} user=app "
                   f"password={secret('app')}"})
        return start_pgsluice(**settings)

    return start_one


@pytest.fixture(name="other_authority", scope="module")
def fixture_other_authority(tmp_path_factory):
    """One that nobody trusts."""
    return make_authority(tmp_path_factory.mktemp("other-authority"))


def fails(function, *arguments, **named):
    """A handshake that does not come to an end, or ends at once."""
    with pytest.raises((OSError, wire.Closed)):
        client = function(*arguments, **named)
        with client:
            # in TLS 1.3 the server's "no" may come after the client's end
            client.send(wire.startup(user="app", database="app"))
            client.receive(1)
    return True


# To clients: every mode against every mode

def libpq(pooler, authority, sslmode, certificate=None):
    """Is TLS in use (True, False), or None: not let in."""
    options = {"sslrootcert": authority.ca, "gssencmode": "disable",
               "sslcert": "/nonexistent", "sslkey": "/nonexistent"}
    if certificate:
        options.update(sslcert=authority.path(certificate + ".crt"),
                       sslkey=authority.path(certificate + ".key"))
    try:
        link = psycopg2.connect(pooler.url(), sslmode=sslmode, **options)
    except psycopg2.OperationalError:
        return None
    try:
        with link, link.cursor() as cursor:
            cursor.execute("SELECT 6 * 7")
            assert cursor.fetchone() == (42,)
        return link.info.ssl_in_use
    finally:
        link.close()


PLAIN_ONLY = [False, False, False, None, None, None]
AS_ASKED = [False, False, True, True, True, True]
TLS_ONLY = [None, True, True, True, True, True]


@pytest.mark.parametrize("sslmode, certificate, expected", [
    ("disable", None, PLAIN_ONLY),
    ("allow", None, AS_ASKED),
    ("prefer", None, AS_ASKED),
    ("require", None, TLS_ONLY),
    ("verify-ca", "cert_user", TLS_ONLY),
    ("verify-full", "cert_user", TLS_ONLY),
    ("verify-ca", None, [None] * 6),
    ("verify-full", None, [None] * 6),
])
def test_each_sslmode_meets_each_of_libpqs(forced, authority, sslmode,
                                           certificate, expected):
    pooler = forced(**client_tls(authority, sslmode))
    got = [libpq(pooler, authority, mode, certificate) for mode in MODES]
    assert got == expected


def test_what_libpq_verifies_is_the_certificate(forced, authority,
                                                other_authority):
    pooler = forced(**client_tls(authority, "prefer", "elsewhere"))
    assert libpq(pooler, authority, "verify-ca") is True
    assert libpq(pooler, authority, "verify-full") is None
    assert libpq(pooler, other_authority, "verify-ca") is None


def test_who_must_use_tls_is_told_so(forced, authority):
    pooler = forced(**client_tls(authority))
    error = refusal(pooler)
    assert (error.sqlstate, error.text) == ("28000", "SSL required")


def test_the_unix_socket_needs_no_tls(forced, authority):
    pooler = forced(**client_tls(authority))
    assert is_let_in(pooler, host=pooler.folder)
    with knock(pooler, host=pooler.folder) as client:
        client.send(wire.ssl_request())
        assert client.receive(1) == b"N"
        client.login("app", secret("app"), "app")


def test_a_client_certificate_must_be_of_the_right_authority(
        forced, authority, other_authority):
    pooler = forced(**client_tls(authority, "verify-full"))
    assert is_let_in(pooler, tls=holding(authority, "cert_user"))
    assert fails(knock, pooler, tls=holding(other_authority, "cert_user"))
    authority.issue("late", "cert_user", days=-1)
    assert fails(knock, pooler, tls=holding(authority, "late"))


# The handshake

def offers(*protocols):
    context = trusting()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def direct(pooler, context):
    """TLS without asking first; the context says which ALPN."""
    link = wire.Wire.connect(pooler.port)
    try:
        link.sock = context.wrap_socket(link.sock,
                                        server_hostname="localhost")
        return link
    except BaseException:
        link.close()
        raise


def test_direct_tls_with_alpn_is_welcome(forced, authority):
    pooler = forced(**client_tls(authority))
    assert is_let_in(pooler, tls=trusting(), direct=True)
    with direct(pooler, offers("h2", "postgresql")) as client:
        assert client.sock.selected_alpn_protocol() == "postgresql"
        client.login("app", secret("app"), "app",
                     binding=wire.certificate_hash(client.sock))
        assert client.value("SELECT 1") == "1"


def test_direct_tls_without_the_right_alpn_is_closed(forced, authority):
    pooler = forced(auth_type="trust", **client_tls(authority))
    assert fails(direct, pooler, offers())
    assert fails(direct, pooler, offers("h2"))
    assert fails(direct, pooler, offers("postgresq"))
    assert is_let_in(pooler, tls=trusting(), direct=True)


def test_direct_tls_is_closed_where_there_is_no_tls(forced):
    assert fails(direct, forced(), offers("postgresql"))


def test_tls_that_was_asked_for_needs_no_alpn_but_no_wrong_one(forced,
                                                               authority):
    pooler = forced(**client_tls(authority))
    assert is_let_in(pooler, tls=offers())
    assert is_let_in(pooler, tls=offers("postgresql"))
    assert fails(knock, pooler, tls=offers("h2"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_1_2_is_the_oldest_that_is_spoken(forced, authority):
    pooler = forced(client_tls_protocols="all", **client_tls(authority))

    def at_most(version):
        context = trusting()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
        return context

    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        assert fails(knock, pooler, tls=at_most(version))
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
                          (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        with log_in(pooler, tls=at_most(version)) as client:
            assert client.sock.version() == name


def test_protocols_can_be_narrowed_to_tls_1_3(forced, authority):
    pooler = forced(client_tls_protocols="tlsv1.3", **client_tls(authority))
    old = trusting()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert fails(knock, pooler, tls=old)
    assert is_let_in(pooler, tls=trusting())


@pytest.mark.parametrize("kind, digest", [
    ("ec", "sha256"), ("ec", "sha384"), ("rsa", "sha256"),
    ("rsa", "sha512")])
def test_keys_of_both_kinds_serve_and_bind(forced, authority, kind, digest):
    name = f"server-{kind}-{digest}"
    authority.server(name, kind=kind, digest=digest)
    pooler = forced(**client_tls(authority, "require", name))
    # libpq checks the chain, the name, and binds by the signature's digest
    result = psql(pooler, sslmode="verify-full", sslrootcert=authority.ca,
                  channel_binding="require")
    assert result.stdout == "1\n", result.stderr


def test_the_console_says_which_tls_is_in_use(start_pgsluice, authority,
                                              postgres_tls):
    pooler = start_pgsluice(postgres_tls, server_tls_sslmode="require",
                            **client_tls(authority, "prefer"))
    with log_in(pooler, tls=trusting()) as client:
        client.value("SELECT 1")
        tls, = {row["tls"] for row in pooler.console("SHOW CLIENTS")
                if row["database"] == "app"}
        assert tls == f"TLSv1.3/{client.sock.cipher()[0]}"
        tls, = {row["tls"] for row in pooler.console("SHOW SERVERS")}
        assert tls.startswith("TLSv1.3/")


# Requests for encryption

def all_bytes(client):
    """Whatever comes until the other side closes."""
    data = b""
    try:
        while True:
            got = client.sock.recv(1 << 16)
            if not got:
                return data
            data += got
    except ConnectionResetError:
        return data


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
@pytest.mark.parametrize("request_", [wire.ssl_request(),
                                      wire.gssenc_request()],
                         ids=["ssl", "gss"])
def test_bytes_stuffed_behind_a_request_for_encryption_end_it(
        forced, authority, sslmode, request_):
    pooler = forced(auth_type="trust", **client_tls(authority, sslmode))
    with knock(pooler) as client:
        client.send(request_, wire.startup(user="app", database="app"))
        data = all_bytes(client)
    # neither is it let in nor does it get any answer to the request
    assert data[:1] == b"E" and b"08P01" in data


def test_gssenc_is_declined_and_ssl_may_follow(forced, authority):
    pooler = forced(**client_tls(authority))
    with knock(pooler) as client:
        client.send(wire.gssenc_request())
        assert client.receive(1) == b"N"
        client.start_tls(trusting())
        client.login("app", secret("app"), "app")
        assert client.value("SELECT 1") == "1"


def test_ssl_may_be_declined_and_gssenc_may_follow(forced):
    with knock(forced()) as client:
        client.send(wire.ssl_request())
        assert client.receive(1) == b"N"
        client.send(wire.gssenc_request())
        assert client.receive(1) == b"N"
        client.login("app", secret("app"), "app")


def test_each_request_for_encryption_is_made_once(forced, authority):
    pooler = forced(auth_type="trust")
    for packet in (wire.ssl_request(), wire.gssenc_request()):
        with knock(pooler) as client:
            client.send(packet)
            assert client.receive(1) == b"N"
            client.send(packet)
            assert client.next().sqlstate == "08P01"
            assert client.until_closed() == []
    inside = forced(auth_type="trust", **client_tls(authority))
    for packet in (wire.ssl_request(), wire.gssenc_request()):
        with knock(inside, tls=trusting()) as client:
            client.send(packet)
            assert client.next().sqlstate == "08P01"


def test_no_handshake_no_login(forced, authority):
    pooler = forced(auth_type="trust", **client_tls(authority, "prefer"))
    with knock(pooler) as client:
        client.send(wire.ssl_request())
        assert client.receive(1) == b"S"
        client.send(wire.startup(user="app", database="app"))
        data = all_bytes(client)
    assert b"R\0\0\0\x08" not in data
    pooler.wait_log("TLS handshake failed")
    assert is_let_in(pooler, tls=trusting())


# Through it

def test_much_goes_through_tls_both_ways(forced, authority):
    pooler = forced(**client_tls(authority))
    with log_in(pooler, tls=trusting()) as client:
        got = client.value("SELECT repeat('0123456789', 2000000)")
        assert got == "0123456789" * 2000000
        text = "abcdefghij" * 1000000
        assert client.value(f"SELECT md5('{text}') = "
                            "md5(repeat('abcdefghij', 1000000))") == "t"


def test_two_hundred_clients_log_in_over_tls_at_once(forced, authority):
    pooler = forced(**client_tls(authority), default_pool_size=5)

    def one(number):
        with log_in(pooler, tls=trusting(), bound=True) as client:
            return client.value(f"SELECT {number} + 1") == str(number + 1)

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        assert all(pool.map(one, range(200)))


def is_sleeping(cluster):
    return cluster.rows("SELECT 1 FROM pg_stat_activity WHERE state = "
                        "'active' AND query = 'SELECT pg_sleep(60)'")


@pytest.mark.parametrize("over_tls", [True, False])
def test_a_cancel_may_come_over_tls_or_plain(forced, authority, postgres,
                                             over_tls):
    pooler = forced(**client_tls(authority))
    with log_in(pooler, tls=trusting()) as client:
        client.send(wire.query("SELECT pg_sleep(60)"))
        wait_until(lambda: is_sleeping(postgres), "the query at work")
        with knock(pooler, tls=trusting() if over_tls else None) as other:
            other.send(wire.cancel_request(client.pid, client.key))
            other.until_closed()
        answer = client.until_ready()
        assert [got.sqlstate for got in answer if got.kind == "E"] \
            == ["57014"]
        assert client.value("SELECT 1") == "1"


def test_psql_cancels_where_tls_is_required(forced, authority, postgres):
    """libpq 15 never encrypts a cancel."""
    pooler = forced(**client_tls(authority))
    with subprocess.Popen(
            ["psql", "-XAtqc", "SELECT pg_sleep(60)",
             pooler.url() + "?sslmode=require"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True) as process:
        wait_until(lambda: is_sleeping(postgres), "psql's query at work")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=wire.TIME_LIMIT)
    assert "canceling statement due to user request" in said


# Reload

def copy_certificate(authority, pooler, name="server"):
    for ending in ("crt", "key"):
        shutil.copy(authority.path(f"{name}.{ending}"),
                    pooler.path(f"server.{ending}"))


@pytest.mark.parametrize("how", ["RELOAD", "SIGHUP"])
def test_new_certificates_are_taken_and_old_sessions_go_on(
        forced, authority, other_authority, how):
    pooler = forced(**client_tls(authority, "prefer"))
    copy_certificate(authority, pooler)
    pooler.configure(client_tls_cert_file=pooler.path("server.crt"),
                     client_tls_key_file=pooler.path("server.key"))
    old, new = verifying(authority.ca), verifying(other_authority.ca)
    with log_in(pooler, tls=old) as client:
        assert fails(knock, pooler, tls=new)
        copy_certificate(other_authority, pooler)
        assert is_let_in(pooler, tls=old)   # nobody has said so yet
        if how == "RELOAD":
            pooler.console("RELOAD")
        else:
            pooler.send_signal(signal.SIGHUP)

        def new_is_shown():
            try:
                return is_let_in(pooler, tls=new)
            except OSError:
                return False

        wait_until(new_is_shown, "the new certificate in use")
        assert fails(knock, pooler, tls=old)
        assert client.value("SELECT 6 * 7") == "42"


def test_a_bad_certificate_is_refused_and_the_old_one_stays(forced,
                                                            authority):
    pooler = forced(**client_tls(authority, "prefer"))
    copy_certificate(authority, pooler)
    pooler.configure(client_tls_cert_file=pooler.path("server.crt"),
                     client_tls_key_file=pooler.path("server.key"))
    # a key that does not belong to it
    shutil.copy(authority.path("elsewhere.key"), pooler.path("server.key"))
    with pytest.raises(wire.ServerError):
        pooler.console("RELOAD")
    os.truncate(pooler.path("server.crt"), 100)
    with pytest.raises(wire.ServerError):
        pooler.console("RELOAD")
    os.unlink(pooler.path("server.crt"))
    with pytest.raises(wire.ServerError):
        pooler.console("RELOAD")
    assert is_let_in(pooler, tls=verifying(authority.ca))


def test_tls_can_be_turned_on_and_off_by_a_reload(forced, authority):
    pooler = forced()
    assert fails(knock, pooler, tls=trusting())
    pooler.configure(**client_tls(authority, "prefer"))
    with log_in(pooler, tls=trusting()) as client:
        pooler.configure(client_tls_sslmode="disable")
        assert fails(knock, pooler, tls=trusting())
        assert client.value("SELECT 1") == "1"


# To servers

def over_tls(pooler, database):
    """Does this entry's server connection use TLS? None: there is none."""
    try:
        with log_in(pooler, database=database) as client:
            return client.value("SELECT ssl FROM pg_stat_ssl "
                                "WHERE pid = pg_backend_pid()") == "t"
    except wire.ServerError as error:
        assert error.sqlstate == "57P03", error
        return None


@pytest.mark.parametrize("fixture, expected", [
    ("postgres_tls", [False, True, True, True, True, True]),
    ("postgres", [False, False, False, None, None, None])])
def test_each_sslmode_to_servers_with_tls_and_without(
        start_pgsluice, request, authority, fixture, expected):
    cluster = request.getfixturevalue(fixture)
    ca = cluster.certificates.ca if cluster.tls else authority.ca
    where = f"host=127.0.0.1 port={cluster.port} dbname=app"
    pooler = start_pgsluice(
        cluster, server_tls_ca_file=ca, server_login_retry=0,
        databases={mode: f"{where} sslmode={mode}" for mode in MODES})
    assert [over_tls(pooler, mode) for mode in MODES] == expected
    # and as the setting for all
    pooler = start_pgsluice(
        cluster, server_tls_ca_file=ca, databases={"app": where},
        server_tls_sslmode="verify-full" if cluster.tls else "prefer")
    assert over_tls(pooler, "app") == cluster.tls


def fake_login(start_pgsluice, server, ca=None, **entry):
    """Logs in to a fake server; returns the refusal, or None."""
    pooler = start_pgsluice(databases={"app": server.entry(
        **({"sslrootcert": ca} if ca else {}), **entry)},
        server_login_retry=0)
    try:
        log_in(pooler).close()
        return None
    except wire.ServerError as error:
        return error


def test_a_server_of_another_name_is_no_server(start_pgsluice, authority):
    with FakeServer(TRUST, serving(authority, "elsewhere")) as server:
        for host in ("localhost", "127.0.0.1"):
            error = fake_login(start_pgsluice, server, authority.ca,
                               host=host, sslmode="verify-full")
            assert "TLS: " in error.fields["D"]
            assert server.saw("no tls")
            assert fake_login(start_pgsluice, server, authority.ca,
                              host=host, sslmode="verify-ca") is None
            assert server.saw("startup")


def test_a_server_of_another_authority_is_no_server(
        start_pgsluice, authority, other_authority):
    with FakeServer(TRUST, serving(other_authority)) as server:
        for mode in ("verify-ca", "verify-full"):
            assert fake_login(start_pgsluice, server, authority.ca,
                              host="localhost", sslmode=mode)
            assert server.saw("no tls")
        for mode in ("prefer", "require"):
            assert not fake_login(start_pgsluice, server, sslmode=mode)
            assert server.saw("startup")


def test_a_server_whose_certificate_has_expired_is_no_server(
        start_pgsluice, authority):
    authority.server("expired", days=-1)
    with FakeServer(TRUST, serving(authority, "expired")) as server:
        assert fake_login(start_pgsluice, server, authority.ca,
                          sslmode="verify-ca")
        assert server.saw("no tls")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_a_server_that_speaks_old_tls_only_is_not_spoken_to(start_pgsluice,
                                                            authority):
    context = serving(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with FakeServer(TRUST, context) as server:
        # it does speak that
        old = trusting()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        with wire.Wire.connect(server.port) as client:
            client.start_tls(old)
            assert client.sock.version() == "TLSv1.1"
        assert server.saw("gone") is None
        assert fake_login(start_pgsluice, server, sslmode="require")
        assert server.saw("no tls")


def test_bytes_stuffed_behind_a_servers_answer_end_it(start_pgsluice,
                                                      authority):
    error = wire.message("E", b"SFATAL\0C28000\0Mforged\0\0")
    for context in (None, serving(authority)):
        with FakeServer(TRUST, context, stuffing=error) as server:
            refused = fake_login(start_pgsluice, server, sslmode="prefer")
            assert "behind the answer" in refused.fields["D"]
            assert server.saw("gone") is None


def test_a_server_is_told_which_name_is_meant(start_pgsluice, authority):
    with FakeServer(TRUST, serving(authority)) as server:
        for host, name in (("localhost", "localhost"), ("127.0.0.1", None)):
            assert not fake_login(start_pgsluice, server, authority.ca,
                                  host=host, sslmode="verify-full")
            assert server.saw("tls")[0] == name


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_servers_session_is_taken_up_again(start_pgsluice, authority,
                                             version):
    context = serving(authority)
    context.maximum_version = ssl.TLSVersion[version]
    with FakeServer(TRUST, context) as server:
        pooler = start_pgsluice(databases={"app": server.entry(
            host="localhost", sslmode="verify-full",
            sslrootcert=authority.ca)})
        with log_in(pooler) as client:
            resumed = []
            for _ in range(3):
                client.query("SELECT 1")
                resumed.append(server.saw("tls")[1])
                pooler.console("RECONNECT")
        assert resumed == [False, True, True]


def test_a_session_that_nobody_verified_is_not_taken_up_by_who_verifies(
        start_pgsluice, other_authority, authority):
    with FakeServer(TRUST, serving(other_authority)) as server:
        pooler = start_pgsluice(server_login_retry=0, databases={
            "careless": server.entry("localhost", sslmode="require"),
            "careful": server.entry("localhost", sslmode="verify-full",
                                    sslrootcert=authority.ca)})
        log_in(pooler, database="careless").close()
        assert server.saw("tls")
        assert refusal(pooler, database="careful").sqlstate == "57P03"
        assert server.saw("no tls")


def test_a_cancel_goes_to_the_server_over_tls_too(start_pgsluice, authority):
    with FakeServer(TRUST, serving(authority)) as server:
        pooler = start_pgsluice(databases={"app": server.entry(
            "localhost", sslmode="verify-full", sslrootcert=authority.ca)})
        with log_in(pooler) as client:
            client.send(wire.query("hang"))
            assert server.saw("query") == "hang"
            with knock(pooler) as other:
                other.send(wire.cancel_request(client.pid, client.key))
                other.until_closed()
            assert server.saw("cancel") is True
            client.until_ready()


def test_a_server_may_ask_for_our_certificate(start_pgsluice, postgres_tls):
    where = f"host=127.0.0.1 port={postgres_tls.port} dbname=app"
    theirs = postgres_tls.certificates
    pooler = start_pgsluice(
        postgres_tls, server_tls_sslmode="require", server_login_retry=0,
        secrets={"cert_user": "anything"}, databases={
            "app": f"{where} sslcert={theirs.path('client.crt')} "
                   f"sslkey={theirs.path('client.key')}",
            "without": where})
    with log_in(pooler, "cert_user", "anything") as client:
        assert client.value("SELECT session_user") == "cert_user"
    error = refusal(pooler, "cert_user", "anything", "without")
    assert error.sqlstate == "28000"


# Channel binding to servers

def bound_entries(cluster, where=None):
    where = where or f"host=127.0.0.1 port={cluster.port} dbname=app"
    return {mode: f"{where} sslmode=require channel_binding={mode}"
            for mode in ("disable", "prefer", "require")}


@pytest.mark.parametrize("version", ["15", "18"])
@pytest.mark.parametrize("kept", ["plain", "verifier"])
def test_a_server_may_have_to_prove_itself_by_channel_binding(
        start, start_pgsluice, postgres_tls, version, kept):
    cluster = postgres_tls if version == "15" else \
        start(Postgres, version=version, tls=True)
    pooler = start_pgsluice(
        cluster, databases=bound_entries(cluster), server_login_retry=0,
        secrets={"app": secret("app") if kept == "plain" else
                 stored_secret(cluster, "app")})
    for database in pooler.databases:
        with log_in(pooler, database=database) as client:
            assert client.value("SELECT session_user") == "app"


def test_where_binding_is_required_no_other_proof_will_do(
        start_pgsluice, postgres_tls):
    pooler = start_pgsluice(postgres_tls, server_login_retry=0,
                            databases=bound_entries(postgres_tls))
    for user in ("md5_user", "password_user", "trust_user"):
        if user != "password_user":         # not in clear without verifying
            assert is_let_in(pooler, user, database="prefer")
        error = refusal(pooler, user, database="require")
        assert "channel binding is required" in error.text


def test_where_binding_is_required_a_server_without_tls_will_not_do(
        start_pgsluice, postgres):
    pooler = start_pgsluice(
        postgres, server_login_retry=0, databases={
            "app": f"postgres://127.0.0.1:{postgres.port}/app"
                   "?sslmode=prefer&channel_binding=require"})
    assert "channel binding is required" in refusal(pooler).text


def test_somebody_in_between_cannot_log_in_for_us(start_pgsluice, authority,
                                                  postgres_tls):
    with Middleman(postgres_tls, serving(authority)) as middle:
        pooler = start_pgsluice(
            postgres_tls, server_login_retry=0, databases=bound_entries(
                postgres_tls,
                f"host=127.0.0.1 port={middle.port} dbname=app"))
        for database in ("prefer", "require"):
            assert refusal(pooler, database=database).sqlstate in (
                "28P01", "28000", "08P01")
        # unless it was let in on purpose
        assert is_let_in(pooler, database="disable")
