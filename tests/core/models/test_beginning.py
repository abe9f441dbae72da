"""Whether sequences begin with a BOS: by the loss, by the tokenizer, by the paper, or as asked."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.core.errors import BadConfig
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.beginning import Beginning, Losses, decide, habit, loss_by_frequency, measure, token_called
from backend.core.models.sources import ModelFiles, find_model
from tests.reference.begun_models import TEXT, begun
from tests.reference.brute_force import Reference
from tests.reference.tiny_gguf import write_gguf
from tests.reference.tiny_models import FAMILIES, build, byte_tokenizer

Models = Callable[[str], AnalysisModel]
LENGTH = 31


def _loaded(files: ModelFiles) -> AnalysisModel:
    return AnalysisModel.load(files, "cpu")


def _text(model: AnalysisModel, text: str = TEXT) -> torch.Tensor:
    ids = model.encode(text)
    return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).reshape(-1, LENGTH)


def _decided(files: ModelFiles, policy: str = "auto") -> Beginning:
    model = _loaded(files)
    return decide(model, policy, _text(model))


def test_a_bos_that_lowers_the_loss_is_put_there(tmp_path: Path) -> None:
    found = _decided(begun(tmp_path, "e"))
    assert found.losses is not None
    assert found.losses.with_token is not None
    assert found.losses.with_token < found.losses.without - 1
    assert (found.token, found.written, found.tested) == (0, "<s>", "<s>")
    assert f"{found.losses.with_token:.3f} nats with <s>" in found.reason
    assert "so it is put there" in found.reason


def test_a_bos_that_breaks_the_model_is_left_out_though_the_tokenizer_adds_it(tmp_path: Path) -> None:
    """As on Qwen2.5, whose GGUF file names one."""
    found = _decided(begun(tmp_path, "Z", byte_tokenizer("<bos>", adds=True)))
    assert found.losses is not None
    assert found.losses.with_token is not None
    assert found.losses.with_token > found.losses.without + 1
    assert (found.token, found.written, found.tested) == (None, None, "<bos>")
    assert "so it is left out" in found.reason


@pytest.mark.parametrize(("adds", "token"), [(True, 0), (False, None)])
def test_where_the_loss_does_not_tell_the_tokenizer_does(adds: bool, token: int | None, tmp_path: Path) -> None:
    found = _decided(begun(tmp_path, None, byte_tokenizer("<bos>", adds=adds)))
    assert found.losses is not None
    assert found.losses.with_token == pytest.approx(found.losses.without, abs=1e-4)
    assert found.token == token
    assert "as good as equal: as the tokenizer on its own, which adds " + ("<bos>" if adds else "none") in found.reason


@pytest.mark.parametrize(
    ("family", "bos", "adds", "who"),
    [
        ("gpt2", "<|endoftext|>", False, "GPT-2"),
        ("gpt-neox", "<|endoftext|>", False, "Pythia"),
        ("phi", "<|endoftext|>", False, "Phi-2"),
        ("llama", "<s>", True, "LLaMA"),
        ("gemma", "<bos>", True, "Gemma"),
    ],
)
def test_the_papers_models_begin_as_the_paper_has_it(
    family: str, bos: str, adds: bool, who: str, tmp_path: Path
) -> None:
    files = build(family, tmp_path)
    byte_tokenizer(bos, adds=adds).save_pretrained(files.folder)
    found = _decided(files)
    assert (found.token, found.written) == (0, bos)
    assert who in found.reason
    assert found.losses is not None, "the losses are told all the same"


def test_a_preset_is_for_the_family_with_its_own_tokenizer(tmp_path: Path) -> None:
    """SmolLM2 has LLaMA's architecture, and neither its tokenizer nor its habit."""
    files = begun(tmp_path, "Z", byte_tokenizer("<|im_start|>", "<|im_end|>", more=("<|endoftext|>",)))
    assert _decided(files).token is None
    byte_tokenizer("<s>", adds=True).save_pretrained(files.folder)
    assert _decided(files).token == 0
    byte_tokenizer("<s>", adds=False).save_pretrained(files.folder)
    assert _decided(files).token is None, "a LLaMA whose tokenizer adds nothing is measured"


def test_what_is_asked_for_is_done_and_warned_of(tmp_path: Path) -> None:
    files = begun(tmp_path, "Z")
    always, never = _decided(files, "always"), _decided(files, "never")
    assert (always.token, never.token) == (0, None)
    assert always.losses == never.losses
    assert "with <s> before each sequence" in always.warnings[0]
    assert "--bos auto" in always.warnings[0]
    assert not any("worse than it could be" in warning for warning in never.warnings)
    helped = begun(tmp_path / "other", "e")
    assert "without <s> before each sequence" in _decided(helped, "never").warnings[0]
    assert not any("worse than it could be" in warning for warning in _decided(helped, "always").warnings)


def test_a_token_is_named_by_text_or_number(tmp_path: Path) -> None:
    files = begun(tmp_path, None, byte_tokenizer(more=("<|endoftext|>",)))
    model = _loaded(files)
    assert [token_called(model, name) for name in ("<|endoftext|>", "258", "a", "\n", "</s>")] == [
        258, 258, model.encode("a")[0], model.encode("\n")[0], 1,
    ]  # fmt: skip
    found = decide(model, "<|endoftext|>", _text(model))
    assert (found.token, found.written, found.policy) == (258, "<|endoftext|>", "<|endoftext|>")
    assert found.uncounted(model.uncounted) == {0, 1, 258}
    newline = decide(model, "\n", _text(model))
    assert newline.uncounted(model.uncounted) == {0, 1, model.encode("\n")[0]}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("<|bos|>", "is 7 tokens of its vocabulary"),
        ("", "is no token"),
        ("259", "the tokens of llama are 0 to 258"),
        ("9" * 5000, "the tokens of llama are 0 to 258"),
        ("-1", "is 2 tokens"),
        ("٣", "is 2 tokens"),
    ],
)
def test_what_is_no_token_gets_a_sentence(asked: str, sentence: str, tmp_path: Path) -> None:
    model = _loaded(begun(tmp_path, None, byte_tokenizer(more=("<|endoftext|>",))))
    with pytest.raises(BadConfig, match=sentence) as refused:
        token_called(model, asked)
    assert "--bos" in str(refused.value)
    assert len(str(refused.value)) < 300


def _without_bos() -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = None
    return tokenizer


def test_always_needs_a_token_that_the_tokenizer_names(tmp_path: Path) -> None:
    files = begun(tmp_path, None, _without_bos())
    assert _loaded(files).bos is None, "nor does the bridge make one up"
    with pytest.raises(BadConfig, match="names no BOS token"):
        _decided(files, "always")
    found = _decided(files)
    assert found.token is None
    assert found.reason == "the tokenizer names no token to begin with"
    assert found.losses is not None
    assert found.losses.with_token is None
    assert _decided(files, "<s>").token == 0


@pytest.mark.parametrize(("adds", "token"), [(True, 0), (False, None)])
def test_what_the_tokenizer_does_is_taken_where_nothing_is_measured(
    adds: bool, token: int | None, tmp_path: Path
) -> None:
    model = _loaded(begun(tmp_path, None, byte_tokenizer(adds=adds)))
    assert model.prepended == token
    assert habit(model).token == token
    assert "no run of the model" in habit(model).reason
    short = decide(model, "auto", torch.zeros(0, LENGTH, dtype=torch.long))
    assert (short.token, short.losses, short.warnings) == (token, None, [])


def test_losses_are_the_original_models_over_the_same_tokens(
    tiny_model: Models, tiny_files: Callable[[str], ModelFiles]
) -> None:
    model, reference = tiny_model("llama"), Reference(str(tiny_files("llama").folder), FAMILIES["llama"])
    text = _text(model, "Some words, and then others: 12 lamps in all. " * 9)
    assert model.separator is not None
    text[1, 12] = model.separator
    found = measure(model, text, 0)
    with_bos, without = [], []
    for row in text.tolist():
        whole, bare = (reference.plain(torch.tensor(tokens)).loss.tolist() for tokens in ([0, *row], row))
        for place in range(5, LENGTH):
            if not {row[place], row[place - 1]} & model.uncounted:
                with_bos.append(whole[place])
                without.append(bare[place - 1])
    assert found is not None
    assert found.tokens == len(with_bos) == len(text) * (LENGTH - 5) - 2
    assert found.with_token == pytest.approx(sum(with_bos) / len(with_bos), abs=1e-5)
    assert found.without == pytest.approx(sum(without) / len(without), abs=1e-5)


def test_frequencies_predict_each_token_from_the_others() -> None:
    tokens, vocabulary = [3, 3, 3, 3, 7, 7, 1, 2], 10
    counts, expected = Counter(tokens), 0.0
    for token in tokens:
        others = counts[token] - 1
        new = (
            2 / 8
        )  # tokens that occur once, of all; six of the vocabulary occur never, and each once-token is a seventh
        p = (1 - new) * others / 7 if others else new / 7
        expected -= math.log(p) / 8
    assert loss_by_frequency(torch.tensor(tokens), vocabulary) == pytest.approx(expected)
    assert loss_by_frequency(torch.tensor([4]), vocabulary) == pytest.approx(math.log(vocabulary))
    assert loss_by_frequency(torch.arange(10), vocabulary) == pytest.approx(math.log(1))
    assert loss_by_frequency(torch.full((50,), 4), vocabulary) == pytest.approx(0)


@pytest.mark.parametrize(("loss", "warned"), [(3.9, False), (5.0, True), (12.6, True), (math.nan, True)])
def test_a_loss_no_better_than_frequencies_is_warned_of(loss: float, warned: bool) -> None:
    found = Beginning(None, "auto", "for a test", None, "<s>", Losses(100, loss, loss, 5.0))
    assert [("is not itself" in warning) for warning in found.warnings] == [True] * warned


@pytest.mark.parametrize(
    ("tokenizer", "separator"),
    [
        (byte_tokenizer(), 1),
        (byte_tokenizer("<|im_start|>", "<|im_end|>", more=("<|endoftext|>",)), 258),
        (byte_tokenizer("<|begin_of_text|>", "<|eot_id|>", more=("<|end_of_text|>",)), 258),
        (byte_tokenizer("<bos>", "<eos>", more=("<|endoftext|>",)), 1),
        (byte_tokenizer("<|im_start|>", "<|im_end|>"), 1),
    ],
    ids=["its own EOS", "a chat's", "LLaMA 3's", "Gemma's before another name", "none by name"],
)
def test_documents_are_separated_as_in_training(tokenizer: Any, separator: int, tmp_path: Path) -> None:
    model = _loaded(begun(tmp_path, None, tokenizer))
    assert model.separator == separator
    assert model.ends == {1, separator}
    assert model.uncounted == {0, 1, separator}


def test_a_word_that_looks_like_a_separator_is_none(tmp_path: Path) -> None:
    """Gemma's vocabulary has HTML tags, `</s>` among them, as ordinary tokens."""
    tokenizer = byte_tokenizer("<|im_start|>", "<|im_end|>")
    tokenizer.add_tokens(["</s>"])
    model = _loaded(begun(tmp_path, None, tokenizer))
    assert "</s>" in model.tokenizer.get_vocab()
    assert model.separator == 1


def test_a_gguf_file_is_asked_likewise(tmp_path: Path) -> None:
    llama = build("llama", tmp_path)
    model = _loaded(find_model(str(write_gguf(llama, tmp_path / "tiny.gguf")), tmp_path / "cache", print))
    assert (model.bos, model.prepended, model.separator) == (0, None, 1)
    found = decide(model, "auto", _text(model))
    assert found.losses is not None
    assert found.tested == "<s>"
