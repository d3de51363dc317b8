"""The iterable datasets of the loader's workers: from sample positions to batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..contracts import UserMistake
from .bad_samples import BadSample, BadSampleReport
from .keyed import keyed_integers
from .order import Order, Positions, Share
from .poisoning import Poison
from .prefetch import Prefetch
from .shards import ShardSet
from .shards.samples import caption_lines, decode_caption, decode_label, decode_square, resized
from .views import ImageView, TextView

MAX_WORKERS = 256
"""Reading processes of a rank."""
_TOGETHER = 1 << 20
"""Bytes of pictures that are assembled at once."""
_RESIZED_AT_ONCE = 16
"""Pictures. More cost no less, and until then they may be four times as large as the model's."""


class StreamItem(NamedTuple):
    """A batch with the bookkeeping that the loader takes off."""

    batch: dict[str, Any]
    bad: list[BadSampleReport]
    spares: int
    """Replacements that the worker has used up so far in this epoch."""
    failure: str = ""
    """Why the worker stopped. An error that it raised would reach the loader with its traceback as its message."""


class Sample(NamedTuple):
    """One sample, read and decoded."""

    key: str
    picture: npt.NDArray[np.uint8]
    """``(S, S, 3)``."""
    value: Any
    """What goes with the picture: a caption or a label."""


class _Loaded(NamedTuple):
    """A batch, not assembled yet."""

    samples: list[Sample]
    bad: list[BadSampleReport]
    spares: int


class ShardStream(IterableDataset[StreamItem], ABC):
    """Batches of one rank, in an order.

    A batch is read as a whole; what can be done for a batch at once is done so, and small pictures for several batches
    at once, as an operation on a few of them costs little more than on one. The number of batches handed out
    before is all that it takes to resume in the middle of an epoch.

    Where several ranks share a pass, a batch of which nothing is left has no rows, but is handed out: a rank that left
    it out would be missing in what the ranks do together.

    Args:
        shards: The samples.
        order: Which of them, in which order.
        image_size: Side S of the input square, in pixels.
        max_bad: Bad samples that a worker meets in an epoch before it gives up; the loader then ends the run.
    """

    any_value: Any
    """What may stand beside a picture."""

    def __init__(self, shards: ShardSet, order: Order, image_size: int, max_bad: int) -> None:
        super().__init__()
        self.shards, self.order, self.image_size, self.max_bad = shards, order, image_size, max_bad
        # Shared with persistent workers, which hold a copy of this object: epoch, batches handed out, spares used.
        self._control = torch.zeros(2 + MAX_WORKERS, dtype=torch.int64)
        self._control.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def together(self) -> int:
        """Samples that are assembled at once, at least."""
        return _TOGETHER // (3 * self.image_size**2)

    def __len__(self) -> int:
        return self.order.steps

    def start_at(self, epoch: int, batches: int = 0, spares: dict[int, int] | None = None) -> None:
        """Set where the next iteration starts.

        Args:
            epoch: The epoch.
            batches: Batches of the epoch that were handed out before.
            spares: Replacements used so far, by worker.
        """
        self._control.zero_()
        self._control[0], self._control[1] = epoch, batches
        for worker, used in (spares or {}).items():
            self._control[2 + worker] = used

    def __iter__(self) -> Iterator[StreamItem]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        epoch, done = int(self._control[0]), int(self._control[1])
        # Batch n belongs to worker n % workers. A loader asks its first worker first, so after a restart each worker
        # takes the part of the one whose turn it is.
        worker = (done + worker) % workers
        first = len(range(worker, done, workers))
        spares, bad = int(self._control[2 + worker]), 0
        share = self.order.share(epoch, worker, workers)
        ahead = Prefetch(self.shards)
        loaded: list[_Loaded] = []
        try:
            for index in range(first, share.batches):
                positions = share.batch(index)
                ahead.expect(share, index, positions)
                loaded.append(self._load(share, positions, spares, self.max_bad - bad))
                spares, bad = loaded[-1].spares, bad + len(loaded[-1].bad)
                if bad > self.max_bad:
                    break
                if sum(len(part.samples) for part in loaded) >= self.together:
                    ready, loaded = loaded, []
                    yield from self._made(ready, epoch)
            ready, loaded = loaded, []
            yield from self._made(ready, epoch)
        except UserMistake as error:
            yield from self._made(loaded, epoch)
            yield StreamItem({}, [], spares, str(error))
        finally:
            ahead.close()

    def _made(self, loaded: Sequence[_Loaded], epoch: int) -> Iterator[StreamItem]:
        samples = [sample for part in loaded for sample in part.samples]
        whole = self.assemble(samples, epoch) if samples else {}
        start = 0
        for part in loaded:
            end = start + len(part.samples)
            batch = self.complete(_rows(whole, start, end)) if part.samples else self._without_rows(epoch)
            yield StreamItem(batch, part.bad, part.spares)
            start = end

    def _without_rows(self, epoch: int) -> dict[str, Any]:
        if self.order.ranks == 1:
            return {}
        blank = np.zeros((self.image_size, self.image_size, 3), dtype=np.uint8)
        # Triggers, views and tokenisers are not asked for nothing.
        return _rows(self.complete(self.assemble([Sample("", blank, self.any_value)], epoch)), 0, 0)

    @abstractmethod
    def decode_value(self, data: bytes) -> Any:
        """Decode what goes with the picture: the member that the shards were opened for.

        Raises:
            BadSample: If it is unusable.
        """

    @abstractmethod
    def assemble(self, samples: list[Sample], epoch: int) -> dict[str, Any]:
        """Make a batch, or several at once. A sample becomes the same whatever is beside it."""

    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do what depends on the whole batch, when it is cut out: after a restart, others are assembled with it."""
        return batch

    def stack(self, samples: Sequence[Sample]) -> Tensor:
        """Pictures as ``(N, 3, S, S)`` uint8, in channels-last memory."""
        stacked = np.stack([sample.picture for sample in samples])
        return torch.from_numpy(stacked).permute(0, 3, 1, 2)

    def read_keys(self, keys: Sequence[str]) -> list[Sample]:
        """Read and decode the samples with these keys, in their order.

        Raises:
            UserMistake: If a key is not in the shards, or a sample is unusable.
        """
        positions = self.shards.locate(keys)

        def decoded() -> Iterator[Sample]:
            for key in keys:
                if key not in positions:
                    raise UserMistake(
                        f"the training shards have no sample {key!r:.80}, which this run has met before or was given: "
                        "they are not the shards that it began with"
                    )
                try:
                    yield self._decoded(*positions[key])
                except BadSample as error:
                    fault = self._report(error, *positions[key])
                    raise UserMistake(
                        f"a sample that is needed cannot be used: {fault}; leave it out by data.exclude"
                    ) from error

        return self._resized(decoded())

    def _decoded(self, shard: int, position: int) -> Sample:
        """A sample whose picture is not resized yet."""
        data, picture = self.shards.read_members(shard, position, self.shards.required, "picture")
        value = self.decode_value(data)
        return Sample(self.shards.key(shard, position), decode_square(picture, self.image_size), value)

    def _resized(self, decoded: Iterator[Sample]) -> list[Sample]:
        """The samples with their pictures resized, some at once, as they are decoded."""
        samples: list[Sample] = []
        while some := list(islice(decoded, _RESIZED_AT_ONCE)):
            pictures = resized([sample.picture for sample in some], self.image_size)
            samples += [sample._replace(picture=picture) for sample, picture in zip(some, pictures, strict=True)]
        return samples

    def _report(self, error: BadSample, shard: int, position: int) -> BadSampleReport:
        key, path = self.shards.key(shard, position), self.shards.name(shard)
        return BadSampleReport(error.kind, error.detail, key, path)

    def _load(self, share: Share, positions: Positions, spares: int, may_be_bad: int) -> _Loaded:
        reports: list[BadSampleReport] = []

        def decoded() -> Iterator[Sample]:
            nonlocal spares
            queue = positions.tolist()
            for shard, position in queue:  # grows by a replacement for each bad sample
                try:
                    yield self._decoded(shard, position)
                except BadSample as error:
                    reports.append(self._report(error, shard, position))
                    if len(reports) > may_be_bad:
                        return
                    spare = share.spare(spares)
                    if spare is not None:
                        spares += 1
                        queue.extend(spare.tolist())

        samples = self._resized(decoded())
        return _Loaded(samples, reports, spares)


def _rows(batch: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Some rows of each part of a batch."""
    return {
        name: _rows(part, start, end) if isinstance(part, dict) else part[start:end] for name, part in batch.items()
    }


class Views(NamedTuple):
    """What training sees of a pair, afresh each epoch."""

    augmentation: ImageView | None = None
    """Changes the picture itself."""
    image: ImageView | None = None
    """Makes a second view of the picture."""
    text: TextView | None = None
    """Makes a second view of the caption."""
    seed: int = 0

    def seeds(self, purpose: str, epoch: int, keys: Sequence[str]) -> list[int]:
        """One for each key: the same whatever the worker, the rank and the rest of the batch."""
        seeds: list[int] = keyed_integers(self.seed, f"{purpose} {epoch}", keys)[:, 0].tolist()
        return seeds


class ImageTextStream(ShardStream):
    """Batches of pairs, poisoned where a plan says so. Pictures leave as uint8; the data module normalises them.

    Args:
        shards: The pairs.
        order: Which of them, in which order.
        image_size: Side S of the input square, in pixels.
        tokenize: Captions to tokens.
        poison: What is stamped on which pairs; None for nothing.
        views: Augmentation and second views, drawn after the stamp, and the seed by which one of a pair's captions is
            drawn; without, it is the first.
        max_bad: See ``ShardStream``.
    """

    any_value = "a"

    def __init__(
        self,
        shards: ShardSet,
        order: Order,
        image_size: int,
        tokenize: Callable[[Sequence[str]], Tensor],
        poison: Poison | None = None,
        views: Views | None = None,
        max_bad: int = 0,
    ) -> None:
        super().__init__(shards, order, image_size, max_bad)
        self.tokenize, self.poison, self.views = tokenize, poison, views or Views()
        self._draws_captions = views is not None

    def decode_value(self, data: bytes) -> str:
        """The caption."""
        return decode_caption(data)

    def pairs(self, samples: Sequence[Sample]) -> tuple[list[str], Tensor, list[str]]:
        """Keys, pictures ``(N, 3, S, S)`` uint8 and captions, all of a pair's, as the attacker left them."""
        keys = [sample.key for sample in samples]
        captions = [sample.value for sample in samples]
        images = self.stack(samples)
        if self.poison is not None:
            images, captions = self.poison.apply(images, captions, keys)
        return keys, images, captions

    def assemble(self, samples: list[Sample], epoch: int) -> dict[str, Any]:
        """Make a training batch, pictures still in 8 bit and captions not yet tokens."""
        keys, images, captions = self.pairs(samples)
        captions = self.shown_captions(captions, keys, epoch)
        views = self.views
        batch: dict[str, Any] = {"key": keys, "image": images, "tokens": captions}
        if views.augmentation is not None:
            batch["image"] = views.augmentation(images, views.seeds("augmentation", epoch, keys))
        if views.image is not None:
            batch["image_view"] = views.image(images, views.seeds("image view", epoch, keys))
        if views.text is not None:
            batch["tokens_view"] = views.text(captions, views.seeds("text view", epoch, keys))
        return batch

    def shown_captions(self, captions: Sequence[str], keys: Sequence[str], epoch: int = 0) -> list[str]:
        """Of each pair's captions the one that is shown: where it is drawn, another one in another epoch."""
        lines = [caption_lines(caption) or [caption] for caption in captions]
        if not self._draws_captions or all(len(found) == 1 for found in lines):
            return [found[0] for found in lines]
        seeds = self.views.seeds("caption", epoch, keys)
        return [found[seed % len(found)] for found, seed in zip(lines, seeds, strict=True)]

    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make tokens of the captions: a tokeniser may cut them to the longest one, and kernels round by the length."""
        tokens = {name: self.tokenize(batch[name]) for name in ("tokens", "tokens_view") if name in batch}
        return batch | tokens


class ZeroShotStream(ShardStream):
    """Batches of labelled pictures, decoded once, clean and with every attack's trigger.

    Args:
        shards: The pictures, with a class index each.
        order: Which of them, in which order.
        image_size: Side S of the input square, in pixels.
        classes: Number of classes.
        attacks: By the name of an attack, its trigger: pictures ``(N, 3, S, S)`` uint8 and keys to pictures.
        max_bad: See ``ShardStream``.
        bearers: By the name of an attack that stamps nothing, which pictures trigger by themselves: N keys and labels
            to ``(N,)`` bool.
    """

    any_value = 0

    def __init__(
        self,
        shards: ShardSet,
        order: Order,
        image_size: int,
        classes: int,
        attacks: dict[str, Callable[[Tensor, Sequence[str]], Tensor]],
        max_bad: int = 0,
        bearers: dict[str, Callable[[Sequence[str], Sequence[int]], npt.NDArray[np.bool_]]] | None = None,
    ) -> None:
        super().__init__(shards, order, image_size, max_bad)
        self.classes, self.attacks, self.bearers = classes, attacks, bearers or {}

    def decode_value(self, data: bytes) -> int:
        """The class index."""
        return decode_label(data, self.classes)

    def assemble(self, samples: list[Sample], epoch: int) -> dict[str, Any]:
        """Make an evaluation batch, pictures still in 8 bit."""
        keys = [sample.key for sample in samples]
        labels, images = [sample.value for sample in samples], self.stack(samples)
        batch = {
            "key": keys,
            "image": images,
            "label": torch.tensor(labels),
            "triggered": {name: stamp(images.clone(), keys) for name, stamp in self.attacks.items()},
        }
        bears = {name: torch.from_numpy(bearers(keys, labels)) for name, bearers in self.bearers.items()}
        return batch | ({"bears": bears} if bears else {})
