"""The induction experiment against the original model in float64, and against a model whose heads are set by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backend.core.errors import BadNeuron, BadText
from backend.core.induction.clipping import Clipping
from backend.core.induction.experiment import Experiment, ExperimentPart, Plan, Progress
from backend.core.induction.heads import HeadGroup, Knockout, ScoredHeads, head_groups, head_scores
from backend.core.induction.readings import ActivationChange, Curves
from backend.core.induction.text import Repeats, RepeatSpec, doubled, find_repeats, random_repeats, repeats_in_text
from backend.core.interventions.forward import continued_with_activations
from backend.core.interventions.hooks import replacing
from backend.core.interventions.kinds import Intervention
from backend.core.metrics.induction import (
    Mean,
    baseline_heads,
    change,
    first_token_attention,
    induction_heads,
    knocked_out,
    mean_over,
    prefix_matching,
)
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.core.neurons import HeadId, NeuronId
from tests.reference.brute_force import Outcome, Reference
from tests.reference.tiny_models import D_MODEL, FAMILIES, HEADS, LAYERS, byte_tokenizer

Models = Callable[[str], AnalysisModel]
Files = Callable[[str], ModelFiles]
Kind = TypeVar("Kind")
SPAN, SEQUENCES, NEURONS = 8, 3, (5, 17)
D_HEAD = D_MODEL // HEADS
KINDS = ["gpt2", "gpt-neox", "opt", "llama", "qwen3", "falcon", "gemma2"]
"""Families that between them have every norm, bias, gate, sharing of keys and order of blocks."""
POST_HOC = {"opt", "opt-350m", "gpt-neo"}
"""Families whose patterns TransformerLens tells but does not use."""


def experiment(model: AnalysisModel, repeats: Repeats, *parts: ExperimentPart, **plan: Any) -> list[Any]:
    neurons = tuple(NeuronId(model.last_layer, index) for index in NEURONS)
    return list(Experiment(model, repeats, Plan(neurons, frozenset(parts), **plan)).steps())


def only(kind: type[Kind], found: list[Any]) -> list[Kind]:
    return [value for value in found if isinstance(value, kind)]


def close(found: Tensor, expected: Tensor, atol: float = 5e-5) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=atol, rtol=1e-5, equal_nan=True)


def of_sequences(found: Mean, values: Tensor) -> None:
    """The mean of one value a sequence, and its error."""
    close(found.mean, values.mean(dim=0))
    close(found.se, values.std(dim=0) / len(values) ** 0.5)


def at_repeats(repeats: Repeats, rows: list[Tensor]) -> Tensor:
    """Per-token values of every sequence at the repeats' places, NaN where there is nothing, [repeats, 2·reach]."""
    out = torch.full(repeats.places.shape, torch.nan, dtype=torch.float64)
    for repeat, sequence in enumerate(repeats.sequence.tolist()):
        for column, place in enumerate(repeats.places[repeat].tolist()):
            if repeats.present[repeat, column] and place < len(rows[sequence]):
                out[repeat, column] = rows[sequence][place]
    return out


def expected_means(repeats: Repeats, outcomes: list[Outcome]) -> tuple[Tensor, Tensor]:
    """Loss and entropy by position of the occurrences. The last token's entropy is not in an outcome."""
    found = (at_repeats(repeats, [getattr(o, name) for o in outcomes]) for name in ("loss", "entropy"))
    return tuple(values[:, repeats.inside].nanmean(0) for values in found)  # type: ignore[return-value]


def setting(family: str, tiny_model: Models, tiny_files: Files) -> tuple[AnalysisModel, Reference, Repeats]:
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), FAMILIES[family])
    return model, reference, random_repeats(model.ordinary, model.bos, SEQUENCES, SPAN, seed=2)


@pytest.mark.parametrize("family", KINDS)
def test_curves_change_and_clipping_agree_with_brute_force(family: str, tiny_model: Models, tiny_files: Files) -> None:
    model, reference, repeats = setting(family, tiny_model, tiny_files)
    found = experiment(model, repeats, "curves", "clip", "change")
    plain = [reference.unhooked(tokens) for tokens in repeats.tokens]
    activations = torch.stack([reference.activations(tokens) for tokens in repeats.tokens])
    (curves,) = only(Curves, found)
    loss, entropy = expected_means(repeats, plain)
    close(curves.loss.mean, loss)
    close(curves.entropy.mean[:-1], entropy[:-1])
    first, second = activations[:, 1 : 1 + SPAN], activations[:, 1 + SPAN :]
    close(curves.activations.mean, activations[:, 1:, list(NEURONS)].mean(dim=0))
    close(curves.activations.se, activations[:, 1:, list(NEURONS)].std(dim=0) / SEQUENCES**0.5)
    close(curves.examples[1].loss[:-1], plain[1].loss)
    assert curves.after is None, "nothing follows doubled text"
    difference = second.mean(dim=1) - first.mean(dim=1)
    (changed,) = only(ActivationChange, found)
    close(changed.change.mean, difference.mean(dim=0))
    close(changed.change.se, difference.std(dim=0) / SEQUENCES**0.5)
    own = [half.mean(dim=1)[:, list(NEURONS)] for half in (first, second)]
    for measured, values in (
        (curves.first.activations, own[0]), (curves.second.activations, own[1]),
        (curves.change.activations, own[1] - own[0]),
        (curves.second.loss, torch.stack([one.loss for one in plain])[:, 1 + SPAN :].mean(dim=1)),
    ):  # fmt: skip
        of_sequences(measured, values)
    for clip in only(Clipping, found):
        assert clip.after is None
        mean = first[:, :, clip.neuron].mean()
        assert clip.reference == pytest.approx(float(mean), abs=1e-5)
        clipped = activations[..., clip.neuron].clone()
        clipped[:, 1 + SPAN :].clamp_(max=float(mean))
        column = slice(clip.neuron, clip.neuron + 1)
        after = [
            reference.edited(tokens, [(reference.mlp_out, column, values[:, None])], frozen=False)
            for tokens, values in zip(repeats.tokens, clipped, strict=True)
        ]
        loss, entropy = expected_means(repeats, after)
        close(clip.loss.mean, loss[SPAN:])
        close(clip.entropy.mean[:-1], entropy[SPAN:-1])
        gained = torch.stack([a.loss - b.loss for a, b in zip(after, plain, strict=True)])[:, SPAN + 1 :]
        close(clip.delta_loss.mean[:-1], gained.mean(dim=0))
        close(clip.delta_loss.se[:-1], gained.std(dim=0) / SEQUENCES**0.5)
        was = torch.stack([one.loss for one in plain])[:, SPAN + 1 :].mean(dim=1)
        of_sequences(clip.totals.delta_loss, gained.mean(dim=1))
        of_sequences(clip.totals.loss_before, was)
        of_sequences(clip.totals.loss, was + gained.mean(dim=1))
        _percent_of_sequences(clip.totals.percent_loss, was, gained.mean(dim=1))
        moved = clip.delta_entropy.mean.mean()
        close(clip.totals.delta_entropy.mean, moved)
        close(clip.totals.percent_entropy.mean, 100 * moved / (clip.entropy.mean.mean() - moved))
        close(clip.percent.mean, 100 * clip.delta_entropy.mean / (clip.entropy.mean - clip.delta_entropy.mean), 1e-3)
        points = clip.tokens
        assert len(points.loss) == SEQUENCES * (SPAN - 1)
        close(points.delta_loss, gained.flatten())
        close(points.reciprocal_rank, 1 / torch.stack([o.rank for o in plain])[:, SPAN + 1 :].flatten())
        assert torch.equal(points.target, repeats.tokens[:, SPAN + 2 :].flatten())


def _percent_of_sequences(found: Mean, before: Tensor, change: Tensor) -> None:
    """A ratio's error, from the ratios without each sequence."""
    left = torch.stack([100 * change[own].mean() / before[own].mean() for own in ~torch.eye(len(before)).bool()])
    count = len(before)
    close(found.mean, 100 * change.mean() / before.mean(), 1e-3)
    close(found.se, ((count - 1) / count * (left - left.mean()).square().sum()).sqrt(), 1e-2)


@pytest.mark.parametrize("family", KINDS)
def test_knocked_out_heads_agree_with_brute_force(family: str, tiny_model: Models, tiny_files: Files) -> None:
    model, reference, repeats = setting(family, tiny_model, tiny_files)
    heads = (HeadId(1, 2), HeadId(0, 1))
    found = only(Knockout, experiment(model, repeats, "bos", "mean_output", heads=heads))
    inputs = [
        torch.stack([reference.inputs_of(reference.heads_of(layer), tokens) for tokens in repeats.tokens])
        for layer in range(LAYERS)
    ]
    means = [z[:, 1 + SPAN :].mean(dim=(0, 1)) for z in inputs]
    unchanged = torch.stack([reference.activations(tokens) for tokens in repeats.tokens])[..., list(NEURONS)]
    was = [unchanged[:, 1 : 1 + SPAN].mean(dim=1), unchanged[:, 1 + SPAN :].mean(dim=1)]
    checked = 0
    for knockout in found:
        group = knockout.group
        outcomes, activations = [], []
        for tokens, own in zip(repeats.tokens, zip(*inputs, strict=True), strict=True):
            edits = []
            for head in group.heads:
                columns = slice(head.index * D_HEAD, (head.index + 1) * D_HEAD)
                if group.kind == "bos" and head.layer == 1 and len({h.layer for h in group.heads}) > 1:
                    continue  # its first output follows the change before it: edited below
                value = own[head.layer][0, columns] if group.kind == "bos" else means[head.layer][columns]
                edits.append((reference.heads_of(head.layer), columns, value))
            if len(edits) < len(group.heads):
                # Position 0 attends to itself alone: BOS ablation of layer 0 leaves it, and so layer 1's, as they are.
                columns = slice(2 * D_HEAD, 3 * D_HEAD)
                edits.append((reference.heads_of(1), columns, own[1][0, columns]))
            outcomes.append(reference.edited(tokens, edits, frozen=False))
            activations.append(_edited_activations(reference, tokens, edits))
        loss, entropy = expected_means(repeats, outcomes)
        close(knockout.loss.mean, loss, 1e-4)
        close(knockout.entropy.mean[:-1], entropy[:-1], 1e-4)
        close(knockout.activations.mean, torch.stack(activations)[:, 1:, list(NEURONS)].mean(dim=0), 1e-4)
        now = torch.stack(activations)[:, 1 + SPAN :, list(NEURONS)].mean(dim=1)
        of_sequences(knockout.second.activations, now)
        of_sequences(knockout.difference.activations, now - was[1])
        left = (now - was[0]).mean(dim=0) / (was[1] - was[0]).mean(dim=0)
        torch.testing.assert_close(knockout.left.mean, left.double(), atol=2e-3, rtol=2e-3)
        checked += 1
    assert [k.group for k in found][:3] == [
        HeadGroup("bos", "induction", together) for together in ([heads[0]], [heads[1]], list(heads))
    ]
    assert checked >= 6


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "falcon"])
def test_heads_knocked_out_at_one_position_alone_agree_with_brute_force(
    family: str, tiny_model: Models, tiny_files: Files
) -> None:
    """A copy of the whole sequence for every position, with the heads changed there and nowhere else."""
    model, reference, repeats = setting(family, tiny_model, tiny_files)
    heads = (HeadId(1, 2), HeadId(0, 1))
    found = only(Knockout, experiment(model, repeats, "bos", "mean_output", heads=heads, knocked_out_at="measured"))
    inputs = [
        torch.stack([reference.inputs_of(reference.heads_of(layer), tokens) for tokens in repeats.tokens])
        for layer in range(LAYERS)
    ]
    means = [z[:, 1 + SPAN :].mean(dim=(0, 1)) for z in inputs]
    chosen = [one for one in found if one.group.role == "induction"]
    assert [(one.group.kind, len(one.group.heads)) for one in chosen] == [
        (how, count) for how in ("bos", "mean_output") for count in (1, 1, 2)
    ]
    for knockout in chosen:
        rows = []
        for tokens, own in zip(repeats.tokens, zip(*inputs, strict=True), strict=True):
            edits = []
            for head in knockout.group.heads:
                columns = slice(head.index * D_HEAD, (head.index + 1) * D_HEAD)
                bos = knockout.group.kind == "bos"
                value = own[head.layer][0, columns] if bos else means[head.layer][columns]
                edits.append((reference.heads_of(head.layer), columns, value))
            rows.append(_changed_at_each_position_alone(reference, tokens, edits))
        losses, activations = (torch.stack(values) for values in zip(*rows, strict=True))
        close(knockout.loss.mean[:-1], losses.mean(dim=0), 1e-4)
        close(knockout.activations.mean, activations.mean(dim=0), 1e-4)


def _changed_at_each_position_alone(
    reference: Reference, tokens: Tensor, edits: list[tuple[Any, slice, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Loss [length − 2] and activations [length − 1, neurons] at the positions after the first, from a copy of the
    sequence for each of them in which some modules' inputs are changed there and nowhere else."""
    count, length = len(tokens) - 1, len(tokens)
    copies, places = torch.arange(count), torch.arange(1, length)
    read: list[Tensor] = []

    def changing(columns: slice, value: Tensor) -> Any:
        def change(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            values = inputs[0].reshape(count, length, -1).clone()
            values[copies, places, columns] = value
            return (values.reshape(inputs[0].shape),)

        return change

    handles = [module.register_forward_pre_hook(changing(columns, value)) for module, columns, value in edits]
    handles.append(reference.mlp_out.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])))
    try:
        with torch.no_grad():
            logits = reference.model(tokens.expand(count, -1)).logits[copies, places]
    finally:
        for handle in handles:
            handle.remove()
    activations = read[0].reshape(count, length, -1)[copies, places][:, list(NEURONS)]
    loss = torch.nn.functional.cross_entropy(logits[:-1].double(), tokens[2:], reduction="none")
    return loss, activations


def test_changing_heads_at_one_position_alone_is_not_changing_them_at_every_one(tiny_model: Models) -> None:
    """What comes after looks back on changed positions in the one case, and on unchanged ones in the other; at the
    first two positions there is nothing changed to look back on but what is read itself."""
    model = tiny_model("llama")
    repeats = random_repeats(model.ordinary, model.bos, SEQUENCES, SPAN, seed=2)
    everywhere, alone = (
        only(Knockout, experiment(model, repeats, "bos", heads=(HeadId(0, 1),), knocked_out_at=where))[0]
        for where in ("every", "measured")
    )
    close(alone.activations.mean[:1], everywhere.activations.mean[:1])
    assert (alone.activations.mean[2:] - everywhere.activations.mean[2:]).abs().max() > 1e-3


@pytest.mark.parametrize("where", ["every", "measured"])
def test_progress_of_knock_outs_ends_where_it_said_it_would(where: Any, tiny_model: Models) -> None:
    model = tiny_model("llama")
    repeats = random_repeats(model.ordinary, model.bos, SEQUENCES, SPAN, seed=2)
    told = only(Progress, experiment(model, repeats, "bos", "mean_output", knocked_out_at=where))
    assert told[-1].done == told[-1].of == len(told)


def _edited_activations(reference: Reference, tokens: Tensor, edits: list[Any]) -> Tensor:
    seen: list[Tensor] = []
    handle = reference.mlp_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        reference.edited(tokens, edits, frozen=False)
    finally:
        handle.remove()
    return seen[-1].reshape(len(tokens), -1)


WITHOUT_SINKS = [family for family in FAMILIES if family != "gpt-oss"]
"""In gpt-oss a sink takes part of all attention, so that a head on the first token writes only a share of its value."""


@pytest.mark.parametrize("family", WITHOUT_SINKS)
def test_a_head_on_the_first_token_writes_its_value(family: str, tiny_model: Models) -> None:
    """BOS ablation, without and with the pattern: the same, wherever TransformerLens uses a replaced pattern."""
    model = tiny_model(family)
    repeats = random_repeats(model.ordinary, model.bos, 2, SPAN, seed=0)
    heads = [HeadId(0, 1), HeadId(0, 2), HeadId(1, 3)]
    point = "blocks.0.attn.hook_{}"
    _, kept = model.run(repeats.tokens, point.format("z"), point.format("v"), stop_at_layer=1)
    z, v = (kept[point.format(name)] for name in "zv")
    v = v.reshape(*z.shape[:2], -1, D_HEAD)  # fewer where heads share keys and values
    close(z[:, 0], v[:, 0].repeat_interleave(HEADS // v.shape[2], dim=1), 1e-6)

    def to_first(pattern: Tensor, hook: Any) -> Tensor:
        changed = pattern.clone()
        for head in heads:
            if hook.name.startswith(f"blocks.{head.layer}."):
                changed[:, head.index] = 0
                changed[:, head.index, :, 0] = 1
        return changed

    prefix = model.residual_before(repeats.tokens, 0)
    by_z, _ = continued_with_activations(
        model, prefix, 0, replacing([Intervention(h, "bos") for h in heads], [None] * 3)
    )
    by_pattern, _ = continued_with_activations(
        model, prefix, 0, [(f"blocks.{layer}.attn.hook_pattern", to_first) for layer in range(LAYERS)]
    )
    plain = model.trace(repeats.tokens).residual
    assert (by_z - plain).abs().max() > 0.1
    close(by_pattern, plain if family in POST_HOC else by_z, 1e-5)
    nothing, _ = continued_with_activations(model, prefix, 0, [])
    assert torch.equal(nothing, plain)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "phi"])
def test_scores_agree_with_the_original_models_attention(family: str, tiny_model: Models, tiny_files: Files) -> None:
    model, reference, repeats = setting(family, tiny_model, tiny_files)
    scores = head_scores(model, repeats)
    with torch.no_grad():
        patterns = reference.model(repeats.tokens, output_attentions=True).attentions
    for layer, pattern in enumerate(patterns):
        for head in range(HEADS):
            for row in range(SEQUENCES):
                own = pattern[row, head]
                matching = sum(float(own[1 + SPAN + j, 2 + j]) for j in range(SPAN)) / SPAN
                assert float(scores.prefix_matching[row, layer, head]) == pytest.approx(matching, abs=1e-5)
                assert float(scores.bos_attention[row, layer, head]) == pytest.approx(
                    float(own[1:, 0].mean()), abs=1e-5
                )


@pytest.fixture(scope="module")
def handmade(tmp_path_factory: pytest.TempPathFactory) -> AnalysisModel:
    """Two layers of two heads: L0H0 copies the token before into a place of its own, L1H0 looks for the place that
    holds the current token (an induction head); L0H1 and L1H1 have no keys, so they look everywhere alike."""
    tokens = positions = 24
    width, half = 3 * tokens, 3 * tokens // 2
    config = transformers.GPT2Config(
        vocab_size=tokens, n_positions=positions, n_embd=width, n_layer=2, n_head=2, n_inner=8,
        bos_token_id=0, eos_token_id=1, architectures=["GPT2LMHeadModel"], tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    eye = torch.eye(tokens)
    token, place, before = (slice(n * tokens, (n + 1) * tokens) for n in range(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        body: Any = model.transformer
        body.wte.weight[:, token], body.wpe.weight[:, place] = eye, eye
        previous, induction = body.h[0].attn, body.h[1].attn
        q, k, v = (slice(n * width, n * width + tokens) for n in range(3))  # the first head's columns
        previous.c_attn.weight[place, q] = 10 * eye.roll(-1, dims=1)
        previous.c_attn.weight[0 + place.start, q] = 0  # nothing is before the first
        previous.c_attn.weight[place, k], previous.c_attn.weight[token, v] = eye, eye
        previous.c_proj.weight[:tokens, before] = eye
        induction.c_attn.weight[token, q], induction.c_attn.weight[before, k] = 10 * eye, eye
        model.lm_head.weight.copy_(torch.randn(tokens, width, generator=torch.Generator().manual_seed(0)))
    assert half >= tokens
    folder: Path = tmp_path_factory.mktemp("handmade")
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return AnalysisModel.load(ModelFiles(folder, "handmade", "folder"), "cpu")


def test_a_handmade_induction_head_scores_1(handmade: AnalysisModel) -> None:
    span = 10
    stretches = torch.stack([torch.randperm(22, generator=torch.Generator().manual_seed(s))[:span] + 2 for s in (0, 1)])
    scores = head_scores(handmade, doubled(stretches, 0))
    alike = sum(1 / (1 + span + j + 1) for j in range(span)) / span
    expected = torch.tensor([[0.0, alike], [1.0, alike]])
    close(scores.prefix_matching.mean(dim=0), expected, 1e-4)
    spread = sum(1 / (query + 1) for query in range(1, 2 * span + 1)) / (2 * span)
    close(scores.bos_attention[:, :, 1], torch.full((2, 2), spread), 1e-5)
    (heads,) = only(ScoredHeads, experiment_of(handmade, doubled(stretches, 0), top_heads=1))
    assert heads.chosen == [HeadId(1, 0)]


def experiment_of(model: AnalysisModel, repeats: Repeats, **plan: Any) -> list[Any]:
    return list(Experiment(model, repeats, Plan((), frozenset({"heads"}), **plan)).steps())


def test_scores_of_hand_made_patterns() -> None:
    pattern = torch.zeros(1, 3, 9, 9)
    pattern[0, 0, torch.arange(5, 9), torch.arange(2, 6)] = 1  # the token after the earlier occurrence
    pattern[0, 1, :, 0] = 1
    pattern[0, 2, torch.arange(5, 9), torch.arange(1, 5)] = 1  # the earlier occurrence itself: a duplicate-token head
    repeats = doubled(torch.tensor([[2, 3, 4, 5]]), 0)
    places = (repeats.sequence, repeats.first, repeats.second)
    assert prefix_matching(pattern, *places, repeats.valid).tolist() == [[1, 0, 0]]
    assert first_token_attention(pattern).tolist() == [[0, 1, 0]]
    pattern[0, 0, 8] = 0
    half = torch.tensor([[True, True, False, True]])
    assert prefix_matching(pattern, *places, half)[0, 0] == pytest.approx(2 / 3)


def test_heads_are_chosen_by_score_and_baselines_near_them() -> None:
    scores, bos = torch.full((4, 3), 0.05), torch.full((4, 3), 0.9)
    scores[2, 1], scores[1, 0], scores[3, 2] = 0.9, 0.8, 0.2
    bos[2, 0] = 0.5
    assert induction_heads(scores, 2) == [(2, 1), (1, 0)]
    chosen = [(2, 1)]
    assert baseline_heads(scores, bos, chosen, 1, seed=0) == [(2, 2)]
    more = baseline_heads(scores, bos, chosen, 5, seed=0)
    assert more[0] == (2, 2)
    assert {layer for layer, _ in more[1:]} <= {1, 3}
    assert (3, 2) not in more
    assert len({tuple(baseline_heads(scores, bos, [(1, 0)], 1, seed=s)) for s in range(20)}) == 2
    assert baseline_heads(scores, torch.zeros(4, 3), chosen, 3, seed=0) == []
    assert knocked_out([(0, 1), (0, 2), (0, 3), (0, 4)]) == [
        [(0, 1)], [(0, 2)], [(0, 3)], [(0, 4)], [(0, 1), (0, 2)], [(0, 1), (0, 2), (0, 3)],
    ]  # fmt: skip
    assert head_groups([HeadId(0, 1)], [], {"mean_output"}) == [HeadGroup("mean_output", "induction", [HeadId(0, 1)])]


def test_means_leave_out_what_is_not_there() -> None:
    nan = torch.nan
    found = mean_over(torch.tensor([[1.0, 2.0, nan], [3.0, nan, nan]]), np.arange(2))
    close(found.mean, torch.tensor([2.0, 2.0, nan]), 0)
    close(found.se, torch.tensor([1.0, nan, nan]), 1e-12)
    paired = change(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 6.0]), np.arange(2))
    assert (float(paired.mean), float(paired.se)) == (1, 0)


def test_repeats_of_one_text_are_no_further_evidence(tiny_model: Models) -> None:
    """Every sequence a second time: where both are said to be of one text, no error shrinks; where not, all do."""
    model = tiny_model("llama")
    assert model.bos is not None
    once = random_repeats(model.ordinary, model.bos, 6, SPAN, seed=3)
    stretches = once.tokens[:, 1 : 1 + SPAN].repeat(2, 1)
    one_text = doubled(stretches, model.bos, torch.arange(6).repeat(2))
    parts: tuple[ExperimentPart, ...] = ("curves", "clip", "change")
    found = [experiment(model, repeats, *parts) for repeats in (once, one_text, doubled(stretches, model.bos))]
    errors = [
        torch.cat([
            curves.entropy.se, curves.activations.se.flatten(), curves.change.activations.se, changed.change.se,
            *(one.totals.percent_entropy.se[None] for one in clips),
        ])
        for (curves,), (changed,), clips in (
            (only(Curves, f), only(ActivationChange, f), only(Clipping, f)) for f in found
        )
    ]  # fmt: skip
    assert errors[0].isfinite().all()
    torch.testing.assert_close(errors[1], errors[0], rtol=1e-3, atol=1e-6)
    assert (errors[2] < 0.8 * errors[0]).all()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_repeats_of_different_lengths_agree_with_brute_force(
    family: str, tiny_model: Models, tiny_files: Files
) -> None:
    model, reference, _ = setting(family, tiny_model, tiny_files)
    text = [0, 5, 6, 7, 8, 20, 5, 6, 7, 8, 21, 6, 7, 22, 5, 6, 7, 8, 20]
    repeats = repeats_in_text(text, model.uncounted, 2)
    found = experiment(model, repeats, "curves", "change", "clip", references=torch.zeros(model.d_mlp))
    plain = reference.unhooked(repeats.tokens[0])
    (curves,) = only(Curves, found)
    close(curves.loss.mean, expected_means(repeats, [plain])[0])
    for mean in (
        curves.entropy,
        curves.activations,
        curves.change.activations,
        only(Clipping, found)[0].totals.delta_loss,
    ):
        assert mean.mean.isfinite().all()
        assert mean.se.isnan().all(), "three repeats in one text tell no error"
    activations = reference.activations(repeats.tokens[0])
    (changed,) = only(ActivationChange, found)
    means = [
        activations[second[valid]].mean(dim=0) - activations[first[valid]].mean(dim=0)
        for first, second, valid in zip(repeats.first, repeats.second, repeats.valid, strict=True)
    ]
    close(changed.change.mean, torch.stack(means).mean(dim=0))
    for clip in only(Clipping, found):
        clipped = activations[:, clip.neuron].clone()
        places = repeats.second[repeats.valid]
        clipped[places] = clipped[places].clamp(max=0)
        column = slice(clip.neuron, clip.neuron + 1)
        after = reference.edited(repeats.tokens[0], [(reference.mlp_out, column, clipped[:, None])], frozen=False)
        changes = at_repeats(repeats, [after.loss - plain.loss])[:, repeats.reach :]
        close(clip.delta_loss.mean, changes[:, : repeats.span].nanmean(dim=0))
        assert clip.after is not None
        x = torch.stack([plain.loss[10], plain.loss[13]])  # the third repeat ends the text: no X
        close(clip.after.loss.mean - clip.after.delta_loss.mean, x.mean()[None])
    assert curves.after is not None
    close(curves.after.loss.mean, torch.stack([plain.loss[[5, 9, 6]].mean(), plain.loss[[10, 13]].mean()]))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sequences=st.integers(1, 3),
    span=st.integers(2, 12),
    reference=st.sampled_from([torch.inf, 1e6]),
)
def test_clipping_to_what_is_never_reached_changes_nothing(
    tiny_model: Models, seed: int, sequences: int, span: int, reference: float
) -> None:
    model = tiny_model("llama")
    repeats = random_repeats(model.ordinary, model.bos, sequences, span, seed)
    found = experiment(model, repeats, "clip", references=torch.full((model.d_mlp,), reference))
    clips = only(Clipping, found)
    assert [clip.neuron for clip in clips] == list(NEURONS)
    for clip in clips:
        assert (clip.delta_loss.mean[:-1] == 0).all()
        assert (clip.delta_entropy.mean == 0).all()
        assert clip.delta_loss.mean[-1].isnan()


def test_steps_are_small_and_counted(tiny_model: Models) -> None:
    model = tiny_model("llama")
    repeats = random_repeats(model.ordinary, model.bos, 30, 25, seed=0)
    every: tuple[ExperimentPart, ...] = ("curves", "clip", "change", "heads", "bos", "mean_output", "attribution")
    found = experiment(model, repeats, *every)
    progress = only(Progress, found)
    assert [p.done for p in progress] == list(range(1, len(progress) + 1))
    assert progress[-1].done == progress[-1].of
    assert len(progress) > 20
    assert {type(value).__name__ for value in found} == {
        "Progress", "Curves", "Clipping", "ActivationChange", "ScoredHeads", "Knockout", "Attribution",
    }  # fmt: skip
    few = experiment(model, repeats, "heads")
    assert {type(value).__name__ for value in few} == {"Progress", "ScoredHeads"}


def test_what_does_not_fit_the_model_is_told(tiny_model: Models) -> None:
    model = tiny_model("llama")
    repeats = random_repeats(model.ordinary, model.bos, 1, 4, seed=0)
    with pytest.raises(BadNeuron, match="not of the last layer"):
        Experiment(model, repeats, Plan((NeuronId(0, 1),), frozenset()))
    with pytest.raises(BadNeuron, match="does not exist"):
        Experiment(model, repeats, Plan((NeuronId(1, 1_000),), frozenset()))
    with pytest.raises(BadNeuron, match="Head L9H0"):
        Experiment(model, repeats, Plan((), frozenset(), heads=(HeadId(9, 0),)))
    with pytest.raises(BadText, match="span of 31 or less"):
        find_repeats(model, RepeatSpec("random", 1, 32, 0))
    with pytest.raises(BadText, match="no text"):
        find_repeats(model, RepeatSpec("text", 1, 3, 0, text=""))
    found, told = find_repeats(model, RepeatSpec("text", 1, 3, 0, text="one two, one two."))
    assert told == "1 repeat of 7 tokens in a text of 17 tokens."
    assert found.span == 7
