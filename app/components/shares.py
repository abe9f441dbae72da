"""How much of an effect on the loss goes through the final norm, in words that say what was divided by what."""

from collections.abc import Sequence

from app.notation.numbers import number, percent


def mean(values: Sequence[float]) -> float | None:
    """None where there is nothing to take it over."""
    return sum(values) / len(values) if values else None


def mean_size(values: Sequence[float]) -> float | None:
    """mean |value|"""
    return mean([abs(value) for value in values])


def through_norm(total: float | None, direct: float | None, tokens: int) -> str:
    """The share of an ablation's effect on one text's losses that needs the final norm, with its definition.

    Args:
        total: mean |change of loss| over the tokens.
        direct: that with the final norm's scale held.
        tokens: how many the means are over; all are of one text, so there is no error to give.
    """
    if total is None or direct is None or not tokens:
        return "No token was predicted, so there is no effect on the loss to divide."
    if total == 0:
        return "The loss of no token changes, so there is no effect to divide."
    over = f"over {tokens:,} {'token' if tokens == 1 else 'tokens'}"
    share = 1 - direct / total
    defined = (
        f"Share of the effect on the loss that goes through the final norm: {percent(share)}, that is 1 − mean |direct "
        f"Δ| / mean |total Δ| {over}; one text: no error can be given."
    )
    if share < 0:
        return (
            f"{defined} Below 0, it is no share: the direct path and the norm pull in opposite directions here, and "
            f"the direct part alone would move the losses by {number(direct, 'nats')} in the mean, both together by "
            f"{number(total, 'nats')}."
        )
    return f"{defined} It divides sizes; the signed means, in which tokens cancel, divide differently."
