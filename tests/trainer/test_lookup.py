"""What one side asks of the other is looked up, never evaluated."""

from __future__ import annotations

from inspect import getmembers, isclass
from types import SimpleNamespace
from typing import Any

import pytest

from untrigger import contracts
from untrigger.contracts import GroundTruth, ImageTextData, PhasedModule, UserMistake, ZeroShotData
from untrigger.datamodules import ImageTextDataModule
from untrigger.trainer.lookup import data_of


def protocols() -> dict[str, Any]:
    return {name: kind for name, kind in getmembers(contracts, isclass) if getattr(kind, "_is_runtime_protocol", False)}


@pytest.mark.parametrize("name", protocols())
def test_no_property_is_evaluated_to_see_whether_it_is_there(name: str) -> None:
    kind = protocols()[name]
    evaluated = []
    members = {
        member: property(lambda self, member=member: evaluated.append(member))
        for member in vars(kind)
        if not member.startswith("_")
    }
    assert members
    assert isinstance(type("Answers", (), members)(), kind)
    assert not isinstance(type("Lacks", (), dict(list(members.items())[1:]))(), kind)
    assert not isinstance(None, kind)
    assert evaluated == []


def test_a_data_module_is_found_before_it_is_set_up() -> None:
    data = ImageTextDataModule()
    assert isinstance(data, ZeroShotData)
    trainer: Any = SimpleNamespace(datamodule=data)
    assert data_of(trainer, ZeroShotData) is data_of(trainer, ImageTextData) is data_of(trainer, GroundTruth) is data
    assert data_of(trainer, PhasedModule) is None
    assert data_of(SimpleNamespace(), ZeroShotData) is None  # type: ignore[arg-type]
    with pytest.raises(UserMistake, match="zero_shot is not given"):
        _ = data.class_prompts
