from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.ubt import OverfitOptions, ProbeOptions, RepairOptions


@pytest.mark.parametrize("options", [OverfitOptions, ProbeOptions, RepairOptions])
def test_the_usual_options_are_in_range_and_stay_so(options: type[Any]) -> None:
    usual = options()
    with pytest.raises(FrozenInstanceError):
        usual.epochs = 0


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (OverfitOptions, {"weak_share": 0.0}, r"model\.overfit\.weak_share is 0\.0"),
        (OverfitOptions, {"weak_share": 1.1}, r"model\.overfit\.weak_share is 1\.1"),
        (OverfitOptions, {"epochs": 0}, r"model\.overfit\.epochs is 0, not at least 1"),
        (OverfitOptions, {"lr": -1e-4}, r"model\.overfit\.lr is -0\.0001"),
        (ProbeOptions, {"candidates": 0}, r"model\.probe\.candidates is 0, not at least 1"),
        (ProbeOptions, {"steps": 0}, r"model\.probe\.steps is 0"),
        (ProbeOptions, {"epochs": -1}, r"model\.probe\.epochs is -1"),
        (ProbeOptions, {"doubtful_share": 1.0}, r"model\.probe\.doubtful_share is 1\.0, not in \[0, 1\)"),
        (ProbeOptions, {"doubtful_share": -0.1}, r"model\.probe\.doubtful_share is -0\.1"),
        (ProbeOptions, {"doubtful_share": float("nan")}, r"model\.probe\.doubtful_share is nan"),
        (ProbeOptions, {"significance": 0.0}, r"model\.probe\.significance is 0\.0"),
        (ProbeOptions, {"significance": 2.0}, r"model\.probe\.significance is 2\.0"),
        (ProbeOptions, {"retained_share": 0.0}, r"model\.probe\.retained_share is 0\.0"),
        (ProbeOptions, {"min_variety": float("nan")}, r"model\.probe\.min_variety is nan"),
        (RepairOptions, {"epochs": 0}, r"model\.repair\.epochs is 0"),
        (RepairOptions, {"batch_size": 0}, r"model\.repair\.batch_size is 0"),
        (RepairOptions, {"hold_weight": -1.0}, r"model\.repair\.hold_weight is -1\.0"),
        (RepairOptions, {"forget_weight": float("nan")}, r"model\.repair\.forget_weight is nan"),
        (ProbeOptions, {"words_at_once": 0}, r"model\.probe\.words_at_once is 0"),
    ],
)
def test_options_out_of_range_are_reported_by_name(options: type[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        options(**arguments)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (OverfitOptions, {"weak_share": 1.0}),
        (ProbeOptions, {"doubtful_share": 0.0}),
        (ProbeOptions, {"retained_share": 1.0, "significance": 1.0}),
        (RepairOptions, {"repair_weight": 0.0}),
        (RepairOptions, {"hold_weight": 0.0, "forget_weight": 0.0}),
    ],
)
def test_the_ends_of_the_ranges_are_allowed(options: type[Any], arguments: dict[str, Any]) -> None:
    made = options(**arguments)
    assert {name: getattr(made, name) for name in arguments} == arguments
