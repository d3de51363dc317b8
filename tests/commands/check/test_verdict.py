from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from untrigger.commands.check import verdict as verdict_module
from untrigger.commands.check.calibration import NOT_MEASURED, Calibration, Situation, read_calibration
from untrigger.commands.check.examination import Inversion, Pairs
from untrigger.commands.check.verdict import Verdict
from untrigger.commands.proportion import Proportion
from untrigger.run_folder.ubt import ProbedWord


def pairs(alarm: bool) -> Pairs:
    return Pairs(alarm, 100, 5 * alarm, 2 * alarm, [], [], {})


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],  # the last from Newcombe 1998, table I
)
def test_the_interval_is_wilsons(count: int, of: int, low: float, high: float) -> None:
    assert Proportion(count, of).interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("found", "norm", "suspicious"), [(True, 0.0, True), (True, 1.0, False), (False, 0.0, False)])
def test_without_data_a_small_trigger_decides(found: bool, norm: float, suspicious: bool) -> None:
    verdict = Verdict("m.pt", "small:base-32", None, Inversion(found, 1.0, norm), None, 1.0)
    assert verdict.suspicious is suspicious
    assert verdict.exit_code == (3 if suspicious else 0)
    assert verdict.next_steps[0][1].startswith("untrigger check m.pt SHARDS")


def test_with_data_the_data_decides_whatever_was_inverted() -> None:
    verdict = Verdict("m.pt", "small:base-32", pairs(False), Inversion(True, 1.0, 0.0), "s.tar", 1.0)
    assert verdict.exit_code == 0
    assert not any(command for _, command in verdict.next_steps)


def test_commands_can_be_pasted_whatever_the_names_are() -> None:
    model, shards = "my model;rm -rf $HOME.pt", "s/{00000..00001}.tar"
    verdict = Verdict(model, "small:base-32", pairs(True), None, shards, 1.0)
    (command,) = [command for _, command in verdict.next_steps if command.startswith("untrigger")]
    assert shlex.split(command) == ["untrigger", "clean", model, shards, "cleaned"]


def test_the_gravest_words_are_those_that_were_found_and_each_is_there_once() -> None:
    def probed(word: str, p: float, found: bool, at: int = 0) -> ProbedWord:
        return ProbedWord(at, word, "DetailMargin", 0.5, 0.1, p, 3.0, 0.2, found)

    quiet = [probed(word, p, False) for word, p in (("a", 0.5), ("b", 0.1), ("a", 0.2), ("c", 0.9), ("d", 1.0))]
    assert [(word.word, word.p) for word in replace(pairs(False), verdicts=quiet).gravest] == [
        ("b", 0.1),
        ("a", 0.2),
        ("c", 0.9),
    ]
    loud = [*quiet, probed("c", 0.01, True), probed("e", 1e-9, True, at=1)]
    assert [(word.word, word.p) for word in replace(pairs(True), verdicts=loud).gravest] == [("c", 0.01)]


def test_what_training_without_the_suspects_costs_is_reported() -> None:
    verdict = Verdict("m.pt", "small:base-32", pairs(True), None, "s.tar", 1.0)
    (reported,) = [what for what, command in verdict.next_steps if command == "--data.exclude suspects.csv"]
    assert "without the 7 of 100 pairs" in reported
    assert verdict.as_json()["pairs"]["left_out"] == 7


def test_rates_of_other_encoders_are_said_to_be_a_hint() -> None:
    found = Inversion(True, 1.0, 0.0)
    known, other = (Verdict("m", name, None, found, None, 1.0) for name in ("small:base-32", "hf:clip"))
    assert known.calibrated
    assert len(known.uncertainty) == 1
    assert not other.calibrated
    assert "None of them was of this kind (hf:clip)" in other.uncertainty[1]


@pytest.mark.parametrize("with_data", [True, False])
def test_the_check_knows_what_it_was_tried_on(with_data: bool) -> None:
    tried = read_calibration(with_data)
    for share in (tried.false_alarms, tried.detections):
        assert 0 <= share.count <= share.of
    assert (tried.threshold is None) == with_data
    assert all(0 <= situation.alarms <= situation.models for situation in tried.situations)
    assert tried.measured == (tried.false_alarms.of + tried.detections.of > 0)


def test_what_was_not_measured_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Calibration("small:base-32", None, ())
    monkeypatch.setattr(verdict_module, "read_calibration", lambda with_data: nothing)
    verdict = Verdict("m", "small:base-32", pairs(True), None, "s", 1.0)
    assert not verdict.calibrated
    assert [NOT_MEASURED in sentence for sentence in verdict.uncertainty] == [True]
    assert verdict.as_json()["calibration"]["measured"] is False


def test_situations_add_up() -> None:
    found = Calibration(
        "small:base-32",
        None,
        (Situation("clean", False, 5, 1), Situation("BadNet", True, 3, 3), Situation("SIG", True, 2, 1)),
    )
    assert (found.false_alarms, found.detections) == (Proportion(1, 5), Proportion(4, 5))
