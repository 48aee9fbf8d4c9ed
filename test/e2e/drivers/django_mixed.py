#!/usr/bin/python3
"""Django beside other drivers (see mixed.py): simple queries of psycopg2, a
time zone that is SET at connect, a WITH HOLD cursor outside transactions.

Every connection is a database of its own in Django's eyes, as its settings
differ.
"""

from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import connections, models, transaction

import mixed


def database(me):
    url = urlsplit(mixed.URL)
    path = me.search_path.replace(" ", "\\ ")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path[1:], "USER": url.username,
        "PASSWORD": url.password, "HOST": url.hostname, "PORT": url.port,
        "TIME_ZONE": me.zone, "CONN_MAX_AGE": None,
        "OPTIONS": {"application_name": me.name,
                    "options": f"-c search_path={path}"},
    }


def alias(number):
    return f"c{number}"


settings.configure(USE_TZ=True, DATABASES={"default": {}, **{
    alias(number): database(mixed.Member(number))
    for number in range(mixed.CLIENTS)}})
django.setup()


class Ledger(models.Model):
    client = models.IntegerField()
    round = models.IntegerField()
    note = models.TextField()

    class Meta:
        app_label = "mixed"
        db_table = "ledger"


class Django(mixed.Session):
    def __init__(self, me):
        self.alias = alias(me.number)
        self.conn = connections[self.alias]     # of this thread
        self.ledger = Ledger.objects.using(self.alias)
        self.atomic = None
        self.close = self.conn.close

    def begin(self):
        self.atomic = transaction.atomic(using=self.alias)
        self.atomic.__enter__()

    def commit(self):
        self.atomic.__exit__(None, None, None)

    def rollback(self):
        transaction.set_rollback(True, using=self.alias)
        self.commit()

    def ask(self, sql, values=()):
        with self.conn.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def insert(self, client, turn, note):
        return self.ledger.create(client=client, round=turn, note=note)

    def read(self, client, turn):
        return self.ledger.filter(client=client,
                                  round=turn).values_list("note")

    def rounds(self, client):
        rows = self.ledger.filter(client=client).order_by("round")
        self.commit()
        held = list(rows.values_list("round").iterator(chunk_size=3))
        self.begin()
        return held


mixed.play(Django)
