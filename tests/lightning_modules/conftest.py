"""Two models for the tests of defences, and the tiny models of the encoders' tests."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from planted import Planted, plan, plant


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A model with a backdoor, and its data."""
    return plant(tmp_path_factory.mktemp("planted"), plan())


@pytest.fixture(scope="session")
def never_planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """One of the same clean data."""
    return plant(tmp_path_factory.mktemp("never-planted"), None)


_spec = spec_from_file_location("encoders_conftest", Path(__file__).parent / "encoders" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_models = module_from_spec(_spec)
_spec.loader.exec_module(_models)

siglip_folder, tiny_open_clip = _models.siglip_folder, _models.tiny_open_clip
