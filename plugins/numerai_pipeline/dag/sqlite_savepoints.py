"""SQLite savepoints that wait for the write lock; the launcher sets ``sql_alchemy_connect_args`` to use them.

Python's driver begins a transaction before a row is written, but not before a savepoint, which then opens a read
transaction. If another process writes before this transaction does, SQLite fails it at once with "database is locked",
regardless of the timeout, since its snapshot is out of date (SQLITE_BUSY_SNAPSHOT,
https://www.sqlite.org/isolation.html). ``airflow backfill create`` writes only in such savepoints. A transaction that
begins with the write lock (``BEGIN IMMEDIATE``) waits instead.
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
