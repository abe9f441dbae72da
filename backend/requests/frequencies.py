"""The token frequencies that a request about a live text takes, read from the atlas."""

from backend.atlas.records import frequency_source
from backend.atlas.runs import not_yet
from backend.atlas.store import Atlas
from backend.live.texts import LiveFrequencies


def live_frequencies(atlas: Atlas, slug: str, run: int | None) -> LiveFrequencies | None:
    """The token frequencies that go with a live text, or None where no run of the model has stored any.

    Raises:
        NotInAtlas: the asked run does not exist, or belongs to another model.
    """
    record = atlas.runs.with_frequencies(slug, run)
    if record is None:
        return None
    p = atlas.runs.unigram(record.id)
    if p is None:
        raise not_yet(record, "token frequencies")
    return LiveFrequencies(f"{frequency_source(record) or record.corpus} (run {record.id})", p)
