"""A run in the words of the wire: what pages, answers and exported files say of it. Nothing private is in it."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from pydantic import ValidationError

from backend import schemas
from backend.atlas import damage
from backend.atlas.connect import AtlasUnusable
from backend.atlas.records import Config, ModelRecord, RunRecord
from backend.atlas.store import Atlas
from backend.core.models.sources import PACKAGED_MODELS
from backend.core.neurons import Experts

_EXACT = 3e-6
"""The bound of runs that do not tell theirs."""
_PRIVATE = ("model", "dataset")
"""What was asked for and may be a path on the machine that measured the run."""


@damage.reading("a run")
def run_summary(record: RunRecord) -> schemas.RunSummary:
    """A run: what it measures, how far it is, and its card.

    Raises:
        AtlasUnusable: the card or the chance lines that the atlas holds are none.
    """
    fields: dict[str, Any] = dict(vars(record))
    fields |= {
        "mode": record.config.get("mode", "exact"),
        "tolerance_nats": record.config.get("tolerance_nats", _EXACT),
    }
    fields |= {"experts": expert_layout(record.experts)}
    fields |= {"config": shown_config(record.config), "card": run_card(record), "chance": run_chance(record)}
    return schemas.RunSummary(**fields)


def expert_layout(experts: Experts | None) -> schemas.ExpertLayout | None:
    """How a layer's neurons are divided among experts; None where it has none."""
    return None if experts is None else schemas.ExpertLayout(**vars(experts))


def run_card(record: RunRecord) -> schemas.RunCard | None:
    """What exactly was measured; None for a run made before this was kept.

    Raises:
        AtlasUnusable: what the atlas holds is no card.
    """
    return _kept(schemas.RunCard, record.card, f"The card of run {record.id}")


def run_chance(record: RunRecord) -> schemas.RunChance | None:
    """The chance lines beside which the run's neurons have their classes; None for a run made before there were any.

    Raises:
        AtlasUnusable: what the atlas holds are no chance lines.
    """
    return _kept(schemas.RunChance, record.chance, f"What chance reaches in run {record.id}")


_Described = TypeVar("_Described", bound=schemas.Wire)


def _kept(kind: type[_Described], kept: Any, what: str) -> _Described | None:
    if kept is None:
        return None
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise AtlasUnusable(
            f"{what} is damaged, or of a newer version of Calibroscope (at {where}). Update Calibroscope, or measure "
            "the run again into another atlas."
        ) from error


def shown_config(config: Config) -> Config:
    """What a run was asked to do, without the folders of the machine that it was asked on."""
    return {
        name: shown_name(value) if name in _PRIVATE and isinstance(value, str) else value
        for name, value in config.items()
    }


def shown_name(asked: str) -> str:
    """A model's or a text's name as it may be shown: of a path its last part, of a name on the hub all of it."""
    if "\\" in asked or re.match(r"[A-Za-z]:", asked):
        return PureWindowsPath(asked).name or asked
    base = asked.partition("@")[0]  # a revision on the hub may have slashes of its own
    is_path = base.startswith(("/", "~", ".")) or base.count("/") > 1
    is_file = asked.lower().endswith((".gguf", ".txt", ".jsonl", ".parquet"))
    return PurePosixPath(asked).name or asked if is_path or is_file else asked


def model_name(record: ModelRecord) -> str:
    """What a model is called; a packaged one by what it is, also where an older version named it otherwise."""
    packaged = PACKAGED_MODELS.get(record.source)
    return packaged.name if packaged is not None and record.name == record.source else record.name


@damage.reading("a model")
def model_summary(atlas: Atlas, record: ModelRecord) -> schemas.ModelSummary:
    """A model and how many runs it has."""
    apart = ("slug", "source", "name", "n_experts", "d_expert")
    described = {name: value for name, value in vars(record).items() if name not in apart}
    described["experts"] = expert_layout(record.experts)
    runs, latest = atlas.runs.of_model(record.slug), atlas.runs.newest(record.slug)
    return schemas.ModelSummary(
        id=record.slug, name=model_name(record), n_runs=len(runs), latest_run=latest, **described
    )  # fmt: skip
