"""Answers of the service as the pages meet them: small, seeded, with hostile tokens."""

from datetime import UTC, datetime

import numpy as np

from backend import schemas
from backend.glossary import METRIC_COLUMNS, METRICS, NeuronClass

TOKENS = ["<s>", " The", " lamp", "\n", "<script>alert(1)</script>", " 🙂", "\u202e", " is", " lit", "."]
COUNT = 40


def run(**changes: object) -> schemas.RunSummary:
    """A finished run, or with the given changes."""
    fields: dict[str, object] = {
        "id": 1, "model": "tiny", "layer": 29, "corpus": "words", "status": "finished", "stage": "done",
        "progress": 1.0, "message": None, "sequences": 4, "seq_len": 16, "seed": 0, "null_dim": 2,
        "tokens_sampled": 64, "tokens_counted": 50, "tokens_total": 50, "mean_loss": 3.2, "mean_entropy": 2.9,
        "created_at": datetime.now(UTC), "finished_at": None, "weights_hash": "0" * 64, "config": {}, "versions": {},
    }  # fmt: skip
    return schemas.RunSummary(**(fields | changes))


def columns(names: list[str], *, measured: bool = True) -> schemas.NeuronColumns:
    """All neurons; neuron 7 is an entropy neuron, 9 has no value, 11 a zero."""
    rng = np.random.default_rng(0)
    values: dict[str, list[float | None]] = {}
    for name in names:
        column: list[float | None] = (0.01 + rng.random(COUNT)).tolist() if measured else [None] * COUNT
        if measured:
            column[9], column[11] = None, 0.0
        values[name] = column
    classes: list[NeuronClass] = ["plain"] * COUNT
    classes[7], classes[3] = "entropy", "prediction"
    return schemas.NeuronColumns(
        neuron=[f"29.{i}" for i in range(COUNT)], neuron_class=classes, columns=values, effect_tokens=50, revision="4"
    )


def detail(**changes: object) -> schemas.NeuronDetail:
    """Neuron 29.7."""
    row = schemas.NeuronRow(
        neuron="29.7", layer=29, index=7, neuron_class="entropy", effect_tokens=50,
        metrics=dict.fromkeys(METRIC_COLUMNS, 0.25),
    )  # fmt: skip
    percentiles: dict[str, float | None] = {metric.name: 97.5 for metric in METRICS}
    return schemas.NeuronDetail(
        run=run(**changes), row=row, percentiles=percentiles, class_reason="It has its reasons.", previous="29.6",
        next="29.8",
    )  # fmt: skip


def _values(shift: float = 0.0) -> schemas.TokenValues:
    size = len(TOKENS)
    return schemas.TokenValues(
        loss=[1.0 + shift + i for i in range(size - 1)] + [None],
        entropy=[2.0 - shift + 0.1 * i for i in range(size)],
        rank=[1 + i for i in range(size - 1)] + [None],
        norm_scale=[10.0 + shift] * size,
    )


def _predictions() -> list[list[schemas.Prediction]]:
    top = [schemas.Prediction(token_id=i, token=TOKENS[i], probability=0.5 / (i + 1)) for i in range(5)]
    return [top] * len(TOKENS)


def _totals(mean: float) -> schemas.Totals:
    return schemas.Totals(mean_loss=mean, mean_entropy=2.0, perplexity=float(np.exp(mean)))


def trace(**changes: object) -> schemas.TextTrace:
    """A traced text with hostile tokens."""
    fields: dict[str, object] = {
        "id": "abc", "model": "tiny", "tokens": TOKENS, "token_ids": list(range(len(TOKENS))), "values": _values(),
        "predictions": _predictions(), "totals": _totals(3.0), "truncated": False,
    }  # fmt: skip
    return schemas.TextTrace(**(fields | changes))


def ablation(text: str = "abc") -> schemas.Ablation:
    """Neuron 29.7 set to its mean on that text."""

    def state(shift: float) -> schemas.AblatedState:
        return schemas.AblatedState(
            values=_values(shift), predictions=_predictions(), totals=_totals(3.0 + shift), changed_predictions=0.1
        )

    activations = {"29.7": [0.5] * len(TOKENS)}
    return schemas.Ablation(
        text=text, reference="mean over words", activations_before=activations, activations_after=activations,
        before=_values(), before_totals=_totals(3.0), total=state(0.4), frozen=state(0.1), ln_mediated=0.75,
    )  # fmt: skip


def effects() -> schemas.TokenEffects:
    """Per-token effects of neuron 29.7."""
    rng = np.random.default_rng(1)
    size = 30
    lists = {
        name: rng.normal(size=size).tolist()
        for name in ("activation", "delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen")
    }
    return schemas.TokenEffects(
        neuron="29.7", tokens=["a"] * size, targets=["b"] * size, loss_before=[1.0] * size,
        entropy_before=[1.0] * size, rank_before=[1] * size, background_total=rng.random(200).tolist(),
        background_frozen=rng.random(200).tolist(), **lists,
    )  # fmt: skip
