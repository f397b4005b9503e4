"""Object HalBench: invented objects in descriptions, by a judge that lists the objects (RLHF-V,
arXiv:2312.00849; RLAIF-V's eval/eval_gpt_obj_halbench.py at 83d917b2).

A judge names the objects of an answer as a JSON list; each is lemmatised and looked up among COCO's, each
word once an answer. chair_s: answers with an invention / answers; chair_s_refine, the paper's response rate
(resp): / answers that name a COCO object; chair_i, the mention rate: invented / named; recall: objects named
/ there.

Edge cases: an answer of three words or fewer is not judged and names nothing. Upstream's prompt asks for `()`
where there is nothing and its parser then refuses it, and any reply that is not fenced; both are read here. A
reply that is no list leaves the answer unscored; upstream asks again, up to a hundred times. Upstream decodes
with beam 3 in one paper and greedily in the other: say which in `split`. Objects are lemmatised by rules, not
by spaCy: of `wooden table` only the noun is looked up, of `police car` the whole, as upstream does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from typing_extensions import override

from align.errors import AlignError
from align.judging.ask import Judgement, told
from align.judging.wording import fill
from align.objects.mentions import synonyms
from align.objects.plurals import singular_in
from align.rows.schema import Message, Score
from evals.answer_files.rows import TEXT_FIELDS, Row, answer_text, make_prediction, read_answer_rows
from evals.protocol import AnswerSet, Card, Mark, Metric, Sample
from evals.scoring.places import describe_places, first_places
from evals.tasks import chair
from evals.tasks.facts import Facts
from evals.tasks.judged_task import JudgedConfig, JudgedTask

ANSWER_FORMAT = (
    "{image_id, question, answer} a line, with `extract_objs` (the judge's list) or `objs` where there is "
    "one; upstream's hall_*.json ({sentences: [{image_id, caption, words}]}); or predictions.jsonl of "
    "`align generate`"
)
_LISTS = ("extract_objs", "objs", "words")
_SHORT = 3
_ADJECTIVE_WORDS = """
adult big black blue brown clear colorful dark empty female gray green grey large little long male metal old
open orange parked pink plastic purple red short small tall tan two white wooden yellow young
"""
_ADJECTIVES = frozenset(_ADJECTIVE_WORDS.split())
_ANIMAL_WORDS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub"

JUDGE_PROMPT = """\
A person was shown a picture and answered a question about it.

Question: {question}
Answer: {answer}

Taking the answer at its word, list the objects that it says can be seen in the picture: names of things \
alone, without colour, material, number or other properties, and only things that the answer names itself.

Reply with a JSON list of strings, such as ["dog", "frisbee"], and [] if it names none.
"""


class Config(JudgedConfig):
    """The truth as for CHAIR: COCO's instances and captions, or ready objects."""

    prompt: str = Field(default="{question}", description="what is asked; {question} stands for the question")
    max_tokens: int = Field(default=512, gt=0, description="longest answer in tokens")
    questions: Path | None = Field(
        default=None, description="JSON lines of image_id, question and image, to ask; scoring needs none"
    )
    instances: Path | None = Field(default=None, description="COCO instances file")
    captions: Path | None = Field(default=None, description="COCO captions file of the same images")
    objects: Path | None = Field(default=None, description="JSON: image id -> list of category names")
    synonyms: Path | None = Field(
        default=None, description="synonyms_refine.txt; CHAIR's list, which it refines, if not set"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Config:
        if (self.objects is None) == (self.instances is None):
            raise ValueError("set exactly one of instances and objects")
        return self


class ObjHal(JudgedTask[Config]):
    """See the module. Values of a sample, the same for both modes: answers (1 if scored), named_any,
    invented_any, words (distinct object words), invented, covered and truth (distinct objects).

    `meta.places` says where the object words stand in the answer, as CHAIR's `mentions` do; those that the
    judge put in words of its own are not among them."""

    measures = "invention"
    answer_format = ANSWER_FORMAT
    label = "Object HalBench"
    facts = Facts(
        guard="recall",
        invented="chair_i",
        with_invention="chair_s",
        metric_labels={
            "chair_i": "CHAIRi",
            "chair_s": "CHAIRs",
            "chair_s_refine": "CHAIRs of answers with objects",
        },
    )
    files = {
        "questions": (),
        "instances": (),
        "captions": (),
        "objects": (),
        "synonyms": ("synonyms_refine.txt",),
    }
    parser = (
        "a JSON list of objects, lemmatised by rules (upstream: spaCy); other replies unscored; both modes "
        "alike"
    )
    aggregation = "sums over answers, each object word once an answer"
    source = "Object HalBench (arXiv:2312.00849, RLAIF-V), judge's prompt in our words"
    licence = "Apache-2.0 (synonyms); annotations as COCO, CC-BY-4.0"
    wording = JUDGE_PROMPT
    all_expected = False

    @override
    def samples(self) -> list[Sample]:
        if self.config.questions is None:
            raise AlignError("no questions to ask", where=f"tasks.{self.name}.questions")
        rows = read_answer_rows(self.config.questions, "JSON lines of image_id, question and image")
        return [
            self._sample(
                str(row.need(("image_id",), "image_id")), str(row.need(("question",), "question")), row
            )
            for row in rows
        ]

    @override
    def samples_of(self, ids: Any) -> list[Sample]:
        known = {sample.id for sample in self._chair.samples_of(ids)}
        return [self._sample(name, "", None) for name in ids if name in known]

    @cached_property
    def _chair(self) -> chair.Chair:
        config = self.config
        truth = chair.Config(
            image_root=self.image_root,
            instances=config.instances,
            captions=config.captions,
            objects=config.objects,
        )
        return chair.Chair(self.name, truth)

    @cached_property
    def _words(self) -> Mapping[str, str]:
        """Word -> COCO category."""
        if self.config.synonyms is None:
            return {word.strip(): name for word, name in synonyms().items()}
        try:
            lines = self.config.synonyms.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise AlignError(f"cannot read {self.config.synonyms}: {error.strerror}") from error
        rows = [[word.strip() for word in line.split(",")] for line in lines if line.strip()]
        return {word: row[0] for row in rows for word in row}

    def _sample(self, image_id: str, question: str, row: Row | None) -> Sample:
        [pictured] = self._chair.samples_of([image_id])
        images = [str(row.fields["image"])] if row is not None and "image" in row.fields else pictured.images
        return Sample(
            id=image_id,
            images=images,
            image_root=self.image_root,
            messages=[
                Message(role="user", content=self.config.prompt.replace("{question}", question) or "?")
            ],
            max_tokens=self.config.max_tokens,
            cluster=pictured.cluster,
            reference=pictured.reference,
            meta={"question": question, "label": pictured.reference["strict"]},
        )

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        seen, asked = dict[str, int](), dict[str, str]()
        found, verdicts = [], dict[str, list[Judgement]]()
        for row in rows:
            image_id = chair.image_number(row)
            seen[image_id] = seen.get(image_id, 0) + 1
            sample_id = image_id if seen[image_id] == 1 else f"{image_id}#{seen[image_id]}"
            asked[sample_id] = str(row.first(("question", "prompt")) or "")
            listed = row.first(_LISTS)
            if listed is not None:
                verdict = listed if _is_list(listed) else read_objects(str(listed))
                verdicts[sample_id] = [told(sample_id, None, verdict)]
            fields = ("caption", "text", *TEXT_FIELDS)
            text = answer_text(row.need(fields, ANSWER_FORMAT), row.where)
            found.append(make_prediction(self.name, sample_id, text))
        known = [sample.id for sample in self._chair.samples_of(asked)]
        return AnswerSet([self._sample(name, asked[name], None) for name in known], found, verdicts)

    @override
    def judge_question(self, sample: Sample, text: str) -> Sequence[Message] | None:
        if len(text.split()) <= _SHORT:
            return None
        parts = {"question": sample.meta["question"], "answer": text}
        return [Message(role="user", content=fill(JUDGE_PROMPT, parts))]

    @override
    def read_verdict(self, reply: str) -> list[str] | None:
        return read_objects(reply)

    @override
    def parse(self, text: str) -> str:
        return text

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        judged = [row.verdict for row in self.judgements.get(sample.id, ()) if row.verdict is not None]
        is_short = len(text.split()) <= _SHORT and sample.id not in self.judgements
        scored = bool(judged) or is_short
        truth = set(sample.reference["strict"])
        repeats = [object_words(listed, self._words) for listed in judged] or [[]]
        counts = [_count(words, self._words, truth) for words in repeats]
        values = {name: sum(count[name] for count in counts) / len(counts) for name in counts[0]}
        values |= {"answers": 1.0, "truth": float(len(truth))}
        values = {name: value if scored else 0.0 for name, value in values.items()}
        invented = [word for word in repeats[0] if self._words[word] not in truth]
        at = first_places(text, repeats[0])
        marked = sorted((*place, word, word in invented) for word, place in at.items())
        places = {"places": describe_places(text, marked)} if scored else {}
        meta = {"objects": repeats[0], "invented": invented, **places, **self.judgement_meta(sample.id)}
        return Mark(values, repeats[0], meta, unparsed=not scored)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        table = [
            (
                "chair_s_refine",
                "invented_any",
                "named_any",
                False,
                "of answers that name an object, with an invention",
            ),
            ("chair_i", "invented", "words", False, "named objects that are invented"),
            ("chair_s", "invented_any", "answers", False, "answers with an invention"),
            ("recall", "covered", "truth", True, "objects in the pictures that are named"),
        ]
        return [
            Metric(
                name=name,
                split=self.config.split,
                numerator={top: 1},
                denominator={bottom: 1},
                higher_is_better=better,
                primary=name in ("chair_s_refine", "chair_i"),
                description=description,
                mode=self.config.primary_mode,
            )
            for name, top, bottom, better, description in table
        ]

    @override
    def published(self, scores: Sequence[Score]) -> dict[str, dict[str, float]]:
        """The paper's names of the two main rates."""
        sums = {name: sum(score.values[name] for score in scores) for name in ("invented_any", "invented")}
        below = {name: sum(score.values[name] for score in scores) or 1.0 for name in ("named_any", "words")}
        resp, mention = sums["invented_any"] / below["named_any"], sums["invented"] / below["words"]
        return {"": {"resp": round(100 * resp, 6), "mention": round(100 * mention, 6)}}

    @property
    @override
    def card(self) -> Card:
        judge = self.config.judge
        named = judge.name if judge else "as in the file"
        return replace(super().card, parser=f"judge: {named}; {self.parser}")

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The truth as CHAIR finds it, and the refined synonyms."""
        return chair.Chair.locate(data) | super().locate(data)


TASK = ObjHal


_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)
_BRACKETS = re.compile(r"\[[^\[\]]*\]", re.DOTALL)


def read_objects(reply: str) -> list[str] | None:
    """The list of strings in a judge's reply, fenced or not; `()` is an empty one; None without a list.

    >>> [read_objects(text) for text in ('["dog"]', '```json\\n["a"]\\n```', "Objects: ()", "none", "[1]")]
    [['dog'], ['a'], [], None, None]
    """
    fenced = _FENCED.findall(reply)
    for text in [*fenced[::-1], *_BRACKETS.findall(reply)[::-1]]:
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if _is_list(value):
            return value
    return [] if reply.strip().endswith("()") else None


def object_words(listed: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """The known words that the listed objects come to, each once, in order.

    >>> known = {"table": "dining table", "car": "car", "wine glass": "wine glass"}
    >>> object_words(["wooden tables", "police car", "cars", "Wine glasses", "car"], known)
    ['table', 'car', 'wine glass']
    """
    found: dict[str, None] = {}
    for text in listed:
        tokens = re.findall(r"[a-z]+", text.lower())
        if len(tokens) > 1 and tokens[0] in ("baby", "adult") and tokens[-1] in _ANIMAL_WORDS:
            tokens = tokens[1:]
        pairs = [" ".join(tokens[place : place + 2]) for place in range(len(tokens) - 1)]
        doubles = [word for pair in pairs if (word := singular_in(pair, words)) is not None]
        if doubles:
            found |= dict.fromkeys(doubles)
            continue
        while tokens and (tokens[0] in _ADJECTIVES or tokens[0] in ("a", "an", "the")):
            tokens = tokens[1:]
        word = singular_in(" ".join(tokens), words) if tokens else None
        if word is not None:
            found[word] = None
    names = list(found)
    return [name for name in names if not (name == "seat" and "toilet" in names)]


def _count(found: Sequence[str], words: Mapping[str, str], truth: set[str]) -> dict[str, float]:
    invented = sum(words[word] not in truth for word in found)
    return {
        "named_any": float(bool(found)),
        "invented_any": float(invented > 0),
        "words": float(len(found)),
        "invented": float(invented),
        "covered": float(len({words[word] for word in found} & truth)),
    }


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
