"""How often chance passes a check: the check once more, many times, on what cannot be what the claim is about.

A check that random neurons pass as well says nothing about entropy neurons. So each check has a null: random neurons in
the class's place, chosen and ordered as the class's are; or, where a claim is about no class, the numbers behind it
shuffled or drawn at random. What is counted is how often the check holds there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.reproduce.checks import Check
from app.reproduce.evidence import STRENGTH, Evidence, Place
from app.reproduce.induction import Induction
from backend.schemas import Curve, InductionCurves

REPEATS = 100
MOST_PASSING = 0.05
"""Share of null draws that may pass: a check that more of them pass says nothing."""
Draw = Callable[[Evidence, np.random.Generator], Evidence | None]


@dataclass(frozen=True)
class NullModel:
    """What stands in the claim's place."""

    says: str
    """In words that follow "the check passes on": `random neurons in the place of the entropy neurons`."""
    draw: Draw
    """One draw; None where the run has not measured what it takes."""
    repeats: int = REPEATS


@dataclass(frozen=True)
class NullCount:
    """How often the check held on the null."""

    says: str
    passed: int
    drawn: int
    answered: int
    """Draws on which the check came to an answer; where it does not, it does not pass."""

    @property
    def is_known(self) -> bool:
        """Whether the check could be tried at all."""
        return self.answered > 0

    @property
    def passes_too(self) -> bool:
        """Whether chance passes the check too often for it to mean anything."""
        return self.is_known and self.passed > MOST_PASSING * self.drawn

    def __str__(self) -> str:
        if not self.is_known:
            return f"The check could not be tried on {self.says}: the run has not measured what it takes."
        silent = self.drawn - self.answered
        without = f" ({silent} came to no answer)" if silent else ""
        return f"The check passes on {self.says} in {self.passed} of {self.drawn} draws{without}."


def count_passes(check: Check, null: NullModel, evidence: Evidence) -> NullCount:
    """Run a check on a null; the same evidence always gives the same draws."""
    chance = np.random.default_rng(0)
    drawn = (null.draw(evidence, chance) for _ in range(null.repeats))
    holds = [check(one).holds for one in drawn if one is not None]
    answers = [holds for holds in holds if holds is not None]
    return NullCount(null.says, passed=sum(answers), drawn=len(holds), answered=len(answers))


def _in_place_of(place: Place, *, pool: bool) -> Draw:
    """As many random neurons as the class has here, the strongest first, as the class is ordered.

    Args:
        pool: draw from the random neurons of which single tokens and induction were measured, not from all.
    """

    def draw(e: Evidence, chance: np.random.Generator) -> Evidence | None:
        taken = {*e.entropy, *e.frequency}
        known = e.others if pool else [name for name in e.columns.neuron if name not in taken]
        count = len(e.of_class(place))
        if count == 0 or len(known) < count:
            return None
        names = [known[row] for row in chance.choice(len(known), count, replace=False)]
        strength = e.at(STRENGTH[place], names)
        return _with(e, place, [names[row] for row in np.argsort(-np.nan_to_num(strength, nan=-np.inf), kind="stable")])

    return draw


def _with(e: Evidence, place: Place, names: list[str]) -> Evidence:
    induction = {kind: _without(induction, set(e.of_class(place))) for kind, induction in e.induction.items()}
    changed = replace(e, induction=induction)
    if place == "frequency":
        return replace(changed, frequency=names)
    return replace(changed, entropy=names, context=e.other_contexts.get(names[0]))


def _without(induction: Induction, gone: set[str]) -> Induction:
    """The job as if the class had not been measured: nothing of it serves as a comparison."""
    clips = {name: clip for name, clip in induction.clips.items() if name not in gone}
    return replace(induction, clips=clips)


def _of_entropy(*, pool: bool = False) -> NullModel:
    return NullModel("random neurons in the place of the entropy neurons", _in_place_of("entropy", pool=pool))


def _of_frequency(*, pool: bool = False) -> NullModel:
    words = "random neurons in the place of the token-frequency neurons"
    return NullModel(words, _in_place_of("frequency", pool=pool))


ENTROPY, ENTROPY_TOKENS = _of_entropy(), _of_entropy(pool=True)
FREQUENCY, FREQUENCY_TOKENS = _of_frequency(), _of_frequency(pool=True)


def _shuffled_column(name: str) -> Draw:
    def draw(e: Evidence, chance: np.random.Generator) -> Evidence | None:
        values = list(e.columns.columns[name])
        shuffled = [values[row] for row in chance.permutation(len(values))]
        columns = e.columns.columns | {name: shuffled}
        return replace(e, columns=e.columns.model_copy(update={"columns": columns}))

    return draw


SHUFFLED_NULL_FRACTION = NullModel("null-space fractions dealt to other neurons", _shuffled_column("null_fraction"))


def _random_matrix(e: Evidence, chance: np.random.Generator) -> Evidence | None:
    values = random_singular_values(e.model.d_model, e.model.d_vocab, chance)
    return replace(e, spectrum=e.spectrum.model_copy(update={"singular_values": values.tolist()}))


def random_singular_values(rows: int, columns: int, chance: np.random.Generator) -> NDArray[np.float64]:
    """Singular values of a matrix [rows, columns] of independent normal numbers, largest first.

    They are drawn from the bidiagonal matrix that has the same ones (Dumitriu and Edelman 2002), without the matrix
    itself.
    """
    rows, columns = min(rows, columns), max(rows, columns)
    bidiagonal = np.zeros((rows, rows))
    places = np.arange(rows)
    bidiagonal[places, places] = np.sqrt(chance.chisquare(columns - places))
    bidiagonal[places[1:], places[:-1]] = np.sqrt(chance.chisquare(rows - places[1:]))
    return np.linalg.svd(bidiagonal, compute_uv=False).astype(np.float64, copy=False)


RANDOM_MATRIX = NullModel("a random unembedding of that shape", _random_matrix, repeats=20)


def _shuffled_pairs(e: Evidence, chance: np.random.Generator) -> Evidence | None:
    positions = e.positions
    if positions is None or positions.kl is None:
        return None
    kl = np.asarray(positions.kl)[chance.permutation(len(positions.kl))]
    correlation = float(np.corrcoef(np.asarray(positions.entropy), kl)[0, 1])
    return replace(e, positions=positions.model_copy(update={"kl": kl.tolist(), "correlation": correlation}))


SHUFFLED_TOKENS = NullModel("the same tokens with their distances shuffled", _shuffled_pairs)


def _shuffled_occurrences(kind: str) -> Draw:
    def draw(e: Evidence, chance: np.random.Generator) -> Evidence | None:
        induction = next((one for name, one in e.induction.items() if name == kind), None)
        if induction is None or induction.curves is None:
            return None
        order = chance.permutation(len(induction.curves.loss.mean))
        curves = _reordered(induction.curves, order)
        return replace(e, induction={**e.induction, kind: replace(induction, curves=curves)})  # type: ignore[dict-item]

    return draw


def _reordered(curves: InductionCurves, order: NDArray[np.int64]) -> InductionCurves:
    def reordered(curve: Curve) -> Curve:
        return Curve(mean=[curve.mean[place] for place in order], se=[curve.se[place] for place in order])

    return curves.model_copy(update={"loss": reordered(curves.loss), "entropy": reordered(curves.entropy)})


SHUFFLED_DOUBLED = NullModel("the same positions shuffled between the occurrences", _shuffled_occurrences("doubled"))
SHUFFLED_NATURAL = NullModel("the same positions shuffled between the occurrences", _shuffled_occurrences("natural"))


def _random_heads(e: Evidence, chance: np.random.Generator) -> Evidence | None:
    induction = e.induction.get("doubled")
    if induction is None or induction.heads is None:
        return None
    scores = induction.heads.prefix_matching
    every = [f"L{layer}H{head}" for layer, row in enumerate(scores) for head in range(len(row))]
    others = [name for name in every if name not in set(induction.heads.chosen)]
    if len(others) < len(induction.heads.chosen):
        return None
    chosen = [others[row] for row in chance.choice(len(others), len(induction.heads.chosen), replace=False)]
    heads = induction.heads.model_copy(update={"chosen": chosen})
    return replace(e, induction={**e.induction, "doubled": replace(induction, heads=heads)})


RANDOM_HEADS = NullModel("random heads in the place of those with the highest scores", _random_heads)
