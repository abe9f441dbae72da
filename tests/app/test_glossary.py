"""The glossary: every metric and class is in it, and it states the rules that are applied."""

import json

from app.components import class_chip
from app.pages import glossary
from backend.core.classes import DEFAULT
from backend.glossary import CLASS_LABELS, METRICS, TERMS


def test_every_metric_has_its_entry() -> None:
    drawn = json.dumps(glossary.layout(), default=lambda part: part.to_plotly_json())
    for metric in METRICS:
        assert f'"id": "{metric.name}"' in drawn, metric.name


def test_the_classes_are_defined_by_the_thresholds_that_are_applied() -> None:
    entropy, frequency, prediction = (TERMS[f"{name} neuron"] for name in ("entropy", "token-frequency", "prediction"))
    assert f"highest {100 * (1 - DEFAULT.null_fraction):.0f} % of the run" in entropy
    assert f"lowest {100 * DEFAULT.logit_var_low:.0f} %" in entropy
    assert DEFAULT.total_effect == 0.5
    assert "above the median" in entropy
    assert f"at least {100 * DEFAULT.ln_mediated:.0f} %" in entropy
    assert f"highest {100 * (1 - DEFAULT.abs_delta_kl):.0f} % of the run" in frequency
    assert f"at least {100 * DEFAULT.freq_mediated:.0f} %" in frequency
    assert f"highest {100 * (1 - DEFAULT.logit_var_high):.0f} % of the run" in prediction


def test_a_class_tells_its_rule_where_it_stands() -> None:
    for name, label in CLASS_LABELS.items():
        assert class_chip(name).title == TERMS[label.lower()]
