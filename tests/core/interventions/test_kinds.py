"""The table of interventions, and what stands beside it: types on the wire, targets, menus."""

from typing import get_args

import pytest
import torch

from app.pages.lab import interventions as lab
from app.pages.neuron import views as neuron
from backend import schemas
from backend.core.errors import BadIntervention
from backend.core.interventions.kinds import TARGETS, Intervention
from backend.core.neurons import HeadId, NeuronId
from backend.glossary import INTERVENTIONS, ContextKind, InterventionKind, SweepTarget

ROWS = {row.kind: row for row in INTERVENTIONS}
NEURON, HEAD = NeuronId(1, 3), HeadId(1, 2)


def test_the_table_the_types_and_the_targets_agree() -> None:
    assert get_args(InterventionKind) == tuple(ROWS) == tuple(row.kind for row in INTERVENTIONS)
    assert TARGETS.keys() == ROWS.keys()
    numberless = {row.kind for row in INTERVENTIONS if row.on_neurons is not None and not row.needs_value}
    assert set(get_args(ContextKind)) == numberless
    assert set(get_args(SweepTarget)) == numberless - {"clip"}, "clipping sets no one activation everywhere"
    described = schemas.InterventionRequest.model_json_schema()["properties"]["kind"]
    assert described["enum"] == list(ROWS)
    assert all(row.sentence in described["description"] for row in INTERVENTIONS)


@pytest.mark.parametrize("row", INTERVENTIONS, ids=lambda row: row.kind)
@pytest.mark.parametrize(("unit", "label"), [(NEURON, "on_neurons"), (HEAD, "on_heads")])
def test_a_kind_is_taken_for_the_units_that_the_table_names(row, unit, label) -> None:  # type: ignore[no-untyped-def]
    applies = getattr(row, label) is not None
    assert (row.kind in lab._kinds(str(unit))) is applies
    written = f"{unit}:{row.kind}" + (f":{row.starting_value}" if row.needs_value else "")
    assert bool(lab.read_interventions(written)) is applies
    if not applies:
        with pytest.raises(BadIntervention, match="what can be done to it is"):
            Intervention(unit, row.kind, row.starting_value)
        return
    values = torch.randn(2, 5, 4) if isinstance(unit, HeadId) else torch.randn(2, 5)
    mean = values.flatten(0, 1).mean(dim=0)
    target = Intervention(unit, row.kind, row.starting_value).target(values, mean)
    assert target.shape == values.shape
    assert target.isfinite().all()
    with pytest.raises(BadIntervention, match="takes no `value`" if not row.needs_value else "needs a number"):
        Intervention(unit, row.kind, None if row.needs_value else 1.0)


def test_a_neurons_page_offers_what_contexts_can_be_shown_under() -> None:
    assert {kind: ROWS[kind].on_neurons for kind in get_args(ContextKind)} == neuron.KINDS
