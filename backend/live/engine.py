"""Loaded models and traced texts in memory, and what is asked of them: one request at a time, in line."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import BadText, CalibroscopeError
from backend.core.interventions.ablation import ablate_text
from backend.core.interventions.forward import activations_of
from backend.core.interventions.frequency_distance import TextFrequencies
from backend.core.interventions.generation import Generation, Sampling
from backend.core.interventions.kinds import Intervention
from backend.core.interventions.sweep import sweep_text
from backend.core.kernels.choose import DEFAULT_MEMORY
from backend.core.kernels.engine import EffectsEngine
from backend.core.metrics.token_weights import token_weights
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.beginning import Beginning, habit
from backend.core.models.traced_text import State, TracedText, trace_text, trace_tokens
from backend.core.models.trust import KnownSources
from backend.core.neurons import NeuronId
from backend.glossary import SweepTarget
from backend.live.cache import LoadedModels
from backend.live.queue import EngineBusy, Line, Place
from backend.live.streams import LiveStream, ModelPutAway, StreamLimit
from backend.live.texts import (
    Distances,
    LiveAblation,
    LiveFrequencies,
    LiveGenerationStep,
    LiveModel,
    LiveSweep,
    LiveText,
    LiveTokenWeights,
)

_MOST_FREQUENCIES = 4
"""Runs whose token frequencies are kept: some hundred kilobytes each."""
Result = TypeVar("Result")
_MOST_GENERATIONS = 4
"""At the same time: each keeps keys and values in memory, and they share the model's time."""
_MOST_EXPERIMENTS = 2


class TooManyGenerations(EngineBusy):
    """As many texts are being continued as may be at once."""

    def __init__(self, running: int) -> None:
        message = f"{running} texts are being continued already, as many as may be. Try again when one has ended."
        super().__init__(running + 1, running, 10, message)


class TooManyExperiments(EngineBusy):
    """As many induction experiments run as may at once."""

    def __init__(self, running: int) -> None:
        message = f"{running} induction experiments run already, as many as may. Try again when one has ended."
        super().__init__(running + 1, running, 30, message)


class TextForgotten(CalibroscopeError):
    """A text id that was never given out, or whose text has made room for newer ones."""

    def __init__(self, text_id: str) -> None:
        super().__init__(f"There is no traced text {text_id[:40]!r} any more: send the text again.")


class LiveEngine:
    """Serves texts and interventions on them, one at a time."""

    def __init__(
        self,
        cache: Path,
        *,
        device: str = "auto",
        models: int = 1,
        texts_mb: int = 1024,
        queue_limit: int = 8,
        queue_seconds: float = 10,
        memory: int = DEFAULT_MEMORY,
        known: KnownSources | None = None,
    ) -> None:
        """
        Args:
            models: how many stay loaded.
            texts_mb: memory for traced texts.
            queue_limit: requests that may wait, the running one included.
            queue_seconds: until the last of them has its answer, as far as recent ones tell.
            memory: bytes for computing the effects of all neurons.
            known: which sources models may be loaded from; None trusts whatever the atlas names.
        """
        self._texts: OrderedDict[str, LiveText] = OrderedDict()
        self._most_bytes = texts_mb << 20
        self._line = Line(queue_limit, queue_seconds)
        self._lock = threading.Lock()
        self._memory = memory
        self._generations = StreamLimit(_MOST_GENERATIONS, TooManyGenerations)
        self._experiments = StreamLimit(_MOST_EXPERIMENTS, TooManyExperiments)
        self._effects: dict[str, EffectsEngine] = {}
        self._rehearsed: set[str] = set()
        self._frequencies: OrderedDict[tuple[str, str], TextFrequencies] = OrderedDict()
        self._models = LoadedModels(
            cache,
            device,
            models,
            known=known,
            forgotten=self._forget_engine,
            changed=self._forget_texts,
            took=self._line.set_aside,
        )

    @property
    def waiting(self) -> int:
        """Requests in line, the running one included."""
        return self._line.waiting

    @property
    def loaded(self) -> list[str]:
        """Sources of the models in memory."""
        return self._models.sources

    def close(self) -> None:
        """Answer those who wait that the service is being stopped; nothing is asked of the model any more."""
        self._line.close()

    def join(self) -> Place:
        """A place in line, for a request that needs the model: what it asks of this engine within its turn is done at
        once.

        Raises:
            EngineBusy: there is none.
        """
        return self._line.join()

    def trace(self, model: LiveModel, text: str, max_tokens: int) -> LiveText:
        """Run the model over a text, or find it traced already.

        Raises:
            EngineBusy, CalibroscopeError: as the queue, the source and the model raise them.
        """
        text_id = _text_id(model, text, max_tokens)

        def traced(loaded: AnalysisModel) -> tuple[TracedText, Beginning]:
            beginning = model.beginning or habit(loaded)
            return trace_text(loaded, text, max_tokens, beginning.token), beginning

        live = self._in_turn(lambda: self._traced(text_id, model, traced))
        self._rehearse(live)
        return live

    def trace_tokens(self, model: LiveModel, tokens: list[int]) -> LiveText:
        """Run the model over tokens as they are, or find them traced already.

        Raises:
            EngineBusy, CalibroscopeError: as the queue, the source and the model raise them.
        """
        text_id = _tokens_id(model, tokens)
        return self._in_turn(lambda: self._traced(text_id, model, lambda loaded: (trace_tokens(loaded, tokens), None)))

    def text(self, text_id: str) -> LiveText:
        """A traced text.

        Raises:
            TextForgotten: it is not in memory.
        """
        with self._lock:
            text = self._texts.get(text_id)
            if text is None:
                raise TextForgotten(text_id)
            self._texts.move_to_end(text_id)
            return text

    def distances(self, text: LiveText, frequencies: LiveFrequencies) -> Distances:
        """D_KL(P_freq‖P) at every token of a text, [tokens]."""
        if (known := text.distances(frequencies)) is not None:
            return known

        def work() -> Distances:
            self._of(text)
            return self._known(text.model, frequencies).before(text.traced)

        return self._in_turn(work)

    def ablate(
        self,
        text: LiveText,
        interventions: Sequence[Intervention],
        means: NDArray[np.float64] | None,
        frequencies: LiveFrequencies | None = None,
        predictions_at: Sequence[int] | None = None,
    ) -> LiveAblation:
        """A text under interventions, from memory where the last that was asked of the text is asked again.

        Args:
            means: the reference mean of every neuron of the last layer, [d_mlp]; None takes the means over the text.
            predictions_at: the tokens whose predictions are needed as strings; None for all.

        Raises:
            BadNeuron, BadIntervention: the model does not have a unit, or it cannot be set so.
            BadText: the text has no such token.
        """
        key = (tuple(interventions), None if means is None else means.tobytes(), frequencies and frequencies.key)

        def work() -> LiveAblation:
            loaded, at = self._of(text), predictions_at and [text.traced.within(place) for place in predictions_at]
            if key not in text.ablations:
                known = None if frequencies is None else self._known(text.model, frequencies)
                result = ablate_text(loaded, text.traced, interventions, means, known)
                text.ablations.clear()
                text.ablations[key] = result
                self._make_room()
            result = text.ablations[key]
            return LiveAblation(result, _strings(loaded, [], result.total, result.frozen, at=at))

        return self._in_turn(work)

    def sweep(
        self, text: LiveText, position: int | None, target: SweepTarget, means: NDArray[np.float64] | None
    ) -> LiveSweep:
        """All neurons of the last layer, each alone, at one position or at all that count.

        Raises:
            BadText: the text has no such position.
        """

        def work() -> LiveSweep:
            self._of(text)
            effects = sweep_text(self._all_neurons(text.model), text.traced, position, target, means)
            everywhere = text.traced.counted or list(range(len(text.traced.tokens)))
            return LiveSweep(effects, everywhere if position is None else [position])

        return self._in_turn(work)

    def activations(self, text: LiveText, neurons: Sequence[NeuronId]) -> list[Tensor]:
        """Each neuron's activations on a text, [tokens].

        Raises:
            BadNeuron: the model does not have one of them.
        """

        def work() -> list[Tensor]:
            model = self._of(text)
            for neuron in neurons:
                neuron.within(model.n_layers, model.d_mlp)
            activations = activations_of(model, text.traced, neurons)
            self._make_room()
            return activations

        return self._in_turn(work)

    def token_weights(self, model: LiveModel, layer: int, token: int) -> LiveTokenWeights:
        """Every neuron's direct weight on a token's logit, from the weights alone.

        Raises:
            BadLayer: the model does not have the layer.
            BadText: its vocabulary does not have the token.
        """

        def work() -> LiveTokenWeights:
            loaded = self._models.loaded(model)
            if not 0 <= token < loaded.d_vocab:
                raise BadText(f"{loaded.name} has no token {token}: its tokens are 0 to {loaded.d_vocab - 1}.")
            readout = loaded.readout_of(layer)
            weights = token_weights(readout.W_out, readout.W_U, token)
            return LiveTokenWeights(loaded.token_strings([token])[0], weights.cpu())

        return self._in_turn(work)

    def generate(
        self,
        text: LiveText,
        interventions: Sequence[Intervention],
        means: NDArray[np.float64] | None,
        sampling: Sampling,
    ) -> LiveStream[LiveGenerationStep]:
        """Both continuations of a text; nothing has been generated yet when this returns.

        Raises:
            TooManyGenerations, EngineBusy: not now; BadNeuron, BadIntervention, BadText: never.
        """

        def begin() -> tuple[AnalysisModel, Iterator[LiveGenerationStep]]:
            model = self._of(text)
            return model, _generated(model, Generation(model, text.traced, interventions, means, sampling))

        return self._stream(self._generations, begin, "Generate again.")

    def measure(self, model: LiveModel, begin: Callable[[AnalysisModel], Iterator[Result]]) -> LiveStream[Result]:
        """An experiment on a model; nothing but its beginning has been done when this returns.

        Args:
            begin: is handed the model; raises what is wrong with the experiment, and yields what it measures. All of it
                runs where the model does.

        Raises:
            TooManyExperiments, EngineBusy: not now; or what `begin` raises.
        """

        def begun() -> tuple[AnalysisModel, Iterator[Result]]:
            loaded = self._models.loaded(model)
            return loaded, begin(loaded)

        return self._stream(self._experiments, begun, "Measure again.")

    def _stream(
        self, limit: StreamLimit, begin: Callable[[], tuple[AnalysisModel, Iterator[Result]]], again: str
    ) -> LiveStream[Result]:
        limit.take()
        try:
            model, items = self._in_turn(begin)
        except BaseException:
            limit.give_back()
            raise

        def ready() -> None:
            if not self._holds(model):
                raise ModelPutAway(again)

        return LiveStream(items, self._in_turn_admitted, ready, limit)

    def _holds(self, model: AnalysisModel) -> bool:
        return self._models.hold(model)

    def _in_turn_admitted(self, work: Callable[[], Result]) -> Result:
        return self._in_turn(work, admitted=True)

    def _in_turn(self, work: Callable[[], Result], *, admitted: bool = False) -> Result:
        return self._line.turn(partial(_without_gradients, work), admitted=admitted)

    def _traced(
        self, text_id: str, model: LiveModel, trace: Callable[[AnalysisModel], tuple[TracedText, Beginning | None]]
    ) -> LiveText:
        loaded = self._models.loaded(model)
        with self._lock:
            if text_id in self._texts:
                self._texts.move_to_end(text_id)
                return self._texts[text_id]
        traced, beginning = trace(loaded)
        strings = _strings(loaded, traced.tokens, traced.before)
        weights = self._models.fingerprint(model.source)
        live = LiveText(text_id, model, loaded.last_layer, traced, beginning, strings, weights)
        with self._lock:
            self._texts[text_id] = live
        self._make_room()
        return live

    def _rehearse(self, text: LiveText) -> None:
        """Ablate two tokens once nobody waits: the first ablation of a process compiles or loads its loops, and whoever
        moves a slider first should not wait for that. Once for a model."""
        with self._lock:
            if text.model.source in self._rehearsed:
                return
            self._rehearsed.add(text.model.source)

        def work() -> None:
            if text.model.source in self.loaded:  # otherwise another model has taken its place
                model = self._of(text)
                two = trace_tokens(model, (text.traced.tokens * 2)[:2])
                ablate_text(model, two, [Intervention(NeuronId(text.layer, 0), "zero")], None)

        self._line.when_free(partial(_without_gradients, work))

    def _make_room(self) -> None:
        """Forget the texts that have not been asked for longest, until the rest fit; the last asked for always stays.

        What is done to a text keeps more of it: its residual stream at other layers.
        """
        with self._lock:
            while len(self._texts) > 1 and sum(map(_bytes, self._texts.values())) > self._most_bytes:
                self._texts.popitem(last=False)

    def _all_neurons(self, model: LiveModel) -> EffectsEngine:
        """The engine that keeps A, made when a model is first swept and gone with the model."""
        loaded = self._models.loaded(model)
        if model.source not in self._effects:
            self._effects[model.source] = EffectsEngine(loaded.readout, memory=self._memory)
        return self._effects[model.source]

    def _known(self, model: LiveModel, frequencies: LiveFrequencies) -> TextFrequencies:
        key = (model.source, frequencies.key)
        if key not in self._frequencies:
            while len(self._frequencies) >= _MOST_FREQUENCIES:
                self._frequencies.popitem(last=False)
            p = torch.from_numpy(frequencies.p)
            self._frequencies[key] = TextFrequencies.of(frequencies.key, self._models.loaded(model).readout, p)
        self._frequencies.move_to_end(key)
        return self._frequencies[key]

    def _of(self, text: LiveText) -> AnalysisModel:
        """The model that a text was traced by.

        Raises:
            TextForgotten: the model's files have changed since.
        """
        loaded = self._models.loaded(text.model)
        if text.weights != self._models.fingerprint(text.model.source):
            raise TextForgotten(text.id)
        return loaded

    def _forget_engine(self, source: str) -> None:
        self._effects.pop(source, None)

    def _forget_texts(self, source: str) -> None:
        """All that was computed by a model whose files have changed."""
        with self._lock:
            for text_id in [text_id for text_id, text in self._texts.items() if text.model.source == source]:
                del self._texts[text_id]
        for key in [key for key in self._frequencies if key[0] == source]:
            del self._frequencies[key]


def _generated(model: AnalysisModel, generation: Generation) -> Iterator[LiveGenerationStep]:
    while generation.ended is None:
        step = generation.step()
        ids = sorted({chosen.token for chosen in (step.plain, step.changed) if chosen is not None})
        strings = dict(zip(ids, model.token_strings(ids), strict=True))
        yield LiveGenerationStep(step, strings, generation.ended)


def _without_gradients(work: Callable[[], Result]) -> Result:
    with torch.inference_mode():
        return work()


def _strings(
    model: AnalysisModel, tokens: list[int], *states: State, at: Sequence[int] | None = None
) -> dict[int, str]:
    # A tokenizer is not safe to use from several threads, so strings are made where the model is used.
    top = [state.top_tokens if at is None else state.top_tokens[list(at)] for state in states]
    ids = sorted(set(tokens).union(*(tokens.unique().tolist() for tokens in top)))
    return dict(zip(ids, model.token_strings(ids), strict=True))


def _bytes(text: LiveText) -> int:
    """Of all tensors that a traced text holds, those included that were kept while it was worked on."""
    states = [state for ablation in text.ablations.values() for state in (ablation.total, ablation.frozen)]
    holders = (text.traced, text.traced.predictions, *text.ablations.values(), *states)
    parts = [part for holder in holders for part in vars(holder).values()]
    kept = [tensor for part in parts if isinstance(part, dict) for tensor in part.values()]
    return sum(tensor.nbytes for tensor in [*parts, *kept] if isinstance(tensor, Tensor))


def _text_id(model: LiveModel, text: str, max_tokens: int) -> str:
    # Two runs may have the same beginning for different reasons, and the reason is told with the text.
    begins = "as the tokenizer" if model.beginning is None else f"{model.beginning.token}\0{model.beginning.reason}"
    digest = hashlib.sha256(f"{model.slug}\0{model.source}\0{max_tokens}\0{begins}\0".encode())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:24]


def _tokens_id(model: LiveModel, tokens: list[int]) -> str:
    digest = hashlib.sha256(f"{model.slug}\0{model.source}\0tokens\0".encode())
    digest.update(",".join(map(str, tokens)).encode())
    return digest.hexdigest()[:24]
