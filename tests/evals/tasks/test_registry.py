"""Types of task are found by their files; what a report must know of a task stands in its class."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from evals.tasks import registry
from evals.tasks.custom import CustomCaptions, CustomYesNo, PlainCaptions
from evals.tasks.facts import Facts
from evals.tasks.registry import config_class, known_facts, task_class, task_types
from tests.repository import REPO


def test_task_types_are_what_the_files_of_the_folder_say() -> None:
    folder = Path(registry.__file__).parent
    modules = {path.stem: import_module(f"evals.tasks.{path.stem}") for path in folder.glob("[a-z]*.py")}
    own = {name for name, module in modules.items() if hasattr(module, "TASK")}
    others = [name for name in own for name in getattr(modules[name], "ALIASES", ())]
    assert list(task_types()) == sorted([*own, *others]) and len(own) > 18
    assert task_class("vqav2") is task_class("vqa") and task_class("vqa").type == "vqa"
    assert all(task_class(name).type == name and modules[name].Config is config_class(name) for name in own)


def test_asking_for_task_types_imports_none_of_them() -> None:
    code = (
        "import sys; from evals.tasks.registry import task_types; names = set(task_types().values())\n"
        "assert 'evals.tasks.pope' in names and not names & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)


def test_a_new_file_is_a_new_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "class Config(QuestionConfig):\n    pass\n\nTASK = New\nALIASES = {\n    'newer': 'Newer'\n}\n"
    (tmp_path / "new.py").write_text(text)
    (tmp_path / "half.py").write_text(text.replace("TASK", "KSAT"))
    package = import_module("evals.tasks")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    found = task_types.__wrapped__()
    assert set(found) - set(task_types()) == {"new", "newer"} and found["newer"] == "evals.tasks.new"


@pytest.mark.parametrize(
    ("name", "kind", "label"),
    [
        ("chair", "chair", "CHAIR"),
        ("chair_unseen_style", "chair", "CHAIR unseen style"),
        ("chairs", "chair", "chairs"),
        ("seen", "chair", "seen"),
        ("vqav2", "vqa", "VQAv2"),
        ("pope", "repope", "POPE"),  # a name that readers know
        ("mine", "custom", "mine"),
        ("lost", "lost", "lost"),
    ],
)
def test_what_readers_call_a_task(name: str, kind: str, label: str) -> None:
    assert known_facts(name, kind, ()).label == label


def test_your_own_questions_are_taken_for_the_benchmark_whose_scorer_they_have() -> None:
    captions = known_facts("mine", "custom", ["chair_i"])
    asked = known_facts("mine", "custom", ["yes_ratio"])
    plain = known_facts("mine", "custom", [])
    assert (captions.kind, captions.guard, captions.label) == ("chair", "recall", "mine")
    assert (asked.kind, asked.yes_ratio, plain.kind, plain.guard) == ("pope", "yes_ratio", "custom", "")
    assert [facts.is_own for facts in (captions, asked, plain)] == [False, False, True]
    assert [cls.facts.kind for cls in (CustomCaptions, CustomYesNo, PlainCaptions)] == ["chair", "pope", ""]


def test_facts_survive_their_file_and_what_another_version_says() -> None:
    facts = known_facts("chair", "chair", ())
    said = facts.to_json()
    assert Facts.of_json(said | {"later": 1}) == facts and "by_kind" not in said


@pytest.mark.parametrize("kind", sorted({*task_types()} - {"chair", "amber", "custom"}))
def test_a_protocol_has_all_its_words(kind: str) -> None:
    words = task_class(kind)
    named = (words.label, words.parser, words.aggregation, words.source, words.licence, words.cluster)
    assert all(named) and words.answer_format
