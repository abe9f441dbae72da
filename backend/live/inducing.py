"""An induction experiment in progress: each step waits its turn at the model, so that others are served in between."""

import time
import weakref
from collections.abc import Callable, Iterator

from backend import schemas
from backend.answers.induction import InductionAnswers
from backend.core.induction.experiment import Experiment, Plan, Progress
from backend.core.induction.text import RepeatSpec, find_repeats
from backend.core.models.analysis_model import AnalysisModel
from backend.live.generating import ModelPutAway

Event = (
    schemas.InductionProgress
    | schemas.InductionCurves
    | schemas.InductionClip
    | schemas.InductionChange
    | schemas.InductionHeads
    | schemas.InductionKnockout
    | schemas.InductionAttribution
)


class LiveInduction:
    """An experiment, an event at a time. Close it when nobody listens any more."""

    def __init__(
        self,
        model: AnalysisModel,
        spec: RepeatSpec,
        plan: Plan,
        in_turn: Callable[[Callable[[], Event | None]], Event | None],
        still_loaded: Callable[[AnalysisModel], bool],
        release: Callable[[], None],
    ) -> None:
        """in_turn: runs work in the queue to the model; release: gives back the place among the experiments.

        Raises:
            BadText, BadNeuron: nothing repeats, or the plan does not fit the model.
        """
        self._model, self._in_turn, self._still_loaded = model, in_turn, still_loaded
        self._began = time.monotonic()
        repeats, found = find_repeats(model, spec)
        experiment = Experiment(model, repeats, plan, spec.bos(model))
        self._steps: Iterator[object] = experiment.steps()
        self._answers = InductionAnswers(model, repeats, plan.neurons)
        self.start = self._answers.start(spec.source, plan.summary(found))
        # Also when the answer is never read and this object is only forgotten.
        self._release = weakref.finalize(self, release)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def step(self) -> Event | None:
        """The next event, or None at the end.

        Raises:
            ModelPutAway: the model is no longer in memory.
        """
        return self._in_turn(self._work)

    def _work(self) -> Event | None:
        if not self._still_loaded(self._model):
            raise ModelPutAway("Measure again.")
        found = next(self._steps, None)
        if found is None:
            return None
        if isinstance(found, Progress):
            return schemas.InductionProgress(done=found.done, of=found.of, doing=found.doing)
        return self._answers.event(found)

    def close(self) -> None:
        """Make room for another experiment. Closing twice is harmless."""
        self._release()
