"""The pairs that a defence suspects, as a table and a contact sheet."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from ...contracts import DECISIONS, DetectingModule, ImageTextData, Suspicion
from ...run_folder.suspects import SHEET, SuspectRow, write_suspects
from ...trainer.lookup import data_of, folder_to_write
from .figures import DPI
from .suspects_figure import Suspect, contact_sheet

_BLOCK = 4096
"""Captions that are read at once."""


class SuspectsWriter(Callback):
    """Writes ``suspects.csv`` and ``suspects.png`` in the run folder whenever a ``DetectingModule`` has concluded.

    The table has a row for each pair that is not benign, the most suspicious first: ``key``, ``caption``, a column for
    each score, the compromised tokens that the caption has, and ``decision`` (``poisoned`` pairs are unlearnt,
    ``suspicious`` ones neither unlearnt nor retained). The sheet shows the first of them, compromised words marked.
    Cells that a spreadsheet would take for formulas have a quote in front, and keys with control characters stand
    after one as JSON strings (``tables.text_cell``); captions have blanks for these, and end after 10,000 characters.

    Args:
        pictures: Pairs on the sheet, at most.
    """

    def __init__(self, pictures: int = 48) -> None:
        super().__init__()
        self.pictures = pictures
        self._written: str | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was concluded at the end of the last epoch."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was concluded at the end of the run."""
        self._write(trainer, pl_module, at_the_end=True)

    def _write(self, trainer: Trainer, pl_module: LightningModule, at_the_end: bool = False) -> None:
        data = data_of(trainer, ImageTextData)
        if not isinstance(pl_module, DetectingModule) or data is None:
            return
        found = pl_module.suspicion
        if found is None or (found.about == self._written and not at_the_end):
            return
        folder = folder_to_write(trainer)
        if folder is None:
            return
        self._written = found.about
        indices = _most_suspicious(found)
        write_suspects(folder, list(found.scores), _rows(found, indices, data))
        shown = [found.keys[index] for index in indices[: self.pictures].tolist()]
        score = list(found.scores.values())[-1]
        suspects = [
            Suspect(key, caption, float(score[index]), DECISIONS[found.decision[index]])
            for key, caption, index in zip(shown, data.captions(shown) if shown else [], indices, strict=False)
        ]
        picture = folder / SHEET
        if not suspects:
            picture.unlink(missing_ok=True)
            return
        sheet = contact_sheet(data.pictures(shown), suspects, found.words)
        sheet.savefig(picture.with_suffix(".tmp"), dpi=DPI, format="png")
        picture.with_suffix(".tmp").replace(picture)


def _most_suspicious(found: Suspicion) -> np.ndarray:
    """Indices of the pairs that are not benign: poisoned ones first, then by the last score."""
    indices = np.flatnonzero(found.decision > DECISIONS.index("benign"))
    score = np.nan_to_num(list(found.scores.values())[-1][indices], nan=-np.inf)
    return indices[np.lexsort((-score, -found.decision[indices].astype(int)))]


def _rows(found: Suspicion, indices: np.ndarray, data: ImageTextData) -> Iterator[SuspectRow]:
    for start in range(0, len(indices), _BLOCK):
        block = indices[start : start + _BLOCK].tolist()
        keys = [found.keys[index] for index in block]
        for index, key, caption in zip(block, keys, data.captions(keys), strict=True):
            scores = [float(score[index]) for score in found.scores.values()]
            has = set(re.findall(r"\w+|[^\w\s]", caption.lower()))
            # A word may be of several tokens that always come together.
            words = [word for word in found.words if has.issuperset(word.lower().split())]
            yield SuspectRow(key, caption, scores, words, DECISIONS[found.decision[index]])
