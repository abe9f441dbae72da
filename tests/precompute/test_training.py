"""Checkpoints of a training: which are asked for, what is measured of each, and what is kept."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.atlas.inspection import inspect_atlas
from backend.atlas.store import Atlas
from backend.core.errors import BadConfig, SourceError
from backend.core.metrics.by_weights import WEIGHT_METRICS
from backend.core.models.sources import ModelFiles
from precompute import pipeline
from precompute.config import RunConfig
from precompute.progress import Silent
from precompute.training import StepAsked, TrainingRun, asked_steps
from tests.conftest import TinyAtlas, tiny_checkpoints
from tests.reference.tiny_models import D_MLP, D_MODEL, LAYERS


@pytest.fixture
def trained(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> Path:
    return tiny_checkpoints(tmp_path / "trained", tiny_files("gpt2"))


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        ("step0,step512", [("step0", 0), ("step512", 512)]),
        ("step20, step3 ,step100", [("step3", 3), ("step20", 20), ("step100", 100)]),
        ("stage1-step5000-tokens21B", [("stage1-step5000-tokens21B", 5000)]),
        ("checkpoint-500,main=600", [("checkpoint-500", 500), ("main", 600)]),
        ("ckpt_7", [("ckpt_7", 7)]),
    ],
)
def test_a_step_is_the_number_in_a_name_or_stands_behind_it(written: str, steps: list[tuple[str, int]]) -> None:
    assert asked_steps("someone/model", written) == [StepAsked(*step) for step in steps]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("main", "main has no number"), ("step1,ckpt1", "both stand for step 1"), (" , ", "with commas"),
        ("main=many", "as a number"), ("all", "no folder of any"), ("step99999999999", "at most"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_checkpoints_is_refused(written: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        asked_steps("someone/model", written)


def test_all_takes_every_checkpoint_of_a_folder(trained: Path) -> None:
    assert [asked.step for asked in asked_steps(str(trained), "all")] == [0, 10, 2000]


def test_a_step_has_the_numbers_that_a_run_of_its_weights_has(
    trained: Path, tmp_path: Path, tiny_files: Callable[[str], ModelFiles]
) -> None:
    (tmp_path / "text.txt").write_text("The lamp is lit, and the lamp is not lit. " * 40)
    with Atlas.open(tmp_path / "a.db") as atlas:
        config = RunConfig(f"{trained}@step2000", str(tmp_path / "text.txt"), 2, 24, null_dim=3)
        run = pipeline.run(config, atlas, tmp_path / "cache", tmp_path / "work", Silent(), "cpu")
        step = TrainingRun(str(trained), atlas, tmp_path / "cache", Silent(), 3).measure(StepAsked("step2000", 2000))
        columns = atlas.neurons.columns(run, list(WEIGHT_METRICS))
        record = atlas.runs.get(run)
        assert atlas.models.get(record.model).source.endswith("trained@step2000")
        assert record.model == "trained-step2000"
        (kept,) = atlas.training.get("trained")
        for name in WEIGHT_METRICS:
            assert np.array_equal(step.columns[name], columns[name])
            assert np.allclose(kept.columns[name], columns[name], rtol=1e-6), "kept in float32"
        spectrum = atlas.runs.spectrum(run)
        assert spectrum is not None
        assert np.allclose(kept.singular_values, spectrum, rtol=1e-6, atol=1e-6)
        assert kept.chance["null_fraction"] == (record.chance or {})["null_fraction"]
        assert (kept.n_neurons, kept.d_model, kept.layer, kept.null_dim) == (D_MLP, D_MODEL, LAYERS - 1, 3)
        assert atlas.training.runs_of([kept]) == {record.weights_hash: (record.model, run)}


def test_a_checkpoint_measured_again_takes_its_own_place(trained: Path, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        training = TrainingRun(str(trained), atlas, tmp_path / "cache", Silent())
        training.measure(StepAsked("step10", 10))
        training.measure(StepAsked("step0", 0))
        (trained / "step10").rename(trained / "older")
        (trained / "step0").rename(trained / "step10")
        again = training.measure(StepAsked("step10", 10))
        first, second = atlas.training.get("trained")
        assert (first.revision, second.revision) == ("step0", "step10")
        assert first.weights_hash == second.weights_hash == again.weights_hash


def test_models_of_one_name_and_other_ks_have_trainings_of_their_own(trained: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "elsewhere" / "trained"))
    one, two = StepAsked("step0", 0), StepAsked("step10", 10)
    with Atlas.open(tmp_path / "a.db") as atlas:
        slugs = [
            TrainingRun(str(folder), atlas, tmp_path, Silent(), k).measure(asked).training
            for folder, k, asked in ((trained, 2, one), (trained, 2, two), (trained, 3, one), (other, 2, one))
        ]
        assert slugs[0] == slugs[1] == "trained"
        assert len(set(slugs)) == 3, "another k and another folder are other trainings"
        assert all(slug.startswith("trained-") for slug in slugs[2:])
        assert [len(steps) for steps in atlas.training.all().values()] == [2, 1, 1]


def test_a_checkpoint_of_another_size_is_refused(trained: Path, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        training = TrainingRun(str(trained), atlas, tmp_path, Silent())
        step = training.measure(StepAsked("step0", 0))
        with pytest.raises(BadConfig, match=r"has 45 neurons .* had 44"):
            atlas.training.put(replace(step, revision="step1", n_neurons=45))
        with pytest.raises(SourceError, match="no checkpoint step7"):
            training.measure(StepAsked("step7", 7))


def test_the_doctor_reads_trainings_too(tiny_atlas: TinyAtlas) -> None:
    looked_at = {finding.what: finding.is_well for finding in inspect_atlas(str(tiny_atlas.path))}
    assert looked_at["training trained"]
