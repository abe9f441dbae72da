"""`doctor` and `models`: what this installation is, and what it can measure without a hub."""

import typer

from app.cli.options import AtlasFile, Device, Host, Port, settings_of


def doctor(atlas: AtlasFile = None, host: Host = None, port: Port = None, device: Device = None) -> None:
    """Check this installation, and with --atlas everything that an atlas holds; ends with 1 where something is wrong.

    Nothing is changed or mended: a damaged atlas is replaced by a whole copy, or measured again.
    """
    from itertools import chain

    from rich.console import Console
    from rich.text import Text

    from backend.atlas.inspection import inspect_atlas
    from precompute.installation import inspect_installation

    settings, console, wrong = settings_of(atlas=atlas, host=host, port=port, device=device), Console(), 0
    here = inspect_installation(settings.cache_dir, settings.device, settings.host, settings.port)
    for finding in chain(here, inspect_atlas(settings.atlas) if atlas is not None else ()):
        wrong += not finding.is_well
        mark = Text("well   ", "green") if finding.is_well else Text("WRONG  ", "bold red")
        console.print(mark + Text(f"{finding.what}: {finding.sentence}"))  # as text: an atlas's words are no markup
    console.print(Text("All is well." if not wrong else f"{wrong} thing{' is' if wrong == 1 else 's are'} wrong."))
    raise typer.Exit(1 if wrong else 0)


def models() -> None:
    """List the models and corpora that need no hub, and the paper's models with what each needs."""
    from backend.core.models.sources import PACKAGED_MODELS
    from precompute.corpus import PACKAGED_CORPORA
    from precompute.paper import CORPUS, PAPER_MODELS, SEQ_LEN

    typer.echo("Models:")
    for name, model in PACKAGED_MODELS.items():
        typer.echo(f"  {name:<14} {model.megabytes:>4} MB  {model.licence}: {model.name}")
    typer.echo("Corpora:")
    for name, file in PACKAGED_CORPORA.items():
        typer.echo(f"  {name:<14} {file.megabytes:>4} MB  {file.licence}")
    typer.echo(
        "Also: a Hugging Face name, a model folder with safetensors, a .gguf file; a checkpoint is name@revision."
    )
    typer.echo(f"The paper's models (--preset NAME), on {CORPUS} in sequences of {SEQ_LEN} tokens, from the hub:")
    for name, one in PAPER_MODELS.items():
        k = "1 %" if one.null_dim is None else str(one.null_dim)
        frequencies = "the model's mean prediction" if one.counts is None else one.counts.described
        needs = f"{one.gigabytes:>4} GB in memory, {one.sequences} sequences, k = {k}"
        typer.echo(f"  {name:<20} {needs}: {one.repository}")
        typer.echo(f"{'':<22} token frequencies: {frequencies}")
        if one.is_gated:
            typer.echo(f"{'':<22} gated: accept its terms on the hub and set HF_TOKEN")
        if one.note:
            typer.echo(f"{'':<22} {one.note}")
