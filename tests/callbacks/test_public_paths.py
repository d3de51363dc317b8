"""Configs and scripts name callbacks by one path, wherever their files lie."""

from __future__ import annotations

import inspect

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback

from untrigger import callbacks

CLASSES = [name for name in callbacks.__all__ if inspect.isclass(getattr(callbacks, name))]
WHOLE = [
    name
    for name in CLASSES
    if issubclass(getattr(callbacks, name), Callback) and not inspect.isabstract(getattr(callbacks, name))
]


@pytest.mark.parametrize("name", WHOLE)
def test_a_saved_config_names_a_callback_by_its_public_path(name: str) -> None:
    parser = ArgumentParser()
    parser.add_argument("--callback", type=Callback)
    for given in (name, f"untrigger.callbacks.{name}"):
        parsed = parser.parse_args([f"--callback={given}"])
        assert f"class_path: untrigger.callbacks.{name}\n" in parser.dump(parsed)
        assert isinstance(parser.instantiate(parsed).callback, getattr(callbacks, name))


def test_state_in_checkpoints_is_under_the_names_of_classes() -> None:
    for name in WHOLE:
        kind = getattr(callbacks, name)
        assert kind.__qualname__ == name
        assert "." not in kind.__qualname__
