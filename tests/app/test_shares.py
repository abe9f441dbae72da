"""What share of an effect goes through the final norm, in words that agree with the numbers beside them."""

import pytest

from app.components.shares import mean_size, through_norm
from app.pages.lab.views import totals
from app.pages.neuron.views import ablated_context
from tests.app import sample
from tests.app.pages import text_of


def test_a_share_is_said_with_what_it_divides_and_over_what() -> None:
    said = through_norm(0.4, 0.1, 20)
    assert "75.0 %" in said
    assert "1 − mean |direct Δ| / mean |total Δ| over 20 tokens" in said
    assert "one text: no error can be given" in said


def test_what_is_no_share_is_not_called_one() -> None:
    said = through_norm(1.0, 1.424, 20)
    assert "−42.4 %" in said
    assert "the direct path and the norm pull in opposite directions here" in said
    assert "1.424 nats" in said


@pytest.mark.parametrize(("total", "direct", "tokens"), [(None, None, 0), (0.0, 0.0, 4), (None, 0.2, 3)])
def test_nothing_is_not_divided(total: float | None, direct: float | None, tokens: int) -> None:
    assert "%" not in through_norm(total, direct, tokens)


def test_the_tables_sizes_give_the_share_that_stands_under_it() -> None:
    said = text_of(totals(sample.ablation()))
    assert "Mean |Δ loss|" in said
    assert "0.400 nats" in said
    assert "75.0 %" in said
    opposite = sample.ablation()
    opposite.frozen.mean_abs_delta_loss = 0.6
    assert "opposite directions" in text_of(totals(opposite))


def test_a_context_says_sizes_beside_signed_means() -> None:
    """Changes that cancel have a mean of nothing and a size."""
    found = sample.context_ablation()
    size = len(found.tokens)
    found.loss_after = [
        None if b is None else b + (1 if place % 2 else -1) for place, b in enumerate(found.loss_before)
    ]
    found.loss_frozen = [None if b is None else b + 0.25 for b in found.loss_before]
    said = " ".join(text_of(part) for part in ablated_context(found))
    assert f"Over the {size - 1} tokens that were predicted" in said
    assert "mean |change| 1.000 nats, direct part 0.250 nats" in said
    assert "75.0 %" in said


def test_a_mean_of_nothing_is_nothing() -> None:
    assert mean_size([]) is None
