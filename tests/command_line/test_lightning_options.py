"""Lightning's own options hold on a stream of shards, and what Lightning refuses is a mistake of the user's."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder

from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.command_line.trainer_options import settle_trainer
from untrigger.contracts import UserMistake
from untrigger.datamodules.generated import write_generated_data
from untrigger.errors.libraries import refused_option
from untrigger.errors.lines import user_message
from untrigger.lightning_modules import PoisonedCLIP

Fit = Callable[..., UntriggerCLI]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 32, 10)
    return folder


@pytest.fixture
def fit(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """A fit of four batches in ``tmp_path/run``, with further options."""
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)

    def run(*options: str, folder: str = "run") -> UntriggerCLI:
        fixed = [
            *("--model", "PoisonedCLIP", "--model.encoder", "small:nano-32", "--data", "ImageTextDataModule"),
            *("--data.batch_size", "8", "--data.num_workers", "0", "--data.train_shards", str(data / "train")),
            *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.logger", "false"),
            *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
            *("--trainer.default_root_dir", str(tmp_path / folder), "--trainer.log_every_n_steps", "1"),
            *(() if any("max_" in option for option in options) else ("--trainer.max_epochs", "1")),
        ]
        model = ("--model", "PoisonedCLIP", "--model.encoder", "small:nano-32")
        return UntriggerCLI(["fit", *model, *fixed, *options])

    return run


def weights(run: UntriggerCLI) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in run.model.named_parameters()}


def rates(run: UntriggerCLI) -> list[float]:
    return [group["lr"] for optimizer in run.trainer.optimizers for group in optimizer.param_groups]


def test_true_half_precision_trains_and_measures(fit: Fit, data: Path, tmp_path: Path) -> None:
    run = fit("--trainer.precision", "bf16-true", "--data.zero_shot", str(data), "--trainer.limit_train_batches", "1")
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.bfloat16}
    assert 0 <= float(run.trainer.callback_metrics["val/clean_accuracy"]) <= 1


def test_float16_weights_train_and_the_loss_of_small_moments_is_reported(fit: Fit) -> None:
    with pytest.warns(UserWarning, match="second moments of small gradients vanish in float16"):
        run = fit("--trainer.precision", "16-true", "--trainer.limit_train_batches", "1", "--data.batch_size", "2")
    assert all(tensor.isfinite().all() for tensor in weights(run).values())


def test_gradients_are_clipped_in_mixed_precision(fit: Fit) -> None:
    common = ("--trainer.precision", "bf16-mixed", "--model.weight_decay", "0", "--trainer.limit_train_batches", "1")
    free = weights(fit(*common, folder="free"))
    clipped = weights(fit(*common, "--trainer.gradient_clip_val", "1e-14", folder="clipped"))
    start = weights(fit(*common, "--model.lr", "0", folder="start"))
    moved = max(float((free[name] - start[name]).abs().max()) for name in start)
    held = max(float((clipped[name] - start[name]).abs().max()) for name in start)
    assert moved > 1e-4
    assert held < 1e-8


class Keys(Callback):
    """Keeps what each epoch was given."""

    seen: ClassVar[dict[int, list[tuple[str, float]]]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        epoch = self.seen.setdefault(trainer.current_epoch, [])
        epoch += zip(batch["key"], batch["image"].sum(dim=(1, 2, 3)).tolist(), strict=True)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[tuple[str, float]]]:
    monkeypatch.setitem(sys.modules, "own_callbacks", sys.modules[__name__])
    Keys.seen = {}
    return Keys.seen


@pytest.mark.filterwarnings("ignore:The schedule of this run is not that of the checkpoint")
def test_overfitting_is_on_the_same_pairs_in_every_epoch(fit: Fit, keys: dict[int, list[tuple[str, float]]]) -> None:
    options = ["--trainer.overfit_batches", "2", "--trainer.callbacks", "own_callbacks.Keys"]
    options += ["--data.augmentation", "RandomHorizontalFlip"]
    fit(*options, "--trainer.max_epochs", "2")
    fit(*options, "--trainer.max_epochs", "4", "--ckpt_path", "last")
    assert list(keys) == [0, 1, 2, 3]
    assert len(dict(keys[0])) == 16
    assert keys[0] == keys[1] == keys[2] == keys[3]


@pytest.mark.parametrize(
    "end", [("--trainer.max_steps", "3", "--trainer.max_epochs", "-1"), ("--trainer.max_time", "00:00:00:01")]
)
def test_a_run_without_a_last_epoch_ends(end: tuple[str, ...], fit: Fit) -> None:
    timed = "--trainer.max_time" in end
    if timed:
        with pytest.warns(UserWarning, match="the learning rate stays at its peak"):
            run = fit(*end)
        assert rates(run)[0] == run.model.lr
    else:
        run = fit(*end)
        assert run.trainer.global_step == 3
        assert rates(run)[0] == pytest.approx(0)
    assert (Path(run.trainer.default_root_dir) / "last.ckpt").exists()


@pytest.mark.filterwarnings("ignore:The schedule of this run is not that of the checkpoint")
def test_another_learning_rate_holds_from_there_on_and_is_reported(fit: Fit) -> None:
    fit("--model.lr", "0.001", "--trainer.max_steps", "4")
    with pytest.warns(UserWarning, match=r"model\.lr 0\.0001 instead of 0\.001"):
        run = fit("--model.lr", "0.0001", "--trainer.max_steps", "8", "--ckpt_path", "last")
    (scheduler,) = run.trainer.lr_scheduler_configs
    assert set(scheduler.scheduler.base_lrs) == {0.0001}
    assert {group["initial_lr"] for group in run.trainer.optimizers[0].param_groups} == {0.0001}
    # The moments and the position in the schedule are the checkpoint's.
    assert scheduler.scheduler.last_epoch == 8
    assert {int(state["step"]) for state in run.trainer.optimizers[0].state.values()} == {8}


def test_a_run_that_resumes_as_it_was_is_told_nothing(fit: Fit, recwarn: pytest.WarningsRecorder) -> None:
    fit("--trainer.max_steps", "4")
    fit("--trainer.max_steps", "5", "--ckpt_path", "last")
    assert not [warning for warning in recwarn if "other settings" in str(warning.message)]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_resumes_as_the_method_that_it_was(fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit("--trainer.max_steps", "4")
    last = str(tmp_path / "run" / "last.ckpt")
    other = ("--model", "CleanCLIP", "--model.encoder", "small:nano-32", "--model.self_supervised_weight", "0")
    with pytest.raises(
        UserMistake, match=r"last\.ckpt is of a run of PoisonedCLIP, which a CleanCLIP cannot resume: .*"
    ):
        fit("--trainer.max_steps", "8", "--ckpt_path", last, *other, folder="cleaned")
    assert not (tmp_path / "cleaned" / "results.csv").exists()
    assert "Nothing was trained" not in caplog.text
    fit("--trainer.max_steps", "4", "--ckpt_path", last)
    assert f"Nothing was trained: the run of {last} was over" in caplog.text


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:The schedule of this run is not that of the checkpoint")
def test_a_rate_that_was_found_is_trained_with_and_recorded(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    finder = ("--trainer.callbacks", "LearningRateFinder", "--trainer.callbacks.num_training_steps", "20")
    options = ("--trainer.max_epochs", "8", "--model.warmup_steps", "4")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*(instead of|not that of the checkpoint)")
        run = fit(*options, *finder, "--model.lr", "0.007")
    (callback,) = [each for each in run.trainer.callbacks if isinstance(each, LearningRateFinder)]
    assert callback.optimal_lr is not None
    found = callback.optimal_lr.suggestion()
    assert found is not None
    assert found != 0.007
    (config,) = run.trainer.lr_scheduler_configs
    assert set(config.scheduler.base_lrs) == {found}
    kept = torch.load(Path(run.trainer.default_root_dir) / "last.ckpt", weights_only=True)
    assert kept["hyper_parameters"]["lr"] == found
    assert {group["initial_lr"] for group in kept["optimizer_states"][0]["param_groups"]} == {found}
    assert kept["global_step"] == 32
    resumed = fit(
        "--trainer.max_epochs", "9", "--model.warmup_steps", "4", "--model.lr", str(found), "--ckpt_path", "last"
    )
    assert set(resumed.trainer.lr_scheduler_configs[0].scheduler.base_lrs) == {found}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (("--trainer.strategy", "nosuch"), "invalid strategy name: `strategy='nosuch'`"),
        (("--trainer.accumulate_grad_batches", "0"), "trainer.accumulate_grad_batches is 0, not at least 1"),
        (("--trainer.barebones", "true"), "trainer.barebones leaves out what a run is for"),
        (("--trainer.val_check_interval", "1000"), "`val_check_interval` (1000) must be less than or equal"),
        (("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "nosuch"), "metric `nosuch`"),
        (("--checkpoint.save_top_k", "-5"), "Invalid value for save_top_k=-5"),
        (("--trainer.callbacks", "LearningRateMonitor"), "Cannot use `LearningRateMonitor`"),
        (
            ("--trainer.check_val_every_n_epoch", "0"),
            "trainer.check_val_every_n_epoch is 0, not above: to measure nothing",
        ),
        (("--trainer.strategy", "deepspeed"), "you must have DeepSpeed installed"),
        (("--trainer.max_epochz", "3"), "did you mean trainer.max_epochs?"),
        (("--model.encodre", "x"), "Option 'encodre' is not accepted by PoisonedCLIP; did you mean encoder?"),
        (("--model", "PoisonedCLOP"), "there is no class PoisonedCLOP; did you mean PoisonedCLIP?"),
        (("--model", "untrigger.callbacks.X"), "the module untrigger.callbacks has no class X"),
        (("--model", "untrigger.lightning_modules.CleanClip"), "has no class CleanClip; did you mean CleanCLIP?"),
        (("--model", "no_study.Own"), "there is no module no_study among those that are installed; this command looks"),
    ],
)
def test_what_is_refused_is_one_line_wherever_it_is_raised(options: tuple[str, ...], reported: str, fit: Fit) -> None:
    with pytest.raises(UserMistake) as mistake:
        fit(*options, "--trainer.limit_train_batches", "1") if "val_check" not in options[0] else fit(*options)
    assert reported in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_what_a_callback_of_lightning_s_cannot_do_is_no_fault_of_the_package(fit: Fit) -> None:
    pruning = ("--trainer.callbacks.pruning_fn", "l1_unstructured", "--trainer.callbacks.amount", "0.5")
    with pytest.raises(UserMistake, match="view size is not compatible"):
        fit("--trainer.callbacks", "ModelPruning", *pruning, "--model.channels_last", "true")


def test_a_setting_that_is_one_of_an_enumeration_is_saved_as_its_word(fit: Fit) -> None:
    run = fit("--trainer.callbacks", "Timer", "--trainer.callbacks.duration", "00:00:10:00", "--trainer.max_steps", "1")
    saved = yaml.safe_load((Path(run.trainer.default_root_dir) / "config.yaml").read_text())
    assert saved["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"


@pytest.mark.parametrize("limit", ["max_epochs", "max_steps", "limit_train_batches"])
def test_a_run_that_trains_nothing_says_so(limit: str, fit: Fit) -> None:
    with pytest.warns(UserWarning, match=rf"Nothing was trained, as trainer\.{limit} is 0: the figures are those"):
        fit(f"--trainer.{limit}", "0")


def test_an_option_before_its_class_is_told_to_come_later(fit: Fit) -> None:
    with pytest.raises(UserMistake, match=r"option 'lr' stands before the class that it is of: give --config, or the"):
        UntriggerCLI(["fit", "--model.lr", "1", "--model", "PoisonedCLIP", "--data", "ImageTextDataModule"])


@pytest.mark.parametrize("option", ["val_check_interval", "check_val_every_n_epoch"])
def test_a_validation_after_every_nothing_is_refused_before_the_run(option: str, fit: Fit) -> None:
    with pytest.raises(UserMistake, match=rf"trainer\.{option} is 0, not above: to measure nothing on the way"):
        fit(f"--trainer.{option}", "0")


@pytest.mark.parametrize(
    ("strategy", "run"),
    [
        *(("ddp_spawn", "ddp"), ("ddp_fork", "ddp"), ("ddp_notebook", "ddp"), ("ddp", "ddp"), ("auto", "auto")),
        ("ddp_spawn_find_unused_parameters_true", "ddp_find_unused_parameters_true"),
    ],
)
def test_processes_that_would_lose_what_callbacks_keep_are_started_as_those_of_ddp(strategy: str, run: str) -> None:
    trainer = {"strategy": strategy, "accumulate_grad_batches": 1, "barebones": False}
    settle_trainer(trainer)
    assert trainer["strategy"] == run


@pytest.fixture
def _ranks_of_its_own() -> Iterator[None]:
    """Lightning leaves the process group and its address behind, for whoever runs next and for the children."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("_ranks_of_its_own")
def test_a_run_of_ddp_spawn_trains(fit: Fit, data: Path) -> None:
    """On one device; the options of two are those of any run of ddp."""
    run = fit("--trainer.strategy", "ddp_spawn", "--trainer.max_steps", "1")
    assert type(run.trainer.strategy).__name__ == "DDPStrategy"
    assert run.trainer.global_step == 1


class Faulty(PoisonedCLIP):
    """Whose step is wrong, or calls Lightning wrongly."""

    wrong = ""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.wrong == "log":
            self.log("train/nothing", "no number")  # type: ignore[arg-type]
        return torch.zeros(1) @ torch.zeros(2)


class FaultyStopping(EarlyStopping):
    """Which does more than to hand on."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise RuntimeError("a fault of its own")


@pytest.mark.parametrize("wrong", ["log", "step", "callback"])
def test_a_fault_keeps_its_traceback(wrong: str, fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_faults", sys.modules[__name__])
    monkeypatch.setattr(Faulty, "wrong", wrong)
    stopping = ("--trainer.callbacks", "own_faults.FaultyStopping", "--trainer.callbacks.monitor", "train/loss")
    with pytest.raises(Exception) as fault:  # noqa: PT011  which kind it is does not matter
        fit(*(stopping if wrong == "callback" else ("--model", "own_faults.Faulty")))
    assert not isinstance(fault.value, UserMistake)
    assert user_message(fault.value) is None
    assert refused_option(fault.value) is None


def test_an_evaluation_without_a_checkpoint_says_whose_weights_it_measures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        UntriggerCLI(
            [
                *("validate", "--model", "PoisonedCLIP", "--model.encoder", "small:nano-32"),
                *("--data", "ImageTextDataModule", "--data.num_workers", "0", "--data.zero_shot", str(data)),
                *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
                *("--trainer.default_root_dir", str(tmp_path / "run")),
            ]
        )
    assert "validate has no --ckpt_path: it measures the initial weights" in caplog.text
