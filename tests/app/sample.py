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
        "created_at": datetime.now(UTC), "finished_at": None, "revision": "4",
        "weights_hash": "0" * 64, "config": {}, "versions": {},
        "mode": "exact", "tolerance_nats": 3e-6, "card": card(), "error_groups": 4,
    }  # fmt: skip
    return schemas.RunSummary(**(fields | changes))


def card(**changes: object) -> schemas.RunCard:
    """What that run measured, or with the given changes."""
    checkpoint = schemas.CardCheckpoint(
        name="Tiny-Instruct (Q4_1)", described="Tiny-Instruct, Q4_1 (4-bit) dequantised to float32", asked="tiny",
        origin="packaged", architecture="T", requirement="llm-tiny==1.0", file="Tiny.Q4_1.gguf", file_sha256="1" * 64,
        quantisation="Q4_1", repository=None, commit=None, licence="Apache-2.0", weights_hash="0" * 64,
    )  # fmt: skip
    corpus = schemas.CardCorpus(
        name="words", origin="packaged", requirement="words==2.0", file_sha256="2" * 64, split=None, field=None,
        documents_read=7, sample_sha256="3" * 64, licence="MIT",
    )  # fmt: skip
    precision = schemas.CardPrecision(neurons=16, tokens=16, total=6.2e-6, frozen=5e-6, frequency_held=None)
    computation = schemas.CardComputation(
        dtype="float32", device="CPU, 2 threads", kernel="moment series", kernel_reason="CPU", bound=3e-6,
        precision=precision, also_on=[],
    )  # fmt: skip
    fields: dict[str, object] = {
        "warnings": [], "checkpoint": checkpoint, "corpus": corpus, "computation": computation,
        "tokens": schemas.CardTokens(
            sequences=4, seq_len=16, sampled=64, counted=46, early=12, without_target=4, special=2
        ),
        "bos": schemas.CardSection(short="no BOS", facts={"policy": "auto", "prepended": False, "mean loss": 3.25}),
        "null_space": schemas.CardNullSpace(k=2, rule="1 % of d_model = 8, at least 1"),
        "self_check": schemas.CardSelfCheck(
            tokens=24, log_probs=3e-5, log_probs_allowed=5e-3, mlp_output=2e-7, norm_scale=None, logits=1e-7,
            relative_allowed=1e-3,
        ),
        "platform": "Linux x86_64",
    }  # fmt: skip
    return schemas.RunCard.model_validate(fields | changes)


def columns(names: list[str], *, measured: bool = True) -> schemas.NeuronColumns:
    """All neurons; neuron 7 is an entropy neuron, 5 has the paper's mark, 9 has no value, 11 a zero."""
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
        neuron=[f"29.{i}" for i in range(COUNT)],
        neuron_class=classes,
        columns=values,
        effect_tokens=50,
        revision="4",
        paper_criterion=[i == 5 for i in range(COUNT)],
    )


def detail(**changes: object) -> schemas.NeuronDetail:
    """Neuron 29.7."""
    row = schemas.MeasuredNeuron(
        neuron="29.7", layer=29, index=7, neuron_class="entropy", effect_tokens=50,
        metrics=dict.fromkeys(METRIC_COLUMNS, 0.25),
    )  # fmt: skip
    percentiles: dict[str, float | None] = {metric.name: 97.5 for metric in METRICS}
    return schemas.NeuronDetail(
        run=run(**changes), row=row, percentiles=percentiles, class_reason="It has its reasons.", previous="29.6",
        next="29.8",
    )  # fmt: skip


def model() -> schemas.ModelSummary:
    """The only model."""
    return schemas.ModelSummary(
        id="tiny", name="Tiny", family="T", n_layers=30, d_model=8, d_mlp=COUNT, d_vocab=10, norm="RMSNorm",
        n_runs=1, latest_run=1,
    )  # fmt: skip


def comparison(
    first: schemas.RunSummary | None = None, second: schemas.RunSummary | None = None, **changes: object
) -> schemas.Comparison:
    """Runs 1 and 2 of the only model beside each other, in one changed neuron unlike, or with the given changes."""
    runs = first or run(), second or run(id=2, seed=1)
    one, other = (schemas.ComparedRun(run=each, model=model()) for each in runs)
    numbers: dict[str, object] = {
        "pairs": COUNT, "rank_correlation": 0.91, "low": 0.88, "high": 0.93, "noise_ceiling": 0.92, "median_a": 0.02,
        "median_b": 0.03, "mean_difference": 0.004, "mean_difference_error": 0.001, "larger_share": 0.55,
        "larger_share_error": 0.04,
    }  # fmt: skip
    exact = {"noise_ceiling": None, "mean_difference_error": None}
    metrics = [
        schemas.MetricAgreement.model_validate({"metric": one.name} | numbers | ({} if one.has_se else exact))
        for one in METRICS
    ]
    shared = schemas.SharedClass(
        name="entropy", in_a=3, in_b=2, in_both=2, expected=0.15, p_value=0.0038, both=["29.7", "29.8"],
        only_a=["29.9"], only_b=[],
    )  # fmt: skip
    changed = schemas.ChangedNeuron(
        neuron="29.7", class_a="entropy", class_b="plain", a=0.2, a_error=0.01, b=0.1, b_error=0.01, difference=-0.1,
        z=-7.07,
    )  # fmt: skip
    fields: dict[str, object] = {
        "a": one, "b": other, "corresponds": True, "reason": "Both runs are of one layer.", "related": True,
        "same_weights": False, "same_text": False, "metrics": metrics, "classes": [shared],
        "changes": schemas.Changes(metric="total_effect", by="z", line=5.2, beyond=1, rows=[changed]),
    }  # fmt: skip
    return schemas.Comparison(**(fields | changes))


def unmeasured() -> schemas.NeuronDetail:
    """Neuron 29.7 while its effects are not measured."""
    whole = detail(status="running", stage="effects", progress=0.3, tokens_counted=0)
    effects_of = {
        column for metric in METRICS if metric.stage == "effects" for column in (metric.name, f"{metric.name}_se")
    }
    known = {name: None if name in effects_of else value for name, value in whole.row.metrics.items()}
    row = whole.row.model_copy(update={"metrics": known, "effect_tokens": 0, "neuron_class": "plain"})
    percentiles = {name: None if name in effects_of else value for name, value in whole.percentiles.items()}
    return whole.model_copy(update={"row": row, "percentiles": percentiles})


def _values(shift: float = 0.0, size: int = len(TOKENS)) -> schemas.TokenValues:
    steps = [i % len(TOKENS) for i in range(size)]
    return schemas.TokenValues(
        loss=[None] + [1.0 + shift + i for i in steps[:-1]],
        entropy=[2.0 - shift + 0.1 * i for i in steps],
        rank=[None] + [1 + i for i in steps[:-1]],
        norm_scale=[10.0 + shift] * size,
        residual_norm=[240.0 + 24 * shift] * size,
    )


def _predictions(size: int = len(TOKENS)) -> list[list[schemas.Prediction]]:
    top = [schemas.Prediction(token_id=i, token=TOKENS[i], probability=0.5 / (i + 1)) for i in range(10)]
    return [top] * size


def _totals(mean: float) -> schemas.Totals:
    return schemas.Totals(mean_loss=mean, mean_entropy=2.0, perplexity=float(np.exp(mean)))


def trace(*, repeat: int = 1, **changes: object) -> schemas.TextTrace:
    """A traced text with hostile tokens, or many times that."""
    size = repeat * len(TOKENS)
    fields: dict[str, object] = {
        "id": "abc" if repeat == 1 else "long", "model": "tiny", "tokens": TOKENS * repeat,
        "token_ids": list(range(size)), "values": _values(size=size), "predictions": _predictions(size),
        "totals": _totals(3.0), "truncated": False,
    }  # fmt: skip
    return schemas.TextTrace(**(fields | changes))


def activations(neurons: list[str], *, repeat: int = 1) -> schemas.ActivationList:
    """Each neuron fires more and more along the text."""
    values = [0.1 * (i % len(TOKENS)) for i in range(repeat * len(TOKENS))]
    strips = [schemas.ActivationStrip(neuron=name, activations=values, reference_mean=0.2) for name in neurons]
    return schemas.ActivationList(strips=strips)


def ablation(text: str = "abc", *, repeat: int = 1) -> schemas.Ablation:
    """Neuron 29.7 set to its mean on that text."""
    size = repeat * len(TOKENS)

    def state(shift: float) -> schemas.AblatedState:
        return schemas.AblatedState(
            values=_values(shift, size), predictions=_predictions(size), totals=_totals(3.0 + shift),
            mean_abs_delta_loss=abs(shift), changed_predictions=0.1,
        )  # fmt: skip

    activations = {"29.7": [0.5] * size}
    return schemas.Ablation(
        text=text, reference="mean over words", activations_before=activations, activations_after=activations,
        before=_values(size=size), before_totals=_totals(3.0), total=state(0.4), frozen=state(0.1), ln_mediated=0.75,
        tokens=size - 1,
    )  # fmt: skip


def frequency_effects() -> schemas.TokenEffects:
    """Per-token effects of a run that measured token frequencies."""
    rng = np.random.default_rng(2)
    known = {
        "kl_before": (3 + rng.random(30)).tolist(), "delta_kl": rng.normal(size=30).tolist(),
        "delta_loss_freq": (0.1 * rng.normal(size=30)).tolist(), "background_freq": (0.5 * rng.random(200)).tolist(),
    }  # fmt: skip
    return effects().model_copy(update=known)


def positions(**changes: object) -> schemas.RunPositions:
    """Sampled positions with hostile tokens; the less sure, the closer to the token frequencies."""
    size = len(TOKENS)
    entropy = [0.5 * place for place in range(size)]
    fields: dict[str, object] = {
        "tokens": TOKENS, "targets": TOKENS[::-1], "loss": [1.0] * size, "entropy": entropy,
        "rank": [1, 2, 4, *[10] * (size - 3)], "kl": [9.0 - value for value in entropy], "correlation": -1.0,
        "rank_correlation": -1.0,
    }  # fmt: skip
    return schemas.RunPositions(**(fields | changes))


def frequencies(**changes: object) -> schemas.TokenFrequencies:
    """P_freq over the sample's tokens, from counts; two were never seen."""
    shares = [schemas.TokenShare(token_id=i, token=t, probability=0.5 / (i + 1)) for i, t in enumerate(TOKENS)]
    fields: dict[str, object] = {
        "source": "token counts in words.npy (1 is added to each count)", "counts_sha256": "a" * 64, "missing": None,
        "vocabulary": len(TOKENS), "entropy": 2.1, "most": shares[:5], "least": shares[:4:-1], "equally_rare": 2,
    }  # fmt: skip
    return schemas.TokenFrequencies(**(fields | changes))


def known_kl(values: schemas.TokenValues, shift: float = 0.0) -> schemas.TokenValues:
    """Values that also tell the distance from token frequencies."""
    return values.model_copy(update={"kl": [4.0 + shift + 0.1 * place for place in range(len(values.entropy))]})


def frequency_ablation() -> schemas.Ablation:
    """The sample's ablation where token frequencies are known."""
    whole = ablation()

    def state(state: schemas.AblatedState, shift: float) -> schemas.AblatedState:
        totals = state.totals.model_copy(update={"mean_kl": 4.5 + shift})
        return state.model_copy(update={"values": known_kl(state.values, shift), "totals": totals})

    known = {
        "before": known_kl(whole.before), "total": state(whole.total, -0.5), "frozen": state(whole.frozen, 0.25),
        "before_totals": whole.before_totals.model_copy(update={"mean_kl": 4.5}),
        "frequencies": "counted words (run 1)",
    }  # fmt: skip
    return whole.model_copy(update=known)


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
        clip_delta_loss=[
            change if n > 0 else 0.0 for n, change in zip(lists["activation"], lists["delta_loss"], strict=True)
        ],
    )  # fmt: skip


def histogram() -> schemas.Histogram:
    """Activations of neuron 29.7."""
    return schemas.Histogram(
        neuron="29.7", edges=[float(i) for i in range(-10, 11)], counts=[1 + 7 * i for i in range(20)], mean=1.5
    )


def spectrum() -> schemas.Spectrum:
    """Eight singular directions, two of them the null space that 29.7 writes to."""
    cosines = [0.1, 0.0, 0.1, 0.1, 0.0, 0.2, 0.6, 0.7]
    return schemas.Spectrum(singular_values=[90, 20, 15, 12, 10, 8, 1, 0.5], null_dim=2, neuron="29.7", cosines=cosines)


def logits() -> schemas.NeuronLogits:
    """What 29.7 promotes and suppresses: hostile tokens too."""
    top = [schemas.TokenWeight(token_id=i, token=token, value=0.5 - i / 20) for i, token in enumerate(TOKENS)]
    bottom = [schemas.TokenWeight(token_id=i, token=token, value=i / 20 - 0.5) for i, token in enumerate(TOKENS)]
    return schemas.NeuronLogits(neuron="29.7", top=top, bottom=bottom)


def contexts() -> schemas.ContextList:
    """One window a bucket."""
    size = len(TOKENS)
    buckets: tuple[schemas.Bucket, ...] = ("max", "q75", "median", "random", "min")
    values = _values()
    strips = [
        schemas.ContextStrip(
            id=place, bucket=bucket, tokens=TOKENS, token_ids=list(range(size)),
            activations=[float(i - 3) for i in range(size)], loss=values.loss, entropy=list(values.entropy),
            rank=values.rank, peak=size - 4.0, peak_position=size - 1,
        )
        for place, bucket in enumerate(buckets)
    ]  # fmt: skip
    return schemas.ContextList(neuron="29.7", contexts=strips)


def sweep(**changes: object) -> schemas.Sweep:
    """Two neurons at one token."""
    rows = [
        schemas.SweepRow(
            neuron=f"29.{index}", activation=1.5, total_effect=0.2, direct_effect_ln=0.1, ln_mediated=0.5,
            delta_loss=-0.2, delta_entropy=0.3, abs_delta_entropy=0.3, prediction_change=0.0,
        )
        for index in (7, 3)
    ]  # fmt: skip
    fields: dict[str, object] = {
        "text": "abc",
        "position": 1,
        "positions": 1,
        "reference": "mean over words",
        "rows": rows,
    }
    return schemas.Sweep(**(fields | changes))


def similar(**changes: object) -> schemas.SimilarNeurons:
    """Two neurons that write as 29.7 does; one of them also fires with it."""
    rows = [
        schemas.SimilarNeuron(
            neuron=f"29.{index}", neuron_class="prediction" if index == 3 else "plain", weight_cosine=cosine,
            activation_correlation=0.5 - cosine,
        )
        for index, cosine in ((3, 0.875), (5, -0.25))
    ]  # fmt: skip
    fields: dict[str, object] = {
        "neuron": "29.7", "by_weights": rows, "weights_missing": None, "by_activations": rows[1:],
        "activations_missing": None, "positions": 30,
    }  # fmt: skip
    return schemas.SimilarNeurons(**(fields | changes))


def context_ablation(**changes: object) -> schemas.ContextAblation:
    """A window without 29.7, which is lowered at two of its tokens."""
    size = len(TOKENS)
    before, after = _values(), _values(0.4)
    activations = [float(i - 3) for i in range(size)]
    fields: dict[str, object] = {
        "context": 0, "neuron": "29.7", "kind": "clip", "reference": "mean over words", "tokens": TOKENS,
        "activations_before": activations, "activations_after": [min(n, size - 6.0) for n in activations],
        "loss_before": before.loss, "loss_after": after.loss, "loss_frozen": _values(0.1).loss,
        "entropy_before": before.entropy, "entropy_after": after.entropy, "disagreement": 1e-6,
    }  # fmt: skip
    return schemas.ContextAblation(**(fields | changes))


def matches(query: str) -> schemas.TokenMatches:
    """Every token of the sample, whatever is asked."""
    tokens = [schemas.VocabularyToken(token_id=i, token=token) for i, token in enumerate(TOKENS)]
    return schemas.TokenMatches(query=query, tokens=tokens, total=len(tokens) + 1200)


def promoters(token_id: int = 4) -> schemas.Promoters:
    """Two neurons raise a token's logit, one lowers it."""
    push = [schemas.NeuronPush(neuron=f"29.{index}", value=value) for index, value in ((7, 2.5), (3, 0.5), (11, -1.5))]
    token = schemas.VocabularyToken(token_id=token_id, token=TOKENS[token_id])
    return schemas.Promoters(token=token, layer=29, promote=push[:2], suppress=push[2:])
