"""The API's documentation as one plain page, made from its OpenAPI description: nothing is loaded from elsewhere."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
code{font-family:ui-monospace,monospace;font-size:.95em}h2{margin-top:2rem;border-bottom:1px solid #ddd}
.m{display:inline-block;min-width:3.2rem;font-weight:600;color:#0072B2}dd{margin:0 0 .8rem 1rem;color:#444}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#16181c}dd{color:#aaa}h2{border-color:#333}}
"""


@router.get("/api/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """Every endpoint with what it takes and answers."""
    description: dict[str, Any] = request.app.openapi()
    groups: dict[str, list[str]] = {}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation.get("tags", ["other"])[0], []).append(_endpoint(path, method, operation))
    body = "".join(f"<h2>{escape(tag)}</h2><dl>{''.join(entries)}</dl>" for tag, entries in groups.items())
    head = f"<title>Calibroscope API</title><style>{_STYLE}</style>"
    intro = '<p>The full description, for tools: <a href="/api/openapi.json">/api/openapi.json</a></p>'
    page = f'<!doctype html><html lang="en"><head><meta charset="utf-8">{head}</head>'
    return HTMLResponse(f"{page}<body><h1>Calibroscope API</h1>{intro}{body}</body></html>")


def _endpoint(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = ", ".join(
        f"<code>{escape(parameter['name'])}</code>"
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    )
    takes = f"<br>Parameters: {parameters}" if parameters else ""
    reference = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    body = f"<br>Body: <code>{escape(reference['$ref'].rsplit('/', 1)[-1])}</code>" if "$ref" in reference else ""
    description = escape(operation.get("description", ""))
    name = f'<span class="m">{method.upper()}</span> <code>{escape(path)}</code>'
    return f"<dt>{name}</dt><dd>{description}{takes}{body}</dd>"
