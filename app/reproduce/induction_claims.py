"""What the paper says of induction (its section 6 and appendices H and I), in our words."""

from app.reproduce import induction_checks as checks
from app.reproduce import induction_head_checks as head_checks
from app.reproduce.claim import Claim
from app.reproduce.evidence import GPT2_SMALL, LLAMA2_7B, PYTHIA_410M
from app.reproduce.null import (
    ENTROPY,
    ENTROPY_TOKENS,
    FREQUENCY_TOKENS,
    RANDOM_HEADS,
    SHUFFLED_DOUBLED,
    SHUFFLED_NATURAL,
)

_GPT2 = (GPT2_SMALL,)
_NAME = "GPT-2 Small"
_STRONGEST = "GPT-2 Small (11.2378)"
_PYTHIA = (PYTHIA_410M,)

INDUCTION_CLAIMS: tuple[Claim, ...] = (
    Claim("5a", "Where the text repeats, loss and entropy fall.", _GPT2, _NAME,
          checks.loss_and_entropy_fall, SHUFFLED_DOUBLED),
    Claim("5a", "There most entropy neurons' activations change substantially.", _GPT2, f"{_NAME} (four of six)",
          checks.activations_change, ENTROPY_TOKENS),
    Claim("5b", "Clipped there at its mean of the first occurrence, an entropy neuron lowers the entropy: it had been "
          "raising it.", _GPT2, _STRONGEST, checks.clipping_lowers_entropy, ENTROPY_TOKENS),
    Claim("5b", "By up to 70 %.", _GPT2, _STRONGEST, checks.up_to_seventy_percent, ENTROPY_TOKENS),
    Claim("5b", "Clipping some others raises the entropy slightly.", _GPT2, f"{_NAME} (11.584, 11.2123)",
          checks.some_raise_entropy, ENTROPY_TOKENS),
    Claim("5c", "There are induction heads, found by their prefix-matching score.", _GPT2, _NAME,
          head_checks.heads_match_prefixes, RANDOM_HEADS),
    Claim("5c", "The three best are L5H1, L5H5 and L6H9.", _GPT2, _NAME, head_checks.heads_are_gpt2s, RANDOM_HEADS),
    Claim("5c", "With the best of them looking at the first token only, the strongest entropy neuron's activation "
          "falls.", _GPT2, _STRONGEST, head_checks.top_head_lowers_it, ENTROPY_TOKENS),
    Claim("5c", "With all three it comes close to what it is on the first occurrence.", _GPT2, _STRONGEST,
          head_checks.together_close_to_the_first, ENTROPY_TOKENS),
    Claim("5c", "Baseline heads have little to do with it.", _GPT2, _STRONGEST,
          head_checks.baselines_do_little, ENTROPY_TOKENS),
    Claim("9a", "Where natural text repeats, loss and entropy fall too.", _GPT2, _NAME,
          checks.natural_loss_and_entropy_fall, SHUFFLED_NATURAL),
    Claim("9a", "Activations change less than in text written twice.", _GPT2, _NAME,
          checks.changes_less_than_doubled, ENTROPY),
    Claim("9b", "An entropy neuron clipped lowers the entropy there too.", _GPT2, _STRONGEST,
          checks.natural_clipping_lowers_entropy, ENTROPY_TOKENS),
    Claim("9b", "By up to 20 %.", _GPT2, _STRONGEST, checks.up_to_twenty_percent, ENTROPY_TOKENS),
    Claim("9c", "Without the neuron, the loss falls where the model is right and rises where it is high.", _GPT2,
          _STRONGEST, checks.natural_hedging, ENTROPY_TOKENS),
    Claim("10a", "Most token-frequency neurons' activations rise where the text repeats.", _PYTHIA,
          "Pythia 410M (four of six)", checks.frequency_activations_rise, FREQUENCY_TOKENS),
    Claim("10b", "Clipping some of them raises the entropy, more than clipping random neurons changes it.", _PYTHIA,
          "Pythia 410M (23.417, 23.3412, 23.87)", checks.frequency_clipping_raises_entropy, FREQUENCY_TOKENS),
    Claim("10c", "Clipping one costs where the loss is low and saves where it is high: the reverse of an entropy "
          "neuron.", _PYTHIA, "Pythia 410M (23.417)", checks.frequency_costs_the_other_way, FREQUENCY_TOKENS),
    Claim("11", "Of the last layer, entropy neurons are among those whose activation changes most in text written "
          "twice.", (GPT2_SMALL, LLAMA2_7B), "GPT-2 Small, LLaMA-2 7B", checks.among_the_largest_changes, ENTROPY),
    Claim("11", "So they are in text that repeats of itself.", (GPT2_SMALL, LLAMA2_7B), "GPT-2 Small, LLaMA-2 7B",
          checks.among_the_largest_natural_changes, ENTROPY),
    Claim("12", "In most entropy neurons' change the best induction head has a substantial part.", _GPT2,
          f"{_NAME} (five of six)", head_checks.most_neurons_need_the_top_head, ENTROPY_TOKENS),
    Claim("13", "With that head writing its mean output, activations stay close to what they were.", _GPT2, _NAME,
          head_checks.mean_output_keeps_it, ENTROPY_TOKENS),
    Claim("13", "They stay closer than with the head looking at the first token only: what counts is a general signal, "
          "not the token.", _GPT2, _NAME, head_checks.mean_output_keeps_more, ENTROPY_TOKENS),
    Claim("13", "On the first occurrence, mean outputs change little.", _GPT2, _NAME,
          head_checks.first_half_stays, ENTROPY_TOKENS),
    Claim("14", "What induction heads write directly is not what drives most entropy neurons.", _GPT2,
          f"{_NAME} (five of six)", head_checks.induction_heads_are_not_direct, ENTROPY_TOKENS),
    Claim("14", "It is MLPs and heads of late layers.", _GPT2, f"{_NAME} (L11H8, MLPs 8 to 10)",
          head_checks.late_components_are, ENTROPY_TOKENS),
    Claim("14", "What induction heads write directly often goes against the neuron's change.", _GPT2, _NAME,
          head_checks.direct_effect_opposes, ENTROPY_TOKENS),
)  # fmt: skip
