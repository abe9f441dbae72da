"""The atlas page: its address, its table, its search for tokens, its Python."""

import ast
import json
from typing import Any

import pytest

from app.components import pins
from app.figures import scatter
from app.figures.presets import PRESETS
from app.figures.scatter import View
from app.pages.atlas import page as atlas
from app.pages.atlas import search as atlas_search
from app.pages.atlas import state as atlas_state
from app.pages.atlas import table as atlas_table
from app.pages.atlas import views as atlas_views
from app.pages.atlas.recipe import Scene, recipe
from backend.glossary import CLASS_LABELS, METRIC, METRIC_COLUMNS, TERMS
from backend.schemas import RunChance
from tests.app import sample
from tests.app.pages import Service, text_of

pytestmark = pytest.mark.anyio


def _plain(component: Any) -> Any:
    return json.loads(json.dumps(component, default=lambda part: part.to_plotly_json()))


async def test_the_page_takes_its_state_from_the_address() -> None:
    drawn = str(atlas.layout(x="null_fraction", y="ln_mediated", colour="abs_delta_entropy", size="total_effect"))
    for part in ("value='null_fraction'", "value='abs_delta_entropy'", "value='total_effect'"):
        assert part in drawn
    assert "value='weight_norm'" in str(atlas.layout(x="nonsense", y="<script>"))


async def test_an_address_is_read_whole() -> None:
    asked = atlas_state.read(
        model="tiny", run="3", x="total_effect", y="null_fraction", colour="ln_mediated", size="weight_norm", logs="x",
        hide="plain,prediction", pick="29.7,29.3,29.7,<b>", sort="ln_mediated",
    )  # fmt: skip
    assert asked.view == View("total_effect", "null_fraction", "ln_mediated", x_scale="log", size="weight_norm")
    assert asked.shown == ["entropy", "token_frequency"]
    assert asked.picked == ["29.7", "29.3"]
    assert (asked.model, asked.run, asked.sort, asked.preset) == ("tiny", "3", "ln_mediated", None)


@pytest.mark.parametrize(
    ("address", "view", "preset"),
    [
        ({}, atlas_state.START.view, None),
        ({"preset": "figure-1"}, PRESETS[0].view, "figure-1"),
        ({"preset": "figure-3b"}, PRESETS[3].view, "figure-3b"),
        ({"preset": "paper-criterion"}, PRESETS[5].view, "paper-criterion"),
        ({"preset": "figure-11"}, PRESETS[4].view, "figure-11"),
        ({"preset": "figure-1", "x": "weight_norm", "y": "logit_var"}, View("weight_norm", "logit_var", "class"), None),
        ({"preset": "nonsense", "x": "weight_norm"}, atlas_state.START.view, None),
        ({"hide": "everything", "sort": "'; drop table", "size": "class"}, atlas_state.START.view, None),
    ],
)
async def test_what_cannot_be_read_falls_back(address: dict[str, str], view: View, preset: str | None) -> None:
    asked = atlas_state.read(**address)
    assert (asked.view, asked.preset) == (view, preset)
    assert asked.shown == list(CLASS_LABELS)
    assert asked.sort in ("", "-total_effect")


async def test_too_many_picked_neurons_are_cut() -> None:
    assert len(atlas_state.read(pick=",".join(f"1.{i}" for i in range(99))).picked) == atlas_state.MOST_PICKED


async def test_unmeasured_metrics_are_said_to_be_unmeasured() -> None:
    view = PRESETS[0].view
    names = view.metrics()
    data = sample.columns(names, measured=False)
    assert "fills by itself" in text_of(atlas_views.note(data, view, sample.run(status="running")))
    assert "Run it again" in text_of(atlas_views.note(data, view, sample.run(status="failed")))
    assert atlas_views.note(sample.columns(names), view, sample.run()) is None


async def test_a_view_is_explained_and_one_that_cannot_be_drawn_says_why() -> None:
    answers = {"columns": lambda call: sample.columns(call.params["name"]), "1": lambda _: sample.run()}
    view = View("total_effect", "weight_norm", "class")
    note, words = await atlas._explained(Service(**answers), 1, view, None)
    assert note is None
    assert METRIC["total_effect"].sentence in words
    older = {**answers, "columns": lambda call: sample.columns(call.params["name"], measured=False)}
    note, words = await atlas._explained(Service(**older), 1, PRESETS[4].view, "figure-11")
    assert "has not run" in text_of(note)
    assert "Look" in words
    note, words = await atlas._explained(Service(**older), 1, PRESETS[3].view, "figure-3b")
    assert "no frequency metrics" in text_of(note)
    assert "Look" in words
    note, _ = await atlas._explained(Service(), 1, view, None)
    assert "nothing at" in text_of(note)


async def test_jumping_goes_to_the_neuron_or_tells_what_is_wrong() -> None:
    service = Service(**{"29_7": lambda _: sample.detail()})
    assert await atlas._jump(service, "tiny", "1", "29.7") == ("/m/tiny/n/29/7?run=1", None)
    assert await atlas._jump(service, "tiny", "1", "29/7") == ("/m/tiny/n/29/7?run=1", None), "as in an address"
    assert (await atlas._jump(service, "tiny", "1", ""))[1] is None
    _, problem = await atlas._jump(service, "tiny", "1", "99.5")
    assert "nothing at" in problem


async def test_only_a_neurons_name_leads_away_from_the_table() -> None:
    assert atlas._clicked_row({"colId": "neuron", "rowId": "29.7"}) == "29.7"
    assert atlas._clicked_row({"colId": "pin", "rowId": "29.7"}) is None
    assert atlas._clicked_row({"colId": "neuron", "rowId": 7}) is None
    assert atlas._clicked_row(None) is None
    assert atlas._clicked_point({"points": [{"customdata": "29.7"}]}) == "29.7"
    assert atlas._clicked_point({"points": []}) is None


async def test_the_table_has_every_metric_and_shows_the_one_it_is_sorted_by() -> None:
    columns = {column.get("field"): column for column in atlas_table.column_definitions("skew_activation")}
    assert set(METRIC) <= set(columns)
    assert columns["skew_activation"]["sort"] == "asc"
    assert not columns["skew_activation"]["hide"]
    assert columns["kurtosis_activation"]["hide"]
    assert [c["field"] for c in atlas_table.column_definitions("-total_effect") if c.get("sort") == "desc"] == [
        "total_effect"
    ]
    data = atlas_table.columns_data(sample.columns(list(METRIC_COLUMNS)), {})
    assert len(data["neuron"]) == len(data["class"]) == len(data["columns"]["total_effect_se"]) == sample.COUNT


async def test_every_metric_with_an_error_has_it_in_the_table_for_its_export() -> None:
    columns = {column.get("field"): column for column in atlas_table.column_definitions("-total_effect")}
    with_errors = {name for name in METRIC_COLUMNS if name.endswith("_se")}
    assert with_errors <= set(columns)
    assert all(columns[name]["hide"] for name in with_errors)
    assert not columns["paper_criterion"].get("hide")
    drawn = str(atlas.layout(errors="on"))
    assert "checked=True" in drawn
    assert "checked=False" in str(atlas.layout())
    assert TERMS["standard error"] in drawn, "what ± means is a hover away"


async def test_lines_of_chance_are_those_of_the_run() -> None:
    chance = RunChance(neurons=9, null_fraction=0.3, logit_var_low=1e-3, logit_var_high=4e-3, freq_alignment=0.5)
    found = scatter.limits(sample.run(chance=chance))
    assert [line["value"] for line in found["null_fraction"]] == [0.3]
    assert [line["value"] for line in found["logit_var"]] == [1e-3, 4e-3]
    assert [line["value"] for line in found["freq_alignment"]] == [-0.5, 0.5]
    assert "chance" in found["null_fraction"][0]["label"]
    assert found["ln_mediated"][0]["label"] == "cut 0.2"
    assert scatter.limits(sample.run()) == {}, "a run of before has none"


async def test_a_run_without_marks_says_so_where_they_are_asked_for() -> None:
    view = PRESETS[5].view
    data = sample.columns(view.metrics())
    assert atlas_views.note(data, view, sample.run()) is None
    older = data.model_copy(update={"paper_criterion": [None] * sample.COUNT})
    assert "before neurons were marked" in text_of(atlas_views.note(older, view, sample.run()))


async def test_tokens_are_suggested_with_their_spaces_and_as_text() -> None:
    service = Service(tokens=lambda call: sample.matches(call.params["query"]))
    found, problem = await atlas_search.suggestions(service, " t", "1")
    assert problem is None
    words = [_plain(button)["props"]["children"] for button in found[:-1]]
    assert words[1:5] == ["·The", "·lamp", "↵", "<script>alert(1)</script>"]
    assert "1,200 more" in text_of(found[-1])


async def test_a_search_that_fails_says_so() -> None:
    _, problem = await atlas_search.suggestions(Service(), "the", "1")
    assert "nothing at" in problem
    assert "characters" in (await atlas_search.suggestions(Service(), "x" * 101, "1"))[1]
    none = sample.matches("zzz").model_copy(update={"tokens": [], "total": 0})
    found, _ = await atlas_search.suggestions(Service(tokens=lambda _: none), "zzz", "1")
    assert "No token" in text_of(found)
    assert await atlas_search.suggestions(Service(), "", "1") == (None, None)
    answer, marks = await atlas_search.who_pushes(Service(), 4, "1", "tiny")
    assert "nothing at" in text_of(answer)
    assert marks == atlas_search.NO_MARKS


async def test_who_moves_a_token_is_a_list_of_links_and_marks() -> None:
    service = Service(promoters=lambda call: sample.promoters(call.params["token_id"]))
    answer, marks = await atlas_search.who_pushes(service, 4, "1", "tiny")
    assert marks == {"up": ["29.7", "29.3"], "down": ["29.11"]}
    assert "/m/tiny/n/29/11?run=1" in str(answer)
    assert "+2.500" in text_of(answer)
    assert "<script>alert(1)</script>" in text_of(answer)
    assert await atlas_search.who_pushes(service, None, "1", "tiny") == (None, atlas_search.NO_MARKS)
    assert (await atlas_search.who_pushes(service, 0, "1", "tiny"))[0] is not None, "token 0 is a token"


@pytest.mark.parametrize("colour", ["class", "ln_mediated", "paper_criterion"])
async def test_python_of_a_view_can_be_read_by_python(colour: str) -> None:
    view = View("null_fraction", "total_effect", colour, y_scale="log", size="weight_norm")
    hostile = 'a """ b \\" + __import__("os").system("true") #'
    text = recipe(Scene(hostile, 1, view, ["entropy"], ["29.7"]), "http://127.0.0.1:8050")
    tree = ast.parse(text)
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert "__import__" not in calls
    assert "client.send" in calls
    assert "'plain'" not in text
    assert "X_SCALE, Y_SCALE = 'linear', 'log'" in text


async def test_a_pin_button_knows_its_model_and_neuron() -> None:
    drawn = _plain(pins.button("tiny", "29.7"))["props"]
    assert drawn["id"] == {"type": pins.PIN, "model": "tiny", "neuron": "29.7"}
    assert pins.STORE == "pins"
    assert "storage_type='local'" in str(pins.shell())
