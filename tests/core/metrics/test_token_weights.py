"""Finding tokens, and what neurons write towards one."""

import pytest
import torch

from backend.core.metrics.token_weights import extremes, token_weights
from backend.core.models.vocabulary import matching_tokens

VOCABULARY = ["the", " the", " The", "The", " then", "other", "\n", "  ", "🙂", "", " THE", "lathe", "ﬀ"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (" the", [" the", " The", " THE", "the", "The", " then", "other", "lathe"]),
        ("the", ["the", "The", " the", " The", " THE", " then", "other", "lathe"]),
        ("THE", ["the", "The", " the", " The", " THE", " then", "other", "lathe"]),
        ("\n", ["\n"]),
        ("  ", ["  "]),
        ("🙂", ["🙂"]),
        ("zebra", []),
    ],
)
def test_the_very_token_comes_first_then_its_likes(query: str, found: list[str]) -> None:
    assert [VOCABULARY[place] for place in matching_tokens(VOCABULARY, query)] == found


def test_weights_are_a_column_of_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    W_out, W_U = torch.randn(7, 5, generator=generator), torch.randn(5, 11, generator=generator)
    whole = W_out.double() @ W_U.double()
    for token in (0, 10):
        torch.testing.assert_close(token_weights(W_out, W_U, token), whole[:, token])


def test_extremes_start_at_the_ends_and_keep_their_sign() -> None:
    weights = torch.tensor([0.5, -2.0, 0.0, 3.0, -0.1], dtype=torch.float64)
    assert extremes(weights, 2) == ([3, 0], [1, 4])
    assert extremes(weights, 9) == ([3, 0], [1, 4]), "zero is neither"
    assert extremes(weights.abs(), 9)[1] == []
