"""Finding tokens by what they look like."""

from collections.abc import Sequence


def matching_tokens(vocabulary: Sequence[str], query: str) -> list[int]:
    """Ids of the tokens that match, the best first.

    The very token comes before the same word with other spaces around it or in another case, that before tokens that
    begin with the query, those before tokens that contain it; within each, shorter ones first. A query of spaces alone
    matches tokens that contain it.
    """
    word = query.strip().casefold()
    ranked = [(rank, len(token), place) for place, token in enumerate(vocabulary)
              if (rank := _rank(token, query, word)) is not None]  # fmt: skip
    return [place for *_, place in sorted(ranked)]


def _rank(token: str, query: str, word: str) -> int | None:
    if token == query:
        return 0
    if not word:
        return 5 if query in token else None
    folded = token.casefold()
    if word not in folded:
        return None
    bare = folded.strip()
    if bare == word:
        # Of `the`, ` the` and ` The`, those with the spaces that were typed come first.
        return 1 if folded == query.casefold() else 2
    return 3 if bare.startswith(word) else 4
