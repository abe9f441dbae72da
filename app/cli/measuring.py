"""`precompute` and `worker`: measure a model's neurons now, or do the jobs that wait."""

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.options import (
    AtlasFile,
    BosOrPreset,
    DatasetOrPreset,
    Device,
    ModelOrPreset,
    NullDim,
    Revision,
    Seed,
    SeqLenOrPreset,
    SequencesOrPreset,
    settings_of,
)
from backend.core.errors import BadConfig
from backend.settings import Settings

Preset = Annotated[
    str | None, typer.Option(help="One of the paper's models with its settings (calibroscope models lists them).")
]


class Mode(StrEnum):
    exact = "exact"
    survey = "survey"


class Frequency(StrEnum):
    model = "model"
    corpus = "corpus"


def precompute(
    model: ModelOrPreset = None,
    preset: Preset = None,
    revision: Revision = None,
    dataset: DatasetOrPreset = None,
    sequences: SequencesOrPreset = None,
    seq_len: SeqLenOrPreset = None,
    seed: Seed = 0,
    null_dim: NullDim = None,
    split: Annotated[str, typer.Option(help="Split of a Hugging Face dataset.")] = "train",
    field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    layers: Annotated[
        str, typer.Option(help="Layers to measure, from 0, with commas: each is a run. [default: the last]")
    ] = "",
    mode: Annotated[
        Mode, typer.Option(help="exact, or survey: faster, each token's effect within a stated bound.")
    ] = Mode.exact,
    frequency: Annotated[
        Frequency | None, typer.Option(help="Token frequencies: the model's mean prediction, or counts of the corpus.")
    ] = None,
    counts: Annotated[
        str | None, typer.Option(help="An .npy file of token counts by token id, instead of --frequency.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Memory for the effects. [default: 4GB]")] = None,
    bos: BosOrPreset = None,
    induction: Annotated[
        int, typer.Option(min=0, max=2_000, help="Sequences for the induction lab's figures, after all else; 0: none.")
    ] = 20,
    device: Device = None,
    out: AtlasFile = None,
) -> None:
    """Measure every neuron of a model's last layer, or of others; interrupted, it resumes where it stopped."""
    if counts and frequency:
        raise BadConfig("--counts tells the token frequencies: leave --frequency out.")
    settings = settings_of(atlas=out, device=device, memory=memory)
    given = {
        "model": model, "dataset": dataset, "sequences": sequences, "seq_len": seq_len, "null_dim": null_dim,
        "bos": bos, "counts": counts, "frequency": "counts" if counts else frequency and frequency.value,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    always = {"seed": seed, "split": split, "field": field, "mode": mode.value}
    measure(settings, preset, given | always, _layers(layers), revision=revision, induction=induction)


def measure(
    settings: Settings,
    preset: str | None,
    given: Mapping[str, Any],
    layers: Sequence[int | None] = (None,),
    *,
    revision: str | None = None,
    induction: int = 0,
) -> list[int]:
    """Carry out a run a layer, and return their ids.

    Args:
        preset: one of the paper's models, whose settings are taken where none are given.
        given: fields of a run's configuration.
        revision: of the model's checkpoints.
        induction: sequences for the induction lab's figures; 0: none.

    Raises:
        BadConfig: neither a model nor a preset is named, or there is no such preset.
        CalibroscopeError: as the run raises it.
    """
    from backend.atlas.store import Atlas
    from backend.core.models.sources import named_revision
    from precompute.config import RunConfig
    from precompute.paper import preset_config
    from precompute.pipeline import run
    from precompute.progress import reporting
    from precompute.worker import measure_induction

    if preset is None and "model" not in given:
        raise BadConfig("Name a model with --model, or one of the paper's with --preset (see calibroscope models).")
    scratch, runs = settings.cache_dir / "work", []
    with Atlas.open(settings.atlas) as atlas, reporting() as reporter:
        if preset is None:
            config = RunConfig(**given)
        else:
            config = preset_config(preset, given, settings.cache_dir, reporter.say)
        config = replace(config, model=named_revision(config.model, revision))
        for layer in layers:
            asked = replace(config, layer=layer)
            done = run(asked, atlas, settings.cache_dir, scratch, reporter, settings.device, settings.memory)
            reporter.say(f"Run {done} is finished, in {settings.atlas}.")
            if induction:
                measure_induction(done, induction, atlas, settings.cache_dir, reporter, settings.device)
            runs.append(done)
    return runs


def worker(
    atlas: AtlasFile = None,
    device: Device = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when no job is waiting.")] = False,
) -> None:
    """Do the jobs that wait in the atlas; stopped, the job it was at waits again and keeps what it has found."""
    from backend.atlas.store import Atlas
    from backend.core.models.trust import KnownSources
    from precompute.progress import reporting
    from precompute.worker import Worker

    settings = settings_of(atlas=atlas, device=device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with Atlas.open(settings.atlas) as opened, reporting() as reporter:
        known = KnownSources(settings.cache_dir, settings.models)
        taken = Worker(opened, settings.cache_dir, reporter, settings.device, known).work(once=once)
    typer.echo(f"{taken} jobs taken; none is waiting.")


def _layers(listed: str) -> list[int | None]:
    """`3, 7` as numbers; nothing listed is the last layer."""
    try:
        return [int(part) for part in listed.split(",")] if listed.strip() else [None]
    except ValueError:
        raise typer.BadParameter(f"{listed!r} is not a list of layers: write 3,7 (from 0).") from None
