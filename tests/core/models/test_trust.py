"""An atlas from elsewhere does not choose which model is loaded here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.models.sources import ModelFiles
from backend.core.models.trust import KnownSources, UnknownSource, note
from backend.live.engine import LiveEngine
from backend.live.texts import LiveModel


def test_packaged_models_need_no_leave(tmp_path: Path) -> None:
    KnownSources(tmp_path).require("smollm2-135m")


@pytest.mark.parametrize(
    "source", ["evil/model", "/etc", "/srv/models/x", "../x", "~/x", "\x00", "a" * 5_000, "x.gguf"]
)
def test_what_nobody_chose_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownSource, match="CALIBROSCOPE_MODELS"):
        KnownSources(tmp_path).require(source)


def test_what_was_analysed_here_is_known_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models")
    for source in ("openai-community/gpt2", "mine"):
        note(tmp_path / "cache", source)
    known = KnownSources(tmp_path / "cache")
    known.require("openai-community/gpt2")
    monkeypatch.chdir(tmp_path)
    known.require(str(folder))
    with pytest.raises(UnknownSource):
        known.require("mine")


def test_the_operator_confirms_names_folders_or_the_hub(tmp_path: Path) -> None:
    inside = tmp_path / "root" / "model"
    inside.mkdir(parents=True)
    (tmp_path / "root" / "way-out").symlink_to(tmp_path)
    KnownSources(tmp_path, [str(tmp_path / "root")]).require(str(inside))
    KnownSources(tmp_path, ["a/b"]).require("a/b")
    KnownSources(tmp_path, ["hub"]).require("any/thing")
    for confirmed, source in (
        ([str(tmp_path / "root")], str(tmp_path / "root" / "way-out" / "other")),
        ([str(tmp_path / "root")], str(tmp_path / "root" / ".." / "other")),
        ([str(tmp_path / "root")], "a/b"),
        (["a/b"], "a/c"),
        (["hub"], str(inside)),
    ):
        with pytest.raises(UnknownSource):
            KnownSources(tmp_path, confirmed).require(source)


@pytest.mark.parametrize("content", ["", "no JSON", "{}", "[" * 100_000, "[1, null]"])
def test_a_damaged_note_vouches_for_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "sources.json").write_text(content)
    with pytest.raises(UnknownSource):
        KnownSources(tmp_path).require("a/b")
    note(tmp_path, "a/b")
    KnownSources(tmp_path).require("a/b")


def test_the_live_engine_loads_only_what_is_known(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> None:
    source = str(tiny_files("llama").folder)
    engine = LiveEngine(tmp_path, device="cpu", known=KnownSources(tmp_path))
    model = LiveModel("llama", source)
    with pytest.raises(UnknownSource):
        engine.token_weights(model, 1, 3)
    note(tmp_path, source)
    assert len(engine.token_weights(model, 1, 3).weights)
    engine.close()
