"""What a run is asked to do."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from backend.core.errors import BadConfig
from backend.core.kernels import survey
from backend.core.kernels.choose import Mode
from backend.core.kernels.series import EXACT
from backend.core.metrics.jackknife import MOST_GROUPS
from backend.core.models import dtypes
from backend.core.models.beginning import AUTO
from precompute.corpus import DEFAULT_CORPUS

RESULTS_FORMAT = 3
"""To be raised by hand with every release that computes another number, from the packing of text over the traces to the
classes, or keeps a run's parts otherwise. A run of another format is another run: a finished one stays, and is measured
again when asked for; what an unfinished one has kept is not read."""
SHARD_SEQUENCES = 4
"""Sequences whose activations are one shard."""
SHARD_TOKENS = 256
"""Positions whose effects are measured at once. A shard of effects holds as many whole sequences as fit into that, one
at least, and is the work that a killed run loses at most."""
WINDOW = 64
"""Tokens of a context."""
HISTOGRAM_BINS = 64
LOGIT_TOKENS = 20
"""Most raised and most lowered tokens that are kept for a neuron."""
LOGIT_BINS = 50
SIMILAR_NEURONS = 10
"""Neurons with the most similar w_out that are kept for a neuron."""


FrequencySource = Literal["model", "corpus", "counts"]


@dataclass(frozen=True)
class PresetUse:
    """A preset of the paper that a run's settings were taken from, and where they depart from it."""

    name: str
    title: str
    note: str
    """What the paper leaves open, and what is done instead; empty where nothing is."""
    beside: dict[str, str]
    """Options that were given beside it, each with its value and the preset's."""

    def as_section(self) -> dict[str, Any]:
        """For a run's card: a few words, and what there is to know by what it is."""
        departs = f", but for {', '.join(self.beside)}" if self.beside else ""
        facts = {"Settings of": f"{self.title} in the paper (preset {self.name})"}
        facts |= {"What the paper leaves open": self.note} if self.note else {}
        return {"short": f"preset {self.name}{departs}", "facts": facts | self.beside}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result besides the model and the text themselves."""

    model: str
    dataset: str = DEFAULT_CORPUS
    sequences: int = 100
    seq_len: int = 256
    seed: int = 0
    null_dim: int | None = None
    """k of null_fraction; None for 1 % of d_model."""
    split: str = "train"
    field: str = "text"
    layer: int | None = None
    """Whose neurons are measured; None for the last, from 0. Earlier ones take a forward pass a neuron."""
    mode: Mode = "exact"
    """How effects are computed; `survey` is faster, within a stated bound on each token's error."""

    frequency: FrequencySource = "model"
    """Where token frequencies come from: the model's mean prediction over the sample, the corpus, a file of counts."""
    counts: str | None = None
    """The file of counts."""

    bos: str = AUTO
    """What stands before each sequence: auto, always, never, or a token (`backend.core.models.beginning`)."""
    preset: PresetUse | None = None
    """Where the settings were taken from; says nothing that the others do not, so that a run is the same without."""
    dtype: str = dtypes.AUTO
    """In which the model's weights are kept: a type of `backend.core.models.dtypes`, or auto."""

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise BadConfig("--sequences must be at least 1.")
        if self.seq_len < 8:
            raise BadConfig("--seq-len must be at least 8: positions before the fourth do not count.")
        if self.null_dim is not None and self.null_dim < 1:
            raise BadConfig("--null-dim must be at least 1.")
        if (self.frequency == "counts") != (self.counts is not None):
            raise BadConfig("--frequency counts and --counts FILE belong together.")
        if not self.bos:
            raise BadConfig("--bos takes auto, always, never, a token, or a token's number.")
        if self.layer is not None and self.mode == "survey":
            raise BadConfig("--mode survey is for the last layer: neurons of others are measured exactly.")

    def as_dict(self) -> dict[str, str | int | float | bool | None]:
        """For the atlas; the shard sizes are part of it because shards are numbered by them."""
        shards = {"shard_sequences": SHARD_SEQUENCES, "shard_tokens": SHARD_TOKENS, "window": WINDOW}
        shards |= {"most_groups": MOST_GROUPS}
        tolerance = survey.TOLERANCE if self.mode == "survey" else EXACT.tolerance
        # What these come to decides the run, not how they were asked for: counts by content, BOS as a token.
        by_outcome = ("counts", "bos", "preset", "dtype")
        fields = {name: value for name, value in asdict(self).items() if name not in by_outcome}
        return {**fields, **shards, "tolerance_nats": tolerance, "results_format": RESULTS_FORMAT}
