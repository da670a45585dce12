"""What Airflow imports first in every process of it that the launcher starts: one repair of SQLite's savepoints.

Airflow looks for a module of this name on its path; `airflow_home.airflow_environment` puts this folder there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.engine import Engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__: list[str] = []


@event.listens_for(Engine, "savepoint")
def begin_before_savepoint(connection: Connection, _name: str) -> None:
    """Begin a transaction that may write before the first savepoint of one in SQLite.

    Python's driver begins a transaction before a row is written, and not before a savepoint, which then opens one that
    only reads. When another process writes before it writes itself, SQLite fails it at once with "database is locked",
    whatever the timeout: what it has read is out of date (SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/isolation.html).
    `airflow backfill create` does all its work in such savepoints. A transaction that means to write from the start
    waits for its turn instead.
    """
    driver = connection.connection.dbapi_connection
    if connection.dialect.driver == "pysqlite" and driver is not None and not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
