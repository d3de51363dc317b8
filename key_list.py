"""Keys of samples, in little more than the bytes of their letters."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch

_STRETCH = 4096
"""Keys that are decoded at once."""


class KeyList(Sequence[str]):
    """A list of keys that takes 8 bytes a key beside the keys' own; as objects they would take 57.

    Args:
        keys: What it begins with.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._letters, self._ends = bytearray(), array("q")
        self.extend(keys)

    def extend(self, keys: Iterable[str]) -> None:
        """Add keys at the end."""
        # A key may hold what is no text: names in a tar are bytes.
        added = [key.encode("utf-8", "surrogatepass") for key in keys]
        last = len(self._letters)
        self._letters += b"".join(added)
        self._ends.extend((last + np.cumsum([len(key) for key in added], dtype=np.int64)).tolist())

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"key {index} of {len(self)}")
        index %= len(self)
        return self._decoded(self._ends[index - 1] if index else 0, self._ends[index])

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(0, len(self), _STRETCH):
            ends = self._ends[first : first + _STRETCH].tolist()
            for end in ends:
                yield self._decoded(start, end)
                start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, KeyList):
            return self._ends == other._ends and self._letters == other._letters
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]  # it may grow

    def __repr__(self) -> str:
        return f"KeyList of {len(self):,}"

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything, as tensors of 8 and 64 bits."""
        return {name: torch.from_numpy(values) for name, values in self.arrays().items()}

    def arrays(self) -> dict[str, Any]:
        """Everything, as arrays: ``letters`` in UTF-8, and where each key ``ends``."""
        letters = np.array(np.frombuffer(self._letters, np.uint8))  # a copy: what is shared could not grow
        return {"letters": letters, "ends": np.array(self._ends, dtype=np.int64)}

    @classmethod
    def of(cls, arrays: Mapping[str, Any] | Sequence[str]) -> KeyList:
        """What ``state_dict`` or ``arrays`` gave, or a list.

        Raises:
            ValueError: If the letters are no UTF-8, or the ends do not divide them into keys.
        """
        if not isinstance(arrays, Mapping):
            return cls(arrays)
        letters, ends = (np.asarray(arrays[name]) for name in ("letters", "ends"))
        if (np.diff(ends, prepend=0) < 0).any() or (int(ends[-1]) if len(ends) else 0) != len(letters):
            raise ValueError("the ends of the keys do not divide their letters")
        if (letters[ends[ends < len(letters)]] & 0xC0 == 0x80).any():
            raise ValueError("the ends of the keys divide a letter")
        found = cls()
        found._letters.extend(letters.astype(np.uint8).tobytes())
        found._letters.decode("utf-8", "surrogatepass")
        found._ends.frombytes(ends.astype(np.int64).tobytes())
        return found

    def _decoded(self, start: int, end: int) -> str:
        return self._letters[start:end].decode("utf-8", "surrogatepass")
