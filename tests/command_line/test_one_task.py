"""A command beside the trainer that SLURM or torchrun started several times."""

from __future__ import annotations

import os

import pytest

from untrigger.cli import run
from untrigger.command_line.one_task import check_numbers, check_one_task
from untrigger.commands import COMMANDS
from untrigger.contracts import UserMistake

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
TWO = {"SLURM_NTASKS": "2", "SLURM_NNODES": "1"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}


@pytest.fixture(autouse=True)
def _no_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("said", "reported"),
    [
        ({**TWO, **STEP}, r"SLURM started 2 tasks of untrigger {}, .*: run it with one task \(srun --ntasks=1\)"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, r"mpirun started 2 tasks of untrigger {}, .*one task \(without mpirun\)"),
        (TORCHRUN, r"torchrun started 2 tasks of untrigger {}, .*: run it with one task \(without torchrun\)"),
    ],
)
def test_a_command_that_was_started_several_times_is_to_be_run_with_one_task(
    said: dict[str, str], reported: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserMistake, match=reported.format(command)):
        run([command])


@pytest.mark.parametrize("said", [{}, TWO, {**STEP, "SLURM_NTASKS": "1"}, {**TWO, **STEP, "SLURM_PTY_PORT": "1"}])
def test_a_command_that_was_started_once_goes_on(said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    check_one_task("check")


@pytest.mark.parametrize("command", ["fit", "report"])
@pytest.mark.parametrize(("name", "text"), [("RANK", "x"), ("LOCAL_RANK", ""), ("SLURM_NTASKS", "2(x3)")])
def test_a_rank_that_is_no_number_is_one_line_that_names_it(
    name: str, text: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(UserMistake, match=f"environment has {name}='"):
        run([command])


def test_a_launcher_that_says_there_is_no_rank_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "-1")
    check_numbers()
