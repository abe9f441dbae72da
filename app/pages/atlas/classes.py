"""What a run's classes are, in words: how many neurons each has, by which rule, and where the paper's criterion parts
from them."""

from collections.abc import Sequence
from typing import Any

from dash import Dash, Input, Output, dcc, html, no_update
from dash.development.base_component import Component

from app import links
from app.components import plus_minus
from app.notation.numbers import number
from backend.client import ApiError, Sender, calls
from backend.glossary import CLASS_LABELS, CUTS, METRIC, NeuronClass, anchor
from backend.schemas import ClassCondition, ClassRule, RunClasses, RunSummary

CLASSES = "atlas-classes"
_NAMED: tuple[NeuronClass, ...] = ("entropy", "token_frequency", "prediction")
_MOST_LISTED = 8


def register(app: Dash, client: Sender, revision: str) -> None:
    """Fills the part below the figure whenever the run has grown; `revision`: the store that says so."""

    @app.callback(Output(CLASSES, "children"), Input(revision, "data"), prevent_initial_call=True)
    async def tell(seen: str | None) -> Any:
        if not seen:
            return no_update
        run = int(seen.split(":")[0])
        try:
            return words(await client.send(calls.classes(run)), await client.send(calls.run(run)))
        except ApiError as error:
            return html.P(error.problem.detail, className="quiet")


def words(classes: RunClasses, run: RunSummary) -> list[Component]:
    """The classes in sentences, and the rule behind a click."""
    sentences = [counted(classes), fit_but_before(classes), parting(classes), empty_classes(classes, run)]
    summary = html.Summary("By which rule")
    errors = plus_minus.of_run(run)
    return [
        html.P(" ".join(sentence for sentence in sentences if sentence), className="sentences"),
        html.Details([summary, *_rule(classes, run)], className="rule"),
        *([] if errors is None else [plus_minus.note(errors)]),
    ]


def counted(classes: RunClasses) -> str:
    """How many neurons each class has."""
    parts = [_many(classes.counts.get(name, 0), f"{CLASS_LABELS[name].lower()}") for name in _NAMED]
    return f"This run has {', '.join(parts[:-1])} and {parts[-1]}."


def fit_but_before(classes: RunClasses) -> str:
    """Who fits a class and is not counted in it; empty where nobody does."""
    sentences = []
    for name, count in classes.fit_but_before.items():
        if count:
            fit, have = ("fits", "has") if count == 1 else ("fit", "have")
            more = "more " if classes.counts.get(name, 0) else ""
            sentences.append(
                f"{_many(count, f'{more}neuron')} {fit} the rule of {CLASS_LABELS[name].lower()}s as well "
                f"and {have} a class that goes before it."
            )
    return " ".join(sentences)


def parting(classes: RunClasses) -> str:
    """Where the paper's own criterion and the class of entropy neurons part; empty where marks are not known."""
    if classes.paper_criterion is None:
        return ""
    sentences = []
    entropy = classes.counts.get("entropy", 0)
    light = [one.norm_percentile for one in classes.entropy if (one.norm_percentile or 0) < CUTS.norm_percentile]
    if light:
        of = "entropy neuron does" if entropy == 1 else "entropy neurons do"
        sentences.append(f"{len(light)} of this run's {entropy} {of} not have heavy weights ({_percentiles(light)}).")
    elif entropy:
        sentences.append("Its entropy neurons have heavy weights, as in the paper.")
    marked = _many(classes.paper_criterion, "neuron")
    which = "" if not classes.paper_criterion or not entropy else f", {classes.both or 'none'} of them "
    if which:
        which += "an entropy neuron" if classes.both <= 1 else "entropy neurons"
    sentences.append(f"The paper's own criterion, a high weight norm and a low logit variance, marks {marked}{which}.")
    return " ".join(sentences)


def empty_classes(classes: RunClasses, run: RunSummary) -> str:
    """Why a class has nobody in it, where that needs a word."""
    if not classes.rules:
        return ""
    if not classes.effects_measured:
        if run.status == "running" or not run.tokens_counted:
            return "Entropy and token-frequency neurons are named once effects are measured, with their errors."
        return (
            "Its effects are of a single sequence and have no errors, so that no neuron can be called an entropy or a "
            "token-frequency neuron: measure more sequences."
        )
    none = [
        CLASS_LABELS[name].lower()
        for name in _NAMED
        if not classes.counts.get(name, 0) and not classes.fit_but_before.get(name, 0)
    ]
    if not none:
        return ""
    return f"That nothing passes as {' or '.join(f'{_an(name)}' for name in none)} is a finding: a model can have none."


def _rule(classes: RunClasses, run: RunSummary) -> list[Component]:
    if not classes.rules:
        return [
            html.P(
                "The run was made before there were chance lines. Its classes are those that it was given then, by "
                "quantiles within the run: the 2 % with the highest logit variance were called prediction neurons in "
                "any model, and noise can pass as well. A new run is cut against chance."
            )
        ]
    groups = "" if run.error_groups is None else f", taken over {run.error_groups} groups of whole sequences"
    items = [html.Li([html.Strong(f"{CLASS_LABELS[r.neuron_class]}: "), _conditions(r)]) for r in classes.rules]
    lines = [c.limit for r in classes.rules for c in r.conditions if (c.metric, c.side) == ("logit_var", "below")]
    paper = (
        f"{METRIC['weight_norm'].label} in the highest {100 - CUTS.norm_percentile:.0f} % of the run; "
        f"{METRIC['logit_var'].label} below {number(lines[0])} (chance line). The paper gives no thresholds. It is a "
        "mark beside the class."
    )
    return [
        html.Ul([*items, html.Li([html.Strong("Paper's criterion: "), paper])]),
        html.P(
            [
                "All conditions of a class hold at once; a neuron that fits several classes has the first. A chance "
                "line is what the most extreme of as many random directions reaches, one time in twenty. A cut is "
                f"passed by so many standard errors{groups}. ",
                dcc.Link("Glossary", href=links.glossary(anchor("chance line"))),
            ]
        ),
    ]


def _conditions(rule: ClassRule) -> str:
    return "; ".join(_condition(condition) for condition in rule.conditions) + "."


def _condition(condition: ClassCondition) -> str:
    metric = METRIC[condition.metric]
    if condition.limit is None:
        return f"{metric.label} against a chance line that the run does not know yet"
    limit = number(condition.limit, metric.unit)
    side = {"above": f"above {limit}", "below": f"below {limit}", "beyond": f"beyond ±{limit}"}[condition.side]
    how = "chance line" if condition.is_chance else f"by {condition.errors:.3g} standard errors"
    return f"{metric.label} {side} ({how})"


def _many(count: int, name: str) -> str:
    return f"{count or 'no'} {name}{'' if count == 1 else 's'}"


def _an(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _percentiles(values: Sequence[float | None]) -> str:
    shown = [f"{value:.1f}" if value < 1 else f"{value:.0f}" for value in values[:_MOST_LISTED] if value is not None]
    more = ", …" if len(values) > _MOST_LISTED else ""
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"norm percentile{'' if len(shown) == 1 else 's'} {listed}{more}"
