"""Every setting: name, default, sentence. From the environment (`CALIBROSCOPE_PORT=9000`) or from flags."""

import json
from pathlib import Path
from typing import Annotated

from platformdirs import user_cache_path
from pydantic import AliasChoices, ByteSize, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

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
        description="How long the last of them may have to wait, judged by recent ones; beyond that more are refused.",
    )

    @field_validator("api_key", mode="before")
    @classmethod
    def _no_empty_key(cls, value: object) -> object:
        """An empty variable sets no key: anybody could send an empty one."""
        return None if value == "" else value

    @field_validator("allowed_hosts", mode="before")
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
