"""Pages for people: their security policy, and the description of the server as a page without foreign hosts."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["documentation", "page_of"]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font: 600 1.05rem ui-monospace, monospace; margin: 2.2rem 0 .3rem; }
h2 span { display: inline-block; min-width: 4.2rem; opacity: .65; }
pre { overflow: auto; padding: .8rem 1rem; border: 1px solid #8884; border-radius: .5rem; font-size: .85rem; }
summary { cursor: pointer; }
"""


def page_of(text: str) -> tuple[str, str]:
    """A page, and a policy under which its own style and script run and nothing else."""
    scripts, styles = (_hashes(text, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _hashes(text: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def documentation(openapi: Mapping[str, Any]) -> str:
    """What the server takes and gives, from its own description."""
    parts = []
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><span>{method.upper()}</span>{html.escape(path)}</h2>")
            parts.append(f"<p>{html.escape(operation.get('summary', ''))}</p>")
            body = operation.get("requestBody")
            if body:
                parts.append(_fold("Body", body["content"]["application/json"]["schema"]))
            for status, answer in operation["responses"].items():
                content = answer.get("content", {}).get("application/json", {}).get("schema")
                if status == "200" and content:
                    parts.append(_fold("Answer", _resolved(content, openapi)))
            refusals = sorted(status for status in operation["responses"] if status != "200")
            if refusals:
                parts.append(f"<p>Refusals, with a sentence in <code>detail</code>: {', '.join(refusals)}.</p>")
    info = openapi["info"]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>micropref: endpoints</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>micropref {html.escape(info['version'])}</h1><p>{html.escape(info['summary'])} The same for machines: "
        f'<a href="/openapi.json">openapi.json</a>. <a href="/">Try it.</a></p>{"".join(parts)}</body></html>'
    )


def _fold(title: str, schema: Any) -> str:
    text = html.escape(json.dumps(schema, indent=2, ensure_ascii=False))
    return f"<details><summary>{title}</summary><pre>{text}</pre></details>"


def _resolved(schema: Mapping[str, Any], openapi: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema
