"""The papers that docstrings name, with who uses them: `python -m tests.tree.papers > docs/papers.md`."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from tests.repository import REPO
from tests.tree.import_graph import PACKAGES

_ARXIV = re.compile(r"arXiv:? ?(\d{4}\.\d{4,5})")
_WHO = re.compile(r"([A-Z][\w'’-]+(?: et al\.| (?:and|&) [A-Z][\w'’-]+)?),? \(?(\d{4})\)?[^.;]{0,20}$")
_HEAD = """\
# Papers

Whom a formula, metric or protocol comes from, as the docstrings say it; equations, and where released code
differs from its paper, stand there. Made by `python -m tests.tree.papers`.

| paper | arXiv | used in |
|---|---|---|
"""


def page() -> str:
    """The whole page, sorted by arXiv number."""
    files: dict[str, set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            for number, name in _cited(path.read_text()):
                files[number].add(str(path.relative_to(REPO)))
                names[number] = names.get(number) or name
    lines = [
        f"| {names[number]} | [{number}](https://arxiv.org/abs/{number}) "
        f"| {', '.join(f'`{name}`' for name in sorted(used))} |"
        for number, used in sorted(files.items())
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _cited(source: str) -> Iterator[tuple[str, str]]:
    """arXiv number and, where it stands before it, author and year, of each docstring's papers."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        text = " ".join(node.value.split())
        for found in _ARXIV.finditer(text):
            who = _WHO.search(text[: found.start()].rstrip(" ,(;:"))
            yield found.group(1), f"{who.group(1)}, {who.group(2)}" if who else ""


if __name__ == "__main__":
    print(page(), end="")
