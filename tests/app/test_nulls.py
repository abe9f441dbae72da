"""What a claim's check is worth: how often it passes on chance."""

from dataclasses import replace

import numpy as np
import pytest
from fastapi import FastAPI

from app.reproduce import null
from app.reproduce.checks import Finding
from app.reproduce.claims import CLAIMS
from app.reproduce.evidence import STRENGTH, Evidence
from app.reproduce.induction import Induction, random_neurons
from app.reproduce.null import NullModel, count_passes, random_singular_values
from app.reproduce.write import Checked
from tests.app import induction_sample as events
from tests.app.evidence import evidence
from tests.conftest import TinyAtlas

pytestmark = pytest.mark.anyio


@pytest.fixture
async def found(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> Evidence:
    return await evidence(tiny_service, tiny_atlas, entropy=[2, 5], token_frequency=[7, 8, 9])


def _with_column(e: Evidence, name: str, values: list[float]) -> Evidence:
    return replace(e, columns=e.columns.model_copy(update={"columns": e.columns.columns | {name: values}}))


async def test_random_neurons_stand_in_the_classs_place_as_many_and_in_its_order(found: Evidence) -> None:
    chance = np.random.default_rng(1)
    for place, model in (("entropy", null.ENTROPY), ("frequency", null.FREQUENCY)):
        seen = set()
        for _ in range(20):
            one = model.draw(found, chance)
            assert one is not None
            names = one.of_class(place)  # type: ignore[arg-type]
            assert len(set(names)) == len(found.of_class(place))  # type: ignore[arg-type]
            assert not {*found.entropy, *found.frequency} & set(names)
            strength = list(found.at(STRENGTH[place], names))  # type: ignore[index]
            assert strength == sorted(strength, reverse=True)
            seen.update(names)
        assert len(seen) > 10, "of all neurons"


async def test_where_single_tokens_are_looked_at_random_neurons_have_some(found: Evidence) -> None:
    assert found.others == random_neurons(found.chosen)
    assert not {*found.entropy, *found.frequency} & set(found.others)
    chance = np.random.default_rng(1)
    for _ in range(10):
        one = null.ENTROPY_TOKENS.draw(found, chance)
        assert one is not None
        assert set(one.entropy) <= set(found.others)
        assert one.effects[one.entropy[0]].neuron == one.entropy[0]
        assert one.context is None or one.context.neuron == one.entropy[0]


async def test_a_check_that_a_planted_difference_passes_is_not_passed_by_chance(found: Evidence) -> None:
    """Entropy neurons that change predictions by a hundredth of what others do, per nat of entropy."""
    rng = np.random.default_rng(0)
    change = rng.uniform(0.5, 1.5, len(found.columns.neuron))
    change[[found.columns.neuron.index(name) for name in found.entropy]] = 0.005
    planted = _with_column(
        _with_column(found, "prediction_change", change.tolist()), "abs_delta_entropy", [1.0] * len(change)
    )
    claim = next(claim for claim in CLAIMS if claim.figure == "1")
    checked = Checked.of(claim, planted)
    assert checked.null is not None
    assert (checked.finding.holds, checked.null.passed, checked.null.drawn) == (True, 0, null.REPEATS)
    assert checked.verdict == "holds"


async def test_a_check_that_anything_passes_says_nothing(found: Evidence) -> None:
    claim = next(claim for claim in CLAIMS if claim.figure == "1")
    lax = replace(claim, check=lambda _: Finding(True, "It always does."))
    checked = Checked.of(lax, found)
    assert checked.null is not None
    assert checked.null.passed == checked.null.drawn == null.REPEATS
    assert not checked.says_something
    assert checked.verdict == "holds, but chance passes too"
    assert f"in {null.REPEATS} of {null.REPEATS} draws" in checked.on_null


async def test_a_check_on_neurons_that_were_chosen_by_it_says_so_unless_the_paper_names_them(found: Evidence) -> None:
    claim = next(claim for claim in CLAIMS if claim.check.__name__ == "writes_into_null_space")
    assert claim.is_circular(found)
    holding = replace(claim, check=lambda _: Finding(True, "It does."))
    assert "could hardly fail" in Checked.of(holding, found).on_null
    failing = replace(claim, check=lambda _: Finding(False, "It does not."))
    assert "could hardly fail" not in Checked.of(failing, found).on_null, "it has just failed"
    named = replace(found, model=found.model.model_copy(update={"name": "openai-community/gpt2"}))
    assert not claim.is_circular(named)


async def test_every_check_has_a_null_or_a_reason_and_the_same_evidence_the_same_count(found: Evidence) -> None:
    for claim in CLAIMS:
        if isinstance(claim.null, str):
            assert claim.null.endswith("."), claim.says
            continue
        short = replace(claim.null, repeats=3)
        one = count_passes(claim.check, short, found)
        assert one == count_passes(claim.check, short, found)
        assert one.answered <= one.drawn <= 3
    assert sum(isinstance(claim.null, NullModel) for claim in CLAIMS) > 40


async def test_the_projects_own_measurements_are_no_claims() -> None:
    assert all("29.830" not in claim.says for claim in CLAIMS)


async def test_shuffling_breaks_what_a_claim_is_about(found: Evidence) -> None:
    chance = np.random.default_rng(0)
    count = len(found.columns.neuron)
    rho = np.linspace(0, 1, count)
    dealt = null.SHUFFLED_NULL_FRACTION.draw(_with_column(found, "null_fraction", rho.tolist()), chance)
    assert dealt is not None
    assert sorted(dealt.columns.columns["null_fraction"]) == rho.tolist()  # type: ignore[type-var]
    assert abs(np.corrcoef(dealt.metric("null_fraction"), rho)[0, 1]) < 0.5
    assert found.positions is not None
    kl = (-np.array(found.positions.entropy)).tolist()
    tied = replace(found, positions=found.positions.model_copy(update={"kl": kl, "correlation": -1.0}))
    claim = next(claim for claim in CLAIMS if claim.figure == "3a")
    checked = Checked.of(claim, tied)
    assert checked.null is not None
    assert (checked.finding.holds, checked.null.passed) == (True, 0)


async def test_repeated_text_and_heads_have_nulls_too(found: Evidence) -> None:
    job = Induction(1, events.start(), curves=events.curves(), change=events.change(), heads=events.heads())
    measured = replace(found, induction={"doubled": job})
    shuffled = null.SHUFFLED_DOUBLED.draw(measured, np.random.default_rng(0))
    assert shuffled is not None
    curves = shuffled.induction["doubled"].curves
    assert curves is not None
    assert sorted(curves.entropy.mean) == sorted(events.curves().entropy.mean)  # type: ignore[type-var]
    assert curves.loss.mean != events.curves().loss.mean
    drawn = null.RANDOM_HEADS.draw(measured, np.random.default_rng(0))
    assert drawn is not None
    assert drawn.induction["doubled"].heads is not None
    assert not set(drawn.induction["doubled"].heads.chosen) & set(events.heads().chosen)
    assert null.RANDOM_HEADS.draw(found, np.random.default_rng(0)) is None, "no heads were scored"


async def test_the_class_is_no_comparison_for_what_stands_in_its_place(found: Evidence) -> None:
    clips = {name: events.clip(name) for name in [*found.frequency, *found.others]}
    job = Induction(1, events.start(), clips=clips)
    one = null.FREQUENCY_TOKENS.draw(replace(found, induction={"frequency": job}), np.random.default_rng(0))
    assert one is not None
    assert set(one.induction["frequency"].clips) == set(found.others)


def test_singular_values_of_a_random_matrix_are_those_of_a_random_matrix() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([random_singular_values(12, 200, rng) for _ in range(300)])
    real = np.array([np.linalg.svd(rng.normal(size=(12, 200)), compute_uv=False) for _ in range(300)])
    assert (np.diff(drawn, axis=1) <= 0).all()
    np.testing.assert_allclose(drawn.mean(axis=0), real.mean(axis=0), rtol=0.01)
    np.testing.assert_allclose(drawn.std(axis=0), real.std(axis=0), rtol=0.3)
    assert random_singular_values(200, 12, rng).shape == (12,)
