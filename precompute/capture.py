"""Capture: the model runs once over the sample, and all that effects need of it is known without it from then on.

That is the residual stream after the last block and the activations of every sampled position, with losses and ranks
(`precompute/sample.py`), the readout from the stream to the logits, the sample itself, token frequencies, what tokens
are called, and the run's card. `kept_capture.py` keeps it in a folder, `effects.py` measures from there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.atlas.records import Config, ModelRecord
from backend.core.models import trust
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.dtypes import dtype_name
from backend.core.models.readout import Readout
from backend.core.models.sources import find_model
from backend.schemas import RunCard
from precompute import card, sequence_start, unigrams
from precompute.config import RunConfig
from precompute.corpus import open_corpus, pack, tokens_hash
from precompute.kept import fingerprint
from precompute.maker import Maker
from precompute.progress import Reporter
from precompute.sample import Sample, Sizes


@dataclass(frozen=True)
class Capture:
    """What a run measures: all that its stages read of a model and its text, but for the traces."""

    config: RunConfig
    model: ModelRecord
    layer: int
    """Whose neurons are measured."""
    readout: Readout
    """What they write, and how the model reads it out at its end."""
    strings: Callable[[list[int]], list[str]]
    """What tokens are called, each alone."""
    sample: Sample
    frequencies: unigrams.Frequencies
    facts: Config
    """What decides the result besides the configuration."""
    card: RunCard
    maker: Maker
    """What ran the model."""

    @property
    def sizes(self) -> Sizes:
        """Of its traces."""
        d_model, d_vocab = self.readout.W_U.shape
        return Sizes(d_model, len(self.readout.W_out), d_vocab)

    @property
    def is_of_the_last_layer(self) -> bool:
        """Whether its effects follow from the readout alone."""
        return self.layer == self.model.n_layers - 1

    @property
    def fingerprint(self) -> str:
        """Everything that decides what the traces hold, to the last bit."""
        return fingerprint(
            weights=self.card.checkpoint.weights_hash,
            layer=self.layer,
            tokens=tokens_hash(self.sample.tokens),
            shards=[(shard.start, shard.stop) for shard in self.sample.shards],
            dtype=self.card.computation.weights,
            made_by=self.maker.fingerprint,
        )


def prepared(
    config: RunConfig, cache: Path, reporter: Reporter, device: str = "auto"
) -> tuple[AnalysisModel, Capture]:  # fmt: skip
    """Load a run's model, and decide everything about the run but what the model computes on the sample.

    Args:
        cache: where fetched models and corpora are kept.

    Raises:
        CalibroscopeError: with a sentence that says what to do.
    """
    files = find_model(config.model, cache, reporter.say)
    trust.note(cache, config.model)
    reporter.say(f"Loading {files.name} …")
    state = files.state()
    model = AnalysisModel.load(files, device, config.dtype)
    layer = model.last_layer if config.layer is None else config.layer
    readout = model.readout_of(layer)  # refuses a layer that is not there before anything is written
    corpus = open_corpus(config.dataset, cache, reporter.say, split=config.split, field=config.field)
    beginning = sequence_start.decided(config, corpus, model, reporter.say)
    reading = card.Reading(corpus)
    tokens = pack(reading.corpus, model, config.sequences, config.seq_len, config.seed, beginning.token)
    if len(tokens) < config.sequences:
        reporter.say(f"{corpus.name} holds {len(tokens)} sequences of {config.seq_len} tokens; all are used.")
    sample = Sample.of(tokens, beginning.uncounted(model.uncounted), config.seed)
    frequencies = unigrams.Frequencies.of(config, corpus, model, reporter.say)
    facts = frequencies.described() | sequence_start.decisive(beginning, model)
    if model.dtype != torch.float32:  # which runs were before there was a choice
        facts |= {"dtype": dtype_name(model.dtype)}
    described = card.card_of(config, files, model, beginning, reading, sample, layer)
    capture = Capture(
        config=config,
        model=ModelRecord(
            slug=files.slug,
            name=files.name,
            family=model.family,
            n_layers=model.n_layers,
            d_model=model.d_model,
            d_mlp=model.d_mlp,
            d_vocab=model.d_vocab,
            norm=model.norm,
            source=config.model,
            n_experts=None if model.experts is None else model.experts.count,
            d_expert=None if model.experts is None else model.experts.width,
        ),
        layer=layer,
        readout=readout,
        strings=model.token_strings,
        sample=sample,
        frequencies=frequencies,
        facts=facts | {"tokenizer_hash": files.tokenizer_hash()},
        card=described,
        maker=Maker.here(model.device),
    )
    files.require(state)
    return model, capture
