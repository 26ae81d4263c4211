"""The same result by the shortest single-process program, to compare the distributed one with.

It shares the meaning of the question with ``index`` (what an identifier is, how hits are ranked,
what a digest covers) and none of the machinery: no batches, partitions, merging or columns.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from freehold.ext.demo.index import Hit, Statistics, digest, identifiers, ranked, summarise
from freehold.ext.demo.tree import Tree


class PlainIndex:
    """An inverted index as a dictionary of dictionaries."""

    def __init__(self, tree: Tree) -> None:
        self.names = tree.names
        self.counts: dict[bytes, dict[int, int]] = {}
        for number in range(len(tree.names)):
            for word, count in identifiers(tree.read(number)).items():
                self.counts.setdefault(word, {})[number] = count

    def search(self, words: Sequence[str], limit: int = 10) -> list[Hit]:
        """Return the files that have every one of the words, the most frequent use first."""
        found = [self.counts.get(word.encode(), {}) for word in words]
        common = set(found[0]).intersection(*found)
        hits = [(self.names[number], sum(row[number] for row in found)) for number in common]
        return ranked(hits)[:limit]

    def statistics(self, top: int = 10) -> Statistics:
        """Return what is known of all identifiers together."""
        return summarise({word: sum(row.values()) for word, row in self.counts.items()}, top)

    def digest(self) -> str:
        """Return a digest of the whole content."""
        return digest(
            (word, array("I", [number for pair in row.items() for number in pair]).tobytes())
            for word, row in self.counts.items()
        )
