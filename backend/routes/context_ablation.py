"""A context of a run with and without one neuron: its sequence goes through the live model again."""

import numpy as np

from backend import schemas
from backend.answers import texts as live
from backend.answers.atlas_records import first_predictions, losses, not_yet
from backend.atlas import damage
from backend.atlas.database import NotInAtlas
from backend.atlas.records import RunRecord, ShownContext, windows_of
from backend.atlas.store import Atlas
from backend.core.interventions.kinds import Intervention
from backend.core.neurons import NeuronId
from backend.glossary import ContextKind
from backend.live.engine import LiveEngine
from backend.live.queue import Place
from backend.live.texts import LiveAblation, LiveModel, LiveText


def answer(
    atlas: Atlas, engine: LiveEngine, turn: Place, record: RunRecord, neuron: NeuronId, context: int, kind: ContextKind
) -> schemas.ContextAblation:
    """
    Raises:
        NotInAtlas: the run has no such context of the neuron, or no mean activations yet.
    """
    shown = next((found for found in atlas.contexts.showing(record.id, neuron.index) if found.id == context), None)
    if shown is None:
        raise NotInAtlas(f"Run {record.id} shows neuron {neuron} on no context {context}: see …/contexts for those.")
    model = atlas.models.get(record.model)
    means = atlas.neurons.columns(record.id, ["mean_activation"])["mean_activation"]
    if not len(means) or not np.isfinite(means).all():
        raise not_yet(record, "mean activations")
    intervention = Intervention(neuron, kind, mean=float(means[neuron.index]))
    tokens, place = _sequence(atlas, record, context)
    chosen = LiveModel(model.slug, model.source, weights=record.weights_hash)

    def ablate() -> tuple[LiveText, LiveAblation]:
        text = engine.trace_tokens(chosen, tokens)
        return text, engine.ablate(text, [intervention], None)

    text, ablated = turn.turn(ablate)
    whole = live.ablation(text, [intervention], ablated, _reference(record, kind))
    first, _ = first_predictions(atlas, record, [shown])[context]
    return _cut(whole, shown, losses(shown, first), place, kind)


def _reference(record: RunRecord, kind: ContextKind) -> str:
    if kind == "zero":
        return "zero"
    return f"mean over {record.tokens_sampled} tokens of {record.corpus} (run {record.id})"


@damage.reading("a run's text")
def _sequence(atlas: Atlas, record: RunRecord, context: int) -> tuple[list[int], slice]:
    """The tokens from the sequence's beginning to the context's end, and the context's place among them."""
    found = atlas.contexts.sequence(record.id, context, windows_of(record))
    assert found is not None, "the context was read a moment ago"
    tokens, place, _ = found
    return tokens, place


def _cut(
    whole: schemas.Ablation, shown: ShownContext, measured: list[float | None], place: slice, kind: ContextKind
) -> schemas.ContextAblation:
    (name,) = whole.activations_before
    before = whole.before.loss[place]
    pairs = [(a, b) for a, b in zip(before, measured, strict=True) if a is not None and b is not None]
    return schemas.ContextAblation(
        context=shown.id,
        neuron=name,
        kind=kind,
        reference=whole.reference,
        tokens=shown.context.tokens,
        activations_before=whole.activations_before[name][place],
        activations_after=whole.activations_after[name][place],
        loss_before=before,
        loss_after=whole.total.values.loss[place],
        loss_frozen=whole.frozen.values.loss[place],
        entropy_before=whole.before.entropy[place],
        entropy_after=whole.total.values.entropy[place],
        disagreement=max((abs(a - b) for a, b in pairs), default=0.0),
    )
