"""Kind oracle: the annotations judge each claim, objects as CHAIR does; for comparison, not for training."""

from __future__ import annotations

from align.errors import AlignError
from align.run.folder import RunFolder
from data_tools.judge.asking import Judged, read_candidates
from data_tools.judge.claims import Claims, holds, judged_by_claims, stated_by, unjudged
from data_tools.judge.recipe import Recipe
from data_tools.material.truth import load_pictures, load_truth


def judge_oracle(recipe: Recipe, folder: RunFolder) -> Judged:
    """Look every claim up in the annotations; one of which they say nothing is unscored.

    Raises:
        AlignError: an image without annotations.
    """
    assert recipe.candidates is not None
    candidates = read_candidates(recipe.candidates)
    objects, pictures = load_truth(recipe.truth, recipe.objects_mode), load_pictures(recipe.truth)
    stated = stated_by(recipe, candidates)
    claims: Claims = {}
    for row in candidates:
        image_id = row.meta.get("image_id")
        if image_id not in objects:
            raise AlignError(
                f"no annotations of image {image_id}", where=row.id, fix="add its file to `truth`"
            )
        for said in stated[row.id].claims:
            true = holds(said, objects[image_id], pictures.get(image_id))
            known = {} if true is None else {"p_yes": float(true), "p_no": float(not true)}
            claims[row.images[0], said] = unjudged(recipe, said).model_copy(update=known)
    return judged_by_claims(recipe, "oracle", candidates, claims)
