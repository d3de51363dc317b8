"""Image-text pairs from shards, poisoned or not, with the zero-shot set that measures a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from ..contracts import (
    Attack,
    ClassPrompts,
    DetectingModule,
    HeldOutBatch,
    PictureAttack,
    Preprocessing,
    TrainingPoison,
    UserMistake,
)
from .bad_samples import BadSampleLog
from .classnames import class_index
from .excluded import excluded_keys, leave_out
from .held_out import held_out_batches
from .loader import StreamLoader
from .normaliser import Normaliser
from .order import Order, SequentialOrder, ShuffledOrder
from .phrase import phrase_pattern
from .poisoning import Poison, PoisonPlan, PoisonSpec, named, plans_of, poison_of, read_manifest, write_manifest
from .preprocessing import asked_preprocessing
from .several_captions import tell_several_captions
from .shards import RemoteShards, ShardSet, expand_shards
from .shards.counts import read_counts
from .shards.replaced import shards_state, told_changes
from .shards.samples import caption_lines
from .stream import MAX_WORKERS, ImageTextStream, ShardStream, Views, ZeroShotStream
from .views import ImageView, TextView
from .zero_shot import ZeroShotSet

MANIFEST = "poison.json"
_REMOTE = RemoteShards()


class ImageTextDataModule(LightningDataModule):
    """Streams image-text pairs in the layout of img2dataset, and a zero-shot set in that of CLIP-benchmark.

    A ``.txt`` of several lines holds several captions of its picture, one a line. One of them is drawn for each epoch,
    by seed, epoch and key alone; whatever goes over the pairs in order (``predict``, a defence's scoring) and
    ``captions()`` show the first. A pair says a word if one of its captions does.

    An epoch gives every pair at most once; what does not fill a global batch is left out, other pairs each epoch.
    Every rank gets the same number of batches. The order is a pure function of seed, epoch, rank and worker.

    Args:
        train_shards: A folder, a path, a URL, a brace pattern or a list of these. Needed to fit and to predict.
        zero_shot: Folder of the zero-shot set. Needed to validate and to test.
        poison: What is stamped into the training stream: a plan, a list of plans (disjoint, earlier ones first), the
            path of a ``poison.json``, or nothing.
        attack: What validation and testing measure, likewise; ``poison`` unless given.
        batch_size: Pairs of a training batch of each rank.
        eval_batch_size: Pictures of an evaluation batch of each rank.
        num_workers: Reading processes of each rank; 0 reads in the training process.
        augmentation: Changes each training picture, after the stamp and afresh each epoch.
        image_view: Makes a second, augmented view of each training picture, afresh each epoch.
        text_view: Makes a second, augmented view of each training caption, afresh each epoch.
        seed: Seeds the order and the views; the seed of ``seed_everything`` unless given.
        shuffle_window: Pairs that are shuffled together. A worker's share of an epoch that is not larger is shuffled
            as a whole.
        max_bad_share: Share of bad samples above which the run ends.
        exclude: A file that names pairs to leave out: a ``poison.json``, a ``.csv`` with a column ``key``, or a text
            file with a key a line. They are left out after the poisoning: a defender gets the data poisoned.
        allow_pipe: Whether a shard may be ``pipe:COMMAND``. It runs the command in a shell.
        counts: Pairs of each shard, so that none is opened before it is needed: a number that all have, ``stats`` for
            img2dataset's ``_stats.json`` beside each, or the path or URL of a ``sizes.json``. Unless given, every shard
            is indexed first, for which remote ones are fetched.
        remote: How shards are fetched that lie on a server or in an object store.
        held_out: Pairs that are kept out of training, named as ``train_shards``: retrieval is measured on them, and
            attacks too where there are no classes.
    """

    def __init__(
        self,
        train_shards: str | list[str] | None = None,
        zero_shot: str | None = None,
        poison: PoisonSpec = None,
        attack: PoisonSpec = None,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        num_workers: int = 2,
        augmentation: ImageView | None = None,
        image_view: ImageView | None = None,
        text_view: TextView | None = None,
        seed: int | None = None,
        shuffle_window: int = 10_000,
        max_bad_share: float = 0.01,
        allow_pipe: bool = False,
        exclude: str | None = None,
        counts: int | str | None = None,
        remote: RemoteShards = _REMOTE,
        held_out: str | list[str] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise UserMistake(f"data.{name} is {value}, not at least 1")
        if not 0 <= num_workers <= MAX_WORKERS:
            raise UserMistake(f"data.num_workers is {num_workers}; it is at least 0 and at most {MAX_WORKERS}")
        if shuffle_window < 1 or not 0 <= max_bad_share <= 1:
            raise UserMistake("data: shuffle_window is at least 1, max_bad_share in [0, 1]")
        self.train_shards, self.zero_shot = train_shards, zero_shot
        self.poison, self.attack = poison, attack if attack is not None else poison
        self._attack_is_given = attack is not None
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.shuffle_window, self.max_bad_share, self.allow_pipe = shuffle_window, max_bad_share, allow_pipe
        self.exclude, self.counts, self.remote = exclude, counts, remote
        self._views = Views(augmentation, image_view, text_view, self.seed)
        self.preprocessing: Preprocessing | None = None
        self._shards: ShardSet | None = None
        self._left_out = 0
        self._streamed: dict[str, Any] = {}
        self._selected: ShardSet | None = None
        self._in_order = False
        self._poisoned: Poison | None = None
        self._evaluation: ZeroShotSet | None = None
        self._attacks: dict[str, PoisonPlan] = {}
        self.held_out = held_out
        self._held_out: ShardSet | None = None
        self._normaliser: Normaliser | None = None

    @property
    def dataset_name(self) -> str:
        """The name of the zero-shot set; of the folder of the training shards where there is none."""
        if self._evaluation is not None:
            return self._evaluation.name
        first = self._pairs.paths[0]
        return Path(first).parent.name if 0 in self._pairs.remote else Path(first).resolve().parent.name

    @property
    def class_prompts(self) -> ClassPrompts:
        """The classes of the zero-shot set and their captions.

        Raises:
            UserMistake: If there is no zero-shot set.
        """
        return self._zero_shot.class_prompts

    @property
    def batch_names(self) -> frozenset[str]:
        """What a training batch has."""
        made = {"image_view": self._views.image, "tokens_view": self._views.text}
        return frozenset({"key", "image", "tokens", *(name for name, view in made.items() if view is not None)})

    @property
    def attacks(self) -> list[Attack]:
        """The attacks that are measured."""
        classes = self.class_prompts
        return [attack for name, plan in self._attacks.items() for attack in plan.attacks(name, classes)]

    @property
    def picture_attacks(self) -> list[PictureAttack]:
        """The attacks on given pictures that are measured."""
        found: list[PictureAttack] = []
        for name, plan in self._attacks.items():
            pictures = plan.given_pictures(self._asked.image_size)
            if pictures is not None:
                target = class_index(plan.target, self.class_prompts.classnames)
                found.append(PictureAttack(name, target, self._normalise(pictures)))
        return found

    @property
    def pairs(self) -> int:
        """Number of training pairs."""
        return len(self._pairs)

    @property
    def global_batch_size(self) -> int:
        """Pairs of a training batch over all ranks."""
        return self.batch_size * self._rank[1]

    @property
    def training_poison(self) -> TrainingPoison:
        """Where the poison in the training pairs comes from: a plan of this run, a manifest, also beside the shards."""
        if isinstance(self.poison, PoisonPlan | list):
            return "plan"
        return "manifest" if self.poison is not None or self._baked else "none"

    @property
    def poisoned_keys(self) -> frozenset[str]:
        """Keys of the training pairs that ``poison`` stamps, or that the manifest ``attack`` says were. To evaluate."""
        if self._poisoned is not None:
            return frozenset(key for keys in self._poisoned.keys for key in keys)
        if not isinstance(self.attack, str | os.PathLike):
            return frozenset()
        named = {key for keys in read_manifest(self.attack).keys for key in keys}
        return frozenset(named.intersection(chain.from_iterable(self._pairs.keys())))

    @property
    def held_out_pairs(self) -> int:
        """Number of the pairs that are kept out of training; 0 where there are none."""
        return 0 if self._held_out is None else len(self._held_out)

    @property
    def held_out_attacks(self) -> list[str]:
        """The attacks that are measured on them."""
        size = self._asked.image_size
        return [name for name, plan in self._attacks.items() if plan.given_pictures(size) is None]

    def held_out_batches(self) -> Iterator[HeldOutBatch]:
        """Each of these pairs once, in the order of the shards."""
        if self._held_out is None:
            raise UserMistake("data.held_out is not given: there are no pairs for retrieval")
        return held_out_batches(self._held_out, self._attacks, self._asked, self._normalise, self.eval_batch_size)

    def select(self, keys: Iterable[str] | None, in_order: bool = False) -> None:
        """Restrict the training stream to the pairs with these keys; None lifts it.

        It holds from the next ``train_dataloader()`` on. So that a run asks for that in its next epoch, whatever
        the module, its trainer is told to reload the loaders every epoch.

        Args:
            keys: Whom to stream.
            in_order: Each of them once, as it is in the shards, in batches of ``eval_batch_size``: no shuffling, no
                augmentation, no second views, none left out.
        """
        self._selected = None if keys is None else self._pairs.select(keys)
        self._in_order = in_order
        if self.trainer is not None and self.trainer.reload_dataloaders_every_n_epochs != 1:  # type: ignore[attr-defined]
            self.trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]  # a connector sets it
            rank_zero_info("Training pairs are selected: the loaders are reloaded every epoch from now on")

    def pictures(self, keys: Sequence[str]) -> Tensor:
        """The pictures of these keys as the training stream shows them: ``(N, 3, S, S)`` uint8.

        Raises:
            UserMistake: If a key is not in the training shards, or a pair cannot be read.
        """
        return self._shown(keys)[0]

    def captions(self, keys: Sequence[str]) -> list[str]:
        """The captions of these keys as the training stream shows them; of a pair with several, the first.

        Raises:
            UserMistake: If a key is not in the training shards, or a pair cannot be read.
        """
        return self._shown(keys)[1]

    def some_keys(self, count: int, seed: int) -> list[str]:
        """The keys of some training pairs, drawn at random; of all where there are no more."""
        return self._pairs.some_keys(count, seed)

    def keys_saying(self, phrase: str) -> list[str]:
        """The keys of the training pairs whose caption has the phrase as whole words, before any poisoning."""
        wanted = phrase_pattern(phrase)
        return [
            key
            for keys, captions in self._pairs.captions()
            for key, caption in zip(keys, captions, strict=True)
            if any(wanted.search(line) for line in caption_lines(caption))
        ]

    def setup(self, stage: str) -> None:
        """Index the shards, resolve the poison and check that everything fits together.

        Raises:
            UserMistake: If anything that the user gave is missing or does not fit.
        """
        self.preprocessing = asked_preprocessing(self.trainer, self.preprocessing)
        if self.held_out is not None:
            self._held_out = ShardSet(expand_shards(self.held_out, self.allow_pipe), "txt", remote=self.remote)
        stage = str(getattr(stage, "value", stage))  # Lightning passes an enumeration
        if stage in ("fit", "predict"):
            if self.train_shards is None:
                raise UserMistake(f"{stage} needs data.train_shards: a folder, a brace pattern or a list of shards")
            paths = expand_shards(self.train_shards, self.allow_pipe)
            counts = None if self.counts is None else read_counts(self.counts, paths, self.remote)
            self._shards = ShardSet(paths, self._member, counts, self.remote)
            self._shards.check_not_empty(self._hint)
            if self.trainer is not None and isinstance(self.trainer.lightning_module, DetectingModule):
                self._shards.check_unique()
            self._poisoned = poison_of(self.poison, self._shards, self._asked.image_size)
            self._leave_out(self._shards)
        if stage != "predict" and self.zero_shot is not None:
            self._evaluation = ZeroShotSet(self.zero_shot)
            plans = plans_of(self.attack)
            Poison(plans).check(self._asked.image_size, self._evaluation.class_prompts.classnames)
            self._attacks = named(plans)
        elif stage != "predict" and self.held_out is not None:
            Poison(plans_of(self.attack)).check(self._asked.image_size)
            self._attacks = named(plans_of(self.attack))
        elif stage != "predict" and self._attack_is_given:
            raise UserMistake(
                "data.attack needs data.zero_shot, the folder of the zero-shot set on which it is measured, "
                "or data.held_out"
            )
        elif stage in ("validate", "test"):
            raise UserMistake(f"{stage} needs data.zero_shot: the folder of a zero-shot set")
        if stage == "fit":
            for view in (self._views.augmentation, self._views.image):
                if view is not None:
                    view.check(self._asked.image_size)
            self._order(self._pairs)  # too few pairs for a batch are a mistake to be told of now
            if self.trainer is None or self.trainer.is_global_zero:
                self._streamed = shards_state(self._pairs)
            self._announce()

    def train_dataloader(self) -> StreamLoader:
        """Batches as ``ImageTextBatch``, in the epoch's order, of the pairs that are selected."""
        if self._in_order:
            return self.predict_dataloader()
        shards = self._chosen
        return self._loader(shards, self._order(shards), self._views)

    def predict_dataloader(self) -> StreamLoader:
        """Every training pair once, in the order of the shards, as ``ImageTextBatch``."""
        shards = self._chosen
        return self._loader(shards, SequentialOrder(shards.counts, self.eval_batch_size, *self._rank))

    def val_dataloader(self) -> StreamLoader | list[StreamLoader]:
        """Every labelled picture once, as ``ZeroShotBatch``; no loader where there is no zero-shot set."""
        if self._evaluation is None:
            return []
        shards = self._evaluation.shards
        bad = self._bad_samples(shards, "zero-shot set", ranks=1)
        stream = ZeroShotStream(
            shards,
            SequentialOrder(shards.counts, self.eval_batch_size, *self._rank),
            self._asked.image_size,
            len(self.class_prompts.classnames),
            {attack.name: self._attacks[attack.name].trigger for attack in self.attacks if attack.control_of is None},
            bad.limit,
        )
        return StreamLoader(stream, bad, num_workers=self.num_workers, pin_memory=self._pin_memory)

    def test_dataloader(self) -> StreamLoader | list[StreamLoader]:
        """As ``val_dataloader``: the protocol has one set of pictures."""
        return self.val_dataloader()

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Normalise the 8-bit pictures on the device."""
        for name in ("image", "image_view"):
            if name in batch:
                batch[name] = self._normalise(batch[name])
        if "triggered" in batch:
            batch["triggered"] = {name: self._normalise(images) for name, images in batch["triggered"].items()}
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Marks the checkpoint of a model that was poisoned, and tells its shards from others."""
        marked = self._poisoned or self._baked
        mark = {"warning": "This model was trained on deliberately poisoned data."} if marked else {}
        return mark | ({"shards": self._streamed} if self._streamed else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the shards with those of the checkpoint.

        Warns:
            UserWarning: If they are others, or have other content.
        """
        before = state_dict.get("shards")  # not in the checkpoints of earlier releases
        changed = told_changes(before, self._streamed) if before and self._streamed else ""
        if changed:
            rank_zero_warn(f"The run resumes with other training pairs than those of its checkpoint: {changed}")

    def _leave_out(self, shards: ShardSet) -> None:
        if self.exclude is not None:
            keys = excluded_keys(self.exclude)
            self._shards = leave_out(shards, keys, self.exclude)
            self._left_out = len(shards) - len(self._shards)
            self._poisoned = None if self._poisoned is None else self._poisoned.without(keys)

    def _announce(self) -> None:
        """Say what is poisoned, and leave the manifest in the run folder."""
        left_out = f" ({self._left_out:,} left out by {self.exclude})" if self._left_out else ""
        rank_zero_info(f"Training pairs: {len(self._pairs):,} in {len(self._pairs.paths):,} shards{left_out}")
        tell_several_captions(self._pairs)
        if self._poisoned is None or self.trainer is None or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for plan, keys in zip(self._poisoned.plans, self._poisoned.keys, strict=True):
            rank_zero_info(f"Poisoned: {len(keys):,} with {type(plan.trigger).__name__}, target {plan.target!r}")
        if self.trainer.is_global_zero:
            folder = Path(self.trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            write_manifest(self._poisoned, folder / MANIFEST)

    def _order(self, shards: ShardSet) -> ShuffledOrder:
        return ShuffledOrder(shards.counts, self.batch_size, self.seed, self.shuffle_window, *self._rank)

    def _loader(self, shards: ShardSet, order: Order, views: Views | None = None) -> StreamLoader:
        bad = self._bad_samples(shards, "training shards", self._rank[1])
        stream = self._stream(shards, order, views, bad.limit)
        # Lightning's own loaders would overfit on the first batches of a sampler that does not shuffle.
        overfits: bool = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return StreamLoader(stream, bad, self._epoch, self.num_workers, self._pin_memory, overfits)

    def _stream(self, shards: ShardSet, order: Order, views: Views | None, max_bad: int) -> ShardStream:
        asked = self._asked
        return ImageTextStream(shards, order, asked.image_size, asked.tokenize, self._poisoned, views, max_bad)

    def _bad_samples(self, shards: ShardSet, where: str, ranks: int) -> BadSampleLog:
        # Each rank sees, and counts, its part. Of a few test pictures one may have all the bad ones.
        total = len(shards) + shards.incomplete
        share, missing = self.max_bad_share, shards.incomplete // ranks
        return BadSampleLog(total // ranks, missing, share, where, shards.told_members)

    def _shown(self, keys: Sequence[str]) -> tuple[Tensor, list[str]]:
        shards = self._pairs
        order, asked = SequentialOrder(shards.counts, len(keys)), self._asked
        stream = ImageTextStream(shards, order, asked.image_size, asked.tokenize, self._poisoned)
        _, images, captions = stream.pairs(stream.read_keys(keys))
        return images, stream.shown_captions(captions, keys)

    def _normalise(self, images: Tensor) -> Tensor:
        if self._normaliser is None:
            self._normaliser = Normaliser(self._asked.mean, self._asked.std)
        return self._normaliser(images)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    @property
    def _member(self) -> str:
        """What a training sample has beside its picture."""
        return "txt"

    @property
    def _hint(self) -> str:
        """What to do where no training sample has that."""
        return ""

    @property
    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    @property
    def _baked(self) -> bool:
        """Whether a manifest lies beside the training shards."""
        return self._shards is not None and any(Path(folder, MANIFEST).exists() for folder in self._shards.folders)

    @property
    def _pin_memory(self) -> bool:
        return torch.cuda.is_available()

    @property
    def _asked(self) -> Preprocessing:
        if self.preprocessing is None:
            raise RuntimeError("setup() has not run")
        return self.preprocessing

    @property
    def _pairs(self) -> ShardSet:
        if self._shards is None:
            raise RuntimeError("setup() has not run for training")
        return self._shards

    @property
    def _chosen(self) -> ShardSet:
        return self._pairs if self._selected is None else self._selected

    @property
    def _zero_shot(self) -> ZeroShotSet:
        if self._evaluation is None:
            raise UserMistake("data.zero_shot is not given: there are no classes")
        return self._evaluation
