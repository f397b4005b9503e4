"""What docs/adding.md shows works: its blocks are taken into a copy of the tree, its commands run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.repository import REPO

PAGE = REPO / "docs" / "adding.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"\A# (\S+)\n")


@dataclass(frozen=True)
class Command:
    """A line of a console block, and what it must print."""

    line: str
    prints: tuple[str, ...]


def sections() -> dict[str, list[tuple[str, str]]]:
    """Heading -> (language, text) of its blocks, in order; headings without blocks are left out."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    found = {name: _BLOCK.findall(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    return {name: blocks for name, blocks in found.items() if blocks}


def commands(text: str) -> list[Command]:
    found = [part.splitlines() for part in re.split(r"^\$ ", text, flags=re.MULTILINE) if part.strip()]
    return [Command(lines[0], tuple(lines[1:])) for lines in found]


def test_the_page_is_read_as_it_is_written() -> None:
    assert commands("$ a b\none\ntwo\n$ c\n") == [Command("a b", ("one", "two")), Command("c", ())]
    assert len(sections()) >= 4


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, with a picture to import."""
    root = tmp_path_factory.mktemp("adding")
    for name in ("align", "data_tools", "evals"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, root / name)
    (root / "pictures").mkdir()
    Image.new("RGB", (8, 6), (120, 60, 20)).save(root / "pictures" / "a.png")
    return root


@pytest.mark.parametrize("name", list(sections()))
def test_an_example_works(name: str, tree: Path) -> None:
    for language, text in sections()[name]:
        if language == "diff":
            done = _run(["git", "apply", "--recount", "-"], tree, text)
            assert done.returncode == 0, f"{text}\n{done.stderr}"
        elif language == "console":
            for command in commands(text):
                _check(command, tree)
        else:
            named = _FILE.match(text)
            assert named is not None, f"a {language} block of {name} names no file"
            (tree / named.group(1)).parent.mkdir(exist_ok=True)
            (tree / named.group(1)).write_text(text if language == "python" else text[named.end() :])


def _check(command: Command, tree: Path) -> None:
    """`pip install` becomes what it would do to the tree's metadata: the environment is not touched."""
    words = command.line.split(" ", 1)
    if words[0] == "pip":
        line = f"{sys.executable} -c 'from setuptools import setup; setup()' -q egg_info"
    else:
        line = f"{sys.executable} {words[1]}"
    done = _run(["bash", "-c", line], tree)
    printed = done.stdout + done.stderr
    for wanted in command.prints:
        assert " ".join(wanted.split()) in " ".join(printed.split()), f"{command.line}\n{printed}"
    assert "Traceback" not in printed, printed
    assert done.returncode == 0 or "error: " in printed, printed


def _run(command: list[str], tree: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"GIT_CEILING_DIRECTORIES": str(tree.parent)}
    return subprocess.run(
        command, cwd=tree, env=environment, input=given, capture_output=True, text=True, timeout=300
    )
