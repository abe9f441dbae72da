"""Models and their runs."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from backend.schemas.base import ExpertLayout, FiniteFloat, Number, Wire
from backend.schemas.cards import RunCard
from backend.schemas.classes import RunChance

RunStatus = Literal["running", "finished", "failed", "interrupted"]
"""`interrupted`: nobody has worked on the run for a while; `calibroscope precompute` resumes it."""
RunStage = Literal["queued", "weights", "activations", "effects", "contexts", "done"]


class ModelSummary(Wire):
    id: str
    """Slug used in addresses."""
    name: str
    family: str
    n_layers: int
    d_model: int
    d_mlp: int
    """Neurons of a layer, those of all its experts."""
    experts: ExpertLayout | None = None
    """Null where its layers have no experts."""
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
    experts: ExpertLayout | None = None
    """Null where the model's layers have no experts."""
    mode: Literal["exact", "survey"]
    """`survey`: effects were computed faster, each token's within `tolerance_nats`."""
    tolerance_nats: FiniteFloat
    """Largest error that the effects' kernel allows itself for a token's change of loss or entropy. Float32 rounding of
    logits and losses comes on top: what both come to was measured, see `card.computation.precision`."""
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
    error_groups: int | None = None
    """Groups of whole sequences over which the standard errors are taken, so far; with one there are no errors. Null of
    a run made before, whose errors took tokens as independent: they are too small."""
    mean_loss: Number
    mean_entropy: Number
    revision: str
    """Changes when anything of the run is published, results of jobs included: whoever shows its numbers need not ask
    for them again while this stays."""
    created_at: datetime
    finished_at: datetime | None
    weights_hash: str
    config: dict[str, str | int | float | bool | None]
    """What the run was asked to do; of a folder or a file on the machine that measured it, the last part."""
    versions: dict[str, str]
    card: RunCard | None = None
    """What exactly was measured: checkpoint, text, BOS, precision, self-check. Null for a run made before this was
    kept."""
    chance: RunChance | None = None
    """What random directions reach in this model, beside which neurons have their classes. Null for a run made before
    there were chance lines: its classes are by quantiles within the run."""


class RunList(Wire):
    runs: list[RunSummary]
