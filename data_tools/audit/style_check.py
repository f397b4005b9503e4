"""Whether words alone tell chosen from rejected: a bag-of-words classifier that never sees a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from align.objects.mentions import find_objects
from align.rows.schema import PreferenceRow
from data_tools.audit.findings import Finding, interval, shown
from data_tools.audit.text_checks import answers

_FOLDS = 5
_MIN_PAIRS = 50
_MOST_WORDS = 8


def check_style(rows: Sequence[PreferenceRow], seed: int) -> Finding:
    """Cross-validated AUC of a bag-of-words classifier, with and without the names of objects.

    What a classifier without eyes can tell, DPO can learn without looking. Names of objects may do it
    honestly (what a model invents is often the same), so they are put aside for the number that decides: bad
    from an AUC of 0.75, worth a look from 0.6. All answers about one picture are in one fold.
    """
    groups = [row.images[0] if row.images else row.id for row in rows]
    if len(rows) < _MIN_PAIRS or len(set(groups)) < _FOLDS:
        said = f"fewer than {_MIN_PAIRS} pairs or {_FOLDS} pictures: not measured"
        return Finding("style", "Style", "unknown", said)
    texts = [answers(row) for row in rows]
    whole = _measure(texts, groups, seed)
    style = _measure([(_without_objects(a), _without_objects(b)) for a, b in texts], groups, seed)
    auc = style["auc"]
    state = "bad" if auc >= 0.75 else "look" if auc >= 0.6 else "good"
    numbers = {"words": whole, "without_objects": style}
    return Finding(
        key="style",
        title="Style",
        state=state,
        said=f"words without object names tell chosen from rejected: AUC {auc:.2f} (0.5 is chance), "
        f"right in {shown(style['accuracy'])} of the pairs; all words: {whole['auc']:.2f}",
        advice=""
        if state == "good"
        else "the preference is partly style, see the words: balance it (pairs.style_tolerance), or prefer "
        "minimal edits (pairs.strategy=minimal_edit)",
        numbers=numbers,
    )


def _without_objects(text: str) -> str:
    """The text with each object name replaced by one and the same word."""
    pieces, done = [], 0
    for mention in find_objects(text, "strict"):
        pieces += [text[done : mention.start], "object"]
        done = mention.end
    return "".join(pieces) + text[done:]


def _measure(texts: Sequence[tuple[str, str]], groups: Sequence[str], seed: int) -> dict[str, Any]:
    """AUC over answers, accuracy over pairs (chosen scored higher, ties half), and the telling words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    flat = [text for pair in texts for text in pair]
    labels = np.tile([1, 0], len(texts))
    vectors = CountVectorizer(token_pattern=r"[^\W_]+|[^\w\s]", binary=True, min_df=2)
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
