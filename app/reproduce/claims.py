"""What the paper says, figure by figure, in our words; of which models, how it is checked, and on which null."""

from app.reproduce.checks import (
    anticorrelated,
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
from app.reproduce.claim import Claim
from app.reproduce.evidence import (
    GEMMA,
    GPT2_SMALL,
    LLAMA2_7B,
    PHI2,
    PYTHIA_1B,
    PYTHIA_160M,
    PYTHIA_410M,
)
from app.reproduce.induction_claims import INDUCTION_CLAIMS
from app.reproduce.null import (
    ENTROPY,
    ENTROPY_TOKENS,
    FREQUENCY,
    FREQUENCY_TOKENS,
    RANDOM_MATRIX,
    SHUFFLED_NULL_FRACTION,
    SHUFFLED_TOKENS,
)

EVERY = "the models studied"
_ENTROPY_RULE = (
    "a null-space fraction above and a logit variance below chance, and a share of the effect through the norm"
)
_FREQUENCY_RULE = "an effect, a share of it along the token-frequency direction, and a cosine with that beyond chance"
CLAIMS: tuple[Claim, ...] = (
    Claim("1", "Some neurons change how sure the model is and hardly change what it predicts.", (), EVERY,
          entropy_not_prediction, ENTROPY),
    Claim("2a", "Entropy neurons have large output weights and a low variance of their direct effect on the logits.",
          (GPT2_SMALL,), "GPT-2 Small", large_and_unspecific, ENTROPY),
    Claim("2c", "Of random neurons, total and direct effect hardly differ.", (GPT2_SMALL,), "GPT-2 Small",
          random_are_direct, "The claim is about random neurons themselves."),
    Claim("2c", "Of entropy neurons they differ much: a large part goes through the final norm.", (GPT2_SMALL,),
          "GPT-2 Small", entropy_are_not_direct, ENTROPY, _ENTROPY_RULE),
    Claim("2d", "The unembedding's singular values drop sharply at their end: it has an effective null space.",
          (GPT2_SMALL,), "GPT-2 Small (near index 755)", sharp_drop, RANDOM_MATRIX),
    Claim("2d", "Entropy neurons write almost only into that null space.", (GPT2_SMALL,), "GPT-2 Small",
          writes_into_null_space, ENTROPY, _ENTROPY_RULE),
    Claim("2e", "The neurons that write most into the null space act most through the final norm.", (), EVERY,
          null_space_goes_with_norm, SHUFFLED_NULL_FRACTION),
    Claim("2e", "In the strongest, about four fifths of the effect go through the norm.", (GPT2_SMALL, LLAMA2_7B, PHI2),
          "GPT-2 Small, LLaMA-2 7B, Phi-2", share_between(0.65, 1.0), ENTROPY, _ENTROPY_RULE),
    Claim("2e", "In the strongest it is 30 to 40 %: a weaker effect than elsewhere.", (PYTHIA_410M, PYTHIA_1B, GEMMA),
          "Pythia 410M and 1B, Gemma 2B", share_between(0.25, 0.45), ENTROPY, _ENTROPY_RULE),
    Claim("3a", "The less sure a prediction, the closer it is to the token frequencies.", (PYTHIA_410M,),
          "Pythia 410M", anticorrelated, SHUFFLED_TOKENS),
    Claim("3b", "Some neurons act along the token-frequency direction, and move the distance from the frequencies as "
          "much as some entropy neurons.", (PYTHIA_410M, PYTHIA_1B), "Pythia 410M and 1B",
          frequency_moves_as_much, FREQUENCY, _FREQUENCY_RULE),
    Claim("3b", "Of some of these, about 0.6 of the effect goes along that direction.", (GPT2_SMALL, PYTHIA_1B),
          "GPT-2 Small, Pythia 1B", frequency_share, FREQUENCY, _FREQUENCY_RULE),
    Claim("3b", "Entropy neurons move that distance far more than token-frequency neurons.", (GPT2_SMALL,),
          "GPT-2 Small", entropy_moves_more, ENTROPY),
    Claim("3b", "Of some neurons the share is clearly negative: what goes along the direction counteracts the rest.",
          (GPT2_SMALL, PYTHIA_1B), "GPT-2 Small, Pythia 1B",
          negative_shares, "The claim is about all neurons: its threshold is what chance does not reach."),
    Claim("3c", "Token-frequency neurons lose much of their effect when the direction is held.", (PYTHIA_410M,),
          "Pythia 410M", frequency_is_mediated, FREQUENCY_TOKENS, _FREQUENCY_RULE),
    Claim("4a", "An entropy neuron hedges: it costs a little where the model is right and saves much where the loss is "
          "high.", (GPT2_SMALL,), "GPT-2 Small (11.2378)", hedges, ENTROPY_TOKENS),
    Claim("4a", "Clipping the strongest entropy neuron at its mean lowers the entropy.", (LLAMA2_7B,),
          "LLaMA-2 7B (31.3228)", raises_entropy, ENTROPY_TOKENS),
    Claim("4b", "In a text it keeps the loss of a confidently wrong prediction from spiking.", (GPT2_SMALL,),
          "GPT-2 Small (11.2378)", holds_a_spike_down, ENTROPY_TOKENS),
    Claim("4c", "Ablating a token-frequency neuron changes entropy and distance in opposite directions where the model "
          "is right.", (PYTHIA_410M,), "Pythia 410M (23.417)", opposite_changes, FREQUENCY_TOKENS),
    Claim("4c", "The neuron raises the entropy and brings the prediction closer to the token frequencies.",
          (PYTHIA_410M,), "Pythia 410M (23.417)", towards_frequencies, FREQUENCY),
    Claim("4c", "It does so by suppressing common tokens.", (PYTHIA_410M,), "Pythia 410M (23.417)",
          suppresses_common, FREQUENCY),
    Claim("6", "With dropout in training the singular values are lower, the smallest ten most of all.", (PYTHIA_160M,),
          "Pythia 160M, with and without dropout",
          lower_with_dropout, "It compares two models: there is no third to try it on."),
    *INDUCTION_CLAIMS,
)  # fmt: skip
