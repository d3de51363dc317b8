"""The command as a user runs it, in its own process where the exit code matters."""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fit_arguments import CONFIG, fit_arguments
from PIL import Image

from untrigger import cli
from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.contracts import UserMistake
from untrigger.datamodules.generated import write_generated_data
from untrigger.errors.lines import shortened_complaint, user_message


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 80, 40)
    return folder


@pytest.fixture
def base(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A complete set of arguments; the run folder is ``tmp_path/run``."""
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return fit_arguments(tmp_path, data)


def results(folder: Path) -> list[dict[str, str]]:
    """The rows without their seconds, which count until a fit has ended."""
    with (folder / "results.csv").open(newline="") as handle:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(handle)]


def contents(folder: Path) -> dict[str, bytes]:
    """What must not change: neither what is written again by an evaluation, nor what it adds."""
    again = ("gallery.png", "results.csv")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name not in again}


def test_fit_validate_test_and_predict_leave_what_they_promise(base: list[str], tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    UntriggerCLI(["fit", *base])
    for name in ("config.yaml", "last.ckpt", "metrics.csv", "poison.json", "results.csv", "gallery.png"):
        assert (run / name).is_file(), name
    assert list(run.glob("events.out.tfevents.*"))
    (row,) = results(run)
    assert (row["attack"], row["defence"], row["seed"], row["samples_seen"]) == ("BadNet", "none", "0", "160")
    assert 0 <= float(row["clean_accuracy"]) <= 1
    config = (run / "config.yaml").read_text()
    rest = [base[2], str(tmp_path / "again"), *base[4:], "--ckpt_path", str(run / "last.ckpt")]
    for command in ("validate", "test"):
        UntriggerCLI([command, *base[:2], *rest])
        (again,) = results(tmp_path / "again")
        assert again == row
    assert (run / "config.yaml").read_text() == config
    UntriggerCLI(["predict", *base[:2], *rest])
    with (tmp_path / "again" / "similarities.csv").open(newline="") as handle:
        scores = list(csv.DictReader(handle))
    assert len({score["key"] for score in scores}) == len(scores) == 80
    assert all(-1 <= float(score["similarity"]) <= 1 for score in scores)


def test_a_run_folder_is_not_overwritten_but_continued(base: list[str], tmp_path: Path) -> None:
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "1"])
    with pytest.raises(UserMistake, match="already holds a run: continue it with --ckpt_path"):
        UntriggerCLI(["fit", *base])
    with pytest.warns(UserWarning, match="The schedule of this run is not that of the checkpoint's"):
        UntriggerCLI(["fit", *base, "--ckpt_path", str(tmp_path / "run" / "last.ckpt")])
    run = tmp_path / "run"
    assert results(run)[0]["samples_seen"] == "160"
    # Both sessions' logs are there.
    logs = [(path / "metrics.csv").read_text().splitlines() for path in (run, run / "resumed-1")]
    steps = [lines[-1].split(",")[1] for lines in logs]
    assert steps == ["4", "9"]


def test_a_checkpoint_does_not_change_the_config(base: list[str], tmp_path: Path) -> None:
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "1"])
    path = tmp_path / "run" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"] |= {"encoder": "small:base-32", "_class_path": "antigravity.Hostile"}
    torch.save(checkpoint, path)
    UntriggerCLI(["validate", *base, "--ckpt_path", str(path)])
    assert "antigravity" not in sys.modules


def test_a_manifest_poisons_and_is_attacked_by_its_path(base: list[str], tmp_path: Path) -> None:
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "1"])
    manifest = str(tmp_path / "run" / "poison.json")
    for switch in ("poison", "attack"):
        other = str(tmp_path / switch)
        arguments = [*base, f"--data.{switch}", manifest, "--trainer.default_root_dir", other]
        UntriggerCLI(["fit", *arguments, "--trainer.max_epochs", "1"])
    assert (tmp_path / "poison" / "poison.json").read_text() == (tmp_path / "run" / "poison.json").read_text()
    assert results(tmp_path / "poison")[0]["attack_success_rate"] == results(tmp_path / "run")[0]["attack_success_rate"]


def test_several_backdoors_and_every_kind_of_measure_in_one_run(base: list[str], tmp_path: Path, data: Path) -> None:
    plans = [
        ("PoisonPlan", "BadNet", {"size": 5}, {"target": "star", "count": 4}),
        ("DualKeyPlan", "BadNet", {"size": 4, "place": "center"}, {"target": "ring", "count": 2}),
        ("PoisonPlan", "BadNet", {"size": 3}, {"target": "ring", "count": 4}),
        ("CoverPlan", "WaNet", {"noise": True}, {"target": "star", "count": 4}),
        (
            "SingleImagePlan",
            "GivenPicture",
            {"shard": str(data / "test" / "0.tar"), "pictures": ["s0000000.jpg", "s0000001.jpg"]},
            {"target": "star", "count": 2},
        ),
    ]
    content = yaml.safe_load(CONFIG)
    content["data"]["init_args"]["poison"] = [
        {"class_path": plan, "init_args": arguments | {"trigger": {"class_path": trigger, "init_args": options}}}
        for plan, trigger, options, arguments in plans
    ]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "1"])
    rows = {row["attack"]: row for row in results(tmp_path / "run")}
    assert list(rows) == [
        *("BadNet", "DualKey", "DualKey-picture-only", "DualKey-word-only", "BadNet-2", "SingleImage"),
    ]
    assert all(0 <= float(row["attack_success_rate"]) <= 1 for row in rows.values())
    # The word alone shows clean pictures.
    assert rows["DualKey-word-only"]["clean_target_rate"] == rows["DualKey"]["clean_target_rate"]
    assert rows["SingleImage"]["clean_target_rate"] == ""
    again = [*base, "--trainer.default_root_dir", str(tmp_path / "again"), "--data.poison", "null"]
    again += ["--data.attack", str(tmp_path / "run" / "poison.json")]
    UntriggerCLI(["validate", *again, "--ckpt_path", str(tmp_path / "run" / "last.ckpt")])
    assert results(tmp_path / "again") == results(tmp_path / "run")


def test_a_user_s_own_class_is_named_by_its_path(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_study.py").write_text(
        "from untrigger.lightning_modules import PoisonedCLIP\n\n\n"
        "class MyAttackStudy(PoisonedCLIP):\n"
        "    def __init__(self, *args, margin: float = 0.0, **kwargs):\n"
        "        super().__init__(*args, **kwargs)\n"
        "        self.margin = margin\n\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        return super().training_step(batch, batch_idx) + self.margin\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = (
        (tmp_path / "config.yaml").read_text().replace("class_path: PoisonedCLIP", "class_path: my_study.MyAttackStudy")
    )
    (tmp_path / "config.yaml").write_text(config.replace("lr: 1.0e-3", "lr: 1.0e-3, margin: 0.5"))
    run = UntriggerCLI(["fit", *base, "--trainer.fast_dev_run", "true"])
    assert type(run.model).__name__ == "MyAttackStudy"
    assert run.model.hparams["margin"] == 0.5
    assert run.model.defence == "none"


def test_the_full_trainer_line_stands_in_the_saved_config(base: list[str], tmp_path: Path) -> None:
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "1"])
    run = tmp_path / "run"
    before, rows = contents(run), results(run)
    UntriggerCLI(["fit", "--config", str(run / "config.yaml"), "--trainer.default_root_dir", str(tmp_path / "second")])
    assert results(tmp_path / "second")[0]["clean_accuracy"] == results(run)[0]["clean_accuracy"]
    assert (tmp_path / "second" / "last.ckpt").is_file()
    UntriggerCLI(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "last.ckpt")])
    assert contents(run) == before
    assert results(run) == rows


def test_the_results_are_of_the_last_model_whenever_validation_ran(base: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2"])
    (row,) = results(run)
    assert row["samples_seen"] == "240"
    again = [*base, "--trainer.default_root_dir", str(tmp_path / "again"), "--ckpt_path", str(run / "last.ckpt")]
    UntriggerCLI(["validate", *again])
    assert results(tmp_path / "again") == [row]


def test_a_checkpoint_that_would_execute_or_does_not_fit_is_refused(base: list[str], tmp_path: Path) -> None:
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "1"])
    path = tmp_path / "run" / "last.ckpt"
    with pytest.raises(UserMistake, match=r"is of another model: encoder\."):
        UntriggerCLI(["validate", *base, "--model.encoder", "small:base-32", "--ckpt_path", str(path)])
    hostile = tmp_path / "hostile.ckpt"
    torch.save({"state_dict": {}, "loops": subprocess.Popen}, hostile)
    with pytest.raises(UserMistake, match="is broken, or holds more than tensors and plain data"):
        UntriggerCLI(["validate", *base, "--ckpt_path", str(hostile)])
    torch.save({"state_dict": {}}, hostile)
    with pytest.raises(UserMistake, match=r"weights alone go to --model\.init_from"):
        UntriggerCLI(["fit", *base, "--ckpt_path", str(hostile)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.train_shards", "missing.tar"], "shard missing.tar does not exist"),
        (["--data.train_shards", ""], "pattern is empty"),
        (["--data.zero_shot", "missing"], "zero-shot folder missing does not exist"),
        (["--data.poison.target", "banana"], "target 'banana' is not among"),
        (["--data.poison.trigger.size", "40"], "trigger size 40 is larger than the 32 x 32 input"),
        (["--data.poison.trigger.size", "big"], "data.poison.trigger.size: Expected a <class 'int'>. Got value: big"),
        (["--data.poison.trigger", "Blende"], "data.poison.trigger: there is no class Blende"),
        (["--data.poison.rate", "1.5"], "poison rate is 1.5"),
        (["--data.poison.count", "81"], "poison count 81 is above the 80 pairs"),
        (["--data.batch_size", "81"], "80 training pairs do not fill one batch of 81"),
        (["--model.encoder", "small:huge"], "unknown encoder small:huge; there are small:nano-32"),
        (["--model.encoder", "resnet"], "unknown encoder 'resnet'; there are hf:"),
        (["--model.init_from", "missing.ckpt"], "missing.ckpt"),
        (["--ckpt_path", "missing.ckpt"], "checkpoint missing.ckpt does not exist or is no file"),
        (["--data.poison", "config.yaml"], "poison manifest config.yaml: it is not JSON"),
        (["--data.zero_shot", "null", "--data.attack", "x.json"], "data.attack needs data.zero_shot"),
        (["--trainer.devices", "0"], "devices"),
        (["--data.remote.timeout", "0"], "data.remote: retries is in [0, 20], cache_gb at least 0, timeout above 0"),
        (["--data.counts", "missing.json"], "data.counts: file missing.json cannot be read"),
        (["--data.colour", "red"], "data: Option 'colour' is not accepted"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs: Expected a <class 'int'>"),
    ],
)
def test_a_mistake_is_one_line_before_training_starts(
    arguments: list[str], message: str, base: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserMistake) as mistake:
        UntriggerCLI(["fit", *base, *arguments])
    assert message in str(mistake.value)
    assert "\n" not in str(mistake.value)
    assert not list(tmp_path.glob("run/*.ckpt"))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"rat": 0.1}, "data.poison: Option 'rat' is not accepted by PoisonPlan"),
        ({"rate": 7}, "poison rate is 7.0; it must be above 0 and at most 1"),
        (
            {"trigger": {"class_path": "WaNet", "init_args": {"k": "big"}}},
            "data.poison.trigger.k: Expected a <class 'int'>",
        ),
        (
            {"trigger": {"class_path": "WaNet", "init_args": {"z": 1}}},
            "data.poison.trigger: Option 'z' is not accepted by WaNet",
        ),
        ({"trigger": {"class_path": "WaNett"}}, "data.poison.trigger: there is no class WaNett"),
        ({"trigger": {"class_path": "SIG", "init_args": {"delta": 0}}}, "SIG's delta is 0.0"),
    ],
)
def test_a_mistake_in_a_list_of_plans_is_one_line_too(
    plan: dict[str, Any], message: str, base: list[str], tmp_path: Path
) -> None:
    content = yaml.safe_load(CONFIG)
    first = content["data"]["init_args"]["poison"]
    second = {"class_path": "PoisonPlan", "init_args": first["init_args"] | {"target": "ring"} | plan}
    content["data"]["init_args"]["poison"] = [first, second]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(Exception) as mistake:  # noqa: PT011  what a user is told is what main() makes of it
        UntriggerCLI(["fit", *base])
    assert str(user_message(mistake.value)).startswith(message)
    assert "\n" not in str(user_message(mistake.value))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_epochs: 2", "max_epochs: 2\n  colour: red", "does not accept option 'trainer.colour'"),
        ("lr: 1.0e-3", "colour: red", "model: Option 'colour' is not accepted"),
        ("num_workers: 0", "colour: red", "data: Option 'colour' is not accepted"),
        ("{size: 5}", "{colour: 5}", "data.poison.trigger.colour: Expected"),
        ("seed_everything: 0", "colour: red", "does not accept option 'colour'"),
        ("seed_everything: 0", "checkpoint: {colour: red}", "does not accept option 'checkpoint.colour'"),
    ],
)
def test_a_config_of_another_version_is_reported_by_its_key(
    old: str, new: str, message: str, base: list[str], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.replace(old, new))
    with pytest.raises(UserMistake, match=message) as mistake:
        UntriggerCLI(["fit", *base])
    assert "\n" not in str(mistake.value)


@pytest.mark.filterwarnings("ignore:The schedule of this run")
def test_a_job_that_slurm_starts_again_resumes(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run.mkdir()
    (run / "config.yaml").write_text("it was killed before its first checkpoint")
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "1"])
    assert results(run)[0]["samples_seen"] == "80"
    UntriggerCLI(["fit", *base])
    assert results(run)[0]["samples_seen"] == "160"
    # The saved config is that of the whole run.
    assert yaml.safe_load((run / "config.yaml").read_text())["ckpt_path"] is None


@pytest.mark.filterwarnings("ignore:The schedule of this run")
def test_a_checkpoint_that_finds_no_room_ends_the_run_and_leaves_the_one_before(
    base: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "1"])
    before = (run / "last.ckpt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(UserMistake, match=r"last.ckpt cannot be written: File too large; .* is still the one"):
            UntriggerCLI(["fit", *base, "--ckpt_path", str(run / "last.ckpt")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (run / "last.ckpt").read_bytes() == before
    assert not list(run.glob(".*"))


def test_the_process_exits_with_2_and_one_line(base: list[str]) -> None:
    command = [sys.executable, "-m", "untrigger.cli", "fit", *base, "--data.poison.rate", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "untrigger: error: poison rate is 7.0; it must be above 0 and at most 1"


def test_help_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["--help"])
    assert "untrigger fit --config" in capsys.readouterr().out
    with pytest.raises(UserMistake, match="unknown command 'fti'; there are fit"):
        cli.run(["fti"])
    for command in ("demo", "export", "poison", "report", "shards"):
        with pytest.raises(SystemExit) as stop:
            cli.run([command, "--help"])
        assert stop.value.code == 0
        assert f"untrigger {command}" in capsys.readouterr().out


def test_shards_from_the_command_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    (tmp_path / "pairs.csv").write_text("image,caption\nred.png,a red square\n")
    cli.run(["shards", "csv", str(tmp_path / "pairs.csv"), str(tmp_path / "shards"), "--shard_size", "10"])
    assert (tmp_path / "shards" / "00000.tar").is_file()
    with pytest.raises(SystemExit):
        cli.run(["shards", "csv", "--help"])
    assert "\nExample:\n    untrigger shards csv " in capsys.readouterr().out
    with pytest.raises(UserMistake, match=r"missing\.csv"):
        cli.run(["shards", "csv", "missing.csv", str(tmp_path / "other")])


def test_a_parser_s_complaint_becomes_one_line() -> None:
    assert shortened_complaint('Parser key "a":\n  Parser key "b":\n    Expected a <class \'int\'>. Got value: x') == (
        "a.b: Expected a <class 'int'>. Got value: x"
    )
    assert shortened_complaint("Unrecognized arguments: --x") == "Unrecognized arguments: --x"
