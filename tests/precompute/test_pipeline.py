"""A whole run on a tiny model: what it publishes, that it resumes, and that it gives the same numbers every time."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.atlas.query import NeuronQuery
from backend.atlas.runs import Runs
from backend.atlas.store import Atlas
from backend.core.errors import BadConfig, BadLayer
from backend.core.kernels import survey as surveys
from backend.core.kernels.choose import Tiles
from backend.core.kernels.engine import EffectsEngine, ablation_effects
from backend.core.metrics.effects import EffectSums, TokenBatch
from backend.core.metrics.statistics import Moments
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles, find_model
from backend.glossary import METRIC_COLUMNS, METRICS
from precompute import contexts, heartbeat, pipeline
from precompute.config import RunConfig
from precompute.corpus import counted_positions, open_corpus, pack
from precompute.progress import Silent
from precompute.sample import Sample
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import D_MLP, D_MODEL, FAMILIES, LAYERS

TEXT = " ".join(f"Sentence {n} tells of the {n % 7} lamps, and of {n * n} other things." for n in range(60))


@pytest.fixture
def config(tmp_path: Path, tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Nine sequences of 32 bytes, each a group and a shard of its own, of 28 or so positions."""
    monkeypatch.setattr(pipeline, "SHARD_TOKENS", 20)
    (tmp_path / "text.txt").write_text(TEXT)
    return RunConfig(str(tiny_files("llama").folder), str(tmp_path / "text.txt"), sequences=9, seq_len=32)


def _run(config: RunConfig, atlas: Atlas, folder: Path) -> int:
    return pipeline.run(config, atlas, folder / "cache", folder / "work", Silent(), "cpu")


def _sample(config: RunConfig, folder: Path) -> Sample:
    """What a run of the configuration measures."""
    files = find_model(config.model, folder / "cache", print)
    model = AnalysisModel.load(files, "cpu")
    tokens = pack(open_corpus(config.dataset, folder, print), model, config.sequences, config.seq_len, config.seed)
    return Sample.of(tokens, model.uncounted, config.seed)


def test_a_run_measures_everything(config: RunConfig, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        run = _run(config, atlas, tmp_path)
        record = atlas.runs.get(run)
        assert (record.status, record.stage, record.progress) == ("finished", "done", 1.0)
        assert (record.layer, record.sequences, record.tokens_sampled) == (LAYERS - 1, 9, 9 * 32)
        assert record.tokens_counted == record.tokens_total > 200
        assert record.error_groups == 9
        columns = atlas.neurons.columns(run, list(METRIC_COLUMNS))
        missing = {name for name, column in columns.items() if not np.isfinite(column).all()}
        of_a_job, of_experts = ({name, f"{name}_se"} for name in ("induction_change", "routed_share"))
        assert missing == of_a_job | of_experts, "a job measures after the run; this model has no experts"
        assert len(columns["index"]) == D_MLP
        histogram = atlas.neurons.histogram(run, 3)
        assert histogram is not None
        edges, counts = histogram
        assert counts.sum() == 9 * 32
        assert edges[0] == pytest.approx(columns["min_activation"][3], rel=1e-5)
        spectrum = atlas.runs.spectrum(run)
        assert spectrum is not None
        assert len(spectrum) == D_MODEL
        shown = atlas.contexts.showing(run, 3)
        buckets = [one.trace.bucket for one in shown]
        assert buckets.count("max") >= 1
        assert len({one.id for one in shown}) == len(buckets), "a window serves a neuron once"
        positions, effects = atlas.positions.get(run), atlas.positions.effects(run, [3])[0]
        assert positions is not None
        assert positions.sequences is not None
        assert len(positions.tokens) == len(effects["delta_loss"]) == record.tokens_total
        assert set(positions.sequences.tolist()) == set(range(9))
        assert np.abs(effects["delta_loss"]).mean() == pytest.approx(columns["total_effect"][3], rel=1e-4)
    assert not any((tmp_path / "work").rglob("trace-*")), "a finished run leaves no scratch files"


def test_the_numbers_are_those_of_the_whole_sample(
    config: RunConfig, tmp_path: Path, tiny_model: Callable[[str], AnalysisModel]
) -> None:
    """Sharded, shuffled and resumed means equal one pass over all counted positions."""
    model = tiny_model("llama")
    tokens = pack(open_corpus(config.dataset, tmp_path, print), model, 9, 32, 0, model.bos)
    trace = model.trace(torch.from_numpy(tokens))
    counted = torch.from_numpy(np.flatnonzero(counted_positions(tokens, model.uncounted)))
    means = trace.activations.flatten(0, 1).mean(dim=0)
    batch = TokenBatch(
        trace.residual.flatten(0, 1)[counted],
        trace.activations.flatten(0, 1)[counted],
        torch.from_numpy(tokens).flatten()[counted + 1],
    )
    by_sequence = counted.numpy() // 32  # as many groups as sequences: how they are dealt makes no difference
    expected = EffectSums.of(ablation_effects(model.readout, batch, means), by_sequence).columns()
    expected |= Moments.of(trace.activations.flatten(0, 1).double().numpy(), np.arange(9 * 32) // 32).columns()
    with Atlas.open(tmp_path / "a.db") as atlas:
        found = atlas.neurons.columns(_run(config, atlas, tmp_path), list(expected))
    for name, column in expected.items():
        atol = 2e-5 if name.startswith("ln_mediated") else 2e-6  # a share magnifies rounding
        np.testing.assert_allclose(found[name], column, atol=atol, rtol=2e-4, err_msg=name)


def test_a_killed_run_resumes_and_ends_the_same(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Atlas.open(tmp_path / "whole.db") as atlas:
        whole = atlas.neurons.columns(_run(config, atlas, tmp_path), list(METRIC_COLUMNS))
    calls = {"effects": 0}
    plain = EffectsEngine.sums

    def dying(*arguments: object) -> object:
        calls["effects"] += 1
        if calls["effects"] == 3:
            raise KeyboardInterrupt
        return plain(*arguments)  # type: ignore[arg-type]

    with Atlas.open(tmp_path / "killed.db") as atlas:
        monkeypatch.setattr(EffectsEngine, "sums", dying)
        with pytest.raises(KeyboardInterrupt):
            _run(config, atlas, tmp_path)
        half = atlas.runs.get(1)
        assert half.status == "running"
        assert half.error_groups == 2
        assert half.tokens_counted == sum(len(shard.places) for shard in _sample(config, tmp_path).measured[:2])
        assert np.isfinite(atlas.neurons.columns(1, ["total_effect_se"])["total_effect_se"]).all(), "worth looking at"
        assert _run(config, atlas, tmp_path) == 1
        resumed = atlas.neurons.columns(1, list(METRIC_COLUMNS))
        assert calls["effects"] == 3 + 7, "finished shards are not redone"
    for name, column in whole.items():
        np.testing.assert_array_equal(resumed[name], column, err_msg=name)


def test_shards_that_share_slabs_of_neurons_are_measured_as_before(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what neurons write does not fit into the memory, a slab of them is formed for several shards."""
    found, blocks = [], []
    plain = EffectsEngine.sums

    def counting(*arguments: Any) -> Any:
        blocks.append(len(arguments[1].targets))
        return plain(*arguments)

    monkeypatch.setattr(EffectsEngine, "sums", counting)
    for name, tiles in (("whole", None), ("slabs", Tiles(17, 10, block=70))):
        if tiles is not None:
            monkeypatch.setattr(Tiles, "within", lambda *_, tiles=tiles: tiles)
        with Atlas.open(tmp_path / f"{name}.db") as atlas:
            run = _run(config, atlas, tmp_path / name)
            assert len(atlas.runs.shards_done(run, "effects")) == 9
            positions = atlas.positions.get(run)
            assert positions is not None
            shown = (positions.tokens, positions.loss_before.tolist())
            columns = atlas.neurons.columns(run, list(METRIC_COLUMNS))
            found.append((columns, shown, atlas.positions.effects(run, [3])[0]))
    assert max(blocks[:9]) < 35 < max(blocks[9:]) <= 70
    (whole, shown, effects), (slabs, same, again) = found
    for column, values in whole.items():
        atol = 1e-3 if "mediated" in column else 2e-6  # a share of two means near 0 magnifies their rounding
        rtol = 1e-3 if column.endswith("_se") else 0
        np.testing.assert_allclose(slabs[column], values, atol=atol, rtol=rtol, err_msg=column)
    assert shown[0] == same[0]
    np.testing.assert_allclose(shown[1], same[1], atol=2e-6)
    for column, at_tokens in effects.items():
        np.testing.assert_allclose(again[column], at_tokens, atol=2e-5, err_msg=column)


def test_one_sequence_is_measured_without_errors(config: RunConfig, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        run = _run(replace(config, sequences=1), atlas, tmp_path)
        columns = atlas.neurons.columns(run, list(METRIC_COLUMNS))
        assert (atlas.runs.get(run).status, atlas.runs.get(run).error_groups) == ("finished", 1)
    assert np.isfinite(columns["total_effect"]).all()
    errors = [column for name, column in columns.items() if name.endswith("_se")]
    assert len(errors) > 10
    assert np.isnan(errors).all()


def test_how_a_shard_is_cut_changes_nothing(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long sequences are measured some positions at a time; what is shown of single tokens is in the same order."""
    found = []
    for at_once in (7, 1000):
        monkeypatch.setattr(pipeline, "SHARD_TOKENS", at_once)
        with Atlas.open(tmp_path / f"{at_once}.db") as atlas:
            run = _run(config, atlas, tmp_path / str(at_once))
            positions, effects = atlas.positions.get(run), atlas.positions.effects(run, [3])[0]
            assert positions is not None
            assert positions.sequences is not None
            places = (positions.tokens, positions.sequences.tolist())
            found.append((atlas.neurons.columns(run, list(METRIC_COLUMNS)), places, effects))
    (cut, places, effects), (whole, same_places, same_effects) = found
    for name, column in whole.items():
        atol = 1e-3 if "mediated" in name else 2e-6  # a share of two means near 0 magnifies their rounding
        np.testing.assert_allclose(cut[name], column, atol=atol, rtol=1e-3 if name.endswith("_se") else 0, err_msg=name)
    assert places == same_places
    for name, values in same_effects.items():
        np.testing.assert_allclose(effects[name], values, atol=1e-5, err_msg=name)


def test_a_failed_run_says_why_and_resumes(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    with Atlas.open(tmp_path / "a.db") as atlas:
        with monkeypatch.context() as patch:
            patch.setattr(contexts, "windows", fail)
            with pytest.raises(RuntimeError):
                _run(config, atlas, tmp_path)
        assert atlas.runs.get(1).status == "failed"
        assert "the disk is full" in (atlas.runs.get(1).message or "")
        assert _run(config, atlas, tmp_path) == 1
        assert atlas.runs.get(1).status == "finished"
        assert atlas.runs.get(1).message is None


def test_finishing_twice_changes_nothing(config: RunConfig, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        run = _run(config, atlas, tmp_path)
        revision = atlas.runs.get(run).revision
        assert _run(config, atlas, tmp_path) == run
        assert atlas.runs.get(run).revision == revision
        other = _run(replace(config, seed=1), atlas, tmp_path)
        assert other != run
        assert len(atlas.neurons.page(run, NeuronQuery(limit=100))[0]) == D_MLP


def test_weight_metrics_are_there_before_effects(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.Run, "activations", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with Atlas.open(tmp_path / "a.db") as atlas:
        with pytest.raises(KeyboardInterrupt):
            _run(config, atlas, tmp_path)
        columns = atlas.neurons.columns(1, [metric.name for metric in METRICS])
        assert np.isfinite(columns["null_fraction"]).all()
        assert np.isnan(columns["total_effect"]).all()


@pytest.mark.parametrize("wrong", [{"sequences": 0}, {"seq_len": 4}, {"null_dim": 0}])
def test_a_run_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        RunConfig("gpt2", **wrong)


def test_a_long_shard_does_not_look_interrupted(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[int] = []
    monkeypatch.setattr(heartbeat, "_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(Runs, "beat", lambda self, run: beats.append(run))
    plain = pipeline.Run.contexts

    def slow(self: pipeline.Run) -> None:
        time.sleep(0.2)
        plain(self)

    monkeypatch.setattr(pipeline.Run, "contexts", slow)
    with Atlas.open(tmp_path / "a.db") as atlas:
        run = _run(config, atlas, tmp_path)
    assert len(beats) >= 5
    assert set(beats) == {run}


def test_another_layer_is_measured_by_forward_passes(
    config: RunConfig,
    tmp_path: Path,
    tiny_model: Callable[[str], AnalysisModel],
    tiny_files: Callable[[str], ModelFiles],
) -> None:
    """Against the original model with one activation replaced at every position of every sequence."""
    reference = Reference(str(tiny_files("llama").folder), FAMILIES["llama"])
    model = tiny_model("llama")
    tokens = pack(open_corpus(config.dataset, tmp_path, print), model, 9, 32, 0, model.bos)
    counted = counted_positions(tokens, model.uncounted)
    with Atlas.open(tmp_path / "a.db") as atlas:
        run = _run(replace(config, layer=0), atlas, tmp_path)
        record = atlas.runs.get(run)
        columns = atlas.neurons.columns(run, list(METRIC_COLUMNS))
        assert (record.layer, record.status) == (0, "finished")
        assert record.tokens_counted == record.tokens_total == counted.sum()
        assert atlas.contexts.showing(run, 3)
        assert atlas.positions.effects(run, [3])
        last = _run(config, atlas, tmp_path)
        assert last != run
        assert atlas.runs.newest("llama") == last, "pages open the last layer"
    neuron, module = 5, reference.neurons_of(0)
    mean = columns["mean_activation"][neuron]
    found: dict[str, list[float]] = {"total_effect": [], "direct_effect_ln": [], "delta_entropy": []}
    for row, at in zip(torch.from_numpy(tokens), counted, strict=True):
        before = reference.plain(row)
        edits = [(module, slice(neuron, neuron + 1), torch.tensor([mean]))]
        total, frozen = (reference.edited(row, edits, frozen=frozen) for frozen in (False, True))
        chosen = torch.from_numpy(at[:-1])
        found["total_effect"] += (total.loss - before.loss)[chosen].abs().tolist()
        found["direct_effect_ln"] += (frozen.loss - before.loss)[chosen].abs().tolist()
        found["delta_entropy"] += (total.entropy - before.entropy)[chosen].tolist()
    for name, values in found.items():
        assert columns[name][neuron] == pytest.approx(np.mean(values), abs=2e-5), name


def test_memory_does_not_change_a_mean(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    means = []
    for name, tiles in (("roomy", Tiles(256, 64)), ("tight", Tiles(16, 10))):
        monkeypatch.setattr(Tiles, "within", lambda *_, tiles=tiles: tiles)
        with Atlas.open(tmp_path / f"{name}.db") as atlas:
            means.append(atlas.neurons.columns(_run(config, atlas, tmp_path / name), list(METRIC_COLUMNS)))
    for name, column in means[0].items():
        # A share of two means near 0 magnifies their rounding.
        atol = 1e-3 if name.startswith("ln_mediated") else 1e-6
        np.testing.assert_allclose(means[1][name], column, atol=atol, rtol=1e-4 if name.endswith("_se") else 0)


def test_the_same_run_gives_the_same_atlas_bit_for_bit(config: RunConfig, tmp_path: Path) -> None:
    columns = []
    for name in ("one", "other"):
        with Atlas.open(tmp_path / f"{name}.db") as atlas:
            columns.append(atlas.neurons.columns(_run(config, atlas, tmp_path / name), list(METRIC_COLUMNS)))
    for name, column in columns[0].items():
        np.testing.assert_array_equal(columns[1][name], column, err_msg=name)


def test_a_survey_is_near_and_keeps_no_single_tokens(config: RunConfig, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        exact, survey = _run(config, atlas, tmp_path), _run(replace(config, mode="survey"), atlas, tmp_path)
        assert exact != survey
        assert atlas.runs.get(survey).config["tolerance_nats"] == surveys.TOLERANCE
        assert atlas.positions.effects(survey, [3]) == []
        names = ["total_effect", "direct_effect_ln", "delta_entropy", "delta_reciprocal_rank"]
        one, other = atlas.neurons.columns(exact, names), atlas.neurons.columns(survey, names)
    for name in names:
        np.testing.assert_allclose(other[name], one[name], atol=surveys.TOLERANCE, rtol=0, err_msg=name)


def test_a_layer_that_is_not_there_is_refused(config: RunConfig, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        with pytest.raises(BadLayer, match="layers are 0 to 1"):
            _run(replace(config, layer=2), atlas, tmp_path)
        assert atlas.runs.newest() is None
    with pytest.raises(BadConfig, match="last layer"):
        replace(config, layer=0, mode="survey")
