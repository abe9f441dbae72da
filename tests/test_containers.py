"""What the container files ask for is there: commands with their options, and what Triton compiles with."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from app.cli import app

ROOT = Path(__file__).parents[1]
FILES = ("docker-compose.yml", "docker-compose.gpu.yml")


def _services(*names: str) -> dict[str, dict[str, Any]]:
    """The services of compose files laid over each other, as far as their first level goes."""
    services: dict[str, dict[str, Any]] = {}
    for name in names:
        for service, content in yaml.safe_load((ROOT / name).read_text())["services"].items():
            services[service] = services.get(service, {}) | content
    return services


@pytest.mark.parametrize("files", [FILES[:1], FILES])
def test_every_command_is_one_of_the_command_line(files: tuple[str, ...]) -> None:
    for service, content in _services(*files).items():
        command, *options = content["command"]
        page = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
        assert page.exit_code == 0, f"{service}: there is no command {command}"
        for option in filter(lambda word: word.startswith("--"), options):
            assert option in page.output, f"{service}: {command} has no {option}"


def test_a_gpu_is_given_to_what_measures_and_to_nothing_else() -> None:
    services = _services(*FILES)
    for name, content in services.items():
        devices = content.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert [device["capabilities"] for device in devices] == ([] if name == "dashboard" else [["gpu"]]), name
        wanted = "cpu" if name == "dashboard" else "cuda"
        assert content["command"][content["command"].index("--device") + 1] == wanted, name
    assert "pypi.org" in services["dashboard"]["build"]["args"]["TORCH_INDEX"], (
        "whose torch for Linux is built for CUDA"
    )


def test_the_image_has_what_triton_compiles_with() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "gcc libc6-dev" in dockerfile
    assert "ARG TORCH_INDEX=" in dockerfile
