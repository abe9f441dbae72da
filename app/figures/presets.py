"""The paper's figures as views of the atlas, and what to look for in each."""

from dataclasses import dataclass

from app.figures.scatter import View
from backend.glossary import CUTS, PAPER_CRITERION


@dataclass(frozen=True)
class FigurePreset:
    """A figure of the paper, as a view, and what to look for in it."""

    name: str
    label: str
    subject: str
    view: View
    sentences: str
    missing: str = ""
    """Why a run may have no values for it."""


PRESETS: tuple[FigurePreset, ...] = (
    FigurePreset(
        "figure-1",
        "Figure 1",
        "Entropy and prediction",
        View("delta_reciprocal_rank", "abs_delta_entropy", "ln_mediated", x_scale="log", y_scale="log"),
        "Neurons high up change how sure the model is; neurons far right change which token it prefers. Look for "
        "bright points at the upper left edge: they move confidence without moving the prediction, and do so through "
        "the final norm.",
    ),
    FigurePreset(
        "figure-2a",
        "Figure 2a",
        "Norm and logit variance",
        View("weight_norm", "logit_var", "class", y_scale="log"),
        "Each neuron's output weights: how large they are, and how specific they are to some tokens. The paper picks "
        "its entropy neurons at the lower right, large weights that move no token in particular; whether this model's "
        "(vermilion) lie there is said below the figure.",
    ),
    FigurePreset(
        "figure-2e",
        "Figures 2e, 2f, 7",
        "Null space and layernorm",
        View("null_fraction", "ln_mediated", "abs_delta_entropy"),
        "How much of a neuron is written where the unembedding does not look, against how much of its effect goes "
        "through the final norm. Look at the upper right, beyond the chance line and above the cut: there, writing "
        "into the null space and acting through the norm go together.",
    ),
    FigurePreset(
        "figure-3b",
        "Figures 3b, 8",
        "Token frequency",
        View("freq_mediated", "abs_delta_kl", "class", y_scale="log"),
        "How much of a neuron's effect goes through the direction of token frequency, against how far it moves the "
        "prediction from or to the frequencies. Look at the upper right for token-frequency neurons (green), which "
        "move the prediction to common tokens or from them, and at how far up entropy neurons (orange) get without it.",
        "This run has no frequency metrics: no token frequencies were counted for it, so neither the share mediated "
        "by them nor the divergence from them was measured.",
    ),
    FigurePreset(
        "figure-11",
        "Figure 11",
        "Induction",
        View("abs_delta_entropy", "induction_change", "class", x_scale="log"),
        "How much more a neuron fires on the second half of a repeated text than on the first. Look for entropy "
        "neurons far from 0: they answer to repetition, and tell the model how sure it may be of its copy.",
        "Induction has not run for this model: no repeated text was measured, so there is no change of activation "
        "from its first half to its second. The page Induction measures it now, on any repeated text.",
    ),
    FigurePreset(
        "paper-criterion",
        "Paper's criterion",
        "Heavy weights that hardly touch the logits (§3.1)",
        View("weight_norm", "logit_var", PAPER_CRITERION, y_scale="log"),
        "Violet: neurons that pass the paper's own selection, a weight norm in the highest "
        f"{100 - CUTS.norm_percentile:.0f} % of the run and a logit variance below chance. Ringed: entropy neurons, by "
        "what ablating them does; where a ring is not violet, or a violet point has no ring, the two part.",
        "This run was made before neurons were marked by the paper's own criterion.",
    ),
)

PRESET: dict[str, FigurePreset] = {preset.name: preset for preset in PRESETS}


def preset_of(view: View) -> FigurePreset | None:
    """The preset whose axes a view has, and its colour where several have them."""
    presets = [preset for preset in PRESETS if (preset.view.x, preset.view.y) == (view.x, view.y)]
    return next((preset for preset in presets if preset.view.colour == view.colour), presets[0] if presets else None)
