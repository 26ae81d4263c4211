"""The little that ``import freehold`` needs of the machinery: whether there is a runtime here.

Everything else is imported when the first session begins, so that importing the library costs a
program that does not use it next to nothing.
"""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from freehold.io import clock

if TYPE_CHECKING:
    from freehold.core.ids import Context
    from freehold.core.process.rows import Row

BURST = 64  # submissions between two flushes
now = clock.now
drops: deque[Row] = deque()  # rows whose handle or view has died; appended to by any thread
task_context: ContextVar[Context | None] = ContextVar("freehold_task", default=None)
current_runtime: Any = None  # a proc.runtime.Runtime, which imports this file
calls: Any = None  # the module proc.calls, once there has been a runtime
forked = False  # this process was forked from one that had a runtime, and has made none of its own


def current() -> Any:
    """The runtime of this process, if there is one."""
    return current_runtime


def set_current(runtime: Any) -> None:
    """Make it the runtime of this process."""
    global current_runtime
    current_runtime = runtime


def leave_to_parent() -> Any:
    """In a forked child: the parent's runtime, given up; None if it had none."""
    global forked
    inherited = current_runtime
    if inherited is not None:
        forked = True
        set_current(None)
        drops.clear()
        inherited.abandon()
    return inherited
