"""The glossary: every metric and class is in it, and it states the rules that are applied."""

import json

from app.components import plus_minus
from app.components.neuron_class import class_chip
from app.pages.glossary import page as glossary
from backend.core.metrics.classes import ChanceLines, rules
from backend.glossary import CLASS_LABELS, CUTS, METRICS, TERMS


def test_every_metric_has_its_entry() -> None:
    drawn = json.dumps(glossary.layout(), default=lambda part: part.to_plotly_json())
    for metric in METRICS:
        assert f'"id": "{metric.name}"' in drawn, metric.name


def test_the_classes_are_defined_by_the_conditions_that_are_applied() -> None:
    """Every condition's metric, side and cut stands in the words of its class."""
    chance = ChanceLines(10, null_fraction=0.4, logit_var_low=1e-3, logit_var_high=2e-3, freq_alignment=0.5)
    words = {"null_fraction": "null-space fraction", "logit_var": "logit variance", "freq_alignment": "cosine",
             "ln_mediated": "through the final norm", "freq_mediated": "along that direction",
             "total_effect": "total effect", "abs_delta_kl": "change of KL"}  # fmt: skip
    for name, conditions in rules(chance, None).items():
        told = TERMS[CLASS_LABELS[name].lower()]
        assert "can have none" in told
        for condition in conditions:
            assert words[condition.metric] in told
            assert "chance line" in told
            if not condition.is_chance:
                share = condition.metric in ("ln_mediated", "freq_mediated")
                limit = f"{100 * condition.limit:.0f} %" if share else f"{condition.limit:g} nats"
                assert f"more than {limit}" in told
                assert f"{condition.errors:g} standard errors" in told
    assert f"highest {100 - CUTS.norm_percentile:.0f} %" in TERMS["paper's criterion"]


def test_a_class_tells_its_rule_where_it_stands() -> None:
    for name, label in CLASS_LABELS.items():
        assert vars(class_chip(name))["title"] == TERMS[label.lower()]


def test_what_pages_point_to_is_there() -> None:
    drawn = json.dumps(glossary.layout(), default=lambda part: part.to_plotly_json())
    link = str(plus_minus.note("±")).split("/glossary#")[1].split("'")[0]
    assert f'"id": "{link}"' in drawn
