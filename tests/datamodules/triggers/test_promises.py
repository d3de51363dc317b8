"""What a trigger of one's own has to keep to, told before training."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules import PoisonPlan
from untrigger.datamodules.triggers import BadNet, Blended, Trigger


class Corner(Trigger):
    """Grey in one corner, without faults."""

    def __init__(self, grey: int = 255) -> None:
        self.grey = grey

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        stamped = images.clone()
        stamped[:, :, -4:, -4:] = self.grey
        return stamped


class InPlace(Corner):
    """Would falsify the clean figures of an evaluation."""

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        images[:, :, -4:, -4:] = self.grey
        return images


class Floats(Corner):
    """Returns another type."""

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        return super().__call__(images, keys).float()


class Smaller(Corner):
    """Returns another size."""

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        return super().__call__(images, keys)[..., :-4]


class Forgets(Corner):
    """Keeps its argument under another name."""

    def __init__(self, shade: int = 255) -> None:
        super().__init__(shade)


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (InPlace(), "InPlace changes the pictures that it is given; it has to return new ones"),
        (Floats(), r"Floats makes torch.float32 \(2, 3, 32, 32\) of pictures; it has to return torch.uint8"),
        (Smaller(), r"Smaller makes torch.uint8 \(2, 3, 32, 28\) of pictures"),
        (Forgets(), "Forgets keeps no attribute 'shade'"),
    ],
)
def test_a_trigger_that_breaks_a_promise_is_refused(trigger: Trigger, message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        PoisonPlan(trigger, "red", rate=0.5).check(32)


@pytest.mark.parametrize("trigger", [Corner(), BadNet(), Blended()])
def test_a_trigger_that_keeps_them_passes(trigger: Trigger) -> None:
    PoisonPlan(trigger, "red", rate=0.5).check(32)


def test_a_plan_that_writes_eligible_has_the_captions_read() -> None:
    class Long(PoisonPlan):
        def eligible(self, caption: str) -> bool:
            return len(caption.split()) > 3

    class Longer(Long):
        pass

    class Blind(PoisonPlan):
        needs_captions = False

        def eligible(self, caption: str) -> bool:
            return True

    assert (PoisonPlan.needs_captions, Long.needs_captions, Longer.needs_captions) == (False, True, True)
    assert not Blind.needs_captions
    pairs = [(["a", "b", "c"], ["one two three four", "one", "five six seven eight"])]
    assert Longer(Corner(), "red", rate=1.0).choose(pairs) == ["a", "c"]
