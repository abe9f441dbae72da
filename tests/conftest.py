"""Fixtures that several rooms share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.model import AnalysisModel
from backend.core.sources import ModelFiles
from tests.reference.tiny_models import build


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
