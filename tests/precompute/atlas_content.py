"""What an atlas holds, for comparing two of them: every table, bit for bit, except when things happened and in
which process."""

import sqlite3
from contextlib import closing
from pathlib import Path

_WHEN = {"created_at", "heartbeat", "finished_at", "revision", "owner"}
Content = dict[str, list[tuple[object, ...]]]


def content(path: Path) -> Content:
    """The rows of every table of an atlas, in the order of their first columns."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: _rows(connection, table) for table in sorted(tables)}


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    named = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in _WHEN]
    columns = ", ".join(f'"{name}"' for name in named)
    return sorted(connection.execute(f"SELECT {columns} FROM {table}"), key=repr)


def assert_the_same(found: Content, expected: Content, what: str = "") -> None:
    """Say which table differs first, and in how many rows."""
    assert found.keys() == expected.keys()
    for table, rows in expected.items():
        differing = sum(one != other for one, other in zip(found[table], rows, strict=False))
        assert len(found[table]) == len(rows), f"{what}: {table} has {len(found[table])} rows, not {len(rows)}"
        assert not differing, f"{what}: {differing} of {len(rows)} rows of {table} differ"
