"""A text that a person brings to a page."""

from backend.schemas import MAX_TEXT_CHARS


def refusal(text: str | None) -> str | None:
    """Why a text cannot be sent to a model, or None."""
    if not (text or "").strip():
        return "Write or pick a text first."
    if len(str(text)) > MAX_TEXT_CHARS:
        return (
            f"The text has {len(str(text)):,} characters; at most {MAX_TEXT_CHARS:,} can be analysed at once. Shorten "
            "it: all of it is still here."
        )
    return None
