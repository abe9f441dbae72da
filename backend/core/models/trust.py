"""Which models an atlas may have loaded: an atlas from elsewhere names its model's source, which may be anything.

Loaded are packaged models, what this installation has analysed itself (its own analyses are noted in the cache), and
what the operator has confirmed by name, by folder, or as all of the hub.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import structlog
from filelock import FileLock

from backend.core.errors import CalibroscopeError
from backend.core.models.downloads import cannot_write
from backend.core.models.sources import PACKAGED_MODELS, split_revision

HUB = "hub"
"""Confirms every model of the Hugging Face hub."""
_FILE = "sources.json"
log = structlog.get_logger(__name__)


class UnknownSource(CalibroscopeError):
    """An atlas names a model that nobody here has chosen."""


class KnownSources:
    """Says whether a source may be loaded."""

    def __init__(self, cache: Path, confirmed: Sequence[str] = ()) -> None:
        """What is known on this machine.

        Args:
            cache: the folder in which models that were analysed here are noted.
            confirmed: names of models, folders whose models may be loaded, or `hub`.
        """
        self._cache, self._confirmed = cache, tuple(confirmed)

    def require(self, source: str) -> None:
        """Refuse a model whose source is not known.

        Raises:
            UnknownSource: nothing here vouches for the source.
        """
        if source in PACKAGED_MODELS or source in self._confirmed:
            return
        plain_name = _plain_name(source)
        if plain_name in _noted(self._cache) or self._is_confirmed(plain_name):
            return
        log.warning("model not loaded: its source is not known here", source=source)
        raise UnknownSource(
            f"The atlas names {Path(source).name[:80]!r} as its model, which was never analysed here. "
            "It is not loaded; what the atlas holds is shown all the same. If you trust it, start the service with "
            "CALIBROSCOPE_MODELS naming it, its folder, or `hub` for all of the Hugging Face hub. The service's log "
            "has the whole name."
        )

    def _is_confirmed(self, plain_name: str) -> bool:
        if not os.path.isabs(plain_name):  # noqa: PTH117  # a name on the hub is no path
            return HUB in self._confirmed
        roots = [Path(name).expanduser() for name in self._confirmed if name != HUB]
        return any(Path(plain_name).is_relative_to(root.resolve()) for root in roots if root.is_absolute())


def note(cache: Path, source: str) -> None:
    """Remember that this installation has analysed a model from that source.

    Raises:
        SourceError: the cache cannot be written to.
    """
    if source in PACKAGED_MODELS:
        return
    plain_name = _plain_name(source)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{_FILE}.lock"):
            noted = _noted(cache)
            if plain_name not in noted:
                part = cache / f".{_FILE}.{os.getpid()}"
                part.write_text(json.dumps(sorted({*noted, plain_name})), encoding="utf-8")
                part.replace(cache / _FILE)
    except OSError as error:
        raise cannot_write(cache, error) from error


def _noted(cache: Path) -> set[str]:
    """What was noted; of a file that is damaged nothing, since it vouches for nothing."""
    try:
        confirmed = json.loads((cache / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    return {name for name in confirmed if isinstance(name, str)} if isinstance(confirmed, list) else set()


def _plain_name(source: str) -> str:
    """A folder's or file's place on this machine, links resolved; a name on the hub as it is, with its revision: what
    others propose for a model is a revision of it too, so that each is known by itself."""
    base, revision = split_revision(source)
    path = os.path.expanduser(base)  # noqa: PTH111  # Path.expanduser raises where the user does not exist
    is_local = os.path.lexists(path) or base.startswith(("/", "./", "../", "~"))
    return os.path.realpath(path if revision is None else f"{path}/{revision}") if is_local else source
