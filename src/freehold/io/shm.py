"""The bytes of the arena: one shared file, mapped once by every process of the node.

The file is a ``memfd``: it has no name, so no crash can leave it behind, and it is not bounded by
the size of ``/dev/shm`` (64 MB in many containers).  Its pages are allocated when an extent is
granted (``reserve``), so that a full machine is a typed error and never a SIGBUS.  First writes go
through ``pwrite``, which skips the page faults and the zeroing of fresh pages; later ones are a
plain copy into the mapping, large ones by two threads (``io.copier``).

Pages that others have written are not mapped in this process before it touches them.  A first touch
that *writes* costs a fault for each page, four times as much as the copy itself; one that reads
maps many pages at once, and for writing too.  So pages are read (by the kernel, in one call) before
this process writes there for the first time (``copier.touch``).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections import deque
from collections.abc import Iterable
from typing import Any

from freehold.io import copier

Buffer = bytes | bytearray | memoryview
MADV_POPULATE_WRITE = 23  # not in the mmap module yet
GRAIN_BITS = 16  # what is mapped is noted for pieces of 64 KiB; smaller parts are not worth it


class Arena:
    """A mapping of the node's arena."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd  # ours to close
        self.size = size
        # Pins are typed by powers of two, so a pin may reach beyond the last object's end; the file
        # is sparse, and twice its size costs nothing.
        self.map = mmap.mmap(fd, 2 * size)
        self.view = memoryview(self.map)
        self._copier = copier.Copier(self.map)
        self._touched = bytearray((size >> GRAIN_BITS) + 1)  # 1 where pages are mapped here

    @classmethod
    def create(cls, size: int) -> Arena:
        """A new, empty arena."""
        fd = os.memfd_create("freehold-arena", os.MFD_CLOEXEC)
        os.ftruncate(fd, 2 * size)
        return cls(fd, size)

    def reserve(self, offset: int, size: int) -> None:
        """Allocate the pages.  Raises OSError when the machine has no memory for them."""
        os.posix_fallocate(self.fd, offset, size)

    def prepare(self, offset: int, size: int) -> None:
        """Allocate the pages and clear them too, which makes the first write to them fast.

        They are not kept mapped here.  Raises OSError when the machine has no memory for them.
        """
        try:
            self.map.madvise(MADV_POPULATE_WRITE, offset, size)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel before 5.14
                raise
            self.reserve(offset, size)
        else:
            self.map.madvise(mmap.MADV_DONTNEED, offset, size)

    def write(self, offset: int, parts: Iterable[tuple[int, Buffer]], warm: bool) -> None:
        """Write the parts at their offsets from ``offset``."""
        for at, part in parts:
            start = offset + at
            size = part.nbytes if isinstance(part, memoryview) else len(part)
            if size < 1 << GRAIN_BITS:
                self.view[start : start + size] = part
            elif warm:
                fresh = self._is_fresh(start, start + size)
                if size >= copier.LEAST:
                    self._copier.copy(start, part, fresh)
                    continue
                if fresh:
                    copier.touch(self._copier.base + start, size)
                self.view[start : start + size] = part
            else:
                self._write_cold(start, memoryview(part), size)

    def _is_fresh(self, start: int, end: int) -> bool:
        """Whether some of that is not mapped in this process; it is to be, so asked once."""
        touched = self._touched
        first, beyond = start >> GRAIN_BITS, (end - 1 >> GRAIN_BITS) + 1
        if touched.find(0, first, beyond) < 0:
            return False
        touched[first:beyond] = b"\1" * (beyond - first)
        return True

    def _write_cold(self, start: int, part: memoryview, size: int) -> None:
        done = 0
        while done < size:
            done += os.pwrite(self.fd, part[done:], start + done)

    def pin(self, offset: int, size: int, drops: deque[Any], token: Any) -> memoryview:
        """A read-only view; when it and all views of it are gone, ``drops`` gets ``token``."""
        guard = _guard_type(size).from_buffer(self.map, offset)
        guard.drops = drops
        guard.token = token
        return memoryview(guard).cast("B")[:size].toreadonly()

    def read(self, offset: int, size: int) -> memoryview:
        """A read-only view for those who do not keep it."""
        return self.view[offset : offset + size].toreadonly()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the mapping goes when the last view does."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._copier.close()
            os.close(fd)


def _on_guard_del(self: Any) -> None:
    self.drops.append(self.token)


_guard_types: dict[int, Any] = {}


def _guard_type(size: int) -> Any:
    """A buffer type of at least ``size`` bytes whose instances tell when they die.

    ``memoryview`` and numpy keep the exporting object alive, not the view that they were made from,
    so the exporter itself must be the pin.
    """
    bits = max(size - 1, 1).bit_length()
    kind = _guard_types.get(bits)
    if kind is None:
        base = ctypes.c_ubyte * (1 << bits)
        namespace = {"__del__": _on_guard_del, "__slots__": ("drops", "token")}
        kind = _guard_types[bits] = type("Pin", (base,), namespace)
    return kind


class Cells:
    """16-byte cells: the last task that each worker has started, readable after a crash."""

    WIDTH = 16
    COUNT = 4096

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, self.WIDTH * self.COUNT)

    def cell(self, slot: int) -> memoryview:
        """The cell of a worker's slot; slots wrap, dead workers' cells are reused."""
        start = slot % self.COUNT * self.WIDTH
        return memoryview(self.map)[start : start + self.WIDTH]
