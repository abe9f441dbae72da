"""Checkpoints of a training: what the weights of the last layer say at each step, and where asked a run each."""

import itertools
import re
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from backend.atlas.records import WeighedStep
from backend.atlas.store import Atlas
from backend.core.errors import BadConfig
from backend.core.metrics.by_weights import WeightMetrics
from backend.core.models import trust
from backend.core.models.last_block import LastLayer
from backend.core.models.sources import ModelFiles, checkpoints_in, find_model, named_revision
from precompute.maker import software
from precompute.progress import Reporter

ALL = "all"
_LARGEST_STEP = 2**31 - 1


@dataclass(frozen=True)
class StepAsked:
    """A checkpoint, and where in the training it stands."""

    revision: str
    step: int


def asked_steps(model: str, written: str) -> list[StepAsked]:
    """The checkpoints that are asked for, by their steps.

    Args:
        model: a folder, where `written` is `all`.
        written: revisions with commas; a step is the number in a revision's name, or stands behind it (`main=143000`).

    Raises:
        BadConfig: a revision without a number, twice the same step, or none at all.
    """
    names = [part.strip() for part in written.split(",") if part.strip()]
    if names == [ALL]:
        folder = Path(model).expanduser()
        names = checkpoints_in(folder) if folder.is_dir() else []
        if not names:
            raise BadConfig(f"--revisions all takes every checkpoint in a folder, and {model} is no folder of any.")
    if not names:
        raise BadConfig("--revisions names the checkpoints with commas: step0,step1000,step143000.")
    steps = sorted((_asked(name) for name in names), key=lambda asked: asked.step)
    for before, after in itertools.pairwise(steps):
        if before.step == after.step:
            raise BadConfig(
                f"{before.revision} and {after.revision} both stand for step {after.step}: leave one out, or give a "
                f"step, as in {after.revision}={after.step + 1}."
            )
    return steps


def _asked(name: str) -> StepAsked:
    revision, given, number = name.partition("=")
    if given and not number.isdecimal():
        raise BadConfig(f"{name}: behind = stands the step as a number, as in {revision}=143000.")
    found = re.search(r"step[-_]?(\d+)", revision) or re.search(r"(\d+)", revision)
    if not given and found is None:
        raise BadConfig(f"{revision} has no number that could be its step: give one, as in {revision}=143000.")
    step = int(number) if given else int(found.group(1)) if found is not None else 0
    if step > _LARGEST_STEP:
        raise BadConfig(f"{name}: a step is {_LARGEST_STEP:,} at most. Give it behind =, as in {revision}=1000.")
    return StepAsked(revision, step)


class TrainingRun:
    """A model's training being looked at, checkpoint by checkpoint."""

    def __init__(self, model: str, atlas: Atlas, cache: Path, reporter: Reporter, null_dim: int | None = None) -> None:
        """
        Args:
            model: without its revision.
            null_dim: k of the null space; None for 1 % of d_model.
        """
        folder = Path(model).expanduser()
        self._model = str(folder.resolve()) if folder.is_dir() else model
        self._atlas, self._cache, self._reporter = atlas, cache, reporter
        self._null_dim = null_dim

    def measure(self, asked: StepAsked) -> WeighedStep:
        """What a checkpoint's weights say, kept in the atlas.

        Raises:
            CalibroscopeError: with a sentence that says what to do.
        """
        source = named_revision(self._model, asked.revision)
        files = find_model(source, self._cache, self._reporter.say)
        trust.note(self._cache, source)
        state, began = files.state(), time.monotonic()
        with torch.no_grad():
            last = LastLayer.load(files)
            metrics = WeightMetrics.of(last.readout, self._null_dim)
        step = self._step(asked, files, last, metrics)
        files.require(state)
        self._atlas.training.put(step)
        whole = "" if last.is_alone else " (of the whole model: its last layer cannot be loaded alone)"
        self._reporter.say(f"{files.name}: measured in {time.monotonic() - began:.1f} s{whole}.")
        return step

    def _step(self, asked: StepAsked, files: ModelFiles, last: LastLayer, metrics: WeightMetrics) -> WeighedStep:
        slug = replace(files, name=files.base, revision=None).slug
        return WeighedStep(
            training=self._atlas.training.slug_of(slug, self._model, metrics.null_dim),
            revision=asked.revision,
            step=asked.step,
            source=self._model,
            name=files.base,
            family=last.family,
            layer=last.layer,
            n_neurons=len(last.readout.W_out),
            n_experts=None if last.experts is None else last.experts.count,
            d_expert=None if last.experts is None else last.experts.width,
            d_model=len(metrics.singular_values),
            norm=last.readout.norm,
            null_dim=metrics.null_dim,
            weights_hash=files.weights_hash(),
            chance=asdict(metrics.chance),
            columns=metrics.columns,
            singular_values=metrics.singular_values,
            versions=software(),
            measured_at=datetime.now(UTC),
        )
