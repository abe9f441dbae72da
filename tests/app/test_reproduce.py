"""`calibroscope reproduce` on the tiny atlas: figures, their numbers, and claims beside what was measured."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from app.cli import reproducing
from app.figures import spectrum, still
from app.figures.presets import PRESETS
from app.reproduce import stills, write
from app.reproduce.checks import Finding
from app.reproduce.claim import Claim
from app.reproduce.claims import CLAIMS
from app.reproduce.evidence import GPT2_SMALL, NAMED, PYTHIA_1B, spike
from app.reproduce.null import NullCount, NullModel
from app.reproduce.page import html_page, markdown_page
from app.reproduce.parts import PARTS, chosen_parts
from app.reproduce.report import write_report
from app.reproduce.stills import NoStills, draw_stills
from app.reproduce.write import Checked, Report
from backend.atlas.store import Atlas
from backend.client import ApiError, AsyncClient, calls
from backend.core.errors import BadConfig
from backend.settings import Settings
from tests.app import sample
from tests.app.evidence import evidence
from tests.conftest import TinyAtlas

pytestmark = pytest.mark.anyio
NUMBERS = [
    "1", "2a", "2c", "2d", "2e", "3a", "3b", "3c", "4a", "4b", "4c", "5a", "5b", "5c", "6",
    "9a", "9b", "9c", "10a", "10b", "10c", "11", "12", "13", "14",
]  # fmt: skip
WITHOUT_JOBS = [part for part in PARTS if not part.jobs]


@pytest.fixture(autouse=True)
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: object) -> None:
        raise NoStills("No SVGs were drawn: there is nothing to draw them with.")

    monkeypatch.setattr(write, "draw_stills", refuse)


async def test_every_figure_is_drawn_with_its_numbers_and_its_claims(
    tiny_service: FastAPI, tiny_atlas: TinyAtlas, tmp_path: Path
) -> None:
    said: list[str] = []
    client = AsyncClient(service=tiny_service)
    page = await write_report(client, [tiny_atlas.run], list(PARTS), tmp_path / "report", said.append)
    html, markdown = page.read_text(), (tmp_path / "report/report.md").read_text()
    assert (tmp_path / "report/plotly.min.js").stat().st_size > 1_000_000
    for number in NUMBERS:
        assert f"Figure {number}" in html
        assert f"Figure {number}" in markdown
    assert not re.search(r'(src|href)="https?://(?!arxiv\.org)', html), "nothing comes from elsewhere"
    assert "cdn" not in html
    assert "nothing to draw them with" in html
    assert any("nothing to draw them with" in line for line in said)
    assert ".svg" not in html, "no link leads nowhere"
    linked = re.findall(r'href="(figures/[^"]+)"', html)
    assert len(linked) == len(list((tmp_path / "report/figures").iterdir())) >= 14
    assert all((tmp_path / "report" / link).is_file() for link in linked)
    for name in ("figure-1", "figure-2d", "figure-3a", "figure-6"):
        figure = (tmp_path / f"report/figures/{name}.html").read_text()
        assert '<script charset="utf-8" src="../plotly.min.js"></script>' in figure or "../plotly.min.js" in figure
        assert len(figure) < 2_000_000, "the script is beside it, not in it"
    with (tmp_path / "report/figures/figure-1.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = await client.send(calls.columns(tiny_atlas.run, ["abs_delta_entropy"]))
    assert [row["neuron"] for row in rows] == columns.neuron
    assert [float(row["abs_delta_entropy"]) for row in rows] == columns.columns["abs_delta_entropy"]


async def test_with_both_classes_nothing_is_left_out(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    found = await evidence(tiny_service, tiny_atlas, entropy=[2, 5], token_frequency=[7, 8, 9])
    assert len(found.entropy) >= 2
    shares = found.at("ln_mediated", found.entropy)
    assert list(shares) == sorted(shares, reverse=True), "the strongest first"
    for part in WITHOUT_JOBS:
        drawn = part.draw([found])
        assert not isinstance(drawn, str), drawn
        assert len({len(column) for column in drawn.table.values()}) == 1
        assert drawn.figure.data
    for claim in CLAIMS:
        if claim.figure not in {part.figure for part in WITHOUT_JOBS}:
            continue
        finding = claim.check(found)
        assert finding.measured.endswith((".", ")")), claim.says
        assert "nan" not in finding.measured
        assert (finding.holds is None) == (claim.figure == "6"), claim.says


async def test_boxes_and_claims_have_the_tokens_own_numbers(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    found = await evidence(tiny_service, tiny_atlas, entropy=[2], token_frequency=[7])
    name = found.frequency[0]
    drawn = next(part for part in PARTS if part.figure == "3c").draw([found])
    assert not isinstance(drawn, str)
    held = drawn.figure.data[1]
    place = list(held.x).index(name)
    frequency_held = found.effects[name].delta_loss_freq
    assert frequency_held is not None
    assert held.median[place] == pytest.approx(np.median(np.abs(frequency_held)))
    assert list(held.x)[-1] == "100 random"
    hedges = next(claim for claim in CLAIMS if claim.check.__name__ == "hedges").check(found)
    effects = found.effects[found.entropy[0]]
    right = [-c for c, rank in zip(effects.clip_delta_loss or [], effects.rank_before, strict=True) if rank == 1]
    assert f"{np.mean(right):+.4f} ± " in hedges.measured
    assert f"nats where the model is right ({len(right)} tokens)" in hedges.measured


async def test_a_model_that_is_never_right_is_not_averaged_over_nothing(
    tiny_service: FastAPI, tiny_atlas: TinyAtlas
) -> None:
    found = await evidence(tiny_service, tiny_atlas, right=False, entropy=[2], token_frequency=[7])
    for name in ("hedges", "opposite_changes"):
        finding = next(claim for claim in CLAIMS if claim.check.__name__ == name).check(found)
        assert finding.holds is None
        assert "too few" in finding.measured


async def test_without_such_neurons_it_says_so(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    found = await evidence(tiny_service, tiny_atlas, plain=list(range(tiny_atlas.neurons)))
    assert found.entropy == found.frequency == []
    for number in ("2c", "3c", "4a", "4b", "4c"):
        said = next(part for part in PARTS if part.figure == number).draw([found])
        assert isinstance(said, str)
        assert "The run has no" in said
    about_them = [claim for claim in CLAIMS if claim.figure in ("2c", "3c", "4a", "4b", "4c")]
    known = [claim.check.__name__ for claim in about_them if claim.check(found).holds is not None]
    assert known == ["random_are_direct"], "which takes no class"


async def test_an_older_run_has_no_frequency_figures(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    whole = await evidence(tiny_service, tiny_atlas, token_frequency=[7])
    unknown = [None] * tiny_atlas.neurons
    columns = whole.columns.columns | {"freq_mediated": unknown, "abs_delta_kl": unknown}
    assert whole.positions is not None
    positions = whole.positions.model_copy(update={"kl": None, "correlation": None})
    older = replace(whole, columns=whole.columns.model_copy(update={"columns": columns}), positions=positions)
    assert isinstance(next(part for part in PARTS if part.figure == "3a").draw([older]), str)
    assert "has not measured freq_mediated" in str(next(part for part in PARTS if part.figure == "3b").draw([older]))
    assert next(claim for claim in CLAIMS if claim.figure == "3a").check(older).holds is None


async def test_two_models_are_set_side_by_side_in_figure_6(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    one = await evidence(tiny_service, tiny_atlas)
    lower = [value * (0.5 if place < 20 else 0.1) for place, value in enumerate(one.spectrum.singular_values)]
    weaker = replace(one, spectrum=one.spectrum.model_copy(update={"singular_values": lower}))
    drawn = next(part for part in PARTS if part.figure == "6").draw([one, weaker])
    assert not isinstance(drawn, str)
    assert len(spectrum.singular_values({"a": one.spectrum, "b": weaker.spectrum}).data) == 2
    claim = next(claim for claim in CLAIMS if claim.figure == "6")
    assert claim.check(one).holds is None
    assert claim.check(replace(weaker, beside=one)).holds is True
    assert claim.check(replace(one, beside=weaker)).holds is False


def _checked(
    holds: bool | None, *, stated: bool, passing: int | None = 0, selected_by: str = "", null: str = ""
) -> Checked:
    """passing: on how many of 100 null draws the check holds too; None where it was not tried."""
    tried = null or NullModel("random neurons", lambda e, _: e)
    claim = Claim("1", "Something is so.", (), "somewhere", lambda _: Finding(holds, "It was 1."), tried, selected_by)
    count = None if passing is None else NullCount("random neurons", passing, 100, 100)
    return Checked(claim, claim.check(None), stated, count, bool(selected_by))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("checked", "verdict"),
    [
        (_checked(True, stated=True), "holds"), (_checked(False, stated=True), "does not hold"),
        (_checked(None, stated=True), "not measured"),
        (_checked(True, stated=True, passing=5), "holds"),
        (_checked(True, stated=True, passing=6), "holds, but chance passes too"),
        (_checked(True, stated=True, passing=None), "holds"),
        (_checked(True, stated=True, selected_by="a large share"), "holds, but the neurons were chosen by it"),
        (_checked(False, stated=True, passing=90), "does not hold"),
        (_checked(True, stated=False), "not stated for this model (here it holds)"),
        (_checked(True, stated=False, passing=50), "not stated for this model (here it holds, but chance passes too)"),
        (_checked(False, stated=False), "not stated for this model (here it does not hold)"),
        (_checked(None, stated=False), "not stated for this model; not measured"),
    ],
)  # fmt: skip
async def test_a_verdict_tells_what_the_paper_states_from_what_it_does_not_and_what_chance_does(
    checked: Checked, verdict: str
) -> None:
    assert checked.verdict == verdict


async def test_the_pages_count_and_escape(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    found = await evidence(tiny_service, tiny_atlas)
    hostile = replace(found, model=found.model.model_copy(update={"name": "<script>alert(1)</script>"}))
    claims = [
        _checked(True, stated=True), _checked(False, stated=True), _checked(True, stated=True, passing=60),
        _checked(True, stated=False), _checked(None, stated=False, null="There is <nothing> to try it on."),
    ]  # fmt: skip
    report = Report([hostile], [write.Written(PARTS[0], "figure-1", None, "A | reason <b>.", claims)], "")
    html, markdown = html_page(report), markdown_page(report)
    assert "<script>alert" not in html
    assert "&lt;b&gt;" in html
    assert "There is &lt;nothing&gt; to try it on." in html
    assert "all models: 3, of which 1 hold, 1 hold but say nothing, 1 do not hold, and 0 could not be measured." in html
    assert "this one: 2, of which 1 hold, 0 hold but say nothing, 0 do not hold, and 1 could not be measured." in html
    assert "The check passes on random neurons in 60 of 100 draws." in html
    assert "**does not hold**" in markdown
    assert "**holds, but chance passes too**" in markdown


async def test_claims_name_their_models_and_figures() -> None:
    assert {claim.figure for claim in CLAIMS} == set(NUMBERS)
    assert [part.figure for part in PARTS] == NUMBERS
    gpt2, gpt2_medium = ("openai-community/gpt2", "openai-community/gpt2-medium")
    assert re.search(GPT2_SMALL, gpt2)
    assert not re.search(GPT2_SMALL, gpt2_medium)
    assert re.search(PYTHIA_1B, "EleutherAI/pythia-1b")
    assert not re.search(PYTHIA_1B, "EleutherAI/pythia-1.4b")
    assert "11.2378" in NAMED[GPT2_SMALL][0]


async def test_the_spike_is_the_largest_rise() -> None:
    shown = sample.context_ablation(loss_before=[1.0, 2.0, None], loss_after=[1.5, 4.0, None])
    assert spike(shown) == (1, 2.0)


async def test_scatters_leave_out_what_a_log_axis_cannot_show() -> None:
    for preset in PRESETS[:4]:
        view = preset.view
        names = view.metrics()
        figure = still.neuron_scatter(sample.columns(names), view)
        shown = [name for trace in figure.data for name in trace.text]
        assert "29.9" not in shown, "it has no value"
        assert ("29.11" in shown) == ("log" not in (view.x_scale, view.y_scale)), "it has a zero"
        assert figure.layout.yaxis.type == view.y_scale


async def test_a_text_is_drawn_with_its_losses_at_the_predicted_tokens() -> None:
    data = sample.context_ablation()
    bars, before, after = still.context_lines(data).data
    assert list(bars.y) == data.activations_before
    assert (list(before.y), list(after.y)) == (data.loss_before, data.loss_after)
    assert all("<script" not in text for text in still.context_lines(data).layout.xaxis.ticktext)


@pytest.mark.parametrize(("asked", "found"), [("all", NUMBERS), ("3b, 1,1", ["3b", "1"])])
async def test_figures_are_chosen_by_number(asked: str, found: list[str]) -> None:
    assert [part.figure for part in chosen_parts(asked)] == found


@pytest.mark.parametrize("asked", ["", "3b,99", "fig 1", ","])
async def test_an_unknown_figure_is_refused_with_those_there_are(asked: str) -> None:
    with pytest.raises(ValueError, match="There are: all, or 1, 2a"):
        chosen_parts(asked)


async def test_stills_need_a_drawer_and_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kaleido", None)
    with pytest.raises(NoStills, match=r"calibroscope\[report\]"):
        await draw_stills({})
    monkeypatch.setitem(__import__("sys").modules, "kaleido", __import__("types"))
    monkeypatch.setattr(stills, "find_browser", lambda: None)
    with pytest.raises(NoStills, match="set CHROMIUM"):
        await draw_stills({})


async def test_a_run_that_is_not_there_is_a_problem(tiny_service: FastAPI, tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="no run 77"):
        await write_report(AsyncClient(service=tiny_service), [77], list(PARTS), tmp_path, print)


def test_the_command_writes_a_report(tiny_atlas: TinyAtlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    reproducing.reproduce(model=[tiny_atlas.slug], figures="1,6", out=out, atlas=str(tiny_atlas.path), device="cpu")
    assert f"The report is {out / 'index.html'}" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "figures").glob("*.csv")) == ["figure-1.csv", "figure-6.csv"]


@pytest.mark.parametrize(
    ("model", "figures", "words"), [(["a", "b", "c"], "all", "given twice"), (["a"], "99", "no figure 99")]
)
def test_what_the_command_cannot_do_is_said(model: list[str], figures: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=words):
        reproducing.reproduce(model=model, figures=figures, out=tmp_path, atlas=str(tmp_path / "a.db"), device="cpu")


def test_a_model_without_a_run_is_measured_first(
    tiny_atlas: TinyAtlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str | None, str | None]] = []

    def measured(settings: Settings, preset: str | None, given: Any) -> list[int]:
        asked.append((preset, given.get("model")))
        (tmp_path / "new.db").write_bytes(tiny_atlas.path.read_bytes())
        return [tiny_atlas.run]

    monkeypatch.setattr(reproducing, "measure", measured)
    settings = Settings(atlas=str(tmp_path / "new.db"))
    for _ in range(2):
        (named,) = reproducing._wanted([tiny_atlas.slug], [])
        assert reproducing._measured(named, settings, None) == tiny_atlas.run
    assert asked == [(None, tiny_atlas.slug)]


def test_a_preset_is_measured_with_its_settings_whatever_else_there_is_of_its_model(
    tiny_atlas: TinyAtlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str | None, Any]] = []

    def measured(settings: Settings, preset: str | None, given: Any) -> list[int]:
        asked.append((preset, dict(given)))
        return [7]

    monkeypatch.setattr(reproducing, "measure", measured)
    settings = Settings(atlas=str(tiny_atlas.path))
    for wanted in reproducing._wanted([tiny_atlas.slug], ["gpt2-small"]):
        assert reproducing._measured(wanted, settings, "never") == 7
    for wanted in reproducing._wanted([], ["pythia-160m", "pythia-160m-dropout"]):
        assert reproducing._measured(wanted, settings, None) == 7
    assert asked == [
        ("gpt2-small", {"model": tiny_atlas.slug, "bos": "never"}), ("pythia-160m", {}), ("pythia-160m-dropout", {}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("models", "presets", "words"),
    [
        ([], [], "Name a model"), (["a"], ["gpt2-small", "phi-2"], "as many --model as --preset"),
        ([], ["a", "b", "c"], "given twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_reproduced_together_is_said(models: list[str], presets: list[str], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        reproducing._wanted(models, presets)


def test_a_finished_run_of_the_last_layer_is_found_by_any_name(tiny_atlas: TinyAtlas) -> None:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        record = atlas.models.get(tiny_atlas.slug)
        for name in (record.slug, record.name, record.source):
            assert atlas.runs.newest_finished(name) == tiny_atlas.run
        assert atlas.runs.newest_finished("other") is None
