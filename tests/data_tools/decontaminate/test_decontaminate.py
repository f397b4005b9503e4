"""Altered pictures and repeated texts are found; a shared hash list finds what the folder finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from align.cli import main
from align.config.recipe import validate
from align.errors import AlignError, RecipeError
from align.inputs.images import open_image
from align.rows.schema import Message, PromptRow, SFTRow, read_rows, write_rows
from benchmarks.decontamination import ALTERATIONS, form, screen, slide, texture
from data_tools.decontaminate import hash_list
from data_tools.decontaminate.hash_list import HashList, ImageRecord, image_records
from data_tools.decontaminate.hash_store import HashStore
from data_tools.decontaminate.matches import MAX_BITS, ImageIndex, ImageMatch
from data_tools.decontaminate.perceptual import (
    WHOLE,
    box_hash,
    content_box,
    distances,
    grey_thumbnail,
    image_hash,
    is_plain,
    turned,
    turned_hashes,
    window_hashes,
    windows,
)
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


def test_turned_hashes_are_those_of_the_turned_picture() -> None:
    thumbnail = grey_thumbnail(picture(1))
    found = turned_hashes(thumbnail)
    image = Image.fromarray(thumbnail.clip(0, 255).astype(np.uint8))
    for place, alter in ((0, lambda x: x), (1, ImageOps.flip), (2, ImageOps.mirror), (8, ImageOps.invert)):
        assert distances(image_hash(alter(image)), found[place]) <= 4, place
    turns = [image.transpose(Image.Transpose.ROTATE_90), image.transpose(Image.Transpose.ROTATE_270)]
    assert all(distances(found[4:8], image_hash(turn)).min() <= 4 for turn in turns)
    for place in range(16):  # and the turned thumbnail has that hash
        assert distances(box_hash(turned(thumbnail, place), WHOLE), found[place]) <= 2


def test_the_hash_of_a_window_is_that_of_the_crop() -> None:
    image = picture(2, (256, 256))
    hashes = window_hashes(np.asarray(image.convert("L"), dtype=np.float32))
    assert len(hashes) == len(windows()) == 1 + 9 + 25 + 25 + 25 and windows()[0] == (0, 0, 1, 1)
    for place in (0, 5, 20, 84):
        left, top, right, bottom = (256 * side for side in windows()[place])
        crop = image.convert("L").resize((64, 64), Image.Resampling.LANCZOS, (left, top, right, bottom))
        assert distances(image_hash(crop), hashes[place]) <= 4
    assert all(0 <= box[0] < box[2] <= 1.0001 and 0 <= box[1] < box[3] <= 1.0001 for box in windows())


def test_plain_frames_are_cut_off_one_inside_the_other() -> None:
    page = Image.new("L", (200, 100), 255)
    page.paste(picture(1, (100, 50)).convert("L"), (50, 25))
    framed = ImageOps.expand(page, 20, 0)  # 240 x 140: a black frame round a white margin
    assert content_box(framed) == pytest.approx((70 / 240, 45 / 140, 170 / 240, 95 / 140), abs=0.015)
    assert content_box(picture(1).convert("L")) == WHOLE and content_box(Image.new("L", (9, 9), 7)) == WHOLE


def hashed(folder: Path, images: dict[str, Image.Image]) -> list[ImageRecord]:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        image.save(folder / name)
    return [record for _, record, _ in image_records(folder, list(images), HashStore(None)) if record]


def match(index: ImageIndex, folder: Path, record: ImageRecord) -> ImageMatch | None:
    return index.match(record, lambda: grey_thumbnail(open_image(folder / record.name)))


HARD = {"crop, 30% off each side"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageIndex, Path, ImageRecord]:
    """Five benchmark pictures and a stranger."""
    folder = tmp_path_factory.mktemp("bench")
    records = hashed(folder, {f"{seed}.png": texture(seed) for seed in range(6)})
    return ImageIndex(records[:5], MAX_BITS), folder, records[5]


@pytest.mark.parametrize("name", [name for name in ALTERATIONS if name not in HARD])
def test_an_altered_picture_is_found(
    name: str, index: tuple[ImageIndex, Path, ImageRecord], tmp_path: Path
) -> None:
    (altered,) = hashed(tmp_path, {"altered.png": ALTERATIONS[name](texture(3), np.random.default_rng(0))})
    found = match(index[0], tmp_path, altered)
    assert found is not None and found.reference == "3.png"
    told = {
        "inversion": "inverted",
        "collage of four": "in a collage",
        "rotation by 90 degrees": "turned or mirrored",
        "crop, 20% off each side": "a crop of it",
    }
    assert told.get(name, "") in found.how


def test_a_stranger_is_not_found(index: tuple[ImageIndex, Path, ImageRecord]) -> None:
    assert match(index[0], index[1], index[2]) is None


@pytest.mark.parametrize("draw", [form, slide, screen])
def test_documents_of_one_template_are_not_one_another(
    draw: Callable[[int], Image.Image], tmp_path: Path
) -> None:
    records = hashed(tmp_path, {f"{number}.png": draw(number) for number in range(8)})
    index = ImageIndex(records[:4], MAX_BITS)
    assert [match(index, tmp_path, record) for record in records[4:]] == [None] * 4
    copies = {"jpeg.png": ALTERATIONS["JPEG quality 40"](draw(2), np.random.default_rng(0))}
    copies["turned.png"] = draw(2).transpose(Image.Transpose.ROTATE_180)
    for record in hashed(tmp_path / "copies", copies):
        found = match(index, tmp_path / "copies", record)
        assert found is not None and found.reference == "2.png"


def test_a_picture_that_the_benchmark_cropped_is_found(tmp_path: Path) -> None:
    crop = ALTERATIONS["crop, 10% off each side"](texture(3), np.random.default_rng(1))
    small, large = hashed(tmp_path, {"crop.png": crop, "large.png": texture(3)})
    found = match(ImageIndex([small], MAX_BITS), tmp_path, large)
    assert found is not None and (found.kind, found.how) == ("looks the same", "contains it")


def test_pictures_without_contrast_are_only_compared_exactly(tmp_path: Path) -> None:
    plain = {
        f"{name}.png": Image.new("RGB", (32, 32), (tone,) * 3) for name, tone in (("a", 100), ("b", 101))
    }
    one, other = hashed(tmp_path, plain)
    assert is_plain(Image.open(tmp_path / "a.png")) and not is_plain(picture(0))
    index = ImageIndex([one], MAX_BITS)
    assert match(index, tmp_path, other) is None
    found = match(index, tmp_path, one)
    assert found is not None and found.kind == "same bytes"


def test_a_picture_is_hashed_once_a_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        picture(1).save(tmp_path / name)
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    names = ["a.png", "b.png", "plain.png"]
    first = [record for _, record, _ in image_records(tmp_path, names, HashStore(tmp_path / "h.sqlite"))]
    monkeypatch.setattr(hash_list, "open_image", None)  # nothing is decoded again
    again = [record for _, record, _ in image_records(tmp_path, names, HashStore(tmp_path / "h.sqlite"))]
    for one, other in zip(first, again, strict=True):
        assert one is not None and other is not None and (one.name, one.pixels) == (other.name, other.pixels)
        for part in ("windows", "queries", "sketch"):
            assert np.array_equal(getattr(one, part), getattr(other, part))
    (tmp_path / "no.sqlite").write_bytes(b"no store" * 200)
    with pytest.raises(AlignError, match="not a store of hashes"):
        HashStore(tmp_path / "no.sqlite")


def test_similarity_of_texts_by_hand() -> None:
    index = TextIndex([shingle_hashes("A b c d."), shingle_hashes("x y z")])
    assert index.best(shingle_hashes("a B c d e")) == (0, 2 / 3)  # abc bcd of abc bcd cde
    assert index.best(shingle_hashes("q r s")) is None
    assert len(shingle_hashes("two words")) == 1 and len(shingle_hashes("")) == 0


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("图中戴着黄色帽子的人有几个站在红色汽车旁边", "图中有几只黑色的猫在桌子上面睡觉"),
        ("赤い車のそばに立っている人は何人いますか", "机の上で寝ている黒い猫は何匹いますか"),
        ("มีคนกี่คนยืนอยู่ข้างรถสีแดง", "แมวสีดำกี่ตัวนอนอยู่บนโต๊ะ"),
    ],
)
def test_texts_without_spaces_are_compared_by_their_characters(text: str, other: str) -> None:
    index = TextIndex([shingle_hashes(text)])
    assert index.best(shingle_hashes(f"「{text}？」")) == (0, 1.0)
    found = index.best(shingle_hashes(other))
    assert found is None or found[1] < 0.5


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
    with pytest.raises(AlignError, match="not a hash list, and no Parquet"):
        cleaned(values, against=[tmp_path / "other.parquet"])
    table = pq.read_table(hashes)
    short = table.set_column(4, "hashes", [[value.as_py()[:-1] for value in table["hashes"]]])
    pq.write_table(short, tmp_path / "short.parquet")
    with pytest.raises(AlignError, match="damaged hash list"):
        cleaned(values, against=[tmp_path / "short.parquet"])


def test_a_benchmark_in_parquet_is_read(tmp_path: Path) -> None:
    values = world(tmp_path)
    data = [(tmp_path / "bench" / f"b{seed}.png").read_bytes() for seed in (0, 1)]
    images = [{"bytes": data[0], "path": "b0.png"}, {"bytes": data[1], "path": None}]
    shards = tmp_path / "shards"
    shards.mkdir()
    pq.write_table(pa.table({"question": [QUESTION, "?"], "image": images}), shards / "test-0.parquet")
    for against in (shards / "test-0.parquet", shards):
        kept, matches = cleaned(values, against=[against], name=against.name)
        assert kept == ["good", "bad"]
        assert matches["flip"] == "picture: looks the same: test-0.parquet:0 image"
        assert matches["text"] == "near-duplicate text: test-0.parquet:0 question"
    lists = pa.table(
        {"images": [[data[0]], [data[1], b""]], "number": [1, 2]}
    )  # bytes in lists, and no texts
    pq.write_table(lists, tmp_path / "lists.parquet")
    assert cleaned(values, against=[tmp_path / "lists.parquet"], name="lists")[0] == ["good", "text", "bad"]
    pq.write_table(pa.table({"number": [1]}), tmp_path / "none.parquet")
    with pytest.raises(AlignError, match="no pictures, and no texts in the fields question"):
        cleaned(values, against=[tmp_path / "none.parquet"], name="none")


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
