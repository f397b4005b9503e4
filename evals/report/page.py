"""The page: one file without outside resources, all model text escaped, scripts and styles pinned by hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from markupsafe import Markup


def render_page(context: Mapping[str, Any]) -> str:
    """Fill the template; everything that is not Markup is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_read("template.html.j2"))
    style, script = _read("style.css"), _read("page.js")
    return (
        template.render(**context, style=Markup(style), script=Markup(script), csp=_policy(style, script))
        + "\n"
    )


def _policy(style: str, script: str) -> str:
    """Nothing from outside, no inline handlers, no style attributes: these two texts and data: pictures."""
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return files("evals.report").joinpath(name).read_text(encoding="utf-8")
