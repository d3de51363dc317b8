from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from planted import ENCODER, Planted, same, weights
from training import quiet_trainer

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.datamodules import EDA
from untrigger.lightning_modules import PoisonedCLIP, RoCLIP
from untrigger.lightning_modules.losses import ContrastiveLoss


def module(**arguments: Any) -> RoCLIP:
    torch.set_num_threads(1)
    seed_everything(0)
    return RoCLIP(ENCODER, **({"lr": 2e-3, "pool_size": 64, "weight_decay": 0.0} | arguments))


class Matched(Callback):
    """In which epochs pictures were matched with others' captions."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.epochs.append(float(pl_module.losses["matched"]))


def batch(count: int = 4) -> Any:
    captions = ["a red star.", "the ring", "no", "a plum"][:count]
    pictures = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return {"key": list("abcd"), "image": pictures, "tokens": module().preprocessing.tokenize(captions)}


def stepped(clip: RoCLIP, shown: Any, epoch: int) -> torch.Tensor:
    """The loss of a batch in an epoch, without a trainer."""
    clip.log_losses = lambda *_, **__: None  # type: ignore[method-assign]
    type(clip).current_epoch = property(lambda _: epoch)  # type: ignore[method-assign]
    try:
        return clip.training_step(shown, 0)
    finally:
        del type(clip).current_epoch


def test_it_is_a_defence_from_random_weights_on_too() -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert clip.defence == "RoCLIP"
    assert clip.defends("manifest")


def test_in_every_kth_epoch_pictures_are_matched(planted: Planted, tmp_path: Path) -> None:
    clip, seen = module(match_every=3), Matched()
    quiet_trainer(tmp_path, max_epochs=4, limit_val_batches=0, callbacks=[seen]).fit(clip, planted.data(batch_size=64))
    assert seen.epochs == [0, 0, 1, 0]
    assert int(clip.pool.seen) == 4 * 640


def test_in_other_epochs_the_loss_is_clip_s() -> None:
    clip, shown = module(match_every=2), batch()
    loss = stepped(clip, shown, 0)
    torch.testing.assert_close(loss, ContrastiveLoss()(*clip(shown), clip.inverse_temperature))
    torch.testing.assert_close(clip.pool.features[:4], clip.encode_text(shown["tokens"]).detach())


def test_a_matched_picture_has_the_nearest_caption_of_the_pool_and_the_text_tower_learns_nothing() -> None:
    clip, shown = module(match_every=2), batch()
    others = clip.encode_text(clip.preprocessing.tokenize(["banana", "sea", "coal", "snow", "grass"])).detach()
    clip.pool.add(others)
    loss = stepped(clip, shown, 1)
    images = clip.encode_image(shown["image"])
    partners = others[(images @ others.T).argmax(dim=1)]
    torch.testing.assert_close(loss, ContrastiveLoss()(images, partners, clip.inverse_temperature))
    loss.backward()
    image_tower = {id(part) for part in clip.encoder.image_tower.parameters()}
    for name, part in clip.encoder.named_parameters():
        learns = id(part) in image_tower or name == "logit_scale"
        assert part.grad is not None  # several ranks would wait for it
        assert bool(part.grad.abs().sum() > 0) is learns, name


def test_captions_are_augmented_where_there_is_a_view() -> None:
    clip, shown = module(), batch()
    shown["tokens_view"] = clip.preprocessing.tokenize(["red star a.", "ring the", "no", "a plum plum"])
    own = {**shown, "tokens": shown["tokens_view"]}
    torch.testing.assert_close(stepped(clip, shown, 0), ContrastiveLoss()(*clip(own), clip.inverse_temperature))


def test_a_run_that_was_resumed_ends_where_the_other_does(planted: Planted, tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole, again = module(), module()
    data = {"batch_size": 64, "text_view": EDA()}
    run: dict[str, Any] = {"max_epochs": 2, "limit_val_batches": 0}
    quiet_trainer(tmp_path, **run, callbacks=[Save()]).fit(whole, planted.data(**data))
    quiet_trainer(tmp_path, **run).fit(
        again, planted.data(**data), ckpt_path=tmp_path / "middle.ckpt", weights_only=True
    )
    assert same(weights(again), weights(whole)) == set(weights(whole))  # type: ignore[arg-type]
    torch.testing.assert_close(again.pool.features, whole.pool.features, rtol=0, atol=0)


def test_its_checkpoint_is_one_of_the_encoder(planted: Planted, tmp_path: Path) -> None:
    clip, trainer = module(), quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(clip, planted.data(batch_size=64))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    other = PoisonedCLIP(ENCODER, init_from=str(tmp_path / "end.ckpt"))
    assert same(weights(other), weights(clip)) == set(weights(clip))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["match_every", "pool_size"])
def test_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(UserMistake, match=rf"model\.{name} is 0, not at least 1"):
        module(**{name: 0})
