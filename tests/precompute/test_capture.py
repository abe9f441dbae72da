"""Capture and effects apart give the atlas of precompute, and a folder from elsewhere is not trusted."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file

from backend.atlas.store import Atlas
from backend.core.errors import SourceError
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from precompute import effects, kept_capture, pipeline
from precompute.capture import prepared
from precompute.config import RunConfig
from precompute.kept import keep
from precompute.progress import Silent
from precompute.sample import TracedShard, Traces
from tests.precompute.atlas_content import assert_the_same, content

TEXT = "".join(f"Lamp {n} hangs by hook {n % 5}; {n * n} others are lit.\n" for n in range(60))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the text is, and what is fetched."""
    place = tmp_path_factory.mktemp("capture")
    (place / "text.txt").write_text(TEXT)
    return place


@pytest.fixture(scope="module")
def config(place: Path, tiny_files: Callable[[str], ModelFiles]) -> RunConfig:
    return RunConfig(str(tiny_files("llama").folder), str(place / "text.txt"), sequences=9, seq_len=24)


def _capture(config: RunConfig, folder: Path, cache: Path) -> None:
    model, capture = prepared(config, cache, Silent(), "cpu")
    kept_capture.write(model, capture, folder, Silent())


@pytest.fixture(scope="module")
def captured(config: RunConfig, place: Path) -> Path:
    """A capture that no test changes."""
    _capture(config, place / "captured", place / "cache")
    return place / "captured"


@pytest.fixture
def folder(captured: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(captured, tmp_path / "captured"))


def _effects(folder: Path, atlas: Path, **options: Any) -> int:
    with Atlas.open(atlas) as opened:
        return effects.measure(folder, opened, Silent(), "cpu", **options)


@pytest.mark.parametrize("changes", [{}, {"mode": "survey", "null_dim": 3}, {"frequency": "counts"}], ids=str)
def test_two_stages_give_the_atlas_of_one(
    changes: dict[str, Any], config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, in every table; without the model where the effects are."""
    if "frequency" in changes:
        np.save(tmp_path / "counts.npy", np.arange(250.0))
        changes = changes | {"counts": str(tmp_path / "counts.npy")}
    chosen = replace(config, **changes)
    with Atlas.open(tmp_path / "one.db") as atlas:
        pipeline.run(chosen, atlas, tmp_path / "cache", tmp_path / "work", Silent(), "cpu")
    own = ("mode", "null_dim")
    _capture(
        replace(config, **{name: value for name, value in changes.items() if name not in own}),
        tmp_path / "captured", tmp_path / "cache",
    )  # fmt: skip
    moved = shutil.move(tmp_path / "captured", tmp_path / "elsewhere")
    monkeypatch.setattr(AnalysisModel, "load", lambda *_: pytest.fail("the model is loaded"))
    _effects(Path(moved), tmp_path / "two.db", **{name: changes[name] for name in own if name in changes})
    assert_the_same(content(tmp_path / "two.db"), content(tmp_path / "one.db"))


def test_a_killed_capture_goes_on(
    config: RunConfig, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that are there whole are kept; one that a bit was turned over in is made anew."""
    whole = {path.name: load(path.read_bytes()) for path in folder.glob("*.safetensors")}
    (folder / "trace-00002.safetensors").unlink()
    damaged = folder / "trace-00001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"\0\0\0")
    made: list[slice] = []
    plain = Traces._compute

    def counted(self: Traces, sequences: slice) -> TracedShard:
        made.append(sequences)
        return plain(self, sequences)

    monkeypatch.setattr(Traces, "_compute", counted)
    _capture(config, folder, tmp_path / "cache")
    assert made == [slice(4, 8), slice(8, 9)]
    for name, tensors in whole.items():
        again = load_file(folder / name)
        assert all(torch.equal(again[key], tensor) for key, tensor in tensors.items()), name


def test_a_folder_of_another_capture_is_left_alone(config: RunConfig, folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SourceError, match="holds another capture"):
        _capture(replace(config, seed=1), folder, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["trace-00001.safetensors", "readout.safetensors", "sample.safetensors",
                                  "vocabulary.json", "capture.json"])  # fmt: skip
@pytest.mark.parametrize("damage", ["gone", "bit", "cut", "other"])
def test_a_file_that_is_not_as_it_was_written_is_refused_by_name(
    name: str, damage: str, folder: Path, tmp_path: Path
) -> None:
    path = folder / name
    if damage == "gone":
        path.unlink()
    else:
        raw = path.read_bytes()
        middle = len(raw) * 3 // 4
        bit = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
        other = (folder / "trace-00000.safetensors").read_bytes()
        path.write_bytes({"bit": bit, "cut": raw[:-7], "other": other}[damage])
    with pytest.raises(SourceError, match=name):
        _effects(folder, tmp_path / "a.db")


def _resaved(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Tensors changed by somebody who knows how a file vouches for itself."""
    with safe_open(path, framework="pt") as file:
        made_from = file.metadata()["made_from"]
    keep(path, change(load_file(path)), made_from)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("trace-00000.safetensors", lambda t: t | {"residual": t["residual"][:, :, :-1]}),
        ("trace-00000.safetensors", lambda t: t | {"residual": t["residual"].double()}),
        ("trace-00000.safetensors", lambda t: t | {"more": t["loss"] + 1}),
        ("trace-00000.safetensors", lambda t: {name: t[name] for name in t if name != "rank"}),
        ("readout.safetensors", lambda t: t | {"W_U": t["W_U"].half()}),
        ("readout.safetensors", lambda t: t | {"W_U": t["W_U"][:, :-1]}),
        ("readout.safetensors", lambda t: t | {"b_U": torch.zeros(7)}),
        ("readout.safetensors", lambda t: {name: t[name] for name in t if name != "W_out"}),
        ("sample.safetensors", lambda t: t | {"tokens": t["tokens"] + 300}),
        ("sample.safetensors", lambda t: t | {"tokens": t["tokens"] - 300}),
        ("sample.safetensors", lambda t: t | {"tokens": t["tokens"].int()}),
        ("sample.safetensors", lambda t: t | {"tokens": t["tokens"][:, :-1]}),
    ],
)  # fmt: skip
def test_tensors_of_other_sizes_and_types_are_refused(
    name: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], folder: Path, tmp_path: Path
) -> None:
    """Each file vouches for its own bytes: it is what it holds that is wrong."""
    _resaved(folder / name, change)
    with pytest.raises(SourceError, match=str(folder)):
        _effects(folder, tmp_path / "a.db")
    with Atlas.open(tmp_path / "a.db") as atlas:
        if name != "trace-00000.safetensors":
            assert atlas.runs.newest() is None, "nothing is begun"


@pytest.mark.parametrize(
    "change",
    [
        {"layer": -1}, {"d_vocab": 10**12}, {"readout": {"norm": "none such", "eps": 1e-5}}, {"uncounted": ["a"]},
        {"readout": {"norm": "LayerNorm", "eps": -1.0}}, {"readout": {"eps": 1e-5}}, {"sequences": 0}, {"format": 99},
        {"card": {}}, {"frequencies": {"source": "elsewhere", "corpus": "", "file": "", "counted": False}},
        {"model": {}}, {"fingerprint": "0" * 64},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(change: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    path = folder / "capture.json"
    body = json.loads(path.read_text())["capture"] | change
    path.write_text(json.dumps({"capture": body, "sha256": kept_capture._checksum(body)}))
    with pytest.raises(SourceError, match=str(folder)):
        _effects(folder, tmp_path / "a.db")


def test_a_pickle_is_never_read(folder: Path, tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return pytest.fail, ("a pickle was read",)

    torch.save({"residual": Bad()}, folder / "trace-00000.safetensors")
    with pytest.raises(SourceError, match="trace-00000"):
        _effects(folder, tmp_path / "a.db")


def test_no_capture_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no capture"):
        _effects(tmp_path, tmp_path / "a.db")


def test_a_full_disk_is_seen_before_anything_is_computed(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1000))
    with pytest.raises(SourceError, match=r"takes \d+\.\d GB.*--out"):
        _capture(config, tmp_path / "captured", tmp_path / "cache")
    assert not list((tmp_path / "captured").glob("trace-*"))


def test_metadata_of_safetensors_is_all_that_names_it(folder: Path) -> None:
    """A file saved without saying what it is made from is of no capture."""
    path = folder / "trace-00000.safetensors"
    save_file(load_file(path), path)
    _, traces = kept_capture.opened(folder, torch.device("cpu"))
    with pytest.raises(SourceError, match="trace-00000"):
        traces[0]
