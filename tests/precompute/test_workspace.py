"""Working folders: one process in each, found again after a kill, and gone when nobody needs them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.core.errors import SourceError
from precompute.workspace import working_folder

MADE = "0123456789abcdef" * 4


def _interrupted(scratch: Path, made_from: str) -> Path:
    """The folder of a run that is stopped after it has kept something."""
    try:
        with working_folder(scratch, made_from) as folder:
            (folder / "trace").write_text("x")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return folder


def test_a_folder_is_gone_when_its_run_is_done(tmp_path: Path) -> None:
    with working_folder(tmp_path / "work", MADE) as folder:
        (folder / "trace").write_text("x")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["claims.lock"]


def test_what_was_interrupted_finds_its_folder_again(tmp_path: Path) -> None:
    folder = _interrupted(tmp_path, MADE)
    with working_folder(tmp_path, "f" * 64) as other:
        assert not list(other.iterdir()), "made from something else"
    with working_folder(tmp_path, MADE) as again:
        assert again == folder
        assert (again / "trace").read_text() == "x"


def test_two_at_once_share_no_folder(tmp_path: Path) -> None:
    with working_folder(tmp_path, MADE) as one:
        (one / "trace").write_text("one")
        with working_folder(tmp_path, MADE) as other:
            assert one != other
            (other / "trace").write_text("other")
        assert (one / "trace").read_text() == "one", "the end of one takes nothing from the other"


def test_another_process_is_kept_out_until_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from precompute.workspace import working_folder\n"
        f"with working_folder(Path({str(tmp_path)!r}), {MADE!r}) as folder:\n"
        "    (folder / 'trace').write_text('its'); print(folder, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        its = Path(process.stdout.readline().strip())
        with working_folder(tmp_path, MADE) as mine:
            assert mine != its
        process.kill()
        process.wait()
    with working_folder(tmp_path, MADE) as mine:
        assert mine == its
        assert (mine / "trace").read_text() == "its"


def test_what_nobody_came_back_for_is_deleted_but_nothing_in_use(tmp_path: Path) -> None:
    old = time.time() - 15 * 24 * 3600
    recent = _interrupted(tmp_path, "e" * 64)
    with working_folder(tmp_path, MADE) as used:
        abandoned = tmp_path / "run-1"
        abandoned.mkdir()
        (abandoned / "trace").write_text("x")
        for folder in (used, abandoned):
            os.utime(folder, (old, old))
        with working_folder(tmp_path, "f" * 64):
            assert used.exists()
            assert recent.exists()
            assert not abandoned.exists()
            assert not (tmp_path / "run-1.lock").exists()


def test_a_folder_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("in the way")
    with pytest.raises(SourceError, match="Nothing could be kept in"), working_folder(tmp_path / "a-file", MADE):
        pass
