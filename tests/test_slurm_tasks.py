from __future__ import annotations

import os
from typing import Any

import pytest

from untrigger.contracts import UserMistake
from untrigger.slurm_tasks import settle_tasks

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
TWO = {"SLURM_NTASKS": "2", "SLURM_NNODES": "1"}


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
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
