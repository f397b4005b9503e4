"""Whether two words mean the same: exactly, or by spaCy's vectors as AMBER's script asks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from align.errors import AlignError

Similar = Callable[[str, str], bool]
_THRESHOLD = 0.8


def exactly(first: str, second: str) -> bool:
    """Equal words."""
    return first == second


@cache
def spacy_similar(model: str) -> Similar:
    """Cosine similarity of the words' vectors over 0.8 (AMBER's inference.py at 534babf6).

    Raises:
        AlignError: spaCy or the model is not installed.
    """
    try:
        import spacy  # pyright: ignore[reportMissingImports]

        parse = spacy.load(model)
    except (ImportError, OSError) as error:
        raise AlignError(
            f"similarity: spacy needs spaCy and {model}: {str(error).strip().splitlines()[0]}",
            where="similarity",
            fix=f"pip install spacy; python -m spacy download {model}; or leave similarity at exact",
        ) from error
    document = cache(parse)

    @cache
    def similar(first: str, second: str) -> bool:
        return document(first).similarity(document(second)) > _THRESHOLD

    return similar
