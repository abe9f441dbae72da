"""Tiny LLaMAs that a BOS token helps, harms, or leaves as they are."""

from pathlib import Path
from typing import Any

import torch
import transformers

from backend.core.models.sources import ModelFiles
from tests.reference.tiny_models import build, byte_tokenizer

TEXT = "eeeeeeeeeeeeeeeeeeee eeeeeeeeeeeeee\n" * 60
"""Mostly one letter, so that a model which predicts it always does well."""


def begun(folder: Path, after_bos: str | None, tokenizer: Any = None) -> ModelFiles:
    """A tiny LLaMA in which nothing but BOS passes from one position to others.

    Args:
        after_bos: the letter that all later positions predict once BOS is before them; None for a model on which BOS
            has no effect.
        tokenizer: another than the usual one of bytes.
    """
    tokenizer = tokenizer or byte_tokenizer()
    files = build("llama", folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(files.folder)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
        if after_bos is not None:
            _spread(model, tokenizer(after_bos, add_special_tokens=False).input_ids[0])
    model.save_pretrained(files.folder)
    tokenizer.save_pretrained(files.folder)
    return files


def _spread(model: Any, token: int) -> None:
    """The first layer's first head attends to all positions alike, and of each writes what only BOS has."""
    attention, embedding = model.model.layers[0].self_attn, model.model.embed_tokens.weight
    embedding[:, -1] = 0  # the last direction is BOS's alone
    embedding[0] = 0
    embedding[0, -1] = 10
    attention.q_proj.weight.zero_()
    attention.v_proj.weight.zero_()
    attention.v_proj.weight[0, -1] = 1 / model.model.layers[0].input_layernorm.weight[-1]
    attention.o_proj.weight[:, 0] = 1e4 * model.lm_head.weight[token] / model.model.norm.weight
