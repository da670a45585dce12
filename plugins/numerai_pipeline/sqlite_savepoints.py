"""Savepoints in Airflow's SQLite that wait for their turn to write; the launcher sets ``sql_alchemy_connect_args``.

Python's driver begins a transaction before a row is written, and not before a savepoint, which then opens one that only
reads. When another process writes before it writes itself, SQLite fails it at once with "database is locked", whatever
the timeout: what it has read is out of date (SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/isolation.html). ``airflow
backfill create`` does all its work in such savepoints. A transaction that means to write from the start waits instead.
"""

from __future__ import annotations

import sqlite3
from typing import Any


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        if sql.startswith("SAVEPOINT") and not self.connection.in_transaction:
            super().execute("BEGIN IMMEDIATE")
        super().execute(sql, parameters)
        return self


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


CONNECT_ARGS = {"factory": _Connection}
