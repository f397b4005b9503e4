"""AMBER: the script's numbers worked by hand and by the script, its quirks, and where strict mends them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from align.cli import main
from align.errors import AlignError
from evals.scoring.nouns import nltk_nouns, vocabulary_nouns
from evals.scoring.similarity import exactly
from evals.tasks.amber import Lexicon, look_up
from tests.repository import BENCHMARKS

FOLDER = BENCHMARKS / "amber"
RELATED = {"man": ["person"], "boy": ["person"], "tree": ["leave"], "dog": [], "road": ["street"], "cat": []}
LEXICON = Lexicon(RELATED, frozenset({"light"}))


def write(folder: Path, answers: Sequence[tuple[int, str]]) -> Path:
    path = folder / "answers.json"
    path.write_text(json.dumps([{"id": number, "response": text} for number, text in answers]))
    return path


def score(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main(["score", "amber", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    kinds = ["discriminative-hallucination", "discriminative-attribute-number", "relation"]
    annotations: list[dict[str, Any]] = [
        {"id": 1, "type": "generative", "truth": ["man", "dog", "dog"], "hallu": ["cat", "tree"]},
        *({"id": 2 + k, "type": kind, "truth": "no"} for k, kind in enumerate(kinds)),
        {"id": 5, "type": kinds[0], "truth": "yes"},
    ]
    (folder / "annotations.json").write_text(json.dumps(annotations))
    (folder / "relation.json").write_text(json.dumps(RELATED | {"light": []}))
    (folder / "safe_words.txt").write_text("light\norange")
    return folder


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            [(1, "A person on the road with a dog and grass and a car.")],
            {"chair": 40.0, "cover": 42.9, "hal": 100.0, "cog": 20.0},
        ),
        ([(1, "")], {"chair": 0.0, "cover": 0.0, "hal": 0.1, "cog": 0.0}),
        (
            [(1005, "Yes"), (1006, "No"), (1007, "yes"), (1008, "No.")],
            {"accuracy": 50.0, "precision": 99.9, "recall": 50.0, "f1": 66.6},
        ),
    ],
)
def test_what_the_script_prints(
    answers: list[tuple[int, str]],
    expected: dict[str, float],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not FOLDER.is_dir():
        pytest.skip("no published AMBER files beside the repository")
    found = score(capsys, "--predictions", write(tmp_path, answers), "--data", FOLDER)
    assert {name: found[name] for name in expected} == expected
    if "f1" in expected:
        assert found["splits"]["state"] == expected and "existence" not in found["splits"]


def test_all_parts_and_the_amber_score(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [(1, "A man, a cat and a light."), (2, "No"), (3, "No"), (4, "Yes"), (5, "No")]
    words = ("--predictions", write(tmp_path, answers), "--data", data)
    found = score(capsys, *words)
    # Nouns man, cat, light: one invented of three; man covers one of three things;
    # cat is one of the two expected inventions.
    assert (found["chair"], found["cover"], found["hal"], found["cog"]) == (33.3, 33.3, 100.0, 50.0)
    # Answered no: three, two of them rightly; true no: three.
    assert (found["precision"], found["recall"], found["f1"]) == (66.6, 66.6, 66.6)
    assert found["splits"]["relation"]["recall"] == 0.0 and found["splits"]["number"]["accuracy"] == 99.9
    assert found["amber"] == pytest.approx((100 - 33.3 + 66.6) / 2)
    exact = score(capsys, *words, "--mode", "strict")
    assert exact["f1"] == pytest.approx(100 * 2 / 3) and exact["chair"] == pytest.approx(100 / 3)
    assert exact["amber"] == pytest.approx(100 * (2 / 3 + 2 / 3) / 2)


def test_strict_reads_answers_that_official_cannot(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--predictions", write(tmp_path, [(2, "No."), (3, "no"), (4, "maybe")]), "--data", data)
    assert score(capsys, *words)["accuracy"] == 0.0
    strict = score(capsys, *words, "--mode", "strict")
    assert strict["accuracy"] == pytest.approx(200 / 3) and strict["health"]["unparsed"] == 1


def test_nouns_are_looked_up_in_the_scripts_order() -> None:
    nouns = ["light", "person", "leave", "cat", "road", "dog"]
    invented, covered, made = look_up(nouns, ["boy", "man", "dog"], ["tree", "cat"], LEXICON, exactly)
    assert invented == ["leave", "cat", "road"]
    assert covered == {0, 2}  # person goes with boy and man: the first has it
    assert made == {0, 1}
    similar = {("road", "tree"), ("cat", "dog")}
    invented, covered, made = look_up(
        ["road", "cat"], ["dog"], ["tree"], LEXICON, lambda noun, word: (noun, word) in similar
    )
    assert (invented, covered, made) == (["road"], {0}, {0})


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("Two dogs, three buses and knives.", ["dog", "bus", "knife"], ["dog", "bus", "knife"]),
        ("Trees and a tree.", ["tree"], ["tree", "tree"]),
        ("Men, men and women with vases.", ["woman"], ["man", "man", "woman", "vase"]),
        ("The children: they watch a watch.", ["child", "watch"], ["child", "watch"]),
        ("They watch. One can see a trash can.", ["can"], ["can"]),
        ("An orange cat, an orange.", ["cat", "orange"], ["cat", "orange"]),
        ("The man's TV and a hot dog", ["man", "TV", "dog"], ["man", "TV", "dog"]),
        ("", [], []),
    ],
)
def test_nouns_of_the_vocabulary(text: str, official: list[str], strict: list[str]) -> None:
    listed = "dog bus knife tree man woman vase child watch can cat orange TV hot"
    words = set(listed.split())
    assert vocabulary_nouns(text, words) == official
    assert vocabulary_nouns(text, words, "strict") == strict


def test_what_is_not_installed_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("score", "amber", "--predictions", write(tmp_path, [(1, "A cat.")]), "--data", data)
    try:
        nltk_nouns("A cat.", {"cat"})
    except AlignError:
        assert main([*map(str, words), "--option", "nouns=nltk"]) == 1
        assert "nouns: nltk needs NLTK and its data" in capsys.readouterr().err
    assert main([*map(str, words), "--option", "similarity=spacy", "--option", "spacy_model=none"]) == 1
    assert "similarity: spacy needs spaCy and none" in capsys.readouterr().err


def test_the_card_says_where_it_deviates(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = score(capsys, "--predictions", write(tmp_path, [(1, "A cat.")]), "--data", data)
    assert "rules of our own in place of NLTK's tagger" in found["card"]["parser"]
    assert "match exactly" in found["card"]["parser"] and "no lower chair" in found["card"]["parser"]


def test_similarity_can_only_lower_inventions_and_raise_what_is_covered() -> None:
    """The bounds that the card states, on random lexicons, descriptions and ideas of what is similar."""
    rng = random.Random(0)
    words = [f"w{k}" for k in range(12)]
    moved = 0
    for _ in range(300):
        related = {word: rng.sample(words, rng.randint(0, 2)) for word in words}
        lexicon = Lexicon(related, frozenset(rng.sample(words, 1)))
        truth, hallu, nouns = (rng.choices(words, k=rng.randint(1, 5)) for _ in range(3))
        alike = {frozenset(rng.sample(words, 2)) for _ in range(6)}
        exact, similar = (
            look_up(nouns, truth, hallu, lexicon, same)
            for same in (exactly, lambda a, b, alike=alike: a == b or frozenset((a, b)) in alike)
        )
        assert len(similar[0]) <= len(exact[0])
        assert similar[1] >= exact[1] and similar[2] >= exact[2]
        moved += exact != similar
    assert moved > 100
