"""A GGUF file's weights as safetensors, tensor by tensor: no more than one of them is in memory at a time.

transformers knows what a GGUF file's tensors are called and how they lie, but reads all of them before it writes any.
Here the file that it would write is laid out first, from the model's shapes alone, and each tensor is dequantised into
its place.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_FLOAT_BYTES = 4


class NotOneToOne(Exception):
    """Tensors of the file are parts of the model's, or several of them in one: they must be read together."""


def skeleton_of(gguf: Path) -> Any:
    """The model in a GGUF file without its weights: every shape, and no memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def write(gguf: Path, skeleton: Any, folder: Path) -> list[str]:
    """Write a GGUF file's weights as float32 safetensors, with the configuration; returns what the file lacks.

    Raises:
        NotOneToOne: the model's tensors are not the file's.
    """
    names = _names(skeleton)
    places, header = _layout({name: tuple(tensor.shape) for name, tensor in names.items()})
    missing = set(names)
    with (folder / "model.safetensors").open("wb") as out:
        out.write(header)
        for name, weights in _dequantised(gguf, skeleton):
            if name not in places:
                continue
            if tuple(weights.shape) != tuple(names[name].shape):
                raise NotOneToOne(f"{name} has shape {weights.shape}, not {tuple(names[name].shape)}")
            out.seek(len(header) + places[name])
            out.write(np.ascontiguousarray(weights, dtype="<f4").data)
            missing.discard(name)
    _write_configuration(skeleton, folder)
    return sorted(missing)


def _names(skeleton: Any) -> dict[str, torch.Tensor]:
    """The tensors to write, one name each: of tied ones the first."""
    first: dict[int, str] = {}
    tensors = skeleton.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise NotOneToOne(f"{name} is of {tensor.dtype}")
        first.setdefault(id(tensor), name)
    return {name: tensors[name] for name in first.values()}


def _layout(shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, int], bytes]:
    """Where each tensor's numbers begin after the header, and the header, as safetensors writes them."""
    places, table, end = {}, {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(shapes):
        places[name], end = end, end + _FLOAT_BYTES * int(np.prod(shapes[name], dtype=np.int64))
        table[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [places[name], end]}  # type: ignore[dict-item]
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return places, struct.pack("<Q", len(text)) + text


def _dequantised(gguf: Path, skeleton: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The file's tensors by the model's names, in the model's layout, one after another."""
    from gguf import GGUFReader, dequantize
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
        load_gguf_checkpoint,
    )

    reader = GGUFReader(gguf)
    field = reader.get_field("general.architecture")
    architecture = "" if field is None else str(field.contents())
    parsed: dict[str, Any] = load_gguf_checkpoint(str(gguf), return_tensors=False) | {"tensors": {}}
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=parsed["config"])  # type: ignore[no-untyped-call]
    known = get_gguf_hf_weights_map(skeleton, processor)
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        placed = processor.process(
            weights=weights, name=tensor.name, tensor_key_mapping=known, parsed_parameters=parsed
        )  # fmt: skip
        for name, whole in parsed["tensors"].items():
            if name != "lm_head.weight":  # of experts, several of the file's tensors are one of the model's
                raise NotOneToOne(f"{tensor.name} is a part of {name}")
            yield name, whole.numpy()
        parsed["tensors"].clear()
        if placed.name in known:
            yield known[placed.name], placed.weights


def _write_configuration(skeleton: Any, folder: Path) -> None:
    config = skeleton.config
    config.dtype, config.architectures = "float32", [type(skeleton).__name__]
    config.save_pretrained(folder)
    if skeleton.can_generate():
        skeleton.generation_config.save_pretrained(folder)
