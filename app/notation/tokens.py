"""Tokens as people can see them: spaces, newlines and control characters made visible."""

import unicodedata
from html import escape

_MARKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "\\r", "\u00a0": "⍽"}


def visible(token: str) -> str:
    """A token with every invisible character shown by a mark; an empty one as ∅."""
    return "".join(_mark(character) for character in token) or "∅"


def label(token: str, longest: int = 24) -> str:
    """A token for Plotly's texts, which would read markup in it."""
    shown = visible(token)
    return escape(shown if len(shown) <= longest else shown[: longest - 1] + "…", quote=False)


def _mark(character: str) -> str:
    if character in _MARKS:
        return _MARKS[character]
    if ord(character) < 32:  # not as a picture of it (U+2400 and on), which few fonts have
        return f"\\x{ord(character):02x}"
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp", "Zs")
    return f"\\u{ord(character):04x}" if hidden else character
