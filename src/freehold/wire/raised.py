"""Exceptions as values: they arrive as they were, whatever their constructors want.

Python pickles an exception as its class and its ``args``, and makes it again by calling the class
with them.  A class with a constructor of its own seldom takes those: ``class Failed(Exception):
def __init__(self, job, code): super().__init__(f"{job}: {code}")`` cannot be made from one text, or
it is made, and says something else.  So the exceptions of such classes travel as what they hold;
the constructor that ran when they were raised does not run again.  A class that says itself how it
is pickled is left alone.
"""

from __future__ import annotations

import copyreg
from typing import Any

from freehold.errors import built_in_base, is_built_in

_BY_HAND = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
_CONSTRUCTION = ("__init__", "__new__", "__setattr__")


def reduce(error: BaseException) -> Any:
    """How to pickle the exception; NotImplemented where Python's own way is right."""
    kind = type(error)
    own = [vars(base) for base in kind.__mro__ if not is_built_in(base)]
    if not any(name in space for space in own for name in _CONSTRUCTION):
        return NotImplemented
    if kind in copyreg.dispatch_table or any(name in space for space in own for name in _BY_HAND):
        return NotImplemented
    reduced: Any = error.__reduce__()  # by a built-in class, with what it keeps elsewhere
    fields = dict(reduced[2]) if len(reduced) > 2 else {}
    state = object.__getstate__(error)
    if isinstance(state, tuple):
        fields.update(state[1])  # what is in slots
    return _remake, (kind, reduced[1]), fields, None, None, _restore


def _remake(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception of that class; only what is built in takes part in making it."""
    base: Any = built_in_base(kind)
    made: BaseException = base.__new__(kind, *args)
    base.__init__(made, *args)
    return made


def _restore(made: BaseException, fields: dict[str, Any]) -> None:
    """Its own fields, whatever the class makes of assignments."""
    for name, value in fields.items():
        object.__setattr__(made, name, value)
