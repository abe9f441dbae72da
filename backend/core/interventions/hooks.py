"""Interventions as hooks on a model: each replaces a unit's values as they pass."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from backend.core.interventions.kinds import Intervention
from backend.core.models import hook_points
from backend.core.models.analysis_model import Hooks
from backend.core.neurons import Unit

NOTHING_KNOWN: Mapping[Unit, Tensor] = {}


def replacing(
    interventions: Sequence[Intervention],
    means: Sequence[Tensor | None],
    *,
    first: Mapping[Unit, Tensor] = NOTHING_KNOWN,
    replaced: dict[int, Tensor] | None = None,
) -> Hooks:
    """Hooks that carry out interventions at every position that is run.

    They serve one text, or one batch of texts: what a unit has at the first position is kept from the first pass, so
    that passes over later tokens alone, after kept keys and values, know it.

    Args:
        means: each unit's reference mean, [] of a neuron and [d_head] of a head; None where its kind needs none.
        first: what units have at the first position, [batch, 1] or [batch, 1, d_head], where no pass begins there.
        replaced: is given by place what each unit's values become, [position] or [position, d_head], of the first text.
    """
    by_point: dict[str, list[int]] = defaultdict(list)
    for place, intervention in enumerate(interventions):
        by_point[hook_points.of_unit(intervention.unit)].append(place)

    def hook(places: list[int]) -> Any:
        known = dict(first)

        def replace(values: Tensor, hook: Any) -> Tensor:
            changed = values.clone()
            for place in places:
                unit = interventions[place].unit
                before = values[:, :, unit.index]
                start = known.setdefault(unit, before[:, :1].clone())
                target = interventions[place].target(before, means[place], start)
                changed[:, :, unit.index] = target
                if replaced is not None:
                    replaced[place] = target[0].float()
            return changed

        return replace

    return [(point, hook(places)) for point, places in by_point.items()]
