"""Preflight: keep, resize or drop, by hand-computed lengths; nothing cut, nothing decoded, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from align.cli import main
from align.inputs.chat import render
from align.rows.schema import Message, PreferenceRow, SFTRow, read_rows, write_rows
from data_tools.preflight.decide import scaled_size
from data_tools.preflight.lengths import Lengths
from tests.align.inputs.test_image_tokens import load, processed_length
from tests.twins import Twins


def row(name: str, image: str | None, answer: str = "A cat.") -> SFTRow:
    turns = [Message(role="user", content="What is this?"), Message(role="assistant", content=answer)]
    return SFTRow(id=name, images=[image] if image else [], messages=turns)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, size in (("small", (32, 32)), ("large", (64, 64))):
        Image.new("RGB", size, (90, 30, 200)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    return tmp_path


def run(data: Path, model: Path, *words: Any) -> dict[str, Any]:
    assert main(["preflight", str(data), "--model", str(model), *map(str, words)]) == 0
    return json.loads(data.with_name(data.name + ".preflight.json").read_text())


def test_keep_resize_drop(twins: Twins, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen2-VL's twin: a token is 16 x 16 pixels, so 64 x 64 takes 16 and 32 x 32 takes 4."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("a picture was decoded"))
    model, data = twins("qwen2_vl"), root / "rows.jsonl"
    rows = [
        row("small", "small.png"),
        row("large", "large.png"),
        row("long", "small.png", "A cat. " * 40),
        row("text", None),
        row("lost", "gone.png"),
        row("broken", "broken.png"),
        row("token", "small.png", "A <|image_pad|>."),
    ]
    write_rows(data, rows)
    with data.open("a") as lines:
        lines.write('{"id": "empty", "messages": []}\n')
    whole = run(data, model)
    lengths = {one["id"]: one["tokens"] for one in whole["longest"]}
    assert lengths["large"] - lengths["small"] == 12
    assert lengths["small"] - lengths["text"] == 4 + 2  # start and end of vision
    assert {reason: found["count"] for reason, found in whole["rows"]["dropped"].items()} == {
        "missing image": 1,
        "not an image": 1,
        "text the model cannot take": 1,
        "not a row": 1,
    }
    assert whole["rows"]["kept"] == 4 and whole["image_tokens"]["max"] == 16
    limited = run(data, model, "--max_length", lengths["small"] + 5)
    assert limited["resized"] == {"count": 1, "examples": ["large"]}
    assert limited["rows"]["dropped"]["too long, also with smaller pictures"]["examples"] == ["long"]
    assert limited["tokens"]["max"] == lengths["small"] + 5
    strict = run(data, model, "--max_length", lengths["small"] + 5, "--min_scale", 1)
    assert strict["resized"]["count"] == 0 and strict["rows"]["kept"] == 2
    quarantine = [json.loads(line) for line in (root / "rows.jsonl.preflight.quarantine.jsonl").open()]
    assert len(quarantine) + strict["rows"]["kept"] == len(rows) + 1


def test_the_rows_that_fit_are_written_and_do(twins: Twins, root: Path) -> None:
    model, data, out = twins("qwen2_vl"), root / "rows.parquet", root / "fit.parquet"
    write_rows(data, [row("small", "small.png"), row("large", "large.png")])
    limit = int(run(data, model)["tokens"]["p50"]) + 3
    run(data, model, "--max_length", limit, "--out", out)
    small, large = read_rows(SFTRow, out)
    assert small.images == ["small.png"] and large.images[0].startswith("resized/")
    assert large.messages == row("large", "x").messages
    picture = Image.open(root / large.images[0])
    processor = load(model)
    text = render(processor, large.messages, 1, add_generation_prompt=False)
    assert processed_length(processor, text, [(picture.height, picture.width)]) <= limit
    assert run(out, model, "--max_length", limit, "--min_scale", 1)["rows"]["kept"] == 2


def test_a_pair_costs_its_longer_side_and_its_worse_image(twins: Twins, root: Path) -> None:
    model, data = twins("qwen2_vl"), root / "pairs.jsonl"
    prompt = [Message(role="user", content="What is this?")]
    sides = [[Message(role="assistant", content=text)] for text in ("A cat.", "A cat and a dog.")]
    pairs = [
        PreferenceRow(id=f"{k}", images=["small.png"], prompt=prompt, chosen=a, rejected=b)
        for k, (a, b) in enumerate((sides, sides[::-1]))
    ]
    worse = pairs[0].model_copy(update={"id": "worse", "rejected_images": ["large.png"]})
    write_rows(data, [*pairs, worse])
    found = run(data, model, "--batch_size", 2)
    lengths = {one["id"]: one["tokens"] for one in found["longest"]}
    first, second, third = (lengths[name] for name in ("0", "1", "worse"))
    assert first == second == third - 12
    memory = found["memory"]
    assert memory["sequences"] == 4 and memory["tokens"] == third and memory["stage"] == "dpo"
    assert memory["peak"] == sum(memory["parts"].values()) and memory["parts"]["weights"] > 0


def test_lengths_by_hand() -> None:
    lengths = Lengths(num_longest=2)
    for k, tokens in enumerate([100, 100, 128, 129, 600, 2000]):
        lengths.add(tokens, f"r{k}")
    expected = {"tokens": 3057, "mean": 509.5, "p50": 128, "p90": 2000, "p99": 2000, "max": 2000}
    assert lengths.summary() == expected
    assert [(b["from"], b["to"], b["rows"]) for b in lengths.buckets()] == [
        (1, 128, 3),
        (129, 256, 1),
        (513, 768, 1),
        (1537, 2048, 1),
    ]
    assert lengths.longest() == [{"id": "r5", "tokens": 2000}, {"id": "r4", "tokens": 600}]
    assert Lengths().summary() == {} and Lengths().buckets() == []


def test_a_scaled_picture_keeps_its_shape_and_a_side() -> None:
    assert scaled_size((400, 300), 0.5) == (200, 150)
    assert scaled_size((40, 20), 0.5) == (28, 20)


def test_rows_that_are_not_trained_on_are_refused(
    twins: Twins, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = root / "prompts.jsonl"
    data.write_text('{"id": "1", "prompt": [{"role": "user", "content": "Q"}]}\n')
    assert main(["preflight", str(data), "--model", str(twins("qwen2_vl"))]) == 1
    assert "PromptRows are not trained on" in capsys.readouterr().err
