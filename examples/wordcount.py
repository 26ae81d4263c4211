"""Count words: MapReduce, with a shuffle that moves references instead of words.

    python examples/wordcount.py README.md docs/*.md
    python examples/wordcount.py --words 2000000

Each map task counts the words of one text and splits its counts by the hash of the word, one part
for each reducer: with ``num_returns=R`` a call gives R references at once.  The driver transposes
them, a table of references, and hands each reducer its column.  The counts themselves go from
mapper to reducer; the driver reads only what the reducers return.
"""

import argparse
import random
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import freehold as fh


@fh.remote
def count(text: str, reducers: int) -> list[Counter[str]] | Counter[str]:
    """Map: the counts of a text, one part for each reducer."""
    parts = [Counter[str]() for _ in range(reducers)]
    for word, times in Counter(re.findall(r"\w+", text.lower())).items():
        parts[zlib.crc32(word.encode()) % reducers][word] = times
    return parts if reducers > 1 else parts[0]


@fh.remote
def add(*parts: Counter[str]) -> Counter[str]:
    """Reduce: the sum of one column."""
    total = Counter[str]()
    for part in parts:
        total.update(part)
    return total


def generate(words: int, texts: int) -> list[str]:
    """Texts of random words, rare ones and common ones."""
    draw = random.Random(1)
    return [
        " ".join(f"word{int(draw.paretovariate(0.8)) % 10_000}" for _ in range(words // texts))
        for _ in range(texts)
    ]


def main() -> None:
    """Count, print the most frequent words, and compare with a plain count."""
    options = argparse.ArgumentParser(description="Count words with MapReduce.")
    options.add_argument("files", nargs="*", type=Path, help="texts; without any, one is made")
    options.add_argument("--words", type=int, default=200_000, help="how many to make")
    options.add_argument("--reducers", type=int, default=4)
    given = options.parse_args()

    texts = [path.read_text("utf-8", "replace") for path in given.files]
    texts = texts or generate(given.words, 8)
    split = count.options(num_returns=given.reducers)
    rows = [split.remote(text, given.reducers) for text in texts]
    rows = rows if given.reducers > 1 else [[row] for row in rows]
    counts = Counter[str]()
    for part in fh.get([add.remote(*column) for column in zip(*rows, strict=True)]):
        counts.update(part)

    for word, times in counts.most_common(10):
        print(f"{times:>9,}  {word}")
    print(f"{counts.total():,} words, {len(counts):,} different, in {len(texts)} texts")
    plain = Counter(word for text in texts for word in re.findall(r"\w+", text.lower()))
    sys.exit(0 if counts == plain else "wrong: a plain count gives something else")


if __name__ == "__main__":
    main()
