"""From what the core computed to what the wire says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backend import schemas
from backend.core.interventions.generation import ChosenToken
from backend.core.interventions.kinds import Intervention
from backend.core.metrics.effects import EffectSums
from backend.core.metrics.loss_position import at_predicted_token
from backend.core.metrics.token_weights import extremes
from backend.core.models.traced_text import State, TracedText
from backend.core.neurons import Experts, NeuronId
from backend.live.texts import LiveAblation, LiveGenerationStep, LiveSweep, LiveText, LiveTokenWeights


def text_trace(
    text: LiveText,
    kl: Tensor | None = None,
    frequencies: str | None = None,
    predictions_at: Sequence[int] | None = None,
) -> schemas.TextTrace:
    """The answer to tracing a text.

    Args:
        kl: its distance from the token frequencies, [tokens], and frequencies: where these come from.
        predictions_at: the tokens whose predictions are wanted; None for all.

    Raises:
        BadText: the text has no such token.
    """
    traced = text.traced
    before = replace(traced.before, kl=kl)
    return schemas.TextTrace(
        id=text.id,
        model=text.model.slug,
        tokens=[text.strings[token] for token in traced.tokens],
        token_ids=traced.tokens,
        values=_values(before, traced.residual_norm),
        predictions=_predictions(before, text.strings, _positions(traced, predictions_at)),
        totals=_totals(before, traced.counted),
        truncated=traced.truncated,
        frequencies=frequencies,
        beginning=_beginning(text),
    )


def _beginning(text: LiveText) -> schemas.TextBeginning | None:
    beginning = text.beginning
    if beginning is None:
        return None
    token = None if beginning.token is None else text.strings[beginning.token]
    return schemas.TextBeginning(token_id=beginning.token, token=token, reason=beginning.reason)


def ablation(
    text: LiveText,
    interventions: Sequence[Intervention],
    ablated: LiveAblation,
    reference: str,
    frequencies: str | None = None,
    predictions_at: Sequence[int] | None = None,
) -> schemas.Ablation:
    """The answer to intervening on a text.

    Args:
        reference: where the mean came from, and frequencies: where the token frequencies did.
        predictions_at: the tokens whose predictions are wanted; None for all.

    Raises:
        BadText: the text has no such token.
    """
    at = _positions(text.traced, predictions_at)
    traced, result = text.traced, ablated.result
    before = replace(traced.before, kl=result.kl_before)
    after = result.residual_norm  # frozen or not, the residual stream is the same
    names = [str(intervention.unit) for intervention in interventions]
    return schemas.Ablation(
        text=text.id,
        reference=reference,
        activations_before=_by_name(names, result.activations_before),
        activations_after=_by_name(names, result.activations_after),
        before=_values(before, traced.residual_norm),
        before_totals=_totals(before, traced.counted),
        total=_ablated(traced, result.total, after, ablated.strings, at),
        frozen=_ablated(traced, result.frozen, after, ablated.strings, at),
        ln_mediated=_ln_mediated(traced, result.total, result.frozen),
        tokens=len(traced.counted),
        frequencies=frequencies,
    )


def _ablated(
    traced: TracedText, after: State, residual_norm: Tensor, strings: Mapping[int, str], at: Sequence[int]
) -> schemas.AblatedState:
    changed = (traced.before.top_tokens[:, 0] != after.top_tokens[:, 0])[traced.counted]
    return schemas.AblatedState(
        values=_values(after, residual_norm),
        predictions=_predictions(after, strings, at),
        totals=_totals(after, traced.counted),
        mean_abs_delta_loss=_finite(_size(traced, after)),
        changed_predictions=float(changed.double().mean()) if len(changed) else 0.0,
    )


def _by_name(names: Sequence[str], activations: Tensor) -> dict[str, list[float]]:
    return dict(zip(names, activations.T.tolist(), strict=True))


def _values(state: State, residual_norm: Tensor) -> schemas.TokenValues:
    loss, count = [_finite(value) for value in state.loss.tolist()], len(state.loss)
    return schemas.TokenValues(
        loss=at_predicted_token(loss, count),
        entropy=state.entropy.tolist(),
        rank=at_predicted_token(state.rank.tolist(), count),
        norm_scale=state.scale.tolist(),
        residual_norm=residual_norm.tolist(),
        kl=None if state.kl is None else state.kl.tolist(),
    )


def _positions(traced: TracedText, asked: Sequence[int] | None) -> Sequence[int]:
    return range(len(traced.tokens)) if asked is None else [traced.within(position) for position in asked]


def _predictions(state: State, strings: Mapping[int, str], at: Sequence[int]) -> list[list[schemas.Prediction]]:
    top, probabilities = state.top_tokens[list(at)], state.top_probabilities[list(at)]
    rows = zip(top.tolist(), probabilities.clamp(0, 1).tolist(), strict=True)
    return [
        [
            schemas.Prediction(token_id=token, token=strings[token], probability=probability)
            for token, probability in zip(tokens, probabilities, strict=True)
        ]
        for tokens, probabilities in rows
    ]


def _totals(state: State, counted: list[int]) -> schemas.Totals:
    if not counted:  # one token: nothing was predicted that could be checked
        mean_kl = None if state.kl is None else float(state.kl.mean())
        entropy = float(state.entropy.mean())
        return schemas.Totals(mean_loss=None, mean_entropy=entropy, perplexity=None, mean_kl=mean_kl)
    mean_kl = None if state.kl is None else float(state.kl[counted].mean())
    mean = float(state.loss[counted].double().mean())
    perplexity = float(np.exp(min(mean, 700.0)))
    return schemas.Totals(
        mean_loss=mean,
        mean_entropy=float(state.entropy[counted].double().mean()),
        perplexity=perplexity,
        mean_kl=mean_kl,
    )


def _ln_mediated(traced: TracedText, total: State, frozen: State) -> float | None:
    effect = _size(traced, total)
    return _finite(1 - _size(traced, frozen) / effect) if effect else None


def _size(traced: TracedText, after: State) -> float:
    """mean |Δloss|; NaN where nothing was predicted."""
    return float((after.loss - traced.before.loss)[traced.counted].double().abs().mean())


def activations(
    text: LiveText, neurons: Sequence[NeuronId], values: Sequence[Tensor], means: NDArray[np.float64] | None
) -> schemas.ActivationList:
    """The answer to reading neurons on a text; `means` are those of the last layer, [d_mlp]."""
    strips = []
    for neuron, activations in zip(neurons, values, strict=True):
        known = means is not None and neuron.layer == text.layer
        strips.append(
            schemas.ActivationStrip(
                neuron=str(neuron),
                activations=activations.tolist(),
                reference_mean=_finite(float(means[neuron.index])) if known and means is not None else None,
            )
        )
    return schemas.ActivationList(strips=strips)


def sweep(text: LiveText, asked: schemas.SweepRequest, swept: LiveSweep, reference: str) -> schemas.Sweep:
    """The answer to "who matters here?"."""
    columns = EffectSums.of(swept.effects).columns()
    activations = text.traced.activations[swept.positions].double().mean(dim=0).cpu().numpy()
    sort: schemas.SweepSort = asked.sort
    if asked.position == len(text.traced.tokens) - 1:  # nothing follows: only the entropy means something
        for name in ("total_effect", "direct_effect_ln", "ln_mediated", "delta_loss"):
            columns[name] = np.full(len(activations), np.nan)
        sort = "delta_entropy"
    key = np.abs(columns[sort])
    order = np.argsort(-np.nan_to_num(key, nan=-1.0), kind="stable")[: asked.limit]
    names = ("total_effect", "direct_effect_ln", "ln_mediated", "delta_loss", "delta_entropy", "abs_delta_entropy")
    rows = [
        schemas.SweepRow(
            neuron=str(NeuronId(text.layer, int(i), text.model.experts)),
            activation=float(activations[i]),
            prediction_change=float(columns["prediction_change"][i]),
            **{name: _finite(float(columns[name][i])) for name in names},
        )
        for i in order
    ]
    return schemas.Sweep(
        text=text.id, position=asked.position, positions=len(swept.positions), reference=reference, rows=rows
    )


def generation_step(live: LiveGenerationStep) -> schemas.GenerationStep:
    """One step of both continuations."""
    return schemas.GenerationStep(
        plain=_generated(live.step.plain, live.strings), changed=_generated(live.step.changed, live.strings)
    )


def _generated(chosen: ChosenToken | None, strings: Mapping[int, str]) -> schemas.GeneratedToken | None:
    if chosen is None:
        return None
    return schemas.GeneratedToken(
        token_id=chosen.token,
        token=strings[chosen.token],
        probability=min(1.0, max(0.0, chosen.probability)),
        entropy=chosen.entropy,
    )


def token_matches(query: str, vocabulary: Sequence[str], matches: Sequence[int], limit: int) -> schemas.TokenMatches:
    """The answer to looking a token up."""
    tokens = [schemas.VocabularyToken(token_id=place, token=vocabulary[place]) for place in matches[:limit]]
    return schemas.TokenMatches(query=query, tokens=tokens, total=len(matches))


def promoters(
    weights: LiveTokenWeights, layer: int, experts: Experts | None, token: int, limit: int
) -> schemas.Promoters:
    """The answer to "which neurons promote this token?"."""

    def pushes(indices: Sequence[int]) -> list[schemas.NeuronPush]:
        names = [str(NeuronId(layer, i, experts)) for i in indices]
        return [
            schemas.NeuronPush(neuron=n, value=float(weights.weights[i])) for n, i in zip(names, indices, strict=True)
        ]

    promote, suppress = (pushes(indices) for indices in extremes(weights.weights, limit))
    named = schemas.VocabularyToken(token_id=token, token=weights.token)
    return schemas.Promoters(token=named, layer=layer, promote=promote, suppress=suppress)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
