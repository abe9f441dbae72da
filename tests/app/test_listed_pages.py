"""Every listed page is there under its name, and the header links to those with a place in the menu."""

import pytest
from dash import page_registry
from fastapi import FastAPI

from app.dashboard import create_dashboard
from app.pages.listed import PAGES, menu
from backend.client import AsyncClient


@pytest.fixture(autouse=True)
def _dashboard() -> None:
    service = FastAPI()
    create_dashboard(AsyncClient(service=service), service)


def test_every_listed_page_is_registered_under_its_name() -> None:
    assert set(page_registry) == set(PAGES)


def test_a_page_has_a_title_that_names_the_instrument() -> None:
    titles = [page["title"] for page in page_registry.values()]
    assert all(callable(title) or title.endswith("Calibroscope") for title in titles)
    written = [title for title in titles if not callable(title)]
    assert len(set(written)) == len(written)


def test_the_menu_leads_to_pages_that_are_there() -> None:
    paths = {page["path"] for page in page_registry.values()}
    links = dict(menu())
    assert links["Atlas"] == "/"
    assert set(links.values()) <= paths
    assert "Not found" not in " ".join(links)
