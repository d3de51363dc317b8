"""Two models for the tests of defences."""

from __future__ import annotations

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
