"""The atlas in a real browser: what is drawn, hidden, selected, marked, remembered and taken away."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.atlas_page import PLOT, asked, drag, open_atlas, rows_shown
from tests.browser.conftest import Site, Visit, watch

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
VIEW = "?x=null_fraction&y=logit_var&logs=y"


def columns(site: Site, *names: str) -> dict[str, Any]:
    return dict(httpx.get(f"{site.address}/api/v1/runs/{site.atlas.run}/columns", params={"name": names}).json())


def point_names(page: Page) -> list[str]:
    drawn = f"{PLOT}.data.filter((t) => t.meta && t.visible && t.marker.symbol !== 'circle-open')"
    return list(page.evaluate(f"{drawn}.flatMap((t) => t.customdata)"))


@pytest.mark.parametrize("colour", ["class", "total_effect"])
def test_every_neuron_is_drawn_once_where_its_values_are(colour: str, visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, f"?x=weight_norm&y=total_effect&colour={colour}&size=null_fraction&logs=y")
    data = columns(site, "weight_norm", "total_effect", "total_effect_se")
    traces = f"{PLOT}.data.filter((t) => t.marker.symbol !== 'circle-open')"
    drawn = page.evaluate(
        f"{traces}.flatMap((t) => t.customdata.map((name, i) => "
        "[name, t.x[i], t.y[i], t.text[i], t.marker.size[i], t.meta]))"
    )
    found = {name: rest for name, *rest in drawn}
    assert len(found) == len(drawn)
    values = data["columns"]
    rows = [row for row in range(len(data["neuron"])) if (values["total_effect"][row] or 0) > 0]
    assert set(found) == {data["neuron"][row] for row in rows}
    for row in rows:
        x, y, text, size, neuron_class = found[data["neuron"][row]]
        assert (x, y) == pytest.approx((values["weight_norm"][row], values["total_effect"][row]), rel=1e-6)
        assert neuron_class == data["neuron_class"][row]
        assert 3 <= size <= 20
        assert "±" in text
        assert " nats" in text
    assert (page.evaluate(f"{PLOT}.layout.coloraxis?.cmin ?? null") is None) == (colour == "class")


def test_a_hidden_class_stays_hidden_through_other_axes_and_a_reload(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, VIEW)
    classes = dict(zip(*(columns(site, "weight_norm")[name] for name in ("neuron", "neuron_class")), strict=True))
    plain = {name for name, own in classes.items() if own == "plain"}
    assert plain, "the tiny run has plain neurons"
    assert plain < set(classes)
    page.get_by_role("checkbox", name="Plain neurons").focus()
    page.keyboard.press("Space")
    expect(page.locator("#atlas-count")).to_have_text(re.compile(f"^{len(classes) - len(plain)} of"))
    assert set(point_names(page)) == set(classes) - plain
    page.get_by_role("button", name="Figures 2e").click()
    page.wait_for_url("**preset=figure-2e**")
    page.wait_for_function(f"{PLOT}.layout.coloraxis !== undefined")
    assert not plain & set(point_names(page))
    page.reload()
    page.wait_for_function(f"{PLOT}?.data?.some((t) => t.meta && t.visible)")
    assert not plain & set(point_names(page))
    assert asked(page)["hide"] == ["plain"]
    expect(page.get_by_role("button", name="Figures 2e")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("kind", ["Box", "Lasso"])
def test_a_selection_fills_the_table_is_in_the_address_and_can_be_cleared(kind: str, visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, VIEW)
    every = len(columns(site, "weight_norm")["neuron"])
    drag(page, kind, 0.35, 0.02, 0.98, 0.98)
    expect(page.locator("#atlas-picked-bar")).to_contain_text("selected")
    page.wait_for_timeout(300)
    picked = page.evaluate(f"{PLOT}.data.flatMap((t) => (t.selectedpoints || []).map((i) => t.customdata[i]))")
    x = f"{PLOT}.data.flatMap((t) => t.customdata.map((name, i) => [name, t.x[i]]))"
    left, right = page.evaluate(f"{PLOT}._fullLayout.xaxis.range")
    expected = {name for name, value in page.evaluate(x) if value > left + 0.35 * (right - left)}
    assert abs(len(expected ^ set(picked))) <= 2, "but for points at the very edge"
    assert 0 < len(picked) < every
    assert rows_shown(page) == len(picked)
    if len(picked) <= 50:
        assert asked(page)["pick"][0].split(",") == picked
    page.get_by_role("button", name="Clear selection").click()
    expect(page.locator("#atlas-picked-bar")).to_be_hidden()
    expect(page.locator("#atlas-count")).to_have_text(re.compile(f"^{every} of"))
    assert "pick" not in asked(page)


def test_a_link_selects_and_back_and_forward_restore_the_view(visit: Visit, site: Site) -> None:
    page, layer = visit.page, site.atlas.layer
    open_atlas(page, site, f"{VIEW}&pick={layer}.3,{layer}.5&sort=null_fraction")
    expect(page.locator("#atlas-count")).to_have_text(re.compile("^2 of"))
    expect(page.locator("#atlas-picked-bar")).to_contain_text("2 neurons selected")
    values = [row[f"{layer}.{i}"] for i in (3, 5) for row in [by_neuron(site, "null_fraction")]]
    first = f"{layer}.3" if values[0] < values[1] else f"{layer}.5"
    expect(page.locator(".ag-pinned-left-cols-container [row-index='0'] .ag-cell")).to_have_text(first)
    page.get_by_role("button", name="Figure 1", exact=True).click()
    page.wait_for_url("**preset=figure-1**")
    page.get_by_role("button", name="Figure 2a").click()
    page.wait_for_url("**preset=figure-2a**")
    page.go_back()
    expect(page.locator("#atlas-x")).to_have_value("|Change of reciprocal rank|")
    page.wait_for_function(f"{PLOT}.layout.xaxis.type === 'log'")
    expect(page.get_by_role("button", name="Figure 1", exact=True)).to_have_attribute("aria-pressed", "true")
    page.go_back()
    expect(page.locator("#atlas-x")).to_have_value("Null-space fraction ρ")
    page.go_forward()
    expect(page.locator("#atlas-x")).to_have_value("|Change of reciprocal rank|")
    expect(page.locator("#atlas-picked-bar")).to_contain_text("2 neurons selected")
    assert asked(page)["sort"] == ["null_fraction"]


def test_a_token_and_the_columns_are_in_the_address(visit: Visit, site: Site) -> None:
    page = visit.page
    token = httpx.get(f"{site.address}/api/v1/runs/{site.atlas.run}/tokens", params={"query": "e"}).json()["tokens"][0]
    open_atlas(page, site, f"?token={token['token_id']}&columns=skew_activation,null_fraction")
    expect(page.locator("#atlas-promoters")).to_contain_text("Promote")
    names = page.locator(".ag-header-cell[col-id]").evaluate_all("all => all.map((one) => one.getAttribute('col-id'))")
    shown = [
        name
        for name in names
        if not name.startswith("ag-") and name not in ("neuron", "pin", "class", "paper_criterion")
    ]
    assert shown == ["skew_activation", "null_fraction", "total_effect"], "and the one that sorts"
    page.get_by_role("button", name="Columns", exact=True).click()
    page.get_by_role("checkbox", name="Logit variance").check()
    page.wait_for_url("**columns=**logit_var**")
    assert asked(page)["token"] == [str(token["token_id"])]
    page.reload()
    expect(page.locator(".ag-header-cell[col-id='logit_var']")).to_be_visible()
    expect(page.locator("#atlas-promoters")).to_contain_text("Promote")


def by_neuron(site: Site, name: str) -> dict[str, float]:
    data = columns(site, name)
    return dict(zip(data["neuron"], data["columns"][name], strict=True))


def test_the_table_marks_points_and_goes_into_the_address(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site)
    row = page.locator(".ag-center-cols-container [row-index='1']")
    row.locator("[col-id='class']").hover()
    name = page.locator(".ag-pinned-left-cols-container [row-index='1'] .ag-cell").inner_text()
    expect(page.locator(".hoverlayer .hovertext")).to_contain_text(name)
    row.get_by_role("checkbox").click()
    page.wait_for_function(f"{PLOT}.data.some((t) => t.name === 'Ticked' && t.customdata[0] === '{name}')")
    expect(page.locator("#atlas-picked-bar")).to_contain_text("1 ticked")
    page.get_by_role("columnheader", name="Null-space").click()
    page.wait_for_url("**sort=null_fraction**")
    page.get_by_role("button", name="Clear selection").click()
    page.wait_for_function(f"!{PLOT}.data.some((t) => t.name === 'Ticked')")


def test_the_export_is_what_is_shown(visit: Visit, site: Site, tmp_path: Path) -> None:
    page, layer = visit.page, site.atlas.layer
    open_atlas(page, site, f"{VIEW}&pick={layer}.3,{layer}.5,{layer}.6&sort=-null_fraction")
    expect(page.locator("#atlas-count")).to_have_text(re.compile("^3 of"))
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("checkbox", name="Activation kurtosis").click()
    page.get_by_role("checkbox", name="Weight norm").click()
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    assert download.value.suggested_filename == f"{site.atlas.slug}-run{site.atlas.run}-neurons.csv"
    download.value.save_as(tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").open(encoding="utf-8-sig")))
    assert "kurtosis_activation" in rows[0]
    assert "weight_norm" not in rows[0]
    known = by_neuron(site, "null_fraction")
    assert [row["neuron"] for row in rows] == sorted((f"{layer}.{i}" for i in (3, 5, 6)), key=lambda n: -known[n])
    assert all(float(row["null_fraction"]) == pytest.approx(known[row["neuron"]], rel=1e-6) for row in rows), (
        "seven digits"
    )


def test_pins_follow_from_page_to_page_and_stay(visit: Visit, site: Site) -> None:
    page, layer = visit.page, site.atlas.layer
    open_atlas(page, site, f"{VIEW}&pick={layer}.3,{layer}.5")
    bar = page.get_by_role("region", name="Pinned neurons")
    expect(page.locator("#atlas-count")).to_have_text(re.compile("^2 of"))
    expect(bar).to_have_count(0)
    page.locator(".ag-center-cols-container [col-id='pin']").first.click()
    expect(bar.get_by_role("link")).to_have_count(1)
    page.get_by_role("checkbox", name="Column with Header Selection").click()
    page.get_by_role("button", name="Pin ticked").click()
    expect(bar.get_by_role("link")).to_have_count(2)
    page.wait_for_function(f"{PLOT}.data.some((t) => t.name === 'Pinned' && t.text.length === 2)")
    assert page.evaluate("JSON.parse(localStorage.getItem('pins'))")[site.atlas.slug]
    page.get_by_role("link", name="Text lab").click()
    page.wait_for_url("**/lab**")
    expect(bar.get_by_role("link")).to_have_count(2)
    page.reload()
    expect(bar.get_by_role("link")).to_have_count(2)
    bar.get_by_role("link", name=f"{layer}.5").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Neuron {layer}.5")
    bar.get_by_role("button", name=f"Unpin {layer}.5").click()
    expect(bar.get_by_role("link")).to_have_count(1)
    bar.get_by_role("button", name="Unpin all").click()
    expect(bar).to_have_count(0)


def test_stored_nonsense_breaks_nothing(visit: Visit, site: Site) -> None:
    page = visit.page
    stored = json.dumps({"x": ["<b>", "29.1", 5], "y": "no list"})
    page.add_init_script(f"localStorage.setItem('pins', {json.dumps(stored)})")
    open_atlas(page, site)
    expect(page.get_by_role("region", name="Pinned neurons").get_by_role("link")).to_have_text(["29.1"])


def test_a_token_finds_the_neurons_that_move_it(visit: Visit, site: Site) -> None:
    page, run = visit.page, site.atlas.run
    open_atlas(page, site)
    own = httpx.get(f"{site.address}/api/v1/runs/{run}/neurons/{site.atlas.layer}.3/logits").json()["top"]
    token = next(one for one in own if one["token"].strip().isascii() and one["token"].strip().isalnum())
    page.locator("#atlas-token-query").fill(token["token"])
    page.keyboard.press("Enter")
    page.locator(f"#atlas-token-options button[title='token {token['token_id']}']").click()
    api = httpx.get(
        f"{site.address}/api/v1/runs/{run}/promoters", params={"token_id": token["token_id"], "limit": 10}, timeout=60
    ).json()
    links = page.locator("#atlas-promoters a")
    expect(links).to_have_text([push["neuron"] for push in (*api["promote"], *api["suppress"])])
    page.wait_for_function(f"{PLOT}.data.some((t) => t.name === 'Promote the token')")
    marked = page.evaluate(f"{PLOT}.data.find((t) => t.name === 'Suppress the token').customdata")
    assert set(marked) == {push["neuron"] for push in api["suppress"]}
    page.locator("#atlas-token-query").fill("")
    expect(links).to_have_count(0)
    page.locator("#atlas-token-query").fill("no token has this in it")
    expect(page.locator("#atlas-token-options")).to_contain_text("No token of the vocabulary")


def test_figures_that_cannot_be_drawn_say_why(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site)
    page.get_by_role("button", name="Figure 11").click()
    expect(page.locator("#atlas-note")).to_contain_text("Induction has not run")
    page.reload()
    expect(page.locator("#atlas-note")).to_contain_text("Induction has not run")
    page.get_by_role("button", name="Figure 1", exact=True).click()
    expect(page.locator("#atlas-note")).to_be_empty()
    page.wait_for_function(f"{PLOT}.data[0]?.customdata?.length > 0")


def test_a_nonsense_neuron_is_told(visit: Visit, site: Site) -> None:
    page = visit.page
    watched = len(visit.errors)
    open_atlas(page, site)
    page.get_by_label("Go to a neuron").fill("nonsense <b>")
    page.keyboard.press("Enter")
    expect(page.get_by_text("layer.index")).to_be_visible()
    assert len(visit.errors) == watched


@pytest.mark.parametrize("format", ["PNG", "SVG"])
def test_a_figure_is_taken_away_on_white(format: str, visit: Visit, site: Site, tmp_path: Path) -> None:
    page = visit.page
    open_atlas(page, site, VIEW)
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save the figure as {format}").click()
    name = f"{site.atlas.slug}-run{site.atlas.run}-logit_var-by-null_fraction.{format.lower()}"
    assert download.value.suggested_filename == name
    download.value.save_as(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    if format == "PNG":
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20], "big") == 2200
    else:
        text = data.decode()
        assert "rgb(255, 255, 255)" in text
        assert text.count('class="point ') >= len(columns(site, "weight_norm")["neuron"]), "points are vectors"
        assert "Plain neurons" in text


def test_python_that_is_copied_draws_the_same_points(visit: Visit, site: Site, tmp_path: Path) -> None:
    page, layer = visit.page, site.atlas.layer
    open_atlas(page, site, f"{VIEW}&colour=total_effect&size=weight_norm&hide=prediction&pick={layer}.3")
    drawn = dict(
        page.evaluate(
            f"{PLOT}.data.filter((t) => t.meta && t.visible && t.marker.symbol !== 'circle-open')"
            ".flatMap((t) => t.customdata.map((name, i) => [name, [t.x[i], t.y[i]]]))"
        )
    )
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.locator("#atlas-python-text")).to_contain_text("backend.client")
    page.locator("#atlas-python-text + div, [title='Copy']").first.click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('backend.client'))")
    script = tmp_path / "view.py"
    script.write_text(page.evaluate("navigator.clipboard.readText()"))
    report = (
        f"import json, runpy; f = runpy.run_path({str(script)!r})['figure']; "
        "print(json.dumps([[n, [x, y]] for t in f.data for n, x, y in zip(t.text, t.x, t.y)])); "
        "print(f.layout.yaxis.type)"
    )
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    points, scale = done.stdout.strip().splitlines()
    found = dict(json.loads(points))
    assert found.keys() == drawn.keys()
    assert all(found[name] == pytest.approx(drawn[name], rel=1e-6) for name in drawn)
    assert scale == "log"


def test_the_page_works_while_nothing_is_wrong_elsewhere(visit: Visit, site: Site) -> None:
    """A second window has its own view; pins are shared through the browser's storage only."""
    page = visit.page
    open_atlas(page, site, VIEW)
    other = watch(page.context.new_page(), site)
    open_atlas(other.page, site, "?x=weight_norm&y=logit_var")
    assert asked(page)["x"] == ["null_fraction"]
    assert other.errors == []
    other.page.close()
