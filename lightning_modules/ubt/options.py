"""Groups of UBT's options, each of which looks at its own ranges."""

from __future__ import annotations

from dataclasses import dataclass

from ...contracts import UserMistake
from ..ranges import check_group


@dataclass(frozen=True)
class OverfitOptions:
    """How the paper's copy is overfitted. It is only made where a piece of evidence asks for it.

    Args:
        weak_share: Share of the pairs, those of weakest similarity, on which the copy is overfitted.
        epochs: Epochs of it.
        lr: Its learning rate.
    """

    weak_share: float = 0.1
    epochs: int = 5
    lr: float = 3e-4

    def __post_init__(self) -> None:
        check_group(self, "overfit", ("epochs",), ("lr",), ("weak_share",))


@dataclass(frozen=True)
class ProbeOptions:
    """How words are probed, and when one is found to hide a backdoor.

    Args:
        candidates: Most suspicious pairs of a word by each piece of evidence; half of them are pushed.
        doubtful_share: Share of each ranking of a word's pairs, the most suspicious, that is not held meanwhile.
        words_at_once: Words that are probed at once, at most.
        epochs: Epochs of a probe.
        steps: Steps of such an epoch.
        lr: Peak learning rate of it; a third of it where words that stand out are probed by themselves.
        significance: Largest p value at which a word is found, corrected for the number of tests.
        min_moved: Least share of the suspects of a found word that go to other words, of those that were not pushed.
        min_variety: Number of words (as the exponential of an entropy) to more than which they go. Odd pictures of a
            word go to one neighbour, or to two; under a trigger there is anything.
        min_fragility: Least loss of the lead that the suspects of a found word have over ordinary pairs (an ROC AUC)
            when pictures are gently changed; see ``fragility``. Benign ones lead as they show their word well.
        certain: Largest p value at which a word is found even without that; a thousand times as large where the word
            was probed by itself at the lower rate.
        retained_share: Share of a found word's pairs, those that fell least, that is retained.
    """

    candidates: int = 32
    doubtful_share: float = 0.125
    words_at_once: int = 16
    epochs: int = 3
    steps: int = 40
    lr: float = 3e-3
    significance: float = 0.001
    min_moved: float = 0.5
    min_variety: float = 2.0
    min_fragility: float = 0.3
    certain: float = 1e-7
    retained_share: float = 0.6

    def __post_init__(self) -> None:
        counts = ("candidates", "words_at_once", "epochs", "steps")
        check_group(self, "probe", counts, ("lr", "min_variety"), ("significance", "retained_share"))
        if not 0 <= self.min_moved <= 1:
            raise UserMistake(f"model.probe.min_moved is {self.min_moved}, not in [0, 1]")
        if not 0 <= self.certain <= 1:
            raise UserMistake(f"model.probe.certain is {self.certain}, not in [0, 1]")
        if not -1 <= self.min_fragility <= 1:
            raise UserMistake(f"model.probe.min_fragility is {self.min_fragility}, not in [-1, 1]")
        if not 0 <= self.doubtful_share < 1:
            raise UserMistake(f"model.probe.doubtful_share is {self.doubtful_share}, not in [0, 1)")


@dataclass(frozen=True)
class RepairOptions:
    """How what was found is unlearnt.

    Args:
        epochs: Epochs of a repair.
        steps: Steps of such an epoch.
        batch_size: Poisoned pairs of a step of each rank, and transplants; of a probe too.
        hold_weight: Weight of the cosine distance of benign pictures' features to the poisoned model's.
        repair_weight: Weight of the same distance for benign pictures that carry what suspects carry; with 0 the
            backdoor is pushed away and nothing says where its pictures belong, as in the paper.
        forget_weight: Weight of the forgetting loss.
    """

    epochs: int = 8
    steps: int = 20
    batch_size: int = 64
    hold_weight: float = 40.0
    repair_weight: float = 20.0
    forget_weight: float = 5.0

    def __post_init__(self) -> None:
        amounts = ("hold_weight", "repair_weight", "forget_weight")
        check_group(self, "repair", ("epochs", "steps", "batch_size"), amounts)
