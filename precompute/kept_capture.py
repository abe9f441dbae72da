"""A capture in a folder, which another machine may have made: written where the model is, read where there is none.

| file | what |
|---|---|
| `capture.json` | configuration, model, what decides the result, the run's card, and a checksum of all that |
| `readout.safetensors` | W_out, W_U, b_U and whatever else leads from the residual stream to the logits |
| `sample.safetensors` | the sampled tokens, and counts of tokens where the run brings some |
| `vocabulary.json` | what each token is called |
| `trace-00000.safetensors` … | shards of four sequences: residual stream, activations, losses, entropies, ranks |

Nothing that is read from a folder is trusted: sizes and types are checked before a tensor is read, every file says what
it was made from and vouches for its own bytes, and nothing is unpickled.
"""

import hashlib
import json
import re
import shutil
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from backend.atlas.records import Config, ModelRecord
from backend.core.errors import SourceError
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.downloads import cannot_write
from backend.core.models.readout import Readout
from backend.schemas import RunCard
from precompute.capture import Capture
from precompute.config import RunConfig
from precompute.kept import Layout, keep, kept, layout_of
from precompute.maker import Maker
from precompute.progress import Reporter
from precompute.sample import KeptTraces, Sample, Traces
from precompute.unigrams import Counts, Frequencies

FORMAT = 1
"""To be raised by hand with every change to what a folder holds: folders written before are then refused."""
_MANIFEST, _READOUT, _SAMPLE, _VOCABULARY = (
    "capture.json",
    "readout.safetensors",
    "sample.safetensors",
    "vocabulary.json",
)
_MOST_MANIFEST_BYTES, _MOST_VOCABULARY_BYTES = 1 << 24, 1 << 28
_SLUG, _LONGEST = re.compile(r"[a-z0-9.-]{1,200}"), 4096
_AGAIN = "Repeat the `calibroscope capture` that made it, and copy the folder again."

_Word = Annotated[str, Field(max_length=4096)]
_Size = Annotated[int, Field(ge=1, le=1 << 31)]


class _Frequencies(BaseModel):
    """Where token frequencies come from; counts themselves are beside the sample."""

    source: Literal["model", "corpus", "counts"]
    corpus: _Word
    file: _Word
    counted: bool


class _Manifest(BaseModel):
    """`capture.json`, but for its checksum."""

    model_config = ConfigDict(extra="forbid")

    format: int
    config: RunConfig
    model: ModelRecord
    layer: Annotated[int, Field(ge=0, le=100_000)]
    neurons: _Size
    d_model: _Size
    d_vocab: _Size
    readout: dict[str, Any]
    """What of it is no tensor; a part of several fields is a dictionary of its own."""
    uncounted: list[_Size | Literal[0]]
    frequencies: _Frequencies
    facts: Config
    card: RunCard
    maker: Maker
    sequences: _Size
    fingerprint: _Word
    """Of the traces, which every file says that it belongs to."""
    vocabulary_sha256: _Word


def write(model: AnalysisModel, capture: Capture, folder: Path, reporter: Reporter) -> None:
    """Capture a run's model into a folder, or what is left of it: shards that are there whole are kept.

    Raises:
        SourceError: the folder holds another capture, another process is writing it, or the disk has no room.
    """
    with _alone(folder):
        _require_unused(folder, capture)
        traces = Traces(model, capture.sample, folder, capture.layer, capture.fingerprint)
        _require_room(folder, capture, traces)
        _write_all_but_traces(folder, capture)
        there = [index for index in range(len(traces)) if traces.read(index) is not None]
        reporter.stage("Capture", len(traces), len(there), "shards")
        for index in sorted(set(range(len(traces))) - set(there)):
            traces[index]
            reporter.advance(1)


def opened(folder: Path, device: torch.device) -> tuple[Capture, KeptTraces]:
    """The capture in a folder, with its readout on a device; the traces are read as they are asked for.

    Raises:
        SourceError: there is none, a file is missing or damaged, or another version of Calibroscope wrote it.
    """
    manifest = _read_manifest(folder)
    parts = _part(folder, _SAMPLE, manifest, _sample_layout(manifest))
    vocabulary = _read_vocabulary(folder, manifest)
    asked = manifest.frequencies
    sample = Sample.of(parts["tokens"].numpy(), frozenset(manifest.uncounted), manifest.config.seed)
    capture = Capture(
        config=manifest.config,
        model=manifest.model,
        layer=manifest.layer,
        readout=_read_readout(folder, manifest, device),
        strings=lambda ids: [vocabulary[token] for token in ids],
        sample=sample,
        frequencies=Frequencies(asked.source, asked.corpus, asked.file, _counts(parts.get("counts"))),
        facts=manifest.facts,
        card=manifest.card,
        maker=manifest.maker,
    )
    _require_consistent(folder, manifest, capture)
    traces = KeptTraces(sample, folder, capture.fingerprint, capture.sizes)
    missing = [index for index in range(len(traces)) if not traces.path(index).is_file()]
    if missing:
        raise SourceError(
            f"The capture in {folder} has {len(traces) - len(missing)} of its {len(traces)} shards: "
            f"{traces.path(missing[0]).name} is the first that is missing. {_AGAIN}"
        )
    return capture, traces


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A folder in which no other process captures meanwhile; it is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "capture.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise SourceError(f"Another process captures into {folder}. Wait for it, or name another folder.") from None
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _require_unused(folder: Path, capture: Capture) -> None:
    """Refuse a folder that has anything of another capture: its shards would be overwritten."""
    if not (folder / _MANIFEST).exists():
        return
    with suppress(SourceError):
        before = _read_manifest(folder)
        if before.fingerprint == capture.fingerprint and before.facts == capture.facts:
            return
    raise SourceError(
        f"{folder} holds another capture: of another model, text or configuration, or by another version or device. "
        "Name another folder with --out, or delete this one."
    )


def _require_room(folder: Path, capture: Capture, traces: Traces) -> None:
    sizes, tokens = capture.sizes, capture.sample.tokens.size
    needed = tokens * (4 * (sizes.d_model + sizes.neurons) + 16) + len(traces) * 8 * sizes.d_vocab
    needed += 4 * sizes.d_model * (sizes.neurons + sizes.d_vocab)
    there = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise SourceError(
            f"The capture takes {needed / 1e9:.1f} GB, and {folder} has room for {(free + there) / 1e9:.1f} GB. Name a "
            "folder on a larger disk with --out, or take fewer --sequences."
        )


def _write_all_but_traces(folder: Path, capture: Capture) -> None:
    tensors, plain = _taken_apart(capture.readout)
    vocabulary = json.dumps(capture.strings(list(range(capture.sizes.d_vocab)))).encode()
    counts, sizes = capture.frequencies.counts, capture.sizes
    manifest = _Manifest(
        format=FORMAT,
        config=capture.config,
        model=capture.model,
        layer=capture.layer,
        neurons=sizes.neurons,
        d_model=sizes.d_model,
        d_vocab=sizes.d_vocab,
        readout=plain,
        uncounted=sorted(capture.sample.uncounted),
        frequencies=_Frequencies(
            source=capture.frequencies.source,
            corpus=capture.frequencies.corpus,
            file=capture.frequencies.file,
            counted=counts is not None,
        ),
        facts=capture.facts,
        card=capture.card,
        maker=capture.maker,
        sequences=len(capture.sample.tokens),
        fingerprint=capture.fingerprint,
        vocabulary_sha256=hashlib.sha256(vocabulary).hexdigest(),
    )
    sample = {"tokens": torch.from_numpy(capture.sample.tokens)}
    sample |= {} if counts is None else {"counts": torch.from_numpy(counts)}
    keep(folder / _READOUT, tensors, _mark(_READOUT, capture.fingerprint))
    keep(folder / _SAMPLE, sample, _mark(_SAMPLE, capture.fingerprint))
    body = manifest.model_dump(mode="json")
    text = json.dumps({"capture": body, "sha256": _checksum(body)}, indent=1)
    try:
        _replace(folder / _VOCABULARY, vocabulary)
        _replace(folder / _MANIFEST, text.encode())
    except OSError as error:
        raise cannot_write(folder, error) from error


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _mark(name: str, made_from: str) -> str:
    return f"{made_from}:{name}"


def _checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / _MANIFEST
    if not path.is_file():
        raise SourceError(f"{folder} holds no capture: it has no {_MANIFEST}. Make one with calibroscope capture.")
    try:
        if path.stat().st_size > _MOST_MANIFEST_BYTES:
            raise ValueError("it is far too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        body = found["capture"]
        if _checksum(body) != found["sha256"]:
            raise ValueError("its checksum is another")
        if body["format"] != FORMAT:
            raise SourceError(
                f"{folder} was captured by another version of Calibroscope, whose captures have format "
                f"{str(body['format'])[:20]}, not {FORMAT}: capture it anew with this one."
            )
        return _Manifest.model_validate(body)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        reason = f"{error.error_count()} of its fields are wrong" if isinstance(error, ValidationError) else error
        raise SourceError(f"{path} is damaged, or no capture: {reason}. {_AGAIN}") from error


def _part(folder: Path, name: str, manifest: _Manifest, layout: Layout) -> dict[str, Tensor]:
    """The tensors of a file of the folder, of the given types and shapes."""
    path, mark = folder / name, _mark(name, manifest.fingerprint)
    tensors = kept(path, mark, layout)
    if tensors is None:
        what = "does not match its fingerprint, or its tensors have other sizes" if path.exists() else "is missing"
        raise SourceError(f"{name} in {folder} {what}. {_AGAIN}")
    return tensors


def _read_vocabulary(folder: Path, manifest: _Manifest) -> list[str]:
    path = folder / _VOCABULARY
    try:
        if path.stat().st_size > _MOST_VOCABULARY_BYTES:
            raise ValueError("it is far too large")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest.vocabulary_sha256:
            raise ValueError("its checksum is another")
        words = json.loads(content)
        if not (isinstance(words, list) and len(words) == manifest.d_vocab and all(isinstance(w, str) for w in words)):
            raise ValueError(f"it is no list of {manifest.d_vocab} words")
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{_VOCABULARY} in {folder} cannot be used: {error}. {_AGAIN}") from error
    return words


def _sample_layout(manifest: _Manifest) -> Layout:
    layout: Layout = {"tokens": ("I64", (manifest.sequences, manifest.config.seq_len))}
    return layout | ({"counts": ("F64", (manifest.d_vocab,))} if manifest.frequencies.counted else {})


def _counts(counts: Tensor | None) -> Counts | None:
    return None if counts is None else counts.numpy()


def _require_consistent(folder: Path, manifest: _Manifest, capture: Capture) -> None:
    """Refuse parts that are whole but do not belong together: only a person could have made them so."""
    model, tokens, counts = manifest.model, capture.sample.tokens, capture.frequencies.counts
    sizes = (model.d_model, model.d_vocab) == (manifest.d_model, manifest.d_vocab)
    within = bool(((tokens >= 0) & (tokens < manifest.d_vocab)).all())
    counted = counts is None or bool(np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0)
    named = bool(_SLUG.fullmatch(model.slug)) and max(len(model.name), len(model.family), len(model.source)) <= _LONGEST
    if not (sizes and within and counted and named and capture.fingerprint == manifest.fingerprint):
        raise SourceError(
            f"{_MANIFEST} in {folder} says something else than the files beside it, or was written for other sizes of "
            f"shards. {_AGAIN}"
        )


def _taken_apart(part: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A dataclass as tensors by name, with a dot before those of a part, and as the rest, which JSON can hold."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value.detach().cpu()
        elif is_dataclass(value):
            inner, plain[field.name] = _taken_apart(value)
            tensors |= {f"{field.name}.{name}": tensor for name, tensor in inner.items()}
        else:
            plain[field.name] = value
    return tensors, plain


def _put_together(kind: type[Any], tensors: dict[str, Tensor], plain: dict[str, Any]) -> Any:
    """What `_taken_apart` took apart.

    Raises:
        ValueError: a part is missing or of another kind.
    """
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):
        name, inner = field.name, f"{field.name}."
        if name in tensors:
            values[name] = tensors[name]
        elif isinstance(plain.get(name), dict):
            own: Any = next(filter(is_dataclass, _alternatives(hints[name])), None)
            if own is None:
                raise ValueError(f"{name} has no parts")
            within = {key.removeprefix(inner): tensor for key, tensor in tensors.items() if key.startswith(inner)}
            values[name] = _put_together(own, within, plain[name])
        elif name in plain:
            values[name] = TypeAdapter(_plain(hints[name])).validate_python(plain[name], strict=True)
        else:
            raise ValueError(f"{name} is missing")
    return kind(**values)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a field may have."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _plain(hint: Any) -> Any:
    """A field's type without tensors and parts: what may stand in the manifest for it."""
    own = [part for part in _alternatives(hint) if not is_dataclass(part) and not _is_tensor(part)]
    if not own:
        raise ValueError("a tensor is missing")
    return reduce(or_, own)


def _is_tensor(hint: Any) -> bool:
    return isinstance(hint, type) and (issubclass(hint, Tensor) or hasattr(hint, "array_type"))


def _read_readout(folder: Path, manifest: _Manifest, device: torch.device) -> Readout:
    tensors = _part(folder, _READOUT, manifest, _readout_layout(folder, manifest))
    try:
        readout = _put_together(
            Readout, {name: tensor.to(device) for name, tensor in tensors.items()}, manifest.readout
        )
    except (ValueError, TypeError) as error:
        raise SourceError(f"The readout in {folder} cannot be used: {error}. {_AGAIN}") from error
    if not (isinstance(readout, Readout) and 0 <= readout.eps < 1):
        raise SourceError(f"The readout in {folder} has an eps that no norm has. {_AGAIN}")
    return readout


def _readout_layout(folder: Path, manifest: _Manifest) -> Layout:
    """W_out and W_U have the sizes of the manifest, and so has every axis of what else there is."""
    known: Layout = {
        "W_out": ("F32", (manifest.neurons, manifest.d_model)),
        "W_U": ("F32", (manifest.d_model, manifest.d_vocab)),
    }
    sizes = {manifest.neurons, manifest.d_model, manifest.d_vocab}
    found = layout_of(folder / _READOUT)
    more = {
        name: form for name, form in found.items() if form[0] == "F32" and len(form[1]) <= 2 and {*form[1]} <= sizes
    }
    return more | known
