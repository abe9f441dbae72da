"""The first ablation after a text is traced: it has been rehearsed, and once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.core.interventions.ablation import TextAblation, ablate_text
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.core.models.traced_text import TracedText
from backend.live import engine as live
from backend.live.engine import LiveEngine
from backend.live.texts import LiveModel


def test_two_tokens_are_ablated_once_a_model_after_its_first_text(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def noted(model: AnalysisModel, text: TracedText, *rest: Any) -> TextAblation:
        lengths.append(len(text.tokens))
        return ablate_text(model, text, *rest)

    monkeypatch.setattr(live, "ablate_text", noted)
    engine = LiveEngine(tmp_path, device="cpu", models=2)
    for family in ("llama", "gpt2"):
        model = LiveModel(family, str(tiny_files(family).folder))
        for text in ("A lamp is lit.", "Another lamp is lit."):
            engine.trace(model, text, 64)
    engine._line.when_free(lambda: None).result(60)
    engine.close()
    assert lengths == [2, 2]
