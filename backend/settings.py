"""Every setting: name, default, sentence. From the environment (`CALIBROSCOPE_PORT=9000`) or from flags."""

import json
import re
from pathlib import Path
from typing import Annotated

from platformdirs import user_cache_path
from pydantic import AliasChoices, ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_ORIGIN = re.compile(r"https?://(\*\.)?[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-fA-F:]+\](:[0-9]{1,5})?")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(BaseSettings):
    """Configuration of the service and the command line; made where it is needed and handed in."""

    model_config = SettingsConfigDict(env_prefix="CALIBROSCOPE_", populate_by_name=True, extra="forbid")

    atlas: str = Field(
        "atlas.db",
        validation_alias=AliasChoices("CALIBROSCOPE_ATLAS", "DATABASE_URL"),
        description="The atlas: the path of a SQLite file, or a database URL.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; others than this machine's need care.")
    port: int = Field(8050, ge=1, le=65535, description="Port of the dashboard and the API.")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Host names, with commas between them, that browsers may call the service by, besides this "
        "machine's own; empty allows any name when listening beyond this machine.",
    )
    embed_origins: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Origins, as in https://lab.example with commas between them, whose pages may show the service's "
        "in a frame; empty: none.",
    )
    models: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Models that an atlas may have loaded besides packaged ones and those that this installation has "
        "analysed itself: names, folders that hold models, or hub for the whole Hugging Face hub; with commas.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("calibroscope"),
        description="Where fetched models and corpora are kept.",
    )
    device: str = Field("auto", description="Where models run: auto, cpu or cuda.")
    models_in_memory: int = Field(1, ge=1, le=16, description="Models that stay loaded for live texts.")
    texts_mb: int = Field(1024, ge=64, le=262_144, description="Memory for traced texts, in MB; the oldest make room.")
    memory: ByteSize = Field(
        ByteSize(4 * 10**9), ge=200_000_000, description="Memory for computing effects, as in 4GB; less is slower."
    )
    api_key: SecretStr | None = Field(
        None,
        description="What a request that writes must bring in its X-API-Key header; needed when listening beyond this "
        "machine, where without one nothing can be written over HTTP.",
    )
    queue_limit: int = Field(8, ge=1, le=1000, description="Requests that may wait for the model; more are refused.")
    queue_seconds: float = Field(
        10,
        ge=1,
        le=3600,
        description="Seconds until the last of them is answered, judged by recent ones; beyond that more are refused.",
    )

    @field_validator("api_key", mode="before")
    @classmethod
    def _no_empty_key(cls, value: object) -> object:
        """An empty variable sets no key: anybody could send an empty one."""
        return None if value == "" else value

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        """A header holds ASCII alone: no client could send another key as it is."""
        if value is not None and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            raise ValueError("write the key in ASCII letters, digits and signs alone: an HTTP header holds no others")
        return value

    @field_validator("embed_origins")
    @classmethod
    def _origins(cls, values: list[str]) -> list[str]:
        for value in values:
            if not _ORIGIN.fullmatch(value):
                raise ValueError(
                    f"{value[:60]!r} is not an origin: write a scheme and a host, as in https://lab.example"
                )
        return values

    @field_validator("allowed_hosts", "embed_origins", "models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`a.example, b.example`, or a JSON list."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [name.strip() for name in value.split(",") if name.strip()]

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return self.host in LOOPBACK


def unusable(error: ValidationError) -> str:
    """What is wrong with the settings, in a sentence that names the variable and never shows a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    variable = name if name.isupper() else f"CALIBROSCOPE_{name.upper()}"
    return f"{variable} cannot be used: {first['msg'].removeprefix('Value error, ')}."
