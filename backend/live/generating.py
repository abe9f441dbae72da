"""A generation in progress: each step waits its turn at the model, so it holds up nobody for longer than a token."""

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.core.errors import CalibroscopeError
from backend.core.interventions.generation import EndReason, Generation, Step
from backend.core.models.analysis_model import AnalysisModel


class ModelPutAway(CalibroscopeError):
    """The model that was at work has made room for another one."""

    def __init__(self, again: str) -> None:
        super().__init__(f"Another model was asked for and took this one's place in memory. {again}")


@dataclass(frozen=True)
class LiveStep:
    """A step, and the strings of its tokens by id."""

    step: Step
    strings: dict[int, str]


class LiveGeneration:
    """Both continuations, a step at a time. Close it when nobody listens any more."""

    def __init__(
        self,
        generation: Generation,
        model: AnalysisModel,
        in_turn: Callable[[Callable[[], LiveStep]], LiveStep],
        still_loaded: Callable[[AnalysisModel], bool],
        release: Callable[[], None],
    ) -> None:
        """in_turn: runs work in the queue to the model; release: gives back the place among the generations."""
        self._generation, self._model = generation, model
        self._in_turn, self._still_loaded = in_turn, still_loaded
        self._began = time.monotonic()
        self.steps = 0
        # Also when the answer is never read and this object is only forgotten.
        self._release: Any = weakref.finalize(self, release)

    @property
    def ended(self) -> EndReason | None:
        """Why there is no further step, or None."""
        return self._generation.ended

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def step(self) -> LiveStep:
        """The next token of each continuation.

        Raises:
            ModelPutAway: the model is no longer in memory.
        """
        done = self._in_turn(self._work)
        self.steps += 1
        return done

    def _work(self) -> LiveStep:
        if not self._still_loaded(self._model):
            raise ModelPutAway("Generate again.")
        step = self._generation.step()
        ids = sorted({chosen.token for chosen in (step.plain, step.changed) if chosen is not None})
        return LiveStep(step, dict(zip(ids, self._model.token_strings(ids), strict=True)))

    def close(self) -> None:
        """Make room for another generation. Closing twice is harmless."""
        self._release()
