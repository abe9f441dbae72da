"""Fixtures that several rooms share."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fastapi import FastAPI

from backend.atlas.store import Atlas
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from precompute import pipeline
from precompute.config import RunConfig
from precompute.progress import Silent
from precompute.training import TrainingRun, asked_steps
from tests.atlas.plans import PLAN
from tests.reference.tiny_models import build

if not torch.cuda.is_available():  # before Triton is imported anywhere: it decides then
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a card are skipped without one."""
    if not torch.cuda.is_available():
        needs_card = pytest.mark.skip(reason="needs an NVIDIA card; `make gpu-check` runs it where there is one")
        for item in items:
            if item.get_closest_marker("cuda") is not None:
                item.add_marker(needs_card)


FIXTURES = Path(__file__).parent / "fixtures"
"""Cases that several languages or layers are held to."""


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the service does."""
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelFiles]:
    """Tiny models by family, each built once."""
    folder: Path = tmp_path_factory.mktemp("models")
    built: dict[str, ModelFiles] = {}

    def files(family: str) -> ModelFiles:
        if family not in built:
            built[family] = build(family, folder)
        return built[family]

    return files


@pytest.fixture(scope="session")
def tiny_model(tiny_files: Callable[[str], ModelFiles]) -> Callable[[str], AnalysisModel]:
    """Tiny models by family, loaded for analysis once."""
    loaded: dict[str, AnalysisModel] = {}

    def model(family: str) -> AnalysisModel:
        if family not in loaded:
            loaded[family] = AnalysisModel.load(tiny_files(family), "cpu")
        return loaded[family]

    return model


@dataclass(frozen=True)
class TinyAtlas:
    """A finished run of the tiny LLaMA on a little text."""

    path: Path
    slug: str
    run: int
    layer: int
    neurons: int


def tiny_checkpoints(folder: Path, trained: ModelFiles, *, seed: int = 11) -> Path:
    """A folder of three checkpoints, the last of them with the weights of a model that there is."""
    for step in (0, 10):
        made = build(trained.folder.name, folder / "made", seed=seed + step)
        made.folder.rename(folder / f"step{step}")
    (folder / "made").rmdir()
    shutil.copytree(trained.folder, folder / "step2000")
    return folder


@pytest.fixture(scope="session")
def tiny_atlas(tmp_path_factory: pytest.TempPathFactory, tiny_files: Callable[[str], ModelFiles]) -> TinyAtlas:
    """An atlas made by the real pipeline."""
    folder = tmp_path_factory.mktemp("atlas")
    (folder / "text.txt").write_text(
        "".join(f"Lamp {n} hangs by hook {n % 5}; <b>{n}</b> is lit.\n" for n in range(80))
    )
    config = RunConfig(str(tiny_files("llama").folder), str(folder / "text.txt"), sequences=12, seq_len=32)
    checkpoints = tiny_checkpoints(folder / "trained", tiny_files("llama"))
    with Atlas.open(folder / "tiny.db") as atlas:
        run = pipeline.run(config, atlas, folder / "cache", folder / "work", Silent(), "cpu")
        training = TrainingRun(str(checkpoints), atlas, folder / "cache", Silent(), null_dim=3)
        for asked in asked_steps(str(checkpoints), "all"):
            training.measure(asked)
        record = atlas.runs.get(run)
        return TinyAtlas(folder / "tiny.db", record.model, run, record.layer, atlas.models.get(record.model).d_mlp)


@dataclass(frozen=True)
class ComparedAtlas:
    """Two runs of one tiny model with two seeds, one of another family, and one at its very beginning."""

    path: Path
    slug: str
    other_slug: str
    first: int
    second: int
    other: int
    begun: int


@pytest.fixture(scope="session")
def compared_atlas(
    tiny_atlas: TinyAtlas, tmp_path_factory: pytest.TempPathFactory, tiny_files: Callable[[str], ModelFiles]
) -> ComparedAtlas:
    """An atlas in which any two runs can be set beside each other, made by the real pipeline."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copy(tiny_atlas.path, folder / "compared.db")
    text = str(tiny_atlas.path.parent / "text.txt")

    def measured(atlas: Atlas, family: str, seed: int) -> int:
        config = RunConfig(str(tiny_files(family).folder), text, sequences=12, seq_len=32, seed=seed)
        return pipeline.run(config, atlas, folder / "cache", folder / "work", Silent(), "cpu")

    with Atlas.open(folder / "compared.db") as atlas:
        second, other = measured(atlas, "llama", 1), measured(atlas, "gpt2", 0)
        begun = atlas.runs.begin(PLAN).id
        other_slug = atlas.runs.get(other).model
    return ComparedAtlas(
        folder / "compared.db", tiny_atlas.slug, other_slug, tiny_atlas.run, second, other, begun
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_service(tiny_atlas: TinyAtlas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The API over the tiny atlas, with a live engine."""
    engine = LiveEngine(tmp_path_factory.mktemp("cache"), device="cpu")
    yield create_service(Settings(atlas=str(tiny_atlas.path)), engine=engine)
    engine.close()
