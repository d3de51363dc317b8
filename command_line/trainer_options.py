"""Options of Lightning's trainer that mean something else for a command that leaves files."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_info

from ..contracts import UserMistake

_OF_A_NOTEBOOK = re.compile(r"ddp_(spawn|fork|notebook)(?=_find_unused_parameters_|$)")
"""Strategies whose processes are copies of one that continues without what they know."""


def settle_trainer(trainer: MutableMapping[str, Any]) -> None:
    """Settle the options that a run cannot take as they are.

    Processes of ``ddp_spawn`` and its like hand the weights back to the one that made them and nothing else: the clock,
    the pairs seen and the figures that callbacks keep would be lost. ``ddp`` trains the same and starts the command for
    each device, so it is used instead.

    Args:
        trainer: The trainer's part of the config; changed.

    Raises:
        UserMistake: If an option leaves nothing of what a run is for.
    """
    if trainer["accumulate_grad_batches"] < 1:  # Lightning divides by it
        raise UserMistake(f"trainer.accumulate_grad_batches is {trainer['accumulate_grad_batches']}, not at least 1")
    for option in ("val_check_interval", "check_val_every_n_epoch"):  # likewise
        if trainer.get(option) == 0:
            raise UserMistake(
                f"trainer.{option} is 0, not above: to measure nothing on the way, give --trainer.limit_val_batches 0"
            )
    if trainer["barebones"]:
        raise UserMistake(
            "trainer.barebones leaves out what a run is for, its checkpoints, logs and figures: it measures Lightning "
            "alone. To try a config, give --trainer.fast_dev_run true; to measure speed, see train/samples_per_second "
            "in metrics.csv"
        )
    _check_pairs(trainer)
    strategy = trainer["strategy"]
    if isinstance(strategy, str) and _OF_A_NOTEBOOK.match(strategy):
        trainer["strategy"] = _OF_A_NOTEBOOK.sub("ddp", strategy)
        rank_zero_info(
            f"trainer.strategy is {strategy}, whose processes lose what callbacks keep: {trainer['strategy']} is run, "
            "which trains the same"
        )


def _check_pairs(trainer: Mapping[str, Any]) -> None:
    """Check options of which one has no effect beside the other, where Lightning says nothing."""
    limit, algorithm = trainer.get("gradient_clip_val"), trainer.get("gradient_clip_algorithm")
    if limit is not None and limit < 0:
        raise UserMistake(f"trainer.gradient_clip_val is {limit:g}, with which nothing is clipped: give one above 0")
    if algorithm is not None and not limit:
        raise UserMistake(
            f"trainer.gradient_clip_algorithm is {algorithm}, but nothing is clipped without trainer.gradient_clip_val"
        )
    for unit in ("epochs", "steps"):
        least, most = trainer.get(f"min_{unit}"), trainer.get(f"max_{unit}")
        if least is not None and most is not None and most >= 0 and least > most:
            raise UserMistake(
                f"trainer.min_{unit} is {least} and trainer.max_{unit} {most}, so the run would end before: give one "
                "that is not below the other"
            )


def check_steps(trainer: Trainer, module: LightningModule) -> None:
    """Check that a module which takes the optimiser's steps by itself is not asked for what only Lightning's have.

    Args:
        trainer: The trainer of a fit.
        module: What it is to train.

    Raises:
        UserMistake: If it is.
    """
    if module.automatic_optimization:
        return
    asked = {
        "gradient_clip_val": bool(trainer.gradient_clip_val),
        "accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
    }
    for option in (name for name, given in asked.items() if given):
        raise UserMistake(f"{type(module).__name__} takes its steps by itself: leave trainer.{option} out")


def check_averaging(trainer: Trainer) -> None:
    """Check that no callback changes the weights after the last checkpoint and the last measurement of a fit.

    Args:
        trainer: The trainer of a fit.

    Raises:
        UserMistake: If one does.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # a connector sets it
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise UserMistake(
            "StochasticWeightAveraging averages when all is saved and measured, and its average would be lost: take "
            "lightning.pytorch.callbacks.EMAWeightAveraging"
        )
