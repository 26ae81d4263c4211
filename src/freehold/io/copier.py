"""Large copies into mapped memory, by two threads: one alone does not use all that memory can give.

A copy is cut into pieces, which the thread that wants it takes one after the other; a helper takes
some of them if a processor is free for it.  Nobody waits for a helper that has not begun: where
there is none, or no time for it, the copy takes as long as without one.  Neither holds the
interpreter's lock meanwhile.  Pages that are not mapped in this process yet are, piece by piece, by
whoever copies there (``touch``).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import Any

PIECE = 4 << 20  # bytes
LEAST = 2 * PIECE  # a smaller copy is not worth a helper


class _Buffer(ctypes.Structure):
    """The interpreter's ``Py_buffer``: ctypes itself gives no address of what is read-only."""

    _fields_ = (
        ("start", ctypes.c_void_p), ("exporter", ctypes.c_void_p), ("size", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_Buffer)]
_release_buffer.restype = None
SIMPLE = 0  # as contiguous bytes
_madvise = ctypes.CDLL(None).madvise  # that of the mmap module keeps the interpreter's lock
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
MADV_POPULATE_READ = 22  # not in the mmap module yet


def touch(start: int, size: int) -> None:
    """Map the pages at that address, which costs a fault for each otherwise; see ``io.shm``."""
    first = start & -mmap.PAGESIZE
    _madvise(first, start + size - first, MADV_POPULATE_READ)  # fails before 5.14: it costs faults


class _Job:
    """One copy."""

    __slots__ = ("at_work", "fresh", "pieces", "size", "source", "target")

    def __init__(self, target: int, source: int, size: int, fresh: bool) -> None:
        self.target = target
        self.source = source
        self.size = size
        self.fresh = fresh  # some of it is not mapped in this process yet
        self.pieces = deque(range(0, size, PIECE))
        self.at_work = threading.Lock()  # held by the helper while it copies pieces

    def run(self) -> None:
        """Copy pieces until none is left to begin."""
        target, source, size, pieces = self.target, self.source, self.size, self.pieces
        while pieces:
            try:
                at = pieces.popleft()
            except IndexError:  # the other thread was faster
                return
            length = min(PIECE, size - at)
            if self.fresh:
                touch(target + at, length)
            ctypes.memmove(target + at, source + at, length)


class Copier:
    """Copies into one mapping."""

    def __init__(self, mapping: Any) -> None:
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        self._alone = len(os.sched_getaffinity(0)) < 2
        self._jobs: SimpleQueue[_Job | None] | None = None

    def copy(self, offset: int, part: Any, fresh: bool = True) -> None:
        """Copy the contiguous buffer to that offset of the mapping; ``fresh``: touch it before."""
        buffer = _Buffer()
        _get_buffer(part, buffer, SIMPLE)
        try:
            job = _Job(self.base + offset, buffer.start, buffer.size, fresh)
            if self._jobs is None and not self._alone:
                self._start_helper()
            if self._jobs is not None:
                self._jobs.put(job)
            job.run()
            with job.at_work:  # what the helper has begun, it ends
                pass
        finally:
            _release_buffer(buffer)

    def _start_helper(self) -> None:
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
        try:
            threading.Thread(target=_help, args=(jobs,), name="freehold-copy", daemon=True).start()
        except (RuntimeError, MemoryError):  # a task's memory limit may leave no room for one
            self._alone = True
        else:
            self._jobs = jobs

    def close(self) -> None:
        """End the helper."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _help(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        with job.at_work:
            job.run()
