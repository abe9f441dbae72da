"""How often tokens occur as a run takes it, and how far the model's predictions are from that."""

import numpy as np
from numpy.typing import NDArray

from backend import schemas
from backend.answers.neurons import require_tokens
from backend.atlas import damage
from backend.atlas.records import RunRecord, frequency_source
from backend.atlas.runs import not_yet
from backend.atlas.store import Atlas
from backend.core.metrics.statistics import correlation, rank_correlation


@damage.reading("a run's sampled positions")
def run_positions(atlas: Atlas, run: RunRecord) -> schemas.RunPositions:
    """What the model predicted at the run's sampled positions: entropy against the distance from the token frequencies
    (Figure 3a)."""
    require_tokens(run)
    positions = atlas.positions.get(run.id)
    if positions is None:
        raise not_yet(run, "per-token effects")
    entropy, kl = positions.entropy_before.astype(np.float64), positions.kl_before
    return schemas.RunPositions(
        tokens=positions.tokens,
        targets=positions.targets,
        loss=positions.loss_before.tolist(),
        entropy=entropy.tolist(),
        rank=positions.rank_before.tolist(),
        kl=None if kl is None else kl.tolist(),
        correlation=None if kl is None else correlation(entropy, kl.astype(np.float64)),
        rank_correlation=None if kl is None else rank_correlation(entropy, kl.astype(np.float64)),
    )


@damage.reading("a run's token frequencies")
def token_frequencies(atlas: Atlas, run: RunRecord, limit: int) -> schemas.TokenFrequencies:
    """Where the run's token frequencies come from, and the tokens that are most and least frequent by them."""
    source, counts = frequency_source(run), run.config.get("counts_sha256")
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
