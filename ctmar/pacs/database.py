"""SQLite for the threads of one process, that keeps what was committed whatever happens to it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


class Database:
    """The database in a file, made with a schema where it is missing.

    Attributes
    ----------
    lock
        Held by whoever reads several things that belong together; a transaction holds it, too.
    """

    def __init__(self, file: Path, schema: str) -> None:
        self.lock = threading.RLock()
        self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
        self._connection.executescript(schema)

    def close(self) -> None:
        """Let go of the file."""
        with self.lock:
            self._connection.close()

    def do(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Execute a statement."""
        return self._connection.execute(sql, values)

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        """The first row of a query."""
        with closing(self.do(sql, *values)) as cursor:
            row: sqlite3.Row | None = cursor.fetchone()
        return row

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it; a block within another belongs to that."""
        with self.lock:
            if self._connection.in_transaction:
                yield
                return
            self.do("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.do("ROLLBACK")
                raise
            self.do("COMMIT")
