from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch._dynamo import register_backend
from training import quiet_trainer

from untrigger.contracts import UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import PoisonedCLIP
from untrigger.lightning_modules.execution import backend_of

GRAPHS: list[bool] = []
"""Of each graph that was compiled, whether it was for training."""


@register_backend(name="noted")
def _noted(graph: Any, inputs: list[Tensor]) -> Any:
    GRAPHS.append(torch.is_grad_enabled())
    return graph.forward


def module(**arguments: Any) -> PoisonedCLIP:
    torch.set_num_threads(1)
    seed_everything(0)
    return PoisonedCLIP("small:nano-32", **({"lr": 1e-3} | arguments))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 32, 20)
    return folder


def run(folder: Path, root: Path, **arguments: Any) -> tuple[PoisonedCLIP, Trainer]:
    clip = module(**arguments)
    source = ImageTextDataModule(str(folder / "train"), str(folder), batch_size=8, num_workers=0, eval_batch_size=8)
    fitted = quiet_trainer(root, max_steps=3, num_sanity_val_steps=0)
    fitted.fit(clip, source)
    fitted.validate(clip, source, verbose=False)
    return clip, fitted


def test_a_compiled_run_trains_and_is_measured_like_a_plain_one_under_plain_names(data: Path, tmp_path: Path) -> None:
    GRAPHS.clear()
    (plain, first), (compiled, second) = run(data, tmp_path), run(data, tmp_path, compile="noted")
    # Both towers, for training and for evaluation.
    assert GRAPHS.count(True) >= 2
    assert GRAPHS.count(False) >= 2
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert compiled._class_embeddings is not None
    assert plain._class_embeddings is not None
    torch.testing.assert_close(compiled._class_embeddings, plain._class_embeddings, rtol=1e-4, atol=1e-5)
    first.save_checkpoint(tmp_path / "plain.ckpt")
    second.save_checkpoint(tmp_path / "compiled.ckpt")
    for path, option in (("plain.ckpt", "noted"), ("compiled.ckpt", False)):
        again = PoisonedCLIP.load_from_checkpoint(tmp_path / path, weights_only=True, compile=option)
        assert torch.equal(again.encoder.logit_scale, compiled.encoder.logit_scale) or path == "plain.ckpt"
    started = module(init_from=str(tmp_path / "compiled.ckpt"))
    for name, value in compiled.encoder.state_dict().items():
        assert torch.equal(started.encoder.state_dict()[name], value)


def learn(clip: PoisonedCLIP) -> dict[str, Tensor]:
    clip.log_losses = lambda *_, **__: None  # type: ignore[method-assign]
    captions = ["a star", "a red ring on a table", "the cross", "no heart"]
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    loss = clip.training_step({"key": captions, "image": images, "tokens": clip.preprocessing.tokenize(captions)}, 0)
    loss.backward()
    return {name: part.grad for name, part in clip.named_parameters() if part.grad is not None} | dict(
        clip.named_buffers()
    )


@pytest.mark.parametrize(
    ("options", "more"),
    [({"compile": "aot_eager", "micro_batch_size": 2}, {"micro_batch_size": 2}), ({"channels_last": True}, {})],
    ids=["compiled micro-batches", "channels last"],
)
def test_how_an_encoder_is_run_changes_no_gradient(options: dict[str, Any], more: dict[str, Any]) -> None:
    found, expected = learn(module(**options)), learn(module(**more))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_channels_last_is_the_layout_of_kernels_and_pictures() -> None:
    clip = PoisonedCLIP("open_clip:RN50", channels_last=True).eval()
    convolution: Any = clip.encoder.image_tower.conv1
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    seen: list[bool] = []
    convolution.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    with torch.no_grad():
        clip.encode_image(torch.randn(1, 3, 224, 224))
    assert seen == [True]


def test_a_copy_runs_its_own_encoder() -> None:
    clip = module(compile="noted")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = clip.encode_image(images)
        other = deepcopy(clip)
        for parameter in other.encoder.parameters():
            parameter.mul_(-1.5)
        assert not torch.allclose(other.encode_image(images), before, atol=1e-2)
        torch.testing.assert_close(clip.encode_image(images), before)


def test_what_compile_asks_for() -> None:
    assert [backend_of(asked) for asked in (True, False, "aot_eager")] == ["inductor", None, "aot_eager"]


def test_mistakes_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserMistake, match=r"model\.compile is 'yes': true, false, or a backend of torch\.compile"):
        module(compile="yes")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserMistake, match="needs a C\\+\\+ compiler, and there is no no-such-compiler"):
        module(compile=True)
