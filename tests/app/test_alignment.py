"""Two tokenizers over one text: stretches end where tokens of both do, and nothing is lost or counted twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pages.compare.alignment import stretches, token_ends

TEXT = "The lamp 🙂 is lit."
PART = "\ufffd"


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        (["The", " lamp", " 🙂", " is", " lit", "."], [3, 8, 10, 13, 17, 18]),
        (["The", " lamp", " ", PART, PART, " is", " lit", "."], [3, 8, 9, None, 10, 13, 17, 18]),
        ([" The", " lamp", PART, " is", " lit."], [3, 8, 10, 13, 18]),
        (["The", "lamp", "🙂", "is", "lit", "."], [3, 8, 10, 13, 17, 18]),
        (["the", " lamp", " 🙂 is"], [3, 8, 13]),
        (["The", " lamp", PART], [3, 8, None]),
        (["<unk>", "<unk>"], [None, None]),
        ([], []),
    ],
    ids=[
        "whole",
        "parts of a character",
        "a space added",
        "spaces dropped",
        "in lower case",
        "cut",
        "unknown",
        "empty",
    ],
)
def test_ends_of_tokens_are_found_in_the_text(tokens: list[str], ends: list[int | None]) -> None:
    assert token_ends(TEXT, tokens) == ends


def test_stretches_end_where_tokens_of_both_end() -> None:
    found = stretches(
        TEXT, ["The", " lam", "p", " 🙂", " is lit."], ["The", " lamp", " ", PART, PART, " is", " lit", "."]
    )
    assert [(one.text, one.a, one.b) for one in found] == [
        ("The", range(0, 1), range(0, 1)),
        (" lamp", range(1, 3), range(1, 2)),
        (" 🙂", range(3, 4), range(2, 5)),
        (" is lit.", range(4, 5), range(5, 8)),
    ]


def test_equal_cuts_are_taken_as_they_are() -> None:
    found = stretches("🙂!", [PART, PART, "!"], [PART, PART, "!"])
    assert [one.text for one in found] == [PART, PART, "!"]


def test_a_text_that_one_model_read_less_of_is_aligned_as_far_as_both_go() -> None:
    found = stretches("one two three", ["one", " two", " three"], ["one", " t"])
    assert [one.text for one in found] == ["one"]


CUT = st.lists(st.integers(1, 5), min_size=1, max_size=20)


def cut(text: str, sizes: list[int]) -> list[str]:
    tokens: list[str] = []
    start = 0
    while start < len(text):
        size = sizes[len(tokens) % len(sizes)]
        tokens.append(text[start : start + size])
        start += size
    return tokens


@given(st.text(alphabet="ab \n🙂é", min_size=1, max_size=60), CUT, CUT)
def test_stretches_make_up_the_text_and_their_tokens_make_up_each(
    text: str, first: list[int], second: list[int]
) -> None:
    a, b = cut(text, first), cut(text, second)
    found = stretches(text, a, b)
    assert "".join(one.text for one in found) == text
    for one in found:
        assert "".join(a[place] for place in one.a) == one.text == "".join(b[place] for place in one.b)
    assert [place for one in found for place in one.a] == list(range(len(a)))
    assert [place for one in found for place in one.b] == list(range(len(b)))
