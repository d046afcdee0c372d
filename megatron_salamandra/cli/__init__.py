"""The ``salamandra`` command.

Each group of commands is a module of this package with ``register(subparsers)``, which adds its commands: for each
a model of its options and a function from these to an exit code (``_command.add_command``). A module imports torch
only inside these functions.
"""

from __future__ import annotations

import argparse
import io
import os
import pkgutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn, cast

from megatron_salamandra import __version__
from megatron_salamandra.cli._command import CommandParser
from megatron_salamandra.foundation.errors import Notice, UserError
from megatron_salamandra.foundation.exit_codes import EXIT_FAILURE
from megatron_salamandra.foundation.signals import INTERRUPTED, Interruption

GROUPS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))

_PYTHONS_FORMAT = warnings.formatwarning


def build_parser(chosen: str | None = None) -> CommandParser:
    """The whole command line, or that of the ``chosen`` group alone, which need not wait for the others' modules."""
    parser = CommandParser(
        prog="salamandra",
        description="Prepare multilingual text, train on it with Megatron-Core, export and look at the result.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 75 stopped early with everything saved.",
    )
    parser.add_argument("--version", action="version", version=f"salamandra {__version__}")
    groups = parser.add_subparsers(title="groups", metavar="GROUP", required=True)
    for name in GROUPS if chosen is None else (chosen,):
        import_module(f"{__name__}.{name}").register(groups)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. What the user can mend is told without a traceback."""
    with Interruption(signal.SIGINT, tidy=False) as interruption:
        try:
            return _run(argv)
        except BaseException:
            if not interruption.arrived:
                raise
            print("\ninterrupted", file=sys.stderr)
            return INTERRUPTED


def command() -> NoReturn:
    """The whole work of a process: :func:`main`, then an end that a late Ctrl-C cannot turn into a failure.

    While the interpreter ends, its handlers are gone and a signal would kill a process that has done its work.
    """
    with Interruption(signal.SIGINT, tidy=False):
        try:
            code: int | str | None = main()
        except KeyboardInterrupt:
            code = INTERRUPTED
        except SystemExit as end:  # help and wrong usage
            code = end.code
        if code != INTERRUPTED:  # then what still runs may be what the user wants to be rid of
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _run(argv: Sequence[str] | None) -> int:
    warnings.formatwarning = _format_warning
    if isinstance(sys.stdout, io.TextIOWrapper) and (
        sys.stdout.errors == "strict" or sys.stdout.encoding.lower() not in ("utf-8", "utf8")
    ):
        # Documents may hold what the terminal's encoding lacks, and paths what no encoding has.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = parse_command(argv)
    handler = cast(Callable[[argparse.Namespace], int], arguments.handler)
    try:
        code = handler(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output (head, less) left. Give the interpreter's last flush somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILURE


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Our own warnings as one line; those of other packages as Python shows them."""
    if issubclass(category, Notice):
        return f"warning: {message}\n"
    return _PYTHONS_FORMAT(message, category, filename, lineno, line)


def parse_command(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and let ``key=value`` overrides also stand after options, which argparse does not.

    Returns:
        the arguments; ``handler`` runs the command with them, ``check`` says whether it could run.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words[0] if words and words[0] in GROUPS else None)
    arguments, rest = parser.parse_known_args(words)
    if not rest:
        return arguments
    name: str | None = getattr(arguments, "anywhere", None)
    command: CommandParser = getattr(arguments, "command", parser)
    if name is None or not all("=" in item and item[0] != "-" for item in rest):
        command.refuse(rest)
    setattr(arguments, name, [*getattr(arguments, name, ()), *rest])
    return arguments
