"""docs/models.md is what the code says, and every causal decoder that TransformerLens has is on it."""

from pathlib import Path

import transformers
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from backend.core.models.families import EXACT, NOT_COMPARED, REFUSED
from tests.reference.models_page import MIXTURES, PAGE, page
from tests.reference.tiny_models import FAMILIES, RELATIVES

DECODERS = [
    name
    for name in {*SUPPORTED_ARCHITECTURES} & {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    if name.endswith(("ForCausalLM", "LMHeadModel"))
]


def test_every_causal_decoder_of_transformer_lens_is_exact_or_has_its_reason() -> None:
    assert sorted([*EXACT, *REFUSED, *NOT_COMPARED, *MIXTURES]) == sorted(DECODERS)


def test_what_is_said_to_be_exact_has_its_tiny_model() -> None:
    configurations = {known.config for known in (FAMILIES | RELATIVES).values()}
    kinds = {getattr(transformers, name).model_type for name in configurations}
    assert {MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind] for kind in kinds} == set(EXACT)


def test_the_page_is_what_the_code_says() -> None:
    assert Path(PAGE).read_text(encoding="utf-8") == page(), "python -m tests.reference.models_page writes it anew"
