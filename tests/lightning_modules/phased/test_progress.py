from __future__ import annotations

import pytest

from untrigger.lightning_modules.phased import progress
from untrigger.lightning_modules.phased.progress import Clock, Progress


def test_a_clock_counts_only_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    clock = Clock(5.0)
    now[0] += 7
    assert clock.seconds == 5
    clock.start()
    now[0] += 2
    assert clock.seconds == 7
    clock.start()  # it runs already
    now[0] += 1
    clock.stop()
    now[0] += 50
    clock.stop()  # it stands already
    assert clock.seconds == 8


def test_a_state_is_a_copy() -> None:
    progress = Progress()
    progress.enter("score")
    progress.step, progress.epoch_is_over = 3, True
    state = progress.state_dict()
    again = Progress.of_state(state)
    assert again == progress
    again.enter("score")
    assert (again.visits, again.step, progress.visits, state["visits"]) == ({"score": 2}, 0, {"score": 1}, {"score": 1})
    again.leave()
    assert (again.phase, again.done) == ("", True)
