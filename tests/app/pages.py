"""A service that answers what a test says, and the words of what a page makes of it."""

from collections.abc import Callable
from typing import Any

from backend import schemas
from backend.client import ApiError, Call
from tests.app import sample


class Service:
    """Answers by the end of the path; anything else is a 404 problem."""

    def __init__(self, **answers: Callable[[Call[Any]], Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def send(self, call: Call[Any]) -> Any:
        self.asked.append(call.path)
        answer = self.answers.get(call.path.rsplit("/", 1)[-1].replace(".", "_"))
        if answer is None:
            raise ApiError(schemas.Problem(title="Not found", status=404, detail=f"nothing at {call.path}"))
        return answer(call)


def body_of(call: Call[Any]) -> Any:
    """What a call sends along."""
    assert call.body is not None
    return call.body


def text_of(component: Any) -> str:
    """All the words of a component."""
    if component is None or isinstance(component, bool):
        return ""
    if isinstance(component, str | int | float):
        return str(component)
    if isinstance(component, list | tuple):
        return " ".join(text_of(part) for part in component)
    return text_of(getattr(component, "children", None))


def models_with(*runs: schemas.RunSummary) -> dict[str, Callable[[Call[Any]], Any]]:
    model = schemas.ModelSummary(
        id="tiny", name="Tiny", family="T", n_layers=30, d_model=8, d_mlp=40, d_vocab=10, norm="RMSNorm",
        n_runs=len(runs), latest_run=runs[0].id if runs else None,
    )  # fmt: skip
    return {
        "models": lambda _: schemas.ModelList(models=[model]),
        "runs": lambda _: schemas.RunList(runs=list(runs)),
        "columns": lambda call: sample.columns(call.params["name"]),
    }


def lines(figure: Any, **wanted: Any) -> dict[str, Any]:
    """The named lines of a figure; shades have no name."""
    return {trace.name: trace for trace in figure.data if trace.name is not None}
