"""Functions and classes by value: cloudpickle, but with the files that they come from.

cloudpickle leaves out a function's file, so that its bytes are the same wherever it was defined.
Here the file stays: a traceback from another process is of little use without it.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
from collections import ChainMap
from collections.abc import Callable
from typing import Any, ClassVar

loads = pickle.loads


def dumps(value: Any) -> bytes:
    """A function, a class, or what else cloudpickle takes."""
    stream = io.BytesIO()
    _pickler()(stream, 5).dump(value)
    return stream.getvalue()


@functools.cache
def _pickler() -> Callable[[io.BytesIO, int], pickle.Pickler]:
    import cloudpickle  # here, since it takes longer to import than all of this package

    theirs: Any = cloudpickle.Pickler.dispatch_table

    def reduce_code(code: types.CodeType) -> tuple[Any, ...]:
        make, fields = theirs[types.CodeType](code)
        return _in_file, (make, fields, code.co_filename)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it is untyped
        dispatch_table: ClassVar[Any] = ChainMap({types.CodeType: reduce_code}, theirs)

    return Pickler


def _in_file(make: Callable[..., types.CodeType], fields: Any, file: str) -> types.CodeType:
    """The code, as if it had been compiled from that file."""
    return make(*fields).replace(co_filename=file)


def is_importable(value: Any) -> bool:
    """Whether another process finds the function or class by its name."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        return False
    found: Any = module
    for name in getattr(value, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found is value and not _by_value(module.__name__)


def _by_value(name: str) -> bool:
    """Whether the user wants that module's code sent, importable or not."""
    pickler = sys.modules.get("cloudpickle")  # where it has not been imported, nobody has asked
    if pickler is None:
        return False
    return any(
        name == module or name.startswith(module + ".")
        for module in pickler.list_registry_pickle_by_value()
    )
