"""Getting at the runtime of this process, which the first use starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from freehold.proc import session

if TYPE_CHECKING:
    from freehold.proc.runtime import Runtime


def current() -> Runtime | None:
    """The runtime of this process, if there is one."""
    runtime: Runtime | None = session.current_runtime
    return runtime


def ensure() -> Runtime:
    """The runtime of this process; the first use starts an embedded node."""
    runtime = current()
    if runtime is not None:
        return runtime
    from freehold.proc import driver  # here, so that `import freehold` is fast

    return driver.first_use()
