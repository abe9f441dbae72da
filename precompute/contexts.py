"""Which contexts of the sample show a neuron: the loudest, the typical, the quietest.

The sample is cut into windows of tokens. A window's peak is its highest activation over the positions that are neither
special (BOS, EOS, padding, what separates documents) nor the first of their sequence: there activations are often
extreme for every neuron alike, since attention that has nothing to look for rests on the first token, BOS or not. In a
mixture of experts only tokens that are routed to the neuron's expert can be a peak: a window without one does not show
the neuron.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from backend.atlas.records import TraceRecord
from backend.core.metrics.routing import expert_of_neurons, routed_to
from backend.core.neurons import Experts
from precompute.config import WINDOW
from precompute.corpus import Tokens

Float = NDArray[np.float32]

_PER_BUCKET = {"max": 8, "q75": 3, "median": 3, "random": 3, "min": 3}
_QUANTILES = {"q75": 0.75, "median": 0.5}


def windows(tokens: Tokens) -> list[tuple[int, slice]]:
    """(sequence, positions) of every window of [sequences, seq_len]; the last of a sequence may be shorter."""
    count, length = tokens.shape
    return [(s, slice(start, min(start + WINDOW, length))) for s in range(count) for start in range(0, length, WINDOW)]


def shown_positions(tokens: Tokens, special: frozenset[int]) -> NDArray[np.bool_]:
    """Where of [sequences, seq_len] an activation may be a peak."""
    shown = ~np.isin(tokens, list(special))
    shown[:, 0] = False
    return shown


def choose(
    activations: NDArray[np.float32],
    shown: NDArray[np.bool_],
    places: list[tuple[int, slice]],
    ids: list[int],
    seed: int,
    experts: Experts | None = None,
) -> Iterator[TraceRecord]:
    """The trace records of every neuron, bucket by bucket; a window serves a neuron only once.

    Args:
        activations: [sequences, seq_len, n_neurons].
        shown: [sequences, seq_len], False where a peak does not count.
        places: the windows, and `ids` their context ids in the atlas.
        experts: those of the layer; None where it has none.
    """
    routed = None if experts is None else routed_to(activations, experts)
    expert = np.zeros(activations.shape[2], np.intp) if experts is None else expert_of_neurons(experts)
    highest, lowest = _peaks(activations, shown, places, routed, expert)
    rng = np.random.default_rng(seed)
    for neuron in range(activations.shape[2]):
        for bucket, window in _pick(highest[:, neuron], lowest[:, neuron], rng):
            sequence, positions = places[window]
            values = activations[sequence, positions, neuron]
            counted = shown[sequence, positions]
            if routed is not None:
                counted = counted & routed[sequence, positions, expert[neuron]]
            allowed = np.where(counted, values, np.nan)
            peak = int(np.nanargmin(allowed) if bucket == "min" else np.nanargmax(allowed))
            yield TraceRecord(neuron, ids[window], bucket, values, float(values[peak]), peak)


def _peaks(
    activations: Float,
    shown: NDArray[np.bool_],
    places: list[tuple[int, slice]],
    routed: NDArray[np.bool_] | None,
    expert: NDArray[np.intp],
) -> tuple[Float, Float]:
    """Highest and lowest shown activation of every window, each [windows, n_neurons]; ∓∞ where nothing is shown.

    Args:
        routed: [sequences, seq_len, experts], which tokens pass each expert; None where there are none.
        expert: of each neuron.
    """
    size = (len(places), activations.shape[2])
    highest, lowest = np.full(size, -np.inf, np.float32), np.full(size, np.inf, np.float32)
    for row, (sequence, positions) in enumerate(places):
        values = activations[sequence, positions][shown[sequence, positions]]
        if not len(values):
            continue
        there = True if routed is None else routed[sequence, positions][shown[sequence, positions]][:, expert]
        highest[row] = values.max(axis=0, where=there, initial=-np.inf)
        lowest[row] = values.min(axis=0, where=there, initial=np.inf)
    return highest, lowest


def _pick(highest: Float, lowest: Float, rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    usable = np.flatnonzero(np.isfinite(highest))
    order = usable[np.argsort(-highest[usable], kind="stable")]
    taken: set[int] = set()

    def take(candidates: NDArray[np.int64], bucket: str) -> Iterator[tuple[str, int]]:
        free = (int(window) for window in candidates if int(window) not in taken)
        for _, window in zip(range(_PER_BUCKET[bucket]), free, strict=False):
            taken.add(window)
            yield bucket, window

    yield from take(order, "max")
    yield from take(usable[np.argsort(lowest[usable], kind="stable")], "min")
    for bucket, level in _QUANTILES.items():
        centre = (1 - level) * (len(order) - 1)
        yield from take(order[np.argsort(np.abs(np.arange(len(order)) - centre), kind="stable")], bucket)
    yield from take(rng.permutation(usable), "random")
