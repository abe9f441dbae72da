"""What an atlas must be like, whoever wrote it: a file from elsewhere may be cut short, altered, or made to do harm."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from backend.atlas.connect import AtlasUnusable
from backend.core.errors import CalibroscopeError

Record = TypeVar("Record")
_MISREAD = (ValueError, TypeError, LookupError, OverflowError, RecursionError, AttributeError)
"""What Python raises over data of another kind than it was told; pydantic's errors are among them."""
_LONGEST_REASON = 200


class AtlasDamaged(AtlasUnusable):
    """Something in the atlas is not what Calibroscope writes there."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"The atlas is damaged: {where} {reason}. calibroscope doctor --atlas names all that is damaged in it. "
            "Take a whole copy of the file, or measure the run again into another atlas."
        )


@contextmanager
def reading(where: str | Callable[[], str]) -> Iterator[None]:
    """Whatever goes wrong with data of the atlas inside is damage at that place.

    Args:
        where: a function, where finding the words takes longer than reading the data.

    Raises:
        AtlasDamaged: something did.
    """
    try:
        yield
    except CalibroscopeError:
        raise
    except _MISREAD as error:
        place = where if isinstance(where, str) else where()
        raise AtlasDamaged(place, f"cannot be read ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg']}"[:_LONGEST_REASON]
    return f"{type(error).__name__}: {error}".splitlines()[0][:_LONGEST_REASON]


@cache
def _checker(kind: type[Any]) -> type[BaseModel]:
    """A model with the fields of a record, which takes no value of another type for one of theirs."""
    fields: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(kind).items()}
    return create_model(kind.__name__, __config__=ConfigDict(strict=True), **fields)


def record(kind: type[Record], where: str, fields: dict[str, Any]) -> Record:
    """A record made of fields whose types are those that it declares.

    Raises:
        AtlasDamaged: one is of another type.
    """
    with reading(where):
        _checker(kind).model_validate(fields)  # type: ignore[arg-type]
        return kind(**fields)


def axis(where: str, *arrays: NDArray[Any] | None, length: int | None = None) -> int:
    """How long arrays of one axis are that belong together; those that are None are not there.

    Raises:
        AtlasDamaged: one has more axes, or another length than the rest, or values that are not finite.
    """
    for array in arrays:
        if array is None:
            continue
        if array.ndim != 1:
            raise AtlasDamaged(where, f"has {array.ndim} axes where one belongs")
        length = len(array) if length is None else length
        if len(array) != length:
            raise AtlasDamaged(where, f"has {len(array)} values where {length} belong")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise AtlasDamaged(where, "has values that are no numbers")
    return length or 0


def ids(where: str, array: NDArray[Any], size: int) -> None:
    """
    Raises:
        AtlasDamaged: the array holds anything but whole numbers from 0 to below `size`.
    """
    if array.dtype.kind != "i" or (len(array) and not (array.min() >= 0 and array.max() < size)):
        raise AtlasDamaged(where, f"names what is not among the {size} there are")
