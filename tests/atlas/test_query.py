"""Filters, sorts and pages."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.atlas.query import BadQuery, NeuronQuery
from backend.atlas.store import Atlas
from tests.atlas.plans import PLAN

SIZE = 47


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    rng = np.random.default_rng(0)
    path: Path = tmp_path_factory.mktemp("query") / "a.db"
    with Atlas.open(path) as opened:
        run = opened.runs.begin(PLAN).id
        effects = rng.random(SIZE).round(1)  # many ties
        effects[::5] = np.nan
        columns = {"weight_norm": rng.random(SIZE), "total_effect": effects}
        with opened.runs.writing() as writer:
            writer.set_neurons(run, 1, columns, ["entropy" if i % 7 == 0 else "plain" for i in range(SIZE)], 3)
        yield opened


def _query(**changes: object) -> NeuronQuery:
    parameters: dict[str, Any] = {
        "columns": None,
        "sort": "index",
        "where": [],
        "neuron_class": None,
        "limit": 10,
        "cursor": None,
    }
    return NeuronQuery.parse(**(parameters | changes))


@pytest.mark.parametrize("sort", ["index", "-index", "total_effect", "-total_effect", "-weight_norm", "delta_loss"])
@pytest.mark.parametrize("limit", [1, 10, 46, 47, 100])
def test_pages_visit_every_neuron_once(atlas: Atlas, sort: str, limit: int) -> None:
    seen: list[int] = []
    cursor: str | None = None
    while True:
        query = _query(sort=sort, limit=limit, cursor=cursor)
        rows, total = atlas.neurons.page(1, query)
        assert total == SIZE
        seen += [row.index for row in rows]
        cursor = query.next_cursor(total)
        if cursor is None:
            break
    assert sorted(seen) == list(range(SIZE))


def test_unmeasured_values_sort_last_either_way(atlas: Atlas) -> None:
    for sort in ("total_effect", "-total_effect"):
        rows, _ = atlas.neurons.page(1, _query(sort=sort, limit=100))
        values = [row.metrics["total_effect"] for row in rows]
        measured = [value for value in values if value is not None]
        assert values[len(measured) :] == [None] * (SIZE - len(measured))
        assert measured == sorted(measured, reverse=sort.startswith("-"))


@pytest.mark.parametrize(
    ("term", "holds"),
    [
        ("weight_norm>=0.5", lambda value: value >= 0.5),
        ("weight_norm < 0.25", lambda value: value < 0.25),
        ("weight_norm>-1e-3", lambda value: value > -1e-3),
        ("weight_norm<=.75", lambda value: value <= 0.75),
    ],
)
def test_filters_hold(atlas: Atlas, term: str, holds: Callable[[float], bool]) -> None:
    rows, total = atlas.neurons.page(1, _query(where=[term], limit=100))
    everyone = atlas.neurons.columns(1, ["weight_norm"])["weight_norm"]
    assert total == len(rows) == sum(map(holds, everyone))
    norms = [row.metrics["weight_norm"] for row in rows]
    assert all(norm is not None and holds(norm) for norm in norms)


def test_a_class_and_several_terms_all_hold(atlas: Atlas) -> None:
    rows, total = atlas.neurons.page(1, _query(neuron_class="entropy", where=["weight_norm>0.2", "total_effect>0.1"]))
    assert total == len(rows) > 0
    norms = [row.metrics["weight_norm"] for row in rows]
    assert all(norm is not None and norm > 0.2 for norm in norms)
    assert all(row.index % 7 == 0 for row in rows)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sort": "colour"}, "sort"),
        ({"sort": "--total_effect"}, "sort"),
        ({"columns": ["nothing"]}, "columns"),
        ({"where": ["total_effect"]}, "where"),
        ({"where": ["total_effect>=nan"]}, "where"),
        ({"where": ["run>=0"]}, "where"),
        ({"where": ["total_effect>0; DROP TABLE runs"]}, "where"),
        ({"neuron_class": "odd"}, "class"),
        ({"cursor": "%%%"}, "cursor"),
        ({"cursor": "LTU="}, "cursor"),
    ],
)
def test_what_cannot_be_read_names_its_parameter(changes: dict[str, object], field: str) -> None:
    with pytest.raises(BadQuery) as caught:
        _query(**changes)
    assert caught.value.field == field
