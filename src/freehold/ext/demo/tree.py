"""A source tree: which files count, and their contents in batches."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freehold.ext.demo.index import Batch

SUFFIXES = {
    ".py", ".pyi", ".pyx", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".rs", ".go",
    ".java", ".kt", ".scala", ".swift", ".cs", ".js", ".jsx", ".ts", ".tsx", ".mjs", ".rb",
    ".php", ".pl", ".lua", ".sh", ".sql", ".ex", ".erl", ".hs", ".ml", ".zig", ".proto",
}  # fmt: skip
SKIPPED = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
BATCHES_MIN = 24


@dataclass(frozen=True, slots=True)
class Tree:
    """The source files below a directory.

    Attributes:
        root: the directory.
        names: their paths below it, in order.
        sizes: bytes of each, when listed.
    """

    root: Path
    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes)

    def read(self, number: int) -> bytes:
        """Return a file's contents.

        Raises:
            OSError: it cannot be read any more.
        """
        return (self.root / self.names[number]).read_bytes()

    def groups(self, batch_bytes: int) -> list[range]:
        """Return the files' numbers in groups of about that many bytes.

        A small tree makes smaller groups, so that there is something to distribute.
        """
        aim = max(1, min(batch_bytes, self.nbytes // BATCHES_MIN))
        found, start, held = [], 0, 0
        for number, size in enumerate(self.sizes):
            if number > start and held + size > aim:
                found.append(range(start, number))
                start, held = number, 0
            held += size
        found.append(range(start, len(self.sizes)))
        return found

    def batch(self, group: range) -> Batch:
        """Read a group of files."""
        texts = [self.read(number) for number in group]
        return Batch(group.start, tuple(map(len, texts)), b"".join(texts))


def standard_library() -> Path:
    """Return where the running interpreter's standard library is."""
    return Path(sysconfig.get_path("stdlib"))


def scan(root: Path) -> Tree:
    """List the source files below a directory; hidden and installed packages' ones are left out.

    Raises:
        FileNotFoundError: there is none.
    """
    names, sizes = [], []
    for path in sorted(walk(root)):
        names.append(str(path.relative_to(root)))
        sizes.append(path.stat().st_size)
    if not names:
        raise FileNotFoundError(f"no source files below {root}")
    return Tree(root, tuple(names), tuple(sizes))


def walk(root: Path) -> Iterator[Path]:
    """Yield the regular, readable source files below a directory."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED and name[0] != "."]
        for name in files:
            path = Path(folder, name)
            if path.suffix in SUFFIXES and path.is_file() and os.access(path, os.R_OK):
                yield path
