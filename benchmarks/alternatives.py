"""Pairs a second of ours over those of what people would use instead: CleanCLIP's own loop, open_clip's pipeline.

    python benchmarks/alternatives.py

Both are re-enacted, on the same pictures and with the same encoder, from what their repositories do:

- CleanCLIP (nishadsinghi/CleanCLIP): a table of files and captions, all of whose captions are tokenised when it is
  opened; PIL, Resize, CenterCrop, ToTensor, Normalize for each picture; a shuffling ``DataLoader``; encoders in float32
  (autocast covers the loss alone, and there is none on a CPU); AdamW.
- open_clip (``open_clip_train``): webdataset from shards with shuffling buffers, ``decode("pilrgb")``, its transform
  and its tokeniser, ``batched``; with ``amp_bf16``.

Every figure is of a process of its own with one thread, and the sides alternate. Seconds are those of the processor, so
that what else the machine does matters little. ``training`` is where the encoder is the limit: what the training
process takes, with one worker beside it. ``loading`` is where data is: a loader that reads in its own process, whose
batches nobody looks at.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import webdataset as wds
from lightning.pytorch import Callback, Trainer, seed_everything
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.shards.encoded import EncodedPicture
from untrigger.datamodules.shards.writer import Pair, write_training_shards
from untrigger.lightning_modules import PoisonedCLIP
from untrigger.lightning_modules.encoders import Encoder, build_encoder

ENCODER = "open_clip:RN50"
SIZES = {"160 x 160": (160, 160), "640 x 480": (640, 480)}
SIDES = ("CleanCLIP", "open_clip", "ours, 32-true", "ours, bf16-mixed")


def photographs(size: tuple[int, int], count: int) -> Iterator[bytes]:
    """JPEGs with the detail of a photograph."""
    draws = np.random.default_rng(0)
    for _ in range(count):
        coarse = draws.integers(0, 256, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(int)
        noisy = smooth + draws.integers(-12, 13, (size[1], size[0], 1))
        buffer = BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        yield buffer.getvalue()


def write_data(folder: Path, size: tuple[int, int], count: int) -> None:
    """The same pairs as shards, and as files with a table."""
    (folder / "files").mkdir(parents=True)
    jpegs = list(photographs(size, count))
    pairs = [Pair(EncodedPicture(jpeg, "jpg", *size), f"a photo of number {n}") for n, jpeg in enumerate(jpegs)]
    write_training_shards(folder / "shards", iter(pairs), count)
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number, pair in enumerate(pairs):
            (folder / "files" / f"{number}.jpg").write_bytes(jpegs[number])
            rows.writerow([f"files/{number}.jpg", pair.caption])


class CaptionTable(Dataset[dict[str, Tensor]]):
    """CleanCLIP's data set.

    Args:
        folder: Of ``table.csv``.
        encoder: What asks for the pictures and the tokens.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        asked, self.folder = encoder.preprocessing, folder
        with (folder / "table.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.files = [row["image"] for row in rows]
        self.tokens = asked.tokenize([row["caption"] for row in rows])
        self.transform = transforms.Compose(
            [
                transforms.Resize(asked.image_size, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(asked.image_size),
                lambda picture: picture.convert("RGB"),
                transforms.ToTensor(),
                transforms.Normalize(asked.mean, asked.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"tokens": self.tokens[index], "image": self.transform(Image.open(self.folder / self.files[index]))}


def cleanclip_loader(folder: Path, encoder: Encoder, batch_size: int, workers: int) -> Iterable[dict[str, Tensor]]:
    """As CleanCLIP makes it."""
    table = CaptionTable(folder, encoder)
    return DataLoader(table, batch_size, shuffle=True, num_workers=workers, drop_last=True, **_forked(workers))


def open_clip_loader(folder: Path, encoder: Encoder, batch_size: int, workers: int) -> Iterator[dict[str, Tensor]]:
    """As ``open_clip_train`` makes it, with its transform for evaluation, which is Resize and CenterCrop too."""
    asked = encoder.preprocessing
    transform = open_clip.image_transform(asked.image_size, is_train=False, mean=asked.mean, std=asked.std)
    tokenize = open_clip.get_tokenizer("RN50")
    steps = [
        wds.SimpleShardList([str(path) for path in sorted((folder / "shards").glob("*.tar"))]),
        wds.detshuffle(bufsize=2000, initial=500, seed=0),
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.shuffle(bufsize=5000, initial=1000),
        wds.select(lambda sample: "txt" in sample and "jpg" in sample),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=transform, text=lambda text: tokenize(text)[0]),
        wds.to_tuple("image", "text"),
        wds.batched(batch_size, partial=False),
    ]
    loader = wds.WebLoader(wds.DataPipeline(*steps), batch_size=None, num_workers=workers, **_forked(workers))
    return ({"image": images, "tokens": tokens} for images, tokens in loader)


def _forked(workers: int) -> dict[str, str]:
    """Both hold functions without a name, which workers that are forked need not pickle."""
    return {"multiprocessing_context": "fork"} if workers else {}


def our_data(folder: Path, batch_size: int, workers: int) -> ImageTextDataModule:
    """Ours."""
    return ImageTextDataModule(str(folder / "shards"), batch_size=batch_size, num_workers=workers, seed=0)


def rate(batches: Iterable[Any], batch_size: int) -> float:
    """Pairs a processor second, from the second batch on: starting does not count."""
    handed = iter(batches)
    next(handed)
    started, count = time.process_time(), 0
    for _ in handed:
        count += batch_size
    return count / (time.process_time() - started)


def loading(side: str, folder: Path, batch_size: int) -> float:
    """Pairs a processor second of a loader alone."""
    torch.set_num_threads(1)
    encoder = build_encoder(ENCODER)
    if side == "CleanCLIP":
        return rate(cleanclip_loader(folder, encoder, batch_size, 0), batch_size)
    if side == "open_clip":
        return rate(open_clip_loader(folder, encoder, batch_size, 0), batch_size)
    data = our_data(folder, batch_size, 0)
    data.preprocessing = encoder.preprocessing
    data.setup("fit")
    # With what is left to the training process: theirs come normalised.
    return rate((data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()), batch_size)


def bare_training(batches: Iterable[dict[str, Tensor]], encoder: Encoder, autocast: bool, steps: int) -> list[float]:
    """Processor seconds at the end of each step of a loop of theirs."""
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=5e-4, weight_decay=0.1)
    encoder.train()
    ends: list[float] = []
    while len(ends) <= steps:
        for batch in batches:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                images = functional.normalize(encoder.encode_image(batch["image"]), dim=-1)
                texts = functional.normalize(encoder.encode_text(batch["tokens"]), dim=-1)
                logits = encoder.logit_scale.exp() * images @ texts.T
            target = torch.arange(len(logits))
            logits = logits.float()
            loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
            loss.backward()
            optimizer.step()
            ends.append(time.process_time())
            if len(ends) > steps:
                break
    return ends


class Ends(Callback):
    """Notes the end of each step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note it."""
        self.at.append(time.process_time())


def our_training(folder: Path, precision: str, batch_size: int, steps: int) -> list[float]:
    """The same of ours, with Lightning's loop."""
    ends = Ends()
    with tempfile.TemporaryDirectory() as root:
        trainer = Trainer(
            accelerator="cpu",
            precision=precision,  # type: ignore[arg-type]
            max_steps=steps + 1,
            callbacks=[ends],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=root,
        )
        trainer.fit(PoisonedCLIP(ENCODER), our_data(folder, batch_size, 1))
    return ends.at


def training(side: str, folder: Path, batch_size: int, steps: int) -> float:
    """Pairs a processor second, from the second step on."""
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    if side.startswith("ours"):
        ends = our_training(folder, side.rpartition(" ")[2], batch_size, steps)
    else:
        encoder = build_encoder(ENCODER)
        loader: Callable[..., Any] = cleanclip_loader if side == "CleanCLIP" else open_clip_loader
        ends = bare_training(loader(folder, encoder, batch_size, 1), encoder, side == "open_clip", steps)
    return batch_size * (len(ends) - 1) / (ends[-1] - ends[0])


def apart(measure: Callable[..., float], *arguments: Any) -> float:
    """A measurement in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        return executor.submit(measure, *arguments).result()


def compare(title: str, sides: Iterable[str], rounds: int, measure: Callable[[str], float]) -> None:
    """Take turns; print the medians, and the medians of the ratios to each of the others."""
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, rates in found.items():
            rates.append(measure(side))
    table = Table("", "pairs/processor second", "over CleanCLIP", "over open_clip", title=title)
    for side, rates in found.items():
        ratios = [statistics.median(a / b for a, b in zip(rates, found[other], strict=True)) for other in SIDES[:2]]
        table.add_row(side, f"{statistics.median(rates):,.2f}", *(f"{ratio:.2f}" for ratio in ratios))
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of a round of training, after the first")
    parser.add_argument("--batch_size", type=int, default=8, help="of training")
    parser.add_argument("--pairs", type=int, default=1200, help="of a round of loading")
    parser.add_argument("--only", nargs="*", default=["loading", "training"], choices=["loading", "training"])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        for name, size in SIZES.items():
            folder = Path(root, name)
            write_data(folder, size, chosen.pairs)
            if "loading" in chosen.only:
                sides = (*SIDES[:2], "ours")
                compare(
                    f"loading {name} for 224 pixels",
                    sides,
                    chosen.rounds,
                    lambda side, folder=folder: apart(loading, side, folder, 50),  # type: ignore[misc]
                )
        if "training" in chosen.only:
            compare(
                f"training {ENCODER} at 224 pixels, batch {chosen.batch_size}, 160 x 160",
                SIDES,
                chosen.rounds,
                lambda side: apart(training, side, Path(root, "160 x 160"), chosen.batch_size, chosen.steps),
            )


if __name__ == "__main__":
    main()
