"""Declare a command by a function: its signature gives the options and their types, its docstring the help."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from docstring_parser import DocstringStyle, parse
from jsonargparse import DefaultHelpFormatter

from ..errors.lines import OneLineErrors

_HELP = frozenset({"-h", "--help"})


class _Help(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of an example."""


@dataclass(frozen=True)
class Command:
    """A command.

    Its module is imported for ``--help`` too: what takes seconds to import is imported by the function.

    Attributes:
        function: What it does. What it returns is the exit code, 0 unless it returns one.
        words: Positional arguments, given without ``--NAME``, and how often, as argparse's ``nargs``:
            None for once, ``?`` for at most once, ``+`` for once or more. Where there are any, every argument that has
            no default is one.
        switches: Arguments that are true where they are named, and take no value.
        unfolded: An argument that is a dataclass and whose fields are the options.
        imported_types: By name, arguments whose type takes seconds to import, and what imports it. Help has their
            description alone.
    """

    function: Callable[..., int | None]
    words: Mapping[str, str | None] = field(default_factory=dict)
    switches: Sequence[str] = ()
    unfolded: str | None = None
    imported_types: Mapping[str, Callable[[], Any]] = field(default_factory=dict)

    def run(self, prog: str, arguments: Sequence[str]) -> int:
        """Run it.

        Args:
            prog: How it is called, for its help.
            arguments: What the user gave after that.

        Returns:
            The exit code.
        """
        parser = self.parser(prog, for_help=not _HELP.isdisjoint(arguments))
        return self.call(parser.instantiate(parser.parse_args(list(arguments))))

    def parser(self, prog: str, for_help: bool = False) -> OneLineErrors:
        """A parser of the arguments, whose help has the docstring's example.

        Args:
            prog: How the command is called, for its help.
            for_help: Whether nothing is parsed but the option that prints the help, so that no type is imported.
        """
        doc = inspect.getdoc(self.function) or ""
        descriptions = {found.arg_name: found.description for found in parse(doc, DocstringStyle.GOOGLE).params}
        description = doc.partition("\nArgs:")[0]
        parser = OneLineErrors(prog=prog, description=description, formatter_class=_Help)
        parser.add_argument("--config", action="config", help="YAML file with these options")
        for name in self.switches:
            parser.add_argument(f"--{name}", action="store_true", help=descriptions[name])
        counted = {name: often for name, often in self.words.items() if often is not None}
        unfolded = [self.unfolded] if self.unfolded else []
        settled: set[str | int] = {*self.switches, *counted, *unfolded, *self.imported_types}
        parser.add_function_arguments(self.function, as_positional=bool(self.words), skip=settled or None)
        for name, often in counted.items():
            metavar = name.removesuffix("s").upper() if often == "+" else None
            parser.add_argument(name, nargs=often, metavar=metavar, help=descriptions[name])
        for name, imported in self.imported_types.items():
            kind = {} if for_help else {"type": imported()}
            parser.add_argument(f"--{name}", required=True, help=descriptions[name], **kind)
        if self.unfolded:
            parser.add_class_arguments(self._unfolded_class(self.unfolded))
        return parser

    def call(self, parsed: Any) -> int:
        """Call the function.

        Args:
            parsed: What the parser made of the arguments, instantiated.

        Returns:
            The exit code.
        """
        values = {name: value for name, value in vars(parsed).items() if name != "config"}
        if self.unfolded:
            kind = self._unfolded_class(self.unfolded)
            values[self.unfolded] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        return self.function(**values) or 0

    def _unfolded_class(self, name: str) -> type[Any]:
        kind: type[Any] = get_type_hints(self.function)[name]
        return kind


@dataclass(frozen=True)
class CommandGroup:
    """Commands of one name, distinguished by the word after it.

    Attributes:
        description: Its help, with an example.
        commands: By that word.
    """

    description: str
    commands: Mapping[str, Command]

    def run(self, prog: str, arguments: Sequence[str]) -> int:
        """Run one of them: see `Command.run`."""
        parser = OneLineErrors(prog=prog, description=self.description, formatter_class=_Help)
        choices = parser.add_subcommands(dest="chosen")
        for name, command in self.commands.items():
            choices.add_subcommand(name, command.parser(f"{prog} {name}"))
        chosen = parser.parse_args(list(arguments))
        return self.commands[chosen.chosen].call(parser.instantiate(chosen)[chosen.chosen])
