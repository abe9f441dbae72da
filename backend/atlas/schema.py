"""The atlas's tables. Everything hangs off a run; portable between SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import JSON, DateTime, Dialect, Float, ForeignKey, Index, MetaData, Text, UniqueConstraint, select
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column
from sqlalchemy.types import TypeDecorator

from backend.atlas.arrays import Array, NamedArrays
from backend.glossary import METRIC_COLUMNS

Numbers = NDArray[Any]
POSITIONS = "positions"
JOB_COLUMNS = ("induction_change", "induction_change_se")
"""Metrics of a neuron that a job measures, after the run: they are kept beside the run, which stays as it is."""
RUN_COLUMNS = tuple(name for name in METRIC_COLUMNS if name not in JOB_COLUMNS)
"""Metrics that a run measures: a neuron's row has a column for each, NULL where it was not measured."""


class Moment(TypeDecorator[datetime]):
    """A point in time, always UTC and always aware; SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Strings(TypeDecorator[list[str]]):
    """A list of strings."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> list[str] | None:
        """
        Raises:
            ValueError: it is another kind of JSON, or holds half of a character, which is no text.
        """
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise ValueError("a list of strings belongs here")
        "".join(value).encode()
        return value


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _run() -> Mapped[int]:
    return mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)


class ModelRow(Base):
    __tablename__ = "models"
    slug: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    family: Mapped[str] = mapped_column(Text)
    n_layers: Mapped[int]
    d_model: Mapped[int]
    d_mlp: Mapped[int]
    d_vocab: Mapped[int]
    norm: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    vocabulary: Mapped[list[str] | None] = mapped_column(Strings, deferred=True)
    n_experts: Mapped[int | None]
    """Experts of a layer that its router chooses from, of `d_expert` neurons each; None where it has none."""
    d_expert: Mapped[int | None]


class RunRow(Base):
    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(ForeignKey("models.slug"))
    fingerprint: Mapped[str] = mapped_column(Text, unique=True)
    layer: Mapped[int]
    corpus: Mapped[str] = mapped_column(Text)
    corpus_hash: Mapped[str] = mapped_column(Text)
    weights_hash: Mapped[str] = mapped_column(Text, index=True)
    status: Mapped[str] = mapped_column(Text)
    stage: Mapped[str] = mapped_column(Text)
    progress: Mapped[float] = mapped_column(Float)
    message: Mapped[str | None] = mapped_column(Text)
    sequences: Mapped[int]
    seq_len: Mapped[int]
    seed: Mapped[int]
    null_dim: Mapped[int]
    tokens_sampled: Mapped[int]
    tokens_counted: Mapped[int]
    tokens_total: Mapped[int]
    mean_loss: Mapped[float | None] = mapped_column(Float)
    mean_entropy: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(Moment)
    heartbeat: Mapped[datetime] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)
    revision: Mapped[int]
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    versions: Mapped[dict[str, str]] = mapped_column(JSON)
    card: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """What exactly was measured: checkpoint, precision, BOS, self-check; None for a run made before it was kept."""
    chance: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """What the most extreme of as many random directions reach, by metric; None for a run made before."""
    owner: Mapped[str | None] = mapped_column(Text)
    """The process that took the run up last: others may not write to it. None for a run made before this was kept."""
    made_by: Mapped[str | None] = mapped_column(Text)
    """Fingerprint of the code, packages and device that make its parts; None for a run made before this was kept."""
    error_groups: Mapped[int | None]
    """Groups of whole sequences behind the standard errors; None where these took tokens as independent."""


class NeuronRow(Base):
    """One row a neuron: its class and every scalar metric of the glossary, NULL where not measured. Those that a job
    has measured are read from the job's results."""

    __tablename__ = "neurons"
    run: Mapped[int] = _run()
    layer: Mapped[int] = mapped_column(primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    neuron_class: Mapped[str] = mapped_column(Text, default="plain")
    effect_tokens: Mapped[int] = mapped_column(default=0)
    paper_criterion: Mapped[bool | None]
    """Whether it passes the paper's own selection; None for a run made before this was kept."""


for _name in RUN_COLUMNS:
    setattr(NeuronRow, _name, mapped_column(_name, Float, nullable=True))


class ShardRow(Base):
    """A finished piece of a stage: its sums, from which the published columns follow. One of the stage POSITIONS says
    which sequence each sampled position is in."""

    __tablename__ = "shards"
    run: Mapped[int] = _run()
    stage: Mapped[str] = mapped_column(Text, primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    arrays: Mapped[dict[str, Numbers]] = mapped_column(NamedArrays)


class SpectrumRow(Base):
    __tablename__ = "spectra"
    run: Mapped[int] = _run()
    singular_values: Mapped[Numbers] = mapped_column(Array)


class UnigramRow(Base):
    """P_freq of a run, by token id. A run made before it was kept lacks it."""

    __tablename__ = "unigrams"
    run: Mapped[int] = _run()
    p: Mapped[Numbers] = mapped_column(Array)


class DirectionRow(Base):
    """What the weights say of one neuron: its cosines with the spectrum and with its nearest neighbours, the tokens
    that its direct path moves most, and how it moves the whole vocabulary. A run made before a column lacks it."""

    __tablename__ = "directions"
    run: Mapped[int] = _run()
    index: Mapped[int] = mapped_column(primary_key=True)
    cosines: Mapped[Numbers | None] = mapped_column(Array)
    top_ids: Mapped[Numbers | None] = mapped_column(Array)
    top_values: Mapped[Numbers | None] = mapped_column(Array)
    bottom_ids: Mapped[Numbers | None] = mapped_column(Array)
    bottom_values: Mapped[Numbers | None] = mapped_column(Array)
    similar_ids: Mapped[Numbers | None] = mapped_column(Array)
    similar_values: Mapped[Numbers | None] = mapped_column(Array)
    logit_edges: Mapped[Numbers | None] = mapped_column(Array)
    logit_counts: Mapped[Numbers | None] = mapped_column(Array)


class HistogramRow(Base):
    __tablename__ = "histograms"
    run: Mapped[int] = _run()
    index: Mapped[int] = mapped_column(primary_key=True)
    edges: Mapped[Numbers] = mapped_column(Array)
    counts: Mapped[Numbers] = mapped_column(Array)


class ContextRow(Base):
    __tablename__ = "contexts"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    token_ids: Mapped[Numbers] = mapped_column(Array)
    tokens: Mapped[list[str]] = mapped_column(Strings)
    loss: Mapped[Numbers] = mapped_column(Array)
    entropy: Mapped[Numbers] = mapped_column(Array)
    rank: Mapped[Numbers] = mapped_column(Array)


class TraceRow(Base):
    """A neuron on a context."""

    __tablename__ = "traces"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    index: Mapped[int]
    context: Mapped[int] = mapped_column(ForeignKey("contexts.id", ondelete="CASCADE"))
    bucket: Mapped[str] = mapped_column(Text)
    activations: Mapped[Numbers] = mapped_column(Array)
    peak: Mapped[float] = mapped_column(Float)
    peak_position: Mapped[int]
    __table_args__ = (
        Index("ix_traces_run_index", "run", "index"),
        UniqueConstraint("run", "index", "context", name="uq_traces_run_index_context"),
    )


class PositionsRow(Base):
    """The sampled positions of a run, shared by all neurons."""

    __tablename__ = "sampled_positions"
    run: Mapped[int] = _run()
    tokens: Mapped[list[str]] = mapped_column(Strings)
    targets: Mapped[list[str]] = mapped_column(Strings)
    loss_before: Mapped[Numbers] = mapped_column(Array)
    entropy_before: Mapped[Numbers] = mapped_column(Array)
    rank_before: Mapped[Numbers] = mapped_column(Array)
    kl_before: Mapped[Numbers | None] = mapped_column(Array)


class TokenEffectsRow(Base):
    """One neuron's effects at the sampled positions."""

    __tablename__ = "token_effects"
    run: Mapped[int] = _run()
    index: Mapped[int] = mapped_column(primary_key=True)
    arrays: Mapped[dict[str, Numbers]] = mapped_column(NamedArrays)


class TrainingStepRow(Base):
    """What the weights of a model's last layer say at one step of its training."""

    __tablename__ = "training_steps"
    training: Mapped[str] = mapped_column(Text, primary_key=True)
    """The slug of the model whose training it is, without its revision."""
    revision: Mapped[str] = mapped_column(Text, primary_key=True)
    step: Mapped[int]
    source: Mapped[str] = mapped_column(Text)
    """What finds the model again, without its revision."""
    name: Mapped[str] = mapped_column(Text)
    family: Mapped[str] = mapped_column(Text)
    layer: Mapped[int]
    n_neurons: Mapped[int]
    n_experts: Mapped[int | None]
    d_expert: Mapped[int | None]
    d_model: Mapped[int]
    norm: Mapped[str] = mapped_column(Text)
    null_dim: Mapped[int]
    weights_hash: Mapped[str] = mapped_column(Text)
    chance: Mapped[dict[str, Any]] = mapped_column(JSON)
    arrays: Mapped[dict[str, Numbers]] = mapped_column(NamedArrays)
    """The neurons' metrics by name and the singular values of W_U."""
    versions: Mapped[dict[str, str]] = mapped_column(JSON)
    measured_at: Mapped[datetime] = mapped_column(Moment)


class JobRow(Base):
    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(ForeignKey("models.slug"))
    run: Mapped[int | None] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(Text, index=True)
    progress: Mapped[float] = mapped_column(Float)
    doing: Mapped[str] = mapped_column(Text)
    message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Moment)
    heartbeat: Mapped[datetime] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)
    parts_done: Mapped[list[str]] = mapped_column(Strings)
    made_from: Mapped[str | None] = mapped_column(Text)
    """Fingerprint of everything behind its results; None before there are any, or if they are older than this."""


class JobEventRow(Base):
    """A result of a job, as the wire has it."""

    __tablename__ = "job_events"
    job: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    payload: Mapped[str] = mapped_column(Text)


class JobResultRow(Base):
    """What a job has measured of one neuron of its run; a later job's replaces it."""

    __tablename__ = "job_results"
    run: Mapped[int] = _run()
    layer: Mapped[int] = mapped_column(primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[int | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    """None where it was measured before this was kept."""


for _name in JOB_COLUMNS:
    setattr(JobResultRow, _name, mapped_column(_name, Float, nullable=True))
    _of_neuron = select(getattr(JobResultRow, _name)).where(
        JobResultRow.run == NeuronRow.run, JobResultRow.layer == NeuronRow.layer, JobResultRow.index == NeuronRow.index
    )
    setattr(NeuronRow, _name, column_property(_of_neuron.correlate_except(JobResultRow).scalar_subquery()))
RunRow.results_of = column_property(
    select(JobResultRow.job)
    .where(JobResultRow.run == RunRow.id)
    .limit(1)
    .correlate_except(JobResultRow)
    .scalar_subquery()
)
"""The job whose results of the run's neurons are shown; None where there are none, or older ones."""
for _name in ("n_experts", "d_expert", "d_mlp"):
    _of_model = select(getattr(ModelRow, _name)).where(ModelRow.slug == RunRow.model)
    setattr(RunRow, _name, column_property(_of_model.correlate_except(ModelRow).scalar_subquery()))
