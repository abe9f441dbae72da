"""The stages of a run: weights → activations → contexts → effects, in shards that commit whole or not at all.

Every stage publishes what it knows, so that an unfinished run is worth looking at: weight metrics within seconds, then
activations and contexts, then effects whose standard errors shrink as shards arrive. A killed run resumes where it
stopped; running a finished one again changes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from backend.atlas.records import ContextRecord
from backend.atlas.run_writer import RunIsFinished, RunTakenOver
from backend.atlas.store import Atlas
from backend.core.errors import UnsupportedModel
from backend.core.interventions.forward import ablate_each
from backend.core.kernels.choose import DEFAULT_MEMORY
from backend.core.kernels.engine import EffectsEngine, UnigramReadout
from backend.core.metrics import chance, weights
from backend.core.metrics.classes import ChanceLines, classify, paper_criterion
from backend.core.metrics.effects import Effects, EffectSums, TokenBatch
from backend.core.metrics.frequency import ReadDirection, Unigram
from backend.core.metrics.statistics import Moments
from backend.core.models.analysis_model import AnalysisModel
from backend.schemas import RunCard
from precompute import card, contexts
from precompute.capture import Capture, prepared
from precompute.config import HISTOGRAM_BINS, SHARD_TOKENS, SIMILAR_NEURONS, RunConfig
from precompute.directions import DirectTokens
from precompute.heartbeat import beating
from precompute.planning import plan_of
from precompute.progress import Reporter
from precompute.sample import GatheredPositions, KeptTraces, Measured, TracedShard, Traces
from precompute.token_effects import TokenEffectSample, most_kept
from precompute.workspace import working_folder

Columns = dict[str, NDArray[np.float64]]
_POSITIONS_AT_ONCE = 1024
"""Activations that are counted together: their float64 copies stay small beside the activations themselves."""


def run(
    config: RunConfig,
    atlas: Atlas,
    cache: Path,
    scratch: Path,
    reporter: Reporter,
    device: str = "auto",
    memory: int = DEFAULT_MEMORY,
) -> int:
    """Carry out a run, or what is left of it, and return its id in the atlas.

    Args:
        memory: bytes that the effects engine may take; changes no result beyond rounding.
        cache: where fetched models and corpora are kept.
        scratch: a folder for what unfinished runs must remember; a run's part of it is deleted when the run finishes.

    Raises:
        CalibroscopeError: with a sentence that says what to do; the run is marked as failed and resumes when run again.
    """
    model, capture = prepared(config, cache, reporter, device)

    @contextmanager
    def traces() -> Iterator[KeptTraces]:
        with working_folder(scratch, capture.fingerprint) as folder:
            yield Traces(model, capture.sample, folder, capture.layer, capture.fingerprint)

    return carry_out(capture, traces(), atlas, reporter, memory, model)


def carry_out(
    capture: Capture,
    traces: AbstractContextManager[KeptTraces],
    atlas: Atlas,
    reporter: Reporter,
    memory: int,
    model: AnalysisModel | None = None,
) -> int:
    """Carry out the run of a capture, or what is left of it, and return its id in the atlas.

    Args:
        model: for layers before the last, which run it on for each neuron.
    """
    plan = plan_of(capture)
    record = atlas.runs.begin(plan, reporter.say)
    if record.status == "finished":
        reporter.say(f"Run {record.id} is finished already: nothing to do.")
        return record.id
    card.went_on(atlas, record, RunCard.model_validate(plan.card))
    try:
        with beating(atlas, record.id), traces as traced:
            Run(record.id, capture, traced, atlas, reporter, memory, model).carry_out()
    except RunIsFinished:
        reporter.say(f"Run {record.id} has been finished by another process meanwhile.")
    except RunTakenOver:  # it is no longer this process's to mark as failed
        raise
    except Exception as error:
        atlas.runs.fail(record.id, f"{type(error).__name__}: {error}")
        raise
    return record.id


class Run:
    """One run being carried out: the stages, in order."""

    def __init__(
        self,
        run_id: int,
        capture: Capture,
        traces: KeptTraces,
        atlas: Atlas,
        reporter: Reporter,
        memory: int,
        model: AnalysisModel | None = None,
    ) -> None:
        self.id, self.capture, self.config, self.layer = run_id, capture, capture.config, capture.layer
        self.sample, self.readout, self.frequencies = capture.sample, capture.readout, capture.frequencies
        self.traces, self.atlas, self.reporter, self.memory, self.model = traces, atlas, reporter, memory, model
        self.device = self.readout.W_U.device
        self.columns: Columns = {}
        self.random = chance.RandomNeurons(len(self.readout.W_out), capture.sizes.d_model, self.readout.norm)

    def carry_out(self) -> None:
        with torch.no_grad():
            self.weights()
            means = self.activations()
            self.contexts()
            unigram = self.unigram()
            if self.capture.is_of_the_last_layer:
                self.effects(means, unigram)
            else:
                self.effects_by_forward(means, unigram)
        card.check_loss(self.atlas, self.id, self.reporter.say)
        self.atlas.runs.finish(self.id)

    def weights(self) -> None:
        """Weight metrics, spectrum, neighbours, and what each neuron does to the vocabulary. The metrics are always
        redone because the classes of later stages need the columns."""
        readout, layer = self.readout, self.layer
        self.reporter.stage("Weights", 1, 0, "")
        spectrum = weights.unembedding_spectrum(readout.W_U)
        null_dim = self.atlas.runs.get(self.id).null_dim
        self.columns = {
            "weight_norm": weights.weight_norm(readout.W_out).cpu().numpy(),
            "logit_var": weights.logit_var(readout.W_out, readout.W_U).cpu().numpy(),
            "null_fraction": weights.null_fraction(readout.W_out, spectrum.null_directions(null_dim)).numpy(),
        }
        self.chance = self._weight_lines(null_dim)
        if 0 not in self.atlas.runs.shards_done(self.id, "weights"):
            cosines = weights.direction_cosines(readout.W_out, spectrum).numpy().astype(np.float32)
            direct = DirectTokens.of(readout)
            neighbours = weights.similar_neurons(readout.W_out, SIMILAR_NEURONS)
            vocabulary = self.capture.strings(list(range(self.capture.sizes.d_vocab)))
            with self.atlas.runs.writing() as writer:
                writer.put_vocabulary(self.atlas.runs.get(self.id).model, vocabulary)
                writer.put_spectrum(self.id, spectrum.singular_values.numpy(), cosines)
                writer.put_logits(self.id, direct.top_ids, direct.top_values, direct.bottom_ids, direct.bottom_values)
                writer.put_logit_histograms(self.id, direct.edges, direct.counts)
                writer.put_similar(self.id, *(part.cpu().numpy() for part in neighbours))
                marks = paper_criterion(self.columns["weight_norm"], self.columns["logit_var"], self.chance).tolist()
                writer.set_neurons(self.id, layer, self.columns, classify(self.columns, self.chance, None), 0, marks)
                writer.add_shard(self.id, "weights", 0, {})
                writer.update_run(self.id, stage="activations", progress=0.02)
        self.reporter.advance(1)

    def _weight_lines(self, null_dim: int) -> ChanceLines:
        """The chance lines of the metrics that need no text."""
        low, high = chance.logit_var_lines(self.readout.W_U, self.random)
        rho = chance.null_fraction_line(null_dim, self.random)
        lines = ChanceLines(self.random.count, rho, logit_var_low=low, logit_var_high=high)
        with self.atlas.runs.writing() as writer:
            writer.update_run(self.id, chance=asdict(lines))
        return lines

    def activations(self) -> NDArray[np.float64]:
        """Moments of every neuron's activation over all positions; returns the reference means, [d_mlp]."""
        shards = self.sample.shards
        done = self.atlas.runs.shards_done(self.id, "activations")
        self.reporter.stage("Activations", len(shards), len(done), "shards")
        for index in range(len(shards)):
            if index in done:
                continue
            shard = self.traces[index]
            groups = np.repeat(self.sample.groups[shards[index]], self.config.seq_len)
            moments = Moments.of(shard.activations.flatten(0, 1).double().numpy(), groups, self.capture.model.experts)
            with self.atlas.runs.writing() as writer:
                writer.add_shard(self.id, "activations", index, moments.to_arrays())
                writer.update_run(
                    self.id,
                    stage="activations",
                    progress=0.02 + 0.13 * (index + 1) / len(shards),
                    tokens_sampled=min(index + 1, len(shards)) * shard.loss[0].numel() * len(shard.loss),
                )
            self.reporter.advance(1)
        parts = [Moments.from_arrays(arrays) for _, arrays in self.atlas.runs.shards(self.id, "activations")]
        moments = reduce(Moments.merged, parts)
        self.columns |= moments.columns()
        with self.atlas.runs.writing() as writer:
            writer.set_neurons(self.id, self.layer, moments.columns())
            writer.update_run(self.id, tokens_sampled=int(moments.count), error_groups=len(moments.by_group.groups))
        return moments.mean

    def contexts(self) -> None:
        """Histograms, and the contexts that show each neuron, in one transaction."""
        if 0 in self.atlas.runs.shards_done(self.id, "contexts"):
            return
        self.reporter.stage("Contexts", 1, 0, "")
        activations = torch.cat([shard.activations for shard in self._shards()]).numpy()
        shown = contexts.shown_positions(self.sample.tokens, self.sample.uncounted)
        places = contexts.windows(self.sample.tokens)
        edges, counts = _histograms(activations.reshape(-1, activations.shape[-1]))
        with self.atlas.runs.writing() as writer:
            writer.put_histograms(self.id, edges, counts)
            ids = writer.put_contexts(self.id, self._context_records(places))
            chosen = contexts.choose(activations, shown, places, ids, self.config.seed, self.capture.model.experts)
            writer.put_traces(self.id, chosen)
            writer.add_shard(self.id, "contexts", 0, {})
            writer.update_run(self.id, stage="effects", progress=0.2)
        self.reporter.advance(1)

    def _shards(self) -> Iterator[TracedShard]:
        return (self.traces[index] for index in range(len(self.traces)))

    def _context_records(self, places: list[tuple[int, slice]]) -> list[ContextRecord]:
        columns = zip(*((shard.loss, shard.entropy, shard.rank) for shard in self._shards()), strict=True)
        loss, entropy, rank = (torch.cat(column).numpy() for column in columns)
        last = self.config.seq_len - 1
        records = []
        for sequence, positions in places:
            ids = self.sample.tokens[sequence, positions].tolist()
            cut = slice(positions.start, min(positions.stop, last))  # the last token of a sequence has no target
            records.append(
                ContextRecord(
                    token_ids=ids,
                    tokens=self.capture.strings(ids),
                    loss=loss[sequence, cut],
                    entropy=entropy[sequence, positions],
                    rank=rank[sequence, cut],
                )
            )
        return records

    def unigram(self) -> Unigram:
        """Token frequencies from where the run takes them, and how each neuron lies to their direction."""
        unigram = self.frequencies.unigram(self._shards())
        direction = ReadDirection.of(self.readout.W_U, unigram)
        self.columns["freq_alignment"] = direction.cosines(self.readout.W_out).cpu().numpy()
        self.chance = replace(self.chance, freq_alignment=chance.freq_alignment_line(direction, self.random))
        with self.atlas.runs.writing() as writer:
            writer.put_unigram(self.id, unigram.p.cpu().numpy())
            writer.update_run(self.id, chance=asdict(self.chance))
        return unigram

    def effects(self, means: NDArray[np.float64], unigram: Unigram) -> None:
        """Mean ablation of every neuron at every counted position."""
        gathered = GatheredPositions(self.sample, self.traces)
        targets = torch.from_numpy(means).float().to(self.device)
        engine = EffectsEngine(self.readout, self.config.mode, self.memory, unigram)

        def measured(pending: list[int], sampled: TokenEffectSample) -> Iterator[_Shard]:
            for block in _blocks(self.sample.measured, pending, max(SHARD_TOKENS, engine.tokens_together)):
                shards = [self.sample.measured[index] for index in block]
                places = np.concatenate([shard.places for shard in shards])
                owners = np.repeat(np.arange(len(block)), [len(shard.places) for shard in shards])
                residual, activations, following = gathered.at(places, self.device)
                batch = TokenBatch(residual, activations, following)
                chosen = sampled.wants(places)
                first = slice(0, SHARD_TOKENS)
                chosen[first] = True
                sums, effects = engine.sums(batch, targets, owners, torch.from_numpy(chosen), self.reporter.advance)
                some = (batch.at(first), targets, effects.at(first))
                card.keep_precision(self.atlas, self.id, self.readout, *some, unigram)
                kept = activations[torch.from_numpy(chosen)]
                for owner, (index, shard) in enumerate(zip(block, shards, strict=True)):
                    its = torch.from_numpy(owners[chosen] == owner)
                    sampled.add(index, places[chosen][its.numpy()], kept[its], effects.at(its))
                    yield index, sums.of_group(owner, shard.group)

        done = self.atlas.runs.shards_done(self.id, "effects")
        finished = sum(len(shard.places) for index, shard in enumerate(self.sample.measured) if index in done)
        self.reporter.stage("Effects", len(self.sample.counted), finished, "tokens")
        self.reporter.say(
            f"Effects by {engine.kernel.name} ({engine.kernel.reason}). The first time, loops are compiled."
        )
        self._all_effects(measured)

    def effects_by_forward(self, means: NDArray[np.float64], unigram: Unigram) -> None:
        """Mean ablation of every neuron of an earlier layer, at all positions of a sequence."""
        if self.model is None:
            raise UnsupportedModel(
                f"Layer {self.layer} is not the last: each neuron's ablation runs the layers after it again, so there "
                "are no effects of it without the model. Use calibroscope precompute."
            )
        model = self.model
        gathered = GatheredPositions(self.sample, self.traces)
        targets = torch.from_numpy(means).float()
        frequency = UnigramReadout.of(model.readout, unigram)
        neurons, length = len(self.readout.W_out), self.config.seq_len

        def of_sequences(shard: Measured) -> Iterator[_Batch]:
            for sequence in np.unique(shard.places // length):
                places = shard.places[shard.places // length == sequence]
                tokens, positions = torch.from_numpy(self.sample.tokens[sequence]), torch.from_numpy(places % length)
                advance = self.reporter.advance
                effects = ablate_each(model, tokens, self.layer, targets, positions, advance, frequency)
                yield places, gathered.at(places, self.device)[1], effects

        def measured(pending: list[int], sampled: TokenEffectSample) -> Iterator[_Shard]:
            for index in pending:
                shard, of_shard = self.sample.measured[index], None
                for places, activations, effects in of_sequences(shard):
                    of_shard = _plus(of_shard, EffectSums.of(effects, shard.group))
                    sampled.add(index, places, activations, effects)
                assert of_shard is not None, "a shard has at least one position"
                yield index, of_shard

        done = self.atlas.runs.shards_done(self.id, "effects")
        passes = [neurons * len(np.unique(shard.places // length)) for shard in self.sample.measured]
        self.reporter.say(f"Effects by forward passes from layer {self.layer} on, one a neuron and sequence.")
        self.reporter.stage("Effects", sum(passes), sum(passes[index] for index in done), "passes")
        self._all_effects(measured)

    def _all_effects(self, measured: Callable[[list[int], TokenEffectSample], Iterator["_Shard"]]) -> None:
        """Measure the shards that are left, and publish after each what all of them say.

        Args:
            measured: the sums of shards by their numbers, in order; what is kept of their tokens has been added to the
                sample by then.
        """
        shards = self.sample.measured
        parts = dict(self.atlas.runs.shards(self.id, "effects"))
        # A survey's values are within a bound, not exact: good for means, but not shown as what a token did.
        kept = 0 if self.config.mode == "survey" else most_kept(len(self.readout.W_out))
        sampled = TokenEffectSample(self.sample, kept, self.capture.strings, parts)
        whole = reduce(_plus, (EffectSums.from_arrays(arrays) for _, arrays in sorted(parts.items())), None)
        pending = [index for index in range(len(shards)) if index not in parts]
        for index, of_shard in measured(pending, sampled):
            whole = _plus(whole, of_shard)
            self._commit_effects(index, len(shards), of_shard, whole, sampled)

    def _commit_effects(
        self, index: int, shards: int, of_shard: EffectSums, whole: EffectSums, sampled: TokenEffectSample
    ) -> None:
        columns = whole.columns() | {"freq_alignment": self.columns["freq_alignment"]}
        self.columns |= columns
        finished = index + 1
        # Rewriting what is shown of single tokens after every shard would cost more than measuring them.
        shown = sampled.any and (finished == shards or finished.bit_count() == 1)
        with self.atlas.runs.writing() as writer:
            writer.add_shard(self.id, "effects", index, of_shard.to_arrays() | sampled.arrays_of(index))
            classes = classify(self.columns, self.chance, whole.groups)
            writer.set_neurons(self.id, self.layer, columns, classes, whole.count)
            if shown:
                writer.put_positions(self.id, sampled.positions())
                writer.put_token_effects(self.id, sampled.effects())
            writer.update_run(
                self.id,
                stage="effects",
                progress=0.2 + 0.8 * finished / shards,
                tokens_counted=whole.count,
                mean_loss=float(whole.before("loss").value),
                mean_entropy=float(whole.before("entropy").value),
                error_groups=whole.groups,
            )


_Batch = tuple[NDArray[np.int64], torch.Tensor, Effects]
"""Flat indices of positions, the activations there [positions, n_neurons], and the effects."""

_Shard = tuple[int, EffectSums]
"""A shard's number, and what its positions sum to."""


def _blocks(shards: list[Measured], pending: list[int], tokens: int) -> Iterator[list[int]]:
    """Shards that are measured together: as many in a row as have no more than so many positions, at least one."""
    block: list[int] = []
    for index in pending:
        if block and sum(len(shards[other].places) for other in [*block, index]) > tokens:
            yield block
            block = []
        block.append(index)
    if block:
        yield block


def _plus(sums: EffectSums | None, more: EffectSums) -> EffectSums:
    return more if sums is None else sums.plus(more)


def _histograms(activations: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Edges [n_neurons, bins + 1] and counts [n_neurons, bins] over a neuron's own range, of [positions, n_neurons]."""
    low, high = activations.min(axis=0).astype(np.float64), activations.max(axis=0).astype(np.float64)
    high = np.where(high > low, high, low + 1e-6)
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1, axis=1)
    neurons = activations.shape[1]
    offsets, counts = np.arange(neurons) * HISTOGRAM_BINS, np.zeros(HISTOGRAM_BINS * neurons, dtype=np.int64)
    for start in range(0, len(activations), _POSITIONS_AT_ONCE):
        share = (activations[start : start + _POSITIONS_AT_ONCE] - low) / (high - low)
        bins = np.clip((share * HISTOGRAM_BINS).astype(np.int64), 0, HISTOGRAM_BINS - 1)
        counts += np.bincount((bins + offsets).ravel(), minlength=len(counts))
    return edges, counts.reshape(neurons, HISTOGRAM_BINS)
