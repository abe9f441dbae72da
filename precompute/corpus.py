"""Text → packed token sequences, and which positions of them count (docs/science.md, "Text")."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import SourceError, first_line
from backend.core.models.downloads import PackagedFile, Say, fetch

Tokens = NDArray[np.int64]

PACKAGED_CORPORA: dict[str, PackagedFile] = {
    "lee-news": PackagedFile(
        requirement="gensim==4.4.0",
        wheel_sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        member="gensim/test/test_data/lee_background.cor",
        member_sha256="5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
        megabytes=28,
        licence="distributed with gensim, LGPL-2.1",
        # One fixed wheel whatever the user's platform: only a text file is taken out of it.
        wheel_options=(
            "--platform=manylinux_2_28_x86_64",
            "--platform=manylinux_2_24_x86_64",
            "--python-version=3.11",
            "--implementation=cp",
        ),
    ),
}
DEFAULT_CORPUS = "lee-news"

FIRST_COUNTED_POSITION = 3
_POOL = 20
"""Sequences packed for every one that is sampled, so that a sample is spread over a large corpus."""
_CONVERTED = "refs/convert/parquet"
"""The revision under which the hub keeps what it converted by itself: no program of a dataset's author is run here."""
_LONGEST_DOCUMENT = 1_000_000
"""Characters of one document that are read; a longer one is cut, so that one file cannot fill the memory."""


class Tokenizer(Protocol):
    """What packing needs of a model."""

    @property
    def separator(self) -> int | None: ...

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Corpus:
    """A named stream of documents; `documents` can be called again for a fresh pass."""

    name: str
    documents: Callable[[], Iterator[str]]


def open_corpus(name: str, cache: Path, say: Say, *, split: str = "train", field: str = "text") -> Corpus:
    """A corpus by name: packaged, a local `.txt`, `.jsonl` or `.parquet`, or a Hugging Face dataset.

    Args:
        split: of a hub dataset.
        field: the field or column that holds the text, in `.jsonl`, `.parquet` and hub datasets.

    Raises:
        SourceError: there is no such corpus, or it cannot be fetched.
    """
    if name in PACKAGED_CORPORA:
        path = fetch(PACKAGED_CORPORA[name], cache / "corpora", say)
        return Corpus(name, lambda: _lines(path))
    path = Path(name).expanduser()
    readers: dict[str, Callable[[Path], Iterator[str]]] = {
        ".txt": _whole_file,
        ".jsonl": lambda file: _jsonl(file, field),
        ".parquet": lambda file: _parquet(file, field),
    }
    if path.suffix in readers:
        if not path.is_file():
            raise SourceError(f"There is no text file at {path}. {_choices()}")
        return Corpus(path.name, lambda: readers[path.suffix](path))
    if path.exists():
        raise SourceError(f"{path} is not a .txt, .jsonl or .parquet file. {_choices()}")
    return Corpus(name, lambda: _hub(name, split, field))


def pack(
    corpus: Corpus, tokenizer: Tokenizer, sequences: int, seq_len: int, seed: int, bos: int | None = None
) -> Tokens:
    """A seeded sample of packed sequences, [at most `sequences`, seq_len]; fewer where the corpus is shorter.

    Documents follow each other, separated by the token that separates them in training. The sample is drawn without
    replacement from the corpus's first sequences (a pool of 20 for each one wanted).

    Args:
        bos: the token that each sequence begins with; None for text alone.

    Raises:
        SourceError: the corpus has no text for even one sequence.
    """
    pool = np.array(list(islice(_packed(corpus, tokenizer, seq_len, bos), sequences * _POOL)), dtype=np.int64)
    if len(pool) == 0:
        raise SourceError(
            f"{corpus.name} has too little text for one sequence of {seq_len} tokens. Take a longer text or a smaller "
            "--seq-len."
        )
    chosen = np.random.default_rng(seed).permutation(len(pool))[:sequences]
    return pool[np.sort(chosen)]


def opening(corpus: Corpus, tokenizer: Tokenizer, tokens: int, length: int) -> Tokens:
    """The corpus's first sequences as text alone, [sequences, length], about `tokens` tokens in all; as many as there
    are where the corpus is shorter, in the extreme none."""
    wanted = max(1, round(tokens / length))
    sequences = list(islice(_packed(corpus, tokenizer, length, None), wanted))
    return np.array(sequences, dtype=np.int64).reshape(len(sequences), length)


def counted_positions(tokens: Tokens, uncounted: frozenset[int]) -> NDArray[np.bool_]:
    """Which positions of sequences [n, seq_len] count, same shape: those at or past the fourth token that have a
    target, where neither token nor target is one of `uncounted` (BOS, EOS, padding, what separates documents)."""
    special = np.isin(tokens, list(uncounted))
    counted = ~special
    counted[:, :-1] &= ~special[:, 1:]
    counted[:, -1] = False
    counted[:, :FIRST_COUNTED_POSITION] = False
    return counted


def tokens_hash(tokens: Tokens) -> str:
    """SHA-256 of the packed sample: equal samples, equal hashes, however the corpus was called."""
    return hashlib.sha256(str(tokens.shape).encode() + np.ascontiguousarray(tokens, dtype="<i8").tobytes()).hexdigest()


def encoded(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The token ids of every document."""
    return (tokenizer.encode(document[:_LONGEST_DOCUMENT]) for document in corpus.documents())


def _packed(corpus: Corpus, tokenizer: Tokenizer, seq_len: int, bos: int | None) -> Iterator[list[int]]:
    separator = [] if tokenizer.separator is None else [tokenizer.separator]
    head = [] if bos is None else [bos]
    body, pending = seq_len - len(head), []
    for ids in encoded(corpus, tokenizer):
        pending += ids + separator
        while len(pending) >= body:
            yield head + pending[:body]
            pending = pending[body:]


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as source:
        yield from (line.strip() for line in source if line.strip())


def _whole_file(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as source:
        while block := source.read(_LONGEST_DOCUMENT):
            yield block


def _jsonl(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as source:
        for number, line in enumerate(source, start=1):
            if line.strip():
                yield _text_of(_parsed(line, path, number), field, f"{path}, line {number}")


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, a number of thousands of digits, or nested too deeply
        reason = error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
        raise SourceError(f"{path}, line {number} is not JSON: {reason}. Each line must be one object.") from error


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise SourceError(
                    f"{path} has no column {field!r}: name one of {file.schema_arrow.names} with --field."
                )
            for batch in file.iter_batches(columns=[field], batch_size=256):
                yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str))
    except pa.ArrowInvalid as error:
        raise SourceError(f"{path} is not a readable parquet file: {error}.") from error


def _hub(name: str, split: str, field: str) -> Iterator[str]:
    try:
        for number, row in enumerate(_rows(name, split), start=1):
            yield _text_of(row, field, f"{name}, row {number}")
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise SourceError(f"The dataset {name!r} could not be read ({reason}). {_choices()}") from error


def _rows(name: str, split: str) -> Iterable[Any]:
    """The rows of a hub dataset; of one that brings a program to read it, the files that the hub made of it."""
    from datasets import load_dataset

    try:
        rows: Iterable[Any] = load_dataset(name, split=split, streaming=True)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        rows = load_dataset(name, split=split, streaming=True, revision=_CONVERTED)
    return rows


def _text_of(row: Any, field: str, where: str) -> str:
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str):
        known = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise SourceError(f"{where} has no text in {field!r} (it has: {known}). Name the field with --field.")
    return text


def _choices() -> str:
    packaged = ", ".join(PACKAGED_CORPORA)
    return (
        f"Name a packaged corpus ({packaged}), a .txt, .jsonl or .parquet file, or a Hugging Face dataset such as "
        "stas/c4-en-10k (which needs the network)."
    )
