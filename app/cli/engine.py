"""The live engine as the settings describe it."""

from backend.core.models.trust import KnownSources
from backend.live.engine import LiveEngine
from backend.settings import Settings


def live_engine(settings: Settings) -> LiveEngine:
    """The models that the service computes with, not yet loaded."""
    return LiveEngine(
        settings.cache_dir,
        device=settings.device,
        models=settings.models_in_memory,
        texts_mb=settings.texts_mb,
        queue_limit=settings.queue_limit,
        queue_seconds=settings.queue_seconds,
        memory=settings.memory,
        known=KnownSources(settings.cache_dir, settings.models),
    )
