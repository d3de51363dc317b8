from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from untrigger.lightning_modules.losses import structural_similarity


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (11, 11)])
def test_it_is_that_of_torchmetrics(height: int, width: int) -> None:
    draws = torch.Generator().manual_seed(0)
    one, noise = (torch.rand(3, 3, height, width, generator=draws) for _ in range(2))
    other = 0.7 * one + 0.3 * noise
    _, everywhere = structural_similarity_index_measure(other, one, data_range=1.0, return_full_image=True)
    inside = everywhere[..., 5:-5, 5:-5]  # beyond that, torchmetrics sees reflections
    torch.testing.assert_close(structural_similarity(one, other), inside.mean(), rtol=1e-4, atol=1e-5)
    assert structural_similarity(one, noise) < structural_similarity(one, other) < 1
    torch.testing.assert_close(structural_similarity(one, one), torch.tensor(1.0))


def test_it_has_a_gradient_and_takes_pictures_that_are_smaller_than_a_window() -> None:
    one = torch.full((1, 3, 6, 6), 0.5)
    other = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = structural_similarity(one, other)
    (gradient,) = torch.autograd.grad(before, other)
    assert structural_similarity(one, other + 0.01 * gradient / gradient.norm()) > before


def test_half_precision_around_it_changes_nothing() -> None:
    one = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = (one + 0.01).clamp(max=1)
    expected = structural_similarity(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(structural_similarity(one, other), expected)
