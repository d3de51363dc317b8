"""The types and protocols that data modules, Lightning modules and callbacks share.

The three packages do not import each other at run time. A batch, the outputs of an evaluation step, and what one side
asks of the other through ``trainer.lightning_module`` and ``trainer.datamodule`` are named here, without logic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, TypedDict

# Those of typing evaluate a property to see whether it is there, up to Python 3.11.
from typing_extensions import Protocol, runtime_checkable

if TYPE_CHECKING:  # every command imports this file, and most need no tensor
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


class UserMistake(ValueError):
    """A mistake of the user's: shown as one line, without a traceback, with exit code 2.

    The message says what was wrong, where, and what would be right.
    """


class Preprocessing(NamedTuple):
    """What a module asks of its pictures and captions. Picklable, so that it reaches the workers of a loader."""

    image_size: int
    """Side of the square input, in pixels."""
    mean: tuple[float, float, float]
    """Per channel, for pictures in [0, 1]."""
    std: tuple[float, float, float]
    """Per channel, for pictures in [0, 1]."""
    tokenize: Callable[[Sequence[str]], Tensor]
    """N captions to ``(N, L)`` int64 tokens; captions that are too long are cut so that the end token stays."""


class ImageTextBatch(TypedDict):
    """A training batch. It never says which pairs are poisoned: evaluation joins by key with the manifest."""

    key: list[str]
    image: Tensor
    """``(B, 3, S, S)`` float32, normalised with the module's mean and std."""
    tokens: Tensor
    """``(B, L)`` int64."""
    image_view: NotRequired[Tensor]
    """A second, augmented view of each picture, as ``image``. There when the data module has an image view."""
    tokens_view: NotRequired[Tensor]
    """A second, augmented view of each caption, as ``tokens``. There when the data module has a text view."""


class LabelledBatch(TypedDict):
    """A training batch of pictures whose class is known, for supervised training."""

    key: list[str]
    image: Tensor
    """``(B, 3, S, S)`` float32, normalised with the module's mean and std."""
    label: Tensor
    """``(B,)`` int64, an index into the class names of the zero-shot set."""


class ZeroShotBatch(TypedDict):
    """An evaluation batch: each picture decoded once, clean and under every attack that is measured.

    Where several ranks share the pictures, B may be 0: every rank takes part in every step.
    """

    key: list[str]
    image: Tensor
    """``(B, 3, S, S)`` float32, normalised."""
    label: Tensor
    """``(B,)`` int64, an index into the class names."""
    triggered: dict[str, Tensor]
    """By the name of an attack that is no control, the same pictures with its trigger, as ``image``. Empty where
    nothing is measured."""
    bears: NotRequired[dict[str, Tensor]]
    """By the name of an attack whose trigger is what pictures show by themselves, ``(B,)`` bool: which of them do. Its
    pictures are the clean ones."""


class ClassLogits(TypedDict):
    """What one classifier makes of an evaluation batch."""

    logits: Tensor
    """``(B, C)`` float32 of the clean pictures."""
    triggered_logits: dict[str, Tensor]
    """By the name of an attack, ``(B, C)`` float32 of the triggered pictures."""


class ZeroShotOutputs(ClassLogits):
    """What ``validation_step`` and ``test_step`` return: similarity to the class embeddings, times the temperature.

    What need not be there feeds figures only; a step that leaves it out is measured all the same.
    """

    label: Tensor
    """``(B,)`` int64."""
    features: NotRequired[Tensor]
    """``(B, D)``, the image features of the clean pictures, of unit length."""
    triggered_features: NotRequired[dict[str, Tensor]]
    """By the name of an attack, the image features of the triggered pictures, as ``features``."""
    inverse_temperature: NotRequired[Tensor]
    """Scalar, what the similarities were multiplied with: ``logits`` divided by it are cosines in [-1, 1]."""
    head: NotRequired[ClassLogits]
    """What the module's own head makes of the same pictures. There when the module is a ``HeadModule``."""


class HeldOutBatch(TypedDict):
    """Pairs that the model was not trained on, clean and under each attack, on the CPU."""

    image: Tensor
    """``(B, 3, S, S)`` float32, normalised."""
    tokens: Tensor
    """``(B, L)`` int64."""
    caption: list[str]
    """The B captions."""
    triggered: dict[str, Tensor]
    """By attack whose trigger is in the picture, the same pictures with its trigger, as ``image``."""
    triggered_tokens: NotRequired[dict[str, Tensor]]
    """By attack whose trigger is in the caption, the same captions with its trigger, as ``tokens``."""
    names_target: dict[str, Tensor]
    """By attack, ``(B,)`` bool: whether the caption has its target as a word."""


class PredictOutputs(TypedDict):
    """What ``predict_step`` returns: the image-text similarity of each pair."""

    key: list[str]
    similarity: Tensor
    """``(B,)`` float32, cosine similarity in [-1, 1]."""
    scores: NotRequired[dict[str, Tensor]]
    """What else was found of each pair, by name ``(B,)`` float32: the same names in every batch."""


class ClassPrompts(NamedTuple):
    """The classes of a zero-shot set and, for each, its captions (one per template)."""

    classnames: list[str]
    prompts: list[list[str]]


class Attack(NamedTuple):
    """An attack that an evaluation measures."""

    name: str
    """Unique in a run: the trigger's class name, numbered from the second on (``BadNet``, ``BadNet-2``)."""
    target: int
    """Index of the target class."""
    prompts: tuple[tuple[str, ...], ...] | None = None
    """For each class, its captions under the attack, where a caption too has to hold a key; None for the usual ones."""
    control_of: str | None = None
    """The attack of which this is a control, such as one key of two alone: it bears that attack's trigger, must not
    fire, and is left out of the mean over attacks."""
    stamped: bool = True
    """Whether the pictures are stamped with the trigger. If not, they are the clean ones: of a control, as they are; of
    another attack, those that trigger by themselves (``bears``) are what counts."""


class PictureAttack(NamedTuple):
    """An attack on given pictures, which are no test pictures."""

    name: str
    """Unique in a run."""
    target: int
    """Index of the class that they are to be taken for."""
    images: Tensor
    """``(P, 3, S, S)`` float32, normalised."""


@runtime_checkable
class CLIPModule(Protocol):
    """What data modules and callbacks ask of ``trainer.lightning_module``."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures and captions are to be prepared for this model."""

    @property
    def defence(self) -> str:
        """The name of the defence for ``results.csv``: the class name, ``none`` where the run is no defence."""


NO_DEFENCE = "none"
"""What ``results.csv`` has in the column ``defence`` where there is none."""

TrainingPoison = Literal["none", "manifest", "plan"]
"""Where the poison in the training pairs of a run comes from, as far as is known: from nowhere, from a manifest that an
earlier run or ``untrigger poison`` has left, or from a plan, with which this run plants it."""


@runtime_checkable
class HeadModule(Protocol):
    """What callbacks ask of a module that also classifies through a head of its own: its outputs have ``head``."""

    @property
    def head_defence(self) -> str:
        """The name of the defence for the head's row in ``results.csv``."""


@runtime_checkable
class ZeroShotModule(Protocol):
    """What callbacks ask of a module during an evaluation, to classify pictures that are in no batch."""

    def encode_image(self, images: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, to features ``(B, D)`` of unit length."""

    def zero_shot_logits(self, image_features: Tensor) -> Tensor:
        """Features ``(B, D)`` to ``(B, C)``: similarity to the classes, times the temperature."""


@runtime_checkable
class ZeroShotData(Protocol):
    """What modules and callbacks ask of ``trainer.datamodule`` for an evaluation."""

    @property
    def dataset_name(self) -> str:
        """The name of the zero-shot set, for ``results.csv``."""

    @property
    def class_prompts(self) -> ClassPrompts:
        """The classes and their captions."""

    @property
    def attacks(self) -> list[Attack]:
        """The attacks that are measured; empty where nothing is."""


@runtime_checkable
class PictureAttackData(Protocol):
    """What callbacks ask of a data module that also attacks given pictures."""

    @property
    def picture_attacks(self) -> list[PictureAttack]:
        """The attacks on given pictures that are measured; empty where none is."""


@runtime_checkable
class RetrievalModule(Protocol):
    """What callbacks ask of a module to compare pictures with captions."""

    def encode_image(self, images: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, to features ``(B, D)`` of unit length."""

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Captions ``(B, L)`` int64 to features ``(B, D)`` of unit length."""


@runtime_checkable
class HeldOutData(Protocol):
    """What callbacks ask of a data module that has pairs which are kept out of training."""

    @property
    def held_out_pairs(self) -> int:
        """Number of these pairs; 0 where there are none."""

    @property
    def held_out_attacks(self) -> list[str]:
        """The names of the attacks that are measured on them."""

    def held_out_batches(self) -> Iterator[HeldOutBatch]:
        """Each of these pairs once, in the order of the shards."""


@runtime_checkable
class CaptionSearch(Protocol):
    """What a module asks of a data module to find pairs by what their captions say."""

    def keys_saying(self, phrase: str) -> list[str]:
        """The keys of the training pairs whose caption, as it is trained on, has the phrase as whole words.

        A defence asks too: what a caption was before it was poisoned is not for it to know.
        """


@runtime_checkable
class ResumedLoader(Protocol):
    """What modules and callbacks ask of a training loader that resumes in the middle of an epoch."""

    @property
    def redivided(self) -> int | None:
        """The batch that it resumes with, where the epoch was divided otherwise when it began; None where it was not.

        With 0, the epoch starts again.
        """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume, in the next iteration, where the loader of a checkpoint stood."""


@runtime_checkable
class ImageTextData(Protocol):
    """What modules and callbacks ask of ``trainer.datamodule`` about its training pairs."""

    @property
    def batch_names(self) -> frozenset[str]:
        """What a training batch has, of the names of ``ImageTextBatch`` and ``LabelledBatch``."""

    @property
    def pairs(self) -> int:
        """Number of training pairs."""

    @property
    def global_batch_size(self) -> int:
        """Pairs of a training batch over all ranks."""

    def select(self, keys: Iterable[str] | None, in_order: bool = False) -> None:
        """Restrict the training stream to the pairs with these keys from the next epoch on; None lifts it.

        The data module sees to it that the trainer asks for the loader again, whatever its options.

        In order, each of them comes once, as it is in the shards: no shuffling, no augmentation, no second views, none
        left out, and of several captions the first.
        """

    def pictures(self, keys: Sequence[str]) -> Tensor:
        """The pictures of these keys as the training stream shows them: ``(N, 3, S, S)`` uint8."""

    def captions(self, keys: Sequence[str]) -> list[str]:
        """The captions of these keys as the training stream shows them; of a pair with several, the first."""

    def some_keys(self, count: int, seed: int) -> list[str]:
        """The keys of some training pairs, drawn at random; of all where there are no more."""


class Suspicion(NamedTuple):
    """What a detecting defence makes of every training pair."""

    keys: Sequence[str]
    """N keys."""
    scores: Mapping[str, npt.NDArray[np.float32]]
    """By name, ``(N,)``, higher is more suspicious; the last one ranks the pairs."""
    decision: npt.NDArray[np.int8]
    """``(N,)``, of ``DECISIONS``."""
    words: Sequence[str]
    """The compromised tokens, decoded as words."""
    about: str
    """The phase that found this, as a heading."""


DECISIONS = ("benign", "suspicious", "poisoned")
"""Benign pairs are retained, poisoned ones are unlearnt, and suspicious ones are left out of both."""


@runtime_checkable
class PhasedModule(Protocol):
    """What callbacks ask of a module whose run has phases."""

    @property
    def phase(self) -> str:
        """What the run is doing, in a word or two, for the progress bar."""

    @property
    def measured(self) -> str:
        """What an evaluation that starts now is of: empty for the model, a word such as ``overfitted`` for a copy."""

    @property
    def restored(self) -> bool:
        """Whether the weights were put back to earlier ones, and no evaluation has seen them since."""


@runtime_checkable
class LossesModule(Protocol):
    """What callbacks ask of a module to report a loss that is not finite."""

    @property
    def losses(self) -> Mapping[str, Tensor]:
        """The loss of the last step that had one and its parts, detached scalars on the device, by name.

        Another object after each such step.
        """


@runtime_checkable
class DetectingModule(Protocol):
    """What callbacks ask of a module that looks for poisoned pairs."""

    @property
    def suspicion(self) -> Suspicion | None:
        """What it has found last; None before."""


@runtime_checkable
class PoisonedData(Protocol):
    """What a module asks of a data module to say, in the results, whether its run defends; no pair is named."""

    @property
    def training_poison(self) -> TrainingPoison:
        """Where the poison in the training pairs comes from."""


@runtime_checkable
class GroundTruth(Protocol):
    """What is known of which pairs are poisoned. For evaluation only: no module may ask for it."""

    @property
    def poisoned_keys(self) -> frozenset[str]:
        """Keys of the training pairs that are known to be poisoned; empty where none is known."""
