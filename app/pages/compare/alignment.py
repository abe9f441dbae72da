"""A text as two tokenizers cut it: the smallest stretches at whose ends tokens of both end.

Where both cut alike a stretch is a token. Losses of a stretch add up, so that they can be compared whatever the cut; a
stretch's entropy is that of the prediction after its last token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_REACH = 40
"""Characters within which a token is looked for again, after some that are not in the text as they are written."""
_PART = "\ufffd"
"""How a token that is part of a character is written."""


@dataclass(frozen=True)
class Stretch:
    """A piece of a text, and the places of the tokens that make it up in either tokenizer's list."""

    text: str
    a: range
    b: range


def stretches(text: str, a: Sequence[str], b: Sequence[str]) -> list[Stretch]:
    """A text in stretches, as far as both token lists reach.

    Args:
        a, b: tokens without what stands before the text; decoded alone.
    """
    if list(a) == list(b):
        return [Stretch(token, range(place, place + 1), range(place, place + 1)) for place, token in enumerate(a)]
    of_a, of_b = _tokens_before(text, a), _tokens_before(text, b)
    found, start, first_a, first_b = [], 0, 0, 0
    for end in sorted(of_a.keys() & of_b.keys()):
        last_a, last_b = of_a[end], of_b[end]
        if end > start and last_a > first_a and last_b > first_b:
            found.append(Stretch(text[start:end], range(first_a, last_a), range(first_b, last_b)))
            start, first_a, first_b = end, last_a, last_b
    return found


def _tokens_before(text: str, tokens: Sequence[str]) -> dict[int, int]:
    """By the places in a text where a token ends: how many tokens there are up to there."""
    return {end: count + 1 for count, end in enumerate(token_ends(text, tokens)) if end is not None}


def token_ends(text: str, tokens: Sequence[str]) -> list[int | None]:
    """Where each token ends in a text, in characters; None where that is not known.

    A token may not be in the text as it is written: parts of a character, or spaces that a tokenizer adds, drops or
    changes. The tokens that follow are looked for a little further on, and what lies between belongs to those before.
    """
    ends: list[int | None] = []
    place, lost, parts = 0, False, False
    for token in tokens:
        start = text.find(token, place + parts, place + _REACH + len(token)) if lost else _start(text, token, place)
        if start < 0 or not token:
            ends.append(None)
            lost, parts = True, parts or _PART in token
            continue
        if lost and ends:
            ends[-1] = start
        place = start + len(token)
        ends.append(place)
        lost, parts = False, False
    return ends


def _start(text: str, token: str, place: int) -> int:
    if text.startswith(token, place):
        return place
    # Some tokenizers' tokens bear no spaces when they are decoded alone.
    spaces = len(text) - place - len(text[place:].lstrip())
    return place + spaces if spaces and text.startswith(token, place + spaces) else -1
