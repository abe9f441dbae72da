"""The controls of the induction page."""

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from app.components.layout import aria
from app.pages.induction import ids
from app.pages.induction.state import MOST_HEADS, MOST_SEED, InductionSettings
from app.pages.induction.views import KNOCKED_OUT_AT_LABELS, part_choices
from backend.schemas import MAX_INDUCTION_NEURONS, MAX_INDUCTION_SEQUENCES, MAX_JOB_SEQUENCES, MAX_SPAN

SOURCE_LABELS = {
    "synthetic": "Corpus text, doubled",
    "random": "Random tokens, doubled",
    "natural": "Repeats in the corpus",
    "text": "My own text",
}


def controls(asked: InductionSettings) -> html.Aside:
    """The column at the left: what repeats, and what of it is measured."""
    return html.Aside(
        [
            *_what_repeats(asked),
            *_what_is_measured(asked),
            dmc.Group(
                [
                    dmc.Button("Run", id=ids.GO, className="grow"),
                    dmc.Button("Cancel", id=ids.CANCEL, variant="default", disabled=True),
                ],
                gap="xs", grow=True,
            ),
            dmc.Button("Run as a job", id=ids.QUEUE, variant="outline"),
            dmc.Progress(id=ids.PROGRESS, value=0, size="md", **aria(label="Progress of the run")),
            html.P(id=ids.DOING, className="quiet"),
            dmc.Button("Copy link", id=ids.COPY, variant="default", size="xs"),
            html.P(id=ids.STATUS, className="quiet", role="status"),
        ],
        className="controls induction-controls", **aria(label="What repeats and what is measured"),
    )  # fmt: skip


def _what_repeats(asked: InductionSettings) -> list[Component]:
    text_style = {} if asked.source == "text" else {"display": "none"}
    return [
        dmc.Select(id=ids.MODEL, label="Model", value=asked.model, data=[asked.model] if asked.model else [],
                   allowDeselect=False),
        dmc.Select(id=ids.RUN, label="Run", value=asked.run, data=[asked.run] if asked.run else [],
                   allowDeselect=False),
        dmc.Select(id=ids.SOURCE, label="What repeats", value=asked.source, allowDeselect=False,
                   data=[{"value": value, "label": label} for value, label in SOURCE_LABELS.items()]),
        html.Div(
            dmc.Textarea(id=ids.TEXT, label="Text", minRows=4, maxRows=12, autosize=True, value=asked.text or "",
                         # a job's text must not drive out the one that a person has written here
                         persistence="induction-text" if asked.text is None else False, persistence_type="local",
                         placeholder="Mr. Smith met … and Mr. Smith …"),
            id=ids.TEXT_BOX, style=text_style,
        ),
        html.Div(
            [
                _whole(ids.SEQUENCES, "Sequences", asked.sequences, 1, MAX_JOB_SEQUENCES),
                _whole(ids.SPAN, "Tokens a repeat", asked.span, 2, MAX_SPAN),
                _whole(ids.SEED, "Seed", asked.seed, 0, MOST_SEED),
            ],
            className="numbers",
        ),
        html.P(f"Run takes up to {MAX_INDUCTION_SEQUENCES} sequences while you wait. A job takes up to "
               f"{MAX_JOB_SEQUENCES:,}: a worker does it, and its results stay in the atlas, with the text if it is "
               "your own.", className="quiet"),
    ]  # fmt: skip


def _what_is_measured(asked: InductionSettings) -> list[Component]:
    return [
        dmc.TagsInput(
            id=ids.NEURONS, label="Neurons", value=asked.neurons, data=asked.neurons, maxTags=MAX_INDUCTION_NEURONS,
            splitChars=[",", " "], placeholder="layer.index", acceptValueOnBlur=True, clearable=True,
            clearButtonProps={"aria-label": "Clear the neurons"},
            description="Of the last layer; none: the run's entropy neurons.",
        ),
        dmc.CheckboxGroup(
            html.Div(part_choices(), className="parts"), id=ids.PARTS, label="Parts", value=list(asked.parts),
        ),
        dmc.TagsInput(
            id=ids.HEADS, label="Heads to knock out", value=asked.heads, data=asked.heads, maxTags=MOST_HEADS,
            splitChars=[",", " "], placeholder="L5H1", acceptValueOnBlur=True, clearable=True,
            clearButtonProps={"aria-label": "Clear the heads"},
            description="None: those with the highest prefix-matching scores.",
        ),
        dmc.Select(
            id=ids.KNOCKED_OUT_AT, label="Heads are changed", value=asked.knocked_out_at, allowDeselect=False,
            data=[{"value": value, "label": label} for value, label in KNOCKED_OUT_AT_LABELS.items()],
            description="The paper's authors change a head only at the position that is read; changed at every one, "
            "later positions look back on changed ones too. The former takes a few times as long.",
        ),
        html.Div(_whole(ids.TOP_HEADS, "How many of those", asked.top_heads, 1, MOST_HEADS), className="numbers"),
    ]  # fmt: skip


def _whole(name: str, label: str, value: int, low: int, high: int) -> dmc.NumberInput:
    return dmc.NumberInput(id=name, label=label, value=value, min=low, max=high, allowDecimal=False, size="xs")
