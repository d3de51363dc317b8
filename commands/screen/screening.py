"""Score pictures with every detector, and flag them at a given rate of false alarms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor

from ...contracts import UserMistake
from ...datamodules.bad_samples import BadSample
from ...datamodules.classnames import read_classnames
from ...datamodules.shards.samples import decode_picture
from ...datamodules.templates import NAMED_TEMPLATES
from ...files.printable import printable
from ...lightning_modules.encoders.base import Encoder
from ...lightning_modules.screening import (
    ClassTexts,
    FrozenCLIP,
    PictureDetector,
    any_p,
    conformal_p,
    rank_p,
)
from .pictures import PictureSource

Numbers = npt.NDArray[np.float64]


@dataclass
class Scored:
    """What was seen of N pictures."""

    keys: list[str] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    """Index of the class that the model takes each picture for; -1 where there are no classes."""
    scores: dict[str, list[float]] = field(default_factory=dict)
    """By detector, the more suspicious the higher."""
    unreadable: list[tuple[str, BadSample]] = field(default_factory=list)
    """The keys of pictures that could not be scored, and why."""


@dataclass(frozen=True)
class Verdicts:
    """What the scores of N pictures say."""

    each: dict[str, Numbers]
    """By detector ``(N,)``, p values."""
    p: Numbers
    """``(N,)``, one for all detectors together."""
    flagged: npt.NDArray[np.bool_]
    """``(N,)``."""


def chosen_texts(source: PictureSource, classes: str | None, templates: str) -> ClassTexts | None:
    """What classes there are, and what says them: of the user's file, of the pictures' own, or None.

    Args:
        source: The pictures.
        classes: A file of names.
        templates: The name of templates, where the pictures have none of their own.

    Raises:
        UserMistake: If the file cannot be read.
    """
    names = read_classnames(Path(classes)) if classes is not None else source.classnames
    if names is None:
        return None
    return ClassTexts(names, source.templates or NAMED_TEMPLATES[templates])


class Screening:
    """Detectors on a model.

    Args:
        encoder: The model.
        texts: The classes; None where there are none.
        detectors: Which of them: see `chosen_detectors`.
        rate: Share of clean pictures that may be flagged, by all detectors together.

    Raises:
        UserMistake: If a detector needs other classes than these.
    """

    def __init__(
        self, encoder: Encoder, texts: ClassTexts | None, detectors: Sequence[type[PictureDetector]], rate: float
    ) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.texts, self.rate = texts, rate
        self._model = FrozenCLIP(encoder.to(device).eval())
        self._size = encoder.image_size
        self._classes = self._model.classes(texts) if texts is not None else None
        self.detectors = [kind(self._model, texts) for kind in detectors]

    def check_numbers(self, pictures: int, clean: int | None) -> None:
        """Check that so low a rate can be resolved with so few pictures.

        Raises:
            UserMistake: If nothing could be flagged.
        """
        known, least = (pictures, "pictures") if clean is None else (clean + 1, "clean pictures")
        needed = int(np.ceil(len(self.detectors) / self.rate - 1e-9))
        if known < needed:
            raise UserMistake(
                f"a rate of {self.rate:g} with {len(self.detectors)} detectors takes at least "
                f"{needed - (clean is not None):,} {least}, and there are {known - (clean is not None):,}: "
                "give more, a higher --rate or fewer --detectors"
            )

    def scored(self, source: PictureSource, batch_size: int, description: str) -> Scored:
        """Score pictures.

        Args:
            source: They.
            batch_size: How many are encoded at once.
            description: What they are, beside the bar.

        Raises:
            UserMistake: If none of them can be read.
        """
        found = Scored(scores={detector.name: [] for detector in self.detectors})
        total = -(-len(source) // batch_size)
        for keys, batch in track(self._batches(source, batch_size, found), description, total):
            pictures = self._model.normalised(batch)
            features = self._model.images(pictures)
            found.keys += keys
            classes = self._classes
            found.classes += [-1] * len(keys) if classes is None else self._model.predicted(features, classes).tolist()
            for detector in self.detectors:
                with torch.no_grad():
                    scores = detector.score(pictures, features)
                if scores.shape != (len(keys),):
                    raise UserMistake(
                        f"detector {detector.name} returned {tuple(scores.shape)} for {len(keys)} pictures, "
                        f"not ({len(keys)},)"
                    )
                found.scores[detector.name] += scores.tolist()
        if not found.keys:
            first = told(found.unreadable[0])
            raise UserMistake(f"none of the {len(source):,} pictures can be read; the first: {first}")
        return found

    def judged(self, scored: Scored, reference: Scored | None) -> Verdicts:
        """What the scores say, against clean pictures or among themselves."""
        each = {
            name: rank_p(scores) if reference is None else conformal_p(scores, reference.scores[name])
            for name, scores in scored.scores.items()
        }
        p = any_p(list(each.values()))
        return Verdicts(each, p, p <= self.rate)

    def _batches(self, source: PictureSource, size: int, found: Scored) -> Iterator[tuple[list[str], Tensor]]:
        """Keys, and pictures ``(B, 3, S, S)`` uint8; what cannot be read is noted."""
        keys: list[str] = []
        squares: list[npt.NDArray[np.uint8]] = []
        for key, data in source:
            try:
                if isinstance(data, BadSample):
                    raise data
                squares.append(decode_picture(data, self._size))
                keys.append(key)
            except BadSample as fault:
                found.unreadable.append((key, fault))
            if len(keys) == size:
                yield keys, _stacked(squares)
                keys, squares = [], []
        if keys:
            yield keys, _stacked(squares)


def told(unreadable: tuple[str, BadSample]) -> str:
    """A picture that could not be scored and the reason, for a message."""
    key, fault = unreadable
    return f"{printable(key, 100)}, {printable(str(fault), 200)}"


def _stacked(squares: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
