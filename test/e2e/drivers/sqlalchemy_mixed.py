#!/usr/bin/python3
"""SQLAlchemy on psycopg2 beside other drivers (see mixed.py). Every
transaction takes its connection out of a pool of one, and gives it back,
which rolls back once more."""

import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, Table, Text

import mixed

LEDGER = Table("ledger", MetaData(), Column("id", Integer, primary_key=True),
               Column("client", Integer), Column("round", Integer),
               Column("note", Text))


class SqlAlchemy(mixed.Session):
    def __init__(self, me):
        self.engine = sqlalchemy.create_engine(
            mixed.URL.replace("postgres://", "postgresql://"),
            pool_size=1, max_overflow=0, connect_args={
                "application_name": me.name, "options": me.options})
        self.conn = self.work = None
        self.close = self.engine.dispose

    def begin(self):
        self.conn = self.engine.connect()
        self.work = self.conn.begin()

    def commit(self):
        self.work.commit()
        self.conn.close()

    def rollback(self):
        self.work.rollback()
        self.conn.close()

    def ask(self, sql, values=()):
        result = self.conn.exec_driver_sql(sql, values)
        return result.fetchall() if result.returns_rows else []

    def insert(self, client, turn, note):
        self.conn.execute(LEDGER.insert().values(
            client=client, round=turn, note=note))

    def read(self, client, turn):
        return self.conn.execute(sqlalchemy.select(LEDGER.c.note).where(
            LEDGER.c.client == client, LEDGER.c.round == turn)).fetchall()


mixed.play(SqlAlchemy)
