"""Does the seed of a run reach what methods draw, where their own is not given?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vision_transformers import small_vit

from untrigger.lightning_modules import ABL, DECREE, RVPT, TBAR, BadCLIP, InverTune, LocalDensityCLIP, PairDetectors

NANO = "small:nano-32"
SEEDED: dict[str, Callable[..., Any]] = {
    "ABL": lambda **seed: ABL(NANO, **seed).phases["isolate"].seed,
    "BadCLIP": lambda **seed: BadCLIP(NANO, "star", **seed).patch.sum().item(),
    "DECREE": lambda **seed: DECREE(NANO, **seed).logits.sum().item(),
    "InverTune": lambda **seed: [phase.seed for phase in InverTune(NANO, **seed).phases.values()],
    "LocalDensityCLIP": lambda **seed: LocalDensityCLIP(NANO, **seed).seed,
    "PairDetectors": lambda **seed: PairDetectors(NANO, **seed).seed,
    "TBAR": lambda **seed: TBAR(NANO, given=__file__, **seed).phases["finetune"].seed,  # any lines are keys
}


def drawn_by_rvpt(folder: Path, **seed: int) -> float:
    prompted = RVPT(f"hf:{small_vit(folder)}", prompt_length=2, **seed)
    return float(sum(part.sum() for name, part in prompted.state_dict().items() if "prompt" in name))


@pytest.mark.parametrize("method", [*SEEDED, "RVPT"])
def test_what_a_method_draws_follows_the_run_unless_its_seed_is_given(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = SEEDED.get(method, lambda **seed: drawn_by_rvpt(tmp_path, **seed))
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    of_the_run, given = drawn(), drawn(seed=3)
    assert drawn(seed=7) == of_the_run != given
    monkeypatch.setenv("PL_GLOBAL_SEED", "8")
    assert drawn(seed=3) == given
    assert drawn() != of_the_run
