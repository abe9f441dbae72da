"""Finding repeated text for a model, from each source; and what the model computes where it repeats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.core.errors import BadText
from backend.core.induction.repeats import (
    Repeats,
    Sequences,
    natural_repeats,
    own_repeats,
    random_repeats,
    synthetic_repeats,
)
from backend.core.metrics.distributions import distribution
from backend.core.metrics.induction import Mean, built_of, mean_over, of_repeats
from backend.core.metrics.jackknife import Array, Ids
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.beginning import Beginning, habit
from backend.core.models.readout import Readout

Source = Literal["random", "synthetic", "natural", "text"]
_ROWS_AT_ONCE = 128
"""Rows of logits in memory together."""
_MOST_TEXT_TOKENS = 1_024


@dataclass(frozen=True)
class Corpus:
    """Token sequences of a run, and what to call them."""

    tokens: Sequences
    name: str


@dataclass(frozen=True)
class Wanted:
    """Which repeated text. `sequences`: at most; `span`: as in the request."""

    source: Source
    sequences: int
    span: int
    seed: int
    text: str | None = None
    corpus: Corpus | None = None
    beginning: Beginning | None = None
    """What stands before the text, as the model's run has it; None where no run tells: as the tokenizer has it."""

    def bos(self, model: AnalysisModel) -> int | None:
        """The token before each sequence, or None."""
        return (self.beginning or habit(model)).token


def find_repeats(model: AnalysisModel, wanted: Wanted) -> tuple[Repeats, str]:
    """The repeats, and a sentence that tells what they are.

    Raises:
        BadText: the model does not read that many tokens, or there is no text.
        NoRepeats: nothing repeats.
    """
    bos = wanted.bos(model)
    special = model.uncounted if bos is None else model.uncounted | {bos}
    match wanted.source:
        case "text":
            return _of_text(model, wanted, bos, special)
        case "random":
            _require_room(model, wanted.span)
            found = random_repeats(model.ordinary, bos, wanted.sequences, wanted.span, wanted.seed)
            after = _after(model, bos, "one more random token")
            return (
                found,
                f"{_count(found)} of {wanted.span} uniformly random tokens, each twice in a row, after {after}.",
            )
        case "synthetic":
            _require_room(model, wanted.span)
            corpus = _corpus(wanted)
            found = synthetic_repeats(corpus.tokens, special, bos, wanted.sequences, wanted.span, wanted.seed)
            after = _after(model, bos, "the token that precedes them there")
            return (
                found,
                f"{_count(found)} of {wanted.span} tokens of {corpus.name}, each twice in a row, after {after}.",
            )
        case "natural":
            corpus = _corpus(wanted)
            found = natural_repeats(corpus.tokens, special, wanted.sequences, wanted.span)
            return found, (
                f"{_count(found)} of {corpus.name} ({len(corpus.tokens)} were searched) in which {wanted.span} tokens "
                "in a row come again of themselves."
            )


def _after(model: AnalysisModel, bos: int | None, otherwise: str) -> str:
    return f"{otherwise} (this model's sequences begin without a BOS)" if bos is None else model.token_strings([bos])[0]


def _of_text(model: AnalysisModel, wanted: Wanted, bos: int | None, special: frozenset[int]) -> tuple[Repeats, str]:
    head = [] if bos is None else [bos]
    ids = model.encode(wanted.text or "")
    if not ids:
        raise BadText("There is no text to look for repeats in: write some, or take another source.")
    tokens = (head + ids)[: min(_MOST_TEXT_TOKENS, model.max_tokens)]
    found = own_repeats(tokens, special, wanted.span)
    count, cut = len(found.first), len(head) + len(ids) - len(tokens)
    repeats = f"1 repeat of {found.span} tokens" if count == 1 else f"{count} repeats of up to {found.span} tokens"
    return found, f"{repeats} in a text of {len(tokens)} tokens{f' (the last {cut} were cut off)' if cut else ''}."


def _count(found: Repeats) -> str:
    return "1 sequence" if len(found.tokens) == 1 else f"{len(found.tokens)} sequences"


def _corpus(wanted: Wanted) -> Corpus:
    assert wanted.corpus is not None, "the caller has a corpus for these sources"
    return wanted.corpus


def _require_room(model: AnalysisModel, span: int) -> None:
    most = (model.max_tokens - 1) // 2
    if span > most:
        raise BadText(f"{model.name} reads {model.max_tokens} tokens at most: take a span of {most} or less.")


@dataclass(frozen=True)
class Readings:
    """Where text repeats, at the places that are read of it; NaN where there is nothing."""

    loss: Tensor
    """[repeats, 2·reach]"""
    entropy: Tensor
    activations: Tensor
    """[repeats, 2·reach, neurons]"""

    @classmethod
    def joined(cls, parts: "Sequence[Readings]") -> "Readings":
        """One after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("loss", "entropy", "activations")))

    def means(self, columns: Tensor, groups: Ids) -> tuple[Mean, Mean, Mean]:
        """Of loss, entropy and activations over the repeats, at some of the places.

        Args:
            groups: of each repeat, as in `Repeats`.
        """
        places = (values[:, columns] for values in (self.loss, self.entropy, self.activations))
        loss, entropy, activations = (mean_over(values, groups) for values in places)
        return loss, entropy, activations

    def occurrences(self, inside: Tensor) -> "tuple[OfRepeats, OfRepeats]":
        """Of each repeat, over its first and over its second occurrence.

        Args:
            inside: which places are of the occurrences, as in `Repeats`.
        """
        own = (values[:, inside] for values in (self.loss, self.entropy, self.activations))
        first, second = zip(*((of_repeats(one) for one in values.chunk(2, dim=1)) for values in own), strict=True)
        return OfRepeats(*first), OfRepeats(*second)


@dataclass(frozen=True)
class OfRepeats:
    """Each repeat's own means over the places of one of its occurrences."""

    loss: Tensor
    """[repeats]"""
    entropy: Tensor
    activations: Tensor
    """[repeats, neurons]"""


@dataclass(frozen=True)
class OverOccurrence:
    """Means over an occurrence's places and over repeats, or what is built of such means."""

    loss: Mean
    """[]"""
    entropy: Mean
    activations: Mean
    """[neurons]"""

    @classmethod
    def of(
        cls, parts: Mapping[str, OfRepeats], groups: Ids, built: Callable[[Mapping[str, Array]], Array]
    ) -> "OverOccurrence":
        """
        Args:
            groups: of each repeat, as in `Repeats`.
            built: from the means of `parts` by name.
        """

        def one(name: str) -> Mean:
            return built_of({key: getattr(part, name) for key, part in parts.items()}, groups, built)

        return cls(one("loss"), one("entropy"), one("activations"))


def read_repeats(readout: Readout, part: Repeats, residual: Tensor, activations: Tensor) -> Readings:
    """What the model predicts and its neurons do there.

    Args:
        residual: after the last block, [sequences, length, d_model]; activations: [sequences, length, neurons].
    """
    present, targets = part.present, part.targets
    rows = part.sequence[:, None].expand_as(part.places)[present].to(residual.device)
    places = part.places[present].to(residual.device)
    loss, entropy = predicted(readout, residual[rows, places], targets[present].to(residual.device))
    everywhere = torch.full(present.shape, torch.nan)
    found = torch.full((*present.shape, activations.shape[-1]), torch.nan)
    found[present] = activations[rows, places].cpu()
    return Readings(_placed(everywhere, present, loss), _placed(everywhere, present, entropy), found)


def _placed(everywhere: Tensor, present: Tensor, values: Tensor) -> Tensor:
    filled = everywhere.clone()
    filled[present] = values.cpu()
    return filled


def predicted(readout: Readout, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and entropy after residuals x [rows, d_model]; the loss is NaN where a target is −1."""
    loss, entropy = [], []
    for rows, own in zip(x.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True):
        centred = readout.centred(rows)
        found = distribution(readout.logits(centred, readout.scale(centred)), own.clamp_min(0))
        loss.append(found.loss.where(own >= 0, torch.nan))
        entropy.append(found.entropy)
    return torch.cat(loss), torch.cat(entropy)
