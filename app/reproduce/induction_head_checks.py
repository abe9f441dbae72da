"""How the paper's statements about induction heads, and what they do to entropy neurons, are checked."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.reproduce.checks import Finding
from app.reproduce.evidence import GPT2_SMALL, Evidence
from app.reproduce.induction import Induction
from app.reproduce.induction_checks import INCOMPLETE, changing, halves, measured, numbers, on
from backend.schemas import InductionKnockout

_NONE_CHANGES = Finding(None, "Too little changes on the second occurrence to tell what is left of it (see 5a).")
_GPT2_HEADS = ("L5H1", "L5H5", "L6H9")


@on("doubled")
def heads_match_prefixes(_: Evidence, induction: Induction) -> Finding:
    if induction.heads is None:
        return INCOMPLETE
    scores = np.array(induction.heads.prefix_matching)
    named = [_score(induction, head) for head in induction.heads.chosen]
    words = (
        f"Prefix-matching scores of {', '.join(induction.heads.chosen)}: {numbers(np.array(named))}; of the median "
        f"head {np.median(scores):.3f}. Holds where each is above 0.4."
    )
    return Finding(min(named) > 0.4, words)


def _score(induction: Induction, head: str) -> float:
    layer, place = head[1:].split("H")
    return 0.0 if induction.heads is None else float(induction.heads.prefix_matching[int(layer)][int(place)])


@on("doubled")
def heads_are_gpt2s(e: Evidence, induction: Induction) -> Finding:
    if not e.of(GPT2_SMALL) or induction.heads is None:
        return Finding(None, "These are heads of GPT-2 Small.")
    words = (
        f"The heads with the highest scores: {', '.join(induction.heads.chosen)}. Holds for {', '.join(_GPT2_HEADS)}."
    )
    return Finding(set(induction.heads.chosen) == set(_GPT2_HEADS), words)


def _left(induction: Induction, neuron: str, knockout: InductionKnockout) -> float:
    """What is left of a neuron's change between the occurrences, with heads changed: 1 is all, 0 nothing.

    Both are told from the neuron's first occurrence with every head in place, as the paper's figures show it.
    """
    if induction.curves is None:
        return float("nan")
    first, second = halves(induction.curves.activations[neuron])
    return (halves(knockout.activations[neuron])[1] - first) / (second - first)


def _out(induction: Induction, how: str, role: str = "induction") -> list[InductionKnockout]:
    return [one for one in induction.knockouts if (one.how, one.role) == (how, role)]


def _top_and_all(induction: Induction, how: str) -> tuple[InductionKnockout, InductionKnockout] | None:
    """The best induction head alone, and as many as there were together."""
    out = _out(induction, how)
    if not out or induction.heads is None:
        return None
    top = next((one for one in out if one.heads == induction.heads.chosen[:1]), None)
    return None if top is None else (top, max(out, key=lambda one: len(one.heads)))


@on("doubled")
def top_head_lowers_it(e: Evidence, induction: Induction) -> Finding:
    pair, neurons = _top_and_all(induction, "bos"), measured(e, induction)
    if pair is None or induction.curves is None or not neurons:
        return INCOMPLETE
    if neurons[0] not in changing(e, induction):
        return _NONE_CHANGES
    first, second = halves(induction.curves.activations[neurons[0]])
    after = halves(pair[0].activations[neurons[0]])[1]
    words = (
        f"Mean activation of {neurons[0]}: {first:.2f} on the first occurrence, {second:.2f} on the second, "
        f"{after:.2f} with {pair[0].heads[0]} at the first token. Holds where it rises and at least a "
        "quarter of the rise goes."
    )
    return Finding(second > first and _left(induction, neurons[0], pair[0]) <= 0.75, words)


@on("doubled")
def together_close_to_the_first(e: Evidence, induction: Induction) -> Finding:
    pair, neurons = _top_and_all(induction, "bos"), measured(e, induction)
    if pair is None or not neurons:
        return INCOMPLETE
    if neurons[0] not in changing(e, induction):
        return _NONE_CHANGES
    alone, together = (_left(induction, neurons[0], one) for one in pair)
    words = (
        f"Of the change of {neurons[0]} on the second occurrence, {alone:.0%} is left with {pair[0].heads[0]} at the "
        f"first token and {together:.0%} with {', '.join(pair[1].heads)}. Holds for less than the one head "
        "leaves, and at most a third."
    )
    return Finding(together < alone and abs(together) <= 1 / 3, words)


@on("doubled")
def baselines_do_little(e: Evidence, induction: Induction) -> Finding:
    out, neurons = _out(induction, "bos", "baseline"), measured(e, induction)
    if not out or not neurons:
        return Finding(None, "No head serves as a baseline: none has the paper's scores.")
    if neurons[0] not in changing(e, induction):
        return _NONE_CHANGES
    left = np.array([_left(induction, neurons[0], one) for one in out])
    words = (
        f"With {len(out)} choices of baseline heads at the first token, {left.min():.0%} to {left.max():.0%} of the "
        f"change of {neurons[0]} is left (median {np.median(left):.0%}). Holds where all leave 80 to 120 %."
    )
    return Finding(bool((np.abs(left - 1) <= 0.2).all()), words)


def _those(e: Evidence, neurons: list[str]) -> str:
    return f"{', '.join(neurons)} ({len(neurons)} of {len(e.entropy)} entropy neurons change enough to tell, see 5a)"


def _left_in_most(
    e: Evidence, induction: Induction, how: str, doing: str, bound: str, holds: Callable[[float], bool]
) -> Finding:
    """What is left of the neurons' changes without the best head and without all, of which the first is judged."""
    pair, neurons = _top_and_all(induction, how), changing(e, induction)
    if pair is None:
        return INCOMPLETE
    if not neurons:
        return _NONE_CHANGES
    alone, together = (np.array([_left(induction, name, one) for name in neurons]) for one in pair)
    words = (
        f"Left of the change of {_those(e, neurons)}: {_percents(alone)} with {pair[0].heads[0]} {doing}, "
        f"{_percents(together)} with {', '.join(pair[1].heads)}. Holds where the first is {bound} in most of these."
    )
    return Finding(float(np.mean([holds(share) for share in alone])) > 0.5, words)


@on("doubled")
def most_neurons_need_the_top_head(e: Evidence, induction: Induction) -> Finding:
    return _left_in_most(e, induction, "bos", "at the first token", "below 75 %", lambda share: share < 0.75)


@on("doubled")
def mean_output_keeps_it(e: Evidence, induction: Induction) -> Finding:
    doing, bound = "writing its mean output", "75 to 125 %"
    return _left_in_most(e, induction, "mean_output", doing, bound, lambda share: abs(share - 1) <= 0.25)


@on("doubled")
def mean_output_keeps_more(e: Evidence, induction: Induction) -> Finding:
    bos, mean, neurons = _top_and_all(induction, "bos"), _top_and_all(induction, "mean_output"), changing(e, induction)
    if bos is None or mean is None:
        return INCOMPLETE
    if not neurons:
        return _NONE_CHANGES
    less, more = (np.array([_left(induction, name, pair[0]) for name in neurons]) for pair in (bos, mean))
    words = (
        f"{bos[0].heads[0]} changed, left of the change of {_those(e, neurons)}: {_percents(less)} when it looks at "
        f"the first token, {_percents(more)} when it writes its mean output. Holds where the latter is nearer to "
        "100 % in most of these."
    )
    return Finding(float(np.mean(np.abs(more - 1) < np.abs(less - 1))) > 0.5, words)


@on("doubled")
def first_half_stays(e: Evidence, induction: Induction) -> Finding:
    pair, neurons = _top_and_all(induction, "mean_output"), changing(e, induction)
    if pair is None or induction.curves is None:
        return INCOMPLETE
    if not neurons:
        return _NONE_CHANGES
    shares = []
    for name in neurons:
        first, second = halves(induction.curves.activations[name])
        shares.append((halves(pair[1].activations[name])[0] - first) / (second - first))
    words = (
        f"With the mean outputs of {', '.join(pair[1].heads)}, the first occurrence moves by "
        f"{_percents(np.array(shares))} of the change of {_those(e, neurons)}. Holds where it is within 25 % in most "
        "of these."
    )
    return Finding(float(np.mean(np.abs(np.array(shares)) <= 0.25)) > 0.5, words)


def _direct(e: Evidence, induction: Induction) -> list[tuple[str, NDArray[np.float64], NDArray[np.bool_], list[str]]]:
    """By neuron and what it reads: the differences by component, which are of the induction heads, and their names."""
    chosen = set(induction.heads.chosen) if induction.heads is not None else set()
    return [
        (
            name if event.reads == "in" else f"{name} ({event.reads})",
            np.array(event.induction[name]) - np.array(event.corrupted[name]),
            np.array([component in chosen for component in event.components]),
            event.components,
        )
        for name in measured(e, induction)
        for event in sorted(induction.attributions, key=lambda one: one.reads)
    ]


@on("doubled")
def induction_heads_are_not_direct(e: Evidence, induction: Induction) -> Finding:
    direct = _direct(e, induction)
    if not direct:
        return INCOMPLETE
    shares = np.array([np.abs(change[heads]).max() / np.abs(change).max() for _, change, heads, _ in direct])
    named = ", ".join(name for name, *_ in direct)
    words = (
        f"The largest direct contribution of an induction head, of the largest of any component: {_percents(shares)} "
        f"({named}). Holds where it is below half in most."
    )
    return Finding(float(np.mean(shares < 0.5)) > 0.5, words)


@on("doubled")
def late_components_are(e: Evidence, induction: Induction) -> Finding:
    direct = _direct(e, induction)
    if not direct or induction.heads is None:
        return INCOMPLETE
    layers = len(induction.heads.prefix_matching)
    tops = {name: components[int(np.abs(change).argmax())] for name, change, _, components in direct}
    late = sum(_layer(top) >= 2 * layers / 3 for top in tops.values())
    words = (
        f"The largest direct contributions: {', '.join(f'{name}: {top}' for name, top in tops.items())}. {late} of "
        f"{len(tops)} are of the last third of {layers} layers. Holds where most are."
    )
    return Finding(late > len(tops) / 2, words)


def _layer(component: str) -> int:
    """Of a head or an MLP; −1 of what is before all layers."""
    digits = component.removeprefix("MLP ").removeprefix("L").split("H")[0]
    return int(digits) if digits.isdigit() else -1


@on("doubled")
def direct_effect_opposes(e: Evidence, induction: Induction) -> Finding:
    direct = _direct(e, induction)
    if not direct:
        return INCOMPLETE
    opposed = [name for name, change, heads, _ in direct if change[heads].sum() * change.sum() < 0]
    words = (
        f"What the induction heads write directly goes against the change of the whole input in {len(opposed)} of "
        f"{len(direct)} ({', '.join(opposed) or 'none'}). Holds where it is half of them."
    )
    return Finding(len(opposed) >= len(direct) / 2, words)


def _percents(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.0%}" for value in values)
