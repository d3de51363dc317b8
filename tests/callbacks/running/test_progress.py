from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, CompactProgressBar, SamplesPerSecond


def test_progress_bar_shows_short_names(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    bar = CompactProgressBar()
    trainer = run.trainer(
        SamplesPerSecond(), CleanAccuracy(), AttackSuccessRate(), bar, enable_progress_bar=True,
        logger=CSVLogger(run.folder),
    )  # fmt: skip
    trainer.fit(run.Module(), datamodule=run.Data(train_batches=3))
    shown = bar.get_metrics(trainer, trainer.lightning_module)
    # SGD with 0.1 on w^2: w = 1, 0.8, 0.64 at the three steps.
    speed = f"{float(trainer.progress_bar_metrics['train/samples_per_second']):,.0f}"
    assert shown == {"loss": "0.410", "samples/s": speed, "CA": "57.1%", "ASR": "60.0%"}
    assert list(shown) == ["CA", "ASR", "loss", "samples/s"]  # the last is cut off first


def test_progress_bar_says_which_of_several_runs_this_is(run: Any) -> None:
    bar = CompactProgressBar(label="2/3", leave=True)
    run.trainer(bar, enable_progress_bar=True, max_epochs=1).fit(run.Module(), datamodule=run.Data(train_batches=1))
    assert bar._get_train_description(0).startswith("2/3 Epoch 0/0")


def test_progress_bar_reads_figures_twice_a_second_at_most(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("untrigger.callbacks.running.progress.perf_counter", lambda: now)
    bar = CompactProgressBar()
    trainer = run.trainer(bar, enable_progress_bar=True)
    trainer.training = True
    trainer.progress_bar_metrics["train/loss"] = 1.0
    assert bar.get_metrics(trainer, run.Module()) == {"loss": "1.000"}
    trainer.progress_bar_metrics["train/loss"] = 2.0
    now = 0.4
    assert bar.get_metrics(trainer, run.Module()) == {"loss": "1.000"}
    now = 0.6
    assert bar.get_metrics(trainer, run.Module()) == {"loss": "2.000"}


@pytest.mark.parametrize(("columns", "width"), [("80", 80), (None, 120)])
def test_progress_bar_keeps_to_one_line(
    run: Any, columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log is as wide as one line needs; what has no room on a narrow terminal is cut off at its end."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    bar = CompactProgressBar(label="1/3", leave=True)
    trainer = run.trainer(
        SamplesPerSecond(), CleanAccuracy(), AttackSuccessRate(), bar, enable_progress_bar=True, max_epochs=1
    )
    trainer.fit(run.Module(), datamodule=run.Data(train_batches=3))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("1/3 Epoch 0/0")
    assert "CA: 57.1% ASR: 60.0%" in lines[0]
    assert ("it/s" in lines[0], "samples/s" in lines[0]) == ((False, False) if columns else (True, True))
    assert len(lines[0].rstrip()) <= width
