"""SVGs of figures, by Kaleido and a Chrome or Chromium; neither is needed for anything else."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_WIDTH, _LEAST_HEIGHT = 900, 540


class NoStills(Exception):
    """There is nothing to draw SVGs with; the sentence says what to install."""


async def draw_stills(figures: Mapping[Path, go.Figure]) -> None:
    """Write each figure as SVG.

    Raises:
        NoStills: Kaleido or a browser is missing, or does not start.
    """
    try:
        import kaleido
    except ImportError:
        raise NoStills("No SVGs were drawn: install Kaleido for them (pip install 'calibroscope[report]').") from None
    browser = find_browser()
    if browser is None:
        raise NoStills("No SVGs were drawn: no Chrome or Chromium was found. Install one, or set CHROMIUM to its path.")
    # Without MathJax, which Kaleido would fetch from elsewhere; Plotly's script is the one that is installed.
    page = kaleido.PageGenerator(mathjax=False)
    try:
        async with kaleido.Kaleido(n=1, timeout=90, page_generator=page, path=browser) as drawing:
            for path, figure in figures.items():
                height = max(_LEAST_HEIGHT, figure.layout.height or 0)
                await drawing.write_fig(figure, path=path, opts={"format": "svg", "width": _WIDTH, "height": height})
    except Exception as error:  # whatever a browser fails with: the rest of the report is worth having
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise NoStills(f"Not all SVGs were drawn: {browser} failed ({why}).") from error


def find_browser() -> str | None:
    """The browser that CHROMIUM or BROWSER_PATH names, or one on the path."""
    for name in (os.environ.get("CHROMIUM", ""), os.environ.get("BROWSER_PATH", ""), *_BROWSERS):
        if name and (path := shutil.which(name)):
            return path
    mac = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    return str(mac) if sys.platform == "darwin" and mac.is_file() else None
