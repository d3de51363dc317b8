from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from features import unit
from torch import Tensor

from untrigger.lightning_modules.losses import ContrastiveLoss, PairLosses

SCALE = torch.tensor(3.0, dtype=torch.float64)


def formula(images: Tensor, texts: Tensor, alike: Sequence[bool]) -> list[float]:
    """The losses, one number at a time."""
    count = len(images)
    found = []
    for own in range(count):
        seen = [j for j in range(count) if j == own or not (alike[own] and alike[j])]
        both = []
        for rows, columns in ((images, texts), (texts, images)):
            logits = {j: 3.0 * sum(float(a * b) for a, b in zip(rows[own], columns[j], strict=True)) for j in seen}
            both.append(math.log(sum(math.exp(value) for value in logits.values())) - logits[own])
        found.append(sum(both) / 2)
    return found


def test_each_pair_has_its_own_loss_and_their_mean_is_the_contrastive_one() -> None:
    images, texts = unit(5, 3, 0), unit(5, 3, 1)
    losses = PairLosses()(images, texts, SCALE)
    assert losses.tolist() == pytest.approx(formula(images, texts, [False] * 5))
    torch.testing.assert_close(losses.mean(), ContrastiveLoss()(images, texts, SCALE))


def test_pairs_that_are_alike_are_no_negatives_of_each_other() -> None:
    images, texts, alike = unit(5, 3, 0), unit(5, 3, 1), [True, False, True, True, False]
    losses = PairLosses()(images, texts, SCALE, torch.tensor(alike))
    assert losses.tolist() == pytest.approx(formula(images, texts, alike))
    nobody = PairLosses()(images, texts, SCALE, torch.zeros(5, dtype=torch.bool))
    assert torch.equal(nobody, PairLosses()(images, texts, SCALE))


def test_a_pair_among_alike_ones_alone_has_nothing_to_be_told_from_and_no_gradient() -> None:
    images, texts = unit(3, 3, 0).requires_grad_(), unit(3, 3, 1)
    losses = PairLosses()(images, texts, SCALE, torch.ones(3, dtype=torch.bool))
    assert losses.tolist() == [0.0] * 3
    losses.sum().backward()
    assert images.grad is not None
    assert not images.grad.any()


@pytest.mark.parametrize("shape", [(4, 3), (5,), (5, 4)])
def test_features_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="features of shape"):
        PairLosses()(torch.zeros(5, 3), torch.zeros(shape), SCALE)
