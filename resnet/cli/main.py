"""The command line: `python -m resnet COMMAND`. Nothing heavy is imported before a command runs."""

import argparse
import sys
from collections.abc import Callable

from resnet.cli import analyses, data, explain, nets, runs
from resnet.errors import Refused

ABOUT = "Profile, compare, export, train and explain residual nets and their plain twins, without the app."


def parser() -> argparse.ArgumentParser:
    """All commands; each one's `function` takes the parsed arguments and gives the exit code."""
    top = argparse.ArgumentParser(prog="python -m resnet", description=ABOUT)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[[argparse.Namespace], int], help_text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_text)
        added.set_defaults(function=function)
        return added

    for module in (nets, runs, analyses, explain, data):
        module.add(command)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 where it did what was asked, 1 where a training failed, 2 with a sentence on stderr."""
    args = parser().parse_args(argv)
    try:
        return args.function(args)
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
