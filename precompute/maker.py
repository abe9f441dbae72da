"""By what something is computed: an unfinished part is gone on with only by what would make it the same."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

import torch

from backend.core.models.devices import device_name
from precompute import config
from precompute.kept import fingerprint


def software() -> dict[str, str]:
    """Versions of what computes."""
    packages = ("calibroscope", "torch", "transformer-lens", "transformers", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


@dataclass(frozen=True)
class Maker:
    """Code and device that compute something: other versions or another kind of device round otherwise."""

    versions: dict[str, str]
    device: str
    results_format: int

    @classmethod
    def here(cls, device: torch.device) -> Self:
        """This installation, on one of its devices."""
        return cls(software(), device_name(device), config.RESULTS_FORMAT)

    @property
    def fingerprint(self) -> str:
        """Equal for two makers that compute alike to the last bit."""
        return fingerprint(format=self.results_format, versions=self.versions, device=self.device)

    @property
    def words(self) -> str:
        """Device and versions, for a person."""
        return f"{self.device}; {', '.join(f'{name} {version}' for name, version in self.versions.items())}"
