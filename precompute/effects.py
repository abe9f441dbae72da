"""Effects of a capture: no model is loaded, only its readout, and the traces shard by shard."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from backend.atlas.store import Atlas
from backend.core.kernels.choose import DEFAULT_MEMORY, Mode
from backend.core.models.devices import choose_device
from precompute import kept_capture
from precompute.pipeline import carry_out
from precompute.progress import Reporter


def measure(
    folder: Path,
    atlas: Atlas,
    reporter: Reporter,
    device: str = "auto",
    memory: int = DEFAULT_MEMORY,
    mode: Mode = "exact",
    null_dim: int | None = None,
) -> int:
    """Carry out the run of a capture in a folder, or what is left of it, and return its id in the atlas.

    Args:
        device: where effects are computed.
        memory: bytes that the effects engine may take; changes no result beyond rounding.
        null_dim: k of null_fraction; None for 1 % of d_model.

    Raises:
        CalibroscopeError: with a sentence that says what to do; the run is marked as failed and resumes when run again.
    """
    capture, traces = kept_capture.opened(folder, choose_device(device))
    asked = replace(capture, config=replace(capture.config, mode=mode, null_dim=null_dim))
    return carry_out(asked, nullcontext(traces), atlas, reporter, memory)
