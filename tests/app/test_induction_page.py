"""The induction page: its figures as pure functions of events, its callbacks, and what they say when all fails."""

from typing import Any, get_args

import pytest
from dash import no_update

from app.figures import induction_heads as head_figures
from app.figures import repeats
from app.pages.induction import ids
from app.pages.induction import page as induction
from app.pages.induction import state as induction_state
from app.pages.induction import views as induction_views
from app.pages.induction.controls import controls
from backend import schemas
from tests.app import induction_sample as events
from tests.app import sample
from tests.app.pages import Service, lines, models_with, text_of

pytestmark = pytest.mark.anyio
RUNNING = {"phase": "running", "parts": ["curves", "clip"], "arrived": ["curves"], "run": 1}


# ---- the address


def test_an_address_sets_the_controls() -> None:
    asked = induction_state.read(
        model="tiny", run="1", source="natural", neurons="29.7,29.7,<b>,29.3", parts="bos,heads,magic",
        heads="L3H1,29.7", sequences="7", top="2", seed="5", go="1", at="measured",
    )  # fmt: skip
    assert (asked.source, asked.span, asked.sequences, asked.seed) == ("natural", 6, 7, 5)
    assert (asked.neurons, asked.heads, asked.top_heads) == (["29.7", "29.3"], ["L3H1"], 2)
    assert (asked.parts, asked.go) == (["heads", "bos"], True)
    assert asked.knocked_out_at == "measured"
    drawn = str(controls(asked))
    assert "'29.7'" in drawn
    assert f"max={schemas.MAX_SPAN}" in drawn
    assert str(induction.layout(go="1")).count("data=True") == 1


@pytest.mark.parametrize(
    "address",
    [
        {},
        {"source": "magic", "sequences": "many", "span": "", "parts": "none", "top": "x", "at": "noon"},
        {"go": "yes"},
    ],
)
def test_what_cannot_be_read_falls_back_to_the_start(address: dict[str, str]) -> None:
    asked, start = induction_state.read(**address), schemas.InductionRequest()
    assert (asked.source, asked.sequences, asked.span) == (start.source, start.sequences, start.span)
    assert (asked.parts, asked.top_heads, asked.go) == (start.parts, start.top_heads, False)
    assert asked.knocked_out_at == start.knocked_out_at == "every"


def test_limits_of_an_address_are_the_services() -> None:
    asked = induction_state.read(sequences="100000", span="100000", top="99", seed="-3", neurons=",".join(
        f"29.{place}" for place in range(40)))  # fmt: skip
    schemas.InductionJobRequest(
        sequences=asked.sequences, span=asked.span, top_heads=asked.top_heads, seed=asked.seed, neurons=asked.neurons
    )
    assert get_args(schemas.InductionPart) == induction_state.PARTS
    assert set(induction_state.SPANS) == set(get_args(schemas.InductionSource))


# ---- panels


def test_every_part_has_a_panel_that_says_in_two_sentences_what_to_look_for() -> None:
    assert {panel.part for panel in induction_views.PANELS} == set(induction_state.PARTS)
    for panel in induction_views.PANELS:
        assert panel.note.endswith(".")
        assert panel.note.rstrip(".").count(". ") == 1, panel.key
        assert "Figure" in panel.title or panel.key in ("samples", "heads")


@pytest.mark.parametrize(
    ("phase", "part", "hidden", "words"),
    [
        (None, "curves", True, ""),
        (RUNNING, "curves", False, ""),
        (RUNNING, "clip", False, "Being measured"),
        (RUNNING, "bos", True, ""),
        (RUNNING | {"phase": "stopped"}, "clip", False, "cancelled"),
        (RUNNING | {"phase": "failed"}, "clip", False, "failed"),
        (RUNNING | {"phase": "done"}, "clip", False, "Nothing was measured"),
        (RUNNING | {"arrived": ["heads"]}, "heads", False, ""),
    ],
)
def test_a_panel_without_its_event_says_why(phase: Any, part: str, hidden: bool, words: str) -> None:
    is_hidden, said = induction_state.awaited(phase, part)
    assert is_hidden == hidden
    assert words in (said or "")
    assert bool(words) == bool(said)


def test_what_was_found_and_what_was_left_out_is_told() -> None:
    said = text_of(induction_views.summary(events.start(repeats=1, sequences=1)))
    assert "corpus “words”" in said
    assert "1 repeat of 10 tokens in 1 sequence; 29.7, 29.3" in said
    left = induction_views.not_asked(["curves", "clip", "change", "heads", "bos", "mean_output"])
    assert left == "Not asked for: What components write (14). Tick them and run again."
    assert induction_views.not_asked(induction_state.PARTS) is None


def test_samples_mark_both_occurrences_on_the_shared_strip() -> None:
    shown = induction_views.samples(events.curves().samples)
    assert "2 more" in text_of(shown[1])
    tokens = [piece for piece in str(shown[0]).split("Span(") if "className='tok" in piece]
    size = len(sample.TOKENS)
    assert sum("first-time" in piece for piece in tokens) == size
    assert sum("second-time" in piece for piece in tokens) == size
    assert "first-time" not in tokens[0], "the BOS belongs to neither"
    assert "no sequence" in text_of(induction_views.samples([]))


def test_clips_are_drawn_and_tabled() -> None:
    """Of results from before errors were taken over whole texts, too: from the curves."""
    before = events.clip().model_copy(update={"totals": None})
    words = text_of(induction_views.clips([before]))
    assert "29.7 clipped at 0.500" in words
    assert "−50.0 %" in words
    assert "−50 ± 10 %" in words, "at the position where it changes most"
    assert "−10.0 %" in words
    assert "10 tokens" in text_of(induction_views.points([events.clip()], "29.7"))
    assert induction_views.points([events.clip()], "29.99") == []
    bare = events.clip().model_copy(update={"points": []})
    assert "No token" in text_of(induction_views.points([bare], "29.7"))


def test_tables_have_errors_where_they_were_measured() -> None:
    words = text_of(induction_views.clips([events.clip_with_errors()]))
    assert "0.600 ± 0.020" in words
    assert "−50.0 ± 1.5 %" in words
    assert "−50.0 ± 2.5 %" in words, "at the position where it changes most"
    out = events.knockout("L3H1").model_copy(
        update={"second": events.over_occurrence(1.25), "difference": events.over_occurrence(-0.75, 0.05)}
    )
    before = events.curves().model_copy(update={"second": events.over_occurrence(2.0)})
    words = text_of(induction_views.knockouts([out], before, apart=False))
    assert "2.000 ± 0.020" in words
    assert "1.250 ± 0.020" in words
    assert "(−0.750 ± 0.050)" in words, "paired with every head in place"
    scores = events.heads().prefix_matching
    known = events.heads(prefix_matching_se=[[0.03] * len(row) for row in scores])
    assert "L3H1 (0.900 ± 0.030)" in text_of(induction_views.heads(known, []))


@pytest.mark.parametrize(
    ("groups", "words"),
    [(12, "one standard error, taken over 12 groups of whole texts"), (1, "There is no ±"), (None, "were independent")],
)
def test_what_errors_are_is_said_where_they_first_stand(groups: int | None, words: str) -> None:
    said = induction_views.summary(events.start(error_groups=groups))
    assert words in text_of(said)
    assert "/glossary#standard-error" in str(said)


def test_heads_are_told_with_their_scores_and_offered() -> None:
    words = text_of(induction_views.heads(events.heads(), []))
    assert "L3H1 (0.900), L4H2 (0.600)" in words
    assert "Baselines: L3H0" in words
    assert "Press Run" in text_of(induction_views.heads(events.heads(), ["L0H0"]))
    none = induction_views.heads(events.heads(chosen=[], baselines=[]), [])
    assert "No head was chosen" in text_of(none)
    assert "No head serves as a baseline" in text_of(none)
    offered = induction_views.suggested_heads(events.heads())
    assert offered[:2] == ["L3H1", "L4H2"]
    assert len(offered) == 12


def test_knockouts_have_a_legend_a_figure_a_neuron_and_a_table() -> None:
    bos, mean = induction.knocked_out(
        [one.model_dump() for one in events.knockouts()], events.curves().model_dump(), apart=False
    )
    words = text_of(bos)
    assert "L3H1 + L4H2" in words
    assert "L3H0 (baseline)" in words
    assert "1.250" in words
    assert "(−0.750)" in words, "against all heads in place"
    assert str(bos).count("Graph(") == len(events.NEURONS)
    assert "all heads in place" in text_of(mean)
    bos, mean = induction.knocked_out([events.knockout("L3H1").model_dump()], None, apart=False)
    assert "Run the curves too" in text_of(bos)
    assert mean is None
    assert induction.knocked_out(None, None, apart=False) == (None, None)


def test_attributions_are_a_figure_a_neuron() -> None:
    shown = induction_views.attributions([events.attribution()])
    assert str(shown).count("Graph(") == len(events.NEURONS)
    assert "gate" not in text_of(shown)
    gated = [events.attribution().model_copy(update={"reads": reads}) for reads in ("up", "gate")]
    words = text_of(induction_views.attributions(gated))
    assert words.index("29.7: into what is gated (up)") < words.index("29.7: into its gate") < words.index("29.3")
    assert "act(gate) · up" in words
    none = events.attribution().model_copy(update={"induction": {}, "corrupted": {}})
    assert "No neuron" in text_of(induction_views.attributions([none]))
    assert str(induction_views.attributions([])).count("Graph(") == 0


def test_knockouts_of_long_occurrences_are_running_means_that_stop_at_the_boundary() -> None:
    curve = schemas.Curve(mean=[0.0, 3.0, 0.0, 9.0, None, 9.0], se=[0.1] * 6)
    assert repeats.running_mean(curve, 3).mean == [1.5, 1.0, 1.5, 9.0, None, 9.0]
    assert repeats.running_mean(curve, 1).mean == curve.mean
    assert [head_figures.smoothing(span) for span in (4, 12, 20, 100)] == [1, 1, 3, 11]
    long = [events.knockout("L3H1", span=100)]
    assert "running means over 11 positions" in text_of(induction_views.knockouts(long, None, apart=False))
    drawn = lines(head_figures.knockout_curves("29.7", long))["L3H1"].y
    assert drawn[99] == pytest.approx(0.5)
    assert drawn[100] == pytest.approx(1.25)


@pytest.mark.parametrize("kind", ["curves", "clip", "change", "heads", "bos", "mean_output", "attribution"])
def test_every_sample_event_is_one_of_the_stream(kind: str) -> None:
    for event in events.events([kind]):
        assert schemas.InductionEvent.model_validate_json(event.model_dump_json()).root == event


# ---- callbacks


def entropy_page(call: Any) -> schemas.NeuronPage:
    assert call.params["class"] == "entropy"
    return schemas.NeuronPage(rows=[sample.detail().row], total=1, next_cursor=None)


async def test_the_controls_offer_models_runs_and_entropy_neurons() -> None:
    service = Service(**models_with(sample.run()), neurons=entropy_page)
    models, model, runs, run, found, neurons, final, message = await induction.offered(service, None, None, [], None)
    assert (models[0]["value"], model, runs[0]["value"], run) == ("tiny", "tiny", "1", "1")
    assert found == {"layer": 29, "entropy": ["29.7"]}
    assert neurons == ["29.7"]
    assert final
    assert message is None
    chosen = await induction.offered(service, "tiny", "1", ["29.3"], None)
    assert chosen[5] is no_update, "a person's own neurons stay"
    other = await induction.offered(service, "tiny", "1", ["11.584"], {"layer": 11, "entropy": ["11.584"]})
    assert other[5] == ["29.7"], "the neurons of another layer go"


async def test_without_a_run_or_a_service_the_controls_say_so_and_ask_again() -> None:
    empty = await induction.offered(Service(models=lambda _: schemas.ModelList(models=[])), None, None, [], None)
    assert "No run yet" in text_of(empty[-1])
    assert not empty[-2]
    no_runs = await induction.offered(Service(**models_with()), None, None, [], None)
    assert no_runs[1] == "tiny"
    assert "No run yet" in text_of(no_runs[-1])
    failed = await induction.offered(Service(), None, None, [], None)
    assert "nothing at" in text_of(failed[-1])
    assert failed[0] is no_update, "what was chosen stays"


def test_pinned_neurons_of_the_layer_are_offered_once() -> None:
    known = {"layer": 29, "entropy": ["29.7", "29.8"]}
    found = induction.suggested(known, {"tiny": ["29.7", "3.4", "<b>", 5, "29.7"]}, "tiny", ["29.9", "29.7"])
    assert found == [
        {"group": "Pinned", "items": ["29.7"]},
        {"group": "Entropy neurons of the run", "items": ["29.8"]},
        {"group": "Chosen", "items": ["29.9"]},
    ]
    assert induction.suggested(None, {}, "tiny", []) == []
    assert induction.suggested(None, {}, "tiny", ["29.9"]) == [{"group": "Chosen", "items": ["29.9"]}]
    unreadable: tuple[Any, ...] = (None, [], {"tiny": "29.7"})
    for kept in unreadable:
        assert [one["group"] for one in induction.suggested(known, kept, "tiny", [])] == ["Entropy neurons of the run"]


def test_what_is_not_a_neuron_or_a_head_goes_and_is_told() -> None:
    assert induction.checked(["29.7"], "neuron", "29.830") == (no_update, None)
    assert induction.checked([], "neuron", "29.830") == (no_update, None)
    kept, error = induction.checked(["29.7", "lamp"], "neuron", "29.830")
    assert kept == ["29.7"]
    assert error == "“lamp” is not a neuron: write it as 29.830."
    kept, error = induction.checked(["L3H1", "29.7"], "head", "L5H1")
    assert kept == ["L3H1"]
    assert "write it as L5H1" in (error or "")


def test_a_clicked_head_is_chosen_and_clicked_again_left() -> None:
    clicked = {"points": [{"x": 1, "y": 3, "z": 0.9}]}
    assert induction_views.toggled_head(clicked, [], 6) == ["L3H1"]
    assert induction_views.toggled_head(clicked, ["L3H1", "L0H0"], 6) == ["L0H0"]
    assert induction_views.toggled_head(clicked, ["L0H0"], 1) is None, "no more than may be asked for"
    nowhere: tuple[Any, ...] = (None, {}, {"points": []}, {"points": [{"x": "a"}]})
    for nothing in nowhere:
        assert induction_views.toggled_head(nothing, [], 6) is None


async def test_the_change_of_all_neurons_takes_their_classes_from_the_run() -> None:
    service = Service(columns=lambda call: sample.columns(call.params["name"]))
    found = events.change().model_dump()
    shown = await induction.changed(service, found, "null_fraction", 1)
    assert service.asked == ["/runs/1/columns"]
    assert text_of(shown) == ""
    assert "Entropy neurons" in str(shown)
    for broken in (Service(), Service(columns=lambda _: sample.columns(["null_fraction"]).model_copy(
            update={"neuron": ["11.0"]}))):  # fmt: skip
        shown = await induction.changed(broken, found, "null_fraction", 1)
        assert "classes and null-space fractions are not shown" in text_of(shown)
        assert "Entropy neurons" not in str(shown)
    growing = Service(columns=lambda call: sample.columns(call.params["name"], measured=False))
    assert "no null-space fractions yet" in text_of(await induction.changed(growing, found, "null_fraction", 1))
    assert await induction.changed(Service(), None, "index", 1) is None


def test_only_natural_and_own_text_have_text_between() -> None:
    apart = {source: induction.is_apart(events.start(source=source).model_dump()) for source in induction_state.SOURCES}
    assert apart == {"random": False, "synthetic": False, "natural": True, "text": True}
    assert not induction.is_apart(None)


def test_the_browsers_script_knows_the_pages_ids() -> None:
    from app.dashboard import STATIC

    script = "".join(path.read_text() for path in STATIC.glob("page_induction*.js"))
    used = [ids.PHASE, ids.START, ids.CURVES, ids.CLIPS, ids.CHANGE, ids.HEAD_SCORES, ids.KNOCKOUTS, ids.ATTRIBUTION]
    used += [ids.PROGRESS, ids.DOING, ids.STATUS, ids.FAILED, ids.GO, ids.CANCEL, ids.ROOT, ids.TEXT]
    missing = [name for name in used if f'"{name.removeprefix("induction-")}"' not in script
               and f" {name.removeprefix('induction-')}:" not in script]  # fmt: skip
    assert missing == []
