from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from features import unit
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.nn import functional

from untrigger.lightning_modules import (
    PAR,
    BadCLIP,
    BaseCLIPModule,
    CleanCLIP,
    PoisonedCLIP,
    RoCLIP,
    SupervisedFinetune,
)
from untrigger.lightning_modules.precision import at_least_float32, similarities

HALVES = [torch.bfloat16, torch.float16]


def test_numbers_are_float32_or_what_is_more() -> None:
    for dtype in (*HALVES, torch.float32):
        assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == torch.float32
    assert at_least_float32(torch.ones(2, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("half", HALVES)
def test_similarities_are_not_rounded_under_autocast(half: torch.dtype) -> None:
    rows, columns, scale = unit(7, 32, 0, torch.float32), unit(5, 32, 1, torch.float32), torch.tensor(100.0)
    expected = 100 * (rows.double() @ columns.double().T)
    with torch.autocast("cpu", half):
        found = similarities(rows, columns, scale)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(similarities(rows, columns).double(), expected / 100, rtol=1e-5, atol=1e-6)


def test_products_are_exact_whatever_the_program_allows_and_the_setting_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    product = torch.Tensor.__matmul__

    def spy(self: Tensor, other: Tensor) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return product(self, other)

    monkeypatch.setattr(torch.Tensor, "__matmul__", spy)
    rows, columns = unit(2, 3, 0, torch.float32), unit(2, 3, 1, torch.float32)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        similarities(rows.requires_grad_(), columns.requires_grad_()).sum().backward()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest"] * 3  # the gradients too


def test_a_program_may_allow_tf32_by_its_newer_name() -> None:
    code = """
import torch
from untrigger.lightning_modules.precision import similarities
matmul = torch.backends.cuda.matmul
name, allowed = ("fp32_precision", "tf32") if hasattr(matmul, "fp32_precision") else ("allow_tf32", True)
setattr(matmul, name, allowed)
rows = torch.eye(2).requires_grad_()
similarities(rows, torch.eye(2)).sum().backward()
print(getattr(matmul, name) == allowed, rows.grad.sum().item())
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["True", "4.0"]


@pytest.mark.parametrize("half", HALVES)
def test_gradients_of_similarities_are_those_of_the_product(half: torch.dtype) -> None:
    parts = [unit(7, 32, 0, torch.float32), unit(5, 32, 1, torch.float32), torch.tensor(100.0)]
    weights = torch.randn(7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows, columns, scale = (part.double().requires_grad_() for part in parts)
    (scale * rows @ columns.T * weights).sum().backward()
    mine = [part.clone().requires_grad_() for part in parts]
    with torch.autocast("cpu", half):
        (similarities(mine[0], mine[1], mine[2]) * weights.float()).sum().backward()
    for found, expected in zip(mine, (rows, columns, scale), strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-5, atol=1e-3)
    inputs = [part.double().requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(similarities, inputs)


def batch(clip: BaseCLIPModule) -> dict[str, Any]:
    captions = ["a star", "a red ring on a table", "the cross", "no heart"]
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = clip.preprocessing.tokenize(captions)
    own = {"key": captions, "image": images, "tokens": tokens, "label": torch.tensor([0, 1, 2, 0])}
    return {**own, "image_view": images.flip(-1), "tokens_view": tokens.flip(0)}


def badclip() -> BadCLIP:
    clip = BadCLIP("small:nano-32", "star")
    clip._target_images, clip._target_texts = unit(3, 32, 2, torch.float32), unit(3, 32, 3, torch.float32)
    return clip


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    "kind",
    [
        PoisonedCLIP,
        CleanCLIP,
        PAR,
        RoCLIP,
        lambda name: SupervisedFinetune(name, num_classes=3),
        lambda name: badclip(),
    ],
    ids=["PoisonedCLIP", "CleanCLIP", "PAR", "RoCLIP", "SupervisedFinetune", "BadCLIP"],
)
def test_encoders_are_inside_autocast_and_logits_are_float32(
    kind: Any, half: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_everything(0)
    clip = kind("small:nano-32")
    clip.log_losses = lambda *_, **__: None
    inside: set[torch.dtype] = set()
    for layer in clip.encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda _, __, output: inside.add(output.dtype))
    seen: list[Tensor] = []
    cross_entropy = functional.cross_entropy

    def spy(logits: Tensor, *rest: Any, **more: Any) -> Tensor:
        seen.append(logits)
        return cross_entropy(logits, *rest, **more)

    monkeypatch.setattr(functional, "cross_entropy", spy)
    with torch.autocast("cpu", half):
        loss = clip.training_step(batch(clip), 0)
    assert inside == {half}
    assert loss.dtype == torch.float32
    assert seen
    for logits in seen:
        assert logits.dtype == torch.float32
        finite = logits.detach()[logits.isfinite()]
        # float32 in name only, they would have been rounded on the way.
        assert not torch.equal(finite, finite.to(half).float())
    loss.backward()
    gradients = [part.grad for part in clip.parameters() if part.grad is not None]
    assert gradients
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
