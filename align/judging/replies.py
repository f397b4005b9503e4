"""A judge's reply as models write them, read into a closed set: yes or no, one of two answers.

Every reader takes the whole reply and gives a `Read`: the verdict, or why there is none. What stands behind
the thoughts counts (`settled`); a hedge, a negation or two verdicts at once are none. `ratings.py` reads
numbers.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from align.rows.thoughts import split_thoughts

T = TypeVar("T", covariant=True)
Side = Literal["first", "second", "tie"]

NO_VERDICT = "the judge's reply is none of the verdicts"
CUT_OFF = "the judge's reply was cut off"


@dataclass(frozen=True)
class Read(Generic[T]):
    """What a reply says.

    Attributes:
        verdict: None where it says none of the closed set.
        reason: why not; its kind stands before the first colon, so that reasons can be counted.
    """

    verdict: T | None
    reason: str = ""


_BOXED = re.compile(
    r"<(answer|verdict|final|output|choice|preference)>(?P<tag>.*?)(?:</\1>|\Z)"
    r"|\\boxed\{(?:\\text\{)?(?P<boxed>[^{}]*)\}"
    r"|<\|begin_of_box\|>(?P<box>.*?)<\|end_of_box\|>",
    re.I | re.S,
)
_SPECIAL = re.compile(r"<\|[a-z_]+\|>", re.I)


def plain(text: str) -> str:
    """Full-width and other digits, colons and signs as ASCII; `½` behind a digit as `.5`.

    >>> plain("Ａ：５　٤　−3½")
    'A:5 4 -3.5'
    """
    text = re.sub(r"(?<=\d)\s*½", ".5", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u200b", "")
    text = text.translate(str.maketrans("“”‘’", "\"\"''"))
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() and not c.isascii() else c for c in text)


def settled(reply: str) -> Read[str]:
    """What stands behind the thoughts, in plain characters; without a mark of thoughts the whole reply.

    A chat template may open the thoughts itself, so that only their end stands in the reply.

    >>> settled("<think>A? B!</think> B"), settled("hm... </think>\\nA").verdict, settled("<think>A").reason
    (Read(verdict='B', reason=''), 'A', "the judge's reply was cut off: nothing stands behind its thoughts")
    """
    said = split_thoughts(plain(reply))
    if said.is_marked and not said.answer:
        return Read(None, f"{CUT_OFF}: nothing stands behind its thoughts")
    text = said.answer
    return Read((text if _BOXED.search(text) else _SPECIAL.sub("", text)).strip())


def _kernel(text: str) -> str:
    """The text of the last answer tag or box, if there is one, without decoration."""
    boxes = list(_BOXED.finditer(text))
    if boxes:
        text = next((part for part in boxes[-1].group("tag", "boxed", "box") if part is not None), "")
    return re.sub(r"[*`\"#$]|__|<\|[a-z_]+\|>", "", text).strip()


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects and lists in a text, outermost ones, in order; a key given twice holds a list."""
    decoder = json.JSONDecoder(object_pairs_hook=_pairs)
    place = 0
    while (found := re.compile(r"[{\[]").search(text, place)) is not None:
        try:
            value, place = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            place = found.end()
            continue
        yield value


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        same = key in found and found[key] != value
        found[key] = [found[key], value] if same else value
    return found


_ANSWER_KEYS = (
    "answer",
    "final_answer",
    "verdict",
    "final_verdict",
    "choice",
    "better",
    "better_answer",
    "best",
    "winner",
    "preference",
    "preferred",
    "preferred_answer",
    "selection",
    "decision",
    "result",
    "judgement",
    "judgment",
    "output",
    "答案",
    "选择",
    "结果",
    "更好",
)


def _json_answer(text: str) -> str | None:
    """What the last JSON object says under a key that means the verdict; None without one."""
    found: str | None = None
    for value in json_values(text):
        if isinstance(value, Mapping):
            own = {re.sub(r"[\s-]+", "_", str(key).strip().lower()): item for key, item in value.items()}
            said = [own[key] for key in _ANSWER_KEYS if key in own]
            said = said or (list(own.values()) if len(own) == 1 else [])
            if said and isinstance(said[0], str | bool):
                found = str(said[0]) if isinstance(said[0], str) else ("yes" if said[0] else "no")
    return found


# ------------------------------------------------------------------------------------------- yes or no

_YES = (
    "yes",
    "yeah",
    "yep",
    "true",
    "correct",
    "是",
    "是的",
    "对",
    "对的",
    "有",
    "有的",
    "正确",
    "存在",
    "はい",
    "ja",
    "oui",
    "sí",
    "si",
    "да",
    "예",
    "네",
)
_NO = (
    "no",
    "nope",
    "false",
    "incorrect",
    "否",
    "不",
    "不是",
    "不是的",
    "不对",
    "没有",
    "没",
    "无",
    "错误",
    "不存在",
    "いいえ",
    "nein",
    "non",
    "нет",
    "아니요",
    "아니오",
)
_SAID = {word: True for word in _YES} | {word: False for word in _NO}
_WORDS = "|".join(sorted(_SAID, key=len, reverse=True))
# A CJK word stands without spaces around it, a Latin one with them.
_WORD = rf"(?:(?<![a-zà-ÿа-я])(?:{_WORDS})(?![a-zà-ÿа-я]))"
_LEADING = re.compile(
    rf"^\W*(?:(?:the\s+)?(?:final\s+)?(?:answer|verdict|答案|回答)\s*(?:is|:|是|为)*\W*)?({_WORD})(.*)",
    re.I | re.S,
)
_STATED = re.compile(
    rf"(?:answer|verdict|conclusion|答案|回答|结论)(?:\s+(?:is|would be)|\s*[:=]|\s*(?:是|为))\W*({_WORD})",
    re.I,
)
_NO_IDEA = re.compile(
    r"^\W*(?:idea|way\s+(?:to|of)|information|clue|answer|verdict|telling|one\s+(?:can|could|knows)|doubt)\b"
    r"|^\s*法",
    re.I,
)
_EITHER = re.compile(
    rf"^\s*(?:and|or|und|oder|/|\\|和|或|或者|但也|but\s+also)\s*(?:also\s+|maybe\s+)?{_WORD}", re.I
)
_TWICE = re.compile(r"^\W{1,3}(yes|no|是|否)\b(?!\s+\w)", re.I)
_HEDGED = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|unsure|not\s+sure|uncertain|unclear|hard\s+to\s+(?:say|tell)|"
    r"cannot\s+(?:tell|say|determine)|can't\s+(?:tell|say|determine)|could\s+be\s+either|it\s+depends)\b"
    r"|可能|也许|不确定|无法(?:判断|确定)|难以",
    re.I,
)


def read_yes_no(reply: str) -> Read[bool]:
    """Yes or no: the first word, or what the answer is said to be, or the last line behind plain thoughts.

    >>> [read_yes_no(t).verdict for t in ("Yes, because", "**No.**", "否", "Answer: yes", "Yes and no")]
    [True, False, False, True, None]
    """
    behind = settled(reply)
    if behind.verdict is None:
        return Read(None, behind.reason)
    text = _json_answer(behind.verdict) or _kernel(behind.verdict)
    reason = "the judge's reply is neither yes nor no"
    if not text:
        return Read(None, f"{reason}: it is empty")
    stated = [_SAID[word.lower()] for word in _STATED.findall(text)]
    leading = _leading_yes_no(text)
    if leading.verdict is None and leading.reason:
        return leading
    last = _leading_yes_no(text.splitlines()[-1]) if not stated else Read(None)
    said = {verdict for verdict in (leading.verdict, *stated[-1:]) if verdict is not None}
    if not said and last.verdict is not None and _is_short(text.splitlines()[-1]):
        said = {last.verdict}
    if len(said) > 1:
        return Read(None, f"{reason}: it says both")
    return Read(said.pop()) if said else Read(None, reason)


def _is_short(line: str) -> bool:
    return len(re.sub(r"\W+", " ", line).split()) <= 4


def _leading_yes_no(text: str) -> Read[bool]:
    """What the first word says; a reason where it is taken back at once."""
    found = _LEADING.match(text)
    if found is None:
        return Read(None)
    word, rest = found[1].lower(), found[2]
    if _EITHER.match(rest) or ((twice := _TWICE.match(rest)) and _SAID[twice[1].lower()] != _SAID[word]):
        return Read(None, "the judge's reply is neither yes nor no: it says both")
    if (word == "no" and _NO_IDEA.match(rest)) or rest.lstrip().startswith("?"):
        return Read(None, "the judge's reply is neither yes nor no: it does not know")
    if _HEDGED.search(rest.split(".")[0]):
        return Read(None, "the judge's reply is neither yes nor no: it is hedged")
    # 是否, 是不是, 有吗 ask; 不知道, 没法 and 无从 are no `no`
    if not word.isascii() and (re.match(r"[否不吗]", rest) or (word in "不没无" and re.match(r"\w", rest))):
        return Read(None, "the judge's reply is neither yes nor no: it asks back")
    return Read(_SAID[word])


# --------------------------------------------------------------------------------- one of two answers

LETTERS: Mapping[str, Side] = {"A": "first", "B": "second", "C": "tie"}
"""Names of a prompt that calls the answers A and B, and C neither."""
PLACES: Mapping[str, Side] = {"first": "first", "second": "second", "tie": "tie"}
"""Names of a prompt that calls them by their place."""

_ANSWER = r"(?:answer|option|choice|response|assistant|candidate|caption|答案|选项|回答)"
_LABEL = (
    r"(?:answer|choice|option|verdict|winner|preference|pick|selection|decision|conclusion|judge?ment|result|"
    r"better|best|preferred|superior|stronger|winning|preferable|答案|选择|结论|判断|更好|更优|更准确|胜者)"
)
_BEFORE = re.compile(
    rf"{_LABEL}(?:\s+(?:answer|option|choice|response|one|caption))?"
    r"(?:\s+(?:is|are|was|would\s+be|goes\s+to)|\s*[:=]|\s*(?:的?是|为|的))+\W{0,4}(?:the\s+)?$"
    r"|\b(?:prefer|choose|chose|chosen|choosing|pick|select|favou?r|go(?:ing)?\s+with|vote(?:\s+for)?|take)"
    r"(?:\s+is)?\s*[:=]?\W{0,4}(?:the\s+)?$"
    r"|(?:选择?|喜欢|倾向于?|推荐)\W{0,3}$",
    re.I,
)
_GOOD = (
    r"(?:better|best|preferred|superior|stronger|winner|preferable|"
    r"more\s+(?:accurate|correct|complete|helpful))"
)
_AFTER = re.compile(
    rf"^\W{{0,3}}(?:is|seems|looks|was|would\s+be)\s+(?:\w+\s+){{0,2}}?{_GOOD}\b|^\W{{0,2}}wins\b|^\W*\s*(?:更|较|胜)",
    re.I,
)
_REASON = re.compile(
    r"^\W*$|^\s*[.,:;!)\]\n—–(-]|^\s*[，。、；：]|^\s*(?:because|since|as|due|for|by|因为)\b|^\s*因", re.I
)
_NOT = re.compile(
    r"(?:\bnot|n't|\bnever|\bhardly|\bneither|\bnor|不是|并非|不选|不)(?:\W+\w+){0,2}\W*$", re.I
)
_IS_NOT = re.compile(r"^\W{0,3}(?:is|seems|was)\s*(?:n't|not|no|hardly|never)\b|^\W*(?:不|并不)", re.I)
_TIE = re.compile(
    r"\b(?:tie|tied|draw|equal|equally|same|identical|neither|equivalent|no\s+(?:clear\s+|real\s+)?"
    r"(?:difference|winner|preference))\b|平局|平手|一样|同样|相同|都不|不分上下|难分|相当",
    re.I,
)
_SURE_TIE = re.compile(
    r"\b(?:tie|tied|draw|equally|neither|no\s+difference)\b|平局|平手|一样好|不分上下", re.I
)
_NOT_A_TIE = re.compile(
    r"(?:\bnot|n't|\bnever|\bhardly|\bno|不)\s*(?:an?\s+|really\s+|the\s+)*"
    r"(?:tie|tied|draw|equal|equally|same|identical|equivalent|一样|相同|平局)",
    re.I,
)
_JOINED = re.compile(r"^\W{0,2}(?:\s*(?:or|and|/|&|,|、|和|或|与)\s*)+\W{0,2}$", re.I)
_APART = re.compile(r"\b(?:because|since|as|while|whereas)\b|因为|而|[.;:!(\n—–。；：（]|\s-\s")
_TAKEN_BACK = re.compile(
    r"\b(?:but|or|though|although|however|no|wait|actually|rather|instead)\b|但|或|不过", re.I
)
_FINAL = re.compile(
    r"\b(?:final|finally|therefore|thus|hence|overall|conclusion|verdict|so)\b|最终|因此|所以|综上|结论", re.I
)
_VERBS = re.compile(
    r"^\s+(?:is|was|seems|looks|has|and|or|over|because|since|as|due|for|by|wins|would|nor|than|invents|names|"
    r"says|gives|mentions|describes|tells|correctly|overall)\b"
)


@dataclass(frozen=True)
class _Mention:
    """One answer named in a text: which, where, and whether it is said to be the better one."""

    side: Side
    start: int
    end: int
    is_stated: bool
    is_denied: bool


def read_choice(reply: str, names: Mapping[str, Side] = LETTERS) -> Read[Side]:
    """Which of two answers a reply prefers, or that neither is better.

    Read are the name alone, the name with a reason behind it (`A, because`), what is said to be the answer
    (`I prefer A`, `The better answer is B`), JSON, and words for a tie. A reply that names both, takes its
    choice back or hedges is none.

    Args:
        names: what the prompt calls the first one, the second one and a tie.

    >>> [read_choice(t).verdict for t in ("Option A.", "**B**", "I prefer A", "Equally good", "A or B")]
    ['first', 'second', 'first', 'tie', None]
    >>> read_choice("Probably A").reason
    "the judge's reply is hedged"
    """
    behind = settled(reply)
    if behind.verdict is None:
        return Read(None, behind.reason)
    text = _json_answer(behind.verdict) or _kernel(behind.verdict)
    if not text:
        return Read(None, f"{NO_VERDICT}: it is empty")
    if (alone := _alone(text, names)) is not None:
        return Read(alone)
    mentions = _mentions(text, names)
    stated = [item for item in mentions if item.is_stated and not item.is_denied]
    sides = {item.side for item in stated}
    if len(sides) > 1:
        later = text[text.rfind("\n", 0, stated[-1].start) + 1 :]
        if stated[-1].side == stated[-2].side or "\n" not in text or not _FINAL.search(later):
            return Read(None, f"{NO_VERDICT}: it names both answers")
        stated = stated[-1:]
    if stated:
        return _one_choice(text, mentions, stated[-1])
    lines = text.splitlines()
    if len(lines) > 1 and (alone := _alone(lines[-1], names)) is not None:
        return Read(alone)
    if any(item.is_denied for item in mentions) and not _TIE.search(text):
        return Read(None, f"{NO_VERDICT}: it is a negation")
    if _TIE.search(text) and not _NOT_A_TIE.search(text):
        return Read(None, "the judge's reply is hedged") if _HEDGED.search(text) else Read("tie")
    return _only_named(lines[-1], names)


def _alone(text: str, names: Mapping[str, Side]) -> Side | None:
    """The side of a text that is a name and nothing else, small letters too."""
    found = re.fullmatch(
        rf"\W*(?:(?:the\s+|my\s+|final\s+)*{_LABEL}\s*(?:is\b|是|为)?[:=\s]*)*(?:{_ANSWER}\s*)?({'|'.join(names)})"
        r"(?:\s+(?:answer|one|response))?[^\w?]*",
        text,
        re.I,
    )
    if found is None:
        return None
    return next(side for name, side in names.items() if name.lower() == found[1].lower())


def _mentions(text: str, names: Mapping[str, Side]) -> list[_Mention]:
    """Every answer that a text names. A capital letter that may be an article (`A dog`) is no name."""
    is_letter = all(len(name) == 1 for name in names)
    name = "|".join(names)
    pattern = re.compile(
        rf"(?:(?i:\b{_ANSWER}|答案|选项|回答)\s*)?[\"'(\[]*(?<![A-Za-z])({name})(?![A-Za-z'])[\"')\]]*"
        if is_letter
        else rf"(?i:(?:the\s+)?\b({name})\b(?:\s+(?:answer|one|response|option))?)"
    )
    found = []
    for match in pattern.finditer(text):
        before, after = text[: match.start()], text[match.end() :]
        is_labelled = not is_letter or re.search(_ANSWER, match[0], re.I) is not None
        stated_before = _BEFORE.search(before.rsplit("\n", 1)[-1]) is not None
        is_article = match[1] == "A" and re.match(r"\s+[a-z]", after) and not _VERBS.match(after)
        if is_article and not is_labelled and not stated_before:
            continue
        leads = re.fullmatch(r"\W*", before) is not None and _REASON.match(after) is not None
        side = names[match[1]] if is_letter else names[match[1].lower()]
        is_stated = stated_before or leads or _AFTER.match(after) is not None
        clause = re.split(r"[.,;:\n]", before)[-1]
        denied = _NOT.search(clause) is not None or _IS_NOT.match(after) is not None
        found.append(_Mention(side, match.start(), match.end(), is_stated, denied))
    return found


def _one_choice(text: str, mentions: Sequence[_Mention], chosen: _Mention) -> Read[Side]:
    """The stated choice, unless the other one is named in one breath with it, or it is hedged."""
    place = mentions.index(chosen)
    for one, two in ((place - 1, place), (place, place + 1)):
        if one >= 0 and two < len(mentions) and mentions[one].side != mentions[two].side:
            between = text[mentions[one].end : mentions[two].start]
            is_other = _JOINED.match(between) or not _APART.search(between)
            if is_other or (one == place and _TAKEN_BACK.search(between)):
                return Read(None, f"{NO_VERDICT}: it names both answers")
    start = max(text.rfind(mark, 0, chosen.start) for mark in (".", "\n", "!", "。")) + 1
    near = text[start : chosen.start] + " " + re.split(r"because|since|因为|\n", text[chosen.end :])[0][:40]
    if _HEDGED.search(near) or text[chosen.end :].lstrip()[:1] == "?":
        return Read(None, "the judge's reply is hedged")
    if chosen.side != "tie" and _SURE_TIE.search(text[start:]) and not _NOT_A_TIE.search(text):
        return Read(None, f"{NO_VERDICT}: it says a tie beside a choice")
    return Read(chosen.side)


def _only_named(line: str, names: Mapping[str, Side]) -> Read[Side]:
    """The only answer that a short last line names (`Clearly A`)."""
    mentions = _mentions(line, names)
    sides: set[Side] = {item.side for item in mentions}
    if len(sides) > 1:
        return Read(None, f"{NO_VERDICT}: it names both answers")
    if _HEDGED.search(line) or line.rstrip().endswith("?"):
        return Read(None, "the judge's reply is hedged")
    if sides and len(re.findall(r"\w+", line)) <= 4:
        return Read(sides.pop())
    return Read(None, NO_VERDICT)
