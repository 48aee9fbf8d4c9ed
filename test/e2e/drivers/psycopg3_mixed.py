#!/usr/bin/python3
"""psycopg 3 beside other drivers (see mixed.py): a statement is prepared,
under the same names on every connection, when it is used a fifth time."""

import psycopg

import mixed


class Psycopg3(mixed.Session):
    def __init__(self, me):
        self.conn = psycopg.connect(mixed.URL, application_name=me.name,
                                    options=me.options)
        self.commit = self.conn.commit
        self.rollback = self.conn.rollback
        self.close = self.conn.close

    def ask(self, sql, values=()):
        cursor = self.conn.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


mixed.play(Psycopg3)
