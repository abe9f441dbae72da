"""What a claim of a reproduction is."""

from dataclasses import dataclass

from app.reproduce.checks import Check
from app.reproduce.evidence import Evidence


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and its check."""

    figure: str
    says: str
    models: tuple[str, ...]
    """Patterns of the models it is stated for; empty: the paper says it of all models it studies."""
    stated_for: str
    check: Check
    source: str = "paper"

    def is_stated_for(self, evidence: Evidence) -> bool:
        """Whether the paper says it of this model, or of every model."""
        return not self.models or evidence.of(*self.models)
