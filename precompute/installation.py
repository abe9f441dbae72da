"""Whether this installation can work: packages, cache, packaged model, device, disk, port."""

import platform
import shutil
import socket
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from backend.atlas.inspection import Diagnosis
from backend.core.errors import CalibroscopeError
from backend.core.models.devices import choose_device
from backend.core.models.sources import PACKAGED_MODELS
from precompute.gpu import Gpu

_PACKAGES = ("calibroscope", "torch", "transformers", "transformer-lens", "numpy", "dash", "fastapi", "sqlalchemy")
_ROOM = 2_000_000_000
"""Bytes that a first analysis of the packaged model needs, with room to spare."""


def inspect_installation(cache: Path, device: str, host: str, port: int) -> Iterator[Diagnosis]:
    """Look at what an analysis and the service need. Nothing is fetched."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield Diagnosis("versions", True, f"Python {platform.python_version()}, {packages}")
    yield from _cache(cache)
    for name, packaged in PACKAGED_MODELS.items():
        here = any((cache / "models").glob(f"{name}-*/config.json"))
        cached = "dequantised in the cache; its checksums are checked whenever it is used"
        absent = f"not here yet: fetched when first used ({packaged.megabytes} MB; licence: {packaged.licence})"
        yield Diagnosis(name, True, cached if here else absent)
    try:
        chosen = choose_device(device)
        yield Diagnosis("device", True, str(chosen))
        if chosen.type == "cuda":
            yield from Gpu.here(chosen.index or 0).diagnoses()
    except CalibroscopeError as error:
        yield Diagnosis("device", False, str(error))
    yield _port(host, port)


def _cache(cache: Path) -> Iterator[Diagnosis]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
        free = shutil.disk_usage(cache).free
    except OSError as error:
        advice = "Give it room or permissions, or set CALIBROSCOPE_CACHE_DIR to another folder"
        yield Diagnosis("cache", False, f"{cache} cannot be written to: {error.strerror}. {advice}.")
        return
    yield Diagnosis("cache", True, f"{cache} can be written to")
    yield Diagnosis("disk", free >= _ROOM, f"{free / 1e9:.1f} GB are free there, {_ROOM / 1e9:.0f} GB are good to have")


def _port(host: str, port: int) -> Diagnosis:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Diagnosis(
                "port", False, f"{host}:{port} cannot be listened on: {error.strerror}. Take another: --port."
            )
    return Diagnosis("port", True, f"{host}:{port} is free")
