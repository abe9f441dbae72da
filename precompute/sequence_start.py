"""How the sequences of a run begin and what stands between its documents: decided before anything is measured."""

from typing import Any

import torch

from backend.atlas.records import Config
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.beginning import MEASURED_TOKENS, WHY, Beginning, decide
from backend.core.models.downloads import Say
from precompute.config import RunConfig
from precompute.corpus import Corpus, opening


def decided(config: RunConfig, corpus: Corpus, model: AnalysisModel, say: Say) -> Beginning:
    """As the run asks for it; `auto` measures the corpus's opening with and without a BOS.

    Raises:
        BadConfig: the model does not have the token that is asked for.
    """
    length = min(config.seq_len, model.max_tokens) - 1
    text = opening(corpus, model, MEASURED_TOKENS, length)
    decided = decide(model, config.bos, torch.from_numpy(text))
    before = "no BOS before a sequence" if decided.token is None else f"{decided.written} before each sequence"
    say(f"{before[0].upper()}{before[1:]}: {decided.reason}.")
    for warning in decided.warnings:
        say(f"WARNING: {warning}")
    return decided


def decisive(beginning: Beginning, model: AnalysisModel) -> Config:
    """What of it decides a run's result."""
    return {"bos_token": beginning.token, "separator_token": model.separator}


def separator_section(model: AnalysisModel) -> dict[str, Any]:
    """For a run's card: what stands between documents."""
    if model.separator is None:
        nothing = "the tokenizer names no token that ends a document"
        return {"short": "documents run on", "facts": {"Between documents": "nothing", WHY: nothing}}
    written = model.token_strings([model.separator])[0]
    why = "the token that separates documents in training, by its name"
    if model.separator == model.eos:
        why = "the tokenizer's end-of-sequence token"
    return {
        "short": f"documents end with {written}",
        "facts": {"Between documents": f"{written} (token {model.separator})", WHY: why},
    }
