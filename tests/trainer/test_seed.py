from __future__ import annotations

import pytest

from untrigger.trainer.seed import run_seed


def test_a_seed_is_the_given_one_or_else_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_seed() == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert [run_seed(), run_seed(3), run_seed(0)] == [7, 3, 0]
