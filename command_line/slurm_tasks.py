"""Check the tasks that SLURM, torchrun or mpirun started against the devices and nodes that a run asks for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ..contracts import UserMistake
from .one_task import is_task, number, started_by_mpi


def settle_tasks(trainer: Mapping[str, Any]) -> bool:
    """Check that SLURM, torchrun or mpirun started as many tasks as a run asks for.

    Lightning does not look at them where a run asks for one device: each task would be a whole run by itself.

    Args:
        trainer: The trainer's part of the config.

    Returns:
        Whether the processes of the run are not SLURM's business, although its variables are there: in a batch script
        that calls the command without ``srun``, or in a shell that has inherited them.

    Raises:
        UserMistake: If one of them started another number of tasks, or SLURM none of those that were reserved, or
            nothing starts those on other nodes.
    """
    tasks, (devices, nodes) = number("SLURM_NTASKS"), (_devices(trainer), int(trainer.get("num_nodes") or 1))
    if devices is None or _has_environment(trainer):
        return False
    if TorchElasticEnvironment.detect():
        _check_torchrun(devices, nodes)
        return False
    _check_other_launcher(devices, nodes)
    if not is_task():
        _check_mpi(devices, nodes)
    if not tasks:
        _check_nodes_are_started(devices, nodes)
        return False
    is_shell, asked = SLURMEnvironment.job_name() in ("bash", "interactive"), devices * nodes
    if not is_task():
        if asked > 1 and not is_shell and (tasks > 1 or nodes > 1):
            raise UserMistake(
                f"SLURM reserved {tasks} tasks here and started none of them yet: this is the batch script, or a "
                "shell. Call the command with srun in front; or unset SLURM_NTASKS, if it is to start "
                f"{devices} processes by itself"
            )
        return not is_shell
    if is_shell:
        if tasks > 1:
            raise UserMistake(
                f"SLURM started {tasks} tasks under the job name {SLURMEnvironment.job_name()!r}, which stands for a "
                "shell, so that each would be a run of its own: give srun another --job-name"
            )
        return False
    started_on = number("SLURM_STEP_NUM_NODES") or number("SLURM_NNODES") or 1
    if tasks != asked or started_on != nodes:
        raise UserMistake(
            f"SLURM started {_tasks(tasks, started_on)}, but trainer.devices and trainer.num_nodes ask for "
            f"{_tasks(asked, nodes)}: give --trainer.devices {max(tasks // started_on, 1)} --trainer.num_nodes "
            f"{started_on}, or srun --ntasks-per-node={devices} --nodes={nodes}"
        )
    # With --ntasks alone SLURM leaves it out, and a step of fewer tasks inherits that of its job.
    os.environ["SLURM_NTASKS_PER_NODE"] = str(devices)
    return False


def _check_torchrun(devices: int, nodes: int) -> None:
    """Check the processes that torchrun started."""
    started, on_node = number("WORLD_SIZE"), number("LOCAL_WORLD_SIZE")
    if started and started != devices * nodes:
        each = min(on_node or started, started)
        raise UserMistake(
            f"torchrun started {_tasks(started, max(started // each, 1))}, but trainer.devices and trainer.num_nodes "
            f"ask for {_tasks(devices * nodes, nodes)}: give --trainer.devices {each} --trainer.num_nodes "
            f"{max(started // each, 1)}, or torchrun --nproc-per-node={devices} --nnodes={nodes}"
        )


def _check_other_launcher(devices: int, nodes: int) -> None:
    """Check what another launcher has set, or an earlier ``export``: Lightning takes its rank for this process's."""
    said = {name: count for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if (count := number(name)) is not None}
    world, rank, local = (said.get(name) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    fits = world in (None, devices * nodes) and (rank or 0) < devices * nodes and (local or 0) < devices
    if fits and not (rank and local is None):
        return
    found = ", ".join(f"{name}={count}" for name, count in said.items())
    raise UserMistake(
        f"the environment has {found}, as a launcher sets it, but trainer.devices and trainer.num_nodes ask for "
        f"{_tasks(devices * nodes, nodes)}: give them as many as there are processes, each of which needs RANK and "
        f"LOCAL_RANK, or unset {', '.join(said)}"
    )


def _check_mpi(devices: int, nodes: int) -> None:
    """Check the processes that mpirun started: without mpi4py Lightning takes each for a run of its own."""
    started = started_by_mpi()
    if started is None or started == 1 or (started == devices * nodes and MPIEnvironment.detect()):
        return
    raise UserMistake(
        f"mpirun started {started} tasks, each of which would be a whole run here, and trainer.devices and "
        f"trainer.num_nodes ask for {_tasks(devices * nodes, nodes)}: call the command without mpirun, and it starts "
        f"the processes of a node by itself, or start {started} with torchrun or srun"
    )


def _check_nodes_are_started(devices: int, nodes: int) -> None:
    """Check that a run that nothing has started on other nodes does not wait for them, unless each is by hand."""
    if nodes == 1 or not {"NODE_RANK", "GROUP_RANK"}.isdisjoint(os.environ):
        return
    if "SLURM_JOB_ID" not in os.environ:
        # By hand the first node need not say its number, but where the others find it.
        if started_by_mpi() is None and {"MASTER_ADDR", "MASTER_PORT"}.isdisjoint(os.environ):
            raise UserMistake(
                f"trainer.num_nodes is {nodes}, and nothing has started the processes on the other nodes: call the "
                f"command with torchrun --nproc-per-node={devices} --nnodes={nodes} or srun, or on each node with "
                "MASTER_ADDR, MASTER_PORT and NODE_RANK set"
            )
    else:
        raise UserMistake(
            f"trainer.num_nodes is {nodes}, and in this batch script or shell of SLURM nothing has started the "
            f"processes on the other nodes: call the command with srun --ntasks-per-node={devices} --nodes={nodes} in "
            "front"
        )


def _devices(trainer: Mapping[str, Any]) -> int | None:
    """How many a node is asked for; None where Lightning has to say what is wrong with it."""
    match trainer.get("devices"):
        case list() as indices:
            return len(indices)
        case int() as count if count >= 0:
            return count or None
        case str() as text if re.fullmatch(r"\d+", text):
            return int(text) or None
        case str() as text if "," in text:
            return len([part for part in text.split(",") if part.strip()])
    # All of them; on a CPU one.
    on_gpu = trainer.get("accelerator") in ("auto", "gpu", "cuda", None)
    return max(torch.cuda.device_count(), 1) if on_gpu else 1


def _has_environment(trainer: Mapping[str, Any]) -> bool:
    """Whether the user says by a plugin who starts the processes."""
    plugins = trainer.get("plugins") or []
    named = [plugin.get("class_path", "") if hasattr(plugin, "get") else str(plugin) for plugin in _listed(plugins)]
    return any(name.endswith("Environment") for name in named)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _tasks(count: int, nodes: int) -> str:
    return f"{count} task{'s' * (count != 1)} on {nodes} node{'s' * (nodes != 1)}"
