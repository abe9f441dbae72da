"""How numbers and tokens are written: what the fixtures say, which the page's scripts are held to as well."""

import json
from typing import Any

import pytest

from app.notation import numbers
from app.notation.tokens import visible
from tests.conftest import FIXTURES

NUMBERS: list[dict[str, Any]] = json.loads((FIXTURES / "numbers.json").read_text())
TOKENS: list[dict[str, str]] = json.loads((FIXTURES / "visible_tokens.json").read_text())


@pytest.mark.parametrize("case", NUMBERS, ids=lambda case: f"{case['call']}{case['args']}")
def test_a_number_is_written_by_the_rule(case: dict[str, Any]) -> None:
    assert getattr(numbers, case["call"])(*case["args"]) == case["text"]


@pytest.mark.parametrize("case", TOKENS, ids=lambda case: ascii(case["token"]))
def test_a_token_shows_what_would_be_drawn_as_nothing(case: dict[str, str]) -> None:
    assert visible(case["token"]) == case["text"]
