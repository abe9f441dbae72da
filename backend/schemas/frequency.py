"""How often tokens occur, and how far a run's predictions are from that."""

from typing import Annotated

from pydantic import Field

from backend.schemas.base import FiniteFloat, Number, Wire

MAX_FREQUENT_TOKENS = 100


class RunPositions(Wire):
    """What the model predicted at the run's sampled positions, before any ablation. All lists are aligned."""

    tokens: list[str]
    """The token at each position."""
    targets: list[str]
    """The token that follows it."""
    loss: list[FiniteFloat]
    entropy: list[FiniteFloat]
    rank: list[int]
    kl: list[FiniteFloat] | None
    """D_KL(P_freq‖P), in nats; null of a run made before token frequencies were measured."""
    correlation: Number
    """Pearson's, of `entropy` with `kl` (Figure 3a); null where one of them does not vary or `kl` is not there."""
    rank_correlation: Number
    """Spearman's, of `entropy` with `kl`; null where one of them does not vary or `kl` is not there."""


class TokenShare(Wire):
    token_id: int
    token: str
    probability: Annotated[float, Field(ge=0, le=1)]


class TokenFrequencies(Wire):
    """P_freq of a run: how often each token occurs whatever came before it."""

    source: str | None
    """Where it comes from and how it is smoothed; null of a run made before token frequencies were measured."""
    counts_sha256: str | None
    """Of the counts, where they came from a file."""
    missing: str | None
    """Why the rest is null, or null."""
    vocabulary: int | None
    """How many tokens there are."""
    entropy: Number
    """H(P_freq), in nats."""
    most: list[TokenShare] | None
    """The most frequent tokens, first the most frequent."""
    least: list[TokenShare] | None
    """The least frequent tokens, first the least frequent."""
    equally_rare: int | None
    """How many tokens share the lowest probability: after counting, those that were never seen."""
