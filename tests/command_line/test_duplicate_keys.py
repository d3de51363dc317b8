from __future__ import annotations

from pathlib import Path

import pytest

from untrigger import cli
from untrigger.command_line.duplicate_keys import check_said_once, with_last_ones
from untrigger.contracts import UserMistake

EVERY = ("fit", "validate", "test", "predict", "bench", "check", "clean", "demo", "export", "poison", "report")


@pytest.mark.parametrize("command", [[name] for name in EVERY] + [["shards", "csv"], ["shards", "sizes"]])
def test_an_option_given_twice_is_a_mistake_in_every_command(command: list[str]) -> None:
    with pytest.raises(UserMistake, match=r"--seed is given 2 times \(1, 2\): give it once"):
        cli.run([*command, "--seed", "1", "--seed=2"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        # What a shell makes of --data.train_shards=train/{0..3}.tar.
        (
            [f"--data.train_shards=train/{shard}.tar" for shard in range(4)],
            r"train_shards is given 4 times .*, \.\.\.\)",
        ),
        (["--model.lr", "1", "--model.init_args.lr", "1"], "--model.lr is given 2 times"),
        (
            ["--data.poison", "PoisonPlan", "--data.poison.class_path=A"],
            r"--data.poison is given 2 times \(PoisonPlan, A\)",
        ),
        (["--data.zero_shot", "--data.zero_shot", "x"], "--data.zero_shot is given 2 times"),
        (
            ["--trainer.max_epochs=1", "--trainer.callbacks+=A", "--trainer.max_epochs=1"],
            "--trainer.max_epochs is given",
        ),
    ],
)
def test_what_was_given_twice_is_named(arguments: list[str], named: str) -> None:
    with pytest.raises(UserMistake, match=named):
        check_said_once(["fit", *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "a.yaml", "--config=b.yaml"],
        ["--trainer", "a.yaml", "--trainer", "b.yaml"],
        [
            "--trainer.callbacks+=A",
            "--trainer.callbacks.every=1",
            "--trainer.callbacks+=A",
            "--trainer.callbacks.every=2",
        ],
        ["--data.poison", "PoisonPlan", "--data.poison.rate", "0.1", "--data.poison.trigger", "BadNet"],
        ["--data.train_shards", "train", "--data.zero_shot", "train"],
        ["report", "runs/a", "runs/a"],
    ],
)
def test_what_may_be_given_again_is_no_mistake(arguments: list[str], tmp_path: Path) -> None:
    check_said_once(arguments)


@pytest.mark.parametrize(
    "text", ["lr: 1\nmodel:\n  lr: 1\n  lr: 2\n", "a: [{x: 1, lr: 1, lr: 2}]\n", '{"lr": 1, "lr": 1}']
)
def test_a_key_given_twice_in_a_file_is_a_mistake(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserMistake, match=r"run.yaml has 'lr' twice in one mapping \(line \d\): give it once"):
        cli.run(["fit", "--config", str(tmp_path / "run.yaml")])


def test_a_key_given_twice_in_a_file_that_a_file_names_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "run.yaml").write_text("trainer: parts/trainer.yaml\n")
    (tmp_path / "parts" / "trainer.yaml").write_text("max_epochs: 1\nmax_epochs: 2\n")
    with pytest.raises(UserMistake, match=r"parts/trainer.yaml has 'max_epochs' twice in one mapping \(line 2\)"):
        cli.run(["fit", "--config", str(tmp_path / "run.yaml")])


def test_files_that_name_each_other_or_none_are_their_readers_business(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("trainer: run.yaml\nmodel: ../model.yaml\ndata: nowhere.yaml\n")
    check_said_once(["fit", "--config", str(tmp_path / "run.yaml")])


def test_the_same_key_elsewhere_or_in_an_anchor_is_none(tmp_path: Path) -> None:
    text = "base: &base {lr: 1}\na: {<<: *base, lr: 2}\nb: {<<: *base}\nc: &loop {d: *loop}\n"
    (tmp_path / "run.yaml").write_text(text)
    check_said_once(["fit", "--config", str(tmp_path / "run.yaml")])
    (tmp_path / "run.yaml").write_text("lr: [")
    check_said_once(["fit", "--config", str(tmp_path / "run.yaml")])  # the reader's business


def test_of_options_that_were_put_together_the_last_one_counts() -> None:
    parts = ["--model.lr", "1", "--trainer.devices=1", "--model.lr", "-2", "--data.x", "null", "--trainer.devices=2"]
    assert with_last_ones(parts) == ["--model.lr", "-2", "--data.x", "null", "--trainer.devices=2"]


@pytest.mark.parametrize("value", ["{max_epochs: 1, max_epochs: 2}", "[{max_epochs: 1, max_epochs: 2}]"])
def test_a_key_given_twice_in_an_argument_is_a_mistake(value: str) -> None:
    with pytest.raises(UserMistake, match=r"--trainer has 'max_epochs' twice in one mapping \(line 1\)"):
        check_said_once(["fit", "--trainer", value])


@pytest.mark.parametrize(
    ("options", "undone"),
    [
        (["--trainer.max_epochs", "2"], "trainer.max_epochs"),
        (["--seed_everything=3", "--model.lr", "1"], "model.lr"),
        (["--model.init_args.lr", "1"], "model.lr"),
        (["--model", "PoisonedCLIP"], "model"),
    ],
)
def test_an_option_before_a_config_that_says_the_same_is_a_mistake(
    options: list[str], undone: str, tmp_path: Path
) -> None:
    text = "trainer: {max_epochs: 1}\nmodel: {class_path: PoisonedCLIP, init_args: {lr: 0.1}}\n"
    (tmp_path / "run.yaml").write_text(text)
    config = ["--config", str(tmp_path / "run.yaml")]
    with pytest.raises(UserMistake, match=rf"--{undone} stands before --config .*run\.yaml, which says it again: put"):
        check_said_once(["fit", *options, *config])
    check_said_once(["fit", *config, *options])
    check_said_once(["fit", "--trainer.devices", "1", *config, *options])


def test_options_have_no_abbreviations() -> None:
    with pytest.raises(UserMistake, match=r"trainer\.max_epoch\b"):
        cli.run(["fit", "--trainer.max_epoch", "2", "--model", "PoisonedCLIP", "--data", "ImageTextDataModule"])
