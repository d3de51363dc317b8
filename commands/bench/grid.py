"""Expand a bench file into cells: the runs of the grid, their command lines, and the runs that each depends on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

from ...command_line.own_modules import module_names
from ...contracts import UserMistake
from ...files.packaged_configs import packaged_config
from ...files.plain_yaml import read_yaml
from ...run_folder.manifest import MANIFEST
from ..summary import NO_DEFENCE
from .specification import AttackSpec, BenchSpec, DefenceSpec, RunSpec, Settings

POISONED = "poisoned"
"""The variable ``${poisoned}``: the run folder of the poisoned model that a defence starts from."""
BEFORE = "before"
"""The variable ``${before}``: the run folder of the defence that another defence starts from."""
TWIN = "twin"
"""The variable ``${twin}``: the run folder of the twin, a model trained likewise without any poison."""
_BUILT_IN_VARIABLES = ("data", "seed", POISONED, BEFORE, TWIN)
_PARTS = ("model", "data", "trainer")


@dataclass(frozen=True)
class Cell:
    """A run of the grid. Its arguments name the folders of other runs and of the data by ``${variables}``."""

    attack: str
    """The attack's label, with its rate and target where the grid has several."""
    defence: str
    """The defence's label; ``none`` for a poisoned model; a preparation's name."""
    seed: int
    """Seed of the run, as ``--seed_everything`` takes it."""
    name: str
    """A readable name, unique in the grid."""
    config: str
    """The LightningCLI file, as the bench file names it."""
    arguments: tuple[str, ...]
    """Command-line arguments of ``untrigger`` after the config."""
    needs: dict[str, Cell]
    """Cells that must finish before this one, by the variable that names their folder."""
    listed: bool = True
    """Whether its figures have rows in the table; those of preparations and twins have none."""
    subcommand: str = "fit"
    """Subcommand of ``untrigger``: ``fit``, or ``validate`` where a model is only measured."""
    twin: Cell | None = None
    """The cell that measures the attack on the twin, which gives the floor and the ceiling."""
    rebound: Cell | None = None
    """The cell that finetunes the model further on clean pairs and measures the attack after each epoch."""

    @property
    def parent(self) -> Cell | None:
        """The cell whose model this one starts from, if any."""
        return self.needs.get(BEFORE, self.needs.get(POISONED))

    @cached_property
    def hash(self) -> str:
        """Eight hexadecimal digits over its settings and, through their hashes, those of the cells that it needs."""
        settings = [read_config(self.config), self.arguments, sorted(cell.hash for cell in self.needs.values())]
        if self.subcommand != "fit":
            settings.append(self.subcommand)
        return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]

    @property
    def id(self) -> str:
        """The name of its run folder and its record; with other settings it is another cell."""
        return f"{self.name}-{self.hash}"


def expand(spec: BenchSpec) -> list[Cell]:
    """Expand a bench file into the cells of its grid.

    Args:
        spec: The content of the bench file.

    Returns:
        Each cell once, after those that it needs.

    Raises:
        UserMistake: If a config is missing, a name is unknown, or an argument names an unknown variable.
    """
    for name in (*spec.attacks, *spec.defences, *spec.preparations):
        if not re.fullmatch(r"[A-Za-z0-9][\w.+%-]*", name):
            raise UserMistake(f"bench: {name!r} is no name for a run; use letters, digits, and . _ - + % inside")
    cells: dict[str, Cell] = {}
    models = list(_poisoned_models(spec))
    # A twin that is in the grid as a clean model is trained once.
    twins = {model.hash: model for label, _, model in models if not spec.attacks[label].poison}
    later: list[Cell] = []  # twins and rebounds, so that the rows of an attack stand together
    for label, target, model in models:
        if spec.twins and spec.attacks[label].poison:
            twin = _measured_on_twin(spec, model, twins)
            model = replace(model, twin=twin)
            later += [twin, *([twin.rebound] if twin.rebound is not None else [])]
        for cell in (model, *_defended(spec, label, target, model)):
            cells.update({each.id: each for each in _with_needs(cell) if each.id not in cells})
            later += [cell.rebound] if cell.rebound is not None else []
    for cell in later:
        cells.update({each.id: each for each in _with_needs(cell) if each.id not in cells})
    if not cells:
        raise UserMistake("bench: the grid is empty: give at least one attack and one seed")
    return list(cells.values())


def _poisoned_models(spec: BenchSpec) -> Iterator[tuple[str, str | None, Cell]]:
    """Yield the name of an attack in the bench file, its target where that varies, and the cell of a poisoned model."""
    for label, attack in spec.attacks.items():
        for rate in _axis(attack.rates, spec.rates):
            for target in _axis(attack.targets, spec.targets):
                for seed in attack.seeds if attack.seeds is not None else spec.seeds:
                    yield label, target, _poisoned(spec, label, attack, rate, target, seed)


def config_path(name: str) -> Path:
    """Find a LightningCLI file that a bench file names.

    Raises:
        UserMistake: If there is none.
    """
    path = Path(packaged_config(name))
    if path.is_file():
        return path
    raise UserMistake(f"bench: there is no config {name}, neither here nor among the package's own")


def _axis(own: list[Any] | None, common: list[Any] | None) -> list[Any]:
    """The values of an axis of the grid: an attack's own, or those of the bench; [None] where it does not vary."""
    chosen = own if own is not None else common
    return [None] if chosen is None else chosen


def _poisoned(
    spec: BenchSpec, label: str, attack: AttackSpec, rate: float | None, target: str | None, seed: int
) -> Cell:
    """The cell that trains a poisoned model, or a clean one where the attack has no poison."""
    poison = [plan.content for plan in attack.poison] if isinstance(attack.poison, list) else attack.poison
    arguments = list(_flags("data.poison", poison))
    if not isinstance(poison, Settings) and (rate is not None or target is not None):
        raise UserMistake(f"bench: attack {label} has no single plan whose rate or target could vary")
    if rate is not None:
        label, arguments = f"{label}-{100 * rate:g}%", [*arguments, "--data.poison.rate", str(rate)]
    if target is not None:
        label, arguments = f"{label}-{target}", [*arguments, "--data.poison.target", target]
    runs = (spec.every, spec.train, attack)
    return _cell(spec, runs, arguments, label, NO_DEFENCE, seed, f"{_slug(label)}-seed{seed}", {})


def _measured_on_twin(spec: BenchSpec, model: Cell, twins: dict[str, Cell]) -> Cell:
    """The cell that measures a poisoned model's attack on its twin; a twin that is new is added to ``twins``."""
    pairs = list(zip(model.arguments[::2], model.arguments[1::2], strict=True))
    poison = [pair for pair in pairs if pair[0].startswith("--data.poison")]
    rest = [pair for pair in pairs if pair not in poison]
    twin = _run_of(model, TWIN, f"{TWIN}-seed{model.seed}", [*rest, ("--data.poison", "null")])
    if twin.hash not in twins:
        taken = twin.name in {other.name for other in twins.values()}
        twins[twin.hash] = replace(twin, name=f"{TWIN}-of-{model.name}") if taken else twin
    rest = [pair for pair in rest if pair[0] != "--model.init_from"]  # its weights are those of the twin's checkpoint
    attack = [(flag.replace("--data.poison", "--data.attack", 1), value) for flag, value in poison]
    measured = [*rest, ("--data.poison", "null"), *attack, ("--ckpt_path", f"${{{TWIN}}}/last.ckpt")]
    needs = {TWIN: twins[twin.hash]}
    name = f"{model.name}--{TWIN}"
    rebound = None
    if spec.rebound is not None and any(defence.rebound for defence in spec.defences.values()):
        start = ["--model.init_from", f"${{{TWIN}}}/last.ckpt", *(word for pair in attack for word in pair)]
        rebound = _rebound(spec, spec.rebound, model, name, start, needs)
    return _run_of(model, model.attack, name, measured, needs, subcommand="validate", rebound=rebound)


def _rebound(spec: BenchSpec, run: RunSpec, model: Cell, name: str, start: list[str], needs: dict[str, Cell]) -> Cell:
    """The cell that finetunes a model further on clean pairs and measures the attack after each epoch."""
    arguments = [*start, "--trainer.check_val_every_n_epoch", "1"]
    runs = (spec.every, run)
    return _cell(
        spec, runs, arguments, model.attack, model.defence, model.seed, f"{name}--rebound", needs, listed=False
    )


def _run_of(
    model: Cell, attack: str, name: str, pairs: list[tuple[str, str]], needs: dict[str, Cell] | None = None, **more: Any
) -> Cell:
    """A cell with the settings of a poisoned model's but other arguments. It has no row of its own in the table."""
    arguments = [word for pair in pairs for word in pair]
    known = model.needs | (needs or {})
    named = {variable: known[variable] for variable in sorted(_variables(arguments) & set(known))}
    return Cell(attack, NO_DEFENCE, model.seed, name, model.config, tuple(arguments), named, listed=False, **more)


def _defended(spec: BenchSpec, attack: str, target: str | None, poisoned: Cell) -> Iterator[Cell]:
    """Yield a cell for each defence that applies to a poisoned model."""
    made: dict[str, Cell] = {}

    def make(label: str, path: tuple[str, ...] = ()) -> Cell:
        if label in path:
            raise UserMistake(f"bench: defence {label} starts from itself")
        if label not in spec.defences:
            raise UserMistake(f"bench: defence {path[-1]} starts from {label}, which is no defence of this bench")
        if label not in made:
            defence = spec.defences[label]
            before = poisoned if defence.start is None else make(defence.start, (*path, label))
            made[label] = _defence(spec, attack, label, defence, poisoned, before)
        return made[label]

    for label, defence in spec.defences.items():
        unknown = set(defence.attacks or ()) - set(spec.attacks)
        if unknown:
            raise UserMistake(f"bench: defence {label} names the attack {min(unknown)}, which is not of this bench")
        wanted = defence.attacks is None or attack in defence.attacks
        wanted = wanted and (defence.targets is None or target is None or target in defence.targets)
        if wanted and (defence.seeds is None or poisoned.seed in defence.seeds):
            yield make(label)


def _defence(spec: BenchSpec, attack: str, label: str, defence: DefenceSpec, poisoned: Cell, before: Cell) -> Cell:
    """The cell of a defence that starts from the model of ``before``, or from scratch."""
    if defence.from_scratch and (defence.start is not None or not defence.sees_poison):
        raise UserMistake(f"bench: defence {label} is from_scratch: set sees_poison to true and leave start out")
    needs = {POISONED: poisoned} | ({BEFORE: before} if before is not poisoned else {})
    start = BEFORE if before is not poisoned else POISONED
    arguments = [] if defence.from_scratch else ["--model.init_from", f"${{{start}}}/last.ckpt"]
    if spec.attacks[attack].poison is not None:
        arguments += ["--data.attack", f"${{{POISONED}}}/{MANIFEST}"]
        if defence.sees_poison:
            arguments += ["--data.poison", f"${{{POISONED}}}/{MANIFEST}"]
    name = f"{poisoned.name}--{_slug(label)}"
    cell = _cell(spec, (spec.every, defence), arguments, poisoned.attack, label, poisoned.seed, name, needs)
    rebound = None
    if spec.rebound is not None and defence.rebound and spec.attacks[attack].poison:
        begin = ["--model.init_from", f"${{{BEFORE}}}/last.ckpt", "--data.attack", f"${{{POISONED}}}/{MANIFEST}"]
        rebound = _rebound(spec, spec.rebound, cell, name, begin, {POISONED: poisoned, BEFORE: cell})
    return replace(cell, twin=poisoned.twin, rebound=rebound)


def _cell(
    spec: BenchSpec,
    runs: tuple[RunSpec, ...],
    arguments: list[str],
    attack: str,
    defence: str,
    seed: int,
    name: str,
    needs: dict[str, Cell],
    listed: bool = True,
) -> Cell:
    """A cell whose settings are those of ``runs``, later ones over earlier ones, and then ``arguments``.

    It needs those of ``needs`` that its arguments name, and the preparations that they name, whose cells are made here.
    """
    config = next((run.config for run in reversed(runs) if run.config is not None), None)
    if config is None:
        raise UserMistake(f"bench: {name} has no config: give its path, or one for all under train")
    read_config(config)
    modules = module_names(spec.imports)
    flags = ["--seed_everything", str(seed), *(["--imports", json.dumps(modules)] if modules else [])]
    for run in runs:
        for part in _PARTS:
            flags += _flags(part, getattr(run, part))
    flags = [Template(flag).safe_substitute(seed=seed) for flag in (*flags, *arguments)]
    needs = dict(needs)
    for variable in sorted(_variables(flags) - {*_BUILT_IN_VARIABLES, *needs}):
        if variable not in spec.preparations:
            known = ", ".join((*_BUILT_IN_VARIABLES, *spec.preparations))
            raise UserMistake(f"bench: {name} names ${{{variable}}}, which is none of {known}")
        prepared = f"{needs[POISONED].name}--{variable}" if POISONED in needs else f"{variable}-seed{seed}"
        own = (spec.every, spec.preparations[variable])
        needs[variable] = _cell(spec, own, [], variable, NO_DEFENCE, seed, prepared, needs, listed=False)
    if "data" in _variables(flags) and spec.data is None:
        raise UserMistake(f"bench: {name} names ${{data}}: give its folder with --data")
    for variable in (POISONED, BEFORE):
        if variable in _variables(flags) and variable not in needs:
            raise UserMistake(f"bench: {name} names ${{{variable}}}, which it does not have")
    named = {variable: needs[variable] for variable in sorted(_variables(flags) & set(needs))}
    return Cell(attack, defence, seed, name, config, tuple(flags), named, listed)


def _with_needs(cell: Cell) -> Iterator[Cell]:
    """Yield the cells that a cell needs, directly or not, and then the cell."""
    for before in cell.needs.values():
        yield from _with_needs(before)
    yield cell


def _flags(key: str, value: Any) -> Iterator[str]:
    """Yield the command-line arguments that set a key of a config to a value."""
    if isinstance(value, Settings):
        value = value.content
    if isinstance(value, dict):
        if "class_path" in value:
            yield from (f"--{key}", str(value["class_path"]))
        arguments = {name: part for name, part in value.items() if name not in ("class_path", "init_args")}
        for name, part in (arguments | (value.get("init_args") or {})).items():
            yield from _flags(f"{key}.{name}", part)
    else:
        yield from (f"--{key}", value if isinstance(value, str) else json.dumps(value))


def _variables(flags: list[str]) -> set[str]:
    """The variables that arguments name."""
    return {name for flag in flags for name in Template(flag).get_identifiers()}


def _slug(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^\w.+-]+", "", label.replace("%", "pc"))


def read_config(name: str) -> Any:
    """Read a LightningCLI file that a bench file names.

    Raises:
        UserMistake: If there is none, or it cannot be read.
    """
    path = config_path(name)
    return read_yaml(path, "bench: config")
