"""Views as one HTML file without outside resources: thumbnails inside, all text escaped, no scripts."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.show.tokens import Token
from align.show.views import View

_SIDE = 320

_STYLE = """\
:root { color-scheme: light dark; --rule: #8884; --soft: #8889; --learnt: #2a9d4a55; }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.1rem; } h2 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
article { border-top: 1px solid var(--rule); padding: 1rem 0; }
img { max-height: 14rem; margin: 0 .5rem .5rem 0; border-radius: 4px; }
figure { display: inline-block; margin: 0; } figcaption { font-size: .8rem; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.facts { font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; }
.tokens { font: .9rem/1.7 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.tokens span { border-radius: 3px; box-shadow: 0 0 0 1px var(--rule); } .learnt { background: var(--learnt); }
.fault { color: #c33; }
"""

_TEMPLATE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src '{{ hash }}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width"><style>{{ style }}</style></head><body>
<h1>{{ title }}</h1>
{% for entry in entries %}<article><h2>{{ entry.view.id }}</h2>
{% for picture in entry.pictures %}<figure>
{% if picture.data %}<img alt="{{ picture.name }}" src="{{ picture.data }}">{% endif %}
<figcaption>{{ picture.label }}{{ picture.name }}
{% if picture.fault %}<span class="fault">{{ picture.fault }}</span>{% endif %}</figcaption></figure>
{% endfor %}
<dl>{% for label, text in entry.view.texts %}<dt>{{ label }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
{% for label, tokens in entry.tokens %}<p class="facts">{{ label }}: green is learnt</p><div class="tokens">
{%- for token in tokens %}<span{% if token.learnt %} class="learnt"{% endif %}>{{ token.text }}
{%- if token.count > 1 %}&times;{{ token.count }}{% endif %}</span>{% endfor -%}
</div>{% endfor %}
<p class="facts">
{% for name, value in entry.view.facts.items() %}{{ name }}: {{ value }} &ensp; {% endfor %}</p>
</article>
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class Picture:
    """A thumbnail as a data URL, or why there is none."""

    name: str
    label: str = ""
    data: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Entry:
    """A row on the page."""

    view: View
    pictures: Sequence[Picture]
    tokens: Sequence[tuple[str, Sequence[Token]]] = ()


def pictures_of(shown: View, image_root: Path) -> list[Picture]:
    """Thumbnails of a row's pictures; a picture that cannot be read says why."""
    labelled = [(name, "") for name in shown.images] + [(name, "worse: ") for name in shown.worse]
    return [_picture(name, label, image_root) for name, label in labelled]


def render_page(title: str, entries: Sequence[Entry]) -> str:
    """The page; everything from the rows is escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    template = environment.from_string(_TEMPLATE)
    return template.render(title=title, entries=entries, style=Markup(_STYLE), hash=f"sha256-{digest}")


def _picture(name: str, label: str, image_root: Path) -> Picture:
    try:
        picture = open_image(resolve_image(image_root, name))
    except AlignError as error:
        return Picture(name, label, fault=error.what)
    picture.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return Picture(name, label, "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode())
