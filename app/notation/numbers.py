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


def estimate(measured: Estimate) -> str:
    """A number that carries its error."""
    return number(measured.value, error=measured.se)


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


def bound(value: float, unit: str) -> str:
    """`7e−6 nats`: the most that something can be, rounded up to one digit."""
    if value <= 0:
        return f"0 {unit}"
    power = math.floor(math.log10(value))
    digit = math.ceil(value / 10.0**power - 1e-9)
    return f"{1 if digit == 10 else digit}e{power + (digit == 10)} {unit}".replace("-", "−")


def size(value: float) -> str:
    """`7e−6`: of what size something is."""
    text = f"{value:.0e}".replace("e-0", "e-") if 0 < value < 1e-3 else f"{value:.1g}"
    return text.replace("-", "−")


def _plain(value: float) -> str:
    magnitude = abs(value)
    value += 0.0  # no sign before a zero
    if magnitude != 0 and (magnitude < 1e-4 or magnitude >= 1e6):
        text = f"{value:.2e}"
    elif 0 < magnitude < 0.1:  # three digits that count, as above
        text = f"{value:.{2 - math.floor(math.log10(magnitude))}f}"
    elif magnitude >= 100:
        text = f"{value:,.0f}" if magnitude >= 1000 else f"{value:.1f}"
    else:
        text = f"{value:.3f}" if magnitude < 10 else f"{value:.2f}"
    return text.replace("-", "−")
