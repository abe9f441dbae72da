"""Scales of an axis: linear, logarithmic, or signed logarithmic, which also shows 0 and what is below it.

The signed logarithm of v is sign(v) · log10(1 + |v| / t): close to linear within ±t, logarithmic beyond. t is a power
of ten taken from the data, so that nine values in ten lie beyond it. The atlas draws by this rule in the browser
(static/page_atlas_scales.js).
"""

import math
from collections.abc import Sequence
from typing import Literal

Scale = Literal["linear", "log", "signed"]
SCALES: dict[Scale, str] = {"linear": "linear", "log": "log", "signed": "± log"}
_FEW_TICKS = 5
_LEAST = -300
"""A power of ten below which a number would be 0."""


def threshold(values: Sequence[float | None]) -> float:
    """t: the power of ten at or below the 10th percentile of what is not 0; 1 where nothing is."""
    sizes = sorted(abs(value) for value in values if value)
    return 10.0 ** max(_LEAST, math.floor(math.log10(sizes[int(0.1 * (len(sizes) - 1))]))) if sizes else 1.0


def placed(value: float, within: float) -> float:
    """Where a value stands on a signed logarithmic axis with the threshold t = `within`."""
    return math.copysign(math.log10(1 + abs(value) / within), value)


def ticks(values: Sequence[float | None], within: float) -> list[float]:
    """Values to name on such an axis: 0 and powers of ten on both sides, as far as the data reaches."""
    present = [value for value in values if value is not None]
    reach = [max(0.0, *present), max(0.0, *(-value for value in present))] if present else [0.0, 0.0]
    sides = [_powers(within, far) for far in reach]
    return [*(-power for power in reversed(sides[1])), 0.0, *sides[0]]


def _powers(within: float, far: float) -> list[float]:
    first = round(math.log10(within))
    last = math.floor(math.log10(far)) if far >= within else first - 1
    step = max(1, math.ceil((last - first + 1) / _FEW_TICKS))
    return [10.0**power for power in range(last, first - 1, -step)][::-1]


def tick_label(value: float) -> str:
    """`−10⁻³`"""
    if value == 0:
        return "0"
    power = round(math.log10(abs(value)))
    return f"{'−' if value < 0 else ''}10<sup>{str(power).replace('-', '−')}</sup>"


def not_drawn(count: int, missing: dict[str, int], not_positive: dict[str, int]) -> str:
    """How many points a figure leaves out and why, or nothing.

    Args:
        count: of all points.
        missing: how many have no value, by what they lack.
        not_positive: how many are 0 or below on a logarithmic axis, by what it shows.
    """
    reasons = [f"{number:,} {_have(number)} no value of {name}" for name, number in missing.items() if number]
    reasons += [
        f"{number:,} {_have(number)} a value of 0 or below in {name}, which a logarithmic axis cannot show"
        for name, number in not_positive.items()
        if number
    ]
    left = sum(missing.values()) + sum(not_positive.values())
    if not left:
        return ""
    advice = " Choose the scale ± log or linear to see them." if any(not_positive.values()) else ""
    return f"{left:,} of {count:,} {'is' if left == 1 else 'are'} not drawn: {'; '.join(reasons)}.{advice}"


def zero_values(values: Sequence[float]) -> str:
    """What a logarithmic axis of singular values leaves out, with a space before it, or nothing."""
    left = sum(value <= 0 for value in values)
    words = not_drawn(len(values), {}, {"the singular values": left}).split(" Choose")[0]
    return f" {words}" if words else ""


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
