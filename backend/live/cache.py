"""The models in memory, by the source that each was loaded from: as its files are now, not as they once were."""

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import structlog

from backend.core.errors import CalibroscopeError
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ReadFiles, find_model
from backend.core.models.trust import KnownSources
from backend.live.texts import LiveModel

log = structlog.get_logger(__name__)


class OtherWeights(CalibroscopeError):
    """What lies where a model came from is no longer that model."""

    def __init__(self, model: LiveModel) -> None:
        super().__init__(
            f"The weights that are now at {model.source} are not those that {model.slug} was measured on, so nothing "
            "is computed with them here. Put those back, or measure these: calibroscope precompute --model "
            f"{model.source}."
        )


class LoadedModels:
    """Loads models and keeps the last few."""

    def __init__(
        self,
        cache: Path,
        device: str,
        most: int,
        *,
        known: KnownSources | None = None,
        forgotten: Callable[[str], None],
        changed: Callable[[str], None],
        took: Callable[[float], None],
    ) -> None:
        """
        Args:
            most: how many stay loaded.
            known: which sources models may be loaded from; None trusts whatever the atlas names.
            forgotten: is told the source of a model that is no longer in memory.
            changed: is told the source of one whose files are not those that it was loaded from before.
            took: is told the seconds that loading took.
        """
        self._cache, self._device, self._most, self._known = cache, device, most, known
        self._forgotten, self._changed, self._took = forgotten, changed, took
        self._models: OrderedDict[str, AnalysisModel] = OrderedDict()
        self._read: dict[str, ReadFiles] = {}
        """By source, also of models that are no longer in memory: what was computed by them may be."""

    @property
    def sources(self) -> list[str]:
        """Of the models in memory."""
        return list(self._models)

    def hold(self, model: AnalysisModel) -> bool:
        """Whether this very model is in memory."""
        return any(kept is model for kept in self._models.values())

    def fingerprint(self, source: str) -> str:
        """Of the files that the model was last loaded from."""
        return self._read[source].fingerprint

    def loaded(self, model: LiveModel) -> AnalysisModel:
        """The model, loaded if it is not in memory or its files have been written to.

        Raises:
            OtherWeights: they are not those that its runs were measured on.
            CalibroscopeError: as the source and the model raise it.
        """
        if model.source not in self._models or not self._read[model.source].are_as_read():
            self._load(model.source)
        self._models.move_to_end(model.source)
        if model.weights not in (None, self._read[model.source].weights_hash):
            raise OtherWeights(model)
        return self._models[model.source]

    def _load(self, source: str) -> None:
        if self._known is not None:
            self._known.require(source)
        if self._models.pop(source, None) is not None:
            self._forgotten(source)
        while len(self._models) >= self._most:
            self._forgotten(self._models.popitem(last=False)[0])
        log.info("loading model", source=source)
        began = time.monotonic()
        try:
            files = find_model(source, self._cache, lambda line: log.info(line))
            state = files.state()
            loaded = AnalysisModel.load(files, self._device)
            read = ReadFiles.of(files, state)
        finally:
            self._took(time.monotonic() - began)
        if source in self._read and self._read[source].fingerprint != read.fingerprint:
            log.warning("model has changed", source=source)
            self._changed(source)
        self._models[source], self._read[source] = loaded, read
