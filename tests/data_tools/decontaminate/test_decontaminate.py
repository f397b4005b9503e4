"""Altered pictures and repeated texts are found; a shared hash list finds what the folder finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from align.cli import main
from align.config.recipe import validate
from align.errors import AlignError, RecipeError
from align.rows.schema import Message, PromptRow, SFTRow, read_rows, write_rows
from benchmarks.decontamination import ALTERATIONS
from data_tools.decontaminate.hash_list import HashList, image_records
from data_tools.decontaminate.matches import ImageIndex
from data_tools.decontaminate.perceptual import image_hash, is_plain, window_hashes, windows
from data_tools.decontaminate.shingles import TextIndex, shingle_hashes
from data_tools.decontaminate.stage import Recipe, run


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Random shapes, coarse and fine as in a photograph."""
    stream, pixels = np.random.default_rng(seed), np.zeros((size[1], size[0], 3))
    for scale in (4, 8, 16, 32):
        noise = stream.integers(0, 256, (scale, scale, 3), dtype=np.uint8)
        pixels += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)) / scale
    return Image.fromarray((pixels * 255 / pixels.max()).astype(np.uint8))


def test_the_hash_is_that_of_imagehash() -> None:
    imagehash = pytest.importorskip("imagehash")
    for seed in range(3):
        theirs = np.packbits(imagehash.phash(picture(seed), hash_size=16).hash.reshape(-1)).view(np.uint64)
        assert np.array_equal(image_hash(picture(seed)), theirs)


def test_mirrored_hashes_are_those_of_the_mirrored_picture() -> None:
    image = picture(1, (64, 64))  # no resampling: then the bits are equal, all of them
    own, down, across, both = window_hashes(image)[0]
    assert np.array_equal(own, image_hash(image))
    assert np.array_equal(down, image_hash(ImageOps.flip(image)))
    assert np.array_equal(across, image_hash(ImageOps.mirror(image)))
    assert np.array_equal(both, image_hash(ImageOps.mirror(ImageOps.flip(image))))


def test_the_windows_cover_crops_of_both_sizes() -> None:
    found = windows()
    assert found[0] == (0, 0, 1, 1) and len(found) == 1 + 9 + 25
    assert all(
        0 <= left < right <= 1.0001 and 0 <= top < bottom <= 1.0001 for left, top, right, bottom in found
    )


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_picture_is_found_and_a_stranger_is_not(name: str, tmp_path: Path) -> None:
    for seed in range(6):
        picture(seed).save(tmp_path / f"{seed}.png")
    records = [
        record for _, record, _ in image_records(tmp_path, [f"{seed}.png" for seed in range(6)]) if record
    ]
    index = ImageIndex(records[:5], 56)
    ALTERATIONS[name](picture(3), np.random.default_rng(0)).save(tmp_path / "altered.png")
    ((_, altered, _),) = image_records(tmp_path, ["altered.png"])
    assert altered is not None
    match = index.match(altered)
    assert match is not None and match.reference == "3.png"
    assert index.match(records[5]) is None


def test_a_picture_that_the_benchmark_cropped_is_found(tmp_path: Path) -> None:
    picture(3).save(tmp_path / "large.png")
    ALTERATIONS["crop, 10% off each side"](picture(3), np.random.default_rng(1)).save(tmp_path / "crop.png")
    records = [record for _, record, _ in image_records(tmp_path, ["crop.png", "large.png"]) if record]
    match = ImageIndex(records[:1], 56).match(records[1])
    assert match is not None and match.kind == "looks the same"


def test_pictures_without_contrast_are_only_compared_exactly(tmp_path: Path) -> None:
    for name, colour in (("a", 100), ("b", 101)):
        Image.new("RGB", (32, 32), (colour, colour, colour)).save(tmp_path / f"{name}.png")
    assert is_plain(Image.open(tmp_path / "a.png")) and not is_plain(picture(0))
    records = [record for _, record, _ in image_records(tmp_path, ["a.png", "b.png"]) if record]
    index = ImageIndex(records[:1], 56)
    assert index.match(records[1]) is None
    match = index.match(records[0])
    assert match is not None and match.kind == "same bytes"


def test_similarity_of_texts_by_hand() -> None:
    index = TextIndex([shingle_hashes("A b c d."), shingle_hashes("x y z")])
    assert index.best(shingle_hashes("a B c d e")) == (0, 2 / 3)  # abc bcd of abc bcd cde
    assert index.best(shingle_hashes("q r s")) is None
    assert len(shingle_hashes("two words")) == 1 and len(shingle_hashes("")) == 0


QUESTION = "How many of the people beside the red car are wearing a yellow hat today?"


def world(tmp_path: Path) -> dict[str, Any]:
    """A benchmark of two pictures and a question, and training rows of which one has nothing of it."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "train").mkdir()
    for seed in (0, 1):
        picture(seed).save(tmp_path / "bench" / f"b{seed}.png")
    (tmp_path / "questions.json").write_text(json.dumps({"questions": [{"question": QUESTION}]}))
    ImageOps.mirror(picture(0)).save(tmp_path / "train" / "flipped.jpg", quality=40)
    picture(1).save(tmp_path / "train" / "copy.bmp")
    picture(7).save(tmp_path / "train" / "new.png")
    (tmp_path / "train" / "broken.png").write_bytes(b"no picture")

    def row(row_id: str, image: str, question: str) -> SFTRow:
        turn = [Message(role="user", content=question), Message(role="assistant", content="Two.")]
        return SFTRow(id=row_id, images=[image], messages=turn)

    rows = [
        row("flip", "flipped.jpg", "?"),
        row("copy", "copy.bmp", "?"),
        row("good", "new.png", "How many?"),
    ]
    near = QUESTION.replace("today", "now").replace("?", "").lower()
    rows += [row("text", "new.png", near), row("bad", "broken.png", "What is it?")]
    write_rows(tmp_path / "rows.jsonl", rows)
    return {"run_dir": tmp_path / "run", "data": tmp_path / "rows.jsonl", "image_root": tmp_path / "train"}


def cleaned(values: dict[str, Any], **fields: Any) -> tuple[list[str], dict[str, str]]:
    folder = run(validate(Recipe, values | fields, "t")).final
    lines = [json.loads(line) for line in (folder / "matches.jsonl").read_text().splitlines()]
    kept = [row.id for row in read_rows(SFTRow, folder / "rows.jsonl")]
    return kept, {line["id"]: f"{line['kind']}: {line['reference']}" for line in lines}


def test_rows_with_benchmark_pictures_or_texts_go(tmp_path: Path) -> None:
    values = world(tmp_path)
    kept, matches = cleaned(values, against=[tmp_path / "bench", tmp_path / "questions.json"])
    assert kept == ["good", "bad"]  # a picture that cannot be read is training's affair
    assert matches == {
        "flip": "picture: looks the same: b0.png",
        "copy": "picture: same pixels: b1.png",
        "text": "near-duplicate text: questions.json:0 question",
    }


def test_a_hash_list_stands_for_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = world(tmp_path)
    against = [str(tmp_path / "bench"), str(tmp_path / "questions.json")]
    hashes = tmp_path / "shared" / "bench.parquet"
    words = ["--run_dir", str(tmp_path / "r"), "--write_hashes", str(hashes)]
    assert main(["decontaminate", "--against", *against, *words]) == 0, capsys.readouterr().err
    shared = HashList.read(hashes)
    assert [image.name for image in shared.images] == ["b0.png", "b1.png"] and len(shared.texts) == 1
    assert cleaned(values, against=[hashes]) == cleaned(values, against=against, name="again")
    (tmp_path / "other.parquet").write_bytes((tmp_path / "rows.jsonl").read_bytes())
    with pytest.raises(AlignError, match="not a hash list"):
        cleaned(values, against=[tmp_path / "other.parquet"])
    table = pq.read_table(hashes)
    short = table.set_column(4, "hashes", [[value.as_py()[:-1] for value in table["hashes"]]])
    pq.write_table(short, tmp_path / "short.parquet")
    with pytest.raises(AlignError, match="damaged hash list"):
        cleaned(values, against=[tmp_path / "short.parquet"])


def test_a_phrasing_that_many_rows_repeat_is_no_leak(tmp_path: Path) -> None:
    values = world(tmp_path)
    rows = list(read_rows(SFTRow, tmp_path / "rows.jsonl"))
    more = [rows[3].model_copy(update={"id": f"again{n}"}) for n in range(3)]
    write_rows(tmp_path / "rows.jsonl", [*rows, *more])
    kept, matches = cleaned(values, against=[tmp_path / "questions.json"], max_repeats=3)
    assert len(kept) == 8 and matches == {}


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    values = world(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AlignError, match="no pictures in"):
        cleaned(values, against=[tmp_path / "empty"])
    with pytest.raises(AlignError, match="no texts in the fields"):
        (tmp_path / "none.json").write_text("[{}]")
        cleaned(values, against=[tmp_path / "none.json"])
    with pytest.raises(RecipeError, match="`data` needs `image_root`"):
        validate(Recipe, {"data": "x", "against": ["y"]}, "t")
    write_rows(tmp_path / "p.jsonl", [PromptRow(id="1", prompt=[Message(role="user", content="What?")])])
    folder = run(
        validate(Recipe, values | {"data": tmp_path / "p.jsonl", "against": [tmp_path / "bench"]}, "t")
    )
    assert [row.id for row in read_rows(PromptRow, folder.final / "rows.jsonl")] == ["1"]
