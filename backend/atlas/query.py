"""Which neurons, in which order: filters like `null_fraction>=0.5`, a sort like `-total_effect`, a page."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from operator import ge, gt, le, lt
from typing import Any, Self

from sqlalchemy import Select

from backend.atlas.schema import NeuronRow
from backend.core.errors import CalibroscopeError
from backend.glossary import CLASS_LABELS, METRIC_COLUMNS

_TERM = re.compile(r"([a-z_]+)\s*(>=|<=|>|<)\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]{1,3})?)")
_COMPARE = {">=": ge, "<=": le, ">": gt, "<": lt}
_SORTABLE = ("index", *METRIC_COLUMNS)


class BadQuery(CalibroscopeError):
    """A filter, sort, column or cursor that cannot be read; `field` is the parameter at fault."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


@dataclass(frozen=True)
class NeuronQuery:
    """A page of neurons."""

    columns: list[str] = field(default_factory=lambda: list(METRIC_COLUMNS))
    sort: str = "-total_effect"
    where: list[str] = field(default_factory=list)
    neuron_class: str | None = None
    paper_criterion: bool | None = None
    limit: int = 100
    offset: int = 0

    @classmethod
    def parse(
        cls,
        *,
        columns: list[str] | None,
        sort: str,
        where: list[str],
        neuron_class: str | None,
        paper_criterion: bool | None = None,
        limit: int,
        cursor: str | None,
    ) -> Self:
        """A query from a request's parameters.

        Raises:
            BadQuery: a parameter cannot be read.
        """
        for name in columns or []:
            require_metric("columns", name)
        if sort.removeprefix("-") not in _SORTABLE:
            raise BadQuery("sort", f"Neurons cannot be sorted by {sort[:60]!r}: use index or {_some_metrics()}.")
        if neuron_class is not None and neuron_class not in CLASS_LABELS:
            raise BadQuery("class", f"{neuron_class[:60]!r} is not a class: use {', '.join(CLASS_LABELS)}.")
        for term in where:
            _read_term(term)
        offset = 0 if cursor is None else _read_cursor(cursor)
        return cls(columns or list(METRIC_COLUMNS), sort, where, neuron_class, paper_criterion, limit, offset)

    def filtered(self, wanted: Select[Any]) -> Select[Any]:
        """Only the neurons that match."""
        if self.neuron_class is not None:
            wanted = wanted.where(NeuronRow.neuron_class == self.neuron_class)
        if self.paper_criterion is not None:
            wanted = wanted.where(NeuronRow.paper_criterion.is_(self.paper_criterion))
        for term in self.where:
            name, compare, number = _read_term(term)
            wanted = wanted.where(_COMPARE[compare](getattr(NeuronRow, name), number))
        return wanted

    def page(self, wanted: Select[Any]) -> Select[Any]:
        """In order, unmeasured last, and only this page; equal values are ordered by index, so pages never overlap."""
        column = getattr(NeuronRow, self.sort.removeprefix("-"))
        direction = column.desc() if self.sort.startswith("-") else column.asc()
        ordered = wanted.order_by(direction.nulls_last(), NeuronRow.layer, NeuronRow.index)
        return ordered.limit(self.limit).offset(self.offset)

    def next_cursor(self, total: int) -> str | None:
        """Where the following page begins, or None after the last."""
        following = self.offset + self.limit
        return base64.urlsafe_b64encode(str(following).encode()).decode() if following < total else None


def require_metric(field_name: str, name: str) -> None:
    """
    Raises:
        BadQuery: `name` is not a stored metric.
    """
    if name not in METRIC_COLUMNS:
        raise BadQuery(field_name, f"{name[:60]!r} is not a metric: use {_some_metrics()}; see /api/v1/glossary.")


def _read_term(term: str) -> tuple[str, str, float]:
    match = _TERM.fullmatch(term.strip())
    if match is None:
        raise BadQuery(
            "where", f"The filter {term[:60]!r} cannot be read: write a metric, one of >=, <=, > and <, and a number."
        )
    require_metric("where", match[1])
    return match[1], match[2], float(match[3])


def _read_cursor(cursor: str) -> int:
    try:
        offset = int(base64.urlsafe_b64decode(cursor.encode("ascii", "strict")).decode("ascii"))
    except (ValueError, binascii.Error) as error:
        raise BadQuery("cursor", "The cursor cannot be read: take it from the previous page's next_cursor.") from error
    if not 0 <= offset < 2**31:
        raise BadQuery("cursor", "The cursor is out of range: take it from the previous page's next_cursor.")
    return offset


def _some_metrics() -> str:
    return ", ".join(METRIC_COLUMNS[:3]) + ", total_effect and so on"
