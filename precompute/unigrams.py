"""Where a run's token frequencies come from: the model, the corpus, or a file of counts.

How each becomes P_freq is said in docs/science.md, "Token frequency".
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import SourceError
from backend.core.metrics.frequency import COUNT_SMOOTHING, MEAN_SMOOTHING, Unigram
from backend.core.models.downloads import Say
from precompute.config import FrequencySource, RunConfig
from precompute.corpus import Corpus, Tokenizer, encoded
from precompute.sample import TracedShard

MOST_COUNTED = 5_000_000
"""Tokens of a corpus that are counted at most: a hub dataset may not end."""
_MOST_BYTES = 1 << 28
"""Of a file of counts."""

Counts = NDArray[np.float64]


class Vocabulary(Tokenizer, Protocol):
    """What counting needs of a model."""

    @property
    def d_vocab(self) -> int: ...


@dataclass(frozen=True)
class Frequencies:
    """The source of a run's token frequencies, and what the run says of it."""

    source: FrequencySource
    corpus: str
    """The corpus's name."""
    file: str
    counts: Counts | None
    """By token id; None where the model itself is the source."""

    @classmethod
    def of(cls, config: RunConfig, corpus: Corpus, model: Vocabulary, say: Say) -> Self:
        """As a run is asked to take them; a file of counts is read, or the corpus counted, before the run begins: what
        was counted decides which run it is.

        Raises:
            SourceError: the file does not hold counts of the model's tokens.
        """
        path = None if config.counts is None else Path(config.counts).expanduser()
        counts = None if path is None else read_counts(path, model.d_vocab)
        if config.frequency == "corpus":
            say(f"Counting the tokens of {corpus.name} …")
            counts = _counted(corpus, model)
        return cls(config.frequency, corpus.name, "" if path is None else path.name, counts)

    def described(self) -> dict[str, str | None]:
        """A sentence, and what tells two sets of counts apart."""
        smoothed = f"{COUNT_SMOOTHING:g} is added to each count"
        sentences = {
            "model": f"the model's mean prediction over the sample ({MEAN_SMOOTHING:g} is added to each probability)",
            "corpus": f"token counts of {self.corpus}, of at most {MOST_COUNTED:,} tokens ({smoothed})",
            "counts": f"token counts in {self.file} ({smoothed})",
        }
        content = None if self.counts is None else hashlib.sha256(self.counts.astype("<f8").tobytes()).hexdigest()
        return {"frequency_source": sentences[self.source], "counts_sha256": content}

    def unigram(self, shards: Iterable[TracedShard]) -> Unigram:
        """P_freq; shards: of the whole sample, which are used where the model itself is the source."""
        if self.counts is not None:
            return Unigram.of_counts(self.counts)
        total: Any = sum(shard.predicted for shard in shards)
        return Unigram.of_mean(total)


def _counted(corpus: Corpus, model: Vocabulary) -> Counts:
    counts, left = np.zeros(model.d_vocab), MOST_COUNTED
    for ids in encoded(corpus, model):
        counts += np.bincount(np.array(ids[:left], dtype=np.int64), minlength=model.d_vocab)
        left -= len(ids)
        if left <= 0:
            break
    return counts


def read_counts(path: Path, d_vocab: int) -> Counts:
    """Counts by token id out of an `.npy` file, [d_vocab]; zeros are added for tokens past its end.

    Raises:
        SourceError: the file is not there, or is not a list of at most d_vocab counts.
    """
    counts = _read_array(path)
    if counts.ndim != 1 or not len(counts) or counts.dtype.kind not in "iuf":
        raise SourceError(f"{path} holds an array of shape {counts.shape} of {counts.dtype}: not one count a token.")
    if len(counts) > d_vocab:
        raise SourceError(
            f"{path} has {len(counts)} counts and the model's vocabulary {d_vocab} tokens: it is of another tokenizer."
        )
    counts = counts.astype(np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() <= 0:
        raise SourceError(f"{path} must hold counts: finite, none negative, not all 0.")
    return np.pad(counts, (0, d_vocab - len(counts)))


def _read_array(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise SourceError(f"There is no file of counts at {path}. --counts takes an .npy file: a count a token id.")
    if path.stat().st_size > _MOST_BYTES:
        raise SourceError(f"{path} is larger than {_MOST_BYTES >> 20} MB: it cannot be one count a token.")
    try:
        # Mapped, a file cannot claim more than it holds; objects, which would be unpickled, are refused.
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{path} is not an .npy file of numbers ({str(error)[:120]}).") from error
