"""Image-text pairs from shards, poisoned or not, with the zero-shot set that measures a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from ..contracts import (
    Attack,
    ClassPrompts,
    DetectingModule,
    HeldOutBatch,
    PictureAttack,
    TrainingPoison,
    UserMistake,
)
from ..run_folder.manifest import MANIFEST
from .classnames import class_index
from .held_out import HeldOutPairs
from .loader import StreamLoader
from .measured import attacks_on_classes, attacks_on_pairs, on_pairs
from .order import Order, SequentialOrder
from .pairs import TrainingPairs
from .poisoning import PoisonPlan, PoisonSpec, check_apart, poison_of, read_marks, write_manifest
from .poisoning.resumed import changed_poison, poison_state
from .preprocessing import asked_preprocessing
from .shard_data import ShardDataModule
from .shards import ShardSet
from .shards.replaced import changed_shards, shards_state
from .stream import ImageTextStream, ShardStream, Views, ZeroShotStream
from .views import ImageView, TextView
from .zero_shot import ZeroShotSet


class ImageTextDataModule(ShardDataModule):
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
        augmentation: Changes each training picture, after the stamp and afresh each epoch.
        image_view: Makes a second, augmented view of each training picture, afresh each epoch.
        text_view: Makes a second, augmented view of each training caption, afresh each epoch.
        exclude: A file that names pairs to leave out: a ``poison.json``, a ``.csv`` with a column ``key``, or a text
            file with a key a line. They are left out after the poisoning: a defender gets the data poisoned.
        held_out: Pairs that are kept out of training, named as ``train_shards``: retrieval is measured on them, and
            attacks too where there are no classes.
        **kwargs: How shards are read and dealt: see ``ShardDataModule``.
    """

    def __init__(
        self,
        train_shards: str | list[str] | None = None,
        zero_shot: str | None = None,
        poison: PoisonSpec = None,
        attack: PoisonSpec = None,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        augmentation: ImageView | None = None,
        image_view: ImageView | None = None,
        text_view: TextView | None = None,
        exclude: str | None = None,
        held_out: str | list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise UserMistake(f"data.{name} is {value}, not at least 1")
        self.train_shards, self.zero_shot, self.exclude, self.held_out = train_shards, zero_shot, exclude, held_out
        self.poison, self.attack = poison, attack if attack is not None else poison
        self._attack_is_given = attack is not None
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self._views = Views(augmentation, image_view, text_view, self.seed)
        self._training: TrainingPairs | None = None
        self._streamed: dict[str, Any] = {}
        self._stamped: dict[str, Any] = {}
        self._evaluation: ZeroShotSet | None = None
        self._attacks: dict[str, PoisonPlan] = {}
        self._held_out: HeldOutPairs | None = None

    @property
    def dataset_name(self) -> str:
        """The name of the zero-shot set; of the folder of the training shards where there is none."""
        if self._evaluation is not None:
            return self._evaluation.name
        return self._pairs.folder_name

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
        return "manifest" if self.poison is not None or self._is_baked else "none"

    @property
    def poisoned_keys(self) -> frozenset[str]:
        """Keys of the training pairs that ``poison`` stamps, or that the manifest ``attack`` says were. To evaluate."""
        return frozenset() if self._training is None else self._training.poisoned_keys(self.attack)

    @property
    def held_out_pairs(self) -> int:
        """Number of the pairs that are kept out of training; 0 where there are none."""
        return 0 if self._held_out is None else len(self._held_out.shards)

    @property
    def held_out_attacks(self) -> list[str]:
        """The attacks that are measured on them."""
        return list(on_pairs(self._attacks, self._asked.image_size))

    def held_out_batches(self) -> Iterator[HeldOutBatch]:
        """Each of these pairs once, in the order of the shards."""
        if self._held_out is None:
            raise UserMistake("data.held_out is not given: there are no pairs for retrieval")
        return self._held_out.batches(self._attacks, self._asked, self._normalise, self.eval_batch_size)

    def select(self, keys: Iterable[str] | None, in_order: bool = False) -> None:
        """Restrict the training stream to the pairs with these keys; None lifts it.

        It holds from the next ``train_dataloader()`` on. So that a run asks for that in its next epoch, whatever
        the module, it makes the trainer reload the loaders every epoch.

        Args:
            keys: Keys of the pairs to stream.
            in_order: Each of them once, as it is in the shards, in batches of ``eval_batch_size``: no shuffling, no
                augmentation, no second views, none left out.
        """
        self._pairs.select(keys, in_order)
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
        return self._pairs.shards.some_keys(count, seed)

    def keys_saying(self, phrase: str) -> list[str]:
        """The keys of the training pairs whose caption, as it is trained on, has the phrase as whole words."""
        return self._pairs.keys_saying(phrase)

    def setup(self, stage: str) -> None:
        """Index the shards, resolve the poison and check that everything fits together.

        Raises:
            UserMistake: If anything that the user gave is missing or does not fit.
        """
        self.preprocessing = asked_preprocessing(self.trainer, self.preprocessing)
        if self.held_out is not None:
            shards = ShardSet(self._expanded(self.held_out), "txt", remote=self.remote)
            shards.check_not_empty()
            self._held_out = HeldOutPairs(shards, self._bad_samples(shards, "data.held_out", ranks=1))
        stage = str(getattr(stage, "value", stage))  # Lightning passes an enumeration
        if stage in ("fit", "predict"):
            if self.train_shards is None:
                raise UserMistake(f"{stage} needs data.train_shards: a folder, a brace pattern or a list of shards")
            self._training = self._read_pairs(self.train_shards)
            if stage == "fit" and self._held_out is not None:
                self._held_out.check_kept_out(self._pairs.shards.paths)
        if stage != "predict" and self.zero_shot is not None:
            self._evaluation = ZeroShotSet(self.zero_shot)
            if found := self._evaluation.bad_labels():
                self._bad_samples(self._evaluation.shards, "zero-shot set", ranks=1).add(found)
            self._attacks = attacks_on_classes(self.attack, self._evaluation, self._asked.image_size)
        elif stage != "predict" and self.held_out is not None:
            self._attacks = attacks_on_pairs(self.attack, self._attack_is_given, self._asked.image_size)
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
            # Too few pairs for a batch are a mistake to be reported now.
            self._order(self._pairs.shards, self.batch_size)
            if self.trainer is None or self.trainer.is_global_zero:
                self._streamed = shards_state(self._pairs.shards)
                self._stamped = poison_state(self._pairs.poison, self.poison)
            self._announce()

    def train_dataloader(self) -> StreamLoader:
        """Batches as ``ImageTextBatch``, in the epoch's order, of the pairs that are selected.

        Pictures are uint8, ``(B, 3, S, S)``: they are normalised on the device, by ``on_after_batch_transfer``, which a
        trainer calls. Without one, do so yourself.
        """
        if self._pairs.in_order:
            return self.predict_dataloader()
        shards = self._pairs.chosen
        return self._training_loader(shards, self._order(shards, self.batch_size), self._views)

    def predict_dataloader(self) -> StreamLoader:
        """Every training pair once, in the order of the shards, as ``ImageTextBatch``; pictures as there."""
        shards = self._pairs.chosen
        return self._training_loader(shards, SequentialOrder(shards.counts, self.eval_batch_size, *self._rank))

    def val_dataloader(self) -> StreamLoader | list[StreamLoader]:
        """Every labelled picture once, as ``ZeroShotBatch``; no loader where there is no zero-shot set."""
        if self._evaluation is None:
            return []
        shards = self._evaluation.shards
        bad = self._bad_samples(shards, "zero-shot set", ranks=1)
        attacks = [attack for attack in self.attacks if attack.control_of is None]
        classnames = self.class_prompts.classnames
        stream = ZeroShotStream(
            shards,
            SequentialOrder(shards.counts, self.eval_batch_size, *self._rank),
            self._asked.image_size,
            len(classnames),
            {name: self._attacks[name].trigger for name, *_, stamped in attacks if stamped},
            bad.limit,
            {name: partial(self._attacks[name].bears, classnames) for name, *_, stamped in attacks if not stamped},
        )
        return self._loader(stream, bad)

    def test_dataloader(self) -> StreamLoader | list[StreamLoader]:
        """As ``val_dataloader``: the protocol has one set of pictures."""
        return self.val_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Marks the checkpoint of a model that was poisoned, and identifies its shards."""
        marked = self._is_baked or (self._training is not None and self._training.poison)
        mark = {"warning": "This model was trained on deliberately poisoned data."} if marked else {}
        return mark | ({"shards": self._streamed, "poison": self._stamped} if self._streamed else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the pairs with those of the checkpoint, where training resumes; an evaluation may be on others.

        Warns:
            UserWarning: If the shards are others, or have other content.

        Raises:
            UserMistake: As ``check_poison``.
        """
        if self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING:
            return
        self.check_poison(state_dict)
        before = state_dict.get("shards")  # not in the checkpoints of earlier releases
        changed = changed_shards(before, self._streamed) if before and self._streamed else ""
        if changed:
            rank_zero_warn(f"The run resumes with other training pairs than those of its checkpoint: {changed}")

    def check_poison(self, state_dict: dict[str, Any]) -> None:
        """Check that what is stamped into the training stream is what it was in a run that is resumed.

        Args:
            state_dict: State of the data module in the checkpoint; in earlier releases it has no ``poison``.

        Raises:
            UserMistake: If it is another plan, or a manifest of other pairs.
        """
        before = state_dict.get("poison")
        changed = changed_poison(before, self.poison) if before else ""
        if changed:
            raise UserMistake(
                f"the run would resume with other poison than that of its checkpoint: {changed}; give the same "
                "data.poison, or start another run from its weights with model.init_from"
            )

    def _read_pairs(self, train_shards: str | list[str]) -> TrainingPairs:
        """Index the training shards, and settle which pairs are poisoned and which are left out."""
        shards = self._shard_set(train_shards, self._member)
        shards.check_not_empty(self._hint)
        if self.trainer is not None and isinstance(self.trainer.lightning_module, DetectingModule):
            shards.check_unique()
        marks = [] if self.poison is None else read_marks(shards.folders, shards)
        return TrainingPairs(shards, poison_of(self.poison, shards, self._asked.image_size, marks), self.exclude)

    def _announce(self) -> None:
        """Log what is poisoned, and write the manifest to the run folder."""
        self._pairs.report()
        if self._pairs.poison is None or self.trainer is None or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._pairs.report_poison()
        check_apart(self._pairs.shards.folders, self.trainer.default_root_dir)
        if self.trainer.is_global_zero:
            write_manifest(self._pairs.poison, Path(self.trainer.default_root_dir, MANIFEST))

    def _training_loader(self, shards: ShardSet, order: Order, views: Views | None = None) -> StreamLoader:
        bad = self._bad_samples(shards, "training shards", self._rank[1])
        # Lightning's own loaders would overfit on the first batches of a sampler that does not shuffle.
        overfits: bool = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return self._loader(self._stream(shards, order, views, bad.limit), bad, self._epoch, overfits)

    def _stream(self, shards: ShardSet, order: Order, views: Views | None, max_bad: int) -> ShardStream:
        asked = self._asked
        return ImageTextStream(shards, order, asked.image_size, asked.tokenize, self._pairs.poison, views, max_bad)

    def _shown(self, keys: Sequence[str]) -> tuple[Tensor, list[str]]:
        shards, asked = self._pairs.shards, self._asked
        order = SequentialOrder(shards.counts, len(keys))
        stream = ImageTextStream(shards, order, asked.image_size, asked.tokenize, self._pairs.poison)
        _, images, captions = stream.pairs(stream.read_keys(keys))
        return images, stream.shown_captions(captions, keys)

    @property
    def _member(self) -> str:
        """What a training sample has beside its picture."""
        return "txt"

    @property
    def _hint(self) -> str:
        """What to do where no training sample has that."""
        return ""

    @property
    def _is_baked(self) -> bool:
        return self._training is not None and self._training.is_baked

    @property
    def _pairs(self) -> TrainingPairs:
        if self._training is None:
            raise RuntimeError("setup() has not run for training")
        return self._training

    @property
    def _zero_shot(self) -> ZeroShotSet:
        if self._evaluation is None:
            raise UserMistake("data.zero_shot is not given: there are no classes")
        return self._evaluation
