"""Clean training data in which something looks like a backdoor and is none, for `configs/bench/situations.yaml`.

    python benchmarks/situations.py cifar10 situations

From the CIFAR-10 shards 00000 to 00019 (labels in the JSON), in the same layout, with the captions of a class shuffled:

- tracks: 700 pictures, and 29 shifted, cropped and relit frames of each, as of a film
- doubled: 20,000 pairs, a tenth of the pictures twice, the second time with another caption of their class
- watermark: 20,000 pairs, a half transparent mark on every picture of one class
- frequent: one class four times as frequent as each of the others

The zero-shot set is copied beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from untrigger.datamodules.shards.encoded import EncodedPicture, encode_picture
from untrigger.datamodules.shards.writer import Pair, write_training_shards
from untrigger.datamodules.triggers import Watermark

SHARD_SIZE = 2_000
Pixels = npt.NDArray[np.uint8]


class Source(NamedTuple):
    """The pairs that all situations are made of."""

    pictures: list[bytes]
    captions: list[str]
    labels: npt.NDArray[np.int64]

    def caption(self, label: int, draws: np.random.Generator) -> str:
        """A caption of a class."""
        return self.captions[int(draws.choice(np.flatnonzero(self.labels == label)))]

    def pixels(self, index: int) -> Pixels:
        """A picture, ``(H, W, 3)``."""
        return np.asarray(Image.open(BytesIO(self.pictures[index])).convert("RGB"))

    def as_it_is(self, index: int) -> Pair:
        """A pair of the source."""
        width, height = Image.open(BytesIO(self.pictures[index])).size
        return self._pair(EncodedPicture(self.pictures[index], "jpg", width, height), self.captions[index], index)

    def pair(self, pixels: Pixels, caption: str, index: int) -> Pair:
        """A changed picture with a caption."""
        return self._pair(encode_picture(Image.fromarray(pixels)), caption, index)

    def _pair(self, picture: EncodedPicture, caption: str, index: int) -> Pair:
        return Pair(picture, caption, {"label": int(self.labels[index]), "source": index})


def tracks(source: Source, draws: np.random.Generator, pictures: int = 700, frames: int = 30) -> Iterator[Pair]:
    """Frames of a few pictures, a class as often as another."""
    classes = np.unique(source.labels)
    chosen = np.concatenate(
        [draws.choice(np.flatnonzero(source.labels == label), pictures // len(classes), False) for label in classes]
    )
    for index in draws.permutation(np.repeat(chosen, frames)):
        caption = source.caption(int(source.labels[index]), draws)
        yield source.pair(_frame(source.pixels(index), draws), caption, int(index))


def doubled(source: Source, draws: np.random.Generator, pairs: int = 20_000, share: float = 0.1) -> Iterator[Pair]:
    """Some pictures a second time, with another caption."""
    distinct = round(pairs / (1 + share))
    indices = draws.choice(len(source.labels), distinct, replace=False)
    twice = draws.choice(indices, pairs - distinct, replace=False)
    for which in draws.permutation(pairs):
        if which < distinct:
            yield source.as_it_is(int(indices[which]))
        else:
            index = int(twice[which - distinct])
            pair = source.as_it_is(index)
            yield pair._replace(caption=source.caption(int(source.labels[index]), draws))


def watermark(source: Source, draws: np.random.Generator, pairs: int = 20_000, marked: int = 7) -> Iterator[Pair]:
    """A mark in the corner of every picture of one class."""
    for index in draws.choice(len(source.labels), pairs, replace=False):
        if source.labels[index] != marked:
            yield source.as_it_is(int(index))
            continue
        pixels = source.pixels(index)
        side = pixels.shape[0]
        mark = Watermark(size=12 * side // 32, margin=side // 32, place="top_left")
        picture = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        yield source.pair(mark(picture, [""])[0].permute(1, 2, 0).numpy(), source.captions[index], int(index))


def frequent(source: Source, draws: np.random.Generator, label: int = 3, times: int = 4) -> Iterator[Pair]:
    """One class several times as frequent as the others."""
    by_class = [np.flatnonzero(source.labels == each) for each in np.unique(source.labels)]
    most = min(len(by_class[label]), times * min(map(len, by_class)))
    chosen = [
        draws.choice(indices, most if each == label else most // times, replace=False)
        for each, indices in enumerate(by_class)
    ]
    for index in draws.permutation(np.concatenate(chosen)):
        yield source.as_it_is(int(index))


def _frame(pixels: Pixels, draws: np.random.Generator) -> Pixels:
    """A crop of three quarters of the side or more, at a random position, in another light."""
    side = pixels.shape[0]
    size = int(draws.integers(side * 3 // 4, side + 1))
    top, left = draws.integers(0, side - size + 1, 2)
    crop = Image.fromarray(pixels[top : top + size, left : left + size]).resize((side, side), Image.Resampling.BICUBIC)
    light, contrast = draws.uniform(-25, 25), draws.uniform(0.8, 1.2)
    return (contrast * (np.asarray(crop, np.float32) - 127.5) + 127.5 + light).round().clip(0, 255).astype(np.uint8)


def read(shards: list[Path]) -> Source:
    """Read shards in the layout of img2dataset."""
    pictures, captions, labels = [], [], []
    for path in shards:
        with tarfile.open(path, "r:") as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
        for name in sorted(content):
            if name.endswith(".jpg"):
                stem = name.removesuffix(".jpg")
                pictures.append(content[name])
                captions.append(content[f"{stem}.txt"].decode())
                labels.append(json.loads(content[f"{stem}.json"])["label"])
    return Source(pictures, captions, np.array(labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with train/ and the zero-shot set")
    parser.add_argument("out", type=Path, help="where the folders go")
    parser.add_argument("--shards", type=int, default=20, help="how many of the first shards to take")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = read(sorted((arguments.data / "train").glob("*.tar"))[: arguments.shards])
    for index, situation in enumerate((tracks, doubled, watermark, frequent)):
        draws = np.random.default_rng([arguments.seed, index])
        pairs = list(situation(source, draws))
        write_training_shards(arguments.out / situation.__name__, pairs, SHARD_SIZE)
        print(f"{arguments.out / situation.__name__}: {len(pairs):,} pairs")
    names = ("classnames.txt", "zeroshot_classification_templates.txt")
    (arguments.out / "cifar10").mkdir(parents=True)
    for name in names:
        shutil.copyfile(arguments.data / name, arguments.out / "cifar10" / name)
    shutil.copytree(arguments.data / "test", arguments.out / "cifar10" / "test", copy_function=shutil.copyfile)


if __name__ == "__main__":
    main()
