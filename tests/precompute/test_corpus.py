"""Text becomes sequences, and the positions that count are those of the definition."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.core.errors import SourceError
from backend.core.models.analysis_model import AnalysisModel
from precompute.corpus import Corpus, counted_positions, open_corpus, pack, tokens_hash


def _silent(_: str) -> None: ...


class Letters:
    """One token a letter, from 2; documents are separated by 1."""

    separator: int | None = 1

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


def _corpus(*documents: str) -> Corpus:
    return Corpus("test", lambda: iter(documents))


def test_sequences_begin_with_bos_and_documents_are_separated() -> None:
    tokens = pack(_corpus("abc", "defg", "hijklm"), Letters(), 3, 5, seed=0, bos=0)
    text = "".join(chr(token) if token > 1 else "^|"[token] for token in tokens.ravel())
    assert text == "^abc|^defg^|hij"


def test_without_special_tokens_nothing_is_added() -> None:
    tokenizer = Letters()
    tokenizer.separator = None
    assert pack(_corpus("abcd", "efgh"), tokenizer, 2, 4, seed=0).tolist() == [[97, 98, 99, 100], [101, 102, 103, 104]]


def test_a_sample_depends_on_the_seed_alone() -> None:
    corpus = _corpus("abcdefghijklmnopqrstuvwxyz" * 20)
    first, again, other = (tokens_hash(pack(corpus, Letters(), 5, 9, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_short_corpus_gives_what_it_has_and_none_is_an_error() -> None:
    assert len(pack(_corpus("abcdefghi"), Letters(), 100, 5, seed=0)) == 2
    with pytest.raises(SourceError, match="too little text"):
        pack(_corpus("ab"), Letters(), 1, 50, seed=0)


def test_positions_count_from_the_fourth_where_token_and_target_are_words() -> None:
    tokens = np.array([[0, 5, 6, 7, 8, 1, 9, 9, 9]])
    counted = counted_positions(tokens, frozenset({0, 1}))
    #       BOS          before the 4th  yes   EOS next  EOS    yes   yes   no target
    assert counted.tolist() == [[False, False, False, True, False, False, True, True, False]]


def _write(folder: Path, name: str) -> Path:
    texts, path = ["first document", "second document"], folder / name
    if path.suffix == ".txt":
        path.write_text("first documentsecond document")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"text": text, "id": 1}) for text in texts) + "\n\n")
    else:
        pq.write_table(pa.table({"text": texts, "id": [1, 2]}), path)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_local_files_are_read(name: str, tmp_path: Path) -> None:
    corpus = open_corpus(str(_write(tmp_path, name)), tmp_path, _silent)
    assert "".join(corpus.documents()) == "first documentsecond document"
    assert "".join(corpus.documents()) == "first documentsecond document", "a second pass starts again"


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_missing_field_names_those_that_are_there(name: str, tmp_path: Path) -> None:
    corpus = open_corpus(str(_write(tmp_path, name)), tmp_path, _silent, field="body")
    with pytest.raises(SourceError, match=r"'body'.*text.*--field"):
        list(corpus.documents())


def test_broken_files_say_where(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{broken\n')
    with pytest.raises(SourceError, match="line 2 is not JSON"):
        list(open_corpus(str(tmp_path / "a.jsonl"), tmp_path, _silent).documents())
    (tmp_path / "a.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match="not a readable parquet"):
        list(open_corpus(str(tmp_path / "a.parquet"), tmp_path, _silent).documents())
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(SourceError, match=r"not a \.txt, \.jsonl or \.parquet"):
        open_corpus(str(tmp_path / "a.doc"), tmp_path, _silent)
    with pytest.raises(SourceError, match="no text file at"):
        open_corpus(str(tmp_path / "missing.txt"), tmp_path, _silent)


def test_a_dataset_of_the_hub_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, **options: object) -> list[dict[str, str]]:
        assert (name, options) == ("stas/c4-en-10k", {"split": "validation", "streaming": True})
        return [{"text": "one"}, {"text": "two"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = open_corpus("stas/c4-en-10k", tmp_path, _silent, split="validation")
    assert list(corpus.documents()) == ["one", "two"]


def test_of_a_dataset_with_a_program_what_the_hub_made_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's own corpus is such a one; its author's program is not run."""
    asked: list[str | None] = []

    def load(name: str, *, split: str, streaming: bool, revision: str | None = None) -> list[dict[str, str]]:
        asked.append(revision)
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found c4-en-10k.py")
        return [{"text": "one"}, {"text": "two"}]

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(open_corpus("stas/c4-en-10k", tmp_path, print).documents()) == ["one", "two"]
    assert asked == [None, "refs/convert/parquet"]


def test_an_unreachable_dataset_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(SourceError, match=r"could not be read.*lee-news"):
        list(open_corpus("no/such-data", tmp_path, _silent).documents())


def test_a_real_tokenizer_packs(tiny_model: Callable[[str], AnalysisModel]) -> None:
    tokens = pack(_corpus("The quick brown fox. " * 20), tiny_model("gpt2"), 4, 16, seed=0)
    assert tokens.shape == (4, 16)
    assert len(set(tokens[:, 0].tolist())) > 1, "they begin with text"


@pytest.mark.parametrize("line", ["[" * 100_000, "9" * 10_000, '{"text": 5}', "{"])
def test_a_line_that_is_no_document_gets_a_sentence(line: str, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text(f'{{"text": "a lamp"}}\n{line}\n')
    with pytest.raises(SourceError, match="line 2"):
        list(open_corpus(str(tmp_path / "text.jsonl"), tmp_path, print).documents())


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_bytes(b'{"text": "a \xff lamp"}\n')
    assert list(open_corpus(str(tmp_path / "text.jsonl"), tmp_path, print).documents()) == ["a \ufffd lamp"]
