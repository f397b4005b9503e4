"""The head against log_softmax, over several tiles, in value and gradient."""

from __future__ import annotations

import pytest
import torch

from align.trainers import log_prob_head
from align.trainers.log_prob_head import score


@pytest.mark.parametrize("with_bias", [False, True])
def test_scores_and_gradient_equal_log_softmax(with_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_prob_head, "_TILE", 3 * 11)  # tiles of three tokens
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(8, 5, generator=generator, dtype=torch.float64).float().requires_grad_()
    weight = torch.randn(11, 5, generator=generator)
    bias = torch.randn(11, generator=generator) if with_bias else None
    targets = torch.randint(0, 11, (8,), generator=generator)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    targets[0] = logits[0].argmax()
    wanted = logits.log_softmax(1)
    found = score(hidden, weight, bias, targets, with_statistics=True)
    assert torch.allclose(found.log_probs, wanted.gather(1, targets[:, None])[:, 0], atol=1e-6)
    assert found.entropy is not None and found.log_sum_sq_probs is not None
    assert found.is_top1 is not None and found.mean_logits is not None
    assert torch.allclose(found.entropy, -(wanted.exp() * wanted).sum(1), atol=1e-6)
    assert torch.allclose(found.log_sum_sq_probs, (2 * wanted).logsumexp(1), atol=1e-6)
    assert torch.allclose(found.mean_logits, logits.mean(1), atol=1e-6)
    assert found.is_top1.tolist() == (logits.argmax(1) == targets).tolist()
    weights = torch.randn(8, generator=generator)
    mine = torch.autograd.grad((found.log_probs * weights).sum(), hidden)[0]
    theirs = torch.autograd.grad((wanted.gather(1, targets[:, None])[:, 0] * weights).sum(), hidden)[0]
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_head_that_trains_is_refused_and_no_token_is_fine() -> None:
    weight = torch.randn(4, 3)
    nothing = score(torch.randn(0, 3), weight, None, torch.zeros(0, dtype=torch.long), with_statistics=True)
    assert nothing.log_probs.shape == (0,)
    with pytest.raises(ValueError, match="trains"):
        score(torch.randn(1, 3), weight.requires_grad_(), None, torch.tensor([0]), with_statistics=False)
