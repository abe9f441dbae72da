"""What an address of the induction page asks for, and what its state means for the panels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError

from app.notation.units import is_head, is_neuron
from backend.schemas import (
    MAX_INDUCTION_NEURONS,
    MAX_JOB_SEQUENCES,
    MAX_SPAN,
    InductionJobRequest,
    InductionPart,
    InductionRequest,
    InductionSource,
    Job,
    KnockoutPositions,
)

PARTS: tuple[InductionPart, ...] = get_args(InductionPart)
SOURCES: tuple[InductionSource, ...] = get_args(InductionSource)
KNOCKED_OUT_AT: tuple[KnockoutPositions, ...] = get_args(KnockoutPositions)
SPANS: dict[InductionSource, int] = {"random": 100, "synthetic": 100, "natural": 6, "text": 4}
"""What repeats is as long as this unless a person says otherwise."""
MOST_HEADS = 6
MOST_SEED = 2**31 - 1
APART = ("natural", "text")
"""Sources whose occurrences have other text between them."""
_START = InductionRequest()


@dataclass(frozen=True)
class InductionSettings:
    """The controls as an address sets them; what cannot be read falls back to the start."""

    model: str | None = None
    run: str | None = None
    source: InductionSource = "synthetic"
    sequences: int = _START.sequences
    span: int = SPANS["synthetic"]
    neurons: list[str] = field(default_factory=list)
    parts: list[InductionPart] = field(default_factory=lambda: list(_START.parts))
    heads: list[str] = field(default_factory=list)
    top_heads: int = _START.top_heads
    knocked_out_at: KnockoutPositions = _START.knocked_out_at
    seed: int = 0
    go: bool = False
    """Whether the run starts by itself."""
    text: str | None = None
    """A job's own; a person's is kept by the browser."""


def read(**address: str | None) -> InductionSettings:
    """From an address's parameters; one's own text is not among them, it stays behind the `#`."""
    source: InductionSource = next((one for one in SOURCES if one == address.get("source")), "synthetic")
    at = next((one for one in KNOCKED_OUT_AT if one == address.get("at")), _START.knocked_out_at)
    parts = [part for part in PARTS if part in (address.get("parts") or "").split(",")]
    return InductionSettings(
        model=address.get("model"),
        run=address.get("run"),
        source=source,
        sequences=_whole(address.get("sequences"), 1, MAX_JOB_SEQUENCES, _START.sequences),
        span=_whole(address.get("span"), 2, MAX_SPAN, SPANS[source]),
        neurons=names(address.get("neurons"), is_neuron)[:MAX_INDUCTION_NEURONS],
        parts=parts or list(_START.parts),
        heads=names(address.get("heads"), is_head)[:MOST_HEADS],
        top_heads=_whole(address.get("top"), 1, MOST_HEADS, _START.top_heads),
        knocked_out_at=at,
        seed=_whole(address.get("seed"), 0, MOST_SEED, 0),
        go=address.get("go") == "1",
    )


def read_job(job: Job) -> InductionSettings:
    """As a job asks for it; the start where its request is of another time and cannot be read."""
    run = None if job.run is None else str(job.run)
    try:
        request = InductionJobRequest.model_validate(job.request)
    except ValidationError:
        return InductionSettings(model=job.model, run=run)
    return InductionSettings(
        model=job.model, run=run, source=request.source, sequences=request.sequences, span=request.span,
        neurons=list(request.neurons), parts=[part for part in PARTS if part in request.parts],
        heads=list(request.heads), top_heads=request.top_heads, seed=request.seed, text=request.text,
        knocked_out_at=request.knocked_out_at,
    )  # fmt: skip


def names(written: str | None, is_name: Callable[[object], bool]) -> list[str]:
    """The names in `29.830,29.1022`, each once; what does not read as one is left out."""
    return list(dict.fromkeys(name for name in (written or "").split(",") if is_name(name)))


def _whole(written: str | None, low: int, high: int, otherwise: int) -> int:
    try:
        return min(high, max(low, int(written or "")))
    except ValueError:
        return otherwise


def awaited(phase: dict[str, Any] | None, part: str) -> tuple[bool, str | None]:
    """Whether a part's panel is hidden, and what stands in it while its event is not there.

    Args:
        phase: what the browser says of the run: its `phase`, the `parts` asked for and those that `arrived`.
    """
    if not phase or part not in (*phase["parts"], *phase["arrived"]):
        return True, None
    if part in phase["arrived"]:
        return False, None
    return False, {
        "running": "Being measured: it appears here as soon as it is ready.",
        "done": "Nothing was measured: these sequences, neurons or heads gave nothing to measure it on.",
        "stopped": "Not measured: the run was cancelled before it came to this. Run it again for this part.",
    }.get(phase["phase"], "Not measured: the run failed before it came to this. The message above says why.")
