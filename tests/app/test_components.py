"""The token strip and the words for numbers."""

import json
from itertools import pairwise
from typing import Any, Literal

import pytest

from app.components.metric_card import metric_card
from app.components.token_strip import Strip, strip_data, token_strip
from app.notation.numbers import number, percent, signed
from app.notation.tokens import label, visible
from tests.app.sample import TOKENS


def _tokens(strip: Strip) -> list[dict[str, Any]]:
    def walk(node: Any) -> list[dict[str, Any]]:
        if isinstance(node, list):
            return [found for child in node for found in walk(child)]
        if not isinstance(node, dict):
            return []
        properties = node.get("props", {})
        own = [properties] if str(properties.get("className", "")).startswith("tok") else []
        return own + walk(properties.get("children"))

    return walk(json.loads(json.dumps(token_strip(strip), default=lambda part: part.to_plotly_json())))


def test_every_token_is_there_as_text() -> None:
    found = _tokens(Strip("Loss", TOKENS, [float(i) for i in range(len(TOKENS))], "nats"))
    assert [token["children"] for token in found] == [visible(token) for token in TOKENS]
    assert found[4]["children"] == "<script>alert(1)</script>"
    assert "4.000 nats" in found[4]["title"]


def test_changes_are_white_at_zero_and_orange_above() -> None:
    low, zero, high = _tokens(Strip("Change", ["a", "b", "c"], [-2.0, 0.0, 1.0], "nats", "change"))
    assert zero["style"]["backgroundColor"] == "rgb(247,247,247)"
    red, _, blue = (int(part) for part in high["style"]["backgroundColor"][4:-1].split(","))
    assert red > blue
    red, _, blue = (int(part) for part in low["style"]["backgroundColor"][4:-1].split(","))
    assert blue > red


def test_a_missing_value_has_no_colour() -> None:
    first, second = _tokens(Strip("Loss", ["a", "b"], [None, 1.0]))
    assert first["style"] == {}
    assert "—" in first["title"]
    assert second["style"]


def test_the_first_token_may_be_left_out_of_the_scale() -> None:
    values: list[float | None] = [1000.0, 0.0, 1.0]
    *_, last = _tokens(Strip("Activation", ["a", "b", "c"], values, unscaled=1))
    *_, dark = _tokens(Strip("Activation", ["a", "b", "c"], values))
    assert last["style"] != dark["style"]


def test_text_on_colour_can_be_read() -> None:
    dark, *_, bright = _tokens(Strip("Loss", ["a", "b", "c"], [0.0, 1.0, 2.0]))
    assert (dark["style"]["color"], bright["style"]["color"]) == ("#fff", "#000")


@pytest.mark.parametrize("kind", ["magnitude", "change"])
def test_text_on_every_shade_has_the_contrast_that_wcag_asks_for(kind: Literal["magnitude", "change"]) -> None:
    values: list[float | None] = [float(place) for place in range(-32, 33)]

    def luminance(parts: list[int]) -> float:
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in (part / 255 for part in parts)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for token in _tokens(Strip("Value", ["a"] * len(values), values, kind=kind)):
        behind = luminance([int(part) for part in token["style"]["backgroundColor"][4:-1].split(",")])
        ink = luminance([255] * 3 if token["style"]["color"] == "#fff" else [0] * 3)
        assert (max(behind, ink) + 0.05) / (min(behind, ink) + 0.05) >= 4.5


def test_strips_as_data_are_the_strips() -> None:
    values: list[list[float | None]] = [[0.0, 1.0, None], [-1.0, 2.0, 0.0]]
    strips = [
        Strip("Loss", ["a", "<b>", "\n"], values[0], "nats", details=["x", "y", "z"]),
        Strip("Change", ["a", "<b>", "\n"], values[1], "nats", "change"),
    ]
    data = strip_data(strips)
    assert (data["tokens"], data["breaks"], data["details"]) == (["a", "<b>", "↵"], [2], ["x", "y", "z"])
    for strip, drawn in zip(strips, data["strips"], strict=True):
        for place, token in enumerate(_tokens(strip)):
            shade = drawn["shade"][place]
            colours = [] if shade is None else data["shades"][strip.kind][shade]
            assert colours == list(token["style"].values())
            assert drawn["shown"][place] in token["title"]


def test_ranks_are_coloured_by_their_logarithm() -> None:
    data = strip_data([Strip("Rank", ["a"] * 5, [1, 10, 100, 1000, 10000], log=True)])
    shades = data["strips"][0]["shade"]
    assert [b - a for a, b in pairwise(shades)] == [8, 8, 8, 8]
    assert data["strips"][0]["shown"][3] == "1,000"
    assert data["strips"][0]["legend"] == ["1", "10,000 (log scale)"]


@pytest.mark.parametrize("values", [[], [None], [float("nan")], [2.0], [2.0, 2.0]])
def test_degenerate_values_are_drawn(values: list[float | None]) -> None:
    assert len(_tokens(Strip("Loss", ["a"] * len(values), values))) == len(values)


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" a", "·a"),
        ("\n", "↵"),
        ("\t", "⇥"),
        ("", "∅"),
        ("\x00", "\\x00"),
        ("\x0b\r", "\\x0b\\r"),
        ("\u202e", "\\u202e"),
        ("é🙂", "é🙂"),
    ],
)
def test_invisible_characters_are_shown(token: str, shown: str) -> None:
    assert visible(token) == shown


def test_labels_are_short_and_escaped() -> None:
    assert label("<b>") == "&lt;b&gt;"
    assert label('a"b') == 'a"b', "Plotly does not undo the escaping of quotes"
    assert len(label("x" * 100)) == 24


@pytest.mark.parametrize(
    ("value", "unit", "error", "shown"),
    [
        (0.02612, "nats", 0.0021, "0.0261 ± 0.0021 nats"),
        (-3.8, "", 0.43, "−3.80 ± 0.43"),
        (8.19e-4, "", None, "0.000819"),
        (8.19e-5, "", None, "8.19e−05"),
        (0.00147, "", None, "0.00147"),
        (-0.0426, "nats", None, "−0.0426 nats"),
        (0.5529, "", None, "0.553"),
        (None, "nats", None, "—"),
        (float("nan"), "", None, "—"),
        (1234.5, "", None, "1,234"),
        (0.0, "nats", None, "0.000 nats"),
        (5.0, "", float("nan"), "5.000"),
    ],
)
def test_numbers_have_sensible_digits(value: float | None, unit: str, error: float | None, shown: str) -> None:
    assert number(value, unit, error) == shown


def test_changes_and_shares() -> None:
    assert signed(0.25, "nats") == "+0.250 nats"
    assert signed(-0.25) == "−0.250"
    assert signed(None) == "—"
    assert percent(0.0237) == "2.4 %"


def test_a_card_has_the_definition_and_the_place() -> None:
    drawn = json.dumps(metric_card("total_effect", 0.026, 0.002, 97.0), default=lambda part: part.to_plotly_json())
    assert "Eq. 5" in drawn
    assert "percentile 97.0" in drawn
    assert "0.0260 \\u00b1 0.0020 nats" in drawn


def test_a_legend_says_where_the_colours_are_cut() -> None:
    """199 values run from 0 to 1, one is far beyond: it has the end's colour."""
    values = [place / 198 for place in range(199)] + [50.0]
    strip = Strip("Loss", ["a"] * 200, values, "nats")
    low, high = strip_data([strip])["strips"][0]["legend"]
    assert low.startswith("≤ ")
    assert high.startswith("≥ ")
    whole = strip_data([Strip("Loss", ["a"] * 3, [0.0, 0.5, 1.0], "nats")])["strips"][0]["legend"]
    assert whole == ["0.000", "1.000 nats"]
