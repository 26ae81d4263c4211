"""User values: pickle 5, with large buffers out of band, laid out for reading in place.

A serialized value is one of

* a plain pickle (first byte ``0x80``), when it has no out-of-band buffers;
* empty: ``None``, the most common result;
* a *container* (first byte ``0x01``): a header of offsets, the pickle, and the buffers, each on a
  64-byte boundary, so that numpy and Arrow read them where they lie;
* raw ``bytes`` (first byte ``0x02``), so that a large byte string is copied once, not twice.

Functions and classes that cannot be imported elsewhere travel by cloudpickle; everything else by
the C pickler.  While a value is pickled, each reference in it is noted (``Packed.refs``); a
reference that is pickled at any other time raises, because nobody would count it.
"""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import types
from _thread import get_ident as _get_ident
from typing import Any, NamedTuple

from freehold.errors import InvalidReference, SerializationError
from freehold.wire import code, culprit, raised

PLAIN, CONTAINER, RAW = 0x80, 0x01, 0x02
ALIGN = 64
_HEAD = struct.Struct("<BxxxIQ")  # kind, number of buffers, bytes of pickle
_ENTRY = struct.Struct("<QQ")  # offset and size of a buffer
NONE = b""
OUT_OF_BAND_MIN = 4096  # a smaller buffer is cheaper inside the pickle
_SCALARS = frozenset({int, float, bool, str, bytes, type(None)})
dumps_plain = pickle.dumps
loads_plain = pickle.loads

Buffer = bytes | bytearray | memoryview


class Packed(NamedTuple):
    """A value ready to be written: its parts, its size, and the references inside it."""

    parts: list[tuple[int, Buffer]]  # (offset, bytes)
    size: int
    refs: list[Any]

    def join(self) -> bytes:
        """The value as one byte string."""
        if len(self.parts) == 1:
            return bytes(self.parts[0][1])
        whole = bytearray(self.size)
        for offset, part in self.parts:
            whole[offset : offset + len(part)] = part
        return bytes(whole)


class _Collector:
    """The references noted by the pickling that is under way in this thread."""

    __slots__ = ("refs",)

    def __init__(self) -> None:
        self.refs: list[Any] = []


_active: dict[int, _Collector] = {}  # by thread; a pickler may call back into user code


def note_reference(reference: Any) -> bool:
    """Called when a reference is pickled; False when nobody is there to count it."""
    collector = _active.get(_get_ident())
    if collector is None:
        return False
    collector.refs.append(reference)
    return True


class _Pickler(pickle.Pickler):
    """The C pickler, with cloudpickle for code that the other side cannot import."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is types.FunctionType or issubclass(kind, type) or kind in _CODE:
            return self._code(value)
        if kind is memoryview:  # only rows of bytes can be cut out of a buffer again
            data = pickle.PickleBuffer(value if value.c_contiguous else value.tobytes())
            return _as_view, (data, value.format, value.shape)
        if issubclass(kind, BaseException):
            return raised.reduce(value)
        return NotImplemented

    def _code(self, value: Any) -> Any:
        if code.is_importable(value):
            return NotImplemented  # the name is enough
        if type(value) is types.ModuleType:
            return importlib.import_module, (value.__name__,)
        return loads_code, (dumps_code(value),)


_CODE = frozenset({types.ModuleType, classmethod, staticmethod, property})


def _as_view(buffer: Any, format: str = "B", shape: tuple[int, ...] = ()) -> memoryview:
    view = memoryview(buffer).toreadonly().cast("B")
    if format == "B" and len(shape) < 2:
        return view
    return view.cast(format, shape)  # type: ignore[call-overload, no-any-return]


def dumps(value: Any) -> bytes | Packed:
    """Serialize: ``bytes`` for a small plain value, else a ``Packed``.

    Raises SerializationError, naming the path to what cannot be pickled.
    """
    kind = type(value)
    if value is None:
        return NONE
    if kind in _SCALARS and not (kind is bytes and len(value) > OUT_OF_BAND_MIN):
        return dumps_plain(value, 5)
    if kind is bytes:
        head = _HEAD.pack(RAW, 0, len(value))
        return Packed([(0, head), (len(head), value)], len(head) + len(value), [])
    return _pack(value)


def _pack(value: Any) -> bytes | Packed:
    buffers: list[Any] = []

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < OUT_OF_BAND_MIN:
            return True
        buffers.append(raw)
        return False

    stream = io.BytesIO()
    thread = _get_ident()
    before = _active.get(thread)
    collector = _active[thread] = _Collector()
    try:
        _Pickler(stream, 5, buffer_callback=keep_inside).dump(value)
    except Exception as error:
        if isinstance(error, InvalidReference):
            raise
        raise SerializationError(_explain(value, error)) from _first(error)
    finally:
        if before is None:
            del _active[thread]
        else:
            _active[thread] = before
    body = stream.getvalue()
    if not buffers and not collector.refs:
        return body
    if not buffers:
        return Packed([(0, body)], len(body), collector.refs)
    return _lay_out(body, buffers, collector.refs)


def _lay_out(body: bytes, buffers: list[memoryview], refs: list[Any]) -> Packed:
    offset = _HEAD.size + _ENTRY.size * len(buffers)
    head = _HEAD.pack(CONTAINER, len(buffers), len(body))
    parts: list[tuple[int, Buffer]] = [(offset, body)]
    end = offset + len(body)
    for buffer in buffers:
        start = -(-end // ALIGN) * ALIGN
        head += _ENTRY.pack(start, buffer.nbytes)
        parts.append((start, buffer))
        end = start + buffer.nbytes
    parts.insert(0, (0, head))
    return Packed(parts, end, refs)


def loads(data: Buffer) -> Any:
    """The value.  Its buffers are read-only views into ``data``, which they keep alive."""
    if not data:
        return None
    kind = data[0]
    if kind == PLAIN:
        return loads_plain(data)
    view = memoryview(data)
    _, count, size = _HEAD.unpack_from(view)
    if kind == RAW:
        return bytes(view[_HEAD.size : _HEAD.size + size])
    start = _HEAD.size + _ENTRY.size * count
    buffers = []
    for index in range(count):
        offset, length = _ENTRY.unpack_from(view, _HEAD.size + _ENTRY.size * index)
        buffers.append(view[offset : offset + length].toreadonly())
    return loads_plain(view[start : start + size], buffers=buffers)


def has_views(data: Buffer) -> bool:
    """Whether the loaded value reads ``data`` in place."""
    return bool(data) and data[0] == CONTAINER


def loads_code(packed: bytes) -> Any:
    """What ``dumps_code`` has serialized."""
    return code.loads(packed)


def dumps_code(value: Any) -> bytes:
    """A function or a class, by value.

    Raises SerializationError, naming it.
    """
    try:
        return code.dumps(value)
    except Exception as error:
        name = getattr(value, "__qualname__", repr(value))
        raise SerializationError(f"{_explain(value, error, name)}") from error


def _explain(value: Any, error: Exception, name: str = "value") -> str:
    try:
        name = culprit.find(value, name, _can_pickle)
    except Exception:  # the user's own __repr__, __dict__ ... may do anything
        name = f"{name} (a {type(value).__qualname__})"
    first = _first(error)
    return f"cannot pickle {name}: {type(first).__name__}: {first}"


def _first(error: BaseException) -> BaseException:
    """Why, where code inside the value could not be pickled, which was an error of its own."""
    while isinstance(error, SerializationError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def of_call(error: SerializationError, name: str) -> SerializationError:
    """The error of ``dumps((args, kwargs))``, for who called the function of that name."""
    text = str(error).replace("pickle value[0]", "pickle args", 1)
    return SerializationError(f"{name}: {text.replace('pickle value[1]', 'pickle kwargs', 1)}")


def _can_pickle(value: Any) -> bool:
    thread = _get_ident()
    before = _active.get(thread)
    _active[thread] = _Collector()
    try:
        _Pickler(io.BytesIO(), 5, buffer_callback=lambda _: False).dump(value)
    except Exception:
        return False
    finally:
        if before is None:
            del _active[thread]
        else:
            _active[thread] = before
    return True
