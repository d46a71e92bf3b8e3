"""What the exit code of every command means, and the one sentence on stderr that goes with it.

0    it worked, or the outcome is good
1    it ended badly: a job failed, a gate said FAIL, a rollout was rolled back, `doctor` found something
2    the command line or the input is wrong; `gate explain`: INCONCLUSIVE
3    it does not exist
4    no valid key, or the key lacks the role
5    the suite, or something it needs, is not available; the same command may work later
6    the state does not allow it, or somebody else changed it meanwhile
130  Ctrl-C
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from sluice.cli import screen

if TYPE_CHECKING:
    from kit.rpc.errors import Fault

OK = 0
FAILED = 1
INVALID = 2
NOT_FOUND = 3
DENIED = 4
UNAVAILABLE = 5
CONFLICT = 6
INTERRUPTED = 130

INCONCLUSIVE = 2

MAX_LINES = 8
#: What shows the resources of a kind.
LISTINGS = {
    "Dataset": "sluice dataset list",
    "DatasetVersion": "sluice dataset list",
    "Feed": "sluice dataset feed list",
    "Model": "sluice models list",
    "ModelVersion": "sluice models versions",
    "TrainingJob": "sluice jobs list",
    "Evaluation": "sluice eval list",
    "Endpoint": "sluice endpoints list",
    "Rollout": "sluice rollouts list",
    "ApiKey": "sluice keys list",
    "Project": "sluice projects list",
    "TaskType": "sluice tasks list",
}


def code_of(fault: Fault) -> int:
    """The exit code for a fault of the suite."""
    from kit.rpc import errors as kinds
    from sluice.errors import v1 as errors

    if fault.reason in (errors.ERROR_REASON_INVALID_ROWS, errors.ERROR_REASON_MESSAGE_TOO_LARGE):
        return INVALID
    table: dict[type[Fault], int] = {
        kinds.Invalid: INVALID,
        kinds.NotFound: NOT_FOUND,
        kinds.Denied: DENIED,
        kinds.Unauthenticated: DENIED,
        kinds.Unavailable: UNAVAILABLE,
        kinds.Exhausted: UNAVAILABLE,
        kinds.Unimplemented: UNAVAILABLE,
        kinds.AlreadyExists: CONFLICT,
        kinds.StateConflict: CONFLICT,
        kinds.Stale: CONFLICT,
    }
    return next((table[kind] for kind in type(fault).__mro__ if kind in table), FAILED)


def report(error: Exception) -> int:
    """Says on stderr what went wrong and returns the exit code; a traceback only with LOG_LEVEL=DEBUG."""
    from kit.rpc.errors import Fault

    if os.environ.get("LOG_LEVEL", "").upper() == "DEBUG":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, Fault):
        complain(sentence(error))
        return code_of(error)
    if isinstance(error, OSError) and error.strerror:
        complain(f"{error.filename or 'the system'}: {error.strerror}")
        return FAILED
    complain(f"a fault of the command line itself ({type(error).__name__}); LOG_LEVEL=DEBUG shows where")
    return FAILED


def report_usage(error: typer.TyperException) -> int:
    """Says what is wrong with the command line, or shows the help that was asked for by giving nothing."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return INVALID
    context = getattr(error, "ctx", None)
    hint = f"; `{context.command_path} --help` shows what there is" if context else ""
    complain(error.format_message().rstrip(".") + hint)
    return error.exit_code


def sentence(fault: Fault) -> str:
    """The message of a fault, and below it the fields that the message does not name."""
    from kit.rpc import errors as kinds

    said = fault.message
    if isinstance(fault, kinds.Unavailable) and "does not answer" in said:
        said += "; `sluice up` starts one here, `sluice doctor` looks for the cause"
    if isinstance(fault, kinds.NotFound) and fault.resource and said.endswith("does not exist"):
        kind = fault.resource[0]
        said += f"; `{LISTINGS[kind]}` shows what there is" if kind in LISTINGS else ""
    if isinstance(fault, kinds.Unauthenticated):
        said += "; `sluice doctor` shows which key is used"
    lines = [f"  {field}: {what}" for field, what in fault.violations if what not in fault.message]
    return "\n".join([said, *lines[:MAX_LINES]])


def complain(text: str) -> None:
    """`error: …` in red on stderr."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    said = Text.assemble(("error: ", "bold red"), (screen.plain(text), "red"))
    console.print(said, soft_wrap=not console.is_terminal)
