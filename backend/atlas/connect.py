"""Opening an atlas: the engine, its settings, and its migrations."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError, TimeoutError

from backend.atlas.schema import RUN_COLUMNS, Base, NeuronRow
from backend.core.errors import CalibroscopeError

_MIGRATIONS = Path(__file__).parent / "migrations"
PATIENCE = 30.0
"""Seconds that another process's lock is waited for: one that works by itself can wait."""
_BUSY, _LOCKED = 5, 6
"""SQLite's codes, https://www.sqlite.org/rescode.html; more precise ones have them in their lowest byte."""
_LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's."""
_MOST_CONNECTIONS = 32
_JOURNAL_BYTES = 64 << 20
"""What the write-ahead log is cut back to once all of it is in the database."""
_MOST_BYTES_READ = 64 << 20
"""Of one row or value, for readers. The largest that a page asks for is a vocabulary, of some megabytes."""
_READ_SECONDS = 60.0
"""What a reader may take over the file without an answer; ours take milliseconds."""
_STEPS = 200_000
"""Of SQLite's machine, between two looks at the clock: some milliseconds."""
_ADVISORY_LOCK = 0x0CA11B705C09E
"""Any number, as long as every Calibroscope asks PostgreSQL for the same one."""


class AtlasMissing(CalibroscopeError):
    """There is no atlas at that place yet."""


class AtlasUnusable(CalibroscopeError):
    """What is there is not an atlas, or not one that this version can use."""


class AtlasOlder(AtlasUnusable):
    """An older version wrote the atlas: a writer brings it up to date, a reader can only say so."""


class AtlasBusy(AtlasUnusable):
    """Another process holds the atlas, for longer than is waited here."""

    def __init__(self) -> None:
        self.retry_after = 5
        super().__init__("Another process holds the atlas and lets nobody else at it. Try again in a few seconds.")


def failure(error: SQLAlchemyError, what: str, advice: str = "") -> AtlasUnusable:
    """What a database's error means to who asked.

    Args:
        what: does not work, in words; the database's own words follow.
        advice: what to do where another process's lock is not the reason.
    """
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    has_waited = isinstance(error, TimeoutError) or getattr(original, "sqlstate", None) == _LOCK_NOT_AVAILABLE
    if has_waited or code in (_BUSY, _LOCKED):
        return AtlasBusy()
    return AtlasUnusable(f"{what}: {original}. {advice}".rstrip())


def atlas_url(location: str | Path) -> URL:
    """The database URL of a location: a URL as it is, anything else as the path of a SQLite file.

    Raises:
        AtlasUnusable: it is a URL that cannot be read, or one of another kind of database.
    """
    text = str(location)
    if "://" not in text:
        return URL.create("sqlite+pysqlite", database=str(Path(text).expanduser()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise AtlasUnusable("The atlas's address is neither a path nor a database URL.") from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise AtlasUnusable(
            f"An atlas cannot be kept in {url.get_backend_name()[:40]!r}: name the path of a SQLite file, or "
            "postgresql://user:password@host/database."
        )
    return url


def file_of(location: str | Path) -> tuple[int, int] | None:
    """What tells an atlas's file from one that is put in its place, device and inode; None of a server's, or where
    there is no file."""
    try:
        url = atlas_url(location)
        status = Path(str(url.database)).stat() if url.get_backend_name() == "sqlite" else None
    except (OSError, AtlasUnusable):
        return None
    return None if status is None else (status.st_dev, status.st_ino)


def connect(url: URL, *, read_only: bool, patience: float = PATIENCE) -> Engine:
    """An engine for the atlas at `url`, brought to the newest schema unless it is read only.

    Args:
        patience: seconds that another process's lock is waited for, here and whenever the engine is used.

    Raises:
        AtlasMissing: it is read only and nothing is there yet.
        AtlasBusy: another process holds it.
        AtlasUnusable: what is there is not an atlas, or one of another version; or it cannot be reached.
    """
    engine = _sqlite(url, read_only, patience) if url.get_backend_name() == "sqlite" else _server(url, patience)
    try:
        if not _is_current(engine, url, read_only=read_only):
            _migrate(engine, url)
        _match_glossary(engine, url, read_only=read_only)
    except (DatabaseError, TimeoutError) as error:
        engine.dispose()
        raise failure(error, f"The atlas at {_shown(url)} cannot be opened") from error
    except CalibroscopeError:
        engine.dispose()
        raise
    return engine


def lock_writers(connection: Connection) -> None:
    """Wait until nobody else writes to the atlas, and keep others waiting until this transaction ends.

    So what a transaction has read (is the run finished? is the shard there?) still holds when it writes.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")


def _sqlite(url: URL, read_only: bool, patience: float) -> Engine:
    path = Path(str(url.database))
    _require_file(path, url)
    if read_only:
        if not path.exists():
            raise _missing(url)
        # As a URI, in which `#`, `?` and `%` of the path must be escaped to stay part of it.
        query = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if _is_still(path) else {})
        url = url.set(database=path.resolve().as_uri(), query=query)
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AtlasUnusable(f"The atlas's folder {path.parent} cannot be made: {error.strerror}.") from error
    engine = create_engine(
        url,
        connect_args={"timeout": patience, "check_same_thread": False},
        max_overflow=_MOST_CONNECTIONS,
        pool_timeout=patience,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # The file may come from elsewhere: nothing in its schema is trusted, and its pages' sizes are checked.
        cursor.execute("PRAGMA trusted_schema = OFF")
        cursor.execute("PRAGMA cell_size_check = ON")
        if read_only:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES_READ)
        if not read_only:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        cursor.close()

    if read_only:
        _bound_reads(engine)
    return engine


def _bound_reads(engine: Engine) -> None:
    """Interrupt a read that takes far longer than any of ours: the file's author may have wanted that."""

    @event.listens_for(engine, "checkout")
    def begin(connection: Any, *_: Any) -> None:
        ends = time.monotonic() + _READ_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)

    @event.listens_for(engine, "checkin")
    def end(connection: Any, *_: Any) -> None:
        if connection is not None:
            connection.set_progress_handler(None, 0)


def _require_file(path: Path, url: URL) -> None:
    """
    Raises:
        AtlasUnusable: there is a folder, a pipe or a device: opening a pipe would wait for somebody to write into it.
    """
    if os.path.lexists(path) and not path.is_file() and (path.exists() or path.is_symlink()):
        kind = "a folder" if path.is_dir() else "no ordinary file"
        raise AtlasUnusable(f"What lies at {_shown(url)} is {kind}, not an atlas. Name another with --atlas.")


def _is_still(path: Path) -> bool:
    """Whether nobody can be writing to the file: on a disk that is read only, where SQLite could not make the files
    beside it that readers of a file in use share."""
    beside = path.with_name(path.name + "-wal")
    return not os.access(path.parent, os.W_OK) and not (beside.exists() and beside.stat().st_size)


def _server(url: URL, patience: float) -> Engine:
    waits = {"options": f"-c lock_timeout={round(1000 * patience)}"}
    try:
        return create_engine(
            url, pool_pre_ping=True, connect_args=waits, max_overflow=_MOST_CONNECTIONS, pool_timeout=patience
        )
    except ModuleNotFoundError as error:
        raise AtlasUnusable(
            f"An atlas in PostgreSQL needs the package {error.name}: pip install 'calibroscope[postgres]'."
        ) from error
    except ArgumentError as error:
        raise AtlasUnusable(f"The atlas's address names a driver that is not known: {_shown(url)}.") from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _migrate(engine: Engine, url: URL) -> None:
    """All of the schema or nothing of it: SQLite would else keep the tables that were made before a kill."""
    config = _config()
    with engine.begin() as connection:
        lock_writers(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _match_glossary(engine: Engine, url: URL, *, read_only: bool) -> None:
    """See to it that there is a column for every metric of the glossary, though the atlas is older than one.

    A metric that was not measured is NULL: a writer adds the columns, and to a reader they look as if they were there.

    Raises:
        AtlasOlder: a reader of a server's atlas that has not been written to since there is the metric.
    """
    with engine.connect() as connection:
        there = {column["name"] for column in inspect(connection).get_columns(NeuronRow.__tablename__)}
    lacking = [name for name in RUN_COLUMNS if name not in there]
    if not lacking:
        return
    if not read_only:
        with engine.begin() as connection:
            lock_writers(connection)
            now = {column["name"] for column in inspect(connection).get_columns(NeuronRow.__tablename__)}
            for name in lacking:
                if name not in now:  # another writer may have been quicker
                    connection.exec_driver_sql(f'ALTER TABLE {NeuronRow.__tablename__} ADD COLUMN "{name}" FLOAT')
        return
    if engine.dialect.name != "sqlite":
        raise _older(url, f"without {lacking[0]}")
    columns = ", ".join(f'CAST(NULL AS FLOAT) AS "{name}"' for name in lacking)
    table = NeuronRow.__tablename__

    @event.listens_for(engine, "connect")
    def stand_in(connection: Any, _: Any) -> None:
        # SQLite looks for names among what is temporary first. Nothing is written to the file.
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {columns} FROM main.{table}")

    engine.dispose()  # connections from before


def _is_current(engine: Engine, url: URL, *, read_only: bool) -> bool:
    """Whether the schema is the newest; False asks for a migration, and is never the answer to a reader.

    Raises:
        AtlasMissing: a reader finds a database without anything in it: its writer is just about to make the atlas.
        AtlasUnusable: it is no atlas, or one of a newer version.
        AtlasOlder: for a reader, it is one of an older version.
    """
    with engine.connect() as connection:
        _refuse_programs(connection, url)
        # Tables first: an atlas that is made in between then shows its revision, and does not look like a stranger.
        tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
        revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        if tables:
            raise AtlasUnusable(
                f"The database at {_shown(url)} is not an atlas: it has other tables. Name another with --atlas."
            )
        if read_only:
            raise _missing(url)
        return False
    scripts = ScriptDirectory.from_config(_config())
    if revision == scripts.get_current_head():
        with engine.connect() as connection:
            _require_schema(connection, url)
        return True
    try:
        scripts.get_revision(revision)
    except CommandError as error:
        raise AtlasUnusable(
            f"The atlas at {_shown(url)} was written by a newer version of Calibroscope (schema {revision}). Update "
            "Calibroscope, or name another file with --atlas."
        ) from error
    if read_only:
        raise _older(url, f"schema {revision}")
    return False


def _older(url: URL, what: str) -> AtlasOlder:
    return AtlasOlder(
        f"The atlas at {_shown(url)} was written by an older version of Calibroscope ({what}). calibroscope upgrade "
        "with --atlas naming it brings it up to date; nothing that was measured changes."
    )


def _refuse_programs(connection: Connection, url: URL) -> None:
    """
    Raises:
        AtlasUnusable: the file brings views or triggers: stored queries, which could run for ever.
    """
    if connection.dialect.name != "sqlite":
        return
    wanted = (
        "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%' "
        "OR sql LIKE '%GENERATED ALWAYS%' LIMIT 1"
    )
    foreign = connection.exec_driver_sql(wanted).first()
    if foreign is not None:
        raise AtlasUnusable(
            f"The database at {_shown(url)} is not an atlas as Calibroscope makes them: it holds the {foreign[0]} "
            f"{str(foreign[1])[:60]!r}, and no atlas holds stored queries. It was not read."
        )


def _require_schema(connection: Connection, url: URL) -> None:
    """
    Raises:
        AtlasUnusable: a table or a column is not there, other than one of a metric.
    """
    known = inspect(connection)
    for table in Base.metadata.sorted_tables:
        there = {column["name"] for column in known.get_columns(table.name)} if known.has_table(table.name) else set()
        lacking = sorted({column.name for column in table.columns} - there - set(RUN_COLUMNS))
        if lacking:
            raise AtlasUnusable(
                f"The atlas at {_shown(url)} is damaged: its table {table.name} lacks {', '.join(lacking[:5])}. Take a "
                "whole copy of the file."
            )


def _missing(url: URL) -> AtlasMissing:
    return AtlasMissing(
        f"There is no atlas at {_shown(url)} yet. Make one: calibroscope precompute --model smollm2-135m "
        f"--out {_shown(url)}, or make demo."
    )


def _shown(url: URL) -> str:
    """A location as a person may read it: a file's path, or a URL without its password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
