from __future__ import annotations

from pathlib import Path

from untrigger.commands.bench.same_data import told_data


def test_figures_of_other_shards_are_told(tmp_path: Path) -> None:
    runs, data = tmp_path / "runs", tmp_path / "data"
    (data / "train").mkdir(parents=True)
    (data / "train" / "0.tar").write_bytes(bytes(512))
    assert told_data(runs, str(data), begins=False) is None
    assert not runs.exists()  # whoever only makes the tables leaves nothing
    assert told_data(runs, str(data), begins=True) is None
    moved = data.rename(tmp_path / "moved")
    assert told_data(runs, str(moved), begins=True) is None
    (moved / "train" / "1.tar").write_bytes(bytes(512))
    for _ in range(2):
        line = told_data(runs, str(moved), begins=True)
        assert line is not None
        assert line.startswith(f"{moved} has other shards than the runs in {runs} were begun on")
    assert told_data(tmp_path / "others", str(moved), begins=True) is None
    assert told_data(runs, None, begins=True) is None
    assert told_data(runs, "https://example.org/data", begins=True) is None
