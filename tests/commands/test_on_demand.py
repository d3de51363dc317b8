"""What asks for help, or for tables alone, does not wait for what trains models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from untrigger import cli
from untrigger.commands import COMMANDS, command
from untrigger.run_folder.results import COLUMNS, add_results

HEAVY = {"torch", "lightning", "transformers", "torchvision", "open_clip"}
RUN = """
import sys
from untrigger import cli
try:
    cli.run({arguments})
except SystemExit:
    pass
print("IMPORTED", *{{name.partition(".")[0] for name in sys.modules}})
"""


def imported(*arguments: str) -> set[str]:
    """The libraries that a process has imported after a command."""
    code = (
        RUN.format(arguments=list(arguments)) + "print('IMPORTED', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("IMPORTED")[2].split())


@pytest.mark.parametrize("arguments", [[], ["--version"], *([name] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    found = imported(*arguments, "--help")
    assert "untrigger" in found
    assert not found & (HEAVY | {"matplotlib"})


def test_a_report_needs_nothing_that_trains(tmp_path: Path) -> None:
    add_results(tmp_path, [dict.fromkeys(COLUMNS, "0.5") | {"defence": "none"}])
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/clean_accuracy\n1,2.0,\n2,1.5,\n2,,0.5\n")
    found = imported("report", str(tmp_path), "--out", str(tmp_path / "report.html"))
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "matplotlib" in found
    assert not found & HEAVY


def test_help_of_all_builds_no_parser() -> None:
    assert "jsonargparse" not in imported("--help")


def test_every_command_is_declared_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    folders = {path.parent.name for path in Path(cli.__file__).parent.glob("commands/*/command.py")}
    assert folders == set(COMMANDS)
    cli.run(["--help"])
    shown = capsys.readouterr().out
    for name, reported in COMMANDS.items():
        assert f"  {name:<31}{reported}\n" in shown
        with pytest.raises(SystemExit) as stop:
            command(name).run(f"untrigger {name}", ["--help"])
        assert stop.value.code == 0
        assert f"\nExample:\n    untrigger {name} " in capsys.readouterr().out
