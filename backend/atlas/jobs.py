"""Work that waits in the atlas for the worker, and what comes of it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from backend.atlas import damage
from backend.atlas.arrays import nullable
from backend.atlas.database import Database, NotInAtlas
from backend.atlas.records import Array, JobRecord
from backend.atlas.schema import JobEventRow, JobResultRow, JobRow, RunRow
from backend.core.errors import CalibroscopeError

_SILENCE = timedelta(minutes=2)
"""A running job that has not been heard of for this long is taken up again."""
_MOST_WAITING = 50
_FIELDS = tuple(JobRecord.__dataclass_fields__)


class TooManyJobs(CalibroscopeError):
    """As many jobs are waiting as may."""

    def __init__(self) -> None:
        super().__init__(f"{_MOST_WAITING} jobs are waiting already: cancel one, or wait until the worker took some.")


class Jobs:
    """`Atlas.jobs`: a queue that outlives the processes that put jobs in and take them out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, kind: str, model: str, run: int | None, request: dict[str, Any]) -> JobRecord:
        """Queue a job; the same one that still waits or runs is not queued twice.

        Raises:
            TooManyJobs: too many are waiting.
        """
        with self._database.changing() as session:
            open_ones = session.scalars(select(JobRow).where(JobRow.status.in_(("queued", "running")))).all()
            for row in open_ones:
                if (row.kind, row.model, row.run, row.request) == (kind, model, run, request):
                    return _record(row)
            if len(open_ones) >= _MOST_WAITING:
                raise TooManyJobs
            now = datetime.now(UTC)
            row = JobRow(
                kind=kind, model=model, run=run, request=request, status="queued", progress=0.0, doing="waiting",
                created_at=now, heartbeat=now, parts_done=[],
            )  # fmt: skip
            session.add(row)
            session.flush()
            return _record(row)

    def newest(self, limit: int) -> list[JobRecord]:
        """The newest first."""
        return [_record(row) for row in self._database.all(select(JobRow).order_by(JobRow.id.desc()).limit(limit))]

    def get(self, job: int) -> JobRecord:
        """
        Raises:
            NotInAtlas: no such job.
        """
        row = self._database.one(select(JobRow).where(JobRow.id == job))
        if row is None:
            raise NotInAtlas(f"The atlas has no job {job}: see /api/v1/jobs for those it has.")
        return _record(row)

    def take(self) -> JobRecord | None:
        """The oldest job that waits, or whose worker has fallen silent; it is running from now on."""
        silent = datetime.now(UTC) - _SILENCE
        abandoned = (JobRow.status == "running") & (JobRow.heartbeat < silent)
        with self._database.changing() as session:
            wanted = select(JobRow).where(or_(JobRow.status == "queued", abandoned)).order_by(JobRow.id).limit(1)
            row = session.scalar(wanted)
            if row is None:
                return None
            row.status, row.heartbeat, row.doing = "running", datetime.now(UTC), "beginning"
            session.flush()
            return _record(row)

    def begin(self, job: int) -> JobRecord:
        """Take one job out of its turn."""
        with self._database.changing() as session:
            now = {"status": "running", "heartbeat": datetime.now(UTC)}
            session.execute(update(JobRow).where(JobRow.id == job, JobRow.status == "queued").values(**now))
        return self.get(job)

    def report_progress(self, job: int, progress: float, doing: str) -> bool:
        """Say how far a job is; False when it was cancelled and should stop."""
        with self._database.changing() as session:
            row = session.get(JobRow, job)
            if row is None or row.status != "running":
                return False
            row.progress, row.doing, row.heartbeat = progress, doing[:200], datetime.now(UTC)
            return True

    def take_up(self, job: int, made_from: str) -> JobRecord:
        """A job whose results are made from what the fingerprint stands for: those made from something else, which an
        earlier worker left, are dropped.

        Raises:
            NotInAtlas: no such job.
        """
        with self._database.changing() as session:
            row = session.get(JobRow, job)
            if row is not None and row.made_from != made_from:
                session.execute(delete(JobEventRow).where(JobEventRow.job == job))
                session.execute(delete(JobResultRow).where(JobResultRow.job == job))
                row.parts_done, row.made_from = [], made_from
        return self.get(job)

    def made_from(self, job: int) -> str | None:
        """The fingerprint of what a job's results were made from; None where it has none, or older ones."""
        fingerprint: str | None = self._database.one(select(JobRow.made_from).where(JobRow.id == job))
        return fingerprint

    def keep_part(
        self,
        job: int,
        part: str,
        payloads: Sequence[str],
        made_from: str | None = None,
        neurons: Mapping[str, Array] | None = None,
    ) -> bool:
        """Keep the results of a part of a job, all or none; False when another worker has taken the job up, whose
        results are made from something else.

        Args:
            payloads: the results as JSON, each a line.
            neurons: metrics of the neurons of the job's run, each [n_neurons]; the run itself stays as it is.
        """
        with self._database.changing() as session:
            row = session.get(JobRow, job)
            if row is None or row.made_from != made_from:
                return False
            if part in row.parts_done:
                return True
            place = session.scalar(select(func.count()).select_from(JobEventRow).where(JobEventRow.job == job)) or 0
            session.add_all(
                JobEventRow(job=job, place=place + step, payload=payload) for step, payload in enumerate(payloads)
            )
            if neurons is not None and row.run is not None:
                _keep_neurons(session, job, row.run, neurons)
            row.parts_done = [*row.parts_done, part]
            return True

    def results(self, job: int, start: int = 0) -> list[str]:
        """Its results from a place on, as JSON, in order."""
        wanted = select(JobEventRow.payload).where(JobEventRow.job == job, JobEventRow.place >= start)
        payloads = self._database.all(wanted.order_by(JobEventRow.place))
        with damage.reading(f"the results of job {job}"):
            return [_in_present_words(payload) for payload in payloads]

    def end(self, job: int, status: str, message: str | None = None) -> None:
        """Finished or failed; a job that was cancelled stays so."""
        self._close(job, ("running",), status, message)

    def requeue(self, job: int) -> None:
        """Give a running job back: its worker was asked to stop."""
        with self._database.changing() as session:
            session.execute(update(JobRow).where(JobRow.id == job, JobRow.status == "running").values(status="queued"))

    def cancel(self, job: int) -> JobRecord:
        """Stop a job that waits or runs; one that has ended stays as it is.

        Raises:
            NotInAtlas: no such job.
        """
        self._close(job, ("queued", "running"), "cancelled", None)
        return self.get(job)

    def _close(self, job: int, open_states: tuple[str, ...], status: str, message: str | None) -> None:
        values: dict[str, Any] = {"status": status, "message": message and message[:2000]}
        values |= {"finished_at": datetime.now(UTC)} | ({"progress": 1.0} if status == "finished" else {})
        with self._database.changing() as session:
            session.execute(update(JobRow).where(JobRow.id == job, JobRow.status.in_(open_states)).values(**values))


def _keep_neurons(session: Session, job: int, run: int, columns: Mapping[str, Array]) -> None:
    """Metrics of a run's neurons in place of those that earlier jobs measured; what is not finite is NULL."""
    layer = session.scalars(select(RunRow.layer).where(RunRow.id == run)).one()
    session.execute(delete(JobResultRow).where(JobResultRow.run == run))
    lists = {name: nullable(column) for name, column in columns.items()}
    rows = [
        {"run": run, "layer": layer, "index": index, "job": job} | dict(zip(lists, values, strict=True))
        for index, values in enumerate(zip(*lists.values(), strict=True))
    ]
    session.execute(insert(JobResultRow), rows)


def _in_present_words(payload: str) -> str:
    """A kept result as one that is kept today: what a start says was found used to be called `told`.

    Raises:
        ValueError: it is not a line of JSON.
    """
    result = json.loads(payload)
    if "\n" in payload:  # on the wire an empty line ends an event
        raise ValueError("a result is one line")
    if isinstance(result, dict) and result.get("kind") == "start" and "told" in result:
        return json.dumps({"summary" if name == "told" else name: value for name, value in result.items()})
    return payload


def _record(row: JobRow) -> JobRecord:
    return damage.record(JobRecord, f"job {row.id}", {name: getattr(row, name) for name in _FIELDS})
