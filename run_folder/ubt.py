"""``ubt.json``, what UBT leaves in its run folder: written by the module, read by the commands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from ..contracts import UserMistake
from ..files.reading import read_json, reading
from ..files.writing import write_text

UBT_RECORD = "ubt.json"
"""Its name in the run folder."""
_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class ProbedWord:
    """What a probe said of a word; `lightning_modules.ubt.verdict.WordVerdict` has the same.

    Attributes:
        round: The probe, from 0; a round after the first one probes a repaired model.
        word: How the word is written. Other people's text.
        evidence: The piece of evidence that speaks most against it.
        moved: Share of its suspects that were not pushed and whose best word is another one after the probe, in [0, 1].
        moved_others: The same of ordinary pairs of the word.
        p: P-value of an exact permutation test that these go where ordinary pairs go, corrected for the number of
            tests, in [0, 1].
        variety: To how many words they went, as the exponential of an entropy; at least 0.
        fall: Mean fall in similarity of these suspects.
        found: Whether the word hides a backdoor.
        fragility: What the lead of its suspects over ordinary pairs loses by gentle changes, in [-1, 1]; None where
            that was not asked, as in records from before 2026-11-29.
    """

    round: int
    word: str
    evidence: str
    moved: float
    moved_others: float
    p: float
    variety: float
    fall: float
    found: bool
    fragility: float | None = None

    @classmethod
    def of(cls, verdict: Mapping[str, Any]) -> Self:
        """That of a verdict as plain data, which may hold more."""
        return cls(**{field.name: verdict[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class UBTRecord:
    """What a run of UBT has found.

    Attributes:
        alarm: Whether anything was suspicious.
        given: Whether the pairs to unlearn were given, so that nothing was looked for.
        compromised: The words of which a backdoor was found, as they are written. Other people's text.
        benign: Pairs that were retained.
        suspicious: Pairs that were neither unlearnt nor retained.
        poisoned: Pairs that were unlearnt.
        verdicts: What was said of each word, round by round.
    """

    alarm: bool
    given: bool
    compromised: list[str]
    benign: int
    suspicious: int
    poisoned: int
    verdicts: list[ProbedWord]

    @property
    def pairs(self) -> int:
        """Training pairs."""
        return self.benign + self.suspicious + self.poisoned

    @property
    def left_out(self) -> int:
        """Pairs that ``suspects.csv`` names, and that ``--data.exclude suspects.csv`` leaves out."""
        return self.suspicious + self.poisoned

    @property
    def probes(self) -> int:
        """How often a model was probed."""
        return len({verdict.round for verdict in self.verdicts})

    @property
    def repairs(self) -> int:
        """How often it was repaired."""
        return len({verdict.round for verdict in self.verdicts if verdict.found}) or int(self.alarm)

    @property
    def verified(self) -> bool:
        """Whether the model that the run ended with was probed, and nothing was found."""
        last = max((verdict.round for verdict in self.verdicts), default=None)
        return last is not None and not any(verdict.found for verdict in self.verdicts if verdict.round == last)

    def write(self, folder: Path) -> None:
        """Write ``ubt.json``.

        Args:
            folder: The run folder.
        """
        write_text(folder / UBT_RECORD, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read ``ubt.json``. It may come from anywhere: every number and word is looked at.

        Args:
            folder: The run folder.

        Raises:
            UserMistake: If it is not there, or is none.
        """
        path = folder / UBT_RECORD
        content = read_json(path, "record of UBT", _MAX_BYTES)
        with reading("record of UBT", path):
            verdicts = [ProbedWord(**_checked(ProbedWord, each)) for each in content["verdicts"]]
            record = cls(**_checked(cls, content) | {"verdicts": verdicts})
            if not all(isinstance(word, str) for word in record.compromised):
                raise UserMistake(f"record of UBT {path}: compromised is no list of words")
            return record


_MAX_VALUE = {"moved": 1.0, "moved_others": 1.0, "p": 1.0, "fall": 2.0, "fragility": 1.0}
_MIN_VALUE = {"fall": -2.0, "fragility": -1.0}
_KINDS: dict[str, type | tuple[type, ...]] = {"bool": bool, "int": int, "float": (int, float), "str": str}


def _checked(kind: type[ProbedWord | UBTRecord], content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record, of the types and in the ranges that it states; others are left out."""
    read = {}
    for field in fields(kind):
        optional, of = field.default is None, str(field.type).removesuffix(" | None")
        if not optional or content.get(field.name) is not None:
            read[field.name] = _fitting(content[field.name], field.name, of)
    return read


def _fitting(value: Any, name: str, kind: str) -> Any:
    fits = isinstance(value, _KINDS.get(kind, list)) and (kind == "bool" or not isinstance(value, bool))
    if fits and kind in ("int", "float"):
        # A similarity falls by 2 at most.
        least, most = _MIN_VALUE.get(name, 0.0), _MAX_VALUE.get(name, 2.0**53)
        fits = math.isfinite(value) and least <= value <= most
    if not fits:
        raise ValueError(f"{name} is not what it should be")
    return value
