"""A traced text as the page keeps it: an id, by which the service finds all the rest, and what traces it again."""

from collections.abc import Callable
from typing import TypedDict

from dash import set_props

from app.pages.lab import ids, views
from backend.client import Answer, ApiError, Call, Sender, calls
from backend.schemas import TextTrace


class Traced(TypedDict):
    """The id of a traced text, and the text and model by which it is traced again once the service has forgotten it."""

    id: str
    text: str
    model: str


def kept(trace: TextTrace, text: str) -> Traced:
    """What of a trace stays in the page."""
    return {"id": trace.id, "text": text, "model": trace.model}


async def ask(client: Sender, traced: Traced, call: Callable[[str], Call[Answer]]) -> Answer:
    """The answer to a call about a text, given the text's id.

    The service may have restarted, or made room for other texts: then the text is traced again, silently. Its id comes
    from its content and is the one in the page, unless the model has begun to read texts with another beginning; then
    the page is drawn anew.

    Raises:
        ApiError: the service refuses, or does not answer.
    """
    try:
        return await client.send(call(traced["id"]))
    except ApiError as error:
        if error.problem.status != 404:
            raise
        trace = await client.send(calls.trace_text(traced["model"], traced["text"]))
        if trace.id != traced["id"]:
            set_props(ids.TRACED, {"data": kept(trace, traced["text"])})
            set_props(ids.STRIPS, {"data": views.text_strips(trace)})
        return await client.send(call(trace.id))
