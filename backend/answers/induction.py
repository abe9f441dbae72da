"""From an induction experiment's results to what the wire says."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from backend import schemas
from backend.answers.runs import expert_layout
from backend.core.induction.attribution import Attribution
from backend.core.induction.clipping import ClippedTokens, Clipping, ClippingAfter
from backend.core.induction.experiment import Experiment, Plan, Progress
from backend.core.induction.heads import Knockout, ScoredHeads
from backend.core.induction.readings import ActivationChange, AfterOccurrences, Curves, OccurrenceMeans
from backend.core.induction.text import Repeats, RepeatSpec, Source, find_repeats
from backend.core.metrics.induction import Mean
from backend.core.metrics.loss_position import at_predicted_token
from backend.core.models.analysis_model import AnalysisModel
from backend.core.neurons import HeadId, NeuronId

Result = (
    schemas.InductionCurves
    | schemas.InductionClip
    | schemas.InductionChange
    | schemas.InductionHeads
    | schemas.InductionKnockout
    | schemas.InductionAttribution
)


Event = schemas.InductionStart | schemas.InductionProgress | Result


def experiment_events(model: AnalysisModel, spec: RepeatSpec, plan: Plan) -> Iterator[Event]:
    """What an experiment says: a start, progress, and each part when it is measured. The text is found, and the plan
    checked, before the first is asked for.

    Raises:
        BadText, BadNeuron: nothing repeats, or the plan does not fit the model.
    """
    repeats, summary = find_repeats(model, spec)
    experiment = Experiment(model, repeats, plan, spec.bos(model))
    answers = InductionAnswers(model, repeats, plan.neurons)

    def events() -> Iterator[Event]:
        yield answers.start(spec.source, plan.summary(summary))
        for measured in experiment.steps():
            yield _progress(measured) if isinstance(measured, Progress) else answers.event(measured)

    return events()


def _progress(measured: Progress) -> schemas.InductionProgress:
    return schemas.InductionProgress(done=measured.done, of=measured.of, doing=measured.doing)


class InductionAnswers:
    """Says one experiment's results; used where the model is, since a tokenizer serves one thread."""

    def __init__(self, model: AnalysisModel, repeats: Repeats, neurons: Sequence[NeuronId]) -> None:
        self._model, self._repeats = model, repeats
        self._neurons = [str(neuron) for neuron in neurons]

    def start(self, source: Source, summary: str) -> schemas.InductionStart:
        return schemas.InductionStart(
            source=source,
            layer=self._model.last_layer,
            sequences=len(self._repeats.tokens),
            span=self._repeats.span,
            repeats=len(self._repeats.first),
            neurons=self._neurons,
            summary=summary,
            error_groups=len(set(self._repeats.groups.tolist())),
        )

    def event(self, result: object) -> Result:
        """
        Raises:
            TypeError: nothing that an experiment yields.
        """
        match result:
            case Curves():
                return self._curves(result)
            case Clipping():
                return self._clip(result)
            case ActivationChange(change):
                return schemas.InductionChange(
                    layer=self._model.last_layer,
                    experts=expert_layout(self._model.experts),
                    change=change.mean.tolist(),
                    se=_numbers(change.se),
                )
            case ScoredHeads():
                return _heads(result)
            case Knockout():
                return schemas.InductionKnockout(
                    how=result.group.kind,
                    knocked_out_at=result.positions,
                    heads=[str(head) for head in result.group.heads],
                    role=result.group.role,
                    activations=self._by_neuron(result.activations),
                    loss=_curve(result.loss),
                    entropy=_curve(result.entropy),
                    second=self._over(result.second),
                    difference=self._over(result.difference),
                    left=self._estimates(result.left),
                )
            case Attribution():
                return self._attribution(result)
        raise TypeError(f"no event for {type(result).__name__}")

    def _curves(self, curves: Curves) -> schemas.InductionCurves:
        return schemas.InductionCurves(
            loss=_curve(curves.loss),
            entropy=_curve(curves.entropy),
            activations=self._by_neuron(curves.activations),
            reference_means=dict(zip(self._neurons, _numbers(curves.references), strict=True)),
            samples=[self._sample(sample.sequence, sample.loss) for sample in curves.examples],
            after=None if curves.after is None else self._after(curves.after),
            first=self._over(curves.first),
            second=self._over(curves.second),
            change=self._over(curves.change),
        )

    def _over(self, means: OccurrenceMeans) -> schemas.OverOccurrence:
        return schemas.OverOccurrence(
            loss=_estimate(means.loss),
            entropy=_estimate(means.entropy),
            activations=self._estimates(means.activations),
        )

    def _estimates(self, mean: Mean) -> dict[str, schemas.Estimate]:
        """From means by neuron, [neurons]."""
        pairs = zip(mean.mean, mean.se, strict=True)
        return {name: _estimate(Mean(*pair)) for name, pair in zip(self._neurons, pairs, strict=True)}

    def _after(self, after: AfterOccurrences) -> schemas.AfterRepeat:
        return schemas.AfterRepeat(
            loss=_curve(after.loss),
            entropy=_curve(after.entropy),
            activations=self._by_neuron(after.activations),
        )

    def _sample(self, sequence: int, loss: Tensor) -> schemas.RepeatedText:
        repeats = self._repeats
        of_sequence = repeats.sequence == sequence

        def ranges(places: Tensor) -> list[tuple[int, int]]:
            lengths = repeats.valid[of_sequence].sum(dim=1).tolist()
            starts = places[of_sequence, 0].tolist()
            return [(start, start + length) for start, length in zip(starts, lengths, strict=True)]

        return schemas.RepeatedText(
            tokens=self._model.token_strings(repeats.tokens[sequence].tolist()),
            first=ranges(repeats.first),
            second=ranges(repeats.second),
            loss=at_predicted_token(_numbers(loss), len(loss)),
        )

    def _clip(self, clip: Clipping) -> schemas.InductionClip:
        return schemas.InductionClip(
            neuron=str(self._model.neuron(self._model.last_layer, clip.neuron)),
            reference=clip.reference,
            loss=_curve(clip.loss),
            entropy=_curve(clip.entropy),
            delta_loss=_curve(clip.delta_loss),
            delta_entropy=_curve(clip.delta_entropy),
            percent=_curve(clip.percent),
            points=self._points(clip.tokens),
            after=None if clip.after is None else _clipped(clip.after),
            totals=schemas.ClipTotals(**{name: _estimate(mean) for name, mean in vars(clip.totals).items()}),
        )

    def _points(self, points: ClippedTokens) -> list[schemas.ClipPoint]:
        numbers = (points.loss, points.delta_loss, points.delta_entropy, points.reciprocal_rank)
        words = [self._model.token_strings(ids.tolist()) for ids in (points.token, points.target)]
        return [
            schemas.ClipPoint(
                loss=loss,
                delta_loss=delta_loss,
                delta_entropy=delta_entropy,
                reciprocal_rank=reciprocal_rank,
                token=token,
                target=target,
                source=source,
            )
            for source, loss, delta_loss, delta_entropy, reciprocal_rank, token, target in zip(
                points.source.tolist(), *(column.tolist() for column in numbers), *words, strict=True
            )
        ]

    def _attribution(self, attribution: Attribution) -> schemas.InductionAttribution:
        def by_neuron(values: Tensor) -> dict[str, list[float]]:
            return dict(zip(self._neurons, values.T.tolist(), strict=True))

        parts = attribution.components
        scores = [float(attribution.scores[c.layer, c.index]) if isinstance(c, HeadId) else None for c in parts]
        return schemas.InductionAttribution(
            reads=attribution.reads,
            components=[str(component) for component in parts],
            prefix_matching=scores,
            induction=by_neuron(attribution.induction),
            corrupted=by_neuron(attribution.corrupted),
            difference_se={
                name: _numbers(errors) for name, errors in zip(self._neurons, attribution.difference_se.T, strict=True)
            },
        )

    def _by_neuron(self, activations: Mean) -> dict[str, schemas.Curve]:
        """From means [positions, neurons]."""
        columns = zip(self._neurons, activations.mean.T, activations.se.T, strict=True)
        return {name: _curve(Mean(mean, se)) for name, mean, se in columns}


def _heads(heads: ScoredHeads) -> schemas.InductionHeads:
    return schemas.InductionHeads(
        prefix_matching=heads.prefix_matching.mean.tolist(),
        bos_attention=heads.bos_attention.mean.tolist(),
        prefix_matching_se=[_numbers(row) for row in heads.prefix_matching.se],
        bos_attention_se=[_numbers(row) for row in heads.bos_attention.se],
        chosen=[str(head) for head in heads.chosen],
        baselines=[str(head) for head in heads.baselines],
        sequences=heads.sequences,
    )


def _clipped(clipping: ClippingAfter) -> schemas.ClippedAfter:
    return schemas.ClippedAfter(
        loss=_curve(clipping.loss),
        entropy=_curve(clipping.entropy),
        delta_loss=_curve(clipping.delta_loss),
        delta_entropy=_curve(clipping.delta_entropy),
        percent=_curve(clipping.percent),
    )


def _curve(mean: Mean) -> schemas.Curve:
    return schemas.Curve(mean=_numbers(mean.mean), se=_numbers(mean.se))


def _estimate(mean: Mean) -> schemas.Estimate:
    (value,), (se,) = _numbers(mean.mean[None]), _numbers(mean.se[None])
    return schemas.Estimate(value=value, se=se)


def _numbers(values: Tensor) -> list[float | None]:
    values = values.double()
    return [value if known else None for value, known in zip(values.tolist(), values.isfinite().tolist(), strict=True)]
