"""The paper's eight models, each with the settings that it was measured with (Appendix D and the authors' code).

All were measured on sequences of 256 tokens of the first documents of C4, each beginning with the tokenizer's BOS, with
k of the null space as in §3.3, §3.4 and Appendix F. Counts of tokens are the authors' own files, fetched from their
repository at one commit and used only where their SHA-256 is the one written here. A model's weights may be replaced by
others under the same settings, which is how these are tested where no hub can be reached.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.core.errors import BadConfig, ChecksumMismatch, SourceError, first_line
from backend.core.models.beginning import ALWAYS
from backend.core.models.downloads import Say, cannot_write, sha256_of
from precompute.config import FrequencySource, PresetUse, RunConfig

CORPUS = "stas/c4-en-10k"
SEQ_LEN = 256
_COUNTS = "https://raw.githubusercontent.com/bpwu1/confidence-regulation-neurons/66e01793ad543590a3c4b554a470635213712dec/datasets/"
_MOST_BYTES = 1 << 24
_SECONDS = 60.0


@dataclass(frozen=True)
class PublishedCounts:
    """Counts of tokens by id, as the paper's authors published them."""

    described: str
    file: str
    sha256: str

    def fetched(self, cache: Path, say: Say) -> Path:
        """The file's path under `cache`, fetched first if it is not there whole.

        Raises:
            SourceError: it cannot be fetched, or nothing can be kept there.
            ChecksumMismatch: what was fetched is another file.
        """
        target = cache / "counts" / self.file
        try:
            if not target.is_file() or sha256_of(target) != self.sha256:
                self._fetch(target, say)
        except OSError as error:
            raise cannot_write(target.parent, error) from error
        return target

    def _fetch(self, target: Path, say: Say) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        say(f"Fetching {self.described} (once) …")
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            part.write_bytes(_content(_COUNTS + self.file))
            if sha256_of(part) != self.sha256:
                raise ChecksumMismatch(self.file, self.sha256, sha256_of(part))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _content(address: str) -> bytes:
    import httpx

    parts, size = [], 0
    try:
        with httpx.stream("GET", address, timeout=_SECONDS, follow_redirects=True) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > _MOST_BYTES:
                    raise SourceError(f"{address} is larger than {_MOST_BYTES >> 20} MB: it is not the file of counts.")
    except httpx.HTTPError as error:
        raise SourceError(
            f"{address} could not be fetched ({first_line(error)}). Check the network, or give token frequencies "
            "beside the preset: --counts FILE, or --frequency model."
        ) from error
    return b"".join(parts)


_GPT2_COUNTS = PublishedCounts(
    "the authors' token counts of OpenWebText (2,000,000 rows)",
    "gpt2-small-unigrams_openwebtext-2M_rows_500000.npy",
    "fa9039d6a5acced4b2c5dc9b6f55862574e4d13002b1246b19b55bec1518c9ef",
)
_PYTHIA_COUNTS = PublishedCounts(
    "the authors' token counts of the Pile",
    "pythia-unigrams.npy",
    "76e5945bc51540b823f5dbd26bda082995f9beb4334b2c315f9da637f0fa3a8f",
)
_PHI_COUNTS = PublishedCounts(
    "the authors' token counts of C4's validation part",
    "phi-2-unigrams_c4_en_validation.npy",
    "d6edcf022e6b955c6b7e890a33be81975ec8000fda49f0b8a3ae4505715191e3",
)


@dataclass(frozen=True)
class PaperModel:
    """A model of the paper, and what is particular in how it was measured."""

    title: str
    repository: str
    """On the Hugging Face hub."""
    gigabytes: float
    """Of its weights in float32, which is how they are loaded."""
    sequences: int
    counts: PublishedCounts | None
    """None where the paper uses none: the model's own mean prediction takes their place."""
    null_dim: int | None = None
    """k of the null space; None for 1 % of d_model."""
    is_gated: bool = False
    """Whether its terms must be accepted on the hub before it can be fetched."""
    note: str = ""
    """What the paper leaves open, and what is done here instead; a sentence, or empty."""

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of a run's configuration, but for the file of counts."""
        frequency: FrequencySource = "model" if self.counts is None else "counts"
        return {
            "model": self.repository,
            "dataset": CORPUS,
            "sequences": self.sequences,
            "seq_len": SEQ_LEN,
            "null_dim": self.null_dim,
            "bos": ALWAYS,
            "frequency": frequency,
        }


_SPECTRUM_ALONE = "The paper shows the singular values of its W_U alone; the rest is as for Pythia 410M."
PAPER_MODELS: Mapping[str, PaperModel] = {
    "gpt2-small": PaperModel("GPT-2 Small", "openai-community/gpt2", 0.5, 100, _GPT2_COUNTS, null_dim=12),
    "gpt2-medium": PaperModel("GPT-2 Medium", "openai-community/gpt2-medium", 1.4, 50, _GPT2_COUNTS),
    "pythia-160m": PaperModel(
        "Pythia 160M", "EleutherAI/pythia-160m", 0.6, 100, _PYTHIA_COUNTS, note=_SPECTRUM_ALONE
    ),
    "pythia-160m-dropout": PaperModel(
        "Pythia 160M trained with dropout", "EleutherAI/pythia-160m-hiddendropout", 0.6, 100, _PYTHIA_COUNTS,
        note=f"Figure 6's second model, which the paper does not name: the published one whose residual stream had "
        f"dropout. {_SPECTRUM_ALONE}",
    ),
    "pythia-410m": PaperModel("Pythia 410M", "EleutherAI/pythia-410m", 1.6, 100, _PYTHIA_COUNTS),
    "pythia-1b": PaperModel(
        "Pythia 1B", "EleutherAI/pythia-1b", 4.0, 100, _PYTHIA_COUNTS,
        note="Appendix D does not say how many sequences: as many as for Pythia 410M.",
    ),
    "phi-2": PaperModel("Phi-2", "microsoft/phi-2", 11.1, 50, _PHI_COUNTS),
    "gemma-2b": PaperModel("Gemma 2B", "google/gemma-2b", 10.0, 30, None, is_gated=True),
    "llama-2-7b": PaperModel(
        "LLaMA-2 7B", "meta-llama/Llama-2-7b-hf", 27.0, 30, None, null_dim=40, is_gated=True,
    ),
}  # fmt: skip
"""By the names that --preset takes. Pythia 160M counts once: with and without dropout, for Figure 6."""
_OPTIONS = {"sequences": "--sequences", "seq_len": "--seq-len", "null_dim": "--null-dim", "dataset": "--dataset",
            "model": "--model", "bos": "--bos", "frequency": "--frequency", "counts": "--counts"}  # fmt: skip


def paper_model(name: str) -> PaperModel:
    """A preset by its name.

    Raises:
        BadConfig: there is none of that name.
    """
    try:
        return PAPER_MODELS[name]
    except KeyError:
        raise BadConfig(f"There is no preset {name!r}: there are {', '.join(PAPER_MODELS)}.") from None


def preset_config(name: str, given: Mapping[str, Any], cache: Path, say: Say) -> RunConfig:
    """The run that a preset describes, with what is given beside it in its place.

    Args:
        given: fields of the configuration; a preset's own stand where they are not there.
        cache: where published counts are kept.

    Raises:
        BadConfig: there is no such preset.
        SourceError: it names a gated model and there is no token, or its counts cannot be fetched; nothing is fetched
            before the first is known.
    """
    preset = paper_model(name)
    if "model" not in given and preset.is_gated:
        _require_token(name, preset, cache)
    chosen = {**preset.settings, **given}
    if "counts" in given:
        chosen["frequency"] = "counts"
    elif chosen["frequency"] == "counts" and preset.counts is not None:
        chosen["counts"] = str(preset.counts.fetched(cache, say))
    return RunConfig(**chosen, preset=PresetUse(name, preset.title, preset.note, _beside(preset, given)))


def _beside(preset: PaperModel, given: Mapping[str, Any]) -> dict[str, str]:
    """What was given beside a preset, in words; a path is cut to its last part."""
    own = preset.settings | {"counts": None if preset.counts is None else preset.counts.file}
    changed = {field: value for field, value in given.items() if field in _OPTIONS and value != own.get(field)}
    return {_OPTIONS[field]: _change(_shown(value), _own(own, field)) for field, value in changed.items()}


def _own(own: Mapping[str, Any], field: str) -> str:
    if own.get(field) is None:
        return "1 % of d_model" if field == "null_dim" else "none"
    return str(own[field])


def _change(given: str, own: str) -> str:
    return f"{given} (the preset has {own})"


def _shown(value: Any) -> str:
    text = str(value)
    return Path(text).name if text.startswith(("/", "~", ".")) or text.endswith(".npy") else text


def _require_token(name: str, preset: PaperModel, cache: Path) -> None:
    from huggingface_hub import get_token, try_to_load_from_cache

    is_here = isinstance(try_to_load_from_cache(preset.repository, "config.json", cache_dir=cache / "hub"), str)
    if not is_here and not get_token():
        raise SourceError(
            f"The preset {name} needs {preset.repository}, which is gated: accept its terms at "
            f"https://huggingface.co/{preset.repository} and set HF_TOKEN to a token of yours. Nothing was fetched. "
            "Other weights can be measured under its settings with --model beside it."
        )
