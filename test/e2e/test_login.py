"""Logins: who gets in, by which proof, and what the others learn."""

import os
import re
import select
import signal
import struct
import subprocess

import psycopg2
import pytest

import wire
from login_tools import (
    CLEARTEXT, MD5, FakeServer, client_tls, holding, is_let_in,
    is_let_in_by_now, is_refused,
    knock, log_in, md5, outside_address, psql, refusal, serving,
    stored_secret, trusting, verifier)
from pgsluice import Pgsluice, read, secret, wait_until, write

pytestmark = pytest.mark.core

KINDS = {
    "plain": lambda user: secret(user),
    "md5": lambda user: md5(user, secret(user)),
    "verifier": lambda user: verifier(secret(user)),
}


def all_of(kind):
    """The secrets of app and of the console's users, all of this kind."""
    return {user: KINDS[kind](user) for user in ("app", "admin", "stats")}


def to_postgres(cluster, user="app", database="app"):
    """An entry that logs in as this user, whoever the client is."""
    return (f"host=127.0.0.1 port={cluster.port} dbname={database} "
            f"user={user} password={secret(user)}")


@pytest.fixture(name="forced")
def fixture_forced(start_pgsluice, postgres):
    """start_pgsluice() whose servers need nothing of the clients: what is
    tested is the client's side alone."""
    def start_one(**settings):
        return start_pgsluice(databases={"app": to_postgres(postgres)},
                              **settings)

    return start_one


# Trust, plain, md5

def test_trust_asks_clients_on_this_machine_for_nothing(forced):
    pooler = forced(auth_type="trust")
    assert is_let_in(pooler, password="wrong")
    assert is_let_in(pooler, password="wrong", host=pooler.folder)
    with wire.Wire.connect(pooler.port) as client:
        client.send(wire.startup(user="app", database="app"))
        assert client.next() == wire.Message("R", struct.pack("!I", 0))


def test_trust_is_for_users_that_are_known(forced):
    pooler = forced(auth_type="trust")
    assert is_let_in(pooler, "scram_user", password="wrong", database="app")
    assert is_refused(pooler, "stranger", database="app")
    hba(pooler, "host app all 127.0.0.1/32 trust",
        "local all all scram-sha-256")
    assert is_let_in(pooler, "scram_user", password="wrong", database="app")
    assert is_refused(pooler, "stranger", database="app")


def test_trust_asks_auth_query_for_who_is_known(start_pgsluice, postgres):
    pooler = start_pgsluice(
        databases={"app": to_postgres(postgres)}, auth_type="trust",
        secrets={user: secret(user) for user in ("admin", "trust_user")},
        auth_user="trust_user",
        auth_query="SELECT $1::text, CASE $1 WHEN 'app' THEN 'x' END"
                   " WHERE $1 IN ('app', 'scram_user')")
    assert is_let_in(pooler, password="wrong")
    assert is_refused(pooler, "stranger", database="app")
    # one without a password
    assert is_let_in(pooler, "scram_user", password="wrong", database="app")
    pooler.configure(auth_type="plain")
    assert is_let_in(pooler, password="x")
    assert is_refused(pooler, "scram_user", password="x", database="app")
    assert is_refused(pooler, "scram_user", password="", database="app")


def test_trust_is_for_this_machine_only(forced):
    outside = outside_address()
    pooler = forced(auth_type="trust", listen_addr="*")
    assert is_refused(pooler, host=outside)
    assert is_let_in(pooler)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_checks_a_password_against_any_kind_of_secret(forced, kind):
    pooler = forced(auth_type="plain", secrets=all_of(kind))
    for host in ("127.0.0.1", pooler.folder):
        assert is_let_in(pooler, host=host)
        assert is_refused(pooler, password="wrong", host=host)


def test_plain_is_refused_without_tls_but_on_this_machine(forced, authority):
    outside = outside_address()
    pooler = forced(auth_type="plain", listen_addr="*",
                    **client_tls(authority, "prefer"))
    assert is_let_in(pooler, host=outside, tls=trusting())
    with knock(pooler, host=outside) as client:
        client.send(wire.startup(user="app", database="app"))
        # it was not even asked for its password
        assert [got.kind for got in client.until_closed()] == ["E"]


@pytest.mark.parametrize("kind", KINDS)
def test_md5_takes_md5_or_scram_as_the_secret_needs(forced, kind):
    pooler = forced(auth_type="md5", secrets=all_of(kind))
    assert is_let_in(pooler)
    assert is_refused(pooler, password="wrong")
    with wire.Wire.connect(pooler.port) as client:
        client.send(wire.startup(user="app", database="app"))
        asked, = struct.unpack_from("!I", client.next().body)
        assert asked == (10 if kind == "verifier" else 5)


# SCRAM

@pytest.mark.parametrize("kind", ["plain", "verifier"])
def test_scram_takes_a_plain_secret_or_a_verifier(forced, kind):
    pooler = forced(secrets=all_of(kind))
    assert is_let_in(pooler)
    assert is_refused(pooler, password="wrong")
    assert is_refused(pooler, password="")


def test_scram_refuses_who_has_only_an_md5_secret(forced):
    pooler = forced(secrets={**all_of("plain"),
                             "app": KINDS["md5"]("app")})
    assert is_refused(pooler)
    pooler.wait_log("password authentication failed")
    assert is_let_in(pooler, "admin", database="app")


def test_a_verifier_keeps_its_own_number_of_iterations(forced):
    pooler = forced(scram_iterations=5000, secrets={
        "app": verifier(secret("app"), iterations=7000), "admin": "plain"})
    for user, iterations in (("app", b"i=7000"), ("admin", b"i=5000"),
                             ("nobody", b"i=5000")):
        with wire.Wire.connect(pooler.port) as client:
            client.send(wire.startup(user=user, database="app"))
            scram = wire.Scram("any")
            client.next()
            client.send(sasl_first(scram))
            assert client.next().body.endswith(iterations)


def sasl_first(scram, mechanism=None):
    first = scram.client_first()
    return wire.message("p", wire.text(mechanism or scram.mechanism),
                        struct.pack("!I", len(first)), first)


def sasl(client, scram, user="app", mechanism=None):
    """A SCRAM exchange step by step, up to what the proof is answered
    with."""
    client.send(wire.startup(user=user, database="app"))
    client.next()
    client.send(sasl_first(scram, mechanism))
    got = client.next()
    if got.kind == "E":
        return got
    client.send(wire.message("p", scram.client_final(got.body[4:])))
    return client.next()


@pytest.fixture(name="bound")
def fixture_bound(forced, authority):
    """Over TLS, so that SCRAM can be bound to it."""
    return forced(**client_tls(authority, "prefer"))


@pytest.mark.parametrize("kind", ["plain", "verifier"])
def test_scram_plus_binds_the_login_to_the_tls(forced, authority, kind):
    pooler = forced(secrets=all_of(kind), **client_tls(authority))
    assert is_let_in(pooler, tls=trusting(), bound=True)
    assert is_refused(pooler, password="no", tls=trusting(), bound=True)
    link = psycopg2.connect(pooler.url(), sslmode="require",
                            channel_binding="require")
    link.close()
    result = psql(pooler, sslmode="require", channel_binding="require")
    assert result.stdout == "1\n", result.stderr


def test_scram_plus_is_not_offered_without_tls(bound):
    with knock(bound) as client:
        client.send(wire.startup(user="app", database="app"))
        assert b"PLUS" not in client.next().body
    result = psql(bound, sslmode="disable", channel_binding="require")
    assert "channel binding" in result.stderr


def test_a_login_bound_to_another_certificate_is_refused(bound):
    with knock(bound, tls=trusting()) as client:
        scram = wire.Scram(secret("app"), binding=b"x" * 32)
        assert sasl(client, scram).sqlstate == "28P01"


def test_taking_the_offer_of_binding_away_is_noticed(bound):
    """Flag y: "I could, but you did not offer". It did; somebody in between
    has cut that out."""
    with knock(bound, tls=trusting()) as client:
        scram = wire.Scram(secret("app"), header="y,,")
        assert sasl(client, scram).sqlstate == "28P01"
    # in clear the same words are true
    with knock(bound) as client:
        scram = wire.Scram(secret("app"), header="y,,")
        assert sasl(client, scram).kind == "R"
    # and a client that knows no binding is welcome
    assert is_let_in(bound, tls=trusting())


def test_binding_and_mechanism_must_fit_each_other(bound):
    for header, mechanism in (("n,,", "SCRAM-SHA-256-PLUS"),
                              ("p=tls-server-end-point,,", "SCRAM-SHA-256"),
                              ("p=tls-unique,,", "SCRAM-SHA-256-PLUS"),
                              ("n,,", "SCRAM-SHA-1")):
        with knock(bound, tls=trusting()) as client:
            scram = wire.Scram(secret("app"), header=header)
            got = sasl(client, scram, mechanism=mechanism)
            assert got.sqlstate == "28P01", (header, mechanism)


# What strangers learn

def outline(got, user):
    """A message as far as it must not tell whether the user exists."""
    if got.kind == "E":
        return {name: value.replace(user, "USER")
                for name, value in got.fields.items()}
    code, = struct.unpack_from("!I", got.body)
    data = got.body[4:]
    if code == 10:
        return code, data
    if code == 11:
        parts = data.decode().split(",")
        return code, [(part[:2], len(part)) for part in parts], parts[2]
    return code, len(data)


def transcript(pooler, user, password="wrong"):
    """Everything that a failing login is answered with."""
    with wire.Wire.connect(pooler.port) as client:
        steps = wire.login_steps(user, password, "app")
        client.send(next(steps))
        said = []
        with pytest.raises(wire.ServerError):
            while True:
                got = client.next()
                said.append(outline(got, user))
                client.send(steps.send(got))
        assert client.until_closed() == []
        return said


@pytest.mark.parametrize("auth_type, kind", [
    ("plain", "plain"), ("plain", "verifier"), ("md5", "md5"),
    ("md5", "verifier"), ("scram-sha-256", "plain"),
    ("scram-sha-256", "verifier")])
def test_an_unknown_user_is_told_what_a_known_one_is(forced, auth_type,
                                                     kind):
    pooler = forced(auth_type=auth_type, secrets=all_of(kind))
    # it has seen a real one, and of which kind they are
    assert is_let_in(pooler)
    known = transcript(pooler, "app")
    assert known[-1]["M"] == ('password authentication failed for user '
                              '"USER"')
    for unknown in ("eve", "nobody", "apq"):
        assert transcript(pooler, unknown) == known


def test_an_unknown_users_salt_is_always_the_same(forced):
    pooler = forced()

    def salt(user):
        with wire.Wire.connect(pooler.port) as client:
            client.send(wire.startup(user=user, database="app"))
            client.next()
            client.send(sasl_first(wire.Scram("any")))
            return re.search(rb"s=([^,]+)", client.next().body)[1]

    assert salt("eve") == salt("eve")
    assert salt("eve") != salt("mallory")


def test_what_databases_there_are_is_told_after_login_only(forced):
    pooler = forced()
    assert is_refused(pooler, password="wrong", database="no such")
    assert is_refused(pooler, "admin", "wrong", "pgsluice")
    assert refusal(pooler, database="no such").sqlstate == "3D000"
    assert refusal(pooler, "app", database="pgsluice").sqlstate == "42501"


def test_no_secret_gets_into_a_log(forced, authority):
    pooler = forced(verbose=3, secrets={**all_of("plain"),
                                        "hashed": verifier("hashed-secret")},
                    **client_tls(authority, "prefer"))
    assert is_let_in(pooler)
    assert is_let_in(pooler, "hashed", database="app")
    assert is_refused(pooler, password="guessed-secret")
    with wire.Wire.connect(pooler.port) as client:
        client.send(wire.startup(user="app", database="app"))
        client.next()
        client.send(wire.password("typed-secret"))
        client.until_closed()
    pooler.console("SHOW CONFIG")
    pooler.console("SHOW DATABASES")
    said = pooler.log() + pooler.stderr()
    assert "password authentication failed" in said
    assert "-secret" not in said
    assert pooler.secrets["hashed"].split("$")[2] not in said


def test_a_name_cannot_forge_a_line_in_the_log(forced):
    pooler = forced()
    assert is_refused(pooler, "eve\n2030-01-01 LOG forged\x1b[2J")
    pooler.wait_log("password authentication failed")
    assert not re.search("^2030", pooler.log(), re.MULTILINE)
    assert "\x1b" not in pooler.log()


# Rules

def hba(pooler, *rules):
    """Puts these rules in force."""
    write(pooler.path("hba.conf"), rules)
    pooler.configure(auth_type="hba", auth_hba_file=pooler.path("hba.conf"))


@pytest.fixture(name="ruled")
def fixture_ruled(forced, authority):
    """start(rules...): the console stays open over the unix socket only."""
    pooler = forced(**client_tls(authority, "prefer"))

    def set_rules(*rules):
        hba(pooler, "host pgsluice admin 127.0.0.1/32 scram-sha-256", *rules)
        return pooler

    return set_rules


def test_the_first_rule_that_fits_decides(ruled):
    pooler = ruled("host app app all reject",
                   "host app app all trust",
                   "host app all all scram-sha-256")
    assert is_refused(pooler)
    assert is_let_in(pooler, "stats", database="app")


def test_who_no_rule_fits_is_refused(ruled):
    pooler = ruled("host app md5_user all scram-sha-256")
    assert is_refused(pooler)
    assert is_let_in(pooler, "md5_user")


def test_rules_tell_tls_from_none(ruled):
    pooler = ruled("hostssl app app all scram-sha-256",
                   "hostnossl app md5_user all scram-sha-256")
    assert is_let_in(pooler, tls=trusting())
    assert is_refused(pooler)
    assert is_let_in(pooler, "md5_user")
    assert is_refused(pooler, "md5_user", tls=trusting())


def test_rules_tell_addresses_apart(ruled):
    pooler = ruled("host app app 127.0.1.0/24 reject",
                   "host app app 127.0.2.7 255.255.255.255 trust",
                   "local app app scram-sha-256",
                   "host app app 127.0.0.0/8 scram-sha-256")
    assert is_refused(pooler, source="127.0.1.1")
    assert is_refused(pooler, source="127.0.1.254")
    assert is_let_in(pooler, source="127.0.2.7", password="not asked for")
    assert is_refused(pooler, source="127.0.2.8", password="wrong")
    assert is_let_in(pooler, source="127.3.3.3")
    assert is_let_in(pooler, host=pooler.folder)


def test_a_rule_of_the_operators_own_may_trust_outsiders(forced):
    outside = outside_address()
    pooler = forced(listen_addr="*")
    hba(pooler, f"host app app {outside}/32 trust",
        "host all all 127.0.0.1/32 scram-sha-256")
    assert is_let_in(pooler, password="wrong", host=outside)
    assert is_refused(pooler, password="wrong")


def test_rules_name_lists_of_users_and_databases(ruled):
    pooler = ruled('host app,other app,"md5_user" all scram-sha-256',
                   "host sameuser scram_user all scram-sha-256")
    assert is_let_in(pooler)
    assert is_let_in(pooler, "md5_user")
    assert refusal(pooler, database="other").sqlstate == "3D000"
    assert is_refused(pooler, "trust_user")
    assert is_refused(pooler, "scram_user")
    assert refusal(pooler, "scram_user",
                   database="scram_user").sqlstate == "3D000"


def test_rules_choose_the_method(ruled):
    pooler = ruled("host app app all password",
                   "host app md5_user all md5",
                   "host app scram_user all scram-sha-256")
    for user, code in (("app", 3), ("md5_user", 5), ("scram_user", 10)):
        with wire.Wire.connect(pooler.port) as client:
            client.send(wire.startup(user=user, database="app"))
            assert struct.unpack_from("!I", client.next().body) == (code,)
        assert is_let_in(pooler, user)


def test_malformed_rules_are_refused_and_the_old_ones_stay(ruled):
    pooler = ruled("host app app all scram-sha-256")
    with pytest.raises(wire.ServerError) as error:
        ruled("host app app all scram-sha-256", "host app all all nonsense")
    assert "hba.conf:3: method nonsense" in error.value.fields["D"]
    assert is_let_in(pooler)


def test_peer_lets_the_systems_user_in_by_the_map(forced):
    pooler = forced()
    me = os.popen("id -un").read().strip()
    write(pooler.path("ident.conf"), [f"here {me} app"])
    write(pooler.path("hba.conf"), [
        "local app app,md5_user peer map=here",
        "local app scram_user peer",
        "host all all 127.0.0.1/32 scram-sha-256"])
    pooler.configure(auth_type="hba", auth_hba_file=pooler.path("hba.conf"),
                     auth_ident_file=pooler.path("ident.conf"))
    assert is_let_in(pooler, password="not asked for", host=pooler.folder)
    assert is_refused(pooler, "md5_user", host=pooler.folder)
    assert is_refused(pooler, "scram_user", host=pooler.folder)


# Certificates

@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
def test_a_certificate_lets_in_as_the_one_it_names(forced, authority,
                                                   sslmode):
    pooler = forced(auth_type="cert", secrets={"cert_user": "", "app": "x"},
                    **client_tls(authority, sslmode))
    mine = holding(authority, "cert_user")
    assert is_let_in(pooler, "cert_user", "not asked for", tls=mine)
    assert is_refused(pooler, "app", tls=mine)
    # a certificate of the same authority, and a user nobody knows
    assert is_refused(pooler, "stranger",
                      tls=holding(authority, "stranger"))


def test_a_certificate_is_not_enough_where_a_password_is_asked(forced,
                                                               authority):
    pooler = forced(**client_tls(authority, "verify-full"))
    mine = holding(authority, "cert_user")
    assert is_let_in(pooler, tls=mine)
    assert is_refused(pooler, password="wrong", tls=mine)


def test_rules_may_ask_for_certificates_and_map_their_names(forced,
                                                            authority):
    pooler = forced(secrets={**all_of("plain"), "cert_user": ""},
                    **client_tls(authority, "verify-ca"))
    write(pooler.path("ident.conf"), ["others stranger app"])
    write(pooler.path("hba.conf"), [
        "hostssl app cert_user all cert",
        "hostssl app app all cert map=others",
        "host app all all scram-sha-256"])
    pooler.settings.update(
        auth_type="hba", auth_hba_file=pooler.path("hba.conf"),
        auth_ident_file=pooler.path("ident.conf"))
    pooler.write_files()
    pooler.send_signal(signal.SIGHUP)
    stranger = holding(authority, "stranger")
    mine = holding(authority, "cert_user")
    wait_until(lambda: is_let_in_by_now(pooler, "cert_user", "none",
                                        tls=mine),
               "the new rules in force")
    assert is_let_in(pooler, password="not asked for", tls=stranger)
    assert is_refused(pooler, "cert_user", tls=stranger)
    assert is_refused(pooler, password="x", tls=mine)


@pytest.mark.parametrize("sslmode", ["prefer", "require"])
def test_a_rule_may_want_a_certificate_where_the_mode_does_not(
        forced, authority, sslmode):
    pooler = forced(secrets={**all_of("plain"), "cert_user": ""},
                    **client_tls(authority, sslmode))
    write(pooler.path("hba.conf"), [
        "hostssl app cert_user all cert",
        "hostssl app app all scram-sha-256"])
    pooler.settings.update(auth_type="hba",
                           auth_hba_file=pooler.path("hba.conf"))
    pooler.write_files()
    pooler.send_signal(signal.SIGHUP)
    mine = holding(authority, "cert_user")
    wait_until(lambda: is_let_in_by_now(pooler, "cert_user", "none",
                                        tls=mine),
               "the new rules in force")
    assert is_refused(pooler, "cert_user", tls=trusting())
    assert is_refused(pooler, "cert_user",
                      tls=holding(authority, "stranger"))
    assert is_let_in(pooler, tls=trusting())
    assert is_let_in(pooler, tls=mine)


# auth_query

@pytest.fixture(name="asked")
def fixture_asked(postgres):
    """A function for auth_query that counts the questions: asked(name)."""
    with postgres.superuser() as session:
        session.rows("CREATE TABLE asked (name text)")
        session.rows(
            "CREATE FUNCTION look_up(name text) RETURNS TABLE(u text, p text)"
            " LANGUAGE sql AS $$ INSERT INTO asked VALUES (name);"
            " SELECT rolname::text, rolpassword FROM pg_authid"
            " WHERE rolname = name AND rolcanlogin $$")
        session.rows("CREATE ROLE looked_up LOGIN PASSWORD 'first'")
        try:
            yield lambda name: int(session.value(
                f"SELECT count(*) FROM asked WHERE name = '{name}'"))
        finally:
            session.rows("DROP FUNCTION look_up; DROP TABLE asked; "
                         "DROP ROLE looked_up")


def asking(postgres, **more):
    """Settings for auth_query, as the superuser over the unix socket."""
    where = f"host=127.0.0.1 port={postgres.port}"
    return {"databases": {"app": where, "other": where,
                          "users": f"host={postgres.folder} "
                                   f"port={postgres.port} dbname=postgres"},
            "auth_user": "postgres", "auth_dbname": "users",
            "auth_query": "SELECT u, p FROM look_up($1)", **more}


def test_auth_query_is_not_asked_again_for_every_login(
        start_pgsluice, postgres, asked):
    pooler = start_pgsluice(postgres, **asking(postgres))
    for _ in range(5):
        assert is_let_in(pooler, "looked_up", "first")
    assert asked("looked_up") == 1
    # those in the auth_file need no question
    assert is_let_in(pooler)
    assert asked("app") == 0


def test_a_changed_password_is_found_out_after_a_failed_login(
        start_pgsluice, postgres, asked):
    pooler = start_pgsluice(postgres, **asking(postgres))
    assert is_let_in(pooler, "looked_up", "first")
    postgres.rows("ALTER ROLE looked_up PASSWORD 'second'")

    def second_is_good():
        try:
            log_in(pooler, "looked_up", "second").close()
            return True
        except wire.ServerError as error:
            assert error.sqlstate == "28P01"
            return False

    wait_until(second_is_good, "the second password good", 20)
    assert asked("looked_up") == 2
    assert is_refused(pooler, "looked_up", "first")
    # and its new keys open servers
    pooler.console("RECONNECT")
    assert is_let_in(pooler, "looked_up", "second")


def test_a_failing_login_does_not_make_many_questions(
        start_pgsluice, postgres, asked):
    pooler = start_pgsluice(postgres, **asking(postgres))
    for _ in range(20):
        assert is_refused(pooler, "looked_up", "wrong")
    assert asked("looked_up") <= 2
    for _ in range(20):
        assert is_refused(pooler, "eve", "wrong")
    assert asked("eve") <= 2


def test_auth_query_knows_no_such_user_and_tells_nobody(
        start_pgsluice, postgres, asked):
    pooler = start_pgsluice(postgres, **asking(postgres))
    assert is_let_in(pooler, "looked_up", "first")
    known = transcript(pooler, "looked_up")
    assert transcript(pooler, "eve") == known
    assert asked("eve") == 1


def test_auth_querys_own_text_leaves_out_who_may_not_log_in(
        start_pgsluice, postgres, asked):
    pooler = start_pgsluice(postgres, **asking(postgres, auth_query=None))
    assert is_let_in(pooler, "looked_up", "first")
    assert asked("looked_up") == 0
    with postgres.superuser() as session:
        session.rows("CREATE ROLE expired LOGIN PASSWORD 'x' "
                     "VALID UNTIL '2001-01-01'")
        session.rows("CREATE ROLE no_login NOLOGIN PASSWORD 'x'")
        session.rows("CREATE ROLE no_password LOGIN")
        try:
            for user in ("expired", "no_login", "no_password"):
                assert is_refused(pooler, user, "x")
                assert is_refused(pooler, user, "")
        finally:
            session.rows("DROP ROLE expired, no_login, no_password")


def test_a_name_is_a_parameter_of_auth_query_not_a_part_of_it(
        start_pgsluice, postgres, asked):
    pooler = start_pgsluice(postgres, **asking(postgres))
    assert is_refused(pooler, "x') ; DROP TABLE asked --", "x")
    assert asked("looked_up") == 0


def test_when_auth_query_fails_nobody_gets_in_and_nobody_is_told_why(
        start_pgsluice, postgres):
    pooler = start_pgsluice(postgres, **asking(
        postgres, auth_query="SELECT 1, 2 FROM nowhere WHERE $1 = ''"))
    assert is_refused(pooler, "looked_up", "first")
    pooler.wait_log("auth_query for app/looked_up failed: .*nowhere")
    assert is_let_in(pooler)


def test_a_database_has_an_auth_query_of_its_own(
        start_pgsluice, postgres, asked):
    settings = asking(postgres, auth_query="SELECT 1, NULL WHERE $1 = ''")
    settings["databases"]["other"] += (
        " auth_query='SELECT u, p FROM look_up($1)'")
    pooler = start_pgsluice(postgres, **settings)
    assert is_refused(pooler, "looked_up", "first")
    assert is_let_in(pooler, "looked_up", "first", "other")
    assert asked("looked_up") == 1


# The auth_file

def test_an_auth_file_that_all_may_read_is_refused_at_the_start(tmp_path):
    write(tmp_path / "userlist.txt", ['"app" "x"'], 0o644)
    write(tmp_path / "pooler.ini", [
        "[pgsluice]", f"unix_socket_dir = {tmp_path}",
        f"auth_file = {tmp_path / 'userlist.txt'}"])
    result = subprocess.run([Pgsluice.program, tmp_path / "pooler.ini"],
                            capture_output=True, text=True, timeout=60,
                            check=False)
    assert result.returncode != 0
    assert "may be read by everybody" in result.stderr


def test_an_auth_file_that_all_may_read_is_refused_by_a_reload(forced):
    pooler = forced()
    write(pooler.path("open.txt"), ['"app" "stolen"'], 0o644)
    with pytest.raises(wire.ServerError) as error:
        pooler.configure(auth_file=pooler.path("open.txt"))
    assert "may be read by everybody" in error.value.fields["D"]
    assert is_let_in(pooler)
    assert is_refused(pooler, password="stolen")


def test_a_reload_takes_users_in_and_out(forced):
    pooler = forced()
    with log_in(pooler) as old:
        pooler.secrets["app"] = "changed"
        pooler.secrets["newcomer"] = "new"
        pooler.reload()
        assert is_refused(pooler)
        assert is_let_in(pooler, password="changed")
        assert is_let_in(pooler, "newcomer", "new")
        assert old.value("SELECT 1") == "1"


# Before login

def bad_login(pooler, *messages, sqlstate="08P01"):
    """What is sent is answered by this error and the end. Sent at once, and
    again a byte at a time."""
    data = b"".join(messages)
    for step in (len(data), 1):
        with wire.Wire.connect(pooler.port) as client:
            try:
                for at in range(0, len(data), step):
                    client.send(data[at:at + step])
            except OSError:
                pass                # it had read enough
            errors = [got for got in client.until_closed()
                      if got.kind == "E"]
            assert [got.sqlstate for got in errors] == [sqlstate], errors
    return True


def test_a_second_startup_message_is_refused(forced):
    pooler = forced(auth_type="trust")
    first = wire.startup(user="app", database="app")
    second = wire.startup(user="admin", database="pgsluice")
    assert bad_login(pooler, first, second)
    with log_in(pooler) as client:
        client.send(second)
        assert [got.sqlstate for got in client.until_closed()] == ["08P01"]
    pooler.configure(auth_type="scram-sha-256")
    assert bad_login(pooler, first, second)


def test_a_query_in_place_of_the_password_is_refused(forced):
    assert bad_login(forced(), wire.startup(user="app", database="app"),
                     wire.query("SELECT 1"))


def test_a_query_right_behind_a_login_is_answered_after_it(forced):
    pooler = forced(auth_type="trust")
    with wire.Wire.connect(pooler.port) as client:
        client.send(wire.startup(user="app", database="app"),
                    wire.query("SELECT 6 * 7"))
        client.until_ready()
        answer = client.until_ready()
        assert client.shapes(answer) == "TDCZ"
        assert answer[1].values == ["42"]


def startup_of(length):
    """A StartupMessage of just this many bytes."""
    short = wire.startup(user="app", database="app", padding="")
    return wire.startup(user="app", database="app",
                        padding="x" * (length - len(short)))


def test_a_startup_packet_has_ten_thousand_bytes_at_most(forced):
    pooler = forced(auth_type="trust", ignore_startup_parameters="padding")
    with wire.Wire.connect(pooler.port) as client:
        client.send(startup_of(10000))
        assert client.until_ready()[0].kind == "R"
    # the length alone is enough to refuse it
    assert bad_login(pooler, startup_of(10001)[:8])
    assert bad_login(pooler, startup_of(10001))


@pytest.mark.parametrize("packet", [
    pytest.param(b"GET / HTTP/1.1\r\n", id="http"),
    pytest.param(struct.pack("!II", 0, 0), id="length 0"),
    pytest.param(struct.pack("!II", 7, 196608), id="length 7"),
    pytest.param(struct.pack("!II", 0x7fffffff, 196608), id="length 2^31-1"),
    pytest.param(struct.pack("!II", 8, 2 << 16), id="protocol 2"),
    pytest.param(struct.pack("!II", 9, 4 << 16) + b"\0", id="protocol 4"),
    pytest.param(struct.pack("!II", 12, 196608) + b"user", id="no NUL"),
    pytest.param(struct.pack("!II", 12, wire.SSL_CODE) + b"long", id="SSL"),
    pytest.param(wire.startup(user="app") + b"\0\0\0\0", id="zeroes behind"),
])
def test_what_is_no_startup_packet_is_refused(forced, packet):
    pooler = forced(auth_type="trust")
    assert bad_login(pooler, packet, b"\0" * 5)
    assert is_let_in(pooler)


def test_a_login_without_a_name_is_refused(forced):
    pooler = forced(auth_type="trust")
    assert bad_login(pooler, wire.startup(database="app"), sqlstate="22023")
    assert bad_login(pooler, wire.startup(user="", database="app"),
                     sqlstate="22023")


def test_replication_is_refused(forced):
    pooler = forced(auth_type="trust")
    assert bad_login(pooler, wire.startup(user="app", database="app",
                                          replication="database"),
                     sqlstate="0A000")


def test_a_password_message_has_eight_kibibytes_at_most(forced):
    pooler = forced(auth_type="plain")
    for length, sqlstate in ((8192, "28P01"), (8193, "54000"),
                             (2**30 - 6, "54000")):
        with wire.Wire.connect(pooler.port) as client:
            client.send(wire.startup(user="app", database="app"))
            client.next()
            client.send(b"p" + struct.pack("!I", length + 4)
                        + b"x" * (min(length, 9000) - 1) + b"\0")
            assert client.next().sqlstate == sqlstate


def closed_by(client):
    """True once the other side has hung up, whatever it says before."""
    try:
        client.until_closed()
    except OSError:
        pass
    return True


def test_a_login_that_takes_too_long_is_ended(forced, authority):
    pooler = forced(client_login_timeout=1, tcp_defer_accept=0,
                    **client_tls(authority, "prefer"))
    startup = wire.startup(user="app", database="app")
    beginnings = [b"", b"\0", startup[:-1], startup, wire.gssenc_request(),
                  wire.ssl_request(), b"\x16\x03\x01"]
    slow = [wire.Wire.connect(pooler.port) for _ in beginnings]
    for client, beginning in zip(slow, beginnings):
        client.send(beginning)
    assert is_let_in(pooler)
    for client in slow:
        assert closed_by(client)
        client.close()
    with log_in(pooler) as client:
        assert client.value("SELECT pg_sleep(1.5)") == ""


def test_a_login_byte_by_byte_gets_no_more_time(forced):
    pooler = forced(client_login_timeout=1)
    with wire.Wire.connect(pooler.port) as client:
        for byte in startup_of(9000):
            client.send(bytes([byte]))
            if select.select([client.sock], [], [], 0.05)[0]:
                break
        answer = client.until_closed()
        assert [got.kind for got in answer] == ["E"]
        assert answer[0].fields["S"] == "FATAL"


def test_clients_that_say_nothing_do_not_keep_others_out(forced):
    pooler = forced(max_client_conn=10, tcp_defer_accept=0)
    silent = [wire.Wire.connect(pooler.port) for _ in range(40)]
    for client in silent:
        client.send(b"\0\0")
    assert is_let_in(pooler)
    for client in silent:
        client.close()


# To servers

USERS = ["scram_user", "md5_user", "password_user", "trust_user"]


@pytest.mark.parametrize("user", USERS)
def test_whatever_proof_a_server_wants_it_gets(pgsluice_any, user):
    with log_in(pgsluice_any, user) as client:
        assert client.value("SELECT session_user") == user


@pytest.mark.parametrize("user", ["app", "scram_user"])
def test_a_clients_proof_opens_servers_where_only_a_verifier_is_kept(
        start_pgsluice, any_postgres, user):
    pooler = start_pgsluice(any_postgres, secrets={
        name: stored_secret(any_postgres, name)
        for name in ("app", "scram_user")})
    assert "secret" not in read(pooler.path("userlist.txt"))
    clients = [log_in(pooler, user) for _ in range(3)]
    for client in clients:
        assert client.query("BEGIN; SELECT 1")[-1].status == "T"
        assert client.value("SELECT session_user") == user
    for client in clients:
        client.close()


def test_an_md5_secret_opens_servers_that_want_md5(start_pgsluice, postgres):
    pooler = start_pgsluice(postgres, auth_type="md5", secrets={
        "md5_user": stored_secret(postgres, "md5_user")})
    with log_in(pooler, "md5_user") as client:
        assert client.value("SELECT session_user") == "md5_user"


def test_a_verifier_that_is_not_the_servers_own_opens_nothing(
        start_pgsluice, postgres):
    pooler = start_pgsluice(postgres, secrets={
        "app": verifier(secret("app"))})
    error = refusal(pooler)
    assert error.sqlstate in ("28P01", "28000"), error
    pooler.wait_log("server login failed")


def test_a_servers_refusal_is_told_after_the_clients_own_login(
        start_pgsluice, postgres):
    pooler = start_pgsluice(
        postgres, server_login_retry=1, databases={
            "app": f"host=127.0.0.1 port={postgres.port} user=app "
                   "password=wrong",
            "gone": f"host=127.0.0.1 port={postgres.port} dbname=gone "
                    "user=app password=app-secret"})
    with wire.Wire.connect(pooler.port) as client:
        steps = wire.login_steps("stats", secret("stats"), "app")
        client.send(next(steps))
        codes = []
        with pytest.raises(wire.ServerError) as error:
            while True:
                got = client.next()
                if got.kind == "R":
                    codes.append(struct.unpack_from("!I", got.body)[0])
                client.send(steps.send(got))
        assert codes == [10, 11, 12]        # it was let in by us
        assert error.value.sqlstate == "28P01"
        assert error.value.text == ('password authentication failed for '
                                    'user "app"')
    error = refusal(pooler, "stats", database="gone")
    assert error.sqlstate == "3D000"
    assert error.text == 'database "gone" does not exist'
    # who has proved nothing is told nothing of it
    assert is_refused(pooler, "stats", "wrong")
    assert is_refused(pooler, "stats", "wrong", "gone")


def test_a_server_gets_nothing_that_a_client_brought(start_pgsluice):
    with FakeServer() as server:
        pooler = start_pgsluice(databases={"app": server.entry()})
        with knock(pooler) as client:
            client.login("app", secret("app"), "app", search_path="evil",
                         application_name="mine", options="-c work_mem=1MB")
            assert server.saw("startup") == {"user": "app",
                                             "database": "app"}


def test_a_password_in_clear_goes_to_this_machine(start_pgsluice, tmp_path):
    for where in ({}, {"path": str(tmp_path)}):
        with FakeServer(CLEARTEXT, **where) as server:
            pooler = start_pgsluice(databases={"app": server.entry()})
            log_in(pooler).close()
            assert server.saw("password") == b"app-secret\0"


def test_a_password_in_clear_goes_nowhere_without_verified_tls(
        start_pgsluice, authority):
    outside = outside_address()
    authority.issue("outside", "outside", [f"IP:{outside}"])
    for mode, has_tls, goes in (
            ("disable", False, False),
            ("prefer", False, False),
            ("require", True, False),
            ("verify-ca", True, True),
            ("verify-full", True, True)):
        context = serving(authority, "outside") if has_tls else None
        with FakeServer(CLEARTEXT, context, outside) as server:
            pooler = start_pgsluice(
                databases={"app": server.entry()}, server_tls_sslmode=mode,
                server_tls_ca_file=authority.ca)
            if goes:
                log_in(pooler).close()
                assert server.saw("password") == b"app-secret\0"
            else:
                error = refusal(pooler)
                assert "in clear" in error.text, (mode, error)
                assert server.saw("gone") is None


def test_md5_is_answered_by_the_hash(start_pgsluice):
    with FakeServer(MD5) as server:
        pooler = start_pgsluice(databases={"app": server.entry()})
        log_in(pooler).close()
        assert server.saw("password") == wire.text(
            wire.md5_answer("app", secret("app"), b"salt"))
