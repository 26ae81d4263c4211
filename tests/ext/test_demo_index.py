"""The demonstration's pure parts: the pipeline equals the plain computation, however it is cut."""

from __future__ import annotations

import pickle
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.ext.demo.index import (
    Batch,
    Index,
    Postings,
    identifiers,
    invert,
    merge,
    partition_of,
    style,
    summarise,
)
from freehold.ext.demo.plain import PlainIndex
from freehold.ext.demo.tree import Tree, scan, standard_library

SOURCE = b"def f(alpha, beta_2):\n    return alpha + beta_2  # alpha caf\xc3\xa9 2nd\n"


class Texts(Tree):
    """A tree that holds its texts itself."""

    __slots__ = ("texts",)

    def __init__(self, texts: list[bytes]) -> None:
        names = tuple(f"{number}.py" for number in range(len(texts)))
        super().__init__(Path("."), names, tuple(map(len, texts)))
        object.__setattr__(self, "texts", texts)

    def read(self, number: int) -> bytes:
        return self.texts[number]


def build(tree: Tree, batch_bytes: int, partitions: int) -> tuple[Index, int]:
    """Do what the distributed program does, in one process."""
    mapped = [invert(tree.batch(group), partitions) for group in tree.groups(batch_bytes)]
    index = Index(tree.names)
    for number in range(partitions):
        index.add(merge(parts[number] for parts, _ in mapped))
    return index, sum(tokens for _, tokens in mapped)


texts = st.lists(
    st.text(alphabet="abXY_1 \n(#é", max_size=60).map(str.encode), min_size=1, max_size=12
)


@given(texts=texts, batch_bytes=st.integers(1, 200), partitions=st.integers(1, 5))
def test_pipeline_equals_the_plain_computation(
    texts: list[bytes], batch_bytes: int, partitions: int
) -> None:
    tree = Texts(texts)
    index, tokens = build(tree, batch_bytes, partitions)
    plain = PlainIndex(tree)
    assert index.digest() == plain.digest()
    assert index.statistics() == plain.statistics()
    assert tokens == plain.statistics().tokens
    for word in index.sample(5):
        for other in (word, "a", "absent"):
            assert index.search((word, other)) == plain.search((word, other))


@given(texts=texts, partitions=st.integers(1, 4))
def test_values_survive_both_kinds_of_pickle(texts: list[bytes], partitions: int) -> None:
    batch = Texts(texts).batch(range(len(texts)))
    part = invert(batch, partitions)[0][0]
    for value in (batch, part):
        held: list[pickle.PickleBuffer] = []
        envelope = pickle.dumps(value, protocol=5, buffer_callback=held.append)
        apart = pickle.loads(envelope, buffers=[buffer.raw().toreadonly() for buffer in held])
        whole = pickle.loads(pickle.dumps(value, protocol=5))
        for copy in (apart, whole):
            assert copy.nbytes == value.nbytes
            if isinstance(value, Batch):
                assert list(copy.documents()) == list(value.documents())
            else:
                assert list(copy.rows()) == list(value.rows())


def test_bulk_travels_out_of_band() -> None:
    batch = Batch(0, (100_000,), b"name " * 20_000)
    held: list[pickle.PickleBuffer] = []
    assert len(pickle.dumps(batch, protocol=5, buffer_callback=held.append)) < 200
    assert [buffer.raw().nbytes for buffer in held] == [100_000]


def test_a_digest_tells_any_difference() -> None:
    one = build(Texts([b"a b", b"b"]), 1, 2)[0].digest()
    assert one == build(Texts([b"b a", b"b"]), 100, 3)[0].digest()
    others = [[b"a b", b"b b"], [b"a b", b"c"], [b"a", b"b b"], [b"b", b"a b"]]
    assert one not in {build(Texts(other), 1, 2)[0].digest() for other in others}


def test_identifiers_leave_out_keywords_numbers_and_other_scripts() -> None:
    assert identifiers(SOURCE) == {b"f": 1, b"alpha": 3, b"beta_2": 2, b"caf": 1}


def test_partitions_are_the_same_in_every_process() -> None:
    words = [first + second for first in string.ascii_letters for second in "ab_"]
    program = (
        "import sys; from freehold.ext.demo.index import partition_of as p; "
        "print([p(word.encode(), 7) for word in sys.argv[1:]])"
    )
    there = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    here = [partition_of(word.encode(), 7) for word in words]
    assert there.stdout.strip() == str(here)
    assert set(here) == set(range(7))


def test_merge_keeps_the_parts_order_and_accepts_nothing() -> None:
    parts = [invert(Batch(first, (1, 1), b"ba"), 1)[0][0] for first in (0, 2)]
    rows = [(word, list(pairs.cast("I"))) for word, pairs in merge(parts).rows()]
    assert rows == [(b"a", [1, 1, 3, 1]), (b"b", [0, 1, 2, 1])]
    assert list(merge([]).rows()) == list(Postings.build([]).rows()) == []


def test_search_ranks_by_use_then_name() -> None:
    index, _ = build(Texts([b"a b", b"a a b", b"a", b"b a"]), 2, 2)
    assert index.search(("a", "b")) == [("1.py", 3), ("0.py", 2), ("3.py", 2)]
    assert index.search(("a", "b"), limit=1) == [("1.py", 3)]
    assert index.search(("a", "absent")) == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (b"__init__", "dunder"),
        (b"MAX_SIZE", "UPPER_CASE"),
        (b"_hidden_name", "snake_case"),
        (b"word", "lower"),
        (b"_ABC9", "UPPER_CASE"),
        (b"ClassName", "CapWords"),
        (b"HTTPServer", "CapWords"),
        (b"methodName", "mixedCase"),
        (b"Odd_Name", "other"),
        (b"_", "other"),
    ],
)
def test_style(word: bytes, expected: str) -> None:
    assert style(word) == expected


def test_statistics_of_a_few_words() -> None:
    found = summarise({b"b": 2, b"a": 2, b"long_name": 1}, top=2)
    assert (found.tokens, found.distinct, found.once) == (5, 3, 1)
    assert found.longest == "long_name"
    assert found.top == [("a", 2), ("b", 2)]
    assert found.styles == {"lower": 2, "snake_case": 1}
    assert summarise({}, top=2).longest == ""


@given(
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=60), batch_bytes=st.integers(1, 9000)
)
def test_groups_hold_every_file_once_and_stay_small(sizes: list[int], batch_bytes: int) -> None:
    tree = Tree(Path("."), ("x",) * len(sizes), tuple(sizes))
    groups = tree.groups(batch_bytes)
    assert [number for group in groups for number in group] == list(range(len(sizes)))
    for group in groups:
        assert len(group) == 1 or sum(sizes[number] for number in group) <= batch_bytes


def test_scan_takes_source_files_only(tmp_path: Path) -> None:
    for name in ("b.py", "a.c", "sub/c.py", "notes.txt", ".git/x.py", "__pycache__/y.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"word")
    (tmp_path / "broken.py").symlink_to("nowhere")
    assert scan(tmp_path) == Tree(tmp_path, ("a.c", "b.py", "sub/c.py"), (4, 4, 4))


def test_scan_of_a_tree_without_sources_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no source files below"):
        scan(tmp_path)


def test_the_default_tree_is_the_standard_library() -> None:
    assert "keyword.py" in scan(standard_library()).names
