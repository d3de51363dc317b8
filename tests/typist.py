"""Commands as a reader types them: each in a process of its own, in her folder, with nothing of ours on the path."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from untrigger.datamodules import generated
from untrigger.datamodules.shards.writer import Labelled, write_training_shards, write_zero_shot_set

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SMALL = [
    *("--model.encoder", "small:nano-32", "--data.batch_size", "32", "--data.num_workers", "0"),
    *("--trainer.precision", "32", "--trainer.enable_model_summary", "false", "--trainer.enable_progress_bar", "false"),
]
SHORT = [*SMALL, "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"]
SHORT_UBT = [
    *SMALL,
    *("--model.probe.epochs", "1", "--model.probe.steps", "2", "--model.probe.candidates", "8", "--model.rounds", "1"),
    *("--model.repair.epochs", "1", "--model.repair.steps", "2", "--model.sampled_pairs", "64"),
]
SHORT_NAMING = [*SMALL, "--model.patch.epochs", "1", "--model.patch.steps", "2", "--model.patch.counted_pairs", "64"]
SHORT_PHASED = {
    "ubt": SHORT_UBT,
    "abl": [*SMALL, "--model.isolation_epochs", "1", "--model.unlearn_epochs", "1", "--model.isolated_share", "0.1"],
    "safeclip": [*SMALL, "--model.unimodal_epochs", "1", "--model.epochs", "1"],
    "target_naming": SHORT_NAMING,
    "invertune": [
        *SHORT_NAMING,
        *("--model.inversion.epochs", "1", "--model.inversion.steps", "2", "--model.tuning.reference_pairs", "64"),
        *("--model.tuning.epochs", "1", "--model.tuning.steps", "2"),
    ],
    "pair_detectors": [*SMALL, "--model.sampled_pairs", "64"],
    "tbar": [*SMALL, "--model.epochs", "1", "--model.others_per_given", "20"],
}
"""For runs that end by themselves, by the folder of their configs."""
SERVER = """
import json, os, sys
from untrigger import cli
from untrigger.command_line import lightning_cli
from untrigger.commands import bench, check, clean, demo, detect, export, poison, report, screen, shards
for line in sys.stdin:
    job = json.loads(line)
    if not (child := os.fork()):
        for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, job["log"], os.O_WRONLY | os.O_CREAT)):
            os.dup2(os.open(path, flags, 0o600), number)
        os.dup2(1, 2)
        os.chdir(job["folder"])
        sys.argv = [job["script"], *job["arguments"]]
        sys.path.insert(0, os.path.dirname(job["script"]))
        sys.exit(cli.main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Forks a process for each command, so that what takes seconds to import is imported once."""


def script() -> str:
    """The command that was installed."""
    return str(Path(sys.executable).with_name("untrigger"))


class Typist:
    """Runs commands in a folder.

    Args:
        folder: The reader's.
        log: Where what they say goes, outside of it.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self._log = folder, log
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def types(self, command: str | Sequence[str], *more: str, code: int = 0) -> str:
        """Run a command, see its exit code, and return what it said."""
        program, *arguments = shlex.split(command, comments=True) if isinstance(command, str) else command
        assert program == "untrigger"
        self._log.unlink(missing_ok=True)
        job = {"script": script(), "arguments": [*arguments, *more], "folder": str(self.folder), "log": str(self._log)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(job), file=self._server.stdin, flush=True)
        ended = int(self._server.stdout.readline())
        said = self._log.read_text(errors="replace")
        assert ended == code, f"{shlex.join([program, *arguments, *more])}\n{said[-4000:]}"
        assert "Traceback" not in said, said[-4000:]
        return said


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page in a language, in order; of blocks without one where it is empty."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [code for named, code in found if named == language]


def commands(block: str) -> list[str]:
    """The commands of a block, continued lines joined."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def write_small_cifar10(folder: Path, shard_size: int = 16, shards: int = 25, test: int = 40) -> None:
    """What readers call ``cifar10``: its folders, its classes and its number of shards, with drawn shapes in them."""
    names = dict(zip(generated.OUTLINES, CIFAR10, strict=True))
    pairs = []
    for pair in generated._pairs(shard_size * shards, 32, 0):
        words = [names.get(word.rstrip("."), word) for word in pair.caption.split()]
        pairs.append(pair._replace(caption=" ".join(words)))
    labelled: list[Labelled] = list(generated._labelled(test, 32, 0))
    write_zero_shot_set(folder, labelled, list(CIFAR10), generated.TEMPLATES, shard_size=test)
    write_training_shards(folder / "train", pairs, shard_size)


def shortened(command: str) -> list[str]:
    """Options that make a command of minutes or days a matter of seconds."""
    if command.split()[1] != "fit":
        return []
    short = next((short for name, short in SHORT_PHASED.items() if f"configs/{name}/" in command), SHORT)
    # A method for vision transformers alone has the one that lies in the reader's folder.
    if "configs/rvpt/" in command:
        return ["hf:runs/vit-32" if option == "small:nano-32" else option for option in short]
    return short[2:] if "--model.encoder hf:runs/vit-32" in command else short
