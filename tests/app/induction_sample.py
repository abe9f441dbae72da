"""Events of the induction lab as the page meets them: small, seeded, with hostile tokens."""

from collections.abc import Sequence

import numpy as np

from backend import schemas
from tests.app.sample import COUNT, TOKENS

NEURONS = ["29.7", "29.3"]
LAYERS, HEADS = 6, 4
SPAN = 10


def curve(values: Sequence[float | None], se: float | None = 0.1) -> schemas.Curve:
    """A curve with the same error everywhere."""
    return schemas.Curve(mean=list(values), se=[None if value is None else se for value in values])


def start(**changes: object) -> schemas.InductionStart:
    """Two sequences of the corpus, doubled, or with the given changes."""
    fields: dict[str, object] = {
        "source": "synthetic", "layer": 29, "sequences": 2, "span": SPAN, "repeats": 2, "neurons": NEURONS,
        "summary": "Two stretches of the corpus “words”, each written twice.",
    }  # fmt: skip
    return schemas.InductionStart(**(fields | changes))


def curves(span: int = SPAN, *, after: bool = False) -> schemas.InductionCurves:
    """Loss and entropy fall at the boundary, the first neuron rises there; the last loss does not exist.

    Args:
        after: whether B and X were measured; no text followed any second occurrence long enough for X's loss.
    """
    first, second = [4.0 - 0.01 * i for i in range(span)], [1.0 / (i + 1) for i in range(span)]
    activations = {name: curve([0.5] * span + [2.0 - place] * span) for place, name in enumerate(NEURONS)}
    return schemas.InductionCurves(
        loss=curve([*first, *second[:-1], None]), entropy=curve([*first, *second]), activations=activations,
        reference_means=dict.fromkeys(NEURONS, 0.5), samples=[sample(), sample(), sample(), sample()],
        after=followed() if after else None, first=over(3.9, 3.9, 0.5), second=over(0.3, 0.3, 2.0),
        change=over(-3.6, -3.6, 1.5),
    )  # fmt: skip


def over(loss: float, entropy: float, activation: float, se: float = 0.1) -> schemas.OverOccurrence:
    """Means over an occurrence; the second neuron moves by a unit less than the first."""
    values = {name: activation - place * (activation > 1) for place, name in enumerate(NEURONS)}
    return schemas.OverOccurrence(
        loss=schemas.Estimate(value=loss, se=se), entropy=schemas.Estimate(value=entropy, se=se),
        activations={name: schemas.Estimate(value=value, se=se) for name, value in values.items()},
    )  # fmt: skip


def totals(delta_entropy: float, se: float = 0.01) -> schemas.ClipTotals:
    """Over a second occurrence whose mean entropy is 0.6 before."""

    def one(value: float) -> schemas.Estimate:
        return schemas.Estimate(value=value, se=se)

    return schemas.ClipTotals(
        loss_before=one(1.0), loss=one(0.9), delta_loss=one(-0.1), percent_loss=one(-10.0), entropy_before=one(0.6),
        entropy=one(0.6 + delta_entropy), delta_entropy=one(delta_entropy),
        percent_entropy=one(100 * delta_entropy / 0.6),
    )  # fmt: skip


def followed() -> schemas.AfterRepeat:
    """B and X; of X the loss is not known."""
    activations = {name: curve([0.7, 5.0 - place]) for place, name in enumerate(NEURONS)}
    return schemas.AfterRepeat(loss=curve([6.0, None]), entropy=curve([5.5, 4.5]), activations=activations)


def sample() -> schemas.RepeatedText:
    """The hostile tokens twice, a BOS before."""
    size = len(TOKENS)
    return schemas.RepeatedText(
        tokens=["<s>", *TOKENS, *TOKENS], first=[(1, 1 + size)], second=[(1 + size, 1 + 2 * size)],
        loss=[None] + [4.0] * size + [0.5] * size,
    )  # fmt: skip


def clip(neuron: str = "29.7", span: int = SPAN, *, after: bool = False) -> schemas.InductionClip:
    """Clipping takes half of the entropy away and a tenth of the loss; at X, a quarter of the entropy."""
    x = {"loss": curve([3.0]), "delta_loss": curve([0.2]), "entropy": curve([3.0]), "delta_entropy": curve([-1.0])}
    halved = [0.5 / (i + 1) for i in range(span)]
    points = [
        schemas.ClipPoint(loss=0.1 * i, delta_loss=0.01 * (i - 5), delta_entropy=-0.1, reciprocal_rank=1 / (i + 1),
                          token=TOKENS[i], target=TOKENS[-1 - i], source=i % 2)
        for i in range(len(TOKENS))
    ]  # fmt: skip
    return schemas.InductionClip(
        neuron=neuron, reference=0.5, entropy=curve(halved), delta_entropy=curve([-value for value in halved]),
        loss=curve([0.9] * span), delta_loss=curve([-0.1] * span), points=points,
        after=schemas.ClippedAfter(**x) if after else None, totals=totals(-0.3),
    )  # fmt: skip


def clip_with_errors() -> schemas.InductionClip:
    """A clipped neuron with errors over whole texts: 2.5 % of each position's entropy, 1.5 % of the whole."""
    means = {
        "loss_before": 1.0, "loss": 0.9, "delta_loss": -0.1, "percent_loss": -10.0, "entropy_before": 0.6,
        "entropy": 0.3, "delta_entropy": -0.3, "percent_entropy": -50.0,
    }  # fmt: skip
    errors = {name: 1.5 if name.startswith("percent") else 0.02 for name in means}
    totals = {name: schemas.Estimate(value=value, se=errors[name]) for name, value in means.items()}
    percent = schemas.Curve(mean=[-50.0] * SPAN, se=[2.5] * SPAN)
    return clip().model_copy(update={"percent": percent, "totals": schemas.ClipTotals(**totals)})


def over_occurrence(level: float, se: float | None = 0.02) -> schemas.OverOccurrence:
    """Loss, entropy and activations with one and the same mean."""
    one = schemas.Estimate(value=level, se=se)
    return schemas.OverOccurrence(loss=one, entropy=one, activations=dict.fromkeys(NEURONS, one))


def change(count: int = COUNT) -> schemas.InductionChange:
    """Neuron 7 (an entropy neuron of the sample) rises most, 11 falls."""
    values = np.random.default_rng(1).normal(0, 0.05, count).tolist()
    values[7], values[11] = 3.0, -1.5
    return schemas.InductionChange(layer=29, change=values, se=[0.1] * (count - 1) + [None])


def heads(**changes: object) -> schemas.InductionHeads:
    """L3H1 is the induction head."""
    scores = np.full((LAYERS, HEADS), 0.02)
    scores[3, 1], scores[4, 2] = 0.9, 0.6
    fields: dict[str, object] = {
        "prefix_matching": scores.tolist(), "bos_attention": np.full((LAYERS, HEADS), 0.7).tolist(),
        "chosen": ["L3H1", "L4H2"], "baselines": ["L3H0"], "sequences": 8,
    }  # fmt: skip
    return schemas.InductionHeads(**(fields | changes))


def knockout(*names: str, how: str = "bos", role: str = "induction", span: int = SPAN) -> schemas.InductionKnockout:
    """The more induction heads are out, the less the neurons rise."""
    rise = 1.5 / (1 + len(names)) if role == "induction" else 1.4
    activations = {name: curve([0.5] * span + [0.5 + rise] * span) for name in NEURONS}
    flat = curve([2.0] * 2 * span)
    return schemas.InductionKnockout(
        how=how,
        heads=list(names),
        role=role,
        activations=activations,
        loss=flat,
        entropy=flat,
    )


def knockouts() -> list[schemas.InductionKnockout]:
    """Both heads alone and together, a baseline, and the same with mean outputs."""
    bos = [knockout("L3H1"), knockout("L3H0", role="baseline"), knockout("L4H2"), knockout("L3H1", "L4H2")]
    return [*bos, knockout("L3H1", how="mean_output")]


def attribution() -> schemas.InductionAttribution:
    """The last MLP but one writes most, in the other direction than the induction head."""
    names = [f"L{layer}H{head}" for layer in range(LAYERS) for head in range(HEADS)]
    others = [*(f"MLP {layer}" for layer in range(LAYERS - 1)), "embedding", "biases"]
    scores = [score for row in heads().prefix_matching for score in row]
    induction = [0.0] * (len(names) + len(others))
    induction[names.index("L3H1")], induction[len(names) + LAYERS - 2] = -0.4, 1.2
    return schemas.InductionAttribution(
        components=names + others, prefix_matching=[*scores, *[None] * len(others)],
        induction=dict.fromkeys(NEURONS, induction), corrupted={name: [0.1] * len(induction) for name in NEURONS},
    )  # fmt: skip


def events(parts: Sequence[str]) -> list[schemas.Wire]:
    """The answer to a request for those parts, without its progress."""
    found: dict[str, list[schemas.Wire]] = {
        "curves": [curves()], "clip": [clip(name) for name in NEURONS], "change": [change()], "heads": [heads()],
        "bos": [one for one in knockouts() if one.how == "bos"],
        "mean_output": [one for one in knockouts() if one.how == "mean_output"], "attribution": [attribution()],
    }  # fmt: skip
    return [start(), *(event for part in parts for event in found[part]), schemas.InductionEnd(seconds=1.5)]
