"""Another process that holds an atlas's lock, as a backup, a shell or a stuck writer does."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
connection.execute(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(atlas: Path, statement: str = "BEGIN EXCLUSIVE") -> Iterator[None]:
    """The lock that a statement takes, held by another process until the body ends."""
    command = [sys.executable, "-c", _HOLD, str(atlas), statement]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "held"
        yield
        process.communicate()


def without_wal(atlas: Path) -> None:
    """Keep an atlas as one that a tool has rewritten: with a journal that shuts readers out while somebody writes."""
    with sqlite3.connect(atlas) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    connection.close()
