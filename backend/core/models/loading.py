"""A model folder in memory: the original model as transformers reads it, and TransformerLens' bridge around it.

Nothing is copied on the way but what must be: weights of another type than asked for are converted one by one, and
processed in place.
"""

import ctypes
import mmap
import os
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.core.errors import SourceError, UnsupportedModel, first_line, is_memory_error
from backend.core.models.conversions import require_every_weight
from backend.core.models.experts import hook_mixtures
from backend.core.models.families import SUPPORTED, attends_to_sinks, stand_in_for_absent_norm
from backend.core.models.processing import process
from backend.core.models.quantised import Quantisation, dequantised
from backend.core.models.sources import ModelFiles


def load_original(files: ModelFiles, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model as it was published, with its weights in a type, and its tokenizer.

    Raises:
        SourceError: the files cannot be read as a causal language model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    quantisation = Quantisation.of(files.folder)
    if quantisation is not None:
        quantisation.require(files.name)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            files.folder,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="eager",
            experts_implementation="eager",  # the one that takes experts of any width and type of number
            output_loading_info=True,
            **options,
        )
        model, loading = loaded
        model = model if quantisation is None else dequantised(model, dtype)
    except Exception as error:  # parsers of damaged files raise anything, the Rust ones plain Exceptions
        if is_memory_error(error):
            raise
        raise SourceError(
            f"{files.name} could not be read as a causal language model: {first_line(error)}. A model folder needs "
            "config.json, *.safetensors and the tokenizer's files, of an architecture that transformers knows without "
            "remote code."
        ) from error
    require_every_weight(files.name, loading["missing_keys"])
    own_memory(model, files.folder)
    if not tokenizer("a word", add_special_tokens=False).input_ids:  # transformers makes an empty one without its files
        raise SourceError(f"{files.name} has no tokenizer: put its tokenizer.json into {files.folder}.")
    return model, tokenizer


def own_memory(model: Any, folder: Path) -> None:
    """Move weights that lie in their files, as the system maps these, into memory of the model's own.

    A file that is written to would otherwise change the model, and one that is cut short would end the process. Each
    tensor's part of the file is let go of once it is copied. Elsewhere than on Linux they stay where they are.
    """
    mapped = _mapped({str(path.resolve()) for path in folder.glob("*.safetensors")})
    for parameter in model.parameters():
        start, size = parameter.data_ptr(), parameter.nbytes
        if any(first <= start < last for first, last in mapped):
            parameter.data = torch.empty_like(parameter.data).copy_(parameter.data)
            first_page = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            pages = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE - first_page
            if pages > 0:
                ctypes.CDLL(None).madvise(ctypes.c_void_p(first_page), ctypes.c_size_t(pages), mmap.MADV_DONTNEED)


def _mapped(files: set[str]) -> list[tuple[int, int]]:
    """From where to where in this process's memory files lie; nowhere, where the system does not say."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    parts = [line.split(maxsplit=5) for line in lines]
    ranges = [part[0].split("-") for part in parts if len(part) == 6 and part[5] in files]
    return [(int(first, 16), int(last, 16)) for first, last in ranges]


def boot(original: Any, tokenizer: Any, files: ModelFiles, device: torch.device) -> Any:
    """TransformerLens' bridge around a model, its weights processed. The model is changed by it.

    Raises:
        UnsupportedModel: TransformerLens does not know the architecture, or has no place to read its last MLP.
    """
    os.environ.setdefault("WANDB_MODE", "disabled")  # TransformerLens imports wandb; nothing may phone home
    from transformer_lens.model_bridge import TransformerBridge

    # Where no last norm takes out the mean of what is written into the stream, that mean must stay.
    options = {"center_writing_weights": False} if stand_in_for_absent_norm(original) else {}
    try:
        # A copy, because the bridge makes EOS the BOS of a tokenizer that names none.
        bridge = TransformerBridge.boot_transformers(
            str(files.folder), hf_model=original, tokenizer=deepcopy(tokenizer), device=str(device)
        )
        is_mixture = hook_mixtures(bridge, files.name)
        options["fold_value_biases"] = not attends_to_sinks(original)
        with warnings.catch_warnings():  # of what it leaves to us: gains are folded, and rows centred, by the readout
            warnings.filterwarnings("ignore", message=".*does not support (fold_ln|center_writing_weights)")
            process(bridge, **options)
        if not is_mixture and not isinstance(bridge.blocks[bridge.cfg.n_layers - 1].mlp.W_out, Tensor):
            raise AttributeError("its last MLP has no single W_out")
    except (ValueError, NotImplementedError, KeyError, AttributeError, RuntimeError) as error:
        if is_memory_error(error):
            raise
        raise UnsupportedModel(
            f"{files.name} ({type(original).__name__}) cannot be analysed: {first_line(error)}. "
            f"Supported are the decoder families of TransformerLens: {SUPPORTED} and their relatives."
        ) from error
    return bridge
