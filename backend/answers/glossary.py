"""What the words of the service mean, from the one table of metrics and terms."""

from backend import schemas
from backend.glossary import FORMULAS, METRICS, TERMS


def glossary() -> schemas.Glossary:
    """Every metric and term."""
    definitions = [
        schemas.MetricDefinition(
            name=m.name, label=m.label, unit=m.unit, sentence=m.sentence, equation=m.equation,
            formula=FORMULAS.get(m.name, ""),
        )
        for m in METRICS
    ]  # fmt: skip
    return schemas.Glossary(metrics=definitions, terms=TERMS)
