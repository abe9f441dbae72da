"""Taking up a run: whose it is from now on, and which of its finished parts may be kept.

A run belongs to the process that took it up last; another that was at it finds that out at its next write, and stops.
Its parts are kept where they were made by what would make them now, and where their seals are whole.
"""

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import LargeBinary, delete, select, type_coerce
from sqlalchemy.orm import Session

from backend.atlas.arrays import MalformedArray, pack_named, unpack_named
from backend.atlas.records import Array, RunPlan
from backend.atlas.schema import (
    ContextRow,
    DirectionRow,
    HistogramRow,
    JobResultRow,
    JobRow,
    NeuronRow,
    PositionsRow,
    RunRow,
    ShardRow,
    SpectrumRow,
    TokenEffectsRow,
    TraceRow,
    UnigramRow,
)

Say = Callable[[str], None]

_SEAL = "seal"
_PARTS = (
    ShardRow, NeuronRow, SpectrumRow, UnigramRow, DirectionRow, HistogramRow, TraceRow, ContextRow, PositionsRow,
    TokenEffectsRow, JobResultRow,
)  # fmt: skip


def new_owner() -> str:
    """A mark that no other process has."""
    return secrets.token_hex(16)


def take_up(session: Session, run: RunRow, plan: RunPlan, owner: str, say: Say) -> None:
    """Make an unfinished run the owner's, without the parts that the owner would not make the same."""
    if run.made_by != plan.made_by:
        say(
            f"Run {run.id} was begun by another version of Calibroscope or of its packages, or on another device: what "
            "it has measured so far is dropped, and it begins anew."
        )
        _begin_anew(session, run, plan)
    else:
        _drop_damaged(session, run, say)
    run.owner, run.status, run.message, run.heartbeat = owner, "running", None, datetime.now(UTC)


def sealed(arrays: dict[str, Array], made_by: str | None, stage: str, index: int) -> dict[str, Array]:
    """A shard's arrays with a seal over their bytes, their place, and what made them."""
    return arrays | {_SEAL: _seal(arrays, made_by, stage, index)}


def unsealed(arrays: dict[str, Array]) -> dict[str, Array]:
    """A shard's arrays without the seal."""
    return {name: array for name, array in arrays.items() if name != _SEAL}


def _seal(arrays: dict[str, Array], made_by: str | None, stage: str, index: int) -> Array:
    digest = hashlib.sha256(f"{made_by}\0{stage}\0{index}\0".encode())
    digest.update(pack_named(arrays))
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _is_whole(blob: bytes, made_by: str | None, stage: str, index: int) -> bool:
    try:
        arrays = unpack_named(blob)
    except MalformedArray:
        return False
    seal = arrays.get(_SEAL)
    return seal is not None and np.array_equal(seal, _seal(unsealed(arrays), made_by, stage, index))


def _begin_anew(session: Session, run: RunRow, plan: RunPlan) -> None:
    for table in _PARTS:
        session.execute(delete(table).where(table.run == run.id))
    # Jobs that wait are about the run, whatever made it; what others found is about what is dropped.
    session.execute(delete(JobRow).where(JobRow.run == run.id, JobRow.status != "queued"))
    run.made_by, run.versions, run.card, run.created_at = plan.made_by, plan.versions, plan.card, datetime.now(UTC)
    run.stage, run.progress, run.tokens_sampled, run.tokens_counted = "queued", 0.0, 0, 0
    run.mean_loss = run.mean_entropy = run.chance = run.error_groups = None
    run.revision += 1


def _drop_damaged(session: Session, run: RunRow, say: Say) -> None:
    """Drop every shard that is not as it was written, and those of its stage after it: sums are taken in order, so that
    a run that was resumed gives the numbers of one that was not, to the last bit."""
    wanted = select(ShardRow.stage, ShardRow.index, type_coerce(ShardRow.arrays, LargeBinary))
    first: dict[str, int] = {}
    for stage, index, blob in session.execute(wanted.where(ShardRow.run == run.id).order_by(ShardRow.index)):
        if stage not in first and not _is_whole(blob, run.made_by, stage, index):
            first[stage] = index
    for stage, index in first.items():
        say(f"Run {run.id}: a part of its stage {stage!r} is damaged; it is made anew from there.")
        of_stage = (ShardRow.run == run.id) & (ShardRow.stage == stage)
        session.execute(delete(ShardRow).where(of_stage, ShardRow.index >= index))
