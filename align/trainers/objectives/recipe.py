"""The `objective` section of a DPO recipe: which terms are added to TRL's preference loss, and how much.

Nothing here imports torch. Where a paper and its released code differ, `variant` says which of the two
is computed; the class of each term says where they differ, with its sources.

    objective:                     # mDPO
      conditional: [{image: cropped}]
      anchor: {}
    objective:                     # MPO of InternVL
      preference_weight: 0.8
      quality: {weight: 0.2}
      sft: {weight: 1.0}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from align.config.recipe import Strict
from align.rows.schema import PreferenceRow

Variant = Literal["paper", "released"]


class _Term(Strict):
    weight: float = Field(default=1.0, gt=0, description="factor of this term in the loss")


class _Conditional(_Term):
    variant: Variant = Field(default="paper", description="the paper's formula, or its released code's")


class CroppedImage(_Conditional):
    """The chosen answer must be likelier with its image than with a small crop of it (mDPO).

    paper (Wang et al., 2024, arXiv 2406.11839, "crop 0-20%"): the crop keeps the image's
    shape and has up to `max_area` of it. released (luka-group/mDPO, bunny/modeling_bunny_phi.py,
    `crop_images`): torchvision's RandomResizedCrop, area of 0.01 to `max_area`, width to height of 3/4 to
    4/3. Its flag is called `mask_visual_tokens`, but it crops.
    """

    image: Literal["cropped"]
    max_area: float = Field(default=0.2, gt=0.01, le=1, description="largest share of the image that is kept")


class MaskedImage(_Term):
    """As `cropped`, against the image with a share of its pixels lost (OPA-DPO).

    Yang et al., 2025, arXiv 2501.09695; zhyang2226/OPA-DPO, opadpo/dpo_models/dpo_trainer.py,
    `mask_single_image`, method random: 30% of the pixels take the image's mean. The released code weighs
    the term 0.2.
    """

    image: Literal["masked"]
    share: float = Field(default=0.3, gt=0, le=1, description="share of the pixels that are masked")


class NoisyImage(_Conditional):
    """As `cropped`, against the image after `step` steps of a diffusion's forward process (POVID, SeVa).

    paper: the chosen tokens are scored with the noisy image. released (Zhou et al., 2024, arXiv
    2402.11411; YiyangZhou/POVID, tool/dpo_trainer_inherent.py, `_get_noisy_batch_logps`): the negative
    answer is, at each position of the chosen one, the token that the model itself finds likeliest with
    the noisy image, scored with the *clean* one; policy and reference each take their own token. It
    averages this term with the preference loss: `preference_weight: 0.5`, `weight: 0.5`. Steps: POVID
    500; SeVa (Zhu et al., 2024, arXiv 2404.10501) makes its rejected answers at 500 and 800.
    """

    image: Literal["noisy"]
    step: int = Field(default=500, ge=1, le=999, description="diffusion step, of 1000")


class RetrievedImage(_Conditional):
    """As `cropped`, against another, similar image: the row's `rejected_images` (rDPO of Re-Align).

    paper (Xing et al., 2025, arXiv 2502.13146): the chosen tokens are scored with the retrieved image.
    released (taco-group/Re-Align, rDPOtrainer.py and `_get_noisy_batch_logps` of dpo_trainer.py): each
    position counts the log-prob of the likeliest token instead of the answer's token, and the rejected
    answer of the preference loss is scored in the same way.
    """

    image: Literal["retrieved"]


Conditional = CroppedImage | MaskedImage | NoisyImage | RetrievedImage


class TokenWeights(Strict):
    """Dense DPO: log p(y) = sum of w_t log p_t, the same weights for policy and reference.

    A row's `spans` give the weights; a row without spans is compared with its other side, and `gamma`
    is the weight of what differs. paper (RLHF-V, Yu et al., 2023, arXiv 2312.00849, dense DPO): every
    differing token counts, and the sum is divided by the sum of the weights. released (RLHF-V/RLAIF-V,
    muffin/train/train_muffin.py and utils/diff_lib.py): matches of less than three tokens are no match,
    a difference counts only where both sides have tokens in it, and nothing is divided.

    `end: 0` leaves out the end of turn that the template puts behind an answer's words. C-DPO (SENTINEL,
    Peng et al., 2025, arXiv 2507.12455; pspdada/SENTINEL, llamafactory's data/processor/pairwise.py)
    contrasts two next sentences of an answer that goes on: it cuts both behind their last full stop, and
    leaves out what both begin with, which here are spans of weight 0.
    """

    gamma: float = Field(default=5.0, gt=0, description="weight of differing tokens; the others have 1")
    end: float = Field(default=1.0, ge=0, description="weight of the end of turn; 0: the answers go on")
    variant: Variant = Field(default="paper", description="the paper's formula, or its released code's")


class Anchor(_Term):
    """The chosen answer's reward must exceed `delta`: -log s(beta r_w - delta) (mDPO's AncPO)."""

    delta: float = Field(default=0.0, description="what the chosen reward must exceed")


class Quality(_Term):
    """Each answer alone is told good or bad: BCO with the running mean of the rewards as its threshold.

    -log s(beta r_w - delta) - log s(-(beta r_l - delta)); Jung et al., 2024, arXiv 2404.04656; the
    quality term of MPO (Wang et al., 2024, arXiv 2411.10442). delta is the mean, over all
    batches so far, of each batch's mean reward (OpenGVLab/InternVL, internvl_chat/internvl/train/
    trainer_dpo.py, with TRL's RunningMoments of that time). TRL's own `bco_pair` has delta = 0.
    """


class Supervised(_Term):
    """Negative log-likelihood of the chosen answer, normalised by length (RPO, MPO's generation term).

    paper (Pang et al., 2024, arXiv 2404.19733; MPO): each answer by its own
    length. released (InternVL's trainer_dpo.py; TRL's `sft`): the mean over all chosen tokens of the
    batch, so that long answers weigh more.
    """

    variant: Variant = Field(default="paper", description="the paper's normalisation, or released code's")


class PairBeta(Strict):
    """A beta of its own for each pair, larger where the judge saw a larger gap (MM-RLHF).

    The gap is `meta.margin` of the row. paper (Zhang et al., 2025, arXiv 2502.10391, dynamic reward scaling):
    beta (1 + w (1 - exp(-k gap))). released (trl/trainer/dpo_trainer.py there): beta (1 + w gap). Both
    are at least 1e-3.
    """

    w: float = Field(default=0.5, ge=0, description="how much the gap raises beta")
    k: float = Field(default=0.5, gt=0, description="how fast the paper's formula saturates")
    variant: Variant = Field(default="paper", description="the paper's formula, or its released code's")


class ObjectiveSection(Strict):
    """Terms added to TRL's preference loss (`trainer.loss_type`), each with its weight."""

    preference_weight: float = Field(default=1.0, gt=0, description="factor of TRL's preference loss")
    token_weights: TokenWeights | None = Field(default=None, description="dense DPO of RLHF-V")
    pair_beta: PairBeta | None = Field(default=None, description="beta by score gap, of MM-RLHF")
    conditional: list[Annotated[Conditional, Field(discriminator="image")]] = Field(
        default=[], description="image negatives: cropped, masked, noisy, retrieved"
    )
    anchor: Anchor | None = Field(default=None, description="reward anchor of mDPO")
    quality: Quality | None = Field(default=None, description="BCO quality term of MPO")
    sft: Supervised | None = Field(default=None, description="likelihood of the chosen answer")

    def lacks(self, row: PreferenceRow) -> str:
        """What a term needs and this row has not, in words; empty where nothing is missing."""
        kinds = {settings.image for settings in self.conditional}
        if kinds and not row.images:
            return "objective.conditional needs an image"
        if "retrieved" in kinds and not row.rejected_images:
            return "objective.conditional with image: retrieved needs rejected_images"
        if self.pair_beta is not None and not isinstance(row.meta.get("margin"), int | float):
            return "objective.pair_beta needs a number in meta.margin"
        return ""

    @property
    def is_plain(self) -> bool:
        """Whether this is TRL's preference loss and nothing else."""
        return self == ObjectiveSection()
