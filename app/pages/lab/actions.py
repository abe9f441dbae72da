"""What a person does in the Text lab, and what the page shows for it: analyse, open a link, intervene, choose a token.

Each asks the service for what it shows and no more, by the text's id.
"""

from typing import Any

from dash import html, no_update
from dash.development.base_component import Component

from app.components.layout import graph, panel
from app.components.states import failure
from app.figures.lab import prediction_bars
from app.pages.lab import interventions, views
from app.pages.lab.interventions import Rows
from app.pages.lab.traced import Traced, ask, kept
from backend.client import ApiError, Sender, calls
from backend.schemas import AblateRequest, Ablation, InterventionRequest, SweepRequest


async def analysed(client: Sender, text: str | None, model: str | None) -> tuple[Any, Any, Any, Any, Any]:
    """What the page shows of a text once it is traced, or only a message that says why it cannot be.

    Returns:
        what the page keeps of it, a message, the chosen token (none yet), its strips, the notes under them.
    """
    problem = views.refusal(text, model)
    if problem is not None:
        return no_update, failure(problem), no_update, no_update, no_update
    try:
        trace = await client.send(calls.trace_text(str(model), str(text)))
    except ApiError as error:
        return no_update, failure(error.problem.detail), no_update, no_update, no_update
    cut = f"Only the first {len(trace.tokens)} tokens are shown." if trace.truncated else None
    return kept(trace, str(text)), cut, None, views.text_strips(trace), views.notes(trace)


async def restored(client: Sender, asked: dict[str, Any] | None, traced: Traced | None) -> tuple[Any, ...]:
    """What the page shows for a state from a link, the history or undo; a text that it shows already stays as it is.

    Returns:
        what `analysed` returns, then the interventions, the text and the model.
    """
    if not isinstance(asked, dict):
        return (no_update,) * 8
    text, model = str(asked.get("text") or ""), str(asked.get("model") or "")
    chosen = interventions.read_interventions(str(asked.get("do") or ""))
    same = traced is not None and (traced["text"], traced["model"]) == (text, model)
    if same or not text:
        return no_update, None, no_update, no_update, no_update, chosen, text or no_update, model or no_update
    anew, message, token, strips, notes = await analysed(client, text, model)
    if asked.get("cut"):
        beginning = html.P("The text was too long for a link: this is its beginning.")
        message = beginning if message is None else html.Div([beginning, message])
    return anew, message, token, strips, notes, chosen, text, model


async def intervened(client: Sender, traced: Traced | None, chosen: Rows, token: int | None) -> tuple[Any, Any, Any]:
    """All that interventions change on the page, in one answer: a slider asks for it many times a second.

    Returns:
        strips of what changes, the totals over the text, the chosen token's panel.
    """
    if traced is None:
        return None, None, no_update
    ablation: Ablation | None = None
    result: Component | None = None
    if chosen:
        try:
            ablation = await _ablated(client, traced, chosen, token)
            result = views.totals(ablation)
        except ApiError as error:
            result = failure(error.problem.detail)
    detail = no_update if token is None else await _token_panel(client, traced, ablation, token)
    return views.change_strips(traced["id"], ablation), result, detail


async def token_chosen(client: Sender, traced: Traced | None, chosen: Rows, token: int | None) -> Any:
    """What the model predicts at a token, before and after the interventions."""
    if traced is None or token is None:
        return None
    try:
        ablation = await _ablated(client, traced, chosen, token) if chosen else None
    except ApiError:  # the interventions' own panel says why
        ablation = None
    return await _token_panel(client, traced, ablation, token)


async def _token_panel(client: Sender, traced: Traced, ablation: Ablation | None, token: int) -> Component:
    """A panel of what the model predicts at a token, or why there is none.

    Args:
        ablation: with the predictions at this token alone.
    """
    try:
        trace = await ask(client, traced, lambda text: calls.text(text, predictions_at=[token]))
    except ApiError as error:
        return failure(error.problem.detail)
    return panel(
        "Predictions at the chosen token",
        views.token_facts(trace, ablation, token),
        graph(prediction_bars(*views.predictions_at(trace, ablation, token))),
    )


async def _ablated(client: Sender, traced: Traced, chosen: Rows, token: int | None) -> Ablation:
    request = AblateRequest(
        interventions=[InterventionRequest(**row) for row in chosen], predictions_at=[] if token is None else [token]
    )
    return await ask(client, traced, lambda text: calls.ablate(text, request))


async def who_matters(client: Sender, traced: Traced | None, token: int | None) -> Any:
    """All last-layer neurons ranked at one token, or why not."""
    if traced is None or token is None:
        return None
    try:
        sweep = await ask(client, traced, lambda text: calls.sweep(text, SweepRequest(position=token, limit=10)))
    except ApiError as error:
        return failure(error.problem.detail)
    return views.who_matters(sweep, traced["model"])


async def pinned(client: Sender, traced: Traced | None, pins: Any) -> tuple[Any, Any]:
    """The pinned neurons' strips and the title over them, or nothing where none is pinned."""
    names = [] if traced is None else views.pinned_names(pins, traced["model"])
    if traced is None or not names:
        return None, None
    try:
        activations = await ask(client, traced, lambda text: calls.activations(text, names))
    except ApiError as error:
        return None, failure(error.problem.detail)
    return views.pinned_strips(traced["id"], activations), views.pinned_head()


async def rows_shown(client: Sender, traced: Traced | None, chosen: Rows | None) -> list[Component]:
    """The interventions with their controls; a slider that sets a neuron's activation reaches those on the text."""
    names = [row["neuron"] for row in chosen or [] if row["kind"] == "value"]
    known: dict[str, list[float]] = {}
    if traced is not None and names:
        try:
            activations = await ask(client, traced, lambda text: calls.activations(text, names))
            known = {strip.neuron: strip.activations for strip in activations.strips}
        except ApiError:
            pass  # the interventions' own panel says what is wrong; their controls are there all the same
    return [interventions.intervention_row(row, known.get(row["neuron"], ())) for row in chosen or []]
