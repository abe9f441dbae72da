"""docs/models.md from the code: `python -m tests.reference.models_page` writes it."""

from pathlib import Path

from backend.core.models.families import EXACT, NOT_COMPARED, REFUSED

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

MIXTURES = (
    "AfmoeForCausalLM", "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV4ForCausalLM",
    "Ernie4_5_MoeForCausalLM", "FlexOlmoForCausalLM", "Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM",
    "GlmMoeDsaForCausalLM", "JambaForCausalLM", "JetMoeForCausalLM", "LagunaForCausalLM", "Lfm2MoeForCausalLM",
    "Llama4ForCausalLM", "MiniMaxM2ForCausalLM", "NemotronHForCausalLM", "Qwen3NextForCausalLM",
    "Qwen3_5MoeForCausalLM",
)  # fmt: skip
"""Architectures whose MLPs route between experts in a way that is not read yet."""

_HEAD = """# Models

Which causal decoders of TransformerLens 4.3 are exact here, and which are not, each with its reason. A test holds this
page to the code (`tests/core/models/test_models_page.py`), and the list of exact ones to the tiny random models whose
every neuron and token is compared with float64 brute force through the unmodified model: total, frozen, and with the
token-frequency direction fixed. What architectures do after their last MLP is in
[science](science.md#total-and-direct-effects).

Besides, every model is checked against itself when it is loaded ([science](science.md#weights)): an architecture that
stands nowhere here works if all holds, and is refused with a sentence if anything does not.

"""


def page() -> str:
    """The whole of docs/models.md."""
    exact = "\n".join(f"| {models} | `{architecture}` |" for architecture, models in EXACT.items())
    refused = "\n".join(f"| `{architecture}` | {reason} |" for architecture, reason in REFUSED.items())
    others = "\n".join(f"| `{architecture}` | {reason} |" for architecture, reason in NOT_COMPARED.items())
    mixtures = ", ".join(f"`{name}`" for name in MIXTURES)
    return (
        f"{_HEAD}## Exact\n\n| models | architecture |\n|---|---|\n{exact}\n\n## Refused\n\n"
        f"| architecture | because |\n|---|---|\n{refused}\n\n## Not compared\n\nA model loads if the check on loading "
        "finds that all holds; no test compares one with the original.\n\n| architecture | because |\n|---|---|\n"
        f"{others}\n\n## Mixtures of experts\n\n"
        "Those above are exact ([science](science.md#mixtures-of-experts)). Refused, because they route between "
        f"experts in another way, or not in every layer ([science](science.md#not-covered)): {mixtures}.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
