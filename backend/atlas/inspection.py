"""What is wrong with an atlas: everything in it is read once, as the service would read it."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.atlas.connect import atlas_url
from backend.atlas.damage import AtlasDamaged
from backend.atlas.records import RunRecord, windows_of
from backend.atlas.store import Atlas
from backend.core.errors import CalibroscopeError
from backend.glossary import METRIC_COLUMNS

_MOST_REPORTED = 5
"""Of one run: one damaged page of the file damages hundreds of neurons alike."""


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at."""

    what: str
    is_well: bool
    sentence: str


def inspect_atlas(location: str) -> Iterator[Diagnosis]:
    """Look at an atlas: its file, its models, its runs and everything that they hold, its jobs. Nothing is changed."""
    url = atlas_url(location)
    if url.get_backend_name() == "sqlite" and Path(str(url.database)).is_file():
        yield _file(Path(str(url.database)))
    try:
        with Atlas.open(location, read_only=True) as atlas:
            yield Diagnosis("schema", True, "it is the newest")
            yield from _content(atlas)
    except CalibroscopeError as error:
        yield Diagnosis("atlas", False, str(error))


def _file(path: Path) -> Diagnosis:
    try:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        verdict = str(error)
    return Diagnosis(
        "file", verdict == "ok", "SQLite finds it whole" if verdict == "ok" else f"SQLite says: {verdict[:300]}"
    )


def _content(atlas: Atlas) -> Iterator[Diagnosis]:
    for model in atlas.models.all():
        yield _read(f"model {model.slug}", lambda slug=model.slug: atlas.models.vocabulary(slug))  # type: ignore[misc]
        for run in atlas.runs.of_model(model.slug):
            yield from _run(atlas, run, model.d_mlp)
    for training in atlas.training.all():
        yield _read(f"training {training}", lambda training=training: atlas.training.get(training))  # type: ignore[misc]
    yield _read("jobs", lambda: [atlas.jobs.results(job.id) for job in atlas.jobs.newest(100_000)])


def _run(atlas: Atlas, run: RunRecord, neurons: int) -> Iterator[Diagnosis]:
    if run.status in ("failed", "interrupted"):
        yield Diagnosis(f"run {run.id}", True, f"{run.status}; calibroscope precompute resumes it")
    diagnoses = list(_parts(atlas, run, neurons))
    bad = [part for part in diagnoses if not part.is_well]
    yield from bad[:_MOST_REPORTED]
    if len(bad) > _MOST_REPORTED:
        yield Diagnosis(f"run {run.id}", False, f"{len(bad) - _MOST_REPORTED} further parts are damaged")
    if not bad:
        yield Diagnosis(f"run {run.id}", True, f"all of its {len(diagnoses)} parts can be read and fit together")


def _parts(atlas: Atlas, run: RunRecord, neurons: int) -> Iterator[Diagnosis]:
    where = f"run {run.id}"
    yield _read(f"{where}, neurons", lambda: _require_count(atlas, run, neurons))
    yield _read(f"{where}, text", lambda: atlas.contexts.sequences(run.id, windows_of(run)))
    parts: dict[str, Callable[[int], object]] = {
        "sampled positions": atlas.positions.get,
        "spectrum": atlas.runs.spectrum,
        "token frequencies": atlas.runs.unigram,
        "sampled activations": atlas.positions.activations,
    }
    for name, part in parts.items():
        yield _read(f"{where}, {name}", lambda part=part: part(run.id))  # type: ignore[misc]
    neuron = atlas.neurons
    readers = (
        neuron.histogram, atlas.contexts.showing, neuron.logits, neuron.cosines, neuron.similar, neuron.logit_histogram,
    )  # fmt: skip
    for index in range(neurons):
        yield _read(f"{where}, neuron {index}", lambda index=index: [read(run.id, index) for read in readers])  # type: ignore[misc]


def _require_count(atlas: Atlas, run: RunRecord, neurons: int) -> None:
    there = len(atlas.neurons.columns(run.id, list(METRIC_COLUMNS))["index"])
    if there not in (0, neurons) or (run.status == "finished" and not there):
        raise AtlasDamaged(f"run {run.id}", f"has {there} neurons where {neurons} belong")


def _read(what: str, read: Callable[[], object]) -> Diagnosis:
    try:
        read()
    except CalibroscopeError as error:
        return Diagnosis(what, False, str(error))
    return Diagnosis(what, True, "can be read")
