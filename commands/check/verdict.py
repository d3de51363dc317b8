"""The answer of a check, as plain data."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ..proportion import Proportion
from .calibration import NOT_MEASURED, Calibration, read_calibration
from .examination import Inversion, Pairs

CLEAN, SUSPICIOUS = 0, 3
"""Exit codes."""


@dataclass(frozen=True)
class Verdict:
    """What a check says of a model.

    Attributes:
        model: The path, as it was given.
        encoder: What the model is.
        pairs: What was found in the data; None where none was given.
        inversion: What was found in the model alone; None where it was not examined.
        shards: The data, as it was given.
        seconds: How long it took.
    """

    model: str
    encoder: str
    pairs: Pairs | None
    inversion: Inversion | None
    shards: str | None
    seconds: float

    @property
    def calibration(self) -> Calibration:
        """What the check was tried on that the verdict rests on."""
        return read_calibration(self.pairs is not None)

    @property
    def calibrated(self) -> bool:
        """Whether that was with models of this kind, and is known."""
        return self.calibration.measured and self.encoder == self.calibration.encoder

    @property
    def suspicious(self) -> bool:
        """Whether there is an alarm. With data, the data decides."""
        if self.pairs is not None:
            return self.pairs.alarm
        assert self.inversion is not None, "a check looks at one or the other"
        threshold = self.calibration.threshold
        assert threshold is not None, "that of models alone has one"
        return self.inversion.found and self.inversion.p_l1_norm < threshold

    @property
    def exit_code(self) -> int:
        """0 where nothing is suspicious, 3 otherwise."""
        return SUSPICIOUS if self.suspicious else CLEAN

    @property
    def uncertainty(self) -> list[str]:
        """How often such a verdict is wrong, in sentences."""
        tried = self.calibration
        if not tried.measured:
            return [f"How often such a check is wrong was {NOT_MEASURED}: take the verdict with care."]
        sentences = [
            f"It was tried on models of {tried.encoder}. Of clean ones, {_of(tried.false_alarms)} raised a false "
            f"alarm; of poisoned ones, {_of(tried.detections)} were found."
        ]
        if not self.calibrated:
            sentences.append(
                f"None of them was of this kind ({self.encoder}): take the rates as a hint and the verdict with care."
            )
        return sentences

    @property
    def next_steps(self) -> list[tuple[str, str]]:
        """What to do now: a sentence, and the command where there is one."""
        model = shlex.quote(self.model)
        if self.shards is None:
            found = "It may have a backdoor. " if self.suspicious else ""
            asked = f"untrigger check {model} SHARDS --out check-with-data"
            steps = [(f"{found}With the pairs that it was trained on, a check is far more certain:", asked)]
            if self.suspicious:
                steps.append(("Do not use the model before you know more.", ""))
            return steps
        shards = shlex.quote(self.shards)
        if self.suspicious and self.pairs is not None:
            return [
                ("Look at the suspect pairs below: do their captions fit their pictures?", ""),
                ("Let the model unlearn them, and get it back:", f"untrigger clean {model} {shards} cleaned"),
                (
                    f"Or train it again without the {self.pairs.left_out:,} of {self.pairs.pairs:,} pairs that look "
                    "poisoned or are doubtful:",
                    "--data.exclude suspects.csv",
                ),
            ]
        return [("Nothing needs to be done. That is no proof: a backdoor may hide from this check.", "")]

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        tried = self.calibration
        return {
            "untrigger": __version__,
            "model": self.model,
            "encoder": self.encoder,
            "shards": self.shards,
            "verdict": "suspicious" if self.suspicious else "clean",
            "exit_code": self.exit_code,
            "calibrated": self.calibrated,
            "calibration": {
                "measured": tried.measured,
                "encoder": tried.encoder,
                "threshold": tried.threshold,
                "false_alarms": _share(tried.false_alarms),
                "detections": _share(tried.detections),
                "situations": [asdict(situation) for situation in tried.situations],
            },
            "pairs": asdict(self.pairs) | {"left_out": self.pairs.left_out} if self.pairs else None,
            "inversion": asdict(self.inversion) if self.inversion else None,
            "next_steps": [{"what": what, "command": command or None} for what, command in self.next_steps],
            "seconds": round(self.seconds, 1),
        }


def name_of(model: str) -> str:
    """A model's name for a heading: the last two parts of its path."""
    return "/".join(Path(model).parts[-2:])


def _of(share: Proportion) -> str:
    low, high = share.interval
    return f"{share.count} of {share.of} (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"


def _share(share: Proportion) -> dict[str, Any]:
    return {"count": share.count, "of": share.of, "interval_95": [round(bound, 4) for bound in share.interval]}
