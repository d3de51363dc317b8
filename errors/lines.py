"""Turn the errors of libraries into the one line that a user is shown."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from ..contracts import UserMistake
from ..files.packaged_configs import ConfigFile
from ..files.reading import shown
from ..nearest import meant
from .libraries import own_location

_NOISE = re.compile(
    r"^(- )?(Does not validate|Subtypes:|Errors:|Given value|Subclass types expect|a class path \(str\)|a dict with)"
    r"|^(- )?Not a valid subclass of \w+\. Got value: \["  # a list of objects, tried as one
    r"|^(- )?Not of type ManifestPath"  # of the types that data.poison may have, the one that is tried first
    r"|^(- )?Expected a path but .* either not accessible or invalid$"  # a class, tried as a file
)
_UNION = "Does not validate against any of the Union subtypes"
_CLASS = re.compile(r"^(?:- )?Problem with given class_path '([^']*)'")
_KEY = re.compile(r'^(?:- )?Parser key "([^"]+)":?\s*(.*)$')
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NOT_IN_MODULE = re.compile(r"^module '([^']+)' has no attribute '([^']+)'")
_NO_MODULE = re.compile(r"^No module named '([^']+)'")
_NOT_ACCEPTED = re.compile(r"^Option '([^']+)' is not accepted$")
_NO_OPTION = re.compile(r"unrecognized arguments: --([^\s=]+)|does not accept option '([^']+)'", re.IGNORECASE)
_NO_CHOICE = re.compile(r"invalid choice: '([^']+)' \(choose from (.*)\)")
_MAX_LENGTH = 500
_RANKS_THAT_CAME = re.compile(r"Timed out after .* waiting for clients\. (\d+)/(\d+) clients joined")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSALS = (
    *_NO_ROOM,
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ENODEV, errno.EBUSY, errno.ESTALE, errno.EMFILE, errno.ENFILE),
)
"""What a system refuses that is no fault of a program: where to write, and how much."""
_FULL = re.compile(r"unable to (?:write to|open|resize|allocate shared memory\(shm\) for) file <?([^>]+)>?.*\(28\)")
_IN_WORKER = re.compile(r"\[Errno (\d+)\] ([^\n:]+)(?:: '([^'\n]+)')?")
_TORCHS_WRITER = re.compile("PytorchStreamWriter|unexpected pos|file write failed")
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid.*?\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)")
_NO_CHOICE_YET = ("LightningModule", "LightningDataModule")
"""What a class is taken for before one is named."""
_HOLDERS = (
    *("untrigger.lightning_modules", "untrigger.datamodules", "untrigger.callbacks"),
    *("lightning.pytorch.callbacks", "lightning.pytorch.loggers"),
)
"""Modules whose classes are known by their names alone."""


class OneLineErrors(ArgumentParser):
    """A parser whose complaints are one line, without its usage, and which finds the package's own configs.

    No option has an abbreviation: the same one, given twice in two lengths, would not be told.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an option; of a config file, one that finds the package's own too."""
        if kwargs.get("action") in ("config", *ConfigFile.__bases__):
            kwargs["action"] = ConfigFile
        return super().add_argument(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a mistake of the user's."""
        if not self.exit_on_error:  # an inner parser trying one type of several
            super().error(message, ex)
        own = ex and user_message(ex)
        raise UserMistake(own or shortened_complaint(message) + _option_meant(message, self) + _own_location(ex))


def user_message(error: BaseException) -> str | None:
    """The message of an error for a user; None if it is none of hers.

    Args:
        error: Its causes are looked through.

    Returns:
        The message of the outermost mistake of the user's, which says where; or that a data worker was killed, or a
        rank was not started.
    """
    message = next((str(cause) for cause in _causes(error) if isinstance(cause, UserMistake)), None)
    # Of an argument that may be several things, jsonargparse keeps no error but the texts of all.
    if message is None and str(error).startswith(_UNION):
        message = shortened_complaint(str(error))
    message = message or next(
        (line for cause in _causes(error) if (line := _dead_worker(cause) or _missing_rank(cause))), None
    )
    return message or next((line for cause in _reasons(error) if (line := _refused_by_the_system(cause))), None)


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from; not what was being handled when it arose, which may be something else."""
    current: BaseException | None = error
    while current is not None:
        yield current
        written = isinstance(current, RuntimeError) and _TORCHS_WRITER.search(str(current))
        current = current.__cause__ or (current.__context__ if written else None)


def _refused_by_the_system(error: BaseException) -> str | None:
    """What the system refused to do with a file or a folder: a disk that is full, a folder that cannot be written."""
    full = _FULL.search(str(error))
    in_worker = _IN_WORKER.findall(str(error)) if isinstance(error, OSError) and error.errno is None else []
    if in_worker:  # a data worker's error, of which there is the text alone
        code, line, file = in_worker[-1]
        error = OSError(int(code), line, file or None)
    if isinstance(error, OSError) and error.errno in _REFUSALS and error.strerror:
        named = isinstance(error.filename, str | bytes | os.PathLike)
        where = f"{shown(os.fsdecode(error.filename))}: " if named else ""
        number, line = error.errno, f"{where}{error.strerror}"
    elif isinstance(error, RuntimeError) and full is not None:  # torch's words where workers share memory
        number, line = errno.ENOSPC, f"{full[1]}: {os.strerror(errno.ENOSPC)}"
    else:
        return None
    if "/torch_" in line or "/dev/shm" in line:
        return f"{line}: the memory that data workers share is full: give fewer data.num_workers, or more of it"
    if number in _NO_ROOM:
        line += "; what was finished before is kept: make room, and give the same command again (a run resumes with "
        line += "--ckpt_path RUN/last.ckpt)"
    return line


def shortened_complaint(message: str) -> str:
    """A message of jsonargparse's without its tree of tried types: the option, and what is wrong with it.

    Args:
        message: As jsonargparse words it, over many lines.

    Returns:
        One line such as ``data.poison.rate: Expected a <class 'float'>. Got value: much``.
    """
    keys: list[str] = []
    path = ""
    missing = _NO_CLASS.search(message)
    for line in message.splitlines():
        text = line.strip()
        if key := _KEY.match(text):
            keys.append(key[1])
            text = key[2]
        if named := _CLASS.match(text):
            path = named[1]
        if not text or named or _NOISE.match(text):
            continue
        text = text.removeprefix("- ")
        text = _no_class(missing[1]) if missing else _of_class(path, text) if path else text
        where = f"{'.'.join(keys)}: " if keys else ""
        return (where + text)[:_MAX_LENGTH]
    return " ".join(message.split())[:_MAX_LENGTH]


def _no_class(name: str) -> str:
    """That a name without a module is no class's."""
    known = (other for holder in _HOLDERS for other in getattr(sys.modules.get(holder), "__all__", ()))
    return f"there is no class {name}{meant(name, known)}"


def _of_class(path: str, problem: str) -> str:
    """What is wrong with a class that was named by its path, or with its arguments."""
    module, _, name = path.rpartition(".")
    if (option := _NOT_ACCEPTED.match(problem)) is not None:
        if name in _NO_CHOICE_YET:
            return f"option {option[1]!r} stands before the class that it is of: give --config, or the class, first"
        return f"{problem} by {name}{meant(option[1], _arguments(module, name))}"
    if (absent := _NOT_IN_MODULE.match(problem)) is not None:
        classes = {other: kind for other, kind in vars(sys.modules[absent[1]]).items() if isinstance(kind, type)}
        own = sorted(other for other, kind in classes.items() if kind.__module__ == absent[1])[:5]
        near = meant(absent[2], classes) or (f"; it has {', '.join(own)}" if own else "")
        return f"the module {absent[1]} has no class {absent[2]}{near}"
    if not module or module in sys.modules:
        return problem
    absent = _NO_MODULE.match(problem)
    return not_imported(module, absent[1] if absent else "", problem)


def not_imported(module: str, absent: str, problem: str) -> str:
    """That a module of the user's cannot be imported, and what she may have meant.

    Args:
        module: Which one.
        absent: The module that was not found, this one or one that it needs; empty if that is not why.
        problem: Python's words for it.
    """
    if not absent or not f"{module}.".startswith(f"{absent}."):
        return f"the module {module} cannot be imported: {problem}"
    if str(Path.cwd()) in sys.path:
        here = (file.stem for file in Path().glob("*.py"))
        return f"there is no module {absent}, neither installed nor in the working folder{meant(absent, here)}"
    return f"there is no module {absent} among those that are installed; this command looks in no working folder"


def _arguments(module: str, name: str) -> list[str]:
    """The names of the arguments of a class."""
    parser = ArgumentParser(exit_on_error=False)
    found: list[str] = parser.add_class_arguments(getattr(sys.modules[module], name), fail_untyped=False)
    return found


def _own_location(error: BaseException | None) -> str:
    """Where code of the user's has raised what an error comes from, as a module that is imported may."""
    return next((location for cause in _causes(error) if (location := own_location(cause))), "") if error else ""


def _option_meant(message: str, parser: ArgumentParser) -> str:
    """The option, or the choice, that is nearest to one that there is not."""
    if (choice := _NO_CHOICE.search(message)) is not None:
        return meant(choice[1], re.findall(r"[\w-]+", choice[2]))
    option = _NO_OPTION.search(message)
    return meant(option[1] or option[2], _options(parser)) if option else ""


def _options(parser: ArgumentParser) -> Iterator[str]:
    """The options of a parser and of its subcommands, without dashes."""
    for action in parser._actions:
        yield from (option.removeprefix("--") for option in action.option_strings)
        for inner in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            yield from _options(inner)


def _dead_worker(error: BaseException) -> str | None:
    found = _DEAD_WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    if found[1] and found[1].startswith("Bus error"):  # what a process gets that writes where there is no room
        return (
            "a data worker was killed by a signal (Bus error): the memory that data workers share (/dev/shm) is full: "
            "give fewer data.num_workers, or more of it, and resume with --ckpt_path RUN/last.ckpt"
        )
    how = f"was killed by a signal ({found[1]})" if found[1] else "ended unexpectedly"
    return (
        f"a data worker {how}, as the system does where memory is full: give fewer data.num_workers or more memory, "
        "and resume from the last checkpoint with --ckpt_path RUN/last.ckpt"
    )


def _missing_rank(error: BaseException) -> str | None:
    found = _RANKS_THAT_CAME.search(str(error))
    if found is None:
        return None
    return (
        f"{found[1]} of {found[2]} ranks came to the start of the run within end_together.timeout_seconds: start the "
        "others too, with srun or torchrun, or see why they ended"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
