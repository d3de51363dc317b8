"""InverTune's phases after the inversion: locate the neurons that the trigger needs, tune them, try the trigger."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...contracts import ImageTextBatch
from ..frozen import FrozenEncoder
from ..optimisation import warmup_cosine
from ..phased import Phase
from ..phased.sums import PassSums
from .neurons import halves, higher_cluster, most_changed, relative_change, watched
from .options import TuningOptions
from .state import InverTuneState


class TriedTrigger(Phase[InverTuneState]):
    """Stamps the inverted trigger on clean pictures, and sums up over them. Nothing is learnt.

    Args:
        name: Name of the phase.
        pairs: Number of pairs whose pictures are stamped; their captions do not name the target.
        seed: Seed with which they are drawn.
    """

    def __init__(self, name: str, pairs: int, seed: int) -> None:
        super().__init__(name)
        self.pairs, self.seed = pairs, seed
        self._sums = PassSums()

    def begin(self, module: InverTuneState) -> None:
        """Start with nothing."""
        self._sums = PassSums()

    def select(self, module: InverTuneState, epoch: int) -> None:
        """Some pairs, as they are in the shards."""
        module.select_others_in_order(self.pairs, self.seed)

    def prepare(self, module: InverTuneState) -> None:
        """Embed the classes, and put the trigger on the device."""
        module.embed_classes()
        module.place_trigger()

    def repeat(self, module: InverTuneState) -> None:
        """Start with nothing: each picture counts once."""
        self._sums = PassSums()

    def try_trigger(self, module: InverTuneState, features: Tensor) -> None:
        """Count the pictures that the trigger sends to the target.

        Args:
            module: The run.
            features: Features, ``(B, D)``, of the triggered pictures.
        """
        taken = module.class_cosines(features).argmax(dim=1)
        arrived = (taken == module.classnames.index(module.target)).sum()
        self._sums.add({"arrived": arrived, "pictures": torch.full((), len(features), device=features.device)})

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, of all ranks."""
        return self._sums.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with them."""
        self._sums.load_state_dict(state_dict, rank)


class Locate(TriedTrigger):
    """Finds the layers that the trigger changes most, and in each of them the neurons that it needs.

    Args:
        options: How many layers, and how many pictures.
        seed: Seed with which they are drawn.
    """

    def __init__(self, options: TuningOptions, seed: int) -> None:
        super().__init__("locate", options.reference_pairs, seed)
        self.layers = options.layers

    def step(self, module: InverTuneState, batch: ImageTextBatch, batch_idx: int) -> None:
        """Add up what each layer answers."""
        count = len(batch["key"])
        tower = module.encoder.image_tower
        with module.evaluating(), watched(tower, module.candidates) as answers:
            features = module.encode_image(torch.cat([batch["image"], module.stamped(batch["image"])]))
        sums: dict[str, Tensor] = {}
        for name, answer in answers.items():
            clean, triggered = halves(answer, count)
            sums |= {f"clean {name}": count * clean, f"triggered {name}": count * triggered}
        self._sums.add(sums)
        self.try_trigger(module, features[count:])

    def end(self, module: InverTuneState) -> str:
        """Choose layers and neurons."""
        sums = self._sums.totals()
        clean, triggered = (
            {name: sums[f"{kind} {name}"] / sums["pictures"] for name in module.candidates}
            for kind in ("clean", "triggered")
        )
        layers = most_changed(clean, triggered, self.layers)
        neurons = {name: higher_cluster((triggered[name] - clean[name]).abs()) for name in layers}
        module.keep_neurons(neurons, float(sums["arrived"] / sums["pictures"]))
        return "tune"


class Tune(Phase[InverTuneState]):
    """Tunes the image tower until these neurons answer the trigger as they answer without it.

    Args:
        options: How the neurons are tuned.
        lr: Initial learning rate of AdamW; a cosine lowers it to a share of it.
        seed: Seed with which pairs are drawn.
    """

    learning = ("image",)

    def __init__(self, options: TuningOptions, lr: float, seed: int) -> None:
        super().__init__("tune", options.epochs, lr)
        self.options, self.seed = options, seed
        self._before: FrozenEncoder | None = None
        self._neurons: dict[str, Tensor] = {}
        self._steps = 1

    def select(self, module: InverTuneState, epoch: int) -> None:
        """Some pairs, others in each epoch, of any class."""
        pairs = module.select_some(self.options.steps, self.seed + epoch)
        self._steps = self.epochs * max(pairs // module.data.global_batch_size, 1)

    def prepare(self, module: InverTuneState) -> None:
        """Keep a copy of the poisoned model, and put trigger and neurons on the device."""
        self._before = FrozenEncoder(module.encoder, module.initial)
        module.place_trigger()
        self._neurons = {name: mask.to(module.device) for name, mask in module.neurons.items()}

    def learning_rate(self, module: InverTuneState, step: int) -> float:
        """A cosine over all steps, from the rate to a share of it."""
        falling = warmup_cosine(step, 0, self._steps)
        return self.lr * (self.options.final_share + (1 - self.options.final_share) * falling)

    def step(self, module: InverTuneState, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The distance of answers with the trigger to those without, and of clean features to what they were."""
        assert self._before is not None, "the phase was prepared"
        count, images = len(batch["key"]), batch["image"]
        with watched(module.encoder.image_tower, list(self._neurons)) as answers:
            features = module.encode_image(torch.cat([images, module.stamped(images)]))
        changes = []
        for name, mask in self._neurons.items():
            clean, triggered = halves(answers[name], count)
            changes.append(relative_change(clean * mask, triggered * mask))
        parts = {
            "alignment": torch.stack(changes).sum(),
            "preservation": (features[:count] - self._before.encode_image(images)).norm(),
        }
        module.log_parts(**parts)
        weights = (self.options.alignment_weight, self.options.preservation_weight)
        loss: Tensor = weights[0] * parts["alignment"] + weights[1] * parts["preservation"]
        return loss

    def end(self, module: InverTuneState) -> str:
        """Measure what the trigger still does."""
        return "try"


class Try(TriedTrigger):
    """Sees whether the inverted trigger still works, and how far clean pictures have moved.

    Args:
        options: How many pictures are used.
        seed: Seed with which they are drawn.
    """

    evaluated = True

    def __init__(self, options: TuningOptions, seed: int) -> None:
        super().__init__("try", options.reference_pairs, seed)
        self._before: FrozenEncoder | None = None

    def prepare(self, module: InverTuneState) -> None:
        """Keep a copy of the poisoned model too."""
        super().prepare(module)
        self._before = FrozenEncoder(module.encoder, module.initial)

    def step(self, module: InverTuneState, batch: ImageTextBatch, batch_idx: int) -> None:
        """Try the trigger on a batch."""
        assert self._before is not None, "the phase was prepared"
        with module.evaluating():
            triggered = module.encode_image(module.stamped(batch["image"]))
            clean, before = module.encode_image(batch["image"]), self._before.encode_image(batch["image"])
        self._sums.add({"cosine": (clean * before).sum()})
        self.try_trigger(module, triggered)

    def end(self, module: InverTuneState) -> None:
        """The run is over."""
        sums = self._sums.totals()
        module.tried(float(sums["arrived"] / sums["pictures"]), float(sums["cosine"] / sums["pictures"]))
