"""Render the OpenAPI document as a page that needs no script and no other server."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
summary { cursor: pointer; padding: .4rem 0; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; border: 1px solid; border-radius: .3rem; padding: .6rem; }
table { border-collapse: collapse; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 600; }
"""
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def render_page(document: Mapping[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        document: the OpenAPI document.
    """
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            tag = (about.get("tags") or ["Other"])[0]
            groups.setdefault(tag, []).append(_route(document, path, method.upper(), about))
    body = "".join(f"<h2>{_text(tag)}</h2>{''.join(routes)}" for tag, routes in groups.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>genrec: API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>genrec {_text(document['info']['version'])}</h1>"
        "<p>Requests and answers are JSON. Errors are problem details (RFC 9457). If the service has "
        "keys, send <code>Authorization: Bearer KEY</code>. The same as a file: "
        '<a href="/openapi.json">openapi.json</a>.</p>'
        f"{body}</body></html>"
    )


def _route(document: Mapping[str, Any], path: str, method: str, about: Mapping[str, Any]) -> str:
    described = "".join(f"<p>{_text(p)}</p>" for p in about.get("description", "").split("\n\n"))
    scope = about.get("x-scope")
    needs = f"<p>Scope of the key: <code>{_text(scope)}</code></p>" if scope else ""
    content = about.get("requestBody", {}).get("content", {}).get("application/json", {})
    fields = [_row(p["name"], p.get("description", "")) for p in about.get("parameters", ())]
    fields += _fields(document, content.get("schema", {}))
    table = (
        f"<table><tr><th>field</th><th>meaning</th></tr>{''.join(fields)}</table>" if fields else ""
    )
    shown = "".join(
        f"<p>Example: {_text(e['summary'])}</p><pre>{_text(json.dumps(e['value'], indent=2, ensure_ascii=False))}</pre>"
        for e in content.get("examples", {}).values()
    )
    return (
        f'<details><summary><code><span class="method">{method}</span> {_text(path)}</code> '
        f"{_text(about.get('summary', ''))}</summary>{described}{needs}{table}{shown}</details>"
    )


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return a row for each field of a message, or of each of its alternatives."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        schema = document["components"]["schemas"][name]
    rows = [
        row
        for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ()))
        for row in _fields(document, each)
    ]
    needed = schema.get("required", ())
    for name, about in schema.get("properties", {}).items():
        mark = " (needed)" if name in needed else ""
        rows.append(_row(name, about.get("description", "") + mark))
    return list(dict.fromkeys(rows))


def _row(name: str, description: str) -> str:
    return f"<tr><td><code>{_text(name)}</code></td><td>{_text(description)}</td></tr>"


def _text(value: object) -> str:
    return html.escape(str(value))
