"""The command with two processes, as Lightning starts them."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import torch

from untrigger.datamodules.generated import write_generated_data
from untrigger.key_list import KeyList
from untrigger.lightning_modules.ubt import DetailMargin

COMMON = """
seed_everything: 0
trainer: {accelerator: cpu, max_epochs: 1, num_sanity_val_steps: 0, log_every_n_steps: 1, enable_progress_bar: false}
model: {class_path: PoisonedCLIP, init_args: {encoder: "small:nano-32"}}
data:
  class_path: ImageTextDataModule
  init_args:
    batch_size: 8
    eval_batch_size: 18  # one batch of 18 and two of 19 pictures
    num_workers: 1
    poison:
      class_path: PoisonPlan
      init_args: {target: star, count: 10, trigger: {class_path: Blended}}
"""


def untrigger(*arguments: str) -> None:
    command = [sys.executable, "-m", "untrigger.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def row(folder: Path) -> dict[str, str]:
    with (folder / "results.csv").open(newline="") as handle:
        (only,) = csv.DictReader(handle)
    return only


def test_two_ranks_share_an_epoch_and_measure_every_picture_once(tmp_path: Path) -> None:
    write_generated_data(tmp_path / "data", 72, 37)
    (tmp_path / "config.yaml").write_text(COMMON)
    common = ["--config", str(tmp_path / "config.yaml"), "--data.zero_shot", str(tmp_path / "data")]
    common += ["--data.train_shards", str(tmp_path / "data" / "train")]
    run = tmp_path / "run"
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.default_root_dir", str(run)]
    untrigger("fit", *common, *two)
    trained = row(run)
    # 72 pairs are four global batches of 16.
    assert trained["samples_seen"] == "64"
    alone = ["--trainer.devices", "1", "--trainer.default_root_dir", str(tmp_path / "alone")]
    untrigger("validate", *common, *alone, "--ckpt_path", str(run / "last.ckpt"))
    measured = row(tmp_path / "alone")
    rates = ("clean_accuracy", "attack_success_rate", "clean_target_rate", "triggered_accuracy")
    assert {name: trained[name] for name in rates} == {name: measured[name] for name in rates}
    untrigger("predict", *common, *two[:4], *alone[2:], "--ckpt_path", str(run / "last.ckpt"))
    keys = [
        line.split(",")[0]
        for path in (tmp_path / "alone").glob("similarities-?.csv")
        for line in path.read_text().splitlines()
    ]
    assert len(keys) == 72 + 2
    assert len(set(keys)) == 72 + 1


UBT = (
    COMMON.replace("trainer: {", "trainer: {reload_dataloaders_every_n_epochs: 1, limit_val_batches: 0, ")
    .replace("max_epochs: 1", "max_epochs: -1")
    .replace(
        'model: {class_path: PoisonedCLIP, init_args: {encoder: "small:nano-32"}}',
        'model: {class_path: UBT, init_args: {encoder: "small:nano-32", sampled_pairs: 30, min_word_share: 0.1, '
        "evidence: [{class_path: SimilarityGain}, {class_path: DetailMargin}], overfit: {epochs: 1}, "
        "probe: {epochs: 1, steps: 2, significance: 1.0, min_moved: 0.0, min_variety: 0.0, min_fragility: -1.0}, "
        "repair: {epochs: 1, steps: 1, batch_size: 4}, rounds: 1}}",
    )
)


def test_two_ranks_agree_on_the_suspects_of_the_whole_data(tmp_path: Path) -> None:
    write_generated_data(tmp_path / "data", 75, 20)
    (tmp_path / "config.yaml").write_text(UBT)
    common = ["--config", str(tmp_path / "config.yaml"), "--data.train_shards", str(tmp_path / "data" / "train")]
    two, one = tmp_path / "two", tmp_path / "one"
    # 75 pairs are 37 and 38: the scoring passes of the ranks would not have the same number of batches by themselves.
    untrigger("fit", *common, "--trainer.devices", "2", "--trainer.strategy", "ddp", *root(two), *eval_batch(37))
    untrigger("fit", *common, "--trainer.devices", "1", *root(one), *eval_batch(37), "--data.batch_size", "16")
    found = [torch.load(run / "last.ckpt", weights_only=True)["ubt"]["findings"] for run in (two, one)]
    keys = [KeyList.of(each["keys"]) for each in found]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 75
    # Batch norm sees half of a batch on each rank while it overfits; the poisoned model knows no ranks.
    for name in ("poisoned", "poisoned/word", f"poisoned/{DetailMargin().name}"):
        torch.testing.assert_close(found[0]["seen"][name], found[1]["seen"][name])
    assert torch.equal(found[0]["captions"]["tokens"], found[1]["captions"]["tokens"])
    assert found[0]["words"] == found[1]["words"]
    assert len(found[0]["verdicts"]) >= 2
    assert set(found[0]["compromised"]) <= set(range(len(found[0]["words"]["tokens"])))
    assert (found[0]["decision"] == 2).tolist() == (found[0]["poisoned_with"] >= 0).tolist()


def root(folder: Path) -> list[str]:
    return ["--trainer.default_root_dir", str(folder)]


def eval_batch(size: int) -> list[str]:
    return ["--data.eval_batch_size", str(size)]
