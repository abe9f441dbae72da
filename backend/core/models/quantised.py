"""Checkpoints whose weights are quantised: turned into plain numbers on loading, or refused.

Folding a norm into a weight, and reading a neuron's output weights, needs the weights themselves. So a quantised model
is measured as the full-precision model that its numbers stand for.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch

from backend.core.errors import SourceError

_DEQUANTISES = {"bitsandbytes": "bitsandbytes"}
"""What transformers turns back into plain weights, and the package that it needs for it."""


@dataclass(frozen=True)
class Quantisation:
    """How a model folder's weights are quantised, as its configuration says."""

    method: str
    """As transformers calls it: bitsandbytes, gptq, awq, …"""
    bits: int | None
    """For each number; None where the configuration does not say."""
    kind: str | None
    """The method's own word for its numbers, such as nf4."""

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """That of a folder; None where its weights are plain numbers, or its configuration cannot be read."""
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            asked = config.get("quantization_config")
        except (OSError, ValueError, RecursionError, AttributeError):
            return None
        if not isinstance(asked, dict):
            return None
        method = str(asked.get("quant_method", "unknown"))[:40]
        bits = asked.get("bits")
        for width in (4, 8):
            bits = width if asked.get(f"load_in_{width}bit") else bits
        kind = asked.get("bnb_4bit_quant_type") if bits == 4 else None
        return cls(method, bits if isinstance(bits, int) else None, None if kind is None else str(kind)[:20])

    @property
    def words(self) -> str:
        """Such as `bitsandbytes nf4 (4-bit)`."""
        width = "" if self.bits is None else f" ({self.bits}-bit)"
        return f"{self.method}{'' if self.kind is None else f' {self.kind}'}{width}"

    def require(self, name: str) -> None:
        """Refuse what cannot be turned into plain weights here.

        Raises:
            SourceError: transformers has no way back from the method, or lacks the package for it.
        """
        package = _DEQUANTISES.get(self.method)
        if package is None:
            raise SourceError(
                f"{name} is quantised by {self.method}, which transformers runs but does not turn back into plain "
                "weights, and these are what is analysed: take the checkpoint that it was made from, one quantised by "
                "bitsandbytes, or a .gguf file."
            )
        if find_spec(package) is None:
            raise SourceError(f"{name} is quantised by {self.method}: pip install {package}, and try again.")


def dequantised(model: Any, dtype: torch.dtype) -> Any:
    """A loaded quantised model with plain weights of a type."""
    return model.dequantize(dtype).to(dtype)
