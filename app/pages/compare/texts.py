"""One text through the models of both runs, on the compare page: losses and entropies under each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dash import html
from dash.development.base_component import Component

from app.asking import answer_or_refusal
from app.components import pasted_text
from app.components.layout import scrolled
from app.components.states import failure
from app.components.token_strip import Strip, strip_data
from app.notation.numbers import number, signed
from app.notation.tokens import visible
from app.pages.compare.alignment import Stretch, stretches
from backend.client import ApiError, Sender, calls
from backend.schemas import ModelSummary, TextTrace

STRIPS_NOTE = (
    "A loss is of predicting the token or stretch that it stands at; an entropy is that of the prediction made after "
    "it. Both models share the colours of a scale."
)
Values = list[float | None]


@dataclass(frozen=True)
class ReadText:
    """A text as a model read it, without what stands before it."""

    name: str
    trace: TextTrace

    @property
    def _before(self) -> int:
        beginning = self.trace.beginning
        return 0 if beginning is None or beginning.token is None else 1

    @property
    def tokens(self) -> list[str]:
        return self.trace.tokens[self._before :]

    @property
    def loss(self) -> Values:
        return self.trace.values.loss[self._before :]

    @property
    def entropy(self) -> list[float]:
        return self.trace.values.entropy[self._before :]


async def through_both(
    client: Sender, text: str | None, first: str | None, second: str | None
) -> tuple[dict[str, Any] | None, list[Component]]:
    """Trace a text through two models, one after the other, by their ids.

    Returns:
        strips for the browser to draw, or None, and what is said and counted above them.
    """
    problem = pasted_text.refusal(text)
    if problem is not None or not first or not second:
        return None, [failure(problem or "There are no two models to read it with yet.")]
    try:
        known = {model.id: model for model in (await client.send(calls.models())).models}
    except ApiError as error:
        return None, [failure(error.problem.detail)]
    read: list[ReadText] = []
    problems: list[Component] = []
    for model in dict.fromkeys((first, second)):
        name = _name(known.get(model), model)
        trace = await answer_or_refusal(client, calls.trace_text(model, str(text)))
        if isinstance(trace, ApiError):
            problems.append(failure(f"{name} cannot read it: {trace.problem.detail}"))
        else:
            read.append(ReadText(name, trace))
    if not read:
        return None, problems
    if len(read) == 1:
        return _alone(read[0]), [*problems, *_said_of_one(read[0], is_one_model=not problems)]
    pair = read[0], read[1]
    found = stretches(str(text), pair[0].tokens, pair[1].tokens)
    return text_strips(pair, found), said(pair, found)


def _name(model: ModelSummary | None, slug: str) -> str:
    return slug if model is None else model.name


def _alone(one: ReadText) -> dict[str, Any]:
    return strip_data(
        [Strip(f"Loss, {one.name}", one.tokens, one.loss, "nats"),
         Strip(f"Entropy, {one.name}", one.tokens, one.entropy, "nats")]
    )  # fmt: skip


def _said_of_one(one: ReadText, *, is_one_model: bool) -> list[Component]:
    if not is_one_model:
        return [html.P(f"So this is {one.name} alone.", className="sentences")]
    sentence = (
        f"Both runs are of one model, {one.name}, which reads a text in one way: there is nothing to compare here. "
        "Choose runs of two models to see where they differ."
    )
    return [html.P(sentence, className="sentences")]


def text_strips(pair: tuple[ReadText, ReadText], found: Sequence[Stretch]) -> dict[str, Any]:
    """Losses and entropies of both models over the stretches of a text, and how they differ."""
    tokens = [stretch.text for stretch in found]
    losses = [[_sum(one.loss, _range(stretch, side)) for stretch in found] for side, one in enumerate(pair)]
    entropies = [[one.entropy[_range(stretch, side)[-1]] for stretch in found] for side, one in enumerate(pair)]
    a, b = pair
    strips = [
        Strip(f"Loss, {a.name}", tokens, losses[0], "nats", scale_with=losses[1]),
        Strip(f"Loss, {b.name}", tokens, losses[1], "nats", scale_with=losses[0]),
        Strip(f"Loss, {b.name} − {a.name}", tokens, _difference(losses[0], losses[1]), "nats", "change"),
        Strip(f"Entropy, {a.name}", tokens, entropies[0], "nats", scale_with=entropies[1]),
        Strip(f"Entropy, {b.name}", tokens, entropies[1], "nats", scale_with=entropies[0]),
    ]
    if _cut_alike(found):
        change = _difference(entropies[0], entropies[1])
        strips.append(Strip(f"Entropy, {b.name} − {a.name}", tokens, change, "nats", "change"))
    details = [_details(pair, stretch) for stretch in found]
    return strip_data([Strip(**(vars(strip) | {"details": details})) for strip in strips])


def _range(stretch: Stretch, side: int) -> range:
    return stretch.b if side else stretch.a


def _cut_alike(found: Sequence[Stretch]) -> bool:
    return all(len(stretch.a) == len(stretch.b) == 1 for stretch in found)


def _sum(values: Sequence[float | None], places: range) -> float | None:
    chosen = [values[place] for place in places]
    known = [value for value in chosen if value is not None]
    return sum(known) if len(known) == len(chosen) else None


def _difference(a: Sequence[float | None], b: Sequence[float | None]) -> Values:
    return [None if x is None or y is None else y - x for x, y in zip(a, b, strict=True)]


def _details(pair: tuple[ReadText, ReadText], stretch: Stretch) -> str:
    """Both models' tokens of a stretch, each with its loss."""
    lines = []
    for side, one in enumerate(pair):
        parts = [f"{visible(one.tokens[place])} {number(one.loss[place])}" for place in _range(stretch, side)]
        lines.append(f"{one.name}: {' + '.join(parts)} nats")
    return "\n".join(lines)


def said(pair: tuple[ReadText, ReadText], found: Sequence[Stretch]) -> list[Component]:
    """How the text was cut and how well each model predicts it, in sentences and a table."""
    a, b = pair
    notes = [_how_cut(pair, found), *_cut_short(pair)]
    return [*(html.P(note, className="sentences") for note in notes), _table((a, b), found)]


def _how_cut(pair: tuple[ReadText, ReadText], found: Sequence[Stretch]) -> str:
    sizes = f"{len(pair[0].tokens):,} and {len(pair[1].tokens):,} tokens"
    if _cut_alike(found) and len(pair[0].tokens) == len(pair[1].tokens):
        return f"Both models cut the text into the same {len(pair[0].tokens):,} tokens."
    alike = sum(len(stretch.a) == len(stretch.b) == 1 for stretch in found)
    return (
        f"The models cut the text differently, into {sizes}. It is shown in the {len(found):,} smallest stretches at "
        f"whose ends tokens of both end, {alike:,} of which are one token in both. The loss of a stretch is the sum "
        "over its tokens. Entropies are over two vocabularies, so that their difference says little and is not shown."
    )


def _cut_short(pair: tuple[ReadText, ReadText]) -> list[str]:
    return [
        f"{one.name} read the first {len(one.tokens):,} tokens only; what lies beyond is not compared."
        for one in pair
        if one.trace.truncated
    ]


def _table(pair: tuple[ReadText, ReadText], found: Sequence[Stretch]) -> Component:
    both = [
        (x, y, len(stretch.text))
        for stretch in found
        if (x := _sum(pair[0].loss, stretch.a)) is not None and (y := _sum(pair[1].loss, stretch.b)) is not None
    ]
    characters = sum(size for *_, size in both)
    per_character = [sum(one[side] for one in both) / characters if characters else None for side in (0, 1)]
    totals = [one.trace.totals for one in pair]
    rows = [
        _row("mean loss a token (nats)", [one.mean_loss for one in totals]),
        _row("mean entropy a token (nats)", [one.mean_entropy for one in totals]),
        _row("perplexity", [one.perplexity for one in totals]),
        _row("loss a character, over what both predict (nats)", per_character),
    ]
    head = html.Tr([html.Th(word) for word in ("", pair[0].name, pair[1].name, "second − first")])
    table = html.Table([html.Thead(head), html.Tbody(rows)], className="totals")
    quiet = html.P(
        "One text: no error can be given, since nothing tells how far another would lie. Means a token of models with "
        "different tokens are of different things; the loss a character is of the same.",
        className="quiet",
    )
    return html.Div([scrolled(table, "How well both models predict the text"), quiet])


def _row(name: str, values: Sequence[float | None]) -> html.Tr:
    a, b = values
    difference = None if a is None or b is None else b - a
    return html.Tr(
        [html.Th(name, scope="row"), *(html.Td(number(value)) for value in values), html.Td(signed(difference))]
    )
