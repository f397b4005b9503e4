"""Ratings as models write them: a number for each of several names, and nothing that was not meant.

    accuracy: 5 (all true)     5          Accuracy (1-5): **5**    5
    1. accuracy - 4/5          4          {"accuracy": {"score": 4.5, "reason": "..."}}    4.5
    accuracy: 4-5              a range    accuracy: -5, 7, 0, 80%, 8/10    out of range, another scale
    accuracy: not 5            hedged     accuracy: 4 ... accuracy: 5    two numbers

A number counts where it stands for the name: in a line or a JSON object of its own, or behind the name and a
colon. Decimals are read as they are. Numbers in thoughts don't count (`settled`; or plain text before a last
whole block of ratings). What is refused has its reason, whose kind stands before the colon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.judging.replies import CUT_OFF, NO_VERDICT, Read, json_values, plain, settled

Number = int | float

SPOKEN: Mapping[str, Sequence[str]] = {
    "accuracy": ("准确性", "准确度", "准确率", "准确"),
    "completeness": ("完整性", "完整度", "完整"),
    "relevance": ("相关性", "相关度", "相关"),
}
"""What the three sides of the shipped rubric are called in Chinese."""

_ENGLISH = {
    w: n
    for n, w in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_CHINESE = {w: n for n, w in enumerate("零一二三四五六七八九十")} | {"两": 2}
_CHINESE |= {w: n for n, w in enumerate("壹贰叁肆伍", start=1)}
_CJK = re.compile(r"[\u4e00-\u9fff]")
_DECORATION = re.compile(r"[*`\"$#]|(?<!\w)'|'(?!\w)|__|\\boxed|\\text|<\|[a-z_]+\|>")
_BEFORE_NUMBER = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "of",
        "i",
        "it",
        "would",
        "give",
        "gives",
        "given",
        "d",
        "rate",
        "rates",
        "rated",
        "rating",
        "score",
        "scores",
        "scored",
        "gets",
        "get",
        "at",
        "as",
        "be",
        "my",
        "value",
        "points",
        "excellent",
        "perfect",
        "good",
        "great",
        "very",
        "high",
        "fair",
        "average",
        "moderate",
        "medium",
        "ok",
        "okay",
        "poor",
        "bad",
        "low",
        "strong",
        "weak",
        "fully",
        "full",
        "mostly",
        "partly",
        "评分",
        "得分",
        "分数",
        "打分",
        "给",
        "为",
        "是",
        "我",
    ]
)
_HEDGES = frozenset(
    [
        "not",
        "n't",
        "isn",
        "never",
        "no",
        "less",
        "under",
        "below",
        "above",
        "over",
        "more",
        "least",
        "most",
        "about",
        "around",
        "nearly",
        "almost",
        "approximately",
        "roughly",
        "between",
        "from",
        "than",
        "maybe",
        "perhaps",
        "possibly",
        "probably",
        "either",
        "up",
        "不",
        "不是",
        "约",
        "大约",
        "至少",
        "最多",
        "低于",
        "高于",
    ]
)
_UNIT = re.compile(
    r"^\s*(?:[- ]?(?:points?|pts?\.?|stars?|marks?|punkte?|puntos?|estrellas?)\b|分|点|颗?星)", re.I
)
_OUT_OF = re.compile(r"^\s*(?:/|\bout\s+of\b|\bof\b|\bvon\b|\bsur\b|\bde\b|出自)\s*(\d+(?:\.\d+)?)", re.I)
_ANOTHER = re.compile(
    r"^\s*(?:(?:\.\.+|-|–|—|~|\+/-|±|/|,|->|=>|→|⇒|\bto\b|\bor\b|\band\b|\bbis\b|\boder\b|到|至|或)\s*(?:an?\s+)?)+[-+]?\d",
    re.I,
)
_MAY_FOLLOW = re.compile(
    r"^\s*(?:$|[,;:!)(\]\[}|>/\\=。，；：（）、✓✅★⭐]|\.(?!\d)|[-–—]|<|because\b|since\b|as\b|for\b|due\b|given\b|"
    r"with\b|but\b|and\b|which\b|meaning\b|here\b|overall\b|因为)",
    re.I,
)
_OR_ANOTHER = re.compile(
    r"\b(?:or|maybe|perhaps|possibly|could\s+be|might\s+be)\s+(?:an?\s+|even\s+)?(?:\d|one\b|two\b|three\b|four\b|"
    r"five\b)|或\s*\d",
    re.I,
)
_FINAL = re.compile(
    r"\b(?:final|finally|therefore|thus|hence|overall|conclusion|revised|corrected|ratings?|scores?|verdict|answer|"
    r"so)\b|最终|因此|所以|综上|结论|评分|打分|^\W*[-=*_]{3,}\W*$",
    re.I | re.M,
)
_SCALE = re.compile(r"\d\s*(?:-|–|to|~|到|至|\.\.)\s*\d|out\s+of|scale|max|^\s*/|满分", re.I)
_STARS = re.compile(r"^([★⭐]+)[☆\s]*(?=$|[^★⭐☆\w])")


@dataclass(frozen=True)
class _Said:
    """One thing that a reply says of a name: a number, or why what stands there is none."""

    name: str
    start: int
    end: int
    read: Read[Number]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    is_chinese: bool


def is_chinese(prompt: str) -> bool:
    """Whether a prompt is written in Chinese, so that number words are too.

    >>> is_chinese("请给出评分: {conversation}"), is_chinese("Rate it: {conversation}")
    (True, False)
    """
    return _CJK.search(prompt) is not None


def read_ratings(
    reply: str,
    names: Sequence[str],
    scale: tuple[float, float] = (1, 5),
    spoken: Mapping[str, Sequence[str]] = SPOKEN,
    chinese: bool = False,
) -> Read[dict[str, Number]]:
    """The number of each name, from the last whole block of them.

    Args:
        names: what is rated, in lower case.
        scale: worst and best number.
        spoken: other words for a name.
        chinese: the prompt is Chinese; number words are read only then.

    >>> read_ratings("Accuracy: 4\\n**completeness**: 5/5", ("accuracy", "completeness")).verdict
    {'accuracy': 4, 'completeness': 5}
    >>> read_ratings("accuracy: -5", ("accuracy",)).reason
    'out of range: accuracy -5'
    """
    behind = settled(reply)
    if behind.verdict is None:
        return Read(None, behind.reason)
    limits = _Scale(*scale, is_chinese=chinese)
    found = _from_json(behind.verdict, names, spoken, limits)
    if found is not None:
        return found
    text = re.sub(r"<(\w+)>\s*([^<>\n]*?)\s*</\1>", r"\n\1: \2\n", behind.verdict)
    text = re.sub(r"\\(?:boxed|text)\{([^{}]*)\}", r"\1", text)
    text = _DECORATION.sub("", text)
    text = _rows_of_table(text, names, spoken)
    best: Read[dict[str, Number]] | None = None
    said: list[_Said] = []
    for level in _levels(text, names, spoken, limits):
        said = sorted([*said, *level], key=lambda item: item.start)
        read = _last_block(text, names, said)
        if read.verdict is not None:
            return read
        if said and (best is None or not read.reason.startswith("no rating")):
            best = read
            if not read.reason.startswith("no rating"):
                break
    return best or Read(None, NO_VERDICT)


def read_number(reply: str, scale: tuple[float, float]) -> Read[Number]:
    """The one number of a reply that is asked for nothing else: alone, behind a label, or in the last line.

    >>> [read_number(text, (1, 10)).verdict for text in ("8", "Rating: 7/10", "8 - fine", "-8", "7 or 8")]
    [8, 7, 8, None, None]
    """
    behind = settled(reply)
    if behind.verdict is None:
        return Read(None, behind.reason)
    text = _DECORATION.sub("", re.sub(r"\\(?:boxed|text)\{([^{}]*)\}", r"\1", behind.verdict)).strip()
    limits = _Scale(*scale, is_chinese=False)
    found = [
        _value(line[label.end() :], "", limits)
        for line in [text, *text.splitlines()[::-1]]
        for label in [
            re.match(r"(?:.*?\b(?:rating|score|answer|评分|得分)\w*\W*?[:=]|\W*?)(?=[-+\w])", line, re.I)
        ]
        if label is not None
    ]
    return next((read for read in found if read is not None), Read(None, NO_VERDICT))


# -------------------------------------------------------------------------------------------- where it stands


def _names_pattern(names: Sequence[str], spoken: Mapping[str, Sequence[str]]) -> str:
    words = [word for name in names for word in (name, *spoken.get(name, ()))]
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def _name_of(word: str, names: Sequence[str], spoken: Mapping[str, Sequence[str]]) -> str:
    word = word.lower()
    return next(name for name in names if word == name or word in spoken.get(name, ()))


def _levels(
    text: str, names: Sequence[str], spoken: Mapping[str, Sequence[str]], limits: _Scale
) -> Sequence[Sequence[_Said]]:
    """What is said in lines of their own; then behind a colon in running text; then in words."""
    word = _names_pattern(names, spoken)
    rest = r"(?:'s)?(?:[ \t]+(?:score|rating)|评分|得分)?[ \t]*(?P<note>[(\[][^)\]\n]*[)\]])?[ \t]*"
    lead = r"^[ \t]*(?:[^\w\n(]*[ \t]*)(?:\(?\d{1,2}[.)、:]\)?[ \t]*|[a-cA-C][.)][ \t]+)?(?:[^\w\n]*)"
    mark = r"(?P<mark>:|=|\||->|=>|→|,(?=[ \t]*\d)|[-–—](?=[ \t]*\S)|(?=[\d(\[<★⭐])|(?=\n)|$)"
    in_line = re.compile(rf"{lead}(?P<name>{word}){rest}{mark}", re.I | re.M)
    inside = re.compile(rf"(?<![A-Za-z])(?P<name>{word}){rest}(?P<mark>[:=|]|->|→)", re.I)
    in_words = re.compile(
        rf"(?<![A-Za-z])(?P<name>{word}){rest}(?P<mark>\b(?:is|of|gets?|at|as)\b|是|为|给|(?=[\d一二三四五]))",
        re.I,
    )
    levels = []
    for pattern in (in_line, inside, in_words):
        found = list(pattern.finditer(text))
        starts = [item.start("name") for item in inside.finditer(text)] + [f.start("name") for f in found]
        said = [_said(text, match, starts, names, spoken, limits) for match in found]
        levels.append([item for item in said if item is not None])
    return levels


def _said(
    text: str,
    match: re.Match[str],
    starts: Sequence[int],
    names: Sequence[str],
    spoken: Mapping[str, Sequence[str]],
    limits: _Scale,
) -> _Said | None:
    name = _name_of(match["name"], names, spoken)
    after = match.end()
    end = min([place for place in starts if place > match.start("name")], default=len(text))
    line_end = text.find("\n", after)
    line_end = len(text) if line_end < 0 else line_end
    zone = text[after : min(end, line_end)]
    if not zone.strip(" \t:|-"):  # a heading: what it rates stands below
        below = re.compile(r"\s*(?:[^\n]*\b(?:score|rating)\W*[:=])?([^\n]*)").match(text, line_end)
        zone = below[1] if below is not None and line_end < end else ""
    if match["mark"] == "-" and re.match(r"\d", zone) and text[match.start("mark") - 1] == " ":
        zone = "-" + zone  # `accuracy -5` is a sign, `accuracy - 5` a dash
    read = _value(zone, name, limits)
    note = (match["note"] or "").strip("()[]")
    if note and not _SCALE.search(note) and (of_note := _value(note, name, limits)) is not None:
        if read is not None and read.verdict is not None and read.verdict != of_note.verdict:
            read = Read(None, f"two numbers: {name} {note} and {read.verdict:g}")
        else:
            read = of_note
    if read is None and (section := _section_score(text[line_end : max(line_end, end)])) is not None:
        read = _value(section, name, limits)
    return None if read is None else _Said(name, match.start("name"), min(end, line_end), read)


def _section_score(text: str) -> str | None:
    """What stands behind `Score:` in the lines below a heading."""
    found = re.search(r"^\W*(?:score|rating|评分|得分|分数)\W*?[:=]([^\n]*)", text, re.I | re.M)
    return found[1] if found else None


def _rows_of_table(text: str, names: Sequence[str], spoken: Mapping[str, Sequence[str]]) -> str:
    """A table whose head has the names becomes a line a name."""
    lines = text.splitlines()
    word = re.compile(_names_pattern(names, spoken), re.I)
    for place, line in enumerate(lines):
        mark = next((m for m in ("|", "\t", ",") if m in line.strip(" |")), None)
        head = _cells(line, mark) if mark else []
        heads = [word.fullmatch(cell) for cell in head]
        if mark is None or sum(cell is not None for cell in heads) < max(2, len(names)):
            continue
        below = [_cells(row, mark) for row in lines[place + 1 :] if re.search(r"\w", row)]
        if below and len(below[0]) == len(head):
            made = [f"{cell}: {value}" for cell, value in zip(head, below[0], strict=True)]
            return "\n".join([*lines[:place], *made])
    return text


def _cells(line: str, mark: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(mark)]


# ------------------------------------------------------------------------------------------- what it says


def _value(zone: str, name: str, limits: _Scale) -> Read[Number] | None:
    """The number that stands for a name; a refusal; None where it is prose and no rating at all."""
    text = zone.strip(" \t:=")
    if (wrapped := re.match(r"[<(\[{]\s*([^<>()\[\]{}]*?)\s*[>)\]}](.*)", text)) is not None:
        text = f"{wrapped[1]} {wrapped[2]}".strip()
    if (stars := _STARS.match(text)) is not None:
        return _in_range(len(stars[1]), name, str(len(stars[1])), limits)
    found = re.search(r"\d+(?:\.\d+)?", text)
    words = _number_word(text)
    if words is not None and (found is None or words[0] < found.start()):
        return _of_words(text, *words, name, limits)
    if found is None:
        return None
    before = text[: found.start()]
    if refused := _refused_before(before, found[0], name):
        return refused
    if _prose(before):
        return None
    return _of_digits(text, found, name, limits)


def _refused_before(before: str, number: str, name: str) -> Read[Number] | None:
    if re.search(r"-\s*$" if not re.search(r"\w\s+-\s*$", before) else r"-$", before):
        return Read(None, f"out of range: {name} -{number}".replace("  ", " "))
    if re.search(r"[<>≥≤~≈±]\s*$", before) or _HEDGES & set(re.findall(r"n't|[^\W\d_]+", before.lower())):
        return Read(None, f"hedged: {name} {(before + number).strip()}")
    return None


def _prose(before: str) -> bool:
    return bool(set(re.findall(r"[^\W\d_]+", before.lower())) - _BEFORE_NUMBER)


def _of_digits(text: str, found: re.Match[str], name: str, limits: _Scale) -> Read[Number] | None:
    rest = text[found.end() :]
    if (out_of := _OUT_OF.match(rest)) is not None:
        if float(out_of[1]) != limits.high:
            return Read(None, f"another scale: {name} {found[0]} of {out_of[1]}")
        rest = rest[out_of.end() :]
        if re.match(r"\s*/\s*\d", rest):
            return Read(None, f"two numbers: {name} {text[:20]}")
    if re.match(r"\s*(?:%|percent\b)", rest, re.I):
        return Read(None, f"another scale: {name} {found[0]}%")
    for _ in range(2):
        if _ANOTHER.match(rest) or re.match(r"\.\d|\s+\d", rest):
            return Read(None, f"two numbers: {name} {text[:40].strip()}")
        if (unit := _UNIT.match(rest)) is None:
            break
        rest = rest[unit.end() :]
    if re.match(r"\s*半", rest):
        return _in_range(float(found[0]) + 0.5, name, f"{found[0]}.5", limits)
    if re.match(r"\s*[+?]", rest) or _OR_ANOTHER.search(rest):
        return Read(None, f"hedged: {name} {text[:40].strip()}")
    if (outside := re.match(r"\s*(?:out\s+of|of|/)\s*(\d+)", rest, re.I)) and float(
        outside[1]
    ) != limits.high:
        return Read(None, f"another scale: {name} {found[0]} of {outside[1]}")
    if not _MAY_FOLLOW.match(rest) and not outside and not _CJK.match(rest.strip() or " "):
        return None  # `3 dogs`: it counts something
    return _in_range(float(found[0]), name, found[0], limits)


def _in_range(value: float, name: str, said: str, limits: _Scale) -> Read[Number]:
    if not limits.low <= value <= limits.high:
        return Read(None, f"out of range: {name} {said}".replace("  ", " "))
    return Read(int(value) if value == int(value) else value)


def _number_word(text: str) -> tuple[int, str, float] | None:
    """(where, which word, its number) of the first number word."""
    english = re.search(rf"\b({'|'.join(_ENGLISH)})\b", text, re.I)
    chinese = re.search(
        rf"([{''.join(_CHINESE)}])(?:点([{''.join(_CHINESE)}]))?(?=$|[分星颗点半\s.,;:()。，；：（）、])",
        text,
    )
    found = [item for item in (english, chinese) if item is not None]
    if not found:
        return None
    first = min(found, key=lambda item: item.start())
    if first is english:
        return first.start(), first[0], float(_ENGLISH[first[0].lower()])
    half = 0.5 if re.match(r"分?半", text[first.end() :]) else 0.0
    tenths = _CHINESE[first[2]] / 10 if first[2] else half
    return first.start(), first[0], _CHINESE[first[1]] + tenths


def _of_words(
    text: str, place: int, word: str, value: float, name: str, limits: _Scale
) -> Read[Number] | None:
    before, rest = text[:place], text[place + len(word) :]
    if refused := _refused_before(before, word, name):
        return refused
    if _prose(before):
        return None
    if not word.isascii() and not limits.is_chinese:
        return Read(None, f"a Chinese number word, and the prompt is not Chinese: {name} {word}")
    rest = _UNIT.sub("", re.sub(r"^分?半", "", rest))
    words = "|".join((*_ENGLISH, *_CHINESE))
    rest = re.sub(r"^\s*(?:out\s+of\s+five|满分五分)", "", rest, flags=re.I)
    if re.match(rf"^\s*(?:-|–|~|to\b|or\b|到|至|或|,|/)\s*(?:{words}|\d)", rest, re.I) or _OR_ANOTHER.search(
        rest
    ):
        return Read(None, f"two numbers: {name} {text[:40].strip()}")
    if rest.lstrip()[:1] == "?":
        return Read(None, f"hedged: {name} {text[:40].strip()}")
    if word.isascii() and not _MAY_FOLLOW.match(rest) and not _OUT_OF.match(rest):
        return None
    return _in_range(value, name, word, limits)


# ---------------------------------------------------------------------------------------- which one counts


def _last_block(text: str, names: Sequence[str], said: Sequence[_Said]) -> Read[dict[str, Number]]:
    """The last thing said of each name; an earlier one that differs counts unless words part the two."""
    last: dict[str, _Said] = {}
    for item in said:
        last[item.name] = item
    missing = [name for name in names if name not in last]
    if missing:
        return Read(None, f"no rating: {', '.join(missing)}")
    refused = next((last[name].read.reason for name in names if last[name].read.verdict is None), "")
    if refused:
        return Read(None, refused)
    first = min(item.start for item in last.values())
    earlier = [item for item in said if item not in last.values()]
    for item in earlier:
        own = last[item.name].read.verdict
        if item.read.verdict == own:
            continue
        # Only a whole block behind words such as `final` replaces what was said before it.
        ends = max(other.end for other in earlier if other.start < first) if item.start < first else first
        if item.start > first or not _FINAL.search(text[min(ends, first) : first]):
            before = (
                item.read.reason.split(": ")[-1] if item.read.verdict is None else f"{item.read.verdict:g}"
            )
            return Read(None, f"two numbers: {item.name} {before} and {own:g}")
    return Read({name: value for name in names if (value := last[name].read.verdict) is not None})


# ---------------------------------------------------------------------------------------------------- JSON

_SCORE_KEYS = ("score", "rating", "value", "points", "评分", "得分", "分数")


def _from_json(
    text: str, names: Sequence[str], spoken: Mapping[str, Sequence[str]], limits: _Scale
) -> Read[dict[str, Number]] | None:
    """Ratings of the last JSON value that has one of the names; None where none does."""
    found: list[Read[dict[str, Number]]] = []
    for value in json_values(text):
        own: dict[str, Any] = {}
        _collect(value, _names_pattern(names, spoken), own)
        if own:
            by_name = {_name_of(word, names, spoken): item for word, item in own.items()}
            found.append(_json_ratings(by_name, names, limits))
    if not found:
        return None
    whole = [read.verdict for read in found if read.verdict is not None]
    if len(whole) > 1 and whole[-1] != whole[-2] and not _FINAL.search(re.sub(r"\{[^{}]*\}", "", text)):
        return Read(None, "two numbers: two JSON objects differ")
    return found[-1]


def _collect(value: Any, pattern: str, own: dict[str, Any]) -> None:
    """Name -> what a JSON value says of it, however deep."""
    if isinstance(value, list):
        for item in value:
            _collect(item, pattern, own)
    if not isinstance(value, dict):
        return
    lowered = {str(key).strip().lower(): item for key, item in value.items()}
    score = next((lowered[key] for key in _SCORE_KEYS if key in lowered), None)
    for key, item in lowered.items():
        if re.fullmatch(pattern, key.removesuffix("_score").removesuffix("_rating"), re.I):
            own[key.removesuffix("_score").removesuffix("_rating")] = item
        elif isinstance(item, str) and score is not None and re.fullmatch(pattern, item.strip(), re.I):
            own[item.strip()] = score
        else:
            _collect(item, pattern, own)


def _json_ratings(own: Mapping[str, Any], names: Sequence[str], limits: _Scale) -> Read[dict[str, Number]]:
    ratings: dict[str, Number] = {}
    for name in names:
        if name not in own:
            return Read(None, f"no rating: {name}")
        read = _json_value(own[name], name, limits)
        if read.verdict is None:
            return Read(None, read.reason)
        ratings[name] = read.verdict
    return Read(ratings)


def _json_value(value: Any, name: str, limits: _Scale) -> Read[Number]:
    if isinstance(value, dict):
        lowered = {str(key).strip().lower(): item for key, item in value.items()}
        value = next((lowered[key] for key in _SCORE_KEYS if key in lowered), None)
    if isinstance(value, list):
        return Read(None, f"two numbers: {name} {', '.join(map(str, value))}"[:80])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _in_range(float(value), name, f"{value:g}", limits)
    read = _value(plain(value), name, limits) if isinstance(value, str) else None
    return read or Read(None, f"no number: {name} {value!r}"[:80])


__all__ = ["CUT_OFF", "SPOKEN", "Number", "is_chinese", "read_number", "read_ratings"]
