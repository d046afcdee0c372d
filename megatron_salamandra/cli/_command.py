"""How a command joins the command line: a help line, a model of its options, and what runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from megatron_salamandra.foundation.names import nearest

if TYPE_CHECKING:
    from megatron_salamandra.foundation.options import OptionsType


class CommandParser(argparse.ArgumentParser):
    """A parser whose arguments are added when it is first needed, so that no command waits for another's modules."""

    fill: Callable[[CommandParser], None] | None = None

    def parse_known_args(  # type: ignore[override]  # argparse types it for namespaces of any class
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does, of the arguments that the command has."""
        self.filled()
        name: str | None = self.get_default("after_dashes")
        if name is None or args is None:
            return super().parse_known_args(args, namespace)
        from megatron_salamandra.foundation.options import split_at_dashes

        before, after = split_at_dashes(args)
        found, rest = super().parse_known_args(before, namespace)
        setattr(found, name, after)
        return found, rest

    def format_help(self) -> str:
        """The help of the command, all its arguments included."""
        return super(CommandParser, self.filled()).format_help()

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """End with exit code 2 over words that the command does not know, and say which were probably meant."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        written = (word.partition("=")[0] for word in unknown if word.startswith("--"))
        near = [found for word in written if (found := nearest(word, flags)) is not None]
        hint = f"\n  did you mean {', '.join(near)}?" if near else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")

    def filled(self) -> CommandParser:
        """This parser, with its arguments."""
        if (fill := self.fill) is not None:
            self.fill = None
            fill(self)
        return self


Subparsers: TypeAlias = "argparse._SubParsersAction[CommandParser]"


def add_command(
    commands: Subparsers,
    name: str,
    options: Callable[[], type[OptionsType]],
    run: Callable[[OptionsType], int],
    *,
    text: str,
    description: str,
    epilog: str | None = None,
    before_queue: Callable[[OptionsType], None] | None = None,
) -> CommandParser:
    """Add one command.

    Args:
        options: gives the model of the command's options; called only when the command is chosen, so that it may
            import what is heavy.
        run: does the command and returns its exit code.
        text: the line in the list of commands.
        description, epilog: what ``--help`` of the command says above and below its options.
        before_queue: raises an error of the user's if the command cannot do its work: asked before it is put into a
            queue, so it must be quick and import nothing heavy.
    """

    # The module of options imports pydantic: not before it is needed, and not before `main` minds signals.
    def fill(parser: CommandParser) -> None:
        from megatron_salamandra.foundation.options import add_options

        add_options(parser, options())

    def read(arguments: argparse.Namespace) -> OptionsType:
        from megatron_salamandra.foundation.options import read_options

        return read_options(options(), arguments)

    def handle(arguments: argparse.Namespace) -> int:
        return run(read(arguments))

    def check(arguments: argparse.Namespace) -> None:
        given = read(arguments)
        if before_queue is not None:
            before_queue(given)

    parser = commands.add_parser(name, help=text, description=description, epilog=epilog)
    parser.fill = fill
    parser.set_defaults(command=parser, handler=handle, check=check)
    return parser
