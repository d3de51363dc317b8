from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from untrigger.commands.bench.grid import Cell, expand
from untrigger.commands.bench.records import command
from untrigger.commands.bench.specification import BenchSpec
from untrigger.contracts import UserMistake

BADNET = {"class_path": "PoisonPlan", "init_args": {"target": "dog", "seed": "${seed}", "trigger": "BadNet"}}


def cells_of(**changes: Any) -> list[Cell]:
    """The cells of a bench file with these keys."""
    content = {
        "name": "grid",
        "data": "pictures",
        "every": {"data": {"zero_shot": "${data}"}},
        "train": {"config": "poisoned_clip/cifar10.yaml"},
        "attacks": {"BadNet": {"poison": BADNET}},
        "defences": {"CleanCLIP": {"config": "cleanclip/cifar10.yaml"}},
        "twins": False,
        **changes,
    }
    parser = ArgumentParser()
    parser.add_class_arguments(BenchSpec, "spec")
    return expand(parser.instantiate(parser.parse_object({"spec": content})).spec)


def argument(cell: Cell, name: str) -> str:
    """What an option of a cell is, its last value as for the command line."""
    indices = [index for index, word in enumerate(cell.arguments) if word == name]
    return cell.arguments[indices[-1] + 1]


def test_defences_come_after_the_poisoned_model_that_they_share() -> None:
    found = cells_of(seeds=[3, 4], defences={name: {"config": "cleanclip/cifar10.yaml"} for name in ("a", "b")})
    assert [cell.name for cell in found] == [
        "BadNet-seed3",
        "BadNet-seed3--a",
        "BadNet-seed3--b",
        "BadNet-seed4",
        "BadNet-seed4--a",
        "BadNet-seed4--b",
    ]
    assert found[1].needs == found[2].needs == {"poisoned": found[0]}


def test_a_defence_from_scratch_sees_the_poison_and_not_the_poisoned_model() -> None:
    robust = {"config": "roclip/cifar10.yaml", "from_scratch": True, "sees_poison": True}
    poisoned, trained = cells_of(defences={"RoCLIP": robust})
    assert "--model.init_from" not in trained.arguments
    assert argument(trained, "--data.poison") == argument(trained, "--data.attack") == "${poisoned}/poison.json"
    assert trained.needs == {"poisoned": poisoned}
    again, after = cells_of(
        defences={"RoCLIP": robust, "then": {"config": "cleanclip/cifar10.yaml", "start": "RoCLIP"}}
    )[1:]
    assert again.id == trained.id
    assert argument(after, "--model.init_from") == "${before}/last.ckpt"


@pytest.mark.parametrize("changes", [{"sees_poison": False}, {"start": "other"}])
def test_from_scratch_it_has_to_see_the_poison_and_starts_from_nothing(changes: dict[str, Any]) -> None:
    robust = {"config": "roclip/cifar10.yaml", "from_scratch": True, "sees_poison": True, **changes}
    with pytest.raises(UserMistake, match="defence RoCLIP is from_scratch: set sees_poison to true and leave start"):
        cells_of(defences={"RoCLIP": robust, "other": {"config": "cleanclip/cifar10.yaml"}})


def test_arguments_are_those_of_the_command_line() -> None:
    poisoned, cleaned = cells_of(seeds=[7])
    assert argument(poisoned, "--data.poison") == "PoisonPlan"
    assert argument(poisoned, "--data.poison.trigger") == "BadNet"
    assert argument(poisoned, "--data.poison.seed") == argument(poisoned, "--seed_everything") == "7"
    assert argument(cleaned, "--model.init_from") == "${poisoned}/last.ckpt"
    assert argument(cleaned, "--data.attack") == "${poisoned}/poison.json"
    assert argument(cleaned, "--data.zero_shot") == "${data}"


def test_init_args_may_be_left_out() -> None:
    long = cells_of(train={"config": "poisoned_clip/cifar10.yaml", "model": {"init_args": {"lr": 0.5}}})
    short = cells_of(train={"config": "poisoned_clip/cifar10.yaml", "model": {"lr": 0.5}})
    assert [cell.id for cell in long] == [cell.id for cell in short]
    assert argument(short[0], "--model.lr") == "0.5"


def test_rates_and_targets_are_axes_with_labels_of_their_own() -> None:
    found = cells_of(rates=[0.01, 0.003], targets=["dog", "cat"], defences={})
    assert [cell.attack for cell in found] == [
        "BadNet-1%-dog",
        "BadNet-1%-cat",
        "BadNet-0.3%-dog",
        "BadNet-0.3%-cat",
    ]
    assert (argument(found[3], "--data.poison.rate"), argument(found[3], "--data.poison.target")) == ("0.003", "cat")
    assert len({cell.id for cell in found}) == 4


def test_an_attack_has_its_own_axes_before_those_of_the_bench() -> None:
    found = cells_of(seeds=[0, 1], attacks={"BadNet": {"poison": BADNET, "seeds": [5]}}, defences={})
    assert [cell.seed for cell in found] == [5]


def test_a_defence_may_be_tried_on_some_attacks_and_seeds() -> None:
    found = cells_of(
        seeds=[0, 1],
        attacks={"BadNet": {"poison": BADNET}, "other": {"poison": BADNET}},
        defences={"CleanCLIP": {"config": "cleanclip/cifar10.yaml", "attacks": ["other"], "seeds": [1]}},
    )
    assert [cell.name for cell in found if cell.defence != "none"] == ["other-seed1--CleanCLIP"]


def test_a_defence_may_start_from_another() -> None:
    defences = {
        "second": {"config": "cleanclip/cifar10.yaml", "start": "first"},
        "first": {"config": "cleanclip/finetune_cifar10.yaml"},
    }
    found = {cell.name: cell for cell in cells_of(defences=defences)}
    second = found["BadNet-seed0--second"]
    assert argument(second, "--model.init_from") == "${before}/last.ckpt"
    assert argument(second, "--data.attack") == "${poisoned}/poison.json"
    assert second.parent == found["BadNet-seed0--first"]
    assert list(found).index("BadNet-seed0--first") < list(found).index("BadNet-seed0--second")


def test_a_preparation_runs_once_for_a_seed_and_is_not_in_the_table() -> None:
    patch = {"class_path": "PoisonPlan", "init_args": {"target": "dog", "trigger": {"class_path": "my.Patch"}}}
    patch["init_args"]["trigger"]["init_args"] = {"picture": "${patch}/patch.png"}  # type: ignore[index]
    found = cells_of(
        seeds=[0, 1],
        attacks={name: {"poison": patch} for name in ("one", "two")},
        preparations={"patch": {"config": "supervised/cifar10.yaml"}},
        defences={},
    )
    prepared = [cell for cell in found if not cell.listed]
    assert [cell.name for cell in prepared] == ["patch-seed0", "patch-seed1"]
    assert [cell.needs["patch"].name for cell in found if cell.listed] == 2 * ["patch-seed0", "patch-seed1"]


def test_a_clean_model_has_no_attack_to_measure() -> None:
    clean, cleaned = cells_of(attacks={"clean": {}})
    assert argument(clean, "--data.poison") == "null"
    assert "--data.attack" not in cleaned.arguments


def test_a_defence_that_sees_the_poison_is_given_that_of_its_model_and_nothing_beside_a_clean_one() -> None:
    found = cells_of(
        attacks={"BadNet-0.3%": {"poison": BADNET}, "clean": {}},
        defences={"UBT": {"config": "ubt/cifar10.yaml", "sees_poison": True}},
    )
    assert [cell.name for cell in found] == [
        "BadNet-0.3pc-seed0",
        "BadNet-0.3pc-seed0--UBT",
        "clean-seed0",
        "clean-seed0--UBT",
    ]
    assert argument(found[1], "--data.poison") == "${poisoned}/poison.json"
    assert "--data.poison" not in found[3].arguments


def test_other_settings_make_another_cell_and_other_cells_after_it() -> None:
    before = cells_of()
    after = cells_of(train={"config": "poisoned_clip/cifar10.yaml", "model": {"lr": 0.5}})
    assert [cell.name for cell in before] == [cell.name for cell in after]
    assert not {cell.id for cell in before} & {cell.id for cell in after}


def test_other_settings_in_the_config_itself_make_another_cell(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    ids = []
    for rate in (0.1, 0.2):
        config.write_text(f"model: {{class_path: PoisonedCLIP, init_args: {{lr: {rate}}}}}")
        ids.append(cells_of(train={"config": str(config)}, defences={})[0].id)
    assert ids[0] != ids[1]


def test_neither_the_index_of_the_data_nor_more_cells_change_a_cell() -> None:
    here = {cell.id for cell in cells_of()}
    assert here == {cell.id for cell in cells_of(data="elsewhere")}
    assert here < {cell.id for cell in cells_of(seeds=[0, 1])}


def test_the_command_names_no_folder_of_this_machine() -> None:
    reported = command(cells_of(data="/somebody/s/pictures")[1])
    assert reported.startswith("untrigger fit --config configs/cleanclip/cifar10.yaml --seed_everything 0")
    assert '--data.zero_shot "${data}"' in reported
    assert '--model.init_from "${poisoned}/last.ckpt"' in reported
    assert "somebody" not in reported


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": []}, "the grid is empty"),
        ({"train": {}}, "BadNet-seed0 has no config"),
        ({"train": {"config": "nothing.yaml"}}, "there is no config nothing.yaml"),
        ({"data": None}, "give its folder with --data"),
        ({"every": {"data": {"zero_shot": "${dta}"}}}, "${dta}, which is none of data, seed, poisoned, before"),
        ({"train": {"config": "poisoned_clip/cifar10.yaml", "model": {"init_from": "${poisoned}/x"}}}, "${poisoned}"),
        ({"attacks": {"a/b": {"poison": BADNET}}}, "'a/b' is no name"),
        ({"attacks": {"two": {"poison": [BADNET, BADNET]}}, "rates": [0.1]}, "two has no single plan"),
        ({"defences": {"x": {"config": "cleanclip/cifar10.yaml", "start": "y"}}}, "starts from y, which is no defence"),
        ({"defences": {"x": {"config": "cleanclip/cifar10.yaml", "start": "x"}}}, "x starts from itself"),
        ({"defences": {"x": {"config": "cleanclip/cifar10.yaml", "attacks": ["y"]}}}, "names the attack y"),
    ],
)
def test_a_mistake_is_reported_before_anything_runs(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserMistake) as caught:
        cells_of(**changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_attack_is_measured_on_a_twin_that_is_the_same_but_for_the_poison() -> None:
    train = {"config": "poisoned_clip/cifar10.yaml", "model": {"init_from": "${start}/last.ckpt", "lr": 0.5}}
    found = {
        cell.name: cell
        for cell in cells_of(
            twins=True,
            seeds=[3],
            train=train,
            preparations={"start": {"config": "poisoned_clip/cifar10.yaml"}},
            attacks={"BadNet": {"poison": BADNET}, "two": {"poison": [BADNET, BADNET]}},
        )
    }
    assert list(found)[-3:] == ["twin-seed3", "BadNet-seed3--twin", "two-seed3--twin"]
    twin, measured, poisoned = (found[name] for name in ("twin-seed3", "BadNet-seed3--twin", "BadNet-seed3"))
    assert argument(twin, "--data.poison") == "null"
    assert [word for word in twin.arguments if word.startswith("--data.poison")] == ["--data.poison"]
    assert twin.needs == poisoned.needs
    assert twin.arguments == (*poisoned.arguments[: len(twin.arguments) - 2], "--data.poison", "null")
    # The weights are the twin's, and the trigger is that of the attack.
    assert (measured.subcommand, measured.needs) == ("validate", {"twin": twin})
    assert argument(measured, "--ckpt_path") == "${twin}/last.ckpt"
    assert argument(measured, "--data.attack") == "PoisonPlan"
    assert argument(measured, "--data.attack.trigger") == "BadNet"
    assert "--model.init_from" not in measured.arguments
    assert argument(found["two-seed3--twin"], "--data.attack").startswith("[{")
    assert command(measured).startswith("untrigger validate --config configs/poisoned_clip/cifar10.yaml")
    assert found["BadNet-seed3--CleanCLIP"].twin == poisoned.twin == measured
    assert [cell.name for cell in found.values() if not cell.listed] == ["start-seed3", *list(found)[-3:]]


def test_a_clean_model_of_the_grid_is_the_twin_and_other_settings_have_their_own() -> None:
    other = {"poison": BADNET, "model": {"lr": 0.5}}
    found = cells_of(twins=True, defences={}, attacks={"BadNet": {"poison": BADNET}, "clean": {}, "fast": other})
    by_name = {cell.name: cell for cell in found}
    assert list(by_name) == [
        "BadNet-seed0",
        "clean-seed0",
        "fast-seed0",
        "BadNet-seed0--twin",
        "twin-seed0",
        "fast-seed0--twin",
    ]
    assert by_name["BadNet-seed0--twin"].needs["twin"] == by_name["clean-seed0"]
    assert argument(by_name["fast-seed0--twin"].needs["twin"], "--model.lr") == "0.5"
    assert by_name["clean-seed0"].twin is None
    third = {"poison": BADNET, "model": {"lr": 0.6}}
    names = [cell.name for cell in cells_of(twins=True, defences={}, attacks={"fast": other, "slow": third})]
    assert len(set(names)) == len(names)
    assert {"twin-seed0", "twin-of-slow-seed0"} < set(names)


def test_cleaned_models_and_the_twin_are_finetuned_further_where_the_bench_says_how() -> None:
    found = {
        cell.name: cell
        for cell in cells_of(
            twins=True,
            rebound={"config": "cleanclip/finetune_cifar10.yaml", "trainer": {"max_epochs": 2}},
            defences={
                "CleanCLIP": {"config": "cleanclip/cifar10.yaml"},
                "quick": {"config": "cleanclip/cifar10.yaml", "rebound": False},
            },
            attacks={"BadNet": {"poison": BADNET}, "clean": {}},
        )
    }
    own, twin = found["BadNet-seed0--CleanCLIP--rebound"], found["BadNet-seed0--twin--rebound"]
    assert [name for name in found if name.endswith("--rebound")] == [twin.name, own.name]
    needed = {variable: cell.id for variable, cell in own.needs.items()}
    assert needed == {"before": found["BadNet-seed0--CleanCLIP"].id, "poisoned": found["BadNet-seed0"].id}
    assert twin.needs == {"twin": found["clean-seed0"]}
    assert argument(own, "--model.init_from") == "${before}/last.ckpt"
    assert argument(twin, "--model.init_from") == "${twin}/last.ckpt"
    assert argument(twin, "--data.attack.trigger") == "BadNet"
    for cell in (own, twin):
        assert (cell.listed, cell.subcommand) == (False, "fit")
        assert argument(cell, "--trainer.check_val_every_n_epoch") == "1"
        assert argument(cell, "--trainer.max_epochs") == "2"
    assert found["BadNet-seed0--CleanCLIP"].rebound == own
    assert found["BadNet-seed0--CleanCLIP"].twin.rebound == twin  # type: ignore[union-attr]
    assert found["BadNet-seed0--quick"].rebound is None
    assert found["clean-seed0--CleanCLIP"].rebound is None
