"""`precompute` and `worker`: measure a model's neurons now, or do the jobs that wait."""

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from app.cli.options import (
    AtlasFile,
    BosOrPreset,
    Counts,
    DatasetOrPreset,
    Device,
    DType,
    EffectsMode,
    Field,
    Frequency,
    Memory,
    Mode,
    ModelOrPreset,
    NullDim,
    Revision,
    Seed,
    SeqLenOrPreset,
    SequencesOrPreset,
    Split,
    frequency_source,
    settings_of,
)
from backend.core.errors import BadConfig
from backend.settings import Settings

Preset = Annotated[
    str | None, typer.Option(help="One of the paper's models with its settings (calibroscope models lists them).")
]


def precompute(
    model: ModelOrPreset = None,
    preset: Preset = None,
    revision: Revision = None,
    dataset: DatasetOrPreset = None,
    sequences: SequencesOrPreset = None,
    seq_len: SeqLenOrPreset = None,
    seed: Seed = 0,
    null_dim: NullDim = None,
    split: Split = "train",
    field: Field = "text",
    layers: Annotated[
        str, typer.Option(help="Layers to measure, from 0, with commas: each is a run. [default: the last]")
    ] = "",
    mode: EffectsMode = Mode.exact,
    frequency: Frequency = None,
    counts: Counts = None,
    memory: Memory = None,
    bos: BosOrPreset = None,
    induction: Annotated[
        int, typer.Option(min=0, max=2_000, help="Sequences for the induction lab's figures, after all else; 0: none.")
    ] = 20,
    dtype: DType = "auto",
    device: Device = None,
    out: AtlasFile = None,
) -> None:
    """Measure every neuron of a model's last layer, or of others; interrupted, it resumes where it stopped."""
    source = frequency_source(frequency, counts) if counts or frequency else None
    settings = settings_of(atlas=out, device=device, memory=memory)
    given = {
        "model": model, "dataset": dataset, "sequences": sequences, "seq_len": seq_len, "null_dim": null_dim,
        "bos": bos, "counts": counts, "frequency": source,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    always = {"seed": seed, "split": split, "field": field, "mode": mode.value, "dtype": dtype}
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
