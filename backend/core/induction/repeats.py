"""Repeated text, as data: which tokens, and where what was there before comes again (§6, H.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import BadText
from backend.core.metrics.jackknife import groups_of

Sequences = NDArray[np.int64]
"""[sequences, length]"""


class NoRepeats(BadText):
    """Nothing repeats in what was given."""


@dataclass(frozen=True)
class Repeats:
    """Token sequences and the repeats in them: pairs of a first and a second occurrence of the same tokens."""

    tokens: Tensor
    """[sequences, length], on the CPU."""
    sequence: Tensor
    """Which sequence each repeat is in, ascending, [repeats]."""
    first: Tensor
    """Positions of the first occurrence, [repeats, span]."""
    second: Tensor
    valid: Tensor
    """False past the end of a repeat that is shorter than the longest, [repeats, span]; positions there are 0."""
    after: Tensor
    """Positions that follow the first and the second occurrence (B and X in Figure 9) and are read with them, −1 where
    no text follows, [repeats, 2, beyond]: `beyond` is 1, or 0 where text is doubled."""
    source: Tensor
    """Which text each sequence is from, [sequences]: what sequences of one text give is not independent."""

    @property
    def groups(self) -> NDArray[np.int64]:
        """The group of each repeat for the errors of means, [repeats]: repeats of one text are in one."""
        return groups_of(self.source[self.sequence].numpy())

    @property
    def span(self) -> int:
        """Tokens of the longest repeat."""
        return self.first.shape[1]

    @property
    def reach(self) -> int:
        """Positions that are read for an occurrence: `span` of its own, and what follows it."""
        return self.span + self.after.shape[2]

    @property
    def places(self) -> Tensor:
        """Positions of the first occurrence and what follows it, then of the second likewise, [repeats, 2·reach]."""
        one, other = self.after.clamp_min(0).unbind(dim=1)
        return torch.cat([self.first, one, self.second, other], dim=1)

    @property
    def present(self) -> Tensor:
        """Which of `places` are meant, [repeats, 2·reach]."""
        one, other = (self.after >= 0).unbind(dim=1)
        return torch.cat([self.valid, one, self.valid, other], dim=1)

    @property
    def inside(self) -> Tensor:
        """Which columns of `places` are of the occurrences themselves, [2·reach]."""
        return (torch.arange(self.reach) < self.span).repeat(2)

    @property
    def targets(self) -> Tensor:
        """The tokens that follow those at `places`, [repeats, 2·reach]; −1 where none does or none is meant."""
        after, last = self.places + 1, self.tokens.shape[1]
        found = self.tokens[self.sequence[:, None], after.clamp_max(last - 1)]
        return found.where(self.present & (after < last), -1)

    def part(self, sequences: slice) -> "Repeats":
        """Some of the sequences with their repeats."""
        start, stop, _ = sequences.indices(len(self.tokens))
        own = (self.sequence >= start) & (self.sequence < stop)
        places = (self.first[own], self.second[own], self.valid[own], self.after[own])
        return Repeats(self.tokens[start:stop], self.sequence[own] - start, *places, self.source[start:stop])

    def parts(self, tokens: int) -> Iterator["Repeats"]:
        """All sequences, about so many tokens at a time."""
        step = max(1, tokens // self.tokens.shape[1])
        for start in range(0, len(self.tokens), step):
            yield self.part(slice(start, start + step))

    def corrupted(self, ordinary: Tensor, seed: int) -> "Repeats":
        """The same with something else where the first occurrences are, so that nothing repeats (I.3).

        Each repeat is given the tokens of the next one; where repeats differ in length, or there is only one, random
        tokens out of `ordinary`.
        """
        if len(self.first) > 1 and bool(self.valid.all()):
            others = self.tokens[self.sequence[:, None], self.first].roll(1, dims=0)
        else:
            others = _drawn(ordinary, self.first.shape, seed)
        tokens = self.tokens.clone()
        tokens[self.sequence[:, None].expand_as(self.first)[self.valid], self.first[self.valid]] = others[self.valid]
        return replace(self, tokens=tokens)


def random_repeats(ordinary: Tensor, bos: int | None, sequences: int, span: int, seed: int) -> Repeats:
    """Uniformly random tokens out of `ordinary`, doubled, after BOS; without one after one more random token each."""
    drawn = _drawn(ordinary, (sequences, span), seed)
    return doubled(drawn, _drawn(ordinary, (sequences,), seed + 1) if bos is None else bos)


def doubled(stretches: Tensor, before: Tensor | int, source: Tensor | None = None) -> Repeats:
    """Every stretch, [sequences, span], written twice after one token that is no part of the repeat: one for all, or
    each its own, [sequences].

    That token is BOS, or without one some other: at the first position of a sequence, activations and attention are
    unlike those at any other, and as a part of the first occurrence they would be taken for what repetition changes.

    Args:
        source: which text each stretch is from, [sequences]; None where each is from one of its own.
    """
    count, span = stretches.shape
    first = (torch.arange(span) + 1).expand(count, span)
    valid = torch.ones(count, span, dtype=torch.bool)
    head = torch.as_tensor(before).expand(count)[:, None]
    tokens, nothing = torch.cat([head, stretches, stretches], dim=1), torch.zeros(count, 2, 0, dtype=torch.long)
    own = torch.arange(count)
    return Repeats(tokens, own, first, first + span, valid, nothing, own if source is None else source)


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
    found: list[tuple[int, int, int]] = []
    for row, tokens in enumerate(corpus):
        pair = _natural_pair(tokens.tolist(), avoid, span)
        if pair is not None:
            found.append((row, *pair))
    if not found:
        raise NoRepeats(
            f"None of the {len(corpus)} sequences of the run's corpus repeats {span} tokens in a row of itself. Take a "
            "smaller span, or a run over more text."
        )
    rows, first, second = (torch.tensor(column) for column in zip(*found[:sequences], strict=True))
    steps = torch.arange(span)
    last = int(second.max()) + span + 2  # the token after the last repeat and its target are the last that are needed
    tokens, sequence = torch.from_numpy(corpus[rows.numpy()])[:, :last], torch.arange(len(rows))
    places = (first[:, None] + steps, second[:, None] + steps)
    after = _after(tokens, sequence, torch.stack([first, second], dim=1) + span, avoid)
    return Repeats(tokens, sequence, *places, torch.ones(len(rows), span, dtype=torch.bool), after, rows)


def own_repeats(tokens: Sequence[int], avoid: frozenset[int], span: int) -> Repeats:
    """The repeats of at least `span` tokens in one text: each second occurrence as long as it goes, with the longest
    earlier occurrence of the same tokens (the nearest of equals); none overlap, in themselves or with another.

    Raises:
        NoRepeats: there is none.
    """
    found: list[tuple[int, int, int]] = []
    common = _common(tokens, avoid)
    at = 1
    while at < len(tokens):
        earlier = np.arange(at)
        lengths = np.minimum(common[:at, at], at - earlier)
        longest = int(lengths.max())
        if longest < span:
            at += 1
            continue
        found.append((int(earlier[lengths == longest][-1]), at, longest))
        at += longest
    if not found:
        raise NoRepeats(
            f"No {span} tokens in a row come twice in this text of {len(tokens)} tokens. Repeat a passage in it, or "
            "take a smaller span."
        )
    width = max(length for *_, length in found)
    first, second = torch.zeros(2, len(found), width, dtype=torch.long)
    valid = torch.zeros(len(found), width, dtype=torch.bool)
    for row, (one, other, length) in enumerate(found):
        first[row, :length], second[row, :length] = torch.arange(length) + one, torch.arange(length) + other
        valid[row, :length] = True
    text, sequence = torch.tensor([list(tokens)]), torch.zeros(len(found), dtype=torch.long)
    ends = torch.tensor([[one + length, other + length] for one, other, length in found])
    after = _after(text, sequence, ends, avoid)
    return Repeats(text, sequence, first, second, valid, after, torch.zeros(1, dtype=torch.long))


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
    seen: dict[tuple[int, ...], list[int]] = {}
    for start in range(len(tokens) - span + 1):
        seen.setdefault(tuple(tokens[start : start + span]), []).append(start)
    for gram, starts in seen.items():
        if len(starts) != 2 or len(set(gram)) < span or avoid.intersection(gram):
            continue
        one, other = starts
        if other - one >= span and one > 0 and tokens[one - 1] != tokens[other - 1]:
            return one, other
    return None


def _common(tokens: Sequence[int], avoid: frozenset[int]) -> NDArray[np.int64]:
    """How many tokens from i on are those from j on, [length, length]; a token to avoid is like no other."""
    ids = np.asarray(tokens)
    same = (ids[:, None] == ids) & ~np.isin(ids, list(avoid))
    common = np.zeros((len(ids) + 1, len(ids) + 1), dtype=np.int64)
    for i in range(len(ids) - 1, -1, -1):
        common[i, :-1] = np.where(same[i], common[i + 1, 1:] + 1, 0)
    return common[:-1, :-1]
