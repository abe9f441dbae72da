"""Every quantity Calibroscope measures: its name in code, columns, API and pages, its unit and its definition.

Pure data, imported by every layer, so that a name is written and defined in one place. Definitions follow
"Confidence Regulation Neurons in Language Models" (arXiv 2406.16254); `equation` names the paper's equation.
"""

from dataclasses import dataclass
from typing import Literal

PAPER = "https://arxiv.org/abs/2406.16254"
Stage = Literal["weights", "activations", "effects", "induction"]


@dataclass(frozen=True)
class Metric:
    """One scalar measured for every neuron."""

    name: str
    label: str
    unit: str
    """Printed after the value; empty for a pure number."""
    stage: Stage
    """The stage of a run that fills it."""
    sentence: str
    equation: str = ""
    """Where the paper has it."""
    has_se: bool = False
    """Whether a standard error is stored beside it, as `<name>_se`."""
    scale: Literal["linear", "log"] = "linear"
    """The axis on which it is usually read."""


METRICS: tuple[Metric, ...] = (
    Metric("weight_norm", "Weight norm ‖w_out‖", "", "weights",
           "Length of the neuron's output weights after weight processing; where a norm follows the MLP, of the norm's "
           "gain times these weights, as in all weight metrics."),
    Metric("logit_var", "Logit variance", "", "weights",
           "Variance over the vocabulary of the cosine between w_out and each token's unembedding direction: "
           "low when the neuron promotes no token in particular.", "Eq. 3", scale="log"),
    Metric("null_fraction", "Null-space fraction ρ", "", "weights",
           "Share of w_out's length that lies in the unembedding's effective null space, its bottom-k right "
           "singular directions: 1 means that the logits barely see the neuron.", "§3.4"),
    Metric("mean_activation", "Mean activation", "", "activations",
           "Mean of the neuron's activation over all positions of the sample, the first of each sequence included: the "
           "value that mean ablation sets.",
           "Eq. 4", has_se=True),
    Metric("std_activation", "Activation s.d.", "", "activations",
           "Standard deviation of the activation over all positions of the sample."),
    Metric("min_activation", "Lowest activation", "", "activations", "Lowest activation seen in the sample."),
    Metric("max_activation", "Highest activation", "", "activations", "Highest activation seen in the sample."),
    Metric("skew_activation", "Activation skewness", "", "activations",
           "Third standardised moment of the activation: positive when rare high activations make a long right tail."),
    Metric("kurtosis_activation", "Activation kurtosis", "", "activations",
           "Fourth standardised moment of the activation (3 for a normal distribution): high when the neuron is "
           "quiet on most tokens and loud on a few."),
    Metric("fraction_positive", "Share of positive activations", "", "activations",
           "Share of positions where the activation is above 0.", has_se=True),
    Metric("routed_share", "Routed share", "", "activations",
           "Share of positions for which the router chooses the neuron's expert; elsewhere its activation is 0. It is "
           "1 in an expert that every token passes, and missing in models without experts.", has_se=True),
    Metric("total_effect", "Total effect TE", "nats", "effects",
           "Mean over tokens of |change of loss| when the neuron is set to its mean and the final norm is recomputed.",
           "Eq. 5", has_se=True, scale="log"),
    Metric("direct_effect_ln", "Direct effect DE_LN", "nats", "effects",
           "The same mean with the final norm's scale held at its un-ablated value: the part of the effect that "
           "reaches the logits directly.", "Eq. 6", has_se=True, scale="log"),
    Metric("ln_mediated", "LayerNorm-mediated share 1 − DE_LN/TE", "", "effects",
           "Share of the total effect that disappears when the final norm's scale is held fixed. 1 means that the "
           "neuron acts only through the norm; it can be negative.", "§3.4", has_se=True),
    Metric("delta_loss", "Change of loss", "nats", "effects",
           "Mean signed change of loss under mean ablation, after − before.", has_se=True),
    Metric("loss_increase_share", "Share of losses that rise", "", "effects",
           "Share of tokens whose loss rises under mean ablation, however little: 0.5 when the neuron helps as often "
           "as it hurts. Beside the change of loss it tells many small gains from few large ones.", has_se=True),
    Metric("delta_entropy", "Change of entropy", "nats", "effects",
           "Mean signed change of the prediction's entropy under mean ablation, after − before: negative when the "
           "neuron holds confidence down.", has_se=True),
    Metric("abs_delta_entropy", "|Change of entropy|", "nats", "effects",
           "Mean absolute change of the prediction's entropy under mean ablation.", "Fig. 1", has_se=True, scale="log"),
    Metric("delta_reciprocal_rank", "|Change of reciprocal rank|", "", "effects",
           "Mean absolute change of 1/rank of the correct token (rank counted from 1) under mean ablation.",
           "Fig. 1", has_se=True, scale="log"),
    Metric("prediction_change", "Changed predictions", "", "effects",
           "Share of tokens whose most probable next token changes under mean ablation.", "Fig. 1", has_se=True),
    Metric("direct_effect_freq", "Direct effect DE_freq", "nats", "effects",
           "Mean over tokens of |change of loss| under mean ablation with the logits' component along the "
           "token-frequency direction held at its un-ablated value.", "Eq. 7-8", has_se=True, scale="log"),
    Metric("freq_mediated", "Frequency-mediated share 1 − DE_freq/TE", "", "effects",
           "Share of the total effect that disappears when the logits' component along the token-frequency direction "
           "is held. It can be negative: the effect along that direction then counteracts the rest.", "§4",
           has_se=True),
    Metric("delta_kl", "Change of KL from token frequencies", "nats", "effects",
           "Mean signed change of D_KL(P_freq‖P) under mean ablation, after − before: negative when the neuron keeps "
           "the prediction away from token frequencies.", "§4", has_se=True),
    Metric("abs_delta_kl", "|Change of KL from token frequencies|", "nats", "effects",
           "Mean absolute change of D_KL(P_freq‖P) under mean ablation.", "Fig. 3b", has_se=True, scale="log"),
    Metric("freq_alignment", "Cosine with the token-frequency direction", "", "effects",
           "Cosine of the neuron's direct effect on the logits with v_freq. Where it is negative, a positive "
           "activation suppresses common tokens; where it is positive, it raises them.", "§4"),
    Metric("induction_change", "Change of activation in induction", "", "induction",
           "Mean activation on the second occurrence of a repeated text less that on the first.", "Fig. 11",
           has_se=True),
)  # fmt: skip

ROUTING_METRICS = frozenset({"routed_share"})
"""What only a mixture of experts has."""

FREQUENCY_METRICS = frozenset({"direct_effect_freq", "freq_mediated", "delta_kl", "abs_delta_kl", "freq_alignment"})
"""What a run has only if it knew how often tokens occur."""

METRIC: dict[str, Metric] = {metric.name: metric for metric in METRICS}

FORMULAS: dict[str, str] = {
    "weight_norm": "‖w_out‖",
    "logit_var": "Var_v( w_out·W_U[:, v] / (‖w_out‖·‖W_U[:, v]‖) )",
    "null_fraction": "ρ = ‖V₀ᵀ·w_out‖ / ‖w_out‖, V₀ the k right singular directions of W_U with the smallest values",
    "mean_activation": "n̄ = E_x[ n(x) ]",
    "std_activation": "E_x[ (n − n̄)² ]^½",
    "skew_activation": "E_x[ (n − n̄)³ ] / s.d.³",
    "kurtosis_activation": "E_x[ (n − n̄)⁴ ] / s.d.⁴",
    "fraction_positive": "P_x( n > 0 )",
    "routed_share": "P_x( the router's weight of the neuron's expert > 0 )",
    "total_effect": "TE = E_x | L(x) − L(x; n := n̄) |",
    "direct_effect_ln": "DE_LN = E_x | L(x) − L(x; n := n̄, norm's scale held) |",
    "ln_mediated": "1 − DE_LN / TE",
    "delta_loss": "E_x[ L(x; n := n̄) − L(x) ]",
    "loss_increase_share": "P_x( L(x; n := n̄) > L(x) )",
    "delta_entropy": "E_x[ H(x; n := n̄) − H(x) ]",
    "abs_delta_entropy": "E_x | H(x; n := n̄) − H(x) |",
    "delta_reciprocal_rank": "E_x | 1/rank(x; n := n̄) − 1/rank(x) |",
    "prediction_change": "P_x( argmax p(x; n := n̄) ≠ argmax p(x) )",
    "direct_effect_freq": "DE_freq = E_x | L(x) − L(x; n := n̄, logits held along v_freq) |, "
    "v_freq = log P_freq − mean_v log P_freq(v)",
    "freq_mediated": "1 − DE_freq / TE",
    "delta_kl": "E_x[ D(P_freq‖p(x; n := n̄)) − D(P_freq‖p(x)) ]",
    "abs_delta_kl": "E_x | D(P_freq‖p(x; n := n̄)) − D(P_freq‖p(x)) |",
    "freq_alignment": "cos( w_out·W_U, v_freq )",
    "induction_change": "E[ n(second occurrence) ] − E[ n(first occurrence) ]",
}
"""The definitions as formulas: L the loss, H the entropy at a token x, n the neuron's activation."""

METRIC_COLUMNS: tuple[str, ...] = tuple(
    column for metric in METRICS for column in ((metric.name, f"{metric.name}_se") if metric.has_se else (metric.name,))
)
"""Every stored scalar column of a neuron, standard errors included, in the order of METRICS."""

NeuronClass = Literal["entropy", "token_frequency", "prediction", "plain"]

CLASS_LABELS: dict[NeuronClass, str] = {
    "entropy": "Entropy neuron",
    "token_frequency": "Token-frequency neuron",
    "prediction": "Prediction neuron",
    "plain": "Plain neuron",
}


@dataclass(frozen=True)
class Cuts:
    """What a class asks for besides the chance lines of the run; the paper's own criterion, too."""

    mediated: float = 0.2
    """Share of the effect that must go through the final norm, or along the token-frequency direction."""
    effect: float = 0.001
    """Nats a token that an effect worth the name must have."""
    errors: float = 2.0
    """Standard errors by which a measured metric must be beyond its cut."""
    norm_percentile: float = 90.0
    """Of the run's neurons, above which a weight norm is high. The paper gives no number."""


CUTS = Cuts()

PAPER_CRITERION = "paper_criterion"
"""A neuron's mark beside its class, by this name in code, columns, API and addresses."""
PAPER_CRITERION_LABEL = "Paper's criterion"


def anchor(term: str) -> str:
    """Where the glossary's page has one of TERMS: `/glossary#standard-error`."""
    return term.replace(" ", "-")


TERMS: dict[str, str] = {
    "nat": "Unit of information with natural logarithms: 1 nat = 1.44 bits.",
    "loss": "A token's loss is the negative log-probability, in nats, that the model gave to this very token when it "
    "had read those before it. It stands at the token, everywhere; the first of a text has none.",
    "entropy": "How spread out the model's prediction of the next token is, in nats: 0 when it is certain. A token's "
    "entropy is that of the prediction made after reading it, as are its KL and the neurons' activations; only loss "
    "and rank are of predicting the token itself.",
    "rank": "A token's place when all tokens are sorted by the probability that they had of standing there, from 1. "
    "The first token of a text has none.",
    "standard error": "What stands after ±: how far a number would typically move if the sample were drawn again. "
    "Tokens of one sequence are not independent, so whole sequences are dealt to at most 50 groups, and a number is "
    "taken once without each of them: how far these lie apart tells its error (the delete-a-group jackknife, of means, "
    "shares and differences alike). ± is one such error. A 95 % interval reaches 2.01 of them to either side where "
    "there are 50 groups, 2.26 with ten, 4.30 with three, 12.7 with two; with one sequence there is no error. A run "
    "made before errors were taken so says that its own are too small.",
    "exact": "Of a run's effects: no token's change of loss or entropy is estimated. The kernel leaves out 3·10⁻⁶ nats "
    "at most, and float32 rounding comes on top: of the packaged model, 10⁻⁵ nats at most in all were found beside "
    "float64. Each run computes some of its effects again in float64 and keeps the largest difference in its card. A "
    "survey is within 8·10⁻⁴ nats a token.",
    "mean ablation": "Setting a neuron's activation to its mean over a reference sample, on every token.",
    "frozen norm": "Computing the ablated logits with the final norm's scale of the un-ablated run: what is left "
    "is the direct effect.",
    "token frequencies": "P_freq, how often each token occurs whatever came before it. A run takes it from the model's "
    "own mean prediction over the sample (10⁻⁹ is added to each probability), from counts of its corpus or from a file "
    "of counts (1 is added to each count), so that no probability is 0; its facts say from which. The logarithm of "
    "P_freq, less the mean over the vocabulary, is the token-frequency direction v_freq of the logits.",
    "KL": "D_KL(P_freq‖P), how far a prediction P is from the token frequencies, in nats.",
    "expert": "One of several MLPs that stand side by side in a layer of a mixture of experts. For each token a router "
    "chooses some and weighs them. A neuron there is named layer.expert.index; its activation has the router's weight "
    "in it, and is 0 where its expert is not chosen. An expert that every token passes is called shared. Ablations set "
    "that activation, also where the expert was not chosen; the choice itself they leave to the model.",
    "entropy neuron": "A neuron that changes how sure the model is without moving tokens of its own. Its null-space "
    "fraction is above the run's chance line and its logit variance below; its total effect is more than "
    f"{CUTS.effect:g} nats, and more than {100 * CUTS.mediated:.0f} % of that effect goes through the final norm, "
    f"both by {CUTS.errors:g} standard errors. Called so only once effects are measured. A model can have none.",
    "token-frequency neuron": "A neuron that moves the prediction from or to the token frequencies. The cosine of "
    "what it writes with the token-frequency direction is beyond the run's chance line; its |change of KL from "
    f"token frequencies| is more than {CUTS.effect:g} nats, and more than {100 * CUTS.mediated:.0f} % of its effect "
    f"goes along that direction, both by {CUTS.errors:g} standard errors. A model can have none.",
    "prediction neuron": "A neuron that moves particular tokens: its logit variance is above the run's chance line. A "
    "model can have none.",
    "plain neuron": "A neuron that fits none of the three rules. One that fits several has the first of these classes.",
    "chance line": "What the most extreme of a run's neurons would reach if all of them wrote in random directions: "
    "5 % of models without any structure have a neuron beyond it, however many neurons they have. For the "
    "null-space fraction it is known exactly, for the logit variance and the cosine with the token-frequency "
    "direction random directions are drawn through the model's own unembedding. A run made before there were chance "
    "lines keeps the classes that it was given, by quantiles within the run, which noise can pass.",
    "paper's criterion": "How the paper picks its entropy neurons before it measures any effect (§3.1, Figure 2a): "
    "a high weight norm and a low logit variance. The paper gives no thresholds; here the norm is in the highest "
    f"{100 - CUTS.norm_percentile:.0f} % of the run and the logit variance below the chance line. It is a mark "
    "beside the class: an entropy neuron need not be heavy, and a heavy neuron with little effect on the logits "
    "need not act through the norm.",
    "induction": "Going on with a stretch of text that has occurred before; the page Induction measures it.",
    "prefix-matching score": "An attention head's mean attention, from a token that occurred before, to the token "
    "that followed it then: high for induction heads.",
    "BOS": "A token before the text that begins a sequence. Models that were trained without one can be broken by it, "
    "whatever their tokenizer names, so a run measures the loss with and without it before it decides; its card has "
    "both. Texts in the lab and the induction lab begin as the model's run does.",
    "BOS ablation": "Making an attention head look at the first token only, BOS or not, as idle heads do.",
    "knock-out": "Changing what attention heads write: BOS ablation, or each head's mean output. The induction lab "
    "does it at the measured position alone, as the paper's authors do, or at every position, where what comes later "
    "looks back on changed positions too; its answers say which. The text lab changes heads at every position.",
    "clipping": "Letting a neuron's activation not rise above a mean: mean ablation where it is above it, nothing "
    "where it is below.",
    "rank correlation": "Spearman's: how far two runs put their neurons in the same order by a metric, from −1 to 1. "
    "Its 95 % interval is over neurons: what another layer of as many such neurons could give.",
    "noise ceiling": "The rank correlation that two samples with a run's standard errors would have were the neurons "
    "the very same: what noise alone leaves of 1. None is given where most of how neurons differ is noise.",
    "null space": "Directions of the residual stream that the unembedding hardly reads: its smallest singular values.",
}

InterventionKind = Literal["mean", "zero", "clip", "scale", "value", "bos"]
ContextKind = Literal["mean", "zero", "clip"]
"""Interventions on a neuron that need no number: what a run's contexts can be shown under."""
SweepTarget = Literal["mean", "zero"]
"""Interventions that set a neuron to one activation everywhere: what all neurons of a layer can be swept with."""
LARGEST_INTERVENTION_VALUE = 1e4


@dataclass(frozen=True)
class InterventionRow:
    """One thing that can be done to a neuron or to an attention head, at every position of a text."""

    kind: InterventionKind
    sentence: str
    on_neurons: str | None
    """What it is called in a neuron's menu; None where it is not for neurons."""
    on_heads: str | None
    """What it is called in a head's menu; None where it is not for heads."""
    starting_value: float | None = None
    """The number that a page begins with, where the kind needs one; None where it takes none."""

    @property
    def needs_value(self) -> bool:
        """Whether it needs a number, of a size up to `LARGEST_INTERVENTION_VALUE`."""
        return self.starting_value is not None


INTERVENTIONS: tuple[InterventionRow, ...] = (
    InterventionRow("mean", "Sets a neuron's activation to its reference mean; a head's output to its mean over the "
                    "text (a mean-output knock-out).", "set to mean", "set to mean output"),
    InterventionRow("zero", "Sets a neuron's activation to 0, or what a head gathers by attention; a value bias, where "
                    "the model has one, stays in place.", "set to 0", "set to 0"),
    InterventionRow("clip", "Lowers a neuron's activation to its reference mean where it is above it.",
                    "clip at mean", None),
    InterventionRow("scale", "Multiplies a neuron's activation, or what a head gathers by attention, by a number; a "
                    "value bias, where the model has one, stays as it is.", "multiply by", "multiply by", 2.0),
    InterventionRow("value", "Sets a neuron's activation to a number.", "set to", None, 0.0),
    InterventionRow("bos", "Makes a head look at the text's first token alone, at every position, as idle heads do "
                    "(BOS ablation): BOS where the text begins with one, else whatever token stands first.",
                    None, "look at the first token"),
)  # fmt: skip
"""Every intervention. What its target is stands in `core/interventions/kinds.py`."""

INTERVENTION: dict[str, InterventionRow] = {row.kind: row for row in INTERVENTIONS}
