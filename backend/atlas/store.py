"""`Atlas`: the only door to the database, and the parts behind it."""

from pathlib import Path
from types import TracebackType
from typing import Self

from backend.atlas.connect import PATIENCE
from backend.atlas.contexts import Contexts
from backend.atlas.database import Database
from backend.atlas.jobs import Jobs
from backend.atlas.models import Models
from backend.atlas.neurons import Neurons
from backend.atlas.positions import Positions
from backend.atlas.runs import Runs
from backend.atlas.training import Training


class Atlas:
    """An open atlas. Make one with `Atlas.open`; use it as a context manager, or `close` it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.models = Models(database)
        self.neurons = Neurons(database)
        self.runs = Runs(database, self.models, self.neurons)
        self.contexts = Contexts(database)
        self.positions = Positions(database)
        self.jobs = Jobs(database)
        self.training = Training(database)

    @classmethod
    def open(cls, location: str | Path, *, read_only: bool = False, patience: float = PATIENCE) -> Self:
        """Open the atlas at a path or database URL; a writable one is created and brought up to date.

        Args:
            patience: seconds that another process's lock is waited for, whenever the atlas is asked.

        Raises:
            AtlasMissing, AtlasUnusable: with a sentence that says what to do.
        """
        return cls(Database(location, read_only=read_only, patience=patience))

    def close(self) -> None:
        """Close all connections to the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
