"""Kind oracle: the annotations judge each claimed object, as CHAIR does; for comparison, not for training."""

from __future__ import annotations

from align.errors import AlignError
from align.run import RunFolder
from align.schema import Claim
from data_tools.claims import ask_about
from data_tools.judge_claims import Claims, judged_by_claims, mentioned
from data_tools.judge_recipe import Recipe
from data_tools.judged import Judged, read_candidates
from data_tools.truth import load_truth


def judge_oracle(recipe: Recipe, folder: RunFolder) -> Judged:
    """Look every claimed object up in the annotations.

    Raises:
        AlignError: an image without annotations.
    """
    assert recipe.candidates is not None
    candidates = read_candidates(recipe.candidates)
    truth = load_truth(recipe.truth, recipe.objects_mode)
    objects = mentioned(candidates, recipe.objects_mode)
    claims: Claims = {}
    for row in candidates:
        image_id = row.meta.get("image_id")
        if image_id not in truth:
            raise AlignError(
                f"no annotations of image {image_id}", where=row.id, fix="add its file to `truth`"
            )
        for name in objects[row.id]:
            there = float(name in truth[image_id])
            question = ask_about(name, recipe.question)
            claims[row.images[0], name] = Claim(text=name, question=question, p_yes=there, p_no=1 - there)
    return judged_by_claims(recipe, "oracle", candidates, claims)
