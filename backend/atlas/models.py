"""The models of an atlas."""

from sqlalchemy import select
from sqlalchemy.orm import undefer

from backend.atlas import damage
from backend.atlas.database import Database, NotInAtlas
from backend.atlas.records import ModelRecord
from backend.atlas.schema import ModelRow

_FIELDS = tuple(ModelRecord.__dataclass_fields__)


class Models:
    """`Atlas.models`: what is known of each model but for its runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[ModelRecord]:
        """All models, by name."""
        return [_record(row) for row in self._database.all(select(ModelRow).order_by(ModelRow.name))]

    def get(self, slug: str) -> ModelRecord:
        """
        Raises:
            NotInAtlas: no such model.
        """
        row = self._database.one(select(ModelRow).where(ModelRow.slug == slug))
        if row is None:
            raise NotInAtlas(f"The atlas has no model {slug[:80]!r}: see /api/v1/models for those it has.")
        return _record(row)

    def vocabulary(self, slug: str) -> list[str]:
        """A model's token strings, by id; empty while they are not stored."""
        row = self._database.one(select(ModelRow).where(ModelRow.slug == slug).options(undefer(ModelRow.vocabulary)))
        if row is None or row.vocabulary is None:
            return []
        if len(row.vocabulary) != row.d_vocab:
            raise damage.AtlasDamaged(
                f"the vocabulary of {slug!r}", f"has {len(row.vocabulary)} tokens, the model {row.d_vocab!r}"
            )
        return list(row.vocabulary)


def _record(row: ModelRow) -> ModelRecord:
    fields = {name: getattr(row, name) for name in _FIELDS}
    return damage.record(ModelRecord, f"the model {row.slug!r}"[:90], fields)
