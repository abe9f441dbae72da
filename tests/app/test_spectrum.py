"""The spectrum page: Figures 2d and 6, the neurons' numbers, and what it says where there is nothing to show."""

from typing import Any

import pytest
from dash import no_update

from app.figures import spectrum as figures
from app.pages.spectrum import page as spectrum
from app.pages.spectrum.page import SpectrumSettings as Settings
from backend import schemas
from backend.client import ApiError
from tests.app import sample
from tests.app.pages import Service, text_of

pytestmark = pytest.mark.anyio

PAGE = schemas.NeuronPage(rows=[sample.detail().row], next_cursor=None, total=1)
NOTHING = Settings(None, None, None, None)
VALUES = [9.0, 5.0, 2.0, 0.1]


def service(*runs: schemas.RunSummary, **answers: Any) -> Service:
    found = list(runs) or [sample.run()]
    known = {
        "models": schemas.ModelList(models=[sample.model()]), "runs": schemas.RunList(runs=found),
        "neurons": PAGE, "29_7": sample.detail(), "spectrum": sample.spectrum(),
    } | answers  # fmt: skip
    return Service(**{name: lambda _, found=answer: found for name, answer in known.items() if answer is not None})


def one(cosines: list[float] | None = None, neuron: str | None = None, null_dim: int = 2) -> schemas.Spectrum:
    return schemas.Spectrum(singular_values=VALUES, null_dim=null_dim, neuron=neuron, cosines=cosines)


async def test_the_page_shows_who_writes_where_and_the_values_in_numbers() -> None:
    models, model, runs, run, others, beside, names, body, seen, is_final = await spectrum.shown(
        service(), NOTHING, None
    )
    assert (models, model, run, is_final) == ([{"value": "tiny", "label": "Tiny"}], "tiny", "1", True)
    assert [option["value"] for option in runs] == ["1"]
    assert (others, beside) == ([{"value": "none", "label": "nothing"}], "none")
    assert names == "29.7", "what the service calls the strongest"
    words = " ".join(text_of(body).split())
    for word in ("Figure 2d", "Figure 6", "29.7", "direction 7 of 0 to 7", "0.700", "90.0", "0.500"):
        assert word in words
    again = await spectrum.shown(service(), Settings("tiny", "1", "none", names), seen)
    near = await spectrum.shown(service(), Settings("tiny", "1", "none", names, close=True), seen)
    assert near[7] is not no_update
    assert again[7:9] == (no_update, no_update), "nothing is drawn anew while nothing has changed"


async def test_two_runs_are_set_beside_each_other() -> None:
    two = service(sample.run(id=1), sample.run(id=2))
    _, _, _, run, others, beside, _, body, _, _ = await spectrum.shown(two, Settings("tiny", "1", "2", ""), None)
    assert (run, beside) == ("1", "2")
    assert [option["value"] for option in others] == ["none", "2"], "a run is not put beside itself"
    assert "Tiny, run 1" in text_of(body)
    assert "Tiny, run 2" in text_of(body)
    itself = await spectrum.shown(two, Settings("tiny", "1", "1", ""), None)
    assert itself[5] == "none"
    assert "Run 1 cannot stand beside" in text_of(itself[7])
    gone = await spectrum.shown(two, Settings("gone", "77", "88", ""), None)
    assert gone[3] == "1", "the model's first"
    for words in ("asks for run 77", "this is run 1", "Run 88 cannot stand beside"):
        assert words in text_of(gone[7])


async def test_what_is_beside_may_be_missing_and_the_rest_is_shown() -> None:
    two, asked = service(sample.run(id=1), sample.run(id=2)), []

    def spectra(call: Any) -> schemas.Spectrum:
        asked.append(call.path)
        if "/runs/2/" in call.path:
            raise ApiError(schemas.Problem(title="Not yet", status=409, detail="run 2 is at its beginning"))
        return sample.spectrum()

    two.answers["spectrum"] = spectra
    body = (await spectrum.shown(two, Settings("tiny", "1", "2", ""), None))[7]
    assert "run 2 is at its beginning" in text_of(body)
    assert "Figure 6" in text_of(body)


async def test_no_neuron_is_shown_where_none_is_asked_for() -> None:
    body = (await spectrum.shown(service(), Settings("tiny", "1", None, ""), None))[7]
    assert "No neuron is chosen" in text_of(body)
    assert "Figure 6" in text_of(body)


@pytest.mark.parametrize(
    ("written", "names", "left"),
    [
        ("29.7, 29.8 29.7;3.1", ["29.7", "29.8", "3.1"], []),
        ("29.7, <b>, L1H2", ["29.7"], ["<b>", "L1H2"]),
        (" ,;", [], []),
        ("1.0" + " " * 200 + "1.1", ["1.0"], ["all after 200 characters"]),
        (",".join(f"1.{n}" for n in range(8)), [f"1.{n}" for n in range(6)], ["1.6", "1.7"]),
    ],
)
async def test_names_are_read_and_what_is_left_out_is_said(written: str, names: list[str], left: list[str]) -> None:
    assert spectrum.neuron_names(written) == (names, left)
    body = (await spectrum.shown(service(), Settings("tiny", "1", None, written), None))[7]
    assert ("Left out" in text_of(body)) == bool(left)


async def test_a_neuron_that_the_run_does_not_measure_is_said_and_the_rest_is_shown() -> None:
    found = (await spectrum.shown(service(**{"29_7": None}), Settings("tiny", "1", None, "29.7"), None))[7]
    assert "nothing at /runs/1/neurons/29.7" in text_of(found)
    assert "Figure 6" in text_of(found)


async def test_an_empty_atlas_a_growing_run_and_a_silent_service() -> None:
    nothing = await spectrum.shown(service(models=schemas.ModelList(models=[])), NOTHING, None)
    assert "No neurons yet" in text_of(nothing[7])
    assert nothing[9] is False
    no_runs = await spectrum.shown(service(runs=schemas.RunList(runs=[])), NOTHING, None)
    assert "No neurons yet" in text_of(no_runs[7])
    growing = await spectrum.shown(service(sample.run(status="running")), NOTHING, None)
    assert growing[9] is False
    for broken in (Service(), service(spectrum=None)):
        with pytest.raises(ApiError):
            await spectrum.shown(broken, Settings("tiny", "1", None, ""), None)


async def test_a_run_without_entropy_neurons_starts_with_those_in_the_null_space() -> None:
    asked: list[dict[str, Any]] = []

    def neurons(call: Any) -> schemas.NeuronPage:
        asked.append(call.params)
        return PAGE if len(asked) == 2 else PAGE.model_copy(update={"rows": []})

    found = service()
    found.answers["neurons"] = neurons
    assert (await spectrum.shown(found, NOTHING, None))[6] == "29.7"
    assert [params["sort"] for params in asked] == ["-total_effect", "-null_fraction"]


async def test_cosines_are_drawn_a_line_a_neuron_over_the_shaded_null_space() -> None:
    figure = figures.cosines([one([0.1, 0.1, 0.2, 0.9], "29.7"), one([0.9, 0.1, 0.2, 0.1], "29.8")])
    assert [trace.name for trace in figure.data] == ["singular value of W_U", "|cos| of 29.7", "|cos| of 29.8"]
    assert list(figure.data[2].y) == [0.9, 0.1, 0.2, 0.1]
    assert len({trace.line.color for trace in figure.data}) == 3
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (1.5, 3.5)
    assert figure.layout.xaxis.range is None
    assert figures.cosines([one(null_dim=1)], close=True).layout.xaxis.range[1] == 3.5
    assert len(figures.cosines([one()]).data) == 1, "no neuron: the singular values alone"


async def test_models_of_different_widths_share_an_axis() -> None:
    wide = schemas.Spectrum(singular_values=[8, 7, 6, 5, 4, 3, 2, 1], null_dim=2, neuron=None, cosines=None)
    figure = figures.singular_values({"a": one(), "b": wide})
    assert list(figure.data[0].x) == [12.5, 37.5, 62.5, 87.5]
    assert (figure.data[1].x[0], figure.data[1].x[-1]) == (6.25, 93.75)
    assert figure.data[0].line.dash != figure.data[1].line.dash, "they are told apart without colour"
    assert figure.layout.yaxis.type == "log"


@pytest.mark.parametrize(("run", "kept"), [("3", True), ("three", False), (None, False)])
async def test_the_address_chooses_the_run(run: str | None, kept: bool) -> None:
    assert ("value='3'" in str(spectrum.layout(model="tiny", run=run))) == kept
    assert "value='4'" in str(spectrum.layout(model="tiny", beside="4"))
    assert ["checked=True" in str(spectrum.layout(close=close)) for close in ("1", "0", None)] == [True, False, False]
    assert "value='29.7'" in str(spectrum.layout(neurons="29.7"))
