from __future__ import annotations

import random

import pytest
import torch

from untrigger.lightning_modules.detection import AdaptiveCost


def by_hand(successes: list[bool], patience: int, floor: float, ceiling: float) -> list[float]:
    """The schedule step by step, as the docstring words it."""
    value, up, down, low, course = 1e-3, 0, 0, 0, []
    for success in successes:
        if value < floor and success:
            low += 1
            if low > 2 * patience:
                value, up, down = 1e-3, 0, 0
        else:
            low = 0
        up, down = (up + 1, 0) if success else (0, down + 1)
        if up > patience:
            value, up = value * 5 if value < ceiling else value, 0
        elif down > patience:
            value, down = value / 5 if value >= floor else value, 0
        course.append(value)
    return course


@pytest.mark.parametrize("luck", [0.05, 0.5, 0.9, 0.97])
def test_the_course_of_the_weight(luck: float) -> None:
    chance = random.Random(0)
    # Long runs of failure first, so that the floor is passed and the weight put back.
    successes = [False] * 30 + [chance.random() < luck for _ in range(300)] + [True] * 60
    cost = AdaptiveCost(patience=2, floor=1e-5, ceiling=10.0)
    course = []
    for success in successes:
        cost.update(torch.tensor(success))
        course.append(float(cost.value))
    assert course == pytest.approx(by_hand(successes, 2, 1e-5, 10.0), rel=1e-4)
    assert min(course) < 1e-5
    assert max(course) > 10.0


def test_it_is_put_back_from_below_the_floor() -> None:
    cost = AdaptiveCost(patience=20, floor=5e-4)
    for _ in range(21):
        cost.update(torch.tensor(False))
    assert float(cost.value) == pytest.approx(2e-4)
    values = []
    for _ in range(41):
        cost.update(torch.tensor(True))
        values.append(float(cost.value))
    # Raised after 21 successes, above the floor again.
    assert values[19] == pytest.approx(2e-4)
    assert values[20] == pytest.approx(1e-3)


def test_a_checkpoint_resumes_where_it_was() -> None:
    first, second = AdaptiveCost(patience=3), AdaptiveCost(patience=3)
    for _ in range(3):
        first.update(torch.tensor(True))
    second.load_state_dict(first.state_dict())
    second.update(torch.tensor(True))
    assert float(second.value) == pytest.approx(5e-3)
