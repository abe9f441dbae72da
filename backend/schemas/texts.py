"""A person's own text: its trace, interventions on it, who matters in it."""

from typing import Annotated, Literal

from pydantic import Field, RootModel

from backend.glossary import INTERVENTIONS, LARGEST_INTERVENTION_VALUE, InterventionKind, SweepTarget
from backend.schemas.base import FiniteFloat, Id, NeuronName, Number, Problem, Seed, UnitName, Wire

MAX_TEXT_CHARS = 20_000
MAX_TEXT_TOKENS = 1_024
MAX_INTERVENTIONS = 64
MAX_GENERATED_TOKENS = 200
TokenPosition = Annotated[int, Field(ge=0, lt=MAX_TEXT_TOKENS)]
TokenPositions = Annotated[list[TokenPosition], Field(max_length=MAX_TEXT_TOKENS)]
SweepSort = Literal["total_effect", "direct_effect_ln", "delta_loss", "delta_entropy", "abs_delta_entropy"]


class TextRequest(Wire):
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS, examples=["The capital of France is Paris."])]


class Prediction(Wire):
    token_id: int
    token: str
    probability: Annotated[float, Field(ge=0, le=1)]


class TokenValues(Wire):
    """What the model did at every token, in one state (before, or after an intervention)."""

    loss: list[Number]
    """Of predicting this token, which happened at the one before: null for the first."""
    entropy: list[FiniteFloat]
    """Of the prediction made after reading this token: that of the next one, which also follows the last."""
    rank: list[int | None]
    """Of this token among all in the prediction of it, from 1: null for the first."""
    norm_scale: list[FiniteFloat]
    """The final norm's divisor s."""
    residual_norm: list[FiniteFloat]
    """‖x̃‖, the length of the residual stream that the final norm divides (centred, where the norm centres it)."""
    kl: list[FiniteFloat] | None = None
    """D_KL(P_freq‖P), how far the prediction made after reading this token is from the token frequencies, in nats; null
    where no run of the model has stored those."""


class Totals(Wire):
    """Means over the positions that have a target, where neither token nor target is special (BOS, EOS, or what
    separates documents)."""

    mean_loss: Number
    mean_entropy: FiniteFloat
    perplexity: Number
    mean_kl: Number = None
    """Of D_KL(P_freq‖P); null where token frequencies are not known."""


class TextBeginning(Wire):
    """What stands before a text."""

    token_id: int | None
    """The token that was prepended, the first of the text's tokens; null where there is none."""
    token: str | None
    reason: str
    """Why, in words: as the model's run measured it, or as its tokenizer does."""


class TextTrace(Wire):
    id: str
    model: str
    tokens: list[str]
    token_ids: list[int]
    values: TokenValues
    predictions: list[list[Prediction]]
    """The ten most probable next tokens at every token; where some were asked for, at those, in the order asked."""
    totals: Totals
    truncated: bool
    """True when the text was cut to the model's or the service's length limit."""
    frequencies: str | None = None
    """Where the token frequencies behind `kl` come from, or null where there are none."""
    beginning: TextBeginning | None = None
    """Whether a BOS was put before the text, and why; null for a sequence of a run's sample, taken as it is."""


class ActivationRequest(Wire):
    neurons: Annotated[list[NeuronName], Field(min_length=1, max_length=MAX_INTERVENTIONS)]


class ActivationStrip(Wire):
    neuron: NeuronName
    activations: list[FiniteFloat]
    reference_mean: Number
    """Mean over the run's sample, or null when no run has measured it."""


class ActivationList(Wire):
    strips: list[ActivationStrip]


_KINDS = " ".join(f"`{row.kind}`: {row.sentence}" for row in INTERVENTIONS)


class InterventionRequest(Wire):
    neuron: UnitName
    kind: Annotated[InterventionKind, Field(description=_KINDS)] = "mean"
    value: Annotated[
        float | None, Field(allow_inf_nan=False, ge=-LARGEST_INTERVENTION_VALUE, le=LARGEST_INTERVENTION_VALUE)
    ] = None
    """The activation to set (`value`) or the factor (`scale`); null for the other kinds."""


class InterventionDefinition(Wire):
    """What an `InterventionRequest` can ask for, and of which units."""

    kind: InterventionKind
    sentence: str
    on_neurons: str | None
    """What it is called in a neuron's menu; null where it is not for neurons."""
    on_heads: str | None
    """What it is called in a head's menu; null where it is not for attention heads."""
    needs_value: bool
    """Whether it needs `value`; where not, a `value` is refused."""
    starting_value: Number
    """The number that the pages begin with; null where it takes none."""


class InterventionList(Wire):
    interventions: list[InterventionDefinition]
    largest_value: FiniteFloat
    """How far from 0 a `value` may be."""


class AblateRequest(Wire):
    interventions: Annotated[
        list[InterventionRequest],
        Field(min_length=1, max_length=MAX_INTERVENTIONS, examples=[[{"neuron": "29.830", "kind": "mean"}]]),
    ]
    run: Id | None = None
    """The run whose sample gives the mean for `mean` and `clip`; null for the model's latest run, or where there
    is none the mean over this text (see `reference` in the answer)."""
    predictions_at: TokenPositions | None = None
    """The tokens at which the answer tells the most probable next tokens; null for all. They are most of an answer."""


class AblatedState(Wire):
    values: TokenValues
    predictions: list[list[Prediction]]
    """The ten most probable next tokens, at every token or at those that were asked for, in the order asked."""
    totals: Totals
    mean_abs_delta_loss: Number = None
    """Mean over the same positions of |loss after − loss before|; null where nothing was predicted."""
    changed_predictions: Annotated[float, Field(ge=0, le=1)]
    """Share of these positions whose most probable next token differs from before."""


class Ablation(Wire):
    text: str
    """The text's id."""
    reference: str
    """Where the mean came from."""
    activations_before: dict[str, list[FiniteFloat]]
    """By neuron; of an attention head, the norm of its output."""
    activations_after: dict[str, list[FiniteFloat]]
    before: TokenValues
    before_totals: Totals
    total: AblatedState
    """The final norm recomputed: all that the intervention does."""
    frozen: AblatedState
    """The final norm's scale held at its value before: the direct part."""
    ln_mediated: Number
    """1 − mean |Δloss frozen| / mean |Δloss total| over the same positions. Below 0 where the direct part alone moves
    the loss more than both paths together; null where the loss does not change at all, or nothing was predicted."""
    tokens: int = 0
    """Positions behind the means. They are of one sequence, so no standard error can be given."""
    frequencies: str | None = None
    """Where the token frequencies behind `kl` come from: the asked run's; without one, those of the model's run that
    pages show first among those that have them. Null where there are none."""


class SweepRequest(Wire):
    position: TokenPosition | None = None
    """The token after which the prediction is asked about: its loss is that of the token that follows. Null for means
    over the text."""
    target: SweepTarget = "mean"
    sort: SweepSort = "total_effect"
    """By size, largest first. At the last token there is no loss to move, so the order there is that of entropies."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    run: Id | None = None
    """The run whose sample gives the means, as in an ablation."""


class SweepRow(Wire):
    """One neuron ablated alone: at the asked token, or in the mean over the text."""

    neuron: NeuronName
    activation: FiniteFloat
    total_effect: Number
    """mean |Δloss|; null where there is no next token to predict."""
    direct_effect_ln: Number
    ln_mediated: Number
    delta_loss: Number
    delta_entropy: FiniteFloat
    abs_delta_entropy: FiniteFloat
    prediction_change: Annotated[float, Field(ge=0, le=1)]
    """Share of positions whose most probable next token changes; for one token 0 or 1."""


class Sweep(Wire):
    text: str
    position: int | None
    positions: int
    """How many positions the means are over."""
    reference: str
    rows: list[SweepRow]
    """The first neurons in the asked order, largest first."""


class GenerateRequest(Wire):
    """How to go on from a text. The same seed gives the same plain continuation, whatever the interventions."""

    interventions: Annotated[
        list[InterventionRequest],
        Field(max_length=MAX_INTERVENTIONS, examples=[[{"neuron": "29.830", "kind": "mean"}]]),
    ] = Field(default_factory=list)
    """They act on every token, of the text and of what is generated; none asks for the plain continuation alone."""
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.8
    """0 takes the most probable token each time."""
    seed: Seed = 0
    max_tokens: Annotated[int, Field(ge=1, le=MAX_GENERATED_TOKENS)] = 60
    run: Id | None = None
    """The run whose sample gives the means, as in an ablation."""


class GeneratedToken(Wire):
    token_id: int
    token: str
    probability: Annotated[float, Field(ge=0, le=1)]
    """That the model gave it before temperature."""
    entropy: FiniteFloat
    """Of the prediction that it was drawn from, before temperature, in nats."""


class GenerationStart(Wire):
    kind: Literal["start"] = "start"
    reference: str
    """Where the mean came from."""
    tokens: int
    """Of the text that is continued, a BOS included where one stands before it."""


class GenerationStep(Wire):
    kind: Literal["step"] = "step"
    plain: GeneratedToken | None
    """The model as it is; null once it has ended the text."""
    changed: GeneratedToken | None
    """Under the interventions; null once ended, or where there are none."""


class GenerationEnd(Wire):
    kind: Literal["end"] = "end"
    reason: Literal["length", "end_of_text", "context_full"]
    steps: int
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """From the first step to the last, other requests' turns included."""


class GenerationProblem(Wire):
    """What went wrong after the answer had begun."""

    kind: Literal["problem"] = "problem"
    problem: Problem


class GenerationEvent(
    RootModel[
        Annotated[GenerationStart | GenerationStep | GenerationEnd | GenerationProblem, Field(discriminator="kind")]
    ]
):
    """One event of the stream: a start, steps, and an end or a problem."""
