"""Options that several commands take, and what they make together."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from backend.core.errors import BadConfig
from backend.settings import Settings, unusable

_MODEL = "A packaged model, a Hugging Face name, a model folder, or a .gguf file (see `models`); name@revision for one "
_MODEL += "of its checkpoints."
_DATASET = "A packaged corpus, a .txt, .jsonl or .parquet file, or a Hugging Face dataset."
_SEQUENCES, _SEQ_LEN = "Sequences to sample from the corpus.", "Tokens a sequence."
_BOS = (
    "What stands before each sequence: auto (a BOS or nothing, by the lower loss; else as the tokenizer "
    "does), always (the tokenizer's BOS), never, or a token: its text, or its number."
)
Model = Annotated[str, typer.Option(help=_MODEL)]
Dataset = Annotated[str, typer.Option(help=_DATASET)]
Sequences = Annotated[int, typer.Option(min=1, help=_SEQUENCES)]
SeqLen = Annotated[int, typer.Option(min=8, help=_SEQ_LEN)]
Seed = Annotated[int, typer.Option(help="Which sequences are drawn, and in which order positions are measured.")]
Bos = Annotated[str, typer.Option(help=_BOS)]
ModelOrPreset = Annotated[str | None, typer.Option(help=f"{_MODEL} [default: the preset's]")]
DatasetOrPreset = Annotated[str | None, typer.Option(help=f"{_DATASET} [default: the preset's, else lee-news]")]
SequencesOrPreset = Annotated[int | None, typer.Option(min=1, help=f"{_SEQUENCES} [default: the preset's, else 100]")]
SeqLenOrPreset = Annotated[int | None, typer.Option(min=8, help=f"{_SEQ_LEN} [default: the preset's, else 256]")]
BosOrPreset = Annotated[str | None, typer.Option(help=f"{_BOS} [default: the preset's, else auto]")]
NullDim = Annotated[
    int | None, typer.Option(min=1, help="Dimensions of the null space; 1 % of d_model unless given, or by a preset.")
]
Revision = Annotated[
    str | None,
    typer.Option(help="Which of the model's checkpoints: a branch, tag or commit of the hub, or a folder in its own."),
]
Split = Annotated[str, typer.Option(help="Split of a Hugging Face dataset.")]
Field = Annotated[str, typer.Option(help="Field that holds the text.")]
Memory = Annotated[str | None, typer.Option(help="Memory for the effects. [default: 4GB]")]


class Mode(StrEnum):
    """How effects are computed."""

    exact = "exact"
    survey = "survey"


class FrequencyOf(StrEnum):
    """Where token frequencies come from, where no file of counts is given."""

    model = "model"
    corpus = "corpus"


EffectsMode = Annotated[Mode, typer.Option(help="exact, or survey: faster, each token's effect within a stated bound.")]
Frequency = Annotated[
    FrequencyOf | None,
    typer.Option(help="Token frequencies: the model's mean prediction, or counts of the corpus."),
]
Counts = Annotated[str | None, typer.Option(help="An .npy file of token counts by token id, instead of --frequency.")]
DType = Annotated[
    str,
    typer.Option(
        help="Type of the weights: float32, bfloat16, float16, or auto (float32 where it fits, else as stored). "
        "Readout and statistics are float32 and float64 in any case."
    ),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda. [default: settings, else auto]")]
AtlasFile = Annotated[str | None, typer.Option(help="The atlas: a SQLite file, or a database URL. [default: settings]")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. [default: 8050]")]


def frequency_source(frequency: FrequencyOf | None, counts: str | None) -> Literal["model", "corpus", "counts"]:
    """Where token frequencies come from.

    Raises:
        BadConfig: both options say it.
    """
    if counts and frequency:
        raise BadConfig("--counts tells the token frequencies: leave --frequency out.")
    return "counts" if counts else "model" if frequency is None else frequency.value


def settings_of(**given: Any) -> Settings:
    """The settings with what a command line says of them; an option that was left out (None) changes nothing.

    Raises:
        BadConfig: a setting is unusable.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise BadConfig(unusable(error)) from None
