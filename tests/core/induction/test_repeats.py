"""Repeated text: what the builders find, against counting by hand and by brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.induction.text import (
    NoRepeats,
    Repeats,
    natural_repeats,
    random_repeats,
    repeats_in_text,
    synthetic_repeats,
)

SPECIAL = frozenset({0, 1})


def _same_tokens(repeats: Repeats) -> None:
    rows = repeats.sequence[:, None]
    one, other = repeats.tokens[rows, repeats.first], repeats.tokens[rows, repeats.second]
    assert torch.equal(one[repeats.valid], other[repeats.valid])
    for first, second, valid in zip(repeats.first, repeats.second, repeats.valid, strict=True):
        assert first[valid].max() < second[valid].min(), "occurrences overlap"


def test_random_tokens_are_doubled_after_bos() -> None:
    ordinary = torch.arange(5, 40)
    repeats = random_repeats(ordinary, 0, 7, 12, seed=3)
    assert repeats.tokens.shape == (7, 25)
    assert (repeats.tokens[:, 0] == 0).all()
    assert torch.equal(repeats.tokens[:, 1:13], repeats.tokens[:, 13:])
    assert set(repeats.tokens[:, 1:].flatten().tolist()) <= set(ordinary.tolist())
    assert len(set(repeats.tokens[:, 1:].flatten().tolist())) > 20
    _same_tokens(repeats)
    assert torch.equal(repeats.tokens, random_repeats(ordinary, 0, 7, 12, seed=3).tokens)
    assert not torch.equal(repeats.tokens, random_repeats(ordinary, 0, 7, 12, seed=4).tokens)


def test_without_bos_another_token_precedes_the_repeat() -> None:
    """The first position of a sequence is unlike the others: it is no part of an occurrence."""
    ordinary = torch.arange(5, 400)
    repeats = random_repeats(ordinary, None, 7, 12, seed=3)
    assert repeats.tokens.shape == (7, 25)
    assert repeats.first.min() == 1
    assert set(repeats.tokens[:, 0].tolist()) <= set(ordinary.tolist())
    assert len(set(repeats.tokens[:, 0].tolist())) > 3, "each its own"
    _same_tokens(repeats)
    corpus = np.arange(2, 2 + 5 * 30).reshape(5, 30)  # every token once: a stretch tells where it was
    found = synthetic_repeats(corpus, SPECIAL, None, sequences=5, span=29, seed=1)
    assert found.tokens[:, :2].diff(dim=1).unique().tolist() == [1], "the token that precedes it in the corpus"
    assert len(found.tokens) == 5
    with pytest.raises(NoRepeats):
        synthetic_repeats(corpus, SPECIAL, None, sequences=5, span=30, seed=1)


def test_a_natural_repeat_does_not_begin_its_sequence() -> None:
    corpus = np.array([[10, 11, 12, 50, 51, 10, 11, 12, 52, 53], [60, 10, 11, 12, 51, 10, 11, 12, 52, 53]])
    assert natural_repeats(corpus, SPECIAL, 10, span=3).first.tolist() == [[1, 2, 3]]


def test_targets_are_the_tokens_that_follow() -> None:
    repeats = random_repeats(torch.arange(5, 40), 0, 2, 4, seed=0)
    tokens = repeats.tokens[0].tolist()
    assert repeats.targets[0].tolist() == [*tokens[2:6], *tokens[6:9], -1]


def test_synthetic_stretches_come_from_the_corpus_and_do_not_overlap() -> None:
    corpus = np.arange(2, 2 + 5 * 30).reshape(5, 30)  # every token once: a stretch tells where it was
    corpus[:, 0] = 0
    repeats = synthetic_repeats(corpus, SPECIAL, 0, sequences=8, span=9, seed=1)
    _same_tokens(repeats)
    stretches = repeats.tokens[:, 1:10]
    assert (stretches.diff(dim=1) == 1).all()
    assert stretches.unique().numel() == stretches.numel()
    rows = ((stretches[:, 0] - 2) // 30).tolist()
    assert set(rows[:5]) == set(range(5)), "every sequence once before any serves twice"
    assert repeats.source.tolist() == rows
    assert len(set(repeats.groups.tolist())) == 5, "stretches of one sequence are in one group"
    assert [set(part.source.tolist()) for part in repeats.batches(38)] == [
        set(rows[at : at + 2]) for at in (0, 2, 4, 6)
    ]


def test_synthetic_stretches_avoid_special_tokens_and_may_be_fewer() -> None:
    corpus = np.arange(2, 33).reshape(1, 31)
    corpus[0, 15] = 1
    repeats = synthetic_repeats(corpus, SPECIAL, None, sequences=8, span=14, seed=0)
    assert len(repeats.tokens) == 2
    assert not (repeats.tokens[:, 1:] == 1).any()
    with pytest.raises(NoRepeats, match="shorter span"):
        synthetic_repeats(corpus, SPECIAL, None, sequences=8, span=16, seed=0)


def test_natural_repeats_pass_the_papers_filters() -> None:
    def row(*tokens: int) -> list[int]:
        return [*tokens, *range(500, 530 - len(tokens))]

    corpus = np.array(
        [
            row(0, 10, 11, 12, 50, 51, 10, 11, 12, 52),  # found
            row(0, 10, 11, 12, 10, 11, 12, 10, 11, 12),  # three times
            row(0, 10, 11, 10, 50, 51, 10, 11, 10, 52),  # a duplicate token inside
            row(0, 10, 1, 12, 50, 51, 10, 1, 12, 52),  # a special token inside
            row(0, 10, 11, 12, 50, 51, 52, 53, 54, 55),  # no repetition
            row(0, 10, 11, 12, 13, 51, 10, 11, 12, 13),  # a longer one: only its beginning
        ]
    )
    repeats = natural_repeats(corpus, SPECIAL, 10, span=3)
    assert repeats.tokens[:, :10].tolist() == [corpus[0][:10].tolist(), corpus[5][:10].tolist()]
    assert repeats.first[:, 0].tolist() == [1, 1]
    assert repeats.second[:, 0].tolist() == [6, 6]
    assert repeats.after.tolist() == [[[4], [9]], [[4], [9]]]
    assert repeats.tokens.shape[1] == 11, "what is past the last target is cut off"
    assert repeats.targets[0].tolist() == [11, 12, 50, 51, 11, 12, 52, 500], "the one of what follows is kept"
    assert repeats.inside.tolist() == [True, True, True, False] * 2
    assert repeats.source.tolist() == [0, 5]
    _same_tokens(repeats)
    assert len(natural_repeats(corpus, SPECIAL, 1, span=3).tokens) == 1
    with pytest.raises(NoRepeats, match="smaller span"):
        natural_repeats(corpus, SPECIAL, 10, span=5)


def test_what_follows_a_repeat_is_missing_where_its_text_or_sequence_ends() -> None:
    corpus = np.array(
        [
            [0, 10, 11, 12, 1, 51, 10, 11, 12, 52, 53, 54],  # a document ends after the first occurrence
            [0, 10, 11, 12, 50, 51, 52, 10, 11, 12, 0, 54],  # and after the second
            [0, 10, 11, 12, 50, 51, 52, 53, 10, 11, 12, 54],  # what follows has no target
            [0, 10, 11, 12, 50, 51, 52, 53, 54, 10, 11, 12],  # the sequence ends
            [0, 10, 11, 12, 10, 11, 12, 53, 54, 55, 56, 57],  # the second occurrence follows the first
        ]
    )
    repeats = natural_repeats(corpus, SPECIAL, 10, span=3)
    assert repeats.after[..., 0].tolist() == [[-1, 9], [4, -1], [4, 11], [4, -1], [4, 7]]
    assert repeats.targets[:, 3].tolist() == [-1, 51, 51, 51, 11]
    assert repeats.targets[:, 7].tolist() == [53, -1, -1, -1, 54]
    assert repeats.present[:, 7].tolist() == [True, False, True, False, True]
    assert repeats.targets[3, 6] == -1
    assert repeats.tokens.shape == corpus.shape
    assert torch.equal(torch.cat([part.after for part in repeats.batches(24)]), repeats.after)


def test_nothing_follows_doubled_text() -> None:
    repeats = random_repeats(torch.arange(5, 40), 0, 3, 4, seed=0)
    assert repeats.after.shape == (3, 2, 0)
    assert repeats.reach == repeats.span == 4
    assert repeats.inside.all()
    assert repeats.places.tolist() == [list(range(1, 9))] * 3


def test_repeats_in_text_are_maximal_and_may_differ_in_length() -> None:
    text = [0, 5, 6, 7, 8, 20, 5, 6, 7, 8, 21, 6, 7, 22, 5, 6, 7, 8, 20]
    repeats = repeats_in_text(text, SPECIAL, span=2)
    found = [
        (int(first[0]), int(second[0]), int(valid.sum()))
        for first, second, valid in zip(repeats.first, repeats.second, repeats.valid, strict=True)
    ]
    assert found == [(1, 6, 4), (7, 11, 2), (1, 14, 5)]
    assert repeats.span == 5
    _same_tokens(repeats)
    assert (repeats.targets[1] >= 0).tolist() == [True, True, False, False, False, True] * 2
    assert repeats.after[..., 0].tolist() == [[5, 10], [9, 13], [6, -1]], "the text ends with the last"
    assert repeats.present[2].tolist() == [True] * 11 + [False]
    assert repeats.targets[2].tolist()[-2:] == [-1, -1]
    with pytest.raises(NoRepeats, match="come twice"):
        repeats_in_text(text, SPECIAL, span=6)
    with pytest.raises(NoRepeats):
        repeats_in_text([0], SPECIAL, span=2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=24), st.integers(2, 4))
def test_repeats_in_text_agree_with_brute_force(text: list[int], span: int) -> None:
    expected, after = [], []
    at = 1
    while at < len(text):
        best = (0, -1)
        for start in range(at):
            length = 0
            while (
                at + length < len(text)
                and start + length < at
                and text[start + length] == text[at + length]
                and text[at + length] not in SPECIAL
            ):
                length += 1
            best = max(best, (length, start))
        if best[0] >= span:
            expected.append((best[1], at, best[0]))
            ends = [best[1] + best[0], at + best[0]]
            after.append([end if end < len(text) and text[end] not in SPECIAL else -1 for end in ends])
            at += best[0]
        else:
            at += 1
    if not expected:
        with pytest.raises(NoRepeats):
            repeats_in_text(text, SPECIAL, span)
        return
    repeats = repeats_in_text(text, SPECIAL, span)
    _same_tokens(repeats)
    lengths = repeats.valid.sum(dim=1).tolist()
    assert list(zip(repeats.first[:, 0].tolist(), repeats.second[:, 0].tolist(), lengths, strict=True)) == expected
    assert repeats.after[..., 0].tolist() == after


def test_corruption_changes_the_first_occurrences_alone() -> None:
    repeats = random_repeats(torch.arange(5, 400), 0, 3, 6, seed=0)
    other = repeats.corrupted(torch.arange(5, 400), seed=1)
    assert torch.equal(other.tokens[:, 7:], repeats.tokens[:, 7:])
    assert torch.equal(other.tokens[:, 1:7], repeats.tokens[:, 1:7].roll(1, dims=0))
    text = repeats_in_text([0, 5, 6, 9, 5, 6, 7, 5, 6, 9], SPECIAL, span=2)
    changed = text.corrupted(torch.tensor([77]), seed=0)
    assert changed.tokens.tolist() == [[0, 77, 77, 77, 5, 6, 7, 5, 6, 9]]


def test_parts_hold_every_repeat_once() -> None:
    repeats = random_repeats(torch.arange(5, 40), 0, 7, 4, seed=0)
    parts = list(repeats.batches(20))
    assert [len(part.tokens) for part in parts] == [2, 2, 2, 1]
    assert torch.equal(torch.cat([part.tokens for part in parts]), repeats.tokens)
    assert all(part.sequence.tolist() == list(range(len(part.tokens))) for part in parts)
