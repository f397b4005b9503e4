"""Where a row's pictures stand: one meaning has one spelling, and files keep it."""

from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError
from align.rows.messages import Message, placed_parts
from align.rows.schema import PreferenceRow, PromptRow, SFTRow, check_row, read_rows, write_rows

IMAGE = {"type": "image"}


def words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def instruction(*contents: Any, images: int = 1, **last: Any) -> dict[str, Any]:
    """Turns of user and assistant by turns."""
    roles = ("user", "assistant")
    turns: list[dict[str, Any]] = [
        {"role": roles[k % 2], "content": content} for k, content in enumerate(contents)
    ]
    turns[-1] |= last
    return {"id": "r", "images": [f"{k}.png" for k in range(images)], "messages": turns}


def row(*contents: Any, images: int = 1, **last: Any) -> SFTRow:
    return check_row(SFTRow, instruction(*contents, images=images, **last), "f:1")


@pytest.mark.parametrize(
    "content",
    ["Hi", [IMAGE, words("Hi")], [IMAGE, words("H"), words("i")], [{**IMAGE, "text": None}, words("Hi")]],
)
def test_pictures_before_the_first_text_are_the_plain_spelling(content: Any) -> None:
    assert row(content, "Yo.").model_dump()["messages"][0] == {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("content", "images", "marked"),
    [
        ([words("Hi "), IMAGE], 1, "Hi [image]"),
        ([IMAGE, words(" or "), IMAGE, words("?")], 2, "[image] or [image]?"),
        ([words("A: "), IMAGE, words(""), words("\nB: "), IMAGE], 2, "A: [image]\nB: [image]"),
    ],
)
def test_pictures_inside_the_text_stay_there(content: Any, images: int, marked: str) -> None:
    found = row(content, "Yo.", images=images)
    assert found.messages[0].marked == marked
    assert SFTRow.model_validate_json(found.model_dump_json()) == found
    assert [part["type"] for part in placed_parts(found.messages, images)[0]] == [
        part["type"] for part in content if part.get("text") != ""
    ]


def test_a_picture_in_a_later_turn_stays_there() -> None:
    found = row("Hi", "Yo.", [IMAGE, words("And this?")], "That.")
    assert [len(parts) for parts in placed_parts(found.messages, 1)] == [1, 1, 2, 1]
    both = row([IMAGE, words("Hi")], "Yo.", [IMAGE, words("And this?")], "That.", images=2)
    assert [message.num_images for message in both.messages] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (instruction([IMAGE, IMAGE, words("Hi")], "Yo."), "2 image parts for 1 images"),
        (instruction([words("Hi "), IMAGE], "Yo.", images=0), "1 image parts for 0 images"),
        (instruction("Hi", [IMAGE, words("Yo.")]), "an image part in a turn that is not the user's"),
        (instruction(7, "Yo."), "messages.0.content: neither text nor a list of parts but int"),
        (instruction([{"type": "video"}], "Yo."), "not {'type': 'video'}"),
        (instruction([{"type": "image", "image": "a.png"}], "Yo."), "a picture inside its part"),
        (instruction("Hi", "Yo.", loss=False), "every assistant turn has loss: false"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(AlignError) as error:
        check_row(SFTRow, values, "f:1")
    assert fault in error.value.what


def test_pairs_have_pictures_in_the_prompt_alone() -> None:
    def pair(**values: Any) -> PreferenceRow:
        turns = {
            "prompt": [{"role": "user", "content": [words("Hi "), IMAGE]}],
            "chosen": [{"role": "assistant", "content": "Yo."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        }
        return check_row(PreferenceRow, {"id": "p", "images": ["a.png"], **turns, **values}, "f:1")

    assert pair().prompt[0].num_images == 1
    with pytest.raises(AlignError, match="pictures belong to the prompt"):
        pair(chosen=[{"role": "assistant", "content": [words("Yo. "), IMAGE]}])
    with pytest.raises(AlignError, match="belongs to instruction rows"):
        pair(chosen=[{"role": "assistant", "content": "Yo.", "loss": False}])


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_files_keep_places_and_losses(tmp_path: Path, suffix: str) -> None:
    plain = [row("Hi", "Yo.", images=k % 2).model_copy(update={"id": str(k)}) for k in range(1200)]
    later = row("Hi", "Yo.", [words("And "), IMAGE], "That.").model_copy(update={"id": "later"})
    unlearnt = row("Hi", "Yo.").model_copy(update={"id": "unlearnt"})
    unlearnt.messages = [
        *unlearnt.messages[:1],
        Message(role="assistant", content="Mm.", loss=False),
        Message(role="user", content="So?"),
        Message(role="assistant", content="Yo."),
    ]
    rows = [*plain, later, unlearnt, *(one.model_copy(update={"id": f"{one.id}b"}) for one in plain)]
    path = tmp_path / f"rows.{suffix}"
    write_rows(path, rows)
    assert list(read_rows(SFTRow, path)) == rows
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_parquet_of_plain_rows_has_columns_of_text(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    write_rows(path, [PromptRow(id="p", images=["a.png"], prompt=[Message(role="user", content="Hi")])])
    assert pq.read_table(path).to_pylist()[0]["prompt"] == [{"role": "user", "content": "Hi"}]
