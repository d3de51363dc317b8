"""Does a run on a processor without bfloat16 arithmetic say so, and only there?"""

from __future__ import annotations

import pytest
import torch

from untrigger.command_line import number_formats


def test_arithmetic_is_measured_and_not_how_long_threads_take_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    number_formats.bfloat16_speedup.cache_clear()
    threads: list[int] = []
    monkeypatch.setattr(number_formats, "_seconds", lambda dtype: threads.append(torch.get_num_threads()) or 1.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert number_formats.bfloat16_speedup() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        number_formats.bfloat16_speedup.cache_clear()
    assert threads == [1, 1]


def test_the_speedup_is_measured_once() -> None:
    first = number_formats.bfloat16_speedup()
    assert first > 0
    assert number_formats.bfloat16_speedup() == first


@pytest.mark.parametrize(
    ("precision", "speedup", "reported"),
    [
        ("bf16-mixed", 0.2, "takes 5.0 times as long as in float32; --trainer.precision 32-true is faster here"),
        ("bf16-true", 0.5, "takes 2.0 times as long"),
        ("bf16-mixed", 1.9, None),
        ("32-true", 0.2, None),
        ("16-mixed", 0.2, "takes 5.0 times as long"),
        ("16-true", 0.2, None),
    ],
)
def test_an_emulated_precision_is_reported(
    precision: str, speedup: float, reported: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_formats, "bfloat16_speedup", lambda: speedup)
    said = number_formats.slow_precision(precision)
    assert (reported in said) if reported and said else said is reported
