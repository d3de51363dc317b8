from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from untrigger.commands.report.feature_space import embedding_maps, read_space, similarity_histograms
from untrigger.commands.report.figures import Tile, heat_map
from untrigger.commands.report.records import Record, records_of
from untrigger.commands.report.runs import read_runs
from untrigger.contracts import Attack, UserMistake
from untrigger.run_folder.evaluation import Evaluation, write_evaluation
from untrigger.run_folder.results import COLUMNS, add_results


def make_run(
    folder: Path, defence: str = "none", init_from: str | None = None, seed: int = 0, attack: str = "BadNet"
) -> Path:
    cells = ["cifar10", attack, defence, str(seed), "0.7", "0.9", "0.01", "0.1", "5", "7"]
    add_results(folder, [dict(zip(COLUMNS, cells, strict=True))])
    if init_from is not None:
        (folder / "config.yaml").write_text(f"model:\n  class_path: X\n  init_args: {{init_from: '{init_from}'}}\n")
    return folder


def records(*folders: Path) -> list[Record]:
    return records_of(read_runs(folders))


def reported(found: list[Record]) -> list[tuple[str, str, str | None]]:
    return [(record.attack, record.defence, record.before.run.name if record.before else None) for record in found]


def test_parent_is_the_run_whose_folder_holds_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parents = [make_run(tmp_path / name / "poisoned") for name in ("a", "b")]
    child = make_run(tmp_path / "cleaned", "CleanCLIP", "b/poisoned/last.ckpt")
    assert [record.before.run.name for record in records(*parents, child) if record.before] == ["b/poisoned"]


@pytest.mark.parametrize(
    ("init_from", "expected"),
    [
        ("/elsewhere/b/poisoned/last.ckpt", "b/poisoned"),
        ("../b/poisoned/last.ckpt", "b/poisoned"),
        ("/elsewhere/poisoned/last.ckpt", None),  # either
        ("/elsewhere/c/last.ckpt", None),
        ("x\0y", None),
        ("last.ckpt", None),
    ],
)
def test_parent_of_moved_runs_is_found_by_its_name(tmp_path: Path, init_from: str, expected: str | None) -> None:
    parents = [make_run(tmp_path / name / "poisoned") for name in ("a", "b")]
    child = make_run(tmp_path / "cleaned", "CleanCLIP")
    (child / "config.yaml").write_text(json.dumps({"model": {"init_from": init_from}}))
    before = records(*parents, child)[-1].before
    assert (before.run.name if before else None) == expected


def test_runs_that_name_each_other_end(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", "A", str(tmp_path / "two" / "last.ckpt"))
    two = make_run(tmp_path / "two", "B", str(tmp_path / "one" / "last.ckpt"))
    assert reported(records(one, two)) == [("BadNet", "A", "two"), ("BadNet", "B", "one")]


def test_seeds_of_a_setting_stay_together_and_other_settings_apart(tmp_path: Path) -> None:
    weak, strong = make_run(tmp_path / "weak-0"), make_run(tmp_path / "strong-0")
    again = make_run(tmp_path / "weak-1", seed=1)
    cleaned = make_run(tmp_path / "cleaned", "CleanCLIP", str(strong / "last.ckpt"))
    rates = [
        make_run(tmp_path / f"{name}-{seed}", "UBT", str(weak / "last.ckpt"), seed)
        for name, seed in (("slow", 0), ("fast", 0), ("fast", 1))
    ]
    assert reported(records(weak, strong, again, cleaned, *rates)) == [
        ("BadNet (weak)", "none", None),
        ("BadNet (strong)", "none", None),
        ("BadNet (weak)", "none", None),
        ("BadNet (strong)", "CleanCLIP", "strong-0"),
        ("BadNet (weak)", "UBT (slow)", "weak-0"),
        ("BadNet (weak)", "UBT (fast)", "weak-0"),
        ("BadNet (weak)", "UBT (fast)", "weak-0"),
    ]


def test_labels_and_parents_of_a_bench_are_taken(tmp_path: Path) -> None:
    one = make_run(tmp_path / "c1")
    (one / "cell.json").write_text(
        json.dumps({"cell": "c1", "attack": "BadNet 1 %", "defence": "none", "parent": None})
    )
    two = make_run(tmp_path / "c2", "SupervisedFinetune")
    cells = ["cifar10", "BadNet", "SupervisedFinetune-head", "0", "0.8", "0.1", "0.01", "0.1", "5", "7"]
    add_results(two, [dict(zip(COLUMNS, cells, strict=True))])
    (two / "cell.json").write_text(
        json.dumps({"cell": "c2", "attack": "BadNet 1 %", "defence": "finetuning", "parent": "c1", "peak_memory_mb": 5})
    )
    found = records(one, two)
    assert reported(found) == [
        ("BadNet 1 %", "none", None),
        ("BadNet 1 %", "finetuning", "c1"),
        ("BadNet 1 %", "finetuning-head", "c1"),
    ]
    assert [record.head for record in found] == [False, False, True]
    assert found[1].figures()["peak_memory_mb"] == 5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "model: !!python/object/apply:os.system ['touch hacked']"),
        ("config.yaml", "a: [" * 3000),
        ("cell.json", "{"),
        ("cell.json", '{"cell": 3}'),
        ("suspects.csv", '"' + "x" * 200_000),
    ],
)
def test_file_that_is_not_what_it_should_be_is_one_clear_line(tmp_path: Path, name: str, text: str) -> None:
    run = make_run(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(UserMistake, match=name.replace(".", r"\.")) as mistake:
        records(run)
    assert "\n" not in str(mistake.value)
    assert not Path("hacked").exists()


def with_evaluation(run: Path) -> Path:
    """Six pictures in three dimensions: the last two are of the target; triggered ones all lie on the first axis."""
    features = np.zeros((6, 3), dtype=np.float16)
    features[:4, 1], features[4:, 0] = 1, 1
    triggered = np.zeros((6, 3), dtype=np.float16)
    triggered[:, 0] = 1
    evaluation = Evaluation(
        "cifar10",
        ["ship", "car"],
        [Attack("BadNet", 1)],
        np.arange(6, dtype=np.uint64),
        np.array([0, 0, 0, 0, 1, 1]),
        np.array([0.5, 0.25, 0.5, 0.5, 0.75, np.nan], dtype=np.float16),
        features,
        {"BadNet": np.array([1, 1, 1, 0.5, 0, 0], dtype=np.float16)},
        {"BadNet": triggered},
    )
    write_evaluation(evaluation, run)
    return run


def test_similarities_and_projection_are_of_the_right_pictures(tmp_path: Path) -> None:
    (record,) = records(with_evaluation(make_run(tmp_path / "run")))
    space = read_space(record)
    assert space is not None
    assert (space.target, space.pictures) == ("car", 6)
    assert space.clean is not None
    assert space.clean.tolist() == [0.5, 0.25, 0.5, 0.5, 0.75]
    assert space.poisoned is not None
    assert space.poisoned.tolist() == [1, 1, 1, 0.5]  # of the pictures that are not cars
    assert space.projection is not None
    assert [
        len(points) for points in (space.projection.clean, space.projection.target, space.projection.triggered)
    ] == [*(4, 2, 4)]
    # Two points only, the square root of 2 apart: all variance lies on the first component.
    assert space.projection.shares == pytest.approx((1, 0), abs=1e-6)
    apart = np.linalg.norm(space.projection.clean[0] - space.projection.triggered[0])
    assert apart == pytest.approx(2**0.5, abs=1e-3)
    figures = [similarity_histograms([("a", space)] * 3), embedding_maps([("a", space)] * 3)]
    assert [len(figure.axes) for figure in figures if figure is not None] == [3, 3]


def test_what_was_not_kept_of_this_attack_and_test_set_is_not_shown(tmp_path: Path) -> None:
    run = with_evaluation(make_run(tmp_path / "run", attack="Blended"))
    assert read_space(records(run)[0]) is None
    assert similarity_histograms([]) is None
    assert embedding_maps([]) is None


def test_heat_map_has_a_tile_for_each_cell_and_says_what_it_cost() -> None:
    tiles = {
        ("A", "none"): Tile(0.99, 0.8, None),
        ("A", "UBT"): Tile(0.02, 0.79, -0.01),
        ("B", "UBT"): Tile(0.5, None, None),
    }
    axes = heat_map(["A", "B"], ["none", "UBT"], tiles).axes[0]
    assert [text.get_text() for text in axes.texts] == [
        *("99.0 %", "CA 80.0 %"),
        *("2.0 %", "CA \N{MINUS SIGN}1.0"),
        "50.0 %",
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["no defence", "UBT"]
    values = np.asarray(axes.images[0].get_array().filled(np.nan))
    assert np.isnan(values[1, 0])
    assert values[0].tolist() == [99.0, 2.0]
    repaired = heat_map(["A"], ["UBT"], {("A", "UBT"): Tile(0.02, 0.79, -0.01, floor=0.03, recovered=0.951)}).axes[0]
    assert [text.get_text() for text in repaired.texts] == [
        *("2.0 %", "floor 3.0 %", "CA \N{MINUS SIGN}1.0", "rec. 95 %"),
    ]
    assert len({text.get_position() for text in repaired.texts}) == 4
