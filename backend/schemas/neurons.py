"""The neurons of a run, and all that is known of one."""

from typing import Literal

from pydantic import BaseModel

from backend.glossary import ContextKind, NeuronClass
from backend.schemas.base import FiniteFloat, NeuronName, Number, Wire
from backend.schemas.runs import RunSummary

MAX_PAGE = 1_000

Bucket = Literal["max", "q75", "median", "random", "min"]
"""Where a context's peak lies among all contexts of the neuron; `min`: the contexts with the lowest activation."""


class MeasuredNeuron(BaseModel):
    """A neuron and the metrics asked for, by the names of the glossary; a metric not measured yet is null."""

    neuron: NeuronName
    layer: int
    index: int
    """Among all neurons of the layer, those of all its experts."""
    expert: int | None = None
    """The expert it belongs to, where a router chooses that; null of a neuron that every token passes."""
    neuron_class: NeuronClass
    effect_tokens: int
    """Tokens behind the effect metrics."""
    metrics: dict[str, Number]
    paper_criterion: bool | None = None
    """Whether it passes the paper's own selection, high weight norm and low logit variance, which is a mark beside the
    class; null for a run made before this was kept."""


class NeuronPage(Wire):
    rows: list[MeasuredNeuron]
    total: int
    """Neurons that match the filter."""
    next_cursor: str | None


class NeuronColumns(Wire):
    """All neurons of a run, by column: what a scatter needs. All lists are aligned."""

    neuron: list[NeuronName]
    neuron_class: list[NeuronClass]
    paper_criterion: list[bool | None]
    """The paper's own selection; null for a run made before this was kept."""
    columns: dict[str, list[Number]]
    effect_tokens: int
    revision: str
    """Changes whenever the run has grown."""


class NeuronDetail(Wire):
    run: RunSummary
    row: MeasuredNeuron
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
    """Of predicting this token, which happened at the one before: null for the first of a sequence."""
    entropy: list[Number]
    """Of the prediction made after reading this token."""
    rank: list[int | None]
    """Of this token in the prediction of it, from 1: null for the first of a sequence."""
    peak: FiniteFloat
    peak_position: int


class ContextList(Wire):
    neuron: NeuronName
    expert: int | None = None
    """The expert it belongs to, where a router chooses that: at other tokens its activation is 0. Null of a neuron that
    every token passes."""
    contexts: list[ContextStrip]


class TokenEffects(Wire):
    """Per-token effects of mean-ablating one neuron, on the run's sampled positions. All lists are aligned."""

    neuron: NeuronName
    tokens: list[str]
    """The token at each position."""
    targets: list[str]
    """The token that follows it: losses and ranks are of predicting this one, at the position."""
    sequences: list[int] | None = None
    """The sequence of the run's sample that each position is in, from 0: positions of one sequence are not independent.
    Null of a run made before this was kept."""
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
    clip_delta_loss: list[FiniteFloat] | None = None
    """After − before under clip ablation, which lowers activations above the mean to it: where the neuron is above its
    mean it is mean ablation, elsewhere nothing (Figure 4a). Null for neurons before the last layer, where what is done
    at one token also reaches those after it."""
    kl_before: list[FiniteFloat] | None = None
    """D_KL(P_freq‖P); null, as the next two, of a run made before token frequencies were measured."""
    delta_kl: list[FiniteFloat] | None = None
    delta_loss_freq: list[FiniteFloat] | None = None
    """After − before, the logits' component along the token-frequency direction held."""
    background_total: list[FiniteFloat]
    """|Δloss| pooled over 100 random neurons of the run at sampled positions (Figure 2c's comparison)."""
    background_frozen: list[FiniteFloat]
    background_freq: list[FiniteFloat] | None = None
    """|Δloss| of these 100 neurons with the frequency direction fixed (Figure 3c); null where it was not measured."""


class TokenWeight(Wire):
    token_id: int
    token: str
    value: FiniteFloat


class NeuronLogits(Wire):
    """The tokens whose logits the neuron's direct path raises and lowers most: entries of w_out · W_U."""

    neuron: NeuronName
    top: list[TokenWeight]
    bottom: list[TokenWeight]


class SimilarNeuron(Wire):
    neuron: NeuronName
    neuron_class: NeuronClass
    weight_cosine: Number
    """cos of the two neurons' w_out; null where the run keeps only higher ones."""
    activation_correlation: Number
    """Cosine of the two neurons' centred activations at the run's sampled positions."""


class SimilarNeurons(Wire):
    """Neurons of the same layer like this one: by what they write, and by when they fire. Most similar first."""

    neuron: NeuronName
    by_weights: list[SimilarNeuron] | None
    weights_missing: str | None
    """Why there are none, or null."""
    by_activations: list[SimilarNeuron] | None
    activations_missing: str | None
    positions: int
    """Sampled positions behind the correlations."""


class ContextAblateRequest(Wire):
    kind: ContextKind = "mean"
    """`mean` sets the run's mean activation, `clip` lowers activations above it to it, `zero` sets 0."""


class ContextAblation(Wire):
    """One of the run's contexts with and without a neuron. All lists have one entry a token of the context; the model
    reads the sequence that the context was cut from, from its beginning."""

    context: int
    neuron: NeuronName
    kind: ContextKind
    reference: str
    """Where the mean came from."""
    tokens: list[str]
    activations_before: list[FiniteFloat]
    activations_after: list[FiniteFloat]
    loss_before: list[Number]
    """Of predicting this token, which happened at the one before: null for the first of a sequence."""
    loss_after: list[Number]
    """The final norm recomputed: all that the ablation does."""
    loss_frozen: list[Number]
    """The final norm's scale held at its value before: the direct part."""
    entropy_before: list[FiniteFloat]
    """Of the prediction made after reading this token."""
    entropy_after: list[FiniteFloat]
    disagreement: FiniteFloat
    """Largest |loss before − the loss that the run measured|: rounding, unless the model's weights have changed."""


class Spectrum(Wire):
    singular_values: list[FiniteFloat]
    """Of the centred W_U, largest first."""
    null_dim: int
    neuron: NeuronName | None
    cosines: list[FiniteFloat] | None
    """|cos| of the neuron's w_out with each right singular direction, or null when no neuron was asked for."""
