"""What a run's card says of a model that does something after its last MLP."""

from precompute.card import ending_section
from tests.core.readouts import random_readout


def test_a_plain_ending_says_nothing() -> None:
    assert ending_section(random_readout(1)) is None


def test_a_norm_after_the_mlp_says_whose_weights_are_measured() -> None:
    section = ending_section(random_readout(1, post_norm="RMSNorm", softcap=30.0))
    assert section is not None
    assert section.short == "a norm after the MLP, logits capped at 30"
    assert "gain times w_out" in str(section.facts["Norm after the MLP"])
    assert "30·tanh(y/30)" in str(section.facts["Soft-cap"])


def test_without_a_final_norm_total_and_direct_are_the_same() -> None:
    section = ending_section(random_readout(1, norm="none"))
    assert section is not None
    assert "same by definition" in str(section.facts["Final norm"])
