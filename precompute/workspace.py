"""Folders for what unfinished runs must remember: named after what their files are made from, one process in each.

A folder is locked while it is used, and the operating system drops the lock with the process, however that ends. So two
runs at once never share a file, a killed run finds its files again, and what nobody came back for can be told from what
is in use.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from backend.core.models.downloads import cannot_write

_ABANDONED_SECONDS = 14 * 24 * 3600
"""How long a folder that nobody uses is kept for a run that may be resumed."""
_NAME = 24
"""Characters of the fingerprint in a folder's name; files in it carry the whole."""


@contextmanager
def working_folder(scratch: Path, made_from: str) -> Iterator[Path]:
    """A folder under `scratch` that no other process uses meanwhile.

    It is deleted when the body ends well. When it does not, the folder stays, and whoever next asks for one made from
    the same is given it. Folders that nobody has used for two weeks are deleted on the way.

    Raises:
        SourceError: no folder can be made there.
    """
    try:
        folder, lock = _claimed(scratch, made_from)
    except OSError as error:
        raise cannot_write(scratch, error) from error
    try:
        yield folder
    except BaseException:
        lock.release()
        raise
    with _claims(scratch):
        _delete(folder, lock)


def _claims(scratch: Path) -> FileLock:
    """Held for the moment in which folders are claimed or deleted: neither then happens to a folder twice."""
    scratch.mkdir(parents=True, exist_ok=True)
    return FileLock(scratch / "claims.lock")


def _claimed(scratch: Path, made_from: str) -> tuple[Path, FileLock]:
    with _claims(scratch):
        _delete_abandoned(scratch)
        for place in count():
            folder = scratch / f"{made_from[:_NAME]}-{place}"
            if (lock := _locked(folder)) is not None:
                folder.mkdir(exist_ok=True)
                return folder, lock
    raise AssertionError("unreachable")


def _locked(folder: Path) -> FileLock | None:
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _delete_abandoned(scratch: Path) -> None:
    for folder in scratch.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
            lock = _locked(folder)
            if lock is not None:
                _delete(folder, lock)


def _delete(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
