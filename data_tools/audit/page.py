"""The audit's page: findings, histograms, and pairs to look at with their pictures, in one file."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.rows.schema import PreferenceRow
from align.show.differences import differences
from data_tools.audit.findings import Finding
from data_tools.audit.histogram import histogram
from data_tools.audit.reading import answers

_THUMBNAIL = 640
_STATES = {"good": "fine", "look": "look at it", "bad": "mend it", "unknown": "not measured"}


def render_page(
    title: str,
    findings: Sequence[Finding],
    rows: Mapping[str, PreferenceRow],
    root: Path | None,
    examples: int,
    read: tuple[int, int],
    serve: str,
) -> str:
    """The page's HTML; all text of the data is escaped.

    Args:
        rows: the pairs to show, by id.
        root: of the pictures; None shows none.
        examples: most pairs shown for one finding.
        read: how many pairs were read, and how many rows could not be.
        serve: the command that shows all of them.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_read("page.html.j2"))
    style = _read("page.css")
    sections = [
        {
            "finding": finding,
            "state": _STATES[finding.state],
            "chart": histogram(finding.values, finding.unit) if len(finding.values) else None,
            "pairs": [_pair(rows[row_id], root) for row_id in finding.rows[:examples] if row_id in rows],
        }
        for finding in findings
    ]
    return template.render(
        title=title,
        headline=headline(findings),
        num_pairs=read[0],
        num_unread=read[1],
        serve=serve,
        sections=sections,
        style=Markup(style),
        csp="default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'",
    )


def headline(findings: Sequence[Finding]) -> str:
    """The one line that stands above all; what was not measured is not called sound."""
    counts = {state: sum(finding.state == state for finding in findings) for state in _STATES}
    if counts["bad"]:
        more = f", {counts['look']} worth a look" if counts["look"] else ""
        return f"{counts['bad']} to mend before training{more}"
    unknown = counts["unknown"]
    checks = f"{unknown} check{'s' if unknown > 1 else ''} not measured"
    if counts["look"]:
        return f"{counts['look']} worth a look" + (f", {checks}" if unknown else "")
    return f"Nothing found in what was measured; {checks}" if unknown else "Nothing speaks against training"


def _pair(row: PreferenceRow, root: Path | None) -> dict[str, Any]:
    chosen, rejected = answers(row)
    sides = differences(chosen, rejected)
    return {
        "id": row.id,
        "prompt": row.prompt[-1].marked,
        "chosen": sides[0],
        "rejected": sides[1],
        "pictures": [_thumbnail(root, name) for name in row.images[:2]] if root is not None else [],
        "margin": row.meta.get("margin"),
    }


def _thumbnail(root: Path, name: str) -> dict[str, str]:
    """A small JPEG as a data URL; for a picture that cannot be read, why."""
    try:
        image = open_image(resolve_image(root, name))
    except AlignError as error:
        return {"name": name, "fault": error.what}
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return {"name": name, "url": "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()}


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return files("data_tools.audit").joinpath(name).read_text(encoding="utf-8")
