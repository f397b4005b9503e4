"""What a judge at an OpenAI-compatible endpoint makes of a check's answers.

`claims`: each kind of object that a description names becomes one question with the picture, answered by yes
or no; the measure is the share of them that the judge confirms. `rating`: the recipe's own prompt; the
number that the reply gives, on its scale, from 0 to 1. A reply that is neither, or none, is a failed request:
it is left out of the measure, never counted as zero. Above `max_failed` the judge has failed as a whole.

Replies are kept on disk by what was asked, so that the same answer is worth the same at every check and after
a resume. Colours, numbers and places are not asked; `align judge` does that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align.claims import claims_of
from align.dev_check.asked import Asked
from align.dev_check.recipe import JudgeSection
from align.digest import digest_file
from align.errors import AlignError
from align.inputs.images import resolve_image
from align.judging.endpoint import connect
from align.judging.ratings import read_number
from align.judging.replies import read_yes_no
from align.rows.schema import Message
from align.serving.client import ChatRequest, Failure, Reply, Sampling, ask, content_key
from align.serving.server import Server

_ATTEMPTS = 3


@dataclass(frozen=True)
class Judgement:
    """A check's answers as the judge sees them.

    Attributes:
        values: per answer `judge_points` and `judged`; empty where it was not judged.
        asked, failed: requests.
        reason: of the first failed one.
        is_usable: whether few enough failed and anything was judged at all.
    """

    values: Sequence[dict[str, float]]
    asked: int
    failed: int
    reason: str
    is_usable: bool

    def to_json(self) -> dict[str, int | str]:
        """For the log."""
        return {"asked": self.asked, "failed": self.failed} | ({"reason": self.reason} if self.failed else {})


class Judge:
    """Asks one endpoint about answers.

    Args:
        root: folder of the pictures.
        kept: file of earlier replies; made when there are some.

    Raises:
        AlignError: nobody answers at the endpoint.
    """

    def __init__(self, section: JudgeSection, root: Path | None, kept: Path) -> None:
        self._section, self._root, self._kept = section, root, kept
        self._server: Server = connect(section, "dev.judge.endpoint")
        self._replies: dict[str, str] = {}
        self._digests: dict[Path, str] = {}

    def judge(self, asked: Sequence[Asked], answers: Sequence[str]) -> Judgement:
        """Judge the answers of a check, in order."""
        self._read_kept()
        wanted: dict[str, ChatRequest] = {}
        keys: list[list[str]] = []
        for item, answer in zip(asked, answers, strict=True):
            own = {self._key(request): request for request in self._requests(item, answer)}
            wanted |= own
            keys.append(list(own))
        reasons = self._ask({key: wanted[key] for key in wanted if key not in self._replies})
        values = [self._values(own) for own in keys]
        failed = [key for key in wanted if key in reasons]
        reason = reasons[failed[0]] if failed else "no answer names an object"
        some = any(own.get("judged") for own in values)
        usable = some and len(failed) <= self._section.max_failed * len(wanted)
        return Judgement(values, len(wanted), len(failed), reason, usable)

    def _requests(self, item: Asked, answer: str) -> list[ChatRequest]:
        if not item.is_judged:
            return []
        prompt = self._section.prompt
        if self._section.ask == "rating":
            places = {"question": item.messages[-1].marked, "answer": answer}
            return [self._request(item, _filled(prompt, places))]
        named = [claim.category for claim in claims_of(answer) if claim.kind == "presence"]
        return [self._request(item, _filled(prompt, {"object": name})) for name in named]

    def _request(self, item: Asked, text: str) -> ChatRequest:
        images = [] if self._root is None else [resolve_image(self._root, name) for name in item.images]
        sampling = Sampling(max_tokens=self._section.max_tokens)
        return ChatRequest([Message(role="user", content=text)], images, sampling)

    def _key(self, request: ChatRequest) -> str:
        paths = [path for path in request.images if isinstance(path, Path)]
        for path in paths:
            if path not in self._digests:
                self._digests[path] = digest_file(path)
        return content_key(self._server.digest, request, [self._digests[path] for path in paths])

    def _ask(self, requests: dict[str, ChatRequest]) -> dict[str, str]:
        """Ask what is new; returns key -> why a request failed."""
        reasons = dict.fromkeys(requests, "not asked: the server had gone")

        def keep(key: str, reply: Reply | Failure) -> None:
            if isinstance(reply, Failure):
                reasons[key] = reply.reason
                return
            text = reply.choices[0].text
            if self._points(text) is None:
                reasons[key] = f"unreadable reply: {text[:80]!r}"
                return
            self._replies[key] = text
            del reasons[key]

        section = self._section
        if requests:
            try:
                ask(
                    self._server,
                    list(requests.items()),
                    keep,
                    section.concurrency,
                    section.timeout_seconds,
                    _ATTEMPTS,
                )
            except AlignError as error:
                reasons = {key: error.what for key in reasons}
        with self._kept.open("a", encoding="utf-8") as out:
            for key in requests:
                if key in self._replies:
                    out.write(json.dumps({"key": key, "reply": self._replies[key]}) + "\n")
        return reasons

    def _read_kept(self) -> None:
        if self._replies or not self._kept.is_file():
            return
        for line in self._kept.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line that a kill fell into
                continue
            self._replies[entry["key"]] = entry["reply"]

    def _values(self, keys: Sequence[str]) -> dict[str, float]:
        points = [self._points(self._replies[key]) for key in keys if key in self._replies]
        known = [one for one in points if one is not None]
        return {"judge_points": sum(known), "judged": float(len(known))} if known else {}

    def _points(self, text: str) -> float | None:
        """0 to 1; None for a reply that cannot be read."""
        if self._section.ask == "claims":
            confirmed = read_yes_no(text).verdict
            return None if confirmed is None else float(confirmed)
        low, high = self._section.scale
        number = read_number(text, (low, high)).verdict
        return None if number is None else (number - low) / (high - low)


def _filled(template: str, places: dict[str, str]) -> str:
    """The template with its places filled in one pass: an answer that says {question} stays as it is."""
    return re.sub(r"\{(\w+)\}", lambda found: places.get(found[1], found[0]), template)
