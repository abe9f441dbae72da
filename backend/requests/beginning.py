"""How sequences of a run begin, read from the atlas: so that texts, induction and generation begin as these do."""

from dataclasses import replace

from backend.atlas.records import RunRecord, windows_of
from backend.atlas.store import Atlas
from backend.core.models.beginning import AUTO, WHY, Beginning
from backend.live.texts import LiveModel


def of_run(atlas: Atlas, run: RunRecord | None) -> Beginning | None:
    """What stands before each sequence of a run, and why; None where no run tells."""
    if run is None:
        return None
    beginning: Beginning | None
    if "bos_token" in run.config:
        token = run.config["bos_token"]
        beginning = Beginning(None if token is None else int(token), AUTO, _reason(run))
    else:
        beginning = _of_sample(atlas, run)
    return beginning and replace(beginning, reason=f"as in run {run.id}: {beginning.reason}")


def live_model(atlas: Atlas, slug: str) -> LiveModel:
    """A model for the live engine; texts begin as in the run that pages show first.

    Raises:
        NotInAtlas: there is no such model.
    """
    model, newest = atlas.models.get(slug), atlas.runs.newest(slug)
    run = None if newest is None else atlas.runs.get(newest)
    weights = None if run is None else run.weights_hash
    return LiveModel(slug, model.source, of_run(atlas, run), weights, model.experts)


def _reason(run: RunRecord) -> str:
    facts = ((run.card or {}).get("bos") or {}).get("facts") or {}
    return str(facts.get(WHY, "its card does not say why"))


def _of_sample(atlas: Atlas, run: RunRecord) -> Beginning | None:
    """Of a run made before it was kept: a token with which all its sequences begin was put there."""
    tokens = atlas.contexts.sequences(run.id, windows_of(run))
    if len(tokens) < 2:
        return None
    first = tokens[:, 0]
    token = int(first[0]) if (first == first[0]).all() else None
    return Beginning(token, AUTO, f"its stored sequences begin {'so' if token is not None else 'with text'}")
