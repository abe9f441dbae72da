"""What an induction request asks for, read from the atlas: for the live service and for the worker alike."""

import numpy as np

from backend import schemas
from backend.atlas.database import NotInAtlas
from backend.atlas.records import ModelRecord, RunRecord, windows_of
from backend.atlas.store import Atlas
from backend.core.errors import BadNeuron
from backend.core.induction.experiment import Plan
from backend.core.induction.text import CorpusSequences, RepeatSpec
from backend.core.neurons import Experts, HeadId, NeuronId
from backend.requests.beginning import of_run

_DEFAULT_NEURONS = 6


def run_of(atlas: Atlas, model: ModelRecord, asked: int | None) -> RunRecord | None:
    """Whose corpus, classes and means are used; None where the model has no run.

    Raises:
        NotInAtlas: the run that was asked for does not exist, or is of another model.
    """
    chosen = atlas.runs.newest(model.slug) if asked is None else asked
    if chosen is None:
        return None
    run = atlas.runs.get(chosen)
    if run.model != model.slug:
        raise NotInAtlas(f"Run {chosen} is of the model {run.model!r}, not of {model.slug!r}.")
    return run


def repeat_spec(atlas: Atlas, body: schemas.InductionRequest, run: RunRecord | None) -> RepeatSpec:
    """Which repeated text, from the run's stored one where the source is a corpus.

    Raises:
        NotInAtlas: no run has stored any.
    """
    corpus = _corpus(atlas, run) if body.source in ("synthetic", "natural") else None
    return RepeatSpec(body.source, body.sequences, body.span, body.seed, body.text, corpus, of_run(atlas, run))


def _corpus(atlas: Atlas, run: RunRecord | None) -> CorpusSequences:
    if run is None:
        raise NotInAtlas("No run of this model has stored any text: analyse it first, or take random or your own text.")
    tokens = atlas.contexts.sequences(run.id, windows_of(run))
    if not len(tokens):
        raise NotInAtlas(f"Run {run.id} has not stored its text yet: wait, or take random tokens or your own text.")
    return CorpusSequences(tokens, f"{run.corpus} (run {run.id})")


def plan(atlas: Atlas, body: schemas.InductionRequest, experts: Experts | None, run: RunRecord | None) -> Plan:
    """What is measured on it.

    Args:
        experts: those of the model's layers; None where they have none.

    Raises:
        BadNeuron: a malformed name, or none where no run tells which neurons matter.
    """
    names = [NeuronId.parse(name, experts) for name in body.neurons] or _default_neurons(atlas, run)
    plan = Plan(
        neurons=tuple(dict.fromkeys(names)),
        parts=frozenset(body.parts),
        top_heads=body.top_heads,
        heads=tuple(dict.fromkeys(HeadId.parse(name) for name in body.heads)),
        seed=body.seed,
        knocked_out_at=body.knocked_out_at,
    )
    if run is None or body.source not in ("natural", "text"):
        return plan
    means, described = atlas.runs.reference_means(run.model, body.run)
    return plan if means is None else plan.clipped_to(means, f"the {described}")


def _default_neurons(atlas: Atlas, run: RunRecord | None) -> list[NeuronId]:
    """The run's entropy neurons by total effect; where it has none, its neurons that write most into the null space.

    Raises:
        BadNeuron: no run tells.
    """
    last = None if run is None else atlas.models.get(run.model).n_layers - 1
    if run is not None and run.layer == last:
        columns = atlas.neurons.columns(run.id, ["total_effect", "null_fraction"])
        entropy = np.array([name == "entropy" for name in atlas.neurons.classes(run.id)], dtype=bool)
        for values in (np.where(entropy, columns["total_effect"], np.nan), columns["null_fraction"]):
            order = np.argsort(-values, kind="stable")  # NaN last
            known = order[np.isfinite(values[order])][:_DEFAULT_NEURONS]
            if len(known):
                return [run.neuron(int(columns["index"][place])) for place in known]
    raise BadNeuron("No run tells which neurons of the last layer matter: name some in `neurons`.")
