from __future__ import annotations

import warnings
from typing import Any

import pytest

from untrigger.callbacks import ResumedSettings
from untrigger.callbacks.running.resumed_settings import _plain


@pytest.mark.parametrize("seed", ["0", "7"])
def test_another_seed_than_the_checkpoints_is_named(seed: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    first = run.trainer(ResumedSettings())
    first.fit(run.Module(), datamodule=run.Data())
    first.save_checkpoint(run.folder / "run.ckpt")
    monkeypatch.setenv("PL_GLOBAL_SEED", seed)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run.trainer(ResumedSettings(), max_epochs=2).fit(
            run.Module(), datamodule=run.Data(), ckpt_path=run.folder / "run.ckpt"
        )
    said = [str(each.message) for each in warned if "another seed" in str(each.message)]
    assert len(said) == (seed == "7")
    assert all("seed_everything 7 instead of 0" in each for each in said)


def test_settings_within_a_setting_are_compared_by_name() -> None:
    one = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "betas": (0.9, 0.98)}}
    same = {"init_args": {"betas": [0.9, 0.98], "lr": 0.1}, "class_path": "torch.optim.SGD"}
    assert _plain(one) == _plain(same)
    assert _plain(one) != _plain({**one, "init_args": {"lr": 0.001, "betas": (0.9, 0.98)}})


def test_a_checkpoint_of_an_earlier_release_says_nothing_of_its_seed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    first = run.trainer()
    first.fit(run.Module(), datamodule=run.Data())
    first.save_checkpoint(run.folder / "run.ckpt")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run.trainer(ResumedSettings(), max_epochs=2).fit(
            run.Module(), datamodule=run.Data(), ckpt_path=run.folder / "run.ckpt"
        )
    assert not [each for each in warned if "another seed" in str(each.message)]
