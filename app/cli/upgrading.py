"""`upgrade`: an atlas that an older version wrote is brought up to date, so that it can be read."""

import typer

from app.cli.options import AtlasFile, settings_of


def upgrade(atlas: AtlasFile = None) -> None:
    """Bring an atlas of an older version up to date in place; nothing that was measured changes."""
    from backend.atlas.connect import AtlasOlder
    from backend.atlas.store import Atlas

    location = settings_of(atlas=atlas).atlas
    try:
        Atlas.open(location, read_only=True).close()
    except AtlasOlder:
        Atlas.open(location).close()
        typer.echo("The atlas is up to date now.")
    else:
        typer.echo("The atlas is up to date already.")
