"""Whether this machine's graphics card can do the work: driver, PyTorch's build, Triton, compute capability, memory."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Self

import torch

from backend.atlas.inspection import Diagnosis
from backend.core.kernels.choose import DEFAULT_MEMORY
from backend.core.toolchain import missing_for_triton

OLDEST = (7, 0)
"""Compute capability (Volta) that Triton compiles for."""
_MODEL_BYTES = 2 * 10**9
"""What the packaged model and a run's tensors take on a card besides the effects engine."""


@dataclass(frozen=True)
class Gpu:
    """What is known of a card before anything is computed on it; None where it cannot be told."""

    torch_version: str
    torch_cuda: str | None
    """The CUDA version that PyTorch was built for; None of a build for CPUs."""
    triton: str | None
    """Triton's version; None where it is not installed."""
    triton_lacks: str | None
    """Why Triton cannot compile; None where it can."""
    driver: str | None
    name: str | None = None
    """The card's name; None where PyTorch finds no card."""
    capability: tuple[int, int] | None = None
    compiled_for: tuple[str, ...] = ()
    """Architectures that PyTorch's own kernels are compiled for, as `sm_90`, or for later ones, as `compute_90`."""
    memory: int | None = None
    """Bytes."""
    free: int | None = None
    """Bytes."""

    @classmethod
    def here(cls, index: int = 0) -> Self:
        """Of this machine."""
        try:
            triton: str | None = version("triton")
        except PackageNotFoundError:
            triton = None
        known = cls(torch.__version__, torch.version.cuda, triton, missing_for_triton(), _driver())
        if not torch.cuda.is_available():
            return known
        free, memory = torch.cuda.mem_get_info(index)
        return replace(
            known,
            name=torch.cuda.get_device_name(index),
            capability=torch.cuda.get_device_capability(index),
            compiled_for=tuple(torch.cuda.get_arch_list()),
            memory=memory,
            free=free,
        )

    @property
    def why_not(self) -> str | None:
        """Why nothing can be computed on a card here, and what to do; None where one is there."""
        if self.name is not None:
            return None
        if self.driver is None:
            return "There is no NVIDIA driver on this machine (nvidia-smi does not answer), so no GPU can be checked."
        if self.torch_cuda is None:
            return (
                f"PyTorch {self.torch_version} is a build for CPUs: install the CUDA build of the same version "
                "(https://pytorch.org/get-started/locally) into this environment."
            )
        return (
            f"PyTorch {self.torch_version}, built for CUDA {self.torch_cuda}, finds no card though driver "
            f"{self.driver} answers: the driver may be too old for that CUDA, or the card hidden "
            "(CUDA_VISIBLE_DEVICES, a container started without --gpus all)."
        )

    def diagnoses(self) -> Iterator[Diagnosis]:
        """What of it is well, and what is not."""
        yield Diagnosis("driver", self.driver is not None, f"NVIDIA driver {self.driver}" if self.driver else "none")
        built = (
            f"{self.torch_version}, for CUDA {self.torch_cuda}"
            if self.torch_cuda
            else f"{self.torch_version}, for CPUs"
        )
        yield Diagnosis("PyTorch", self.torch_cuda is not None, built)
        lacks = f"effects would be computed row by row, many times slower, since {self.triton_lacks}"
        yield Diagnosis("Triton", self.triton_lacks is None, str(self.triton) if self.triton_lacks is None else lacks)
        if self.name is None:
            yield Diagnosis("card", False, str(self.why_not))
            return
        yield Diagnosis("card", True, self.name)
        if self.capability is not None:
            yield _of_capability(self.capability, self.compiled_for)
        if self.memory is not None and self.free is not None:
            needed = DEFAULT_MEMORY + _MODEL_BYTES
            yield Diagnosis(
                "memory",
                self.free >= needed,
                f"{self.free / 1e9:.1f} of {self.memory / 1e9:.1f} GB are free, {needed / 1e9:.0f} GB are good to "
                "have; with less, lower --memory",
            )


def _of_capability(capability: tuple[int, int], compiled_for: tuple[str, ...]) -> Diagnosis:
    major, minor = capability
    words = f"compute capability {major}.{minor}"
    if capability < OLDEST:
        return Diagnosis("architecture", False, f"{words}: Triton needs {OLDEST[0]}.{OLDEST[1]} or newer")
    # A binary for sm_80 runs on 8.6 as well; what is kept as compute_XY is compiled for any later card.
    fits = any(
        (kind == "sm" and known // 10 == major and known % 10 <= minor)
        or (kind == "compute" and known <= 10 * major + minor)
        for kind, known in (_architecture(one) for one in compiled_for)
    )
    if compiled_for and not fits:
        return Diagnosis(
            "architecture",
            False,
            f"{words}, but PyTorch is compiled for {', '.join(compiled_for)}: take a build that has sm_{major}{minor}",
        )
    return Diagnosis("architecture", True, words)


def _architecture(name: str) -> tuple[str, int]:
    """`sm` or `compute`, and ten times the major version and the minor one, of a name such as sm_90 or sm_90a."""
    kind, _, number = name.partition("_")
    return kind, int("".join(filter(str.isdigit, number)) or 0)


def _driver() -> str | None:
    """The NVIDIA driver's version, as nvidia-smi has it; None where it does not answer."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.strip().splitlines()[0].strip() if answer.strip() else None
