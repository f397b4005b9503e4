"""Checks of rows on disk: one result for one process or many, kept by content, read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align.errors import AlignError
from align.inputs import checking, known_pictures
from align.inputs.checked_rows import CheckedFile, StoredRows
from align.inputs.training_data import CHECKED, DataSection, check_rows, lazy_dataset
from align.models.loading import ModelSection, load_processor
from align.rows.schema import PreferenceRow, SFTRow, read_rows


class Folder:
    """What the checks need of a run folder."""

    def __init__(self, run: Path, is_main: bool = True) -> None:
        self.final, self.work, self.is_main = run / "sft", run / "sft.partial", is_main
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "manifest.json").write_text('{"inputs": {}}')


@pytest.fixture(scope="module")
def processor(base_checkpoint: Path) -> Any:
    return load_processor(ModelSection(path=str(base_checkpoint)))


@pytest.fixture
def section(tmp_path: Path) -> DataSection:
    """Three pictures, one of them broken, and rows with each kind of fault."""
    images = tmp_path / "images"
    images.mkdir()
    for number, colour in enumerate([(200, 30, 90), (20, 130, 90)]):
        Image.new("RGB", (40, 30), colour).save(images / f"{number}.png")
    (images / "broken.png").write_bytes(b"no picture")
    rows = [row(f"r{number}", f"{number % 2}.png") for number in range(40)]
    rows[7]["id"] = "r3"
    rows[11]["images"] = ["broken.png"]
    rows[13]["messages"][0]["content"] = "What is <image>?"
    rows[17]["messages"][1]["content"] = "long " * 300
    rows[19]["messages"] = [
        {"role": "user", "content": [{"type": "text", "text": "What is this? "}, {"type": "image"}]},
        {"role": "assistant", "content": "Hm.", "loss": False},
        *rows[19]["messages"],
    ]
    del rows[23]["messages"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return DataSection(path=path, image_root=images)


def row(name: str, image: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": f"It is {name}."}]
    return {"id": name, "images": [image], "messages": turns, "meta": {"source": name}}


def check(section: DataSection, processor: Any, run: Path, **options: Any) -> Any:
    folder: Any = Folder(run, options.pop("is_main", True))
    return check_rows(SFTRow, section, processor, options.pop("max_length", 200), folder)


def test_rows_are_those_of_the_file(section: DataSection, processor: Any, tmp_path: Path) -> None:
    found = check(section, processor, tmp_path / "run")
    assert dict(found.dropped) == {"schema": 1, "id": 1, "image": 1, "text": 1, "too long": 1}
    kept = {one.id for one in found.rows}
    assert len(kept) == 35
    good = [one for one in read_rows(SFTRow, section.path, lambda *_: None) if one.id in kept]
    assert list(found.rows) == [one for k, one in enumerate(good) if one.id not in {g.id for g in good[:k]}]
    assert found.rows[4].id == found.rows[4:5][0].id == "r4"
    assert [images for images in found.rows.images()] == [tuple(one.images) for one in found.rows]
    assert found.rows[found.unlearnt].id == "r19"
    reasons = [json.loads(line) for line in (tmp_path / "run/sft.partial/quarantine.jsonl").open()]
    assert [line["where"] for line in reasons] == [f"line {number}" for number in (8, 12, 14, 18, 24)]
    taken = found.take([0, 19, 20])
    assert [one.id for one in taken.rows] == [found.rows[k].id for k in (0, 19, 20)]
    assert taken.lengths == [found.lengths[k] for k in (0, 19, 20)]


def test_training_reads_the_file_as_it_reads_rows(
    section: DataSection, processor: Any, tmp_path: Path
) -> None:
    found = check(section, processor, tmp_path / "run")
    assert isinstance(found.rows, StoredRows)
    stored: Any = lazy_dataset(found.rows, section, processor)
    plain: Any = lazy_dataset(list(found.rows), section, processor)
    assert set(stored.column_names) == set(plain.column_names) == {"images", "messages"}
    for ours, theirs in zip(stored, plain, strict=True):
        assert ours["messages"] == theirs["messages"]
        assert [picture.tobytes() for picture in ours["images"]] == [
            picture.tobytes() for picture in theirs["images"]
        ]


def test_on_all_cores_is_the_same(
    section: DataSection, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = check(section, processor, tmp_path / "alone")
    monkeypatch.setattr(checking, "LARGE_BYTES", 1)
    monkeypatch.setattr(checking, "PART_BYTES", 1000)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    cores = check(section, processor, tmp_path / "cores")
    assert list(cores.rows) == list(alone.rows) and cores.lengths == alone.lengths
    assert cores.dropped == alone.dropped and cores.unlearnt == alone.unlearnt
    one, other = (tmp_path / name / "sft.partial/quarantine.jsonl" for name in ("alone", "cores"))
    assert one.read_text() == other.read_text()


def test_checks_are_made_once(
    section: DataSection, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = check(section, processor, tmp_path)
    monkeypatch.setattr("align.inputs.training_data.make_checks", None)
    again = check(section, processor, tmp_path, is_main=False)
    assert list(again.rows) == list(first.rows) and again.dropped == first.dropped
    with pytest.raises(TypeError):  # another limit: checks of its own
        check(section, processor, tmp_path, max_length=100)


def test_a_picture_is_decoded_once_for_what_it_holds(
    section: DataSection, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(section, processor, tmp_path)
    decoded: list[str] = []
    opened = known_pictures.open_image
    monkeypatch.setattr(
        known_pictures, "open_image", lambda path, most: (decoded.append(path.name), opened(path, most))[1]
    )
    check(section, processor, tmp_path, max_length=100)
    assert decoded == []
    assert section.image_root is not None
    Image.new("RGB", (44, 30)).save(section.image_root / "1.png")
    check(section, processor, tmp_path, max_length=90)
    assert decoded == ["1.png"]


def test_who_waits_for_a_process_that_is_gone_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([7, 7, 1])
    monkeypatch.setattr("os.getppid", lambda: next(parents))
    with pytest.raises(AlignError, match="has ended"):
        CheckedFile(tmp_path / CHECKED).wait()


def test_pairs_keep_spans_margin_and_worse_pictures(
    section: DataSection, processor: Any, tmp_path: Path
) -> None:
    pair = {
        "id": "p",
        "images": ["0.png"],
        "rejected_images": ["1.png"],
        "prompt": [{"role": "user", "content": "What is this?"}],
        "chosen": [{"role": "assistant", "content": "A red square."}],
        "rejected": [{"role": "assistant", "content": "A dog."}],
        "spans": {"chosen": [{"start": 2, "end": 5, "weight": 2.0}], "rejected": []},
        "meta": {"margin": 1.5},
    }
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(pair) + "\n")
    pairs = section.model_copy(update={"path": path})
    folder: Any = Folder(tmp_path / "run")
    found = check_rows(PreferenceRow, pairs, processor, 200, folder)
    assert list(found.rows) == list(read_rows(PreferenceRow, path))
    made = lazy_dataset(found.rows, pairs, processor, for_objective=True)[0]
    assert made["margin"] == 1.5 and made["spans"]["chosen"] == pair["spans"]["chosen"]
    assert [picture.size for picture in made["rejected_images"]] == [(40, 30)]


def test_what_a_killed_run_or_a_damaged_file_left_stops_nothing(
    section: DataSection, processor: Any, tmp_path: Path
) -> None:
    first = check(section, processor, tmp_path)
    store = tmp_path / CHECKED
    (folder,) = (one for one in store.iterdir() if one.is_dir())
    folder.rename(folder.with_suffix(".partial"))
    (folder.with_suffix(".partial") / "checked.json").unlink()
    (store / "pictures.db").write_bytes(b"no database " * 400)
    again = check(section, processor, tmp_path)
    assert list(again.rows) == list(first.rows) and again.dropped == first.dropped
    assert folder.is_dir() and not folder.with_suffix(".partial").exists()
    assert (store / "pictures.db").read_bytes().startswith(b"SQLite format 3")
