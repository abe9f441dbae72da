"""How numbers and tokens are written: what the fixtures say, which the page's scripts are held to as well."""

import json
from typing import Any

import pytest

from app.notation import numbers
from app.notation.tokens import visible
from app.notation.units import is_head, is_neuron, is_unit
from tests.conftest import FIXTURES

NUMBERS: list[dict[str, Any]] = json.loads((FIXTURES / "numbers.json").read_text())
TOKENS: list[dict[str, str]] = json.loads((FIXTURES / "visible_tokens.json").read_text())


@pytest.mark.parametrize("case", NUMBERS, ids=lambda case: f"{case['call']}{case['args']}")
def test_a_number_is_written_by_the_rule(case: dict[str, Any]) -> None:
    assert getattr(numbers, case["call"])(*case["args"]) == case["text"]


@pytest.mark.parametrize("case", TOKENS, ids=lambda case: ascii(case["token"]))
def test_a_token_shows_what_would_be_drawn_as_nothing(case: dict[str, str]) -> None:
    assert visible(case["token"]) == case["text"]


@pytest.mark.parametrize(
    ("name", "reads_as"),
    [
        ("29.830", (True, False, True)),
        ("L5H1", (False, True, True)),
        ("l5h1", (False, False, True)),
        ("29", (False, False, False)),
        ("29.830, L5H1", (False, False, False)),
        ("<b>1.2</b>", (False, False, False)),
        (29.830, (False, False, False)),
        (None, (False, False, False)),
    ],
)
def test_what_reads_as_a_neuron_a_head_and_either(name: object, reads_as: tuple[bool, bool, bool]) -> None:
    """Only an intervention takes a head in small letters: its name is read as it is typed."""
    assert (is_neuron(name), is_head(name), is_unit(name)) == reads_as
