"""Files that are read again: only where they are what is wanted, to the last byte."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backend.core.errors import SourceError
from precompute.kept import fingerprint, keep, kept

TENSORS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor([], dtype=torch.int64)}


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    keep(tmp_path / "new" / "x.safetensors", TENSORS, "this")
    found = kept(tmp_path / "new" / "x.safetensors", "this")
    assert found is not None
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.safetensors"]


def test_what_was_made_from_something_else_counts_as_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert kept(path, "this") is None
    keep(path, TENSORS, "this")
    assert kept(path, "that") is None
    save_file(TENSORS, path)
    assert kept(path, "this") is None, "it does not say what it was made from"
    path.unlink()
    path.mkdir()
    assert kept(path, "this") is None


@pytest.mark.parametrize("seed", range(12))
def test_no_byte_can_change_unseen(tmp_path: Path, seed: int) -> None:
    """Anywhere in the file: the header, what it says of itself, or the numbers."""
    path, draw = tmp_path / "x.safetensors", random.Random(seed)
    keep(path, TENSORS, "this")
    whole = path.read_bytes()
    for _ in range(40):
        place, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        found = kept(path, "this")
        same = found is not None and found.keys() == TENSORS.keys()
        assert found is None or (same and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)), place
    for length in (0, 1, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert kept(path, "this") is None
    path.write_bytes(whole + b"more")
    assert kept(path, "this") is None


def test_tensors_of_another_shape_are_seen(tmp_path: Path) -> None:
    """Unchanged bytes that are read as another table count as damaged."""
    path = tmp_path / "x.safetensors"
    keep(path, TENSORS, "this")
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["a"]["shape"] = [4, 3]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    assert kept(path, "this") is None


def test_a_folder_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("in the way")
    with pytest.raises(SourceError, match=r"Nothing could be kept in .*CALIBROSCOPE_CACHE_DIR"):
        keep(tmp_path / "a-file" / "x.safetensors", TENSORS, "this")


def test_a_fingerprint_is_of_every_part() -> None:
    assert fingerprint(a=1, b=[2, "x"]) == fingerprint(b=[2, "x"], a=1)
    assert len({fingerprint(a=1), fingerprint(a=2), fingerprint(b=1), fingerprint(a="1"), fingerprint(a=[1])}) == 5
