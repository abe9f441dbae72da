"""GGUF files, dequantised once: kept in a folder that is named after the file's content and lists its own checksums.

A folder is used only where it was made from that content by this code, and every file in it is as it was written;
otherwise it is made anew.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from filelock import FileLock

from backend.core.errors import ModelTooLarge, SourceError, first_line
from backend.core.models.downloads import DISK_ERRORS, Say, cannot_write, sha256_of

CONVERSION_FORMAT = 1
"""To be raised by hand with every change to what a conversion writes: folders that were written before are then left,
and every file is converted again."""
MANIFEST = "manifest.json"


def dequantised(cache: Path, name: str, sha256: str, gguf: Callable[[], Path], say: Say) -> Path:
    """The folder of a GGUF file's weights and tokenizer in the Hugging Face layout, made now if it is not there whole.

    Args:
        name: for a person who looks into the cache.
        sha256: of the file.
        gguf: the file's path; asked for only when it must be converted.

    Raises:
        SourceError: a damaged file, of a family that cannot be read, or a full disk.
        ModelTooLarge: out of memory.
    """
    folder = cache / "models" / f"{name}-{sha256[:16]}-{CONVERSION_FORMAT}"
    if _is_whole(folder, sha256):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):  # whoever waited here finds it made
            if not _is_whole(folder, sha256):
                if folder.exists():
                    say(f"The converted weights in {folder} are damaged: they are made anew.")
                _convert(gguf(), folder, sha256, say)
    except OSError as error:
        raise cannot_write(folder.parent, error) from error
    return folder


def _is_whole(folder: Path, sha256: str) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return bool(manifest == {"made_from": sha256, "format": CONVERSION_FORMAT, "files": _checksums(folder)})
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.name != MANIFEST}


def _convert(gguf: Path, folder: Path, sha256: str, say: Say) -> None:
    say(f"Dequantising {gguf.name} (once) …")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        _write(gguf, whole)
        if sha256_of(gguf) != sha256:
            raise SourceError(f"{gguf} changed while it was read. Try again when it is whole.")
        manifest = {"made_from": sha256, "format": CONVERSION_FORMAT, "files": _checksums(whole)}
        (whole / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        whole.replace(folder)


def _write(gguf: Path, folder: Path) -> None:
    """Write the weights and the tokenizer of a GGUF file into a folder."""
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    from backend.core.models import dequantising  # here: it imports torch, which naming a model must not
    from backend.core.models.devices import refusing_memory_errors

    try:
        with refusing_memory_errors(f"Dequantising {gguf.name}"):
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            tokenizer.save_pretrained(folder)
            missing: Collection[str]
            try:
                missing = dequantising.write(gguf, dequantising.skeleton_of(gguf), folder)
            except dequantising.NotOneToOne:
                missing = _write_at_once(gguf, folder)
    except (ModelTooLarge, SafetensorError) as error:
        raise error if isinstance(error, ModelTooLarge) else cannot_write(folder.parent, error) from error
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise _unreadable(gguf, error) from error
    except Exception as error:  # parsers of damaged files raise anything, the Rust ones plain Exceptions
        raise _unreadable(gguf, error) from error
    require_every_weight(gguf.name, missing)


def _unreadable(gguf: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{gguf.name} could not be read: {first_line(error)}. GGUF files of the LLaMA, Qwen, GPT-2, Phi and Gemma "
        "families can be read; for others use the Hugging Face weights."
    )


def _write_at_once(gguf: Path, folder: Path) -> Collection[str]:
    """Write weights of which the file has other pieces than the model, all in memory; returns what is missing."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype="float32", output_loading_info=True
    )
    model, loading = loaded
    # Saving refuses a model that still believes itself quantised; its tensors no longer are.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    missing: Collection[str] = loading["missing_keys"]
    return missing


def require_every_weight(name: str, missing: Collection[str]) -> None:
    """Refuse a model of which a tensor is missing: transformers fills it with random numbers and only warns.

    Raises:
        SourceError: some tensor is missing.
    """
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise SourceError(
            f"{name} lacks {len(missing)} of its tensors (such as {some}), and random numbers would take their place: "
            "the download is incomplete, or the weights belong to another model. Fetch the model anew."
        )
