"""Whether the way of writing tells chosen from rejected: its words, its punctuation and layout.

A bag-of-words classifier that never sees a picture, and counts of what stands on the page.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

from align.objects.mentions import find_objects
from align.rows.schema import PreferenceRow
from align.rows.words import word_pieces
from data_tools.audit.findings import Finding, Sides, interval, shown
from data_tools.audit.reading import answers
from data_tools.material.answer_style import FEATURES, whole_style_of
from data_tools.material.seeded_order import seeded_place

_FOLDS = 5
_MIN_PAIRS = 50
_MOST_WORDS = 8
_GRAVE = {"good": 0, "look": 1, "bad": 2}


class LayoutCheck:
    """Whether sentences, commas, lists, line breaks, markup, hedges, capitals or digits tell chosen.

    Each is a count of the text, and matters when length would: see `Gap.state`.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._sides = {name: Sides() for name in FEATURES}

    def add(self, row: PreferenceRow) -> None:
        """Measure one pair."""
        self._ids.append(row.id)
        chosen, rejected = map(whole_style_of, answers(row))
        for sides, ours, theirs in zip(self._sides.values(), chosen, rejected, strict=True):
            sides.add(ours, theirs)

    def finding(self, seed: int) -> Finding:
        """The verdict, by the feature that tells most."""
        gaps = {name: sides.gap(seed) for name, sides in self._sides.items()}
        order = sorted(
            gaps, key=lambda name: (-_GRAVE[gaps[name].state], -gaps[name].told, -gaps[name].effect)
        )
        telling = [name for name in order if gaps[name].state != "good"]
        worst = gaps[order[0]]

        def said(name: str) -> str:
            gap = gaps[name]
            wins = gap.wins["value"]
            more, share = ("more", wins) if wins >= 0.5 else ("less", 1 - wins)
            return (
                f"{name.replace('_', ' ')} (the answer with {more} would be right in {share:.0%}, "
                f"{gap.effect:.2f} standard deviations)"
            )

        return Finding(
            key="layout",
            title="Layout and punctuation",
            state=worst.state,
            said="chosen is told by " + ", ".join(map(said, telling[:4]))
            if telling
            else f"none of {len(gaps)} counts tells chosen; most does {said(order[0])}",
            advice="the preference is partly layout: balance it (pairs.style_tolerance), or ask for "
            "answers of "
            "one form"
            if telling
            else "",
            numbers={name: gap.numbers("more_wins") for name, gap in gaps.items()},
            rows=[self._ids[place] for place in worst.order] if telling else [],
            values=worst.values if telling else (),
            unit=f"{order[0].replace('_', ' ')}, chosen minus rejected",
        )


class StyleCheck:
    """Cross-validated AUC of a bag-of-words classifier, with and without the names of objects.

    What a classifier without eyes can tell, DPO can learn without looking. Names of objects may do it
    honestly (what a model invents is often the same), so they are put aside for the number that decides: bad
    from an AUC of 0.75, worth a look from 0.6. All answers about one picture are in one fold. In scripts
    without spaces a word is a character.

    Args:
        most: pairs that the classifier learns from and is tested on; of more they are drawn by seed and id.
    """

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._seed, self._seen = most, seed, 0
        self._drawn: list[tuple[int, int, str, tuple[str, str]]] = []

    def add(self, row: PreferenceRow) -> None:
        """Hold one pair's texts, or not."""
        self._seen += 1
        place = -int(seeded_place(self._seed, f"style {row.id}")[:15], 16)
        item = (place, self._seen, row.images[0] if row.images else row.id, answers(row))
        if len(self._drawn) < self._most:
            heapq.heappush(self._drawn, item)
        else:
            heapq.heappushpop(self._drawn, item)

    def finding(self) -> Finding:
        """The verdict."""
        drawn = sorted(self._drawn, key=lambda item: item[1])
        groups, texts = [item[2] for item in drawn], [item[3] for item in drawn]
        if len(texts) < _MIN_PAIRS or len(set(groups)) < _FOLDS:
            said = f"fewer than {_MIN_PAIRS} pairs or {_FOLDS} pictures: not measured"
            return Finding("style", "Style", "unknown", said)
        whole = _measure(texts, groups, self._seed)
        style = _measure([(_without_objects(a), _without_objects(b)) for a, b in texts], groups, self._seed)
        auc = style["auc"]
        state = "bad" if auc >= 0.75 else "look" if auc >= 0.6 else "good"
        of = f" (on {len(texts)} of {self._seen} pairs)" if len(texts) < self._seen else ""
        return Finding(
            key="style",
            title="Style",
            state=state,
            said=f"words without object names tell chosen from rejected: AUC {auc:.2f} (0.5 is chance), "
            f"right in {shown(style['accuracy'])} of the pairs; all words: {whole['auc']:.2f}{of}",
            advice=""
            if state == "good"
            else "the preference is partly style, see the words: balance it (pairs.style_tolerance), or "
            "prefer "
            "minimal edits (pairs.strategy=minimal_edit)",
            numbers={"words": whole, "without_objects": style, "pairs": len(texts)},
        )


def _without_objects(text: str) -> str:
    """The text with each object name replaced by one and the same word."""
    pieces, done = [], 0
    for mention in find_objects(text, "strict"):
        pieces += [text[done : mention.start], "object"]
        done = mention.end
    return "".join(pieces) + text[done:]


def _words(text: str) -> list[str]:
    """Words and other signs in lower case, and line breaks."""
    found = [piece.lower() for piece, _, _ in word_pieces(text)]
    return found + ["(line break)"] * ("\n" in text.strip())


def _measure(texts: Sequence[tuple[str, str]], groups: Sequence[str], seed: int) -> dict[str, Any]:
    """AUC over answers, accuracy over pairs (chosen scored higher, ties half), and the telling words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    flat = [text for pair in texts for text in pair]
    labels = np.tile([1, 0], len(texts))
    vectors = CountVectorizer(analyzer=_words, binary=True, min_df=2)  # pyright: ignore[reportArgumentType]
    try:
        counts = vectors.fit_transform(flat)
    except ValueError:  # no word occurs twice
        counts, words = np.zeros((len(flat), 1)), np.array(["-"])
    else:
        words = vectors.get_feature_names_out()
    scores = np.zeros(len(flat))
    folds = GroupKFold(n_splits=_FOLDS, shuffle=True, random_state=seed % 2**32)
    for train, test in folds.split(counts, labels, np.repeat(groups, 2)):
        model = LogisticRegression(C=1.0, max_iter=1000).fit(counts[train], labels[train])
        scores[test] = model.decision_function(counts[test])
    weights = LogisticRegression(C=1.0, max_iter=1000).fit(counts, labels).coef_[0]
    gaps = scores[0::2] - scores[1::2]
    order = np.argsort(weights, kind="stable")
    return {
        "auc": round(float(roc_auc_score(labels, scores)), 4),
        "accuracy": interval([float(gap > 0) + float(gap == 0) / 2 for gap in gaps], seed),
        "chosen_words": [str(words[place]) for place in order[::-1][:_MOST_WORDS] if weights[place] > 0],
        "rejected_words": [str(words[place]) for place in order[:_MOST_WORDS] if weights[place] < 0],
    }
