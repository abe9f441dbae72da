"""What is said of a run: its card, and nothing private."""

from dataclasses import replace
from typing import Any

import pytest

from backend.answers.runs import model_name, run_summary, shown_name
from backend.atlas.connect import AtlasUnusable
from backend.atlas.records import ModelRecord
from backend.atlas.store import Atlas
from tests.conftest import TinyAtlas


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("smollm2-135m", "smollm2-135m"),
        ("openai-community/gpt2", "openai-community/gpt2"),
        ("/home/alice/models/mine", "mine"),
        ("/home/alice/models/mine/", "mine"),
        ("~/mine", "mine"),
        ("./alice/mine", "mine"),
        ("../mine", "mine"),
        ("alice/models/mine", "mine"),
        ("alice/mine.Q4_1.gguf", "mine.Q4_1.gguf"),
        ("alice/text.txt", "text.txt"),
        (r"C:\Users\alice\mine", "mine"),
        ("C:/Users/alice/mine", "mine"),
        ("/", "/"),
    ],
)
def test_a_path_is_shown_by_its_last_part(asked: str, shown: str) -> None:
    assert shown_name(asked) == shown


def test_a_run_is_told_without_folders_and_with_its_card(tiny_atlas: TinyAtlas) -> None:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        record = atlas.runs.get(tiny_atlas.run)
    told = run_summary(record)
    assert str(record.config["dataset"]).startswith("/"), "else nothing is tested"
    assert (told.config["model"], told.config["dataset"]) == ("llama", "text.txt")
    assert told.card is not None
    assert told.card.tokens.counted == told.tokens_counted
    assert "/" not in told.card.checkpoint.model_dump_json()


def test_a_run_made_before_cards_has_none(tiny_atlas: TinyAtlas) -> None:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        record = atlas.runs.get(tiny_atlas.run)
    assert run_summary(replace(record, card=None)).card is None


@pytest.mark.parametrize("broken", [{}, {"warnings": "none"}, [], "card", {"checkpoint": {"name": 5}}])
def test_a_damaged_card_is_said_to_be_damaged(tiny_atlas: TinyAtlas, broken: Any) -> None:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        record = atlas.runs.get(tiny_atlas.run)
    with pytest.raises(AtlasUnusable, match=f"card of run {record.id} is damaged"):
        run_summary(replace(record, card=broken))


@pytest.mark.parametrize(
    ("name", "source", "shown"),
    [
        ("smollm2-135m", "smollm2-135m", "SmolLM2-135M-Instruct (Q4_1)"),
        ("smollm2-135m", "/models/smollm2-135m", "smollm2-135m"),
        ("gpt2", "gpt2", "gpt2"),
        ("smollm2-135m (0a1b2c3d)", "smollm2-135m", "smollm2-135m (0a1b2c3d)"),
    ],
)
def test_the_packaged_model_is_called_by_what_it_is(name: str, source: str, shown: str) -> None:
    assert model_name(ModelRecord("slug", name, "LlamaForCausalLM", 2, 32, 64, 300, "RMSNorm", source)) == shown
