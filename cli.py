"""The ``untrigger`` command."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import io
import sys
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from . import __version__
from .interrupt import SAID, STATUS, ended_by_ctrl_c

with ended_by_ctrl_c():  # they bring torch along, which takes seconds
    from jsonargparse import DefaultHelpFormatter

    from .contracts import UserMistake
    from .mistakes import OneLineErrors, told_mistake
    from .nearest import meant
    from .printable import printable
    from .said_twice import check_said_once

USAGE = """\
usage: untrigger COMMAND [options]

Poison CLIP. Then make it forget.

  fit, validate, test, predict   LightningCLI on a config, for example
                                 untrigger fit --config configs/poisoned_clip/cifar10.yaml \\
                                   --data.train_shards 'train/{00000..00019}.tar' --data.zero_shot cifar10
  demo                           poison a small CLIP on generated data, clean it, measure both
  shards                         turn a CSV, an image folder or a torchvision data set into shards
  poison                         bake a poison plan into new shards
  check                          say whether a model of unknown origin, and its data, have a backdoor
  clean                          let a suspicious model unlearn its backdoor, and hand it back
  export                         hand a model back in the format of transformers or open_clip, with a model card
  bench                          run a grid of attacks and defences; its table, figures and report
  report                         make report.html from run folders

untrigger COMMAND --help tells more of each, with an example.
"""
TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
OTHER_COMMANDS = ("bench", "check", "clean", "demo", "export", "poison", "report", "shards")
_FLAGS = {
    "poison": {"preview": "write nothing but a contact sheet of the triggers: OUT/preview.png"},
    "check": {"invert": "with data, invert the trigger as well"},
}
_OPTIONAL = {"check": {"shards": "the pairs that it was trained on, as for --data.train_shards"}}


class _Help(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of an example."""


def run(arguments: list[str]) -> int:
    """Run a command.

    Returns:
        The exit code.

    Raises:
        UserMistake: If the user made one.
    """
    name = arguments[0] if arguments else "--help"
    check_said_once(arguments)
    if name in ("-h", "--help"):
        print(USAGE, end="")
    elif name == "--version":
        print(f"untrigger {__version__}")
    elif name in TRAINER_COMMANDS:
        with ended_by_ctrl_c():
            from .lightning_cli import UntriggerCLI  # takes seconds to import
            from .own_modules import search_working_folder

        search_working_folder()  # after the libraries, which ask for much that need not be there
        # LightningCLI warns when it is given arguments beside those of the process, which it reads by itself.
        UntriggerCLI(None if arguments == sys.argv[1:] else arguments)
    elif name in OTHER_COMMANDS:
        return _run_other(name, arguments[1:])
    else:
        known = TRAINER_COMMANDS + OTHER_COMMANDS
        raise UserMistake(f"unknown command {name!r}; there are {', '.join(known)}{meant(name, known)}")
    return 0


def _run_other(name: str, arguments: list[str]) -> int:
    """Run a command that takes its options from its function's signature and its help from the docstring."""
    with ended_by_ctrl_c():
        from .commands import bench, check, clean, demo, export, poison, report, shards  # each brings torch along

    prog = f"untrigger {name}"
    if name == "shards":
        description = "Turn pictures and captions into shards.\n\nExample:\n    untrigger shards csv pairs.csv shards"
        parser = OneLineErrors(prog=prog, description=description, formatter_class=_Help)
        choices = parser.add_subcommands(dest="source")
        for source, function in shards.COMMANDS.items():
            choices.add_subcommand(source, _parser(function, f"{prog} {source}", as_positional=True))
        chosen = parser.parse_args(arguments)
        values, function = parser.instantiate(chosen)[chosen.source], shards.COMMANDS[chosen.source]
    elif name == "bench":
        function, grid = bench.bench, {field.name for field in dataclasses.fields(bench.BenchSpec)}
        parser = _parser(function, prog, skip={"spec"})
        parser.add_class_arguments(bench.BenchSpec)  # the grid's keys stand at the top of the file
        values = parser.instantiate(parser.parse_args(arguments))
        values.spec = bench.BenchSpec(**{key: values.pop(key) for key in grid})
    elif name in ("check", "clean", "export"):
        functions: dict[str, Callable[..., Any]] = {"check": check.check, "clean": clean.clean, "export": export.export}
        function = functions[name]
        parser = _parser(
            function, prog, as_positional=True, flags=_FLAGS.get(name, {}), optional=_OPTIONAL.get(name, {})
        )
        values = parser.instantiate(parser.parse_args(arguments))
    else:
        functions = {"demo": demo.demo, "poison": poison.poison, "report": report.report}
        function = functions[name]
        parser = _parser(function, prog, "runs" if name == "report" else None, flags=_FLAGS.get(name, {}))
        values = parser.instantiate(parser.parse_args(arguments))
    code = function(**{key: value for key, value in vars(values).items() if key != "config"})
    return code if isinstance(code, int) else 0


def _parser(
    function: Callable[..., Any],
    prog: str,
    positional: str | None = None,
    as_positional: bool = False,
    skip: Collection[str] = (),
    flags: Mapping[str, str] = MappingProxyType({}),
    optional: Mapping[str, str] = MappingProxyType({}),
) -> OneLineErrors:
    """A parser of a function's arguments, whose help has the docstring's example.

    Args:
        function: The command.
        prog: How it is called.
        positional: The one argument that takes the words that are no options.
        as_positional: Whether every required argument is positional.
        skip: Arguments that are added otherwise.
        flags: Switches that take no value, with their help.
        optional: Arguments that are positional but may be left out, with their help; they come last.
    """
    description = (inspect.getdoc(function) or "").partition("\nArgs:")[0]
    parser = OneLineErrors(prog=prog, description=description, formatter_class=_Help)
    parser.add_argument("--config", action="config", help="YAML file with these options")
    if positional is not None:
        parser.add_argument(positional, nargs="+", metavar=positional.removesuffix("s").upper(), help="run folder")
    for flag, told in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=told)
    settled: set[str | int] = {*skip, *flags, *optional, *([positional] if positional else [])}
    parser.add_function_arguments(function, as_positional=as_positional, skip=settled or None)
    for name, told in optional.items():
        parser.add_argument(name, nargs="?", default=None, help=told)
    return parser


def main() -> None:
    """Entry point: exit code 0 on success, 2 with one line on a mistake of the user's, 130 after Ctrl-C.

    A check of a suspicious model ends with 3.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not be text that the terminal can show
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        print(SAID, file=sys.stderr)
        sys.exit(STATUS)
    except Exception as error:
        told = told_mistake(error)
        if told is None:
            raise
        print(f"untrigger: error: {' '.join(printable(told).split())}", file=sys.stderr)
        sys.exit(2)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
