"""What goes into the atlas and comes out of it, as plain data."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from numpy.typing import NDArray

from backend.core.neurons import Experts, NeuronId

Array = NDArray[Any]
Config = dict[str, str | int | float | bool | None]
_WINDOW = 64
"""Tokens of a context in runs that do not say."""


@dataclass(frozen=True)
class ModelRecord:
    """A model; `source` is the name that finds it again."""

    slug: str
    name: str
    family: str
    n_layers: int
    d_model: int
    d_mlp: int
    d_vocab: int
    norm: str
    source: str
    n_experts: int | None = None
    """Experts of a layer that its router chooses from, of `d_expert` neurons each; None where it has none."""
    d_expert: int | None = None

    @property
    def experts(self) -> Experts | None:
        """How a layer's neurons are divided among experts; None where it has none."""
        return Experts.of_layer(self.n_experts, self.d_expert, self.d_mlp)


@dataclass(frozen=True)
class RunPlan:
    """A run to begin. Two plans with the same fingerprint are the same run."""

    model: ModelRecord
    layer: int
    corpus: str
    corpus_hash: str
    weights_hash: str
    sequences: int
    seq_len: int
    seed: int
    null_dim: int
    tokens_total: int
    config: Config
    versions: dict[str, str]
    card: dict[str, Any] | None = None
    """What exactly is measured, as the wire has it."""
    made_by: str = ""
    """Fingerprint of the code, packages and device that would make its parts now: an unfinished run whose parts were
    made by others begins anew."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the result but for rounding: versions, device and card only describe."""
        describing = ("versions", "card", "made_by")
        decisive = {name: value for name, value in asdict(self).items() if name not in describing}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class RunRecord:
    """A run as the atlas has it."""

    id: int
    model: str
    """The model's slug."""
    layer: int
    corpus: str
    status: str
    """running, finished, failed or interrupted."""
    stage: str
    progress: float
    message: str | None
    sequences: int
    seq_len: int
    seed: int
    null_dim: int
    tokens_sampled: int
    tokens_counted: int
    tokens_total: int
    mean_loss: float | None
    mean_entropy: float | None
    created_at: datetime
    finished_at: datetime | None
    revision: str
    """Changes with everything that is published of the run, what jobs measure of its neurons included."""
    weights_hash: str
    config: Config
    versions: dict[str, str]
    card: dict[str, Any] | None
    """What exactly was measured, as the wire has it; None for a run made before it was kept."""
    error_groups: int | None
    """Groups of whole sequences behind the standard errors so far; None where these took tokens as independent."""
    chance: dict[str, Any] | None
    """Its chance lines by metric; None for a run made before there were any."""
    experts: Experts | None
    """How the layer's neurons are divided among experts; None where it has none."""

    def neuron(self, index: int) -> NeuronId:
        """A neuron of the run by its index in the layer, as the model's neurons are named."""
        return NeuronId(self.layer, index, self.experts)


def windows_of(run: RunRecord) -> int:
    """How many contexts each sequence of a run was cut into."""
    return -(-run.seq_len // int(run.config.get("window") or _WINDOW))


def frequency_source(run: RunRecord) -> str | None:
    """Where a run's token frequencies come from, in words; None of a run made before they were measured."""
    source = run.config.get("frequency_source")
    return source if isinstance(source, str) else None


@dataclass(frozen=True)
class ContextRecord:
    """A window of the sample; `loss` and `rank` are one shorter where it ends a sequence, whose last has no target."""

    token_ids: list[int]
    tokens: list[str]
    loss: Array
    entropy: Array
    rank: Array


@dataclass(frozen=True)
class TraceRecord:
    """One neuron on one context."""

    index: int
    context_id: int
    bucket: str
    activations: Array
    peak: float
    peak_position: int


@dataclass(frozen=True)
class ShownContext:
    """A context as it shows one neuron."""

    id: int
    context: ContextRecord
    trace: TraceRecord


@dataclass(frozen=True)
class PositionsRecord:
    """The positions whose per-token effects are kept; all aligned."""

    tokens: list[str]
    targets: list[str]
    loss_before: Array
    entropy_before: Array
    rank_before: Array
    kl_before: Array | None = None
    """D_KL(P_freq‖P); None of a run made before token frequencies were."""
    sequences: Array | None = None
    """The sequence of the sample that each is in; None of a run made before this was kept."""


@dataclass(frozen=True)
class NeuronRecord:
    """A neuron and the metrics that were asked for; None where not measured."""

    layer: int
    index: int
    neuron_class: str
    effect_tokens: int
    metrics: dict[str, float | None]
    paper_criterion: bool | None = None
    """Whether it passes the paper's own selection; None where that is not known."""


@dataclass(frozen=True)
class JobRecord:
    """Work that the worker takes."""

    id: int
    kind: str
    model: str
    """The model's slug."""
    run: int | None
    request: dict[str, Any]
    """As the wire has it."""
    status: str
    """queued, running, finished, failed or cancelled."""
    progress: float
    doing: str
    message: str | None
    created_at: datetime
    heartbeat: datetime
    finished_at: datetime | None
    parts_done: list[str]
    """Whose results are kept: a job that is taken up again goes on from there."""


@dataclass(frozen=True)
class TrainingStep:
    """A step of a model's training whose last layer was looked at."""

    training: str
    """The slug of the model whose training it is."""
    revision: str
    step: int
    source: str
    """What finds the model again, without its revision."""
    name: str
    family: str
    layer: int
    n_neurons: int
    n_experts: int | None
    """Experts of the layer that its router chooses from, of `d_expert` neurons each; None where it has none."""
    d_expert: int | None
    d_model: int
    norm: str
    null_dim: int
    weights_hash: str
    chance: dict[str, Any]
    """Chance lines by metric."""
    versions: dict[str, str]
    measured_at: datetime

    @property
    def experts(self) -> Experts | None:
        """How the layer's neurons are divided among experts; None where it has none."""
        return Experts.of_layer(self.n_experts, self.d_expert, self.n_neurons)

    def neuron(self, index: int) -> NeuronId:
        """A neuron of the layer by its index, as the model's neurons are named."""
        return NeuronId(self.layer, index, self.experts)


@dataclass(frozen=True)
class WeighedStep(TrainingStep):
    """What the weights of a model's last layer say at a step of its training."""

    columns: dict[str, Array]
    """Metrics by name, [n_neurons]; NaN where a neuron has no weights."""
    singular_values: Array
    """Of W_U, largest first, [d_model]."""
