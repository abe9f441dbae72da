"""What a run is, before any effect of it is measured."""

from backend.atlas.records import RunPlan
from backend.schemas import RunCard
from precompute import card
from precompute.capture import Capture
from precompute.kept import fingerprint
from precompute.maker import Maker


def plan_of(capture: Capture) -> RunPlan:
    """The run of a capture as the atlas begins it, with its effects computed here."""
    asked, maker = capture.config, Maker.here(capture.readout.W_U.device)
    described = _card_here(capture, maker)
    made_by = {"captured": capture.maker.fingerprint, "effects": maker.fingerprint}
    return RunPlan(
        model=capture.model,
        layer=capture.layer,
        corpus=described.corpus.name,
        corpus_hash=described.corpus.sample_sha256,
        weights_hash=described.checkpoint.weights_hash,
        sequences=len(capture.sample.tokens),
        seq_len=asked.seq_len,
        seed=asked.seed,
        null_dim=described.null_space.k,
        tokens_total=len(capture.sample.counted),
        config=asked.as_dict() | capture.facts,
        versions=maker.versions,
        card=described.model_dump(mode="json"),
        made_by=fingerprint(**made_by, kernel=described.computation.kernel),
    )


def _card_here(capture: Capture, maker: Maker) -> RunCard:
    """The run's card with how its effects are computed here."""
    is_last = capture.is_of_the_last_layer
    here = card.computation(capture.config.mode, capture.readout, capture.layer, is_last=is_last)
    captured = None if maker == capture.maker else capture.maker.words
    known = {"weights": capture.card.computation.weights, "captured": captured}
    return capture.card.model_copy(
        update={
            "null_space": card.null_space(capture.config, capture.sizes.d_model),
            "computation": here.model_copy(update=known),
        }
    )
