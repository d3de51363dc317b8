"""Groups of InverTune's options, each of which looks at its own ranges."""

from __future__ import annotations

from dataclasses import dataclass

from ..ranges import check_group


@dataclass(frozen=True)
class PatchOptions:
    """How the universal adversarial patch is learnt that names the target.

    Args:
        share: Share of the picture's area that the patch covers, in (0, 1].
        epochs: Epochs of its training.
        steps: Batches of such an epoch.
        lr: Rate of Adam, for pixels in [0, 1].
        caption_weight: Weight of the term that drives pictures away from their captions, beside the one that drives
            them away from their own features.
        temperature: Temperature of both terms.
        counted_pairs: Pictures on which the predictions are counted, with the patch and without.
    """

    share: float = 0.03
    epochs: int = 4
    steps: int = 50
    lr: float = 0.05
    caption_weight: float = 5.0
    temperature: float = 0.1
    counted_pairs: int = 2000

    def __post_init__(self) -> None:
        counts = ("epochs", "steps", "counted_pairs")
        check_group(self, "patch", counts, ("lr", "caption_weight"), ("share", "temperature"))


@dataclass(frozen=True)
class InversionOptions:
    """How the trigger of the named target is inverted.

    Args:
        epochs: Epochs of it.
        steps: Batches of such an epoch, with one step of the optimiser each.
        lr: Rate of Adam, for a mask and a pattern in [0, 1].
        target_weight: Weight of the cross entropy of the target.
        alignment_weight: Weight of the distance to features of the target's pictures.
        similarity_weight: Weight of one minus the structural similarity to the picture without the trigger.
        mask_weight: Weight of the mask's L1 norm, which is a sum over pixels and channels.
        temperature: Temperature of the cross entropy.
        target_pairs: Pictures of the target that are embedded, at most.
    """

    epochs: int = 10
    steps: int = 20
    lr: float = 0.01
    target_weight: float = 5.0
    alignment_weight: float = 0.5
    similarity_weight: float = 1.0
    mask_weight: float = 0.01
    temperature: float = 0.07
    target_pairs: int = 256

    def __post_init__(self) -> None:
        amounts = ("lr", "target_weight", "alignment_weight", "similarity_weight", "mask_weight")
        check_group(self, "inversion", ("epochs", "steps", "target_pairs"), amounts, ("temperature",))


@dataclass(frozen=True)
class TuningOptions:
    """How the neurons that the trigger needs are found and tuned.

    Args:
        layers: How many layers are tuned for, those that the trigger changes most.
        reference_pairs: Pictures on which layers and neurons are chosen, and on which the trigger is tried in the end.
        epochs: Epochs of the tuning.
        steps: Batches of such an epoch.
        final_share: The rate in the end, as a share of ``lr``, in (0, 1].
        alignment_weight: Weight of the distance of activations with the trigger to those without.
        preservation_weight: Weight of the distance of clean pictures' features to the poisoned model's.
    """

    layers: int = 3
    reference_pairs: int = 512
    epochs: int = 4
    steps: int = 50
    final_share: float = 0.05
    alignment_weight: float = 1.0
    preservation_weight: float = 0.5

    def __post_init__(self) -> None:
        counts, amounts = ("layers", "reference_pairs", "epochs", "steps"), ("alignment_weight", "preservation_weight")
        check_group(self, "tuning", counts, amounts, ("final_share",))
