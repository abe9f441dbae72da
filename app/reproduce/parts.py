"""The figures of a reproduction: each with its numbers, in the order of the paper.

A later figure is added here as one more `Part` and, in claims.py, as its claims.
"""

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from app.figures import neuron as neuron_figures
from app.figures import spectrum, still
from app.figures.frequency import divergence_scatter
from app.figures.presets import PRESET
from app.figures.scatter import drawable
from app.figures.theme import CLASS_COLOURS, DIRECT_COLOUR
from app.reproduce.drawn import Drawn, Part, Table
from app.reproduce.evidence import Evidence
from app.reproduce.induction_parts import CASE_STUDY, MORE_INDUCTION
from backend.schemas import NeuronColumns, TokenEffects

RANDOM = "100 random"


def _scatter(preset: str) -> Callable[[Sequence[Evidence]], Drawn | str]:
    def draw(models: Sequence[Evidence]) -> Drawn | str:
        data, view = models[0].columns, PRESET[preset].view
        if any(all(value is None for value in data.columns[name]) for name in view.metrics()):
            return f"The run has not measured {', '.join(view.metrics())}."
        _, left_out = drawable(data, view)
        return Drawn(still.neuron_scatter(data, view), _neuron_table(data, view.metrics()), note=left_out)

    return draw


def _neuron_table(data: NeuronColumns, names: list[str]) -> Table:
    return {"neuron": data.neuron, "class": data.neuron_class, **{name: data.columns[name] for name in names}}


def _boxes(
    kind: str, direct: Callable[[TokenEffects], tuple[Sequence[float] | None, Sequence[float] | None]],
    name: str, colour: str, column: str,
) -> Callable[[Sequence[Evidence]], Drawn | str]:  # fmt: skip
    def draw(models: Sequence[Evidence]) -> Drawn | str:
        chosen = models[0].entropy if kind == "entropy" else models[0].frequency
        effects_of = {neuron: models[0].effects[neuron] for neuron in chosen if neuron in models[0].effects}
        groups: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        for neuron, effects in effects_of.items():
            direct_effects, others = direct(effects)
            if direct_effects is None or others is None:
                return "The run has not measured it."
            groups[neuron] = (effects.delta_loss, direct_effects)
            groups[RANDOM] = (effects.background_total, others)
        if not groups:
            return f"The run has no {kind.replace('_', '-')} neurons with per-token effects."
        groups[RANDOM] = groups.pop(RANDOM)  # last
        rows = [(name, abs(t), abs(d)) for name, pair in groups.items() for t, d in zip(*pair, strict=True)]
        names, totals, directs = (list(values) for values in zip(*rows, strict=True))
        table = {"neuron": names, "abs_delta_loss": totals, column: directs}
        return Drawn(still.many_boxes(groups, name, colour), table)

    return draw


def _cosines(models: Sequence[Evidence]) -> Drawn:
    spectra = list(models[0].cosines.values()) or [models[0].spectrum]
    table: dict[str, Sequence[Any]] = {"singular_value": models[0].spectrum.singular_values}
    table |= {f"cos_{data.neuron}": data.cosines for data in spectra if data.cosines is not None}
    return Drawn(spectrum.cosines(spectra), table)


def _divergence(models: Sequence[Evidence]) -> Drawn | str:
    positions = models[0].positions
    if positions is None or positions.kl is None:
        return models[0].problems.get("positions", "The run has no distances from token frequencies.")
    names = ("tokens", "targets", "loss", "entropy", "rank", "kl")
    return Drawn(divergence_scatter(positions), {name: getattr(positions, name) for name in names})


def _tokens(
    kind: str, draw_one: Callable[[TokenEffects], go.Figure], names: Sequence[str]
) -> Callable[[Sequence[Evidence]], Drawn | str]:
    def draw(models: Sequence[Evidence]) -> Drawn | str:
        chosen = models[0].entropy if kind == "entropy" else models[0].frequency
        effects = models[0].effects.get(chosen[0]) if chosen else None
        if effects is None or any(getattr(effects, name) is None for name in names):
            return f"The run has no {kind.replace('_', '-')} neurons with per-token effects."
        return Drawn(draw_one(effects), {name: getattr(effects, name) for name in names})

    return draw


def _context(models: Sequence[Evidence]) -> Drawn | str:
    data = models[0].context
    if data is None:
        return models[0].problems.get("a context without the neuron", "The run has no entropy neuron to take away.")
    names = ("tokens", "activations_before", "activations_after", "loss_before", "loss_after", "loss_frozen")
    return Drawn(still.context_lines(data), {name: getattr(data, name) for name in names})


def _spectra(models: Sequence[Evidence]) -> Drawn:
    table: dict[str, Sequence[Any]] = {}
    longest = max(len(evidence.spectrum.singular_values) for evidence in models)
    for evidence in models:
        values = evidence.spectrum.singular_values
        table[evidence.model.id] = [*values, *[None] * (longest - len(values))]
    return Drawn(spectrum.singular_values({evidence.model.name: evidence.spectrum for evidence in models}), table)


PARTS: tuple[Part, ...] = (
    Part("1", "Entropy and prediction", "", _scatter("figure-1")),
    Part("2a", "Norm and logit variance", "", _scatter("figure-2a")),
    Part("2c", "Total and direct effect of entropy neurons", "",
         _boxes("entropy", lambda e: (e.delta_loss_frozen, e.background_frozen), "Direct effect (norm frozen)",
                DIRECT_COLOUR, "abs_delta_loss_frozen")),
    Part("2d", "Singular values, and where entropy neurons write", "", _cosines),
    Part("2e", "Null space and LayerNorm", "2f and 7", _scatter("figure-2e")),
    Part("3a", "Entropy and distance from token frequencies", "", _divergence),
    Part("3b", "Token-frequency neurons", "8", _scatter("figure-3b")),
    Part("3c", "Total and direct effect of token-frequency neurons", "",
         _boxes("token_frequency", lambda e: (e.delta_loss_freq, e.background_freq), "Direct effect (frequency held)",
                CLASS_COLOURS["token_frequency"], "abs_delta_loss_freq")),
    Part("4a", "Loss and its change under clip ablation", "",
         _tokens("entropy", neuron_figures.loss_scatter,
                 ("tokens", "targets", "activation", "loss_before", "rank_before", "clip_delta_loss"))),
    Part("4b", "One text with and without an entropy neuron", "", _context),
    Part("4c", "Change of entropy and of distance from token frequencies", "",
         _tokens("token_frequency", neuron_figures.frequency_scatter,
                 ("tokens", "targets", "activation", "rank_before", "delta_entropy", "delta_kl"))),
    *CASE_STUDY,
    Part("6", "Singular values of the unembedding", "", _spectra),
    *MORE_INDUCTION,
)  # fmt: skip


def chosen_parts(figures: str) -> list[Part]:
    """The figures that are asked for: `all`, or numbers with commas; 9 is 9a, 9b and 9c.

    Raises:
        ValueError: a figure that is not among them.
    """
    if figures.strip() == "all":
        return list(PARTS)
    known = {part.figure: part for part in PARTS}
    given = [name.strip() for name in figures.split(",") if name.strip()]
    panels = {name: [figure for figure in known if figure.rstrip("abcdef") == name] for name in given}
    asked = [figure for name in given for figure in ([name] if name in known else panels[name] or [name])]
    if not asked or (unknown := [name for name in asked if name not in known]):
        wrong = ", ".join(unknown) if asked else "nothing"
        raise ValueError(f"There is no figure {wrong} to reproduce. There are: all, or {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(asked)]
