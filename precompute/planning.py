"""What a run is, before anything of it is measured."""

import platform
from importlib.metadata import version

from backend.atlas.records import Config, ModelRecord, RunPlan
from backend.core.metrics import weights
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.devices import device_name
from backend.core.models.sources import ModelFiles
from backend.schemas import RunCard
from precompute.config import RunConfig
from precompute.kept import fingerprint
from precompute.sample import Sample


def null_dim(config: RunConfig, model: AnalysisModel) -> int:
    """k of the null space: as asked for, else 1 % of d_model; never more than the model has dimensions."""
    return min(config.null_dim or weights.default_null_dim(model.d_model), model.d_model)


def software() -> dict[str, str]:
    """Versions of what computes."""
    packages = ("calibroscope", "torch", "transformer-lens", "transformers", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def plan_of(
    config: RunConfig,
    files: ModelFiles,
    model: AnalysisModel,
    layer: int,
    sample: Sample,
    described: RunCard,
    requested: Config,
) -> RunPlan:
    """The run as the atlas begins it.

    Args:
        described: its card.
        told: what it was asked to do, with where its token frequencies come from.
    """
    measured = ModelRecord(
        slug=files.slug,
        name=files.name,
        family=model.family,
        n_layers=model.n_layers,
        d_model=model.d_model,
        d_mlp=model.d_mlp,
        d_vocab=model.d_vocab,
        norm=model.norm,
        source=config.model,
    )
    versions = software()
    return RunPlan(
        model=measured,
        layer=layer,
        corpus=described.corpus.name,
        corpus_hash=described.corpus.sample_sha256,
        weights_hash=described.checkpoint.weights_hash,
        sequences=len(sample.tokens),
        seq_len=config.seq_len,
        seed=config.seed,
        null_dim=described.null_space.k,
        tokens_total=len(sample.counted),
        config=requested,
        versions=versions,
        card=described.model_dump(mode="json"),
        made_by=fingerprint(
            format=requested["results_format"],
            versions=versions,
            device=device_name(model.device),
            kernel=described.computation.kernel,
        ),
    )
