"""Where a token's loss stands: at the token itself.

A model predicts a token at the position before it, and traces and atlases keep what was predicted there. Whoever reads
a text asks how surprising a token was: so loss and rank are moved to the token that they are about whenever an answer
is built, here and nowhere else. Entropy, the distance from token frequencies, the residual stream and activations stay
where the model computed them: after reading a token, whether or not another follows.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def at_predicted_token(predicted: Sequence[T], count: int, first: T | None = None) -> list[T | None]:
    """Values of the positions that predict, placed at the tokens that are predicted; shape [count].

    Args:
        predicted: by position; the last may be missing, since nothing follows it.
        count: of tokens.
        first: what is known of the first token from a position before all of these.
    """
    return [first, *predicted[: count - 1]]
