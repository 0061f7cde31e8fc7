"""What was received and is not yet sent: files and a database on one disk, which survive the end of the process at any
moment.

A series is `ARRIVING` until it is complete, then `WAITING` for its correction, `CORRECTING`, `SENDING` what came of it,
and at last `DONE`, `IGNORED` or `FAILED`. A file lies under its name, synchronised to the disk, before the database
knows of it, and the database before the sender is told.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctmar.files import remove
from ctmar.pacs.database import Database

ARRIVING, WAITING, CORRECTING, SENDING = "arriving", "waiting", "correcting", "sending"
DONE, IGNORED, FAILED = "done", "ignored", "failed"
STATES = (ARRIVING, WAITING, CORRECTING, SENDING, DONE, IGNORED, FAILED)

STORED, KNOWN, DIFFERS = "stored", "known", "differs"
"""What became of an object: new; there already; there already with another content, which is kept as it was."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id TEXT PRIMARY KEY, station TEXT, description TEXT, protocol TEXT, own INTEGER, state TEXT, released INTEGER,
    changed REAL, received REAL, generation INTEGER, late INTEGER, attempts INTEGER, folder TEXT, why TEXT
);
CREATE TABLE IF NOT EXISTS objects (
    sop TEXT PRIMARY KEY, series TEXT, digest TEXT, bytes INTEGER
);
CREATE INDEX IF NOT EXISTS objects_of_series ON objects (series);
CREATE TABLE IF NOT EXISTS outgoing (
    series TEXT, destination TEXT, file TEXT, sent INTEGER, PRIMARY KEY (series, destination, file)
);
CREATE TABLE IF NOT EXISTS targets (
    series TEXT, destination TEXT, attempts INTEGER, retry REAL, PRIMARY KEY (series, destination)
);
"""


@dataclass(frozen=True)
class Entry:
    """A series.

    Attributes
    ----------
    id
        Stands for its UID, which is not written to logs.
    station, description, protocol
        What rules go by.
    own
        Whether ctmar made it.
    generation
        Counts up when images come late.
    received
        When the last image came, seconds since 1970.
    folder
        What came of its correction.
    """

    id: str
    station: str
    description: str
    protocol: str
    own: bool
    generation: int
    attempts: int
    received: float
    folder: str


class Spool:
    """The spool in a folder, which is made where it is missing; for any number of threads of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.receiving, self._objects, self.corrected = (folder / n for n in ("receiving", "objects", "corrected"))
        for one in (folder, self.receiving, self._objects, self.corrected):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = Database(folder / "spool.sqlite", _SCHEMA)
        self._lock, self._transaction = self._database.lock, self._database.transaction
        self._do, self._one = self._database.do, self._database.one
        self._size = int(self._do("SELECT COALESCE(SUM(bytes), 0) AS n FROM objects").fetchone()["n"])
        self._recover()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _recover(self) -> None:
        """Put right what a process left that was killed."""
        for leftover in self.receiving.iterdir():
            remove(leftover)
        with self._transaction():
            self._do("UPDATE series SET state = ?, changed = ? WHERE state = ?", WAITING, time.time(), CORRECTING)
            self._do("UPDATE series SET received = ? WHERE state = ?", time.time(), ARRIVING)  # senders come back
            known = {row["folder"] for row in self._do("SELECT folder FROM series")}
        for folder in self.corrected.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------ receiving

    def add(
        self, path: Path, *, sop_uid: str, series_uid: str, station: str, description: str, protocol: str, own: bool
    ) -> tuple[str, str]:
        """Take over a file that was received; returns the id of its series, and what became of it.

        When this returns the object is safe.
        """
        series, sop = _short(series_uid), _short(sop_uid)
        digest, size = _digest(path), path.stat().st_size
        with self._lock:
            row = self._one("SELECT digest, series FROM objects WHERE sop = ?", sop)
            if row is not None:
                path.unlink()
                self._do("UPDATE series SET received = ? WHERE id = ? AND state = ?", time.time(), series, ARRIVING)
                return str(row["series"]), KNOWN if row["digest"] == digest else DIFFERS
            target = self.source_of(series) / f"{sop}.dcm"
            target.parent.mkdir(mode=0o700, exist_ok=True)
            path.replace(target)
            _synchronise(target.parent, target.parent.parent)
            now = time.time()
            with self._transaction():
                self._do("INSERT INTO objects VALUES (?, ?, ?, ?)", sop, series, digest, size)
                state = self._one("SELECT state FROM series WHERE id = ?", series)
                if state is None:
                    said = (series, station, description, protocol, int(own))
                    values = (*said, ARRIVING, 0, now, now, 0, 0, 0, "", "")
                    self._do(f"INSERT INTO series VALUES ({', '.join('?' * len(values))})", *values)
                elif state["state"] == SENDING:  # goes out to its end; then all of it is corrected again
                    self._do("UPDATE series SET late = 1, received = ? WHERE id = ?", now, series)
                elif state["state"] == ARRIVING:
                    self._do("UPDATE series SET released = 0, received = ? WHERE id = ?", now, series)
                else:
                    self._begin_again(series, now)
            self._size += size
        return series, STORED

    def _begin_again(self, series: str, now: float) -> None:
        self._do(
            "UPDATE series SET state = ?, released = 0, generation = generation + 1, late = 0, attempts = 0,"
            " received = ?, changed = ?, folder = '', why = '' WHERE id = ?",
            ARRIVING, now, now, series,
        )  # fmt: skip

    def release(self, series: Iterable[str]) -> None:
        """Note that the associations that carried these series have ended as they should."""
        with self._transaction():
            for one in series:
                self._do("UPDATE series SET released = 1 WHERE id = ?", one)

    def complete(self, *, quiet_s: float, timeout_s: float, still_open: Iterable[str] = ()) -> list[str]:
        """Let series wait for their correction that are complete; returns their ids.

        `still_open` are those that an association carries, which a receiver ends when nothing comes any more.
        """
        now, busy = time.time(), set(still_open)
        ready = []
        with self._transaction():
            for row in self._do("SELECT id, released, received FROM series WHERE state = ?", ARRIVING).fetchall():
                still = now - row["received"]
                if row["id"] not in busy and still >= (quiet_s if row["released"] else timeout_s):
                    ready.append(str(row["id"]))
            for one in ready:
                self._move(one, WAITING)
        return ready

    # ------------------------------------------------------------------ correcting

    def next_waiting(self) -> Entry | None:
        """A series to correct, which nobody else gets; that it is tried is noted before."""
        with self._transaction():
            row = self._one("SELECT id FROM series WHERE state = ? ORDER BY changed LIMIT 1", WAITING)
            if row is None:
                return None
            self._move(row["id"], CORRECTING)
            self._do("UPDATE series SET attempts = attempts + 1 WHERE id = ?", row["id"])
            return self._entry(row["id"])

    def source_of(self, series: str) -> Path:
        """The folder with the images of a series."""
        return self._objects / series

    def send(self, entry: Entry, folder: str, destinations: Sequence[str]) -> bool:
        """Hand what came of a correction (a folder in `corrected`) to the senders.

        Returns False where images have come meanwhile, so that it is out of date.
        """
        made = self.corrected / folder
        paths = sorted(made.rglob("*.dcm"))
        files = [str(path.relative_to(made)) for path in paths]
        _synchronise(*paths, *{path.parent for path in paths}, made, self.corrected)  # before the database says so
        with self._transaction():
            if self._out_of_date(entry):
                shutil.rmtree(self.corrected / folder, ignore_errors=True)
                return False
            self._do("DELETE FROM outgoing WHERE series = ?", entry.id)
            self._do("DELETE FROM targets WHERE series = ?", entry.id)
            for destination in destinations:
                self._do("INSERT INTO targets VALUES (?, ?, 0, 0)", entry.id, destination)
                for file in files:
                    self._do("INSERT INTO outgoing VALUES (?, ?, ?, 0)", entry.id, destination, file)
            self._do("UPDATE series SET folder = ?, attempts = 0 WHERE id = ?", folder, entry.id)
            self._move(entry.id, SENDING)
        return True

    def end(self, entry: Entry, state: str, why: str = "") -> None:
        """Conclude a series, as `IGNORED` or `FAILED`."""
        with self._transaction():
            if not self._out_of_date(entry):
                self._do("UPDATE series SET why = ? WHERE id = ?", why, entry.id)
                self._move(entry.id, state)

    def again(self, entry: Entry, why: str, *, counted: bool = True) -> None:
        """Let a series wait for another correction; one that was in vain for want of room is not `counted`."""
        with self._transaction():
            if not counted:
                self._do("UPDATE series SET attempts = attempts - 1 WHERE id = ?", entry.id)
            self.end(entry, WAITING, why)

    def retry_failed(self) -> int:
        """Let all that failed wait for another correction; returns how many there are."""
        with self._transaction():
            rows = self._do("SELECT id FROM series WHERE state = ?", FAILED).fetchall()
            for row in rows:
                self._do("UPDATE series SET attempts = 0 WHERE id = ?", row["id"])
                self._move(row["id"], WAITING)
        return len(rows)

    def _out_of_date(self, entry: Entry) -> bool:
        row = self._one("SELECT generation FROM series WHERE id = ?", entry.id)
        return row is None or row["generation"] != entry.generation

    # ------------------------------------------------------------------ sending

    def next_to_send(self) -> tuple[Entry, str, list[Path]] | None:
        """A series, one of its destinations, and the files that this one has not got."""
        with self._lock:
            row = self._one(
                "SELECT targets.series, destination FROM targets JOIN series ON series.id = targets.series"
                " WHERE state = ? AND targets.retry <= ? ORDER BY targets.retry, changed, destination LIMIT 1",
                SENDING,
                time.time(),
            )
            if row is None:
                return None
            entry, destination = self._entry(row["series"]), str(row["destination"])
            left = self._do(
                "SELECT file FROM outgoing WHERE series = ? AND destination = ? AND sent = 0 ORDER BY file",
                entry.id,
                destination,
            ).fetchall()
            if not left:  # the process ended before this was noted
                self.conclude(entry, destination)
                return self.next_to_send()
            return entry, destination, [self.corrected / entry.folder / one["file"] for one in left]

    def sent(self, entry: Entry, destination: str, file: Path) -> None:
        """Note that a destination has a file."""
        name = str(file.relative_to(self.corrected / entry.folder))
        with self._transaction():
            self._do(
                "UPDATE outgoing SET sent = 1 WHERE series = ? AND destination = ? AND file = ?",
                entry.id,
                destination,
                name,
            )

    def send_later(self, entry: Entry, destination: str, *, retry_s: float, why: str) -> int:
        """Try this destination again after a wait that doubles every time, up to a hundredfold; returns which time."""
        with self._transaction():
            row = self._one("SELECT attempts FROM targets WHERE series = ? AND destination = ?", entry.id, destination)
            attempts = int(row["attempts"]) if row is not None else 0
            self._do(
                "UPDATE targets SET attempts = ?, retry = ? WHERE series = ? AND destination = ?",
                attempts + 1,
                time.time() + retry_s * min(100, 2 ** min(attempts, 10)),
                entry.id,
                destination,
            )
            self._do("UPDATE series SET why = ? WHERE id = ?", why, entry.id)
        return attempts + 1

    def conclude(self, entry: Entry, destination: str) -> bool:
        """Note that a destination has everything; returns whether all have, so that the series is done."""
        lacks = "SELECT 1 FROM outgoing WHERE series = ? AND destination = ? AND sent = 0"
        with self._transaction():
            if self._one(lacks, entry.id, destination) is not None:
                return False
            self._do("DELETE FROM targets WHERE series = ? AND destination = ?", entry.id, destination)
            if self._one("SELECT 1 FROM targets WHERE series = ?", entry.id) is not None:
                return False
            self._do("DELETE FROM outgoing WHERE series = ?", entry.id)
            late = self._one("SELECT late FROM series WHERE id = ?", entry.id)
            self._move(entry.id, DONE)
            if late is not None and late["late"]:
                self._begin_again(entry.id, time.time())
        shutil.rmtree(self.corrected / entry.folder, ignore_errors=True)
        return True

    def unstick(self, busy: Iterable[str]) -> None:
        """Let series wait again whose correction nobody is at: noting its end failed, for want of room perhaps."""
        owned = set(busy)
        with self._transaction():
            for row in self._do("SELECT id FROM series WHERE state = ?", CORRECTING).fetchall():
                if row["id"] not in owned:
                    self._move(row["id"], WAITING)

    # ------------------------------------------------------------------ housekeeping

    def purge(self, *, keep_s: float, keep_failed_s: float) -> int:
        """Forget series that ended long ago; returns how many."""
        now = time.time()
        with self._lock:
            rows = self._do(
                "SELECT id FROM series WHERE (state IN (?, ?) AND changed < ?) OR (state = ? AND changed < ?)",
                DONE, IGNORED, now - keep_s, FAILED, now - keep_failed_s,
            ).fetchall()  # fmt: skip
            for row in rows:
                with self._transaction():
                    sizes = self._do("SELECT bytes FROM objects WHERE series = ?", row["id"]).fetchall()
                    self._do("DELETE FROM objects WHERE series = ?", row["id"])
                    self._do("DELETE FROM series WHERE id = ?", row["id"])
                self._size -= sum(one["bytes"] for one in sizes)
                shutil.rmtree(self.source_of(row["id"]), ignore_errors=True)
        return len(rows)

    def counts(self) -> dict[str, int]:
        """How many series are in each state."""
        with self._lock:
            found = {
                row["state"]: row["n"] for row in self._do("SELECT state, COUNT(*) AS n FROM series GROUP BY state")
            }
        return {state: int(found.get(state, 0)) for state in STATES}

    def size_bytes(self) -> int:
        """What the received images take."""
        return self._size

    def _entry(self, series: str) -> Entry:
        row = self._one("SELECT * FROM series WHERE id = ?", series)
        assert row is not None
        return Entry(
            id=str(row["id"]),
            station=str(row["station"]),
            description=str(row["description"]),
            protocol=str(row["protocol"]),
            own=bool(row["own"]),
            generation=int(row["generation"]),
            attempts=int(row["attempts"]),
            received=float(row["received"]),
            folder=str(row["folder"]),
        )

    def _move(self, series: str, state: str) -> None:
        self._do("UPDATE series SET state = ?, changed = ? WHERE id = ?", state, time.time(), series)


def _short(uid: str) -> str:
    """What stands for a UID in names of files and in logs."""
    return hashlib.sha256(uid.encode()).hexdigest()[:24]


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return digest


def _synchronise(*paths: Path) -> None:
    """Files, and folders: a name is on the disk only when its folder is."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
