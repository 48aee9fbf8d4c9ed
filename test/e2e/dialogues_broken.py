"""Dialogues with messages that are broken or out of phase."""

import wire
from differential import dialogue
from wire import (bind, copy_data, copy_done, copy_fail, execute, message,
                  parse, query, sync)


@dialogue()
def copy_messages_while_nothing_is_copied_are_ignored(talk):
    talk.send(copy_data(b"stray"), copy_done(), copy_fail(),
              query("SELECT 1"))
    talk.ready()
    talk.send(parse("", "SELECT 2"), copy_data(b"stray"), bind(),
              copy_done(), execute(), sync())
    talk.ready()


@dialogue(silent=True, heavy=True)
def a_query_in_the_middle_of_copy(talk):
    talk.send(query("COPY diff_copy FROM STDIN"))
    talk.until("G")
    talk.send(copy_data(b"1\ta\n"), query("SELECT 1"))
    talk.closed()


def add_broken(name, data, silent=False):
    """A dialogue of one message that ends the connection. Not byte by byte:
    who closes while more is still coming resets the connection, and then its
    last words may be lost."""
    def run(talk):
        talk.send(data)
        talk.closed()

    run.__name__ = name
    dialogue(loose=True, silent=silent, heavy=True)(run)


add_broken("an_unknown_message", message("y", b"what is this"))
add_broken("a_second_startup_packet", wire.startup(user="app"))
add_broken("a_password_after_login", wire.password("app-secret"))
add_broken("a_message_with_an_impossible_length", b"Q\0\0\0\3",
           silent=True)
add_broken("a_message_of_more_than_a_gigabyte", b"Q\x7f\xff\xff\xff",
           silent=True)


@dialogue(loose=True)
def a_query_without_its_end(talk):
    talk.send(message("Q", b"SELECT 1"))
    talk.ready()


@dialogue(loose=True)
def a_bind_that_is_too_short(talk):
    talk.send(parse("", "SELECT $1::int"), message("B", b"\0\0\0\0\0\1"),
              execute(), sync())
    talk.ready()
    talk.send(query("SELECT 1"))
    talk.ready()


@dialogue(loose=True)
def a_parse_that_is_too_short(talk):
    talk.send(message("P", b"s1\0SELECT 1\0\0"), sync())
    talk.ready()


@dialogue(loose=True)
def describe_of_an_unknown_kind(talk):
    talk.send(message("D", b"X\0"), sync())
    talk.ready()


@dialogue()
def terminate_in_a_transaction(talk):
    talk.send(query("BEGIN; INSERT INTO diff_t VALUES (1, 'x')"))
    talk.ready()
    talk.send(wire.terminate())
    talk.closed()
