"""What a bench does with its cells' processes when it is asked to end, and what it knows of their time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from untrigger.commands.bench.processes import Processes
from untrigger.commands.bench.runner import _took

RUN = """
import os, signal, sys, time
def end(number, frame):
    open(sys.argv[1], "w").write(signal.Signals(number).name)
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("asked", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_is_passed_on_and_the_cell_ends_as_it_wants(asked: str, tmp_path: Path) -> None:
    processes, log = Processes(), tmp_path / "log"
    before = signal.getsignal(signal.SIGINT)
    found: list[tuple[int, float]] = []

    def run() -> None:
        with log.open("ab") as output, (tmp_path / "lock").open("w") as lock:
            command = [sys.executable, "-S", "-E", "-c", RUN, str(tmp_path / "checkpoint")]
            found.append(processes.call(command, dict(os.environ), output, lock.fileno()))

    with processes.passing_signals_on():
        thread = threading.Thread(target=run)
        thread.start()
        while not log.exists() or not log.read_bytes():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.Signals[asked])
        thread.join(30)
    assert found[0][0] == 128 + signal.SIGTERM
    assert (tmp_path / "checkpoint").read_text() == "SIGTERM"
    assert processes.stopped == signal.Signals[asked]
    # Nothing is started any more, and the signals are the process's own again.
    with log.open("ab") as output:
        assert processes.call(["/nonexistent"], {}, output, output.fileno())[0] == 128 + processes.stopped
    assert signal.getsignal(signal.SIGINT) == before


def test_a_status_is_the_commands(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as output:
        status, peak = Processes().call(["/bin/sh", "-c", "exit 3"], {}, output, output.fileno())
    assert (status, peak > 0) == (3, True)


def test_a_cell_took_what_all_its_sessions_took(tmp_path: Path) -> None:
    file = tmp_path / "took.json"
    assert _took(file, {"seconds": 500.0, "peak_memory_mb": 900.0}, resumed=False)["seconds"] == 500
    again = _took(file, {"seconds": 34.0, "peak_memory_mb": 300.0}, resumed=True)
    assert again == {"seconds": 534.0, "peak_memory_mb": 900.0}
    assert _took(file, {"seconds": 34.0, "peak_memory_mb": 300.0}, resumed=False)["seconds"] == 34
    file.write_text('{"seconds": "much"}')
    assert _took(file, {"seconds": 1.0, "peak_memory_mb": 3.0}, resumed=True)["seconds"] == 1
