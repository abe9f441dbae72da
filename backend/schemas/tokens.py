"""Tokens of a vocabulary, and the neurons that move one of them."""

from typing import Annotated

from pydantic import Field

from backend.schemas.base import MAX_ID, FiniteFloat, NeuronName, Wire

MAX_TOKEN_QUERY = 100
MAX_TOKENS_FOUND = 100
MAX_PROMOTERS = 1_000
MAX_TOKEN_ID = MAX_ID

TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]


class VocabularyToken(Wire):
    token_id: TokenId
    token: str
    """As it is decoded alone; most vocabularies write the space before a word into the token."""


class TokenMatches(Wire):
    query: str
    tokens: list[VocabularyToken]
    """The best matches first: the very token, then the same word without regard to spaces and case, then tokens that
    begin with it, then those that contain it."""
    total: int
    """How many tokens match."""


class NeuronPush(Wire):
    neuron: NeuronName
    value: FiniteFloat
    """w_out · W_U[:, token]: what a unit of activation adds to the token's logit, before the final norm divides."""


class Promoters(Wire):
    token: VocabularyToken
    layer: int
    promote: list[NeuronPush]
    """The largest positive weights first."""
    suppress: list[NeuronPush]
    """The most negative weights first."""
