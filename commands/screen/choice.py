"""Which detectors are asked."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

from ...contracts import UserMistake
from ...lightning_modules.screening import BackdoorIDS, BDetCLIP, ClassTexts, PictureDetector, SubspaceDetection
from ...nearest import meant

_USUAL: tuple[type[PictureDetector], ...] = (BDetCLIP, SubspaceDetection, BackdoorIDS)


def chosen_detectors(names: Sequence[str] | None, texts: ClassTexts | None) -> list[type[PictureDetector]]:
    """The detectors that are asked, the package's before those of modules that the user has imported.

    Args:
        names: Their names; all that can be asked with these classes unless given.
        texts: The classes; None where there are none.

    Raises:
        UserMistake: If there is no such detector, two have the same name, or one needs more classes than there are.
    """
    known: dict[str, type[PictureDetector]] = {}
    for kind in (*_USUAL, *_own(PictureDetector)):
        name = getattr(kind, "name", None)
        if not isinstance(name, str) or name in known:
            raise UserMistake(f'detector {kind.__name__} needs a name of its own: name = "my_detector"')
        known[name] = kind
    count = 0 if texts is None else len(texts.classnames)
    if names is None:
        return [kind for kind in known.values() if count >= kind.fewest_classes]
    for name in names:
        if name not in known:
            raise UserMistake(f"there is no detector {name!r:.100}: {', '.join(known)}{meant(name, known)}")
        if count < (fewest := known[name].fewest_classes):
            least = "" if texts is None else f", at least {fewest}, and there is one"
            raise UserMistake(f"detector {name} compares classes{least}: name them with --classes")
    return [known[name] for name in dict.fromkeys(names)]


def _own(kind: type[PictureDetector]) -> Iterator[type[PictureDetector]]:
    """Subclasses beside the package's, at any depth."""
    for below in kind.__subclasses__():
        if below not in _USUAL and not inspect.isabstract(below):
            yield below
        yield from _own(below)
