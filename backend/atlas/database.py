"""One atlas's database: sessions that read, transactions that write, and errors in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Executable, Select, select
from sqlalchemy.exc import DatabaseError, TimeoutError
from sqlalchemy.orm import Session

from backend.atlas import damage
from backend.atlas.connect import atlas_url, connect, failure, lock_writers
from backend.atlas.schema import ModelRow, RunRow
from backend.core.errors import CalibroscopeError

_ADVICE = "See that its file is whole and writable and its disk has room, or that its server runs; then try again."


class NotInAtlas(CalibroscopeError):
    """The atlas has no such model, run or neuron, or not that part of it yet."""


class Database:
    """The database of an open atlas, which its parts share."""

    def __init__(self, location: str | Path, *, read_only: bool, patience: float) -> None:
        """
        Args:
            patience: seconds that another process's lock is waited for.

        Raises:
            AtlasMissing, AtlasUnusable: with a sentence that says what to do.
        """
        self._engine = connect(atlas_url(location), read_only=read_only, patience=patience)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session to read with.

        Raises:
            AtlasBusy: another process holds the atlas.
            AtlasUnusable: the database fails: its file is damaged, its disk full, its server gone.
        """
        try:
            with Session(self._engine) as session:
                yield session
        except (DatabaseError, TimeoutError) as error:
            raise failure(error, "The atlas fails", _ADVICE) from error

    @contextmanager
    def changing(self) -> Iterator[Session]:
        """One transaction, which writes all or nothing; others wait until it ends."""
        with self.session() as session, session.begin():
            lock_writers(session.connection())
            yield session

    def all(self, wanted: Select[Any]) -> list[Any]:
        """The first column of every row."""
        with self.session() as session, damage.reading(lambda: _tables(wanted)):
            return list(session.scalars(wanted))

    def one(self, wanted: Select[Any]) -> Any:
        """The first column of the first row, or None."""
        with self.session() as session, damage.reading(lambda: _tables(wanted)):
            return session.scalar(wanted)

    def rows(self, wanted: Executable) -> list[Any]:
        """All rows."""
        with self.session() as session, damage.reading(lambda: _tables(wanted)):
            return list(session.execute(wanted))

    def width(self, run: int, of: str) -> int:
        """A size of a run's model: `d_model`, `d_mlp` or `d_vocab`.

        Raises:
            AtlasDamaged: the atlas does not say.
        """
        size = self.one(
            select(getattr(ModelRow, of)).join(RunRow, RunRow.model == ModelRow.slug).where(RunRow.id == run)
        )
        if not isinstance(size, int):
            raise damage.AtlasDamaged(f"the model of run {run}", f"has no {of}")
        return size


def _tables(wanted: Executable) -> str:
    froms = wanted.get_final_froms() if isinstance(wanted, Select) else []
    names = sorted({str(getattr(table, "name", "a part of it")) for table in froms})
    return f"a row of {' and '.join(names)[:80]}"
