"""What a claim of a reproduction is."""

from dataclasses import dataclass

from app.reproduce.checks import Check
from app.reproduce.evidence import Evidence
from app.reproduce.null import NullModel


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and its check."""

    figure: str
    says: str
    models: tuple[str, ...]
    """Patterns of the models it is stated for; empty: the paper says it of all models it studies."""
    stated_for: str
    check: Check
    null: NullModel | str
    """What the check is tried on to see how often chance passes it; or why there is nothing to try it on."""
    selected_by: str = ""
    """What the class asks of the neurons that the check is about: where the run has chosen them by that, the check
    could hardly fail. Empty: nothing that the check looks at."""

    def is_stated_for(self, evidence: Evidence) -> bool:
        """Whether the paper says it of this model, or of every model."""
        return not self.models or evidence.of(*self.models)

    def is_circular(self, evidence: Evidence) -> bool:
        """Whether the neurons that are checked were chosen by what is checked. Those that the paper names were not."""
        return bool(self.selected_by) and not evidence.named
