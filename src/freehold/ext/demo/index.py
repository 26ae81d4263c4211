"""The inverted index, as pure functions over compact values.

The pipeline is ``invert`` (one batch of files to one partition of postings per reducer), ``merge``
(one partition from every batch to a shard) and ``Index`` (every shard, and the questions it
answers).  An identifier belongs to partition ``crc32(identifier) % partitions``, the same in every
process and every run, so that a task that is run again makes the same values.

Values that travel hold their bulk in buffers that pickle out of band: a task that gets one reads
it in place in shared memory, and an index that keeps one keeps it there.
"""

from __future__ import annotations

import keyword
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import itemgetter
from pickle import PickleBuffer
from typing import Any

Buffer = bytes | bytearray | memoryview
Hit = tuple[str, int]
"""A file's name, and how often it has the words that were asked for."""

IDENTIFIER = re.compile(rb"\b[A-Za-z_]\w*")
KEYWORDS = [word.encode() for word in keyword.kwlist]
PAIR_BYTES = 8  # a document's number and a count, 32 bits each
STYLES = {
    "dunder": re.compile(rb"__\w+__"),
    "UPPER_CASE": re.compile(rb"_*[A-Z][A-Z0-9_]+"),
    "snake_case": re.compile(rb"_*[a-z][a-z0-9]*(?:_+[a-z0-9]+)+_*"),
    "lower": re.compile(rb"_*[a-z][a-z0-9]*_*"),
    "CapWords": re.compile(rb"_*[A-Z](?=\w*[a-z])[A-Za-z0-9]*"),
    "mixedCase": re.compile(rb"_*[a-z][a-z0-9]*[A-Z][A-Za-z0-9]*"),
}


# --- values that travel ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """The contents of some files, one after the other: the unit of a map task.

    Attributes:
        first: the number of its first document; the others follow.
        sizes: bytes of each document.
        text: their contents.
    """

    first: int
    sizes: tuple[int, ...]
    text: Buffer

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch, (self.first, self.sizes, PickleBuffer(self.text))

    @property
    def nbytes(self) -> int:
        """Bytes of text."""
        return len(self.text)

    def documents(self) -> Iterator[tuple[int, memoryview]]:
        """Yield each document's number and contents, in place."""
        view, start = memoryview(self.text), 0
        for number, size in enumerate(self.sizes, self.first):
            yield number, view[start : start + size]
            start += size


@dataclass(frozen=True, slots=True)
class Postings:
    """Words, and for each the documents that have it: three columns.

    Attributes:
        words: the words, each ended by a newline.
        runs: one 32-bit number per word: how many documents have it.
        pairs: for each word in turn, its runs of (document, count), 32 bits each.
    """

    words: Buffer
    runs: Buffer
    pairs: Buffer

    def __reduce__(self) -> tuple[Any, ...]:
        columns = (self.words, self.runs, self.pairs)
        return Postings, tuple(PickleBuffer(column) for column in columns)

    @classmethod
    def build(cls, rows: Iterable[tuple[bytes, Buffer]]) -> Postings:
        """Make it of words with their pairs."""
        words, runs, pairs = [], array("I"), bytearray()
        for word, row in rows:
            words.append(word)
            runs.append(len(row) // PAIR_BYTES)
            pairs += row
        words.append(b"")
        return cls(b"\n".join(words), runs.tobytes(), pairs)

    @property
    def nbytes(self) -> int:
        """Bytes of its columns."""
        return len(self.words) + len(self.runs) + len(self.pairs)

    def rows(self) -> Iterator[tuple[bytes, memoryview]]:
        """Yield each word with its pairs, the pairs in place."""
        view, start = memoryview(self.pairs), 0
        for word, run in zip(
            bytes(self.words).splitlines(), memoryview(self.runs).cast("I"), strict=True
        ):
            end = start + run * PAIR_BYTES
            yield word, view[start:end]
            start = end


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a map task says of itself, small enough to travel by value.

    Attributes:
        pid: the process that ran it.
        tokens: identifiers read.
        sizes: bytes of each partition it made.
    """

    pid: int
    tokens: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of all identifiers together.

    Attributes:
        tokens: identifiers read, repeats included.
        distinct: different identifiers.
        once: identifiers that occur once in the whole tree.
        longest: the longest one (of several, the first in order).
        styles: how many different identifiers are written in each style.
        top: the most frequent ones with their counts, most frequent first.
    """

    tokens: int
    distinct: int
    once: int
    longest: str
    styles: dict[str, int]
    top: list[tuple[str, int]]


# --- the pipeline ---------------------------------------------------------------------------------


def identifiers(text: Buffer) -> Counter[bytes]:
    """Count the ASCII identifiers in a source text, Python's keywords left out."""
    found: Counter[bytes] = Counter(IDENTIFIER.findall(text))
    for word in KEYWORDS:
        found.pop(word, None)
    return found


def partition_of(word: bytes, partitions: int) -> int:
    """Return the partition that a word belongs to: the same in every process."""
    return zlib.crc32(word) % partitions


def invert(batch: Batch, partitions: int) -> tuple[list[Postings], int]:
    """Return the batch's postings, one part per partition, and how many tokens were read."""
    tokens = 0
    found: dict[bytes, list[int]] = {}
    for document, text in batch.documents():
        counts = identifiers(text)
        tokens += counts.total()
        for word, count in counts.items():
            row = found.get(word)
            if row is None:
                found[word] = [document, count]
            else:
                row += (document, count)
    parts: list[list[tuple[bytes, Buffer]]] = [[] for _ in range(partitions)]
    for word, row in found.items():
        parts[partition_of(word, partitions)].append((word, array("I", row).tobytes()))
    return [Postings.build(part) for part in parts], tokens


def merge(parts: Iterable[Postings]) -> Postings:
    """Return the union of parts of one partition, words in order; documents in the parts' order."""
    merged: dict[bytes, bytearray] = {}
    for part in parts:
        for word, pairs in part.rows():
            row = merged.get(word)
            if row is None:
                merged[word] = bytearray(pairs)
            else:
                row += pairs
    return Postings.build((word, merged[word]) for word in sorted(merged))


# --- what is asked of the result ------------------------------------------------------------------


class Index:
    """Every shard of the index; as an actor, what other programs ask.

    Args:
        names: the documents' names, by number.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.rows: dict[bytes, memoryview] = {}

    def add(self, shard: Postings) -> int:
        """Take a shard in, by reference: its pairs stay where they are.  Return words held."""
        self.rows.update(shard.rows())
        return len(self.rows)

    def search(self, words: Sequence[str], limit: int = 10) -> list[Hit]:
        """Return the files that have every one of the words, the most frequent use first."""
        rows = [self.rows.get(word.encode(), memoryview(b"")).cast("I") for word in words]
        counts = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
        common = [number for number in counts[0] if all(number in count for count in counts)]
        hits = [(self.names[number], sum(count[number] for count in counts)) for number in common]
        return ranked(hits)[:limit]

    def sample(self, size: int) -> list[str]:
        """Return about that many identifiers, evenly spread over all of them in order."""
        words = sorted(self.rows)
        return [word.decode() for word in words[:: max(1, len(words) // max(1, size))]][:size]

    def statistics(self, top: int = 10) -> Statistics:
        """Return what is known of all identifiers together."""
        return summarise({word: sum(row.cast("I")[1::2]) for word, row in self.rows.items()}, top)

    def digest(self) -> str:
        """Return a digest of the whole content, whatever its order and partitions."""
        return digest(self.rows.items())


def ranked(hits: list[Hit]) -> list[Hit]:
    """Return the hits, highest count first, then by name."""
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def digest(rows: Iterable[tuple[bytes, Buffer]]) -> str:
    """Return a digest of words with their pairs that does not depend on their order."""
    total = 0
    for word, pairs in rows:
        row = blake2b(word + b"\n", digest_size=16)
        row.update(pairs)
        total += int.from_bytes(row.digest(), "big")
    return f"{total % (1 << 128):032x}"


def style(word: bytes) -> str:
    """Return the style that an identifier is written in."""
    for name, pattern in STYLES.items():
        if pattern.fullmatch(word):
            return name
    return "other"


def summarise(totals: Mapping[bytes, int], top: int) -> Statistics:
    """Return the statistics of identifiers, given how often each occurs."""
    by_count = sorted(sorted(totals.items()), key=itemgetter(1), reverse=True)
    styles = Counter(map(style, totals))
    return Statistics(
        tokens=sum(totals.values()),
        distinct=len(totals),
        once=sum(count == 1 for count in totals.values()),
        longest=max(sorted(totals), key=len, default=b"").decode(),
        styles=dict(sorted(styles.items())),
        top=[(word.decode(), count) for word, count in by_count[:top]],
    )
