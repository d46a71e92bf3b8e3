"""The command `sluice`: turns words into calls of ``sluice.Client`` and answers into screens; it decides nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache


def main() -> None:
    """The entry point of the command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code, one of ``sluice.cli.exits``; never raises."""
    import typer

    from sluice.cli import exits

    try:
        code = _commands()(args=list(arguments), prog_name="sluice", standalone_mode=False)
    except typer.TyperException as error:
        return exits.report_usage(error)
    except (typer.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except Exception as error:
        return exits.report(error)
    return code if isinstance(code, int) else exits.OK


@cache
def _commands() -> Callable[..., object]:
    """The tree of commands; typer would build all of it anew for each command line."""
    from typer.main import get_command

    from sluice.cli.app import app

    return get_command(app)
