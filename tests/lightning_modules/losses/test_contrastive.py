from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional

from untrigger.lightning_modules.losses import ContrastiveLoss


def unit(rows: int, dims: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dims, generator=generator, dtype=torch.float64), dim=-1)


def naive(images: Tensor, texts: Tensor, scale: float) -> float:
    total = 0.0
    size = len(images)
    for i in range(size):
        row = [math.exp(scale * float(images[i] @ texts[j])) for j in range(size)]
        column = [math.exp(scale * float(images[j] @ texts[i])) for j in range(size)]
        total -= math.log(row[i] / sum(row)) + math.log(column[i] / sum(column))
    return total / (2 * size)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_against_a_naive_reference(scale: float) -> None:
    images, texts = unit(7, 5, 0), unit(7, 5, 1)
    loss = ContrastiveLoss()(images, texts, torch.tensor(scale))
    assert float(loss) == pytest.approx(naive(images, texts, scale), rel=1e-5)


def test_gradient_of_features_and_temperature() -> None:
    images, texts = unit(4, 3, 0).requires_grad_(), unit(4, 3, 1).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    ContrastiveLoss()(images, texts, scale).backward()
    step = 1e-4
    with torch.no_grad():
        for tensor in (images, texts, scale):
            assert tensor.grad is not None
            flat, gradient = tensor.view(-1), tensor.grad.view(-1)
            for place in range(flat.numel()):
                flat[place] += step
                above = naive(images, texts, float(scale))
                flat[place] -= 2 * step
                below = naive(images, texts, float(scale))
                flat[place] += step
                assert float(gradient[place]) == pytest.approx((above - below) / (2 * step), abs=1e-5)


def test_matching_pairs_have_the_least_loss_and_one_pair_has_none() -> None:
    features = torch.eye(6)
    assert float(ContrastiveLoss()(features, features, torch.tensor(50.0))) < 1e-6
    assert float(ContrastiveLoss()(features[:1], features[:1], torch.tensor(50.0))) == 0


def test_the_logits_are_float32_under_autocast() -> None:
    images, texts = unit(16, 8, 0).float(), unit(16, 8, 1).float()
    plain = ContrastiveLoss()(images, texts, torch.tensor(100.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ContrastiveLoss()(images, texts, torch.tensor(100.0))
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 4\)"):
        ContrastiveLoss()(torch.zeros(3, 4), torch.zeros(2, 4), torch.tensor(1.0))


def _rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        weight = torch.nn.Parameter(unit(5, 5, 2).float())
        scale = torch.nn.Parameter(torch.tensor(5.0))
        mine = slice(4 * rank, 4 * rank + 4)
        images = functional.normalize(unit(8, 5, 0).float()[mine] @ weight, dim=-1)
        loss = ContrastiveLoss()(images, unit(8, 5, 1).float()[mine], scale)
        loss.backward()
        for parameter in (weight, scale):  # as DDP does
            assert parameter.grad is not None
            distributed.all_reduce(parameter.grad)
            parameter.grad /= 2
        torch.save({"loss": loss.detach(), "weight": weight.grad, "scale": scale.grad}, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_have_the_loss_and_gradient_of_one_on_the_union(tmp_path: Path) -> None:
    multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    weight = torch.nn.Parameter(unit(5, 5, 2).float())
    scale = torch.nn.Parameter(torch.tensor(5.0))
    images = functional.normalize(unit(8, 5, 0).float() @ weight, dim=-1)
    loss = ContrastiveLoss()(images, unit(8, 5, 1).float(), scale)
    loss.backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["loss"], loss.detach())
        torch.testing.assert_close(found["weight"], weight.grad)
        torch.testing.assert_close(found["scale"], scale.grad)
