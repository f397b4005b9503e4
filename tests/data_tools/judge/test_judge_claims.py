"""Claims of every kind: how they are asked and read, what they are worth, and which kinds are believed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align.claims import StatedClaim
from align.config.recipe import validate
from align.errors import AlignError, RecipeError
from align.objects.mentions import find_objects
from align.rows.schema import Candidate, Claim, ClaimCount, ClaimKind, Message, Verdict, read_rows, write_rows
from data_tools.judge.agreement import measure_agreement, unfit_kinds
from data_tools.judge.claim_questions import SHORT, Questions, ask, claim_text, read_reply
from data_tools.judge.claim_scores import ClaimScores, count_claims, score_answer, score_by_mentions
from data_tools.judge.stage import Recipe, run
from tests.chat_server import ChatServer


@pytest.mark.parametrize(
    ("claim", "question"),
    [
        (StatedClaim("number", "apple", "2"), "How many apples are in the image?"),
        (StatedClaim("number", "skis", "3"), "How many pairs of skis are in the image?"),
        (StatedClaim("place", "dog", "middle"), "Is the dog in the middle?"),
        (StatedClaim("place", "scissors", "left"), "Are the scissors on the left?"),
        (StatedClaim("colour", "car", "red"), "What color is the car?"),
        (StatedClaim("relation", "cup", "left of:laptop"), "Is the cup to the left of the laptop?"),
    ],
)
def test_a_claim_of_each_kind_has_its_question(claim: StatedClaim, question: str) -> None:
    assert ask(claim, getattr(Questions(), claim.kind)) == question + SHORT


def test_a_template_that_says_the_value_asks_for_yes_or_no() -> None:
    two = StatedClaim("number", "apple", "2")
    closed = "Are there {value} {objects} in the image?"
    assert ask(two, closed) == "Are there two apples in the image?"
    said = {"Yes": math.log(0.7), "No": math.log(0.2), "2": math.log(0.1)}
    assert read_reply(two, closed, said) == pytest.approx((0.7, 0.2))
    assert claim_text(two) == "apple: two" and claim_text(StatedClaim("presence", "apple", "")) == "apple"


def test_an_open_reply_is_the_claimed_value_against_all_others() -> None:
    template = Questions().number
    said = {"2": math.log(0.4), " two": math.log(0.1), "3": math.log(0.3), "many": math.log(0.1)}
    assert read_reply(StatedClaim("number", "dog", "2"), template, said) == pytest.approx((0.5, 0.3))
    assert read_reply(StatedClaim("number", "dog", "4"), template, said) == pytest.approx((0.0, 0.8))
    assert read_reply(StatedClaim("number", "dog", "2"), template, {"Several": 0.0}) is None
    where = "Where {is} the {name}?"
    pieces = {"mid": math.log(0.5), "center": math.log(0.2), "l": math.log(0.2), "Left": math.log(0.1)}
    assert read_reply(StatedClaim("place", "dog", "middle"), where, pieces) == pytest.approx((0.7, 0.1))
    # `thir` could be thirteen alone, `th` could also be three.
    assert read_reply(StatedClaim("number", "dog", "13"), template, {"thir": 0.0, "th": 0.0}) == (1.0, 0.0)
    grey = {"grey": math.log(0.6), "silver": math.log(0.4)}
    assert read_reply(StatedClaim("colour", "car", "gray"), Questions().colour, grey) == pytest.approx(
        (0.6, 0.4)
    )


def claim(kind: ClaimKind, category: str, says: bool | None, value: str = "") -> Claim:
    p = None if says is None else float(says)
    no = None if p is None else 1 - p
    return Claim(text=category, question="?", p_yes=p, p_no=no, kind=kind, category=category, value=value)


def test_true_claims_earn_false_ones_and_repetitions_cost() -> None:
    made = [
        claim("presence", "dog", True),
        claim("presence", "car", False),
        claim("number", "dog", False, "2"),
        claim("number", "car", True, "3"),  # there is no car: void
        claim("colour", "dog", None, "red"),
        claim("place", "dog", True, "left"),
        claim("relation", "dog", True, "left of:car"),  # beside a car that is not there: void
    ]
    counts = count_claims(made, left_out={"place"})
    assert counts == [
        ClaimCount(kind="presence", true=1, false=1),
        ClaimCount(kind="number", false=1, void=1),
        ClaimCount(kind="colour", unscored=1),
        ClaimCount(kind="place", left_out=1),
        ClaimCount(kind="relation", void=1),
    ]
    # One true, two false, one object named again: 0.5 - 2 - 1.
    assert score_answer(made, counts, 1, ClaimScores()) == (-2.5, "")
    assert score_answer(made, counts, 0, ClaimScores(confirmed=1, denied=-3)) == (-5.0, "")


def test_neither_silence_nor_repetition_pays_and_rlaif_v_is_at_hand() -> None:
    def score(made: list[Claim], repeated: int = 0, scores: ClaimScores | None = ClaimScores()) -> Any:  # noqa: B008
        return score_answer(made, count_claims(made, ()), repeated, scores)[0]

    dog, cat, car = (claim("presence", name, name != "car") for name in ("dog", "cat", "car"))
    assert score([dog]) < score([dog, cat]) and score([dog, dog], repeated=1) < score([dog])
    assert score([dog, cat, car]) < score([dog]) < score([dog, cat])
    # RLAIF-V: minus the denied claims; saying less is as good as saying it right.
    assert score([dog], scores=None) == score([dog, cat], scores=None) == 0
    assert score([dog, cat, car], repeated=2, scores=None) == -1
    assert score_answer([], [], 0, ClaimScores()) == (None, "no claim to check")
    unsure = [dog, claim("presence", "cup", None)]
    assert "neither yes nor no" in score_answer(unsure, count_claims(unsure, ()), 0, ClaimScores())[1]


def test_chair_counts_mentions_and_not_objects() -> None:
    text = "A dog, a dog and a car on a bench."
    made = [claim("presence", name, name != "car") for name in ("dog", "car", "bench")]
    mentions = find_objects(text, "strict")
    assert score_by_mentions(mentions, made) == (-0.25, "")
    assert score_by_mentions(mentions, [*made, claim("number", "dog", False)])[0] == -0.25
    assert score_by_mentions([], []) == (None, "no claim to check")
    unsure = claim("presence", "dog", None)
    assert score_by_mentions(mentions, [unsure])[0] is None


def test_kinds_near_chance_and_kinds_too_few_to_tell_are_left_out() -> None:
    def measured(right: int, wrong: int) -> dict[str, Any]:
        """So many pictures with a true claim and a false one, both judged right, or both wrong."""
        items = [
            (str(n), truth, truth is (n < right)) for n in range(right + wrong) for truth in (True, False)
        ]
        return measure_agreement(items, seed=0)

    by_kind: dict[ClaimKind, Any] = {
        "presence": measured(1, 1),
        "number": measured(55, 45),
        "place": measured(3, 1),
        "colour": measure_agreement([("a", True, True)], seed=0),
        "relation": measured(95, 5),
    }
    found = unfit_kinds(by_kind, 0.6)
    assert list(found) == ["number", "place", "colour"]
    assert found["number"].startswith("55% right on dev (200 claims), balanced accuracy 0.55 [")
    assert found["number"].endswith("near chance") and found["place"].endswith("too few to tell")
    assert found["colour"] == "1 annotated claims on dev, too few to tell"
    assert unfit_kinds(by_kind, 0.0) == {}


def candidates(tmp_path: Path, texts: dict[str, str]) -> Path:
    """Answers by id `t1#0` or `d1#0`: a picture a prompt, `d` is dev, the number is the image's id."""
    rows = []
    for row_id, text in texts.items():
        prompt_id = row_id.split("#")[0]
        number = int(prompt_id[1:])
        Image.new("RGB", (8, 8), (number, 0, ord(prompt_id[0]))).save(tmp_path / f"{prompt_id}.png")
        rows.append(
            Candidate(
                id=row_id,
                prompt_id=prompt_id,
                images=[f"{prompt_id}.png"],
                prompt=[Message(role="user", content="Describe.")],
                text=text,
                finish_reason="stop",
                num_tokens=5,
                meta={"split": "dev" if prompt_id[0] == "d" else "train", "image_id": number},
            )
        )
    write_rows(tmp_path / "candidates.jsonl", rows)
    return tmp_path / "candidates.jsonl"


def judged(
    tmp_path: Path, say: Callable[[str], str], texts: dict[str, str], **fields: Any
) -> tuple[dict[str, Verdict], dict[str, Any], dict[str, int]]:
    """Verdicts by candidate, the manifest's metrics, and how often each question was asked."""
    values = {"run_dir": tmp_path / "run", "image_root": tmp_path, "candidates": candidates(tmp_path, texts)}
    with ChatServer(lambda question: say(question.removesuffix(SHORT))) as server:
        folder = run(validate(Recipe, values | {"judge": {"endpoint": server.url}} | fields, "test"))
    verdicts = {row.candidate_id: row for row in read_rows(Verdict, folder.final / "verdicts.jsonl")}
    asked = {question.removesuffix(SHORT): number for question, number in server.answered.items()}
    return verdicts, folder.manifest()["metrics"], asked


def test_the_judge_is_asked_each_claim_once_and_repetition_of_nobody(tmp_path: Path) -> None:
    texts = {
        "t1#0": "A dog and two cats.",
        "t1#1": "A dog, a dog and a bus.",
        "t1#2": "There are three cats. A red car is on the left.",
    }
    replies = {
        "Is there a dog in the image?": "Yes",
        "Is there a cat in the image?": "Yes",
        "Is there a bus in the image?": "No",
        "Is there a car in the image?": "No",
        "How many cats are in the image?": "3",
        "What color is the car?": "red",
        "Is the car on the left?": "Yes",
    }
    verdicts, metrics, asked = judged(tmp_path, replies.__getitem__, texts, min_kind_agreement=0)
    assert asked == dict.fromkeys(replies, 1)
    # Two true objects and a wrong number; a true object, an invented one and a repetition; a true object with
    # its number, and one invention whatever is told of it.
    assert {name: row.score for name, row in verdicts.items()} == {"t1#0": 0.0, "t1#1": -1.5, "t1#2": 0.0}
    assert verdicts["t1#1"].repeated == ["dog"]
    assert [(item.text, item.supported) for item in verdicts["t1#1"].claims] == [
        ("dog", True),
        ("bus", False),
    ]
    assert verdicts["t1#2"].counts == [
        ClaimCount(kind="presence", true=1, false=1),
        ClaimCount(kind="number", true=1),
        ClaimCount(kind="colour", void=1),
        ClaimCount(kind="place", void=1),
    ]
    assert metrics["claims_by_kind"] == {"colour": 1, "number": 2, "place": 1, "presence": 4}
    assert metrics["repeating"] == 1


def two_dogs(tmp_path: Path, pictures: int) -> list[dict[str, Path]]:
    """Annotations of pictures with two dogs each."""
    tree = {
        "images": [{"id": n, "file_name": f"d{n}.png", "width": 8, "height": 8} for n in range(pictures)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 2 * n + k, "image_id": n, "category_id": 18, "bbox": [0, 0, 2, 2], "iscrowd": 0}
            for n in range(pictures)
            for k in range(2)
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(tree))
    return [{"instances": tmp_path / "instances.json"}]


NEAR_CHANCE = "0% right on dev (40 claims), balanced accuracy 0.00 [0.00, 0.00]: near chance"


@pytest.mark.parametrize(("number", "left_out"), [("2", {}), ("3", {"number": NEAR_CHANCE})])
def test_a_kind_is_believed_as_far_as_dev_says(
    tmp_path: Path, number: str, left_out: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {f"d{n}#{k}": text for n in range(20) for k, text in enumerate(("Two dogs.", "Three dogs."))}
    texts |= {"t90#0": "Two dogs, a car.", "t91#0": "Three dogs."}

    def say(question: str) -> str:
        return number if "How many" in question else "No" if "car" in question else "Yes"

    verdicts, metrics, _ = judged(tmp_path, say, texts, truth=two_dogs(tmp_path, 20))
    agreement = metrics["agreement"]
    assert metrics["left_out"] == agreement["left_out"] == left_out
    assert (agreement["by_kind"]["number"]["n"], agreement["n"]) == (40, 20)
    assert agreement["by_kind"]["number"]["kappa"]["value"] == (1.0 if number == "2" else -1.0)
    # Believed: 0.5 + 0.5 - 1 and 0.5 - 1; not believed: 0.5 - 1 and 0.5.
    expected = {"t90#0": 0.0, "t91#0": -0.5} if not left_out else {"t90#0": -0.5, "t91#0": 0.5}
    assert {name: verdicts[name].score for name in expected} == expected
    assert ("number is left out of the score" in capsys.readouterr().out) is bool(left_out)


def test_without_annotations_only_presence_counts(tmp_path: Path) -> None:
    verdicts, metrics, _ = judged(tmp_path, lambda q: "2" if "many" in q else "Yes", {"t1#0": "Two dogs."})
    assert metrics["left_out"] == {"number": "0 annotated claims on dev, too few to tell"}
    assert verdicts["t1#0"].score == 0.5
    assert verdicts["t1#0"].counts[1] == ClaimCount(kind="number", left_out=1)


def test_kinds_and_wordings_are_the_recipes(tmp_path: Path) -> None:
    _, _, asked = judged(
        tmp_path,
        lambda _: "Yes",
        {"t1#0": "Two red dogs on the left."},
        kinds=["presence", "number"],
        questions={"number": "Are there {value} {objects} here?"},
    )
    assert set(asked) == {"Is there a dog in the image?", "Are there two dogs here?"}
    values = {"run_dir": tmp_path, "candidates": "c", "image_root": "i", "model": "m"}
    for fields, message in (
        ({"kinds": ["number"]}, "must have presence"),
        ({"questions": {"colour": "What color is it?"}}, "must contain"),
        ({"questions": {"relation": "Where is the {name}?"}}, "yes or no"),
    ):
        with pytest.raises(RecipeError, match=message):
            validate(Recipe, values | fields, "judge.yaml")


def test_the_oracle_knows_numbers_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    """Two dogs are annotated, without colours: their number is checked, their colour is not."""
    path = candidates(tmp_path, {"d0#0": "Three brown dogs.", "d1#0": "Two dogs."})
    values = {"run_dir": tmp_path / "run", "image_root": tmp_path, "candidates": path, "kind": "oracle"}
    folder = run(validate(Recipe, values | {"truth": two_dogs(tmp_path, 2)}, "test"))
    first, second = read_rows(Verdict, folder.final / "verdicts.jsonl")
    assert (first.score, second.score) == (-0.5, 1.0)
    assert first.counts[-1] == ClaimCount(kind="colour", unscored=1)


def test_rows_written_before_claims_had_kinds_are_claims_of_presence() -> None:
    old = Claim.model_validate({"text": "dog", "question": "?", "p_yes": 0.9, "p_no": 0.1})
    assert (old.kind, old.category, old.value) == ("presence", "dog", "")


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("Yes", "No."),
        ("Yes, there is one.", "No, there is none."),
        ("是", "否"),
        ("<think>Is there? No... yes.</think>Yes", "<think>yes?</think>\nNo"),
        ("The answer is yes", "**No**"),
    ],
)
def test_a_judge_without_log_probs_is_read_by_its_words(tmp_path: Path, yes: str, no: str) -> None:
    def say(question: str) -> str:
        return no if "car" in question else "There are two dogs." if "How many" in question else yes

    verdicts, metrics, _ = judged(
        tmp_path, say, {"t1#0": "Two dogs.", "t2#0": "A car."}, min_kind_agreement=0
    )
    claims = {claim.text: claim for row in verdicts.values() for claim in row.claims}
    assert {text: (claim.p_yes, claim.p_no) for text, claim in claims.items()} == {
        "dog": (1.0, 0.0),
        "dog: two": (1.0, 0.0),
        "car": (0.0, 1.0),
    }
    assert all(claim.by_text for claim in claims.values()) and metrics["claims_by_text"] == 3
    assert metrics["denied_share"] == pytest.approx(0.3333)


def test_claims_that_stay_unread_fail_the_stage(tmp_path: Path) -> None:
    with pytest.raises(AlignError) as error:
        judged(tmp_path, lambda _: "I see a picture.", {"t1#0": "A dog.", "t2#0": "A car."})
    assert error.value.what.startswith("2 of the judge's 2 replies could not be read")
    assert "'I see a picture.'  (the judge's reply is neither yes nor no)" in error.value.what


def test_answers_outlive_the_stage_and_are_asked_once(tmp_path: Path) -> None:
    """Another threshold asks nothing, a new row its own questions alone, another judge all of them."""
    texts = {"t1#0": "A dog.", "t2#0": "A car."}
    with ChatServer(lambda _: "Yes") as server:

        def again(texts: dict[str, str], **fields: Any) -> int:
            before = server.answered.total()
            values = {"run_dir": tmp_path / "run", "image_root": tmp_path}
            values |= {"candidates": candidates(tmp_path, texts), "judge": {"endpoint": server.url}}
            run(validate(Recipe, values | fields, "test"))
            return server.answered.total() - before

        assert again(texts) == 2
        assert again(texts, score="denied") == 0
        assert again(texts | {"t3#0": "A cat."}) == 1
        assert again(texts, answers=tmp_path / "elsewhere") == 2
        named = {"judge": {"endpoint": server.url, "model": "another"}}
        assert again(texts, **named) == 2 and again(texts, **named, score="denied") == 0
    assert len(list((tmp_path / "run" / "answers").glob("*.jsonl"))) == 2


def test_the_first_token_counts_where_it_is_told_and_no_thought() -> None:
    from align.serving.client import Choice, Reply
    from data_tools.judge.claim_replies import ClaimReader

    def reply(text: str, **logprobs: float) -> Reply:
        first = {word: math.log(p) for word, p in logprobs.items()}
        return Reply(choices=[Choice(text=text, finish_reason="length", num_tokens=1, first_logprobs=first)])

    reader = ClaimReader(StatedClaim("presence", "dog", ""), "Is there {object}?")
    assert reader.by_logprobs(reply("Yes", Yes=0.7, No=0.2)) == pytest.approx((0.7, 0.2))
    assert reader.by_logprobs(reply("是", 是=0.6, 否=0.3, Yes=0.05)) == pytest.approx((0.6, 0.3))
    assert reader.by_logprobs(reply("Yes", Yes=0.5, 是=0.4)) == pytest.approx((0.5, 0.0))
    assert reader.by_logprobs(reply("<think>", Yes=0.01)) is None and reader.by_logprobs(reply("Yes")) is None


def test_labels_measure_a_claims_judge(tmp_path: Path) -> None:
    """Of claims, by kind; or of answers, by their scores."""
    texts = {"t1#0": "Two dogs.", "t1#1": "A car.", "t2#0": "A dog and a bus."}
    path = tmp_path / "labels.jsonl"
    labels = [
        ("t1#0", "dog", True),
        ("t1#0", "dog: two", True),
        ("t1#1", "car", False),
        ("t2#0", "bus", False),
    ]
    path.write_text("\n".join(json.dumps({"id": i, "claim": c, "holds": h}) for i, c, h in labels))

    def say(question: str) -> str:
        return "2" if "How many" in question else "No" if "car" in question else "Yes"

    _, metrics, _ = judged(tmp_path, say, texts, labels=path)
    found = metrics["agreement"]
    # dog right, two right, car rightly denied, bus wrongly confirmed.
    assert (found["n"], found["accuracy"]["value"], found["by_labels"]) == (4, 0.75, True)
    assert found["by_kind"]["presence"]["confusion"]["invented_kept"] == 1
    path.write_text(json.dumps({"id": "t9#0", "claim": "dog", "holds": True}))
    with pytest.raises(AlignError, match="no label is of a claim"):
        judged(tmp_path, say, texts, labels=path)
    path.write_text(json.dumps({"chosen_id": "t1#0", "rejected_id": "t1#1"}))
    _, metrics, _ = judged(tmp_path, say, texts, labels=path)
    assert (metrics["agreement"]["n"], metrics["agreement"]["accuracy"]["value"]) == (1, 1.0)


@pytest.mark.parametrize(
    ("told", "first", "likely", "thinks"),
    [
        (False, "<think>", 0.01, True),  # the mark of thoughts
        (False, "Okay", 0.02, True),  # the template opened them: the first token is a thought's first word
        (True, "Okay", 0.02, True),  # the recipe says so
        (False, "Yes", 0.9, False),
    ],
)
def test_a_judge_that_thinks_is_read_behind_its_thoughts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], told: bool, first: str, likely: float, thinks: bool
) -> None:
    """By its first token alone it would say no, 0.001 to the rest."""
    from align.serving.client import Choice, Reply
    from align.serving.server import Server
    from data_tools.judge.asking import Question
    from data_tools.judge.claim_replies import ClaimReader, ask_claims

    asked: list[int] = []

    class Judge:
        judge = "claims/j"
        server = Server("http://h/v1", "j", "d", thinks=told)

        def ask(self, questions: dict[str, Question], max_tokens: int, top: int = 0) -> dict[str, Reply]:
            asked.append(max_tokens)
            logprobs = {"Yes": math.log(likely - 0.001), "No": math.log(0.001)} if top else {}
            whole = f"{first} There... no.</think>Yes" if first != "Yes" else "Yes"
            choice = Choice(
                text=first if max_tokens == 1 else whole,
                finish_reason="length" if max_tokens == 1 else "stop",
                num_tokens=1,
                first_logprobs=logprobs,
            )
            return dict.fromkeys(questions, Reply(choices=[choice]))

    values = {"run_dir": tmp_path, "image_root": tmp_path, "candidates": tmp_path / "c.jsonl"}
    recipe = validate(Recipe, values | {"judge": {"endpoint": "http://h/v1"}}, "test")
    reader = ClaimReader(StatedClaim("presence", "dog", ""), "Is there {object}?")
    judge: Any = Judge()
    found = ask_claims(recipe, judge, {"q": Question("Is there a dog?", [])}, {"q": reader}).values["q"]
    said = capsys.readouterr().out
    if thinks:
        assert found == {"p_yes": 1.0, "p_no": 0.0, "by_text": True}
        assert "the judge thinks first on 1 of 1 questions: asked for its words" in said
        assert asked[-1] == recipe.text_tokens
    else:
        assert found == {"p_yes": 0.899, "p_no": 0.001} and set(asked) == {1} and not said
