"""Data, checkpoints and configs as people have them: odd, and all right, or reported in one line."""

from __future__ import annotations

import io
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import coloured_pair, encode_picture
from PIL import Image

from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.commands.shards.command import shards_from_csv, shards_from_folder
from untrigger.contracts import Preprocessing, UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules.encoders import build_encoder, load_weights

WriteShard = Callable[[Path, Sequence[tuple[str, dict[str, bytes]]]], str]
PIXELS = np.full((32, 32, 3), (200, 30, 60), dtype=np.uint8)


def encoded(kind: str) -> bytes:
    """One red picture, in a way that cameras, scanners and websites have."""
    buffer, picture = io.BytesIO(), Image.fromarray(PIXELS)
    if kind == "CMYK":
        picture.convert("CMYK").save(buffer, "JPEG")
    elif kind == "animated":
        picture.save(buffer, "WEBP", save_all=True, append_images=[Image.new("RGB", (32, 32))], lossless=True)
    else:
        picture.save(buffer, kind)
    return buffer.getvalue()


def ready(preprocessing: Preprocessing, shards: str, **arguments: Any) -> ImageTextDataModule:
    data = ImageTextDataModule(shards, batch_size=1, num_workers=0, **arguments)
    data.preprocessing = preprocessing
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("jpg", "CMYK"), ("webp", "animated"), ("jpg", "PNG"), ("png", "JPEG"), ("JPG", "JPEG"), ("Png", "PNG")],
)
def test_a_picture_is_what_it_holds_whatever_its_name(
    suffix: str, kind: str, preprocessing: Preprocessing, tmp_path: Path, write_shard: WriteShard
) -> None:
    shard = write_shard(tmp_path / "0.tar", [("k", {suffix: encoded(kind), "txt": b"red"})])
    (seen,) = ready(preprocessing, shard).pictures(["k"])
    assert (seen.float().mean(dim=(1, 2)) - torch.tensor([200.0, 30.0, 60.0])).abs().max() < 25
    folder = tmp_path / "pictures" / "red"
    folder.mkdir(parents=True)
    (folder / f"one.{suffix}").write_bytes(encoded(kind))
    shards_from_folder(tmp_path / "pictures", tmp_path / "made")
    assert len(ready(preprocessing, str(tmp_path / "made"))._pairs) == 1


@pytest.mark.parametrize(
    ("text", "caption"),
    [("a &amp; b", "a &amp; b"), ("a cat\r\n", "a cat"), ("\r\n a cat \n", "a cat"), ("\ufeffa cat", "a cat")],
)
def test_a_caption_is_taken_as_it_is(
    text: str, caption: str, preprocessing: Preprocessing, tmp_path: Path, write_shard: WriteShard
) -> None:
    shard = write_shard(tmp_path / "0.tar", [("k", {**coloured_pair(0), "txt": text.encode()})])
    assert ready(preprocessing, shard).captions(["k"]) == [caption]


def test_names_with_a_dot_and_slash_in_front_are_pairs(
    preprocessing: Preprocessing, tmp_path: Path, write_shard: WriteShard
) -> None:
    shard = write_shard(tmp_path / "0.tar", [("./a/k0", coloured_pair(0)), ("./a/k1", coloured_pair(1))])
    data = ready(preprocessing, shard)
    assert len(data.captions([key for batch in data.predict_dataloader() for key in batch["key"]])) == 2


COMPOSED = unicodedata.normalize("NFC", "caf\u00e9")


@pytest.mark.parametrize(
    ("key", "listed"),
    [("000000012", "12"), (unicodedata.normalize("NFD", COMPOSED), COMPOSED), ("./k0", "k1")],
)
def test_keys_that_something_has_changed_are_reported(
    key: str, listed: str, preprocessing: Preprocessing, tmp_path: Path, write_shard: WriteShard
) -> None:
    shard = write_shard(tmp_path / "0.tar", [(key, coloured_pair(0)), ("other", coloured_pair(1))])
    (tmp_path / "keys.txt").write_text(f"{listed}\n", encoding="utf-8")
    with pytest.raises(UserMistake, match="none of the 1 keys that"):
        ready(preprocessing, shard, exclude=str(tmp_path / "keys.txt"))
    (tmp_path / "keys.txt").write_text(f"{key}\r\n", encoding="utf-8-sig")
    assert ready(preprocessing, shard, exclude=str(tmp_path / "keys.txt")).pairs == 2 - 1


def test_a_table_of_another_system_is_read_or_told_of(preprocessing: Preprocessing, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(encode_picture(PIXELS))
    table = tmp_path / "pairs.csv"
    table.write_text("image;caption\r\nimages/1.png;red, and round\r\n", encoding="utf-8-sig")
    with pytest.raises(UserMistake, match="no column 'image'"):
        shards_from_csv(table, tmp_path / "comma")
    shards_from_csv(table, tmp_path / "semicolon", delimiter=";")
    data = ready(preprocessing, str(tmp_path / "semicolon"))
    keys = [key for batch in data.predict_dataloader() for key in batch["key"]]
    assert data.captions(keys) == ["red, and round"]
    table.write_text("image,caption\r\nimages\\1.png,red\r\n", encoding="utf-8")
    with pytest.raises(UserMistake, match="1 of 1 samples cannot be used"):
        shards_from_csv(table, tmp_path / "backslashes")


@pytest.mark.parametrize("layout", ["clip.", "ema.", "beside"])
def test_a_checkpoint_of_another_layout_is_whole_or_refused(layout: str, tmp_path: Path) -> None:
    encoder = build_encoder("small:nano-32")
    state = encoder.state_dict()
    named = {f"{layout}{name}": tensor for name, tensor in state.items()}
    if layout == "beside":  # averaged weights beside the others
        named = state | {f"ema.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": named}, tmp_path / "other.pt")
    before = {name: tensor.clone() for name, tensor in state.items()}
    with pytest.raises(UserMistake, match=r"is not of this encoder's architecture: of \d+ tensors"):
        load_weights(encoder, str(tmp_path / "other.pt"))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())


CONFIG = """
trainer:
  max_epochs: 1
  limit_train_batches: 0.5
  accelerator: cpu
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    class_path: ModelCheckpoint
    init_args: {filename: "own-{epoch}", save_top_k: 1}
model: {class_path: PoisonedCLIP, init_args: {encoder: "small:nano-32"}}
data: {class_path: ImageTextDataModule, init_args: {train_shards: data/train, batch_size: 8, num_workers: 0}}
"""


def test_a_run_of_its_own_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    write_generated_data(tmp_path / "data", 48, 2)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.yaml").write_text(CONFIG)
    arguments = ["fit", "--config", "elsewhere/config.yaml", "--trainer.default_root_dir", "run"]
    # Paths in a config are seen from where the command is called, wherever the config lies.
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserMistake, match="data/train does not exist"):
        UntriggerCLI(["fit", "--config", "config.yaml", "--trainer.default_root_dir", "run"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserMistake, match="48 training pairs do not fill one batch of 64"):
        UntriggerCLI([*arguments, "--data.batch_size", "64"])
    run = UntriggerCLI(arguments)
    assert run.trainer.global_step == 3
    written = {path.name for path in (tmp_path / "run").rglob("*.ckpt")}
    assert written == {"own-epoch=0.ckpt", "last.ckpt"}
