"""The page of a reproduction, as HTML and as Markdown, from one and the same report."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from app.components import run_card
from app.figures.theme import GRAPH_CONFIG
from app.notation.numbers import number
from app.reproduce.evidence import Evidence
from app.reproduce.induction import RANDOM_NEURONS, JobKind
from app.reproduce.null import MOST_PASSING, REPEATS
from app.reproduce.write import PLOTLY, Checked, Report, Written
from backend.glossary import PAPER
from backend.schemas import RunSummary

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2126; max-width: 1080px; margin: 24px auto; padding: 0 16px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; } th, td { text-align: left; vertical-align: top;
padding: 6px 12px 6px 0; border-bottom: 1px solid #dfe3e8; } th { color: #5b636d; font-weight: 600; }
section { margin: 32px 0; } .quiet { color: #5b636d; font-size: 13px; } .holds { color: #006b4e; }
.fails { color: #a94400; } .open { color: #5b636d; } .frame { overflow-x: auto; }
code { font-size: 13px; overflow-wrap: anywhere; }
"""
_JOBS: dict[JobKind, str] = {
    "doubled": "text written twice (figures 5 and 11 to 14)",
    "natural": "text that repeats of itself (9 and 11)",
    "frequency": "text written twice, token-frequency neurons (10)",
}
_HEAD = ("what the paper says", "of which models", "this model", "measured", "what that is worth")


def summary(report: Report) -> list[str]:
    """What was reproduced and how, and what differs from the paper; plain sentences."""
    first = report.models[0]
    run, model = first.run, first.model
    effects = (
        f"{run.tokens_counted:,} tokens of {run.corpus} ({run.sequences} sequences of {run.seq_len}, seed {run.seed})"
    )
    sentences = [
        f"Model: {model.name} ({model.family}, {model.n_layers} layers, d_model {model.d_model}, {model.d_mlp} neurons "
        f"a layer, vocabulary {model.d_vocab:,}, {model.norm}); weights {run.weights_hash[:16]}…, layer {run.layer}.",
        f"Effects: mean ablation over {effects}; mean loss {number(run.mean_loss, 'nats')}, mean entropy "
        f"{number(run.mean_entropy, 'nats')}; null space of {run.null_dim} dimensions; {_mode(first)}.",
        f"Token frequencies: {run.config.get('frequency_source') or 'not measured'}.",
        f"Neurons looked at one by one: entropy neurons {_names(first.entropy)}; token-frequency neurons "
        f"{_names(first.frequency)}. They are those the paper names, for the models it names some of, else the "
        "strongest of their class.",
        f"What a check is worth: each is tried once more on {REPEATS} draws of what cannot be what the claim is about, "
        f"such as as many random neurons in the class's place, ordered as the class is (of single tokens and of "
        f"repeated text, {RANDOM_NEURONS} random neurons are known to draw from).",
    ]
    sentences += [f"Induction, {_JOBS[kind]}: {induction.start.summary}" for kind, induction in first.induction.items()]
    if len(report.models) > 1:
        others = ", ".join(f"{e.model.name} (run {e.run.id})" for e in report.models[1:])
        sentences.append(f"Beside it, in figure 6: {others}.")
    return sentences


def differences(report: Report) -> list[str]:
    """How the set-up differs from the paper's."""
    run = report.models[0].run
    sentences = [
        f"The paper samples C4 (25,600 tokens for GPT-2 Small and Pythia 410M); here the text is {run.corpus}, "
        f"{run.tokens_counted:,} counted tokens. Other text moves every mean.",
        "A claim that the paper states for other models is no claim about this one: it is marked so, with what the "
        "same check finds here.",
        "The paper shows most of its statements as plots. What counts as holding is this project's reading: a "
        "threshold that stands in each row. Figures 12 and 13 leave out entropy neurons that repetition does not move, "
        "which was decided after a first look at SmolLM2-135M: with all of its three, the checks of 13 failed.",
    ]
    if any(induction.knockouts for induction in report.models[0].induction.values()):
        sentences.append(
            "Heads are changed at the measured position alone, as the paper's authors' code does it. Changed at every "
            "position, which the induction page offers too, what comes later also looks back on changed positions."
        )
    if report.models[0].induction:
        counts = {kind: induction.start.sequences for kind, induction in report.models[0].induction.items()}
        listed = ", ".join(f"{count} for {_JOBS[kind]}" for kind, count in counts.items())
        sentences.append(
            "The paper measures induction on 100 doubled stretches of C4 and on 1,000 of its sequences that repeat of "
            f"themselves; here the sequences are fewer: {listed}. A single position's values scatter accordingly, and "
            "most so what changes by “up to” some percentage."
        )
    if run.config.get("frequency") == "model":
        sentences.append(
            "The paper counts the training corpus, or one like it; here the token frequencies are the model's own mean "
            "prediction over the sample. Figures 3 and 4c depend on which, so numbers compare in kind, not in size."
        )
    return sentences


def html_page(report: Report) -> str:
    """index.html, beside which plotly.min.js and figures/ lie."""
    title = f"Confidence regulation neurons in {report.models[0].model.name}"
    parts = "\n".join(_html_part(one, report) for one in report.written)
    listed = "".join(f"<li>{escape(line)}</li>" for line in (*summary(report), *differences(report)))
    stills = f'<p class="quiet">{escape(report.no_stills)}</p>' if report.no_stills else ""
    cards = "\n".join(_html_card(evidence.run) for evidence in report.models)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style><script src="{PLOTLY}"></script></head>
<body><h1>{escape(title)}</h1>
<p>The figures of <a href="{PAPER}" rel="noopener noreferrer">Confidence Regulation Neurons in Language
Models</a>, redrawn from one run of Calibroscope, and its claims beside what was measured. {escape(_tally(report))}</p>
{cards}
<ul>{listed}</ul>{stills}
{parts}
<p class="quiet">{escape(_made(report))}</p></body></html>
"""


def _html_card(run: RunSummary) -> str:
    """What was measured: warnings, a line, and the whole card behind it."""
    warnings = "".join(f'<p class="fails">{escape(one)}</p>' for one in ([] if run.card is None else run.card.warnings))
    notice = "" if run.card is not None else f"<p>{escape(run_card.NOT_KEPT)}</p>"
    shown = "".join(
        f"<h3>{escape(part.title)}</h3><table>"
        + "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in part.facts)
        + "</table>"
        for part in run_card.parts(run)
    )
    return f"{warnings}<details><summary>{escape(run_card.line(run))}</summary>{notice}{shown}</details>"


def _markdown_card(run: RunSummary) -> str:
    warnings = [f"**{one}**" for one in ([] if run.card is None else run.card.warnings)]
    notices = [] if run.card is not None else [run_card.NOT_KEPT]
    facts = [f"{part.title}: " + "; ".join(f"{n}: {v}" for n, v in part.facts) for part in run_card.parts(run)]
    return "".join(f"- {line}\n" for line in (*warnings, run_card.line(run), *notices, *facts))


def _html_part(one: Written, report: Report) -> str:
    rows = "".join(
        f"<tr><td>{escape(c.claim.says)}</td><td>{escape(c.claim.stated_for)}</td>"
        f'<td class="{_mark(c)}">{escape(c.verdict)}</td><td>{escape(c.finding.measured)}</td>'
        f"<td>{escape(c.on_null)}</td></tr>"
        for c in one.claims
    )
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    table = (
        f'<div class="frame"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>' if rows else ""
    )
    return f"<section><h2>{escape(_heading(one))}</h2>{table}{_html_figure(one, report)}</section>"


def _html_figure(one: Written, report: Report) -> str:
    if one.drawn is None:
        return f'<p class="quiet">Not drawn: {escape(one.missing)}</p>'
    figure = one.drawn.figure.to_html(full_html=False, include_plotlyjs=False, config=GRAPH_CONFIG, div_id=one.name)
    kinds = ("html", "csv") if report.no_stills else ("html", "svg", "csv")
    links = " · ".join(f'<a href="figures/{one.name}.{kind}">{kind.upper()}</a>' for kind in kinds)
    links += f' · <a href="figures/{one.name}.csv.json">what the CSV is of</a>'
    note = f'<p class="quiet">{escape(one.drawn.note)}</p>' if one.drawn.note else ""
    return f'<div class="frame">{figure}</div>{note}<p class="quiet">{links}</p>'


def markdown_page(report: Report) -> str:
    """The report as Markdown: its claims and its set-up, without the figures themselves."""
    title = f"# Confidence regulation neurons in {report.models[0].model.name}\n"
    intro = (
        f"The claims of [Confidence Regulation Neurons in Language Models]({PAPER}) beside what one run of "
        f"Calibroscope measured. {_tally(report)}\n"
    )
    facts = "".join(f"- {line}\n" for line in summary(report))
    cards = ["What was measured:\n", *(_markdown_card(evidence.run) for evidence in report.models)]
    apart = "".join(f"- {line}\n" for line in differences(report))
    parts = [_markdown_part(one) for one in report.written]
    stills = f"\n{report.no_stills}\n" if report.no_stills else ""
    return (
        "\n".join(
            [title, intro, *cards, facts, "What differs from the paper:\n", apart + stills, *parts, _made(report)]
        )
        + "\n"
    )


def _markdown_part(one: Written) -> str:
    lines = [f"## {_heading(one)}\n"]
    if one.claims:
        lines += ["| " + " | ".join(_HEAD) + " |", "|---" * len(_HEAD) + "|"]
        for c in one.claims:
            cells = (c.claim.says, c.claim.stated_for, f"**{c.verdict}**", c.finding.measured, c.on_null)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if one.drawn is None:
        lines.append(f"\nNot drawn: {one.missing}")
    elif one.drawn.note:
        lines.append(f"\n{one.drawn.note}")
    return "\n".join(lines) + "\n"


def _heading(one: Written) -> str:
    also = f" (also {one.part.also})" if one.part.also else ""
    return f"Figure {one.part.figure}{also}: {one.part.title}"


def _tally(report: Report) -> str:
    claims = [claim for one in report.written for claim in one.claims]
    stated, others = ([c for c in claims if c.is_stated is wanted] for wanted in (True, False))
    return (
        f"Claims that are about this model or about all models: {_counted(stated)}. Claims that the paper states for "
        f"other models, tried on this one: {_counted(others)}. A claim that holds says nothing where its check passes "
        f"on chance too, in more than {MOST_PASSING:.0%} of draws, or where its neurons were chosen by what is checked."
    )


def _counted(claims: Sequence[Checked]) -> str:
    holds = [c for c in claims if c.finding.holds]
    worth = sum(c.says_something for c in holds)
    fails, open_ones = (sum(c.finding.holds is wanted for c in claims) for wanted in (False, None))
    return (
        f"{len(claims)}, of which {worth} hold, {len(holds) - worth} hold but say nothing, {fails} do not hold, and "
        f"{open_ones} could not be measured"
    )


def _mark(checked: Checked) -> str:
    if checked.finding.holds is None or not checked.is_stated:
        return "open"
    if checked.finding.holds and not checked.says_something:
        return "open"
    return "holds" if checked.finding.holds else "fails"


def _names(neurons: list[str]) -> str:
    return ", ".join(neurons) or "none"


def _mode(evidence: Evidence) -> str:
    return f"a token's effects are {run_card.accuracy(evidence.run)}"


def _made(report: Report) -> str:
    version = report.models[0].run.versions.get("calibroscope", "")
    return (
        f"Made by calibroscope {version} on {datetime.now(UTC):%Y-%m-%d} from run {report.models[0].run.id}.".replace(
            "  ", " "
        )
    )
