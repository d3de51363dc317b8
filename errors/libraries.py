"""Tell a library's refusal of the user's options from a fault of this package."""

from __future__ import annotations

import sysconfig
import traceback
from types import FrameType

_ENTRY = "untrigger.command_line.lightning_cli"
_ASKED_FOR_STEPS = "estimated_stepping_batches"
"""The trainer's property for which it looks at its options and its loader, as a schedule of rates asks it to."""
_LIBRARIES = tuple(
    path for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))
)
_AT_WORK = (
    "torch.distributed",
    "torch.multiprocessing",
    "torch.autograd",
    "torch.nn",
    "torch.optim",
    "torch._dynamo",
    "torch._inductor",
    "torch._functorch",
)
"""Where torch computes what it is given, or ranks and processes meet: an error there is none of an option's."""
_CALLBACKS = "lightning.pytorch.callbacks."
"""Where Lightning's own callbacks stand, each of which a user has asked for, with its options."""
_OUT_OF_MEMORY = "OutOfMemoryError"
"""torch's error that is about the options all the same; by its name, as torch takes seconds to import."""


def refused_option(error: BaseException) -> str | None:
    """What a library says of the options that it was given; None if the error is none of those.

    LightningCLI passes the user's options on: what Lightning, or a library below it, then raises on its own, while it
    builds, trains or calls one of its own callbacks, is about them. Where code of this package or of the user's has
    called it, the error is a fault of that code, and its traceback says more.

    Args:
        error: As it was caught, with its traceback.

    Returns:
        The library's message. With the name of the error, unless it was made for a reader.
    """
    raised = error.__traceback__
    if raised is None or isinstance(error, Warning):  # which somebody has made an error
        return None
    # A traceback starts where the error was caught; those who have called that are still running.
    frames = [frame for frame, _ in traceback.walk_stack(raised.tb_frame)][::-1]
    frames += [frame for frame, _ in traceback.walk_tb(raised.tb_next)]
    entries = [index for index, frame in enumerate(frames) if _is_entry(frame)]
    below = frames[entries[-1] + 1 :] if entries else []
    if not below or not all(_is_library(frame) or _passes_on(below, index) for index, frame in enumerate(below)):
        return None
    at_work = _module(below[-1]).startswith(_AT_WORK) and type(error).__name__ != _OUT_OF_MEMORY
    if at_work and not any(_module(frame).startswith(_CALLBACKS) for frame in below):
        return None
    message = " ".join(str(error).split())
    readable = isinstance(error, ValueError | TypeError | RuntimeError | ImportError | OSError | NotImplementedError)
    # MisconfigurationException is an Exception alone.
    if message and (readable or type(error).__module__.startswith("lightning")):
        return message
    where = next((name for frame in reversed(below) if (name := _module(frame)).startswith("lightning")), "a library")
    return f"{where} cannot work with these options ({type(error).__name__}: {message})"


def _is_entry(frame: FrameType) -> bool:
    """Whether what is called from here is about the options, whoever wants to know."""
    return _module(frame) == _ENTRY or frame.f_code.co_name == _ASKED_FOR_STEPS


def own_location(error: BaseException) -> str:
    """File and line, in brackets, of the last code of the user's that an error came through; empty if there is none."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [(frame, line) for frame, line in frames if not _is_library(frame) and not _is_ours(frame)]
    return f" ({own[-1][0].f_code.co_filename}, line {own[-1][1]})" if own else ""


def _is_ours(frame: FrameType) -> bool:
    return _module(frame).partition(".")[0] == "untrigger" or frame.f_globals.get("__package__") == "untrigger"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_library(frame: FrameType) -> bool:
    if _is_ours(frame):
        return False
    file = frame.f_code.co_filename
    return file.startswith(("<", *_LIBRARIES)) or "site-packages" in file


def _passes_on(frames: list[FrameType], index: int) -> bool:
    """Whether a method does no more, at this point, than call the one that it overrides."""
    return index + 1 < len(frames) and frames[index].f_code.co_name == frames[index + 1].f_code.co_name
