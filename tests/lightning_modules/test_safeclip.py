from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from planted import ENCODER, Planted, phased_trainer, same, weights
from torchvision.transforms import v2

from untrigger.contracts import CLIPModule, DetectingModule, ImageTextData, UserMistake
from untrigger.datamodules import EDA, ImageTextDataModule, TransformView
from untrigger.lightning_modules import PoisonedCLIP, SafeCLIP
from untrigger.lightning_modules.losses import SelfSupervisedLoss

BATCH = 64


def module(**arguments: Any) -> SafeCLIP:
    torch.set_num_threads(1)
    seed_everything(0)
    settings = {"unimodal_epochs": 1, "multimodal_lr": 1e-4, "epochs": 2, "pool_size": 64, "lr": 1e-3}
    return SafeCLIP(ENCODER, **(settings | arguments))


def data(planted: Planted) -> ImageTextDataModule:
    view = TransformView(v2.ColorJitter(0.4, 0.4))
    return planted.data(batch_size=BATCH, image_view=view, text_view=EDA())


class Notes(Callback):
    """Who was streamed in which phase, and at what rate."""

    def __init__(self) -> None:
        self.visits: list[tuple[str, int]] = []
        self.keys: list[set[str]] = []
        self.rates: list[float] = []
        self.safe: list[set[str]] = []
        self.steps: list[int] = []
        """Steps that the optimiser knows of, after the first batch of each visit."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        visit = (pl_module.running.name, pl_module.visit)
        if not self.visits or self.visits[-1] != visit:
            self.visits.append(visit)
            self.keys.append(set())
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
            self.safe.append(set(pl_module.of(safe=True)))
            known = [int(state["step"]) for state in trainer.optimizers[0].state.values()]
            self.steps.append(max(known, default=0))
        self.keys[-1] |= set(batch["key"])


def divided(clip: SafeCLIP, similarity: np.ndarray) -> np.ndarray:
    """Divide pairs, without a run."""
    clip.log_now = lambda *_: None  # type: ignore[method-assign]
    type(clip).data = property(lambda _: SimpleNamespace(global_batch_size=8))  # type: ignore[method-assign,assignment]
    try:
        clip.divide([str(number) for number in range(len(similarity))], similarity.astype(np.float32))
    finally:
        del type(clip).data
    return clip.safe


def test_it_is_a_defence_from_random_weights_on_too() -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert isinstance(clip, DetectingModule)
    assert (clip.defence, clip.suspicion) == ("SafeCLIP", None)
    assert clip.defends("manifest")


def test_the_first_split_is_by_probability_and_later_ones_grow_up_to_the_cap() -> None:
    draws = np.random.default_rng(0)
    similarity = np.concatenate([draws.normal(0.0, 0.03, 400), draws.normal(0.5, 0.03, 600)])
    clip = module(growth=0.1, largest_share=0.75, epochs=4)
    assert divided(clip, similarity).tolist() == [False] * 400 + [True] * 600
    assert clip.suspicion is None
    shares = [float(divided(clip, similarity[::-1]).mean()) for _ in range(3)]
    assert shares == [0.7, 0.75, 0.75]
    assert clip.safe[:600].all()  # the order had turned round
    assert clip.suspicion is not None
    assert (clip.suspicion.decision == np.where(clip.safe, 0, 1)).all()
    assert clip.risk[:600].max() < clip.risk[600:].min()


def test_the_most_probable_ones_fill_a_batch() -> None:
    similarity = np.random.default_rng(0).permutation(np.linspace(0.3, 0.5, 100))
    similarity[similarity.argsort()[-8:]] += 0.01
    clip = module(safe_probability=1.0)
    safe = divided(clip, similarity)[similarity.argsort()]
    assert safe.sum() == 8
    assert safe[-8:].all()


@pytest.fixture(scope="module")
def run(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[SafeCLIP, Notes, Path]:
    """A run as a user starts it, with checkpoints in the second half of its phases."""
    root = tmp_path_factory.mktemp("run")

    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            phase = pl_module.running.name
            if pl_module.visit == 1 or phase == "multimodal":
                trainer.save_checkpoint(root / f"{phase}.ckpt")  # the last one: in the middle, or at its end

    clip, notes = module(), Notes()
    trainer = phased_trainer(root, notes, Save())
    trainer.fit(clip, data(planted))
    trainer.save_checkpoint(root / "end.ckpt")
    return clip, notes, root


def test_everything_is_learnt_apart_then_together_and_then_by_who_is_safe(run: tuple[SafeCLIP, Notes, Path]) -> None:
    _, notes, _ = run
    parts = [("divide", 0), ("risky", 0), ("safe", 0), ("divide", 1), ("risky", 1), ("safe", 1)]
    assert notes.visits == [("unimodal", 0), ("multimodal", 0), *parts]
    for (phase, _), keys, safe in zip(notes.visits, notes.keys, notes.safe, strict=True):
        if phase in ("unimodal", "multimodal", "divide"):
            assert len(keys) == 640
        elif phase == "safe":
            assert keys <= safe
            assert len(keys) > len(safe) - BATCH
        else:
            assert keys.isdisjoint(safe)
            assert len(keys) > 640 - len(safe) - BATCH
    rates = dict(zip(notes.visits, notes.rates, strict=True))
    assert notes.steps[0] == 1
    assert notes.steps[1] == 11  # the optimiser goes on with what it knows
    assert notes.steps == sorted(notes.steps)
    assert rates["multimodal", 0] == 1e-4
    assert rates["divide", 0] == 1e-4  # nothing was learnt
    assert rates["risky", 0] == rates["safe", 0] == 1e-3
    assert rates["risky", 1] == rates["safe", 1] == pytest.approx(0.5e-3, rel=1e-3)


@pytest.mark.parametrize("phase", ["multimodal", "divide", "risky", "safe"])
def test_a_run_that_was_resumed_ends_where_the_other_does(
    run: tuple[SafeCLIP, Notes, Path], planted: Planted, tmp_path: Path, phase: str
) -> None:
    whole, _, root = run
    again = module()
    phased_trainer(tmp_path).fit(again, data(planted), ckpt_path=root / f"{phase}.ckpt", weights_only=True)
    assert (again.safe == whole.safe).all()
    assert same(weights(again), weights(whole)) == set(weights(whole))  # type: ignore[arg-type]
    torch.testing.assert_close(again.image_pool.features, whole.image_pool.features, rtol=0, atol=0)


def test_its_checkpoint_is_one_of_the_encoder(run: tuple[SafeCLIP, Notes, Path]) -> None:
    clip, _, root = run
    other = PoisonedCLIP(ENCODER, init_from=str(root / "end.ckpt"))
    assert same(weights(other), weights(clip)) == set(weights(clip))  # type: ignore[arg-type]


def shown(clip: SafeCLIP) -> Any:
    draws = torch.Generator().manual_seed(0)
    pictures, views = (torch.randn(4, 3, 32, 32, generator=draws) for _ in range(2))
    tokens = clip.preprocessing.tokenize(["a red star", "the ring", "no", "a plum"])
    tokens_view = clip.preprocessing.tokenize(["red star", "ring the", "no no", "plum"])
    return {"key": list("abcd"), "image": pictures, "image_view": views, "tokens": tokens, "tokens_view": tokens_view}


def test_pictures_and_captions_are_learnt_apart() -> None:
    clip = module().eval()
    batch, parts = shown(clip), dict[str, torch.Tensor]()
    clip.log_parts = lambda **found: parts.update(found)  # type: ignore[method-assign]
    loss = clip.unimodal(batch)
    images, views = clip.encode_image(batch["image"]), clip.encode_image(batch["image_view"])
    # The pools were empty: features stood for themselves.
    alone, scale = SelfSupervisedLoss(), clip.inverse_temperature
    expected = (alone(images, views, scale) + alone(views, images, scale)) / 2
    torch.testing.assert_close(parts["image"], expected)
    torch.testing.assert_close(loss, parts["image"] + parts["text"])
    towers = {id(part) for part in clip.encoder.image_tower.parameters()}
    for part, of_image in (("image", True), ("text", False)):
        clip.zero_grad()
        parts[part].backward(retain_graph=True)
        moved = [p for p in clip.encoder.parameters() if p.grad is not None and p is not clip.encoder.logit_scale]
        assert moved
        assert all((id(p) in towers) is of_image for p in moved)


def test_a_filled_pool_stands_in_for_the_originals() -> None:
    clip = module().eval()
    clip.log_parts = lambda **_: None  # type: ignore[method-assign]
    batch = shown(clip)
    clip.unimodal(batch)
    torch.testing.assert_close(clip.image_pool.features[:4], clip.encode_image(batch["image"]).detach())
    images, views = clip.encode_image(batch["image"]), clip.encode_image(batch["image_view"])
    alone, scale, pool = SelfSupervisedLoss(), clip.inverse_temperature, clip.image_pool
    expected = (alone(pool.nearest(images), views, scale) + alone(pool.nearest(views), images, scale)) / 2
    torch.testing.assert_close(clip._against_view(images, views, pool), expected)


def test_a_batch_has_to_have_views(planted: Planted, tmp_path: Path) -> None:
    assert isinstance(planted.data(), ImageTextData)
    with pytest.raises(UserMistake, match=r"SafeCLIP needs data\.image_view and data\.text_view"):
        phased_trainer(tmp_path).fit(module(), planted.data())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"safe_probability": 0.0}, r"model\.safe_probability is 0\.0, not above 0 and at most 1"),
        ({"epochs": 0}, r"model\.epochs is 0, not at least 1"),
        ({"growth": -0.1}, r"model\.growth is -0\.1, not at least 0"),
        ({"pool_size": 0}, r"model\.pool_size is 0, not at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        module(**arguments)
