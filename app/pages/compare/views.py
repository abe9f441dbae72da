"""What the compare page shows, as functions from what the service answered to components."""

from collections.abc import Sequence
from dataclasses import dataclass

from dash import dcc, html
from dash.development.base_component import Component

from app import links
from app.components import plus_minus
from app.components.layout import graph, panel, scrolled
from app.components.neuron_class import class_chip
from app.components.states import empty
from app.figures.comparison import PairedMetric, against_itself, cumulative
from app.figures.scales import zero_values
from app.figures.spectrum import singular_values
from app.notation.numbers import number, signed
from app.pages.compare import ids, words
from app.pages.compare.state import MOST_NEURONS, CompareSettings, chosen_names
from backend.client import ApiError
from backend.glossary import METRIC
from backend.schemas import ChangedNeuron, Comparison, MetricAgreement, NeuronColumns, RunSummary, SharedClass, Spectrum


@dataclass(frozen=True)
class ComparedAnswers:
    """All that the service answered about two runs; a part that it refused is the error that says why."""

    comparison: Comparison
    columns: tuple[NeuronColumns | ApiError, NeuronColumns | ApiError]
    spectra: tuple[Spectrum | ApiError, Spectrum | ApiError]

    @property
    def runs(self) -> tuple[RunSummary, RunSummary]:
        return self.comparison.a.run, self.comparison.b.run

    @property
    def labels(self) -> tuple[str, str]:
        """What the runs are called, each by its own name."""
        a, b = self.comparison.a, self.comparison.b
        again = " again" if a.run.id == b.run.id else ""
        if a.model.id == b.model.id:
            return f"run {a.run.id}", f"run {b.run.id}{again}"
        return f"{a.model.name}, run {a.run.id}", f"{b.model.name}, run {b.run.id}"

    def agreement(self, metric: str) -> MetricAgreement:
        """How far a metric agrees."""
        return next(one for one in self.comparison.metrics if one.metric == metric)


def one_run_only(run: RunSummary) -> Component:
    """What to do where the atlas has a single run."""
    return empty(
        "There is one run only",
        f"Run {run.id} of {run.model} is all that the atlas has, so that it can be compared with nothing but itself. "
        "Another seed draws other text, which shows how far a finding holds; another model, or another checkpoint of "
        "it, takes another --model. To measure a second run:",
        f"calibroscope precompute --model {run.model} --seed {run.seed + 1}",
    )


def body(found: ComparedAnswers, asked: CompareSettings) -> list[Component]:
    """All panels of two runs, but for the text."""
    corresponds = found.comparison.corresponds
    return [
        html.Div([html.P(one, className="sentences") for one in words.introduction(found.comparison)]),
        *([_cautions(found.comparison)] if words.cautions(found.comparison) else []),
        *([_scatter(found, asked)] if corresponds else []),
        _distributions(found, asked),
        _all_metrics(found),
        *([_classes(found), _changes(found, asked)] if corresponds else []),
        _spectra(found),
    ]


def _cautions(comparison: Comparison) -> Component:
    items = [html.Li(sentence) for sentence in words.cautions(comparison)]
    return html.Div([html.Strong("What else differs"), html.Ul(items)], className="state")


def _scatter(found: ComparedAnswers, asked: CompareSettings) -> Component:
    metric = asked.shown_metric
    title = f"{METRIC[metric].label} against itself"
    agreement, (a, b) = found.agreement(metric), found.columns
    if isinstance(a, ApiError) or isinstance(b, ApiError):
        return panel(title, empty("Not there", next(one.problem.detail for one in (a, b) if isinstance(one, ApiError))))
    if not agreement.pairs:
        return panel(title, empty("Not measured in both", words.agreement(agreement, found.comparison)))
    paired = PairedMetric.of(metric, found.labels, a, b)
    names, left = chosen_names(asked.neurons)
    known = [name for name in names if name in set(paired.neurons)]
    figure, undrawn = against_itself(paired, asked.shown_scale, marked=known, bars=asked.bars)
    note = (
        f"A point is a neuron of layer {found.runs[0].layer}: across in {found.labels[0]}, up in {found.labels[1]}; on "
        "the dashed line both are equal. Colours are classes in the first run, outlines those in the second where they "
        f"differ. Click a point to choose it. {undrawn}"
    )
    left += [name for name in names if name not in known]
    refusal = f"Left out: {', '.join(left)}. Write layer.index, as in {paired.neurons[0]}; at most {MOST_NEURONS}."
    return panel(
        title,
        html.P(words.agreement(agreement, found.comparison), className="sentences"),
        *([html.P(refusal, className="state error", role="status")] if left else []),
        graph(figure, id=ids.FIGURE, className="big-figure"),
        *([_chosen(found, paired, known)] if known else []),
        note=note,
    )


def _chosen(found: ComparedAnswers, paired: PairedMetric, names: Sequence[str]) -> Component:
    """The chosen neurons in both runs, each with the way to its pages."""
    unit, place = METRIC[paired.metric].unit, {name: row for row, name in enumerate(paired.neurons)}
    head = html.Tr([html.Th(word) for word in ("neuron", *found.labels, "pages")])
    rows = []
    for name in names:
        row = place[name]
        sides = zip((paired.a, paired.b), (paired.a_errors, paired.b_errors), strict=True)
        values = [number(of[row], unit, None if errors is None else errors[row]) for of, errors in sides]
        cells = [html.Td(value) for value in values]
        rows.append(html.Tr([html.Th(name, scope="row", className="mono"), *cells, html.Td(_pages(found, name))]))
    return scrolled(html.Table([html.Thead(head), html.Tbody(rows)], className="totals"), "Chosen neurons in both runs")


def _pages(found: ComparedAnswers, name: str) -> list[Component | str]:
    """Links to a neuron's pages in both runs."""
    first, second = (
        dcc.Link(f"run {run.id}", href=links.neuron(run.model, name, run.id), title=f"{name} in run {run.id}")
        for run in found.runs
    )
    return [first, " · ", second]


def _distributions(found: ComparedAnswers, asked: CompareSettings) -> Component:
    metric = asked.shown_metric
    title = f"{METRIC[metric].label}: how it is distributed"
    columns = dict(zip(found.labels, found.columns, strict=True))
    known = {label: one.columns[metric] for label, one in columns.items() if isinstance(one, NeuronColumns)}
    if not any(value is not None for values in known.values() for value in values):
        return panel(title, empty("Not measured", f"Neither run has a value of {METRIC[metric].label} yet."))
    one = found.agreement(metric)
    sentences = ""
    if one.larger_share is not None:
        error = None if one.larger_share_error is None else 100 * one.larger_share_error
        sentences = (
            f"The medians are {number(one.median_a, METRIC[metric].unit)} and "
            f"{number(one.median_b, METRIC[metric].unit)}. A neuron of {found.labels[1]} drawn at random has the "
            f"larger value {number(100 * one.larger_share, '%', error)} of the time; 50 % where neither has."
        )
    drawn = graph(cumulative(metric, asked.shown_scale, known), className="middle-figure")
    return panel(title, html.P(sentences, className="sentences"), drawn)


def _all_metrics(found: ComparedAnswers) -> Component:
    corresponds = found.comparison.corresponds
    paired = ("rank correlation", "95 % interval", "noise ceiling", "mean difference") if corresponds else ()
    head = ("metric", *paired, *(f"median, {label}" for label in found.labels), "larger in the second")
    rows = [_metric_row(one, corresponds) for one in found.comparison.metrics if one.larger_share is not None]
    table = html.Table([html.Thead(html.Tr([html.Th(word) for word in head])), html.Tbody(rows)], className="totals")
    notes = [words.PAIRED_NOTE, words.LARGER_NOTE] if corresponds else [words.LARGER_NOTE]
    sentences = [html.P(note, className="sentences") for note in notes]
    columns = html.Details([html.Summary("What the columns are"), *sentences])
    return panel("Every metric", scrolled(table, "How far every metric agrees"), columns)


def _metric_row(one: MetricAgreement, corresponds: bool) -> html.Tr:
    metric = METRIC[one.metric]
    cells: list[str] = []
    if corresponds:
        interval = "—" if one.low is None or one.high is None else f"{number(one.low)} to {number(one.high)}"
        error = "" if one.mean_difference_error is None else f" (± ≤ {number(one.mean_difference_error)})"
        difference = "—" if one.mean_difference is None else signed(one.mean_difference) + error
        cells = [number(one.rank_correlation), interval, number(one.noise_ceiling), difference]
    share = None if one.larger_share is None else 100 * one.larger_share
    share_error = None if one.larger_share_error is None else 100 * one.larger_share_error
    cells += [number(one.median_a), number(one.median_b), number(share, "%", share_error)]
    unit = f" ({metric.unit})" if metric.unit else ""
    name: list[Component | str] = [dcc.Link(metric.label, href=links.glossary(one.metric)), unit]
    return html.Tr([html.Th(name, scope="row"), *(html.Td(cell) for cell in cells)])


def _classes(found: ComparedAnswers) -> Component:
    shared = found.comparison.classes
    head = ("class", *found.labels, "in both", "by chance", "P of as many")
    rows = [
        html.Tr(
            [
                html.Th(words.class_name(one), scope="row"),
                *(html.Td(f"{count:,}") for count in (one.in_a, one.in_b, one.in_both)),
                html.Td(number(one.expected)),
                html.Td(words.p_value(one.p_value)),
            ]
        )
        for one in shared
    ]
    table = html.Table([html.Thead(html.Tr([html.Th(word) for word in head])), html.Tbody(rows)], className="totals")
    note = (
        "By chance: how many two independent draws of as many neurons share on average; P: the probability that they "
        "share as many as here, or more (hypergeometric). A class goes by cuts and errors: a neuron close to one can "
        "have it in one run alone without having changed."
    )
    sentences = [html.P(words.shared(one), className="sentences") for one in shared]
    members = [_members(found, one) for one in shared if one.in_a or one.in_b]
    return panel("Who has a class in both", *sentences, scrolled(table, "Classes in both runs"), *members, note=note)


def _members(found: ComparedAnswers, one: SharedClass) -> Component:
    """Which neurons have a class in both runs, and which in one alone."""
    groups = (("in both", one.both, found.runs[0]), (f"in {found.labels[0]} only", one.only_a, found.runs[0]),
              (f"in {found.labels[1]} only", one.only_b, found.runs[1]))  # fmt: skip
    counts = (one.in_both, one.in_a - one.in_both, one.in_b - one.in_both)
    lines = [
        html.P([f"{where}: ", *_linked(names, run, count)])
        for (where, names, run), count in zip(groups, counts, strict=True)
        if names
    ]
    return html.Details([html.Summary(f"{words.class_name(one)} by name"), *lines])


def _linked(names: Sequence[str], run: RunSummary, count: int) -> list[Component | str]:
    parts: list[Component | str] = []
    for name in names:
        parts += [dcc.Link(name, href=links.neuron(run.model, name, run.id), className="mono"), " "]
    return [*parts, f"and {count - len(names):,} more"] if count > len(names) else parts


def _changes(found: ComparedAnswers, asked: CompareSettings) -> Component:
    metric, changes = asked.shown_metric, found.comparison.changes
    title = f"Who has changed most in {METRIC[metric].label}"
    agreement, same = found.agreement(metric), found.comparison.a.run.id == found.comparison.b.run.id
    if changes is None or not changes.rows:
        return panel(title, html.P(words.agreement(agreement, found.comparison), className="quiet"))
    head = ("neuron", "class", *found.labels, "difference", "z", "pages")
    rows = [_change_row(found, one, metric) for one in changes.rows]
    table = html.Table([html.Thead(html.Tr([html.Th(word) for word in head])), html.Tbody(rows)], className="totals")
    note = (
        "z is the difference in its standard errors, √(± of the first² + ± of the second²)."
        if changes.by == "z"
        else None
    )
    return panel(
        title,
        html.P(words.changes(changes, agreement, same), className="sentences"),
        scrolled(table, "The most changed neurons"),
        *([plus_minus.note(errors)] if (errors := _what_errors_are(found)) else []),
        note=note,
    )


def _change_row(found: ComparedAnswers, one: ChangedNeuron, metric: str) -> html.Tr:
    unit = METRIC[metric].unit
    classes: list[Component | str] = [class_chip(one.class_a)]
    if one.class_b != one.class_a:
        classes += [" → ", class_chip(one.class_b)]
    cells = [
        number(one.a, unit, one.a_error),
        number(one.b, unit, one.b_error),
        signed(one.difference, unit),
        signed(one.z),
    ]
    return html.Tr(
        [
            html.Th(one.neuron, scope="row", className="mono"),
            html.Td(classes),
            *(html.Td(cell) for cell in cells),
            html.Td(_pages(found, one.neuron)),
        ]
    )


def _what_errors_are(found: ComparedAnswers) -> str | None:
    groups = [run.error_groups for run in found.runs]
    if None in groups or min(count or 0 for count in groups) < 2:
        return None
    return f"± is one standard error, taken over {groups[0]} and {groups[1]} groups of whole sequences."


def _spectra(found: ComparedAnswers) -> Component:
    known = {label: one for label, one in zip(found.labels, found.spectra, strict=True) if isinstance(one, Spectrum)}
    missing = [html.P(one.problem.detail, className="quiet") for one in found.spectra if isinstance(one, ApiError)]
    note = "Figure 6: the singular values of both models' centred W_U, across the whole of their widths." + "".join(
        zero_values(one.singular_values) for one in known.values()
    )
    same = "Both runs are of the same weights: the lines lie on each other."
    sentences = [html.P(same, className="sentences")] if found.comparison.same_weights and len(known) == 2 else []
    drawn = [graph(singular_values(known), className="middle-figure")] if known else []
    return panel("Spectra of the unembeddings", *sentences, *missing, *drawn, note=note)
