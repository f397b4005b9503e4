"""Judged tasks: verdicts from published files, and a judge that answers with garbage, errors and nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from align.cli import main
from evals.scoring.places import describe_places, first_places
from evals.tasks.hallusionbench import official_verdict, strict_verdict
from evals.tasks.mmhal import TYPES, official_rating, strict_rating
from evals.tasks.objhal import object_words, read_objects
from tests.repository import BENCHMARKS


def score(capsys: pytest.CaptureFixture[str], task: str, *words: Any) -> dict[str, Any]:
    assert main(["score", task, *map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@contextmanager
def judge(replies: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI-compatible server. `replies` maps a piece of the prompt to what comes back: text, a status,
    bytes to send as they are, a list of those by seed, or an iterator; what it was asked is kept."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, json.dumps({"data": [{"id": "stub-judge"}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = json.dumps(body["messages"])
            asked.append(body)
            reply = next(value for piece, value in replies.items() if piece in prompt)
            if isinstance(reply, Iterator):
                reply = next(reply)
            if isinstance(reply, list):
                reply = reply[min(body["seed"], len(reply) - 1)]
            if isinstance(reply, int):
                self._send(reply, b'{"error": {"message": "no"}}')
            elif isinstance(reply, bytes):
                self._send(200, reply)
            else:
                choice = {"index": 0, "message": {"content": reply}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 100, "completion_tokens": 7}
                self._send(200, json.dumps({"choices": [choice], "usage": usage}).encode())

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1", asked
    finally:
        http.shutdown()
        http.server_close()


@pytest.mark.parametrize(
    ("reply", "official", "strict"),
    [
        ("Rating: 5, very informative", 5, 5),
        ("**Rating: 4**", 4, 4),
        ("**Rating**: 4", 0, 4),
        ("Rating:4", 0, 4),
        ("Rating: 10", 1, None),
        ("Rating: 1 ... Rating: 6", 0, None),
        ("rating: 3. So, Rating: 3", 3, 3),
        ("good", 0, None),
    ],
)
def test_mmhal_ratings(reply: str, official: int, strict: int | None) -> None:
    assert official_rating(reply) == official
    assert strict_rating(reply) == strict


@pytest.mark.parametrize(
    ("reply", "official", "strict"),
    [
        ("Incorrect.", "0", "0"),
        ("correct", "1", "1"),
        ("That is not correct", "1", "0"),
        ("unclear", "2", "2"),
        ("It could be", "2", None),
        ("0", "0", "0"),
    ],
)
def test_hallusionbench_verdicts(reply: str, official: str, strict: str | None) -> None:
    assert official_verdict(reply) == official
    assert strict_verdict(reply) == strict


def template(folder: Path) -> list[dict[str, Any]]:
    rows = [
        {
            "question_type": TYPES[k % 8],
            "image_id": f"i{k}",
            "image_src": f"https://x.org/{k}.jpg",
            "image_content": ["Dog"],
            "question": f"What is {k}?",
            "gt_answer": f"It is {k}.",
            "model_answer": "",
        }
        for k in range(4)
    ]
    write(folder / "mmhal-bench_answer_template.json", rows)
    return [{**row, "model_answer": f"Answer {k}"} for k, row in enumerate(rows)]


def test_mmhal_files_with_ratings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = template(tmp_path)
    reviews = ["Rating: 6", "Fine. Rating: 2", "**Rating**: 4", "no idea"]
    merged = [{**row, "gpt4_review": text} for row, text in zip(rows, reviews, strict=True)]
    replies = [{"choices": [{"message": {"content": text}}]} for text in reviews]
    for shape in (merged[::-1], replies):
        words = ("--predictions", write(tmp_path / "answers.json", shape), "--data", tmp_path)
        found = score(capsys, "mmhal", *words)
        assert (found["score"], found["hallucination_rate"]) == (2.0, 75.0)  # 6, 2, 0, 0
        strict = score(capsys, "mmhal", *words, "--mode", "strict")
        assert strict["score"] == 4.0 and strict["hallucination_rate"] == pytest.approx(100 / 3)
        assert strict["health"]["unparsed"] == 1 and strict["notes"]["judge"]["unscored"] == 1
        assert found["splits"]["adversarial"]["score"] == 2.0
    numbers = [{**row, "rating": rating} for row, rating in zip(rows, (6, 5, 0, 1), strict=True)]
    path = write(tmp_path / "answers.json", numbers)
    found = score(capsys, "mmhal", "--predictions", path, "--data", tmp_path)
    assert (found["score"], found["hallucination_rate"]) == (3.0, 50.0)
    write(path, [{**rows[0], "ratings": [6, 2]}, {**rows[1], "rating": "Good. Rating: 3"}])
    found = score(capsys, "mmhal", "--predictions", path, "--data", tmp_path)
    assert (found["score"], found["hallucination_rate"]) == (3.5, 25.0)


def test_without_a_judge_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--predictions", str(write(tmp_path / "a.json", template(tmp_path))), "--data", str(tmp_path)]
    assert main(["score", "mmhal", *words]) == 1
    said = capsys.readouterr().err
    assert "4 answers need a judge, and there is none" in said and "judge.endpoint" in said
    assert main(["score", "mmhal", *words, "--option", "judge.endpoint=http://127.0.0.1:9/v1"]) == 1
    assert "no OpenAI-compatible server answers" in capsys.readouterr().err


def test_a_judge_under_bad_luck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = template(tmp_path)
    replies = {
        "Answer 0": "No invention. Rating: 6",
        "Answer 1": "I'd rather not say.",
        "Answer 2": b"<html>not json",
        "Answer 3": 400,
    }
    words = ("--predictions", write(tmp_path / "a.json", rows), "--data", tmp_path)
    with judge(replies) as (url, asked):
        options = ("--option", f"judge.endpoint={url}", "--option", f"judge.store={tmp_path}/replies.jsonl")
        found = score(capsys, "mmhal", *words, *options)
        assert (found["score"], found["hallucination_rate"]) == (3.0, 50.0)  # 6, and 0 for no rating
        strict = score(capsys, "mmhal", *words, *options, "--mode", "strict")
        assert strict["score"] == 6.0 and strict["health"]["unparsed"] == 3
        notes = strict["notes"]["judge"]
        assert notes["judge"] == ["stub-judge"] and len(notes["prompt_sha256"]) == 1
        assert notes["unscored"] == 3 and notes["judgements"] == 4
        assert any("HTTP 400" in reason for reason in notes["unscored_reasons"])
        assert any("not a chat completion" in reason for reason in notes["unscored_reasons"])
        assert (notes["prompt_tokens"], notes["completion_tokens"]) == (200, 14)
    # The second run asked again only what had failed.
    assert len(asked) == 4 + 2 and all(body["temperature"] == 0 for body in asked)
    assert "It is 0." in json.dumps(asked) and "Dog" in json.dumps(asked)


def test_a_judge_is_measured_against_the_verdicts_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "rating": rating} for row, rating in zip(template(tmp_path), (6, 6, 0, 0), strict=True)]
    replies = {f"Answer {k}": f"Rating: {rating}" for k, rating in enumerate((6, 0, 0, 0))}
    words = ("--predictions", write(tmp_path / "a.json", rows), "--data", tmp_path)
    with judge(replies) as (url, _):
        found = score(capsys, "mmhal", *words, "--option", f"judge.endpoint={url}")
    assert found["score"] == 1.5 and found["notes"]["judge"]["judge"] == ["stub-judge"]
    # Three of four agree; by chance (2 x 1 + 2 x 3) / 16 would.
    assert found["notes"]["agreement_with_file"] == {"n": 4, "agreement": 75.0, "kappa": 0.5}


def test_a_server_error_is_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = template(tmp_path)[:1]
    with judge({"Answer 0": iter([500, "Rating: 5"])}) as (url, asked):
        words = ("--predictions", write(tmp_path / "a.json", rows), "--data", tmp_path)
        found = score(capsys, "mmhal", *words, "--option", f"judge.endpoint={url}")
    assert found["score"] == 5.0 and len(asked) == 2 and found["health"]["missing"] == 3


def test_repeats_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = template(tmp_path)[:1]
    with judge({"Answer 0": ["Rating: 6", "Rating: 2"]}) as (url, asked):
        words = ("--predictions", write(tmp_path / "a.json", rows), "--data", tmp_path)
        options = [f"judge.endpoint={url}", "judge.repeats=2", "judge.temperature=1.0"]
        found = score(capsys, "mmhal", *words, *[part for text in options for part in ("--option", text)])
    assert (found["score"], found["hallucination_rate"]) == (4.0, 50.0)
    assert found["notes"]["judge"]["repeats"] == 2 and [body["seed"] for body in asked] in ([0, 1], [1, 0])


def hallusion(category: str, figure: int, question: int, truth: int, visual: int = 1) -> dict[str, Any]:
    return {
        "category": category,
        "subcategory": "chart",
        "visual_input": str(visual),
        "set_id": "0",
        "figure_id": str(figure),
        "question_id": str(question),
        "question": f"Is it {category} {figure} {question}?",
        "gt_answer_details": f"It is {truth}.",
        "gt_answer": str(truth),
        "filename": None if not visual else f"./{category}/chart/0_{figure}.png",
    }


# VS figure 0 has no picture; two questions over two figures; a VD set beside it.
ROWS = [
    (hallusion("VS", 0, 0, 1, visual=0), "2"),
    (hallusion("VS", 0, 1, 0, visual=0), "0"),
    (hallusion("VS", 1, 0, 1), "1"),
    (hallusion("VS", 1, 1, 0), "1"),
    (hallusion("VD", 0, 0, 1), "2"),
    (hallusion("VD", 1, 0, 0, visual=2), "1"),
]


def test_hallusionbench_with_a_judges_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "HallusionBench.json", [row for row, _ in ROWS])
    answers = [{**row, "model_prediction": "x", "gpt4v_output_gpt_check": check} for row, check in ROWS]
    words = ("--predictions", write(tmp_path / "answers.json", answers[::-1]), "--data", data)
    found = score(capsys, "hallusionbench", *words)
    # Right: unclear without a picture, VS 1_0, VS 1_1, VD 1_0: 4 of 6. Figures: VD 0 alone wrong.
    assert found["aAcc"] == pytest.approx(400 / 6) and found["fAcc"] == pytest.approx(200 / 3)
    # Questions: VS 0 right on both, VS 1 wrong without a picture, VD 0 wrong on the original.
    assert found["qAcc"] == pytest.approx(100 / 3)
    # Easy: VS 0, VS 1 and VD 0 on all but edited pictures; the only edited one is VD 1's.
    assert found["easy_aAcc"] == pytest.approx(100 / 3) and found["hard_aAcc"] == 100.0
    assert found["splits"]["VS"]["hard_aAcc"] == 0.0 and "VS/hard_aAcc" in found["undefined"]
    assert found["splits"]["VS"]["fAcc"] == 100.0 and found["card"]["split"] == "6 questions, all"
    image = score(capsys, "hallusionbench", *words, "--option", "questions=image")
    assert image["aAcc"] == 75.0 and image["health"]["unknown"] == 2
    assert image["easy_aAcc"] == pytest.approx(200 / 3)  # a VS figure that is not edited is easy


def test_hallusionbench_by_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "HallusionBench.json", [row for row, _ in ROWS])
    texts = ["I cannot tell", "Yes", "Yes, it is.", "no", "1", "The chart."]
    answers = [{**row, "model_prediction": text} for (row, _), text in zip(ROWS, texts, strict=True)]
    words = ("--predictions", write(tmp_path / "answers.json", answers), "--data", data)
    found = score(capsys, "hallusionbench", *words, "--option", "scorer=rule")
    # `I cannot tell` without a picture is read as a no, which is wrong; the last one is unclear.
    assert found["aAcc"] == 50.0 and found["health"]["unparsed"] == 1
    assert "no judge" in found["card"]["parser"]
    assert main(["score", "hallusionbench", *map(str, words)]) == 1
    assert "6 answers need a judge" in capsys.readouterr().err
    with judge({"": "It is correct."}) as (url, _):
        found = score(capsys, "hallusionbench", *words, "--option", f"judge.endpoint={url}")
        assert (found["aAcc"], found["fAcc"], found["qAcc"]) == (100.0, 100.0, 100.0)


def test_the_real_hallusionbench_has_1129_questions_and_951_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = BENCHMARKS / "hallusionbench" / "HallusionBench.json"
    if not data.is_file():
        pytest.skip("no published HallusionBench beside the repository")
    rows = [{**row, "model_prediction": row["gt_answer"]} for row in json.loads(data.read_text())]
    words = ("--predictions", write(tmp_path / "a.json", rows), "--data", data, "--option", "scorer=rule")
    found = score(capsys, "hallusionbench", *words)
    assert found["health"]["answered"] == 1129 and found["aAcc"] == found["fAcc"] == found["qAcc"] == 100.0
    image = score(capsys, "hallusionbench", *words, "--option", "questions=image")
    assert image["health"]["answered"] == 951 and image["health"]["unknown"] == 178


def test_object_lists() -> None:
    assert read_objects('Sure:\n```json\n["dog", "cat"]\n```') == ["dog", "cat"]
    assert read_objects("()") == [] and read_objects("[]") == [] and read_objects("a dog") is None
    words = {"dining table": "dining table", "table": "dining table", "man": "person", "hot dog": "hot dog"}
    listed = ["wooden tables", "young man", "men", "police man", "hot dogs", "dining table", "fog"]
    assert object_words(listed, words) == ["table", "man", "hot dog", "dining table"]


def test_where_a_judges_objects_stand() -> None:
    text = "Men sit there. A Wine glass and two dogs; a dog."
    at = first_places(text, {"man", "wine glass", "dog", "zebra"})
    assert {word: text[start:end] for word, (start, end) in at.items()} == {
        "man": "Men",
        "wine glass": "Wine glass",
        "dog": "dogs",
    }
    [glass] = describe_places(text, [(*at["wine glass"], "wine glass", True)])
    assert (glass["sentence"], glass["word"], glass["invented"]) == (1, 4, True)


def test_object_halbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = {"1": ["person", "dog"], "2": ["car"], "3": ["cat", "bed"]}
    write(tmp_path / "gt_objects.json", truth)
    texts = {1: "A man, a woman and a cat play.", 2: "The sky is blue today.", 3: "It is a cat on it."}
    rows = [
        {"image_id": number, "question": "Describe it.", "answer": text} for number, text in texts.items()
    ]
    lists = [["man", "woman", "cat"], [], ["cat"]]
    listed = [{**row, "extract_objs": found} for row, found in zip(rows, lists, strict=True)]
    hall = {
        "sentences": [
            {"image_id": row["image_id"], "caption": row["answer"], "words": found, "mscoco_gt_words": there}
            for row, found, there in zip(rows, lists, truth.values(), strict=True)
        ],
        "overall_metrics": {},
    }
    for shape in (listed, hall):
        path = write(tmp_path / "a.json", shape)
        found = score(capsys, "objhal", "--predictions", path, "--data", tmp_path)
        assert found["chair_s"] == pytest.approx(100 / 3) and found["chair_s_refine"] == 50.0
        assert (found["chair_i"], found["recall"]) == (25.0, 40.0)
        assert found["resp"] == 50.0 and found["mention"] == 25.0
    # Upstream's output tells the truth too.
    again = score(capsys, "objhal", "--predictions", tmp_path / "a.json", "--data", tmp_path / "a.json")
    assert (again["chair_i"], again["recall"]) == (25.0, 40.0)
    rows += [{"image_id": 2, "question": "What?", "answer": "A dog"}]
    words = ("--predictions", write(tmp_path / "a.json", rows), "--data", tmp_path)
    with judge({"woman": '["man", "woman", "cat"]', "sky": "()", "cat on": "no idea"}) as (url, asked):
        found = score(capsys, "objhal", *words, "--option", f"judge.endpoint={url}")
    # The third reply is no list: unscored. The short answer is not judged and names nothing.
    assert len(asked) == 3 and "Describe it." in json.dumps(asked)
    assert found["chair_s"] == pytest.approx(100 / 3) and found["chair_i"] == pytest.approx(100 / 3)
    assert found["health"]["unparsed"] == 1 and found["recall"] == 25.0


def test_haloquest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ",image_name,url,image type,hallucination type,question,groundtruth responses,split\n"
    kinds = ("false premises", "insufficient context", "visual challenge")
    table += "".join(
        f'{k},{k}.png,u,real,{kind},"What, {k}?",It is {k}.,eval\n' for k, kind in enumerate(kinds)
    )
    (tmp_path / "haloquest-eval.csv").write_text(table)
    rows = [{"image_name": f"{k}.png", "question": f"What, {k}?", "answer": f"Answer {k}"} for k in range(3)]
    words = ("--predictions", write(tmp_path / "a.json", rows), "--data", tmp_path)
    with judge({"Answer 0": "correct", "Answer 1": "Incorrect.", "Answer 2": "hm"}) as (url, asked):
        found = score(capsys, "haloquest", *words, "--option", f"judge.endpoint={url}")
        assert found["accuracy"] == pytest.approx(100 / 3)
        assert found["splits"]["false_premise"]["accuracy"] == 100.0
        strict = score(capsys, "haloquest", *words, "--mode", "strict", "--option", f"judge.endpoint={url}")
        assert strict["accuracy"] == 50.0 and strict["health"]["unparsed"] == 1
        assert "It is 1." in json.dumps(asked)
    told = [{**row, "is_prediction_correct": k != 1} for k, row in enumerate(rows)]
    found = score(capsys, "haloquest", "--predictions", write(tmp_path / "a.json", told), "--data", tmp_path)
    assert found["accuracy"] == pytest.approx(200 / 3)
