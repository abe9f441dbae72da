"""Settings come from the environment, under the project's name only."""

import inspect
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.cli import app
from backend.settings import Settings


def test_defaults_listen_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CALIBROSCOPE_ATLAS", "DATABASE_URL", "CALIBROSCOPE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ATLAS", "not ours")
    settings = Settings()
    assert (settings.host, settings.port, settings.atlas) == ("127.0.0.1", 8050, "atlas.db")
    assert settings.is_local


@pytest.mark.parametrize("name", ["CALIBROSCOPE_ATLAS", "DATABASE_URL"])
def test_the_environment_names_the_atlas_and_flags_win(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "postgresql+psycopg://host/db")
    monkeypatch.setenv("CALIBROSCOPE_PORT", "9000")
    monkeypatch.setenv("CALIBROSCOPE_CACHE_DIR", "/tmp/somewhere")
    settings = Settings()
    assert (settings.atlas, settings.port, settings.cache_dir) == (
        "postgresql+psycopg://host/db", 9000, Path("/tmp/somewhere"),
    )  # fmt: skip
    assert Settings(atlas="mine.db").atlas == "mine.db"


def test_every_setting_has_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert (field.description or "").endswith("."), name


@pytest.mark.parametrize("value", ["a.example,b.example", " a.example , b.example,", '["a.example", "b.example"]'])
def test_host_names_are_a_list_with_commas(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBROSCOPE_ALLOWED_HOSTS", value)
    assert Settings().allowed_hosts == ["a.example", "b.example"]


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError):
        Settings(port=70_000)


def test_no_option_overrules_a_setting_unless_it_is_given() -> None:
    """A default of its own would make the environment's word worth nothing."""
    checked = 0
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback).parameters.items():
            if name in Settings.model_fields:
                assert parameter.default is None, f"{command.callback.__name__} has a default for {name}"
                checked += 1
    assert checked > 10
