"""`checkpoints`: a model's last layer over its training, from the weights alone, and where asked a run a checkpoint."""

from typing import Annotated

import typer

from app.cli.measuring import measure
from app.cli.options import AtlasFile, Bos, Dataset, Device, Model, NullDim, Seed, SeqLen, Sequences, settings_of


def checkpoints(
    model: Model,
    revisions: Annotated[
        str,
        typer.Option(
            help="Checkpoints with commas: branches, tags or commits of the hub, or folders in the model's; all for "
            "every one in a folder. A step is the number in a name, or stands behind it: step0,step1000,main=143000."
        ),
    ],
    null_dim: NullDim = None,
    effects: Annotated[bool, typer.Option("--effects", help="Measure effects too: a run a checkpoint.")] = False,
    dataset: Dataset = "lee-news",
    sequences: Sequences = 100,
    seq_len: SeqLen = 256,
    seed: Seed = 0,
    bos: Bos = "auto",
    device: Device = None,
    out: AtlasFile = None,
) -> None:
    """Measure a model's last layer at steps of its training: null space, logit variance, norms, spectrum, classes.

    From the weights alone, in seconds a checkpoint; dataset, sequences, bos and device are for --effects.
    """
    from backend.atlas.store import Atlas
    from backend.core.models.sources import named_revision
    from precompute.progress import reporting
    from precompute.training import TrainingRun, asked_steps

    settings = settings_of(atlas=out, device=device)
    steps = asked_steps(model, revisions)
    with Atlas.open(settings.atlas) as atlas, reporting() as reporter:
        training = TrainingRun(model, atlas, settings.cache_dir, reporter, null_dim)
        reporter.stage("Weights", len(steps), 0, "checkpoints")
        for asked in steps:
            measured = training.measure(asked)
            reporter.advance(1)
        reporter.say(f"{len(steps)} checkpoints of {measured.name} are in {settings.atlas}: /training shows them.")
    for asked in steps if effects else []:
        given = {"dataset": dataset, "sequences": sequences, "seq_len": seq_len, "seed": seed, "bos": bos}
        chosen = {} if null_dim is None else {"null_dim": null_dim}
        measure(settings, None, given | chosen | {"model": named_revision(model, asked.revision)})
