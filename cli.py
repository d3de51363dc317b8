"""The ``untrigger`` command."""

from __future__ import annotations

import io
import sys

from . import __version__
from .errors.importing import importing
from .errors.interrupt import SAID, STATUS

with importing():
    from .command_line.duplicate_keys import check_said_once
    from .command_line.one_task import check_numbers, check_one_task
    from .command_line.text_arguments import check_is_text
    from .commands import COMMANDS, command
    from .contracts import UserMistake
    from .files.printable import printable
    from .nearest import meant

_LINES = "\n".join(f"  {name:<31}{description}" for name, description in COMMANDS.items())
USAGE = f"""\
usage: untrigger COMMAND [options]

Poison CLIP. Then make it forget.

  fit, validate, test, predict   LightningCLI on a config, for example
                                 untrigger fit --config configs/poisoned_clip/cifar10.yaml \\
                                   --data.train_shards 'train/{{00000..00019}}.tar' --data.zero_shot cifar10
{_LINES}

untrigger COMMAND --help says more of each, with an example.
"""
TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
_IN_A_CONFIG = (*TRAINER_COMMANDS, "bench", "check", "clean", "demo", "detect", "export", "shards")
"""Commands whose arguments become part of a config, which is text; but for ``shards sizes``."""


def run(arguments: list[str]) -> int:
    """Run a command.

    Returns:
        The exit code.

    Raises:
        UserMistake: If the user made one.
    """
    name = arguments[0] if arguments else "--help"
    check_said_once(arguments)
    if name in _IN_A_CONFIG and arguments[1:2] != ["sizes"]:
        check_is_text(arguments)
    if name in ("-h", "--help"):
        print(USAGE, end="")
    elif name == "--version":
        print(f"untrigger {__version__}")
    elif name in TRAINER_COMMANDS:
        check_numbers()
        with importing():
            from .command_line.lightning_cli import UntriggerCLI  # takes seconds to import
            from .command_line.own_modules import search_working_folder

        search_working_folder()  # after the libraries, which ask for much that need not be there
        # LightningCLI warns when it is given arguments beside those of the process, which it reads by itself.
        UntriggerCLI(None if arguments == sys.argv[1:] else arguments)
    elif name in COMMANDS:
        check_numbers()
        check_one_task(name)
        with importing():
            chosen = command(name)
        return chosen.run(f"untrigger {name}", arguments[1:])
    else:
        known = (*TRAINER_COMMANDS, *COMMANDS)
        raise UserMistake(f"unknown command {name!r}; there are {', '.join(known)}{meant(name, known)}")
    return 0


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
        from .errors.lines import user_message  # brings the parser along, which help alone does without

        message = user_message(error)
        if message is None:
            raise
        print(f"untrigger: error: {' '.join(printable(message).split())}", file=sys.stderr)
        sys.exit(2)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
