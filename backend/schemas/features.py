"""A neuron in the shape that Neuronpedia's users already parse, with its names as they are there.

What a run does not know is null or an empty list, never a number made up to fill the place.
"""

from typing import Annotated

from pydantic import Field

from backend.schemas.base import FiniteFloat, Number, Wire


class FeatureActivation(Wire):
    """A context of the sample that shows the neuron; the loudest come first."""

    tokens: list[str]
    values: list[FiniteFloat]
    """The neuron's activation at each token."""
    maxValue: FiniteFloat
    """Highest of `values`. Special tokens and the first of a sequence do not count; in the contexts that were chosen
    for their lowest activation, only as far as they exceed `maxActApprox`."""
    maxValueTokenIndex: int
    minValue: FiniteFloat
    lossValues: list[FiniteFloat]
    """Elsewhere what the feature contributes to the loss at each token, which is not the loss. A run keeps no ablation
    of its contexts, so the list is empty; POST …/contexts/{context}/ablate computes it."""
    binMin: FiniteFloat
    """Lower end of the interval of activations that this context stands for; −1 for the loudest contexts, as there."""
    binMax: FiniteFloat
    """Its upper end; for the loudest contexts the highest activation."""
    binContains: FiniteFloat
    """Share (0..1) of the sample's positions whose activation lies in the interval; −1 for the loudest contexts."""


class Feature(Wire):
    """One neuron, from the model's newest run of that layer."""

    modelId: str
    layer: str
    index: str
    maxActApprox: Number
    """Highest activation in the sample, at a token that is neither special (BOS, EOS, padding, or what separates
    documents) nor the first of its sequence."""
    frac_nonzero: Annotated[float | None, Field(ge=0, le=1)]
    """Share of the sample's positions where the activation is above 0."""
    pos_str: list[str]
    """The tokens whose logits the neuron's direct path raises most, w_out · W_U, most raised first."""
    pos_values: list[FiniteFloat]
    neg_str: list[str]
    """Those that it lowers most, most lowered first."""
    neg_values: list[FiniteFloat]
    freq_hist_data_bar_heights: list[int]
    """Positions of the sample with an activation in each bar, those not above 0 included: a neuron's activations are
    rarely exactly 0."""
    freq_hist_data_bar_values: list[FiniteFloat]
    """The bars' centres."""
    logits_hist_data_bar_heights: list[int]
    """Tokens of the vocabulary with a direct logit in each bar; empty for a run made before they were kept."""
    logits_hist_data_bar_values: list[FiniteFloat]
    topkCosSimIndices: list[int]
    """The neurons of the layer whose w_out has the highest cosine with this one's; itself first, as there. Empty for a
    run made before they were kept."""
    topkCosSimValues: list[FiniteFloat]
    activations: list[FeatureActivation]
