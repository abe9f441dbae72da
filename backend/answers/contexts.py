"""Contexts of a run that show a neuron, and one of them with and without it: its sequence goes through the live model
again."""

from collections.abc import Sequence

import numpy as np

from backend import schemas
from backend.answers import texts as live
from backend.answers.numbers import finite, finite_list
from backend.atlas import damage
from backend.atlas.database import NotInAtlas
from backend.atlas.records import RunRecord, ShownContext, windows_of
from backend.atlas.runs import not_yet
from backend.atlas.store import Atlas
from backend.core.interventions.kinds import Intervention
from backend.core.metrics.loss_position import at_predicted_token
from backend.core.neurons import NeuronId
from backend.glossary import ContextKind
from backend.live.engine import LiveEngine
from backend.live.queue import Place
from backend.live.texts import LiveAblation, LiveModel, LiveText

First = tuple[float | None, int | None]
"""The loss and the rank of a context's first token."""


def ablated_context(
    atlas: Atlas, engine: LiveEngine, turn: Place, record: RunRecord, neuron: NeuronId, context: int, kind: ContextKind
) -> schemas.ContextAblation:
    """
    Raises:
        NotInAtlas: the run has no such context of the neuron, or no mean activations yet.
    """
    shown = next((one for one in atlas.contexts.showing(record.id, neuron.index) if one.id == context), None)
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
    return f"mean over {record.tokens_sampled:,} tokens of {record.corpus} (run {record.id})"


@damage.reading("a run's text")
def _sequence(atlas: Atlas, record: RunRecord, context: int) -> tuple[list[int], slice]:
    """The tokens from the sequence's beginning to the context's end, and the context's place among them."""
    sequence = atlas.contexts.sequence(record.id, context, windows_of(record))
    assert sequence is not None, "the context was read a moment ago"
    tokens, place, _ = sequence
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


@damage.reading("a neuron's contexts")
def contexts(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.ContextList:
    listed = atlas.contexts.showing(record.id, chosen.index)
    if not listed:
        _require_routed(atlas, record, chosen)
        raise not_yet(record, "contexts")
    first = first_predictions(atlas, record, listed)
    strips = [_strip(shown, *first[shown.id]) for shown in listed]
    return schemas.ContextList(neuron=str(chosen), expert=chosen.routed_expert, contexts=strips)


def _require_routed(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> None:
    """
    Raises:
        NotInAtlas: the router chose the neuron's expert for no token that could be a context's peak.
    """
    done = chosen.routed_expert is not None and 0 in atlas.runs.shards_done(record.id, "contexts")
    if done:
        raise NotInAtlas(
            f"The router chose expert {chosen.routed_expert} for no token of run {record.id} that could be shown: "
            f"neuron {chosen} has no contexts there."
        )


def first_predictions(atlas: Atlas, record: RunRecord, shown: Sequence[ShownContext]) -> dict[int, First]:
    """Of contexts, by id: what the end of the context before predicted; nothing for the first of a sequence."""
    known = atlas.contexts.first_predictions(record.id, {one.id for one in shown}, windows_of(record))
    return {one.id: known.get(one.id, (None, None)) for one in shown}


def losses(shown: ShownContext, first: float | None) -> list[float | None]:
    """Of a context's tokens, each at its own token."""
    return at_predicted_token(finite_list(shown.context.loss), len(shown.context.tokens), finite(first))


def _strip(shown: ShownContext, first_loss: float | None, first_rank: int | None) -> schemas.ContextStrip:
    context, trace = shown.context, shown.trace
    return schemas.ContextStrip(
        id=shown.id,
        bucket=trace.bucket,
        tokens=context.tokens,
        token_ids=context.token_ids,
        activations=trace.activations.tolist(),
        loss=losses(shown, first_loss),
        entropy=finite_list(context.entropy),
        rank=at_predicted_token(context.rank.tolist(), len(context.tokens), first_rank),
        peak=trace.peak,
        peak_position=trace.peak_position,
    )
