"""How much of each thing may be lost before a verdict says so."""

from __future__ import annotations

from pydantic import Field

from align.config.recipe import Strict


class Margins(Strict):
    """Losses that still count as kept: percentage points, but for `longer`, which is percent of the words.

    A guard of the verdict holds when the whole paired 95% interval stays on the good side of its margin.
    """

    recall: float = Field(
        default=3.0, gt=0, description="objects, or instances, in the picture that are named"
    )
    vqa: float = Field(default=1.0, gt=0, description="questions answered right")
    invention: float = Field(default=1.0, gt=0, description="distinct named objects that are not there")
    instance_precision: float = Field(default=1.0, gt=0, description="named instances that are there")
    counting: float = Field(
        default=2.0, gt=0, description="true objects counted too high, and numbers that are right"
    )
    repetition: float = Field(
        default=2.0, gt=0, description="captions that name an object behind two numbers, and repeated 3-grams"
    )
    longer: float = Field(default=10.0, gt=0, description="growth of a caption, in percent of its words")
    grammar: float = Field(default=2.0, gt=0, description="captions with a marker of broken grammar")
    captions_worse: float = Field(
        default=2.0, gt=0, description="captions with more false instances than before, less those with fewer"
    )
    judge: float = Field(
        default=5.0, gt=0, description="by how much a judge's win rate may lie below a half and count as even"
    )
