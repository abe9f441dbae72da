"""Sampling on from a text twice under the same chance: as the model is, and under interventions.

Both continuations add the same Gumbel noise to their logits at each step and take the largest sum, which samples from
the softmax (Gumbel-max). So they part only where the intervention changes what is chosen, not by luck of the draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from backend.core.errors import BadText
from backend.core.interventions.ablation import Means, check_interventions, references
from backend.core.interventions.hooks import replacing
from backend.core.interventions.kinds import Intervention
from backend.core.models.analysis_model import AnalysisModel, Hooks
from backend.core.models.traced_text import TracedText

_COLDEST = 0.01
"""Below this temperature the noise no longer decides anything: the most probable token is taken."""

EndReason = Literal["length", "end_of_text", "context_full"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. temperature 0 takes the most probable; the same seed gives the same continuation."""

    temperature: float
    seed: int
    max_tokens: int


@dataclass(frozen=True)
class ChosenToken:
    """One generated token: the model's probability of it and its entropy there, both at temperature 1."""

    token: int
    probability: float
    entropy: float
    """Nats."""


@dataclass(frozen=True)
class Step:
    """A token of each continuation; None of one that has ended, or that there is no intervention for."""

    plain: ChosenToken | None
    changed: ChosenToken | None


class Continuation:
    """A text that grows under hooks. Keys and values of what has run are kept, so each token costs one token's pass."""

    def __init__(self, model: AnalysisModel, tokens: Sequence[int], hooks: Hooks) -> None:
        self._model, self._hooks = model, hooks
        self._memory: Any = model.new_memory()
        self._unread = list(tokens)
        self.ended = False

    def advance(self, sampling: Sampling, noise: Float[Tensor, "d_vocab"] | None) -> ChosenToken | None:
        """The next token, which joins the text; None once the model has ended it."""
        if self.ended:
            return None
        chosen = choose(self._logits(), sampling.temperature, noise)
        self._unread = [chosen.token]
        self.ended = chosen.token in self._model.ends
        return chosen

    def _logits(self) -> Tensor:
        """After the text as it stands, [d_vocab]."""
        readout = self._model.readout
        residual = self._model.extended(torch.tensor([self._unread]), self._memory, self._hooks)
        centred = readout.centred(residual[0, -1:])
        return readout.logits(centred, readout.scale(centred))[0]


class Generation:
    """Both continuations of a text, a step at a time."""

    def __init__(
        self,
        model: AnalysisModel,
        text: TracedText,
        interventions: Sequence[Intervention],
        means: Means | None,
        sampling: Sampling,
    ) -> None:
        """Both continuations of a text, before their first token.

        Args:
            means: the reference mean of every neuron of the last layer; units of other layers take the mean over the
                text, not over what is generated. None takes that for all.

        Raises:
            BadNeuron: a neuron or a head that the model does not have.
            BadIntervention: the same one twice.
            BadText: the text leaves no room in the model's context.
        """
        check_interventions(model, interventions)
        self._room = model.max_tokens - len(text.tokens)
        if self._room < 1:
            raise BadText(
                f"The text fills the model's context of {model.max_tokens} tokens: shorten it to generate on from it."
            )
        self._sampling, self._steps = sampling, 0
        self._chance = torch.Generator().manual_seed(sampling.seed)
        self._d_vocab, self._device = model.d_vocab, model.device
        self._plain = Continuation(model, text.tokens, [])
        self._changed = None
        if interventions:
            means_of_units = references(model, text, interventions, means)
            self._changed = Continuation(model, text.tokens, replacing(interventions, means_of_units))

    @property
    def ended(self) -> EndReason | None:
        """Why there is no further token, or None."""
        running = [self._plain] if self._changed is None else [self._plain, self._changed]
        if all(continuation.ended for continuation in running):
            return "end_of_text"
        if self._steps >= self._sampling.max_tokens:
            return "length"
        return "context_full" if self._steps >= self._room else None

    def step(self) -> Step:
        """One more token of each."""
        noise = self._noise() if self._sampling.temperature >= _COLDEST else None
        self._steps += 1
        plain = self._plain.advance(self._sampling, noise)
        return Step(plain, None if self._changed is None else self._changed.advance(self._sampling, noise))

    def _noise(self) -> Tensor:
        # Drawn on the CPU, so that a seed means the same on every device.
        uniform = torch.rand(self._d_vocab, generator=self._chance, dtype=torch.float64)
        return -(-uniform.clamp_min(1e-300).log()).log().to(self._device)


def choose(logits: Float[Tensor, "d_vocab"], temperature: float, noise: Float[Tensor, "d_vocab"] | None) -> ChosenToken:
    """A token from the logits: the most probable, or with Gumbel noise a sample of softmax(logits/T)."""
    log_p = logits.double().log_softmax(0)
    token = int((log_p if noise is None else log_p / temperature + noise).argmax())
    p = log_p.exp()
    return ChosenToken(token, float(p[token]), float(-(p * log_p).nan_to_num().sum()))
