from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from training import quiet_trainer, without_batch_norm

from untrigger.contracts import UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import UBT, BaseCLIPModule, CleanCLIP, PoisonedCLIP
from untrigger.lightning_modules.batch_norm import RunningStatisticsKept
from untrigger.lightning_modules.encoders import Encoder

KINDS = [PoisonedCLIP, CleanCLIP]


def module(kind: type[BaseCLIPModule] = PoisonedCLIP, dtype: torch.dtype = torch.float64, **arguments: Any) -> Any:
    torch.set_num_threads(1)
    seed_everything(0)
    clip = kind("small:nano-32", **({"lr": 1e-3} | arguments)).to(dtype)
    clip.log_losses = lambda *_, **__: None  # type: ignore[method-assign]
    return clip


def with_dropout(clip: Any) -> Any:
    clip.encoder.text.norm = nn.Sequential(nn.Dropout(0.5), clip.encoder.text.norm)
    clip.encoder.visual.stem.append(nn.Dropout(0.5))
    return clip


def batch(clip: Any, count: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    dtype = clip.encoder.logit_scale.dtype
    images, views = (2 + 3 * torch.randn(2, count, 3, 32, 32, generator=generator, dtype=dtype)).unbind()
    captions = [f"a photo of the {'very ' * (number % 3)}number {number}" for number in range(count)]
    tokenize = clip.preprocessing.tokenize
    return {
        "key": captions,
        "image": images,
        "tokens": tokenize(captions),
        "image_view": views,
        "tokens_view": tokenize(captions[::-1]),
    }


def learn(clip: Any) -> dict[str, Tensor]:
    """Loss, gradients and batch-norm statistics of a step, by name."""
    torch.manual_seed(3)
    loss = clip.training_step(batch(clip), 0)
    loss.backward()
    gradients = {name: part.grad for name, part in clip.named_parameters()}
    return {"loss": loss.detach(), **gradients, **dict(clip.named_buffers())}


def plainly_in_parts(clip: Any, parts: int) -> Any:
    """The reference: the batch is encoded in the same parts, and all that autograd keeps of them is kept."""

    def over(run: Callable[[Encoder, Tensor], Tensor]) -> Callable[[Encoder, Tensor], Tensor]:
        return lambda encoder, inputs: torch.cat([run(encoder, part) for part in torch.tensor_split(inputs, parts)])

    execution = clip.execution
    execution.image, execution.text = over(execution.image), over(execution.text)
    return clip


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-13, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_without_batch_norm_it_is_the_whole_batch(kind: type[BaseCLIPModule], size: int) -> None:
    expected = learn(without_batch_norm(module(kind)))
    assert_equal(learn(without_batch_norm(module(kind, micro_batch_size=size))), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_with_batch_norm_it_is_the_plain_step_over_the_same_parts(kind: type[BaseCLIPModule]) -> None:
    found, expected = learn(module(kind, micro_batch_size=3)), learn(plainly_in_parts(module(kind), 3))
    assert_equal(found, expected)
    assert {int(value) for name, value in found.items() if name.endswith("num_batches_tracked")} == {3}
    # Not that of the whole batch, which batch norm sees otherwise.
    whole = learn(module(kind))
    assert not torch.allclose(found["encoder.visual.projection.weight"], whole["encoder.visual.projection.weight"])


def test_in_evaluation_mode_batch_norm_is_that_of_the_whole_batch() -> None:
    whole, micro = module(), module(micro_batch_size=2)
    for clip in (whole, micro):
        with torch.no_grad():
            clip.encode_image(batch(clip)["image"])
        clip.eval()
    assert_equal(learn(micro), learn(whole))


def test_dropout_draws_again_what_it_drew() -> None:
    expected = learn(plainly_in_parts(with_dropout(without_batch_norm(module())), 4))
    assert_equal(learn(with_dropout(without_batch_norm(module(micro_batch_size=2)))), expected)
    other = learn(without_batch_norm(module()))
    assert not torch.allclose(other["encoder.text.projection.weight"], expected["encoder.text.projection.weight"])


def test_activations_are_kept_of_no_micro_batch_and_made_again_for_one_at_a_time() -> None:
    def run(clip: Any) -> tuple[int, list[str]]:
        """Numbers that the forward pass keeps for the backward one, and what happens in the backward pass."""
        kept, events = [0], []

        def keep(tensor: Tensor) -> Tensor:
            kept[0] += tensor.numel()
            return tensor

        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            events.append("forward")
            output.register_hook(lambda _: events.append("backward"))

        clip.encoder.visual.stem[0].register_forward_hook(note)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = clip.training_step(batch(clip), 0)
        before = len(events)
        loss.backward()
        return kept[0], events[before:]

    much, plain = run(plainly_in_parts(without_batch_norm(module()), 4))
    little, cached = run(without_batch_norm(module(micro_batch_size=2)))
    assert plain == 4 * ["backward"]
    assert cached == 4 * ["forward", "backward"]
    assert little < much / 20


def test_half_precision_does_not_add_up_in_half_precision() -> None:
    def gradient(clip: Any, autocast: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = clip.training_step(batch(clip, 32), 0)
        loss.backward()
        grad: Tensor = clip.encoder.visual.stages[0].weight.grad
        return grad

    exact = gradient(without_batch_norm(module(dtype=torch.float32)), False)
    whole = gradient(without_batch_norm(module(dtype=torch.float32)), True)
    micro = gradient(without_batch_norm(module(dtype=torch.float32, micro_batch_size=2)), True)
    assert float((micro - exact).norm()) < 1.2 * float((whole - exact).norm())


def test_an_evaluation_is_not_divided() -> None:
    clip = module(micro_batch_size=2)
    sizes: list[int] = []
    clip.encoder.visual.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.no_grad():
        clip.encode_image(batch(clip)["image"])
    assert sizes == [8]


def test_both_passes_have_the_same_even_parts() -> None:
    clip = module(micro_batch_size=3)
    sizes: list[int] = []
    clip.encoder.visual.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    clip.training_step(batch(clip), 0).backward()
    assert sizes == [3, 3, 2, 2, 3, 3]


def test_a_run_of_the_trainer_ends_where_that_on_whole_batches_does(tmp_path: Path) -> None:
    write_generated_data(tmp_path / "data", 32, 20)
    ends = []
    for size in (None, 6):
        clip = without_batch_norm(module(micro_batch_size=size))
        step = clip.training_step
        clip.training_step = lambda given, index, step=step: step({**given, "image": given["image"].double()}, index)
        trainer = quiet_trainer(
            tmp_path,
            max_steps=2,
            precision="64-true",
            accumulate_grad_batches=2,
            gradient_clip_val=0.5,
            limit_val_batches=0,
        )
        trainer.fit(clip, ImageTextDataModule(str(tmp_path / "data" / "train"), batch_size=8, num_workers=0))
        ends.append(clip.state_dict())
    assert float((ends[0]["encoder.logit_scale"] - module().encoder.logit_scale.detach()).abs()) > 1e-5
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=0, atol=1e-7)


def test_a_pass_that_keeps_the_statistics_keeps_them_in_the_second_too() -> None:
    clip = module(micro_batch_size=2)
    given = batch(clip)
    before = {name: tensor.clone() for name, tensor in clip.named_buffers()}
    with RunningStatisticsKept(clip.encoder):
        features = clip.encode_image(given["image"])
    features.sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in clip.named_buffers())


def test_mistakes_are_reported() -> None:
    with pytest.raises(UserMistake, match=r"model\.micro_batch_size is 0: at least 1"):
        module(micro_batch_size=0)
    with pytest.raises(UserMistake, match="joint_batch_norm has pictures and their views in one batch"):
        module(CleanCLIP, micro_batch_size=2, joint_batch_norm=True)
    assert module(UBT, micro_batch_size=2).execution.micro_batch_size == 2
