"""The state that InverTune's phases share: the target, its pairs, the trigger and the neurons."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ...contracts import CaptionSearch
from ...trainer.lookup import data_of, folder_to_write
from ..detection import write_trigger
from .neurons import candidate_layers
from .target_naming import TargetNaming

_BLOCK = 128


class InverTuneState(TargetNaming):
    """What the phases find, and what they ask for; kept in checkpoints.

    Args:
        args: See ``TargetNaming``.
        target: A class in place of the one that would be named.
        kwargs: See ``TargetNaming``.
    """

    def __init__(self, *args: Any, target: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given_target = target
        self.candidates = candidate_layers(self.encoder.image_tower)
        """The names of the layers of the image tower that are compared."""
        self.trigger: tuple[Tensor, Tensor] | None = None
        """Mask and pattern, ``(3, S, S)`` each in [0, 1], on the CPU; None before they are inverted."""
        self.neurons: dict[str, Tensor] = {}
        """By the name of a layer, which of its neurons the trigger needs; empty before."""
        self.arrived: list[float] = []
        """Share of pictures that the inverted trigger sends to the target: before the tuning, and after."""
        self._placed: tuple[Tensor, Tensor] | None = None
        self._said: tuple[list[str], list[str]] | None = None

    @property
    def prefix(self) -> str:
        """What stands before the logged keys."""
        return "invertune"

    @property
    def target(self) -> str:
        """The class whose backdoor is looked for."""
        if self.given_target is not None:
            return self.given_target
        assert self.shift is not None, "it was named"
        return self.shift.target

    def account(self) -> str:
        """What the inverted trigger does, once it is known."""
        shares = " -> ".join(f"{share:.1%}" for share in self.arrived)
        return f"the inverted trigger sends {shares} of the pictures to {self.target!r}" if shares else ""

    def select_others(self, batches: int, seed: int) -> None:
        """Stream some pairs whose captions do not say the target, of as many batches at most."""
        self.data.select(self._others(batches * self.data.global_batch_size, seed))

    def select_others_in_order(self, pairs: int, seed: int) -> None:
        """Stream some of them once, as they are in the shards, at least one batch."""
        self.data.select(self._others(max(pairs, self.data.global_batch_size), seed), in_order=True)

    def embed_target(self, pairs: int, seed: int) -> Tensor:
        """Features of pictures of the target ``(N, D)``, of ``pairs`` at most; empty where no caption says it."""
        keys = _shuffled(self._searched()[0], seed)[:pairs]
        if not keys:
            rank_zero_info(f"InverTune: no caption says {self.target!r}, so no picture of it is aligned with")
            return torch.empty(0)
        blocks = [keys[start : start + _BLOCK] for start in range(0, len(keys), _BLOCK)]
        with self.evaluating():
            return torch.cat([self.encode_image(self.normalised(self.data.pictures(block))) for block in blocks])

    def keep_trigger(self, mask: Tensor, pattern: Tensor) -> None:
        """Keep what was inverted, and leave it in the run folder."""
        self.trigger = (mask, pattern)
        self.log_now("invertune/mask_share", float(mask.mean()))
        folder = folder_to_write(self.trainer)
        if folder is not None:
            write_trigger(folder, mask, pattern)

    def place_trigger(self) -> None:
        """Put mask and pattern on the device, the pattern normalised."""
        assert self.trigger is not None, "it was inverted"
        mask, pattern = (part.to(self.device) for part in self.trigger)
        mean, std = self.scales
        self._placed = mask, (pattern - mean) / std

    def stamped(self, images: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, with the inverted trigger."""
        assert self._placed is not None, "it was placed"
        mask, pattern = self._placed
        return ((1 - mask) * images + mask * pattern).to(images.dtype)

    def keep_neurons(self, neurons: dict[str, Tensor], arrived: float) -> None:
        """Keep the neurons that the trigger needs.

        Args:
            neurons: By the name of a layer, which ones.
            arrived: Share of pictures that the trigger sends to the target.
        """
        self.neurons, self.arrived = neurons, [arrived]
        chosen = sum(int(mask.sum()) for mask in neurons.values())
        total = sum(mask.numel() for mask in neurons.values())
        self.log_now("invertune/neurons", chosen / total)
        self.log_now("invertune/arrived_before", arrived)
        rank_zero_info(f"InverTune: {chosen:,} of {total:,} neurons of {', '.join(neurons)}")

    def tried(self, arrived: float, cosine: float) -> None:
        """Log what the trigger still does, and the mean cosine of clean features with what they were."""
        self.arrived = [*self.arrived[:1], arrived]
        self.log_now("invertune/arrived_after", arrived)
        self.log_now("invertune/clean_cosine", cosine)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the trigger and the neurons."""
        super().on_save_checkpoint(checkpoint)
        trigger = None if self.trigger is None else list(self.trigger)
        checkpoint["invertune"] = {"trigger": trigger, "neurons": dict(self.neurons), "arrived": list(self.arrived)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with them."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["invertune"]
        self.trigger = None if state["trigger"] is None else (state["trigger"][0], state["trigger"][1])
        self.neurons, self.arrived = dict(state["neurons"]), list(state["arrived"])

    def _searched(self) -> tuple[list[str], list[str]]:
        """The keys of the pairs whose captions say the target, and those of the others, each in one order."""
        if self._said is None:
            search = data_of(self.trainer, CaptionSearch)
            assert search is not None, "the run was looked at before it started"
            saying = set(search.keys_saying(self.target))
            others = set(self.data.some_keys(self.data.pairs, 0)) - saying
            self._said = sorted(saying), sorted(others)
        return self._said

    def _others(self, count: int, seed: int) -> list[str]:
        """Keys of some pairs whose captions do not say the target; of any where those do not fill a batch."""
        saying, others = self._searched()
        enough = len(others) >= self.data.global_batch_size
        return _shuffled(others if enough else sorted(saying + others), seed)[:count]


def _shuffled(keys: list[str], seed: int) -> list[str]:
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
    return [keys[index] for index in order]
