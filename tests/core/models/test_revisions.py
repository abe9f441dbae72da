"""Checkpoints of a model by name@revision: found, told apart, and refused in a sentence where they are not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

from backend.core.errors import SourceError
from backend.core.models.checkpoints import Checkpoint
from backend.core.models.sources import ModelFiles, checkpoints_in, find_model, named_revision, split_revision
from backend.core.models.trust import KnownSources, UnknownSource, note
from tests.conftest import tiny_checkpoints


def _silent(_: str) -> None: ...


@pytest.fixture
def trained(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> Path:
    """A folder with step0, step10 and step2000."""
    return tiny_checkpoints(tmp_path / "trained", tiny_files("gpt2"))


def test_a_folder_in_a_folder_is_a_revision_with_a_name_and_a_hash_of_its_own(trained: Path, tmp_path: Path) -> None:
    first, last = (find_model(f"{trained}@{step}", tmp_path, _silent) for step in ("step0", "step2000"))
    assert (first.name, first.base, first.revision, first.slug) == (
        "trained@step0",
        "trained",
        "step0",
        "trained-step0",
    )
    assert first.folder == trained / "step0"
    assert first.slug != last.slug
    assert first.weights_hash() != last.weights_hash()
    assert Checkpoint.of(first).described == "trained, checkpoint step0 in a folder, float32"
    assert (Checkpoint.of(last).revision, Checkpoint.of(last).repository) == ("step2000", None)


def test_checkpoints_are_listed_by_their_numbers(trained: Path) -> None:
    (trained / "notes").mkdir()
    assert checkpoints_in(trained) == ["step0", "step10", "step2000"]


def test_a_folder_of_checkpoints_and_one_that_is_not_there_name_those_that_are(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"a folder of checkpoints, step0, step10, step2000: name one, as in trained@"
    ):
        find_model(str(trained), tmp_path, _silent)
    with pytest.raises(SourceError, match=r"has no checkpoint step5\. It has step0, step10, step2000\."):
        find_model(f"{trained}@step5", tmp_path, _silent)
    with pytest.raises(SourceError, match="No folder in it is a model's"):
        find_model(f"{trained / 'step0'}@step5", tmp_path, _silent)


@pytest.mark.parametrize("revision", ["../step0", "a/../../b", "/etc", "", "x y", "s" * 201])
def test_what_is_no_revision_is_refused(revision: str, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no revision"):
        find_model(f"{trained}@{revision}", tmp_path, _silent)
    with pytest.raises(SourceError, match="is no revision"):
        named_revision(str(trained), revision)


@pytest.mark.parametrize("name", ["smollm2-135m@step0", "model.gguf@step0"])
def test_what_is_one_file_has_no_revisions(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="leave @step0 out"):
        find_model(name, tmp_path, _silent)


def test_a_folder_whose_own_name_has_an_at_is_itself(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> None:
    folder = tmp_path / "me@home"
    folder.symlink_to(tiny_files("gpt2").folder)
    assert split_revision(str(folder)) == (str(folder), None)
    assert find_model(str(folder), tmp_path, _silent).revision is None


def test_a_revision_stands_behind_the_name_or_beside_it_and_not_in_both() -> None:
    assert named_revision("a/b", None) == "a/b"
    assert named_revision("a/b", "step3000") == named_revision("a/b@step3000", "step3000") == "a/b@step3000"
    with pytest.raises(SourceError, match="names the revision main already"):
        named_revision("a/b@main", "step3000")


def test_the_hub_is_asked_for_the_revision(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tiny_files("gpt2").folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    files = find_model("someone/tiny@refs/pr/1", tmp_path, _silent)
    assert (asked["name"], asked["revision"]) == ("someone/tiny", "refs/pr/1")
    assert (files.name, files.slug) == ("someone/tiny@refs/pr/1", "someone-tiny-refs-pr-1")
    found = Checkpoint.of(files)
    assert (found.repository, found.revision) == ("someone/tiny", "refs/pr/1")
    assert found.described.startswith("someone/tiny at revision refs/pr/1, commit ")


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        (RevisionNotFoundError, 404, "someone/tiny has no revision step9 on the hub"),
        (GatedRepoError, 403, "someone/tiny@step9 is gated.*huggingface.co/someone/tiny.*HF_TOKEN"),
    ],
)
def test_an_absent_and_a_gated_revision_are_refused_in_a_sentence(
    kind: Any, status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    def fail(*_: object, **__: object) -> str:
        raise kind("no", response=httpx.Response(status, request=httpx.Request("GET", "https://hub.invalid")))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SourceError, match=words):
        find_model("someone/tiny@step9", tmp_path, _silent)


def test_one_revision_does_not_vouch_for_another(trained: Path, tmp_path: Path) -> None:
    """Anybody can propose weights for a model on the hub, which are then a revision of it."""
    for source in (f"{trained}@step0", "someone/tiny@step0"):
        note(tmp_path / "cache", source)
    known = KnownSources(tmp_path / "cache")
    for source in (f"{trained}@step0", str(trained / "step0"), "someone/tiny@step0"):
        known.require(source)
    for source in (f"{trained}@step10", "someone/tiny", "someone/tiny@refs/pr/1"):
        with pytest.raises(UnknownSource):
            known.require(source)
    KnownSources(tmp_path, [str(trained)]).require(f"{trained}@step10")
