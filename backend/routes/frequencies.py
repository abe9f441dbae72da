"""How often tokens occur as a run takes it, and how far the model's predictions are from that."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray

from backend import schemas
from backend.answers.atlas_records import not_yet, require_tokens
from backend.atlas import damage
from backend.atlas.records import RunRecord
from backend.atlas.store import Atlas
from backend.core.metrics.statistics import correlation, rank_correlation
from backend.live.texts import LiveFrequencies
from backend.routes.deps import AtlasDep, Reading, RunDep

router = APIRouter(prefix="/runs/{run}", tags=["token frequencies"], dependencies=[Reading])


@router.get("/positions")
@damage.reading("a run's sampled positions")
def read_positions(run: RunDep, atlas: AtlasDep) -> schemas.RunPositions:
    """What the model predicted at the run's sampled positions: entropy against the distance from the token frequencies
    (Figure 3a)."""
    require_tokens(run)
    found = atlas.positions.get(run.id)
    if found is None:
        raise not_yet(run, "per-token effects")
    entropy, kl = found.entropy_before.astype(np.float64), found.kl_before
    return schemas.RunPositions(
        tokens=found.tokens,
        targets=found.targets,
        loss=found.loss_before.tolist(),
        entropy=entropy.tolist(),
        rank=found.rank_before.tolist(),
        kl=None if kl is None else kl.tolist(),
        correlation=None if kl is None else correlation(entropy, kl.astype(np.float64)),
        rank_correlation=None if kl is None else rank_correlation(entropy, kl.astype(np.float64)),
    )


@router.get("/frequencies")
@damage.reading("a run's token frequencies")
def read_frequencies(
    run: RunDep,
    atlas: AtlasDep,
    limit: Annotated[int, Query(ge=1, le=schemas.MAX_FREQUENT_TOKENS)] = 20,
) -> schemas.TokenFrequencies:
    """Where the run's token frequencies come from, and the tokens that are most and least frequent by them."""
    source, counts = described(run), run.config.get("counts_sha256")
    p, vocabulary = atlas.runs.unigram(run.id), atlas.models.vocabulary(run.model)
    if p is None or not vocabulary:
        nothing = dict.fromkeys(("vocabulary", "entropy", "most", "least", "equally_rare"))
        why = _missing(run, source)
        return schemas.TokenFrequencies(source=source, counts_sha256=counts, missing=why, **nothing)
    rare = np.argsort(p, kind="stable")
    exact = p.astype(np.float64) / p.astype(np.float64).sum()
    return schemas.TokenFrequencies(
        source=source,
        counts_sha256=counts,
        missing=None,
        vocabulary=len(p),
        entropy=float(-(exact * np.log(exact)).sum()),
        most=_shares(exact, vocabulary, rare[::-1][:limit]),
        least=_shares(exact, vocabulary, rare[:limit]),
        equally_rare=int((p == p.min()).sum()),
    )


def described(run: RunRecord) -> str | None:
    """Where a run's token frequencies come from, in words; None of a run made before they were measured."""
    source = run.config.get("frequency_source")
    return source if isinstance(source, str) else None


def live(atlas: Atlas, slug: str, run: int | None) -> LiveFrequencies | None:
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
    return LiveFrequencies(f"{described(record) or record.corpus} (run {record.id})", p)


def _missing(run: RunRecord, source: str | None) -> str:
    if run.status == "running":
        return "The run has not come to the token frequencies yet: they follow the activations."
    if source is None:
        return f"Run {run.id} was made before token frequencies were measured. A run with another --seed measures them."
    return (
        f"Run {run.id} was made before its token frequencies were kept: what follows from them is measured, they are "
        "not there to be shown. A run with another --seed keeps them."
    )


def _shares(p: NDArray[np.float64], vocabulary: list[str], ids: NDArray[np.int64]) -> list[schemas.TokenShare]:
    return [
        schemas.TokenShare(token_id=i, token=vocabulary[i] if i < len(vocabulary) else "", probability=float(p[i]))
        for i in ids.tolist()
    ]
