"""Numeric arrays as compact typed blobs: dtype and shape in a short header, then the raw bytes. Never pickle."""

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Dialect, LargeBinary
from sqlalchemy.types import TypeDecorator

from backend.core.errors import CalibroscopeError

_MAGIC = b"CAL1"
_DTYPES = ("<f2", "<f4", "<f8", "<i4", "<i8", "|u1", "|b1")
_MOST_AXES = 8
_LONGEST_EMPTY = 1 << 16


class MalformedArray(CalibroscopeError):
    """A blob that is not an array as `pack` writes it."""


def pack(array: NDArray[Any]) -> bytes:
    """An array as bytes.

    Raises:
        MalformedArray: the dtype is none of float16/32/64, int32/64, uint8, bool.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    kind = little.dtype.str
    if kind not in _DTYPES:
        raise MalformedArray(f"An array of {array.dtype} cannot be stored; known are {', '.join(_DTYPES)}.")
    header = struct.pack("<4sBB", _MAGIC, _DTYPES.index(kind), array.ndim)
    return header + struct.pack(f"<{array.ndim}Q", *array.shape) + little.tobytes()


def unpack(blob: bytes) -> NDArray[Any]:
    """The array that `pack` wrote; a copy that owns its memory.

    Raises:
        MalformedArray: the bytes are something else, or cut short.
    """
    try:
        magic, kind, ndim = struct.unpack_from("<4sBB", blob)
        if magic != _MAGIC or kind >= len(_DTYPES) or ndim > _MOST_AXES:
            raise MalformedArray("The atlas holds a blob that is not an array: the file is damaged.")
        shape = struct.unpack_from(f"<{ndim}Q", blob, 6)
        # An axis of length 0 makes any other length fit: as a list it would be that many empty lists.
        if math.prod(axis for axis in shape if axis) > max(len(blob), _LONGEST_EMPTY):
            raise MalformedArray("The atlas holds an array that claims more values than it has: the file is damaged.")
        return np.frombuffer(blob, dtype=_DTYPES[kind], offset=6 + 8 * ndim).reshape(shape).copy()
    except (struct.error, ValueError, OverflowError) as error:
        raise MalformedArray("The atlas holds an array that is cut short: the file is damaged.") from error


def pack_named(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Several arrays under names, as one blob."""
    parts = [struct.pack("<I", len(arrays))]
    for name, array in arrays.items():
        label, blob = name.encode(), pack(array)
        parts += [struct.pack("<HQ", len(label), len(blob)), label, blob]
    return b"".join(parts)


def unpack_named(blob: bytes) -> dict[str, NDArray[Any]]:
    """What `pack_named` wrote.

    Raises:
        MalformedArray: the bytes are something else, or cut short.
    """
    try:
        (count,), place = struct.unpack_from("<I", blob), 4
        arrays: dict[str, NDArray[Any]] = {}
        for _ in range(count):
            label_size, size = struct.unpack_from("<HQ", blob, place)
            place += 10
            name = blob[place : place + label_size].decode()
            place += label_size
            arrays[name] = unpack(blob[place : place + size])
            place += size
        return arrays
    except (struct.error, UnicodeDecodeError) as error:
        raise MalformedArray("The atlas holds a shard that is cut short: the file is damaged.") from error


def _blob(value: object) -> bytes:
    """
    Raises:
        MalformedArray: SQLite, whose columns hold values of any type, had no bytes there.
    """
    if not isinstance(value, bytes | memoryview):
        raise MalformedArray(f"The atlas holds {type(value).__name__} for an array: the file is damaged.")
    return bytes(value)


class Array(TypeDecorator[NDArray[Any]]):
    """A column holding one array."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: NDArray[Any] | None, dialect: Dialect) -> bytes | None:
        return None if value is None else pack(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> NDArray[Any] | None:
        return None if value is None else unpack(_blob(value))

    def compare_values(self, x: Any, y: Any) -> bool:
        return x is y  # a new array is a change; comparing the numbers would cost more than writing them


class NamedArrays(TypeDecorator[dict[str, NDArray[Any]]]):
    """A column holding several arrays under names."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: dict[str, NDArray[Any]] | None, dialect: Dialect) -> bytes | None:
        return None if value is None else pack_named(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> dict[str, NDArray[Any]] | None:
        return None if value is None else unpack_named(_blob(value))

    def compare_values(self, x: Any, y: Any) -> bool:
        return x is y


def nullable(column: NDArray[Any]) -> list[float | None]:
    """A column of numbers as a database keeps it: what is not finite is NULL."""
    return [value if finite else None for value, finite in zip(column.tolist(), np.isfinite(column), strict=True)]
