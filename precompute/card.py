"""A run's card: everything that a reader of its numbers must know of how they came about."""

import math
import platform
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from backend import schemas
from backend.atlas.records import RunRecord
from backend.atlas.store import Atlas
from backend.core.kernels.choose import Mode
from backend.core.kernels.engine import kernel_of
from backend.core.metrics import weights
from backend.core.metrics.effects import Effects, TokenBatch
from backend.core.metrics.frequency import Unigram
from backend.core.metrics.precision import Precision
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.beginning import BY_FREQUENCY, NOT_ITSELF, Beginning, not_itself
from backend.core.models.checkpoints import Checkpoint
from backend.core.models.devices import device_words
from backend.core.models.downloads import Say, sha256_of
from backend.core.models.dtypes import dtype_name
from backend.core.models.readout import Readout
from backend.core.models.self_check import tolerance_of
from backend.core.models.sources import ModelFiles
from precompute.config import RunConfig
from precompute.corpus import FIRST_COUNTED_POSITION, PACKAGED_CORPORA, Corpus, tokens_hash
from precompute.sample import Sample
from precompute.sequence_start import separator_section


class Reading:
    """A corpus that counts how many of its documents are read."""

    def __init__(self, corpus: Corpus) -> None:
        self._documents = corpus.documents
        self.corpus = replace(corpus, documents=self._counted)
        self.documents = 0

    def _counted(self) -> Iterator[str]:
        for document in self._documents():
            self.documents += 1
            yield document


def card_of(
    config: RunConfig,
    files: ModelFiles,
    model: AnalysisModel,
    beginning: Beginning,
    reading: Reading,
    sample: Sample,
    layer: int,
) -> schemas.RunCard:
    """What is known once a run's model and text are.

    Args:
        beginning: of every sequence.
        reading: the corpus that the sample was drawn from.
        layer: whose neurons are measured.
    """
    return schemas.RunCard(
        warnings=beginning.warnings,
        checkpoint=_checkpoint(config, files, model),
        corpus=_corpus(config, reading, sample),
        preset=None if config.preset is None else schemas.CardSection.model_validate(config.preset.as_section()),
        tokens=_tokens(sample),
        bos=schemas.CardSection.model_validate(beginning.as_section()),
        separator=schemas.CardSection.model_validate(separator_section(model)),
        ending=ending_section(model.readout),
        null_space=null_space(config, model.d_model),
        computation=computation(config.mode, model.readout, layer, is_last=layer == model.last_layer).model_copy(
            update={"weights": dtype_name(model.dtype)}
        ),
        self_check=schemas.CardSelfCheck(
            **asdict(model.self_check),
            log_probs_allowed=tolerance_of(model).log_probs,
            relative_allowed=tolerance_of(model).relative,
            allowed_because=tolerance_of(model).reason,
        ),
        platform=f"{platform.system()} {platform.machine()}",
    )


def ending_section(readout: Readout) -> schemas.CardSection | None:
    """What a model does after its last MLP that a reader of its numbers must know; None where it is nothing."""
    short, facts = [], {}
    if readout.post_norm is not None:
        short.append("a norm after the MLP")
        facts["Norm after the MLP"] = (
            f"{readout.post_norm.kind}, recomputed in every effect. Weight metrics are those of its gain times w_out: "
            "what a neuron writes, up to the norm's scale"
        )
    if readout.softcap is not None:
        short.append(f"logits capped at {readout.softcap:g}")
        facts["Soft-cap"] = (
            f"the logits are {readout.softcap:g}·tanh(y/{readout.softcap:g}), so that W_U is not centred over the "
            "vocabulary"
        )
    if readout.norm == "none":
        short.append("no final norm")
        facts["Final norm"] = "none: total and direct effects are the same by definition"
    return schemas.CardSection(short=", ".join(short), facts=facts) if short else None


def _checkpoint(config: RunConfig, files: ModelFiles, model: AnalysisModel) -> schemas.CardCheckpoint:
    asked = config.model if files.origin in ("packaged", "hub") else Path(config.model).name or files.name
    asked = asked if files.revision is None else files.name
    return schemas.CardCheckpoint(
        **asdict(Checkpoint.of(files, dtype_name(model.dtype))),
        name=files.name,
        asked=asked,
        origin=files.origin,
        architecture=model.family,
        weights_hash=files.weights_hash(),
    )


def _corpus(config: RunConfig, reading: Reading, sample: Sample) -> schemas.CardCorpus:
    packaged = PACKAGED_CORPORA.get(config.dataset)
    path = Path(config.dataset).expanduser()
    is_file = packaged is None and path.is_file()
    is_hub = packaged is None and not is_file
    return schemas.CardCorpus(
        name=reading.corpus.name,
        origin="packaged" if packaged else "file" if is_file else "hub",
        requirement=packaged.requirement if packaged else None,
        file_sha256=packaged.member_sha256 if packaged else sha256_of(path) if is_file else None,
        split=config.split if is_hub else None,
        field=config.field if is_hub or path.suffix in (".jsonl", ".parquet") else None,
        documents_read=reading.documents,
        sample_sha256=tokens_hash(sample.tokens),
        licence=packaged.licence if packaged else None,
    )


def _tokens(sample: Sample) -> schemas.CardTokens:
    sequences, seq_len = sample.tokens.shape
    sampled, counted = sample.tokens.size, len(sample.counted)
    early, last = sequences * min(FIRST_COUNTED_POSITION, seq_len), sequences
    return schemas.CardTokens(
        sequences=sequences,
        seq_len=seq_len,
        sampled=sampled,
        counted=counted,
        early=early,
        without_target=last,
        special=sampled - counted - early - last,
    )


def null_space(config: RunConfig, d_model: int) -> schemas.CardNullSpace:
    """How many directions count as the null space, and why."""
    k = min(config.null_dim or weights.default_null_dim(d_model), d_model)
    if config.null_dim is None:
        rule = f"1 % of d_model = {d_model}, at least 1"
    else:
        rule = "as asked for" if k == config.null_dim else f"{config.null_dim} asked for, d_model is {d_model}"
    return schemas.CardNullSpace(k=k, rule=rule)


def computation(mode: Mode, readout: Readout, layer: int, *, is_last: bool) -> schemas.CardComputation:
    """On what and how effects are computed here."""
    device = readout.W_U.device
    if is_last:
        kernel = kernel_of(readout, mode)
        name, reason, bound = kernel.name, kernel.reason, kernel.bound
    else:
        name, bound = "forward passes", None
        reason = f"layer {layer} is not the last: each neuron is ablated by running the layers after it again"
    return schemas.CardComputation(
        dtype="float32", device=device_words(device), kernel=name, kernel_reason=reason, bound=bound,
        precision=None, also_on=[],
    )  # fmt: skip


def went_on(atlas: Atlas, record: RunRecord, now: schemas.RunCard) -> None:
    """Keep in an unfinished run's card that this device and kernel take part."""
    card = schemas.RunCard.model_validate(record.card)
    before, words = card.computation, _words(now.computation)
    if words in (_words(before), *before.also_on):
        return
    card.computation = before.model_copy(update={"also_on": [*before.also_on, words]})
    with atlas.runs.writing() as writer:
        writer.update_run(record.id, card=card.model_dump(mode="json"))


def check_loss(atlas: Atlas, run: int, say: Say) -> None:
    """Warn in a run's card where its mean loss is no better than token frequencies alone give, unless it does already.

    The card says so of the corpus's opening when the run begins; what was measured in the end may still be otherwise.
    """
    record = atlas.runs.get(run)
    if record.card is None or record.mean_loss is None:
        return
    card = schemas.RunCard.model_validate(record.card)
    known = None if card.bos is None else card.bos.facts.get(BY_FREQUENCY)
    warning = None if known is None else not_itself(record.mean_loss, float(known))
    if warning is None or any(NOT_ITSELF in one for one in card.warnings):
        return
    say(f"WARNING: {warning}")
    card.warnings = [*card.warnings, warning]
    with atlas.runs.writing() as writer:
        writer.update_run(run, card=card.model_dump(mode="json"))


def _words(computation: schemas.CardComputation) -> str:
    return f"{computation.device}, {computation.kernel} ({computation.kernel_reason})"


def keep_precision(
    atlas: Atlas,
    run: int,
    readout: Readout,
    batch: TokenBatch,
    targets: Tensor,
    effects: Effects,
    unigram: Unigram | None,
) -> None:
    """Compute some of a run's effects again in float64, and keep how far they are; once a run."""
    record = atlas.runs.get(run)
    if record.card is None:
        return
    card = schemas.RunCard.model_validate(record.card)
    if card.computation.precision is not None:
        return
    with torch.no_grad():
        measured = Precision.of(readout, batch, targets, effects, unigram, record.seed)
    finite = {
        name: value if value is None or math.isfinite(value) else None for name, value in asdict(measured).items()
    }
    precision = schemas.CardPrecision.model_validate(finite)
    card.computation = card.computation.model_copy(update={"precision": precision})
    with atlas.runs.writing() as writer:
        writer.update_run(run, card=card.model_dump(mode="json"))
