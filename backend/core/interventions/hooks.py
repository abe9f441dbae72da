"""Interventions as hooks on a model: each replaces a unit's values as they pass."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from backend.core.interventions.kinds import Intervention
from backend.core.models import hook_points
from backend.core.models.analysis_model import Hooks
from backend.core.neurons import Unit

NOTHING_KNOWN: Mapping[Unit, Float[Tensor, "sequences 1 *d_head"]] = {}


def replacing(
    interventions: Sequence[Intervention],
    means: Sequence[Float[Tensor, "*d_head"] | None],
    *,
    first: Mapping[Unit, Float[Tensor, "sequences 1 *d_head"]] = NOTHING_KNOWN,
    replaced: dict[int, Float[Tensor, "length *d_head"]] | None = None,
) -> Hooks:
    """Hooks that carry out interventions at every position that is run.

    They serve one text, or one batch of texts: what a unit has at the first position is kept from the first pass, so
    that passes over later tokens alone, after kept keys and values, know it.

    Args:
        means: each unit's reference mean; None where its kind needs none.
        first: what units have at the first position, where no pass begins there.
        replaced: is given by place what each unit's values become, of the first text.
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
