"""`/frequency`: how often tokens occur as a run takes it, and how far the model's predictions are from that."""

import asyncio
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.asking import answer_or_refusal, choose_run
from app.components import run_card
from app.components.layout import aria, fetched_page, graph, panel
from app.components.states import empty, empty_atlas, failure, missing_run_notice
from app.figures.frequency import divergence_scatter
from app.notation.numbers import number
from app.notation.tokens import visible
from backend.client import ApiError, Sender, calls
from backend.schemas import RunPositions, RunSummary, TokenFrequencies, TokenShare

MODEL, RUN, FACTS, BODY = "frequency-model", "frequency-run", "frequency-facts", "frequency-body"
POLL, SEEN, FIGURE = "frequency-poll", "frequency-seen", "frequency-figure"
POLL_MS = 5_000
SHOWN_TOKENS = 20


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""
    register_page(
        "frequency", path="/frequency", title="Token frequency · Calibroscope", layout=layout, menu="Frequency"
    )

    @app.callback(
        Output(MODEL, "data"), Output(MODEL, "value"), Output(RUN, "data"), Output(RUN, "value"),
        Output(FACTS, "children"), Output(BODY, "children"), Output(SEEN, "data"), Output(POLL, "disabled"),
        Input(POLL, "n_intervals"), Input(MODEL, "value"), Input(RUN, "value"), State(SEEN, "data"),
    )  # fmt: skip
    async def show(_: int | None, model: str | None, run: str | None, seen: str | None) -> tuple[Any, ...]:
        try:
            return await shown(client, model, None if ctx.triggered_id == MODEL else run, seen)
        except ApiError as error:
            return (*[no_update] * 5, failure(error.problem.detail), None, False)

    run_card.register(app, client, "frequency", RUN, POLL)
    clientside_callback(
        '(...values) => window.calibroscopeAddress.follow("/frequency", ["model", "run"], values)',
        Output(BODY, "title"), Input(MODEL, "value"), Input(RUN, "value"),
        prevent_initial_call=True,
    )  # fmt: skip


def layout(model: str | None = None, run: str | None = None, **_: str) -> Component:
    """The page's frame; what it shows is fetched."""
    chosen = run if run and run.isdecimal() else None
    controls = html.Aside(
        [
            dmc.Select(id=MODEL, label="Model", value=model, data=[model] if model else [], allowDeselect=False),
            dmc.Select(id=RUN, label="Run", value=chosen, data=[chosen] if chosen else [], allowDeselect=False),
            html.Div(id=FACTS),
        ],
        className="controls", **aria(label="Which run"),
    )  # fmt: skip
    unseen = (dcc.Store(id=SEEN), dcc.Interval(id=POLL, interval=POLL_MS))
    return fetched_page("Token frequency", controls, BODY, *unseen, run_card.place("frequency"))


async def shown(client: Sender, model: str | None, run: str | None, seen: str | None) -> tuple[Any, ...]:
    """All that the page shows of a run; an unknown model or run falls back to the one that pages show first."""
    chosen = await choose_run(client, model, run)
    summary, selects = chosen.run, chosen.selects
    if summary is None:
        return *selects, None, empty_atlas(), None, False
    is_final = summary.status != "running"
    state = f"{summary.id}:{summary.status}:{summary.tokens_counted}"
    if state == seen:
        return *selects, no_update, no_update, no_update, is_final
    positions, frequencies = await asyncio.gather(
        answer_or_refusal(client, calls.positions(summary.id)),
        answer_or_refusal(client, calls.frequencies(summary.id, limit=SHOWN_TOKENS)),
    )
    notices = [] if chosen.missing is None else [missing_run_notice(chosen.missing, summary)]
    return *selects, facts(frequencies), [*notices, *body(summary, positions, frequencies)], state, is_final


def facts(frequencies: TokenFrequencies | ApiError) -> Component | None:
    """Where the frequencies come from, beside the figure."""
    if isinstance(frequencies, ApiError):
        return failure(frequencies.problem.detail)
    if frequencies.source is None:
        return None
    parts: list[Component] = [html.H2("Where they come from"), html.P(_sentence(frequencies.source), className="quiet")]
    if frequencies.counts_sha256 is not None:
        parts.append(html.P(["SHA-256 of the counts ", html.Code(frequencies.counts_sha256)], className="quiet"))
    if frequencies.entropy is not None and frequencies.vocabulary is not None:
        size = f"Their entropy is {number(frequencies.entropy, 'nats')}, over {frequencies.vocabulary:,} tokens."
        parts.append(html.P(size, className="quiet"))
    return html.Div(parts)


def body(
    run: RunSummary, positions: RunPositions | ApiError, frequencies: TokenFrequencies | ApiError
) -> list[Component]:
    """Figure 3a, and the tokens at both ends of the direction."""
    return [_figure(run, positions), _tokens(frequencies)]


def _figure(run: RunSummary, positions: RunPositions | ApiError) -> Component:
    title = "Entropy and distance from token frequencies"
    if isinstance(positions, ApiError):
        return panel(title, empty("Not there", positions.problem.detail))
    if positions.kl is None:
        return panel(
            title,
            empty(
                "This run has no frequency metrics",
                "It was made before token frequencies were measured, so the distance of its predictions from them is "
                "not known. A run with another --seed measures it:",
                f"calibroscope precompute --model {run.model} --seed {run.seed + 1}",
            ),
        )
    return panel(
        title,
        html.P(relation(positions), className="sentences"),
        graph(divergence_scatter(positions), id=FIGURE, className="big-figure"),
        note=f"Figure 3a, at the {len(positions.tokens)} sampled tokens of run {run.id}, before any ablation.",
    )


def relation(positions: RunPositions) -> str:
    """The correlation in words."""
    if positions.correlation is None or positions.rank_correlation is None:
        return "One of the two does not vary: there is no correlation."
    numbers = f"Pearson's r = {number(positions.correlation)}, of ranks {number(positions.rank_correlation)}."
    if positions.correlation < 0:
        return f"The less sure a prediction, the closer it is to how often tokens occur. {numbers}"
    return f"Here unsure predictions are not closer to how often tokens occur. {numbers}"


def _tokens(frequencies: TokenFrequencies | ApiError) -> Component:
    title = "The token-frequency direction"
    if isinstance(frequencies, ApiError):
        return panel(title, html.P(frequencies.problem.detail, className="quiet"))
    if frequencies.most is None or frequencies.least is None:
        return panel(title, html.P(frequencies.missing or "", className="quiet"))
    shared = frequencies.equally_rare or 1
    rare = "Least frequent" if shared == 1 else f"Least frequent ({shared:,} tokens share the lowest probability)"
    tables = html.Div([_table("Most frequent", frequencies.most), _table(rare, frequencies.least)], className="panels")
    note = (
        "v_freq = log P_freq less its mean over the vocabulary: a prediction that moves along it favours frequent "
        "tokens, one that moves against it rare ones."
    )
    return panel(title, tables, note=note)


def _table(title: str, shares: list[TokenShare]) -> Component:
    head = html.Tr([html.Th("token"), html.Th("probability"), html.Th("id")])
    rows = [
        html.Tr(
            [
                html.Th(html.Code(visible(share.token)), scope="row"),
                html.Td(number(share.probability)),
                html.Td(share.token_id),
            ]
        )
        for share in shares
    ]
    return html.Section(
        [html.H3(title), html.Table([html.Thead(head), html.Tbody(rows)], className="totals")], className="frequent"
    )


def _sentence(source: str) -> str:
    return source[:1].upper() + source[1:] + "."
