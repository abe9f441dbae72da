"""What a page offers that leads elsewhere: its links, and the buttons of its figures."""

from playwright.sync_api import Page

from backend.glossary import PAPER

BUTTONS = {"Download plot", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}


FIGURES = """[...document.querySelectorAll('.js-plotly-plot')].filter((plot) => plot.data).map((plot) => ({
    figure: plot.closest('[id]')?.id || plot.textContent.slice(0, 40),
    buttons: [...plot.querySelectorAll('.modebar-btn')].map((one) => one.dataset.title),
    links: [...plot.querySelectorAll('a')].map((one) => one.getAttribute('href')).filter((href) => href),
    sends: plot._context.showSendToCloud}))"""


LINKS = """[...document.querySelectorAll('a[href], form[action], iframe')]
    .map((one) => one.href || one.action || one.src)"""


PRESS = """() => {
    window.opened = [];
    window.open = (address) => { window.opened.push(address); return null; };
    document.querySelectorAll('.modebar-btn:not([data-title^=Download])').forEach((one) => one.click());
}"""


def leads_nowhere(page: Page, own: str) -> int:
    """Read every link and every figure's toolbar, press its buttons, and read them again; how many figures there are.

    Args:
        own: what the addresses of the page's own machine begin with.
    """
    popups: list[str] = []
    page.context.on("page", lambda one: popups.append(one.url))
    found = _toolbars(page)
    page.evaluate(PRESS)
    page.wait_for_timeout(200)
    assert (page.evaluate("window.opened"), popups) == ([], [])
    assert _toolbars(page) == found
    elsewhere = {link for link in page.evaluate(LINKS) if not link.startswith((own, "javascript:", "blob:", "data:"))}
    assert elsewhere <= {PAPER}
    return found


def _toolbars(page: Page) -> int:
    figures = page.evaluate(FIGURES)
    for one in figures:
        assert one["buttons"], f"a toolbar that is not there was not read: {one}"
        assert set(one["buttons"]) <= BUTTONS, one
        assert (one["links"], one["sends"]) == ([], False), one
    return len(figures)
