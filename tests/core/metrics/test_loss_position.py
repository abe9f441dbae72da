"""A token's loss stands at the token that it is of."""

from collections.abc import Callable

import pytest
import torch

from backend.core.metrics.loss_position import at_predicted_token
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.traced_text import trace_tokens


@pytest.mark.parametrize(
    ("predicted", "count", "first", "at_tokens"),
    [
        ([1.0, 2.0, 3.0], 3, None, [None, 1.0, 2.0]),
        ([1.0, 2.0], 3, None, [None, 1.0, 2.0]),
        ([1.0, 2.0, 3.0], 3, 0.5, [0.5, 1.0, 2.0]),
        ([], 1, None, [None]),
        ([4.0], 1, 0.5, [0.5]),
    ],
)
def test_values_move_from_where_they_are_predicted_to_what_is_predicted(
    predicted: list[float], count: int, first: float | None, at_tokens: list[float | None]
) -> None:
    assert at_predicted_token(predicted, count, first) == at_tokens


def test_a_tokens_loss_is_of_that_token(tiny_model: Callable[[str], AnalysisModel]) -> None:
    """Another last token changes no loss but the last: what stands there is its own."""
    model, tokens = tiny_model("llama"), [5, 9, 4, 11, 7]
    losses = [
        at_predicted_token(trace_tokens(model, words).before.loss.tolist(), 5)[1:]
        for words in (tokens, [*tokens[:-1], 8])
    ]
    assert losses[0][:-1] == pytest.approx(losses[1][:-1], abs=1e-6)
    assert losses[0][-1] != pytest.approx(losses[1][-1], abs=1e-4)
    assert not torch.tensor(losses).isnan().any()
