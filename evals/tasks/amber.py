"""AMBER: descriptions and yes/no questions about existence, attributes and relations, judged by rules
(Wang et al. 2023, arXiv:2311.07397; https://github.com/junyangwang0410/AMBER, inference.py at 534babf6).

Ids up to 1004 ask for a description, the others yes or no. In a description every noun of the vocabulary is
looked up in order: safe words pass; what is there, or goes with it, covers the thing; all else is invented,
and covers an expected invention if it is one. All ratios are over all pictures together.

- chair: invented nouns / nouns (safe words count below the line); cover: things covered / things there;
  hal: descriptions with an invention / descriptions; cog: expected inventions made / all expected.
- accuracy, precision, recall and f1 of the questions, where **no is positive**;
  amber = (100 - chair + f1) / 2.

The script also takes words for the same whose spaCy vectors are over 0.8 alike. `similarity: exact` does
without them: fewer nouns count as there and fewer expected inventions recognised, so that chair and hal can
only be higher and cover and cog only lower than with `similarity: spacy`.

Edge cases: a noun that goes with several things covers the first in order; a thing annotated twice is two.
Official answers are exactly `Yes` or `No`, so that `yes` and `No.` are wrong; its script adds 0.001 to every
denominator and rounds to one digit, so that an empty description has hal 0.1. `strict` reads yes and no as a
reader would, and is exact.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import read_json
from align.rows.schema import Message, Score
from evals.answer_files.folder import find_file
from evals.answer_files.rows import TEXT_FIELDS, Row, answer_text, make_prediction
from evals.protocol import MODE_PREFIXES, MODES, AnswerSet, Card, Mark, Metric, Mode, Sample
from evals.scoring.caption_measures import PRESENCE, caption_meta, caption_metrics, caption_values
from evals.scoring.nouns import nltk_nouns, placed_nouns
from evals.scoring.places import describe_places
from evals.scoring.similarity import Similar, exactly, spacy_similar
from evals.scoring.yes_no import parse_strict
from evals.tasks.amber_metrics import amber_metrics, published
from evals.tasks.facts import Facts
from evals.tasks.task import Task, TaskConfig

ANSWER_FORMAT = "AMBER's [{id, response}], as JSON or JSON lines, or predictions.jsonl of `align generate`"

_KINDS = {
    "generative": ("generative",),
    "discriminative-hallucination": ("discriminative", "existence"),
    "discriminative-attribute-state": ("discriminative", "attribute", "state"),
    "discriminative-attribute-number": ("discriminative", "attribute", "number"),
    "discriminative-attribute-action": ("discriminative", "attribute", "action"),
    "discriminative-relation": ("discriminative", "relation"),
    "relation": ("discriminative", "relation"),
}
"""Type of an annotation -> the parts it belongs to."""


class Config(TaskConfig):
    """The published files of AMBER's folder `data`."""

    prompt: str = Field(default="{query}", description="what is asked for a description")
    question_prompt: str = Field(
        default="{query} Please answer yes or no.", description="what is asked for yes or no"
    )
    max_tokens: int = Field(default=512, gt=0, description="longest description in tokens")
    question_max_tokens: int = Field(default=16, gt=0, description="longest yes or no in tokens")
    annotations: Path = Field(description="annotations.json")
    queries: list[Path] = Field(
        default=[], description="query files: query_all.json, or the generative and discriminative ones"
    )
    relation: Path = Field(description="relation.json: word -> words that go with it")
    safe_words: Path = Field(description="safe_words.txt")
    nouns: Literal["rules", "nltk"] = Field(
        default="rules", description="who finds nouns: rules, or the official script's NLTK (with its data)"
    )
    similarity: Literal["exact", "spacy"] = Field(
        default="exact",
        description="which words count as the same: equal ones, or those that spaCy's vectors put over 0.8 "
        "together, as the official script does",
    )
    spacy_model: str = Field(default="en_core_web_lg", description="vectors for similarity: spacy")


@dataclass(frozen=True)
class Lexicon:
    """AMBER's words: what goes with each, and which pass anywhere."""

    related: Mapping[str, Sequence[str]]
    safe: frozenset[str]

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Every word that counts as a thing."""
        return frozenset(self.related) | {word for words in self.related.values() for word in words}


class Amber(Task[Config]):
    """See the module. Values of a description, plain and with the prefix `strict_`: nouns, invented,
    has_invented, covered, expected_made; truth, expected, descriptions (1). Of a question: right, no_right
    (no answered and true), no_answered; no_true, questions (1); unparsed.

    A description also has the values of `align.claims.measure_answer`, of whose measures those of the text
    and of presence exist; what is present are AMBER's things, by the strict reading.

    A description's `meta.mentions` and `meta.mentions_strict` list the nouns as CHAIR's do its objects."""

    label = "AMBER"
    facts = Facts(guard="cover", invented="chair", metric_labels={"amber": "AMBER score", "chair": "CHAIR"})
    measures = "invention"
    answer_format = ANSWER_FORMAT
    all_expected = False

    @override
    def inputs(self) -> dict[str, Path]:
        config = self.config
        files = {"annotations": config.annotations, "relation": config.relation, "safe": config.safe_words}
        return files | {f"queries.{number}": path for number, path in enumerate(config.queries)}

    @override
    def samples(self) -> list[Sample]:
        if not self._queries:
            raise AlignError("no queries to ask", where=f"tasks.{self.name}.queries")
        return [self._sample(sample_id) for sample_id in self._queries if sample_id in self._truth]

    @override
    def samples_of(self, ids: Collection[str]) -> list[Sample]:
        """Any annotated id; scoring needs no queries."""
        return [self._sample(sample_id) for sample_id in self._truth if sample_id in ids]

    @cached_property
    def _truth(self) -> dict[str, dict[str, Any]]:
        return _by_id(self.config.annotations, ("type", "truth"))

    @cached_property
    def _queries(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for path in self.config.queries:
            found |= _by_id(path, ("image", "query"))
        return found

    @cached_property
    def _lexicon(self) -> Lexicon:
        try:
            safe = self.config.safe_words.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise AlignError(f"cannot read {self.config.safe_words}: {error.strerror}") from error
        return Lexicon(read_json(self.config.relation), frozenset(safe))

    @cached_property
    def _similar(self) -> Similar:
        return exactly if self.config.similarity == "exact" else spacy_similar(self.config.spacy_model)

    def _sample(self, sample_id: str) -> Sample:
        truth, query = self._truth[sample_id], self._queries.get(sample_id, {"image": "", "query": ""})
        parts = _KINDS.get(str(truth["type"]), ("discriminative", "relation"))
        describes = parts == ("generative",)
        prompt = self.config.prompt if describes else self.config.question_prompt
        return Sample(
            id=sample_id,
            images=[query["image"]] if query["image"] else [],
            image_root=self.image_root,
            messages=[Message(role="user", content=prompt.replace("{query}", query["query"]) or "?")],
            max_tokens=self.config.max_tokens if describes else self.config.question_max_tokens,
            cluster=query["image"] or sample_id,
            reference={"truth": truth["truth"], "hallu": truth.get("hallu", [])},
            subsets=parts,
            meta={"question": query["query"], "label": truth["truth"], "kind": parts[-1]},
        )

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        fields = ("response", *TEXT_FIELDS)
        found = [
            make_prediction(
                self.name,
                row.need_id(("id", "question_id"), ANSWER_FORMAT),
                answer_text(row.need(fields, ANSWER_FORMAT), row.where),
            )
            for row in rows
        ]
        return self.asked_in(found)

    @override
    def parse(self, text: str) -> str:
        return text

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        return self._describe(sample, text) if "generative" in sample.subsets else _answer(sample, text)

    def _describe(self, sample: Sample, text: str) -> Mark:
        truth, hallu = sample.reference["truth"], sample.reference["hallu"]
        values = {"descriptions": 1.0, "truth": float(len(truth)), "expected": float(len(hallu))}
        invented: dict[Mode, list[str]] = {}
        places: dict[str, list[dict[str, Any]]] = {}
        for mode, prefix in MODE_PREFIXES:
            placed = placed_nouns(text, self._lexicon.vocabulary, mode)
            nouns = [noun.lemma for noun in placed]
            tagged = self.config.nouns == "nltk" and mode == "official"
            if tagged:
                nouns = nltk_nouns(text, self._lexicon.vocabulary)
            invented[mode], covered, made = look_up(nouns, truth, hallu, self._lexicon, self._similar)
            values |= {
                f"{prefix}nouns": float(len(nouns)),
                f"{prefix}invented": float(len(invented[mode])),
                f"{prefix}has_invented": float(bool(invented[mode])),
                f"{prefix}covered": float(len(covered)),
                f"{prefix}expected_made": float(len(made)),
                f"{prefix}amber_top": float(len(nouns) - len(invented[mode])),
                f"{prefix}amber_bottom": float(len(nouns)),
            }
            if not tagged:  # the tagger does not tell places
                marked = [(noun.start, noun.end, noun.lemma, noun.lemma in invented[mode]) for noun in placed]
                places["mentions" if mode == "official" else "mentions_strict"] = describe_places(
                    text, marked
                )
            if mode == "strict":  # things of AMBER's own vocabulary, each once
                told = {noun for noun in nouns if noun not in self._lexicon.safe}
                values |= {
                    "kinds_named": float(len(told)),
                    "kinds_invented": float(len(set(invented[mode]))),
                    "kinds_right": float(len(covered)),
                    "kinds_there": float(len(truth)),
                }
        values |= caption_values(text, None)
        meta = {
            "invented": invented["official"],
            "invented_strict": invented["strict"],
            **places,
            **caption_meta(text, None),
        }
        return Mark(values, invented["official"], meta, unparsed=not text.strip())

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        order = sorted(MODES, key=lambda mode: mode != self.config.primary_mode)
        found = [metric for mode in order for metric in amber_metrics(mode, mode == self.config.primary_mode)]
        return found + caption_metrics(PRESENCE, "generative", subsets=("generative",))

    @override
    def published(self, scores: Sequence[Score]) -> dict[str, dict[str, float]]:
        return published(scores)

    @property
    @override
    def card(self) -> Card:
        config = self.config
        nouns = {
            "rules": "nouns by rules of our own in place of NLTK's tagger, WordNet's lemmas from a table (60 "
            "LLaVA-1.5 captions: 522 of the tagger's 524 nouns found, and 13 more)",
            "nltk": "nouns by NLTK's tagger and WordNet's lemmas",
        }[config.nouns]
        similar = {
            "exact": "words match exactly, for the script also by similarity over 0.8: of the same nouns "
            "ours has no lower chair and hal, and no higher cover and cog, than the script",
            "spacy": f"words match over 0.8 similarity of {config.spacy_model}",
        }[config.similarity]
        return Card(
            task=self.name,
            type=self.type,
            prompt=f"{config.prompt} | {config.question_prompt}",
            parser=f"official: {nouns}; {similar}; answers exactly Yes or No; strict: case and plurals "
            "mended, the leading yes or no",
            split=config.split,
            aggregation="sums over all pictures; no is positive; amber = (100 - chair + f1) / 2",
            source="AMBER (arXiv:2311.07397)",
            licence="Apache-2.0",
            mode=config.primary_mode,
            cluster="image",
        )

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The files of AMBER's folder `data`, or of one that holds them side by side."""
        names = {
            "annotations": "annotations.json",
            "relation": "relation.json",
            "safe_words": "safe_words.txt",
        }
        found: dict[str, Any] = {key: find_file(data, name) for key, name in names.items()}
        whole = find_file(data, "query_all.json")
        parts = [find_file(data, f"query_{part}.json") for part in ("generative", "discriminative")]
        found["queries"] = [path for path in ([whole] if whole else parts) if path is not None]
        return {key: value for key, value in found.items() if value}


TASK = Amber


def look_up(
    nouns: Sequence[str],
    truth: Sequence[str],
    hallu: Sequence[str],
    lexicon: Lexicon,
    similar: Similar,
) -> tuple[list[str], set[int], set[int]]:
    """What AMBER's script makes of a description's nouns.

    Returns:
        the invented nouns in order; indices of the things in `truth` that are covered; of those in `hallu`
        that are made.
    """
    there = _with_related(truth, lexicon)
    expected = _with_related(hallu, lexicon)
    invented: list[str] = []
    covered: set[int] = set()
    made: set[int] = set()
    for noun in nouns:
        if noun in lexicon.safe:
            continue
        exact = next((index for word, index in there if word == noun), None)
        if exact is not None:
            covered.add(exact)
            continue
        for same in (exactly, similar):
            made.update([index for word, index in expected if same(noun, word)][:1])
        near = next((index for word, index in there if similar(noun, word)), None)
        if near is None:
            invented.append(noun)
        else:
            covered.add(near)
    return invented, covered, made


def _with_related(words: Sequence[str], lexicon: Lexicon) -> list[tuple[str, int]]:
    """Words that stand for a thing, each with the thing's index: those that go with one first."""
    related = [(other, k) for k, word in enumerate(words) for other in lexicon.related.get(word, ())]
    return related + [(word, k) for k, word in enumerate(words)]


def _answer(sample: Sample, text: str) -> Mark:
    truth = str(sample.reference["truth"])
    values = {"questions": 1.0, "no_true": float(truth != "yes")}
    strict = parse_strict(text)
    official = {"Yes": "yes", "No": "no"}.get(text)
    for prefix, answer in (("", official), ("strict_", strict)):
        no_right = float(answer == "no" and truth == "no")
        values |= {
            f"{prefix}right": float(answer == truth),
            f"{prefix}no_right": no_right,
            f"{prefix}no_answered": float(answer == "no"),
            f"{prefix}amber_top": 2 * no_right,
            f"{prefix}amber_bottom": float(answer == "no") + values["no_true"],
        }
    return Mark(values, official, {"parsed_strict": strict}, unparsed=strict is None)


def _by_id(path: Path, fields: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list) or any(
        not isinstance(row, dict) or {"id", *fields} - row.keys() for row in rows
    ):
        raise AlignError(f"not a list of objects with id, {', '.join(fields)}", where=str(path))
    return {str(row["id"]): row for row in rows}
