"""CleanCLIP on a model that a check has found suspicious."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ...lightning_modules import CleanCLIP
from ..check.examination import Subject
from ..trainer_runs import config_for, fit_or_resume

_CLEANED = "cleanclip"


def finetune(subject: Subject, shards: str, config: str | None, console: Console) -> Path:
    """Finetune a model with CleanCLIP.

    Args:
        subject: The model; the run goes into its folder.
        shards: Pairs that are known to be clean.
        config: A config of CleanCLIP; one of the package's unless given.
        console: Where it is said.

    Returns:
        The checkpoint.

    Raises:
        UserMistake: If the config is of something else.
    """
    console.rule("Finetuning on the clean pairs with CleanCLIP")
    chosen = config_for(subject.encoder, config, "cleanclip/cifar10.yaml", "cleanclip/cc3m_100k.yaml")
    run = subject.folder / _CLEANED
    fit_or_resume(chosen, [*subject.arguments, "--data.train_shards", shards], run, CleanCLIP)
    return run / "last.ckpt"
