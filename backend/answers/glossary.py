"""What the words of the service mean, from the tables of metrics, terms and interventions."""

from backend import schemas
from backend.glossary import FORMULAS, INTERVENTIONS, LARGEST_INTERVENTION_VALUE, METRICS, TERMS


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


def interventions() -> schemas.InterventionList:
    """Everything that can be done to a neuron or an attention head."""
    definitions = [
        schemas.InterventionDefinition(
            kind=row.kind, sentence=row.sentence, on_neurons=row.on_neurons, on_heads=row.on_heads,
            needs_value=row.needs_value, starting_value=row.starting_value,
        )
        for row in INTERVENTIONS
    ]  # fmt: skip
    return schemas.InterventionList(interventions=definitions, largest_value=LARGEST_INTERVENTION_VALUE)
