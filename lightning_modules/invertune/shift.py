"""Count the classes that a universal patch sends pictures to, and name one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...run_folder.target_naming import TargetNamingRecord


@dataclass(frozen=True)
class ClassShift:
    """How many pictures are taken for each class, without a universal patch and with it.

    Attributes:
        classnames: C names, at least two.
        clean: Number of pictures that are classified as each class, ``(C,)``.
        patched: The same with the patch, ``(C,)``.
        fooled: Pictures that the patch moves to another class.
        patch: Patch, ``(3, P, P)`` in [0, 1].
    """

    classnames: tuple[str, ...]
    clean: Tensor
    patched: Tensor
    fooled: int
    patch: Tensor

    @property
    def shift(self) -> Tensor:
        """``(C,)``: the share of pictures that a class gains by the patch, in [-1, 1]."""
        return (self.patched - self.clean).double() / self.clean.sum()

    @property
    def target(self) -> str:
        """The class that gains most."""
        return self.classnames[int(self.shift.argmax())]

    def record(self) -> TargetNamingRecord:
        """What a run leaves."""
        pictures, shift = int(self.clean.sum()), self.shift
        first, second = shift.sort(descending=True, stable=True).indices[:2].tolist()
        return TargetNamingRecord(
            target=self.classnames[first],
            shift=float(shift[first]),
            runner_up=self.classnames[second],
            runner_up_shift=float(shift[second]),
            margin=float(shift[first] - shift[second]),
            fooled=self.fooled / pictures,
            pictures=pictures,
            shifts={name: float(value) for name, value in zip(self.classnames, shift.tolist(), strict=True)},
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors."""
        return {**vars(self), "classnames": list(self.classnames)}

    @classmethod
    def of_state(cls, state_dict: Mapping[str, Any]) -> ClassShift:
        """What gave this state."""
        return cls(**{**state_dict, "classnames": tuple(state_dict["classnames"])})
