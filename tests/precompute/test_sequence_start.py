"""A run begins its sequences as it decided, and so do texts and induction after it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.atlas.records import RunRecord, windows_of
from backend.atlas.store import Atlas
from backend.core.errors import BadConfig
from backend.core.models.beginning import BY_FREQUENCY
from backend.live.engine import LiveEngine
from backend.requests.beginning import of_run
from backend.service import create_service
from backend.settings import Settings
from precompute import pipeline
from precompute.config import RunConfig
from precompute.progress import Silent
from tests.reference.begun_models import TEXT, begun

SEQUENCES, LENGTH = 4, 32


@dataclass
class Measured:
    """An atlas with one run of a tiny model, and where things are."""

    folder: Path
    config: RunConfig
    said: list[str]

    def run(self, **changed: object) -> RunRecord:
        said = self.said

        class Telling(Silent):
            def say(self, line: str) -> None:
                said.append(line)

        config = replace(self.config, **changed)  # type: ignore[arg-type]
        with Atlas.open(self.folder / "a.db") as atlas:
            run = pipeline.run(config, atlas, self.folder / "cache", self.folder / "work", Telling(), "cpu")
            return atlas.runs.get(run)

    def first_tokens(self, run: RunRecord) -> np.ndarray:
        with Atlas.open(self.folder / "a.db", read_only=True) as atlas:
            return atlas.contexts.sequences(run.id, windows_of(run))[:, 0]


@pytest.fixture(params=["e", "Z"], ids=["helped", "broken"])
def measured(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Measured]:
    """Of a model that a BOS helps, or of one that it breaks."""
    (tmp_path / "text.txt").write_text("x" + TEXT)
    files = begun(tmp_path, request.param)
    config = RunConfig(str(files.folder), str(tmp_path / "text.txt"), sequences=SEQUENCES, seq_len=LENGTH)
    return request.param, Measured(tmp_path, config, [])


@pytest.fixture
def client(measured: tuple[str, Measured]) -> Iterator[TestClient]:
    folder = measured[1].folder
    engine = LiveEngine(folder / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(folder / "a.db")), engine=engine)) as client:
        yield client
    engine.close()


def test_a_run_decides_tells_and_warns(measured: tuple[str, Measured]) -> None:
    after_bos, work = measured
    run = work.run()
    helped = after_bos == "e"
    assert run.config["bos_token"] == (0 if helped else None)
    assert run.config["separator_token"] == 1
    assert "bos" not in run.config, "what was asked for decides nothing"
    assert (work.first_tokens(run) == 0).all() == helped
    assert run.card is not None
    bos = run.card["bos"]
    assert bos["short"] == ("BOS <s>" if helped else "no BOS")
    with_token, without = bos["facts"]["Mean loss with <s>, nats"], bos["facts"]["Mean loss without a BOS, nats"]
    assert (with_token < without - 1) == helped
    assert abs(with_token - without) > 1
    assert run.card["separator"]["short"] == "documents end with </s>"
    assert bos["facts"][BY_FREQUENCY] < 0.4
    assert any("is not itself" in warning for warning in run.card["warnings"]), "random weights predict nothing"
    assert any(line.startswith("WARNING:") for line in work.said)
    assert work.run(bos="always" if helped else "never").id == run.id, "the same beginning is the same run"
    other = work.run(bos="never" if helped else "always")
    assert other.id != run.id
    assert other.card is not None
    assert "worse than it could be" in other.card["warnings"][0]
    assert (work.first_tokens(other) == 0).all() != helped


def test_a_token_that_is_none_stops_a_run_before_it_begins(measured: tuple[str, Measured]) -> None:
    _, work = measured
    with pytest.raises(BadConfig, match="tokens of its vocabulary"):
        work.run(bos="<|nothing|>")
    with Atlas.open(work.folder / "a.db") as atlas:
        assert not atlas.models.all()
    with pytest.raises(BadConfig, match="--bos takes"):
        work.run(bos="")


def test_the_lab_begins_texts_as_the_run_does(measured: tuple[str, Measured], client: TestClient) -> None:
    after_bos, work = measured
    run = work.run()
    helped = after_bos == "e"
    text = client.post("/api/v1/models/llama/texts", json={"text": "eee e"}).json()
    assert text["tokens"] == ["<s>"] * helped + list("eee e")
    beginning = text["beginning"]
    assert (beginning["token_id"], beginning["token"]) == ((0, "<s>") if helped else (None, None))
    assert beginning["reason"].startswith(f"as in run {run.id}: over ")
    asked = {"max_tokens": 1, "temperature": 0}
    events = client.post(f"/api/v1/texts/{text['id']}/generate", json=asked).text
    assert f'"tokens":{5 + helped}' in events
    induced = client.post(
        "/api/v1/models/llama/induction", json={"source": "random", "sequences": 2, "span": 4, "parts": ["curves"],
                                                "neurons": ["1.1"]}
    ).text  # fmt: skip
    assert ("after <s>." if helped else "after one more random token (this model's sequences begin without") in induced
    work.run(bos="never" if helped else "always")  # newer, so pages show it first
    again = client.post("/api/v1/models/llama/texts", json={"text": "eee e"}).json()
    assert again["tokens"] == ["<s>"] * (not helped) + list("eee e")
    assert again["id"] != text["id"]


def test_no_peak_is_at_the_first_token(measured: tuple[str, Measured]) -> None:
    """Its activations are extreme for all neurons alike, whether it is BOS or text."""
    _, work = measured
    run = work.run()
    with Atlas.open(work.folder / "a.db", read_only=True) as atlas:
        peaks = [shown.trace.peak_position for index in range(44) for shown in atlas.contexts.showing(run.id, index)]
    assert peaks
    assert min(peaks) > 0, "each sequence is one context here"


def test_a_run_made_before_its_beginning_was_kept_tells_by_its_tokens(measured: tuple[str, Measured]) -> None:
    after_bos, work = measured
    (work.folder / "text.txt").write_text("abcdefghijklmnopqrstuvwxyz0123456789" * 30)
    run = work.run(bos="always" if after_bos == "e" else "never")
    older = {name: value for name, value in run.config.items() if name != "bos_token"}
    with Atlas.open(work.folder / "a.db", read_only=True) as atlas:
        found = of_run(atlas, replace(run, config=older))
    assert found is not None
    assert found.token == (0 if after_bos == "e" else None)
    assert "stored sequences" in found.reason
