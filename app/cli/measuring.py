"""`precompute` and `worker`: measure a model's neurons now, or do the jobs that wait."""

import signal
import sys
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.options import AtlasFile, Bos, Dataset, Device, Model, Seed, SeqLen, Sequences, settings_of
from backend.core.errors import BadConfig


class Mode(StrEnum):
    exact = "exact"
    survey = "survey"


class Frequency(StrEnum):
    model = "model"
    corpus = "corpus"


def precompute(
    model: Model,
    dataset: Dataset = "lee-news",
    sequences: Sequences = 100,
    seq_len: SeqLen = 256,
    seed: Seed = 0,
    null_dim: Annotated[
        int | None, typer.Option(min=1, help="Dimensions of the null space. [default: 1 % of d_model]")
    ] = None,
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
    bos: Bos = "auto",
    induction: Annotated[
        int, typer.Option(min=0, max=2_000, help="Sequences for the induction lab's figures, after all else; 0: none.")
    ] = 20,
    device: Device = "auto",
    out: AtlasFile = None,
) -> None:
    """Measure every neuron of a model's last layer, or of others; interrupted, it resumes where it stopped."""
    from backend.atlas.store import Atlas
    from precompute.config import RunConfig
    from precompute.pipeline import run
    from precompute.progress import reporting
    from precompute.worker import measure_induction

    if counts and frequency:
        raise BadConfig("--counts tells the token frequencies: leave --frequency out.")
    settings = settings_of(atlas=out, device=device, memory=memory)
    scratch = settings.cache_dir / "work"
    with Atlas.open(settings.atlas) as atlas, reporting() as reporter:
        for layer in _layers(layers):
            config = RunConfig(
                model, dataset, sequences, seq_len, seed, null_dim, split, field, layer, mode.value,
                "counts" if counts else "model" if frequency is None else frequency.value, counts, bos,
            )  # fmt: skip
            done = run(config, atlas, settings.cache_dir, scratch, reporter, device, settings.memory)
            reporter.say(f"Run {done} is finished, in {settings.atlas}.")
            if induction:
                measure_induction(done, induction, atlas, settings.cache_dir, reporter, device)


def worker(
    atlas: AtlasFile = None,
    device: Device = "auto",
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
