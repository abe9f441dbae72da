"""Opening an atlas: the engine, its settings, and its migrations."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from backend.core.errors import CalibroscopeError

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 30


class AtlasMissing(CalibroscopeError):
    """There is no atlas at that place yet."""


class AtlasUnusable(CalibroscopeError):
    """What is there is not an atlas, or not one that this version can use."""


def atlas_url(location: str | Path) -> URL:
    """The database URL of a location: a URL as it is, anything else as the path of a SQLite file."""
    text = str(location)
    if "://" not in text:
        return URL.create("sqlite+pysqlite", database=str(Path(text).expanduser()))
    try:
        return make_url(text)
    except ArgumentError as error:
        raise AtlasUnusable("The atlas's address is neither a path nor a database URL.") from error


def connect(url: URL, *, read_only: bool) -> Engine:
    """An engine for the atlas at `url`, brought to the newest schema unless it is read only.

    Raises:
        AtlasMissing: it is read only and nothing is there.
        AtlasUnusable: the file is not a database, or was written by a newer version.
    """
    is_file = url.get_backend_name() == "sqlite"
    if is_file and read_only and not Path(str(url.database)).exists():
        raise AtlasMissing(
            f"There is no atlas at {url.database} yet. Make one: calibroscope precompute --model smollm2-135m "
            f"--out {url.database}, or make demo."
        )
    if is_file and not read_only:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = _sqlite(url, read_only) if is_file else create_engine(url, pool_pre_ping=True)
    try:
        _check_revision(engine, url) if read_only else _migrate(engine, url)
    except (DatabaseError, OperationalError) as error:
        engine.dispose()
        shown = url.render_as_string(hide_password=True)
        raise AtlasUnusable(f"The atlas at {shown} cannot be opened: {error.orig}.") from error
    return engine


def _sqlite(url: URL, read_only: bool) -> Engine:
    arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    if read_only:
        path = Path(str(url.database)).resolve()
        url = url.set(database=f"file:{path}", query={"mode": "ro", "uri": "true"})
    engine = create_engine(url, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        if not read_only:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    return engine


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _migrate(engine: Engine, url: URL) -> None:
    _check_revision(engine, url)
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _check_revision(engine: Engine, url: URL) -> None:
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        return
    try:
        ScriptDirectory.from_config(_config()).get_revision(revision)
    except CommandError as error:
        shown = url.render_as_string(hide_password=True)
        raise AtlasUnusable(
            f"The atlas at {shown} was written by a newer version of Calibroscope (schema {revision}). Update "
            "Calibroscope, or name another file with --atlas."
        ) from error
