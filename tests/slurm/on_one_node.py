"""Runs the scripts of ``configs/slurm`` for real, interrupts them, and prints what happened: ``make test-slurm``.

It needs a SLURM that takes jobs of two tasks from here, on whose node this folder and the temporary one are seen.
``python on_one_node.py [signal] [requeue] [kill] [array] [srun] [devices]`` runs some of the trials; exit code 1 where
one fails.

Two tasks train under DDP, 30 batches of each rank in three epochs. An interrupted run has to see what was due, batch by
batch, and to end with the weights of the uninterrupted one, bit for bit.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from untrigger.datamodules.generated import write_generated_data

CONFIG = """
seed_everything: 0
trainer:
  accelerator: cpu
  strategy: auto
  max_epochs: 3
  num_sanity_val_steps: 0
  check_val_every_n_epoch: 3
  log_every_n_steps: 2
  enable_progress_bar: false
model: {class_path: study.Noisy, init_args: {encoder: "small:nano-32", lr: 1.0e-2, warmup_steps: 4}}
data: {class_path: ImageTextDataModule, init_args: {batch_size: 8, eval_batch_size: 10, num_workers: 1}}
"""
SCRIPTS = Path(str(files("untrigger"))) / "configs" / "slurm"
BATCHES = 30
PATIENCE = 1800.0


def output_of(*command: str) -> str:
    """What a command of SLURM's prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def facts(job: str) -> dict[str, str]:
    """What SLURM knows of a job."""
    words = output_of("scontrol", "show", "job", "-o", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def wait(what: str, is_so: Callable[[], bool]) -> None:
    """Wait for something, and give up some day."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            sys.exit(f"gave up waiting: {what}")
        time.sleep(0.5)


class Trial:
    """A folder with data, and the jobs that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failures: list[str] = []
        write_generated_data(folder / "data", 160, 20)
        (folder / "config.yaml").write_text(CONFIG)

    def options(self, name: str) -> list[str]:
        """Of ``untrigger fit``, with a diary for each rank."""
        diary = {"file": str(self.folder / f"{name}-diary"), "seconds": 0.5}
        return [
            *("--config", str(self.folder / "config.yaml"), "--data.zero_shot", str(self.folder / "data")),
            *("--data.train_shards", str(self.folder / "data" / "train"), "--checkpoint.minutes", "0.05"),
            f"--trainer.callbacks+={json.dumps({'class_path': 'study.Diary', 'init_args': diary})}",
        ]

    def submit(self, script: str, arguments: Sequence[str], *options: str) -> str:
        """Send one of the scripts out, on CPUs."""
        here = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(filter(None, here)),
            "OMP_NUM_THREADS": "1",
        }
        command = ["sbatch", "--parsable", "--gres=none", "--cpus-per-task=1", "--time=60", *options]
        done = subprocess.run(
            [*command, str(SCRIPTS / script), *arguments],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"sbatch refused: {done.stderr}")
        job = done.stdout.strip().split(";")[0]
        print(f"  job {job}: {script}", flush=True)
        return job

    def fit(self, name: str) -> str:
        """A run of two tasks on one node."""
        folder = ["--trainer.default_root_dir", str(self.folder / name)]
        return self.submit("one_node.sbatch", [*self.options(name), *folder], "--ntasks-per-node=2")

    def diary(self, name: str, rank: int) -> list[Any]:
        """The batches of a rank so far: epoch, batch and keys."""
        file = self.folder / f"{name}-diary.{rank}"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def check(self, what: str, is_so: bool) -> None:
        """Print whether something is as it should be."""
        print(f"  {'yes' if is_so else 'NO '}  {what}", flush=True)
        if not is_so:
            self.failures.append(what)

    def wait_for_batches(self, name: str, count: int) -> None:
        """Wait until the first rank has had some batches."""
        wait(f"{count} batches of {name}", lambda: len(self.diary(name, 0)) >= count)

    def wait_for_end(self, job: str) -> None:
        """Wait until a job is over, whether or not it was put back into the queue before."""

        def is_over() -> bool:
            now = facts(job)
            if now["JobState"] == "PENDING" and now["Reason"] == "BeginTime":
                output_of("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM waits for two minutes
            return now["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        wait(f"the end of job {job}", is_over)

    def show_log(self, job: str) -> None:
        """Print the end of what a job that went wrong has printed."""
        log = (self.folder / f"slurm-{job}.log").read_text()
        print("\n".join(f"    | {line}" for line in log.splitlines()[-30:]))

    def weights(self, name: str) -> dict[str, Any]:
        """The last checkpoint of a run."""
        content: dict[str, Any] = torch.load(self.folder / name / "last.ckpt", weights_only=True)
        return content

    def compare(self, name: str, job: str, twice_at_most: int) -> None:
        """See that an interrupted run is like the one that was not.

        Args:
            name: Of the run.
            job: Its job.
            twice_at_most: Batches that a rank may have seen again, because they were behind the last checkpoint.
        """
        now = facts(job)
        self.check(f"SLURM restarted it once and calls it {now['JobState']}", now["Restarts"] == "1")
        self.check("it completed", now["JobState"] == "COMPLETED")
        if now["JobState"] != "COMPLETED":
            self.show_log(job)
            return
        for rank in range(2):
            whole, seen = self.diary("whole", rank), self.diary(name, rank)
            positions = [batch[:2] for batch in seen]
            cut = next((at for at in range(1, len(seen)) if positions[at] <= positions[at - 1]), None)
            again = len(seen) - BATCHES
            at_hand = "" if cut is None else f", resumed at epoch {positions[cut][0]}, batch {positions[cut][1]}"
            self.check(f"rank {rank}: {again} batches came again{at_hand}", 0 <= again <= twice_at_most)
            kept = {tuple(batch[:2]): batch[2] for batch in seen}
            self.check(
                f"rank {rank}: every batch had the pairs that were due",
                len(whole) == BATCHES and all(batch in whole for batch in seen) and len(kept) == BATCHES,
            )
        ends = [self.weights(run) for run in ("whole", name)]
        same = all(torch.equal(ends[0]["state_dict"][key], tensor) for key, tensor in ends[1]["state_dict"].items())
        self.check("its final weights are those of the uninterrupted run, bit for bit", same)
        rows = [results(self.folder / run) for run in ("whole", name)]
        self.check("so is its row of results.csv, but for the seconds", rows[0] == rows[1] and len(rows[0]) == 1)
        logs = sorted(str(path.relative_to(self.folder / name)) for path in (self.folder / name).rglob("metrics.csv"))
        self.check(f"both sessions left their logs: {', '.join(logs)}", len(logs) == 2)


def results(folder: Path) -> list[dict[str, str]]:
    """The rows of a run, without their seconds."""
    with (folder / "results.csv").open(newline="") as handle:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(handle)]


def uninterrupted(trial: Trial) -> None:
    """What the other runs are compared with."""
    print("two tasks under DDP, uninterrupted")
    job = trial.fit("whole")
    trial.wait_for_end(job)
    state = facts(job)["JobState"]
    trial.check(f"SLURM calls it {state}", state == "COMPLETED")
    if state != "COMPLETED":
        trial.show_log(job)
        sys.exit(1)
    pairs = [tuple(batch[2]) for rank in range(2) for batch in trial.diary("whole", rank)[:10]]
    trial.check("the ranks shared the 160 pairs of an epoch", len({key for batch in pairs for key in batch}) == 160)


def interrupted(trial: Trial, name: str, batches: int, *command: str) -> str:
    """The job of a run that was interrupted after some batches, by a command with ``JOB`` for it, once it is over."""
    job = trial.fit(name)
    trial.wait_for_batches(name, batches)
    output_of(*(word.replace("JOB", job) for word in command))
    trial.wait_for_end(job)
    return job


def by_signal(trial: Trial) -> None:
    """USR1 to the tasks, as SLURM sends it before the time limit: the run requeues itself."""
    print("USR1 in the middle of the second epoch")
    job = interrupted(trial, "signal", 14, "scancel", "--signal=USR1", "JOB")
    trial.compare("signal", job, twice_at_most=0)


def by_requeue(trial: Trial) -> None:
    """``scontrol requeue``, as an administrator does: the tasks get SIGTERM."""
    print("scontrol requeue in the middle of the second epoch")
    job = interrupted(trial, "requeue", 14, "scontrol", "requeue", "JOB")
    trial.compare("requeue", job, twice_at_most=0)


def by_kill(trial: Trial) -> None:
    """SIGKILL to the tasks: nobody writes a checkpoint, and the job is requeued when it has failed."""
    print("SIGKILL in the middle of the second epoch, then scontrol requeue")
    # The step alone: the whole job would be cancelled.
    job = interrupted(trial, "kill", 17, "scancel", "--signal=KILL", "JOB.0")
    trial.check(f"the killed job is called {facts(job)['JobState']}", facts(job)["JobState"] == "FAILED")
    output_of("scontrol", "requeue", job)
    wait("the requeue", lambda: facts(job)["JobState"] != "FAILED")
    trial.wait_for_end(job)
    trial.compare("kill", job, twice_at_most=BATCHES - 1)


def in_array(trial: Trial) -> None:
    """A sweep of two, of which one task is interrupted."""
    print("an array of two, USR1 to the second task")
    sweep = trial.folder / "sweep.txt"
    diaries = [str(trial.folder / f"sweep-{task}-diary") for task in range(2)]
    callback = '{{"class_path":"study.Diary","init_args":{{"file":"{}","seconds":0.5}}}}'
    sweep.write_text(
        "".join(
            f"--seed_everything {task} --trainer.callbacks+={callback.format(diary)}\n"
            for task, diary in enumerate(diaries)
        )
    )
    common = [option for option in trial.options("") if not option.startswith("--trainer.callbacks")]
    job = trial.submit("sweep.sbatch", [str(sweep), *common], "--array=0-1")
    trial.wait_for_batches("sweep-1", 14)
    output_of("scancel", "--signal=USR1", f"{job}_1")
    for task in range(2):
        trial.wait_for_end(f"{job}_{task}")
        now = facts(f"{job}_{task}")
        trial.check(f"task {task}: {now['JobState']}, restarts: {now['Restarts']}", now["JobState"] == "COMPLETED")
        trial.check(f"task {task} was restarted {task} times", now["Restarts"] == str(task))
        seen = trial.diary(f"sweep-{task}", 0)
        trial.check(
            f"task {task}: every batch of three epochs, once",
            len(seen) == len({tuple(batch[:2]) for batch in seen}) == 60,
        )
        (row,) = results(trial.folder / f"runs/sweep-{job}" / str(task))
        trial.check(f"task {task}: seed {row['seed']} in its own results.csv", row["seed"] == str(task))


def refused(trial: Trial, name: str, command: str, devices: int, reported: str) -> None:
    """A script of the user's own for two tasks, which ends at once with one line and exit code 2."""
    script = trial.folder / f"{name}.sbatch"
    script.write_text(f'#!/bin/bash\n#SBATCH --output=slurm-%j.log\n{command} fit "$@"\n')
    options = [*trial.options(name), "--trainer.default_root_dir", str(trial.folder / name)]
    job = trial.submit(str(script), [*options, "--trainer.devices", str(devices)], "--ntasks-per-node=2")
    trial.wait_for_end(job)
    code = facts(job)["ExitCode"]
    trial.check(f"it ended with exit code {code}", code == "2:0")
    lines = (trial.folder / f"slurm-{job}.log").read_text().splitlines()
    errors = [line for line in lines if line.startswith("untrigger: error:")]
    trial.check(
        f"it said: {errors[0] if errors else 'nothing'}", bool(errors) and all(reported in line for line in errors)
    )
    trial.check("no checkpoint was begun", not list((trial.folder / name).glob("*.ckpt")))
    if code != "2:0" or not errors:
        trial.show_log(job)


def without_srun(trial: Trial) -> None:
    """A batch script of two tasks that calls the command by itself."""
    print("a script of two tasks that forgets srun")
    refused(trial, "no-srun", "untrigger", 2, "Call the command with srun in front")


def disagreeing(trial: Trial) -> None:
    """Two tasks for a run of one device."""
    print("a script of two tasks for one device")
    refused(trial, "devices", "srun untrigger", 1, "SLURM started 2 tasks on 1 node")


TRIALS = {
    "signal": by_signal,
    "requeue": by_requeue,
    "kill": by_kill,
    "array": in_array,
    "srun": without_srun,
    "devices": disagreeing,
}
ALONE = {"array", "srun", "devices"}
"""Trials that compare with no other run."""


def main(names: Sequence[str]) -> None:
    """Run the trials."""
    unknown = set(names) - set(TRIALS)
    if unknown:
        sys.exit(f"there is no trial {', '.join(sorted(unknown))}; there are {', '.join(TRIALS)}")
    print(output_of("sinfo", "--version"), "on", output_of("sinfo", "-h", "-o", "%N, %c CPUs, %T"))
    with tempfile.TemporaryDirectory(prefix="untrigger-slurm-", ignore_cleanup_errors=True) as folder:
        trial = Trial(Path(folder))
        if set(names or TRIALS) - ALONE:
            uninterrupted(trial)
        for name in names or TRIALS:
            TRIALS[name](trial)
    print(f"{len(trial.failures)} things are not as they should be" if trial.failures else "all as it should be")
    sys.exit(bool(trial.failures))


if __name__ == "__main__":
    main(sys.argv[1:])
