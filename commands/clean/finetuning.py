"""CleanCLIP on a model that a check has found suspicious."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ...packaged_configs import packaged_config
from ...reading import user_path
from ..check.examination import Subject
from ..trainer_runs import fit_or_resume

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
    """
    console.rule("Finetuning on the clean pairs with CleanCLIP")
    small = subject.encoder.startswith("small:")
    given = None if config is None else str(user_path(packaged_config(config), "config").absolute())
    chosen = given or ("cleanclip/cifar10.yaml" if small else "cleanclip/cc3m_100k.yaml")
    run = subject.folder / _CLEANED
    fit_or_resume(chosen, [*subject.arguments, "--data.train_shards", shards], run)
    return run / "last.ckpt"
