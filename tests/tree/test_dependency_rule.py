"""Rules about the tree as a whole: who imports whom, what stages import, what the repository may hold."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from align.pipeline.stages import OWN_STAGES
from tests.repository import REPO
from tests.tree.papers import page

PACKAGES = ("align", "data_tools", "evals")
FORBIDDEN = {
    "align": {"data_tools", "evals"},
    "data_tools": {"evals"},
    "evals": {"data_tools"},
}
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "vllm", "matplotlib", "accelerate")
FILE_CALLS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rename"}
STAGES: dict[str, str] = (
    tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["entry-points"]["align.stages"]
    | OWN_STAGES
)


def sources(package: str) -> list[Path]:
    return sorted((REPO / package).rglob("*.py"))


def imported_packages(source: str) -> set[str]:
    """Top-level names of every absolute import, also of those inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def file_calls(source: str) -> list[str]:
    """Calls that touch files, by the called name."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls]
    return [name for name in names if name in FILE_CALLS]


def repository_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=REPO, capture_output=True, check=True, text=True).stdout
    return [REPO / name for name in listing.split("\0") if name and (REPO / name).is_file()]


def test_imports_are_seen_in_functions_too() -> None:
    assert imported_packages("def f():\n    from evals.stats import x\n    import a.b, c") == {
        "evals",
        "a",
        "c",
    }
    assert file_calls("with open(p) as f:\n    path.write_text('x')\nopened(p)") == ["open", "write_text"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_one_that_it_may_not(package: str) -> None:
    found = {
        str(path.relative_to(REPO)): sorted(imported_packages(path.read_text()) & FORBIDDEN[package])
        for path in sources(package)
    }
    assert found, f"no sources under {package}"
    assert {path: names for path, names in found.items() if names} == {}


def test_trainers_open_no_files() -> None:
    found = {str(path.relative_to(REPO)): file_calls(path.read_text()) for path in sources("align/trainers")}
    assert {path: names for path, names in found.items() if names} == {}


def test_only_run_stage_opens_a_run_folder() -> None:
    opening = [
        path for package in PACKAGES for path in sources(package) if "RunFolder.open(" in path.read_text()
    ]
    assert [str(path.relative_to(REPO)) for path in opening] == ["align/run/stage.py"]


def test_every_registered_stage_is_in_the_tree() -> None:
    missing = [m for m in STAGES.values() if not (REPO / (m.replace(".", "/") + ".py")).is_file()]
    assert missing == []


def test_stages_import_no_heavy_library() -> None:
    """A wrong recipe stops within a second only if its stage's module imports fast."""
    present = [m for m in STAGES.values() if (REPO / (m.replace(".", "/") + ".py")).is_file()]
    script = (
        "import importlib, json, sys\n"
        f"heavy = {{m: None for m in {HEAVY!r}}}\n"
        "blame = {}\n"
        f"for name in ['align.cli', 'align.pipeline', *{present!r}]:\n"
        "    importlib.import_module(name)\n"
        "    for lib in heavy:\n"
        "        if lib in sys.modules: blame.setdefault(lib, name)\n"
        "print(json.dumps(blame))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


def test_what_is_required_is_imported() -> None:
    called = {"faiss-cpu": "faiss", "pillow": "PIL", "scikit-learn": "sklearn"}
    required = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.match(r"[\w-]+", line) for line in required]
    wanted = {called.get(name.group(), name.group()) for name in names if name is not None}
    imported = {
        name
        for package in PACKAGES
        for path in sources(package)
        for name in imported_packages(path.read_text())
    }
    assert len(wanted) == len(required) and wanted - imported == set()


def test_the_repository_holds_no_pickles() -> None:
    suffixes = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
    assert [str(path) for path in repository_files() if path.suffix in suffixes] == []


def test_the_repository_names_no_place_but_its_own() -> None:
    """No absolute paths of the machine it was written on, no package indexes, no remote code."""
    allowed_shared = {REPO / "tests" / "repository.py"}
    place = re.compile(r"(?<![\w.}/])/(work|tmp|opt|root)/|files\.pythonhosted|pypi\.org|registry\.npmjs")
    remote = re.compile(r"trust_remote_code['\"]?\s*[=:]\s*(True|true)\b")
    shared = re.compile(r"\.\./shared|parents?(?:\[\d\])? / \"shared\"")
    bad = []
    for path in repository_files():
        if path.suffix in {".png", ".safetensors", ".parquet", ".svg"} or path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        patterns = [place, remote] + ([] if path in allowed_shared else [shared])
        bad += [f"{path.relative_to(REPO)}: {m.group()}" for p in patterns for m in p.finditer(text)]
    assert bad == []


def test_no_pattern_is_possessive() -> None:
    """Python before 3.11.5 reads groups in possessive quantifiers and atomic groups wrongly
    (python/cpython#106052), and Debian 12 has 3.11.2: a place was read out of `on the left of the dog`."""
    possessive = re.compile(r"\(\?>|(?<!\\)[*+?}]\+")
    found = [
        f"{path.relative_to(REPO)}:{node.lineno}"
        for package in PACKAGES
        for path in sorted((REPO / package).rglob("*.py"))
        if "import re\n" in (source := path.read_text())
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and possessive.search(node.value)
    ]
    assert not found


def test_the_page_of_papers_is_as_the_docstrings_say() -> None:
    assert (REPO / "docs" / "papers.md").read_text() == page(), "python -m tests.tree.papers > docs/papers.md"
    assert (
        "| Rohrbach et al., 2018 | [1809.02156](https://arxiv.org/abs/1809.02156) | `evals/tasks/chair.py` |"
        in page()
    )
