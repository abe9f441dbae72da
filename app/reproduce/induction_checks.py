"""How the paper's statements about induction are checked: functions from what a job measured to whether it holds.

Positions of one sequence are not independent: every error here is one between sequences.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.figures.induction import percent_of_entropy
from app.reproduce.checks import NO_ENTROPY, NO_FREQUENCY, Check, Finding
from app.reproduce.clustered import Clustered, Known, clustered
from app.reproduce.evidence import Evidence
from app.reproduce.induction import Induction, JobKind
from backend.schemas import Curve, Estimate, InductionClip

JobCheck = Callable[[Evidence, Induction], Finding]
_FEWEST = 10
"""Tokens that a mean is taken over, at least."""
INCOMPLETE = Finding(None, "The job has not measured it.")
OUTDATED = Finding(
    None, "The job was done before it was kept which text each token is from: without that, no error can be given."
)


def known(estimate: Estimate) -> Known:
    """An answer's estimate, NaN for what it does not have."""
    value, error = array([estimate.value, estimate.se])
    return Known(float(value), float(error))


def on(kind: JobKind) -> Callable[[JobCheck], Check]:
    """A check of what a job found; where there is none, the finding says why."""

    def made(check: JobCheck) -> Check:
        def checked(e: Evidence) -> Finding:
            induction = e.induction.get(kind)
            if induction is None:
                return Finding(None, e.no_induction.get(kind, "The figure's induction job was not asked for."))
            if not (e.frequency if kind == "frequency" else e.entropy):
                return NO_FREQUENCY if kind == "frequency" else NO_ENTROPY
            return check(e, induction)

        checked.__name__ = check.__name__
        return checked

    return made


def measured(e: Evidence, induction: Induction, kind: JobKind = "doubled") -> list[str]:
    """Of the neurons that are looked at, those that the job measured."""
    return [name for name in (e.frequency if kind == "frequency" else e.entropy) if name in induction.start.neurons]


def halves(curve: Curve) -> tuple[float, float]:
    """Means over the first and over the second occurrence."""
    values = array(curve.mean)
    half = len(values) // 2
    return float(np.nanmean(values[:half])), float(np.nanmean(values[half:]))


def array(values: Sequence[float | None]) -> NDArray[np.float64]:
    """NaN where nothing is defined."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _over_points(clip: InductionClip, name: str, chosen: NDArray[np.bool_]) -> Clustered | None:
    """The mean of a value over some of the tokens of second occurrences that the job keeps; None where it does not say
    which text each is from."""
    points = [point for point, wanted in zip(clip.points, chosen, strict=True) if wanted]
    sources = [point.source for point in points]
    if not points or any(source is None for source in sources):
        return None
    return clustered(np.array([getattr(point, name) for point in points]), np.array(sources))


def _entropy_changes(clips: Sequence[InductionClip]) -> dict[str, Known] | None:
    """How clipping each neuron changes the mean entropy of the second occurrence; None for a job from before there were
    errors over whole texts."""
    changes = {clip.neuron: known(clip.totals.delta_entropy) for clip in clips if clip.totals is not None}
    return changes if len(changes) == len(clips) else None


def _on_text(induction: Induction) -> str:
    return f"{induction.start.repeats} repeats of {induction.start.span} tokens"


# ---- loss, entropy and activations (5a, 9a, 10a, 11)


def _both_fall(least: float) -> JobCheck:
    def falls(_: Evidence, induction: Induction) -> Finding:
        if induction.curves is None:
            return INCOMPLETE
        loss, entropy = halves(induction.curves.loss), halves(induction.curves.entropy)
        words = (
            f"Over {_on_text(induction)}, the loss goes from {loss[0]:.2f} to {loss[1]:.2f} nats and the entropy from "
            f"{entropy[0]:.2f} to {entropy[1]:.2f} (means over the occurrences). Holds where both fall by {least:.0%}."
        )
        return Finding(loss[1] <= (1 - least) * loss[0] and entropy[1] <= (1 - least) * entropy[0], words)

    return falls


loss_and_entropy_fall = on("doubled")(_both_fall(0.5))
natural_loss_and_entropy_fall = on("natural")(_both_fall(0.2))


@dataclass(frozen=True)
class OccurrenceActivations:
    """How a neuron's mean activation moves from a first occurrence to a second one."""

    first: float
    second: float
    change: Known

    @property
    def changes(self) -> bool:
        """Whether it moves by more than half of what it was, and by two standard errors."""
        far = abs(self.change.value) > 0.5 * abs(self.first)
        return far and (self.change.above_zero or self.change.below_zero)

    def __str__(self) -> str:
        return f"{self.first:.2f} → {self.second:.2f} (change {self.change.value:+.2f} ± {self.change.error:.2f})"


def _activation_changes(induction: Induction, names: list[str]) -> dict[str, OccurrenceActivations]:
    """By neuron; none for a job from before there were errors over whole texts."""
    curves = induction.curves
    if curves is None or curves.first is None or curves.second is None or curves.change is None:
        return {}
    first, second, change = curves.first.activations, curves.second.activations, curves.change.activations
    return {
        name: OccurrenceActivations(known(first[name]).value, known(second[name]).value, known(change[name]))
        for name in names
    }


def changing(e: Evidence, induction: Induction) -> list[str]:
    """The entropy neurons whose activation changes, in the sense of Figure 5a; of the others, no share is left or
    goes that would mean anything."""
    return [name for name, change in _activation_changes(induction, measured(e, induction)).items() if change.changes]


def _activations_change(kind: JobKind, least: float, *, rise: bool) -> JobCheck:
    def change(e: Evidence, induction: Induction) -> Finding:
        changes = _activation_changes(induction, measured(e, induction, kind))
        if not changes:
            return INCOMPLETE
        fits = sum(one.changes and not (rise and one.second < one.first) for one in changes.values())
        listed = ", ".join(f"{name} {one}" for name, one in changes.items())
        verb = "rise" if rise else "change"
        words = (
            f"Mean activations, first → second occurrence: {listed}. {fits} of {len(changes)} {verb} by more than half "
            f"of what they were and two standard errors. Holds where {least:.0%} do."
        )
        return Finding(fits >= least * len(changes), words)

    return change


activations_change = on("doubled")(_activations_change("doubled", 0.5, rise=False))
frequency_activations_rise = on("frequency")(_activations_change("frequency", 0.5, rise=True))


@on("natural")
def changes_less_than_doubled(e: Evidence, induction: Induction) -> Finding:
    doubled = e.induction.get("doubled")
    if doubled is None or doubled.change is None or induction.change is None:
        return Finding(None, "It takes the changes of activation on both kinds of text.")
    rows = [e.columns.neuron.index(name) for name in e.entropy]
    here, there = (np.abs(np.array(one.change)[rows]) for one in (induction.change, doubled.change))
    words = (
        f"|Change of activation| of {', '.join(e.entropy)}: {numbers(here)} here, {numbers(there)} on text written "
        "twice. Holds where the mean is smaller here."
    )
    return Finding(float(here.mean()) < float(there.mean()), words)


def _among_the_largest(e: Evidence, induction: Induction) -> Finding:
    if induction.change is None or len(induction.change.change) != len(e.columns.neuron):
        return INCOMPLETE
    size = np.abs(np.array(induction.change.change))
    of_entropy = size[[e.columns.neuron.index(name) for name in e.entropy]]
    places = np.array([100 * np.mean(size <= value) for value in of_entropy])
    most = e.columns.neuron[int(size.argmax())]
    words = (
        f"Percentiles of |change of activation| among {len(size)} neurons: {', '.join(e.entropy)} "
        f"{numbers(places, 1)}; {most} changes most. Holds where half of them are in the top twentieth."
    )
    return Finding(float(np.mean(places >= 95)) >= 0.5, words)


among_the_largest_changes = on("doubled")(_among_the_largest)
among_the_largest_natural_changes = on("natural")(_among_the_largest)


# ---- clipping (5b, 9b, 9c, 10b, 10c)


def _clipped(e: Evidence, induction: Induction, kind: JobKind = "doubled") -> list[InductionClip]:
    return [induction.clips[name] for name in measured(e, induction, kind) if name in induction.clips]


def _percent(clip: InductionClip) -> str:
    share = None if clip.totals is None else clip.totals.percent_entropy
    if share is None or share.value is None:
        return "of unknown size"
    return f"{share.value:+.1f}{'' if share.se is None else f' ± {share.se:.1f}'} %"


def _lowers_entropy(e: Evidence, induction: Induction) -> Finding:
    clips = _clipped(e, induction)
    if not clips:
        return INCOMPLETE
    changes = _entropy_changes(clips)
    if changes is None:
        return OUTDATED
    most = min(clips, key=lambda clip: changes[clip.neuron].value)
    listed = ", ".join(f"{name} {change}" for name, change in changes.items())
    words = (
        f"Clipping changes the mean entropy of the second occurrence by: {listed} nats. Most in {most.neuron}: "
        f"{_percent(most)}. Holds where that is two errors below 0."
    )
    return Finding(changes[most.neuron].below_zero, words)


clipping_lowers_entropy = on("doubled")(_lowers_entropy)
natural_clipping_lowers_entropy = on("natural")(_lowers_entropy)


def _by_up_to(low: float, high: float) -> JobCheck:
    def up_to(e: Evidence, induction: Induction) -> Finding:
        falls: dict[str, tuple[float, int]] = {}
        for clip in _clipped(e, induction):
            shares = array(percent_of_entropy(clip)[0])
            if np.isfinite(shares).any():
                falls[clip.neuron] = (-float(np.nanmin(shares)), int(np.nanargmin(shares)))
        if not falls:
            return INCOMPLETE
        neuron = max(falls, key=lambda name: falls[name][0])
        most, place = falls[neuron]
        words = (
            f"Clipping {neuron} lowers the entropy by up to {most:.0f} % (position {place} of the second occurrence). "
            f"Holds between {low:g} and {high:g} %."
        )
        return Finding(low <= most <= high, words)

    return up_to


up_to_seventy_percent = on("doubled")(_by_up_to(50, 90))
up_to_twenty_percent = on("natural")(_by_up_to(10, 30))


@on("doubled")
def some_raise_entropy(e: Evidence, induction: Induction) -> Finding:
    clips = _clipped(e, induction)
    if not clips:
        return INCOMPLETE
    changes = _entropy_changes(clips)
    if changes is None:
        return OUTDATED
    raised = [name for name, change in changes.items() if change.above_zero]
    words = (
        f"Clipping {', '.join(raised) or 'none'} of {len(clips)} raises the mean entropy of the second occurrence by "
        "more than two errors. Holds where there is one."
    )
    return Finding(bool(raised), words)


@on("frequency")
def frequency_clipping_raises_entropy(e: Evidence, induction: Induction) -> Finding:
    clips = _clipped(e, induction, "frequency")
    others = [clip for name, clip in induction.clips.items() if name not in {one.neuron for one in clips}]
    if not clips or not others:
        return INCOMPLETE
    changes, comparison = _entropy_changes(clips), _entropy_changes(others)
    if changes is None or comparison is None:
        return OUTDATED
    level = max(abs(change.value) for change in comparison.values())
    above = [name for name, change in changes.items() if change.above_zero and change.value > 2 * level]
    listed = ", ".join(f"{name} {change}" for name, change in changes.items())
    words = (
        f"Clipping changes the mean entropy of the second occurrence by: {listed} nats; of {len(others)} random "
        f"neurons at most by {level:.4f}. {len(above)} raise it by more than twice that and two errors. "
        "Holds where one does."
    )
    return Finding(bool(above), words)


def _per_token(kind: JobKind, sign: int) -> JobCheck:
    """What clipping does to a token's loss where the model is right and where the loss is high: the one rises (+) and
    the other falls, or the reverse (−)."""

    def per_token(e: Evidence, induction: Induction) -> Finding:
        clips = _clipped(e, induction, kind)
        if not clips:
            return INCOMPLETE
        points = clips[0].points
        loss = np.array([point.loss for point in points])
        right = np.array([point.reciprocal_rank for point in points]) == 1
        if right.sum() < _FEWEST:
            return Finding(None, f"The model is right at {int(right.sum())} of {len(points)} tokens: too few.")
        high = loss >= np.quantile(loss, 0.75)
        easy, hard = (_over_points(clips[0], "delta_loss", chosen) for chosen in (right, high))
        if easy is None or hard is None:
            return OUTDATED
        words = (
            f"Clipping {clips[0].neuron} changes the loss by {easy} nats where the model is right "
            f"({int(right.sum())} of {len(points)} tokens) and by {hard} in the quarter with the highest loss. "
            f"Holds for {'plus and minus' if sign > 0 else 'minus and plus'}, each by two errors."
        )
        holds = easy.above_zero and hard.below_zero if sign > 0 else easy.below_zero and hard.above_zero
        return Finding(holds, words)

    return per_token


natural_hedging = on("natural")(_per_token("natural", -1))
frequency_costs_the_other_way = on("frequency")(_per_token("frequency", 1))


def numbers(values: NDArray[np.float64], digits: int = 2) -> str:
    """With commas."""
    return ", ".join(f"{value:.{digits}f}" for value in values)
