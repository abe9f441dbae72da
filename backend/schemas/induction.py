"""The induction lab: repeated text, what the model does on it the second time, and which heads it takes."""

from typing import Annotated, Literal

from pydantic import Field, RootModel, StringConstraints

from backend.schemas.base import ExpertLayout, FiniteFloat, Id, NeuronName, Number, Problem, Seed, Wire
from backend.schemas.texts import MAX_TEXT_CHARS

MAX_INDUCTION_SEQUENCES = 100
MAX_INDUCTION_NEURONS = 16
MAX_SPAN = 200
InductionSource = Literal["random", "synthetic", "natural", "text"]
InductionPart = Literal["curves", "clip", "change", "heads", "bos", "mean_output", "attribution"]
KnockoutPositions = Literal["every", "measured"]
HeadName = Annotated[
    str, StringConstraints(pattern=r"^L[0-9]{1,4}H[0-9]{1,4}$", max_length=10), Field(examples=["L5H1"])
]


def _first_parts() -> list[InductionPart]:
    return ["curves", "clip", "change"]


class InductionRequest(Wire):
    """Which repeated text to measure, and what of it."""

    source: InductionSource = "synthetic"
    """`random`: uniformly random tokens, doubled. `synthetic`: a stretch of the run's corpus, doubled. `natural`: the
    run's corpus where an n-gram repeats of itself. `text`: the repeats found in `text`."""
    text: Annotated[str | None, Field(max_length=MAX_TEXT_CHARS)] = None
    sequences: Annotated[int, Field(ge=1, le=MAX_INDUCTION_SEQUENCES)] = 20
    """At most; natural text and a person's own may hold fewer."""
    span: Annotated[int, Field(ge=2, le=MAX_SPAN)] = 100
    """Tokens that repeat: the length of the doubled stretch, or n of the n-gram (6 in the paper's Figure 9); of one's
    own text the fewest tokens that count as a repeat."""
    neurons: Annotated[list[NeuronName], Field(max_length=MAX_INDUCTION_NEURONS, examples=[["29.830"]])] = Field(
        default_factory=list
    )
    """Of the last layer. None: the run's entropy neurons with the greatest total effects, six at most."""
    parts: Annotated[list[InductionPart], Field(min_length=1, max_length=7)] = Field(default_factory=_first_parts)
    top_heads: Annotated[int, Field(ge=1, le=6)] = 3
    heads: Annotated[list[HeadName], Field(max_length=6)] = Field(default_factory=list)
    """Instead of the heads with the highest prefix-matching scores."""
    knocked_out_at: KnockoutPositions = "every"
    """Where heads are changed: `every` position, so that what comes later looks back on changed positions too, or the
    `measured` position alone, everything before it being as the unchanged model has it (the paper's authors' code)."""
    seed: Seed = 0
    run: Id | None = None
    """Whose corpus, classes and reference means are used; null for the model's latest run."""


class Curve(Wire):
    """A mean over repeats and its standard error, by position; null where it is not defined. Repeats of one text are
    not independent: one text alone has no errors."""

    mean: list[Number]
    se: list[Number]


class Estimate(Wire):
    """A mean over repeats, or what is built of such means, and its standard error; null where it is not defined."""

    value: Number
    se: Number


class OverOccurrence(Wire):
    """Means over all places of an occurrence, or differences of such means."""

    loss: Estimate
    entropy: Estimate
    activations: dict[NeuronName, Estimate]


class RepeatedText(Wire):
    """One sequence, and where it repeats: half-open ranges of token numbers, one pair a repeat."""

    tokens: list[str]
    first: list[tuple[int, int]]
    second: list[tuple[int, int]]
    loss: list[Number]
    """Of predicting this token; null for the first. In results that older jobs have kept, a token's value is of
    predicting the next one, and null for the last."""


class InductionStart(Wire):
    kind: Literal["start"] = "start"
    source: InductionSource
    layer: int
    sequences: int
    span: int
    repeats: int
    """Pairs of a first and a second occurrence; one a sequence, except in one's own text."""
    neurons: list[NeuronName]
    summary: str
    """What was found and from where, in a sentence or two."""
    error_groups: int | None = None
    """Groups of texts over which the standard errors are taken; with one there are none. Null in results from before,
    whose errors took repeats as independent."""


class InductionProgress(Wire):
    kind: Literal["progress"] = "progress"
    done: int
    of: int
    doing: str


class AfterRepeat(Wire):
    """B and X in Figure 9a: the position that follows the first occurrence, then the one that follows the second (two
    values a curve); null where no text follows in any sequence."""

    loss: Curve
    entropy: Curve
    activations: dict[NeuronName, Curve]


class InductionCurves(Wire):
    """Figures 5a, 9a, 10a: the first occurrence's positions, then the second's (2 · span values a curve). Loss and
    entropy at a position are of the prediction made there: of the token that follows."""

    kind: Literal["curves"] = "curves"
    loss: Curve
    entropy: Curve
    activations: dict[NeuronName, Curve]
    reference_means: dict[NeuronName, Number]
    """What clipping brings each neuron down to: its mean over the first occurrence, or for natural text and one's
    own over the run's sample."""
    samples: list[RepeatedText]
    """A few of the sequences, to look at."""
    after: AfterRepeat | None = None
    """Null where the text is doubled, since nothing follows then, and in results from before this was measured."""
    first: OverOccurrence | None = None
    """Means over the whole first occurrence; null, as the next two, in results from before errors were taken
    over whole texts."""
    second: OverOccurrence | None = None
    change: OverOccurrence | None = None
    """Second − first, paired by repeat."""


class ClipPoint(Wire):
    """One prediction at a token of a second occurrence: loss, its change and rank are of the target."""

    loss: FiniteFloat
    delta_loss: FiniteFloat
    delta_entropy: FiniteFloat
    reciprocal_rank: Annotated[float, Field(ge=0, le=1)]
    token: str
    target: str
    source: Annotated[int, Field(ge=0)] | None = None
    """Which text it is from: tokens of one text are not independent. Null in results from before this was kept."""


class ClippedAfter(Wire):
    """X in Figure 9b: the neuron clipped at the position that follows the second occurrence (one value a curve)."""

    loss: Curve
    entropy: Curve
    delta_loss: Curve
    delta_entropy: Curve
    percent: Curve | None = None
    """The mean change of entropy in percent of the mean entropy before; null in results from before errors of it."""


class ClipTotals(Wire):
    """Means over the whole of the second occurrence: before, with the neuron clipped, after − before, and that in
    percent of what it was."""

    loss_before: Estimate
    loss: Estimate
    delta_loss: Estimate
    percent_loss: Estimate
    entropy_before: Estimate
    entropy: Estimate
    delta_entropy: Estimate
    percent_entropy: Estimate


class InductionClip(Wire):
    """Figures 5b, 9b, 10b, 10c: on the second occurrence a neuron is not let above its mean of the first one."""

    kind: Literal["clip"] = "clip"
    neuron: NeuronName
    reference: FiniteFloat
    loss: Curve
    entropy: Curve
    """With the neuron clipped, at the second occurrence's positions (span values a curve)."""
    delta_loss: Curve
    delta_entropy: Curve
    """After − before, paired by repeat."""
    percent: Curve | None = None
    """The mean change of entropy in percent of the mean entropy before; null, as `totals`, in results from before
    errors were taken over whole texts."""
    points: list[ClipPoint]
    """A sample of tokens, at most a thousand."""
    after: ClippedAfter | None = None
    """Null where that of `curves` is."""
    totals: ClipTotals | None = None


class InductionChange(Wire):
    """Figure 11: for every last-layer neuron, in order of index."""

    kind: Literal["change"] = "change"
    layer: int
    experts: ExpertLayout | None = None
    """Null where the layer has none."""
    change: list[FiniteFloat]
    """Mean activation over the second occurrence − over the first, over sequences."""
    se: list[Number]


class InductionHeads(Wire):
    """Every head's prefix-matching score and mean attention to the first token, [layers][heads]."""

    kind: Literal["heads"] = "heads"
    prefix_matching: list[list[FiniteFloat]]
    bos_attention: list[list[FiniteFloat]]
    prefix_matching_se: list[list[Number]] | None = None
    """Standard errors; null, as the next, in results from before they were taken."""
    bos_attention_se: list[list[Number]] | None = None
    chosen: list[HeadName]
    """The induction heads that are knocked out, best first."""
    baselines: list[HeadName]
    """Heads with much attention to the first token (> 0.6) and a low score (< 0.1), drawn at random among layers of the
    chosen heads where there are enough."""
    sequences: int
    """Doubled random sequences that the scores are means over."""


class InductionKnockout(Wire):
    """Figures 5c, 12 (`bos`) and 13 (`mean_output`): activations with some heads changed, alone or together."""

    kind: Literal["knockout"] = "knockout"
    how: Literal["bos", "mean_output"]
    knocked_out_at: KnockoutPositions = "every"
    """Where the heads are changed, as in the request."""
    heads: list[HeadName]
    role: Literal["induction", "baseline"]
    activations: dict[NeuronName, Curve]
    loss: Curve
    entropy: Curve
    """2 · span values a curve, as in `curves`."""
    second: OverOccurrence | None = None
    """Means over the whole second occurrence; null, as the next two, in results from before errors were taken
    over whole texts."""
    difference: OverOccurrence | None = None
    """By how much they differ from those with every head in place, paired by repeat."""
    left: dict[NeuronName, Estimate] | None = None
    """What is left of each neuron's change of activation between the occurrences: (second occurrence, heads changed −
    first) / (second − first), the latter two with every head in place; 1 is all, 0 nothing."""


class InductionAttribution(Wire):
    """Figure 14: what each component writes onto a neuron's input direction, after its LayerNorm, over the second
    occurrence; on the repeated sequences, and on the same with another first half. A neuron's values add up to its
    mean pre-activation. A gated MLP's neuron reads two directions, its activation being act(gate)·up: then an event
    for `up` comes first, and one for `gate`."""

    kind: Literal["attribution"] = "attribution"
    reads: Literal["in", "gate", "up"] = "in"
    components: list[str]
    """Heads (`L5H1`), then earlier MLPs with their biases (`MLP 5`), `Embedding` (with positions), and `Biases` (of
    attention and of the neuron). Where MLPs run in parallel to attention, the last layer's heads are not among them."""
    prefix_matching: list[Number]
    """Of heads; null for the others."""
    induction: dict[NeuronName, list[FiniteFloat]]
    corrupted: dict[NeuronName, list[FiniteFloat]]
    difference_se: dict[NeuronName, list[Number]] | None = None
    """Standard errors of induction − corrupted; null in results from before they were taken."""


class InductionEnd(Wire):
    kind: Literal["end"] = "end"
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class InductionProblem(Wire):
    """What went wrong after the answer had begun."""

    kind: Literal["problem"] = "problem"
    problem: Problem


class InductionEvent(
    RootModel[
        Annotated[
            InductionStart
            | InductionProgress
            | InductionCurves
            | InductionClip
            | InductionChange
            | InductionHeads
            | InductionKnockout
            | InductionAttribution
            | InductionEnd
            | InductionProblem,
            Field(discriminator="kind"),
        ]
    ]
):
    """One event of the stream: a start, progress and parts as they are ready, and an end or a problem."""
