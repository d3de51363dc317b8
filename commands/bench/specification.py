"""The format of a bench file: attacks, defences and the runs of a grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jsonargparse.typing import register_type

from ...command_line.own_modules import Imports


class Settings:
    """A part of a LightningCLI file, kept as it is: its classes are the business of the run that it is for.

    Args:
        content: A mapping, with whatever in it.
    """

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        if not isinstance(content, dict | None):
            raise ValueError(f"expected settings by name, not {content!r}")
        self.content = content or {}


register_type(Settings, serializer=lambda settings: settings.content)


@dataclass
class RunSpec:
    """A run of ``untrigger fit``: a LightningCLI config, and what is changed in it.

    Texts may name ``${data}`` (the folder that the bench is given), ``${seed}`` and the folder of an earlier run: of a
    preparation by its name, of the poisoned model as ``${poisoned}``.
    """

    config: str | None = None
    """A LightningCLI file: a path, or one of the package's own such as ``cleanclip/cifar10.yaml``."""
    model: Settings = field(default_factory=Settings)
    """Changes to ``model``, as in a LightningCLI file: ``class_path`` and ``init_args``, or arguments alone."""
    data: Settings = field(default_factory=Settings)
    """Changes to ``data``, likewise."""
    trainer: Settings = field(default_factory=Settings)
    """Changes to ``trainer``."""


@dataclass
class AttackSpec(RunSpec):
    """A way to poison the training data. Each rate, target and seed makes a poisoned model."""

    poison: Settings | list[Settings] | None = None
    """``data.poison``: a plan by class path and arguments, a list of plans, or nothing for a clean model."""
    rates: list[float] | None = None
    """Poison rates; those of the bench unless given."""
    targets: list[str] | None = None
    """Target classes; those of the bench unless given."""
    seeds: list[int] | None = None
    """Seeds; those of the bench unless given."""


@dataclass
class DefenceSpec(RunSpec):
    """A way to clean a poisoned model, or to train robustly instead. It is measured on the model's attack."""

    sees_poison: bool = False
    """Whether the poisoned model's own poison is in its training data too: ``data.poison`` is then that model's."""
    start: str | None = None
    """Another defence, whose model it starts from; the ``last.ckpt`` of the poisoned model unless given."""
    from_scratch: bool = False
    """Whether it starts from the weights that its encoder's name stands for, and not from the poisoned model: robust
    training on the poisoned data itself, for which it has to see the poison."""
    attacks: list[str] | None = None
    """Attacks that it is tried on; all unless given."""
    seeds: list[int] | None = None
    """Seeds that it is tried on; all of the attack's unless given."""
    targets: list[str] | None = None
    """Targets that it is tried on, of attacks whose target varies; all of the attack's unless given."""
    rebound: bool = True
    """Whether its models are finetuned further, where the bench says how."""


@dataclass
class BenchSpec:
    """A grid of attacks and defences on one data set."""

    name: str
    """Names the folders of runs, tables and records."""
    attacks: dict[str, AttackSpec]
    """By their labels in the tables."""
    defences: dict[str, DefenceSpec] = field(default_factory=dict)
    """By their labels in the tables."""
    train: RunSpec = field(default_factory=RunSpec)
    """What every poisoned model is trained with, unless its attack says otherwise."""
    every: RunSpec = field(default_factory=RunSpec)
    """What is changed in every run."""
    preparations: dict[str, RunSpec] = field(default_factory=dict)
    """Runs that others need first, by name: run once for each seed at which one is named."""
    cells_of: str | None = None
    """The name of a bench whose runs and records this one shares: a cell that both have runs once."""
    twins: bool = True
    """Whether each attack is also measured on a never poisoned twin: a model with the data, the configuration and the
    seed of the poisoned one, trained once for all attacks on it. Without, the tables have neither floor nor ceiling."""
    rebound: RunSpec | None = None
    """How each cleaned model is finetuned further, on clean pairs, to see whether the attack comes back: with a
    validation after each epoch, the highest attack success on the way is reported, and that of the twin beside it."""
    parts: dict[str, list[str]] = field(default_factory=dict)
    """Parts of the grid by name, each the names of its cells, with ``*`` and ``[...]`` as in a shell: models on which
    settings are chosen, say, and models on which they are reported."""
    data: str | None = None
    """The folder that ``${data}`` stands for."""
    imports: Imports = None
    """Modules of your own that every run imports first, such as ``my_study``: one, or a list. They lie in the working
    folder, or are installed."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the runs. A plan takes it where it says ``seed: ${seed}``."""
    rates: list[float] | None = None
    """Poison rates; those of the plans unless given."""
    targets: list[str] | None = None
    """Target classes; those of the plans unless given."""
