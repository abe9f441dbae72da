"""What the paper says, figure by figure, in our words, of which models, and how it is checked."""

from dataclasses import dataclass

from app.reproduce.checks import (
    Check,
    anticorrelated,
    as_measured_before,
    entropy_are_not_direct,
    entropy_moves_more,
    entropy_not_prediction,
    frequency_is_mediated,
    frequency_moves_as_much,
    frequency_share,
    hedges,
    holds_a_spike_down,
    large_and_unspecific,
    lower_with_dropout,
    median_as_before,
    negative_shares,
    null_space_goes_with_norm,
    opposite_changes,
    raises_entropy,
    random_are_direct,
    share_between,
    sharp_drop,
    suppresses_common,
    towards_frequencies,
    writes_into_null_space,
)
from app.reproduce.evidence import (
    GEMMA,
    GPT2_SMALL,
    LLAMA2_7B,
    PHI2,
    PYTHIA_1B,
    PYTHIA_160M,
    PYTHIA_410M,
    SMOLLM2,
    Evidence,
)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and its check."""

    figure: str
    says: str
    models: tuple[str, ...]
    """Patterns of the models it is stated for; empty: the paper says it of all models it studies."""
    stated_for: str
    check: Check
    source: str = "paper"

    def is_stated_for(self, evidence: Evidence) -> bool:
        """Whether the paper says it of this model, or of every model."""
        return not self.models or evidence.of(*self.models)


EVERY = "the models studied"
_BEFORE = "an earlier measurement of this project, 372 tokens of WikiText-2"
CLAIMS: tuple[Claim, ...] = (
    Claim("1", "Some neurons change how sure the model is and hardly change what it predicts.", (), EVERY,
          entropy_not_prediction),
    Claim("2a", "Entropy neurons have large output weights and a low variance of their direct effect on the logits.",
          (GPT2_SMALL,), "GPT-2 Small", large_and_unspecific),
    Claim("2c", "Of random neurons, total and direct effect hardly differ.", (GPT2_SMALL,), "GPT-2 Small",
          random_are_direct),
    Claim("2c", "Of entropy neurons they differ much: a large part goes through the final norm.", (GPT2_SMALL,),
          "GPT-2 Small", entropy_are_not_direct),
    Claim("2d", "The unembedding's singular values drop sharply at their end: it has an effective null space.",
          (GPT2_SMALL,), "GPT-2 Small (near index 755)", sharp_drop),
    Claim("2d", "Entropy neurons write almost only into that null space.", (GPT2_SMALL,), "GPT-2 Small",
          writes_into_null_space),
    Claim("2e", "The neurons that write most into the null space act most through the final norm.", (), EVERY,
          null_space_goes_with_norm),
    Claim("2e", "In the strongest, about four fifths of the effect go through the norm.", (GPT2_SMALL, LLAMA2_7B, PHI2),
          "GPT-2 Small, LLaMA-2 7B, Phi-2", share_between(0.65, 1.0)),
    Claim("2e", "In the strongest it is 30 to 40 %: a weaker effect than elsewhere.", (PYTHIA_410M, PYTHIA_1B, GEMMA),
          "Pythia 410M and 1B, Gemma 2B", share_between(0.25, 0.45)),
    Claim("2e", "29.830 writes into the null space and acts through the norm.", (SMOLLM2,), "SmolLM2-135M",
          as_measured_before("29.830", {"null_fraction": 0.89, "ln_mediated": 0.55}, 0.1), _BEFORE),
    Claim("2e", "29.1022 does so too, to a lesser degree.", (SMOLLM2,), "SmolLM2-135M",
          as_measured_before("29.1022", {"null_fraction": 0.88, "ln_mediated": 0.33}, 0.1), _BEFORE),
    Claim("2e", "The median neuron does neither.", (SMOLLM2,), "SmolLM2-135M", median_as_before, _BEFORE),
    Claim("3a", "The less sure a prediction, the closer it is to the token frequencies.", (PYTHIA_410M,),
          "Pythia 410M", anticorrelated),
    Claim("3b", "Some neurons act along the token-frequency direction, and move the distance from the frequencies as "
          "much as some entropy neurons.", (PYTHIA_410M, PYTHIA_1B), "Pythia 410M and 1B", frequency_moves_as_much),
    Claim("3b", "Of some of these, about 0.6 of the effect goes along that direction.", (GPT2_SMALL, PYTHIA_1B),
          "GPT-2 Small, Pythia 1B", frequency_share),
    Claim("3b", "Entropy neurons move that distance far more than token-frequency neurons.", (GPT2_SMALL,),
          "GPT-2 Small", entropy_moves_more),
    Claim("3b", "Of some neurons the share is clearly negative: what goes along the direction counteracts the rest.",
          (GPT2_SMALL, PYTHIA_1B), "GPT-2 Small, Pythia 1B", negative_shares),
    Claim("3c", "Token-frequency neurons lose much of their effect when the direction is held.", (PYTHIA_410M,),
          "Pythia 410M", frequency_is_mediated),
    Claim("4a", "An entropy neuron hedges: it costs a little where the model is right and saves much where the loss is "
          "high.", (GPT2_SMALL,), "GPT-2 Small (11.2378)", hedges),
    Claim("4a", "Clipping the strongest entropy neuron at its mean lowers the entropy.", (LLAMA2_7B,),
          "LLaMA-2 7B (31.3228)", raises_entropy),
    Claim("4b", "In a text it keeps the loss of a confidently wrong prediction from spiking.", (GPT2_SMALL,),
          "GPT-2 Small (11.2378)", holds_a_spike_down),
    Claim("4c", "Ablating a token-frequency neuron changes entropy and distance in opposite directions where the model "
          "is right.", (PYTHIA_410M,), "Pythia 410M (23.417)", opposite_changes),
    Claim("4c", "The neuron raises the entropy and brings the prediction closer to the token frequencies.",
          (PYTHIA_410M,), "Pythia 410M (23.417)", towards_frequencies),
    Claim("4c", "It does so by suppressing common tokens.", (PYTHIA_410M,), "Pythia 410M (23.417)", suppresses_common),
    Claim("6", "With dropout in training the singular values are lower, the smallest ten most of all.", (PYTHIA_160M,),
          "Pythia 160M, with and without dropout", lower_with_dropout),
)  # fmt: skip
