"""Classes and errors on the atlas page: chance lines, the paper's mark, ± in the table, in its export and on hover."""

import csv
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.atlas_page import PLOT, asked, open_atlas
from tests.browser.conftest import Site, Visit

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_figures_have_the_runs_chance_lines_and_the_classes_are_told(visit: Visit, site: Site) -> None:
    page, run = visit.page, f"{site.address}/api/v1/runs/{site.atlas.run}"
    chance = httpx.get(run).json()["chance"]
    open_atlas(page, site, "?preset=figure-2e")
    page.wait_for_function(f"{PLOT}.layout.shapes?.length === 2")
    lines = page.evaluate(f"{PLOT}.layout.shapes.map((one) => [one.x0, one.y0, one.label.text])")
    assert lines[0][0] == pytest.approx(chance["null_fraction"])
    assert lines[0][2].startswith("chance ")
    assert lines[1][1:] == [0.2, "cut 0.2"]
    page.get_by_role("button", name="Figure 2a").click()
    page.wait_for_function(f"{PLOT}.layout.yaxis.title.text.startsWith('Logit')")
    drawn = page.evaluate(f"{PLOT}.layout.shapes.map((one) => one.y0)")
    assert drawn == pytest.approx([chance["logit_var_low"], chance["logit_var_high"]])
    expect(page.locator("#atlas-classes")).to_contain_text(re.compile("^This run has .* entropy neuron"))
    page.get_by_text("By which rule").click()
    expect(page.locator("#atlas-classes")).to_contain_text("standard errors")


def test_the_papers_criterion_is_a_preset_and_a_column(visit: Visit, site: Site) -> None:
    page = visit.page
    url = f"{site.address}/api/v1/runs/{site.atlas.run}/columns"
    marks = httpx.get(url, params={"name": ["logit_var"]}).json()
    marked = {name for name, mark in zip(marks["neuron"], marks["paper_criterion"], strict=True) if mark}
    open_atlas(page, site, "?x=null_fraction&y=logit_var")
    page.get_by_role("button", name="Paper's criterion").click()
    page.wait_for_url("**preset=paper-criterion**")
    page.wait_for_function(f"Array.isArray({PLOT}.data[0]?.marker?.color)")
    filled = page.evaluate(
        f"{PLOT}.data.filter((t) => Array.isArray(t.marker.color))"
        ".flatMap((t) => t.customdata.filter((_, i) => t.marker.color[i] === '#8a5cc2'))"
    )
    assert set(filled) == marked
    expect(page.get_by_role("button", name="Paper's criterion")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".ag-header-cell[col-id='paper_criterion']")).to_be_visible()
    page.reload()
    page.wait_for_function(f"Array.isArray({PLOT}?.data?.[0]?.marker?.color)")


def test_errors_stand_in_the_table_by_a_switch_and_always_in_its_export(
    visit: Visit, site: Site, tmp_path: Path
) -> None:
    page = visit.page
    open_atlas(page, site)
    cell = page.locator(".ag-center-cols-container [row-index='0'] [col-id='total_effect']")
    expect(cell).to_have_text(re.compile(r"^[^±]+$"))
    page.get_by_role("switch", name="± errors").click()
    expect(cell).to_have_text(re.compile(r"\d ± \d"))
    page.wait_for_url("**errors=on**")
    page.reload()
    expect(cell).to_have_text(re.compile(r"\d ± \d"))
    page.get_by_role("switch", name="± errors").click()
    expect(cell).to_have_text(re.compile(r"^[^±]+$"))
    assert "errors" not in asked(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    download.value.save_as(tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").open(encoding="utf-8-sig")))
    names = list(rows[0])
    assert names[names.index("total_effect") + 1] == "total_effect_se"
    assert float(rows[0]["total_effect_se"]) > 0
    assert "null_fraction_se" not in names
    assert "paper_criterion" in names
    hover = page.evaluate(f"{PLOT}.data.flatMap((t) => t.text || []).find((text) => text.includes('±'))")
    assert hover is None, "weights have no error"
    page.get_by_role("button", name="Figure 1", exact=True).click()
    page.wait_for_function(f"{PLOT}.data[0].text?.some((text) => /\\d ± [\\d.e−]+ nats/.test(text))")
