"""``ubt.json`` comes back as it was left, and anything else is refused in a line."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from untrigger.contracts import UserMistake
from untrigger.run_folder.ubt import ProbedWord, UBTRecord

WORD = ProbedWord(0, "star \x1b[2J", "DetailMargin-0.03125", 0.5, 0.25, 1e-12, 3.5, -0.25, True)
ACQUITTED = replace(WORD, round=1, found=False, fragility=-0.25)
RECORD = UBTRecord(True, False, ["star \x1b[2J"], 50, 4, 10, [WORD, ACQUITTED])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    assert UBTRecord.read(tmp_path) == RECORD
    assert (RECORD.pairs, RECORD.left_out, RECORD.probes, RECORD.repairs, RECORD.verified) == (64, 14, 2, 1, True)


def test_a_repair_that_nobody_has_probed_is_not_verified() -> None:
    again = replace(WORD, round=1)
    record = replace(RECORD, verdicts=[WORD, again])
    assert (record.probes, record.repairs, record.verified) == (2, 2, False)
    given = replace(RECORD, given=True, verdicts=[])
    assert (given.probes, given.repairs, given.verified) == (0, 1, False)
    nothing = replace(RECORD, alarm=False, compromised=[], verdicts=[replace(WORD, found=False)])
    assert (nothing.probes, nothing.repairs, nothing.verified) == (1, 0, True)


def test_what_later_releases_add_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "ubt.json").write_text(json.dumps(asdict(RECORD) | {"later": 1}))
    assert UBTRecord.read(tmp_path) == RECORD


def test_a_record_from_before_the_second_witness_is_read(tmp_path: Path) -> None:
    content = asdict(RECORD)
    for verdict in content["verdicts"]:
        del verdict["fragility"]
    (tmp_path / "ubt.json").write_text(json.dumps(content))
    assert UBTRecord.read(tmp_path).verdicts == [WORD, replace(ACQUITTED, fragility=None)]


def changed(**values: Any) -> dict[str, Any]:
    return asdict(RECORD) | values


def of_word(**values: Any) -> dict[str, Any]:
    return changed(verdicts=[asdict(WORD) | values])


@pytest.mark.parametrize(
    "content",
    [
        *([], "text", None, {}, changed(alarm=1), changed(poisoned=-1), changed(poisoned=1.5), changed(poisoned=True)),
        *(changed(poisoned=1e999), changed(compromised="star"), changed(compromised=[{}]), changed(verdicts={})),
        *(changed(verdicts=[1]), of_word(word=["star"]), of_word(moved=1.5), of_word(p=float("nan"))),
        *(of_word(fall=-3), of_word(round="0"), of_word(variety=10**400), of_word(found="yes")),
        *(of_word(fragility=1.5), of_word(fragility="0"), of_word(fragility=float("nan"))),
    ],
)
def test_what_is_no_record_is_one_line(content: Any, tmp_path: Path) -> None:
    (tmp_path / "ubt.json").write_text(json.dumps(content))
    with pytest.raises(UserMistake, match=r"record of UBT .*ubt\.json") as reported:
        UBTRecord.read(tmp_path)
    assert "\n" not in str(reported.value)
    assert "\x1b" not in str(reported.value)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"[" * 100_000, b"{", b" " * (17 << 20)], ids=["utf16", "deep", "cut", "large"]
)
def test_a_file_that_breaks_parsers_is_one_line(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "ubt.json").write_bytes(text)
    with pytest.raises(UserMistake, match="record of UBT"):
        UBTRecord.read(tmp_path)
    with pytest.raises(UserMistake, match="record of UBT"):
        UBTRecord.read(tmp_path / "nowhere")
