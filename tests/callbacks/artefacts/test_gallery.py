from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from untrigger.callbacks import TriggerGallery
from untrigger.callbacks.artefacts.figures import DPI, distortion, trigger_gallery


def pixels(figure: Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return np.asarray(Image.open(file, formats=("PNG",)).convert("RGB"))


def colours(image: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.unique(image.reshape(-1, 3), axis=0).tolist()}


def test_pictures_are_shown_pixel_by_pixel() -> None:
    clean = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    drawn = pixels(trigger_gallery(clean, {"BadNet": clean.flip(3)}))
    # Each pixel is a square of 16 dots, for the sides of the first clean picture start behind the gap and the heading.
    first = drawn[30 : 30 + 128 : 16, 6 : 6 + 128 : 16]
    assert (first == clean[0].permute(1, 2, 0).numpy()).all()
    triggered = drawn[30 + 164 + 8 : 30 + 164 + 128 : 16, 6 + 8 : 6 + 128 : 16]
    assert (triggered == clean[0].flip(2).permute(1, 2, 0).numpy()).all()


def test_difference_is_amplified_as_far_as_nothing_is_clipped() -> None:
    clean = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    triggered = clean.clone()
    triggered[0, 0, 0, 0] = 140
    figure = trigger_gallery(clean, {"Blended": triggered})
    # One value in 48 differs by 40: the norm is 40 / 255, the PSNR 20 log10(255 / 40) + 10 log10(48).
    assert [text.get_text() for text in figure.texts] == [
        "Clean",
        "Triggered by Blended (mean L2 distance 0.16, mean PSNR 32.9 dB)",
        "Difference x 6 (black: unchanged)",
    ]
    assert (240, 0, 0) in colours(pixels(figure))


def test_a_single_large_difference_does_not_leave_the_others_in_the_dark() -> None:
    clean = torch.full((1, 3, 12, 12), 100, dtype=torch.uint8)
    triggered = clean + 5
    triggered[0, 0, 0, 0] = 240
    figure = trigger_gallery(clean, {"WaNet": triggered})
    assert figure.texts[2].get_text() == "Difference x 51 (black: unchanged)"
    assert colours(pixels(figure)) >= {(255, 255, 255)}


def test_distortion_is_that_of_the_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (2, 3, 16, 16), generator=generator).to(torch.uint8)
    assert distortion(clean, clean) == (0.0, float("inf"), pytest.approx(1.0))
    dimmed = clean.clone()
    dimmed[0] //= 2
    difference = (clean.double() - dimmed.double()) / 255
    norm = float(difference[0].square().sum().sqrt()) / 2
    measured = distortion(clean, dimmed)
    assert measured.l2 == pytest.approx(norm, rel=1e-5)
    assert 0.5 < measured.ssim < 0.99
    assert distortion(clean[:1], dimmed[:1]).psnr == pytest.approx(
        -10 * float(difference[0].square().mean().log10()), rel=1e-5
    )


def test_other_peoples_text_is_drawn_as_it_is() -> None:
    clean = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    figure = trigger_gallery(clean, {r"$\frac{": clean}, [r"$\undefined{$ " + "x" * 50 + "\x00\x1b"])
    pixels(figure)
    # 16 letters fit on a line, and three lines below a picture.
    assert figure.texts[1].get_text() == r"$\undefined{$ " + "xx\n" + "x" * 16 + "\n" + "x" * 15 + "…"


def test_captions_are_wrapped_and_the_pictures_below_make_room() -> None:
    clean = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    figure = trigger_gallery(clean, {"BadNet": clean}, ["a low contrast photo of the horse.", "a cat"])
    lines = "a low contrast\nphoto of the\nhorse."
    assert [text.get_text() for text in figure.texts[1:3]] == [lines, "a cat"]
    drawn = pixels(figure)
    top = 30 + 128 + 6 + (6 + 3 * 16) + 30
    assert (drawn[top : top + 128 : 16, 6 : 6 + 128 : 16] == clean[0].permute(1, 2, 0).numpy()).all()
    # Black letters on white between the rows, none beyond.
    assert (drawn[30 + 128 : 30 + 128 + 54, 6:134] < 128).any()
    assert (drawn[30 + 128 + 54 : 30 + 128 + 60] == 255).all()


def test_shapes_that_differ_are_refused() -> None:
    clean = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="BadNet"):
        trigger_gallery(clean, {"BadNet": clean[:1]})
    with pytest.raises(ValueError, match="1 captions for 2 pictures"):
        trigger_gallery(clean, {"BadNet": clean}, ["one"])


def test_run_leaves_the_pictures_as_they_were_before_normalisation(run: Any) -> None:
    logger = TensorBoardLogger(run.folder)
    trainer = run.trainer(TriggerGallery(pictures=3), logger=logger, num_sanity_val_steps=1)
    trainer.fit(run.Module(), datamodule=run.Data())
    drawn = np.asarray(Image.open(run.folder / "gallery.png").convert("RGB"))
    # The first three pictures are taken for classes 0, 1, 1 and, with the trigger, 1, 1, 1: grey of 40 a class. The
    # difference is amplified from 40 to 240.
    row = 30 + 128 + 6
    middles = [(6 + 134 * column + 64) for column in range(3)]
    assert [int(drawn[30 + 64, middle, 0]) for middle in middles] == [0, 40, 40]
    assert [int(drawn[row + 22 + 30 + 64, middle, 1]) for middle in middles] == [40, 40, 40]
    assert [int(drawn[2 * row + 22 + 30 + 64, middle, 2]) for middle in middles] == [240, 0, 0]
    events = EventAccumulator(logger.log_dir).Reload()
    assert len(events.Images("gallery")) == 1


def test_gallery_is_not_drawn_in_the_sanity_check(run: Any) -> None:
    run.trainer(TriggerGallery(), num_sanity_val_steps=-1, limit_val_batches=1, max_epochs=0).fit(
        run.Module(), datamodule=run.Data()
    )
    assert not (run.folder / "gallery.png").exists()


@pytest.mark.parametrize("batches", [[[], [0, 1]], [[]]])
def test_a_rank_without_pictures_draws_the_first_batch_that_has_some_or_none(
    batches: list[list[int]], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, gallery = run.Data(), TriggerGallery()
    trainer = run.trainer(gallery)
    monkeypatch.setattr(trainer.strategy, "_lightning_module", run.Module())
    monkeypatch.setattr(trainer, "datamodule", data, raising=False)
    for index, numbers in enumerate(batches):
        batch = data._test_batch(numbers or [0])
        if not numbers:
            triggered = {name: images[:0] for name, images in batch["triggered"].items()}
            batch = {"key": [], "image": batch["image"][:0], "label": batch["label"][:0], "triggered": triggered}
        gallery.on_validation_batch_start(trainer, trainer.lightning_module, batch, index)
    assert (run.folder / "gallery.png").exists() is (len(batches) > 1)


def test_no_attack_leaves_no_gallery(run: Any) -> None:
    run.trainer(TriggerGallery()).validate(run.Module(), datamodule=run.Data({}))
    assert not (run.folder / "gallery.png").exists()
