"""Every door of the product, driven with bent inputs: each is read, or refused in one line, soon and in little memory.

``make test`` bends a few of each, ``make test-fuzz`` a few hundred; ``FUZZ_SEED`` draws others.
"""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from fuzz.doors import Door, bent_bytes

RUNS = int(os.environ.get("FUZZ_RUNS", "12"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
MOST_SECONDS = 10
MOST_BYTES = 10**9
FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn", "socket.connect"}
"""Audit events of Python that nothing that is read may cause."""

FAMILIES = sorted(path.stem for path in Path(__file__).parent.glob("*_doors.py"))
DOORS: list[Door] = [door for family in FAMILIES for door in importlib.import_module(f"fuzz.{family}").DOORS]


@pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])
def test_whatever_comes_is_read_or_refused_in_one_line(door: Door, tmp_path: Path) -> None:
    report = tmp_path / "report"
    child = os.fork()  # what hangs or dies is a child, and what it has grown to is gone with it
    if not child:
        code = 1
        try:
            code = _drive(door, tmp_path, report)
        except BaseException:
            report.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kept = _kept(tmp_path, door)
        died = signal.Signals(os.WTERMSIG(status)).name
        pytest.fail(f"{door.name} was ended by {died} (SIGALRM: it hung) on {kept}")
    if os.WEXITSTATUS(status):
        pytest.fail(report.read_text(), pytrace=False)


def _drive(door: Door, folder: Path, report: Path) -> int:
    """Read all inputs, in the child; 0 if all went well."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * MOST_BYTES, hard))
    os.chdir(folder)
    seeds = list(door.seeds())
    draws = np.random.default_rng([SEED, *door.name.encode()])
    caused: list[str] = []
    sys.addaudithook(lambda event, _: caused.append(event) if event in FORBIDDEN else None)
    warnings.simplefilter("ignore")  # a warning is no traceback
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inputs = [*seeds, *(_bent(door, seeds, draws) for _ in range(RUNS))]
    for number, data in enumerate(inputs):
        wrong = _read(door, data, folder / "input")
        held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) << 10
        wrong += f"it caused {caused}" if caused else ""
        wrong += f"it took {held:,} bytes" if held > MOST_BYTES else ""
        if wrong:
            kept = _kept(folder, door)
            report.write_text(f"{door.name}, input {number} of seed {SEED}, kept as {kept}: {wrong}")
            return 1
    return 0


def _bent(door: Door, seeds: list[bytes], draws: np.random.Generator) -> bytes:
    seed = seeds[int(draws.integers(len(seeds)))]
    if door.bend is not None and draws.random() < 0.5:
        return door.bend(seed, draws)
    return bent_bytes(seed, seeds, draws)


def _read(door: Door, data: bytes, folder: Path) -> str:
    """What is wrong with how an input was read; nothing where all is well."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / door.file
    path.write_bytes(data)
    started = time.monotonic()
    signal.alarm(3 * MOST_SECONDS)  # the machine may be busy
    try:
        door.read(path)
    except door.refusals as refusal:
        said = str(refusal)
        if "\n" in said or "\x1b" in said or len(said) > 2000:
            return f"it is refused with {said[:3000]!r}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    seconds = time.monotonic() - started
    return f"it took {seconds:.0f} s" if seconds > 2 * MOST_SECONDS else ""


def _kept(folder: Path, door: Door) -> Path:
    """The input that was read last, where it can be looked at."""
    kept = Path(os.environ.get("FUZZ_KEEP", str(folder.parent))) / f"{door.name.replace(' ', '-')}.input"
    shutil.copyfile(folder / "input" / door.file, kept)
    return kept
