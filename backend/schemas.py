"""The wire contract: every request and response of `/api/v1`, with its limits.

Numbers that do not exist (a metric not measured yet, a value that is not finite) are `null`, never NaN.
Losses, entropies and effects are in nats; positions, ranks and indices are integers, ranks from 1, the rest from 0.
A per-token list has one entry a token of the text; entry t of a loss, rank or entropy belongs to the prediction
made at token t of the token that follows it, so its last loss and rank are `null` (nothing follows).
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backend.glossary import NeuronClass

MAX_TEXT_CHARS = 20_000
MAX_TEXT_TOKENS = 1_024
MAX_INTERVENTIONS = 64
MAX_PAGE = 1_000

NeuronName = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,4}\.[0-9]{1,7}$"),
    Field(description="layer.index, both from 0", examples=["29.830"]),
]
UnitName = Annotated[
    str,
    StringConstraints(pattern=r"^([0-9]{1,4}\.[0-9]{1,7}|[Ll][0-9]{1,4}[Hh][0-9]{1,4})$"),
    Field(description="A neuron (layer.index) or an attention head (L5H1), all from 0", examples=["29.830", "L5H1"]),
]
Number = Annotated[float | None, Field(allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
SweepSort = Literal["total_effect", "direct_effect_ln", "delta_loss", "delta_entropy", "abs_delta_entropy"]
RunStatus = Literal["running", "finished", "failed", "interrupted"]
"""`interrupted`: nobody has worked on the run for a while; `calibroscope precompute` resumes it."""
RunStage = Literal["queued", "weights", "activations", "effects", "contexts", "done"]
Bucket = Literal["max", "q75", "median", "random", "min"]
"""Where a context's peak lies among all contexts of the neuron; `min`: the contexts with the lowest activation."""
InterventionKind = Literal["mean", "zero", "clip", "value", "scale"]


class Wire(BaseModel):
    """Base of all messages: unknown fields are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class Problem(BaseModel):
    """An error, as RFC 9457 has it (`application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """What is wrong, where, and what to do."""
    field: str | None = None
    """The field of the request at fault, or null."""


class Health(Wire):
    status: Literal["ok"]
    version: str
    models_loaded: list[str]
    queue: int
    """Requests waiting for the model."""


class ModelSummary(Wire):
    id: str
    """Slug used in addresses."""
    name: str
    family: str
    n_layers: int
    d_model: int
    d_mlp: int
    d_vocab: int
    norm: Literal["LayerNorm", "RMSNorm"]
    n_runs: int
    latest_run: int | None
    """The run that pages open first: the newest finished one, else the newest."""


class ModelList(Wire):
    models: list[ModelSummary]


class RunSummary(Wire):
    id: int
    model: str
    """The model's slug."""
    layer: int
    """Layer whose neurons the run measures; the last one unless another was asked for."""
    mode: Literal["exact", "survey"]
    """`survey`: effects were computed faster, each token's within `tolerance_nats`."""
    tolerance_nats: FiniteFloat
    """Largest error of a token's change of loss or entropy, besides float32 rounding."""
    corpus: str
    status: RunStatus
    stage: RunStage
    progress: Annotated[float, Field(ge=0, le=1)]
    """Share of the whole run that is done."""
    message: str | None
    """What failed and what to do, or null."""
    sequences: int
    seq_len: int
    seed: int
    null_dim: int
    tokens_sampled: int
    """Positions behind the activation statistics so far."""
    tokens_counted: int
    """Positions with a target behind the effects so far."""
    tokens_total: int
    """Positions with a target that the finished run will have."""
    mean_loss: Number
    mean_entropy: Number
    created_at: datetime
    finished_at: datetime | None
    weights_hash: str
    config: dict[str, str | int | float | bool | None]
    versions: dict[str, str]


class RunList(Wire):
    runs: list[RunSummary]


class NeuronRow(BaseModel):
    """A neuron and the metrics asked for, by the names of the glossary; a metric not measured yet is null."""

    neuron: NeuronName
    layer: int
    index: int
    neuron_class: NeuronClass
    effect_tokens: int
    """Tokens behind the effect metrics."""
    metrics: dict[str, Number]


class NeuronPage(Wire):
    rows: list[NeuronRow]
    total: int
    """Neurons that match the filter."""
    next_cursor: str | None


class NeuronColumns(Wire):
    """All neurons of a run, by column: what a scatter needs. All lists are aligned."""

    neuron: list[NeuronName]
    neuron_class: list[NeuronClass]
    columns: dict[str, list[Number]]
    effect_tokens: int
    revision: str
    """Changes whenever the run has grown."""


class NeuronDetail(Wire):
    run: RunSummary
    row: NeuronRow
    percentiles: dict[str, Number]
    """Share (0..100) of the run's neurons whose metric is at most this one's."""
    class_reason: str
    """Why the neuron has its class, with its numbers."""
    previous: NeuronName | None
    next: NeuronName | None


class Histogram(Wire):
    neuron: NeuronName
    edges: list[FiniteFloat]
    """One more than counts."""
    counts: list[int]
    mean: Number


class ContextStrip(Wire):
    id: int
    bucket: Bucket
    tokens: list[str]
    token_ids: list[int]
    activations: list[FiniteFloat]
    loss: list[Number]
    entropy: list[Number]
    rank: list[int | None]
    peak: FiniteFloat
    peak_position: int


class ContextList(Wire):
    neuron: NeuronName
    contexts: list[ContextStrip]


class TokenEffects(Wire):
    """Per-token effects of mean-ablating one neuron, on the run's sampled positions. All lists are aligned."""

    neuron: NeuronName
    tokens: list[str]
    """The token at each position."""
    targets: list[str]
    """The token that follows it."""
    activation: list[FiniteFloat]
    loss_before: list[FiniteFloat]
    entropy_before: list[FiniteFloat]
    rank_before: list[int]
    delta_loss: list[FiniteFloat]
    """After − before, final norm recomputed."""
    delta_loss_frozen: list[FiniteFloat]
    """After − before, final norm's scale held."""
    delta_entropy: list[FiniteFloat]
    delta_entropy_frozen: list[FiniteFloat]
    background_total: list[FiniteFloat]
    """|Δloss| pooled over 100 random neurons of the run at sampled positions (Figure 2c's comparison)."""
    background_frozen: list[FiniteFloat]


class TokenWeight(Wire):
    token_id: int
    token: str
    value: FiniteFloat


class NeuronLogits(Wire):
    """The tokens whose logits the neuron's direct path raises and lowers most: entries of w_out · W_U."""

    neuron: NeuronName
    top: list[TokenWeight]
    bottom: list[TokenWeight]


class Spectrum(Wire):
    singular_values: list[FiniteFloat]
    """Of the centred W_U, largest first."""
    null_dim: int
    neuron: NeuronName | None
    cosines: list[FiniteFloat] | None
    """|cos| of the neuron's w_out with each right singular direction, or null when no neuron was asked for."""


class TextRequest(Wire):
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS, examples=["The capital of France is Paris."])]


class Prediction(Wire):
    token_id: int
    token: str
    probability: Annotated[float, Field(ge=0, le=1)]


class TokenValues(Wire):
    """What the model did at every token, in one state (before, or after an intervention)."""

    loss: list[Number]
    entropy: list[FiniteFloat]
    rank: list[int | None]
    norm_scale: list[FiniteFloat]
    """The final norm's divisor s."""


class Totals(Wire):
    """Means over the positions that have a target, where neither token nor target is BOS or EOS."""

    mean_loss: Number
    mean_entropy: FiniteFloat
    perplexity: Number


class TextTrace(Wire):
    id: str
    model: str
    tokens: list[str]
    token_ids: list[int]
    values: TokenValues
    predictions: list[list[Prediction]]
    """The ten most probable next tokens at every token."""
    totals: Totals
    truncated: bool
    """True when the text was cut to the model's or the service's length limit."""


class ActivationRequest(Wire):
    neurons: Annotated[list[NeuronName], Field(min_length=1, max_length=MAX_INTERVENTIONS)]


class ActivationStrip(Wire):
    neuron: NeuronName
    activations: list[FiniteFloat]
    reference_mean: Number
    """Mean over the run's sample, or null when no run has measured it."""


class ActivationList(Wire):
    strips: list[ActivationStrip]


class InterventionRequest(Wire):
    neuron: UnitName
    kind: InterventionKind = "mean"
    value: Annotated[float | None, Field(allow_inf_nan=False, ge=-1e4, le=1e4)] = None
    """The activation to set (`value`) or the factor (`scale`); null for the other kinds."""


class AblateRequest(Wire):
    interventions: Annotated[
        list[InterventionRequest],
        Field(min_length=1, max_length=MAX_INTERVENTIONS, examples=[[{"neuron": "29.830", "kind": "mean"}]]),
    ]
    run: int | None = None
    """The run whose sample gives the mean for `mean` and `clip`; null for the model's latest run, or where there
    is none the mean over this text (see `reference` in the answer)."""


class AblatedState(Wire):
    values: TokenValues
    predictions: list[list[Prediction]]
    totals: Totals
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
    """1 − mean|Δloss frozen| / mean|Δloss total| over the same positions."""


class SweepRequest(Wire):
    position: Annotated[int | None, Field(ge=0, lt=MAX_TEXT_TOKENS)] = None
    """The token to ask about; null for means over the text."""
    target: Literal["mean", "zero"] = "mean"
    sort: SweepSort = "total_effect"
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    run: int | None = None
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


class MetricDefinition(Wire):
    name: str
    label: str
    unit: str
    sentence: str
    equation: str


class Glossary(Wire):
    metrics: list[MetricDefinition]
    terms: dict[str, str]
