"""A model's last layer and unembedding alone, for what the weights say without running the model.

Of a model's tensors, those of its other blocks are left on the disk: what remains is a model of one block, with the
same embedding, final norm and unembedding, which is loaded, processed and checked as every model is. So its readout is
that of the whole model, to the last bit, in the time and memory that one block takes. Where an architecture does not
allow this, the whole model is loaded.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from backend.core.errors import CalibroscopeError, SourceError, first_line
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.readout import Readout
from backend.core.models.sizes import require_sizes
from backend.core.models.sources import ModelFiles
from backend.core.neurons import Experts

_BLOCK = re.compile(r"(?<=\.)\d+(?=\.)")
"""The number of its block in a tensor's name, the first that there is: experts are numbered behind it."""
_LEFT_OUT = ("config.json", "model.safetensors.index.json")


@dataclass(frozen=True)
class LastLayer:
    """What a model's last layer writes and how it is read out."""

    readout: Readout
    family: str
    layer: int
    """Its number in the whole model, from 0."""
    experts: Experts | None
    """How its neurons are divided among experts; None where it has none."""
    is_alone: bool
    """Whether the other layers were left on the disk."""

    @classmethod
    def load(cls, files: ModelFiles, device: str = "cpu") -> Self:
        """Load, process and check a model's last block, or where that cannot be done the whole model.

        Raises:
            CalibroscopeError: as the loading of the whole model raises it.
        """
        try:
            with _last_block(files) as (alone, layer):
                model = AnalysisModel.load(alone, device)
                return cls(model.readout, model.family, layer, model.experts, is_alone=True)
        except CalibroscopeError:  # the whole model's error is the one that says what is wrong
            model = AnalysisModel.load(files, device)
            return cls(model.readout, model.family, model.last_layer, model.experts, is_alone=False)


@contextmanager
def _last_block(files: ModelFiles) -> Iterator[tuple[ModelFiles, int]]:
    """The files of a model of one block, as long as they are needed, and the block's number.

    Raises:
        SourceError: the files cannot be read, or do not keep their blocks apart.
    """
    require_sizes(files.folder, files.name)
    with tempfile.TemporaryDirectory(prefix="calibroscope-") as scratch:
        folder = Path(scratch)
        try:
            layer = _write_config(files.folder, folder)
            _write_weights(files.folder, folder, layer)
            for path in files.folder.iterdir():
                if path.is_file() and path.suffix != ".safetensors" and path.name not in _LEFT_OUT:
                    shutil.copyfile(path, folder / path.name)
        except CalibroscopeError:
            raise
        except Exception as error:  # parsers of damaged files raise anything, the Rust ones plain Exceptions
            raise SourceError(f"The last block of {files.name} cannot be read alone: {first_line(error)}.") from error
        yield replace(files, folder=folder), layer


def _write_config(source: Path, target: Path) -> int:
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    text = config.get_text_config()
    layers = int(text.num_hidden_layers)
    of_each = {name: value for name, value in vars(text).items() if _is_of_each_layer(name, value, layers)}
    for name, value in of_each.items():
        setattr(text, name, value[-1:])
    if hasattr(text, "attention_types"):  # GPT-Neo writes its layers' kinds as pairs of a pattern and a count
        text.attention_types = [[list(text.attention_layers), 1]]
    text.num_hidden_layers = 1
    config.save_pretrained(target)
    return layers - 1


def _is_of_each_layer(name: str, value: Any, layers: int) -> bool:
    return "layer" in name and isinstance(value, list | tuple) and len(value) == layers


def _write_weights(source: Path, target: Path, layer: int) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    kept: dict[str, Any] = {}
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a dictionary
                block = _BLOCK.search(name)
                if block is None:
                    kept[name] = file.get_tensor(name)
                elif int(block.group()) == layer:
                    kept[f"{name[: block.start()]}0{name[block.end() :]}"] = file.get_tensor(name)
    save_file(kept, target / "model.safetensors", {"format": "pt"})
