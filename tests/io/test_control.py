"""What every engine of the control store must do.  To add an engine, add it to ``ENGINES``."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from freehold.errors import LimitExceeded, StoreError
from freehold.io import control
from freehold.io.control import ABSENT, ControlStore, Entry, SqliteStore, file_system
from stateful import effort

Open = Callable[..., ControlStore]

# An engine: how to open the store that a directory stands for, here and in another process.
ENGINES: dict[str, tuple[Callable[..., ControlStore], str]] = {
    "sqlite": (
        lambda place, **more: SqliteStore(place / "store", **more),
        "from freehold.io.control import SqliteStore; s = SqliteStore(sys.argv[1] + '/store')",
    ),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(engine: str, tmp_path: Path) -> Iterator[Open]:
    """Opens the store, again and again if need be; all are closed in the end."""
    made: list[ControlStore] = []

    def open_store(**more: Any) -> ControlStore:
        made.append(ENGINES[engine][0](tmp_path, **more))
        return made[-1]

    yield open_store
    for store in made:
        store.close()


def elsewhere(engine: str, place: Path, then: str) -> subprocess.Popen[str]:
    """Another process that opens the store and does something with it."""
    text = f"import os, sys\n{ENGINES[engine][1]}\n{then}"
    command = [sys.executable, "-c", text, str(place)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_written_is_read_also_after_a_restart(opened: Open) -> None:
    store = opened()
    first = store.txn([], [(b"a", b"1"), (b"b", b"2")])
    second = store.txn([], [(b"a", b"3")])
    assert (first, second) == (1, 2)
    for _ in range(2):
        assert store.get(b"a") == Entry(b"a", b"3", 1, 2)
        assert store.get(b"b") == Entry(b"b", b"2", 1, 1)
        assert store.get(b"c") is None
        assert store.range(b"")[1] == 2
        store.close()
        store = opened()


def test_a_transaction_checks_revisions_and_does_all_or_nothing(opened: Open) -> None:
    store = opened()
    assert store.txn([(b"a", ABSENT)], [(b"a", b"1")]) == 1
    assert store.txn([(b"a", ABSENT)], [(b"a", b"2"), (b"b", b"2")]) == 0
    assert store.txn([(b"a", 1), (b"b", 1)], [(b"a", b"2")]) == 0
    assert store.range(b"") == ([Entry(b"a", b"1", 1, 1)], 1)
    assert store.txn([(b"a", 1), (b"b", ABSENT)], [(b"a", b""), (b"b", b"2")]) == 2
    assert store.range(b"") == ([Entry(b"b", b"2", 2, 2)], 2)


def test_a_key_that_is_made_again_is_a_new_one(opened: Open) -> None:
    store = opened()
    for value in (b"1", b"", b"2"):
        store.txn([], [(b"a", value)])
    assert store.get(b"a") == Entry(b"a", b"2", 3, 3)


def test_many_at_once_are_each_for_itself_and_see_those_before(opened: Open) -> None:
    store = opened()
    batch = [
        ([(b"a", ABSENT)], [(b"a", b"1")]),
        ([(b"a", ABSENT)], [(b"a", b"2")]),
        ([(b"a", 1)], [(b"a", b"3")]),
    ]
    assert store.txns(batch) == [1, 0, 2]
    assert store.get(b"a") == Entry(b"a", b"3", 1, 2)
    assert store.txns([]) == []


def test_a_range_is_in_order_and_comes_in_pages(opened: Open) -> None:
    store = opened()
    keys = [b"a", b"b/", b"b/1", b"b/2", b"b/\xff\xff", b"b0", b"\xff", b"\xff\x01"]
    for key in keys:
        store.txn([], [(key, b"x")])

    def listed(prefix: bytes, **more: Any) -> list[bytes]:
        return [entry.key for entry in store.range(prefix, **more)[0]]

    assert listed(b"") == sorted(keys)
    assert listed(b"b/") == [b"b/", b"b/1", b"b/2", b"b/\xff\xff"]
    assert listed(b"b/", limit=2) == [b"b/", b"b/1"]
    assert listed(b"b/", limit=2, after=b"b/1") == [b"b/2", b"b/\xff\xff"]
    assert listed(b"b/", after=b"b/\xff\xff") == []
    assert listed(b"b/\xff") == [b"b/\xff\xff"]
    assert listed(b"\xff") == [b"\xff", b"\xff\x01"]


def test_what_is_too_large_is_refused_and_nothing_is_done(opened: Open) -> None:
    store = opened()
    largest = control.VALUE_BYTES_MAX
    assert store.txn([], [(b"a", bytes(largest))]) == 1
    too_many = [(b"%d" % number, b"x") for number in range(control.ENTRIES_MAX + 1)]
    long_key = bytes(control.KEY_BYTES_MAX + 1)
    for writes in ([(b"b", bytes(largest + 1))], too_many, [(long_key, b"x")], [(b"", b"x")]):
        with pytest.raises(LimitExceeded):
            store.txns([([], [(b"c", b"x")]), ([], writes)])
    assert [entry.key for entry in store.range(b"")[0]] == [b"a"]
    assert store.txn([], too_many[:-1]) == 2


def test_an_opening_raises_the_epoch_and_keeps_the_clusters_name(opened: Open) -> None:
    store = opened()
    name = store.cluster
    assert len(name) == 32
    for epoch in (1, 2, 3):
        assert (store.epoch, store.cluster) == (epoch, name)
        store.close()
        store = opened(cluster=name)


def test_the_store_of_another_cluster_is_refused(opened: Open) -> None:
    store = opened(cluster="one")
    store.close()
    with pytest.raises(StoreError, match="cluster one, not two"):
        opened(cluster="two")
    assert opened().epoch == 2


def test_a_second_opener_is_refused_here_and_elsewhere(
    opened: Open, engine: str, tmp_path: Path
) -> None:
    store = opened()
    with pytest.raises(StoreError, match="open in another process"):
        opened()
    _, errors = elsewhere(engine, tmp_path, "").communicate(timeout=30)
    assert "StoreError" in errors
    assert store.txn([], [(b"a", b"1")]) == 1
    store.close()
    assert opened().get(b"a") is not None


def test_an_opener_that_is_killed_leaves_what_it_was_told_is_written(
    engine: str, tmp_path: Path
) -> None:
    """Killed in the middle of writing, over and over: nothing acknowledged is lost or torn."""
    writes = (
        "n = len(s.range(b'a', limit=10**6)[0])\n"
        "while True:\n"
        "    n += 1\n"
        "    key = b'%08d' % n\n"
        "    s.txn([(b'a' + key, 0)], [(b'a' + key, b'x' * 500), (b'b' + key, key)])\n"
        "    print(n, flush=True)\n"
    )
    acknowledged = 0
    for lines in (1, 3, 20, 50):
        process = elsewhere(engine, tmp_path, writes)
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=30)
        acknowledged = max([acknowledged, *(int(n) for n in rest.split("\n")[:-1])])
        store = ENGINES[engine][0](tmp_path)
        pairs = [store.range(prefix, limit=10**6)[0] for prefix in (b"a", b"b")]
        revision = store.range(b"")[1]
        store.close()
        assert acknowledged <= len(pairs[0]) <= acknowledged + 1
        assert [entry.key[1:] for entry in pairs[0]] == [entry.value for entry in pairs[1]]
        assert [entry.revision for entry in pairs[0]] == list(range(1, revision + 1))


KEYS = st.sampled_from([b"a", b"ab", b"b", b"b\xff", b"\xff\xff"])
WRITES = st.lists(st.tuples(KEYS, st.sampled_from([b"", b"1", b"2"])), max_size=4)


class Model(RuleBasedStateMachine):
    """Transactions, ranges and restarts, beside a dictionary."""

    engine = "sqlite"

    @initialize()
    def begin(self) -> None:
        self.place = tempfile.TemporaryDirectory(prefix="fh-store-")
        self.store = ENGINES[self.engine][0](Path(self.place.name))
        self.model: dict[bytes, Entry] = {}
        self.revision = 0

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.store.close()
            self.place.cleanup()

    def apply(self, checks: list[tuple[bytes, int]], writes: list[tuple[bytes, bytes]]) -> int:
        for key, at in checks:
            if (self.model[key].revision if key in self.model else ABSENT) != at:
                return 0
        self.revision += 1
        for key, value in writes:
            if not value:
                self.model.pop(key, None)
            else:
                before = self.model.get(key)
                created = before.created if before else self.revision
                self.model[key] = Entry(key, value, created, self.revision)
        return self.revision

    def checks(self, keys: list[bytes], lie: bool) -> list[tuple[bytes, int]]:
        found = [(k, self.model[k].revision if k in self.model else ABSENT) for k in keys]
        return [(key, at + 1) for key, at in found] if lie else found

    @rule(keys=st.lists(KEYS, max_size=2), lie=st.booleans(), writes=WRITES)
    def txn(self, keys: list[bytes], lie: bool, writes: list[tuple[bytes, bytes]]) -> None:
        checks = self.checks(keys, lie)
        assert self.store.txn(checks, writes) == self.apply(checks, writes)

    @rule(several=st.lists(st.tuples(st.lists(KEYS, max_size=1), st.booleans(), WRITES)))
    def txns(self, several: list[Any]) -> None:
        batch = [(self.checks(keys, lie), writes) for keys, lie, writes in several]
        assert self.store.txns(batch) == [self.apply(*each) for each in batch]

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = ENGINES[self.engine][0](Path(self.place.name))

    @rule(prefix=st.sampled_from([b"", b"a", b"b", b"\xff"]), after=KEYS, limit=st.integers(1, 3))
    def page(self, prefix: bytes, after: bytes, limit: int) -> None:
        keys = [key for key in sorted(self.model) if key.startswith(prefix) and key > after]
        found, revision = self.store.range(prefix, after=after, limit=limit)
        assert found == [self.model[key] for key in keys[:limit]]
        assert revision == self.revision

    @invariant()
    def same(self) -> None:
        if hasattr(self, "store"):
            assert self.store.range(b"")[0] == [self.model[key] for key in sorted(self.model)]


TestModel = Model.TestCase
TestModel.settings = effort(10, 15)


# -- SQLite's own ---------------------------------------------------------------------------------


def test_the_file_is_its_owners_and_has_no_companion_that_others_could_map(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store")
    store.txn([], [(b"a", b"1")])
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store-wal"]
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_every_commit_is_synced(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store")
    assert store._execute("PRAGMA synchronous") == [(2,)]  # FULL
    assert store._execute("PRAGMA journal_mode") == [("wal",)]
    assert store._execute("PRAGMA locking_mode") == [("exclusive",)]
    store.close()


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(tmp_path / "text")
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path / "nowhere" / "store")
    SqliteStore(tmp_path / "later").close()
    db = sqlite3.connect(tmp_path / "later")
    db.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="schema 99"):
        SqliteStore(tmp_path / "later")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mounts"
    table.write_text(
        f"/dev/x / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n"
        f"/dev/y {tmp_path}/local\\040disk xfs rw 0 0\n"
    )
    (tmp_path / "local disk").mkdir()
    assert file_system(tmp_path, str(table)) == "nfs4"
    assert file_system(tmp_path / "local disk", str(table)) == "xfs"
    assert file_system(Path("/"), str(table)) == "ext4"
    assert file_system(Path("/"), str(tmp_path / "none")) == ""
    assert file_system(tmp_path) not in ("", "nfs4")
    monkeypatch.setattr(control, "file_system", lambda directory: "nfs4")
    with pytest.raises(StoreError, match="network file system"):
        SqliteStore(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_connection_is_not_carried_over_a_fork(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store")
    pid = os.fork()
    if not pid:
        try:
            store.txn([], [(b"a", b"1")])
        except StoreError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert store.get(b"a") is None
    store.close()


def test_a_full_disk_is_an_error_and_undoes_the_transaction(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store")
    store.txn([], [(b"a", b"1")])
    (pages,) = store._execute("PRAGMA page_count")[0][:1]
    store._execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreError, match="full"):
        store.txn([], [(b"b", b"2"), (b"c", bytes(100_000))])
    assert [entry.key for entry in store.range(b"")[0]] == [b"a"]
    assert store.txn([], [(b"d", b"4")]) == 2
    store.close()
