from __future__ import annotations

import os
from typing import Any

import pytest

from untrigger.command_line.slurm_tasks import settle_tasks
from untrigger.contracts import UserMistake

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
TWO = {"SLURM_NTASKS": "2", "SLURM_NNODES": "1"}
RANKS = (
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
MPI = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE")
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
NO_TASKS = {"SLURM_JOB_ID": "5", "SLURM_NNODES": "2"}


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in RANKS + MPI:
            monkeypatch.delenv(name)


def settled(monkeypatch: pytest.MonkeyPatch, said: dict[str, str], devices: Any = 1, **trainer: Any) -> bool:
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "0")  # so that it is put back
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    return settle_tasks({"devices": devices, "num_nodes": 1, "accelerator": "cpu", **trainer})


@pytest.mark.parametrize(
    ("said", "trainer", "reported"),
    [
        (
            {**TWO, **STEP, "SLURM_NTASKS_PER_NODE": "2"},
            {},
            r"2 tasks on 1 node, .* ask for 1 task on 1 node: give --trainer.devices 2 --trainer.num_nodes 1",
        ),
        ({**TWO, **STEP}, {"devices": "auto"}, "started 2 tasks"),
        ({**STEP, "SLURM_NTASKS": "1"}, {"devices": 2}, "started 1 task on 1 node, .* ask for 2 tasks on 1 node"),
        (
            {**STEP, "SLURM_NTASKS": "4", "SLURM_NNODES": "2"},
            {"devices": 4},
            "4 tasks on 2 nodes, .* --trainer.devices 2 --trainer.num_nodes 2",
        ),
        ({**STEP, "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, {"devices": 2}, "ask for 2 tasks on 1 node"),
        (TWO, {"devices": 2}, "started none of them yet: .* with srun in front"),
        (TWO, {"devices": [0, 1]}, "with srun in front"),
        ({"SLURM_NTASKS": "2"}, {"num_nodes": 2}, "with srun in front"),
        ({**TWO, "SLURM_STEP_ID": "4294967290"}, {"devices": "2"}, "with srun in front"),
        ({**TWO, **STEP, "SLURM_JOB_NAME": "interactive"}, {"devices": 2}, "give srun another --job-name"),
        (
            TORCHRUN,
            {},
            r"torchrun started 2 tasks on 1 node, .* ask for 1 task on 1 node: give --trainer.devices 2 "
            r"--trainer.num_nodes 1, or torchrun --nproc-per-node=1 --nnodes=1",
        ),
        ({**TORCHRUN, **TWO, **STEP}, {"devices": "auto"}, "torchrun started 2 tasks"),
        (TORCHRUN, {"devices": 4}, "ask for 4 tasks on 1 node"),
        (
            {**TORCHRUN, "WORLD_SIZE": "4", "GROUP_RANK": "0"},
            {"devices": 2},
            "4 tasks on 2 nodes, .* --trainer.devices 2 --trainer.num_nodes 2",
        ),
        (
            {},
            {"num_nodes": 2},
            "num_nodes is 2, .* with torchrun --nproc-per-node=1 --nnodes=2 or srun, .* MASTER_ADDR",
        ),
        *(({name: "2"}, {}, "mpirun started 2 tasks, .* ask for 1 task on 1 node: .* without mpirun") for name in MPI),
        ({MPI[0]: "2"}, {"devices": 2}, "mpirun started 2 tasks, each of which would be a whole run"),
        (NO_TASKS, {"num_nodes": 2}, "num_nodes is 2, .* with srun --ntasks-per-node=1 --nodes=2 in front"),
    ],
)
def test_what_slurm_and_the_config_say_is_compared(
    said: dict[str, str], trainer: dict[str, Any], reported: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserMistake, match=reported):
        settled(monkeypatch, said, **trainer)


@pytest.mark.parametrize(
    ("said", "trainer"),
    [
        ({}, {"devices": 2}),
        ({**TWO, **STEP, "SLURM_NTASKS_PER_NODE": "2"}, {"devices": 2}),
        ({**TWO, **STEP}, {"devices": "0,1"}),  # srun --ntasks=2
        ({**TWO, **STEP, "SLURM_NTASKS_PER_NODE": "4"}, {"devices": 2}),  # a step of fewer tasks than its job's
        ({**STEP, "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bash"}, {"devices": 2}),
        ({**TWO, "SLURM_JOB_NAME": "interactive"}, {"devices": 2}),  # the shell of salloc
        ({**TWO, **STEP}, {"plugins": ["LightningEnvironment"]}),
        (TORCHRUN, {"devices": 2}),
        ({**TORCHRUN, "WORLD_SIZE": "4"}, {"devices": 2, "num_nodes": 2}),
        (TORCHRUN, {"plugins": ["LightningEnvironment"]}),
        (NO_TASKS, {"devices": 2}),
        ({**NO_TASKS, "NODE_RANK": "1"}, {"num_nodes": 2}),  # each node is started by hand
        ({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}, {"num_nodes": 2}),  # the first of them
        ({MPI[0]: "1"}, {"devices": 2}),
        ({**TWO, **STEP, "PMI_SIZE": "2"}, {"devices": 2}),  # srun --mpi=pmi2
    ],
)
def test_what_agrees_is_left_alone(
    said: dict[str, str], trainer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled(monkeypatch, said, **trainer) is False
    # Lightning refuses several tasks without it.
    if {**TWO, **STEP}.items() <= said.items() and "plugins" not in trainer:
        assert os.environ["SLURM_NTASKS_PER_NODE"] == "2"


@pytest.mark.parametrize(
    ("said", "trainer"),
    [
        (TWO, {}),  # a batch script that calls the command for itself, or a shell that has inherited the variable
        ({"SLURM_NTASKS": "1"}, {"devices": 4}),
        ({**TWO, **STEP, "SLURM_PTY_PORT": "1"}, {}),
    ],
)
def test_without_a_task_of_slurm_s_a_run_starts_its_own_processes(
    said: dict[str, str], trainer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled(monkeypatch, said, **trainer) is True


@pytest.mark.parametrize(
    ("said", "trainer"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, {}),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, {}),
        ({"LOCAL_RANK": "1"}, {}),
        ({"RANK": "1"}, {"devices": 2}),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, {"devices": 2}),
        ({"LOCAL_RANK": "2"}, {"devices": 2, "num_nodes": 2}),
    ],
)
def test_ranks_of_a_launcher_that_the_run_does_not_ask_for_are_told(
    said: dict[str, str], trainer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ", ".join(f"{name}={said[name]}" for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if name in said)
    with pytest.raises(UserMistake, match=f"the environment has {found}, as a launcher sets it, but .*, or unset"):
        settled(monkeypatch, said, **trainer)


@pytest.mark.parametrize(
    ("said", "trainer"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, {"devices": 2}),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, {}),
        ({"WORLD_SIZE": "4", "NODE_RANK": "1", "LOCAL_RANK": "0"}, {"devices": 2, "num_nodes": 2}),
    ],
)
def test_a_launcher_s_ranks_that_agree_are_taken(
    said: dict[str, str], trainer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled(monkeypatch, said, **trainer) is False
