"""The control store: the head's few durable records, in one SQLite file.

The interface is narrow, so that another engine can take its place: keys and values are bytes, the
only write is a transaction that checks revisions, and what it has acknowledged is on disk.  Each
transaction raises the store's *revision* by one; an entry keeps the revision that wrote it.

*One writer.*  The file has one connection, opened in exclusive mode before its log is first
touched: a second head on the same file is refused, there is no shared-memory file beside it, and
SQLite's write-ahead log is never reset under two writers (releases before 3.51.3 may damage the
file then).  On a file system of another machine the lock cannot be relied on: refused too, where
it can be told.  A store carries its cluster's name, and is refused to whoever expects another.

*Fencing.*  ``epoch`` is raised by each opening.  A head that must be sure that no other has taken
over since puts a key of its own into every transaction's checks.

*Left out: leases and watches.*  The head decides liveness by connections and probes, in one process
that has the file to itself; nobody else could hold a lease in it, and there is nobody to notify.
They come with the engine that several heads can share (PostgreSQL), where a standby needs both.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from freehold.errors import LimitExceeded, StoreError
from freehold.io import clock

VALUE_BYTES_MAX = 256 * 1024
KEY_BYTES_MAX = 4096
ENTRIES_MAX = 64  # of one transaction, as etcd would take
ABSENT = 0  # the revision of what is not there
SCHEMA = 1
REMOTE = ("nfs", "cifs", "smb", "fuse.sshfs", "ceph", "glusterfs", "lustre", "afs", "beegfs")

_TABLES = """
CREATE TABLE IF NOT EXISTS kv (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, create_rev INTEGER NOT NULL,
    mod_rev INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
_PUT = """
INSERT INTO kv VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, mod_rev = excluded.mod_rev
"""


class Entry(NamedTuple):
    """One key.

    Attributes:
        created: the revision that made it; a key that was deleted and made again is a new one.
        revision: the revision that wrote it last.
    """

    key: bytes
    value: bytes
    created: int
    revision: int


Check = Sequence[bytes | int]  # key, the revision at which it must be (ABSENT: not there)
Write = Sequence[bytes]  # key, value; an empty value deletes
Transaction = tuple[Iterable[Check], Iterable[Write]]


class ControlStore(Protocol):
    """What an engine offers.  ``tests/io/test_control.py`` says what each must do.

    Attributes:
        cluster: the name of the cluster whose store this is.
        epoch: how often the store has been opened, this time included.
    """

    cluster: str
    epoch: int

    def get(self, key: bytes) -> Entry | None:
        """The entry, None if there is none."""

    def range(
        self, prefix: bytes, *, after: bytes = b"", limit: int = 1000
    ) -> tuple[list[Entry], int]:
        """A page of the entries whose keys begin so, in order of keys; and the store's revision."""

    def txn(self, checks: Iterable[Check], writes: Iterable[Write]) -> int:
        """Do all the writes if all the checks hold; the new revision, or 0 and nothing is done."""

    def txns(self, batch: Iterable[Transaction]) -> list[int]:
        """The same for each in turn, made durable together."""

    def close(self) -> None:
        """Let go of the store."""


class SqliteStore:
    """The engine on a local file.

    Args:
        path: the file, made if there is none.
        cluster: the name of the cluster that is expected there, '' for whatever there is.

    Raises:
        StoreError: it is open elsewhere, another cluster's, on a network file system, or damaged.
    """

    def __init__(self, path: Path | str, cluster: str = "") -> None:
        self.path = Path(path)
        self._pid = os.getpid()
        kind = file_system(self.path.parent)
        if kind.startswith(REMOTE):
            raise StoreError(f"{path} lies on a network file system ({kind}); locks fail there")
        try:
            self._create()
            self._db = sqlite3.connect(
                self.path, timeout=0.0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the store {path} cannot be opened: {error}") from error
        try:
            self._open(cluster)
        except sqlite3.Error as error:
            self._db.close()
            held = "locked" in str(error)
            text = "is open in another process" if held else f"cannot be read: {error}"
            raise StoreError(f"the store {path} {text}") from error
        except StoreError:
            self._db.close()
            raise

    def _create(self) -> None:
        """An empty file for its owner only, whose name survives a crash too.

        A file that exists is never opened here: to close it would drop the locks that another
        connection of this process has on it (POSIX locks belong to the process).
        """
        try:
            made = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        os.close(made)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)

    def _open(self, cluster: str) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the log is first touched
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")
        db.execute("BEGIN EXCLUSIVE")
        for statement in _TABLES.split(";"):
            db.execute(statement)
        meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
        if meta.setdefault("schema", SCHEMA) != SCHEMA:
            raise StoreError(
                f"{self.path} has schema {meta['schema']}; this release reads {SCHEMA}"
            )
        self.cluster = meta.setdefault("cluster", cluster or clock.random_bytes(16).hex())
        if cluster and cluster != self.cluster:
            raise StoreError(f"{self.path} is the store of cluster {self.cluster}, not {cluster}")
        self.revision = meta.setdefault("revision", 0)
        self.epoch = meta["epoch"] = meta.get("epoch", 0) + 1
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        db.execute("COMMIT")

    # -- reads ------------------------------------------------------------------------------------
    def get(self, key: bytes) -> Entry | None:
        row = self._execute("SELECT * FROM kv WHERE key = ?", key)
        return Entry(*row[0]) if row else None

    def range(
        self, prefix: bytes, *, after: bytes = b"", limit: int = 1000
    ) -> tuple[list[Entry], int]:
        where, values = "key >= ? AND key > ?", [prefix, after]
        stem = prefix.rstrip(b"\xff")
        if stem:  # else no key comes after those that begin so
            where += " AND key < ?"
            values.append(stem[:-1] + bytes([stem[-1] + 1]))
        rows = self._execute(f"SELECT * FROM kv WHERE {where} ORDER BY key LIMIT ?", *values, limit)
        return [Entry(*row) for row in rows], self.revision

    def _execute(self, statement: str, *values: bytes | int) -> list[tuple[bytes, bytes, int, int]]:
        if os.getpid() != self._pid:
            raise StoreError(f"the store {self.path} was opened by the process before a fork")
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} failed: {error}") from error

    # -- the only write ---------------------------------------------------------------------------
    def txn(self, checks: Iterable[Check], writes: Iterable[Write]) -> int:
        return self.txns([(checks, writes)])[0]

    def txns(self, batch: Iterable[Transaction]) -> list[int]:
        listed = [(list(checks), list(writes)) for checks, writes in batch]
        for _, writes in listed:
            _check_limits(writes)
        self._execute("BEGIN IMMEDIATE")
        revision = self.revision
        revisions = []
        try:
            for checks, writes in listed:
                if all(self._revision(key) == at for key, at in checks):
                    revision += 1
                    self._write(writes, revision)
                    revisions.append(revision)
                else:
                    revisions.append(0)
            self._execute("UPDATE meta SET value = ? WHERE name = 'revision'", revision)
            self._execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.revision = revision
        return revisions

    def _revision(self, key: bytes | int) -> int:
        rows = self._execute("SELECT * FROM kv WHERE key = ?", key)
        return rows[0][3] if rows else ABSENT

    def _write(self, writes: list[Write], revision: int) -> None:
        for key, value in writes:
            if value:
                self._execute(_PUT, key, value, revision, revision)
            else:
                self._execute("DELETE FROM kv WHERE key = ?", key)

    def close(self) -> None:
        if os.getpid() == self._pid:
            self._db.close()


def _check_limits(writes: list[Write]) -> None:
    if len(writes) > ENTRIES_MAX:
        raise LimitExceeded(f"a transaction writes at most {ENTRIES_MAX} entries")
    for key, value in writes:
        if not 0 < len(key) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
            text = f"a key has 1 to {KEY_BYTES_MAX:,} bytes, a value at most {VALUE_BYTES_MAX:,}"
            raise LimitExceeded(f"{text}: {key[:50]!r} has {len(value):,}")


def file_system(directory: Path, mounts: str = "/proc/self/mounts") -> str:
    """The type of the file system on which a directory lies, '' if it cannot be told."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        place = directory.resolve()
    except OSError:
        return ""
    found, depth = "", -1
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        mounted = Path(point.replace("\\040", " "))  # as the kernel writes a blank
        if place.is_relative_to(mounted) and len(mounted.parts) >= depth:
            found, depth = kind, len(mounted.parts)
    return found
