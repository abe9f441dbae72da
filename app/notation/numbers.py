"""Numbers for people: a sensible count of digits, the error beside the value, the unit behind it."""

import math

from backend.schemas import Estimate


def number(value: float | None, unit: str = "", error: float | None = None) -> str:
    """`0.026 ± 0.002 nats`; an em dash for a value that is not measured."""
    if value is None or not math.isfinite(value):
        return "—"
    behind = f" {unit}" if unit else ""
    if error is None or not math.isfinite(error) or error <= 0:
        return _plain(value) + behind
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > 6:
        return f"{value:.2e} ± {error:.0e}{behind}".replace("-", "−")
    return f"{value:,.{digits}f} ± {error:,.{digits}f}{behind}".replace("-", "−")


def estimate(found: Estimate) -> str:
    """A number that carries its error."""
    return number(found.value, error=found.se)


def signed(value: float | None, unit: str = "", error: float | None = None) -> str:
    """With its sign, as a change: `+0.012 nats`, `−0.31 ± 0.02 %`."""
    if value is None or not math.isfinite(value):
        return "—"
    if error is not None and math.isfinite(error) and error > 0:
        return ("+" if value > 0 else "") + number(value, unit, error)
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return f"{sign}{_plain(abs(value))}{f' {unit}' if unit else ''}"


def percent(share: float | None) -> str:
    """`2.4 %`"""
    return "—" if share is None or not math.isfinite(share) else f"{100 * share:.1f} %".replace("-", "−")


def _plain(value: float) -> str:
    size = abs(value)
    value += 0.0  # no sign before a zero
    if size != 0 and (size < 1e-4 or size >= 1e6):
        text = f"{value:.2e}"
    elif 0 < size < 0.1:  # three digits that count, as above
        text = f"{value:.{2 - math.floor(math.log10(size))}f}"
    elif size >= 100:
        text = f"{value:,.0f}" if size >= 1000 else f"{value:.1f}"
    else:
        text = f"{value:.3f}" if size < 10 else f"{value:.2f}"
    return text.replace("-", "−")
