#!/usr/bin/python3
"""psycopg2 beside other drivers (see mixed.py): simple queries only; it reads
through a cursor that has the same name on every connection."""

import psycopg2

import mixed


class Psycopg2(mixed.Session):
    def __init__(self, me):
        self.conn = psycopg2.connect(mixed.URL, application_name=me.name,
                                     options=me.options)
        self.commit = self.conn.commit
        self.rollback = self.conn.rollback
        self.close = self.conn.close

    def ask(self, sql, values=()):
        with self.conn.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def read(self, client, turn):
        with self.conn.cursor(name="reader") as cursor:
            cursor.execute(mixed.READ, (client, turn))
            return cursor.fetchall()


mixed.play(Psycopg2)
