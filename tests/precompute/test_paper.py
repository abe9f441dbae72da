"""The paper's models as presets: their settings, what may be given beside them, gates, and counts from elsewhere."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from app.cli.measuring import measure
from app.components.run_card import line, parts
from backend.answers.runs import run_summary
from backend.atlas.store import Atlas
from backend.core.errors import BadConfig, ChecksumMismatch, SourceError
from backend.core.models.downloads import sha256_of
from backend.core.models.sources import ModelFiles
from backend.settings import Settings
from precompute import paper
from precompute.paper import PAPER_MODELS, PublishedCounts, preset_config
from tests.reference.tiny_models import build


def _silent(_: str) -> None: ...


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands where the authors' files do."""
    folder = tmp_path / "published"
    folder.mkdir()
    handler: Any = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(paper, "_COUNTS", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_presets_are_appendix_d() -> None:
    """100 sequences for GPT-2 Small and Pythia, 50 for GPT-2 Medium and Phi-2, 30 for models of 2B and more; k is 12
    for GPT-2 Small, 40 for LLaMA-2 7B and 1 % elsewhere; sequences begin with BOS."""
    sequences = {name: preset.sequences for name, preset in PAPER_MODELS.items()}
    assert sequences == {
        "gpt2-small": 100, "gpt2-medium": 50, "pythia-160m": 100, "pythia-160m-dropout": 100, "pythia-410m": 100,
        "pythia-1b": 100, "phi-2": 50, "gemma-2b": 30, "llama-2-7b": 30,
    }  # fmt: skip
    assert {name: one.null_dim for name, one in PAPER_MODELS.items() if one.null_dim} == {
        "gpt2-small": 12, "llama-2-7b": 40,
    }  # fmt: skip
    assert [name for name, one in PAPER_MODELS.items() if one.is_gated] == ["gemma-2b", "llama-2-7b"]
    assert [name for name, one in PAPER_MODELS.items() if one.counts is None] == ["gemma-2b", "llama-2-7b"]
    for preset in PAPER_MODELS.values():
        assert preset.settings | {"bos": "always", "seq_len": 256, "dataset": "stas/c4-en-10k"} == preset.settings


def test_there_is_no_other_preset(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no preset 'gpt-5': there are gpt2-small, .*llama-2-7b"):
        preset_config("gpt-5", {}, tmp_path, _silent)


def test_what_is_given_beside_a_preset_takes_its_place_and_is_said(tmp_path: Path) -> None:
    given = {"model": "/home/alice/gpt2", "sequences": 10, "frequency": "model", "seed": 3, "bos": "always"}
    config = preset_config("gpt2-small", given, tmp_path, _silent)
    assert (config.model, config.sequences, config.seed, config.null_dim) == ("/home/alice/gpt2", 10, 3, 12)
    assert (config.frequency, config.counts, config.bos) == ("model", None, "always")
    section = (config.preset or pytest.fail("no preset")).as_section()
    assert section["short"] == "preset gpt2-small, but for --model, --sequences, --frequency"
    assert section["facts"]["--sequences"] == "10 (the preset has 100)"
    assert section["facts"]["--model"] == "gpt2 (the preset has openai-community/gpt2)"
    assert "alice" not in str(section)
    assert "preset" not in config.as_dict(), "a run is what it measures, however that was asked for"


def test_a_gated_model_is_said_to_be_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: fetched.append(name))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    settings = Settings(atlas=str(tmp_path / "a.db"), cache_dir=tmp_path)
    with pytest.raises(SourceError, match=r"meta-llama/Llama-2-7b-hf, which is gated.*HF_TOKEN.*Nothing was fetched"):
        measure(settings, "llama-2-7b", {})
    assert not fetched
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    assert preset_config("llama-2-7b", {}, tmp_path, _silent).model == "meta-llama/Llama-2-7b-hf"
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert preset_config("llama-2-7b", {"model": "./mine"}, tmp_path, _silent).model == "./mine"


def test_published_counts_are_fetched_once_and_checked(address: Path, tmp_path: Path) -> None:
    np.save(address / "counts.npy", np.arange(5))
    published = PublishedCounts("the counts", "counts.npy", sha256_of(address / "counts.npy"))
    said: list[str] = []
    path = published.fetched(tmp_path / "cache", said.append)
    assert np.array_equal(np.load(path), np.arange(5))
    (address / "counts.npy").unlink()
    assert published.fetched(tmp_path / "cache", said.append) == path
    assert said == ["Fetching the counts (once) …"]
    path.write_bytes(b"damaged")
    with pytest.raises(SourceError, match=r"could not be fetched.*--counts FILE, or --frequency model"):
        published.fetched(tmp_path / "cache", said.append)
    (address / "counts.npy").write_bytes(b"something else")
    with pytest.raises(ChecksumMismatch):
        published.fetched(tmp_path / "cache", said.append)
    assert [file.name for file in path.parent.iterdir()] == ["counts.npy"]


def test_a_small_model_is_measured_under_a_presets_settings(
    address: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the preset's k, BOS and counts; text and sizes are given beside it, since no hub can be reached."""
    np.save(address / "counts.npy", np.arange(260))
    published = PublishedCounts("the counts", "counts.npy", sha256_of(address / "counts.npy"))
    preset = PAPER_MODELS["gpt2-small"]
    monkeypatch.setitem(paper.PAPER_MODELS, "gpt2-small", type(preset)(**vars(preset) | {"counts": published}))
    files = build("gpt2", tmp_path)
    (tmp_path / "text.txt").write_text("The lamp is lit, and the lamp is not lit. " * 60)
    settings = Settings(atlas=str(tmp_path / "a.db"), cache_dir=tmp_path / "cache", device="cpu")
    given = {"model": str(files.folder), "dataset": str(tmp_path / "text.txt"), "sequences": 3, "seq_len": 32}
    (run,) = measure(settings, "gpt2-small", given)
    with Atlas.open(settings.atlas) as atlas:
        record = atlas.runs.get(run)
        summary = run_summary(record)
        assert (record.null_dim, record.config["bos_token"], record.config["seq_len"]) == (12, 0, 32)
        assert "counts.npy" in str(record.config["frequency_source"])
    assert "preset gpt2-small, but for --model, --dataset, --sequences, --seq-len" in line(summary)
    facts = {title: dict(listed.facts) for listed in parts(summary) for title in [listed.title]}
    assert facts["Whose settings"]["--seq-len"] == "32 (the preset has 256)"
    assert facts["Whose settings"]["Settings of"] == "GPT-2 Small in the paper (preset gpt2-small)"


def test_a_preset_takes_a_checkpoint_of_other_weights(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(name: str, **options: Any) -> str:
        asked.append(f"{name} {options['revision']}")
        raise huggingface_hub.errors.RevisionNotFoundError("no", response=_not_found())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    settings = Settings(atlas=str(tmp_path / "a.db"), cache_dir=tmp_path)
    with pytest.raises(SourceError, match="no revision step7"):
        measure(settings, "pythia-160m", {"frequency": "model"}, revision="step7")
    assert asked == ["EleutherAI/pythia-160m step7"]


def _not_found() -> Any:
    import httpx

    return httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))
