"""How the paper's statements are checked on a model: functions from what was measured to whether it holds there.

The thresholds turn words like "almost exclusively" into numbers; each stands in its sentence of what was measured.
What asks for no more than a sign asks for it by two standard errors, in which tokens of one sequence go together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.reproduce.clustered import Clustered, clustered
from app.reproduce.evidence import Evidence, spike
from backend.schemas import TokenEffects

Check = Callable[[Evidence], "Finding"]


@dataclass(frozen=True)
class Finding:
    """What was measured where a claim can be checked."""

    holds: bool | None
    """None where the run lacks what the check needs."""
    measured: str


_FEWEST = 10
"""Tokens that a mean is taken over, at least."""
_FAR = 4
"""Standard errors beyond which chance puts none of a layer's neurons: some thousand draws reach 3.5."""
NO_ENTROPY = Finding(None, "The run has no entropy neurons.")
NO_FREQUENCY = Finding(None, "The run has no token-frequency neurons.")
NO_TOKENS = Finding(None, "The run keeps nothing of single tokens.")
NO_SEQUENCES = Finding(
    None, "The run was made before it was kept which sequence each token is of: without that, no error can be given."
)


def entropy_not_prediction(e: Evidence) -> Finding:
    if not e.entropy:
        return NO_ENTROPY
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = e.metric("prediction_change") / e.metric("abs_delta_entropy")
    ratios = np.array([ratio[e.columns.neuron.index(name)] for name in e.entropy])
    middle = float(np.nanmedian(ratio))
    mean = float(np.median(ratios))
    words = (
        f"Changed predictions per nat of changed entropy: {mean:.2f} (median of {_count(e.entropy)}) against "
        f"{middle:.2f} in the median neuron. Holds where it is less than half."
    )
    return Finding(mean < 0.5 * middle, words)


def large_and_unspecific(e: Evidence) -> Finding:
    if not e.entropy:
        return NO_ENTROPY
    norm, variance = e.percentile("weight_norm", e.entropy), e.percentile("logit_var", e.entropy)
    fits = int(((norm >= 90) & (variance <= 25)).sum())
    words = (
        f"Percentiles of {_listed(e.entropy)}: weight norm {_numbers(norm, 0)}; "
        f"logit variance {_numbers(variance, 0)}. "
        f"{fits} of {len(e.entropy)} have a norm in the top tenth and a variance in the lowest quarter."
    )
    return Finding(fits > len(e.entropy) / 2, words)


def _share_of(total: list[float], direct: list[float]) -> float:
    return float(1 - np.mean(np.abs(direct)) / np.mean(np.abs(total)))


def random_are_direct(e: Evidence) -> Finding:
    effects = _any(e)
    if effects is None:
        return NO_TOKENS
    share = _share_of(effects.background_total, effects.background_frozen)
    words = f"Of the mean |Δ loss| of 100 random neurons, {share:.1%} goes through the final norm. Holds below 10 %."
    return Finding(abs(share) < 0.1, words)


def entropy_are_not_direct(e: Evidence) -> Finding:
    effects = _any(e)
    if not e.entropy or effects is None:
        return NO_ENTROPY
    mediated = e.at("ln_mediated", e.entropy)
    others = _share_of(effects.background_total, effects.background_frozen)
    words = (
        f"1 − DE_LN/TE of {_listed(e.entropy)}: {_numbers(mediated)}; of random neurons {others:.2f}. "
        "Holds where each is at least 0.2 higher."
    )
    return Finding(bool((mediated >= others + 0.2).all()), words)


def sharp_drop(e: Evidence) -> Finding:
    values = np.array(e.spectrum.singular_values)
    start = int(0.95 * len(values))
    drops = values[start:-1] / np.maximum(values[start + 1 :], 1e-30)
    place = start + int(np.argmax(drops))
    least = float(values[-1] / np.median(values))
    words = (
        f"The steepest step in the last 5 % is at index {place} of {len(values)}, by a factor of {drops.max():.2f}; "
        f"the smallest value is {least:.3f} of the median. Holds for a factor of at least 2, to below 0.1."
    )
    return Finding(bool(drops.max() >= 2 and least < 0.1), words)


def writes_into_null_space(e: Evidence) -> Finding:
    if not e.entropy:
        return NO_ENTROPY
    rho = e.at("null_fraction", e.entropy)
    k = e.run.null_dim
    words = f"ρ (k = {k}) of {_listed(e.entropy)}: {_numbers(rho)}. Holds where the median is at least 0.8."
    return Finding(float(np.median(rho)) >= 0.8, words)


def null_space_goes_with_norm(e: Evidence) -> Finding:
    rho, share, effect = e.metric("null_fraction"), e.metric("ln_mediated"), e.metric("total_effect")
    if not np.isfinite(share).any():
        return NO_TOKENS
    worth = effect >= np.nanmedian(effect)
    top = np.argsort(-np.where(worth, rho, -1.0))[:6]
    names = [e.columns.neuron[row] for row in top]
    level = float(np.nanquantile(share[worth], 0.95))
    words = (
        f"The six neurons with the highest ρ (and an effect above the median): {', '.join(names)}, with "
        f"LayerNorm-mediated shares {_numbers(share[top])}; 95 % of the others are below {level:.2f}. "
        "Holds where their median is above."
    )
    return Finding(float(np.median(share[top])) > level, words)


def share_between(low: float, high: float) -> Callable[[Evidence], Finding]:
    def check(e: Evidence) -> Finding:
        if not e.entropy:
            return NO_ENTROPY
        mediated = e.at("ln_mediated", e.entropy)
        strongest = float(mediated.max())
        words = f"The largest LayerNorm-mediated share is {strongest:.2f} ({_listed(e.entropy)}: {_numbers(mediated)})."
        return Finding(low <= strongest <= high, f"{words} Holds between {low:g} and {high:g}.")

    return check


def anticorrelated(e: Evidence) -> Finding:
    if e.positions is None or e.positions.kl is None or e.positions.correlation is None:
        return Finding(None, "The run has no distances from token frequencies.")
    words = (
        f"Pearson's r = {e.positions.correlation:.2f}, of ranks {e.positions.rank_correlation:.2f}, over "
        f"{len(e.positions.kl)} tokens. Holds below −0.3."
    )
    return Finding(e.positions.correlation < -0.3, words)


def frequency_moves_as_much(e: Evidence) -> Finding:
    if not e.frequency:
        return NO_FREQUENCY
    if not e.entropy:
        return NO_ENTROPY
    of_frequency, of_entropy = e.at("abs_delta_kl", e.frequency), e.at("abs_delta_kl", e.entropy)
    words = (
        f"Mean |Δ KL| of {_listed(e.frequency)}: {_numbers(of_frequency, 4)} nats; "
        f"of {_listed(e.entropy)}: {_numbers(of_entropy, 4)}. "
        "Holds where the strongest of the former reaches the weakest of the latter."
    )
    return Finding(bool(of_frequency.max() >= of_entropy.min()), words)


def entropy_moves_more(e: Evidence) -> Finding:
    if not e.frequency or not e.entropy:
        return NO_FREQUENCY if not e.frequency else NO_ENTROPY
    of_frequency, of_entropy = (float(np.median(e.at("abs_delta_kl", names))) for names in (e.frequency, e.entropy))
    words = (
        f"Median |Δ KL|: entropy neurons {of_entropy:.4f}, token-frequency neurons {of_frequency:.4f} nats. Holds for "
        "twice it."
    )
    return Finding(of_entropy > 2 * of_frequency, words)


def frequency_share(e: Evidence) -> Finding:
    if not e.frequency:
        return NO_FREQUENCY
    mediated = e.at("freq_mediated", e.frequency)
    words = f"1 − DE_freq/TE of {_listed(e.frequency)}: {_numbers(mediated)}. Holds where the largest is at least 0.5."
    return Finding(float(mediated.max()) >= 0.5, words)


def negative_shares(e: Evidence) -> Finding:
    share, effect, error = (e.metric(name) for name in ("freq_mediated", "total_effect", "freq_mediated_se"))
    if not np.isfinite(share).any():
        return Finding(None, "The run has no frequency metrics.")
    worth = effect >= np.nanmedian(effect)
    with np.errstate(invalid="ignore"):
        below = worth & (share < -0.1 - _FAR * error)
    words = (
        f"{int(below.sum())} of the {int(worth.sum())} neurons with an effect above the median are below −0.1 by "
        f"{_FAR} standard errors, which chance makes none of in a layer; the lowest is {np.nanmin(share[worth]):.2f}. "
        "Holds where there is one."
    )
    return Finding(bool(below.any()), words)


def frequency_is_mediated(e: Evidence) -> Finding:
    sampled = [e.effects[name] for name in e.frequency if name in e.effects]
    if not sampled or sampled[0].background_freq is None:
        return NO_FREQUENCY
    shares = [_share_of(effects.delta_loss, effects.delta_loss_freq or []) for effects in sampled]
    others = _share_of(sampled[0].background_total, sampled[0].background_freq)
    words = (
        f"At the sampled tokens, holding the direction takes {_numbers(np.array(shares))} of the effect of "
        f"{_listed(e.frequency)}, and {others:.2f} of that of 100 random neurons. Holds where each of the former loses "
        "0.1 more than the latter. (The class asks for a share of 0.2 over the whole sample.)"
    )
    return Finding(all(share >= others + 0.1 for share in shares), words)


def hedges(e: Evidence) -> Finding:
    effects = e.effects.get(e.entropy[0]) if e.entropy else None
    if effects is None or effects.clip_delta_loss is None:
        return NO_ENTROPY if not e.entropy else NO_TOKENS
    if effects.sequences is None:
        return NO_SEQUENCES
    change, loss = np.array(effects.clip_delta_loss), np.array(effects.loss_before)
    right, high = np.array(effects.rank_before) == 1, loss >= np.quantile(loss, 0.75)
    if right.sum() < _FEWEST:
        return _too_few(right)
    # What the neuron does to a loss is the reverse of what clipping it does.
    easy, hard = (_mean_where(-change, effects, chosen) for chosen in (right, high))
    words = (
        f"{e.entropy[0]} changes the loss by {easy} nats where the model is right ({int(right.sum())} tokens) and "
        f"by {hard} in the quarter with the highest loss. Holds for plus and minus, each by two errors."
    )
    return Finding(easy.above_zero and hard.below_zero, words)


def _mean_where(values: NDArray[np.float64], effects: TokenEffects, chosen: NDArray[np.bool_]) -> Clustered:
    return clustered(values[chosen], np.array(effects.sequences)[chosen])


def raises_entropy(e: Evidence) -> Finding:
    if not e.entropy:
        return NO_ENTROPY
    effects = e.effects.get(e.entropy[0])
    if effects is None or effects.clip_delta_loss is None:
        return NO_TOKENS
    if effects.sequences is None:
        return NO_SEQUENCES
    # Clipping changes what mean ablation changes where the activation is above the mean, and nothing elsewhere.
    change = np.where(np.array(effects.clip_delta_loss) != 0, np.array(effects.delta_entropy), 0.0)
    mean = clustered(change, effects.sequences)
    words = (
        f"Clipping {e.entropy[0]} at its mean changes the entropy by {mean} nats, over {mean.tokens} tokens of "
        f"{mean.sequences} sequences. Holds for two errors below 0."
    )
    return Finding(mean.below_zero, words)


def holds_a_spike_down(e: Evidence) -> Finding:
    if e.context is None:
        return Finding(None, "No context could be shown without an entropy neuron.")
    place, change = spike(e.context)
    before = e.context.loss_before[place] or 0.0
    words = (
        f"In one of {e.context.neuron}'s loudest contexts, a token's loss is {before:.2f} nats with the neuron and "
        f"{before + change:.2f} with it clipped at its mean. Holds for a rise of at least 0.1 on a loss of at least 4."
    )
    return Finding(change >= 0.1 and before >= 4, words)


def opposite_changes(e: Evidence) -> Finding:
    effects = e.effects.get(e.frequency[0]) if e.frequency else None
    if effects is None or effects.delta_kl is None:
        return NO_FREQUENCY if not e.frequency else NO_TOKENS
    right = np.array(effects.rank_before) == 1
    if right.sum() < _FEWEST:
        return _too_few(right)
    entropy, kl = np.array(effects.delta_entropy)[right], np.array(effects.delta_kl)[right]
    r = float(np.corrcoef(entropy, kl)[0, 1])
    words = (
        f"{e.frequency[0]}, at {int(right.sum())} tokens that the model gets right: correlation of Δ entropy and Δ KL "
        f"{r:.2f}. Holds below −0.3."
    )
    return Finding(r < -0.3, words)


def towards_frequencies(e: Evidence) -> Finding:
    if not e.frequency:
        return NO_FREQUENCY
    names = ("delta_kl", "delta_kl_se", "delta_entropy", "delta_entropy_se")
    kl, kl_error, entropy, entropy_error = (float(e.at(name, e.frequency[:1])[0]) for name in names)
    words = (
        f"Mean-ablating {e.frequency[0]} changes the KL by {kl:+.4f} ± {kl_error:.4f} and the entropy by "
        f"{entropy:+.4f} ± {entropy_error:.4f} nats. Holds where the first rises and the second falls, each by two "
        "errors."
    )
    return Finding(bool(kl > 2 * kl_error and entropy < -2 * entropy_error), words)


def suppresses_common(e: Evidence) -> Finding:
    if not e.frequency:
        return NO_FREQUENCY
    line = _alignment_line(e)
    if line is None:
        return Finding(None, "The run was made before chance lines were kept: a sign alone is half of all neurons'.")
    aligned = e.at("freq_alignment", e.frequency)
    words = (
        f"Cosine with v_freq of {_listed(e.frequency)}: {_numbers(aligned)}; of as many random directions as the layer "
        f"has neurons the most extreme reaches {line:.2f}. Holds where the first is below −{line:.2f}."
    )
    return Finding(float(aligned[0]) < -line, words)


def lower_with_dropout(e: Evidence) -> Finding:
    if e.beside is None:
        return Finding(None, "It takes two models, the one trained with dropout first: give --model twice.")
    with_dropout, without = np.array(e.spectrum.singular_values), np.array(e.beside.spectrum.singular_values)
    if len(with_dropout) != len(without):
        return Finding(None, "The two models are not of one size.")
    ratio = with_dropout / np.maximum(without, 1e-30)
    middle, last = float(np.median(ratio)), float(np.median(ratio[-10:]))
    words = (
        f"The median singular value of {e.model.name} is {middle:.2f} of that of {e.beside.model.name}, and of the "
        f"smallest ten {last:.2f}. Holds where the first is below 1 and the second below the first."
    )
    return Finding(last < middle < 1, words)


def _alignment_line(e: Evidence) -> float | None:
    return None if e.run.chance is None else e.run.chance.freq_alignment


def _too_few(right: NDArray[np.bool_]) -> Finding:
    return Finding(None, f"The model is right at {int(right.sum())} of {len(right)} sampled tokens: too few.")


def _any(e: Evidence) -> TokenEffects | None:
    return next(iter(e.effects.values()), None)


def _numbers(values: NDArray[np.float64], digits: int = 2) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _count(names: list[str]) -> str:
    return "1 entropy neuron" if len(names) == 1 else f"{len(names)} entropy neurons"
