"""`capture` and `effects`: the two halves of `precompute`, which may run on different machines."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import (
    AtlasFile,
    Bos,
    Counts,
    Dataset,
    Device,
    DType,
    EffectsMode,
    Field,
    Frequency,
    Memory,
    Mode,
    Model,
    NullDim,
    Seed,
    SeqLen,
    Sequences,
    Split,
    frequency_source,
    settings_of,
)


def capture(
    model: Model,
    out: Annotated[Path, typer.Option(help="The folder to capture into; it is made if it is not there.")],
    dataset: Dataset = "lee-news",
    sequences: Sequences = 100,
    seq_len: SeqLen = 256,
    seed: Seed = 0,
    split: Split = "train",
    field: Field = "text",
    frequency: Frequency = None,
    counts: Counts = None,
    bos: Bos = "auto",
    dtype: DType = "auto",
    device: Device = None,
) -> None:
    """Run a model once and keep all that the effects of its last layer need; interrupted, it resumes.

    `effects` measures from the folder, on this machine or another: it needs no model.
    """
    from precompute import kept_capture
    from precompute.capture import prepared
    from precompute.config import RunConfig
    from precompute.progress import reporting

    config = RunConfig(
        model, dataset, sequences, seq_len, seed, split=split, field=field,
        frequency=frequency_source(frequency, counts), counts=counts, bos=bos, dtype=dtype,
    )  # fmt: skip
    with reporting() as reporter:
        settings = settings_of(device=device)
        loaded, captured = prepared(config, settings.cache_dir, reporter, settings.device)
        kept_capture.write(loaded, captured, out, reporter)
        reporter.say(f"The capture is in {out}. Its effects: calibroscope effects {out} --out atlas.db")


def effects(
    folder: Annotated[Path, typer.Argument(help="A folder that `capture` made.")],
    out: AtlasFile = None,
    mode: EffectsMode = Mode.exact,
    null_dim: NullDim = None,
    memory: Memory = None,
    device: Device = None,
) -> None:
    """Measure every neuron of a captured model, without the model; interrupted, it resumes where it stopped."""
    from backend.atlas.store import Atlas
    from precompute.effects import measure
    from precompute.progress import reporting

    settings = settings_of(atlas=out, device=device, memory=memory)
    with Atlas.open(settings.atlas) as atlas, reporting() as reporter:
        done = measure(folder, atlas, reporter, settings.device, settings.memory, mode.value, null_dim)
        reporter.say(f"Run {done} is finished, in {settings.atlas}.")
