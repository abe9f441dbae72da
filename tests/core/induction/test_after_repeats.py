"""What follows each occurrence of natural text that repeats (B and X of Figure 9), against the original in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from backend.core.induction.clipping import Clipping
from backend.core.induction.heads import Knockout
from backend.core.induction.readings import ActivationChange, Curves
from backend.core.induction.text import Repeats, natural_repeats
from backend.core.models.analysis_model import AnalysisModel
from backend.core.neurons import HeadId
from tests.core.induction.test_experiment import KINDS, NEURONS, Files, Models, close, experiment, only, setting
from tests.reference.brute_force import Reference

GRAM = 4
FOLLOWED: tuple[tuple[int, int, bool, bool], ...] = (
    (2, 9, True, True),
    (3, 12, False, True),  # a document ends where B would be
    (1, 10, True, False),  # and here where X would be
    (5, 15, True, True),  # X is the last token: what it is followed by is not known
    (2, 16, True, False),  # the sequence ends with the repeat
)
"""Where an n-gram of a sequence stands for the first and for the second time, and whether text follows."""
LENGTH = 20


def natural_corpus(model: AnalysisModel) -> Any:
    """One n-gram twice in each sequence, as `FOLLOWED` says; all else but ends of documents comes once."""
    rows = []
    for seed, (first, second, b, x) in enumerate(FOLLOWED):
        order = torch.randperm(len(model.ordinary), generator=torch.Generator().manual_seed(seed))
        row = model.ordinary[order[:LENGTH]].clone()
        row[second : second + GRAM] = row[first : first + GRAM]
        for place, follows in ((first + GRAM, b), (second + GRAM, x)):
            if not follows and place < LENGTH:
                row[place] = min(model.uncounted)
        rows.append(row)
    return torch.stack(rows).numpy()


def of_followers(places: list[int | None], rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard error over the sequences of what each has at its place."""
    found = torch.stack([row[at] for at, row in zip(places, rows, strict=True) if at is not None and at < len(row)])
    return found.mean(dim=0)[None], found.std(dim=0)[None] / len(found) ** 0.5


@pytest.mark.parametrize("family", KINDS)
def test_what_follows_natural_repeats_agrees_with_brute_force(
    family: str, tiny_model: Models, tiny_files: Files
) -> None:
    model, reference, _ = setting(family, tiny_model, tiny_files)
    repeats = natural_repeats(natural_corpus(model), model.uncounted, 10, GRAM)
    assert len(repeats.tokens) == len(FOLLOWED)
    b = [first + GRAM if follows else None for first, _, follows, _ in FOLLOWED]
    x = [second + GRAM if follows else None for _, second, _, follows in FOLLOWED]
    assert (b, x) == ([6, None, 5, 9, 6], [13, 16, None, 19, None])
    with torch.no_grad():
        logits = [reference.model(tokens[None]).logits[0] for tokens in repeats.tokens]
    plain = [reference.unhooked(tokens) for tokens in repeats.tokens]
    losses, entropies = [one.loss for one in plain], [_entropy(one) for one in logits]
    activations = [reference.activations(tokens) for tokens in repeats.tokens]
    found = experiment(model, repeats, "curves", "clip", "change", "bos", heads=(HeadId(0, 1),))
    (curves,) = only(Curves, found)
    assert curves.after is not None
    own = [values[:, list(NEURONS)] for values in activations]
    for measured, rows in (
        (curves.after.loss, losses), (curves.after.entropy, entropies), (curves.after.activations, own),
    ):  # fmt: skip
        (at_b, b_se), (at_x, x_se) = of_followers(b, rows), of_followers(x, rows)
        close(measured.mean, torch.cat([at_b, at_x]))
        close(measured.se, torch.cat([b_se, x_se]))
    first, second = (
        torch.stack([values[row[at] : row[at] + GRAM] for values, row in zip(activations, FOLLOWED, strict=True)])
        for at in (0, 1)
    )
    both = torch.cat([first, second], dim=1)
    close(curves.activations.mean, both[:, :, list(NEURONS)].mean(dim=0))
    close(curves.references, first[:, :, list(NEURONS)].mean(dim=(0, 1)))
    (changed,) = only(ActivationChange, found)
    close(changed.change.mean, (second.mean(dim=1) - first.mean(dim=1)).mean(dim=0))
    assert all(len(one.loss.mean) == len(one.activations.mean) == 2 * GRAM for one in only(Knockout, found))
    for clip in only(Clipping, found):
        _follow_clipped(clip, reference, repeats, activations, x, losses, entropies)


def _follow_clipped(
    clip: Clipping,
    reference: Reference,
    repeats: Repeats,
    activations: list[Tensor],
    x: list[int | None],
    losses: list[Tensor],
    entropies: list[Tensor],
) -> None:
    """With the neuron not let above its mean on the second occurrence and where X is; points are of the former."""
    column = slice(clip.neuron, clip.neuron + 1)
    now: list[tuple[Tensor, Tensor]] = []
    for tokens, values, (_, second, _, _), at in zip(repeats.tokens, activations, FOLLOWED, x, strict=True):
        clipped = values[:, clip.neuron].clone()
        clipped[second : second + GRAM + (at is not None)].clamp_(max=clip.reference)
        logits = reference.edited_logits(tokens, [(reference.mlp_out, column, clipped[:, None])], frozen=False)
        now.append((-logits.log_softmax(-1)[:-1].gather(1, tokens[1:, None])[:, 0], _entropy(logits)))
    loss, entropy = [one[0] for one in now], [one[1] for one in now]
    assert clip.after is not None
    for measured, rows in (
        (clip.after.loss, loss),
        (clip.after.entropy, entropy),
        (clip.after.delta_loss, [a - b for a, b in zip(loss, losses, strict=True)]),
        (clip.after.delta_entropy, [a - b for a, b in zip(entropy, entropies, strict=True)]),
    ):
        mean, se = of_followers(x, rows)
        close(measured.mean, mean)
        close(measured.se, se)
    inside = torch.stack([one[row[1] : row[1] + GRAM] for one, row in zip(entropy, FOLLOWED, strict=True)])
    close(clip.entropy.mean, inside.mean(dim=0))
    assert len(clip.loss.mean) == GRAM
    assert len(clip.tokens.loss) == len(FOLLOWED) * GRAM - 1, "the last of the last has no target; X is none"
    assert torch.equal(clip.tokens.token, repeats.tokens[repeats.sequence[:, None], repeats.second].flatten()[:-1])


def _entropy(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(dim=-1)
