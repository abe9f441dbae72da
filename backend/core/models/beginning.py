"""How a model's sequences begin: with a token before the text (BOS), or with the text itself.

Whether a tokenizer names a BOS token says nothing of whether the model was trained with one. A model that was not is
broken by it before anything is measured: Qwen2.5 0.5B, whose GGUF file names one, goes from 3.94 to 4.79 nats a token.
So what the model itself loses decides, and where that does not tell, what its tokenizer does on its own.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backend.core.errors import BadConfig
from backend.core.models.analysis_model import AnalysisModel

AUTO, ALWAYS, NEVER = "auto", "always", "never"
WHY, BY_FREQUENCY = "Why", "Mean loss of predicting by token frequencies alone, nats"
"""Under which a run's card has the reason, and the loss that a model has to be below."""
NOT_ITSELF = "the model is not itself"
MEASURED_TOKENS = 2_000
"""Tokens of the corpus on which the two beginnings are compared, about."""
DECISIVE = 0.02
"""nats; closer than that, the two beginnings count as equal. On that much text the standard error of the difference,
taken token by token, is some 0.007."""
_FIRST_COUNTED = 5
"""Of a sequence's text: whatever stands before it, its first tokens lack the context that the others have."""
_TOKENS_AT_ONCE, _ROWS_AT_ONCE = 512, 128


@dataclass(frozen=True)
class Preset:
    """A family whose beginning is settled: its architecture, its BOS as text, and whether its tokenizer adds that."""

    architecture: str
    bos: str
    added: bool
    reason: str


_PAPER = "the paper's code puts it before each sequence of"
PRESETS: tuple[Preset, ...] = (
    Preset("GPT2LMHeadModel", "<|endoftext|>", added=False, reason=f"{_PAPER} GPT-2"),
    Preset("GPTNeoXForCausalLM", "<|endoftext|>", added=False, reason=f"{_PAPER} Pythia"),
    Preset("PhiForCausalLM", "<|endoftext|>", added=False, reason=f"{_PAPER} Phi-2"),
    Preset("LlamaForCausalLM", "<s>", added=True, reason="LLaMA was trained with it, and its tokenizer adds it"),
    Preset("GemmaForCausalLM", "<bos>", added=True, reason="Gemma was trained with it, and its tokenizer adds it"),
)
"""The paper's models: measured as its authors measured them, whatever the losses say (which are told)."""


@dataclass(frozen=True)
class Losses:
    """Mean losses over the same tokens of a corpus, in nats."""

    tokens: int
    """How many they are means over."""
    with_token: float | None
    """With the token in question before each sequence; None where there is none to ask about."""
    without: float
    by_frequency: float
    """Of predicting each token by how often it occurs among the others, without reading any."""


@dataclass(frozen=True)
class Beginning:
    """What stands before each sequence of a model, and why."""

    token: int | None
    """None for nothing: sequences begin with text."""
    policy: str
    """As asked for: auto, always, never, or a token."""
    reason: str
    """A sentence, without its full stop."""
    written: str | None = None
    """The token as text, where it was decided with the model at hand."""
    tested: str | None = None
    """The token, as text, that `losses` were measured with."""
    losses: Losses | None = None
    """None where nothing was measured."""

    @property
    def warnings(self) -> list[str]:
        """Sentences for losses which say that the model is not itself."""
        if self.losses is None:
            return []
        loss, otherwise = self.losses.without, self.losses.with_token
        if self.token is not None and otherwise is not None:
            loss, otherwise = otherwise, loss
        sentences = (self._worse(loss, otherwise), not_itself(loss, self.losses.by_frequency))
        return [sentence for sentence in sentences if sentence is not None]

    def _worse(self, loss: float, otherwise: float | None) -> str | None:
        if otherwise is None or not loss - otherwise > DECISIVE:
            return None
        here, there = f"with {self.tested} before each sequence", "without it"
        if self.token is None:
            here, there = f"without {self.tested} before each sequence", "with it"
        instead = (
            "With --bos auto the lower loss decides."
            if self.policy != AUTO
            else (f"--bos {ALWAYS if self.token is None else NEVER} measures the other.")
        )
        return (
            f"The model loses {loss:.2f} nats a token {here}, and {otherwise:.2f} {there}: it is measured worse than "
            f"it could be. {instead}"
        )

    def uncounted(self, special: frozenset[int]) -> frozenset[int]:
        """Tokens at which, or before which, nothing is measured: the special ones and the one that is prepended."""
        return special if self.token is None else special | {self.token}

    def as_section(self) -> dict[str, Any]:
        """For a run's card: a few words, and what there is to know by what it is."""
        losses = {}
        if self.losses is not None:
            losses = {
                f"Mean loss with {self.tested}, nats": self.losses.with_token,
                "Mean loss without a BOS, nats": self.losses.without,
                BY_FREQUENCY: self.losses.by_frequency,
                "Tokens these are means over": self.losses.tokens,
            }
            losses = {name: value for name, value in losses.items() if value is not None}
        short = "no BOS" if self.token is None else f"BOS {self.written}"
        before = "nothing" if self.token is None else f"{self.written} (token {self.token})"
        return {
            "short": short,
            "facts": {"Before each sequence": before, WHY: self.reason, "Asked for": f"--bos {self.policy}"} | losses,
        }


def not_itself(loss: float, by_frequency: float) -> str | None:
    """A sentence where a model predicts no better than the frequencies of tokens do; None where it does.

    A language model that reads what precedes a token is far better than one that does not. Where it is not, something
    is broken: the weights, the tokenizer, the beginning, or the text is of a language that the model does not know.
    """
    if loss < by_frequency:
        return None
    return (
        f"The model's mean loss is {loss:.2f} nats a token, and how often each token occurs in the text would alone "
        f"give {by_frequency:.2f}: {NOT_ITSELF}. Its weights, its tokenizer or the text's language are not "
        "what it was trained with."
    )


def decide(model: AnalysisModel, policy: str, text: Tensor) -> Beginning:
    """How sequences begin, by a policy, with the losses of both ways.

    Args:
        policy: auto, always, never, or a token: its text, or its number.
        text: sequences of the corpus without any beginning, [sequences, length], about `MEASURED_TOKENS` tokens.

    Raises:
        BadConfig: the model does not have the token that is asked for.
    """
    asked = None if policy in (AUTO, ALWAYS, NEVER) else token_called(model, policy)
    habit = model.prepended
    candidate = asked if asked is not None else habit if habit is not None else model.bos
    if policy == ALWAYS and candidate is None:
        raise BadConfig(
            f"--bos always: the tokenizer of {model.name} names no BOS token. Name the token instead, such as "
            "--bos '<|endoftext|>', or take --bos never."
        )
    losses = measure(model, text, candidate)
    token, reason = (candidate, f"asked for with --bos {policy}")
    if policy == NEVER:
        token = None
    elif policy == AUTO:
        token, reason = _chosen(model, candidate, losses)
    return Beginning(token, policy, reason, _written(model, token), _written(model, candidate), losses)


def habit(model: AnalysisModel, because: str = "no run of the model has measured it") -> Beginning:
    """What the tokenizer does on its own, for a model of which nothing is measured."""
    token = model.prepended
    return Beginning(token, AUTO, f"{_tokenizers_way(model)}; {because}", _written(model, token))


def _chosen(model: AnalysisModel, candidate: int | None, losses: Losses | None) -> tuple[int | None, str]:
    if candidate is None:
        return None, "the tokenizer names no token to begin with"
    written = _written(model, candidate)
    for preset in PRESETS:
        described = preset.architecture, preset.bos, preset.added
        if described == (model.family, written, model.prepended == candidate):
            return candidate, preset.reason
    if losses is None or losses.with_token is None:
        return (
            model.prepended,
            f"{_tokenizers_way(model)}; the corpus is too short to measure what that does to the loss",
        )
    measured = (
        f"over {losses.tokens:,} tokens of the corpus the loss is {losses.with_token:.3f} nats with {written} before "
        f"each sequence and {losses.without:.3f} without"
    )
    gain = losses.without - losses.with_token
    if gain > DECISIVE:
        return candidate, f"{measured}, so it is put there"
    if gain < -DECISIVE:
        return None, f"{measured}, so it is left out"
    return model.prepended, f"{measured}, which is as good as equal: {_tokenizers_way(model)}"


def _tokenizers_way(model: AnalysisModel) -> str:
    token = model.prepended
    return "as the tokenizer on its own, which adds " + ("none" if token is None else f"{_written(model, token)}")


def _written(model: AnalysisModel, token: int | None) -> str | None:
    return None if token is None else model.token_strings([token])[0]


def token_called(model: AnalysisModel, called: str) -> int:
    """A token by its number, by its name in the vocabulary, or by the text that it stands for.

    Raises:
        BadConfig: there is no such token, or the text is several.
    """
    known = min(len(model.tokenizer), model.d_vocab)
    if called.isascii() and called.isdigit():
        if len(called) > 9 or int(called) >= known:
            raise BadConfig(f"--bos {called[:40]}: the tokens of {model.name} are 0 to {known - 1}.")
        return int(called)
    named = model.tokenizer.get_vocab().get(called)
    ids = model.encode(called) if named is None else [named]
    if len(ids) == 1 and ids[0] < known:
        return int(ids[0])
    what = f"is {len(ids)} tokens of its vocabulary" if ids else "is no token of its vocabulary"
    raise BadConfig(
        f"--bos {called[:40]!r}: for {model.name} this {what}. Give auto, always, never, a token (such as "
        "'<|endoftext|>') or a token's number."
    )


def measure(model: AnalysisModel, text: Tensor, token: int | None) -> Losses | None:
    """What the model loses on sequences [sequences, length] with a token before each and without; None where they hold
    nothing to measure.

    Both are means over the same tokens: those from the sixth on of each sequence that are not special nor follow a
    special one.
    """
    special = torch.tensor(sorted(model.uncounted if token is None else model.uncounted | {token}))
    ordinary = ~torch.isin(text, special)
    counted = ordinary[:, _FIRST_COUNTED:] & ordinary[:, _FIRST_COUNTED - 1 : -1]
    targets = text[:, _FIRST_COUNTED:][counted]
    if not len(targets):
        return None
    head = text.new_full((len(text), 1), 0 if token is None else token)
    with_token = None if token is None else _mean_loss(model, torch.cat([head, text], dim=1), counted)
    without = _mean_loss(model, text, counted)
    return Losses(len(targets), with_token, without, loss_by_frequency(targets, model.d_vocab))


@torch.no_grad()
def _mean_loss(model: AnalysisModel, tokens: Tensor, counted: Tensor) -> float:
    """Over the last tokens of each sequence, those of them that are `counted`."""
    total, readout = 0.0, model.readout
    step, last = max(1, _TOKENS_AT_ONCE // tokens.shape[1]), counted.shape[1]
    for batch, is_counted in zip(tokens.split(step), counted.split(step), strict=True):
        residual = model.trace(batch).residual[:, -last - 1 : -1][is_counted.to(model.device)]
        targets = batch[:, -last:][is_counted].to(model.device)
        for x, target in zip(residual.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True):
            centred = readout.centred(x)
            logits = readout.logits(centred, readout.scale(centred))
            total += float(torch.nn.functional.cross_entropy(logits.double(), target, reduction="sum"))
    return total / int(counted.sum())


def loss_by_frequency(tokens: Tensor, d_vocab: int) -> float:
    """The mean loss of predicting each of some tokens, [n], by how often it occurs among the others.

    A token that occurs once is new to the others: all new ones together are given the share of the text that occurs
    once (Good and Turing's estimate), each the same part of it.
    """
    counts = torch.bincount(tokens, minlength=d_vocab).double()
    count, once, unseen = counts.sum(), (counts == 1).sum(), (counts == 0).sum()
    new = once / count
    again = counts[counts > 1]
    known = -(again * ((1 - new) * (again - 1) / (count - 1)).log()).sum()
    return float((known - once * (new / (unseen + 1)).log() if once else known) / count)
