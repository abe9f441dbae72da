"""Repeated text: as data, and how it is made or found (§6, H.1).

Token sequences in which a stretch of tokens comes twice. It is random or taken from a corpus and doubled, or it is text
that repeats of itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import BadText
from backend.core.metrics.jackknife import groups_of
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.beginning import Beginning, habit

Source = Literal["random", "synthetic", "natural", "text"]
"""Where repeated text comes from: `random` tokens, doubled; `synthetic`: stretches of a corpus, doubled; `natural`:
n-grams that repeat in a corpus; `text`: whatever repeats in one given text."""
Sequences = Int64[NDArray[np.int64], "sequences length"]
"""Token ids."""
_MOST_TEXT_TOKENS = 1_024


class NoRepeats(BadText):
    """Nothing repeats in what was given."""


@dataclass(frozen=True)
class Repeats:
    """Token sequences and the repeats in them: pairs of a first and a second occurrence of the same tokens."""

    tokens: Int[Tensor, "sequences length"]
    """On the CPU."""
    sequence: Int[Tensor, "repeats"]
    """Which sequence each repeat is in, ascending."""
    first: Int[Tensor, "repeats span"]
    """Positions of the first occurrence."""
    second: Int[Tensor, "repeats span"]
    """Positions of the second occurrence."""
    valid: Bool[Tensor, "repeats span"]
    """False past the end of a repeat that is shorter than the longest; positions there are 0."""
    after: Int[Tensor, "repeats 2 beyond"]
    """Positions that follow the first and the second occurrence (B and X in Figure 9) and are read with them, −1 where
    no text follows, [repeats, 2, beyond]: `beyond` is 1, or 0 where text is doubled."""
    source: Int[Tensor, "sequences"]
    """Which text each sequence is from: what sequences of one text give is not independent."""

    @property
    def groups(self) -> Int64[NDArray[np.int64], "repeats"]:
        """The group of each repeat for the errors of means: repeats of one text are in one."""
        return groups_of(self.source[self.sequence].numpy())

    @property
    def span(self) -> int:
        """Tokens of the longest repeat."""
        return self.first.shape[1]

    @property
    def reach(self) -> int:
        """Positions that are read for an occurrence: its `span` tokens, and what follows them."""
        return self.span + self.after.shape[2]

    @property
    def places(self) -> Int[Tensor, "repeats places"]:
        """Positions of both occurrences in turn, each with what follows it: 2·reach of them."""
        after_first, after_second = self.after.clamp_min(0).unbind(dim=1)
        return torch.cat([self.first, after_first, self.second, after_second], dim=1)

    @property
    def present(self) -> Bool[Tensor, "repeats places"]:
        """Which of `places` are meant."""
        after_first, after_second = (self.after >= 0).unbind(dim=1)
        return torch.cat([self.valid, after_first, self.valid, after_second], dim=1)

    @property
    def inside(self) -> Bool[Tensor, "places"]:
        """Which columns of `places` are of the occurrences themselves."""
        return (torch.arange(self.reach) < self.span).repeat(2)

    @property
    def targets(self) -> Int[Tensor, "repeats places"]:
        """The tokens that follow those at `places`; −1 where none does or none is meant."""
        following, last = self.places + 1, self.tokens.shape[1]
        tokens = self.tokens[self.sequence[:, None], following.clamp_max(last - 1)]
        return tokens.where(self.present & (following < last), -1)

    @property
    def second_tokens(self) -> tuple[Int[Tensor, "tokens"], Int[Tensor, "tokens"]]:
        """Sequence and position of every token of the second occurrences, repeat by repeat."""
        return self.sequence[:, None].expand_as(self.second)[self.valid], self.second[self.valid]

    def some(self, sequences: slice) -> "Repeats":
        """Some of the sequences with their repeats."""
        start, stop, _ = sequences.indices(len(self.tokens))
        kept = (self.sequence >= start) & (self.sequence < stop)
        places = (self.first[kept], self.second[kept], self.valid[kept], self.after[kept])
        return Repeats(self.tokens[start:stop], self.sequence[kept] - start, *places, self.source[start:stop])

    def batches(self, tokens: int) -> Iterator["Repeats"]:
        """All sequences, about so many tokens at a time."""
        step = max(1, tokens // self.tokens.shape[1])
        for start in range(0, len(self.tokens), step):
            yield self.some(slice(start, start + step))

    def corrupted(self, ordinary: Int[Tensor, "ordinary"], seed: int) -> "Repeats":
        """These sequences with something else where the first occurrences are, so that nothing repeats (I.3).

        Each repeat is given the tokens of the next one; where repeats differ in length, or there is only one, random
        tokens out of `ordinary`.
        """
        if len(self.first) > 1 and bool(self.valid.all()):
            replacement = self.tokens[self.sequence[:, None], self.first].roll(1, dims=0)
        else:
            replacement = _drawn(ordinary, self.first.shape, seed)
        tokens = self.tokens.clone()
        rows = self.sequence[:, None].expand_as(self.first)[self.valid]
        tokens[rows, self.first[self.valid]] = replacement[self.valid]
        return replace(self, tokens=tokens)


@dataclass(frozen=True)
class CorpusSequences:
    """Token sequences of a run's corpus, and what to call them."""

    tokens: Sequences
    name: str


@dataclass(frozen=True)
class RepeatSpec:
    """Which repeated text to make or find."""

    source: Source
    sequences: int
    """At most."""
    span: int
    """Tokens that are doubled, n of a natural n-gram, or the fewest tokens that count as a repeat of one text."""
    seed: int
    text: str | None = None
    """For the source `text`."""
    corpus: CorpusSequences | None = None
    """For the sources `synthetic` and `natural`."""
    beginning: Beginning | None = None
    """What stands before the text, as the model's run has it; None where no run tells: as the tokenizer has it."""

    def bos(self, model: AnalysisModel) -> int | None:
        """The token before each sequence, or None."""
        return (self.beginning or habit(model)).token


def find_repeats(model: AnalysisModel, spec: RepeatSpec) -> tuple[Repeats, str]:
    """The repeats, and a sentence that tells what they are.

    Raises:
        BadText: the model does not read that many tokens, or there is no text.
        NoRepeats: nothing repeats.
    """
    bos = spec.bos(model)
    special = model.uncounted if bos is None else model.uncounted | {bos}
    match spec.source:
        case "text":
            return _repeats_of_text(model, spec, bos, special)
        case "random":
            _require_room(model, spec.span)
            repeats = random_repeats(model.ordinary, bos, spec.sequences, spec.span, spec.seed)
            before = _token_before(model, bos, "one more random token")
            what = f"{spec.span} uniformly random tokens"
            return repeats, f"{_count(repeats)} of {what}, each twice in a row, after {before}."
        case "synthetic":
            _require_room(model, spec.span)
            corpus = _corpus(spec)
            repeats = synthetic_repeats(corpus.tokens, special, bos, spec.sequences, spec.span, spec.seed)
            before = _token_before(model, bos, "the token that precedes them there")
            what = f"{spec.span} tokens of {corpus.name}"
            return repeats, f"{_count(repeats)} of {what}, each twice in a row, after {before}."
        case "natural":
            corpus = _corpus(spec)
            repeats = natural_repeats(corpus.tokens, special, spec.sequences, spec.span)
            return repeats, (
                f"{_count(repeats)} of {corpus.name} ({len(corpus.tokens)} were searched) in which {spec.span} tokens "
                "in a row come again of themselves."
            )


def random_repeats(ordinary: Int[Tensor, "ordinary"], bos: int | None, sequences: int, span: int, seed: int) -> Repeats:
    """Uniformly random tokens, doubled, after BOS; without a BOS after one more random token each.

    Args:
        ordinary: the tokens to draw from.
    """
    drawn = _drawn(ordinary, (sequences, span), seed)
    return doubled(drawn, _drawn(ordinary, (sequences,), seed + 1) if bos is None else bos)


def doubled(
    stretches: Int[Tensor, "sequences span"],
    before: Int[Tensor, "sequences"] | int,
    source: Int[Tensor, "sequences"] | None = None,
) -> Repeats:
    """Every stretch written twice after one token that is no part of the repeat.

    That token is BOS, or without one some other: at the first position of a sequence, activations and attention are
    unlike those at any other, and as a part of the first occurrence they would be taken for what repetition changes.

    Args:
        stretches: what is written twice.
        before: the token before the first occurrence: one for all, or one for each sequence.
        source: which text each stretch is from; None where each is from a text of its own.
    """
    count, span = stretches.shape
    first = (torch.arange(span) + 1).expand(count, span)
    valid = torch.ones(count, span, dtype=torch.bool)
    head = torch.as_tensor(before).expand(count)[:, None]
    tokens, nothing = torch.cat([head, stretches, stretches], dim=1), torch.zeros(count, 2, 0, dtype=torch.long)
    rows = torch.arange(count)
    return Repeats(tokens, rows, first, first + span, valid, nothing, rows if source is None else source)


def synthetic_repeats(
    corpus: Sequences, avoid: frozenset[int], bos: int | None, sequences: int, span: int, seed: int
) -> Repeats:
    """Stretches of a corpus, doubled: from as many of its sequences as there are, none overlapping another.

    Args:
        corpus: token sequences; avoid: tokens that no stretch may hold.
        bos: the token before each; None for the token that precedes the stretch in the corpus.

    Raises:
        NoRepeats: no stretch is that long.
    """
    chosen: list[NDArray[np.int64]] = []
    before: list[int] = []
    rows: list[int] = []
    chance = np.random.default_rng(seed)
    free = np.stack([_free(row, avoid, span) for row in corpus]) if len(corpus) else np.zeros((0, 1), bool)
    free[:, 0] = False  # nothing precedes it
    while len(chosen) < sequences and free.any():
        for row in chance.permutation(np.flatnonzero(free.any(axis=1)))[: sequences - len(chosen)]:
            start = int(chance.choice(np.flatnonzero(free[row])))
            chosen.append(corpus[row, start : start + span])
            before.append(int(corpus[row, start - 1]) if bos is None else bos)
            rows.append(int(row))
            free[row, max(0, start - span + 1) : start + span] = False
    if not chosen:
        raise NoRepeats(
            f"The run's corpus has no stretch of {span} tokens inside one document: its sequences have "
            f"{corpus.shape[-1]} tokens. Take a shorter span, or random tokens."
        )
    return doubled(torch.from_numpy(np.stack(chosen)), torch.tensor(before), torch.tensor(rows))


def natural_repeats(corpus: Sequences, avoid: frozenset[int], sequences: int, span: int) -> Repeats:
    """Sequences of a corpus in which an n-gram, n = span, comes a second time of itself: one n-gram a sequence.

    It comes exactly twice in its sequence, without overlap; no token in it comes twice, none is of `avoid`; and what
    precedes it differs, so that it is the beginning of a repetition (H.1). It does not begin its sequence, where
    activations and attention are unlike those at any other position.

    Raises:
        NoRepeats: there is none.
    """
    pairs: list[tuple[int, int, int]] = []
    for row, tokens in enumerate(corpus):
        pair = _natural_pair(tokens.tolist(), avoid, span)
        if pair is not None:
            pairs.append((row, *pair))
    if not pairs:
        raise NoRepeats(
            f"None of the {len(corpus)} sequences of the run's corpus repeats {span} tokens in a row of itself. Take a "
            "smaller span, or a run over more text."
        )
    rows, first, second = (torch.tensor(column) for column in zip(*pairs[:sequences], strict=True))
    steps = torch.arange(span)
    last = int(second.max()) + span + 2  # the token after the last repeat and its target are the last that are needed
    tokens, sequence = torch.from_numpy(corpus[rows.numpy()])[:, :last], torch.arange(len(rows))
    places = (first[:, None] + steps, second[:, None] + steps)
    after = _after(tokens, sequence, torch.stack([first, second], dim=1) + span, avoid)
    return Repeats(tokens, sequence, *places, torch.ones(len(rows), span, dtype=torch.bool), after, rows)


def repeats_in_text(tokens: Sequence[int], avoid: frozenset[int], span: int) -> Repeats:
    """The repeats of at least `span` tokens in one text: each second occurrence as long as it goes, with the longest
    earlier occurrence of the same tokens (the nearest of equals). No two repeats overlap, nor do
    the two occurrences of one.

    Raises:
        NoRepeats: there is none.
    """
    pairs: list[tuple[int, int, int]] = []
    common = _common(tokens, avoid)
    at = 1
    while at < len(tokens):
        earlier = np.arange(at)
        lengths = np.minimum(common[:at, at], at - earlier)
        longest = int(lengths.max())
        if longest < span:
            at += 1
            continue
        pairs.append((int(earlier[lengths == longest][-1]), at, longest))
        at += longest
    if not pairs:
        raise NoRepeats(
            f"No {span} tokens in a row come twice in this text of {len(tokens)} tokens. Repeat a passage in it, or "
            "take a smaller span."
        )
    width = max(length for *_, length in pairs)
    first, second = torch.zeros(2, len(pairs), width, dtype=torch.long)
    valid = torch.zeros(len(pairs), width, dtype=torch.bool)
    for row, (start, again, length) in enumerate(pairs):
        first[row, :length], second[row, :length] = torch.arange(length) + start, torch.arange(length) + again
        valid[row, :length] = True
    text, sequence = torch.tensor([list(tokens)]), torch.zeros(len(pairs), dtype=torch.long)
    ends = torch.tensor([[start + length, again + length] for start, again, length in pairs])
    after = _after(text, sequence, ends, avoid)
    return Repeats(text, sequence, first, second, valid, after, torch.zeros(1, dtype=torch.long))


def _repeats_of_text(
    model: AnalysisModel, spec: RepeatSpec, bos: int | None, special: frozenset[int]
) -> tuple[Repeats, str]:
    head = [] if bos is None else [bos]
    ids = model.encode(spec.text or "")
    if not ids:
        raise BadText("There is no text to look for repeats in: write some, or take another source.")
    tokens = (head + ids)[: min(_MOST_TEXT_TOKENS, model.max_tokens)]
    repeats = repeats_in_text(tokens, special, spec.span)
    count, cut = len(repeats.first), len(head) + len(ids) - len(tokens)
    what = f"1 repeat of {repeats.span} tokens" if count == 1 else f"{count} repeats of up to {repeats.span} tokens"
    return repeats, f"{what} in a text of {len(tokens)} tokens{f' (the last {cut} were cut off)' if cut else ''}."


def _token_before(model: AnalysisModel, bos: int | None, otherwise: str) -> str:
    return f"{otherwise} (this model's sequences begin without a BOS)" if bos is None else model.token_strings([bos])[0]


def _count(repeats: Repeats) -> str:
    return "1 sequence" if len(repeats.tokens) == 1 else f"{len(repeats.tokens)} sequences"


def _corpus(spec: RepeatSpec) -> CorpusSequences:
    assert spec.corpus is not None, "the caller has a corpus for these sources"
    return spec.corpus


def _require_room(model: AnalysisModel, span: int) -> None:
    most = (model.max_tokens - 1) // 2
    if span > most:
        raise BadText(f"{model.name} reads {model.max_tokens} tokens at most: take a span of {most} or less.")


def _after(tokens: Tensor, sequence: Tensor, ends: Tensor, avoid: frozenset[int]) -> Tensor:
    """Where occurrences end, [repeats, 2], as `Repeats.after`: −1 where the sequence ends too, or a token to avoid says
    that its text does."""
    last = tokens.shape[1]
    following = tokens[sequence[:, None], ends.clamp_max(last - 1)]
    ended = (ends >= last) | torch.isin(following, torch.tensor(sorted(avoid), dtype=following.dtype))
    return ends.masked_fill(ended, -1)[..., None]


def _drawn(ordinary: Tensor, shape: Sequence[int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return ordinary.cpu()[torch.randint(0, len(ordinary), tuple(shape), generator=generator)]


def _free(tokens: NDArray[np.int64], avoid: frozenset[int], span: int) -> NDArray[np.bool_]:
    """Where a stretch of `span` tokens may start, [length]."""
    wrong = np.concatenate([[0], np.cumsum(np.isin(tokens, list(avoid)))])
    starts = np.zeros(len(tokens), dtype=bool)
    if span <= len(tokens):
        starts[: len(tokens) - span + 1] = wrong[span:] == wrong[:-span]
    return starts


def _natural_pair(tokens: list[int], avoid: frozenset[int], span: int) -> tuple[int, int] | None:
    """Where the first n-gram that passes the filters stands, and where again."""
    places: dict[tuple[int, ...], list[int]] = {}
    for start in range(len(tokens) - span + 1):
        places.setdefault(tuple(tokens[start : start + span]), []).append(start)
    for gram, starts in places.items():
        if len(starts) != 2 or len(set(gram)) < span or avoid.intersection(gram):
            continue
        first, second = starts
        if second - first >= span and first > 0 and tokens[first - 1] != tokens[second - 1]:
            return first, second
    return None


def _common(tokens: Sequence[int], avoid: frozenset[int]) -> NDArray[np.int64]:
    """How many tokens from i on are those from j on, [length, length]; a token to avoid is like no other."""
    ids = np.asarray(tokens)
    same = (ids[:, None] == ids) & ~np.isin(ids, list(avoid))
    common = np.zeros((len(ids) + 1, len(ids) + 1), dtype=np.int64)
    for i in range(len(ids) - 1, -1, -1):
        common[i, :-1] = np.where(same[i], common[i + 1, 1:] + 1, 0)
    return common[:-1, :-1]
