"""The same messages to Postgres and through pgsluice: the answers are equal,
whatever the number of servers and workers, with and without TLS, in large
pieces and byte by byte, and whoever had the server before."""

import functools
import itertools

import dialogues  # noqa: F401  pylint: disable=unused-import
import dialogues_broken  # noqa: F401  pylint: disable=unused-import
import differential
import pytest
import wire
from pgsluice import Pgsluice

CONFIGURATIONS = [
    pytest.param(configuration, id="pool{}-workers{}-{}".format(
        configuration[0], configuration[1],
        "tls" if configuration[2] else "plain"))
    for configuration in itertools.product((1, 5), (1, 4), (False, True))
]
LIGHT = [name for name, each in differential.DIALOGUES.items()
         if not each.heavy]


@pytest.fixture(scope="module")
def prepared(postgres_tls):
    """The cluster with the tables of the dialogues in it."""
    with postgres_tls.superuser("app") as session:
        session.rows(differential.TABLES)
    return postgres_tls


@pytest.fixture(scope="module")
def empty(prepared):
    """Call it to empty the tables."""
    with prepared.superuser("app") as session:
        yield lambda: session.rows(differential.EMPTY)


def connector(port, tls, kind=wire.Wire):
    """A function that makes connections which are not logged in yet."""
    def connect():
        link = kind.connect(port)
        if tls:
            link.start_tls()
        return link
    return connect


@pytest.fixture(scope="module")
def direct(prepared, empty):
    """direct(name): how Postgres answers that dialogue."""
    @functools.lru_cache(maxsize=None)
    def answer(name):
        empty()
        return differential.play(differential.DIALOGUES[name],
                                 connector(prepared.port, tls=False))
    return answer


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def pooler(request, prepared):
    """(port, servers, tls) of a pgsluice of each configuration."""
    servers, workers, tls = request.param
    settings = {}
    if tls:
        crt, key = prepared.certificates.server()
        settings = {
            "client_tls_sslmode": "require", "client_tls_cert_file": crt,
            "client_tls_key_file": key, "server_tls_sslmode": "verify-ca",
            "server_tls_ca_file": prepared.certificates.ca}
    program = Pgsluice(prepared, workers=workers, default_pool_size=servers,
                       **settings)
    try:
        program.start()
        yield program.port, servers, tls
        program.assert_sound()
    finally:
        program.stop()
        program.clean()


def compare(direct, empty, pooler, name, kind, make_neighbour=None):
    port, servers, tls = pooler
    connect = connector(port, tls, kind)

    def connect_neighbour():
        return connector(port, tls)().login("app", "app-secret", "app")

    expected = direct(name)
    empty()
    if make_neighbour is None:
        got = differential.play(differential.DIALOGUES[name], connect)
    else:
        neighbour = differential.Neighbour(connect_neighbour,
                                           keeps=servers > 1)
        try:
            got = differential.play(differential.DIALOGUES[name], connect,
                                    neighbour)
        finally:
            neighbour.close()
    assert differential.difference(expected, got) is None


@pytest.mark.parametrize("name", differential.DIALOGUES)
def test_the_answers_are_those_of_postgres(direct, empty, pooler, name):
    compare(direct, empty, pooler, name, wire.Wire)


@pytest.mark.parametrize("name", LIGHT)
def test_byte_by_byte_too(direct, empty, pooler, name):
    compare(direct, empty, pooler, name, differential.Slow)


@pytest.mark.parametrize("name", differential.DIALOGUES)
def test_with_a_neighbour_on_the_same_servers(direct, empty, pooler, name):
    compare(direct, empty, pooler, name, wire.Wire, differential.Neighbour)


@pytest.mark.parametrize("name", differential.DIALOGUES)
def test_postgres_answers_the_same_twice(direct, empty, prepared, name):
    """Or else the dialogue is of no use."""
    empty()
    again = differential.play(differential.DIALOGUES[name],
                              connector(prepared.port, tls=True))
    assert differential.difference(direct(name), again) is None
